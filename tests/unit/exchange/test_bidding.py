"""The buyer's side: bids at other cities, and what becomes of them."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.documents import check_document
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.geo import Location
from loopd.protocol.nodes import Standing
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from tests.exchange_support import (
    DAY_MS,
    GRAIN,
    MUNICH,
    NOW_MS,
    VIENNA,
    ExchangeNode,
    Home,
    exchange_node,
    grain,
    heard_grain,
    known_node,
    reason_of,
    status_json,
)

SIGNALS = {"organic-food": Decimal("0.20"), "default": Decimal("0.30")}


@pytest.fixture
async def vienna(tmp_path: Path) -> AsyncIterator[ExchangeNode]:
    """Vienna, who heard of Munich's grain and knows its signals."""
    async with exchange_node(tmp_path, Home("vienna.loop", VIENNA), SIGNALS) as node:
        node.heard.subjects[GRAIN] = heard_grain()
        node.directory.nodes["munich.loop"] = known_node("munich.loop", MUNICH)
        await node.remember_signals("munich.loop", organic_food=0.40, default=0.10)
        yield node


async def shown(node: ExchangeNode, number: int = 1) -> dict[str, Any]:
    """An own bid as the operator sees it."""
    return next(bid for bid in await node.exchange.made_bids(node.database, 100) if bid["id"] == number)


async def answer(node: ExchangeNode, number: int, status: int, reason: str = "") -> None:
    await node.write(lambda tx: node.exchange.request_answered(tx, f"bid:{number}", status, reason))


async def test_a_bid_is_computed_and_queued_to_the_owner(vienna: ExchangeNode) -> None:
    bid = await vienna.bid(60, distance_km=400)
    assert (str(bid["loop_cost"]), bid["status"], bid["to"]) == ("104.00", "queued", "munich.loop")
    assert {part: str(amount) for part, amount in bid["breakdown"].items()} == {
        "base": "60.00",
        "export": "24.00",
        "import": "12.00",
        "distance": "8.00",
    }
    [queued] = vienna.outbox.queued
    assert (queued.target, queued.path, queued.reference) == ("munich.loop", "/api/v1/federate/offer", "bid:1")
    assert queued.expires_at_ms == NOW_MS + DAY_MS
    document = check_document(queued.body, "MaterialOffer").value
    assert (document["material"], document["from"], document["id"]) == (GRAIN, "vienna.loop", bid["offer"])
    assert (document["base_price"], document["loop_cost"], document["distance_km"]) == (60, 104, 400)
    assert b'"loop_cost":104.00' in queued.body
    assert document["valid_until"] == format_timestamp(NOW_MS + DAY_MS)
    assert "quantity" not in document
    assert await vienna.audited() == ["bid_made"]


@pytest.mark.parametrize("chance", ["be95cdf1d5bcc6a0", "be87156248431f30"])
async def test_an_id_that_could_be_an_iban_is_still_taken(vienna: ExchangeNode, chance: str) -> None:
    vienna.chance = iter([chance])
    await vienna.bid(60)
    assert check_document(vienna.outbox.queued[0].body, "MaterialOffer").value["id"] == f"BID-0{chance.upper()}"


async def test_both_sides_compute_the_same(vienna: ExchangeNode, tmp_path: Path) -> None:
    bid = await vienna.bid(Decimal("61.37"), quantity=125, unit="kg")
    async with exchange_node(
        tmp_path, Home("munich.loop", MUNICH), {"organic-food": Decimal("0.40")}, vienna.clock
    ) as munich:
        munich.records.add(grain(location=Location(48.1379, 11.5761)))
        munich.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
        await munich.remember_signals("vienna.loop", organic_food=0.20)
        await munich.receive(vienna.outbox.queued[0].body)
        offer = munich.listing()["offers"][0]
    assert offer["loop_cost"] == offer["claimed_loop_cost"] == bid["loop_cost"]
    assert offer["breakdown"] == bid["breakdown"]
    assert (offer["quantity"], offer["unit"]) == (125, "kg")


