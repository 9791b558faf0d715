"""A bid that its bidder takes back: here, at another city, and as that city hears of it."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.subjects import SubjectKind
from tests.exchange_support import (
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
    offer_json,
    reason_of,
    status_json,
)

SIGNALS = {"organic-food": Decimal("0.20")}
DAY_MS = 24 * 3_600_000


@pytest.fixture
async def vienna(tmp_path: Path) -> AsyncIterator[ExchangeNode]:
    """Vienna, who bid for Munich's grain."""
    async with exchange_node(tmp_path, Home("vienna.loop", VIENNA), SIGNALS) as node:
        node.heard.subjects[GRAIN] = heard_grain()
        node.directory.nodes["munich.loop"] = known_node("munich.loop", MUNICH)
        await node.remember_signals("munich.loop", organic_food=0.40)
        await node.bid(60)
        yield node


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[ExchangeNode]:
    """Munich, whose grain Vienna bid for."""
    async with exchange_node(tmp_path, Home("munich.loop", MUNICH), SIGNALS) as node:
        node.records.add(grain())
        node.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
        await node.remember_signals("vienna.loop", organic_food=0.20)
        await node.receive(offer_json(id="BID-1"))
        yield node


async def take_back(node: ExchangeNode, number: int = 1) -> dict[str, Any]:
    return await node.write(lambda tx: node.exchange.withdraw_there(tx, number))


async def hear(node: ExchangeNode, caller: str = "vienna.loop", **changes: Any) -> int:
    value = {
        "@context": json.loads(offer_json())["@context"],
        "@type": "BidWithdrawal",
        "from": "vienna.loop",
        "offer": "BID-1",
        "material": GRAIN,
        "version": 2,
        "withdrawn_at": "2026-09-21T14:13:20Z",
        **changes,
    }
    document = check_document(json.dumps(value).encode(), "BidWithdrawal")
    return await node.write(lambda tx: node.exchange.receive_withdrawal(tx, caller, document))


async def test_the_owner_is_told(vienna: ExchangeNode) -> None:
    bid = await take_back(vienna)
    assert bid["status"] == "withdrawn"
    queued = vienna.outbox.queued[-1]
    assert (queued.target, queued.path) == ("munich.loop", "/api/v1/federate/mirror")
    told = check_document(queued.body, "BidWithdrawal").value
    assert (told["offer"], told["material"], told["version"]) == (bid["offer"], GRAIN, 2)


async def test_both_sides_understand_each_other(vienna: ExchangeNode, munich: ExchangeNode) -> None:
    await munich.receive(vienna.outbox.queued[0].body)
    await take_back(vienna)
    document = check_document(vienna.outbox.queued[-1].body, "BidWithdrawal")
    await munich.write(lambda tx: munich.exchange.receive_withdrawal(tx, "vienna.loop", document))
    assert munich.listing()["offers"] == []


async def test_an_owner_that_does_not_understand_it_is_not_told(vienna: ExchangeNode) -> None:
    vienna.directory.nodes["munich.loop"] = known_node("munich.loop", MUNICH, features=frozenset({"interop-v0.2.0"}))
    await take_back(vienna)
    assert len(vienna.outbox.queued) == 1


async def test_what_the_owner_decided_before_stands(vienna: ExchangeNode) -> None:
    bid = await take_back(vienna)
    await vienna.told(status_json(offer=bid["offer"]))
    (shown,) = await vienna.exchange.made_bids(vienna.database, 10)
    assert shown["status"] == "selected"


async def test_a_late_answer_does_not_bring_it_back(vienna: ExchangeNode) -> None:
    await take_back(vienna)
    await vienna.write(lambda tx: vienna.exchange.request_answered(tx, "bid:1", 202, ""))
    (shown,) = await vienna.exchange.made_bids(vienna.database, 10)
    assert shown["status"] == "withdrawn"


async def test_what_cannot_be_taken_back(vienna: ExchangeNode) -> None:
    with pytest.raises(Refusal) as unknown:
        await take_back(vienna, 7)
    assert (unknown.value.status, reason_of(unknown)) == (404, "unknown_offer")
    await take_back(vienna)
    with pytest.raises(Refusal) as twice:
        await take_back(vienna)
    assert (twice.value.status, reason_of(twice)) == (409, "offer_not_live")
    await vienna.bid(70)
    vienna.clock.advance(8 * DAY_MS)
    with pytest.raises(Refusal) as late:
        await take_back(vienna, 2)
    assert reason_of(late) == "offer_not_live"


async def test_a_withdrawn_bid_is_live_no_more(munich: ExchangeNode) -> None:
    number = await hear(munich)
    assert await hear(munich) == number
    assert munich.listing()["offers"] == []
    with pytest.raises(Refusal) as refusal:
        await munich.select(number)
    assert reason_of(refusal) == "offer_not_live"
    assert (await munich.audited()).count("bid_withdrawn") == 1


async def test_a_withdrawal_that_is_refused(munich: ExchangeNode) -> None:
    for caller, changes, status, reason in (
        ("berlin.loop", {}, 400, "origin_mismatch"),
        ("vienna.loop", {"offer": "BID-2"}, 404, "unknown_offer"),
        ("vienna.loop", {"material": "MAT-DE-MUC-2026-FOOD-000001"}, 404, "unknown_offer"),
    ):
        with pytest.raises(Refusal) as refusal:
            await hear(munich, caller, **changes)
        assert (refusal.value.status, reason_of(refusal)) == (status, reason)
    await munich.select()
    with pytest.raises(Refusal) as decided:
        await hear(munich)
    assert (decided.value.status, reason_of(decided)) == (409, "terminal")
    assert munich.listing()["selected"] == "vienna.loop"


async def test_a_business_of_this_city_takes_its_bid_back(munich: ExchangeNode) -> None:
    farm = await munich.local_bid("munich-farm", 50)

    async def withdraw(number: int) -> dict[str, Any]:
        return await munich.write(lambda tx: munich.exchange.withdraw_here(tx, SubjectKind.MATERIAL, GRAIN, number))

    assert [offer["from"] for offer in (await withdraw(farm["id"]))["offers"]] == ["vienna.loop"]
    for number, reason in ((farm["id"], "offer_not_live"), (1, "unknown_offer"), (99, "unknown_offer")):
        with pytest.raises(Refusal) as refusal:
            await withdraw(number)
        assert reason_of(refusal) == reason
    again = await munich.local_bid("munich-farm", 55)
    assert again["rank"] == 1
    assert munich.clock.now_ms() == NOW_MS
