"""What routing decides, as pure functions: what a question asks for, what it costs, which ring a place lies in."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import inf
from typing import Any, Final

from loopd.exchange.rules import great_circle_km, invalid
from loopd.gossip.rings import Ring
from loopd.protocol.geo import Location
from loopd.protocol.limits import AMOUNT_MAX_LC, DISTANCE_MAX_KM
from loopd.protocol.loopcost import LoopCost, cross_node_cost, local_cost
from loopd.protocol.money import parse_amount, round_half_even
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.routing.atlas import Departure, Place

METRES_PER_KM: Final = 1000


@dataclass(frozen=True, slots=True)
class Way:
    """A destination that somebody asks about, and the length of the way there if it was stated."""

    node_id: str
    stated_km: Decimal | None
    # The place in the request that a refusal names.
    pointer: str


@dataclass(frozen=True, slots=True)
class Costed:
    """A destination with its cost. `distance_km` is what was stated, or the great circle."""

    node_id: str
    cost: LoopCost
    distance_km: Decimal
    stale_signals: bool


def read_base_price(value: Mapping[str, Any]) -> int | None:
    """The price of a question in hundredths of an LC, None where none is stated. Invalid (400) `bad_amount`."""
    if value.get("base_price") is None:
        return None
    try:
        return parse_amount(value["base_price"])
    except ValueError as error:
        raise invalid("bad_amount", "/base_price", str(error)) from None


def price_of(value: Mapping[str, Any], asking_lc: Decimal | None) -> int:
    """The price of a question, or what is asked for the subject; Invalid (400) `bad_amount`, `no_price`."""
    stated = read_base_price(value)
    if stated is not None:
        return stated
    if asking_lc is None or asking_lc > AMOUNT_MAX_LC:
        raise invalid("no_price", "/base_price", "no price is asked for it, so state one")
    return round_half_even(asking_lc)


def read_subject(value: Mapping[str, Any]) -> tuple[SubjectKind, str] | None:
    """The material or product that a question names, None where it states category and origin instead.

    Invalid (400) `bad_subject` for two of them, or for a category or an origin beside one.
    """
    named = [kind for kind in SubjectKind if kind.value in value]
    if len(named) > 1 or (named and not value.keys().isdisjoint(("category", "origin"))):
        raise invalid("bad_subject", "", "name a material or a product, or state its category and its origin")
    return (named[0], value[named[0].value]) if named else None


def read_ways(value: Mapping[str, Any], default: str) -> list[Way]:
    """The destinations of a question whose form is checked, each once; the default where none is named.

    Invalid (400), the place named: `bad_destination` for the same one twice or for two ways of naming them,
    `bad_distance`.
    """
    if "destination" in value and "destinations" in value:
        raise invalid("bad_destination", "/destinations", "name one destination, or a list of them")
    if "destinations" not in value:
        stated_km = _stated_km(value.get("distance_km"), "/distance_km")
        return [Way(value.get("destination", default), stated_km, "/distance_km")]
    if "distance_km" in value:
        raise invalid("bad_distance", "/distance_km", "beside several destinations each has its own distance_km")
    ways = []
    seen = set()
    for index, stated in enumerate(value["destinations"]):
        entry: Mapping[str, Any] = {"node": stated} if isinstance(stated, str) else stated
        pointer = f"/destinations/{index}"
        if entry["node"] in seen:
            raise invalid("bad_destination", pointer, "a destination is named once")
        seen.add(entry["node"])
        pointer += "/distance_km"
        ways.append(Way(entry["node"], _stated_km(entry.get("distance_km"), pointer), pointer))
    return ways


def _stated_km(stated: Decimal | int | None, pointer: str) -> Decimal | None:
    if stated is None:
        return None
    distance_km = Decimal(stated)
    if not distance_km.is_finite() or not 0 <= distance_km <= DISTANCE_MAX_KM:
        raise invalid("bad_distance", pointer, f"a distance lies between 0 and {DISTANCE_MAX_KM} km")
    return distance_km


def cost_of_way(base_minor: int, departure: Departure, place: Place, way: Way, category: str, now_ms: int) -> Costed:
    """The cost of one way to a place whose location and signals are known (§7).

    Inside one node the base price alone. Invalid (400) `distance_below_great_circle`, `bad_distance` for a way inside
    one node.
    """
    if place.node_id == departure.node_id:
        if way.stated_km is not None:
            raise invalid("bad_distance", way.pointer, "inside one city no distance counts")
        return Costed(place.node_id, local_cost(base_minor), Decimal(0), False)
    if place.location is None or place.configuration is None:
        raise ValueError(f"there is no cost to {place.node_id}: its place or its signals are not known")
    shortest_km = great_circle_km(departure.location, place.location)
    if way.stated_km is not None and way.stated_km < shortest_km:
        raise invalid(
            "distance_below_great_circle",
            way.pointer,
            f"no way is shorter than the great circle of {shortest_km} km",
            {"great_circle_km": shortest_km},
        )
    distance_km = shortest_km if way.stated_km is None else way.stated_km
    signals = place.configuration.signals
    import_basis_points = signals.get(category, signals.get(DEFAULT_SIGNAL, 0))
    cost = cross_node_cost(base_minor, departure.export_basis_points, import_basis_points, distance_km)
    return Costed(place.node_id, cost, distance_km, now_ms >= place.configuration.valid_until_ms)


def ring_bounds(rings: Sequence[Ring]) -> list[float]:
    """How far each ring reaches, in metres."""
    return [inf if ring.radius_km is None else ring.radius_km * METRES_PER_KM for ring in rings]


def ring_within(bounds: Sequence[float], metres: int) -> int | None:
    """The place in the plan of the narrowest ring that reaches so far; None beyond the last, or for no distance."""
    number = bisect_left(bounds, metres)
    return number if metres >= 0 and number < len(bounds) else None


def lies_within(origin: Location, place: Location, radius_km: Decimal | None) -> bool:
    """Whether a place lies within a radius, by the distance that enters a cost; at the radius is inside."""
    return radius_km is None or great_circle_km(origin, place) <= radius_km
