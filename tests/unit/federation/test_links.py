"""Links between cities in one process: what goes over them, and what happens when they break (§9.3, §9.4)."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.federation import link_repair, outbox
from loopd.federation.link_repair import SESSIONS_PER_S, HeldItems, Pace
from loopd.federation.settings import FederationSettings
from loopd.gossip.frames import Goodbye, decode_batch
from loopd.protocol.limits import LINK_CHALLENGES_MAX
from loopd.protocol.nodes import Standing
from loopd.protocol.signing import ANNOUNCE_PATH
from tests.federation_support import (
    BERLIN,
    MUNICH,
    VIENNA,
    City,
    befriend,
    eventually,
    federation_of,
    identity_of,
    plain_body,
    signed_headers,
    subject_of,
)
from tests.support import ManualClock

ANNOUNCE = "/federate/announce"
LINKED = FederationSettings(admission="open", radius_km=None, links="auto")
NAMES = ("berlin.loop", "munich.loop", "vienna.loop")
PLACES = (BERLIN, MUNICH, VIENNA)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[list[City]]:
    """Berlin–Munich–Vienna, with links."""
    identities = [identity_of(name, place) for name, place in zip(NAMES, PLACES, strict=True)]
    async with federation_of(tmp_path, *identities, settings=LINKED) as cities:
        cities[0].network.websockets = True
        for one, other in ((0, 1), (1, 2)):
            await befriend(cities[one], cities[other])
        await eventually(lambda: linked(cities[0], cities[1]) and linked(cities[1], cities[2]), *cities, step_ms=500)
        yield cities


def linked(one: City, other: City) -> bool:
    return one.federation.links.carries(other.node_id) and other.federation.links.carries(one.node_id)


def grain(number: int) -> str:
    return f"MAT-DE-MUC-2026-FOOD-B{number:06d}"


def ttl(city: City, message_id: bytes) -> int | None:
    rows = city.rows("SELECT best_ttl FROM message WHERE message_id = ?", (message_id,))
    return rows[0]["best_ttl"] if rows else None


def posts(city: City) -> int:
    return len(city.network.to(city.node_id, ANNOUNCE, "POST"))


def waiting(city: City) -> int:
    return sum(row["waiting"] for row in city.database.points.all(outbox.QUEUE_LENGTHS))


async def test_along_a_chain_of_links_each_node_delivers_once_with_its_ttl(chain: list[City]) -> None:
    berlin, munich, vienna = chain
    message_id = await berlin.announce(subject_of(grain(1)))
    await eventually(lambda: ttl(vienna, message_id) == 2, *chain, step_ms=20)
    await eventually(lambda: not waiting(berlin) + waiting(munich) + waiting(vienna), *chain, step_ms=20)
    assert ttl(munich, message_id) == 3
    assert [city.decisions["accepted"] for city in chain] == [0, 1, 1]
    assert [posts(city) for city in chain] == [0, 0, 0]


async def test_what_is_not_for_a_peer_does_not_stop_what_is(chain: list[City]) -> None:
    berlin, munich, _ = chain
    munich.federation.links.end("vienna.loop", "test")
    await munich.announce(subject_of(grain(1)))
    # Berlin passes nothing back to Munich, and its cursor passes that all the same.
    await eventually(lambda: berlin.decisions["accepted"] == 1, *chain, step_ms=20)
    await berlin.announce(subject_of(grain(2)))
    await eventually(lambda: munich.decisions["accepted"] == 1 and not waiting(berlin), *chain, step_ms=20)
    explained = berlin.rows("SELECT reason FROM decision WHERE direction = 'out' AND peer = 'munich.loop'")
    assert {row["reason"] for row in explained} == {"came_from", "accepted"}


async def test_a_wire_that_breaks_in_the_middle_loses_nothing_and_delivers_once(chain: list[City]) -> None:
    berlin, munich, vienna = chain
    subjects = {grain(number) for number in range(40)}
    for place, subject_id in enumerate(sorted(subjects)):
        await berlin.announce(subject_of(subject_id))
        if place in (10, 25):
            await berlin.network.cut_wires("berlin.loop", "munich.loop")
        if place == 30:
            await berlin.network.cut_wires("munich.loop", "vienna.loop")
    await eventually(lambda: vienna.heard_subjects() == subjects, *chain, step_ms=200, timeout_s=20)
    await eventually(lambda: not waiting(berlin) + waiting(munich), *chain, step_ms=200)
    assert (munich.decisions["accepted"], vienna.decisions["accepted"]) == (40, 40)
    await eventually(lambda: linked(berlin, munich) and linked(munich, vienna), *chain, step_ms=500)


async def test_both_may_dial_and_one_link_is_kept(tmp_path: Path) -> None:
    identities = [identity_of("berlin.loop", BERLIN), identity_of("munich.loop", MUNICH)]
    async with federation_of(tmp_path, *identities, settings=LINKED, started=False) as (berlin, munich):
        berlin.network.websockets = True
        await befriend(berlin, munich)
        for city in (berlin, munich):
            city.federation.links.start(city._serve_carried)
        for city, other in ((munich, berlin), (berlin, munich)):
            node = city.find(other.node_id)
            assert node is not None
            city.federation.links.reachable(node)
        berlin.clock.advance(60_000)
        node = munich.find("berlin.loop")
        assert node is not None
        munich.federation.links.reachable(node)
        await eventually(lambda: linked(berlin, munich) and len(berlin.network.taking) == 1, berlin, munich)
        kept = berlin.federation.links._running["munich.loop"].link
        # That of the smaller id, whichever came first.
        assert kept.dialled
        assert not munich.federation.links._running["berlin.loop"].link.dialled


@pytest.mark.parametrize("standing", ["suspended", "unknown"])
async def test_who_is_no_peer_gets_no_link(chain: list[City], standing: str) -> None:
    berlin, munich, _ = chain
    if standing == "suspended":
        assert await munich.federation.suspend_peer("berlin.loop")
    else:
        assert await munich.federation.remove_peer("berlin.loop")
    await eventually(lambda: not linked(berlin, munich), *chain)
    node = berlin.find("munich.loop")
    assert node is not None
    before = len(berlin.network.wires)

    def tried_again() -> bool:
        berlin.clock.advance(10_000)
        berlin.federation.links.reachable(node)
        return len(berlin.network.wires) > before + 2 and bool(berlin.network.wires[before][3].closed)

    await eventually(tried_again, berlin)
    word = "suspended" if standing == "suspended" else "unknown_node"
    assert {"refused": word} in berlin.network.wires[before][3].texts()
    assert not berlin.federation.links.carries("munich.loop")


async def test_a_ban_ends_the_link(chain: list[City]) -> None:
    berlin, munich, _ = chain
    while munich.federation.misbehaviour.conduct("berlin.loop") != "banned":
        munich.federation.misbehaviour.refused("berlin.loop", "bad_hop")
    await berlin.announce(subject_of(grain(1)))
    await eventually(lambda: not munich.federation.links.carries("berlin.loop"), *chain)


async def test_bytes_that_are_no_batch_end_the_link_and_count(chain: list[City]) -> None:
    berlin, munich, _ = chain
    # Where both dialled at first, one of the two is given up, perhaps only now.
    ends = [
        (dialled, taken) if dialler == "berlin.loop" else (taken, dialled)
        for dialler, target, dialled, taken in berlin.network.wires
        if {dialler, target} == {"berlin.loop", "munich.loop"} and not dialled.closed and not taken.closed
    ]
    for at_berlin, _ in ends:
        await at_berlin.send_bytes(b"\x01\x00\xc1")

    def goodbyes() -> list[Goodbye]:
        batches = [batch for _, at_munich in ends for batch in at_munich.batches()]
        return [frame for batch in batches for frame in decode_batch(batch) if isinstance(frame, Goodbye)]

    await eventually(lambda: munich.federation.misbehaviour.of("berlin.loop").points > 0 and goodbyes(), *chain)
    await eventually(lambda: any(at_munich.closed for _, at_munich in ends), *chain)


async def test_only_so_many_challenges_are_taken_at_once(chain: list[City]) -> None:
    _, munich, _ = chain
    munich.federation.links._challenges = LINK_CHALLENGES_MAX
    with pytest.raises(Exception, match="Too many links") as refusal:
        munich.federation.links.check_room()
    assert refusal.value.retry_after_s == 5  # type: ignore[attr-defined]


async def test_repair_brings_what_was_lost_with_the_ttl_it_had(chain: list[City]) -> None:
    berlin, munich, vienna = chain
    ids = [await berlin.announce(subject_of(grain(number))) for number in range(20)]
    await eventually(lambda: len(vienna.heard_subjects()) == 20, *chain, step_ms=20)
    await eventually(lambda: not waiting(berlin) + waiting(munich), *chain, step_ms=20)
    # Vienna lost half of it, and holds the rest with less than it could have; nothing of this is in anybody's log.
    chance = random.Random(5)
    lost = set(chance.sample(ids, 10))

    def lose(tx: outbox.Tx) -> None:
        for message_id in lost:
            tx.execute("DELETE FROM heard WHERE message_id = ?", (message_id,))
            tx.execute("DELETE FROM message WHERE message_id = ?", (message_id,))

    await vienna.database.write(lose)
    # What is held is not read anew within this time, and nothing but this test takes rows away.
    munich.clock.advance(round(link_repair.ITEMS_FRESH_S * 1000))
    await munich.network.cut_wires("munich.loop", "vienna.loop")
    await eventually(lambda: {ttl(vienna, number) for number in ids} == {2}, *chain, step_ms=500, timeout_s=20)
    assert vienna.decisions["accepted"] == 30
    assert posts(vienna) == 0


async def test_repair_leaves_out_what_lies_outside_the_radius(chain: list[City]) -> None:
    _, munich, _ = chain
    await munich.announce(subject_of(grain(1)))
    items = HeldItems(munich.database, munich.clock)
    vienna = munich.find("vienna.loop")
    assert vienna is not None
    assert len(await items.within_reach_of(vienna)) == 1
    await munich.database.write(
        lambda tx: tx.execute("UPDATE message SET radius_km = 100").rowcount  # Vienna lies 355 km away
    )
    munich.clock.advance(round(link_repair.ITEMS_FRESH_S * 1000))
    assert len(await items.within_reach_of(vienna)) == 0


async def test_comparisons_begin_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(100):
        await pace.turn()
    assert waits == [round(number / SESSIONS_PER_S, 6) for number in range(100)]
    assert waits[-1] < 60
    clock.advance(60_000)
    await pace.turn()
    assert waits[-1] == 0


@pytest.mark.parametrize("seed", range(6))
async def test_what_names_its_receiver_is_offered_to_nobody(chain: list[City], seed: int) -> None:
    """A signature that covers X-Node-Target holds for that node alone: to pass the message on would be an offence."""
    berlin, munich, vienna = chain
    draw = random.Random(seed)
    plain = identity_of("linz.loop", VIENNA)
    await munich.admit(plain, features=frozenset())
    for other in (berlin, vienna):
        await other.admit(plain, standing=Standing.INTRODUCED)
    named, open_to_all = set(), set()
    for number in range(12):
        body = plain_body(grain(number), plain.node_id)
        target = munich.node_id if draw.random() < 0.5 else None
        sent = signed_headers(plain, ANNOUNCE_PATH, body, munich.clock.now_ms(), target)
        assert (await munich.serve("POST", ANNOUNCE_PATH, sent, body)).status == 202
        (named if target else open_to_all).add(grain(number))
        if draw.random() < 0.2:
            await munich.network.cut_wires("munich.loop", draw.choice(["berlin.loop", "vienna.loop"]))
    await eventually(lambda: vienna.heard_subjects() == open_to_all, *chain, step_ms=200)
    # What the log has settled is compared all the same, when a link begins anew.
    lost = draw.sample(sorted(open_to_all), len(open_to_all) // 2)
    await vienna.database.write(lambda tx: [forget(tx, subject) for subject in lost])
    munich.clock.advance(round(link_repair.ITEMS_FRESH_S * 1000))
    for other in ("berlin.loop", "vienna.loop"):
        await munich.network.cut_wires("munich.loop", other)
    await eventually(lambda: vienna.heard_subjects() == open_to_all == berlin.heard_subjects(), *chain, step_ms=500)
    await eventually(lambda: linked(berlin, munich) and linked(munich, vienna), *chain, step_ms=500)
    assert munich.heard_subjects() == named | open_to_all
    for other in (berlin, vienna):
        assert set(other.decisions) <= {"accepted", "duplicate"}
        assert other.federation.misbehaviour.of("munich.loop").points == 0
    vienna_known = munich.find("vienna.loop")
    assert vienna_known is not None
    assert len(await HeldItems(munich.database, munich.clock).within_reach_of(vienna_known)) == len(open_to_all)


def forget(tx: outbox.Tx, subject: str) -> None:
    tx.execute("DELETE FROM message WHERE subject = ?", (subject,))
    tx.execute("DELETE FROM heard WHERE subject = ?", (subject,))
