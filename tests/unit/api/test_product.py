from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.registry_api import RegistryApi, registry_api
from tests.registry_support import PRODUCT_ID, material_id, material_json, product_json

PATH = "/api/v1/product"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RegistryApi]:
    async with registry_api(tmp_path) as client:
        yield client


async def test_a_product_is_registered_read_and_listed(api: RegistryApi) -> None:
    answer = await api.post(PATH, product_json(material_ids=[material_id()], name="Standing Desk — Ergotron WorkFit"))
    assert (answer.status, answer.headers["Location"]) == (201, f"{PATH}/{PRODUCT_ID}")
    assert answer.json["status"] == "registered"
    assert (await api.get(f"{PATH}/{PRODUCT_ID}")).body == answer.body
    listed = await api.get(f"{PATH}?category=furniture-office")
    assert listed.json == {"results": [answer.json], "next": None}
    assert (await api.post(PATH, product_json(condition="fair"))).reason == "other_content"


async def test_the_two_registries_do_not_mix(api: RegistryApi) -> None:
    await api.post(PATH, product_json())
    await api.post("/api/v1/material", material_json())
    assert [entity["id"] for entity in (await api.get(PATH)).json["results"]] == [PRODUCT_ID]
    assert (await api.get(f"{PATH}/{material_id()}")).reason == "unknown_product"
    assert (await api.post(PATH, material_json(1))).reason == "schema"


@pytest.mark.parametrize("category", ["plastic-pet", "furniture-*"])
async def test_a_category_is_one_of_the_products(api: RegistryApi, category: str) -> None:
    assert (await api.get(f"{PATH}?category={category}")).reason == "unknown_category"


async def test_announcing(api: RegistryApi) -> None:
    await api.post(PATH, product_json(current_city="Berlin"))
    elsewhere = await api.post(f"{PATH}/{PRODUCT_ID}/announce", b"")
    assert (elsewhere.status, elsewhere.reason) == (409, "other_city")
    await api.post(PATH, product_json(id="PRD-HERE-0001"))
    assert (await api.post(f"{PATH}/PRD-HERE-0001/announce", b"")).status == 202
