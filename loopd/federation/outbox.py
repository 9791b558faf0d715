"""The outbox: one durable log of what is to be sent, and a cursor in it for each node.

An entry is either a copy of an announcement, meant for every peer (who of them gets it is decided when it is sent), or
a request for one node. The log is written in the transaction of what caused it; a node's cursor passes an entry when
that node took it, refused it for good, or need not have it. So a crash repeats at most what was in flight, and the
receiver knows a repeat. A peer that is down costs its cursor, nothing else.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from loopd.database.writer import Tx

# How many entries of one node are looked at together; a batch is in flight at once.
BATCH_ENTRIES = 8

# Forgetting much at once would keep every other write waiting.
PRUNED_AT_ONCE = 1_000

# Entries that a node answers with an error of its own stand aside and are tried again on their own schedule. When that
# many do, the log itself waits for the node.
ASIDE_MAX = 1_000
ASIDE_RETRY_FIRST_MS = 5_000
ASIDE_RETRY_MAX_MS = 600_000


@dataclass(frozen=True, slots=True)
class FloodEntry:
    """A copy of an announcement as it goes to a peer; `ttl` and `hop_value` are those of the outgoing copy."""

    entry: int
    message_id: bytes
    came_from: str | None
    ttl: int
    hop_value: bytes | None
    origin: str
    origin_timestamp: str
    origin_signature: str
    body: bytes
    subject: str
    subject_kind: str
    radius_km: float | None
    origin_lat: float | None
    origin_lon: float | None
    expires_at_ms: int
    # A newer copy of the same message, or a newer state of the same subject, follows in the log.
    outdated: bool


@dataclass(frozen=True, slots=True)
class RequestEntry:
    """A request for one node; `reference` tells the module that queued it which one was answered."""

    entry: int
    target: str
    path: str
    body: bytes
    reference: str
    expires_at_ms: int


Entry = FloodEntry | RequestEntry

_SELECT = """
SELECT o.*, m.origin, m.origin_timestamp, m.origin_signature, m.body AS message_body, m.subject, m.subject_kind,
       m.radius_km, m.origin_lat, m.origin_lon,
       EXISTS (SELECT 1 FROM outbox later WHERE later.message_id = o.message_id AND later.entry > o.entry)
       OR EXISTS (SELECT 1 FROM heard h WHERE h.origin = m.origin AND h.subject = m.subject
                  AND h.message_id <> m.message_id)
       OR EXISTS (SELECT 1 FROM own_announcement a WHERE m.origin = :own AND a.subject = m.subject
                  AND a.message_id <> m.message_id) AS outdated
FROM outbox o LEFT JOIN message m ON m.message_id = o.message_id
"""
FLOODS_AFTER_CURSOR = (
    _SELECT
    + """
WHERE m.message_id IS NOT NULL
  AND o.entry > coalesce((SELECT flood_entry FROM outbox_cursor WHERE node_id = :node), 0)
ORDER BY o.entry LIMIT :limit
"""
)
# What follows a place in the log, for a link. `repeated`: an earlier entry is of the same message.
FLOODS_AFTER = f"""
SELECT waiting.*, EXISTS (SELECT 1 FROM outbox earlier WHERE earlier.message_id = waiting.message_id
                          AND earlier.entry < waiting.entry) AS repeated
FROM ({_SELECT} WHERE m.message_id IS NOT NULL AND o.entry > :after ORDER BY o.entry LIMIT :limit) waiting
ORDER BY waiting.entry
"""
REQUESTS_AFTER_CURSOR = (
    _SELECT
    + """
WHERE o.target = :node
  AND o.entry > coalesce((SELECT request_entry FROM outbox_cursor WHERE node_id = :node), 0)
ORDER BY o.entry LIMIT :limit
"""
)
ASIDE_DUE = (
    _SELECT
    + """
