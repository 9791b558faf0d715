"""The search's door: pages of what can be had (§8.1), here or as other cities announced it."""

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from loopd.catalogue import finding
from loopd.catalogue.cursor import Cursor, Position
from loopd.catalogue.finding import Selection
from loopd.catalogue.matches import Match, Signals, Way, fit_page, in_order, with_cost, within_cost
from loopd.catalogue.query import CATEGORY_KEY, SearchQuery
from loopd.catalogue.sections import SearchScope, category_of
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.exchange.ports import HomeNode, NodeDirectory, SignalReadings
from loopd.exchange.rules import invalid, signal_category
from loopd.protocol.errors import Invalid, Unavailable
from loopd.protocol.geo import Location, between_km
from loopd.protocol.limits import SEARCH_COSTED_MAX, SEARCH_TIMEOUT_S
from loopd.protocol.money import amount_json
from loopd.protocol.subjects import SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.registry.service import Registry
from loopd.registry.tables import Reader, Record

# Where a first page begins.
_BEFORE_ALL: Final = Position(0.0, 0)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some results as JSON values. `total` and `omitted` (None without a bound on cost) are as of the first page."""

    results: list[dict[str, Any]]
    total: int
    omitted: int | None
    following: Cursor | None


class Search:
    """Answers queries from the index, on the readers."""

    def __init__(
        self,
        node: HomeNode,
        database: Database,
        clock: Clock,
        registry: Registry,
        signals: SignalReadings,
        directory: NodeDirectory,
    ) -> None:
        self._node = node
        self._database = database
        self._clock = clock
        self._registry = registry
        self._signals = signals
        self._directory = directory

    async def page(self, query: SearchQuery, cursor: Cursor | None = None) -> SearchPage:
        """The first page, or the one that begins at a cursor.

        Invalid (400): `unknown_destination`, `signals_unknown`, `location_unknown` where no LoopCost to the
        destination can be reckoned; `too_many_matches` where it would have to be for too many. Unavailable (503)
        `overloaded` where the search takes too long.
        """
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):
                return await self._page(query, cursor)
        except TimeoutError:
            raise Unavailable("overloaded", "The search takes too long: narrow it, or try again.") from None

    async def _page(self, query: SearchQuery, cursor: Cursor | None) -> SearchPage:
        way = self._way(query, self._database.points)
        selection = Selection(query, self._clock.now_ms(), None if cursor is None else cursor.snapshot)
        async with self._database.snapshot() as reader:
            if query.max_cost_minor is None:
                begun, matches = await _matches(reader, selection, query, cursor)
                omitted = None
            else:
                begun, matches = await self._affordable(reader, selection, query, query.max_cost_minor, way, cursor)
                omitted = begun.omitted
            shown, more = fit_page(matches, query.limit)
            if query.destination is not None or query.max_cost_minor is not None:
                shown = [with_cost(match, query.kind, way) for match in shown]
            results = await self._results(reader, query, shown)
        following = Cursor(begun.snapshot, begun.total, begun.omitted, shown[-1].position) if more else None
        return SearchPage(results, begun.total, omitted, following)

    async def _affordable(
        self,
        reader: Reader,
        selection: Selection,
        query: SearchQuery,
        max_cost_minor: int,
        way: Way | None,
        cursor: Cursor | None,
    ) -> tuple[Cursor, Sequence[Match]]:
        """All from a position on whose cost is within the bound."""
        rows = await selection.affordable(reader, max_cost_minor, SEARCH_COSTED_MAX + 1)
        if len(rows) > SEARCH_COSTED_MAX:
            message = f"The cost of more than {SEARCH_COSTED_MAX} would have to be reckoned: narrow the search."
            raise Invalid("too_many_matches", message)
        after = None if cursor is None else cursor.after
        # Thousands may have to be reckoned, and others wait for the loop.
        total, matches = await asyncio.to_thread(_reckon, rows, query, max_cost_minor, way, after)
        if cursor is None:
            omitted = await selection.without_price(reader)
            cursor = Cursor(await finding.last_number(reader), total, omitted, _BEFORE_ALL)
        return cursor, matches

    def _way(self, query: SearchQuery, source: RowSource) -> Way | None:
        """The way to the destination; None where that is this node."""
        node_id = query.destination
        if node_id is None or node_id == self._node.node_id:
            return None
        node = self._directory.find(source, node_id)
        if node is None:
            raise invalid("unknown_destination", "/destination", "no node of that id is known here")
        if node.location is None:
            raise invalid("location_unknown", "/destination", "nobody knows where that node is")
        signals: dict[str, Signals] = {}
        for section in range(query.sections.first, query.sections.last + 1):
            category = signal_category(query.kind, category_of(section))
            if category in signals:
                continue
            here = self._signals.basis_points(source, self._node.node_id, category)
            there = self._signals.basis_points(source, node_id, category)
            if here is None or there is None:
                raise invalid("signals_unknown", "/destination", "the signals of that node are not known yet")
            signals[category] = Signals(here, there)
        return Way(node.location, signals)

    async def _results(self, reader: Reader, query: SearchQuery, shown: Sequence[Match]) -> list[dict[str, Any]]:
        if not shown:
            return []
        if query.scope is SearchScope.FEDERATION:
            rows = await finding.announced(reader, [match.position.number for match in shown])
            return [{**_announced(rows[match.position.number], query), **_added(match, query)} for match in shown]
        numbers = {match.position.number: match.record_number for match in shown}
        records = await self._registry.numbered(reader, [number for number in numbers.values() if number is not None])
        return [self._registered(records, match, query) for match in shown]

    def _registered(self, records: dict[int, Record], match: Match, query: SearchQuery) -> dict[str, Any]:
        if match.record_number is None:
            raise RuntimeError("an entry of this node has a record")
        return {**self._registry.view(records[match.record_number]), **_added(match, query)}


async def _matches(
    reader: Reader, selection: Selection, query: SearchQuery, cursor: Cursor | None
) -> tuple[Cursor, Sequence[Match]]:
    """What a page needs of all that match, and one more if there is one."""
    if cursor is not None:
        return cursor, await selection.page_after(reader, cursor.after, query.limit + 1)
    counted, matches = await selection.first_page(reader, query.limit + 1)
    return Cursor(counted.snapshot, counted.total, 0, _BEFORE_ALL), matches


def _reckon(
    rows: Sequence[sqlite3.Row], query: SearchQuery, max_cost_minor: int, way: Way | None, after: Position | None
) -> tuple[int, list[Match]]:
    """How many of the rows cost no more than the bound, and those of them after a position, in order."""
    within = within_cost((with_cost(finding.match_of(row), query.kind, way) for row in rows), max_cost_minor)
    return len(within), in_order(within, after, nearest=query.near is not None)


def _announced(row: sqlite3.Row, query: SearchQuery) -> dict[str, Any]:
    """What another city announced: flow metadata, as much of it as it told, and how it came here."""
    shown: dict[str, Any] = {"id": row["subject_id"], "kind": query.kind.value}
    if row["category"] is not None:
        shown[CATEGORY_KEY[query.kind]] = row["category"]
    if row["quantity"] is not None and row["unit"] is not None:
        shown["quantity"] = {"value": Decimal(row["quantity"]), "unit": row["unit"]}
    if not row["at_home"]:
        shown["location"] = {"lat": row["lat"], "lon": row["lon"]}
    for key, moment_ms in (("available_from", row["available_from_ms"]), ("expires", row["expires_ms"])):
        if moment_ms is not None:
            shown[key] = format_timestamp(moment_ms)
    return {
        **shown,
        "availability": {"status": SubjectState.AVAILABLE.value},
        "source_node": row["origin"],
        "verified": bool(row["verified"]),
        "valid_until": format_timestamp(row["valid_until_ms"]),
        "message_id": row["message_id"].hex(),
    }


def _added(match: Match, query: SearchQuery) -> dict[str, Any]:
    """What the search itself has to say of a result."""
    added: dict[str, Any] = {}
    if query.near is not None:
        added["distance_km"] = _distance_km(query.near, match.place)
    if match.cost is not None:
        added["loop_cost"] = amount_json(match.cost.total_minor)
        added["breakdown"] = match.cost.breakdown_json()
        added["stale_signals"] = match.figure is not None and match.figure.stale_signals
    return added


def _distance_km(near: Location, place: Location | None) -> Decimal | None:
    return None if place is None else Decimal(str(round(between_km(near, place), 3)))
