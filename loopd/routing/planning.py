"""Many batches and many demands at once: which may be brought together, and at what cost. Pure.

What is counted here is whole numbers: quantities in billionths of a billionth, distances in metres, money in
hundredths. A problem and its plan travel between two processes as JSON.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import repeat
from typing import Any, Final

from loopd.protocol.geo import Location
from loopd.protocol.loopcost import LoopCost, local_cost
from loopd.protocol.quantity import Quantity
from loopd.routing.atlas import cost_of, distance_minor, metres_to, penalty_minor, point_of

# Rows and columns, and of those that may meet the cost; None for those that may not.
Costs = Sequence[Sequence[int | None]]
# Which column each row gets: as many pairs as can be, and of all such choices the cheapest.
Solver = Callable[[Costs], list[tuple[int, int]]]

# How the process that plans ends where its costs are TooDear.
EXIT_TOO_DEAR: Final = 3
# A double counts whole numbers up to here without leaving one out.
_EXACT_IN_A_DOUBLE: Final = 2**53
# Of anything, in the base unit of its dimension; what `protocol.quantity` tells apart is no finer.
_PARTS: Final = 10**12


class TooDear(ValueError):
    """Costs so high that they cannot be added up exactly."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Something that is to go to one demand. `asked` is the price of the whole in hundredths, as a fraction.

    `signal` is the category whose signal counts, `exported` what the batch's city charges for it in basis points.
    """

    node_id: str
    kind: str
    category: str
    signal: str
    dimension: str
    left: int
    whole: int
    asked: tuple[int, int]
    place: tuple[float, float]
    exported: int


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a node's city looks for, of one of some categories, within so many metres of a place.

    `imported` is what the city charges, by signal; `city` is where its node is.
    """

    node_id: str
    kind: str
    categories: tuple[str, ...]
    dimension: str
    quantity: int
    max_price: int | None
    radius: int | None
    place: tuple[float, float] | None
    city: tuple[float, float]
    imported: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """A batch for a demand, by their places in the problem, with the components of its cost."""

    batch: int
    need: int
    base: int
    exported: int
    imported: int
    distance: int
    metres: int

    @property
    def cost(self) -> LoopCost:
        return LoopCost(self.base, self.exported, self.imported, self.distance)


@dataclass(frozen=True, slots=True)
class Plan:
    """The best assignment, and what serving each demand in turn would have come to."""

    pairs: tuple[Pair, ...]
    served_in_turn: int
    cost_in_turn: int


def parts_of(quantity: Quantity) -> int:
    """A quantity as it is counted here."""
    return int(Fraction(quantity.in_base()) * _PARTS)


def price_of_whole(asking_lc: Decimal | None) -> tuple[int, int]:
    """An asking price in hundredths, as it is counted here; nothing where nothing is asked."""
    return (0, 1) if asking_lc is None else (Fraction(asking_lc) * 100).as_integer_ratio()


def make_plan(batches: Sequence[Batch], needs: Sequence[Need], solve: Solver) -> Plan:
    """The assignment of one batch to one demand that serves the most and, among those, costs the least LoopCost.

    Equal ones are decided by the order of batches and needs. TooDear where costs cannot be added exactly.
    """
    ways = _Ways(batches)
    costs = [_column(batches, need, ways) for need in needs]
    by_batch = [list(row) for row in zip(*costs, strict=True)]
    chosen = sorted(solve(by_batch)) if batches and needs else []
    pairs = tuple(_pair(batches[row], needs[column], row, column, ways) for row, column in chosen)
    served, cost = _in_turn(costs)
    return Plan(pairs, served, cost)


def outlay(costs: Costs) -> int:
    """What a pair that may not meet is charged, so that any number of others together is cheaper than one such.

    TooDear where the sums that arise on the way are not exact in a double.
    """
    known = [cost for row in costs for cost in row if cost is not None]
    size = max(len(costs), max((len(row) for row in costs), default=0))
    charge = max(known, default=0) * size + 1
    if charge * size * 4 >= _EXACT_IN_A_DOUBLE:
        raise TooDear("the costs of a plan this large are too high to be added exactly")
    return charge