JOIN outbox_aside s ON s.entry = o.entry AND s.node_id = :node
WHERE (s.next_attempt_at_ms <= :now_ms OR s.next_attempt_at_ms > :now_ms + :retry_max_ms)
  AND (o.target IS NOT NULL OR m.message_id IS NOT NULL)
ORDER BY s.next_attempt_at_ms LIMIT :limit
"""
)
# Whether anything addressed to `:node` alone waits, in the log or beside it.
HAS_REQUESTS = """
SELECT 1 FROM outbox o WHERE o.target = :node
  AND o.entry > coalesce((SELECT request_entry FROM outbox_cursor WHERE node_id = :node), 0)
UNION ALL SELECT 1 FROM outbox_aside WHERE node_id = :node LIMIT 1
"""
# How much waits for each node that is or asks to be a peer; floods, which are for peers, counted up to 1,000.
QUEUE_LENGTHS = """
SELECT n.node_id,
       (SELECT count(*) FROM (SELECT 1 FROM outbox o WHERE n.standing = 'peer' AND o.target IS NULL
            AND o.entry > coalesce(c.flood_entry, 0) LIMIT 1000))
     + (SELECT count(*) FROM outbox o WHERE o.target = n.node_id AND o.entry > coalesce(c.request_entry, 0))
     + (SELECT count(*) FROM outbox_aside s WHERE s.node_id = n.node_id) AS waiting
