from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.timestamps import format_timestamp
from tests.exchange_api import ExchangeApi, exchange_api
from tests.exchange_support import (
    GRAIN,
    MUNICH,
    NOW_MS,
    VIENNA,
    Home,
    exchange_node,
    grain,
    heard_grain,
    known_node,
    offer_json,
    status_json,
)

OFFER = "/api/v1/federate/offer"
MIRROR = "/api/v1/federate/mirror"
LISTING = f"/api/v1/material/{GRAIN}/offers"


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[ExchangeApi]:
    """Munich, who has the grain and knows Vienna."""
    signals = {"organic-food": Decimal("0.40")}
    async with exchange_node(tmp_path, Home("munich.loop", MUNICH), signals) as node, exchange_api(node) as client:
        node.records.add(grain())
        node.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
        await node.remember_signals("vienna.loop", organic_food=0.20)
        yield client


@pytest.fixture
async def vienna(tmp_path: Path) -> AsyncIterator[ExchangeApi]:
    """Vienna, who has bid for Munich's grain."""
    home = Home("vienna.loop", VIENNA)
    async with exchange_node(tmp_path, home, {"organic-food": Decimal("0.20")}) as node, exchange_api(node) as client:
        node.heard.subjects[GRAIN] = heard_grain()
        node.directory.nodes["munich.loop"] = known_node("munich.loop", MUNICH)
        await node.remember_signals("munich.loop", organic_food=0.40)
        await node.bid(60, distance_km=400)
        yield client


async def test_an_offer_is_accepted_and_ranked(munich: ExchangeApi) -> None:
    answer = await munich.post_as_node(OFFER, offer_json(), "vienna.loop")
    assert (answer.status, answer.headers["Content-Type"]) == (202, "application/json")
    assert answer.json == {"status": "accepted", "id": 1}
    assert [each["loop_cost"] for each in (await munich.get(LISTING)).json["offers"]] == [104]


async def test_the_example_of_the_specification_is_accepted(munich: ExchangeApi) -> None:
    # §8.2's MaterialOffer has the required fields alone.
    body = offer_json(distance_km=None)
    assert (await munich.post_as_node(OFFER, body, "vienna.loop")).status == 202


async def test_the_same_request_again_is_answered_as_the_first(munich: ExchangeApi) -> None:
    first = await munich.post_as_node(OFFER, offer_json(), "vienna.loop")
    munich.node.records.records.clear()
    again = await munich.post_as_node(OFFER, offer_json(), "vienna.loop")
    assert (again.status, again.json) == (202, first.json)
    assert (await munich.node.audited()).count("bid_received") == 1


@pytest.mark.parametrize(
    ("body", "caller", "status", "reason"),
    [
        (offer_json(), None, 401, "missing_header"),
        (offer_json(), "berlin.loop", 400, "origin_mismatch"),
        (offer_json(material="MAT-DE-MUC-2026-FOOD-000000"), "vienna.loop", 404, "unknown_material"),
        (offer_json(valid_until=format_timestamp(NOW_MS)), "vienna.loop", 400, "expired"),
        (offer_json(base_price=60.005), "vienna.loop", 400, "bad_amount"),
        (offer_json(base_price=-1), "vienna.loop", 400, "schema"),
        (offer_json(valid_until=None), "vienna.loop", 400, "schema"),
        (offer_json(material=None), "vienna.loop", 400, "schema"),
        (offer_json(distance_km=100), "vienna.loop", 400, "distance_below_great_circle"),
        (offer_json(quantity=600), "vienna.loop", 400, "quantity_above_available"),
        (offer_json(quantity=5, unit="l"), "vienna.loop", 400, "unit_mismatch"),
        (offer_json(note="write to maria@vienna.example"), "vienna.loop", 400, "personal_data"),
        (offer_json(**{"@context": "https://example.org/context"}), "vienna.loop", 400, "unknown_context"),
        (b"{", "vienna.loop", 400, "not_json"),
    ],
)
async def test_an_offer_that_is_refused(
    munich: ExchangeApi, body: bytes, caller: str | None, status: int, reason: str
) -> None:
    answer = await munich.post_as_node(OFFER, body, caller)
    assert (answer.status, answer.reason) == (status, reason)
    assert (await munich.get(LISTING)).json["offers"] == []


async def test_the_place_of_a_fault_is_named(munich: ExchangeApi) -> None:
    answer = await munich.post_as_node(OFFER, offer_json(loop_cost=104.123), "vienna.loop")
    assert answer.json["error"]["details"]["errors"][0]["pointer"] == "/loop_cost"


async def test_the_outcome_of_an_own_bid_is_taken(vienna: ExchangeApi) -> None:
    offer_id = vienna.node.outbox.queued[0].json["id"]
    body = status_json(offer=offer_id)
    answer = await vienna.post_as_node(MIRROR, body, "munich.loop")
    assert (answer.status, answer.json["status"]) == (202, "accepted")
    assert (await vienna.post_as_node(MIRROR, body, "munich.loop")).json == answer.json
    [bid] = (await vienna.admin("GET", "/admin/v1/offers")).json["results"]
    assert (bid["status"], bid["reason"]) == ("selected", "lowest_loop_cost")


@pytest.mark.parametrize(
    ("changes", "caller", "status", "reason"),
    [
        ({}, "graz.loop", 400, "origin_mismatch"),
        ({"offer": "BID-9999999999999999"}, "munich.loop", 404, "unknown_offer"),
        ({"status": "sold"}, "munich.loop", 400, "schema"),
        ({"version": 0}, "munich.loop", 400, "schema"),
        ({"version": 1.5}, "munich.loop", 400, "schema"),
        ({"reason": "Sold to Maria"}, "munich.loop", 400, "schema"),
        ({}, None, 401, "missing_header"),
    ],
)
async def test_an_outcome_that_is_refused(
    vienna: ExchangeApi, changes: dict[str, Any], caller: str | None, status: int, reason: str
) -> None:
    offer_id = vienna.node.outbox.queued[0].json["id"]
    answer = await vienna.post_as_node(MIRROR, status_json(**{"offer": offer_id, **changes}), caller)
    assert (answer.status, answer.reason) == (status, reason)
    [bid] = (await vienna.admin("GET", "/admin/v1/offers")).json["results"]
    assert bid["status"] == "queued"
