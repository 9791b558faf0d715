"""Discharges: the debtor announces, the creditor decides, and both clearing accounts fall by what runs put there."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from loopd.ledger.authority import OPERATOR
from loopd.ledger.movements import Phase
from loopd.ledger.netting.rules import DischargeSide, DischargeState
from loopd.ledger.netting.tables import open_claims
from loopd.protocol.documents import dump_json
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import DISCHARGES_DENIED_PER_DAY_MAX
from loopd.protocol.loopcost import LoopCost
from tests.clearing_support import ISSUED_MINOR
from tests.netting_support import DAY_MS, REFERENCE, NettingCity, NettingPair, breaks

RESERVE = 2 * ISSUED_MINOR
MUNICH, VIENNA = "munich.loop", "vienna.loop"


def balances(pair: NettingPair) -> tuple[int, int, int, int]:
    """What each owes the other, and both reserves: Munich's, Vienna's."""
    return pair.munich.owes(VIENNA), pair.vienna.owes(MUNICH), pair.munich.reserve, pair.vienna.reserve


def states(pair: NettingPair, discharge_id: str) -> tuple[DischargeState, DischargeState]:
    """How the discharge of Vienna's debt stands: at the debtor's, at the creditor's."""
    return (
        pair.vienna.discharge(MUNICH, DischargeSide.DEBTOR, discharge_id).state,
        pair.munich.discharge(VIENNA, DischargeSide.CREDITOR, discharge_id).state,
    )


def refusal(what: Callable[[], Any]) -> Refusal:
    with pytest.raises(Refusal) as raised:
        what()
    return raised.value


def test_reserve_pays_the_balance(pair: NettingPair) -> None:
    pair.owe()
    assert balances(pair) == (-9200, 11960, RESERVE, RESERVE)
    supplies = [city.ledger.figures(city.source).supply_minor for city in pair.cities]
    discharge_id = pair.pay(pair.vienna)
    pair.pass_on()
    assert states(pair, discharge_id) == (DischargeState.ANNOUNCED, DischargeState.ANNOUNCED)
    # Nothing has moved; Vienna's reserve holds what it paid.
    assert balances(pair) == (-9200, 11960, RESERVE, RESERVE)
    assert pair.vienna.ledger.require(pair.vienna.source, f"node:reserve@{VIENNA}").held_minor == 9200
    pair.munich.confirm(VIENNA, discharge_id)
    pair.pass_on()
    assert states(pair, discharge_id) == (DischargeState.CONFIRMED, DischargeState.CONFIRMED)
    assert balances(pair) == (0, 0, RESERVE + 9200, RESERVE - 9200)
    # What circulates stays what it was: a claim on the other city became backing.
    assert [city.ledger.figures(city.source).supply_minor for city in pair.cities] == supplies


def test_netting_pays_the_difference_alone(pair: NettingPair) -> None:
    pair.sell(pair.munich, pair.vienna)
    pair.sell(pair.vienna, pair.munich, LoopCost(1300, 0, 0, 0))
    pair.signed_run()
    # 92.00 for Munich, 13.00 of Vienna's coins for Vienna: 10.00 in the backing.
    assert pair.vienna.netting.terms(pair.vienna.source, MUNICH)["to_pay"] == 82
    discharge_id = pair.pay(pair.vienna)
    pair.pass_on()
    pair.munich.confirm(VIENNA, discharge_id)
    pair.pass_on()
    assert balances(pair) == (0, 0, RESERVE + 8200, RESERVE - 8200)


def test_gross_has_each_city_pay_its_own() -> None:
    pair = NettingPair("gross")
    pair.sell(pair.munich, pair.vienna)
    pair.sell(pair.vienna, pair.munich, LoopCost(1300, 0, 0, 0))
    pair.signed_run()
    first, second = pair.pay(pair.vienna), pair.pay(pair.munich, number=1)
    pair.pass_on()
    pair.munich.confirm(VIENNA, first)
    pair.pass_on()
    assert balances(pair) == (1000, -1300, RESERVE + 9200, RESERVE - 9200)
    pair.vienna.confirm(MUNICH, second)
    pair.pass_on()
    assert balances(pair) == (0, 0, RESERVE + 8200, RESERVE - 8200)
    pair.check()
    pair.close()