FROM node n LEFT JOIN outbox_cursor c ON c.node_id = n.node_id WHERE n.standing <> 'introduced'
"""


def entry_of(row: sqlite3.Row) -> Entry:
    """A row of the log as the sender works on it."""
    if row["target"] is not None:
        return RequestEntry(
            row["entry"], row["target"], row["path"], row["body"], row["reference"], row["expires_at_ms"]
        )
    return FloodEntry(
        row["entry"],
        row["message_id"],
        row["came_from"],
        row["ttl"],
        row["hop_value"],
        row["origin"],
        row["origin_timestamp"],
        row["origin_signature"] or "",
        row["message_body"],
        row["subject"],
        row["subject_kind"],
        row["radius_km"],
        row["origin_lat"],
        row["origin_lon"],
        row["expires_at_ms"],
        bool(row["outdated"]),
    )


class Outbox:
    """The door to the log. `wake` is called on the event loop after a commit, with the node or None for all peers."""

    def __init__(self, wake: Callable[[str | None], None]) -> None:
        self._wake = wake

    def flood(
        self,
        tx: Tx,
        message_id: bytes,
        came_from: str | None,
        ttl: int,
        hop_value: bytes | None,
        expires_at_ms: int,
    ) -> None:
        """Queue a copy of a stored announcement for every peer but the one it came from."""
        tx.execute(
            "INSERT INTO outbox (message_id, came_from, ttl, hop_value, expires_at_ms) VALUES (?, ?, ?, ?, ?)",
            (message_id, came_from, ttl, hop_value, expires_at_ms),
        )
        tx.after_commit(lambda: self._wake(None))

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        """Queue a POST of `body` to `path` (from `/api/v1` on) of one known node."""
        tx.execute(
            "INSERT INTO outbox (target, path, body, expires_at_ms, reference) VALUES (?, ?, ?, ?, ?)",
            (target, path, body, expires_at_ms, reference),
        )
        tx.after_commit(lambda: self._wake(target))


def advance_floods(tx: Tx, node_id: str, entry: int) -> None:
    """The node is done with every flood up to this entry. Nothing happens where it was removed meanwhile."""
    tx.execute(
        "INSERT INTO outbox_cursor (node_id, flood_entry) SELECT node_id, ? FROM node WHERE node_id = ?"
        " ON CONFLICT (node_id) DO UPDATE SET flood_entry = max(flood_entry, excluded.flood_entry)",
        (entry, node_id),
    )


def advance_requests(tx: Tx, node_id: str, entry: int) -> None:
    """The node is done with every request for it up to this entry."""
    tx.execute(
        "INSERT INTO outbox_cursor (node_id, request_entry) SELECT node_id, ? FROM node WHERE node_id = ?"
        " ON CONFLICT (node_id) DO UPDATE SET request_entry = max(request_entry, excluded.request_entry)",
        (entry, node_id),
    )


def set_aside(tx: Tx, node_id: str, entry: int, now_ms: int) -> bool:
    """Let an entry wait beside the log, longer each time. False where too many wait there for this node."""
    row = tx.one("SELECT attempts FROM outbox_aside WHERE node_id = ? AND entry = ?", (node_id, entry))
    if row is None:
        aside = tx.one("SELECT count(*) AS entries FROM outbox_aside WHERE node_id = ?", (node_id,))
        if aside is not None and aside["entries"] >= ASIDE_MAX:
            return False
    attempts = 1 if row is None else row["attempts"] + 1
    delay_ms = min(ASIDE_RETRY_MAX_MS, ASIDE_RETRY_FIRST_MS * 2 ** min(attempts - 1, 10))
    # Either may be gone: the node removed by the operator, the entry by its end.
    tx.execute(
        "INSERT INTO outbox_aside (node_id, entry, attempts, next_attempt_at_ms)"
        " SELECT n.node_id, o.entry, ?, ? FROM node n, outbox o WHERE n.node_id = ? AND o.entry = ?"
        " ON CONFLICT (node_id, entry) DO UPDATE SET attempts = excluded.attempts,"
        " next_attempt_at_ms = excluded.next_attempt_at_ms",
        (attempts, now_ms + delay_ms, node_id, entry),
    )
    return True


def settle_aside(tx: Tx, node_id: str, entry: int) -> None:
    """An entry that stood aside is done with."""
    tx.execute("DELETE FROM outbox_aside WHERE node_id = ? AND entry = ?", (node_id, entry))


def holds(tx: Tx, entry: int) -> bool:
    """Whether an entry is still in the log."""
    return tx.one("SELECT 1 FROM outbox WHERE entry = ?", (entry,)) is not None


def end_requests(tx: Tx, now_ms: int) -> list[str]:
    """Take requests whose time is over out of the log; the references of those that were never answered."""
    return _end(tx, "o.target IS NOT NULL AND o.expires_at_ms <= ?", now_ms)


def forget_target(tx: Tx, node_id: str) -> list[str]:
    """Take every request for a node out of the log, before the node goes; the references of the unanswered ones."""
    ended = []
    while more := _end(tx, "o.target = ?", node_id):
        ended += more
    tx.execute("DELETE FROM outbox WHERE target = ?", (node_id,))
    return ended


def _end(tx: Tx, condition: str, parameter: int | str) -> list[str]:
    rows = tx.all(
        "SELECT o.entry, o.reference, o.entry > coalesce(c.request_entry, 0)"
        " OR EXISTS (SELECT 1 FROM outbox_aside s WHERE s.entry = o.entry) AS waiting"
        " FROM outbox o LEFT JOIN outbox_cursor c ON c.node_id = o.target"
        f" WHERE {condition} ORDER BY waiting DESC, o.entry LIMIT ?",
        (parameter, PRUNED_AT_ONCE),
    )
    tx.executemany("DELETE FROM outbox WHERE entry = ?", [(row["entry"],) for row in rows])
    return [row["reference"] for row in rows if row["waiting"]]


def prune(tx: Tx, now_ms: int) -> bool:
    """Forget copies whose message has ended; many of them in several calls. Whether more are left."""
    forgotten = tx.execute(
        "DELETE FROM outbox WHERE entry IN (SELECT entry FROM outbox"
        " WHERE expires_at_ms <= ? AND message_id IS NOT NULL ORDER BY expires_at_ms LIMIT ?)",
        (now_ms, PRUNED_AT_ONCE),
    )
    return forgotten.rowcount == PRUNED_AT_ONCE