def problem_text(batches: Sequence[Batch], needs: Sequence[Need]) -> bytes:
    """A problem on its way to the process that solves it."""
    return json.dumps(
        {"batches": [asdict(each) for each in batches], "needs": [asdict(each) for each in needs]}
    ).encode()


def read_problem(text: bytes) -> tuple[list[Batch], list[Need]]:
    """The problem in `problem_text`."""
    value = json.loads(text)
    batches = [
        Batch(**{**each, "asked": tuple(each["asked"]), "place": tuple(each["place"])}) for each in value["batches"]
    ]
    needs = [
        Need(**{**each, **{name: _tuple(each[name]) for name in ("categories", "place", "city")}})
        for each in value["needs"]
    ]
    return batches, needs


def plan_text(plan: Plan) -> bytes:
    """A plan on its way back."""
    return json.dumps(asdict(plan)).encode()


def read_plan(text: bytes) -> Plan:
    """The plan in `plan_text`."""
    value: dict[str, Any] = json.loads(text)
    return Plan(tuple(Pair(**pair) for pair in value["pairs"]), value["served_in_turn"], value["cost_in_turn"])


def _tuple(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


class _Ways:
    """Distances in metres from places to all batches; from each place they are computed once."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._points = [point_of(Location(*batch.place)) for batch in batches]
        self._known: dict[tuple[float, float], list[int]] = {}

    def to_batches(self, place: tuple[float, float]) -> list[int]:
        """The distance from a place to each batch."""
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = metres_to(Location(*place), self._points)
        return found


def _column(batches: Sequence[Batch], need: Need, ways: _Ways) -> list[int | None]:
    """What each batch would cost for a demand; None where the two may not meet."""
    found: list[int | None] = []
    for batch, near, metres in zip(batches, _from_place(need, ways), ways.to_batches(need.city), strict=True):
        cost = base = _price(batch, need, near)
        if base is not None and batch.node_id != need.node_id:
            imported = need.imported.get(batch.signal)
            cost = None
            if imported is not None:
                penalties = penalty_minor(base, batch.exported) + penalty_minor(base, imported)
                cost = base + penalties + distance_minor(metres)
        found.append(cost)
    return found


def _from_place(need: Need, ways: _Ways) -> Iterable[int]:
    """How far each batch lies from where it is needed."""
    return repeat(0, len(ways.to_batches(need.city))) if need.place is None else ways.to_batches(need.place)


def _price(batch: Batch, need: Need, near: int) -> int | None:
    """What is asked for as much as is needed, rounded half-even; None where the two may not meet."""
    if batch.category not in need.categories or batch.kind != need.kind:
        return None
    if batch.left < need.quantity or batch.dimension != need.dimension:
        return None
    if need.radius is not None and (need.place is None or near > need.radius):
        return None
    asked, share = batch.asked[0] * need.quantity, batch.asked[1] * batch.whole
    if not asked or not share:
        return 0
    if need.max_price is not None and asked > need.max_price * share:
        return None
    minor, rest = divmod(asked, share)
    return minor + 1 if rest * 2 > share or (rest * 2 == share and minor & 1) else minor


def _pair(batch: Batch, need: Need, row: int, column: int, ways: _Ways) -> Pair:
    base = _price(batch, need, list(_from_place(need, ways))[row])
    if base is None:
        raise ValueError("a pair was chosen that may not meet")
    local = batch.node_id == need.node_id
    metres = 0 if local else ways.to_batches(need.city)[row]
    cost = local_cost(base) if local else cost_of(base, batch.exported, need.imported[batch.signal], metres)
    return Pair(row, column, base, cost.export_minor, cost.import_minor, cost.distance_minor, metres)


def _in_turn(columns: Costs) -> tuple[int, int]:
    """How many are served, and for how much, where each demand in turn takes the cheapest batch that is left."""
    taken: set[int] = set()
    total = 0
    for column in columns:
        offers = [(cost, row) for row, cost in enumerate(column) if cost is not None and row not in taken]
        if offers:
            cost, row = min(offers)
            taken.add(row)
            total += cost
    return len(taken), total
