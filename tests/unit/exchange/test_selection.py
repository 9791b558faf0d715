"""What a selection makes: Offer, Match and transaction for the bid's quantity; the rest, the money, the policy."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.exchange.lifecycle import Lifecycle
from loopd.exchange.selection import Policy
from loopd.exchange.settling import PaidSales
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Conflict, Refusal
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.quantity import Quantity
from loopd.protocol.schemas import is_valid
from loopd.registry.service import Registry
from tests.exchange_support import (
    GRAIN,
    MUNICH,
    VIENNA,
    ExchangeNode,
    Home,
    exchange_node,
    known_node,
    offer_json,
    reason_of,
)
from tests.lifecycle_support import FakeLedger
from tests.registry_support import Munich, RecordingAnnouncer, material_json

SIGNALS = {"organic-food": Decimal("0.40")}
HOUR_MS = 3_600_000


class Seller:
    """Munich's exchange and what it makes of selections."""

    def __init__(self, node: ExchangeNode, policy: Policy) -> None:
        self.node = node
        self.ledger = FakeLedger()
        self.registry = Registry(Munich(), node.clock, node.audit, node.events, RecordingAnnouncer())
        self.lifecycle: Lifecycle = node.lifecycle_over(self.registry, self.ledger)
        node.exchange = node.exchange_over(self.registry, self.lifecycle, policy)

    async def entries(self, entity: MirroredEntity) -> list[dict[str, Any]]:
        """All there are, oldest first."""
        table = {"match": "loop_match", "transaction": "material_transaction"}.get(entity.value, entity.value)
        rows = await self.node.database.all(f"SELECT id FROM {table} ORDER BY number")
        points = self.node.database.points
        return [self.lifecycle.view(self.lifecycle.require(points, entity, row["id"])) for row in rows]

    def left(self) -> tuple[Decimal, str]:
        record = self.registry.find(self.node.database.points, GRAIN)
        assert record is not None
        return record.left.value, record.subject.state.value

    async def tick(self) -> None:
        selecting, now_ms = self.node.exchange.selecting, self.node.clock.now_ms()
        for due in selecting.due(self.node.database.points, now_ms):
            await self.node.write(due.do)


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
async def seller(tmp_path: Path, policy: Policy) -> AsyncIterator[Seller]:
    async with exchange_node(tmp_path, Home("munich.loop", MUNICH), SIGNALS) as node:
        seller = Seller(node, policy)
        body = material_json(id=GRAIN, metadata={"asking_price": 40, "seller_account": "business:brewery@munich.loop"})
        await node.write(lambda tx: seller.registry.register(tx, check_document(body, "MaterialDNA")))
        node.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA, name="Vienna")
        await node.remember_signals("vienna.loop", organic_food=0.20)
        yield seller


async def test_a_selection_makes_all_three_at_the_figures_of_the_ranking(seller: Seller) -> None:
    await seller.node.receive(offer_json())
    await seller.node.select()
    (offer,), (match,), (sale,) = [
        await seller.entries(entity)
        for entity in (MirroredEntity.OFFER, MirroredEntity.MATCH, MirroredEntity.TRANSACTION)
    ]
    assert (offer["status"], offer["quantity"], offer["to_city"]) == (
        "reserved",
        {"value": 500, "unit": "kg"},
        "Vienna",
    )
    assert (match["status"], match["to_node"], match["offer_id"]) == ("accepted", "vienna.loop", offer["id"])
    assert (sale["status"], sale["match_id"]) == ("pending", match["id"])
    terms = sale["transaction"]["offer"]
    assert (str(terms["base_price"]), str(terms["loop_cost"])) == ("60.00", "104.00")
    assert {name: str(part) for name, part in terms["breakdown"].items()} == {
        "export_penalty": "24.00", "import_penalty": "12.00", "distance_cost": "8.00",
    }  # fmt: skip
    assert seller.left() == (0, "reserved")
    for entity, value in (("Offer", offer), ("Match", match), ("TransactionStatus", sale)):
        assert is_valid(entity, value), entity
    assert is_valid("MaterialTransaction", sale["transaction"])


