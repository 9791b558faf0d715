from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.limits import AMOUNT_MAX_LC
from loopd.protocol.money import amount_json, format_amount, parse_amount, round_half_even

AMOUNTS_MINOR = st.integers(min_value=0, max_value=int(AMOUNT_MAX_LC) * 100)


@given(AMOUNTS_MINOR)
def test_what_is_written_is_read_back(amount_minor: int) -> None:
    assert parse_amount(amount_json(amount_minor)) == amount_minor


@given(AMOUNTS_MINOR)
def test_an_amount_is_written_with_two_decimals(amount_minor: int) -> None:
    whole, _, fraction = str(amount_json(amount_minor)).partition(".")
    assert (whole, fraction) == (str(amount_minor // 100), f"{amount_minor % 100:02d}")


@given(AMOUNTS_MINOR, st.integers(min_value=3, max_value=60))
def test_more_than_two_decimals_are_refused_and_never_rounded_away(amount_minor: int, digits: int) -> None:
    with pytest.raises(ValueError, match=r"two decimals|at most"):
        parse_amount(Decimal(f"{amount_minor // 100}.{'0' * (digits - 1)}1"))


@pytest.mark.parametrize(
    ("text", "amount_minor"),
    [("0", 0), ("-0", 0), ("0.01", 1), ("104", 10400), ("1E2", 10000), ("2.5", 250), ("2.500000", 250)],
)
def test_forms_of_a_number(text: str, amount_minor: int) -> None:
    assert parse_amount(Decimal(text)) == amount_minor


@pytest.mark.parametrize("text", ["-0.01", "NaN", "Infinity", "0.001", "1E-3", "1000000000000000.01", "1E400"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError):
        parse_amount(Decimal(text))


@pytest.mark.parametrize("value", [True, False, 1.5, "1"])
def test_only_exact_numbers_are_amounts(value: object) -> None:
    with pytest.raises(ValueError, match="JSON number"):
        parse_amount(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "amount_minor"),
    [("0.005", 0), ("0.015", 2), ("0.025", 2), ("0.0251", 3), ("7.994999", 799), ("7.995", 800)],
)
def test_components_are_rounded_half_even(text: str, amount_minor: int) -> None:
    assert round_half_even(Decimal(text)) == amount_minor


def test_an_amount_for_people() -> None:
    assert format_amount(120450) == "1,204.50"
