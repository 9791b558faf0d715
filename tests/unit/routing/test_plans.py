from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.errors import Refusal
from tests.exchange_support import GRAIN, VIENNA, heard_grain, reason_of
from tests.registry_support import material_id
from tests.routing_support import RoutingNode, loop_demand, routing_node

GLASS = {"category": "glass-clear", "unit": "kg"}


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingNode]:
    async with routing_node(tmp_path) as node:
        await node.know("vienna.loop", organic_food=0.20, glass_clear=0.10)
        yield node


def pairs(plan: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["batch"]["id"], each["demand"]["id"]) for each in plan["assignment"]]


async def test_all_that_is_offered_meets_all_that_is_looked_for(munich: RoutingNode) -> None:
    await munich.register(1, metadata={"asking_price": 150})
    await munich.register(2, quantity={"value": 200, "unit": "kg"}, metadata={"asking_price": 60})
    await munich.register(3, category="metal-steel")
    own = await munich.want(max_price=60)
    await munich.told(loop_demand(quantity=500))
    plan = await munich.plan()
    assert pairs(plan) == [(material_id(1), "WNT-000000001"), (material_id(2), own["id"])]
    assert plan["assignment"][1]["loop_cost"] == 60
    assert plan["assignment"][0]["breakdown"] == {"base": 150, "export": 60, "import": 30, "distance": Decimal("7.11")}
    assert (plan["served"], plan["loop_cost"]) == (2, Decimal("307.11"))
    assert plan["unused"] == [{"node": "munich.loop", "id": material_id(3)}]
    assert plan["unserved"] == []


async def test_what_it_saves_over_serving_each_in_turn(munich: RoutingNode) -> None:
    batches = [{"id": "A", "quantity": 10, "asking_price": 10, **GLASS}, {"id": "B", "quantity": 20, **GLASS}]
    demands = [{"id": "1", "quantity": 10, **GLASS}, {"id": "2", "quantity": 20, **GLASS}]
    plan = await munich.plan(batches=batches, demands=demands)
    assert pairs(plan) == [("A", "1"), ("B", "2")]
    # Alone, the first takes the cheaper one, which the second needs.
    assert plan["in_turn"] == {"served": 1, "loop_cost": 0}
    assert plan["saves"] == {"served": 1, "loop_cost": None}
    demands[1]["quantity"] = 5
    plan = await munich.plan(batches=batches, demands=[demands[1], demands[0]])
    assert plan["saves"] == {"served": 0, "loop_cost": 5}


async def test_the_order_of_the_batches_decides_nothing(munich: RoutingNode) -> None:
    batches = [{"id": str(number), "quantity": 10, "asking_price": 7, **GLASS} for number in range(6)]
    demands = [{"id": str(number), "quantity": 10, "node": "vienna.loop", **GLASS} for number in range(4)]
    plan = await munich.plan(batches=batches, demands=demands)
    assert await munich.plan(batches=batches[::-1], demands=demands) == plan


async def test_what_was_heard_and_what_a_peer_wants_can_be_named(munich: RoutingNode) -> None:
    await munich.hear(heard_grain(origin="vienna.loop"))
    await munich.told(loop_demand())
    own = await munich.register(1)
    plan = await munich.plan(
        batches=[{"material": GRAIN}, {"material": own}], demands=[{"wanted": "WNT-000000001", "node": "vienna.loop"}]
    )
    assert pairs(plan) == [(GRAIN, "WNT-000000001")]
    assert plan["assignment"][0]["distance_km"] == 0


async def test_of_whom_too_little_is_known_is_left_out_and_named(munich: RoutingNode) -> None:
    await munich.know("graz.loop")
    await munich.know("linz.loop", default=0.1)
    demands = [
        {"id": "1", "quantity": 1, "node": "graz.loop", **GLASS},
        {"id": "2", "quantity": 1, "node": "linz.loop", **GLASS},
        {"id": "3", "quantity": 1, **GLASS},
    ]
    plan = await munich.plan(batches=[{"id": "A", "quantity": 10, **GLASS}], demands=demands)
    assert pairs(plan) == [("A", "3")]
    assert [each["id"] for each in plan["unserved"]] == ["1", "2"]
    assert (plan["signals_unknown"], plan["location_unknown"]) == (["graz.loop"], ["linz.loop"])
    await munich.fetcher.settled()
    assert munich.fetched == ["graz.loop"]


