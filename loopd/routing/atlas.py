"""Every known node as a destination, laid out so that thousands are ranked in milliseconds. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Final

from loopd.protocol.geo import MEAN_EARTH_RADIUS_KM, Location
from loopd.protocol.limits import RANKED_ORIGINS_REMEMBERED
from loopd.protocol.loopcost import BASIS_POINTS, DISTANCE_COST_LC_PER_KM, LoopCost, local_cost
from loopd.protocol.money import MINOR_PER_LC
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.signals.rules import SignalConfiguration

_METRES_PER_KM: Final = 1000
# A minor unit of an LC takes a transport this far.
_METRES_PER_MINOR: Final = int(_METRES_PER_KM / (DISTANCE_COST_LC_PER_KM * MINOR_PER_LC))
_UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Place:
    """A node as a destination: where it is, and the signals in force there; None for what is not known."""

    node_id: str
    location: Location | None
    configuration: SignalConfiguration | None


@dataclass(frozen=True, slots=True)
class Departure:
    """Where a batch lies, at which node, and what that node charges on the way out."""

    node_id: str
    location: Location
    export_basis_points: int


# A destination's LoopCost in hundredths of an LC, its distance in metres, and its index in the atlas.
Ranked = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Ranking:
    """All destinations that have a cost, lowest first, ties nearer first, then by node id."""

    ranked: Sequence[Ranked]
    signals_unknown: Sequence[str]
    location_unknown: Sequence[str]


class Atlas:
    """The destinations as they are known at one moment. It does not change; what was computed of it is kept."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = tuple(sorted(places, key=lambda place: place.node_id))
        self._index = {place.node_id: index for index, place in enumerate(self.places)}
        self._points = [point_of(place.location) for place in self.places]
        self._basis_points: dict[str, list[int]] = {}
        self._metres: dict[Location, list[int]] = {}

    def find(self, node_id: str) -> Place | None:
        """The destination of that id."""
        index = self._index.get(node_id)
        return None if index is None else self.places[index]

    def index_of(self, node_id: str) -> int | None:
        """The place of a node in `places`."""
        return self._index.get(node_id)

    def index_after(self, node_id: str) -> int:
        """The place of the first node whose id is not before this one."""
        return bisect_left(self.places, node_id, key=lambda place: place.node_id)

    def cost_at(self, base_minor: int, departure: Departure, category: str, ranked: Ranked) -> LoopCost:
        """The components of a ranked destination's cost."""
        _, metres, index = ranked
        if self.places[index].node_id == departure.node_id:
            return local_cost(base_minor)
        return cost_of(base_minor, departure.export_basis_points, self._signals_of(category)[index], metres)

    def rank(self, base_minor: int, departure: Departure, category: str) -> Ranking:
        """Every destination by its LoopCost (§7.1) for a price in hundredths of the seller's LC.

        The same components as `protocol.loopcost` gives, computed in integers: at the departing node the base price
        alone, elsewhere both penalties and the great circle, to the metre.
        """
        exported_minor = base_minor + penalty_minor(base_minor, departure.export_basis_points)
        # The few values that signals have, so that none is multiplied twice.
        imported_minor: dict[int, int] = {}
        ranked: list[Ranked] = []
        unknown: list[int] = []
        charges, ways = self._signals_of(category), self.metres_from(departure.location)
        for index, (basis_points, metres) in enumerate(zip(charges, ways, strict=True)):
            if basis_points < 0 or metres < 0:
                unknown.append(index)
                continue
            penalty = imported_minor.get(basis_points)
            if penalty is None:
                penalty = imported_minor[basis_points] = penalty_minor(base_minor, basis_points)
            ranked.append((exported_minor + penalty + distance_minor(metres), metres, index))
        home = self._index.get(departure.node_id)
        if home is not None:
            ranked = [entry for entry in ranked if entry[2] != home]
            ranked.append((base_minor, 0, home))
        ranked.sort()
        without_signals = [self.places[index].node_id for index in unknown if index != home and charges[index] < 0]
        without_place = [self.places[index].node_id for index in unknown if index != home and charges[index] >= 0]
        return Ranking(ranked, without_signals, without_place)

    def _signals_of(self, category: str) -> list[int]:
        """Of each destination what it charges for a category, in basis points; -1 where its signals are not known."""
        found = self._basis_points.get(category)
        if found is None:
            found = [_basis_points(place.configuration, category) for place in self.places]
            self._basis_points[category] = found
        return found

    def metres_from(self, origin: Location) -> list[int]:
        """The great circle from a point to each destination, in metres; -1 where its place is not known."""
        found = self._metres.get(origin)
        if found is None:
            found = metres_to(origin, self._points)
            if len(self._metres) >= RANKED_ORIGINS_REMEMBERED:
                self._metres.clear()
            self._metres[origin] = found
        return found


def penalty_minor(base_minor: int, basis_points: int) -> int:
    """A price's share for a community fund in hundredths of an LC, rounded half-even (§7.1)."""
    minor, rest = divmod(base_minor * basis_points, BASIS_POINTS)
    up = rest * 2 > BASIS_POINTS or (rest * 2 == BASIS_POINTS and minor & 1)
    return minor + 1 if up else minor


def distance_minor(metres: int) -> int:
    """What a way costs in hundredths of an LC, rounded half-even (§7.1)."""
    minor, rest = divmod(metres, _METRES_PER_MINOR)
    up = rest * 2 > _METRES_PER_MINOR or (rest * 2 == _METRES_PER_MINOR and minor & 1)
    return minor + 1 if up else minor


def cost_of(base_minor: int, export_basis_points: int, import_basis_points: int, metres: int) -> LoopCost:
    """The components that a rank stands for, between two nodes."""
    return LoopCost(
        base_minor,
        penalty_minor(base_minor, export_basis_points),
        penalty_minor(base_minor, import_basis_points),
        distance_minor(metres),
    )


def _basis_points(configuration: SignalConfiguration | None, category: str) -> int:
    if configuration is None:
        return _UNKNOWN
    signals = configuration.signals
    return signals.get(category, signals.get(DEFAULT_SIGNAL, 0))


# A place as distances are computed from it: its latitude in radians, the cosine of that, its longitude in degrees.
Point = tuple[float, float, float]


def point_of(location: Location | None) -> Point | None:
    """A place laid out for `metres_to`."""
    if location is None:
        return None
    phi = radians(location.lat)
    return phi, cos(phi), location.lon


def metres_to(origin: Location, points: Iterable[Point | None]) -> list[int]:
    """`protocol.geo.distance_km` for many points, by the same floating-point steps, so that no digit differs."""
    phi, lon = radians(origin.lat), origin.lon
    cos_phi = cos(phi)
    found = []
    for point in points:
        if point is None:
            found.append(_UNKNOWN)
            continue
        b_phi, b_cos_phi, b_lon = point
        half_chord = sin((b_phi - phi) / 2) ** 2 + cos_phi * b_cos_phi * sin(radians(b_lon - lon) / 2) ** 2
        way_km = 2 * MEAN_EARTH_RADIUS_KM * asin(min(1.0, sqrt(half_chord)))
        found.append(round(round(way_km, 3) * _METRES_PER_KM))
    return found
