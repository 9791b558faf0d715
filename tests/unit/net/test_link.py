"""The challenge of a link, and frames over it, on two ends of one wire in memory."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import WSMessage, WSMsgType

from loopd.crypto.keys import NodeKey, PublicKey, decode_signature, encode_signature
from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import OWN_DIALECT, Credit, Dialect, Done, Frame, Have, Ping, encode_batch
from loopd.gossip.link_queue import cost_bytes
from loopd.net import link as link_module
from loopd.net.link import Challenger, Link, LinkEnded, LinkRefused
from loopd.protocol.limits import LINK_CHALLENGE_MAX_BYTES, LINK_CREDIT_MAX_FRAMES, LINK_QUEUE_MAX_FRAMES
from loopd.protocol.signing import LinkRole, link_challenge_string
from tests.link_wire import End, wire

MUNICH, VIENNA, BERLIN = (NodeKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
HAVE = Have(1, b"m" * 32, 2, b"h" * 32, "munich.loop")


def challenger(node_id: str, key: NodeKey, nonce: bytes = b"n" * 32) -> Challenger:
    return Challenger(node_id, lambda: key, lambda count: nonce[:count])


def knows_munich(node_id: str) -> PublicKey:
    if node_id != "munich.loop":
        raise LinkRefused("unknown_node")
    return MUNICH.public


async def meet(dialler: Challenger, target: str, target_key: NodeKey) -> tuple[Any, Any, End, End]:
    """What each side makes of a challenge between a dialler and Vienna."""
    one, other = wire()
    results = await asyncio.gather(
        dialler.as_initiator(one, target, target_key.public),
        challenger("vienna.loop", VIENNA, b"v" * 32).as_responder(other, knows_munich),
        return_exceptions=True,
    )
    return results[0], results[1], one, other


async def test_both_sides_show_who_they_are_and_agree() -> None:
    dialled, called, one, other = await meet(challenger("munich.loop", MUNICH), "vienna.loop", VIENNA)
    assert dialled == OWN_DIALECT
    assert called == ("munich.loop", OWN_DIALECT)
    # What each of them signed is bound to both ids, both nonces and its own role.
    parties = ("munich.loop", "vienna.loop", b"n" * 32, b"v" * 32)
    (hello, proof), (answer, ready) = one.texts(), other.texts()
    assert MUNICH.public.verify(
        link_challenge_string(LinkRole.INITIATOR, *parties), decode_signature(proof["signature"])
    )
    assert VIENNA.public.verify(
        link_challenge_string(LinkRole.RESPONDER, *parties), decode_signature(answer["signature"])
    )
    assert (hello["target"], ready) == ("vienna.loop", {"ready": True})
    assert "signature" not in hello


@pytest.mark.parametrize(
    ("dialler", "target", "target_key", "dialler_says", "called_says"),
    [
        (challenger("munich.loop", BERLIN), "vienna.loop", VIENNA, "bad_signature", "bad_signature"),
        (challenger("munich.loop", MUNICH), "vienna.loop", BERLIN, "bad_signature", "bad_signature"),
        (challenger("munich.loop", MUNICH), "berlin.loop", VIENNA, "wrong_target", "wrong_target"),
        (challenger("berlin.loop", BERLIN), "vienna.loop", VIENNA, "unknown_node", "unknown_node"),
    ],
    ids=["another_key_dials", "another_key_answers", "for_another_node", "not_known_here"],
)
async def test_who_is_not_who_it_says_gets_no_link_and_is_told(
    dialler: Challenger, target: str, target_key: NodeKey, dialler_says: str, called_says: str
) -> None:
    dialled, called, _, _ = await meet(dialler, target, target_key)
    assert isinstance(dialled, LinkRefused)
    assert isinstance(called, LinkRefused)
    assert (dialled.reason, called.reason) == (dialler_says, called_says)
    # Exactly one of them found it; the other was told.
    assert dialled.by_peer != called.by_peer


async def test_a_signature_of_the_other_role_is_none() -> None:
    """A node that is made to sign as the called side cannot be used to dial in its name."""
    one, other = wire()
    called = asyncio.create_task(challenger("vienna.loop", VIENNA, b"v" * 32).as_responder(other, knows_munich))
    hello = {"link": "loop-link-v1", "node": "munich.loop", "target": "vienna.loop", "nonce": "6e" * 32, "frames": 1}
    await one.send_str(json.dumps(hello))
    await one.receive()
    signed = link_challenge_string(LinkRole.RESPONDER, "munich.loop", "vienna.loop", b"n" * 32, b"v" * 32)
    await one.send_str(json.dumps({"signature": encode_signature(MUNICH.sign(signed))}))
    with pytest.raises(LinkRefused, match="bad_signature"):
        await called


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"link": "loop-link-v2"}',
        json.dumps({"link": "loop-link-v1", "node": "munich.loop", "nonce": "zz", "frames": 1}),
        json.dumps({"link": "loop-link-v1", "node": "munich.loop", "nonce": "00" * 31, "frames": 1}),
        json.dumps({"link": "loop-link-v1", "node": "munich.loop", "nonce": "00" * 32, "frames": 0}),
        json.dumps({"link": "loop-link-v1", "node": "munich.loop", "nonce": "00" * 32, "frames": True}),
        json.dumps({"link": "loop-link-v1", "node": "a\nb", "nonce": "00" * 32, "frames": 1}),
        json.dumps({"link": "loop-link-v1", "node": 5, "nonce": "00" * 32, "frames": 1}),
        " " * LINK_CHALLENGE_MAX_BYTES + "{}",
    ],
)
async def test_what_is_no_hello_ends_the_challenge(text: str) -> None:
    one, other = wire()
    await one.send_str(text)
    with pytest.raises(LinkRefused, match="bad_challenge"):
        await challenger("vienna.loop", VIENNA).as_responder(other, knows_munich)


async def test_who_says_nothing_does_not_keep_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LINK_OPEN_TIMEOUT_S", 0.02)
    with pytest.raises(LinkRefused, match="challenge_too_slow"):
        await challenger("vienna.loop", VIENNA).as_responder(wire()[0], knows_munich)


async def test_the_lower_version_and_what_both_can_is_spoken() -> None:
    one, other = wire()
    called = asyncio.create_task(challenger("vienna.loop", VIENNA, b"v" * 32).as_responder(other, knows_munich))
    hello = {"link": "loop-link-v1", "node": "munich.loop", "target": "vienna.loop", "nonce": "6e" * 32, "frames": 7}
    await one.send_str(json.dumps({**hello, "packs": True}))
    await one.receive()
    signed = link_challenge_string(LinkRole.INITIATOR, "munich.loop", "vienna.loop", b"n" * 32, b"v" * 32)
    await one.send_str(json.dumps({"signature": encode_signature(MUNICH.sign(signed))}))
    assert await called == ("munich.loop", Dialect(1, packs=True, skips_unknown=False))


def links() -> tuple[Link, Link, End, End]:
    one, other = wire()
    return (
        Link(one, "vienna.loop", OWN_DIALECT, dialled=True),
        Link(other, "munich.loop", OWN_DIALECT, dialled=False),
        one,
        other,
    )


async def running(*open_links: Link) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(link.write()) for link in open_links]
    await asyncio.sleep(0)
    return tasks


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_frames_travel_in_order_and_credit_is_not_shown() -> None:
    munich, vienna, _, _ = links()
    tasks = await running(munich, vienna)
    assert await munich.receive() == []  # Vienna's opening credit
    assert await vienna.receive() == []
    munich.send([HAVE, Done(4, "accepted", eager=True), Ping(1, 0)])
    received: list[Frame] = []
    while len(received) < 3:
        received += await vienna.receive()
    assert received == [Ping(1, 0), Done(4, "accepted", eager=True), HAVE]
    await end(tasks)


async def test_what_takes_credit_waits_for_it_and_nothing_else_does() -> None:
    munich, vienna, one, _ = links()
    tasks = await running(munich)
    munich.send([HAVE, Ping(1, 0)])
    await vienna.receive()
    await asyncio.sleep(0)
    assert munich.waiting == 1
    # One frame's room.
    one.arrived.put_nowait(WSMessage(WSMsgType.BINARY, encode_batch([Credit(cost_bytes(HAVE), 1)]), None))
    await munich.receive()
    assert [HAVE] in [await vienna.receive() for _ in range(2)]
    await end(tasks)


async def test_room_is_granted_again_as_frames_are_finished() -> None:
    munich, vienna, _, _ = links()

    async def take_credit() -> None:
        while True:
            await munich.receive()

    tasks = [*await running(munich, vienna), asyncio.create_task(take_credit())]
    many = 2 * LINK_CREDIT_MAX_FRAMES
    munich.send([HAVE] * many)
    received = 0
    async with asyncio.timeout(10):
        while received < many:
            frames = await vienna.receive()
            received += len(frames)
            vienna.finished(frames)
    assert (received, munich.waiting) == (many, 0)
    await end(tasks)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01", "bad_version"),
        (encode_batch([HAVE] * (LINK_CREDIT_MAX_FRAMES + 1)), "beyond_credit"),
        (encode_batch([Credit(1024 * 1024, 1), Credit(1, 0)]), "too_much_credit"),
    ],
)
async def test_what_nobody_honest_sends_ends_the_link(data: bytes, reason: str) -> None:
    munich, _, one, _ = links()
    one.arrived.put_nowait(WSMessage(WSMsgType.BINARY, data, None))
    with pytest.raises(LinkEnded, match=reason):
        await munich.receive()
    assert munich.violated
    assert not munich.is_open


async def test_a_farewell_says_why_and_is_no_offence() -> None:
    munich, vienna, _, other = links()
    vienna.end("suspended")
    await vienna.close()
    assert other.closed
    with pytest.raises(LinkEnded, match="suspended"):
        await munich.receive()
    assert munich.end_reason == "suspended"
    assert not munich.violated


async def test_a_lost_connection_ends_both_tasks() -> None:
    munich, vienna, one, _ = links()
    writing = (await running(munich))[0]
    await vienna.close()
    munich.send([Ping(1, 0)])
    with pytest.raises(LinkEnded, match="connection_lost"):
        await writing
    one.arrived = asyncio.Queue()
    one.arrived.put_nowait(WSMessage(WSMsgType.CLOSED, None, None))
    with pytest.raises(LinkEnded):
        await munich.receive()


async def test_a_queue_that_is_full_ends_the_link() -> None:
    munich, _, _, _ = links()
    munich.send([HAVE] * LINK_QUEUE_MAX_FRAMES)
    assert munich.end_reason == "too_slow"
    assert not munich.violated


async def test_what_a_session_finds_wrong_counts_against_the_peer() -> None:
    munich, _, _, _ = links()
    assert munich.violation(ProtocolError("bad_part", "no")).reason == "bad_part"
    assert munich.violated
    vienna = links()[1]
    vienna.end("stopping")
    vienna.violation(ProtocolError("bad_part", "no"))
    assert not vienna.violated
