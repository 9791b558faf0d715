from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.rings import Ring
from loopd.protocol.errors import Refusal
from loopd.protocol.geo import Location
from loopd.protocol.subjects import SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.routing.atlas import Atlas, Departure, Place
from loopd.routing.ladder import Opened
from loopd.routing.route import Page, Position, Question, page_of, read_position
from loopd.signals.rules import SignalConfiguration, SignalReading
from tests.exchange_support import BERLIN, DAY_MS, GRAIN, MUNICH, NOW_MS, VIENNA, Home, heard_grain, reason_of
from tests.registry_support import product_json, set_state
from tests.routing_support import Reached, RoutingNode, loop_demand, routing_node

AUGSBURG = Location(48.3705, 10.8978)
HOUR_MS = 3_600_000


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingNode]:
    async with routing_node(tmp_path) as node:
        await node.know("vienna.loop", organic_food=0.20)
        await node.know("berlin.loop", organic_food=0.05)
        await node.know("augsburg.loop", AUGSBURG, organic_food=0.60)
        yield node


async def test_destinations_are_ranked_by_their_cost(munich: RoutingNode) -> None:
    material = await munich.register()
    page, following = await munich.route(material=material, base_price=60)
    ranked = [(each["rank"], each["node"], each["loop_cost"]) for each in page["results"]]
    assert ranked == [
        (1, "munich.loop", Decimal("60.00")),
        (2, "berlin.loop", Decimal("97.09")),
        (3, "vienna.loop", Decimal("103.11")),
        (4, "augsburg.loop", Decimal("121.14")),
    ]
    assert page["results"][2]["breakdown"] == {"base": 60, "export": 24, "import": 12, "distance": Decimal("7.11")}
    assert (page["total"], following) == (4, None)


async def test_the_ladder_begins_at_home(munich: RoutingNode) -> None:
    material = await munich.register(expires=format_timestamp(NOW_MS + 2 * DAY_MS))
    munich.overflow.reached_by[material] = Reached(1, NOW_MS - 6 * HOUR_MS)
    await munich.told(loop_demand())
    page, _ = await munich.route(material=material, base_price=60)
    rungs = [(rung["ring"], rung["radius_km"], rung["open"], rung["destinations"]) for rung in page["ladder"]]
    assert rungs == [(0, 0, True, 1), (1, 50, True, 0), (2, 200, True, 1), (3, 1000, False, 2), (4, None, False, 0)]
    assert [rung["opens_at"] for rung in page["ladder"]] == [
        None,
        format_timestamp(NOW_MS - 6 * HOUR_MS),
        format_timestamp(NOW_MS),
        format_timestamp(NOW_MS + 18 * HOUR_MS),
        None,
    ]
    assert [rung["wanting"] for rung in page["ladder"]] == [0, 0, 0, 1, 0]
    assert page["ladder"][3]["lowest_loop_cost"] == Decimal("97.09")
    assert {each["node"]: each["ring"] for each in page["results"]} == {
        "munich.loop": 0,
        "augsburg.loop": 2,
        "berlin.loop": 3,
        "vienna.loop": 3,
    }


async def test_who_looks_for_it_is_shown(munich: RoutingNode) -> None:
    material = await munich.register(metadata={"asking_price": 100})
    await munich.told(loop_demand(max_price=40))
    await munich.told(loop_demand(id="WNT-000000002", max_price=39))
    own = await munich.want()
    page, _ = await munich.route(material=material)
    assert page["base_price"] == 100
    wanted = {each["node"]: [demand["id"] for demand in each["wanted"]] for each in page["results"]}
    assert wanted == {
        "munich.loop": [own["id"]],
        "berlin.loop": [],
        "vienna.loop": ["WNT-000000001"],
        "augsburg.loop": [],
    }
    page, _ = await munich.route(material=material, wanted_only=True)
    assert [(each["rank"], each["node"]) for each in page["results"]] == [(1, "munich.loop"), (2, "vienna.loop")]
    await munich.write(lambda tx: set_state(munich.registry, tx, material, SubjectState.RESERVED, "test"))
    page, _ = await munich.route(material=material)
    assert [each["wanted"] for each in page["results"]] == [[]] * 4


async def test_what_was_heard_is_routed_from_its_city(tmp_path: Path) -> None:
    async with routing_node(tmp_path, Home("vienna.loop", VIENNA), {"organic-food": Decimal("0.20")}) as vienna:
        await vienna.know("munich.loop", organic_food=0.40)
        await vienna.hear(heard_grain())
        page, _ = await vienna.route(material=GRAIN, base_price=60)
        assert [each["node"] for each in page["results"]] == ["munich.loop", "vienna.loop"]
        assert page["ladder"][1]["open"] is None
        with pytest.raises(Refusal) as refused:
            await vienna.route(material=GRAIN)
        assert (refused.value.status, reason_of(refused)) == (400, "no_price")


