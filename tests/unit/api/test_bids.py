from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.exchange_api import ExchangeApi, exchange_api
from tests.exchange_support import (
    DESK,
    GRAIN,
    MUNICH,
    VIENNA,
    Home,
    desk,
    exchange_node,
    grain,
    heard_grain,
    known_node,
    offer_json,
)

OFFERS = f"/api/v1/material/{GRAIN}/offers"
SELECT = f"/api/v1/material/{GRAIN}/select"
SIGNALS = {"organic-food": Decimal("0.40")}
FARM = {"bidder": "munich-farm", "base_price": 50}


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[ExchangeApi]:
    """Munich, who has the grain and the desks."""
    async with exchange_node(tmp_path, Home("munich.loop", MUNICH), SIGNALS) as node, exchange_api(node) as client:
        node.records.add(grain())
        node.records.add(desk())
        node.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
        await node.remember_signals("vienna.loop", organic_food=0.20)
        yield client


@pytest.fixture
async def vienna(tmp_path: Path) -> AsyncIterator[ExchangeApi]:
    """Vienna, who heard of the grain and knows nothing of Munich's signals."""
    home = Home("vienna.loop", VIENNA)
    async with exchange_node(tmp_path, home, {"organic-food": Decimal("0.20")}) as node, exchange_api(node) as client:
        node.heard.subjects[GRAIN] = heard_grain()
        node.directory.nodes["munich.loop"] = known_node("munich.loop", MUNICH)
        yield client


async def test_bids_are_ranked_and_the_best_is_selected(munich: ExchangeApi) -> None:
    await munich.post_as_node("/api/v1/federate/offer", offer_json(), "vienna.loop")
    made = await munich.post(OFFERS, FARM)
    assert (made.status, made.json["rank"], made.json["status"]) == (201, 1, "live")
    listed = await munich.get(OFFERS)
    assert (listed.status, listed.headers["Content-Type"]) == (200, "application/json")
    assert [(each["from"], each["loop_cost"]) for each in listed.json["offers"]] == [
        ("munich-farm", 50),
        ("vienna.loop", 104),
    ]
    assert b'"loop_cost":104.00' in listed.body
    assert (listed.json["selected"], listed.json["reason"]) == (None, None)
    selected = await munich.post(SELECT, None)
    assert (selected.status, selected.json["selected"]) == (200, "munich-farm")
    assert selected.json["reason"] == "lowest_loop_cost"
    assert (await munich.get(OFFERS)).json == selected.json


@pytest.mark.parametrize("write", [str, int])
async def test_an_offer_is_selected_by_hand(munich: ExchangeApi, write: Any) -> None:
    await munich.post(OFFERS, FARM)
    number = (await munich.post(OFFERS, {"bidder": "other-farm", "base_price": 60})).json["id"]
    selected = await munich.post(SELECT, {"offer": write(number)})
    assert (selected.status, selected.json["selected"], selected.json["reason"]) == (200, "other-farm", "by_hand")
    again = await munich.post(SELECT, {})
    assert (again.status, again.reason) == (409, "already_selected")
    assert again.json["error"]["details"]["selected"] == "other-farm"


async def test_products_have_the_same_routes(munich: ExchangeApi) -> None:
    path = f"/api/v1/product/{DESK}"
    assert (await munich.post(f"{path}/offers", {**FARM, "quantity": 3})).json["unit"] == "piece"
    assert (await munich.post(f"{path}/select", None)).json["selected"] == "munich-farm"
    assert (await munich.get(f"{path}/offers")).json["product"] == DESK
    assert (await munich.get(f"/api/v1/material/{DESK}/offers")).reason == "unknown_material"


async def test_writing_takes_the_scope(munich: ExchangeApi) -> None:
    for path, value in ((OFFERS, FARM), (SELECT, {})):
        assert (await munich.post(path, value, scope=None)).reason == "missing_token"
        assert (await munich.post(path, value, scope="material:write")).reason == "insufficient_scope"
    assert (await munich.post("/admin/v1/offers", {"material": GRAIN, "base_price": 5})).status == 404


@pytest.mark.parametrize(
    ("body", "reason", "pointer"),
    [
        (b"[]", "schema", ""),
        (b"{", "not_json", None),
        ({"base_price": 50}, "schema", "/bidder"),
        ({"bidder": "munich-farm"}, "schema", "/base_price"),
        ({**FARM, "bidder": 7}, "schema", "/bidder"),
        ({**FARM, "base_price": "50"}, "schema", "/base_price"),
        ({**FARM, "base_price": True}, "schema", "/base_price"),
        ({**FARM, "base_price": None}, "schema", "/base_price"),
        ({**FARM, "base_price": 50.001}, "bad_amount", "/base_price"),
        ({**FARM, "base_price": -1}, "bad_amount", "/base_price"),
        ({**FARM, "quantity": 1, "unit": "pound"}, "schema", "/unit"),
        ({**FARM, "valid_for_s": 1.5}, "schema", "/valid_for_s"),
        ({**FARM, "phone": "+49 89 1234567"}, "schema", ""),
        ({**FARM, "bidder": "maria@munich.example"}, "bad_bidder", "/bidder"),
        ({**FARM, "bidder": "vienna.loop"}, "bad_bidder", "/bidder"),
    ],
)
async def test_a_bid_that_is_not_as_described(munich: ExchangeApi, body: Any, reason: str, pointer: str | None) -> None:
    answer = await munich.post(OFFERS, body)
    assert (answer.status, answer.reason) == (400, reason)
    if pointer is not None:
        assert answer.json["error"]["details"]["errors"][0]["pointer"] == pointer
    assert b"maria" not in answer.body
    assert b"1234567" not in answer.body