async def test_by_hand_a_bid_without_signals_is_sold_at_the_figures_of_its_bidder(seller: Seller) -> None:
    """Only what its city charges is not known: so that is what is left of its figure, and stays with that city."""
    seller.node.directory.nodes["graz.loop"] = known_node("graz.loop", VIENNA)
    await seller.node.receive(offer_json(**{"from": "graz.loop"}), "graz.loop")
    (offer,) = seller.node.listing()["offers"]
    assert offer["reason"] == "signals_unknown"
    await seller.node.select(offer["id"])
    (sale,) = await seller.entries(MirroredEntity.TRANSACTION)
    terms = sale["transaction"]["offer"]
    assert {name: str(part) for name, part in terms["breakdown"].items()} == {
        "export_penalty": "24.00", "import_penalty": "12.00", "distance_cost": "8.00",
    }  # fmt: skip
    assert str(terms["loop_cost"]) == "104.00"


async def test_an_open_offer_for_the_quantity_is_taken(seller: Seller) -> None:
    value = {
        "@context": json.loads(offer_json())["@context"],
        "@type": "Offer",
        "schema_version": "0.2.0",
        "id": "OFFER-00001",
        "material_id": GRAIN,
        "from_city": "Munich",
        "to_city": "Anywhere",
        "quantity": {"value": 0.2, "unit": "t"},
        "status": "open",
        "available_until": "2026-12-01T00:00:00Z",
    }
    document = check_document(json.dumps(value).encode(), "Offer")
    await seller.node.write(lambda tx: seller.lifecycle.create(tx, MirroredEntity.OFFER, document))
    await seller.node.local_bid("munich-farm", 50, quantity=200)
    await seller.node.select()
    (offer,) = await seller.entries(MirroredEntity.OFFER)
    assert (offer["id"], offer["status"]) == ("OFFER-00001", "reserved")


async def test_a_part_leaves_the_rest_to_the_bids_that_fit(seller: Seller) -> None:
    part = await seller.node.local_bid("part", 20, quantity=200)
    await seller.node.local_bid("rest", 30, quantity=300)
    await seller.node.local_bid("more", 40, quantity=301)
    await seller.node.local_bid("all", 50)
    listing = await seller.node.select()
    assert {each["from"]: each["status"] for each in listing["offers"]} == {
        "part": "selected", "rest": "live", "more": "declined", "all": "declined",
    }  # fmt: skip
    assert (listing["selected"], seller.left()) == ("part", (300, "available"))
    assert await seller.node.select(part["id"]) == listing
    # Nothing names what is left but the next choice.
    listing = await seller.node.select()
    assert (listing["selected"], seller.left()) == ("rest", (0, "reserved"))
    assert len(await seller.entries(MirroredEntity.TRANSACTION)) == 2


async def test_a_bid_for_all_stays_one_for_what_was_left_then(seller: Seller) -> None:
    await seller.node.local_bid("part", 20, quantity=200)
    await seller.node.select()
    await seller.node.local_bid("all", 50)
    await seller.node.select()
    sales = await seller.entries(MirroredEntity.TRANSACTION)
    assert [sale["transaction"]["quantity"]["value"] for sale in sales] == [200, 300]


async def test_a_match_that_ends_takes_the_selection_back(seller: Seller) -> None:
    await seller.node.local_bid("munich-farm", 50)
    await seller.node.select()
    (match,) = await seller.entries(MirroredEntity.MATCH)
    await seller.node.write(
        lambda tx: seller.lifecycle.change_status(tx, MirroredEntity.MATCH, match["id"], "expired", None, {})
    )
    listing = seller.node.listing()
    assert (listing["offers"], listing["selected"], seller.left()) == ([], None, (500, "available"))
    await seller.node.local_bid("other-farm", 60)
    assert (await seller.node.select())["selected"] == "other-farm"


async def test_what_is_no_longer_there_has_no_rank(seller: Seller) -> None:
    await seller.node.local_bid("part", 20, quantity=200)
    late = await seller.node.local_bid("late", 19, quantity=300)
    stock = seller.lifecycle.deals.transfers.stock
    await seller.node.write(lambda tx: stock.reserve(tx, GRAIN, _kilograms(250), "by hand"))
    assert [(each["from"], each["reason"]) for each in seller.node.listing()["offers"]] == [
        ("part", None),
        ("late", "quantity_above_available"),
    ]
    with pytest.raises(Conflict) as refusal:
        await seller.node.select(late["id"])
    assert reason_of(refusal) == "quantity_above_available"
    assert await seller.entries(MirroredEntity.OFFER) == []


