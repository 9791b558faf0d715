"""LoopCost (§7): what it costs a city to take a batch, from the price, both cities' signals and the distance."""

from dataclasses import dataclass
from decimal import Decimal

from loopd.protocol.money import MINOR_PER_LC, amount_json, round_half_even
from loopd.protocol.vocabulary import DEFAULT_SIGNAL

DISTANCE_COST_LC_PER_KM = Decimal("0.02")
BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class LoopCost:
    """The four components in hundredths of an LC, each rounded half-even; the total is their sum."""

    base_minor: int
    export_minor: int = 0
    import_minor: int = 0
    distance_minor: int = 0

    @property
    def total_minor(self) -> int:
        return self.base_minor + self.export_minor + self.import_minor + self.distance_minor

    def breakdown_json(self) -> dict[str, Decimal]:
        """The components in LC under the names of §7.3: base, export, import, distance."""
        return {
            "base": amount_json(self.base_minor),
            "export": amount_json(self.export_minor),
            "import": amount_json(self.import_minor),
            "distance": amount_json(self.distance_minor),
        }


def signal_basis_points(signals: dict[str, int], category: str) -> int:
    """A category's signal in basis points: its own, without one `default`, without that 0 (§6.1)."""
    return signals.get(category, signals.get(DEFAULT_SIGNAL, 0))


def local_cost(base_minor: int) -> LoopCost:
    """Inside one node only the base price applies (§7.2)."""
    return LoopCost(base_minor)


def cross_node_cost(
    base_minor: int, origin_basis_points: int, destination_basis_points: int, distance_km: Decimal
) -> LoopCost:
    """The cost between two nodes (§7.1).

    `base_minor` is the price in hundredths of the seller's LC, the signals are basis points (4000 is 40 %),
    `distance_km` is exact. ValueError for a negative argument or a signal above 1.
    """
    if base_minor < 0 or distance_km < 0:
        raise ValueError("a price and a distance are not negative")
    for basis_points in (origin_basis_points, destination_basis_points):
        if not 0 <= basis_points <= BASIS_POINTS:
            raise ValueError("a signal lies between 0 and 1")
    base_lc = Decimal(base_minor) / MINOR_PER_LC
    return LoopCost(
        base_minor,
        round_half_even(base_lc * origin_basis_points / BASIS_POINTS),
        round_half_even(base_lc * destination_basis_points / BASIS_POINTS),
        round_half_even(distance_km * DISTANCE_COST_LC_PER_KM),
    )


def distance_in_cost(computed_km: float) -> Decimal:
    """A great-circle distance as it enters the cost: rounded to the metre, so that both sides compute the same."""
    return Decimal(str(round(computed_km, 3)))