@pytest.mark.parametrize("offer", [0.5, "x", "-1", "١", "", True, "9" * 19])
async def test_an_offer_is_named_by_its_number(munich: ExchangeApi, offer: Any) -> None:
    answer = await munich.post(SELECT, {"offer": offer})
    assert (answer.status, answer.reason) == (400, "schema")


async def test_what_is_not_there(munich: ExchangeApi) -> None:
    unknown = OFFERS.replace("B847F3", "000000")
    assert (await munich.get(unknown)).reason == "unknown_material"
    assert (await munich.post(unknown, FARM)).reason == "unknown_material"
    assert (await munich.post(SELECT, {"offer": 99})).reason == "unknown_offer"
    assert (await munich.post(SELECT, None)).reason == "no_offers"


async def test_a_repeat_with_its_key_has_one_effect(munich: ExchangeApi) -> None:
    key = {"Idempotency-Key": "bid-1"}
    first = await munich.post(OFFERS, FARM, headers=key)
    again = await munich.post(OFFERS, FARM, headers=key)
    assert (again.status, again.json) == (201, first.json)
    assert len((await munich.get(OFFERS)).json["offers"]) == 1
    other = await munich.post(OFFERS, {**FARM, "base_price": 51}, headers=key)
    assert other.reason == "idempotency_mismatch"


# The operator's bids


async def test_a_bid_elsewhere_asks_once_for_signals_that_are_missing(vienna: ExchangeApi) -> None:
    wish = {"material": GRAIN, "base_price": 60, "distance_km": 400}
    refused = await vienna.admin("POST", "/admin/v1/offers", wish)
    assert (refused.status, refused.reason) == (409, "signals_unknown")
    assert vienna.refreshed == ["munich.loop"]
    vienna.signals_on_refresh = {"organic_food": 0.40}
    made = await vienna.admin("POST", "/admin/v1/offers", wish)
    assert (made.status, made.json["loop_cost"], made.json["status"]) == (201, 104, "queued")
    assert vienna.refreshed == ["munich.loop"] * 2
    await vienna.admin("POST", "/admin/v1/offers", {**wish, "base_price": 61})
    assert len(vienna.refreshed) == 2
    listed = (await vienna.admin("GET", "/admin/v1/offers?limit=5")).json["results"]
    assert [(each["base_price"], each["status"]) for each in listed] == [(61, "queued"), (60, "replaced")]
    assert len((await vienna.admin("GET", "/admin/v1/offers?limit=1")).json["results"]) == 1


async def test_a_bid_at_home_goes_the_same_way(munich: ExchangeApi) -> None:
    wish = {"material": GRAIN, "base_price": 50}
    made = await munich.admin("POST", "/admin/v1/offers", {**wish, "bidder": "munich-farm"})
    assert (made.status, made.json["from"], made.json["rank"]) == (201, "munich-farm", 1)
    assert (await munich.admin("POST", "/admin/v1/offers", wish)).json["from"] == "munich.loop"
    # Either key takes either kind of id, so that a script need not know.
    assert (await munich.admin("POST", "/admin/v1/offers", {**wish, "material": DESK})).json["rank"] == 1


@pytest.mark.parametrize(
    ("wish", "status", "reason"),
    [
        ({"material": GRAIN}, 400, "schema"),
        ({"base_price": 60}, 400, "schema"),
        ({"material": GRAIN, "product": DESK, "base_price": 60}, 400, "schema"),
        ({"material": "grain", "base_price": 60}, 400, "schema"),
        ({"material": DESK, "base_price": 60}, 404, "not_heard"),
        ({"material": GRAIN, "base_price": 60, "bidder": "vienna-mill"}, 400, "bad_bidder"),
    ],
)
async def test_a_wish_that_cannot_be_met(vienna: ExchangeApi, wish: Any, status: int, reason: str) -> None:
    answer = await vienna.admin("POST", "/admin/v1/offers", wish)
    assert (answer.status, answer.reason) == (status, reason)


async def test_an_offer_is_taken_back(munich: ExchangeApi) -> None:
    made = (await munich.post(OFFERS, FARM)).json
    path = f"{OFFERS}/{made['id']}/withdraw"
    assert (await munich.post(path, None, scope=None)).status == 401
    left = await munich.post(path, None)
    assert (left.status, left.json["offers"]) == (200, [])
    again = await munich.post(path, None)
    assert (again.status, again.reason) == (409, "offer_not_live")
    for name in ("99", "farm", "9" * 19):
        unknown = await munich.post(f"{OFFERS}/{name}/withdraw", None)
        assert (unknown.status, unknown.reason) == (404, "unknown_offer")
    elsewhere = await munich.admin("POST", "/admin/v1/offers/99/withdraw")
    assert (elsewhere.status, elsewhere.reason) == (404, "unknown_offer")