async def test_whose_money_cannot_be_held_loses_to_the_next(seller: Seller) -> None:
    seller.ledger.refusal = "insufficient_funds"
    poor = await seller.node.local_bid("poor", 41, buyer_account="business:poor@munich.loop")
    await seller.node.local_bid("rich", 60)
    listing = await seller.node.select()
    assert (listing["selected"], listing["reason"]) == ("rich", "lowest_loop_cost")
    (sale,) = await seller.entries(MirroredEntity.TRANSACTION)
    assert sale["transaction"].get("buyer_account") is None
    assert [call for call, _ in seller.ledger.calls] == ["hold", "hold"]
    assert poor["id"] != listing["selected_offer"]


async def test_where_nobody_has_money_nothing_is_selected(seller: Seller) -> None:
    seller.ledger.refusal = "insufficient_funds"
    poor = await seller.node.local_bid("poor", 41, buyer_account="business:poor@munich.loop")
    for number in (None, poor["id"]):
        with pytest.raises(Refusal) as refusal:
            await seller.node.select(number)
        assert reason_of(refusal) == "funds_refused"
        assert refusal.value.message.endswith("be held: insufficient_funds.")
        if number is None:
            assert refusal.value.details["causes"] == [{"offer": poor["id"], "cause": "insufficient_funds"}]
    assert seller.node.listing()["offers"][0]["status"] == "live"
    assert seller.left() == (500, "available")


async def two_cities_bid(seller: Seller) -> None:
    """Vienna at 104.00 and Linz at 108.00, each with an account that pays, and one from here at 150.00 without."""
    seller.node.directory.nodes["linz.loop"] = known_node("linz.loop", VIENNA, name="Linz")
    await seller.node.remember_signals("linz.loop", organic_food=0.20)
    for city, distance_km in (("vienna", 400), ("linz", 600)):
        body = {"from": f"{city}.loop", "id": f"{city}-1", "distance_km": distance_km}
        account = f"user:maria@{city}.loop"
        await seller.node.receive(offer_json(**body, buyer_account=account), caller=f"{city}.loop")
    await seller.node.local_bid("farm", 150)


def told(seller: Seller) -> list[tuple[str, str, int, str]]:
    """What bidders are told: whom, what, in which version and why."""
    documents = [(each.target, each.json) for each in seller.node.outbox.queued]
    return [(target, each["status"], each["version"], each["reason"]) for target, each in documents]


def bids(seller: Seller) -> list[tuple[str, str, int | None]]:
    return [(each["from"], each["status"], each["rank"]) for each in seller.node.listing()["offers"]]


async def ends(seller: Seller, *, held: bool, number: int = -1) -> None:
    """Another city's node has answered for a sale's money, the newest one's by default."""
    sales = PaidSales("munich.loop", lambda: seller.lifecycle, lambda: seller.node.exchange.selecting)
    sale = (await seller.entries(MirroredEntity.TRANSACTION))[number]["transaction_id"]
    if held:
        await seller.node.write(lambda tx: sales.held(tx, sale))
    else:
        await seller.node.write(lambda tx: sales.failed(tx, sale, "insufficient_funds"))


async def test_nobody_is_declined_before_another_citys_money_is_held(seller: Seller) -> None:
    await two_cities_bid(seller)
    await seller.node.select()
    assert told(seller) == [("vienna.loop", "selected", 1, "lowest_loop_cost")]
    assert bids(seller) == [("vienna.loop", "selected", 1), ("linz.loop", "live", 2), ("farm", "live", 3)]
    # The same again finds what stands.
    assert (await seller.node.select())["selected"] == "vienna.loop"
    for _ in range(2):
        await ends(seller, held=True)
    assert told(seller)[1:] == [("linz.loop", "declined", 1, "other_offer_selected")]
    assert bids(seller) == [("vienna.loop", "selected", 1), ("linz.loop", "declined", 2), ("farm", "declined", 3)]


async def test_where_another_citys_money_does_not_come_the_next_bid_is_selected(seller: Seller) -> None:
    await two_cities_bid(seller)
    await seller.node.select()
    await ends(seller, held=False)
    assert told(seller)[1:] == [
        ("vienna.loop", "declined", 2, "funds_refused"),
        ("linz.loop", "selected", 1, "lowest_loop_cost"),
    ]
    await ends(seller, held=False)
    assert told(seller)[3:] == [("linz.loop", "declined", 2, "funds_refused")]
    assert (seller.node.listing()["selected"], seller.left()) == ("farm", (0, "reserved"))
    statuses = [each["status"] for each in await seller.entries(MirroredEntity.TRANSACTION)]
    assert statuses == ["cancelled", "cancelled", "pending"]


