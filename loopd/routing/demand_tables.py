"""Demand's SQL: what is looked for, by whom, what it was matched with, and which peer was told."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from loopd.database import Reader, RowSource, Tx
from loopd.protocol.geo import Location
from loopd.protocol.limits import DEMAND_MATCHES_MAX, DEMANDS_PER_PEER_MAX
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.registry.rules import base_quantity_text
from loopd.routing.demands import Demand, DemandState, Supply, patterns_for

# Candidates that are read at a time; the rest of them only if that many were not enough.
_CANDIDATES = 500


@dataclass(frozen=True, slots=True)
class Match:
    """A supply that fits a demand; `available`: it still did when it last changed."""

    demand: int
    node_id: str
    subject_id: str
    kind: SubjectKind
    available: bool
    ends_ms: int | None
    matched_at_ms: int


def insert(tx: Tx, demand: Demand) -> int:
    """Keep a new demand and give its number; that of the argument counts for nothing."""
    quantity, location = demand.quantity, demand.location
    south, north = demand.latitudes
    cursor = tx.execute(
        """INSERT INTO demand (demand_id, node, own, verified, wanted_by, kind, pattern, quantity, unit, dimension,
            base_quantity, max_price_minor, radius_km, lat, lon, south, north, issued_at_ms, valid_until_ms, state,
            version, changed_at_ms, change_number)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            demand.demand_id,
            demand.node_id,
            demand.own,
            demand.verified,
            demand.wanted_by,
            demand.kind.value,
            demand.pattern,
            str(quantity.value),
            quantity.unit,
            quantity.dimension.value,
            base_quantity_text(quantity),
            demand.max_price_minor,
            None if demand.radius_km is None else str(demand.radius_km),
            None if location is None else location.lat,
            None if location is None else location.lon,
            south,
            north,
            demand.issued_at_ms,
            demand.valid_until_ms,
            demand.state.value,
            demand.version,
            demand.changed_at_ms,
            _next_change(tx) if demand.own else None,
        ),
    )
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted row has a number")
    return cursor.lastrowid


def change_state(tx: Tx, demand: Demand, state: DemandState, version: int, now_ms: int) -> None:
    """Move a demand to another state. Of an own one peers are to be told, unless its time is over as they know."""
    tell = demand.own and state is not DemandState.EXPIRED
    tx.execute(
        "UPDATE demand SET state = ?, version = ?, changed_at_ms = ?, change_number = coalesce(?, change_number)"
        " WHERE number = ?",
        (state.value, version, now_ms, _next_change(tx) if tell else None, demand.number),
    )


def delete(tx: Tx, number: int) -> None:
    """Forget a demand with its matches."""
    tx.execute("DELETE FROM demand WHERE number = ?", (number,))


def _next_change(tx: Tx) -> int:
    # Above what any peer was told, too: the demand of that change may be forgotten by now.
    row = tx.one(
        "SELECT max(coalesce((SELECT max(change_number) FROM demand), 0),"
        " coalesce((SELECT max(change_number) FROM demand_cursor), 0)) + 1 AS change_number"
    )
    return 1 if row is None else int(row["change_number"])


def find(source: RowSource, node_id: str, demand_id: str) -> Demand | None:
    """The demand of a node under its id."""
    row = source.one("SELECT * FROM demand WHERE node = ? AND demand_id = ?", (node_id, demand_id))
    return None if row is None else demand_of(row)


def count_open(source: RowSource) -> int:
    """How many demands of this city are open, expired ones included."""
    row = source.one("SELECT count(*) AS demands FROM demand WHERE own = 1 AND state = 'open'")
    return 0 if row is None else int(row["demands"])


def keep_newest_of(tx: Tx, node_id: str) -> None:
    """Forget what a peer looks for beyond the newest DEMANDS_PER_PEER_MAX of its demands."""
    tx.execute(
        """DELETE FROM demand WHERE node = ? AND number <=
            (SELECT number FROM demand WHERE node = ? ORDER BY number DESC LIMIT 1 OFFSET ?)""",
        (node_id, node_id, DEMANDS_PER_PEER_MAX),
    )