async def test_nothing_to_plan_starts_no_process(munich: RoutingNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(munich.planner, "plan", None)
    plan = await munich.plan(batches=[])
    assert (plan["assignment"], plan["saves"]) == ([], {"served": 0, "loop_cost": 0})


@pytest.mark.parametrize(
    ("task", "status", "reason"),
    [
        ({"batches": [{}]}, 400, "bad_subject"),
        ({"batches": [{"material": GRAIN, "id": "A"}]}, 400, "bad_subject"),
        ({"batches": [{"id": "A", "quantity": 1, "unit": "kg"}]}, 400, "bad_subject"),
        ({"batches": [{"id": "A", "quantity": 1, "unit": "kg", "category": "glass-*"}]}, 400, "unknown_category"),
        ({"batches": [{"id": "A", "quantity": 1e16, **GLASS}]}, 400, "bad_quantity"),
        ({"batches": [{"id": "A", "quantity": 1, "asking_price": 0.001, **GLASS}]}, 400, "bad_amount"),
        ({"batches": [{"id": "A", "quantity": 1, **GLASS}] * 2}, 400, "named_twice"),
        ({"batches": [{"material": GRAIN}]}, 404, "unknown_material"),
        ({"batches": [{"product": "PRD-DE-MUC-2026-DESK-F4A7B2"}]}, 404, "unknown_product"),
        ({"demands": [{}]}, 400, "bad_demand"),
        ({"demands": [{"wanted": "WNT-1", "quantity": 1}]}, 400, "bad_demand"),
        ({"demands": [{"wanted": "WNT-1"}]}, 404, "unknown_demand"),
        ({"demands": [{"id": "1", "quantity": 0, **GLASS}]}, 400, "bad_quantity"),
        ({"demands": [{"id": "1", "quantity": 1, "max_price": 0.001, **GLASS}]}, 400, "bad_amount"),
        ({"demands": [{"id": "1", "quantity": 1, "radius_km": 1e5, **GLASS}]}, 400, "bad_radius"),
        ({"demands": [{"id": "1", "quantity": 1, **GLASS}] * 2}, 400, "named_twice"),
    ],
)
async def test_tasks_that_are_refused(munich: RoutingNode, task: dict[str, Any], status: int, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        await munich.plan(**task)
    assert (refused.value.status, reason_of(refused)) == (status, reason)


async def test_what_is_gone_is_not_planned(munich: RoutingNode) -> None:
    await munich.hear(heard_grain(origin="vienna.loop", available=False))
    with pytest.raises(Refusal) as refused:
        await munich.plan(batches=[{"material": GRAIN}])
    assert (refused.value.status, reason_of(refused)) == (409, "not_available")


async def test_prices_beyond_exact_sums_are_refused(munich: RoutingNode) -> None:
    batches = [{"id": "A", "quantity": 1, "asking_price": 10**15, **GLASS}]
    with pytest.raises(Refusal) as refused:
        await munich.plan(batches=batches, demands=[{"id": "1", "quantity": 1, **GLASS}])
    assert reason_of(refused) == "too_dear"


async def test_a_place_that_is_stated_counts(munich: RoutingNode) -> None:
    near = {"lat": VIENNA.lat, "lon": VIENNA.lon}
    demand = {"id": "1", "quantity": 1, "radius_km": 10, "node": "vienna.loop", **GLASS}
    batches = [{"id": "A", "quantity": 1, **GLASS}, {"id": "B", "quantity": 1, "location": near, **GLASS}]
    assert pairs(await munich.plan(batches=batches, demands=[demand])) == [("B", "1")]