async def test_without_an_announced_place_its_node_counts(vienna: ExchangeNode) -> None:
    vienna.heard.subjects[GRAIN] = heard_grain(location=None)
    bid = await vienna.bid(60)
    assert str(bid["breakdown"]["distance"]) == "7.11"


async def test_without_an_announced_category_the_default_counts(vienna: ExchangeNode) -> None:
    vienna.heard.subjects[GRAIN] = heard_grain(category=None, quantity=None, unit=None)
    bid = await vienna.bid(60, distance_km=400)
    assert (str(bid["breakdown"]["export"]), str(bid["breakdown"]["import"])) == ("6.00", "18.00")


@pytest.mark.parametrize(
    ("terms", "heard_until_ms", "until_ms"),
    [
        ({}, NOW_MS + 7 * DAY_MS, NOW_MS + DAY_MS),
        ({}, NOW_MS + 1000, NOW_MS + 1000),
        ({"valid_for_s": 60}, NOW_MS + DAY_MS, NOW_MS + 60_000),
        ({"valid_until": format_timestamp(NOW_MS + 3 * DAY_MS)}, NOW_MS + 2 * DAY_MS, NOW_MS + 2 * DAY_MS),
    ],
)
async def test_a_bid_ends_when_what_was_heard_does(
    vienna: ExchangeNode, terms: dict[str, Any], heard_until_ms: int, until_ms: int
) -> None:
    vienna.heard.subjects[GRAIN] = heard_grain(valid_until_ms=heard_until_ms)
    assert (await vienna.bid(60, **terms))["valid_until"] == format_timestamp(until_ms)


@pytest.mark.parametrize(
    ("heard", "error", "reason"),
    [
        (None, NotFound, "not_heard"),
        (heard_grain(valid_until_ms=NOW_MS), NotFound, "not_heard"),
        (heard_grain(available=False), Conflict, "not_available"),
        (heard_grain(origin="graz.loop"), Conflict, "origin_unknown"),
    ],
)
async def test_what_cannot_be_bid_for(vienna: ExchangeNode, heard: Any, error: Any, reason: str) -> None:
    vienna.heard.subjects = {} if heard is None else {GRAIN: heard}
    with pytest.raises(error) as refusal:
        await vienna.bid(60)
    assert reason_of(refusal) == reason
    assert vienna.outbox.queued == []


