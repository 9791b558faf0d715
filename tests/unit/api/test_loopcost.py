from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.routing_api import RoutingApi, routing_api
from tests.routing_support import routing_node

PATH = "/api/v1/loopcost"
VIENNA = {"base_price": 60, "category": "organic-food", "destination": "vienna.loop", "distance_km": 400}


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingApi]:
    async with routing_node(tmp_path) as node, routing_api(node) as client:
        await node.know("vienna.loop", organic_food=0.20)
        yield client


async def test_anybody_may_compute(munich: RoutingApi) -> None:
    answer = await munich.post(PATH, VIENNA, scope=None)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert b'"loop_cost":104.00,"breakdown":{"base":60.00,"export":24.00,"import":12.00,"distance":8.00}' in answer.body
    assert answer.json["signals_unknown"] == []


@pytest.mark.parametrize(
    ("body", "reason", "pointer"),
    [
        (b"[]", "schema", ""),
        (b"{", "not_json", None),
        (b'{"base_price": 1, "base_price": 2}', "duplicate_key", None),
        (b'{"base_price": NaN}', "not_finite", None),
        (b"[" * 100 + b"]" * 100, "nesting_too_deep", None),
        ({"category": "organic-food"}, "schema", "/base_price"),
        ({**VIENNA, "base_price": -1}, "schema", "/base_price"),
        ({**VIENNA, "base_price": "60"}, "schema", "/base_price"),
        ({**VIENNA, "base_price": 60.001}, "bad_amount", "/base_price"),
        ({**VIENNA, "base_price": 1e300}, "bad_amount", "/base_price"),
        ({**VIENNA, "category": "organic"}, "schema", "/category"),
        ({**VIENNA, "distance_km": -1}, "schema", "/distance_km"),
        ({**VIENNA, "distance_km": 1e6}, "schema", "/distance_km"),
        ({**VIENNA, "distance_km": 1}, "distance_below_great_circle", "/distance_km"),
        ({**VIENNA, "destination": "maria@munich.example"}, "schema", "/destination"),
        ({"base_price": 1, "destinations": []}, "schema", "/destinations"),
        ({"base_price": 1, "destinations": ["n.loop"] * 5001}, "schema", "/destinations"),
        ({"base_price": 1, "destinations": [7]}, "schema", "/destinations/0"),
        ({"base_price": 1, "destinations": [{"distance_km": 1}]}, "schema", "/destinations/0/node"),
        ({"base_price": 1, "email": "maria@munich.example"}, "schema", "/email"),
    ],
)
async def test_a_question_that_is_not_as_described(
    munich: RoutingApi, body: Any, reason: str, pointer: str | None
) -> None:
    answer = await munich.post(PATH, body, scope=None)
    assert (answer.status, answer.reason) == (400, reason)
    if pointer is not None:
        assert answer.json["error"]["details"]["errors"][0]["pointer"] == pointer
    assert b"maria" not in answer.body


async def test_what_is_not_known(munich: RoutingApi) -> None:
    unknown = await munich.post(PATH, {"base_price": 1, "material": "MAT-DE-MUC-2026-FOOD-000000"})
    assert (unknown.status, unknown.reason) == (404, "unknown_material")
    assert (await munich.post(PATH, {"base_price": 1, "origin": "mars.loop"})).reason == "unknown_node"


async def test_five_thousand_destinations(munich: RoutingApi) -> None:
    asked = [f"n{number}.loop" for number in range(4_999)]
    answer = await munich.post(PATH, {"base_price": 1, "destinations": [*asked, "vienna.loop"]})
    assert (len(answer.json["results"]), len(answer.json["signals_unknown"])) == (1, 4_999)
