from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.geo import Location
from tests.routing_api import RoutingApi, routing_api
from tests.routing_support import routing_node

PATH = "/api/v1/route"


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingApi]:
    async with routing_node(tmp_path) as node, routing_api(node) as client:
        for number in range(7):
            await node.know(f"n{number}.loop", Location(48, number), organic_food=number / 10)
        yield client


async def test_pages_are_followed_to_the_end(munich: RoutingApi) -> None:
    asked = {"material": await munich.node.register(), "base_price": 60}
    whole = await munich.post(PATH, asked)
    assert (whole.status, whole.json["total"], whole.json["next"]) == (200, 8, None)
    found, path = [], f"{PATH}?limit=3"
    while path is not None:
        page = await munich.post(path, asked)
        found += page.json["results"]
        path = page.json["next"]
    assert found == whole.json["results"]


async def test_it_takes_the_scope(munich: RoutingApi) -> None:
    asked = {"material": await munich.node.register(), "base_price": 60}
    assert (await munich.post(PATH, asked, scope=None)).reason == "missing_token"
    assert (await munich.post(PATH, asked, scope="material:write")).reason == "insufficient_scope"


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("?limit=0", {}, "bad_limit"),
        ("?limit=101", {}, "bad_limit"),
        ("?cursor=x", {}, "bad_cursor"),
        ("?page=2", {}, "unknown_parameter"),
        ("", [], "schema"),
        ("", {"material": 7}, "schema"),
        ("", {"material": ""}, "schema"),
        ("", {"material": "x", "wanted_only": 1}, "schema"),
        ("", {"material": "x", "base_price": -1}, "schema"),
        ("", {"material": "x", "base_price": 0.001}, "unknown_material"),
        ("", {"base_price": 1}, "bad_subject"),
        ("", {"category": "organic-food", "base_price": 1}, "schema"),
    ],
)
async def test_questions_that_are_refused(munich: RoutingApi, path: str, body: Any, reason: str) -> None:
    answer = await munich.post(PATH + path, body)
    assert answer.status == (404 if reason == "unknown_material" else 400)
    assert answer.reason == reason


async def test_a_price_has_two_decimals(munich: RoutingApi) -> None:
    answer = await munich.post(PATH, {"material": await munich.node.register(), "base_price": 0.001})
    assert (answer.status, answer.reason) == (400, "bad_amount")