def test_clearing_carries_runs_and_one_payment_discharges_them() -> None:
    pair = NettingPair("clearing")
    for seller, buyer, cost in (
        (pair.munich, pair.vienna, LoopCost(6000, 0, 0, 0)),
        (pair.vienna, pair.munich, LoopCost(1300, 0, 0, 0)),
        (pair.munich, pair.vienna, LoopCost(500, 0, 0, 0)),
    ):
        pair.sell(seller, buyer, cost)
        pair.signed_run()
    # By the second run Vienna owes 60.00 less 10.00, and the third stays.
    discharge_id = pair.pay(pair.vienna, run=2)
    pair.pass_on()
    pair.munich.confirm(VIENNA, discharge_id)
    pair.pass_on()
    assert balances(pair) == (-500, 650, RESERVE + 5000, RESERVE - 5000)
    assert [each.run for each in open_claims(pair.munich.source, VIENNA)] == [3]
    pair.check()
    pair.close()


def test_what_is_even_is_discharged_by_the_signatures(pair: NettingPair) -> None:
    pair.sell(pair.munich, pair.vienna, LoopCost(1000, 0, 0, 0))
    pair.sell(pair.vienna, pair.munich, LoopCost(1300, 0, 0, 0))
    pair.signed_run()
    assert balances(pair) == (0, 0, RESERVE, RESERVE)
    assert open_claims(pair.munich.source, VIENNA) == open_claims(pair.vienna.source, MUNICH) == []
    assert refusal(lambda: pair.pay(pair.vienna)).reason == "nothing_owed"


def test_the_cents_of_the_ceilings_go_with_what_is_even(pair: NettingPair) -> None:
    # 1.28, 0.01 and 0.01 of Vienna's coins are 1.00 in the backing, and Munich pays 0.99, 0.01 and 0.01 for them.
    pair.sell(pair.vienna, pair.munich, LoopCost(129, 1, 0, 0))
    pair.sell(pair.munich, pair.vienna, LoopCost(100, 0, 0, 0))
    assert balances(pair) == (1, 0, RESERVE, RESERVE)
    pair.signed_run()
    assert balances(pair) == (0, 0, RESERVE, RESERVE)
    assert open_claims(pair.munich.source, VIENNA) == open_claims(pair.vienna.source, MUNICH) == []


def test_what_did_not_come_is_owed_again_and_can_be_paid_anew(pair: NettingPair) -> None:
    pair.owe()
    discharge_id = pair.pay(pair.vienna)
    pair.pass_on()
    pair.munich.deny(VIENNA, discharge_id)
    pair.pass_on()
    assert states(pair, discharge_id) == (DischargeState.DENIED, DischargeState.DENIED)
    assert balances(pair) == (-9200, 11960, RESERVE, RESERVE)
    assert pair.vienna.ledger.require(pair.vienna.source, f"node:reserve@{VIENNA}").held_minor == 0
    second = pair.pay(pair.vienna, number=1)
    pair.pass_on()
    pair.munich.confirm(VIENNA, second)
    pair.pass_on()
    assert balances(pair) == (0, 0, RESERVE + 9200, RESERVE - 9200)


def test_the_same_again_changes_nothing_and_nothing_is_paid_twice(pair: NettingPair) -> None:
    pair.owe()
    discharge_id = pair.pay(pair.vienna)
    assert pair.pay(pair.vienna) == discharge_id
    assert refusal(lambda: pair.pay(pair.vienna, number=1)).reason == "nothing_owed"
    pair.pass_on()
    for _ in range(2):
        pair.munich.confirm(VIENNA, discharge_id)
    pair.pass_on()
    assert balances(pair) == (0, 0, RESERVE + 9200, RESERVE - 9200)
    assert refusal(lambda: pair.munich.deny(VIENNA, discharge_id)).reason == "already_confirmed"
    other = refusal(
        lambda: pair.vienna.write(lambda tx: pair.vienna.netting.announce(tx, MUNICH, discharge_id, 1, "another"))
    )
    assert (other.status, other.reason) == (409, "other_content")


def test_who_may_do_what(pair: NettingPair) -> None:
    pair.owe()
    assert refusal(lambda: pair.pay(pair.munich)).reason == "nothing_owed"
    assert refusal(lambda: pair.pay(pair.vienna, run=2)).reason == "unknown_run"
    discharge_id = pair.pay(pair.vienna)
    pair.pass_on()
    assert refusal(lambda: pair.vienna.confirm(MUNICH, discharge_id)).reason == "not_creditor"
    assert refusal(lambda: pair.munich.confirm(VIENNA, "unknown")).reason == "unknown_discharge"
    pair.munich.deny(VIENNA, discharge_id)
    assert refusal(lambda: pair.munich.confirm(VIENNA, discharge_id)).reason == "already_denied"


def test_a_run_that_is_not_signed_is_not_paid(pair: NettingPair) -> None:
    pair.sell(pair.vienna, pair.munich)
    pair.days_pass()
    pair.munich.tick()
    assert refusal(lambda: pair.pay(pair.munich)).reason == "not_agreed"


