"""Transactions: of which Match they are, how they follow the goods, what the ledger is asked, what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.exchange.entity_views import public_json
from loopd.protocol.errors import Refusal
from loopd.protocol.schemas import is_valid
from loopd.protocol.timestamps import format_timestamp
from tests.lifecycle_support import (
    MATCH,
    NOW_MS,
    OFFER,
    TRANSACTION,
    TRANSFER,
    SellerNode,
    entity_id,
    seller_node,
)

ACCOUNTS = {"seller_account": "business:brewery@munich.loop", "buyer_account": "user:maria@vienna.loop"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SellerNode]:
    async with seller_node(tmp_path) as opened:
        await opened.register()
        yield opened


async def refused(node: SellerNode, status: int, reason: str, attempt: Any) -> None:
    """The attempt is refused so, and leaves every table as it was."""
    before = await node.dump()
    with pytest.raises(Refusal) as refusal:
        await attempt
    assert (refusal.value.status, refusal.value.reason) == (status, reason)
    assert await node.dump() == before


async def matched(node: SellerNode) -> None:
    await node.offer()
    await node.match()


async def test_a_sale_makes_offer_and_match_where_there_are_none(node: SellerNode) -> None:
    sale = await node.sale(quantity={"value": 0.2, "unit": "t"})
    assert is_valid("TransactionStatus", sale)
    assert (sale["status"], sale["settlement_url"]) == (
        "pending",
        f"/api/v1/transaction/{entity_id(TRANSACTION)}/settlement",
    )
    match = node.read(MATCH, sale["match_id"])
    assert (match["status"], match["to_city"], match["to_node"]) == ("accepted", "Vienna", "vienna.loop")
    assert (node.left(), node.read(OFFER, match["offer_id"])["status"]) == (300, "reserved")


async def test_without_a_quantity_it_is_all_that_is_left(node: SellerNode) -> None:
    await matched(node)
    await node.sale(buyer="berlin.loop")
    assert (node.left(), node.state()) == (0, "reserved")


async def test_a_sale_is_of_the_match_that_fits(node: SellerNode) -> None:
    await matched(node)
    assert (await node.sale())["match_id"] == entity_id(MATCH)
    assert node.left() == 300
    # A second one makes a Match of its own.
    assert (await node.sale(1, quantity={"value": 1, "unit": "kg"}))["match_id"] != entity_id(MATCH)


async def test_a_sale_is_of_the_match_of_its_quantity(node: SellerNode) -> None:
    await node.offer(quantity={"value": 10, "unit": "kg"})
    await node.match()
    await node.offer(1, quantity={"value": 20, "unit": "kg"})
    await node.match(1)
    assert (await node.sale(quantity={"value": 0.02, "unit": "t"}))["match_id"] == entity_id(MATCH, 1)
    assert node.left() == 470


async def test_litres_are_no_kilograms(node: SellerNode) -> None:
    await node.offer(quantity={"value": 5, "unit": "kg"})
    await refused(node, 409, "unit_mismatch", node.sale(quantity={"value": 5, "unit": "l"}))
    await node.match()
    await refused(node, 409, "unit_mismatch", node.sale(quantity={"value": 5, "unit": "l"}))


async def test_a_sale_follows_its_transfer(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await node.transfer()
    assert node.status(TRANSACTION) == "confirmed"
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    assert node.status(TRANSACTION) == "in_transit"
    await node.change(TRANSFER, entity_id(TRANSFER), "completed")
    assert node.status(TRANSACTION) == "delivered"
    assert await node.change(TRANSACTION, entity_id(TRANSACTION), "completed")
    told = [(each.version, each.document["status"]) for each in node.mirror.told if each.entity is TRANSACTION]
    assert told == [(1, "pending"), (2, "confirmed"), (3, "in_transit"), (4, "delivered"), (5, "completed")]
    assert {each.document["id"] for each in node.mirror.told if each.entity is TRANSACTION} == {entity_id(TRANSACTION)}


async def test_a_sale_that_comes_late_catches_up(node: SellerNode) -> None:
    await matched(node)
    await node.transfer()
    for status in ("in_transit", "completed"):
        await node.change(TRANSFER, entity_id(TRANSFER), status)
    assert (await node.sale())["status"] == "delivered"


async def test_a_sale_is_of_goods_that_are_still_here_before_those_that_have_arrived(node: SellerNode) -> None:
    for number in (0, 1):
        await node.offer(number, quantity={"value": 10 + number, "unit": "kg"})
        await node.match(number)
    await node.transfer()
    for status in ("in_transit", "completed"):
        await node.change(TRANSFER, entity_id(TRANSFER), status)
    assert (await node.sale())["match_id"] == entity_id(MATCH, 1)
    assert (await node.sale(1))["match_id"] == entity_id(MATCH)


@pytest.mark.parametrize("steps", [(), ("in_transit",), ("in_transit", "completed")])
async def test_a_sale_names_who_is_told_of_a_match_that_named_nobody(node: SellerNode, steps: tuple[str, ...]) -> None:
    await node.offer()
    await node.match(to_node=None)
    await node.transfer()
    for status in steps:
        await node.change(TRANSFER, entity_id(TRANSFER), status)
    assert node.mirror.told == []
    before = {entity: node.read(entity, entity_id(entity)) for entity in (OFFER, MATCH, TRANSFER)}
    await node.sale()
    told = {each.entity: each for each in node.mirror.told}
    assert set(told) == {OFFER, MATCH, TRANSFER, TRANSACTION}
    assert {each.counterpart for each in told.values()} == {"vienna.loop"}
    for entity, value in before.items():
        now = node.read(entity, entity_id(entity))
        assert (now["status"], now["version"]) == (value["status"], value["version"] + 1)
        assert dict(told[entity].document) == now
    assert node.read(MATCH, entity_id(MATCH))["to_node"] == "vienna.loop"


async def test_a_sale_inside_the_city_tells_nobody(node: SellerNode) -> None:
    await node.offer()
    await node.match(to_node=None)
    await node.sale(buyer="munich.loop", offer={"base_price": 60, "loop_cost": 60})
    assert node.mirror.told == []
    assert node.read(MATCH, entity_id(MATCH))["version"] == 1


async def test_a_sale_that_is_moved_takes_its_transfer_along(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await node.change(TRANSACTION, entity_id(TRANSACTION), "confirmed")
    await refused(node, 409, "transition", node.change(TRANSACTION, entity_id(TRANSACTION), "delivered"))
    details = {"location": {"lat": 48, "lon": 16}, "notes": "past Linz"}
    moved = await node.change(TRANSACTION, entity_id(TRANSACTION), "in_transit", details=details)
    assert (moved["status"], moved["details"]) == ("in_transit", details)
    rows = await node.database.all("SELECT id, status FROM transfer")
    assert [row["status"] for row in rows] == ["in_transit"]
    assert is_valid("Transfer", node.read(TRANSFER, rows[0]["id"]))
    await node.change(TRANSACTION, entity_id(TRANSACTION), "delivered")
    assert node.read(TRANSFER, rows[0]["id"])["status"] == "completed"
    assert node.left() == 300


async def test_nothing_is_delivered_without_goods(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await node.transfer()
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    await node.change(TRANSFER, entity_id(TRANSFER), "cancelled")
    assert node.status(TRANSACTION) == "in_transit"
    await refused(node, 409, "no_transfer", node.change(TRANSACTION, entity_id(TRANSACTION), "delivered"))


async def test_cancelling_before_the_goods_have_left_frees_them(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await node.transfer()
    await node.change(TRANSACTION, entity_id(TRANSACTION), "cancelled", reason="changed our mind")
    assert (node.status(TRANSFER), node.status(MATCH), node.status(OFFER)) == ("cancelled", "expired", "open")
    assert node.left() == 500
    for status in TRANSACTION.lifecycle.successors:
        await refused(node, 409, "terminal", node.change(TRANSACTION, entity_id(TRANSACTION), status))


async def test_cancelling_while_the_goods_are_on_their_way_leaves_them_there(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await node.transfer()
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    await node.change(TRANSACTION, entity_id(TRANSACTION), "cancelled")
    assert (node.status(TRANSFER), node.status(MATCH), node.left()) == ("in_transit", "accepted", 300)


async def test_a_match_that_ends_cancels_its_sale(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await node.change(MATCH, entity_id(MATCH), "expired")
    assert node.status(TRANSACTION) == "cancelled"
    assert node.ledger.calls == [("hold", entity_id(TRANSACTION)), ("release", entity_id(TRANSACTION))]


async def test_the_ledger_is_asked_at_each_step(node: SellerNode) -> None:
    await matched(node)
    await node.sale(**ACCOUNTS)
    await refused(node, 409, "transition", node.change(TRANSACTION, entity_id(TRANSACTION), "completed"))
    await node.transfer()
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    await node.change(TRANSFER, entity_id(TRANSFER), "completed")
    await refused(node, 409, "by_settlement", node.change(TRANSACTION, entity_id(TRANSACTION), "completed"))
    await node.write(lambda tx: node.lifecycle.transactions.settled(tx, entity_id(TRANSACTION), "munich.loop"))
    assert (node.status(TRANSACTION), node.read(TRANSACTION, entity_id(TRANSACTION))["reason"]) == (
        "completed",
        "settled",
    )
    assert [call for call, _ in node.ledger.calls] == ["hold", "post"]


async def test_what_is_paid_at_once_is_completed_at_delivery(node: SellerNode) -> None:
    node.ledger.pays = True
    await matched(node)
    await node.sale(**ACCOUNTS)
    await node.transfer()
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    await node.change(TRANSFER, entity_id(TRANSFER), "completed")
    assert node.status(TRANSACTION) == "completed"


async def test_a_dispute_freezes_and_ends_it(node: SellerNode) -> None:
    await matched(node)
    await node.sale(**ACCOUNTS)
    await node.change(TRANSACTION, entity_id(TRANSACTION), "disputed", by="vienna.loop", reason="spoilt")
    assert [call for call, _ in node.ledger.calls] == ["hold", "freeze"]
    await node.write(lambda tx: node.lifecycle.transactions.settled(tx, entity_id(TRANSACTION), "munich.loop"))
    assert node.status(TRANSACTION) == "disputed"
    # The goods go their own way.
    await node.transfer()
    assert node.status(TRANSFER) == "scheduled"


async def test_money_that_cannot_be_held_refuses_the_sale(node: SellerNode) -> None:
    node.ledger.refusal = "insufficient_funds"
    with pytest.raises(Refusal) as refusal:
        await node.sale(**ACCOUNTS)
    assert (refusal.value.reason, refusal.value.details["cause"]) == ("funds_refused", "insufficient_funds")
    assert node.left() == 500


async def test_what_everybody_sees_names_no_person(node: SellerNode) -> None:
    sale = await node.sale(**ACCOUNTS)
    shown = public_json(sale)["transaction"]
    assert shown["seller_account"] == ACCOUNTS["seller_account"]
    assert "buyer_account" not in shown
    events = await node.database.all("SELECT data FROM event")
    assert not any(b"maria" in row["data"] for row in events)


async def test_the_settlement_tells_what_is_known(node: SellerNode) -> None:
    await node.sale()
    told = node.lifecycle.settlement(node.database.points, entity_id(TRANSACTION))
    assert (told["names_accounts"], told["settlement"], str(told["final_cost"])) == (False, None, "104.00")
    await node.change(TRANSACTION, entity_id(TRANSACTION), "cancelled")
    await node.sale(1, **ACCOUNTS)
    told = node.lifecycle.settlement(node.database.points, entity_id(TRANSACTION, 1))
    assert (told["names_accounts"], told["settlement"]) == (True, {"state": "held"})
    with pytest.raises(Refusal) as unknown:
        node.lifecycle.settlement(node.database.points, "TXN-2026-09-21-999")
    assert unknown.value.reason == "unknown_transaction"


def price(base: float, total: float, **parts: float) -> dict[str, Any]:
    return {"base_price": base, "loop_cost": total, **({"breakdown": parts} if parts else {})}


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"seller": "vienna.loop"}, 400, "other_seller"),
        ({"material": "MAT-DE-MUC-2026-FOOD-999999"}, 404, "unknown_material"),
        ({"material": None, "product": "PRD-DE-MUC-2026-DESK-F4A7B2"}, 404, "unknown_product"),
        ({"match_id": "MATCH-99999"}, 404, "unknown_match"),
        ({"match_id": 7}, 400, "schema"),
        ({"match_id": entity_id(MATCH, 1)}, 400, "match_not_accepted"),
        ({"match_id": entity_id(MATCH), "buyer": "berlin.loop"}, 400, "other_buyer"),
        ({"match_id": entity_id(MATCH), "quantity": {"value": 201, "unit": "kg"}}, 400, "other_quantity"),
        ({"status": "completed"}, 400, "bad_status"),
        ({"quantity": 200}, 400, "bad_quantity"),
        ({"quantity": {"value": "200", "unit": "kg"}}, 400, "bad_quantity"),
        ({"quantity": {"value": 0, "unit": "kg"}}, 400, "bad_quantity"),
        ({"quantity": {"value": 300, "unit": "kg"}}, 409, "quantity_above_available"),
        ({"quantity": {"value": 1, "unit": "l"}}, 409, "unit_mismatch"),
        ({"offer": price(60.001, 104)}, 400, "bad_amount"),
        ({"offer": price(60, 104, export_penalty=24)}, 400, "bad_breakdown"),
        ({"offer": price(60, 59)}, 400, "bad_breakdown"),
        ({"offer": price(60, 104), **ACCOUNTS}, 400, "bad_breakdown"),
        ({"offer": price(60, 104), "buyer": "munich.loop"}, 400, "bad_breakdown"),
        ({**ACCOUNTS, "buyer_account": "business:brewery@munich.loop"}, 400, "bad_account"),
        ({**ACCOUNTS, "seller_account": "user:maria@vienna.loop"}, 400, "bad_account"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, 400, "bad_time"),
    ],
)
async def test_sales_that_are_refused(node: SellerNode, changes: dict[str, Any], status: int, reason: str) -> None:
    await matched(node)
    await node.offer(1, quantity={"value": 1, "unit": "kg"})
    await node.match(1, status="proposed", to_node=None)
    await refused(node, status, reason, node.sale(**changes))


async def test_a_match_is_sold_once(node: SellerNode) -> None:
    await matched(node)
    await node.sale()
    await refused(node, 409, "already_sold", node.sale(1, match_id=entity_id(MATCH)))
    await refused(node, 409, "other_content", node.sale(timestamp=format_timestamp(NOW_MS + 1)))
