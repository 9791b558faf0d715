"""Requests for one node over its link: the same as by HTTP, and by HTTP where the link cannot (§9.2)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from loopd.federation.link_requests import LinkRequests
from loopd.gossip import frames
from loopd.gossip.key_statements import build_rotation
from loopd.net.link import Link
from loopd.protocol.limits import LINK_BODY_MAX_BYTES, LINK_REQUESTS_AT_ONCE
from tests.federation_support import (
    CONTEXT,
    VIENNA,
    City,
    befriend,
    eventually,
    federation_of,
    identity_of,
    key_of,
    rest,
)
from tests.support import ManualClock

OFFER = "/federate/offer"


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[City]]:
    """Munich and Vienna, with a link."""
    identities = (identity_of("munich.loop"), identity_of("vienna.loop", VIENNA))
    async with federation_of(tmp_path, *identities) as cities:
        cities[0].network.websockets = True
        await befriend(*cities)
        await eventually(lambda: linked(*cities), *cities, step_ms=500)
        yield cities


def linked(one: City, other: City) -> bool:
    return one.federation.links.carries(other.node_id) and other.federation.links.carries(one.node_id)


def desk_of(city: City, other: City) -> LinkRequests:
    desk = city.federation.links._running[other.node_id].requests
    assert desk is not None
    return desk


def by_http(city: City) -> int:
    """Requests for a city that went by HTTP."""
    return len(city.network.to(city.node_id, OFFER))


async def test_a_request_goes_over_the_link_and_its_answer_comes_back(pair: list[City]) -> None:
    munich, vienna = pair
    await munich.request("vienna.loop", b'{"bid": 1}', "bid:1")
    await vienna.request("munich.loop", b'{"bid": 2}', "bid:2")
    await eventually(lambda: munich.answered and vienna.answered)
    assert (munich.answered, vienna.answered) == ([("bid:1", 202, "")], [("bid:2", 202, "")])
    assert (vienna.offers, munich.offers) == ([b'{"bid": 1}'], [b'{"bid": 2}'])
    assert (by_http(munich), by_http(vienna)) == (0, 0)
    # The window of credit is open again.
    for number in range(40):
        await munich.request("vienna.loop", b"%d" % number, f"more:{number}")
    await eventually(lambda: len(vienna.offers) == 41)
    assert by_http(vienna) == 0


async def test_a_refusal_over_the_link_is_final_too(pair: list[City]) -> None:
    munich, vienna = pair
    assert await vienna.federation.suspend_peer("munich.loop") is True
    await eventually(lambda: not linked(*pair))
    assert await vienna.federation.resume_peer("munich.loop")
    await eventually(lambda: linked(*pair), *pair, step_ms=500)
    await vienna.database.write(lambda tx: tx.execute("UPDATE node SET standing = 'suspended'"))
    await munich.request("vienna.loop", b"{}", "bid:1")
    await eventually(lambda: munich.answered)
    assert munich.answered == [("bid:1", 403, "suspended")]
    assert by_http(vienna) == 0


async def test_what_is_too_long_for_a_frame_goes_by_http(pair: list[City]) -> None:
    munich, vienna = pair
    await munich.request("vienna.loop", b"x" * (LINK_BODY_MAX_BYTES + 1), "bid:1")
    await eventually(lambda: munich.answered)
    assert (len(vienna.offers), by_http(vienna), vienna.carried) == (1, 1, [])


async def test_a_link_that_breaks_before_the_answer_is_no_second_effect(pair: list[City]) -> None:
    munich, vienna = pair

    async def break_after(peer: str, sent: frames.Request) -> frames.Response:
        answered = await serve(peer, sent)
        await munich.network.cut_wires(*munich.network.cities)
        await asyncio.sleep(0.05)
        return answered

    serve = vienna._serve_carried
    desk_of(vienna, munich)._serve = break_after
    await munich.request("vienna.loop", b"{}", "bid:1")
    await eventually(lambda: munich.answered, *pair, step_ms=500)
    assert munich.answered == [("bid:1", 202, "")]
    assert (len(vienna.offers), len(vienna.carried)) == (1, 1)
    # The same request again, with the same signature.
    (call,) = munich.network.to("vienna.loop", OFFER)
    assert dict(vienna.carried[0].headers)["X-Node-Signature"] == call.headers["X-Node-Signature"]


async def test_a_peer_that_leaves_a_request_unanswered_is_asked_by_http(pair: list[City]) -> None:
    munich, vienna = pair
    held = asyncio.Event()

    async def hold(peer: str, sent: frames.Request) -> frames.Response:
        await held.wait()
        return frames.Response(sent.number, 202, (), b"")

    desk_of(vienna, munich)._serve = hold
    desk_of(munich, vienna)._timeout_s = 0.05
    for number in range(3):
        await munich.request("vienna.loop", b"%d" % number, f"bid:{number}")
    await eventually(lambda: len(munich.answered) == 3)
    assert sorted(vienna.offers) == [b"0", b"1", b"2"]
    assert by_http(vienna) == 3
    # An answer that comes late changes nothing.
    held.set()
    await rest(*pair)
    assert len(munich.answered) == 3
    assert linked(*pair)


class QuietLink:
    """A link that takes everything."""

    peer = "munich.loop"
    is_open = True

    def __init__(self) -> None:
        self.sent: list[frames.Frame] = []
        self.done: list[frames.Frame] = []

    def send(self, sent: list[frames.Frame]) -> None:
        self.sent += sent

    def finished(self, done: list[frames.Frame]) -> None:
        self.done += done


async def test_only_so_many_requests_of_a_peer_are_worked_on_at_once() -> None:
    held, inside, most, count = asyncio.Event(), 0, 0, 3 * LINK_REQUESTS_AT_ONCE

    async def hold(peer: str, sent: frames.Request) -> frames.Response:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await held.wait()
        inside -= 1
        return frames.Response(sent.number, 202, (), b"")

    link = QuietLink()
    desk = LinkRequests(cast(Link, link), hold, ManualClock(), 1.0)
    requests = [frames.Request(number, "POST", OFFER, (), b"") for number in range(count)]
    for request in requests:
        desk.received(request)
    await eventually(lambda: inside == LINK_REQUESTS_AT_ONCE)
    held.set()
    await eventually(lambda: len(link.done) == count)
    assert most == LINK_REQUESTS_AT_ONCE
    assert (link.done, len(link.sent)) == (requests, count)


async def test_a_peer_that_only_its_link_reaches_is_told_what_was_stated_about_keys(pair: list[City]) -> None:
    munich, vienna = pair
    munich.network.cut.add(("munich.loop", "vienna.loop"))
    linz, new_key = identity_of("linz.loop", VIENNA), key_of("another")
    for city in pair:
        await city.admit(linz)
    statement, body = build_rotation(CONTEXT, linz.node_id, 1, linz.key, new_key, munich.clock.now_ms())
    await munich.federation.key_statements.receive("linz.loop", statement, body)

    def known() -> bytes | None:
        node = vienna.find("linz.loop")
        return None if node is None else node.public_key

    await eventually(lambda: known() == new_key.public.raw, *pair, step_ms=100)
    assert [sent.path for sent in vienna.carried] == ["/api/v1/federate/key"]