def candidates(source: RowSource, supply: Supply, now_ms: int, own: bool | None = None) -> Iterator[Demand]:
    """Open demands that a supply may fit, the oldest first: category and dimension hold, and its latitude.

    `own`: of this city alone, or of others alone.
    """
    after = 0
    while (query := _candidates(supply, now_ms, own, after)) is not None:
        rows = source.all(*query)
        yield from map(demand_of, rows)
        if len(rows) < _CANDIDATES:
            return
        after = rows[-1]["number"]


async def first_candidates(reader: Reader, supply: Supply, now_ms: int, most: int) -> list[Demand]:
    """The same beside the writer, at least the first `most` of them."""
    found: list[Demand] = []
    after = 0
    while len(found) < most and (query := _candidates(supply, now_ms, None, after)) is not None:
        rows = await reader.all(*query)
        found += map(demand_of, rows)
        if len(rows) < _CANDIDATES:
            break
        after = rows[-1]["number"]
    return found


def _candidates(supply: Supply, now_ms: int, own: bool | None, after: int) -> tuple[str, Sequence[Any]] | None:
    if supply.category is None or supply.left is None:
        return None
    patterns = patterns_for(supply.category)
    latitude = None if supply.location is None else supply.location.lat
    sql = f"""SELECT * FROM demand WHERE state = 'open' AND kind = ? AND pattern IN ({", ".join("?" * len(patterns))})
        AND dimension = ? AND number > ? AND base_quantity <= ? AND valid_until_ms > ?
        AND (? IS NULL OR own = ?) AND (? IS NULL OR ? BETWEEN south AND north) ORDER BY number LIMIT ?"""
    return sql, (
        supply.kind.value,
        *patterns,
        supply.left.dimension.value,
        after,
        base_quantity_text(supply.left),
        now_ms,
        own,
        own,
        latitude,
        latitude,
        _CANDIDATES,
    )


# Matches


def record_match(tx: Tx, demand: Demand, supply: Supply, now_ms: int) -> bool:
    """Write that a supply fits a demand. Whether that is new; False too where the demand has matches enough."""
    known = tx.execute(
        "UPDATE demand_match SET available = 1, ends_ms = ? WHERE demand = ? AND node = ? AND subject = ?",
        (supply.ends_ms, demand.number, supply.node_id, supply.subject_id),
    )
    if known.rowcount:
        return False
    row = tx.one("SELECT count(*) AS matches FROM demand_match WHERE demand = ?", (demand.number,))
    if row is not None and row["matches"] >= DEMAND_MATCHES_MAX:
        # What can be had no more makes room.
        gone = tx.execute(
            """DELETE FROM demand_match WHERE demand = ?1 AND (node, subject) IN (SELECT node, subject FROM demand_match
                WHERE demand = ?1 AND (available = 0 OR ends_ms <= ?2) ORDER BY matched_at_ms LIMIT 1)""",
            (demand.number, now_ms),
        )
        if gone.rowcount == 0:
            return False
    tx.execute(
        """INSERT INTO demand_match (demand, node, subject, subject_kind, available, ends_ms, matched_at_ms)
        VALUES (?, ?, ?, ?, 1, ?, ?)""",
        (demand.number, supply.node_id, supply.subject_id, supply.kind.value, supply.ends_ms, now_ms),
    )
    return True


def end_matches(tx: Tx, node_id: str, subject_id: str) -> None:
    """A supply changed: until it is compared anew, it fits nothing."""
    tx.execute(
        "UPDATE demand_match SET available = 0 WHERE subject = ? AND node = ? AND available = 1", (subject_id, node_id)
    )


def matches_of(source: RowSource, demand: int) -> list[Match]:
    """What fits a demand, the oldest match first; at most DEMAND_MATCHES_MAX."""
    rows = source.all(
        "SELECT * FROM demand_match WHERE demand = ? ORDER BY matched_at_ms, node, subject LIMIT ?",
        (demand, DEMAND_MATCHES_MAX),
    )
    return [
        Match(
            row["demand"],
            row["node"],
            row["subject"],
            SubjectKind(row["subject_kind"]),
            bool(row["available"]),
            row["ends_ms"],
            row["matched_at_ms"],
        )
        for row in rows
    ]


# Time