def test_the_reserve_must_have_it(pair: NettingPair) -> None:
    pair.owe()
    reserve = pair.vienna.ledger.require(pair.vienna.source, f"node:reserve@{VIENNA}")
    left_minor, ledger = 9199 - reserve.balance_minor, pair.vienna.ledger
    pair.vienna.write(lambda tx: ledger.move_backing(tx, "taken", "taken", left_minor, ledger.now(tx)))
    assert refusal(lambda: pair.pay(pair.vienna)).reason == "insufficient_reserve"


def test_nobody_ends_what_a_discharge_holds_but_its_creditor(pair: NettingPair) -> None:
    pair.owe()
    pair.pay(pair.vienna)
    row = pair.vienna.source.one("SELECT id FROM ledger_transfer WHERE phase = 'pending' ORDER BY number DESC")
    assert row is not None
    for phase in (Phase.POST, Phase.VOID):
        found = refusal(
            lambda phase=phase: pair.vienna.write(lambda tx: pair.vienna.ledger.end(tx, row["id"], phase, OPERATOR))
        )
        assert found.reason == "of_a_transaction"


def notice(pair: NettingPair) -> dict[str, Any]:
    """What Vienna announces to Munich, taken out of the post."""
    pair.pay(pair.vienna)
    [sent] = pair.vienna.sent()
    pair.vienna.forget(sent.number)
    return dict(json.loads(sent.body))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": 91.99}, "other_amount"),
        ({"amount": 1e10}, "other_amount"),
        ({"currency": "USD"}, "other_currency"),
        ({"runs": [1, 1]}, "other_runs"),
    ],
)
def test_a_payment_that_does_not_fit_the_books_is_denied(
    pair: NettingPair, change: dict[str, Any], reason: str
) -> None:
    pair.owe()
    lie = notice(pair) | change
    pair.munich.take(VIENNA, dump_json(lie))
    [answer] = pair.munich.sent()
    assert {"answer": "denied", "reason": reason}.items() <= json.loads(answer.body).items()
    assert balances(pair) == (-9200, 11960, RESERVE, RESERVE)
    assert len(open_claims(pair.munich.source, VIENNA)) == 1
    # The answer got lost: the announcement comes again, and is answered again.
    pair.munich.forget(answer.number)
    pair.munich.take(VIENNA, dump_json(lie))
    assert [each.body for each in pair.munich.sent()] == [answer.body]
    pair.pass_on()
    # Vienna is told, and may announce what it owes anew.
    pair.pay(pair.vienna, number=1)


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"amount": 92.001}, 400, "bad_amount"),
        ({"runs": [2]}, 409, "unknown_run"),
        ({"debtor": "linz.loop"}, 400, "origin_mismatch"),
        ({"creditor": "linz.loop"}, 400, "not_counterpart"),
        ({"amount": 0}, 400, "schema"),
        ({"amount": "92"}, 400, "schema"),
        ({"amount": -1}, 400, "schema"),
        ({"runs": []}, 400, "schema"),
        ({"reference": ""}, 400, "schema"),
        ({"reference": "DE89370400440532013000"}, 400, "personal_data"),
    ],
)
def test_what_cannot_be_a_payment_is_refused_at_the_door(
    pair: NettingPair, change: dict[str, Any], status: int, reason: str
) -> None:
    pair.owe()
    lie = notice(pair) | change
    before = pair.munich.dump()
    found = refusal(lambda: pair.munich.take(VIENNA, dump_json(lie)))
    assert (found.status, found.reason) == (status, reason)
    assert pair.munich.dump() == before


def test_a_creditor_cannot_be_told_that_it_owes(pair: NettingPair) -> None:
    pair.owe()
    message = notice(pair) | {"debtor": MUNICH, "creditor": VIENNA}
    pair.vienna.take(MUNICH, dump_json(message))
    [answer] = pair.vienna.sent()
    assert json.loads(answer.body)["reason"] == "not_debtor"


def test_an_announcement_again_with_other_content_is_refused(pair: NettingPair) -> None:
    pair.owe()
    message = notice(pair)
    pair.munich.take(VIENNA, dump_json(message))
    for other in ({"reference": "another"}, {"amount": 91.99}, {"runs": [1, 2]}):
        found = refusal(lambda other=other: pair.munich.take(VIENNA, dump_json(message | other)))
        assert (found.status, found.reason) == (409, "other_content")
    # A second payment for what is announced already is denied.
    second = message | {"id": "eeeeeeee-0000-4000-8000-000000000000"}
    pair.munich.take(VIENNA, dump_json(second))
    assert json.loads(pair.munich.sent()[0].body)["reason"] == "in_discharge"


