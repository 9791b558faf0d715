"""Routing's door: what it costs to bring something somewhere, and where it should go (§7)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from loopd.clock import Clock
from loopd.database import Database
from loopd.exchange.rules import announced_location, asking_price_in, invalid, signal_category
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.geo import Location
from loopd.protocol.limits import ROUTE_DEMANDS_MAX
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.routing import demand_tables as tables
from loopd.routing.atlas import Atlas, Departure
from loopd.routing.demands import Demand, Supply, fits
from loopd.routing.destinations import Destinations, SignalFetcher
from loopd.routing.ladder import Opened
from loopd.routing.matching import Matching
from loopd.routing.ports import Heard, HomeNode, Overflow, Records
from loopd.routing.route import Position, Question, page_of
from loopd.routing.rules import Costed, cost_of_way, price_of, read_base_price, read_subject, read_ways
from loopd.routing.views import loop_costs_json, route_json
from loopd.signals.rules import SignalReading


@dataclass(frozen=True, slots=True)
class Cargo:
    """What is to go somewhere, and from where: `location` None is its node's own place.

    `category` is the one whose signal counts. `supply`: what can be had of it, None for a mere category or nothing.
    """

    node_id: str
    category: str
    location: Location | None
    asking_lc: Decimal | None = None
    supply: Supply | None = None


class Routing:
    """Answers what something costs elsewhere."""

    def __init__(
        self,
        home: HomeNode,
        database: Database,
        clock: Clock,
        records: Records,
        heard: Heard,
        matching: Matching,
        overflow: Overflow,
        destinations: Destinations,
        fetcher: SignalFetcher,
    ) -> None:
        self._home = home
        self._database = database
        self._clock = clock
        self._records = records
        self._heard = heard
        self._matching = matching
        self._overflow = overflow
        self._destinations = destinations
        self._fetcher = fetcher

    async def loop_costs(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The LoopCost of a price to one or many destinations, in the order asked for.

        `value` is a question whose form is checked. Invalid (400): `bad_amount`, `bad_subject`, `bad_destination`,
        `bad_distance`, `distance_below_great_circle`; NotFound (404): `unknown_material`, `unknown_product`,
        `unknown_node` (the origin); Conflict (409): `signals_unknown`, `location_unknown` (of the origin).
        """
        base_minor = read_base_price(value) or 0
        ways = read_ways(value, self._home.node_id)
        cargo = self._cargo(value)
        atlas, now_ms = await self._destinations.atlas(), self._clock.now_ms()
        departure, export = self._departure(atlas, cargo, now_ms)

        def computed() -> tuple[list[Costed], list[str], list[str]]:
            costed, without_signals, without_place = [], [], []
            for way in ways:
                place = atlas.find(way.node_id)
                if place is None or (place.configuration is None and way.node_id != departure.node_id):
                    without_signals.append(way.node_id)
                elif place.location is None and way.node_id != departure.node_id:
                    without_place.append(way.node_id)
                else:
                    costed.append(cost_of_way(base_minor, departure, place, way, cargo.category, now_ms))
            return costed, without_signals, without_place

        costed, without_signals, without_place = await asyncio.to_thread(computed)
        self._fetcher.want([departure.node_id, *without_signals, *(each.node_id for each in costed)])
        return loop_costs_json(base_minor, cargo.category, departure, export, costed, without_signals, without_place)

    async def route(
        self, value: Mapping[str, Any], after: Position | None, limit: int
    ) -> tuple[dict[str, Any], Position | None]:
        """Where something should go: all known destinations by LoopCost, one page of them, and the overflow ladder.

        `value` is a question whose form is checked. Beside the answer: where the next page begins. Invalid (400):
        `bad_amount`, `bad_subject`, `no_price` where neither the question nor the record states one; NotFound (404):
        `unknown_material`, `unknown_product`, `unknown_node`; Conflict (409): `signals_unknown`, `location_unknown` (of
        the origin).
        """
        named = read_subject(value)
        if named is None:
            raise invalid("bad_subject", "", "name a material or a product")
        kind, subject_id = named
        cargo = self._known_cargo(kind, subject_id)
        base_minor = price_of(value, cargo.asking_lc)
        atlas, now_ms = await self._destinations.atlas(), self._clock.now_ms()
        departure, export = self._departure(atlas, cargo, now_ms)
        question = Question(
            subject_id=subject_id,
            kind=kind,
            category=cargo.category,
            base_minor=base_minor,
            departure=departure,
            export=export,
            demands=await self._demands(cargo, now_ms),
            rings=self._overflow.rings,
            opened=self._opened(cargo),
            ours=cargo.node_id == self._home.node_id,
            wanted_only=value.get("wanted_only", False),
        )
        page = await asyncio.to_thread(page_of, question, atlas, after, limit, now_ms)
        self._fetcher.want([departure.node_id, *(entry.node_id for entry in page.entries), *page.signals_unknown])
        return route_json(question, page, now_ms), page.following

    def _opened(self, cargo: Cargo) -> Opened | None:
        if cargo.supply is None or cargo.node_id != self._home.node_id:
            return None
        reached = self._overflow.reached(self._database.points, cargo.supply.subject_id)
        return None if reached is None else Opened(reached.ring, reached.offered_since_ms, cargo.supply.ends_ms)

    async def _demands(self, cargo: Cargo, now_ms: int) -> dict[str, list[Demand]]:
        """Who looks for it, by node."""
        supply = cargo.supply
        if supply is None:
            return {}
        async with self._database.snapshot() as reader:
            candidates = await tables.first_candidates(reader, supply, now_ms, ROUTE_DEMANDS_MAX)
        found: dict[str, list[Demand]] = {}
        for demand in candidates:
            if fits(demand, supply):
                found.setdefault(demand.node_id, []).append(demand)
        return found

    def _cargo(self, value: Mapping[str, Any]) -> Cargo:
        """What a question is about: a category and an origin that it states, or a material or product known here."""
        named = read_subject(value)
        if named is not None:
            return self._known_cargo(*named)
        return Cargo(value.get("origin", self._home.node_id), value.get("category", DEFAULT_SIGNAL), None)

    def _known_cargo(self, kind: SubjectKind, subject_id: str) -> Cargo:
        points = self._database.points
        record = self._records.find(points, subject_id)
        if record is not None and record.subject.kind is kind:
            subject = record.subject
            location = None if subject.location is None else announced_location(subject.location)
            category, asking_lc = signal_category(kind, subject.category), asking_price_in(record.document)
            supply = self._matching.own_supply(points, subject_id)
            return Cargo(self._home.node_id, category, location, asking_lc, supply)
        heard = self._heard.find(points, subject_id)
        if heard is None or heard.kind is not kind:
            raise NotFound(f"unknown_{kind.value}", f"No such {kind.value} is registered here, or was announced.")
        heard_supply = self._matching.heard_supply(points, heard) if heard.available else None
        return Cargo(heard.origin, signal_category(kind, heard.category), heard.location, None, heard_supply)

    def _departure(self, atlas: Atlas, cargo: Cargo, now_ms: int) -> tuple[Departure, SignalReading]:
        place = atlas.find(cargo.node_id)
        if place is None:
            raise NotFound("unknown_node", f"{cargo.node_id} is not known here.", {"node": cargo.node_id})
        if place.configuration is None:
            self._fetcher.want([cargo.node_id])
            message = f"The signals of {cargo.node_id} are not known yet; they are being fetched. Try again."
            raise Conflict("signals_unknown", message, {"node": cargo.node_id})
        location = cargo.location or place.location
        if location is None:
            message = f"Nobody said where {cargo.node_id} is."
            raise Conflict("location_unknown", message, {"node": cargo.node_id})
        reading = place.configuration.reading(cargo.category, now_ms)
        return Departure(cargo.node_id, location, reading.basis_points), reading