def ended(source: RowSource, now_ms: int, limit: int) -> list[Demand]:
    """Open demands whose time is over."""
    rows = source.all(
        "SELECT * FROM demand WHERE state = 'open' AND valid_until_ms <= ? ORDER BY valid_until_ms LIMIT ?",
        (now_ms, limit),
    )
    return [demand_of(row) for row in rows]


def forget_closed(tx: Tx, before_ms: int, limit: int) -> None:
    """Forget demands that were closed before a moment."""
    tx.execute(
        """DELETE FROM demand WHERE number IN (SELECT number FROM demand WHERE state <> 'open' AND changed_at_ms < ?
            ORDER BY changed_at_ms LIMIT ?)""",
        (before_ms, limit),
    )


def anything_due(source: RowSource, now_ms: int, before_ms: int) -> bool:
    """Whether `ended` or `forget_closed` would find something."""
    row = source.one(
        """SELECT EXISTS (SELECT 1 FROM demand WHERE state = 'open' AND valid_until_ms <= ?)
            OR EXISTS (SELECT 1 FROM demand WHERE state <> 'open' AND changed_at_ms < ?) AS due""",
        (now_ms, before_ms),
    )
    return row is not None and bool(row["due"])


# What peers were told


def told_up_to(source: RowSource, node_id: str) -> int:
    """The change of own demand up to which a peer was told; 0 for one that was told nothing."""
    row = source.one("SELECT change_number FROM demand_cursor WHERE node_id = ?", (node_id,))
    return 0 if row is None else int(row["change_number"])


def changed_since(source: RowSource, change_number: int, limit: int) -> tuple[list[Demand], int]:
    """Own demands by their last change, those after a change; and the number of the last of these."""
    rows = source.all(
        "SELECT * FROM demand WHERE change_number > ? ORDER BY change_number LIMIT ?", (change_number, limit)
    )
    return [demand_of(row) for row in rows], rows[-1]["change_number"] if rows else change_number


def told(tx: Tx, node_id: str, change_number: int) -> None:
    """A peer was told up to this change. Nothing happens where it was removed meanwhile."""
    tx.execute(
        """INSERT INTO demand_cursor (node_id, change_number) SELECT node_id, ? FROM node WHERE node_id = ?
        ON CONFLICT (node_id) DO UPDATE SET change_number = excluded.change_number""",
        (change_number, node_id),
    )


async def page(
    reader: Reader, own: bool, state: DemandState | None, now_ms: int, before: int, limit: int
) -> list[Demand]:
    """Demands of this city, or of others, newest first, with a number below `before`."""
    rows = await reader.all(
        """SELECT * FROM demand WHERE own = :own AND number < :before AND (:state IS NULL OR :state =
            CASE WHEN state = 'open' AND valid_until_ms <= :now_ms THEN 'expired' ELSE state END)
        ORDER BY number DESC LIMIT :limit""",
        {
            "own": own,
            "state": None if state is None else state.value,
            "now_ms": now_ms,
            "before": before,
            "limit": limit,
        },
    )
    return [demand_of(row) for row in rows]


async def all_open(reader: Reader, now_ms: int, limit: int) -> list[Demand]:
    """What is looked for now, here and at peers, the oldest first."""
    rows = await reader.all(
        "SELECT * FROM demand WHERE state = 'open' AND valid_until_ms > ? ORDER BY number LIMIT ?", (now_ms, limit)
    )
    return [demand_of(row) for row in rows]


def demand_of(row: sqlite3.Row) -> Demand:
    """A row of `demand` as the rules see it."""
    return Demand(
        number=row["number"],
        demand_id=row["demand_id"],
        node_id=row["node"],
        own=bool(row["own"]),
        verified=bool(row["verified"]),
        wanted_by=row["wanted_by"],
        kind=SubjectKind(row["kind"]),
        pattern=row["pattern"],
        quantity=Quantity(Decimal(row["quantity"]), row["unit"]),
        max_price_minor=row["max_price_minor"],
        radius_km=None if row["radius_km"] is None else Decimal(row["radius_km"]),
        location=None if row["lat"] is None else Location(row["lat"], row["lon"]),
        issued_at_ms=row["issued_at_ms"],
        valid_until_ms=row["valid_until_ms"],
        state=DemandState(row["state"]),
        version=row["version"],
        changed_at_ms=row["changed_at_ms"],
    )
