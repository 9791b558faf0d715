"""Why a message is, or is not, where it should be: every decision on it, written down beside what it changed.

A decision on a copy rides in the transaction of that copy, one on a peer in the transaction that moves the peer's
cursor. The same decision again is counted, not added, and the oldest make room: see docs/gossip.md, Explain.
"""

import re
import sqlite3
from typing import Any, Final

from loopd.database.readers import Reader
from loopd.database.writer import Tx
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import ANNOUNCEMENT_MAX_VALIDITY_MS, EXPLAINED_DECISIONS_MAX, SEEN_GRACE_MS
from loopd.protocol.timestamps import format_timestamp

# What is said of a copy that a peer took.
TAKEN: Final = "taken"
PREFIX_MIN_CHARACTERS: Final = 8
PRUNED_AT_ONCE: Final = 1_000
# As long as a message can be valid, and its id be remembered.
KEPT_MS: Final = ANNOUNCEMENT_MAX_VALIDITY_MS + SEEN_GRACE_MS

_ID: Final = re.compile(rf"[0-9a-f]{{{PREFIX_MIN_CHARACTERS},64}}", re.ASCII)
_CANDIDATES: Final = """
SELECT message_id FROM message WHERE message_id BETWEEN :low AND :high
UNION SELECT message_id FROM decision WHERE message_id BETWEEN :low AND :high
ORDER BY message_id LIMIT :limit
"""
_CANDIDATES_SHOWN: Final = 10
_MESSAGE: Final = """
SELECT m.*, EXISTS (SELECT 1 FROM heard h WHERE h.message_id = m.message_id)
         OR EXISTS (SELECT 1 FROM own_announcement a WHERE a.message_id = m.message_id) AS newest
FROM message m WHERE m.message_id = ?
"""
_DECISIONS: Final = "SELECT * FROM decision WHERE message_id = ? ORDER BY first_at_ms, number"
# Peers whose cursor has not passed the message's last entry yet, or for whom that entry stands aside.
_WAITING: Final = """
SELECT n.node_id, o.ttl, s.next_attempt_at_ms FROM outbox o, node n
LEFT JOIN outbox_cursor c ON c.node_id = n.node_id
LEFT JOIN outbox_aside s ON s.node_id = n.node_id AND s.entry = o.entry
WHERE o.entry = (SELECT max(entry) FROM outbox WHERE message_id = ?) AND n.standing = 'peer'
  AND (o.entry > coalesce(c.flood_entry, 0) OR s.entry IS NOT NULL)
ORDER BY n.node_id
"""


def copy_came(tx: Tx, message_id: bytes, peer: str, ttl: int | None, reason: str, now_ms: int) -> None:
    """A copy came from a peer, with that TTL (None: it showed none), and this was decided on it."""
    _write(tx, message_id, "in", peer, ttl or 0, reason, 0, now_ms)


def peer_settled(tx: Tx, message_id: bytes, peer: str, ttl: int, reason: str, status: int, now_ms: int) -> None:
    """A copy with that TTL went to a peer, which answered so; or it need not go there, with status 0."""
    _write(tx, message_id, "out", peer, ttl, reason, status, now_ms)


def _write(
    tx: Tx, message_id: bytes, direction: str, peer: str, ttl: int, reason: str, status: int, now_ms: int
) -> None:
    tx.execute(
        "INSERT INTO decision (message_id, direction, peer, ttl, reason, status, first_at_ms, last_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id, direction, peer, ttl, reason) DO UPDATE SET"
        " status = excluded.status, last_at_ms = excluded.last_at_ms, times = times + 1",
        (message_id, direction, peer, ttl, reason, status, now_ms, now_ms),
    )


def prune(tx: Tx, now_ms: int) -> bool:
    """Forget decisions that are old or too many; many of them in several calls. Whether more are left."""
    beyond = tx.execute(
        "DELETE FROM decision WHERE number IN (SELECT number FROM decision"
        " WHERE number <= (SELECT max(number) FROM decision) - ? ORDER BY number LIMIT ?)",
        (EXPLAINED_DECISIONS_MAX, PRUNED_AT_ONCE),
    )
    old = tx.execute(
        "DELETE FROM decision WHERE last_at_ms < ? AND number IN (SELECT number FROM decision ORDER BY number LIMIT ?)",
        (now_ms - KEPT_MS, PRUNED_AT_ONCE),
    )
    return PRUNED_AT_ONCE in (beyond.rowcount, old.rowcount)


