"""Offer, Match, Transfer and transaction: what each needs, what follows from each change, and what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.errors import Refusal
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import DEAL_DOCUMENT_MAX_BYTES
from loopd.protocol.schemas import is_valid
from loopd.protocol.timestamps import format_timestamp
from tests.lifecycle_support import (
    DAY_MS,
    MATCH,
    MATCH_VALIDITY_MS,
    MATERIAL,
    NOW_MS,
    OFFER,
    PRODUCT_ID,
    TRANSFER,
    SellerNode,
    entity_id,
    seller_node,
)


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


async def test_an_open_offer_reserves_nothing(node: SellerNode) -> None:
    offer = await node.offer()
    assert (offer["status"], offer["version"], offer["updated_at"]) == ("open", 1, format_timestamp(NOW_MS))
    assert (node.left(), node.state()) == (500, "available")


async def test_a_match_reserves_and_tells_the_other_side(node: SellerNode) -> None:
    await node.offer()
    match = await node.match()
    assert match["valid_until"] == format_timestamp(NOW_MS + MATCH_VALIDITY_MS)
    assert node.status(OFFER) == "reserved"
    assert (node.left(), node.state()) == (300, "available")
    # The rest is announced anew.
    assert [subject.quantity for subject in node.announcer.changed] == [500, 300]
    assert [(told.entity, told.version, told.counterpart) for told in node.mirror.told] == [
        (OFFER, 2, "vienna.loop"),
        (MATCH, 1, "vienna.loop"),
    ]


async def test_nothing_left_is_reserved_and_available_again_when_released(node: SellerNode) -> None:
    await node.offer(quantity={"value": 0.5, "unit": "t"})
    await node.match(status="proposed")
    assert (node.left(), node.state()) == (0, "reserved")
    rejected = await node.change(MATCH, entity_id(MATCH), "rejected", reason="no truck")
    assert (rejected["status"], rejected["reason"], rejected["version"]) == ("rejected", "no truck", 2)
    assert (node.left(), node.state(), node.status(OFFER)) == (500, "available", "open")


async def test_an_offer_can_be_matched_again_after_a_release(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.change(MATCH, entity_id(MATCH), "expired")
    await node.match(1, offer_id=entity_id(OFFER))
    assert node.status(OFFER) == "reserved"
    assert node.left() == 300


async def test_a_part_becomes_a_record_of_its_own(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.transfer()
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    transfer = await node.change(TRANSFER, entity_id(TRANSFER), "completed")
    assert (node.left(), node.state()) == (300, "available")
    assert node.read(OFFER, entity_id(OFFER))["reason"] == "fulfilled"
    assert (node.status(OFFER), node.status(MATCH)) == ("withdrawn", "accepted")
    part = node.registry.find(node.database.points, transfer["part_id"])
    assert part is not None
    document = node.registry.view(part)
    assert is_valid("MaterialDNA", document)
    assert (document["parent_id"], document["current_city"]) == (MATERIAL, "Vienna")
    assert document["quantity"] == {"value": 200, "unit": "kg"}
    assert document["availability"]["status"] == "withdrawn"
    (event,) = document["traceability"]["epcis_event_refs"]
    assert (event["event_type"], event["event_id"]) == ("transaction", entity_id(TRANSFER))
    parent = node.registry.find(node.database.points, MATERIAL)
    assert parent is not None
    assert parent.current_city == "Munich"


async def test_the_whole_moves_the_record(node: SellerNode) -> None:
    await node.offer(quantity={"value": 500_000, "unit": "g"})
    await node.match()
    await node.transfer(route={"to_city": "Vienna Port"})
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    arrived = format_timestamp(NOW_MS + DAY_MS)
    transfer = await node.change(TRANSFER, entity_id(TRANSFER), "completed", received_at=arrived)
    assert "part_id" not in transfer
    assert transfer["received_at"] == arrived
    record = node.registry.find(node.database.points, MATERIAL)
    assert record is not None
    view = node.registry.view(record)
    assert (view["current_city"], view["availability"]["status"]) == ("Vienna Port", "withdrawn")
    assert view["traceability"]["epcis_event_refs"][0]["event_url"].endswith(f"/transfer/{entity_id(TRANSFER)}")
    assert is_valid("MaterialDNA", view)
    # Its final state was told while it still lay in this city.
    assert node.announcer.changed[-1].state.value == "withdrawn"


async def test_parts_that_add_up_to_all_withdraw_the_rest(node: SellerNode) -> None:
    for number, kilograms in enumerate((200, 300)):
        await node.offer(number, quantity={"value": kilograms, "unit": "kg"})
        await node.match(number)
        await node.transfer(number)
        for status in ("in_transit", "completed"):
            await node.change(TRANSFER, entity_id(TRANSFER, number), status)
    assert (node.left(), node.state()) == (0, "withdrawn")
    rows = await node.database.all("SELECT subject_id FROM record WHERE parent = ?", (MATERIAL,))
    assert len(rows) == 2


async def test_a_cancelled_transfer_keeps_the_reservation_until_its_match_ends(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.transfer()
    await refused(node, 409, "in_transfer", node.change(MATCH, entity_id(MATCH), "expired"))
    await node.change(TRANSFER, entity_id(TRANSFER), "cancelled")
    assert node.left() == 300
    await node.transfer(1, match_id=entity_id(MATCH))
    await node.change(TRANSFER, entity_id(TRANSFER, 1), "cancelled")
    await node.change(MATCH, entity_id(MATCH), "expired")
    assert node.left() == 500


async def test_a_match_ends_by_time(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.offer(1, quantity={"value": 1, "unit": "kg"})
    await node.match(1, status="proposed", valid_until=format_timestamp(NOW_MS + DAY_MS))
    node.clock.advance(DAY_MS)
    await node.tick()
    assert (node.status(MATCH, 1), node.read(MATCH, entity_id(MATCH, 1))["reason"]) == ("rejected", "expired")
    node.clock.advance(MATCH_VALIDITY_MS - DAY_MS - 1)
    await node.tick()
    assert node.status(MATCH) == "accepted"
    node.clock.advance(1)
    await node.tick()
    assert (node.status(MATCH), node.status(OFFER), node.left()) == ("expired", "open", 500)


async def test_a_match_that_goods_move_by_does_not_end_by_time(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.transfer()
    node.clock.advance(2 * MATCH_VALIDITY_MS)
    await node.tick()
    assert node.status(MATCH) == "accepted"
    await node.change(TRANSFER, entity_id(TRANSFER), "cancelled")
    await node.tick()
    assert node.status(MATCH) == "expired"


async def test_a_match_ends_after_a_restart(tmp_path: Path) -> None:
    async with seller_node(tmp_path) as node:
        await node.register()
        await node.offer()
        await node.match()
        clock = node.clock
    clock.advance(MATCH_VALIDITY_MS)
    async with seller_node(tmp_path, clock) as node:
        await node.tick()
        assert (node.status(MATCH), node.left()) == ("expired", 500)


async def test_an_open_offer_ends_by_time(node: SellerNode) -> None:
    await node.offer()
    node.clock.advance(30 * DAY_MS)
    await refused(node, 400, "offer_expired", node.match())
    await node.tick()
    assert (node.status(OFFER), node.read(OFFER, entity_id(OFFER))["reason"]) == ("withdrawn", "expired")
    await refused(node, 400, "offer_not_open", node.match())


async def test_withdrawing_an_offer_ends_its_match(node: SellerNode) -> None:
    await node.offer()
    await node.match(status="proposed")
    withdrawn = await node.change(OFFER, entity_id(OFFER), "withdrawn", reason="sold elsewhere")
    assert (withdrawn["status"], withdrawn["reason"]) == ("withdrawn", "sold elsewhere")
    assert (node.status(MATCH), node.left()) == ("rejected", 500)


async def test_a_product_goes_the_same_way(node: SellerNode) -> None:
    await node.register_product()
    product = {"material_id": None, "product_id": PRODUCT_ID}
    await node.offer(quantity={"value": 3, "unit": "piece"}, **product)
    await node.match(**product)
    await node.transfer(**product)
    for status in ("in_transit", "completed"):
        transfer = await node.change(TRANSFER, entity_id(TRANSFER), status)
    part = node.registry.find(node.database.points, transfer["part_id"])
    assert part is not None
    assert is_valid("ProductDNA", node.registry.view(part))
    assert (part.registered.value, node.left(PRODUCT_ID)) == (3, 9)


async def test_the_same_again_is_the_stored_one_and_other_content_a_conflict(node: SellerNode) -> None:
    for make in (node.offer, node.match, node.transfer, node.sale):
        first = await make()
        before = await node.dump()
        assert (await make())["id" if "id" in first else "transaction_id"]
        assert await node.dump() == before
        await refused(node, 409, "other_content", make(metadata={"other": True}))


REFUSED_OFFERS = [
    ({"material_id": "MAT-DE-MUC-2026-FOOD-999999"}, 404, "unknown_material"),
    ({"material_id": None, "product_id": PRODUCT_ID}, 404, "unknown_product"),
    ({"quantity": {"value": 501, "unit": "kg"}}, 400, "quantity_above_available"),
    ({"quantity": {"value": 0.500001, "unit": "t"}}, 400, "quantity_above_available"),
    ({"quantity": {"value": 1, "unit": "l"}}, 400, "unit_mismatch"),
    ({"quantity": {"value": 0, "unit": "kg"}}, 400, "bad_quantity"),
    ({"quantity": {"value": 0.0000000001, "unit": "kg"}}, 400, "bad_quantity"),
    ({"status": "reserved"}, 400, "bad_status"),
    ({"available_until": format_timestamp(NOW_MS)}, 400, "expired"),
    ({"available_until": "0001-01-01T00:00:00+14:00"}, 400, "bad_time"),
    ({"id": "A" * 201}, 400, "bad_id"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), REFUSED_OFFERS)
async def test_offers_that_are_refused(node: SellerNode, changes: dict[str, Any], status: int, reason: str) -> None:
    await refused(node, status, reason, node.offer(**changes))


async def test_an_offer_of_what_is_reserved_is_refused(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await refused(node, 400, "quantity_above_available", node.offer(1, quantity={"value": 301, "unit": "kg"}))
    await node.set_state(1, "reserved")
    await refused(node, 400, "not_available", node.offer(1, quantity={"value": 1, "unit": "kg"}))


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"offer_id": "OFFER-00009"}, 404, "unknown_offer"),
        ({"material_id": "MAT-DE-MUC-2026-FOOD-999999"}, 400, "other_subject"),
        ({"status": "expired"}, 400, "bad_status"),
        ({"valid_until": format_timestamp(NOW_MS)}, 400, "expired"),
        ({"valid_until": "tomorrow"}, 400, "bad_time"),
        ({"valid_until": format_timestamp(NOW_MS + 367 * DAY_MS)}, 400, "bad_time"),
        ({"to_node": "Vienna"}, 400, "bad_node"),
        ({"to_node": 7}, 400, "bad_node"),
        ({"id": "A" * 201}, 400, "bad_id"),
    ],
)
async def test_matches_that_are_refused(node: SellerNode, changes: dict[str, Any], status: int, reason: str) -> None:
    await node.offer()
    await refused(node, status, reason, node.match(**changes))


async def test_a_match_is_held_against_the_stock_again(node: SellerNode) -> None:
    for number in range(3):
        await node.offer(number)
    await node.match(0)
    await node.match(1)
    await refused(node, 409, "already_matched", node.match(9, offer_id=entity_id(OFFER)))
    await refused(node, 409, "quantity_above_available", node.match(2))
    await node.set_state(1, "reserved")
    await refused(node, 409, "not_available", node.match(2))


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"match_id": "MATCH-00009"}, 404, "unknown_match"),
        ({"match_id": entity_id(MATCH, 1)}, 400, "match_not_accepted"),
        ({"material_id": "MAT-DE-MUC-2026-FOOD-999999"}, 400, "other_subject"),
        ({"status": "in_transit"}, 400, "bad_status"),
        ({"handoff_at": "0001-01-01T00:00:00+14:00"}, 400, "bad_time"),
        ({"id": "A" * 201}, 400, "bad_id"),
    ],
)
async def test_transfers_that_are_refused(node: SellerNode, changes: dict[str, Any], status: int, reason: str) -> None:
    for number, state in enumerate(("accepted", "proposed")):
        await node.offer(number)
        await node.match(number, status=state)
    await refused(node, status, reason, node.transfer(**changes))


async def test_what_no_node_could_be_told_is_refused(node: SellerNode) -> None:
    # Before anybody is to be told: the Match that names somebody may be made by the node itself.
    await refused(node, 400, "too_large_to_mirror", node.offer(metadata={"filler": "x" * DEAL_DOCUMENT_MAX_BYTES}))


async def test_a_second_transfer_is_refused(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.transfer()
    await refused(node, 409, "already_transferred", node.transfer(1, match_id=entity_id(MATCH)))


async def test_what_may_not_follow(node: SellerNode) -> None:
    await node.offer()
    await refused(node, 409, "by_match", node.change(OFFER, entity_id(OFFER), "reserved"))
    await refused(node, 409, "transition", node.change(OFFER, entity_id(OFFER), "open"))
    await refused(node, 400, "bad_status", node.change(OFFER, entity_id(OFFER), "sold"))
    await node.match()
    await refused(node, 409, "by_match", node.change(OFFER, entity_id(OFFER), "open"))
    await refused(node, 409, "transition", node.change(MATCH, entity_id(MATCH), "rejected"))
    await node.transfer()
    await refused(node, 409, "transition", node.change(TRANSFER, entity_id(TRANSFER), "completed"))
    await refused(node, 409, "in_transfer", node.change(OFFER, entity_id(OFFER), "withdrawn"))
    await node.change(TRANSFER, entity_id(TRANSFER), "in_transit")
    bad = node.change(TRANSFER, entity_id(TRANSFER), "completed", received_at="yesterday")
    await refused(node, 400, "bad_time", bad)
    await node.change(TRANSFER, entity_id(TRANSFER), "completed")
    await refused(node, 409, "fulfilled", node.change(MATCH, entity_id(MATCH), "expired"))
    for entity in (OFFER, TRANSFER):
        for status in entity.lifecycle.successors:
            await refused(node, 409, "terminal", node.change(entity, entity_id(entity), status))


@pytest.mark.parametrize("entity", list(MirroredEntity))
async def test_an_unknown_id(node: SellerNode, entity: MirroredEntity) -> None:
    await refused(node, 404, f"unknown_{entity.value}", node.change(entity, "UNKNOWN-1", "cancelled"))


async def test_the_owner_takes_a_reservation_back(node: SellerNode) -> None:
    await node.offer(quantity={"value": 500, "unit": "kg"})
    await node.match()
    await node.set_state(1, "available")
    assert (node.status(MATCH), node.status(OFFER), node.left(), node.state()) == ("expired", "open", 500, "available")
    await node.match(1, offer_id=entity_id(OFFER))
    await node.transfer(1)
    await refused(node, 409, "in_transfer", node.set_state(2, "available"))
    await refused(node, 409, "in_transfer", node.set_state(2, "withdrawn"))
    await node.change(TRANSFER, entity_id(TRANSFER, 1), "cancelled")
    await node.set_state(2, "withdrawn")
    assert (node.status(MATCH, 1), node.status(OFFER), node.state()) == ("expired", "withdrawn", "withdrawn")


async def test_what_the_owner_reserved_by_hand_stays_reserved(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.set_state(1, "reserved")
    await node.change(MATCH, entity_id(MATCH), "expired")
    assert (node.left(), node.state()) == (500, "reserved")
    await node.set_state(2, "available")
    assert node.state() == "available"


async def test_available_again_by_hand_leaves_the_matches_of_parts(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.set_state(1, "reserved")
    await node.set_state(2, "available")
    assert (node.status(MATCH), node.left(), node.state()) == ("accepted", 300, "available")


async def test_the_history_has_every_version(node: SellerNode) -> None:
    await node.offer()
    await node.match()
    await node.change(MATCH, entity_id(MATCH), "expired", by="vienna.loop", reason="too late")
    changes = node.lifecycle.history(node.database.points, OFFER, entity_id(OFFER))
    assert [(change.version, change.status, change.changed_by) for change in changes] == [
        (1, "open", "munich.loop"),
        (2, "reserved", "munich.loop"),
        (3, "open", "vienna.loop"),
    ]
    events = await node.database.all("SELECT kind FROM event ORDER BY rowid")
    assert [row["kind"] for row in events if not row["kind"].startswith("material")] == [
        "offer.created", "offer.status", "match.created", "match.status", "offer.status",
    ]  # fmt: skip
