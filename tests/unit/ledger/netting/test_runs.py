"""Runs between two cities' books: proposed at the period's end, signed by both or refused with a place."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from loopd.crypto.keys import PublicKey, decode_signature
from loopd.ledger import checks
from loopd.ledger.netting.documents import is_signed
from loopd.ledger.netting.rules import RunState
from loopd.ledger.netting.tables import claims_of_run
from loopd.ledger.orders import signed_bytes
from loopd.protocol.documents import dump_json
from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import read_json
from tests.clearing_support import pass_on_from
from tests.ledger_sim.city import KEYS
from tests.netting_support import NettingCity, NettingPair, breaks

MUNICH, VIENNA = "munich.loop", "vienna.loop"
Change = Callable[[dict[str, Any]], None]


def messages(city: NettingCity) -> list[dict[str, Any]]:
    """What waits at a city, taken away."""
    found = []
    for each in city.sent():
        found.append(json.loads(each.body))
        city.forget(each.number)
    return found


def proposed(pair: NettingPair) -> dict[str, Any]:
    """A sale, and the run that Munich proposes of it."""
    pair.sell(pair.munich, pair.vienna)
    pair.days_pass()
    pair.munich.tick()
    [message] = messages(pair.munich)
    return message


def test_both_sign_what_both_have_posted(pair: NettingPair) -> None:
    pair.sell(pair.munich, pair.vienna)
    pair.sell(pair.vienna, pair.munich)
    pair.signed_run()
    runs = [city.run(peer) for city, peer in ((pair.munich, "vienna.loop"), (pair.vienna, "munich.loop"))]
    assert [run.state for run in runs] == [RunState.AGREED] * 2
    assert runs[0].document == runs[1].document
    document = read_json(runs[0].document)
    assert (document["@type"], document["from_node"], document["to_node"]) == (
        "InterNodeSettlement", "munich.loop", "vienna.loop",
    )  # fmt: skip
    assert (document["settlement_method"], document["settlement_period"]) == ("netting", "daily")
    for node in ("munich.loop", "vienna.loop"):
        assert is_signed(document, node, [KEYS[node].public])
        assert not is_signed(document, node, [KEYS["linz.loop"].public])


def test_a_signature_is_over_the_rfc_8785_form_without_signatures(pair: NettingPair) -> None:
    message = proposed(pair)
    signature = decode_signature(message.pop("signatures")["munich.loop"]["signature"])
    assert PublicKey(KEYS["munich.loop"].public.raw).verify(signed_bytes(read_json(dump_json(message))), signature)


def test_a_transfer_tells_price_and_fees_in_the_payers_coins_and_no_person(pair: NettingPair) -> None:
    [transfer] = proposed(pair)["transfers"]
    del transfer["id"], transfer["transaction"]
    # 1.3 of Vienna's coins for one of Munich's: 60, 24, 12 and 8 at that rate.
    assert transfer == {
        "from": "node:clearing.munich.loop@vienna.loop",
        "to": "business:brewery@munich.loop",
        "amount": 78.0,
        "from_currency": "LC-VIE",
        "to_currency": "LC-MUN",
        "exchange_rate": 0.769230769230769,
        "fees": {"export_penalty": 31.2, "import_penalty": 15.6, "distance_cost": 10.4},
        "from_total": 119.6,
        "to_total": 92.0,
    }


def test_nothing_is_proposed_before_the_period_ends_and_nothing_twice(pair: NettingPair) -> None:
    pair.sell(pair.munich, pair.vienna)
    pair.munich.tick()
    assert messages(pair.munich) == []
    pair.signed_run()
    pair.signed_run()
    assert pair.munich.netting.runs(pair.munich.source, "vienna.loop", None, 10)[0]["run"] == 1


def test_only_the_smaller_id_proposes(pair: NettingPair) -> None:
    pair.sell(pair.munich, pair.vienna)
    pair.days_pass()
    pair.vienna.tick()
    assert messages(pair.vienna) == []
    with pytest.raises(Refusal) as refusal:
        pair.vienna.write(lambda tx: pair.vienna.netting.propose(tx, "munich.loop"))
    assert refusal.value.reason == "peer_proposes"


def test_the_office_may_propose_before_the_period_ends(pair: NettingPair) -> None:
    munich = pair.munich
    with pytest.raises(Refusal) as refusal:
        munich.write(lambda tx: munich.netting.propose(tx, "vienna.loop"))
    assert refusal.value.reason == "nothing_to_settle"
    pair.sell(pair.munich, pair.vienna)
    munich.write(lambda tx: munich.netting.propose(tx, "vienna.loop"))
    with pytest.raises(Refusal) as refusal:
        munich.write(lambda tx: munich.netting.propose(tx, "vienna.loop"))
    assert refusal.value.reason == "run_undecided"
    pair.pass_on()
    assert munich.run("vienna.loop").state is RunState.AGREED


def test_a_payment_that_the_payee_has_not_acknowledged_waits(pair: NettingPair) -> None:
    pair.sell(pair.vienna, pair.munich)
    pair.munich.connection.execute("UPDATE clearing_settlement SET acknowledged = 0")
    pair.days_pass()
    pair.munich.tick()
    assert messages(pair.munich) == []
    assert pair.munich.netting.runs(pair.munich.source, "vienna.loop", None, 10) == []


@pytest.mark.parametrize("lost", ["the proposal", "the answer"])
def test_what_gets_lost_is_said_again_and_signed_once(pair: NettingPair, lost: str) -> None:
    proposed_once = dump_json(proposed(pair))
    if lost == "the answer":
        pair.vienna.take("munich.loop", proposed_once)
        messages(pair.vienna)
    pair.munich.clock.advance(60_000)
    pair.munich.tick()
    pair.pass_on()
    assert pair.munich.run("vienna.loop").state is RunState.AGREED
    assert pair.munich.run("vienna.loop").document == pair.vienna.run("munich.loop").document
    # An answer that comes again changes nothing.
    before = pair.munich.dump()
    pair.munich.take("vienna.loop", pair.vienna.run("munich.loop").document)
    assert pair.munich.dump() == before


def _set(*path: Any, value: Any) -> Change:
    def change(message: dict[str, Any]) -> None:
        target: Any = message
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def _listed_twice(message: dict[str, Any]) -> None:
    message["transfers"] *= 2


@pytest.mark.parametrize(
    ("change", "reason", "place"),
    [
        (_set("settlement_method", value="gross"), "other_method", "/settlement_method"),
        (_set("settlement_period", value="weekly"), "other_period", "/settlement_period"),
        (_set("closed_at", value="2027-09-21T00:00:00Z"), "bad_time", "/closed_at"),
        (_set("transfers", value=[]), "no_payments", "/transfers"),
        (
            _set("transfers", 0, "id", value="00000000-0000-4000-8000-000000000000"),
            "unknown_payment",
            "/transfers/0/id",
        ),
        (_listed_twice, "in_another_run", "/transfers/1/id"),
        (_set("transfers", 0, "amount", value=78.01), "other_content", "/transfers/0/amount"),
        (_set("transfers", 0, "to_total", value=1), "other_content", "/transfers/0/to_total"),
        (_set("transfers", 0, "from", value="user:eva@vienna.loop"), "other_content", "/transfers/0/from"),
        (_set("claims", 0, "amount", value=92.01), "other_content", "/claims/0/amount"),
        (_set("claims", 0, "debtor", value="munich.loop"), "other_content", "/claims/0/debtor"),
        (_set("claims", value=[]), "other_content", "/claims/0"),
        (_set("rebate", value=5), "other_content", "/rebate"),
        (_set("signatures", value={}), "bad_signature", "/signatures"),
        (_set("signatures", "munich.loop", "signature", value="A" * 86), "bad_signature", "/signatures"),
        (_set("signatures", "munich.loop", value="yes"), "bad_signature", "/signatures"),
    ],
)
def test_a_run_that_differs_is_not_signed_and_the_place_is_told(
    pair: NettingPair, change: Change, reason: str, place: str
) -> None:
    message = proposed(pair)
    change(message)
    pair.vienna.take("munich.loop", dump_json(message))
    [answer] = messages(pair.vienna)
    assert (answer["@type"], answer["reason"], answer["place"]) == ("NettingRefusal", reason, place)
    assert pair.vienna.netting.runs(pair.vienna.source, "munich.loop", None, 10) == []
    pair.munich.take("vienna.loop", dump_json(answer))
    assert pair.munich.run("vienna.loop").state is RunState.REFUSED
    assert pair.munich.run("vienna.loop").reason == f"{reason} {place}"


def test_a_payment_that_is_only_prepared_is_in_no_run(pair: NettingPair) -> None:
    message = proposed(pair)
    # Vienna's side is as it was before the decision.
    pair.vienna.connection.execute("DROP TRIGGER clearing_settlement_decided")
    pair.vienna.connection.execute("UPDATE clearing_settlement SET state = 'prepared'")
    pair.vienna.take("munich.loop", dump_json(message))
    [answer] = messages(pair.vienna)
    assert (answer["reason"], answer["place"]) == ("not_posted", "/transfers/0/id")
    pair.vienna.connection.execute("UPDATE clearing_settlement SET state = 'posted'")


def test_after_a_refusal_the_next_period_proposes_the_same_payments_anew(pair: NettingPair) -> None:
    pair.vienna.keys.of_others["munich.loop"] = [KEYS["linz.loop"].public]
    pair.sell(pair.munich, pair.vienna)
    pair.signed_run()
    assert pair.munich.run("vienna.loop").state is RunState.REFUSED
    pair.munich.tick()
    assert messages(pair.munich) == []
    pair.vienna.keys.of_others["munich.loop"] = [KEYS["munich.loop"].public]
    pair.signed_run()
    assert pair.munich.run("vienna.loop", 2).state is RunState.AGREED
    assert len(read_json(pair.munich.run("vienna.loop", 2).document)["transfers"]) == 1


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (_set("run", value=0), 400, "not_a_run"),
        (_set("run", value="1"), 400, "not_a_run"),
        (_set("run", value=True), 400, "not_a_run"),
        (_set("closed_at", value="yesterday"), 400, "not_a_run"),
        (_set("transfers", 0, "id", value=7), 400, "not_a_run"),
        (_set("from_node", value="linz.loop"), 400, "origin_mismatch"),
        (_set("to_node", value="linz.loop"), 400, "not_counterpart"),
    ],
)
def test_what_is_no_run_is_refused_at_the_door(pair: NettingPair, change: Change, status: int, reason: str) -> None:
    message = proposed(pair)
    change(message)
    before = pair.vienna.dump()
    with pytest.raises(Refusal) as refusal:
        pair.vienna.take("munich.loop", dump_json(message))
    assert (refusal.value.status, refusal.value.reason) == (status, reason)
    assert pair.vienna.dump() == before


def test_the_specifications_own_example_is_no_run_and_says_so(pair: NettingPair) -> None:
    example = {
        "@context": "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.1.1.jsonld",
        "@type": "InterNodeSettlement",
        "from_node": "munich.loop",
        "to_node": "vienna.loop",
        "transfers": [],
        "settlement_method": "clearing",
        "settlement_period": "daily",
    }
    with pytest.raises(Refusal) as refusal:
        pair.vienna.take("munich.loop", dump_json(example))
    assert (refusal.value.reason, refusal.value.details["pointer"]) == ("not_a_run", "/run")


def test_a_stranger_signs_nothing(pair: NettingPair) -> None:
    message = proposed(pair) | {"from_node": "linz.loop"}
    with pytest.raises(Refusal) as refusal:
        pair.vienna.take("linz.loop", dump_json(message))
    assert (refusal.value.status, refusal.value.reason) == (403, "not_settling")


def test_an_answer_with_another_content_or_key_is_refused(pair: NettingPair) -> None:
    message = proposed(pair)
    pair.vienna.take("munich.loop", dump_json(message))
    [answer] = messages(pair.vienna)
    for change, reason in (
        (_set("transfers", 0, "amount", value=1), "other_content"),
        (_set("signatures", "vienna.loop", "signature", value="A" * 86), "bad_signature"),
        (_set("run", value=2), "unknown_run"),
    ):
        lie = json.loads(json.dumps(answer))
        change(lie)
        before = pair.munich.dump()
        with pytest.raises(Refusal) as refusal:
            pair.munich.take("vienna.loop", dump_json(lie))
        assert (refusal.value.status, refusal.value.reason) == (409, reason)
        assert pair.munich.dump() == before


def test_a_refusal_after_the_signature_changes_nothing(pair: NettingPair) -> None:
    pair.sell(pair.munich, pair.vienna)
    pair.signed_run()
    refusal = {
        "@context": read_json(pair.munich.run("vienna.loop").document)["@context"],
        "@type": "NettingRefusal",
        "from_node": "munich.loop",
        "to_node": "vienna.loop",
        "run": 1,
        "reason": "other_content",
    }
    with pytest.raises(Refusal) as raised:
        pair.munich.take("vienna.loop", dump_json(refusal))
    assert raised.value.reason == "already_agreed"


def test_a_number_is_used_once(pair: NettingPair) -> None:
    message = proposed(pair)
    pair.vienna.take("munich.loop", dump_json(message))
    messages(pair.vienna)
    pair.vienna.take("munich.loop", dump_json(message | {"rebate": 1}))
    [answer] = messages(pair.vienna)
    assert (answer["@type"], answer["reason"]) == ("NettingRefusal", "other_run")


def test_a_run_that_was_not_signed_is_not_signed_later_when_a_copy_of_it_comes(pair: NettingPair) -> None:
    """Vienna settles as Munich does only from the second copy on; Munich has given the payments back by then."""
    munich, vienna, message = pair.munich, pair.vienna, dump_json(proposed(pair))
    others = [vienna.settings.model_copy(update={"settlement_methods": {MUNICH: way}}) for way in ("gross", "netting")]
    refusals = []
    for settings in others:
        vienna.restart(settings)
        vienna.take(MUNICH, message)
        refusals += messages(vienna)
    assert [(each["@type"], each["reason"]) for each in refusals] == [("NettingRefusal", "other_method")] * 2
    for each in refusals:
        munich.take(VIENNA, dump_json(each))
    pair.signed_run()
    assert [city.run(peer, 2).state for city, peer in ((munich, VIENNA), (vienna, MUNICH))] == [RunState.AGREED] * 2
    vienna.take(MUNICH, message)
    assert [each["reason"] for each in messages(vienna)] == ["other_method"]


def test_a_run_of_a_number_below_one_that_was_not_signed_is_not_signed(pair: NettingPair) -> None:
    message = proposed(pair)
    for number, reason in ((5, "bad_signature"), (4, "other_run"), (5, "bad_signature"), (1, "other_run")):
        pair.vienna.take(MUNICH, dump_json(message | {"run": number}))
        assert [each["reason"] for each in messages(pair.vienna)] == [reason]


def test_a_run_has_an_end_and_the_rest_is_in_the_next(pair: NettingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopd.ledger.netting.runs.NETTING_PAYMENTS_MAX", 2)
    for _ in range(3):
        pair.sell(pair.munich, pair.vienna)
    pair.signed_run()
    pair.munich.tick()
    pair.pass_on()
    sizes = [len(read_json(pair.munich.run("vienna.loop", number).document)["transfers"]) for number in (1, 2)]
    assert sizes == [2, 1]


@pytest.mark.parametrize("where", ["propose", "sign", "agree"])
def test_a_write_that_breaks_leaves_nothing_and_the_run_is_signed_all_the_same(where: str) -> None:
    """At every statement of every step."""
    statements = 0
    while True:
        pair = NettingPair()
        try:
            pair.sell(pair.munich, pair.vienna)
            pair.days_pass()
            broke = _break_at(pair, where, statements)
            pair.munich.clock.advance(60_000)
            pair.munich.tick()
            pair.pass_on()
            assert pair.munich.run("vienna.loop").state is RunState.AGREED
            assert pair.munich.run("vienna.loop").document == pair.vienna.run("munich.loop").document
            assert len(claims_of_run(pair.munich.source, 1)) == 1
            pair.check()
        finally:
            pair.close()
        if not broke:
            break
        statements += 1
    assert statements >= 3


def _break_at(pair: NettingPair, where: str, statements: int) -> bool:
    """Whether a step broke after so many statements."""
    if where == "propose":
        [due] = pair.munich.netting.due(pair.munich.source, pair.munich.clock.now_ms())
        return breaks(lambda: pair.munich.write(due.do, statements))
    pair.munich.tick()
    if where == "agree":
        pass_on_from(pair.munich, pair.vienna)
    sender, receiver = (pair.munich, pair.vienna) if where == "sign" else (pair.vienna, pair.munich)
    [sent] = sender.sent()
    broke = breaks(lambda: receiver.take(sender.node_id, sent.body, statements))
    sender.forget(sent.number)
    return broke


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM netting_run",
        "UPDATE netting_run SET state = 'refused'",
        "UPDATE clearing_settlement SET netting_run = 9",
        "UPDATE netting_claim SET discharge = 9",
    ],
)
def test_a_payment_in_a_run_that_is_none_is_found(statement: str) -> None:
    pair = NettingPair()
    pair.sell(pair.munich, pair.vienna)
    pair.signed_run()
    pair.check()
    connection = pair.munich.connection
    for trigger in ("run_decided", "run_lasts", "listed"):
        connection.execute(f"DROP TRIGGER netting_{trigger}")
    connection.execute("PRAGMA foreign_keys = OFF")
    assert connection.execute(statement).rowcount > 0
    broken = [each.invariant for each in checks.check(pair.munich.source) if not each.holds]
    assert "a payment is in a run that there is, and a claim in one that both signed" in broken
    pair.close()
