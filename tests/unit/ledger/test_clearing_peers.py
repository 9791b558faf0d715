"""What a city with a clearing account may try on settlements that are not its own: nothing comes of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from loopd.ledger import checks
from loopd.ledger.clearing import payer, tables
from loopd.ledger.clearing.messages import settlement_id
from loopd.ledger.clearing.ports import Consent
from loopd.protocol.documents import dump_json
from loopd.protocol.errors import Refusal
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.transactions import Transaction
from tests.clearing_support import COST, SettlingCity, pass_on, plans_of, sale
from tests.exchange_support import CONTEXT

MUNICH, VIENNA, LINZ = "munich.loop", "vienna.loop", "linz.loop"


@dataclass
class Three:
    """Munich and Linz sell to Vienna, which pays both."""

    munich: SettlingCity
    vienna: SettlingCity
    linz: SettlingCity

    def of(self, node_id: str) -> SettlingCity:
        return {city.node_id: city for city in (self.munich, self.vienna, self.linz)}[node_id]

    def tell(self, sender: str, receiver: SettlingCity, message: dict[str, Any] | bytes) -> None:
        receiver.take(sender, message if isinstance(message, bytes) else dump_json(message))

    def pass_on(self) -> None:
        """Deliver all that is sent, until nothing more is."""
        pass_on(self.munich, self.vienna, self.linz)

    def prepared(self, number: int, seller: SettlingCity) -> Transaction:
        """A sale to Vienna for which both sides have prepared."""
        sold = sale(number, seller, self.vienna, COST)
        assert seller.write(lambda tx: seller.payments.hold(tx, sold)) is None
        self.pass_on()
        assert self.state(sold) == "prepared"
        return sold

    def state(self, sold: Transaction) -> str | None:
        """How a sale stands at Vienna."""
        known = tables.find_of_transaction(self.vienna.source, sold.seller, sold.transaction_id)
        return None if known is None else known.state

    def refusal(self, sender: str, receiver: SettlingCity, message: dict[str, Any]) -> str:
        """Why a message is refused; the receiver is as it was then."""
        before = receiver.dump()
        with pytest.raises(Refusal) as raised:
            self.tell(sender, receiver, message)
        assert receiver.dump() == before
        return raised.value.reason


@pytest.fixture
def three() -> Iterator[Three]:
    names = (MUNICH, VIENNA, LINZ)
    made = Three(*(SettlingCity(name, [peer for peer in names if peer != name]) for name in names))
    yield made
    for city in (made.munich, made.vienna, made.linz):
        city.close()


_OF_THE_DIGEST = (slice(0, 12), slice(13, 16), slice(17, 32))


def message(entity: str, payee: str, transaction_id: str, **fields: Any) -> dict[str, Any]:
    """What a payee's node tells Vienna."""
    return {
        "@context": CONTEXT,
        "@type": f"Settlement{entity}",
        "payer": VIENNA,
        "payee": payee,
        "id": settlement_id(payee, transaction_id),
        **fields,
    }


def test_a_settlements_id_is_as_the_protocol_notes_tell() -> None:
    found = UUID(settlement_id(MUNICH, "TXN-2026-09-21-001"))
    digest = sha256(f"loopd-ledger-v1\nsettlement\n{MUNICH}\nTXN-2026-09-21-001".encode()).hexdigest()
    assert (found.version, found.variant) == (8, RFC_4122)
    # All digits but that of the version, and the one that holds the two bits of the variant.
    assert [found.hex[part] for part in _OF_THE_DIGEST] == [digest[part] for part in _OF_THE_DIGEST]
    notes = (Path(__file__).resolve().parents[3] / "docs" / "protocol-notes.md").read_text(encoding="utf-8")
    assert "the SHA-256 of `loopd-ledger-v1`, `settlement`" in notes


@pytest.mark.parametrize(
    ("entity", "fields"),
    [
        ("Inquiry", {"asks": "post"}),
        ("Inquiry", {"asks": "void"}),
        ("Inquiry", {"asks": "freeze"}),
        ("Inquiry", {}),
        ("Answer", {"answer": "refused"}),
        ("Answer", {"answer": "prepared"}),
        ("Acknowledgement", {"decision": "post"}),
    ],
)
def test_a_settlement_is_moved_by_its_own_other_side_alone(three: Three, entity: str, fields: dict[str, str]) -> None:
    sold = three.prepared(1, three.munich)
    told = {**message(entity, MUNICH, sold.transaction_id, **fields), "payee": LINZ}
    if entity == "Inquiry":
        told["transaction"] = sold.transaction_id
    assert three.refusal(LINZ, three.vienna, told) in ("not_counterpart", "bad_id")
    assert three.state(sold) == "prepared"


