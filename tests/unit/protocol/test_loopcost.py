from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.loopcost import (
    BASIS_POINTS,
    LoopCost,
    cross_node_cost,
    distance_in_cost,
    local_cost,
    signal_basis_points,
)

PRICES_MINOR = st.integers(0, 10**12)
SIGNALS = st.integers(0, BASIS_POINTS)
DISTANCES_KM = st.decimals(0, 20_016, places=3)


def test_the_example_of_the_specification() -> None:
    # §12.1: 60 LC at 40 % and 20 % over 400 km.
    cost = cross_node_cost(60_00, 4000, 2000, Decimal(400))
    assert cost == LoopCost(60_00, 24_00, 12_00, 8_00)
    assert cost.total_minor == 104_00
    assert {name: str(amount) for name, amount in cost.breakdown_json().items()} == {
        "base": "60.00",
        "export": "24.00",
        "import": "12.00",
        "distance": "8.00",
    }


def test_inside_one_node_only_the_price_counts() -> None:
    assert local_cost(50_00) == LoopCost(50_00, 0, 0, 0)
    assert local_cost(50_00).total_minor == 50_00


def rounded_half_even(exact: Fraction) -> int:
    """Hundredths of an LC by the definition, in fractions: a second way to the same number."""
    whole, rest = divmod(exact.numerator, exact.denominator)
    twice = 2 * rest
    return whole + (twice > exact.denominator or (twice == exact.denominator and whole % 2 == 1))


@given(PRICES_MINOR, SIGNALS, SIGNALS, DISTANCES_KM)
def test_each_component_is_exact_and_rounded_once(price: int, origin: int, destination: int, km: Decimal) -> None:
    cost = cross_node_cost(price, origin, destination, km)
    assert cost.export_minor == rounded_half_even(Fraction(price * origin, BASIS_POINTS))
    assert cost.import_minor == rounded_half_even(Fraction(price * destination, BASIS_POINTS))
    assert cost.distance_minor == rounded_half_even(Fraction(km) * 2)
    assert cost.total_minor == price + cost.export_minor + cost.import_minor + cost.distance_minor


@given(PRICES_MINOR, SIGNALS, SIGNALS, DISTANCES_KM)
def test_leaving_the_city_never_costs_less(price: int, origin: int, destination: int, km: Decimal) -> None:
    assert cross_node_cost(price, origin, destination, km).total_minor >= local_cost(price).total_minor


@given(PRICES_MINOR, SIGNALS, SIGNALS, DISTANCES_KM)
def test_signals_count_the_same_in_both_directions(price: int, origin: int, destination: int, km: Decimal) -> None:
    there, back = cross_node_cost(price, origin, destination, km), cross_node_cost(price, destination, origin, km)
    assert there.total_minor == back.total_minor


@pytest.mark.parametrize(
    ("price", "origin", "destination", "km"),
    [(-1, 0, 0, "0"), (1, -1, 0, "0"), (1, 0, BASIS_POINTS + 1, "0"), (1, 0, 0, "-0.1")],
)
def test_impossible_arguments_are_refused(price: int, origin: int, destination: int, km: str) -> None:
    with pytest.raises(ValueError):
        cross_node_cost(price, origin, destination, Decimal(km))


def test_a_category_without_a_signal_takes_the_default_and_without_that_nothing() -> None:
    signals = {"plastic-pet": 3000, "default": 500}
    assert signal_basis_points(signals, "plastic-pet") == 3000
    assert signal_basis_points(signals, "glass-clear") == 500
    assert signal_basis_points({"plastic-pet": 3000}, "glass-clear") == 0


@given(st.floats(0, 20_016))
def test_a_computed_distance_is_taken_to_the_metre(km: float) -> None:
    exact = distance_in_cost(km)
    assert exact == exact.quantize(Decimal("0.001"), rounding=ROUND_HALF_EVEN)
    assert abs(float(exact) - km) <= 0.000_501
