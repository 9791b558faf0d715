from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.ledger import accounts
from loopd.ledger.accounts import Role
from loopd.ledger.arithmetic import (
    Line,
    NoRate,
    backing_of,
    distribute,
    is_covered,
    payer_amount,
    share,
)
from loopd.ledger.dates import DAY_MS, add_months, day_of, day_text
from loopd.ledger.lots import Lot, Part, take_oldest
from loopd.ledger.terms import ExpiryPolicy, Terms, TermsHistory, Version
from tests.ledger_support import parse_day

TERMS = Terms("LC-MUC", "EUR", Decimal(1), Decimal("0.05"), 6, Decimal("0.05"), None, Decimal(1), ExpiryPolicy.DECAY)
AMOUNTS = st.integers(0, 10**15)


@pytest.mark.parametrize(
    ("issued", "months", "expected"),
    [
        ("2026-01-15", 1, "2026-02-15"),
        ("2026-01-31", 1, "2026-02-28"),
        ("2028-01-31", 1, "2028-02-29"),
        ("2028-02-29", 12, "2029-02-28"),
        ("2028-02-29", 48, "2032-02-29"),
        ("2026-08-31", 1, "2026-09-30"),
        ("2026-08-31", 2, "2026-10-31"),
        ("2026-12-31", 2, "2027-02-28"),
        ("2026-11-30", 3, "2027-02-28"),
        ("2026-11-30", 4, "2027-03-30"),
        ("2099-12-31", 2, "2100-02-28"),
    ],
)
def test_months_are_added_with_the_day_clamped_to_the_months_end(issued: str, months: int, expected: str) -> None:
    assert day_text(add_months(parse_day(issued), months)) == expected


@given(st.dates(date(1970, 1, 1), date(2200, 1, 1)), st.integers(0, 30))
def test_each_month_has_one_boundary_and_they_rise(issued: date, months: int) -> None:
    day = parse_day(issued.isoformat())
    assert add_months(day, months) < add_months(day, months + 1) <= add_months(day, months) + 31


# Issue day, expiry in months, policy, and the first three boundaries.
BOUNDARIES = [
    ("2026-01-15", 6, "decay", ("2026-08-15", "2026-09-15", "2026-10-15")),
    ("2026-01-31", 1, "decay", ("2026-03-31", "2026-04-30", "2026-05-31")),
    ("2027-12-31", 1, "decay", ("2028-02-29", "2028-03-31", "2028-04-30")),
    ("2026-12-31", 1, "decay", ("2027-02-28", "2027-03-31", "2027-04-30")),
    ("2026-08-30", 6, "forfeit", ("2027-02-28", "2027-03-30", "2027-04-30")),
    ("2026-02-28", 12, "forfeit", ("2027-02-28", "2027-03-28", "2027-04-28")),
]


@pytest.mark.parametrize(("issued", "months", "policy", "expected"), BOUNDARIES)
def test_a_lots_boundaries(issued: str, months: int, policy: str, expected: tuple[str, ...]) -> None:
    terms = Terms("LC-MUC", "EUR", Decimal(1), Decimal(0), months, Decimal(0), None, Decimal(1), ExpiryPolicy(policy))
    history, day = TermsHistory([Version(0, terms)]), parse_day(issued)
    last_ms = parse_day(expected[-1]) * DAY_MS
    found = history.boundaries(day, 0, last_ms)
    assert [day_text(day_of(each.at_ms)) for each in found] == list(expected)
    assert history.next_boundary(day, 0) == found[0].at_ms
    assert history.next_boundary(day, found[0].at_ms) == found[1].at_ms
    assert history.next_boundary(day, found[1].at_ms - 1) == found[1].at_ms
    assert history.boundaries(day, found[0].at_ms + 1, found[1].at_ms) == [found[1]]


def test_what_happens_at_a_boundary_follows_the_terms_then_in_force() -> None:
    changed_ms = parse_day("2026-09-01") * DAY_MS
    later = Terms("LC-MUC", "EUR", Decimal(1), Decimal(0), 3, Decimal("0.1"), None, Decimal(1), ExpiryPolicy.DECAY)
    history = TermsHistory([Version(0, TERMS), Version(changed_ms, later)])
    found = history.boundaries(parse_day("2026-05-10"), 0, parse_day("2026-11-30") * DAY_MS)
    days = [(day_text(day_of(each.at_ms)), each.terms.decay_rate) for each in found]
    assert days == [("2026-09-10", Decimal("0.1")), ("2026-10-10", Decimal("0.1")), ("2026-11-10", Decimal("0.1"))]
    assert history.at(changed_ms - 1) is TERMS
    assert history.at(changed_ms) is later
    with pytest.raises(ValueError, match="no terms"):
        TermsHistory([])


