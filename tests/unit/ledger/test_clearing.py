"""Settlements between the books of two cities: how they can go, at every write, and against peers that lie."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from loopd.ledger.accounts import Fund
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.messages import converted_days, settlement_id
from loopd.ledger.clearing.rules import Decision
from loopd.ledger.dates import day_of
from loopd.ledger.lots import Part
from loopd.protocol.documents import dump_json
from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import SETTLEMENT_PREPARE_MS
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.transactions import Transaction
from tests.clearing_support import COST, ISSUED_MINOR, START_MS, SettlingCity, pass_on, pass_on_from, sale
from tests.ledger_sim.city import Broken


class Pair:
    """Munich sells, Vienna pays: 1.3 of Vienna's coins are worth one of Munich's."""

    def __init__(self, **settings: Any) -> None:
        self.munich = SettlingCity("munich.loop", ["vienna.loop"], **settings)
        self.vienna = SettlingCity("vienna.loop", ["munich.loop"])
        self.sale = sale(1, self.munich, self.vienna, COST)

    def close(self) -> None:
        self.munich.close()
        self.vienna.close()

    def do(self, what: Callable[..., Any], each: Transaction | None = None) -> Any:
        """Have Munich's ledger do its part for the sale."""
        return self.munich.write(lambda tx: what(tx, each or self.sale))

    def pass_on(self) -> None:
        """Deliver all that is sent, until nothing more is."""
        pass_on(self.munich, self.vienna)

    def pass_on_once(self) -> list[dict[str, Any]]:
        """Deliver what waits now; gives it."""
        told = pass_on_from(self.munich, self.vienna) + pass_on_from(self.vienna, self.munich)
        return [json.loads(body) for body in told]

    def states(self) -> tuple[str | None, str | None]:
        """How both sides stand: the payer's, the payee's."""
        return self._state(self.vienna), self._state(self.munich)

    def _state(self, city: SettlingCity) -> str | None:
        known = tables.find_of_transaction(city.source, "munich.loop", self.sale.transaction_id)
        return None if known is None else known.state

    def refusal(self, sender: SettlingCity, receiver: SettlingCity, message: dict[str, Any]) -> Refusal:
        """The refusal of a message, after which the receiver is as it was."""
        before = receiver.dump()
        with pytest.raises(Refusal) as raised:
            receiver.take(sender.node_id, dump_json(message))
        assert receiver.dump() == before
        return raised.value


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def prepared(pair: Pair) -> list[dict[str, Any]]:
    """Both sides have prepared; gives what they told each other."""
    assert pair.do(pair.munich.payments.hold) is None
    told = []
    while pair.munich.sent() or pair.vienna.sent():
        told += pair.pass_on_once()
    assert pair.states() == ("prepared", "prepared")
    return told


def test_a_sale_is_held_at_selection_and_paid_at_delivery(pair: Pair) -> None:
    prepared(pair)
    account = pair.vienna.ledger.require(pair.vienna.source, pair.vienna.buyer)
    assert (account.balance_minor, account.held_minor) == (ISSUED_MINOR, 13520)
    assert pair.do(pair.munich.payments.post) is False
    pair.pass_on()
    assert pair.states() == ("posted", "posted")
    munich, vienna = pair.munich, pair.vienna
    # 104.00 = 36 + 24 + 12 + 8 + 24 residual; at 1.3 the buyer pays 135.20, of which 15.60 stay in Vienna.
    assert munich.balance(munich.seller) == 3600
    assert [munich.fund(fund) for fund in (Fund.COMMUNITY, Fund.TRANSPORT, Fund.RESIDUAL)] == [2400, 800, 2400]
    assert vienna.balance(vienna.buyer) == ISSUED_MINOR - 13520
    assert vienna.fund(Fund.COMMUNITY) == 1560
    assert (munich.owes("vienna.loop"), vienna.owes("munich.loop")) == (-9200, 11960)
    assert munich.told_of(pair.sale.transaction_id) == "settled"
    assert pair.do(pair.munich.payments.post) is True


def test_the_seller_gets_coins_of_the_buyers_issue_days(pair: Pair) -> None:
    pair.munich.clock.advance(40 * 86_400_000)
    prepared(pair)
    pair.do(pair.munich.payments.post)
    pair.pass_on()
    seller = pair.munich.ledger.require(pair.munich.source, pair.munich.seller)
    lots = pair.munich.source.all("SELECT issue_day FROM ledger_lot WHERE account = ?", (seller.number,))
    assert [row[0] for row in lots] == [day_of(START_MS)]


def test_days_are_converted_without_a_remainder() -> None:
    parts = [Part(1, 1), Part(2, 1), Part(3, 1)]
    assert converted_days(parts, 3, 2) == [Part(2, 1), Part(3, 1)]
    assert sum(part.amount_minor for part in converted_days(parts, 3, 1000)) == 1000


