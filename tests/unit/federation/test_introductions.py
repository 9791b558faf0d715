"""Keys from the peers' registries: how often they are asked, and what a slow or lying peer can do."""

import asyncio
from typing import Any

import pytest

from loopd.federation import nodes
from loopd.federation.introductions import REGISTRY_READS_AT_ONCE, REGISTRY_REFRESH_S, UNKNOWN_IDS_MAX
from loopd.federation.nodes import Introduction
from loopd.identity import Identity
from loopd.net.http_client import DialError, PeerAnswer
from loopd.protocol.nodes import KnownNode, Standing
from tests.federation_support import BERLIN, CONTEXT, VIENNA, City, answer_of, identity_of, message_of, send_copy

RELAY, OTHER_RELAY = identity_of("berlin.loop", BERLIN), identity_of("wels.loop", VIENNA)
LINZ = identity_of("linz.loop", VIENNA)


def entry(node: Identity, **changes: Any) -> dict[str, Any]:
    fields = {
        "id": node.node_id,
        "endpoint": node.endpoint,
        "location": {"lat": node.location.lat, "lon": node.location.lon},
        "status": "active",
        "public_key": node.key.public.to_pem(),
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def registry(*entries: dict[str, Any]) -> PeerAnswer:
    head = {"@context": CONTEXT, "@type": "NodeRegistry", "schema_version": "0.2.0", "version": "2026-09-21"}
    return answer_of(200, {**head, "nodes": list(entries)})


def shows(city: City, shown: PeerAnswer) -> None:
    async def answering(target: str, method: str, path: str) -> PeerAnswer:
        return shown

    city.network.answering = answering


def readings(city: City, target: str = "berlin.loop") -> int:
    return len(city.network.to(target, "/federation/nodes"))


@pytest.fixture
async def relay(munich: City) -> KnownNode:
    await munich.admit(RELAY)
    node = munich.find("berlin.loop")
    assert node is not None
    return node


async def test_many_questions_at_once_are_one_reading(munich: City, relay: KnownNode) -> None:
    shows(munich, registry(entry(LINZ)))
    found = await asyncio.gather(*(munich.federation.introductions.ask(relay, "linz.loop") for _ in range(20)))
    assert {introduction and introduction.public_key for introduction in found} == {LINZ.key.public.raw}
    assert readings(munich) == 1


async def test_new_origins_in_quick_succession_are_found_but_a_peer_is_not_pressed_on(
    munich: City, relay: KnownNode
) -> None:
    for number in range(3):
        shows(munich, registry(*(entry(identity_of(f"n{n}.loop")) for n in range(number + 1))))
        assert await munich.federation.introductions.ask(relay, f"n{number}.loop") is not None
    for number in range(100):
        assert await munich.federation.introductions.ask(relay, f"stranger{number}.loop") is None
    assert readings(munich) == REGISTRY_READS_AT_ONCE
    munich.clock.advance(int(REGISTRY_REFRESH_S * 1000))
    for number in range(100):
        await munich.federation.introductions.ask(relay, f"stranger{number}.loop")
    assert readings(munich) == REGISTRY_READS_AT_ONCE + 1


async def test_a_peer_that_does_not_answer_is_not_pressed_on_either(munich: City, relay: KnownNode) -> None:
    for _ in range(50):
        with pytest.raises(DialError):
            await munich.federation.introductions.ask(relay, "linz.loop")
    assert readings(munich) == REGISTRY_READS_AT_ONCE


@pytest.mark.parametrize("shown", [answer_of(503), answer_of(200, {"nodes": []}), answer_of(200, [1]), answer_of(404)])
async def test_what_is_no_registry_does_not_count_as_one_that_lacks_the_node(
    munich: City, relay: KnownNode, shown: PeerAnswer
) -> None:
    shows(munich, shown)
    with pytest.raises(DialError):
        await munich.federation.introductions.ask(relay, "linz.loop")


@pytest.mark.parametrize(
    "listed",
    [
        entry(LINZ, public_key=None),
        entry(LINZ, status="suspended"),
        entry(LINZ, endpoint="https://linz.loop/api/v1?x"),
    ],
)
async def test_an_entry_that_cannot_be_used_introduces_nobody(
    munich: City, relay: KnownNode, listed: dict[str, Any]
) -> None:
    shows(munich, registry(listed))
    assert await munich.federation.introductions.ask(relay, "linz.loop") is None


async def test_a_peer_cannot_introduce_this_node_to_itself(munich: City, relay: KnownNode) -> None:
    shows(munich, registry(entry(munich.identity)))
    assert await munich.federation.introductions.ask(relay, "munich.loop") is None


async def test_asking_afresh_does_not_believe_what_was_read_before(munich: City, relay: KnownNode) -> None:
    shows(munich, registry(entry(LINZ)))
    await munich.federation.introductions.ask(relay, "linz.loop")
    key = identity_of("new.loop").key.public
    shows(munich, registry(entry(LINZ, public_key=key.to_pem())))
    old = await munich.federation.introductions.ask(relay, "linz.loop")
    new = await munich.federation.introductions.ask(relay, "linz.loop", afresh=True)
    assert old is not None
    assert new is not None
    assert (old.public_key, new.public_key) == (LINZ.key.public.raw, key.raw)


async def test_a_stranger_is_sought_and_pinned(munich: City, relay: KnownNode) -> None:
    shows(munich, registry(entry(LINZ)))
    await munich.federation.introductions.seek("linz.loop")
    node = munich.find("linz.loop")
    assert node is not None
    assert (node.standing, node.public_key) == (Standing.INTRODUCED, LINZ.key.public.raw)


async def test_the_first_that_knows_a_stranger_is_enough(munich: City, relay: KnownNode) -> None:
    await munich.admit(OTHER_RELAY)
    stuck = asyncio.Event()

    async def answering(target: str, method: str, path: str) -> PeerAnswer:
        if target == "wels.loop":
            await stuck.wait()
        return registry(entry(LINZ))

    munich.network.answering = answering
    async with asyncio.timeout(2):
        await munich.federation.introductions.seek("linz.loop")
    assert munich.find("linz.loop") is not None


async def test_a_stranger_that_nobody_knows_is_remembered_for_a_while(munich: City, relay: KnownNode) -> None:
    shows(munich, registry())
    for _ in range(3):
        await munich.federation.introductions.seek("linz.loop")
    assert readings(munich) == 1
    munich.clock.advance(10_000)
    shows(munich, registry(entry(LINZ)))
    await munich.federation.introductions.seek("linz.loop")
    assert munich.find("linz.loop") is not None


async def test_the_memory_of_strangers_is_bounded(munich: City) -> None:
    for number in range(UNKNOWN_IDS_MAX + 50):
        munich.federation.introductions._remember_unknown(f"n{number}.loop", 0.0)
    assert len(munich.federation.introductions._unknown) == UNKNOWN_IDS_MAX


async def test_a_removed_peers_registry_is_forgotten(munich: City, relay: KnownNode) -> None:
    shows(munich, registry(entry(LINZ)))
    await munich.federation.introductions.ask(relay, "linz.loop")
    await munich.federation.remove_peer("berlin.loop")
    assert munich.federation.introductions._registries == {}


async def test_at_the_ceiling_one_of_whom_nothing_is_held_makes_room(
    munich: City, relay: KnownNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "INTRODUCED_NODES_MAX", 2)
    first, second, third = (identity_of(f"n{number}.loop") for number in range(3))
    shows(munich, registry(entry(first), entry(second)))
    await send_copy(munich, RELAY, message_of(first), 2)
    await munich.federation.introductions.seek("n1.loop")
    shows(munich, registry(entry(third)))
    assert (await send_copy(munich, RELAY, message_of(third, revision=2), 2)).status == 202
    assert munich.find("n1.loop") is None
    assert munich.find("n0.loop") is not None
    fourth = Introduction("n3.loop", "https://n3.loop/api/v1", b"k" * 32, VIENNA, frozenset(), "berlin.loop")
    assert not await munich.database.write(lambda tx: nodes.introduce(tx, fourth, 0))
