"""The SQL of a search: one index narrows it, and the other conditions are looked up entry by entry."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from loopd.catalogue.cursor import Position
from loopd.catalogue.matches import Match, in_order
from loopd.catalogue.query import SearchQuery
from loopd.catalogue.sphere import cap_around, direction_of
from loopd.protocol.geo import Location
from loopd.protocol.quantity import Quantity
from loopd.registry.rules import base_quantity_text
from loopd.registry.tables import Reader

# Farther than any two places: where what has no place stands.
NOWHERE: Final = 5.0
_BY_SECTION: Final = "search_entry e INDEXED BY search_entry_by_section"
# CROSS JOIN keeps the order that is written.
_BY_PLACE: Final = "search_place p CROSS JOIN search_entry e ON e.number = p.number"
_BY_TEXT: Final = "search_text t CROSS JOIN search_entry e ON e.number = t.rowid"
_CHORD: Final = "((e.x - :x) * (e.x - :x) + (e.y - :y) * (e.y - :y) + (e.z - :z) * (e.z - :z))"
_BOX: Final = ("x_high >= ", "x_low <= ", "y_high >= ", "y_low <= ", "z_high >= ", "z_low <= ")
# What has nothing left is not there to be had.
_NOTHING_LEFT: Final = base_quantity_text(Quantity(Decimal(0), "kg"))
_ENTRY: Final = (
    "e.number, e.record_number, e.size_bytes, e.section, e.lat, e.lon, e.at_home, e.asking_minor, e.base_quantity,"
    " e.left_base_quantity"
)
_NUMBERED_LAST: Final = "(SELECT coalesce(max(number), 0) FROM search_entry)"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many entries match, and the last number that was given by then."""

    total: int
    snapshot: int


