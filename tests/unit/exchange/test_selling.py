"""The owner's side: bids on what this node hosts, their ranking, the selection."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.documents import check_document
from loopd.protocol.errors import Conflict, Invalid, NotFound, Refusal, Unavailable
from loopd.protocol.geo import Location
from loopd.protocol.limits import BID_STATUS_DELIVERY_MS, LIVE_BIDS_PER_SUBJECT_MAX, REPLACED_BIDS_KEPT
from loopd.protocol.nodes import Standing
from loopd.protocol.subjects import SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.registry.service import Registry
from tests.exchange_support import (
    BERLIN,
    CONTEXT,
    DAY_MS,
    DESK,
    GRAIN,
    MUNICH,
    NOW_MS,
    VIENNA,
    ExchangeNode,
    Home,
    desk,
    exchange_node,
    grain,
    known_node,
    offer_json,
    reason_of,
)
from tests.registry_support import Munich, RecordingAnnouncer, material_json
from tests.support import happened

SIGNALS = {"organic-food": Decimal("0.40"), "default": Decimal("0.10")}


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[ExchangeNode]:
    """Munich with its grain, who knows Vienna and Berlin and their signals."""
    async with exchange_node(tmp_path, Home("munich.loop", MUNICH), SIGNALS) as node:
        node.records.add(grain())
        node.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
        node.directory.nodes["berlin.loop"] = known_node("berlin.loop", BERLIN)
        await node.remember_signals("vienna.loop", organic_food=0.20)
        await node.remember_signals("berlin.loop", organic_food=0.20)
        yield node


def ranks(listing: dict[str, Any]) -> list[tuple[str, str | None, int | None, str | None]]:
    return [
        (each["from"], None if each["loop_cost"] is None else str(each["loop_cost"]), each["rank"], each["reason"])
        for each in listing["offers"]
    ]


# §12.1


async def test_the_local_farm_wins_over_berlin_and_vienna(munich: ExchangeNode) -> None:
    await munich.receive(offer_json())
    berlin = offer_json(**{"from": "berlin.loop", "base_price": 58, "loop_cost": 103, "distance_km": 510})
    await munich.receive(berlin, "berlin.loop")
    await munich.local_bid("munich-farm", 50)
    assert ranks(munich.listing()) == [
        ("munich-farm", "50.00", 1, None),
        ("berlin.loop", "103.00", 2, None),
        ("vienna.loop", "104.00", 3, None),
    ]
    selected = await munich.select()
    assert (selected["selected"], selected["reason"]) == ("munich-farm", "lowest_loop_cost")
    assert [each["status"] for each in selected["offers"]] == ["selected", "declined", "declined"]
    assert munich.records.changes == [(GRAIN, SubjectState.RESERVED, "sold to munich.loop")]
    assert munich.listing() == selected
    assert await munich.audited() == ["bid_received", "bid_received", "bid_received", "bid_selected"]


async def test_the_breakdown_is_shown(munich: ExchangeNode) -> None:
    await munich.receive(offer_json())
    offer = munich.listing()["offers"][0]
    parts = {name: str(amount) for name, amount in offer["breakdown"].items()}
    assert parts == {"base": "60.00", "export": "24.00", "import": "12.00", "distance": "8.00"}
    assert (offer["verified"], offer["status"]) == (True, "live")


async def test_the_own_figure_ranks_whatever_the_bidder_claims(munich: ExchangeNode) -> None:
    await munich.receive(offer_json(loop_cost=0))
    offer = munich.listing()["offers"][0]
    assert (str(offer["loop_cost"]), str(offer["claimed_loop_cost"])) == ("104.00", "0.00")


async def test_the_distance_is_counted_from_the_announced_place(munich: ExchangeNode) -> None:
    munich.records.add(grain(location=Location(48.1379, 11.5761)))
    await munich.receive(offer_json(distance_km=None))
    from_announced = munich.listing()["offers"][0]["breakdown"]["distance"]
    munich.records.add(grain(location=Location(48.14, 11.58)))
    assert munich.listing()["offers"][0]["breakdown"]["distance"] == from_announced


async def test_the_bidders_are_told(munich: ExchangeNode) -> None:
    await munich.receive(offer_json(id="BID-VIENNA-1"))
    berlin = offer_json(**{"from": "berlin.loop", "base_price": 58, "distance_km": 510, "id": "BID-BERLIN-1"})
    await munich.receive(berlin, "berlin.loop")
    await munich.select()
    told = {queued.target: queued for queued in munich.outbox.queued}
    assert sorted(told) == ["berlin.loop", "vienna.loop"]
    assert {queued.path for queued in told.values()} == {"/api/v1/federate/mirror"}
    assert {queued.expires_at_ms for queued in told.values()} == {NOW_MS + BID_STATUS_DELIVERY_MS}
    assert check_document(told["vienna.loop"].body, "BidStatus").value == {
        "@context": CONTEXT,
        "@type": "BidStatus",
        "schema_version": "0.2.0",
        "node": "munich.loop",
        "offer": "BID-VIENNA-1",
        "material": GRAIN,
        "status": "declined",
        "version": 1,
        "updated_at": format_timestamp(NOW_MS),
        "reason": "other_offer_selected",
    }
    berlins = told["berlin.loop"].json
    assert (berlins["status"], berlins["reason"]) == ("selected", "lowest_loop_cost")


@pytest.mark.parametrize(
    ("features", "offer_id", "told"),
    [
        (frozenset({"mirror"}), "BID-VIENNA-1", True),
        (frozenset(), "BID-VIENNA-1", True),  # introduced by a peer, features not known
        (frozenset({"interop-v0.2.0"}), "BID-VIENNA-1", False),
        (frozenset({"mirror"}), None, False),
    ],
)
async def test_only_nodes_that_understand_it_are_told(
    munich: ExchangeNode, features: frozenset[str], offer_id: str | None, told: bool
) -> None:
    munich.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA, features=features)
    await munich.receive(offer_json(id=offer_id))
    await munich.select()
    assert bool(munich.outbox.queued) is told


# What is not ranked


async def test_below_the_asking_price_is_listed_without_a_rank(munich: ExchangeNode) -> None:
    munich.records.add(grain(), asking_price=45.5)
    await munich.local_bid("cheap-charlie", Decimal("0.01"))
    await munich.local_bid("munich-farm", Decimal("45.50"))
    await munich.local_bid("small-farm", Decimal("4.55"), quantity=50)
    listing = munich.listing()
    assert ranks(listing) == [
        ("small-farm", "4.55", 1, None),
        ("munich-farm", "45.50", 2, None),
        ("cheap-charlie", "0.01", None, "below_asking_price"),
    ]
    assert listing["asking_price"] == Decimal("45.5")


async def test_a_node_whose_signals_nobody_knows_is_listed_without_a_rank(munich: ExchangeNode) -> None:
    munich.directory.nodes["graz.loop"] = known_node("graz.loop", Location(47.07, 15.44))
    await munich.receive(offer_json(**{"from": "graz.loop"}), "graz.loop")
    assert ranks(munich.listing()) == [("graz.loop", None, None, "signals_unknown")]
    await munich.remember_signals("graz.loop", organic_food=0.20)
    assert ranks(munich.listing()) == [("graz.loop", "104.00", 1, None)]


async def test_a_node_whose_place_nobody_knows_is_listed_without_a_rank(munich: ExchangeNode) -> None:
    munich.directory.nodes["vienna.loop"] = known_node("vienna.loop", None, standing=Standing.INTRODUCED)
    await munich.receive(offer_json(distance_km=1))
    assert ranks(munich.listing()) == [("vienna.loop", None, None, "location_unknown")]
    munich.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
    assert ranks(munich.listing()) == [("vienna.loop", None, None, "distance_below_great_circle")]


async def test_expired_signals_are_used_and_marked(munich: ExchangeNode) -> None:
    munich.clock.advance(31 * DAY_MS)
    await munich.receive(offer_json(valid_until=format_timestamp(NOW_MS + 40 * DAY_MS)))
    offer = munich.listing()["offers"][0]
    assert (str(offer["loop_cost"]), offer["stale_signals"]) == ("104.00", True)


async def test_a_bid_of_a_lab_node_is_marked(munich: ExchangeNode) -> None:
    await munich.receive(offer_json(), verified=False)
    offer = munich.listing()["offers"][0]
    assert (offer["verified"], offer["rank"]) == (False, 1)


async def test_a_bid_past_its_end_is_not_ranked(munich: ExchangeNode) -> None:
    await munich.local_bid("munich-farm", 50, valid_for_s=60)
    munich.clock.advance(60_000)
    listing = munich.listing()
    assert ranks(listing) == [("munich-farm", "50.00", None, "expired")]
    assert listing["offers"][0]["status"] == "expired"


# One live bid for each buyer


async def test_a_newer_bid_replaces_the_older(munich: ExchangeNode) -> None:
    await munich.local_bid("munich-farm", 50)
    await munich.local_bid("munich-farm", 55)
    assert ranks(munich.listing()) == [("munich-farm", "55.00", 1, None)]


async def test_a_bid_that_arrives_late_does_not_replace_a_newer_one(munich: ExchangeNode) -> None:
    await munich.receive(offer_json(id="BID-2", base_price=70, issued_at=format_timestamp(NOW_MS + 1)))
    await munich.receive(offer_json(id="BID-1", base_price=60, issued_at=format_timestamp(NOW_MS)))
    assert [each["offer"] for each in munich.listing()["offers"]] == ["BID-2"]


async def test_a_repeat_has_no_second_effect(munich: ExchangeNode) -> None:
    first = await munich.receive(offer_json(id="BID-1"))
    await munich.local_bid("munich-farm", 50)
    await munich.select()
    # Also when the answer to the first got lost and everything has been decided meanwhile.
    assert await munich.receive(offer_json(id="BID-1")) == first
    with pytest.raises(Invalid) as refusal:
        await munich.receive(offer_json(id="BID-1", base_price=61))
    assert reason_of(refusal) == "other_content"


async def test_old_bids_of_a_bidder_are_forgotten(munich: ExchangeNode) -> None:
    for price in range(2 * REPLACED_BIDS_KEPT):
        await munich.local_bid("munich-farm", price)
    rows = await munich.database.all("SELECT base_minor, state FROM bid ORDER BY number")
    assert len(rows) == REPLACED_BIDS_KEPT
    assert (rows[-1]["base_minor"], rows[-1]["state"]) == ((2 * REPLACED_BIDS_KEPT - 1) * 100, "live")


async def test_when_all_places_are_taken_expired_bids_make_room(munich: ExchangeNode) -> None:
    for number in range(LIVE_BIDS_PER_SUBJECT_MAX):
        await munich.local_bid(f"farm-{number}", 50, valid_for_s=60 if number == 7 else 120)
    with pytest.raises(Unavailable) as refusal:
        await munich.local_bid("one-more", 50)
    assert reason_of(refusal) == "too_many_bids"
    # Who has a place may change its mind.
    await munich.local_bid("farm-0", 49)
    munich.clock.advance(60_000)
    await munich.local_bid("one-more", 50)
    bidders = {each["from"] for each in munich.listing()["offers"]}
    assert len(bidders) == LIVE_BIDS_PER_SUBJECT_MAX
    assert "farm-7" not in bidders


# What is refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"from": "berlin.loop"}, "origin_mismatch"),
        ({"valid_until": format_timestamp(NOW_MS)}, "expired"),
        ({"base_price": 60.001}, "bad_amount"),
        ({"loop_cost": 104.005}, "bad_amount"),
        ({"quantity": 501}, "quantity_above_available"),
        ({"quantity": 1, "unit": "l"}, "unit_mismatch"),
        ({"distance_km": 200}, "distance_below_great_circle"),
        ({"issued_at": "yesterday"}, "bad_time"),
        ({"issued_at": 5}, "bad_time"),
        ({"product": DESK}, "schema"),
    ],
)
async def test_an_offer_that_cannot_be_taken(munich: ExchangeNode, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await munich.receive(offer_json(**changes))
    assert reason_of(refusal) == reason
    assert munich.listing()["offers"] == []


async def test_an_offer_for_what_is_not_hosted_here(munich: ExchangeNode) -> None:
    with pytest.raises(NotFound) as refusal:
        await munich.receive(offer_json(material="MAT-DE-MUC-2026-FOOD-000001"))
    assert reason_of(refusal) == "unknown_material"
    with pytest.raises(NotFound) as refusal:
        await munich.receive(offer_json(material=None, product=DESK))
    assert reason_of(refusal) == "unknown_product"


@pytest.mark.parametrize(
    "changes", [{"state": SubjectState.RESERVED}, {"state": SubjectState.WITHDRAWN}, {"expires_ms": NOW_MS}]
)
async def test_an_offer_for_what_can_no_longer_be_had(munich: ExchangeNode, changes: dict[str, Any]) -> None:
    munich.records.add(grain(**changes))
    with pytest.raises(Invalid) as received:
        await munich.receive(offer_json())
    with pytest.raises(Conflict) as local:
        await munich.local_bid("munich-farm", 50)
    with pytest.raises(Conflict) as selected:
        await munich.select()
    assert {reason_of(refusal) for refusal in (received, local, selected)} == {"not_available"}


@pytest.mark.parametrize(
    ("bidder", "terms", "reason"),
    [
        ("vienna.loop", {}, "bad_bidder"),
        ("Maria", {}, "bad_bidder"),
        ("munich-farm", {"distance_km": 400}, "bad_distance"),
        ("munich-farm", {"quantity": 501}, "quantity_above_available"),
        ("munich-farm", {"valid_until": format_timestamp(NOW_MS - 1)}, "expired"),
    ],
)
async def test_a_local_bid_that_cannot_be_taken(
    munich: ExchangeNode, bidder: str, terms: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await munich.local_bid(bidder, 50, **terms)
    assert reason_of(refusal) == reason


async def test_the_node_itself_bids_at_home(munich: ExchangeNode) -> None:
    offer = await munich.bid(55)
    assert (offer["from"], str(offer["loop_cost"]), offer["rank"]) == ("munich.loop", "55.00", 1)


# The selection


async def test_by_hand_any_live_bid_can_be_selected(munich: ExchangeNode) -> None:
    munich.records.add(grain(), asking_price=100)
    first = await munich.local_bid("munich-farm", 50)
    await munich.local_bid("other-farm", 120)
    listing = await munich.select(first["id"])
    assert (listing["selected"], listing["selected_offer"], listing["reason"]) == (
        "munich-farm",
        first["id"],
        "by_hand",
    )
    assert ranks(listing) == [
        ("other-farm", "120.00", 1, None),
        ("munich-farm", "50.00", None, "below_asking_price"),
    ]


async def test_what_cannot_be_selected(munich: ExchangeNode) -> None:
    with pytest.raises(Conflict) as nothing:
        await munich.select()
    assert reason_of(nothing) == "no_offers"
    munich.records.add(grain(), asking_price=100)
    replaced = await munich.local_bid("munich-farm", 40)
    await munich.local_bid("munich-farm", 50, valid_for_s=60)
    with pytest.raises(Conflict) as unranked:
        await munich.select()
    assert reason_of(unranked) == "none_ranked"
    assert unranked.value.details["offers"][0]["reason"] == "below_asking_price"
    with pytest.raises(Conflict) as old:
        await munich.select(replaced["id"])
    assert reason_of(old) == "offer_not_live"
    munich.clock.advance(60_000)
    with pytest.raises(Conflict) as late:
        await munich.select(replaced["id"] + 1)
    assert reason_of(late) == "offer_not_live"
    with pytest.raises(NotFound) as unknown:
        await munich.select(999)
    assert reason_of(unknown) == "unknown_offer"
    assert munich.records.changes == []


async def test_the_same_selection_again_changes_nothing(munich: ExchangeNode) -> None:
    farm = await munich.local_bid("munich-farm", 50)
    other = await munich.local_bid("other-farm", 60)
    listing = await munich.select()
    assert await munich.select() == listing
    assert await munich.select(farm["id"]) == listing
    with pytest.raises(Conflict) as refusal:
        await munich.select(other["id"])
    assert (reason_of(refusal), refusal.value.details["selected"]) == ("already_selected", "munich-farm")
    assert len(munich.records.changes) == 1


async def test_a_choice_by_hand_is_not_repeated_by_policy(munich: ExchangeNode) -> None:
    await munich.local_bid("munich-farm", 50)
    other = await munich.local_bid("other-farm", 60)
    await munich.select(other["id"])
    with pytest.raises(Conflict) as refusal:
        await munich.select()
    assert reason_of(refusal) == "already_selected"


async def test_what_was_made_available_again_can_be_selected_again(munich: ExchangeNode) -> None:
    await munich.local_bid("munich-farm", 50)
    await munich.select()
    munich.records.add(grain(state=SubjectState.AVAILABLE))
    listing = munich.listing()
    assert (listing["offers"], listing["selected"]) == ([], None)
    await munich.local_bid("other-farm", 60)
    listing = await munich.select()
    assert ranks(listing) == [("other-farm", "60.00", 1, None)]
    assert listing["selected"] == "other-farm"


async def test_products_are_bid_for_with_the_default_signal(munich: ExchangeNode) -> None:
    munich.records.add(desk())
    await munich.remember_signals("vienna.loop", organic_food=0.20, default=0.30)
    await munich.receive(offer_json(material=None, product=DESK))
    offer = munich.listing(DESK)["offers"][0]
    assert (str(offer["breakdown"]["export"]), str(offer["breakdown"]["import"])) == ("6.00", "18.00")
    listing = await munich.select(subject=DESK)
    assert (listing["product"], listing["selected"]) == (DESK, "vienna.loop")
    with pytest.raises(NotFound) as refusal:
        await munich.write(lambda tx: munich.exchange.select(tx, grain().kind, DESK))
    assert reason_of(refusal) == "unknown_material"


async def test_of_a_hundred_selections_at_once_one_wins(munich: ExchangeNode) -> None:
    registry = Registry(Munich(), munich.clock, munich.audit, munich.events, announcer := RecordingAnnouncer())
    munich.exchange = munich.exchange_over(registry, munich.lifecycle_over(registry))
    await munich.write(lambda tx: registry.register(tx, check_document(material_json(id=GRAIN), "MaterialDNA")))
    numbers = [(await munich.local_bid(f"farm-{number}", 50 + number))["id"] for number in range(20)]
    outcomes = await asyncio.gather(*(munich.select(numbers[turn % 20]) for turn in range(100)), return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert {winner["selected_offer"] for winner in winners} == {numbers[0]}
    assert len(winners) == 5  # the same choice five times
    assert {loser.reason for loser in losers} == {"already_selected"}
    assert len(losers) == 95
    rows = await munich.database.all("SELECT state, count(*) AS bids FROM bid GROUP BY state ORDER BY state")
    assert [(row["state"], row["bids"]) for row in rows] == [("declined", 19), ("selected", 1)]
    assert [subject.state for subject in announcer.changed] == [SubjectState.AVAILABLE, SubjectState.RESERVED]
    assert (await munich.audited()).count("bid_selected") == 1


async def test_a_selection_that_fails_half_way_leaves_nothing(munich: ExchangeNode) -> None:
    registry = Registry(Munich(), munich.clock, munich.audit, munich.events, announcer := RecordingAnnouncer())
    munich.exchange = munich.exchange_over(registry, munich.lifecycle_over(registry))
    await munich.write(lambda tx: registry.register(tx, check_document(material_json(id=GRAIN), "MaterialDNA")))
    await munich.local_bid("munich-farm", 50)
    announcer.fail = True
    with pytest.raises(RuntimeError, match="announcer"):
        await munich.select()
    listing = munich.listing()
    assert (listing["selected"], listing["offers"][0]["status"]) == (None, "live")
    announcer.fail = False
    assert (await munich.select())["selected"] == "munich-farm"


async def test_a_bid_its_selection_and_the_loss_of_others_are_events(munich: ExchangeNode) -> None:
    await munich.receive(offer_json())
    await munich.local_bid("farm", 50)
    await munich.select()
    received = {"bid": 1, "bidder": "vienna.loop", "base_price": 60}
    events = await happened(munich.database)
    assert [event for event in events if event[0].startswith("bid.")] == [
        ("bid.received", GRAIN, received),
        ("bid.received", GRAIN, {"bid": 2, "bidder": "farm", "base_price": 50}),
        ("bid.selected", GRAIN, {"bid": 2, "bidder": "farm", "reason": "lowest_loop_cost"}),
        ("bid.declined", GRAIN, {"bid": 1, "bidder": "vienna.loop", "reason": "other_offer_selected"}),
    ]
