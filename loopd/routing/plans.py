"""Plans: gathers what is offered and looked for, has the best assignment found, and shows what it saves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from loopd.clock import Clock
from loopd.database import Database
from loopd.exchange.rules import announced_location, invalid, signal_category
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.geo import Location
from loopd.protocol.limits import PLAN_SIDE_MAX
from loopd.protocol.money import parse_amount
from loopd.protocol.quantity import Quantity, parse_quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.routing import demand_tables as tables
from loopd.routing.atlas import Atlas, Place
from loopd.routing.demands import CATEGORY_KEYS, Demand, DemandState, Supply, categories_of, read_wish
from loopd.routing.destinations import Destinations, SignalFetcher
from loopd.routing.matching import Matching
from loopd.routing.planner import Planner
from loopd.routing.planning import Batch, Need, Plan, TooDear, parts_of, price_of_whole
from loopd.routing.ports import AllOffered, Heard, HomeNode
from loopd.routing.views import plan_json


@dataclass(frozen=True, slots=True)
class Sides:
    """What is to be brought together, first what can be planned; and the nodes of which too little is known."""

    supplies: Sequence[Supply]
    demands: Sequence[Demand]
    signals_unknown: Sequence[str]
    location_unknown: Sequence[str]


class Plans:
    """Assigns many batches to many demands."""

    def __init__(
        self,
        home: HomeNode,
        database: Database,
        clock: Clock,
        offered: AllOffered,
        heard: Heard,
        matching: Matching,
        destinations: Destinations,
        fetcher: SignalFetcher,
        planner: Planner,
    ) -> None:
        self._home = home
        self._database = database
        self._clock = clock
        self._offered = offered
        self._heard = heard
        self._matching = matching
        self._destinations = destinations
        self._fetcher = fetcher
        self._planner = planner

    async def plan(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The assignment of one batch to one demand that serves the most and, among those, costs the least LoopCost.

        `value` is a request whose form is checked: `batches` (all that this node offers if absent) and `demands` (all
        that is looked for, here and at peers). Invalid (400), the place named: `bad_subject`, `bad_demand`,
        `bad_quantity`, `bad_amount`, `bad_radius`, `unknown_category`, `named_twice`, `too_dear`; NotFound (404):
        `unknown_material`, `unknown_product`, `unknown_demand`; Conflict (409) `not_available`; Unavailable (503):
        `plan_unavailable`, `plan_busy`, `plan_timeout`.
        """
        supplies = await self._supplies(value.get("batches"))
        demands = await self._demands(value.get("demands"))
        atlas = await self._destinations.atlas()
        batches, needs, sides = _costable(supplies, demands, atlas)
        self._fetcher.want(sides.signals_unknown)
        try:
            plan = await self._planner.plan(batches, needs) if batches and needs else Plan((), 0, 0)
        except TooDear:
            raise invalid("too_dear", "/batches", "the prices are too high to be added exactly") from None
        return plan_json(sides.supplies, sides.demands, plan, sides.signals_unknown, sides.location_unknown)

    # What is offered

    async def _supplies(self, stated: Sequence[Mapping[str, Any]] | None) -> list[Supply]:
        if stated is None:
            async with self._database.snapshot() as reader:
                found = await self._offered.newest(reader, self._clock.now_ms(), PLAN_SIDE_MAX)
            return _by_id([self._matching.supply_of(offered) for offered in found])
        supplies = [self._supply(each, f"/batches/{index}") for index, each in enumerate(stated)]
        _refuse_twice([(each.node_id, each.subject_id) for each in supplies], "/batches")
        return _by_id(supplies)

    def _supply(self, stated: Mapping[str, Any], pointer: str) -> Supply:
        named = [kind for kind in SubjectKind if kind.value in stated]
        if not named:
            return self._stated_supply(stated, pointer)
        if len(stated) > 1:
            raise invalid("bad_subject", pointer, "a material or a product says itself what it is")
        kind, subject_id = named[0], stated[named[0].value]
        points = self._database.points
        own = self._matching.own_supply(points, subject_id)
        if own is not None and own.kind is kind:
            return own
        heard = self._heard.find(points, subject_id)
        if heard is None or heard.kind is not kind:
            raise NotFound(f"unknown_{kind.value}", f"No such {kind.value} can be had here, or was announced.")
        if not heard.available:
            raise Conflict("not_available", f"{heard.origin} has announced that it is no longer available.")
        return self._matching.heard_supply(points, heard)

    def _stated_supply(self, stated: Mapping[str, Any], pointer: str) -> Supply:
        kinds = [kind for kind, key in CATEGORY_KEYS.items() if key in stated]
        if len(kinds) != 1 or "id" not in stated or "quantity" not in stated or "unit" not in stated:
            raise invalid("bad_subject", pointer, "name a material or a product, or state id, category, quantity, unit")
        kind = kinds[0]
        category = stated[CATEGORY_KEYS[kind]]
        if category not in categories_of(kind, category):
            raise invalid("unknown_category", f"{pointer}/{CATEGORY_KEYS[kind]}", "there is no such category")
        quantity = _quantity(stated, pointer)
        asking_lc = None
        if "asking_price" in stated:
            try:
                parse_amount(stated["asking_price"])
            except ValueError as error:
                raise invalid("bad_amount", f"{pointer}/asking_price", str(error)) from None
            asking_lc = Decimal(stated["asking_price"])
        node_id = stated.get("origin", self._home.node_id)
        place = _location(stated.get("location"))
        return Supply(node_id, stated["id"], kind, category, quantity, quantity, place, asking_lc, None)

    # What is looked for

    async def _demands(self, stated: Sequence[Mapping[str, Any]] | None) -> list[Demand]:
        if stated is None:
            async with self._database.snapshot() as reader:
                return await tables.all_open(reader, self._clock.now_ms(), PLAN_SIDE_MAX)
        demands = [self._demand(each, f"/demands/{index}", index) for index, each in enumerate(stated)]
        _refuse_twice([(each.node_id, each.demand_id) for each in demands], "/demands")
        return demands

    def _demand(self, stated: Mapping[str, Any], pointer: str, index: int) -> Demand:
        node_id, now_ms = stated.get("node", self._home.node_id), self._clock.now_ms()
        if "wanted" in stated:
            if not stated.keys() <= {"wanted", "node"}:
                raise invalid("bad_demand", pointer, "a demand that is registered says itself what it is for")
            known = tables.find(self._database.points, node_id, stated["wanted"])
            if known is None or not known.is_open(now_ms):
                raise NotFound("unknown_demand", "Nothing is looked for under that id.", {"demand": stated["wanted"]})
            return known
        if "id" not in stated or "quantity" not in stated or "unit" not in stated:
            raise invalid("bad_demand", pointer, "name what is wanted, or state id, category, quantity, unit")
        wish = read_wish(stated, pointer)
        return Demand(
            number=index,
            demand_id=stated["id"],
            node_id=node_id,
            own=node_id == self._home.node_id,
            verified=True,
            wanted_by=None,
            kind=wish.kind,
            pattern=wish.pattern,
            quantity=wish.quantity,
            max_price_minor=wish.max_price_minor,
            radius_km=wish.radius_km,
            location=wish.location,
            issued_at_ms=now_ms,
            valid_until_ms=now_ms + 1,
            state=DemandState.OPEN,
            version=1,
            changed_at_ms=now_ms,
        )


