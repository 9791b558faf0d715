"""Idempotency-Key: one effect, one answer."""

import asyncio

import pytest

from loopd.protocol.limits import IDEMPOTENCY_MEMORY_MS
from tests.unit.api.harness import Harness, Reply

THING = b'{"name":"grain"}'


async def _make(node: Harness, bearer: dict[str, str], key: str | None, body: bytes = THING, query: str = "") -> Reply:
    headers = {**bearer, "Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return await node.public.call("POST", f"/api/v1/thing{query}", data=body, headers=headers)


async def test_a_repeat_has_no_second_effect_and_gets_the_first_answer(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    first, second = await _make(node, bearer, "key-1"), await _make(node, bearer, "key-1")
    assert (first.status, first.body) == (second.status, second.body) == (201, THING)
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Content-Type"] == "application/ld+json"
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert node.things.effects == 1


async def test_without_a_key_every_request_counts(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    for _ in range(2):
        await _make(node, bearer, None)
    assert node.things.effects == 2


async def test_the_same_key_for_another_body_or_path_is_a_mismatch(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    await _make(node, bearer, "key-1")
    other = await _make(node, bearer, "key-1", b'{"name":"other"}')
    assert (other.status, other.reason) == (409, "idempotency_mismatch")
    assert node.things.effects == 1


async def test_keys_belong_to_their_principal(node: Harness) -> None:
    for _ in range(2):
        assert (await _make(node, await node.bearer("material:write"), "key-1")).status == 201
    reply = await node.admin.call(
        "POST", "/api/v1/thing", data=THING, headers={"Content-Type": "application/json", "Idempotency-Key": "key-1"}
    )
    assert reply.status == 201
    assert node.things.effects == 3


async def test_a_refusal_is_not_stored(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    for effects in (1, 2):
        assert (await _make(node, bearer, "key-1", b'{"name":"taken"}')).reason == "taken"
        assert node.things.effects == effects
    assert (await _make(node, bearer, "key-1")).status == 201


async def test_fifty_at_once_have_one_effect(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    replies = await asyncio.gather(*(_make(node, bearer, "key-1") for _ in range(50)))
    assert {(reply.status, reply.body) for reply in replies} == {(201, THING)}
    assert node.things.effects == 1


async def test_an_answer_is_kept_for_a_day(node: Harness) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key-1"}

    async def make() -> None:
        assert (await node.admin.call("POST", "/api/v1/thing", data=THING, headers=headers)).status == 201

    await make()
    node.clock.advance(IDEMPOTENCY_MEMORY_MS - 1)
    await make()
    assert node.things.effects == 1
    node.clock.advance(1)
    await make()
    assert node.things.effects == 2


async def test_old_answers_drain_away_and_each_caller_has_a_ceiling(node: Harness) -> None:
    bearer = await node.bearer("admin")
    for number in range(8):
        await _make(node, bearer, f"key-{number}")
    rows = await node.database.all("SELECT key FROM idempotent_answer ORDER BY sequence")
    assert [row["key"] for row in rows] == [f"key-{number}" for number in range(3, 8)]
    node.clock.advance(IDEMPOTENCY_MEMORY_MS)
    for number in range(2):
        fresh = {"Content-Type": "application/json", "Idempotency-Key": f"new-{number}"}
        await node.admin.call("POST", "/api/v1/thing", data=THING, headers=fresh)
    rows = await node.database.all("SELECT key FROM idempotent_answer ORDER BY id")
    assert [row["key"] for row in rows] == ["new-0", "new-1"]


@pytest.mark.parametrize("key", ["", "a" * 256, "with space", "ü", "tab\there"])
async def test_odd_keys_are_refused(node: Harness, key: str) -> None:
    reply = await _make(node, await node.bearer("material:write"), key)
    assert (reply.status, reply.reason) == (400, "bad_idempotency_key")
    assert node.things.effects == 0


async def test_the_longest_key_is_taken(node: Harness) -> None:
    assert (await _make(node, await node.bearer("material:write"), "~" * 255)).status == 201


async def test_the_making_of_a_token_is_never_stored(node: Harness) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key-1"}
    made = [
        await node.admin.call("POST", "/admin/v1/tokens", data=b'{"scopes":["admin"]}', headers=headers)
        for _ in range(2)
    ]
    assert made[0].json()["token"] != made[1].json()["token"]
    assert await node.database.all("SELECT 1 FROM idempotent_answer") == []