async def explanation(reader: Reader, text: str, own_node_id: str, now_ms: int) -> dict[str, Any]:
    """All that is known of the message with that id, or whose id alone begins so.

    Invalid `bad_message_id`, NotFound `unknown_message`, Conflict `ambiguous_message_id`.
    """
    message_id = await _find(reader, text)
    message = await reader.one(_MESSAGE, (message_id,))
    decisions = await reader.all(_DECISIONS, (message_id,))
    waiting = await reader.all(_WAITING, (message_id,))
    waits_for = {row["node_id"] for row in waiting}
    held = {"held": False} if message is None else _message(message, own_node_id, now_ms)
    settled = [_settled(row) for row in _last_of_each(decisions) if row["peer"] not in waits_for]
    return {
        "message_id": message_id.hex(),
        **held,
        "copies": [_copy(row) for row in decisions if row["direction"] == "in"],
        "peers": sorted([*settled, *map(_waiting, waiting)], key=lambda entry: str(entry["peer"])),
    }


async def _find(reader: Reader, text: str) -> bytes:
    prefix = text.lower()
    if _ID.fullmatch(prefix) is None:
        raise Invalid("bad_message_id", f"a message id is 64 hex digits; at least {PREFIX_MIN_CHARACTERS} find it")
    low, high = bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))
    rows = await reader.all(_CANDIDATES, {"low": low, "high": high, "limit": _CANDIDATES_SHOWN})
    if not rows:
        raise NotFound("unknown_message", "nothing is known of a message with this id")
    if len(rows) > 1:
        found = [row["message_id"].hex() for row in rows]
        raise Conflict("ambiguous_message_id", "several messages' ids begin so", {"message_ids": found})
    only: bytes = rows[0]["message_id"]
    return only


def _message(row: sqlite3.Row, own_node_id: str, now_ms: int) -> dict[str, Any]:
    body = read_json(row["body"])
    known = {key: body[key] for key in ("available", "state", "revision") if isinstance(body, dict) and key in body}
    return {
        "held": True,
        "origin": row["origin"],
        "own": row["origin"] == own_node_id,
        "subject": row["subject"],
        "kind": row["subject_kind"],
        **known,
        "newest": bool(row["newest"]),
        "expired": row["valid_until_ms"] <= now_ms,
        "radius_km": row["radius_km"],
        "best_ttl": row["best_ttl"],
        "received_at": format_timestamp(row["received_at_ms"]),
        "valid_until": format_timestamp(row["valid_until_ms"]),
    }


def _copy(row: sqlite3.Row) -> dict[str, Any]:
    entry = {"peer": row["peer"], "ttl": row["ttl"] or None, "reason": row["reason"]}
    return entry | {
        "first_at": format_timestamp(row["first_at_ms"]),
        "last_at": format_timestamp(row["last_at_ms"]),
        "times": row["times"],
    }


def _last_of_each(decisions: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """What was decided last for each peer: of copies with several TTLs, the newest counts."""
    last: dict[str, sqlite3.Row] = {}
    for row in decisions:
        known = last.get(row["peer"])
        if row["direction"] == "out" and (known is None or row["last_at_ms"] >= known["last_at_ms"]):
            last[row["peer"]] = row
    return list(last.values())


def _settled(row: sqlite3.Row) -> dict[str, Any]:
    status = row["status"]
    outcome = "not_sent" if status == 0 else "sent" if status < 300 else "refused"
    return {
        "peer": row["peer"],
        "outcome": outcome,
        "reason": row["reason"],
        "status": status or None,
        "ttl": row["ttl"],
        "at": format_timestamp(row["last_at_ms"]),
    }


def _waiting(row: sqlite3.Row) -> dict[str, Any]:
    next_ms = row["next_attempt_at_ms"]
    return {
        "peer": row["node_id"],
        "outcome": "waiting",
        "reason": "queued" if next_ms is None else "set_aside",
        "status": None,
        "ttl": row["ttl"],
        "at": None if next_ms is None else format_timestamp(next_ms),
    }
