"""Supply and demand brought together as they arrive, both ways, in the transaction of what arrives."""

from itertools import islice
from typing import Any

from loopd.clock import Clock
from loopd.database import RowSource, Tx
from loopd.events.service import EventKind
from loopd.exchange.rules import announced_location, asking_price_in
from loopd.protocol.geo import Location
from loopd.protocol.limits import DEMAND_MATCHES_MAX, SUPPLIES_COMPARED_MAX, SUPPLY_MATCHES_MAX
from loopd.protocol.money import amount_json
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import HeardSubject
from loopd.routing import demand_tables as tables
from loopd.routing.demands import CATEGORY_KEYS, Demand, Supply, asked_for, categories_of, fits
from loopd.routing.ports import Events, HeardSupply, HomeNode, NodePlaces, OfferedRecord, OwnSupply


class Matching:
    """Compares what is offered with what is wanted. One of the two is always this city's own."""

    def __init__(
        self, home: HomeNode, clock: Clock, own: OwnSupply, heard: HeardSupply, places: NodePlaces, events: Events
    ) -> None:
        self._home = home
        self._clock = clock
        self._own = own
        self._heard = heard
        self._places = places
        self._events = events

    def own_supply(self, source: RowSource, subject_id: str) -> Supply | None:
        """What can be had now of a record of this node, or None."""
        offered = self._own.find(source, subject_id, self._clock.now_ms())
        return None if offered is None else self.supply_of(offered)

    def heard_supply(self, source: RowSource, subject: HeardSubject) -> Supply:
        """What was heard, as a supply."""
        quantity = None
        if subject.quantity is not None and subject.unit is not None:
            quantity = Quantity(subject.quantity, subject.unit)
        ends_ms = (
            subject.valid_until_ms if subject.expires_ms is None else min(subject.valid_until_ms, subject.expires_ms)
        )
        return Supply(
            subject.origin,
            subject.subject_id,
            subject.kind,
            subject.category,
            quantity,
            quantity,
            subject.location or self._place_of(source, subject.origin),
            None,
            ends_ms,
        )

    def demands_for(self, source: RowSource, supply: Supply, own: bool | None = None) -> list[Demand]:
        """The open demands that a supply fits, the oldest first; at most SUPPLY_MATCHES_MAX."""
        found = tables.candidates(source, supply, self._clock.now_ms(), own)
        return list(islice((demand for demand in found if fits(demand, supply)), SUPPLY_MATCHES_MAX))

    def own_changed(self, tx: Tx, subject_id: str) -> None:
        """A record of this node is new or changed: whoever wants it is told, here and at other nodes."""
        tables.end_matches(tx, self._home.node_id, subject_id)
        supply = self.own_supply(tx, subject_id)
        if supply is not None:
            for demand in self.demands_for(tx, supply):
                self._match(tx, demand, supply)

    def heard(self, tx: Tx, subject: HeardSubject) -> None:
        """Another city announced something: who wants it here is told."""
        tables.end_matches(tx, subject.origin, subject.subject_id)
        if subject.available:
            supply = self.heard_supply(tx, subject)
            for demand in self.demands_for(tx, supply, own=True):
                self._match(tx, demand, supply)

    def wanted(self, tx: Tx, demand: Demand) -> None:
        """A demand is new: it is compared with what there is, an own one with what was heard as well."""
        matches = 0
        for category in categories_of(demand.kind, demand.pattern):
            for supply in self._offers(tx, demand, category):
                if matches < DEMAND_MATCHES_MAX and fits(demand, supply):
                    matches += self._match(tx, demand, supply)

    def _offers(self, source: RowSource, demand: Demand, category: str) -> list[Supply]:
        now_ms, limit = self._clock.now_ms(), SUPPLIES_COMPARED_MAX
        own = self._own.of_category(source, demand.kind, category, demand.quantity, now_ms, limit)
        found = [self.supply_of(offered) for offered in own]
        if demand.own:
            heard = self._heard.of_category(source, demand.kind, category, limit)
            found += [self.heard_supply(source, subject) for subject in heard]
        return found

    def _match(self, tx: Tx, demand: Demand, supply: Supply) -> bool:
        if not tables.record_match(tx, demand, supply, self._clock.now_ms()):
            return False
        told: dict[str, Any] = {
            "wanted_by": demand.node_id,
            "node": supply.node_id,
            supply.kind.value: supply.subject_id,
            CATEGORY_KEYS[supply.kind]: supply.category,
            "quantity": demand.quantity.value,
            "unit": demand.quantity.unit,
        }
        if supply.asking_lc is not None:
            told["asking_price"] = amount_json(asked_for(supply, demand.quantity))
        self._events.append(tx, EventKind.WANTED_MATCHED, demand.demand_id, told)
        return True

    def supply_of(self, offered: OfferedRecord) -> Supply:
        """A record of this node, as a supply."""
        location = offered.location
        return Supply(
            self._home.node_id,
            offered.subject_id,
            offered.kind,
            offered.category,
            offered.left,
            offered.whole,
            self._home.location if location is None else announced_location(location),
            asking_price_in(offered.document),
            offered.expires_ms,
        )

    def _place_of(self, source: RowSource, node_id: str) -> Location | None:
        node = self._places.find(source, node_id)
        return None if node is None else node.location
