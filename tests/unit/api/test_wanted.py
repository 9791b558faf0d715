from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry_support import material_id
from tests.routing_api import RoutingApi, routing_api
from tests.routing_support import routing_node

PATH = "/api/v1/wanted"
WISH = {"category": "organic-*", "quantity": 200, "unit": "kg", "max_price": 40, "radius_km": 500}


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingApi]:
    async with routing_node(tmp_path) as node, routing_api(node) as client:
        yield client


async def test_register_read_and_close(munich: RoutingApi) -> None:
    await munich.node.register(1)
    made = await munich.post(PATH, WISH)
    assert (made.status, made.json["status"]) == (201, "open")
    assert [each["material"] for each in made.json["matches"]] == [material_id(1)]
    place = made.headers["Location"]
    assert (await munich.get(place)).json == made.json
    closed = await munich.post(f"{place}/close", {"status": "fulfilled"})
    assert (closed.status, closed.json["status"]) == (200, "fulfilled")
    assert (await munich.post(f"{place}/close", {"status": "fulfilled"})).status == 200
    again = await munich.post(f"{place}/close", None)
    assert (again.status, again.reason) == (409, "terminal")


async def test_a_repeat_with_its_key_has_one_effect(munich: RoutingApi) -> None:
    key = {"Idempotency-Key": "wish-1"}
    first = await munich.post(PATH, WISH, headers=key)
    again = await munich.post(PATH, WISH, headers=key)
    assert (again.status, again.json) == (201, first.json)
    assert len((await munich.get(PATH)).json["results"]) == 1


async def test_the_list_is_paged(munich: RoutingApi) -> None:
    made = [(await munich.post(PATH, {**WISH, "quantity": number})).json["id"] for number in range(1, 6)]
    await munich.post(f"{PATH}/{made[0]}/close", None)
    found, path = [], f"{PATH}?limit=2&status=open"
    while path is not None:
        page = (await munich.get(path)).json
        found += [each["id"] for each in page["results"]]
        path = page["next"]
    assert found == made[:0:-1]
    assert (await munich.get(f"{PATH}?scope=federation")).json == {"results": [], "next": None}


async def test_it_takes_the_scope(munich: RoutingApi) -> None:
    assert (await munich.post(PATH, WISH, scope=None)).reason == "missing_token"
    assert (await munich.post(PATH, WISH, scope="material:write")).reason == "insufficient_scope"
    assert (await munich.get(PATH, scope=None)).reason == "missing_token"


@pytest.mark.parametrize(
    ("change", "reason", "pointer"),
    [
        ({"quantity": None}, "schema", "/quantity"),
        ({"quantity": 0}, "schema", "/quantity"),
        ({"quantity": "200"}, "schema", "/quantity"),
        ({"unit": "pound"}, "schema", "/unit"),
        ({"max_price": -1}, "schema", "/max_price"),
        ({"max_price": 1.001}, "bad_amount", "/max_price"),
        ({"radius_km": 0}, "schema", "/radius_km"),
        ({"radius_km": -5}, "schema", "/radius_km"),
        ({"radius_km": 1e300}, "schema", "/radius_km"),
        ({"location": {"lat": 91, "lon": 0}}, "schema", "/location/lat"),
        ({"category": "nothing"}, "unknown_category", "/category"),
        ({"product_category": "*"}, "unknown_category", "/category"),
        ({"quantity": 1e-11}, "bad_quantity", "/quantity"),
        ({"valid_until": "2020-01-01T00:00:00Z"}, "expired", "/valid_until"),
        ({"valid_until": "2099-01-01T00:00:00Z"}, "bad_time", "/valid_until"),
        ({"valid_until": "soon"}, "schema", "/valid_until"),
        ({"valid_for_s": 60, "valid_until": "2099-01-01T00:00:00Z"}, "bad_time", "/valid_for_s"),
        ({"wanted_by": "maria@munich.example"}, "bad_business", "/wanted_by"),
        ({"phone": "+49 89 1234567"}, "schema", "/phone"),
    ],
)
async def test_wishes_that_are_refused(munich: RoutingApi, change: dict[str, Any], reason: str, pointer: str) -> None:
    answer = await munich.post(PATH, {key: value for key, value in {**WISH, **change}.items() if value is not None})
    assert (answer.status, answer.reason) == (400, reason)
    assert answer.json["error"]["details"]["errors"][0]["pointer"] == pointer
    assert b"maria" not in answer.body
    assert b"1234567" not in answer.body
    assert (await munich.get(PATH)).json["results"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=0", "scope=all", "status=over", "x=1"])
async def test_bad_questions_to_the_list(munich: RoutingApi, query: str) -> None:
    assert (await munich.get(f"{PATH}?{query}")).status == 400


async def test_what_is_not_there(munich: RoutingApi) -> None:
    for answer in (await munich.get(f"{PATH}/WNT-00000000"), await munich.post(f"{PATH}/WNT-00000000/close", None)):
        assert (answer.status, answer.reason) == (404, "unknown_demand")
    made = await munich.post(PATH, WISH)
    assert (await munich.post(f"{made.headers['Location']}/close", {"status": "open"})).reason == "schema"
