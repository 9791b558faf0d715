"""Who sent a node request: each refusal, in the order in which they are looked for, and who is waited for."""

import asyncio
from typing import Any

import pytest

from loopd.crypto.keys import NodeKey
from loopd.federation.authentication import NodeCaller
from loopd.protocol.errors import Refusal
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.signing import (
    ANNOUNCE_PATH,
    X_LOOP_HOP,
    X_LOOP_TTL,
    X_NODE_ID,
    X_NODE_SIGNATURE,
    X_NODE_TARGET,
    X_TIMESTAMP,
)
from loopd.protocol.timestamps import format_timestamp
from tests.federation_support import NOW_MS, VIENNA, City, befriend, identity_of, signed_headers

BODY = b'{"hello": 1}'
PATH = "/api/v1/federate/offer"
SENDER = identity_of("vienna.loop", VIENNA)
OTHER_KEY = NodeKey.from_seed(b"x" * 32)


async def authenticate(city: City, headers: Any, path: str = PATH, body: bytes = BODY) -> NodeCaller:
    return await city.federation.authenticator.authenticate("POST", path, headers, body)


async def reason(city: City, headers: Any, path: str = PATH, body: bytes = BODY) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        await authenticate(city, headers, path, body)
    return caught.value.status, caught.value.reason


async def test_who_is_known_and_signed_is_let_in(munich: City) -> None:
    await munich.admit(SENDER)
    caller = await authenticate(munich, signed_headers(SENDER, PATH, BODY, target="munich.loop"))
    assert (caller.node_id, caller.verified, caller.target) == ("vienna.loop", True, "munich.loop")
    assert caller.node.standing is Standing.PEER


@pytest.mark.parametrize("name", [X_NODE_ID, X_TIMESTAMP, X_NODE_SIGNATURE])
async def test_each_of_the_three_headers_must_be_there_and_not_empty(munich: City, name: str) -> None:
    await munich.admit(SENDER)
    headers = signed_headers(SENDER, PATH, BODY)
    headers[name] = ""
    assert await reason(munich, headers) == (401, "missing_header")
    del headers[name]
    assert await reason(munich, headers) == (401, "missing_header")


@pytest.mark.parametrize("text", ["yesterday", "2026-09-21T12:00:00+02:00", "2026-09-21", "1790000000"])
async def test_a_timestamp_is_iso_8601_utc(munich: City, text: str) -> None:
    await munich.admit(SENDER)
    headers = signed_headers(SENDER, PATH, BODY)
    headers[X_TIMESTAMP] = text
    assert await reason(munich, headers) == (401, "bad_timestamp")


async def test_both_ends_of_the_tolerance_are_inside(munich: City) -> None:
    await munich.admit(SENDER)
    for skew_ms in (-300_000, 300_000):
        await authenticate(munich, signed_headers(SENDER, PATH, BODY, NOW_MS + skew_ms))
    for skew_ms in (-300_001, 300_001):
        with pytest.raises(Refusal) as caught:
            await authenticate(munich, signed_headers(SENDER, PATH, BODY, NOW_MS + skew_ms))
        assert caught.value.reason == "clock_skew"
        assert caught.value.details["server_time"] == format_timestamp(NOW_MS)


async def test_a_stranger_oneself_and_what_is_no_id_are_unknown(munich: City) -> None:
    assert await reason(munich, signed_headers(SENDER, PATH, BODY)) == (401, "unknown_node")
    assert await reason(munich, signed_headers(munich.identity, PATH, BODY)) == (401, "unknown_node")
    headers = signed_headers(SENDER, PATH, BODY)
    headers[X_NODE_ID] = "Vienna!"
    assert await reason(munich, headers) == (401, "unknown_node")


async def test_a_node_whose_key_nobody_knows_is_unknown(munich: City) -> None:
    await munich.admit(SENDER, public_key=None)
    assert await reason(munich, signed_headers(SENDER, PATH, BODY)) == (401, "unknown_node")


async def test_what_is_not_what_was_signed_is_refused(munich: City) -> None:
    await munich.admit(SENDER)
    good = signed_headers(SENDER, PATH, BODY, target="munich.loop")
    assert await reason(munich, good, body=BODY + b" ") == (401, "bad_signature")
    assert await reason(munich, good, path="/api/v1/federate/mirror") == (401, "bad_signature")
    assert await reason(munich, signed_headers(SENDER, PATH, BODY, key=OTHER_KEY)) == (401, "bad_signature")
    without_target = good.copy()
    del without_target[X_NODE_TARGET]
    assert await reason(munich, without_target) == (401, "bad_signature")
    for signature in ("", "AAAA", "=" * 86, "é" * 86):
        headers = good.copy()
        headers[X_NODE_SIGNATURE] = signature or "-"
        assert await reason(munich, headers) == (401, "bad_signature")