@pytest.mark.parametrize(
    ("amount", "lost"),
    [(10_000, 500), (1, 1), (2, 1), (19, 1), (20, 1), (21, 2), (39, 2), (40, 2), (41, 3), (0, 0)],
)
def test_the_holder_keeps_the_floor(amount: int, lost: int) -> None:
    assert TERMS.loss_minor(amount) == lost


@given(AMOUNTS, AMOUNTS, st.sampled_from(["0", "0.05", "0.123456789", "0.2"]))
def test_splitting_never_saves_anything(one: int, other: int, rate: str) -> None:
    terms = Terms("LC-MUC", "EUR", Decimal(1), Decimal(0), 6, Decimal(rate), None, Decimal(1), ExpiryPolicy.DECAY)
    apart = terms.loss_minor(one) + terms.loss_minor(other)
    assert terms.loss_minor(one + other) <= apart <= terms.loss_minor(one + other) + 1


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100), st.integers(0, 100)), max_size=8), st.integers(0, 500)
)
def test_the_oldest_coins_are_taken_first(drawn: list[tuple[int, int, int]], amount: int) -> None:
    lots = [
        Lot(day, free + held, held)
        for day, free, held in {day: (day, free, held) for day, free, held in drawn}.values()
    ]
    if sum(lot.available_minor for lot in lots) < amount:
        with pytest.raises(ValueError, match="less"):
            take_oldest(lots, amount)
        return
    parts = take_oldest(lots, amount)
    assert sum(part.amount_minor for part in parts) == amount
    by_day = {lot.issue_day: lot for lot in lots}
    assert [part.issue_day for part in parts] == sorted(part.issue_day for part in parts)
    newest = max((part.issue_day for part in parts), default=-1)
    older = [lot for lot in lots if lot.issue_day < newest and lot.available_minor]
    assert {lot.issue_day for lot in older} == {part.issue_day for part in parts} - {newest}
    assert all(Part(lot.issue_day, lot.available_minor) in parts for lot in older)
    assert all(part.amount_minor <= by_day[part.issue_day].available_minor for part in parts)


def test_the_distribution_of_the_specifications_example() -> None:
    found = distribute(6_000, 2_400, 1_200, 800)
    assert dict(found.lines) == {
        Line.SELLER: 3_600,
        Line.SELLER_COMMUNITY: 2_400,
        Line.BUYER_COMMUNITY: 1_200,
        Line.TRANSPORT: 800,
        Line.RESIDUAL: 2_400,
    }
    assert found.total_minor == 10_400


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_the_lines_add_up_to_what_the_buyer_pays(base: int, export: int, imported: int, distance: int) -> None:
    if export > base:
        with pytest.raises(ValueError, match="penalty"):
            distribute(base, export, imported, distance)
        return
    assert distribute(base, export, imported, distance).total_minor == base + export + imported + distance


@given(AMOUNTS, st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_payer_pays_the_exact_ceiling(payee_minor: int, payer_rate: int, payee_rate: int) -> None:
    found = payer_amount(payee_minor, Decimal(payer_rate), Decimal(payee_rate))
    assert found - 1 < Fraction(payee_minor * payer_rate, payee_rate) <= found


@pytest.mark.parametrize("rates", [(0, 1), (1, 0)])
def test_a_rate_of_zero_exchanges_nothing(rates: tuple[int, int]) -> None:
    with pytest.raises(NoRate):
        payer_amount(100, *map(Decimal, rates))
    with pytest.raises(NoRate):
        backing_of(1, Decimal(0))


def test_backing_is_rounded_in_the_citys_favour() -> None:
    assert backing_of(100, Decimal(3)) == 33
    assert share(59, Decimal("0.05")) == 2
    assert is_covered(50, Decimal(2), 0, 100, Decimal(1))
    assert not is_covered(50, Decimal(2), -1, 100, Decimal(1))


@pytest.mark.parametrize(
    ("account", "role"),
    [
        ("user:maria@munich.loop", Role.HOLDER),
        ("business:clearing.x@munich.loop", Role.HOLDER),
        ("node:issuance@munich.loop", Role.ISSUANCE),
        ("node:reserve@munich.loop", Role.RESERVE),
        ("node:clearing.vienna.loop@munich.loop", Role.CLEARING),
        ("node:clearing-residual@munich.loop", Role.FUND),
        ("node:community-fund@munich.loop", Role.FUND),
    ],
)
def test_an_accounts_id_says_what_it_is_for(account: str, role: Role) -> None:
    assert accounts.role_of(account) is role
    assert accounts.is_public(account) is (role is not Role.HOLDER)


def test_what_is_no_account_has_no_role() -> None:
    with pytest.raises(ValueError, match="account"):
        accounts.role_of("munich.loop")
