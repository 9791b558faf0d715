"""Deals between real processes: both sides hold the same state, whoever is killed and whatever that loses."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from loopd.protocol.timestamps import format_timestamp
from tests.nodes import CONTEXT, RunningNode, befriend, eventually, init_nodes, running, together

_numbers = count(1)


@pytest.fixture(scope="module")
def cities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """A, who sells, and B and C, who buy; C knows A through B alone."""
    nodes = init_nodes(tmp_path_factory.mktemp("mirror"), "a", "b", "c")
    with running(*nodes):
        befriend(nodes[0], nodes[1])
        befriend(nodes[1], nodes[2])
        yield nodes


def sell(seller: RunningNode, buyer: RunningNode, quantity: float = 500) -> dict[str, str]:
    """Sell a new material; the ids of all that belongs to the deal."""
    subject = seller.register()
    transaction_id = f"TXN-2026-11-21-{next(_numbers):03d}"
    sale = {
        "@context": CONTEXT,
        "@type": "MaterialTransaction",
        "id": transaction_id,
        "material": subject,
        "seller": seller.node_id,
        "buyer": buyer.node_id,
        "quantity": {"value": quantity, "unit": "kg"},
        "offer": {"base_price": 60, "loop_cost": 104},
        "timestamp": format_timestamp(time.time_ns() // 1_000_000),
    }
    answer = seller.post("/api/v1/transaction", sale, "offer:write")
    assert answer.status == 201, answer.body
    match_id = answer.json()["match_id"]
    offer_id = seller.get(f"/api/v1/match/{match_id}").json()["offer_id"]
    return {"material": subject, "transaction": transaction_id, "match": match_id, "offer": offer_id}


def send_off(seller: RunningNode, deal: dict[str, str]) -> None:
    """Make a Transfer of the deal's Match, and send it off."""
    transfer = {
        "@context": CONTEXT,
        "@type": "Transfer",
        "schema_version": "0.2.0",
        "id": f"TRANSFER-{next(_numbers):06d}",
        "material_id": deal["material"],
        "match_id": deal["match"],
        "status": "scheduled",
        "handoff_at": format_timestamp(time.time_ns() // 1_000_000),
    }
    answer = seller.post("/api/v1/transfer", transfer, "offer:write")
    assert answer.status == 201, answer.body
    deal["transfer"] = transfer["id"]
    move(seller, "transfer", deal["transfer"], "in_transit")


def move(seller: RunningNode, entity: str, entity_id: str, status: str) -> None:
    answer = seller.post(f"/api/v1/{entity}/{entity_id}/status", {"status": status}, "offer:write")
    assert answer.status == 200, answer.body


def ask(buyer: RunningNode, seller: RunningNode, entity: str, entity_id: str, status: str) -> None:
    path = f"/api/v1/mirror/{seller.node_id}/{entity}/{entity_id}/status"
    answer = buyer.post(path, {"status": status, "reason": "as agreed"}, "offer:write")
    assert answer.status == 202, answer.body


def own(seller: RunningNode, deal: dict[str, str]) -> dict[str, tuple[str, int]]:
    """How each part of a deal stands at the seller's."""
    found = {}
    for entity in ("offer", "match", "transfer", "transaction"):
        if entity in deal:
            value = seller.get(f"/api/v1/{entity}/{deal[entity]}").json()
            found[entity] = (value["status"], value["version"])
    return found


def mirrored(buyer: RunningNode, seller: RunningNode, deal: dict[str, str]) -> dict[str, tuple[str, int]]:
    """How it stands at the buyer's."""
    found = {}
    for entity in ("offer", "match", "transfer", "transaction"):
        answer = buyer.get(f"/api/v1/mirror/{seller.node_id}/{entity}/{deal.get(entity, 'NOTHING0')}")
        if answer.status == 200:
            found[entity] = (answer.json()["status"], answer.json()["version"])
    return found


def same(seller: RunningNode, buyer: RunningNode, deal: dict[str, str], **statuses: str) -> None:
    """Wait until both sides hold the same, with those statuses."""

    def look() -> bool:
        here, there = own(seller, deal), mirrored(buyer, seller, deal)
        return here == there and all(here[entity][0] == status for entity, status in statuses.items())

    try:
        eventually(look, f"{buyer} holds what {seller} decided: {statuses}")
    except AssertionError as error:
        raise AssertionError(f"{own(seller, deal)} at {seller}, {mirrored(buyer, seller, deal)} at {buyer}") from error


def test_a_deal_from_its_offer_to_its_delivery(cities: list[RunningNode]) -> None:
    a, b, _ = cities
    deal = sell(a, b)
    same(a, b, deal, offer="reserved", match="accepted", transaction="pending")
    send_off(a, deal)
    same(a, b, deal, transfer="in_transit", transaction="in_transit")
    ask(b, a, "transfer", deal["transfer"], "completed")
    same(a, b, deal, offer="withdrawn", match="accepted", transfer="completed", transaction="delivered")
    shown = b.get(f"/api/v1/mirror/{a.node_id}/transfer/{deal['transfer']}").json()
    assert shown["request"]["state"] == "granted"
    assert shown["document"]["match_id"] == deal["match"]
    listed = b.get("/api/v1/mirror?entity=transfer&node=a.loop").json()["results"]
    assert shown in listed
    record = a.get(f"/api/v1/material/{deal['material']}").json()
    assert record["current_city"] != a.city


def test_a_buyer_that_is_killed_holds_the_same_afterwards(cities: list[RunningNode]) -> None:
    a, b, _ = cities
    deal = sell(a, b)
    b.kill9()
    send_off(a, deal)
    b.start()
    same(a, b, deal, transfer="in_transit", transaction="in_transit")
    ask(b, a, "transfer", deal["transfer"], "completed")
    b.kill9()
    b.start()
    same(a, b, deal, transfer="completed", transaction="delivered")


def test_a_seller_that_is_killed_tells_the_rest_afterwards(cities: list[RunningNode]) -> None:
    a, b, _ = cities
    deal = sell(a, b)
    send_off(a, deal)
    a.kill9()
    a.start()
    same(a, b, deal, transfer="in_transit", transaction="in_transit")
    a.kill9()
    ask(b, a, "transfer", deal["transfer"], "completed")
    a.start()
    same(a, b, deal, transfer="completed", transaction="delivered")


def test_both_are_killed_amid_several_deals(cities: list[RunningNode]) -> None:
    a, b, _ = cities
    deals = [sell(a, b, quantity=100) for _ in range(3)]
    for deal in deals:
        send_off(a, deal)
    a.kill9()
    b.kill9()
    together([a.start, b.start])
    for deal in deals:
        same(a, b, deal, transaction="in_transit")


def test_a_buyer_two_hops_away(cities: list[RunningNode]) -> None:
    a, _, c = cities
    subject = a.register()
    c.hears(subject)
    # By its bid A comes to know C, which is no peer of it.
    assert c.admin("POST", "/offers", {"material": subject, "base_price": 60}).status == 201
    eventually(lambda: a.get(f"/api/v1/material/{subject}/offers").json()["offers"], "A has C's bid")
    selected = a.post(f"/api/v1/material/{subject}/select", {}, "offer:write").json()["selected"]
    assert selected == c.node_id
    [sale] = a.get(f"/api/v1/transaction?material={subject}").json()["results"]
    match = a.get(f"/api/v1/match/{sale['match_id']}").json()
    deal = {
        "material": subject,
        "transaction": sale["transaction_id"],
        "match": match["id"],
        "offer": match["offer_id"],
    }
    same(a, c, deal, offer="reserved", match="accepted", transaction="pending")
    send_off(a, deal)
    same(a, c, deal, transfer="in_transit")
    ask(c, a, "transfer", deal["transfer"], "completed")
    same(a, c, deal, transfer="completed")


def test_a_cancelled_deal_ends_on_both_sides(cities: list[RunningNode]) -> None:
    a, b, _ = cities
    deal = sell(a, b)
    same(a, b, deal, transaction="pending")
    ask(b, a, "transaction", deal["transaction"], "cancelled")
    same(a, b, deal, transaction="cancelled", match="expired", offer="open")


def test_a_disputed_deal_is_disputed_on_both_sides(cities: list[RunningNode]) -> None:
    a, b, _ = cities
    deal = sell(a, b)
    send_off(a, deal)
    same(a, b, deal, transaction="in_transit")
    ask(b, a, "transaction", deal["transaction"], "disputed")
    same(a, b, deal, transaction="disputed")


def test_nobody_else_reads_or_asks(cities: list[RunningNode]) -> None:
    a, b, c = cities
    deal = sell(a, b)
    same(a, b, deal, match="accepted")
    assert mirrored(c, a, deal) == {}
    path = f"/api/v1/mirror/a.loop/match/{deal['match']}/status"
    answer: Any = c.post(path, {"status": "expired"}, "offer:write")
    assert (answer.status, answer.reason) == (404, "unknown_mirror")
    answer = a.get(f"/api/v1/federate/mirror/match/{deal['match']}")
    assert (answer.status, answer.reason) == (401, "missing_header")
