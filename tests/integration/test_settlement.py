"""A sale between two real nodes' ledgers: held at selection, paid at delivery, whoever is killed meanwhile."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_exchange_mirror import move, send_off
from tests.nodes import RunningNode, befriend, eventually, init_nodes, running

BREWERY, MARIA = "business:brewery@a.loop", "user:maria@b.loop"


@pytest.fixture(scope="module")
def cities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """A, who sells, and B, who buys; both keep ledgers, and give each other credit."""
    nodes = init_nodes(tmp_path_factory.mktemp("settlement"), "a", "b")
    for node, peer, code in ((nodes[0], nodes[1], "LC-AAA"), (nodes[1], nodes[0], "LC-BBB")):
        node.environment["LOOPD_LEDGER__CURRENCY_CODE"] = code
        node.environment["LOOPD_LEDGER__CREDIT_LIMITS"] = f'{{"{peer.node_id}": 5000}}'
        node.environment["LOOPD_LEDGER__SETTLEMENT_METHODS"] = f'{{"{peer.node_id}": "netting"}}'
    with running(*nodes):
        befriend(*nodes)
        for node, account in zip(nodes, (BREWERY, MARIA), strict=True):
            assert node.admin("POST", "/ledger/accounts", {"id": account}).status == 201
        issue = {"id": str(uuid.uuid4()), "to": MARIA, "amount": 1000, "backing": 1000}
        answer = nodes[1].admin("POST", "/api/v1/loopcoin/issuance", issue)
        assert answer.status in (200, 201), answer.body
        yield nodes


def bid(seller: RunningNode, buyer: RunningNode, price: int = 60) -> str:
    """Register a material and have the other city bid for it; gives its id."""
    subject = seller.register(metadata={"seller_account": BREWERY})
    buyer.hears(subject)
    answer = buyer.admin("POST", "/offers", {"material": subject, "base_price": price, "buyer_account": MARIA})
    assert answer.status in (201, 202), answer.body
    path = f"/api/v1/material/{subject}/offers"
    eventually(lambda: seller.get(path).json()["offers"], f"{seller} has the bid")
    return subject


def select(seller: RunningNode, subject: str) -> dict[str, str]:
    """Select the bid; the ids of the deal."""
    answer = seller.post(f"/api/v1/material/{subject}/select", {}, "offer:write")
    assert answer.status == 200, answer.body
    [sale] = seller.get(f"/api/v1/transaction?material={subject}").json()["results"]
    return {"material": subject, "transaction": sale["transaction_id"], "match": sale["match_id"]}


def clearing(node: RunningNode, peer: RunningNode) -> dict[str, Any]:
    answer = node.admin("GET", f"/api/v1/loopcoin/clearing/{peer.node_id}")
    assert answer.status == 200, answer.body
    return dict(answer.json())


def stands(node: RunningNode, peer: RunningNode, transaction: str, state: str) -> None:
    """Wait until a settlement stands so at a node."""

    def look() -> bool:
        found = clearing(node, peer)["results"]
        return any(each.get("transaction") == transaction and each["state"] == state for each in found)

    eventually(look, f"{transaction} is {state} at {node}")


def status_of(node: RunningNode, deal: dict[str, str]) -> str:
    return str(node.get(f"/api/v1/transaction/{deal['transaction']}").json()["status"])


def test_a_sale_to_another_city_is_paid_at_delivery(cities: list[RunningNode]) -> None:
    a, b = cities
    deal = select(a, bid(a, b))
    for node, peer in ((a, b), (b, a)):
        stands(node, peer, deal["transaction"], "prepared")
    send_off(a, deal)
    move(a, "transfer", deal["transfer"], "completed")
    eventually(lambda: status_of(a, deal) == "completed", "the sale is completed")
    stands(b, a, deal["transaction"], "posted")
    assert clearing(a, b)["owes"] == -clearing(b, a)["owes"] < 0


@pytest.mark.parametrize("victim", [0, 1])
def test_whoever_is_killed_the_sale_is_paid_once(cities: list[RunningNode], victim: int) -> None:
    a, b = cities
    before = clearing(b, a)["owes"]
    deal = select(a, bid(a, b))
    cities[victim].kill9()
    cities[victim].start()
    stands(a, b, deal["transaction"], "prepared")
    send_off(a, deal)
    move(a, "transfer", deal["transfer"], "completed")
    cities[victim].kill9()
    cities[victim].start()
    eventually(lambda: status_of(a, deal) == "completed", "the sale is completed")
    stands(b, a, deal["transaction"], "posted")
    assert clearing(a, b)["owes"] == -clearing(b, a)["owes"]
    [paid] = [each for each in clearing(b, a)["results"] if each.get("transaction") == deal["transaction"]]
    assert clearing(b, a)["owes"] == pytest.approx(before + paid["payer_amount"])


def run_stands(node: RunningNode, peer: RunningNode, run: int, state: str) -> dict[str, Any]:
    """Wait until a run stands so at a node; gives it."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [each for each in runs(node, peer) if (each["run"], each["state"]) == (run, state)]
        return bool(found)

    eventually(look, f"run {run} is {state} at {node}")
    return found[0]