async def test_products_take_the_default_signal(munich: RoutingNode) -> None:
    document = product_json()
    await munich.register_product(document)
    page, _ = await munich.route(product="PRD-DE-MUC-2026-DESK-F4A7B2", base_price=60)
    assert page["category"] == "default"
    assert page["results"][0]["node"] == "munich.loop"


async def test_who_cannot_be_ranked_is_named(munich: RoutingNode) -> None:
    await munich.know("graz.loop")
    await munich.know("linz.loop", default=0.1)
    material = await munich.register()
    page, _ = await munich.route(material=material, base_price=60)
    assert page["signals_unknown"] == {"count": 1, "nodes": ["graz.loop"]}
    assert page["location_unknown"] == {"count": 1, "nodes": ["linz.loop"]}
    await munich.fetcher.settled()
    assert munich.fetched == ["graz.loop"]


@pytest.mark.parametrize(
    ("question", "status", "reason"),
    [
        ({}, 400, "bad_subject"),
        ({"material": GRAIN, "product": GRAIN}, 400, "bad_subject"),
        ({"material": GRAIN, "base_price": 1}, 404, "unknown_material"),
        ({"product": "PRD-DE-MUC-2026-DESK-F4A7B2", "base_price": 1}, 404, "unknown_product"),
    ],
)
async def test_questions_without_an_answer(
    munich: RoutingNode, question: dict[str, Any], status: int, reason: str
) -> None:
    with pytest.raises(Refusal) as refused:
        await munich.route(**question)
    assert (refused.value.status, reason_of(refused)) == (status, reason)


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.x", "-1.2.a.loop", "1.2.A.loop", "1.2.a.loop ", "9" * 20 + ".1.a.loop"]
)
def test_cursors_that_are_none(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_position(text)
    assert reason_of(refused) == "bad_cursor"


# Paging, over any atlas

NAMES = st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=30)
SPOTS = st.builds(Location, st.integers(-3, 3).map(float), st.integers(-3, 3).map(float))


def question(**changes: Any) -> Question:
    stated = {
        "subject_id": GRAIN,
        "kind": SubjectKind.MATERIAL,
        "category": "organic-food",
        "base_minor": 6_000,
        "departure": Departure("n0.loop", MUNICH, 4_000),
        "export": SignalReading(4_000, False),
        "demands": {},
        "rings": (Ring(100, 0), Ring(None, HOUR_MS)),
        "opened": Opened(0, NOW_MS, None),
        "ours": True,
        "wanted_only": False,
        **changes,
    }
    return Question(**stated)


@settings(max_examples=60)
@given(st.data(), NAMES, st.integers(1, 7))
def test_pages_give_every_destination_once_while_others_come_and_go(
    data: st.DataObject, names: list[int], limit: int
) -> None:
    configuration = SignalConfiguration("x.loop", {"default": 1_000}, 0, 1)
    places = {name: Place(f"n{name}.loop", data.draw(SPOTS, label="place"), configuration) for name in names}
    whole = page_of(question(), Atlas(places.values()), None, 1_000, 0)
    expected = [entry.node_id for entry in whole.entries]
    assert whole.total == len(names)
    assert sum(rung.destinations for rung in whole.ladder) == whole.total

    gone, found, after = set(), [], None
    while True:
        page: Page = page_of(question(), Atlas(places.values()), after, limit, 0)
        found += [entry.node_id for entry in page.entries]
        after = page.following
        if after is None:
            break
        assert read_position(after.text()) == after
        # One that was shown, and one that was not, are forgotten between the pages.
        leaving = data.draw(st.sampled_from(sorted(places)), label="leaves")
        if len(places) > 1:
            gone.add(places.pop(leaving).node_id)
    assert [node for node in found if node not in gone] == [node for node in expected if node not in gone]
    assert len(found) == len(set(found))


def test_beyond_the_last_ring_there_is_a_rung_for_the_rest() -> None:
    configuration = SignalConfiguration("x.loop", {}, 0, 1)
    places = [Place("n0.loop", MUNICH, configuration), Place("berlin.loop", BERLIN, configuration)]
    page = page_of(question(rings=(Ring(100, 0),), opened=None), Atlas(places), None, 10, 0)
    assert [(rung.ring, rung.open, rung.destinations) for rung in page.ladder] == [
        (0, True, 1),
        (1, False, 0),
        (None, False, 1),
    ]
    assert page_of(question(), Atlas(places), Position(10**9, 0, "z.loop"), 10, 0).entries == []
