"""What this node heard announced: the newest valid state of each subject of each origin (§9.3)."""

import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.gossip.flood import Copy
from loopd.protocol.announcement import Announcement
from loopd.protocol.geo import Location
from loopd.protocol.subjects import HeardSubject, SubjectKind
from loopd.protocol.timestamps import format_timestamp

# Forgetting much at once would keep every other write waiting.
PRUNED_AT_ONCE = 1_000

# A page of the list, newest first; `:before` is the number of the last entry seen.
PAGE = """
SELECT h.*, m.best_ttl FROM heard h JOIN message m ON m.message_id = h.message_id
WHERE h.valid_until_ms > :now_ms AND h.heard_number < :before ORDER BY h.heard_number DESC LIMIT :limit
"""

# Told of a subject whose newest state was delivered, in the transaction of that.
HeardHook = Callable[[Tx, HeardSubject], None]


def nobody_listens(tx: Tx, subject: HeardSubject) -> None:
    """The hook where no other room wants to know."""


def deliver(tx: Tx, copy: Copy, now_ms: int) -> HeardSubject:
    """Take a copy as the newest state of its subject; the engine decided that it is. Gives what is known of it now."""
    announcement = copy.announcement
    place = announcement.location
    tx.execute(
        "INSERT OR REPLACE INTO heard (origin, subject, subject_kind, message_id, revision, issued_at_ms, available,"
        " category, quantity, unit, lat, lon, via, verified, received_at_ms, heard_number, valid_until_ms,"
        " state, available_from_ms, expires_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " (SELECT coalesce(max(heard_number), 0) + 1 FROM heard), ?, ?, ?, ?)",
        (
            copy.origin,
            announcement.subject,
            announcement.subject_kind.value,
            copy.message_id,
            announcement.revision,
            announcement.issued_at_ms,
            announcement.available,
            announcement.category,
            None if announcement.quantity is None else format(announcement.quantity, "f"),
            announcement.unit,
            None if place is None else place.lat,
            None if place is None else place.lon,
            copy.sender,
            copy.verified,
            now_ms,
            announcement.valid_until_ms,
            announcement.state,
            announcement.available_from_ms,
            announcement.expires_ms,
        ),
    )
    return _subject_of(announcement, copy)


class HeardSubjects:
    """The other modules' door to what was heard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def find(self, source: RowSource, subject_id: str) -> HeardSubject | None:
        """A subject as its newest valid announcement tells of it; a verified one before any other."""
        row = source.one(
            "SELECT * FROM heard WHERE subject = ? AND valid_until_ms > ?"
            " ORDER BY verified DESC, heard_number DESC LIMIT 1",
            (subject_id, self._clock.now_ms()),
        )
        return None if row is None else heard_subject(row)

    def of_category(self, source: RowSource, kind: SubjectKind, category: str, limit: int) -> list[HeardSubject]:
        """What was heard of a category and can be had, the newest first."""
        rows = source.all(
            "SELECT * FROM heard WHERE subject_kind = ? AND category = ? AND available = 1 AND valid_until_ms > ?"
            " ORDER BY heard_number DESC LIMIT ?",
            (kind.value, category, self._clock.now_ms(), limit),
        )
        return [heard_subject(row) for row in rows]


def heard_subject(row: sqlite3.Row) -> HeardSubject:
    """A row as the other rooms see it."""
    return HeardSubject(
        row["subject"],
        SubjectKind(row["subject_kind"]),
        row["origin"],
        row["message_id"],
        row["category"],
        None if row["quantity"] is None else Decimal(row["quantity"]),
        row["unit"],
        None if row["lat"] is None else Location(row["lat"], row["lon"]),
        bool(row["available"]),
        row["valid_until_ms"],
        bool(row["verified"]),
        row["state"],
        row["available_from_ms"],
        row["expires_ms"],
    )


def _subject_of(announcement: Announcement, copy: Copy) -> HeardSubject:
    return HeardSubject(
        announcement.subject,
        announcement.subject_kind,
        copy.origin,
        copy.message_id,
        announcement.category,
        announcement.quantity,
        announcement.unit,
        announcement.location,
        announcement.available,
        announcement.valid_until_ms,
        copy.verified,
        announcement.state,
        announcement.available_from_ms,
        announcement.expires_ms,
    )


def listed(row: sqlite3.Row) -> dict[str, Any]:
    """A row as the list shows it."""
    entry: dict[str, Any] = {
        "message_id": row["message_id"].hex(),
        "subject": row["subject"],
        "kind": row["subject_kind"],
        "origin": row["origin"],
        "available": bool(row["available"]),
        "ttl": row["best_ttl"],
        "via": row["via"],
        "verified": bool(row["verified"]),
        "received_at": format_timestamp(row["received_at_ms"]),
        "valid_until": format_timestamp(row["valid_until_ms"]),
    }
    if row["category"] is not None:
        entry["category"] = row["category"]
    if row["quantity"] is not None:
        entry["quantity"] = Decimal(row["quantity"])
    if row["unit"] is not None:
        entry["unit"] = row["unit"]
    if row["lat"] is not None:
        entry["location"] = {"lat": row["lat"], "lon": row["lon"]}
    return entry


def prune(tx: Tx, ended_before_ms: int) -> bool:
    """Forget messages and states whose validity ended before that moment; many of them in several calls.

    Whether more are left.
    """
    tx.execute("DELETE FROM held_message WHERE valid_until_ms < ?", (ended_before_ms,))
    forgotten = [
        tx.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE valid_until_ms < ? LIMIT ?)",
            (ended_before_ms, PRUNED_AT_ONCE),
        ).rowcount
        for table in ("heard", "message")
    ]
    return PRUNED_AT_ONCE in forgotten
