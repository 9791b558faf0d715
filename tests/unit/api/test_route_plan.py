from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.routing_api import RoutingApi, routing_api
from tests.routing_support import routing_node

PATH = "/api/v1/route/plan"
GLASS = {"category": "glass-clear", "unit": "kg", "quantity": 5}


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingApi]:
    async with routing_node(tmp_path) as node, routing_api(node) as client:
        yield client


async def test_a_plan(munich: RoutingApi) -> None:
    task = {"batches": [{"id": "A", **GLASS, "asking_price": 3}], "demands": [{"id": "1", **GLASS, "max_price": 3}]}
    answer = await munich.post(PATH, task)
    assert answer.status == 200
    assert answer.json["assignment"] == [
        {
            "batch": {"node": "munich.loop", "id": "A"},
            "demand": {"node": "munich.loop", "id": "1"},
            "quantity": 5,
            "unit": "kg",
            "loop_cost": 3,
            "breakdown": {"base": 3, "export": 0, "import": 0, "distance": 0},
            "distance_km": 0,
        }
    ]
    assert (await munich.post(PATH, None)).json["served"] == 0


async def test_it_takes_the_scope(munich: RoutingApi) -> None:
    assert (await munich.post(PATH, {}, scope=None)).reason == "missing_token"
    assert (await munich.post(PATH, {}, scope="material:write")).reason == "insufficient_scope"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ([], "schema"),
        ({"batches": "all"}, "schema"),
        ({"batches": [7]}, "schema"),
        ({"batches": [{"id": "A", "phone": "+49 89 1234567"}]}, "schema"),
        ({"batches": [{"id": "A", **GLASS}] * 501}, "schema"),
        ({"demands": [{"id": "A", **GLASS}] * 501}, "schema"),
        ({"demands": [{"id": "A", **GLASS, "max_price": -1}]}, "schema"),
        ({"demands": [{"id": "A", **GLASS, "location": {"lat": 91, "lon": 0}}]}, "schema"),
        ({"demands": [{"id": "A", **GLASS, "category": "nothing"}]}, "unknown_category"),
    ],
)
async def test_tasks_that_are_not_as_described(munich: RoutingApi, task: Any, reason: str) -> None:
    answer = await munich.post(PATH, task)
    assert (answer.status, answer.reason) == (400, reason)
    assert b"1234567" not in answer.body
