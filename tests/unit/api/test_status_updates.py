import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.protocol.timestamps import format_timestamp
from tests.registry_api import RegistryApi, registry_api
from tests.registry_support import NOW_MS, material_id, material_json, product_json, status_update_json

PATH = "/api/v1/material-status"
PRODUCT_ID = json.loads(product_json())["id"]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RegistryApi]:
    async with registry_api(tmp_path) as client:
        yield client


async def test_an_update_answers_with_its_id_and_time(api: RegistryApi) -> None:
    await api.post("/api/v1/material", material_json())
    update = status_update_json(1, "reserved", id="3C9A6A0B-8c1a-4d3f-9c2c-3c1c2f9d5c2a")
    answer = await api.post(PATH, update)
    assert (answer.status, answer.headers["Content-Type"]) == (201, "application/json")
    assert answer.json == {"id": "3C9A6A0B-8c1a-4d3f-9c2c-3c1c2f9d5c2a", "created_at": format_timestamp(NOW_MS)}
    api.clock.advance(5000)
    again = await api.post(PATH, update)
    assert (again.status, again.json) == (200, answer.json)
    entity = (await api.get(f"/api/v1/material/{material_id()}")).json
    assert entity["status"] == "registered"
    left = {"value": 500, "unit": "kg"}
    assert entity["availability"] == {"status": "reserved", "updated_at": format_timestamp(NOW_MS), "quantity": left}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (status_update_json(1, "available"), 409, "transition"),
        (status_update_json(1, "reserved", material_id=material_id(7)), 404, "unknown_material"),
        (status_update_json(1, "sold"), 400, "schema"),
        (status_update_json(1, "reserved", id="not-a-uuid"), 400, "schema"),
        (status_update_json(1, "reserved", notes="call +49 89 1234567"), 400, "personal_data"),
        (material_json(1), 400, "schema"),
    ],
)
async def test_what_is_refused(api: RegistryApi, body: bytes, status: int, reason: str) -> None:
    await api.post("/api/v1/material", material_json())
    answer = await api.post(PATH, body)
    assert (answer.status, answer.reason) == (status, reason)


async def test_nothing_follows_withdrawn(api: RegistryApi) -> None:
    await api.post("/api/v1/material", material_json())
    assert (await api.post(PATH, status_update_json(1, "withdrawn"))).status == 201
    answer = await api.post(PATH, status_update_json(2, "available"))
    assert (answer.status, answer.reason) == (409, "terminal")
    assert (await api.post(PATH, status_update_json(1, "reserved"))).reason == "other_content"


async def test_an_update_takes_a_token(api: RegistryApi) -> None:
    assert (await api.post(PATH, status_update_json(1, "reserved"), authorised=False)).reason == "missing_token"


async def test_updates_are_read_and_listed(api: RegistryApi) -> None:
    await api.post("/api/v1/material", material_json())
    for number, state in enumerate(("reserved", "available", "reserved"), start=1):
        assert (await api.post(PATH, status_update_json(number, state))).status == 201
    first = (await api.get(f"{PATH}?limit=2")).json
    second = (await api.get(first["next"])).json
    listed = first["results"] + second["results"]
    assert [update["status"] for update in listed] == ["reserved", "available", "reserved"]
    assert second["next"] is None
    assert (await api.get(f"{PATH}/{listed[0]['id'].upper()}")).json == listed[0]
    assert (await api.get(f"{PATH}?material={material_id(7)}")).json == {"results": [], "next": None}
    unknown = await api.get(f"{PATH}/none")
    assert (unknown.status, unknown.reason) == (404, "unknown_update")


async def test_products_have_updates_of_their_own(api: RegistryApi) -> None:
    await api.post("/api/v1/product", product_json())
    update = {
        **json.loads(status_update_json(1, "withdrawn")),
        "@type": "ProductStatusUpdate",
        "product_id": PRODUCT_ID,
    }
    del update["material_id"]
    assert (await api.post("/api/v1/product-status", json.dumps(update).encode())).status == 201
    entity = (await api.get(f"/api/v1/product/{PRODUCT_ID}")).json
    assert entity["availability"]["status"] == "withdrawn"
    assert (await api.get(f"/api/v1/product-status?product={PRODUCT_ID}")).json["results"] == [update]
    assert (await api.get(PATH)).json["results"] == []
    assert (await api.get(f"{PATH}/{update['id']}")).reason == "unknown_update"
