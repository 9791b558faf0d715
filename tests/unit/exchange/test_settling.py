"""What the settlement between cities is told of this city's bids."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from loopd.exchange.settling import MadeBids
from loopd.ledger.clearing.ports import Consent
from loopd.protocol.limits import BID_STATUS_DELIVERY_MS
from tests.exchange_support import (
    DAY_MS,
    GRAIN,
    MUNICH,
    VIENNA,
    ExchangeNode,
    Home,
    exchange_node,
    heard_grain,
    known_node,
    status_json,
)

SIGNALS = {"organic-food": Decimal("0.20"), "default": Decimal("0.30")}
MARIA = "user:maria@vienna.loop"


@pytest.fixture
async def vienna(tmp_path: Path) -> AsyncIterator[ExchangeNode]:
    async with exchange_node(tmp_path, Home("vienna.loop", VIENNA), SIGNALS) as node:
        node.heard.subjects[GRAIN] = heard_grain()
        node.directory.nodes["munich.loop"] = known_node("munich.loop", MUNICH)
        await node.remember_signals("munich.loop", organic_food=0.40, default=0.10)
        yield node


def consent(node: ExchangeNode, owner: str = "munich.loop", account: str = MARIA) -> Consent | None:
    return MadeBids(node.clock).consent(node.database.points, owner, GRAIN, account)


async def test_the_newest_bid_that_stands_is_what_the_money_is_for(vienna: ExchangeNode) -> None:
    assert consent(vienna) is None
    await vienna.bid(60, distance_km=400, buyer_account=MARIA)
    newer = await vienna.bid(50, distance_km=400, buyer_account=MARIA)
    # 50 + 20 + 10 + 8, of which the 10 of the import stay in Vienna.
    assert consent(vienna) == Consent(newer["offer"], 8_800, 1_000)
    assert consent(vienna, account="user:anna@vienna.loop") is None
    assert consent(vienna, owner="linz.loop") is None
    await vienna.told(status_json(offer=newer["offer"], status="declined"))
    assert consent(vienna) is None


async def test_a_bid_without_an_account_pays_nothing(vienna: ExchangeNode) -> None:
    await vienna.bid(60)
    assert consent(vienna) is None


async def test_a_bid_of_long_ago_pays_for_nothing_any_more(vienna: ExchangeNode) -> None:
    """Its owner has said that it selected it; but that long after its end it is told to nobody."""
    offer = (await vienna.bid(60, buyer_account=MARIA))["offer"]
    await vienna.told(status_json(offer=offer))
    vienna.clock.advance(DAY_MS + BID_STATUS_DELIVERY_MS)
    assert consent(vienna) is not None
    vienna.clock.advance(1)
    assert consent(vienna) is None


async def test_the_bid_is_found_without_looking_at_all_of_them(vienna: ExchangeNode) -> None:
    rows = await vienna.database.all(
        "EXPLAIN QUERY PLAN SELECT * FROM made_bid WHERE subject = ? AND owner = ? AND buyer_account = ? "
        "AND state IN ('queued', 'accepted', 'selected') ORDER BY number DESC LIMIT 1",
        (GRAIN, "munich.loop", MARIA),
    )
    assert all("SCAN" not in row["detail"] for row in rows)
