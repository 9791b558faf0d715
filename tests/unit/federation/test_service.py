"""The federation as a whole: what it lists, what it forgets, and what a bug of its own cannot end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from loopd.federation import replay, workers
from loopd.federation.handshake import HandshakeFailed
from loopd.federation.heard import HeardSubjects
from loopd.protocol.errors import Conflict, Refusal, Unavailable
from loopd.protocol.nodes import PeerAuth, Standing
from tests.federation_support import (
    DAY_MS,
    GRAIN,
    NOW_MS,
    VIENNA,
    City,
    befriend,
    caller_of,
    eventually,
    federation_of,
    identity_of,
    message_of,
    rest,
    send_copy,
    subject_of,
)

LINZ = identity_of("linz.loop", VIENNA)
# Said as others count on it, whatever the ceilings of this node are named.
TEN_MINUTES_MS = 600_000


async def test_the_list_shows_peers_with_health_queue_and_fingerprint(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    await eventually(lambda: munich.health("vienna.loop") == "active" and munich.contacted)
    await munich.admit(LINZ, standing=Standing.INTRODUCED)
    (listed,) = await munich.federation.peer_list()
    assert (listed["id"], listed["status"], listed["health"], listed["queue"]) == ("vienna.loop", "peer", "active", 0)
    assert listed["fingerprint"] == vienna.identity.key.public.fingerprint
    assert listed["location"] == {"lat": VIENNA.lat, "lon": VIENNA.lon}
    assert listed["round_trip_ms"] is not None
    assert listed["last_success"] is not None


async def test_what_the_operator_does_is_in_the_audit_log(munich: City) -> None:
    await munich.admit(LINZ)
    for act in (munich.federation.suspend_peer, munich.federation.resume_peer, munich.federation.remove_peer):
        assert await act("linz.loop")
    rows = munich.rows("SELECT payload FROM audit_entry WHERE kind = 'operator' ORDER BY sequence")
    assert [row["payload"] for row in rows] == [
        f'{{"event":"{event}"}}'.encode() for event in ("peer_suspended", "peer_resumed", "peer_removed")
    ]
    assert not await munich.federation.remove_peer("linz.loop")
    with pytest.raises(HandshakeFailed, match="no handshake"):
        await munich.federation.approve_peer("linz.loop", PeerAuth.SIGNED)


async def test_a_worker_that_dies_of_a_bug_comes_back(cities: list[City], monkeypatch: pytest.MonkeyPatch) -> None:
    munich, vienna, _ = cities
    failed = []

    async def once(node: Any, requests: Any) -> None:
        if not failed:
            failed.append(node.node_id)
            raise RuntimeError("a bug")

    monkeypatch.setattr(munich, "_was_contacted", once)
    monkeypatch.setattr(workers, "RESTART_S", 0.01)
    await munich.federation.stop()
    await munich.start()
    await befriend(munich, vienna)
    await eventually(lambda: failed)
    await munich.announce(subject_of())
    await eventually(lambda: vienna.heard(), munich, step_ms=500)


async def test_a_storage_that_is_busy_delays_a_worker_and_no_more(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    worker = munich.federation.workers.ensure("vienna.loop")
    assert worker is not None
    turn, refusals = worker._turn, []

    async def overloaded(node: Any) -> float:
        if not refusals:
            refusals.append(node)
            raise Unavailable("overloaded", "later", 1)
        return await turn(node)

    worker._turn = overloaded  # type: ignore[method-assign]
    worker.wake()
    await eventually(lambda: refusals)
    await munich.announce(subject_of())
    await eventually(lambda: vienna.heard())


async def test_stopping_ends_every_task(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with federation_of(tmp_path, identity_of("munich.loop")) as (munich,):
        for number in range(5):
            await munich.admit(identity_of(f"n{number}.loop"))
        await rest(munich)
        assert len(asyncio.all_tasks() - before) >= 6
        await munich.federation.stop()
        await asyncio.sleep(0)
        names = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in names if name.startswith(("worker-", "federation-"))}
        await munich.announce(subject_of())
        assert munich.federation.health_of("n0.loop") is None


async def test_a_start_takes_up_what_waits(munich: City) -> None:
    vienna = City(munich.network, munich.directory, munich.clock, identity_of("vienna.loop", VIENNA))
    await vienna.open(started=False)
    await befriend(munich, vienna)
    await munich.admit(LINZ, standing=Standing.INTRODUCED)
    await munich.announce(subject_of())
    await munich.request("linz.loop", b"{}", "bid:1")
    await munich.start()
    await eventually(lambda: vienna.heard())
    await eventually(lambda: munich.network.to("linz.loop", "/node/info"))
    await vienna.crash()


# Forgetting


async def test_what_is_over_is_forgotten_and_not_before(munich: City) -> None:
    await munich.start()
    await munich.admit(LINZ)
    message = message_of(LINZ)
    await send_copy(munich, LINZ, message, 3)
    tables = ("message", "heard", "node_request", "outbox")
    munich.clock.advance(TEN_MINUTES_MS - 1)
    await munich.federation.housekeeping.keep_house()
    assert [len(munich.rows(f"SELECT 1 FROM {table}")) for table in tables] == [1, 1, 1, 1]
    munich.clock.advance(1)
    await munich.federation.housekeeping.keep_house()
    assert munich.rows("SELECT 1 FROM node_request") == []
    munich.clock.set_wall(NOW_MS + DAY_MS + TEN_MINUTES_MS)
    await munich.federation.housekeeping.keep_house()
    assert [len(munich.rows(f"SELECT 1 FROM {table}")) for table in tables] == [1, 1, 0, 0]
    munich.clock.advance(1)
    await munich.federation.housekeeping.keep_house()
    assert [len(munich.rows(f"SELECT 1 FROM {table}")) for table in tables] == [0, 0, 0, 0]
    assert munich.rows("SELECT messages FROM message_count") == [{"messages": 0}]


async def test_much_is_forgotten_in_several_transactions(munich: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PRUNED_AT_ONCE", 10)
    node = identity_of("linz.loop")
    await munich.admit(node)
    known = munich.find("linz.loop")
    assert known is not None
    for number in range(35):
        caller = caller_of(known, str(number))
        await munich.database.write(lambda tx, caller=caller: replay.accept_once(tx, caller, NOW_MS, lambda tx: None))
    munich.clock.advance(TEN_MINUTES_MS)
    before = munich.database.statistics.units
    await munich.federation.housekeeping.keep_house()
    assert munich.rows("SELECT 1 FROM node_request") == []
    assert munich.database.statistics.units - before == 4


async def test_a_request_that_ends_unanswered_is_told_of(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    munich.network.down.add("vienna.loop")
    await munich.request("vienna.loop", b"{}", "bid:1", valid_ms=60_000)
    await eventually(lambda: munich.health("vienna.loop") == "unreachable", munich, step_ms=2_000)
    munich.clock.advance(60_000)
    await munich.federation.housekeeping.keep_house()
    await munich.federation.housekeeping.keep_house()
    assert munich.answered == [("bid:1", 0, "expired")]


# Replay, and what was heard


async def test_a_repeat_has_no_second_effect_and_a_refused_one_is_not_remembered(munich: City) -> None:
    await munich.admit(LINZ)
    known = munich.find("linz.loop")
    assert known is not None
    effects: list[int] = []

    def refuse(tx: Any) -> None:
        raise Conflict("taken", "no")

    async def accept(text: str, effect: Any) -> int:
        caller = caller_of(known, text)
        number: int = await munich.database.write(lambda tx: replay.accept_once(tx, caller, NOW_MS, effect))
        return number

    with pytest.raises(Refusal):
        await accept("a", refuse)
    numbers = [await accept(text, lambda tx: effects.append(1)) for text in ("a", "a", "b", "a")]
    assert (numbers, len(effects)) == ([1, 1, 2, 1], 2)
    together = await asyncio.gather(*(accept("c", lambda tx: effects.append(1)) for _ in range(5)))
    assert (set(together), len(effects)) == ({3}, 3)


async def test_other_modules_find_the_newest_valid_state_verified_before_any_other(munich: City) -> None:
    await munich.admit(LINZ)
    await munich.admit(identity_of("lab.loop"), auth=PeerAuth.UNSIGNED_LAB, public_key=None)
    await send_copy(munich, LINZ, message_of(LINZ, revision=2), 3)
    await send_copy(munich, identity_of("lab.loop"), message_of(identity_of("lab.loop"), revision=9), None)
    door = HeardSubjects(munich.clock)
    found = door.find(munich.database.points, GRAIN)
    assert found is not None
    assert (found.origin, found.verified, found.quantity) == ("linz.loop", True, 500)
    munich.clock.advance(DAY_MS)
    assert door.find(munich.database.points, GRAIN) is None