def test_what_is_cancelled_is_given_back(pair: Pair) -> None:
    prepared(pair)
    pair.do(pair.munich.payments.release)
    pair.pass_on()
    assert pair.states() == ("voided", "voided")
    assert pair.vienna.ledger.require(pair.vienna.source, pair.vienna.buyer).held_minor == 0
    assert (pair.munich.owes("vienna.loop"), pair.vienna.owes("munich.loop")) == (0, 0)


def test_a_dispute_freezes_until_the_payers_node_resolves_it(pair: Pair) -> None:
    prepared(pair)
    pair.do(pair.munich.payments.freeze)
    pair.pass_on()
    pair.do(pair.munich.payments.post)
    pair.pass_on()
    assert pair.states() == ("prepared", "prepared")
    known = tables.find_of_transaction(pair.vienna.source, "munich.loop", pair.sale.transaction_id)
    assert known is not None
    with pytest.raises(Refusal) as raised:
        pair.munich.write(lambda tx: pair.munich.clearing.resolve(tx, "vienna.loop", known.name.id, Decision.POST))
    assert raised.value.reason == "payer_decides"
    for _ in range(2):
        pair.vienna.write(lambda tx: pair.vienna.clearing.resolve(tx, "munich.loop", known.name.id, Decision.POST))
    pair.pass_on()
    assert pair.states() == ("posted", "posted")


def _poor(pair: Pair) -> None:
    pair.sale = sale(1, pair.munich, pair.vienna, LoopCost(ISSUED_MINOR))


def _without_bid(pair: Pair) -> None:
    pair.vienna.exchange.bids.clear()


def _dearer(pair: Pair) -> None:
    sale(1, pair.munich, pair.vienna, LoopCost(6000))


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_poor, "insufficient_funds"), (_without_bid, "no_bid"), (_dearer, "above_bid")]
)
def test_money_that_cannot_be_held_ends_the_sale(pair: Pair, spoil: Callable[[Pair], None], reason: str) -> None:
    spoil(pair)
    pair.do(pair.munich.payments.hold)
    pair.pass_on()
    assert pair.states() == ("voided", "voided")
    assert pair.munich.told_of(pair.sale.transaction_id) == reason


def test_one_bid_pays_for_one_sale(pair: Pair) -> None:
    prepared(pair)
    again = sale(2, pair.munich, pair.vienna, COST)
    pair.vienna.exchange.bids[again.subject_id] = pair.vienna.exchange.bids[pair.sale.subject_id]
    pair.do(pair.munich.payments.hold, again)
    pair.pass_on()
    assert pair.munich.told_of(again.transaction_id) == "bid_settled"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"credit_limits": {"vienna.loop": Decimal("91.99")}}, "over_credit"),
        ({"max_issuance": ISSUED_MINOR // 100 + 91}, "over_cap"),
    ],
)
def test_the_payees_node_takes_no_more_than_it_may(settings: dict[str, Any], reason: str) -> None:
    pair = Pair(**settings)
    pair.do(pair.munich.payments.hold)
    pair.pass_on()
    assert pair.states() == ("voided", "voided")
    assert pair.munich.told_of(pair.sale.transaction_id) == reason
    assert pair.vienna.ledger.require(pair.vienna.source, pair.vienna.buyer).held_minor == 0
    pair.close()


def test_a_payee_that_never_answers_does_not_keep_the_money(pair: Pair) -> None:
    pair.do(pair.munich.payments.hold)
    pair.pass_on_once()
    pair.vienna.clock.advance(SETTLEMENT_PREPARE_MS)
    for due in pair.vienna.clearing.due(pair.vienna.source, pair.vienna.clock.now_ms()):
        pair.vienna.write(due.do)
    assert pair.states()[0] == "voided"
    pair.pass_on()
    assert pair.states() == ("voided", "voided")


def test_a_sale_that_the_other_city_does_not_hear_of_is_off_and_nothing_more_is_said() -> None:
    pair, other = Pair(), SettlingCity("vienna.loop", [])
    pair.do(pair.munich.payments.hold)
    [sent] = pair.munich.sent()
    with pytest.raises(Refusal) as raised:
        other.take(pair.munich.node_id, sent.body)
    refusal = raised.value
    assert (refusal.status, refusal.reason) == (403, "not_settling")
    pair.munich.forget(sent.number)
    pair.munich.write(
        lambda tx: pair.munich.clearing.request_answered(tx, sent.reference, refusal.status, refusal.reason)
    )
    assert pair.munich.told_of(pair.sale.transaction_id) == "not_settling"
    assert pair.munich.sent() == []
    # A copy of the request that comes late, to a city that settles by now, keeps no money.
    pair.vienna.take(pair.munich.node_id, sent.body)
    assert pair.states() == ("held", "voided")
    pair.pass_on()
    assert pair.states() == ("voided", "voided")
    assert pair.vienna.ledger.require(pair.vienna.source, pair.vienna.buyer).held_minor == 0
    other.close()
    pair.close()


