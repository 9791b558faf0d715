"""Runs as rules: when one closes, who proposes, and what it makes each city owe."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.ledger.netting.rules import (
    Claim,
    KeptClaim,
    Method,
    Payment,
    Period,
    claims_of,
    closes_at,
    fault_of_payment,
    may_propose_again,
    owed_minor,
    paid_together,
    proposes,
)
from loopd.protocol.limits import DISCHARGE_RUNS_MAX

NODES = ("munich.loop", "vienna.loop")
RATES = {"munich.loop": Decimal("1"), "vienna.loop": Decimal("1.3")}


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def payment(payer: str, payer_minor: int, payee_minor: int) -> Payment:
    payee = NODES[1 - NODES.index(payer)]
    return Payment(payer, payee, payer_minor, payee_minor, RATES[payee])


@pytest.mark.parametrize(
    ("period", "now", "closes"),
    [
        ("immediate", "2026-11-30T19:32:51.123", "2026-11-30T19:32:51.124"),
        ("hourly", "2026-11-30T19:59:59.999", "2026-11-30T19:00:00"),
        ("hourly", "2026-11-30T20:00:00", "2026-11-30T20:00:00"),
        ("daily", "2024-02-29T23:59:59", "2024-02-29T00:00:00"),
        # 2026-11-30 is a Monday, 1970-01-05 the first of them.
        ("weekly", "2026-11-30T00:00:00", "2026-11-30T00:00:00"),
        ("weekly", "2026-11-29T23:59:59", "2026-11-23T00:00:00"),
        ("weekly", "1970-01-05T00:00:00", "1970-01-05T00:00:00"),
    ],
)
def test_a_period_closes_at_its_boundary(period: str, now: str, closes: str) -> None:
    assert closes_at(Period(period), moment(now)) == moment(closes)


@pytest.mark.parametrize(
    ("period", "refused", "again"),
    [
        ("immediate", "2026-11-30T10:20:00", "2026-11-30T11:00:00"),
        ("hourly", "2026-11-30T10:20:00", "2026-11-30T11:00:00"),
        ("daily", "2026-11-30T10:20:00", "2026-12-01T00:00:00"),
        ("weekly", "2026-11-30T10:20:00", "2026-12-07T00:00:00"),
    ],
)
def test_after_a_refusal_the_next_period_tries_again(period: str, refused: str, again: str) -> None:
    assert may_propose_again(Period(period), moment(refused), moment(again))
    assert not may_propose_again(Period(period), moment(refused), moment(again) - 1)


def test_the_smaller_id_proposes() -> None:
    assert proposes(*NODES)
    assert not proposes(*NODES[::-1])


def test_netting_makes_the_city_that_owes_more_pay_the_difference() -> None:
    # Munich pays 130.00 LC of Vienna's, worth 100 EUR; Vienna pays 40.00 of Munich's.
    payments = [payment("munich.loop", 10_000, 13_000), payment("vienna.loop", 5_200, 4_000)]
    expected = Claim("munich.loop", "vienna.loop", 6_000, {"munich.loop": 6_000, "vienna.loop": -7_800})
    assert claims_of(Method.NETTING, NODES, payments) == [expected]
    assert claims_of(Method.CLEARING, NODES, payments) == [expected]


def test_gross_sets_nothing_off() -> None:
    payments = [payment("munich.loop", 10_000, 13_000), payment("vienna.loop", 5_200, 4_000)]
    assert claims_of(Method.GROSS, NODES, payments) == [
        Claim("munich.loop", "vienna.loop", 10_000, {"munich.loop": 10_000, "vienna.loop": -13_000}),
        Claim("vienna.loop", "munich.loop", 4_000, {"munich.loop": -4_000, "vienna.loop": 5_200}),
    ]


def test_the_other_city_may_owe_more() -> None:
    payments = [payment("vienna.loop", 5_200, 4_000)]
    for method in Method:
        [claim] = claims_of(method, NODES, payments)
        assert (claim.debtor, claim.backing_minor) == ("vienna.loop", 4_000)


def test_payments_of_nothing_make_no_claim() -> None:
    assert claims_of(Method.NETTING, NODES, [payment("munich.loop", 0, 0)]) == []


def test_even_payments_leave_the_cents_of_their_ceilings() -> None:
    # Each side paid 0.01 more than it was worth: nothing is to be paid, and both accounts still fall to zero.
    payments = [payment("munich.loop", 101, 130), payment("vienna.loop", 131, 100)]
    assert claims_of(Method.NETTING, NODES, payments) == [
        Claim("munich.loop", "vienna.loop", 0, {"munich.loop": 1, "vienna.loop": 1})
    ]


def kept(run: int, method: Method, debtor: str, backing_minor: int, discharge: int | None = None) -> KeptClaim:
    creditor = NODES[1 - NODES.index(debtor)]
    return KeptClaim(run, run, method, debtor, creditor, backing_minor, 0, discharge)


def test_one_payment_is_for_all_that_is_carried_or_for_one_run_alone() -> None:
    munich, vienna = NODES
    carried = [kept(1, Method.CLEARING, munich, 50), kept(3, Method.CLEARING, vienna, 20)]
    gross = [kept(2, Method.GROSS, munich, 7), kept(2, Method.GROSS, vienna, 9)]
    later = kept(4, Method.CLEARING, munich, 5)
    waiting = [carried[0], *gross, carried[1], later]
    assert paid_together(Method.CLEARING, 3, munich, waiting) == carried
    assert paid_together(Method.GROSS, 2, vienna, waiting) == [gross[1]]
    assert (owed_minor(munich, carried), owed_minor(vienna, carried)) == (30, -30)


def test_one_payment_is_for_so_many_runs_the_oldest_first() -> None:
    waiting = [kept(run, Method.CLEARING, NODES[0], 1) for run in range(1, DISCHARGE_RUNS_MAX + 3)]
    found = paid_together(Method.CLEARING, DISCHARGE_RUNS_MAX + 2, NODES[0], waiting)
    assert found == waiting[:DISCHARGE_RUNS_MAX]


@pytest.mark.parametrize(
    ("debtor", "stated_minor", "discharge", "fault"),
    [
        (NODES[0], 50, None, None),
        (NODES[0], 49, None, "other_amount"),
        (NODES[1], 50, None, "not_debtor"),
        (NODES[1], 49, 1, "in_discharge"),
    ],
)
def test_a_payment_is_of_what_the_claims_come_to(
    debtor: str, stated_minor: int, discharge: int | None, fault: str | None
) -> None:
    assert fault_of_payment(debtor, stated_minor, [kept(1, Method.NETTING, NODES[0], 50, discharge)]) == fault


amounts = st.integers(min_value=0, max_value=10**9)
rates = st.decimals(min_value=Decimal("0.000001"), max_value=1_000_000, places=6)
drawn = st.builds(
    lambda first, payer_minor, payee_minor, rate: Payment(
        *(NODES if first else NODES[::-1]), payer_minor, payee_minor, rate
    ),
    st.booleans(), amounts, amounts, rates,
)  # fmt: skip


@given(st.lists(drawn, max_size=30), st.sampled_from(Method))
def test_claims_lower_each_account_by_what_the_payments_put_there(payments: list[Payment], method: Method) -> None:
    claims = claims_of(method, NODES, payments)
    for node in NODES:
        paid = sum(each.payer_minor for each in payments if each.payer == node)
        got = sum(each.payee_minor for each in payments if each.payee == node)
        assert sum(each.falls_minor[node] for each in claims) == paid - got


@given(st.lists(drawn, max_size=30), st.sampled_from(Method))
def test_what_is_paid_covers_the_payees_coins_and_no_cent_more(payments: list[Payment], method: Method) -> None:
    owed = sum((each.backing * (1 if each.payer == NODES[0] else -1) for each in payments), start=Fraction(0))
    paid = sum(
        each.backing_minor * (1 if each.debtor == NODES[0] else -1) for each in claims_of(method, NODES, payments)
    )
    assert abs(paid - owed) < (2 if method is Method.GROSS else 1)
    if method is not Method.GROSS:
        assert abs(paid) >= abs(owed)