async def test_an_origin_without_signals_or_place(vienna: ExchangeNode) -> None:
    vienna.heard.subjects[GRAIN] = heard_grain(origin="graz.loop", location=None)
    vienna.directory.nodes["graz.loop"] = known_node("graz.loop", None)
    with pytest.raises(Conflict) as unknown:
        await vienna.bid(60)
    assert (reason_of(unknown), unknown.value.details["node"]) == ("signals_unknown", "graz.loop")
    await vienna.remember_signals("graz.loop", organic_food=0.40)
    with pytest.raises(Conflict) as nowhere:
        await vienna.bid(60)
    assert reason_of(nowhere) == "location_unknown"
    vienna.directory.nodes["graz.loop"] = known_node("graz.loop", None, standing=Standing.SUSPENDED)
    with pytest.raises(Conflict) as suspended:
        await vienna.bid(60)
    assert reason_of(suspended) == "origin_unknown"


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"distance_km": 300}, "distance_below_great_circle"),
        ({"quantity": 1, "unit": "t"}, "quantity_above_available"),
        ({"quantity": 1, "unit": "piece"}, "unit_mismatch"),
        ({"bidder": "vienna-mill"}, "bad_bidder"),
    ],
)
async def test_terms_that_the_owner_would_refuse(vienna: ExchangeNode, terms: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await vienna.bid(60, **terms)
    assert reason_of(refusal) == reason


async def test_a_newer_bid_replaces_the_older_in_order(vienna: ExchangeNode) -> None:
    await vienna.bid(60)
    vienna.clock.set_wall(NOW_MS - 5000)
    await vienna.bid(65)
    assert [(await shown(vienna, number))["status"] for number in (1, 2)] == ["replaced", "queued"]
    older_ms, newer_ms = (parse_timestamp(queued.json["issued_at"]) for queued in vienna.outbox.queued)
    assert older_ms < newer_ms


@pytest.mark.parametrize(
    ("status", "reason", "shown_status", "shown_reason"),
    [
        (202, "", "accepted", None),
        (201, "", "accepted", None),
        (404, "unknown_material", "refused", "unknown_material"),
        (0, "expired", "expired", "expired"),
    ],
)
async def test_the_owners_answer_is_shown(
    vienna: ExchangeNode, status: int, reason: str, shown_status: str, shown_reason: str | None
) -> None:
    await vienna.bid(60)
    await answer(vienna, 1, status, reason)
    bid = await shown(vienna)
    assert (bid["status"], bid["reason"]) == (shown_status, shown_reason)


async def test_answers_about_something_else_change_nothing(vienna: ExchangeNode) -> None:
    await vienna.bid(60)
    await answer(vienna, 7, 404)
    await vienna.write(lambda tx: vienna.exchange.request_answered(tx, "bid-status:1", 404, "unknown_offer"))
    assert (await shown(vienna))["status"] == "queued"


async def test_an_accepted_bid_expires_by_itself(vienna: ExchangeNode) -> None:
    await vienna.bid(60)
    await answer(vienna, 1, 202)
    vienna.clock.advance(DAY_MS)
    assert (await shown(vienna))["status"] == "expired"


# The owner's word


@pytest.mark.parametrize("known", ["queued", "accepted", "refused", "replaced"])
async def test_the_owners_word_is_taken_whatever_was_known(vienna: ExchangeNode, known: str) -> None:
    offer_id = (await vienna.bid(60))["offer"]
    if known == "replaced":
        await vienna.bid(65)
    elif known != "queued":
        await answer(vienna, 1, 202 if known == "accepted" else 400)
    await vienna.told(status_json(offer=offer_id))
    bid = await shown(vienna)
    assert (bid["status"], bid["reason"]) == ("selected", "lowest_loop_cost")
    await answer(vienna, 1, 202)
    assert (await shown(vienna))["status"] == "selected"
    assert (await vienna.audited())[-1] == "bid_decided"


async def test_versions_only_rise(vienna: ExchangeNode) -> None:
    offer_id = (await vienna.bid(60))["offer"]
    await vienna.told(status_json(offer=offer_id, version=2))
    entries = len(await vienna.audited())
    await vienna.told(status_json(offer=offer_id, version=2, status="declined"))
    await vienna.told(status_json(offer=offer_id, version=1, status="declined"))
    assert (await shown(vienna))["status"] == "selected"
    assert len(await vienna.audited()) == entries
    await vienna.told(status_json(offer=offer_id, version=3, status="declined", reason="released"))
    bid = await shown(vienna)
    assert (bid["status"], bid["reason"]) == ("declined", "released")


@pytest.mark.parametrize(
    ("changes", "caller", "reason"),
    [
        ({}, "graz.loop", "origin_mismatch"),
        ({"node": "graz.loop"}, "graz.loop", "unknown_offer"),
        ({"offer": "BID-0000000000000009"}, "munich.loop", "unknown_offer"),
        ({"material": "MAT-DE-MUC-2026-FOOD-000001"}, "munich.loop", "unknown_offer"),
    ],
)
async def test_only_the_node_that_was_bid_to_may_tell(
    vienna: ExchangeNode, changes: dict[str, Any], caller: str, reason: str
) -> None:
    offer_id = (await vienna.bid(60))["offer"]
    with pytest.raises((Invalid, NotFound)) as refusal:
        await vienna.told(status_json(**{"offer": offer_id, **changes}), caller)
    assert reason_of(refusal) == reason
    assert (await shown(vienna))["status"] == "queued"
