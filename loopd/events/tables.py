"""The event log's SQL; its tables are made by migration 0013."""

import sqlite3
from collections.abc import Collection
from typing import Protocol

from loopd.database import RowSource, Tx
from loopd.database.rows import Parameters
from loopd.events.rules import ALL_KINDS, Event, EventKind

_COLUMNS = "id, kind, subject, at_ms, data"


class Reader(Protocol):
    """Reads beside the writer: the database itself, or one of its snapshots."""

    async def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None: ...

    async def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]: ...


def insert(tx: Tx, kind: str, subject: str, at_ms: int, data: bytes) -> int:
    """Append an entry; gives its id."""
    cursor = tx.execute(
        "INSERT INTO event (kind, subject, at_ms, data) VALUES (?, ?, ?, ?)", (kind, subject, at_ms, data)
    )
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted event has no row id")
    return cursor.lastrowid


def newest_id(source: RowSource) -> int:
    """The highest id ever given; 0 before the first."""
    row = source.one("SELECT seq FROM sqlite_sequence WHERE name = 'event'")
    return 0 if row is None else int(row["seq"])


async def newest(reader: Reader, kinds: Collection[EventKind], before: int, limit: int) -> list[Event]:
    """Up to `limit` events of the kinds with a lower id than `before`, the newest first."""
    return await _page(reader, kinds, "id < ?", "DESC", before, limit)


async def after(reader: Reader, kinds: Collection[EventKind], after_id: int, limit: int) -> list[Event]:
    """Up to `limit` events of the kinds with a higher id than `after_id`, the oldest first."""
    return await _page(reader, kinds, "id > ?", "ASC", after_id, limit)


async def _page(
    reader: Reader, kinds: Collection[EventKind], bound: str, order: str, event_id: int, limit: int
) -> list[Event]:
    if len(kinds) == len(ALL_KINDS):
        sql = f"SELECT {_COLUMNS} FROM event WHERE {bound} ORDER BY id {order} LIMIT ?"
        rows = await reader.all(sql, (event_id, limit))
    else:
        # As much of each kind as the page could need, by its index: a rare kind costs no walk past the frequent ones.
        each = f"SELECT * FROM (SELECT {_COLUMNS} FROM event WHERE kind = ? AND {bound} ORDER BY id {order} LIMIT ?)"
        sql = f"{' UNION ALL '.join([each] * len(kinds))} ORDER BY id {order} LIMIT ?"
        parameters = [value for kind in kinds for value in (kind.value, event_id, limit)]
        rows = await reader.all(sql, (*parameters, limit)) if kinds else []
    return [Event(row["id"], EventKind(row["kind"]), row["subject"], row["at_ms"], row["data"]) for row in rows]


async def pruned_through(reader: Reader, kinds: Collection[EventKind]) -> int:
    """Up to which id an event of one of the kinds may be gone; 0 where none is."""
    rows = await reader.all("SELECT kind, through_id FROM event_pruned")
    return max((row["through_id"] for row in rows if row["kind"] in kinds), default=0)


async def prunable_through(reader: Reader, kind: EventKind, keep: int, before_ms: int, at_once: int) -> int:
    """Up to which id events of a kind are to go: those beyond the newest `keep`, and of the oldest `at_once` those
    from before a moment. 0 where none is.
    """
    beyond = await reader.one(
        "SELECT id FROM event WHERE kind = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (kind.value, keep)
    )
    old = await reader.one(
        "SELECT max(id) AS id FROM (SELECT id, at_ms FROM event WHERE kind = ? ORDER BY id LIMIT ?) WHERE at_ms < ?",
        (kind.value, at_once, before_ms),
    )
    return max(0 if row is None or row["id"] is None else int(row["id"]) for row in (beyond, old))


def prune(tx: Tx, kind: EventKind, through_id: int, at_once: int) -> bool:
    """Forget events of a kind up to that id, the oldest first and a piece of them. Whether more are left."""
    last = tx.one(
        "SELECT max(id) AS id, count(*) AS count FROM (SELECT id FROM event WHERE kind = ? AND id <= ?"
        " ORDER BY id LIMIT ?)",
        (kind.value, through_id, at_once),
    )
    if last is None or last["id"] is None:
        return False
    tx.execute("DELETE FROM event WHERE kind = ? AND id <= ?", (kind.value, last["id"]))
    tx.execute(
        "INSERT INTO event_pruned (kind, through_id) VALUES (?, ?)"
        " ON CONFLICT (kind) DO UPDATE SET through_id = max(through_id, excluded.through_id)",
        (kind.value, last["id"]),
    )
    return bool(last["count"] == at_once)
