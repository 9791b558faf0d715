"""Routing's door: what it costs to bring something somewhere, and where it should go (§7)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from loopd.clock import Clock
from loopd.database import Database
from loopd.exchange.rules import announced_location, asking_price_in, signal_category
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.geo import Location
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.routing.atlas import Atlas, Departure
from loopd.routing.destinations import Destinations, SignalFetcher
from loopd.routing.ports import Heard, HomeNode, HostedRecord, Records
from loopd.routing.rules import Costed, cost_of_way, read_base_price, read_subject, read_ways
from loopd.routing.views import loop_costs_json
from loopd.signals.rules import SignalReading


@dataclass(frozen=True, slots=True)
class Cargo:
    """What is to go somewhere, and from where: `location` None is its node's own place."""

    node_id: str
    category: str
    location: Location | None
    subject_id: str | None = None
    kind: SubjectKind = SubjectKind.MATERIAL
    quantity: Quantity | None = None
    asking_lc: Decimal | None = None


class Routing:
    """Answers what something costs elsewhere."""

    def __init__(
        self,
        home: HomeNode,
        database: Database,
        clock: Clock,
        records: Records,
        heard: Heard,
        destinations: Destinations,
        fetcher: SignalFetcher,
    ) -> None:
        self._home = home
        self._database = database
        self._clock = clock
        self._records = records
        self._heard = heard
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

    def _cargo(self, value: Mapping[str, Any]) -> Cargo:
        """What a question is about: a category and an origin that it states, or a material or product known here."""
        named = read_subject(value)
        if named is not None:
            return self.find_cargo(*named)
        category = value.get("category", DEFAULT_SIGNAL)
        return Cargo(value.get("origin", self._home.node_id), category, None)

    def find_cargo(self, kind: SubjectKind, subject_id: str) -> Cargo:
        """A material or product of this node, or heard of; NotFound (404) `unknown_material`, `unknown_product`."""
        points = self._database.points
        record = self._records.find(points, subject_id)
        if record is not None and record.subject.kind is kind:
            return self._own_cargo(record)
        heard = self._heard.find(points, subject_id)
        if heard is None or heard.kind is not kind:
            raise NotFound(f"unknown_{kind.value}", f"No such {kind.value} is registered here, or was announced.")
        quantity = None
        if heard.quantity is not None and heard.unit is not None:
            quantity = Quantity(heard.quantity, heard.unit)
        category = signal_category(kind, heard.category)
        return Cargo(heard.origin, category, heard.location, subject_id, kind, quantity)

    def _own_cargo(self, record: HostedRecord) -> Cargo:
        subject = record.subject
        return Cargo(
            self._home.node_id,
            signal_category(subject.kind, subject.category),
            None if subject.location is None else announced_location(subject.location),
            subject.subject_id,
            subject.kind,
            Quantity(subject.quantity, subject.unit),
            asking_price_in(record.document),
        )

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