async def test_who_selected_by_hand_selects_again_by_hand(seller: Seller) -> None:
    await two_cities_bid(seller)
    vienna = seller.node.listing()["offers"][0]["id"]
    await seller.node.select(vienna)
    await ends(seller, held=False)
    assert (seller.node.listing()["selected"], seller.left()) == (None, (500, "available"))
    assert bids(seller) == [("linz.loop", "live", 1), ("farm", "live", 2)]


async def test_what_comes_of_the_money_of_a_cancelled_sale_declines_nobody(seller: Seller) -> None:
    await two_cities_bid(seller)
    await seller.node.select()
    (sale,) = await seller.entries(MirroredEntity.TRANSACTION)
    cancelled = ("cancelled", None, {"reason": "no truck"})
    await seller.node.write(
        lambda tx: seller.lifecycle.change_status(tx, MirroredEntity.TRANSACTION, sale["transaction_id"], *cancelled)
    )
    assert (await seller.node.select())["selected"] == "linz.loop"
    for held in (True, False):
        await ends(seller, held=held, number=0)
        assert bids(seller) == [("linz.loop", "selected", 1), ("farm", "live", 2)]
    await ends(seller, held=False)
    assert seller.node.listing()["selected"] == "farm"


async def test_the_last_bid_whose_money_does_not_come_leaves_the_goods_free(seller: Seller) -> None:
    await seller.node.receive(offer_json(buyer_account="user:maria@vienna.loop"))
    await seller.node.select()
    await ends(seller, held=False)
    assert (seller.node.listing()["offers"], seller.left()) == ([], (500, "available"))


async def test_both_accounts_are_in_the_transaction(seller: Seller) -> None:
    await seller.node.receive(offer_json(buyer_account="user:maria@vienna.loop"))
    await seller.node.select()
    (sale,) = await seller.entries(MirroredEntity.TRANSACTION)
    assert sale["transaction"]["seller_account"] == "business:brewery@munich.loop"
    assert sale["transaction"]["buyer_account"] == "user:maria@vienna.loop"


@pytest.mark.parametrize(
    "account", ["maria", 7, "user:@vienna.loop", "business:brewery@munich.loop", "user:" + "a" * 200 + "@vienna.loop"]
)
async def test_an_account_that_is_none(seller: Seller, account: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        await seller.node.receive(offer_json(buyer_account=account))
    assert reason_of(refusal) == "bad_account"


@pytest.mark.parametrize("policy", [Policy(by_itself=True, after_ms=HOUR_MS)])
class TestByItself:
    """The node selects the lowest LoopCost a while after the first bid."""

    async def test_after_the_time_from_the_first_bid(self, seller: Seller) -> None:
        await seller.node.local_bid("first", 60)
        seller.node.clock.advance(HOUR_MS - 1)
        await seller.node.local_bid("better", 50)
        await seller.tick()
        assert seller.left() == (500, "available")
        seller.node.clock.advance(1)
        await seller.tick()
        assert (seller.node.listing()["selected"], seller.left()) == ("better", (0, "reserved"))

    async def test_the_rest_waits_again(self, seller: Seller) -> None:
        await seller.node.local_bid("part", 20, quantity=200)
        await seller.node.local_bid("rest", 30, quantity=300)
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        await seller.tick()
        assert seller.left() == (300, "available")
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        assert seller.left() == (0, "reserved")

    async def test_what_cannot_be_ranked_is_tried_again(self, seller: Seller) -> None:
        await seller.node.local_bid("cheap", 1)
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        await seller.node.local_bid("fair", 50)
        await seller.tick()
        assert seller.left() == (500, "available")
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        assert seller.node.listing()["selected"] == "fair"

    async def test_refused_money_changes_nothing_and_is_asked_for_again(self, seller: Seller) -> None:
        seller.ledger.refusal = "insufficient_funds"
        await seller.node.local_bid("poor", 50, buyer_account="business:poor@munich.loop")
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        assert seller.left() == (500, "available")
        seller.ledger.refusal = None
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        assert seller.node.listing()["selected"] == "poor"

    async def test_an_earlier_choice_by_hand_stands(self, seller: Seller) -> None:
        await seller.node.local_bid("first", 60)
        second = await seller.node.local_bid("second", 70)
        await seller.node.select(second["id"])
        seller.node.clock.advance(HOUR_MS)
        await seller.tick()
        assert seller.node.listing()["selected"] == "second"


def _kilograms(value: int) -> Quantity:
    return Quantity(Decimal(value), "kg")