def test_a_peer_that_announces_what_never_comes_is_stopped(pair: NettingPair) -> None:
    pair.owe()
    message = notice(pair) | {"amount": 1}
    for number in range(DISCHARGES_DENIED_PER_DAY_MAX):
        pair.munich.take(VIENNA, dump_json(message | {"id": f"eeeeeeee-0000-4000-8000-{number:012x}"}))
    found = refusal(lambda: pair.munich.take(VIENNA, dump_json(message)))
    assert (found.status, found.reason) == (409, "too_many_denied")
    pair.munich.clock.advance(DAY_MS + 1)
    pair.munich.take(VIENNA, dump_json(message))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"answer": "denied"}, "other_decision"), ({"id": "eeeeeeee-0000-4000-8000-000000000000"}, "unknown_discharge")],
)
def test_an_answer_that_cannot_be_is_refused(pair: NettingPair, change: dict[str, Any], reason: str) -> None:
    pair.owe()
    discharge_id = pair.pay(pair.vienna)
    pair.pass_on()
    pair.munich.confirm(VIENNA, discharge_id)
    body = pair.munich.sent()[0].body
    pair.pass_on()
    before = pair.vienna.dump()
    found = refusal(lambda: pair.vienna.take(MUNICH, dump_json(json.loads(body) | change)))
    assert (found.status, found.reason) == (409, reason)
    assert pair.vienna.dump() == before


def test_a_lost_announcement_and_a_lost_answer_are_said_again(pair: NettingPair) -> None:
    pair.owe()
    notice(pair)
    pair.vienna.clock.advance(60_000)
    pair.vienna.tick()
    pair.pass_on()
    discharge_id = "dddddddd-0000-4000-8000-000000000000"
    pair.munich.confirm(VIENNA, discharge_id)
    pair.munich.forget(pair.munich.sent()[0].number)
    pair.vienna.clock.advance(600_000)
    pair.vienna.tick()
    pair.pass_on()
    assert states(pair, discharge_id) == (DischargeState.CONFIRMED, DischargeState.CONFIRMED)
    pair.vienna.clock.advance(DAY_MS)
    pair.vienna.tick()
    assert pair.vienna.sent() == []


@pytest.mark.parametrize("step", ["announce", "take", "confirm", "deny", "hear"])
def test_a_write_that_breaks_leaves_nothing_and_the_end_is_the_same(step: str) -> None:
    """At every statement of every step."""
    statements = 0
    while True:
        pair = NettingPair()
        pair.owe()
        broke = _break_at(pair, step, statements)
        [discharge_id] = [row["id"] for row in pair.vienna.source.all("SELECT id FROM netting_discharge")]
        paid = step != "deny"
        decided = DischargeState.CONFIRMED if paid else DischargeState.DENIED
        pair.vienna.clock.advance(3_600_000)
        pair.vienna.tick()
        pair.pass_on()
        (pair.munich.confirm if paid else pair.munich.deny)(VIENNA, discharge_id)
        pair.pass_on()
        pair.vienna.clock.advance(3_600_000)
        pair.vienna.tick()
        pair.pass_on()
        assert states(pair, discharge_id) == (decided, decided)
        assert balances(pair) == ((0, 0, RESERVE + 9200, RESERVE - 9200) if paid else (-9200, 11960, RESERVE, RESERVE))
        pair.check()
        pair.close()
        if not broke:
            break
        statements += 1
    assert statements >= 3


def _break_at(pair: NettingPair, step: str, statements: int) -> bool:
    """Whether a step broke after so many statements; it is done all the same where only the office would repeat it."""
    discharge_id = "dddddddd-0000-4000-8000-000000000000"

    def broken(city: NettingCity, unit: Callable[[Any], Any]) -> bool:
        return breaks(lambda: city.write(unit, statements))

    if step == "announce":
        broke = broken(pair.vienna, lambda tx: pair.vienna.netting.announce(tx, MUNICH, discharge_id, 1, REFERENCE))
        pair.pay(pair.vienna)
        return broke
    pair.pay(pair.vienna)
    if step == "take":
        return _lost_or_taken(pair.vienna, pair.munich, statements)
    pair.pass_on()
    if step == "confirm":
        return broken(pair.munich, lambda tx: pair.munich.netting.confirm(tx, VIENNA, discharge_id))
    if step == "deny":
        return broken(pair.munich, lambda tx: pair.munich.netting.deny(tx, VIENNA, discharge_id, "no payment came"))
    pair.munich.confirm(VIENNA, discharge_id)
    return _lost_or_taken(pair.munich, pair.vienna, statements)


def _lost_or_taken(sender: NettingCity, receiver: NettingCity, statements: int) -> bool:
    [sent] = sender.sent()
    sender.forget(sent.number)
    return breaks(lambda: receiver.take(sender.node_id, sent.body, statements))