def _costable(
    supplies: Sequence[Supply], demands: Sequence[Demand], atlas: Atlas
) -> tuple[list[Batch], list[Need], Sides]:
    """The two sides as they are planned, without what lacks a figure: see Sides for the order."""
    without_signals: dict[str, None] = {}
    without_place: dict[str, None] = {}

    def place_of(node_id: str, stated: Location | None) -> Place | None:
        place = atlas.find(node_id)
        if place is None or place.configuration is None:
            without_signals[node_id] = None
            return None
        if place.location is None and stated is None:
            without_place[node_id] = None
            return None
        return place

    batches: list[tuple[Supply, Batch]] = []
    needs: list[tuple[Demand, Need]] = []
    supplies_left, demands_left = [], []
    for supply in supplies:
        place = place_of(supply.node_id, supply.location)
        batch = None if place is None else _batch(supply, place)
        if batch is None:
            supplies_left.append(supply)
        else:
            batches.append((supply, batch))
    for demand in demands:
        place = place_of(demand.node_id, None)
        if place is None or place.location is None:
            demands_left.append(demand)
        else:
            needs.append((demand, _need(demand, place, place.location)))
    sides = Sides(
        [*(supply for supply, _ in batches), *supplies_left],
        [*(demand for demand, _ in needs), *demands_left],
        list(without_signals),
        list(without_place),
    )
    return [batch for _, batch in batches], [need for _, need in needs], sides


def _batch(supply: Supply, place: Place) -> Batch | None:
    location = supply.location or place.location
    if supply.category is None or supply.left is None or supply.whole is None or location is None:
        return None
    if place.configuration is None:
        return None
    signal = signal_category(supply.kind, supply.category)
    return Batch(
        node_id=supply.node_id,
        kind=supply.kind.value,
        category=supply.category,
        signal=signal,
        dimension=supply.left.dimension.value,
        left=parts_of(supply.left),
        whole=parts_of(supply.whole),
        asked=price_of_whole(supply.asking_lc),
        place=(location.lat, location.lon),
        exported=place.configuration.reading(signal, 0).basis_points,
    )


def _need(demand: Demand, place: Place, city: Location) -> Need:
    signals: Mapping[str, int] = {} if place.configuration is None else place.configuration.signals
    categories = categories_of(demand.kind, demand.pattern)
    counted = {signal_category(demand.kind, category) for category in categories}
    where = demand.location or city
    return Need(
        node_id=demand.node_id,
        kind=demand.kind.value,
        categories=tuple(categories),
        dimension=demand.quantity.dimension.value,
        quantity=parts_of(demand.quantity),
        max_price=demand.max_price_minor,
        radius=None if demand.radius_km is None else int(demand.radius_km * 1000),
        place=(where.lat, where.lon),
        city=(city.lat, city.lon),
        imported={signal: signals.get(signal, signals.get(DEFAULT_SIGNAL, 0)) for signal in counted},
    )


def _by_id(supplies: list[Supply]) -> list[Supply]:
    """In an order that does not depend on how they were asked for: so equal plans are decided alike."""
    return sorted(supplies, key=lambda supply: (supply.node_id, supply.subject_id))


def _refuse_twice(ids: Sequence[tuple[str, str]], pointer: str) -> None:
    seen = set()
    for index, each in enumerate(ids):
        if each in seen:
            raise invalid("named_twice", f"{pointer}/{index}", "each is named once")
        seen.add(each)


def _quantity(stated: Mapping[str, Any], pointer: str) -> Quantity:
    try:
        return parse_quantity(stated["quantity"], stated["unit"])
    except ValueError as error:
        raise invalid("bad_quantity", f"{pointer}/quantity", str(error)) from None


def _location(stated: Mapping[str, Any] | None) -> Location | None:
    return None if stated is None else announced_location(Location(float(stated["lat"]), float(stated["lon"])))