def test_nobody_takes_the_name_of_anothers_settlement_before_it_comes(three: Three) -> None:
    taken = settlement_id(MUNICH, "TXN-2026-09-21-001")
    inquiry = message("Inquiry", LINZ, "TXN-2026-09-21-001", transaction="TXN-2026-09-21-001")
    assert three.refusal(LINZ, three.vienna, {**inquiry, "id": taken}) == "bad_id"
    own = sale(7, three.linz, three.vienna, COST)
    three.linz.write(lambda tx: three.linz.payments.hold(tx, own))
    [asked] = three.linz.sent()
    assert three.refusal(LINZ, three.vienna, {**json.loads(asked.body), "id": taken}) == "bad_id"
    three.pass_on()
    three.prepared(1, three.munich)


def test_a_city_that_decides_on_what_will_be_sold_keeps_nothing_from_being_sold(three: Three) -> None:
    """What it says it voids, before anybody asked: the seller's node does not keep it, and acknowledges it."""
    before = three.munich.dump()
    told = message("Decision", MUNICH, "TXN-2026-09-21-001", decision="void")
    three.tell(VIENNA, three.munich, told)
    [sent] = three.munich.sent()
    said = json.loads(sent.body)
    assert (sent.target, said["@type"], said["decision"]) == (VIENNA, "SettlementAcknowledgement", "void")
    three.munich.forget(sent.number)
    assert three.munich.dump() == before
    assert three.refusal(VIENNA, three.munich, {**told, "decision": "post"}) == "unknown_settlement"
    three.prepared(1, three.munich)


def test_without_a_credit_limit_nothing_new_is_settled_and_what_had_begun_ends(three: Three) -> None:
    munich, vienna = three.munich, three.vienna
    begun = three.prepared(1, munich)
    asked, new = sale(2, munich, vienna, COST), sale(3, munich, vienna, COST)
    del vienna.settings.credit_limits[MUNICH]
    munich.write(lambda tx: munich.payments.hold(tx, asked))
    three.pass_on()
    assert munich.told_of(asked.transaction_id) == "no_credit"
    del munich.settings.credit_limits[VIENNA]
    assert munich.write(lambda tx: munich.payments.hold(tx, new)) == "no_credit"
    munich.write(lambda tx: munich.payments.post(tx, begun))
    three.pass_on()
    assert three.state(begun) == "posted"


def test_what_is_the_buyers_citys_own_does_not_cross(three: Three) -> None:
    """The seller's node asks for as much as the bid costs, and for its own funds what is the other's."""
    munich, vienna = three.munich, three.vienna
    greedy = LoopCost(COST.base_minor, COST.export_minor, 0, COST.distance_minor + COST.import_minor)
    sold = sale(1, munich, vienna, greedy)
    vienna.exchange.bids[sold.subject_id] = Consent("bid-1", COST.total_minor, COST.import_minor)
    munich.write(lambda tx: munich.payments.hold(tx, sold))
    three.pass_on()
    assert munich.told_of(sold.transaction_id) == "above_bid"
    honest = sale(2, munich, vienna, COST)
    vienna.exchange.bids[honest.subject_id] = Consent("bid-2", COST.total_minor, COST.import_minor)
    munich.write(lambda tx: munich.payments.hold(tx, honest))
    three.pass_on()
    assert three.state(honest) == "prepared"


def inquiry(number: int, payee: str = LINZ) -> dict[str, Any]:
    """Linz asks Vienna about a sale that Vienna never heard of."""
    transaction_id = f"TXN-2026-09-21-{number:03d}"
    return message("Inquiry", payee, transaction_id, transaction=transaction_id)