def runs(node: RunningNode, peer: RunningNode) -> list[dict[str, Any]]:
    return list(node.admin("GET", f"/api/v1/loopcoin/clearing/{peer.node_id}/runs").json()["results"])


@pytest.mark.parametrize("victim", [0, 1])
def test_both_sign_what_was_paid_and_reserve_discharges_it(cities: list[RunningNode], victim: int) -> None:
    """A has the smaller id, so it proposes; B owes. Whoever is killed at each step, the balance is paid once."""
    a, b = cities
    deal = select(a, bid(a, b))
    stands(a, b, deal["transaction"], "prepared")
    send_off(a, deal)
    move(a, "transfer", deal["transfer"], "completed")
    stands(a, b, deal["transaction"], "posted")
    number = len(runs(a, b)) + 1
    proposed = a.cli("clearing", "propose", b.node_id, "--json")
    assert proposed.status == 0, proposed.err
    cities[victim].kill9()
    cities[victim].start()
    claims = [run_stands(node, peer, number, "agreed")["claims"] for node, peer in ((a, b), (b, a))]
    assert claims[0] == claims[1]
    documents = [
        node.admin("GET", f"/api/v1/loopcoin/clearing/{peer.node_id}/runs/{number}").body
        for node, peer in ((a, b), (b, a))
    ]
    assert documents[0] == documents[1]
    discharge = str(uuid.uuid4())
    paid = b.cli("clearing", "pay", a.node_id, str(number), "SEPA 42", "--id", discharge, "--json")
    assert paid.status == 0, paid.err
    cities[victim].kill9()
    cities[victim].start()
    announced = f"/api/v1/loopcoin/clearing/{b.node_id}/discharges"
    eventually(lambda: a.admin("GET", announced).json()["results"][:1], f"{a} has heard of the payment")
    confirmed = a.cli("clearing", "confirm", b.node_id, discharge)
    assert confirmed.status == 0, confirmed.err
    cities[victim].kill9()
    cities[victim].start()
    eventually(lambda: clearing(b, a)["owes"] == 0, "nothing is owed any more")
    assert clearing(a, b)["owes"] == 0
    for node, peer in ((a, b), (b, a)):
        for command in (("ledger", "check"), ("ledger", "reconcile", peer.node_id)):
            told = node.cli(*command)
            assert told.status == 0, told.out + told.err


def test_a_buyer_without_the_money_loses_the_sale(cities: list[RunningNode]) -> None:
    a, b = cities
    deal = select(a, bid(a, b, price=4000))
    eventually(lambda: status_of(a, deal) == "cancelled", "the sale is off")
    stands(a, b, deal["transaction"], "voided")
    for node, peer in ((a, b), (b, a)):
        compared = node.cli("ledger", "reconcile", peer.node_id, "--json")
        assert compared.status == 0, compared.err
    assert a.get(f"/api/v1/material/{deal['material']}").json()["status"] == "registered"
