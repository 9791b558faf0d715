import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.protocol.subjects import SubjectState
from tests.registry_api import RegistryApi, registry_api
from tests.registry_support import material_id, material_json

PATH = "/api/v1/material"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RegistryApi]:
    async with registry_api(tmp_path) as client:
        yield client


async def test_a_registration_answers_with_the_entity(api: RegistryApi) -> None:
    answer = await api.post(PATH, material_json(unknown={"kept": [1.50]}))
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/ld+json"
    assert answer.headers["Location"] == f"{PATH}/{material_id()}"
    assert answer.json["status"] == "registered"
    assert answer.json["unknown"] == {"kept": [1.5]}
    read = await api.get(answer.headers["Location"])
    assert (read.status, read.headers["Content-Type"]) == (200, "application/ld+json")
    assert read.body == answer.body


async def test_nobody_is_shown_which_person_is_paid(api: RegistryApi) -> None:
    body = material_json(metadata={"seller_account": "user:maria@munich.loop", "asking_price": 40})
    registered = await api.post(PATH, body)
    assert registered.status == 201
    for answer in (registered, await api.get(f"{PATH}/{material_id()}"), await api.get(PATH)):
        assert b"user:" not in answer.body
        assert b'"asking_price":40' in answer.body
    business = material_json(1, metadata={"seller_account": "business:farm@munich.loop"})
    assert b"business:farm" in (await api.post(PATH, business)).body
    assert (await api.post(PATH, body)).status == 200


async def test_numbers_keep_their_digits(api: RegistryApi) -> None:
    body = material_json().replace(b'"value": 500', b'"value": 500.000000001')
    answer = await api.post(PATH, body)
    assert b'"value":500.000000001' in answer.body
    assert b'"value":500.000000001' in (await api.get(f"{PATH}/{material_id()}")).body


async def test_repeats(api: RegistryApi) -> None:
    first = await api.post(PATH, material_json())
    same = await api.post(PATH, material_json() + b"\n")
    assert (same.status, same.json, same.headers["Location"]) == (200, first.json, first.headers["Location"])
    other = await api.post(PATH, material_json(quality=0.5))
    assert (other.status, other.reason) == (409, "other_content")


async def test_an_idempotency_key_gives_the_first_answer_again(api: RegistryApi) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await api.post(PATH, material_json(), headers)
    again = await api.post(PATH, material_json(), headers)
    assert (again.status, again.body) == (201, first.body)
    mismatch = await api.post(PATH, material_json(1), headers)
    assert (mismatch.status, mismatch.reason) == (409, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not_json"),
        (material_json(contact="x"), "schema"),
        (material_json(metadata={"notes": "ask maria@example.org"}), "personal_data"),
        (material_json(category="gold"), "schema"),
        (material_json(**{"@type": "ProductDNA"}), "schema"),
        (material_json(**{"@context": "https://example.org/other.jsonld"}), "unknown_context"),
        (material_json(quantity={"value": 1e16, "unit": "kg"}), "bad_quantity"),
        (material_json(expires="2020-01-01T00:00:00Z"), "expires_before_available"),
        (material_json(id="MAT-DE-MUC-2026-FOOD-" + "A" * 200), "bad_id"),
    ],
)
async def test_what_is_refused(api: RegistryApi, body: bytes, reason: str) -> None:
    answer = await api.post(PATH, body)
    assert (answer.status, answer.reason) == (400, reason)
    assert b"maria" not in answer.body
    assert (await api.get(PATH)).json["results"] == []


async def test_writing_takes_a_token_reading_none(api: RegistryApi) -> None:
    for path in (PATH, f"{PATH}/{material_id()}/announce"):
        refused = await api.post(path, material_json() if path == PATH else b"", authorised=False)
        assert (refused.status, refused.reason) == (401, "missing_token")
    assert (await api.get(PATH)).status == 200


@pytest.mark.parametrize(
    "identifier", [material_id(9), "x", "PRD-DE-MUC-2026-DESK-F4A7B2", "%00", "a%2Fb", "%C3%BC" * 20]
)
async def test_an_unknown_id(api: RegistryApi, identifier: str) -> None:
    answer = await api.get(f"{PATH}/{identifier}")
    assert answer.status == 404


async def test_the_list_is_followed_by_next(api: RegistryApi) -> None:
    for number in range(5):
        category = "organic-food" if number % 2 == 0 else "organic-wood"
        assert (await api.post(PATH, material_json(number, category=category))).status == 201
    seen, following = [], f"{PATH}?limit=2&category=organic-food"
    while following:
        page = (await api.get(following)).json
        seen += [entity["id"] for entity in page["results"]]
        following = page["next"]
        assert following is None or re.fullmatch(r"/api/v1/material\?[a-z0-9=&-]+", following)
    assert seen == [material_id(4), material_id(2), material_id(0)]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=0", "bad_limit"),
        ("limit=101", "bad_limit"),
        ("limit=x", "bad_limit"),
        ("category=gold", "unknown_category"),
        ("category=furniture-office", "unknown_category"),
        ("cursor=0", "bad_cursor"),
        ("cursor=-1", "bad_cursor"),
        ("page=2", "unknown_parameter"),
    ],
)
async def test_bad_list_parameters(api: RegistryApi, query: str, reason: str) -> None:
    answer = await api.get(f"{PATH}?{query}")
    assert (answer.status, answer.reason) == (400, reason)


async def test_announcing(api: RegistryApi) -> None:
    await api.post(PATH, material_json())
    answer = await api.post(f"{PATH}/{material_id()}/announce", b"")
    assert answer.status == 202
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {"status": "announced", "message_id": "00" * 32}
    assert len(api.announcer.announced) == 1


async def test_what_cannot_be_announced(api: RegistryApi) -> None:
    unknown = await api.post(f"{PATH}/{material_id()}/announce", b"")
    assert (unknown.status, unknown.reason) == (404, "unknown_material")
    await api.post(PATH, material_json())
    await api.change_state(material_id(), SubjectState.RESERVED)
    held = await api.post(f"{PATH}/{material_id()}/announce", b"")
    assert (held.status, held.reason) == (409, "not_available")


async def test_the_description_names_every_route(api: RegistryApi) -> None:
    described = json.loads((await api.get("/openapi.json")).body)
    assert set(described["paths"][PATH]) == {"get", "post"}
    assert set(described["paths"][f"{PATH}/{{id}}"]) == {"get"}
    assert set(described["paths"][f"{PATH}/{{id}}/announce"]) == {"post"}