async def test_a_line_break_cannot_pass_for_another_line(munich: City) -> None:
    await munich.admit(SENDER)
    headers = signed_headers(SENDER, PATH, BODY)
    headers[X_NODE_TARGET] = "munich.loop\nx"
    assert await reason(munich, headers) == (401, "bad_signature")


async def test_another_receivers_request_is_refused_after_its_signature_held(munich: City) -> None:
    await munich.admit(SENDER)
    meant_for_berlin = signed_headers(SENDER, PATH, BODY, target="berlin.loop")
    assert await reason(munich, meant_for_berlin) == (401, "wrong_target")
    assert await reason(munich, meant_for_berlin, body=b"{}") == (401, "bad_signature")


async def test_a_suspended_node_is_refused_but_only_if_it_is_that_node(munich: City) -> None:
    await munich.admit(SENDER)
    assert await munich.federation.suspend_peer("vienna.loop")
    assert await reason(munich, signed_headers(SENDER, PATH, BODY)) == (403, "suspended")
    assert await reason(munich, signed_headers(SENDER, PATH, BODY, key=OTHER_KEY)) == (401, "bad_signature")


async def test_time_is_looked_at_before_the_name_and_the_name_before_the_signature(munich: City) -> None:
    late = signed_headers(SENDER, PATH, BODY, NOW_MS - 400_000, key=OTHER_KEY)
    assert await reason(munich, late) == (401, "clock_skew")
    assert await reason(munich, signed_headers(SENDER, PATH, BODY, key=OTHER_KEY)) == (401, "unknown_node")


async def test_a_lab_nodes_placeholder_is_not_a_proof(munich: City) -> None:
    await munich.admit(SENDER, auth=PeerAuth.UNSIGNED_LAB, public_key=None)
    headers = signed_headers(SENDER, PATH, BODY)
    headers[X_NODE_SIGNATURE] = "lab-signature-placeholder"
    caller = await authenticate(munich, headers)
    assert not caller.verified
    headers[X_NODE_TARGET] = "berlin.loop"
    assert await reason(munich, headers) == (401, "wrong_target")


async def test_a_repeat_is_known_by_what_was_signed_and_the_hop_headers(munich: City) -> None:
    await munich.admit(SENDER)
    headers = signed_headers(SENDER, ANNOUNCE_PATH, BODY)
    digests = set()
    for extra in ({}, {X_LOOP_TTL: "3"}, {X_LOOP_TTL: "2"}, {X_LOOP_TTL: "2", X_LOOP_HOP: "00"}, {"X-Other": "1"}):
        caller = await authenticate(munich, {**headers, **extra}, ANNOUNCE_PATH)
        digests.add(caller.replay_digest)
    assert len(digests) == 4


async def test_a_proxy_prefix_is_no_part_of_the_signed_path(munich: City) -> None:
    await munich.admit(SENDER)
    await authenticate(munich, signed_headers(SENDER, PATH, BODY), path="/munich" + PATH)


async def test_an_introduced_node_may_send_what_is_meant_for_this_one(munich: City) -> None:
    await munich.admit(SENDER, standing=Standing.INTRODUCED)
    caller = await authenticate(munich, signed_headers(SENDER, PATH, BODY, target="munich.loop"))
    assert caller.node.standing is Standing.INTRODUCED


async def test_who_just_accepted_our_handshake_is_not_a_stranger(cities: list[City]) -> None:
    """It counts us as a peer before our own transaction; what it sends in between must not be refused for good."""
    munich, vienna, _ = cities
    accepted, go_on = asyncio.Event(), asyncio.Event()

    async def hold_back(target: str, method: str, path: str) -> None:
        """Munich's answer from Vienna is read, and nothing written yet, while the test lasts."""
        if (target, path) == ("vienna.loop", "/api/v1/federation/handshake"):
            accepted.set()

    munich.network.answering = hold_back
    original = munich.database.write

    async def slow_write(unit: Any) -> Any:
        await go_on.wait()
        return await original(unit)

    munich.federation._database = type("Slow", (), {"write": staticmethod(slow_write)})()  # type: ignore[assignment]
    adding = asyncio.create_task(munich.federation.add_peer(vienna.identity.endpoint, PeerAuth.SIGNED))
    await accepted.wait()
    calling = asyncio.create_task(
        munich.serve("POST", PATH, signed_headers(vienna.identity, PATH, BODY, target="munich.loop"), BODY)
    )
    await asyncio.sleep(0.02)
    assert not calling.done()
    go_on.set()
    assert (await adding).status == "accepted"
    assert (await calling).status == 202


async def test_every_caller_hastens_its_own_probe(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    told: list[str] = []

    async def note(node_id: str) -> None:
        told.append(node_id)

    munich.federation.authenticator._contacted_us = note
    await authenticate(munich, signed_headers(vienna.identity, PATH, BODY))
    with pytest.raises(Refusal):
        await authenticate(munich, signed_headers(vienna.identity, PATH, BODY, key=OTHER_KEY))
    assert told == ["vienna.loop"]
