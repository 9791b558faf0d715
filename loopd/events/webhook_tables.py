"""The webhooks' SQL; their table is made by migration 0013."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from loopd.database import RowSource, Tx
from loopd.events.rules import EventKind, kinds_named
from loopd.events.webhook_rules import DisabledReason, Standing

_COLUMNS = (
    "id, url, kinds, secret, former_secret, former_until_ms, created_at_ms, cursor, gap_told_through, failures,"
    " failing_since_ms, next_attempt_at_ms, last_error, last_success_at_ms, disabled_reason, disabled_at_ms"
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint that is told of events, and how far it has been told.

    `kinds` are the names of the filter. All events of its kinds up to `cursor` were delivered or are forgotten;
    `gap_told_through` is the last forgotten one that it was told of.
    """

    number: int
    url: str
    kinds: tuple[str, ...]
    secret: bytes = field(repr=False)
    former_secret: bytes | None = field(repr=False)
    former_until_ms: int
    created_at_ms: int
    cursor: int
    gap_told_through: int
    last_success_at_ms: int | None
    disabled_at_ms: int | None
    standing: Standing

    def secrets(self, now_ms: int) -> Sequence[bytes]:
        """What a message is signed with now: the former secret too, as long as receivers may still have it."""
        former = self.former_secret
        return [self.secret] if former is None or now_ms >= self.former_until_ms else [self.secret, former]

    @property
    def event_kinds(self) -> frozenset[EventKind]:
        """The kinds that it is told of."""
        return kinds_named(self.kinds)


def insert(tx: Tx, url: str, kinds: Sequence[str], secret: bytes, cursor: int, now_ms: int) -> int:
    """Add a webhook that is told of what follows the event `cursor`; gives its number."""
    added = tx.execute(
        "INSERT INTO webhook (url, kinds, secret, cursor, created_at_ms) VALUES (?, ?, ?, ?, ?)",
        (url, " ".join(kinds), secret, cursor, now_ms),
    )
    if added.lastrowid is None:
        raise RuntimeError("an inserted webhook has no row id")
    return added.lastrowid


def count(source: RowSource) -> int:
    """How many there are."""
    row = source.one("SELECT count(*) AS count FROM webhook")
    return 0 if row is None else int(row["count"])


def find(source: RowSource, number: int) -> Webhook | None:
    """The webhook of a number, or None."""
    row = source.one(f"SELECT {_COLUMNS} FROM webhook WHERE id = ?", (number,))
    return None if row is None else _webhook(row)


def every(source: RowSource) -> list[Webhook]:
    """All of them, bounded by WEBHOOKS_MAX, the oldest first."""
    return [_webhook(row) for row in source.all(f"SELECT {_COLUMNS} FROM webhook ORDER BY id")]


def delete(tx: Tx, number: int) -> None:
    tx.execute("DELETE FROM webhook WHERE id = ?", (number,))


def set_secret(tx: Tx, webhook: Webhook, secret: bytes, former_until_ms: int) -> None:
    """Give a webhook a new secret; the one of before signs beside it until that moment."""
    tx.execute(
        "UPDATE webhook SET secret = ?, former_secret = ?, former_until_ms = ? WHERE id = ?",
        (secret, webhook.secret, former_until_ms, webhook.number),
    )


def save_standing(tx: Tx, number: int, standing: Standing, now_ms: int) -> None:
    """Store how deliveries go after a failure, or after the operator's wish to begin again."""
    disabled = standing.disabled
    tx.execute(
        "UPDATE webhook SET failures = ?, failing_since_ms = ?, next_attempt_at_ms = ?, last_error = ?,"
        " disabled_reason = ?, disabled_at_ms = ? WHERE id = ?",
        (
            standing.failures,
            standing.failing_since_ms,
            standing.next_attempt_at_ms,
            standing.last_error,
            None if disabled is None else disabled.value,
            None if disabled is None else now_ms,
            number,
        ),
    )


def delivered(tx: Tx, number: int, cursor: int, gap_told_through: int, now_ms: int) -> None:
    """A message was taken: the next one is that after `cursor`, and what failed before is forgotten."""
    tx.execute(
        "UPDATE webhook SET cursor = ?, gap_told_through = ?, last_success_at_ms = ?, failures = 0,"
        " failing_since_ms = NULL, next_attempt_at_ms = 0, last_error = NULL WHERE id = ?",
        (cursor, gap_told_through, now_ms, number),
    )


def move_cursor(tx: Tx, number: int, cursor: int) -> None:
    """Go on after another event, as when the log is that of another life of the node."""
    tx.execute("UPDATE webhook SET cursor = ?, gap_told_through = 0 WHERE id = ?", (cursor, number))


def _webhook(row: sqlite3.Row) -> Webhook:
    disabled = row["disabled_reason"]
    return Webhook(
        number=row["id"],
        url=row["url"],
        kinds=tuple(row["kinds"].split(" ")),
        secret=row["secret"],
        former_secret=row["former_secret"],
        former_until_ms=row["former_until_ms"],
        created_at_ms=row["created_at_ms"],
        cursor=row["cursor"],
        gap_told_through=row["gap_told_through"],
        last_success_at_ms=row["last_success_at_ms"],
        disabled_at_ms=row["disabled_at_ms"],
        standing=Standing(
            row["failures"],
            row["failing_since_ms"],
            row["next_attempt_at_ms"],
            row["last_error"],
            None if disabled is None else DisabledReason(disabled),
        ),
    )