class Selection:
    """The entries that match a query now, but for its bound on cost; those numbered after `snapshot` left out."""

    def __init__(self, query: SearchQuery, now_ms: int, snapshot: int | None) -> None:
        self._nearest = query.near is not None
        self._values: dict[str, Any] = {"now": now_ms, "first": query.sections.first, "last": query.sections.last}
        self._conditions = [
            "e.section BETWEEN :first AND :last",
            "e.available",
            "(e.ends_ms IS NULL OR e.ends_ms > :now)",
            f"(e.left_base_quantity IS NULL OR e.left_base_quantity > '{_NOTHING_LEFT}')",
        ]
        self._source = _BY_SECTION
        self._key = "0.0"
        if snapshot is not None:
            self._where("e.number <= :snapshot", snapshot=snapshot)
        self._place(query)
        if query.words:
            self._source = _BY_TEXT
            self._where("search_text MATCH :words", words=" AND ".join(f'"{word}"*' for word in query.words))
        self._narrow(query)

    async def first_page(self, reader: Reader, limit: int) -> tuple[Counted, list[Match]]:
        """How many there are, and the first `limit` of them in order."""
        order = "chord, number" if self._nearest else "number DESC"
        # Gone through once, for the count and for the order.
        rows = await reader.all(
            f"WITH hit AS MATERIALIZED (SELECT e.number, {self._key} AS chord FROM {self._source} WHERE {self._all()})"
            f" SELECT {_ENTRY}, top.chord, (SELECT count(*) FROM hit) AS total, {_NUMBERED_LAST} AS snapshot"
            f" FROM (SELECT number, chord FROM hit ORDER BY {order} LIMIT :limit) top"
            f" CROSS JOIN search_entry e ON e.number = top.number",
            {**self._values, "limit": limit},
        )
        counted = Counted(rows[0]["total"], rows[0]["snapshot"]) if rows else Counted(0, 0)
        return counted, in_order(map(match_of, rows), None, nearest=self._nearest)

    async def page_after(self, reader: Reader, position: Position, limit: int) -> list[Match]:
        """The first `limit` of them that come after a position."""
        later, order = "e.number < :after_number", "e.number DESC"
        if self._nearest:
            later, order = f"({self._key}, e.number) > (:after_chord, :after_number)", "chord, e.number"
        rows = await reader.all(
            f"SELECT {self._columns} FROM {self._source} WHERE {self._all()} AND {later} ORDER BY {order} LIMIT :limit",
            {**self._values, "after_chord": position.chord, "after_number": position.number, "limit": limit},
        )
        return [match_of(row) for row in rows]

    async def without_price(self, reader: Reader) -> int:
        """How many of them name no price."""
        row = await reader.one(
            f"SELECT count(*) AS omitted FROM {self._source} WHERE {self._all()} AND e.asking_minor IS NULL",
            self._values,
        )
        return 0 if row is None else int(row["omitted"])

    async def affordable(self, reader: Reader, max_base_minor: int, limit: int) -> list[sqlite3.Row]:
        """Those whose price alone can lie within a bound, in no order, at most `limit`; see `match_of`."""
        # Multiplied instead of divided, and a hair too many: each is reckoned exactly afterwards.
        condition = (
            "e.asking_minor * CAST(e.left_base_quantity AS REAL)"
            " <= (:max_base + 1.0) * 1.000001 * CAST(e.base_quantity AS REAL)"
        )
        return await reader.all(
            f"SELECT {self._columns} FROM {self._source}"
            f" WHERE {self._all()} AND e.asking_minor IS NOT NULL AND {condition} LIMIT :limit",
            {**self._values, "max_base": max_base_minor, "limit": limit},
        )

    @property
    def _columns(self) -> str:
        return f"{_ENTRY}, {self._key} AS chord"

    def _place(self, query: SearchQuery) -> None:
        if query.near is None:
            return
        centre = direction_of(query.near)
        self._key = f"coalesce({_CHORD}, {NOWHERE})"
        self._values |= {"x": centre.x, "y": centre.y, "z": centre.z}
        if query.radius_km is None:
            return
        cap = cap_around(centre, query.radius_km)
        self._where(f"{_CHORD} <= :reach", reach=cap.reach)
        if query.words:
            return
        self._source = _BY_PLACE
        self._where("p.section_high >= :first AND p.section_low <= :last")
        for position, (bound, value) in enumerate(zip(_BOX, cap.box, strict=True)):
            self._where(f"p.{bound}:box_{position}", **{f"box_{position}": value})

    def _narrow(self, query: SearchQuery) -> None:
        if query.condition is not None:
            self._where("e.condition = :condition", condition=query.condition)
        if query.minimum is not None:
            self._where(
                "e.dimension = :dimension AND e.left_base_quantity >= :minimum",
                dimension=query.minimum.dimension.value,
                minimum=base_quantity_text(query.minimum),
            )
        if query.from_ms is not None:
            self._where("(e.expires_ms IS NULL OR e.expires_ms > :from_ms)", from_ms=query.from_ms)
        if query.until_ms is not None:
            self._where("(e.available_from_ms IS NULL OR e.available_from_ms <= :until_ms)", until_ms=query.until_ms)

    def _where(self, sql: str, **values: Any) -> None:
        self._conditions.append(sql)
        self._values |= values

    def _all(self) -> str:
        return " AND ".join(self._conditions)


def match_of(row: sqlite3.Row) -> Match:
    """A row of a selection as the other files see it."""
    return Match(
        Position(row["chord"], row["number"]),
        row["record_number"],
        row["size_bytes"],
        row["section"],
        None if row["lat"] is None else Location(row["lat"], row["lon"]),
        bool(row["at_home"]),
        row["asking_minor"],
        row["base_quantity"],
        row["left_base_quantity"],
    )


async def announced(reader: Reader, numbers: Sequence[int]) -> dict[int, sqlite3.Row]:
    """What was announced under some numbers."""
    rows = await reader.all(
        "SELECT c.*, e.available_from_ms, e.expires_ms, e.lat, e.lon, e.at_home FROM catalogue_entry c"
        f" JOIN search_entry e ON e.number = c.number WHERE c.number IN ({', '.join('?' * len(numbers))})",
        numbers,
    )
    return {row["number"]: row for row in rows}


async def last_number(reader: Reader) -> int:
    """The last number that was given."""
    row = await reader.one(f"SELECT {_NUMBERED_LAST} AS number")
    return 0 if row is None else int(row["number"])