def test_what_nobody_here_heard_of_is_void_for_good(pair: Pair) -> None:
    told = prepared(pair)
    unknown = "TXN-2026-09-21-009"
    inquiry = {key: told[0][key] for key in ("@context", "payer", "payee")}
    inquiry |= {"@type": "SettlementInquiry", "id": settlement_id("munich.loop", unknown), "transaction": unknown}
    for _ in range(2):
        pair.vienna.take(pair.munich.node_id, dump_json(inquiry))
    decisions = [json.loads(each.body) for each in pair.vienna.sent()]
    assert [each["decision"] for each in decisions] == ["void", "void"]
    assert len(pair.vienna.settled_with("munich.loop")) == 2


@pytest.mark.parametrize(
    ("line", "change"), [(0, {"payee_amount": 35.99}), (0, {"payer_amount": 46.81}), (1, {"payee_amount": 240})]
)
def test_a_payer_that_lies_about_an_amount_is_refused(pair: Pair, line: int, change: dict[str, float]) -> None:
    pair.do(pair.munich.payments.hold)
    pass_on_from(pair.munich, pair.vienna)
    [prepare] = pair.vienna.sent()
    pair.vienna.forget(prepare.number)
    lie = read_json(prepare.body)
    lie["lines"][line].update({key: Decimal(str(amount)) for key, amount in change.items()})
    balances = pair.munich.source.all("SELECT id, balance_minor, held_minor FROM ledger_account ORDER BY id")
    pair.munich.take(pair.vienna.node_id, dump_json(lie))
    after = pair.munich.source.all("SELECT id, balance_minor, held_minor FROM ledger_account ORDER BY id")
    assert [tuple(row) for row in after] == [tuple(row) for row in balances]
    [answer] = [json.loads(each.body) for each in pair.munich.sent()]
    assert (answer["answer"], answer["reason"]) == ("refused", "other_amounts")
    pair.pass_on()
    assert pair.states() == ("voided", "voided")


def test_missteps_are_refused_and_change_nothing(pair: Pair) -> None:
    request, _, answer = prepared(pair)
    munich, vienna = pair.munich, pair.vienna
    acknowledged = {**answer, "@type": "SettlementAcknowledgement", "decision": "post"}
    acknowledged.pop("answer")
    assert pair.refusal(munich, vienna, acknowledged).reason == "not_decided"
    assert pair.refusal(munich, vienna, {**answer, "answer": "refused"}).reason == "already_prepared"
    assert pair.refusal(vienna, vienna, request).reason == "origin_mismatch"
    other = {**request, "lines": {**request["lines"], "residual": 25}}
    assert pair.refusal(munich, vienna, other).reason == "other_content"
    assert pair.refusal(munich, vienna, {**other, "id": "00000000-0000-4000-8000-00000000000a"}).reason == "bad_id"
    unknown = {**acknowledged, "id": "00000000-0000-4000-8000-00000000000a"}
    assert pair.refusal(munich, vienna, unknown).reason == "unknown_settlement"
    decision = {**unknown, "@type": "SettlementDecision"}
    assert pair.refusal(vienna, munich, decision).reason == "unknown_settlement"
    pair.do(munich.payments.post)
    pair.pass_on()
    assert pair.refusal(munich, vienna, {**acknowledged, "decision": "void"}).reason == "other_decision"
    void = {**decision, "id": answer["id"], "decision": "void"}
    assert pair.refusal(vienna, munich, void).reason == "other_decision"
    before = vienna.balance(vienna.buyer)
    for message in (acknowledged, acknowledged, answer):
        vienna.take(munich.node_id, dump_json(message))
    pair.pass_on()
    assert vienna.balance(vienna.buyer) == before


def test_a_crash_at_any_write_leaves_what_was_before_or_all_of_it() -> None:
    """At each unit of work of both sides, after each of its writes."""
    pair, crashes = Pair(), 0

    def at_each_write(city: SettlingCity, unit: Callable[[int | None], Any]) -> int:
        writes = 0
        while True:
            before = city.dump()
            try:
                unit(writes)
            except Broken:
                assert city.dump() == before
                writes += 1
            else:
                return writes

    payments = pair.munich.payments
    for what in (payments.hold, payments.post):
        crashes += at_each_write(pair.munich, partial(pair.munich.write, partial(what, transaction=pair.sale)))
        while pair.munich.sent() or pair.vienna.sent():
            for city, other in ((pair.munich, pair.vienna), (pair.vienna, pair.munich)):
                for each in city.sent():
                    crashes += at_each_write(other, partial(other.take, city.node_id, each.body))
                    city.forget(each.number)
    assert pair.states() == ("posted", "posted")
    assert pair.munich.balance(pair.munich.seller) == 3600
    assert crashes > 100
    pair.close()
