from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.errors import Refusal
from tests.exchange_support import DAY_MS, GRAIN, MUNICH, VIENNA, Home, heard_grain, reason_of
from tests.routing_support import RoutingNode, routing_node


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingNode]:
    async with routing_node(tmp_path) as node:
        await node.know("vienna.loop", organic_food=0.20)
        yield node


def costs(answer: dict[str, Any]) -> list[tuple[str, Decimal]]:
    return [(each["node"], each["loop_cost"]) for each in answer["results"]]


async def test_the_example_of_the_specification(munich: RoutingNode) -> None:
    answer = await munich.cost(base_price=60, category="organic-food", destination="vienna.loop", distance_km=400)
    (result,) = answer["results"]
    assert (result["loop_cost"], result["distance_km"]) == (Decimal("104.00"), 400)
    assert result["breakdown"] == {"base": 60, "export": 24, "import": 12, "distance": 8}
    assert answer["origin"]["signal"] == Decimal("0.4")


async def test_inside_one_city_the_price_is_all(munich: RoutingNode) -> None:
    answer = await munich.cost(base_price=50, category="organic-food")
    assert costs(answer) == [("munich.loop", Decimal(50))]
    assert answer["results"][0]["breakdown"] == {"base": 50, "export": 0, "import": 0, "distance": 0}


async def test_both_ways_cost_the_same(munich: RoutingNode, tmp_path: Path) -> None:
    """A signal applies to what leaves and to what comes in alike (§6.2)."""
    there = await munich.cost(base_price=60, category="organic-food", destination="vienna.loop")
    back = await munich.cost(base_price=60, category="organic-food", origin="vienna.loop")
    assert there["results"][0]["loop_cost"] == back["results"][0]["loop_cost"]
    assert there["results"][0]["distance_km"] == back["results"][0]["distance_km"]
    out, returned = there["results"][0]["breakdown"], back["results"][0]["breakdown"]
    assert (out["export"], out["import"]) == (returned["import"], returned["export"]) == (24, 12)
    home = Home("vienna.loop", VIENNA)
    async with routing_node(tmp_path, home, {"organic-food": Decimal("0.20")}) as vienna:
        await vienna.know("munich.loop", organic_food=0.40)
        same = await vienna.cost(base_price=60, category="organic-food", origin="munich.loop")
        assert same["results"][0]["loop_cost"] == there["results"][0]["loop_cost"]


async def test_many_destinations_in_the_order_asked(munich: RoutingNode) -> None:
    await munich.know("berlin.loop", organic_food=0.05)
    await munich.know("graz.loop")
    asked = ["vienna.loop", "graz.loop", "mars.loop", {"node": "berlin.loop", "distance_km": 600}, "munich.loop"]
    answer = await munich.cost(base_price=60, category="organic-food", destinations=asked)
    assert [node for node, _ in costs(answer)] == ["vienna.loop", "berlin.loop", "munich.loop"]
    assert dict(costs(answer))["berlin.loop"] == Decimal("99.00")
    assert answer["signals_unknown"] == ["graz.loop", "mars.loop"]
    await munich.publish("graz.loop", default=0.1)
    answer = await munich.cost(base_price=60, category="organic-food", destinations=asked)
    assert (answer["signals_unknown"], answer["location_unknown"]) == (["mars.loop"], ["graz.loop"])


async def test_signals_that_are_missing_are_fetched_once(munich: RoutingNode) -> None:
    await munich.know("graz.loop")
    for _ in range(3):
        await munich.cost(base_price=1, destination="graz.loop")
        await munich.fetcher.settled()
    assert munich.fetched == ["graz.loop"]
    munich.clock.advance(61_000)
    await munich.cost(base_price=1, destination="graz.loop")
    await munich.fetcher.settled()
    assert munich.fetched == ["graz.loop", "graz.loop"]


async def test_what_a_vote_changed_counts_at_once(munich: RoutingNode) -> None:
    before = await munich.cost(base_price=60, category="organic-food", destination="vienna.loop", distance_km=400)
    await munich.publish("vienna.loop", organic_food=0.30)
    after = await munich.cost(base_price=60, category="organic-food", destination="vienna.loop", distance_km=400)
    assert (before["results"][0]["loop_cost"], after["results"][0]["loop_cost"]) == (104, 110)


async def test_signals_that_have_expired_are_used_and_marked(munich: RoutingNode) -> None:
    munich.clock.advance(31 * DAY_MS)
    answer = await munich.cost(base_price=60, category="organic-food", destination="vienna.loop", distance_km=400)
    (result,) = answer["results"]
    assert (result["loop_cost"], result["stale_signals"]) == (104, True)


async def test_a_record_says_what_it_is_and_where(munich: RoutingNode) -> None:
    material = await munich.register(location={"lat": 48.1351, "lon": 11.582})
    answer = await munich.cost(base_price=60, material=material, destination="vienna.loop")
    assert (answer["category"], answer["origin"]["node"]) == ("organic-food", "munich.loop")
    assert answer["origin"]["location"] == {"lat": Decimal("48.14"), "lon": Decimal("11.58")}


async def test_what_was_heard_comes_here(tmp_path: Path) -> None:
    home = Home("vienna.loop", VIENNA)
    async with routing_node(tmp_path, home, {"organic-food": Decimal("0.20")}) as vienna:
        await vienna.know("munich.loop", organic_food=0.40)
        await vienna.hear(heard_grain())
        answer = await vienna.cost(base_price=60, material=GRAIN, distance_km=400)
        assert costs(answer) == [("vienna.loop", Decimal(104))]
        assert answer["origin"]["node"] == "munich.loop"


@pytest.mark.parametrize(
    ("question", "status", "reason"),
    [
        ({"base_price": Decimal("0.001")}, 400, "bad_amount"),
        ({"material": GRAIN, "category": "organic-food"}, 400, "bad_subject"),
        ({"material": GRAIN, "product": "PRD-DE-MUC-2026-DESK-F4A7B2"}, 400, "bad_subject"),
        ({"destination": "vienna.loop", "destinations": ["vienna.loop"]}, 400, "bad_destination"),
        ({"destinations": ["vienna.loop", {"node": "vienna.loop"}]}, 400, "bad_destination"),
        ({"destinations": ["vienna.loop"], "distance_km": 400}, 400, "bad_distance"),
        ({"destination": "vienna.loop", "distance_km": 355}, 400, "distance_below_great_circle"),
        ({"destinations": [{"node": "vienna.loop", "distance_km": 1}]}, 400, "distance_below_great_circle"),
        ({"distance_km": 1}, 400, "bad_distance"),
        ({"destination": "vienna.loop", "distance_km": 100_001}, 400, "bad_distance"),
        ({"material": GRAIN}, 404, "unknown_material"),
        ({"origin": "mars.loop"}, 404, "unknown_node"),
        ({"origin": "graz.loop"}, 409, "signals_unknown"),
        ({"origin": "linz.loop"}, 409, "location_unknown"),
    ],
)
async def test_questions_without_an_answer(
    munich: RoutingNode, question: dict[str, Any], status: int, reason: str
) -> None:
    await munich.know("graz.loop", MUNICH)
    await munich.know("linz.loop", default=0.1)
    with pytest.raises(Refusal) as refused:
        await munich.routing.loop_costs({"base_price": 60, **question})
    assert (refused.value.status, reason_of(refused)) == (status, reason)
