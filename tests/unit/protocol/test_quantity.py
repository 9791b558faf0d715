from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.limits import QUANTITY_MAX, QUANTITY_MAX_FRACTION_DIGITS
from loopd.protocol.quantity import UNIT_SCALE, Dimension, Quantity, parse_quantity
from loopd.protocol.vocabulary import UNITS

VALUES = st.decimals(0, 10**12, places=9)


def test_every_unit_of_the_vocabulary_is_measured() -> None:
    assert set(UNIT_SCALE) == set(UNITS)


@pytest.mark.parametrize(
    ("value", "unit", "target", "expected"),
    [
        ("2", "t", "kg", "2000"),
        ("1", "g", "kg", "0.001"),
        ("500", "kg", "t", "0.5"),
        ("3", "m3", "l", "3000"),
        ("250", "ml", "l", "0.25"),
    ],
)
def test_units_of_one_dimension_convert_exactly(value: str, unit: str, target: str, expected: str) -> None:
    assert Quantity(Decimal(value), unit).to_unit(target) == Quantity(Decimal(expected), target)


@given(VALUES, st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_conversion_loses_nothing(value: Decimal, unit: str, target: str) -> None:
    quantity = parse_quantity(value, unit)
    if UNIT_SCALE[unit][0] is not UNIT_SCALE[target][0]:
        with pytest.raises(ValueError, match="cannot be expressed"):
            quantity.to_unit(target)
        return
    assert quantity.to_unit(target).to_unit(unit).value == value


@given(VALUES, VALUES, st.sampled_from(("kg", "g", "t")), st.sampled_from(("kg", "g", "t")))
def test_exactly_one_of_more_less_equal(a: Decimal, b: Decimal, a_unit: str, b_unit: str) -> None:
    left, right = Quantity(a, a_unit), Quantity(b, b_unit)
    verdicts = [left.is_more_than(right), right.is_more_than(left), left.in_base() == right.in_base()]
    assert verdicts.count(True) == 1


def test_a_litre_is_not_compared_with_a_kilogram() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        Quantity(Decimal(1), "l").is_more_than(Quantity(Decimal(1), "kg"))


def test_pieces_and_bundles_are_different_things() -> None:
    assert Quantity(Decimal(1), "piece").dimension is Dimension.PIECES
    assert Quantity(Decimal(1), "bundle").dimension is Dimension.BUNDLES


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (Decimal("-1"), "kg"),
        (Decimal("NaN"), "kg"),
        (QUANTITY_MAX + 1, "kg"),
        (Decimal(1), "pound"),
        (Decimal(1).scaleb(-QUANTITY_MAX_FRACTION_DIGITS - 1), "kg"),
        (Decimal("1." + "0" * 40 + "1"), "kg"),
    ],
)
def test_what_is_no_quantity(value: Decimal, unit: str) -> None:
    with pytest.raises(ValueError):
        parse_quantity(value, unit)


def test_trailing_zeros_are_no_precision() -> None:
    assert parse_quantity(Decimal("1.500000000000"), "kg").value == Decimal("1.5")