def test_a_city_that_asks_without_end_is_kept_for_so_many_times_a_day(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of its sales without a bid, half that nobody heard of; what holds money goes on."""
    monkeypatch.setattr(payer, "SETTLEMENTS_VOID_PER_PEER_PER_DAY_MAX", 10)
    vienna, linz = three.vienna, three.linz
    for number in range(10):
        if number % 2:
            three.tell(LINZ, vienna, inquiry(number))
            continue
        refused = sale(number, linz, vienna, COST)
        vienna.exchange.bids.clear()
        linz.write(lambda tx, refused=refused: linz.payments.hold(tx, refused))
        three.pass_on()
    assert len(vienna.settled_with(LINZ)) == 10
    assert not vienna.clearing.due(vienna.source, vienna.clock.now_ms() + 86_400_000)
    assert three.refusal(LINZ, vienna, inquiry(11)) == "too_many_settlements"
    three.tell(LINZ, vienna, inquiry(1))
    held = sale(12, linz, vienna, COST)
    linz.write(lambda tx: linz.payments.hold(tx, held))
    three.pass_on()
    assert three.state(held) == "prepared"
    three.tell(MUNICH, vienna, inquiry(13, MUNICH))
    vienna.clock.advance(86_400_000)
    three.tell(LINZ, vienna, inquiry(11))


def test_a_peers_settlements_are_read_without_the_others(three: Three) -> None:
    [plan] = plans_of(three.vienna.source, lambda source: tables.page(source, MUNICH, 5, 100))
    assert "clearing_settlement_of_peer (<expr>=? AND number" in plan


@pytest.mark.parametrize("reason", ["", "user:maria@munich.loop", "Why not?", "x" * 61])
def test_what_another_node_answers_becomes_no_reason_unless_it_is_one(three: Three, reason: str) -> None:
    munich = three.munich
    sold = sale(1, munich, three.vienna, COST)
    munich.write(lambda tx: munich.payments.hold(tx, sold))
    known = tables.find_of_transaction(munich.source, MUNICH, sold.transaction_id)
    assert known is not None
    munich.write(lambda tx: munich.clearing.request_answered(tx, f"settlement:{known.number}", 400, reason))
    assert munich.told_of(sold.transaction_id) == "not_taken"


def test_money_for_a_sale_that_is_off_already_goes_back_at_once(three: Three) -> None:
    """The request was taken, its repeat was refused for good: the sale is off before the money comes."""
    munich, vienna = three.munich, three.vienna
    sold = sale(1, munich, vienna, COST)
    munich.write(lambda tx: munich.payments.hold(tx, sold))
    [asked] = munich.sent()
    three.tell(MUNICH, vienna, asked.body)
    munich.forget(asked.number)
    assert three.state(sold) == "held"
    known = tables.find_of_transaction(munich.source, MUNICH, sold.transaction_id)
    assert known is not None
    munich.write(lambda tx: munich.clearing.request_answered(tx, f"settlement:{known.number}", 403, "suspended"))
    assert munich.told_of(sold.transaction_id) == "suspended"
    three.pass_on()
    assert three.state(sold) == "voided"
    assert vienna.ledger.require(vienna.source, vienna.buyer).held_minor == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE clearing_settlement SET state = 'posted' WHERE state = 'prepared'",
        "UPDATE clearing_settlement SET state = 'voided' WHERE state = 'posted'",
        "UPDATE clearing_settlement SET payer_minor = payer_minor + 1, payee_minor = payee_minor + 1",
        "UPDATE clearing_settlement SET id = upper(id) WHERE state = 'posted'",
        "DELETE FROM clearing_settlement WHERE state = 'prepared'",
    ],
)
@pytest.mark.parametrize("side", [MUNICH, VIENNA])
def test_a_settlement_that_is_not_as_its_lines_is_found(three: Three, side: str, statement: str) -> None:
    munich, vienna = three.munich, three.vienna
    for number, what in ((1, munich.payments.post), (2, munich.payments.release), (3, munich.payments.freeze)):
        sold = three.prepared(number, munich)
        munich.write(lambda tx, what=what, sold=sold: what(tx, sold))
        three.pass_on()
    vienna.exchange.bids.clear()
    munich.write(lambda tx: munich.payments.hold(tx, replace(sold, transaction_id="TXN-2026-09-21-009")))
    three.pass_on()
    city = three.of(side)
    assert all(each.holds for each in checks.check(city.source))
    for name in ("decided", "lasts"):
        city.connection.execute(f"DROP TRIGGER clearing_settlement_{name}")
    assert city.connection.execute(statement).rowcount > 0
    broken = [each.invariant for each in checks.check(city.source) if not each.holds]
    assert "a settlement between cities is as its lines" in broken
