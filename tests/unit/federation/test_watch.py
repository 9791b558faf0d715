"""Cities that watch each other over links and by NodeInfo: who is suspected, given up and found again (§9.4)."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from loopd.federation import watch
from loopd.federation.introductions import Introductions
from loopd.federation.node_cards import Look, NodeCards
from loopd.federation.settings import FederationSettings
from loopd.federation.watch import Reach, Watch
from loopd.gossip.frames import Ack, Frame, Nack, Ping, PingRequest
from loopd.gossip.health import Event, PeerHealth, Signal, State, Timing
from loopd.gossip.membership import Why
from loopd.gossip.probing import LOCAL
from tests.federation_support import (
    BERLIN,
    NOW_MS,
    VIENNA,
    City,
    befriend,
    eventually,
    federation_of,
    identity_of,
    let_pass,
)
from tests.support import ManualClock

INFO = "/node/info"


# The driver alone


class Cards:
    """Answers as told."""

    def __init__(self) -> None:
        self.answer = Look(is_there=True)
        self.asked: list[str] = []

    async def look(self, node: Any) -> Look:
        self.asked.append(node.node_id)
        return self.answer


class Stage:
    """A watch with links that a test makes, and what it sent and observed."""

    def __init__(self, city: City) -> None:
        self.clock = ManualClock(NOW_MS)
        self.cards = Cards()
        self.links: set[str] = set()
        self.sent: list[tuple[str, Frame]] = []
        self.trips: list[tuple[str, int]] = []
        self.events: list[Event] = []
        self.watch = Watch(
            "munich.loop",
            LOCAL,
            Timing(),
            city.database,
            cast(Introductions, city.federation.introductions),
            cast(NodeCards, self.cards),
            self.clock,
            random.Random(1),
            Reach(
                self.links.__contains__,
                lambda peer, frame: self.sent.append((peer, frame)),
                lambda peer, trip_ms: self.trips.append((peer, trip_ms)),
                lambda peer, event: self.events.append(event),
            ),
        )

    def signals(self) -> list[Signal]:
        return [event.signal for event in self.events]

    async def pass_until(self, condition: Callable[[], Any], step_ms: int = 50) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.clock.advance(step_ms)
                self.watch.wake()
                await asyncio.sleep(0.001)


@pytest.fixture
async def stage(munich: City, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Munich's watch, that knows of Vienna."""
    monkeypatch.setattr(watch, "ACQUAINTED_WITHIN_S", 0.0)
    await munich.admit(identity_of("vienna.loop", VIENNA))
    stage = Stage(munich)
    stage.watch.start()
    yield stage
    await stage.watch.stop()


async def test_a_node_without_a_link_is_asked_for_its_card_again_and_again(stage: Stage) -> None:
    stage.watch.watch("vienna.loop", PeerHealth.new(NOW_MS))
    await stage.pass_until(lambda: len(stage.cards.asked) == 3)
    assert set(stage.signals()) == {Signal.PROBE_SUCCEEDED}
    assert stage.watch.why("vienna.loop") is Why.ANSWERED
    assert (stage.sent, stage.trips) == ([], [])
    stage.watch.unwatch("vienna.loop")
    asked = len(stage.cards.asked)
    stage.clock.advance(60_000)
    stage.watch.wake()
    await asyncio.sleep(0.01)
    assert (len(stage.cards.asked), stage.watch.status("vienna.loop"), stage.watch.why("vienna.loop")) == (
        asked,
        None,
        None,
    )


async def test_over_a_link_it_is_pinged_and_what_that_took_is_told(stage: Stage) -> None:
    stage.watch.watch("vienna.loop", PeerHealth.new(NOW_MS))
    await stage.pass_until(lambda: stage.events)
    stage.links.add("vienna.loop")
    stage.watch.link_changed("vienna.loop")
    await stage.pass_until(lambda: any(isinstance(frame, Ping) for _, frame in stage.sent))
    ping = next(frame for _, frame in stage.sent if isinstance(frame, Ping))
    stage.clock.advance(20)
    stage.watch.received("vienna.loop", Ack(ping.number, 1))
    ((peer, trip_ms),) = stage.trips
    assert peer == "vienna.loop"
    assert trip_ms >= 20
    # That of its own pings it answers, of others it has no errands to nodes that it does not watch.
    stage.watch.received("vienna.loop", Ping(7, 1))
    stage.watch.received("vienna.loop", PingRequest(8, "nobody.loop"))
    assert [frame.number for _, frame in stage.sent if isinstance(frame, Ack | Nack)] == [7, 8]


async def test_who_answers_nothing_is_suspected_then_given_up_and_found_again(stage: Stage) -> None:
    stage.watch.watch("vienna.loop", PeerHealth.new(NOW_MS))
    await stage.pass_until(lambda: stage.events)
    stage.cards.answer = Look(is_there=False)
    await stage.pass_until(lambda: Signal.FAILURE_CONFIRMED in stage.signals())
    order = [signal for signal in stage.signals() if signal is not Signal.PROBE_SUCCEEDED]
    assert order == [Signal.SUSPECTED, Signal.FAILURE_CONFIRMED]
    assert stage.watch.why("vienna.loop") is Why.SUSPICION_RAN_OUT
    stage.cards.answer = Look(is_there=True)
    await stage.pass_until(lambda: stage.signals()[-1] is Signal.PROBE_SUCCEEDED)


async def test_something_else_at_its_address_counts_at_once(stage: Stage) -> None:
    stage.watch.watch("vienna.loop", PeerHealth.new(NOW_MS))
    stage.cards.answer = Look(is_there=False, other_answer=True)
    await stage.pass_until(lambda: stage.events)
    assert set(stage.signals()) == {Signal.REQUEST_FAILED}


async def test_who_asks_for_patience_is_there_and_is_left_alone(stage: Stage) -> None:
    stage.cards.answer = Look(is_there=True, patience_ms=30_000)
    stage.watch.watch("vienna.loop", PeerHealth.new(NOW_MS))
    await stage.pass_until(lambda: len(stage.events) == 2)
    assert [(event.signal, event.retry_after_ms) for event in stage.events] == [
        (Signal.PROBE_SUCCEEDED, 0),
        (Signal.DEFERRED, 30_000),
    ]
    before_s = stage.clock.monotonic_s()
    await stage.pass_until(lambda: len(stage.cards.asked) == 2)
    assert stage.clock.monotonic_s() - before_s >= 30


async def test_a_stored_absence_is_taken_up(stage: Stage) -> None:
    stored = PeerHealth(State.UNREACHABLE, NOW_MS, NOW_MS, NOW_MS + 15_000, NOW_MS, 4, absent_since_ms=NOW_MS - 60_000)
    stage.cards.answer = Look(is_there=False)
    stage.watch.watch("vienna.loop", stored)
    await stage.pass_until(lambda: stage.events)
    assert stage.clock.monotonic_s() >= 15
    assert stage.watch.why("vienna.loop") is Why.STILL_SILENT


async def test_a_clock_that_was_set_back_since_puts_no_probe_off(stage: Stage) -> None:
    ahead_ms = NOW_MS + 24 * 3600 * 1000
    stage.watch.watch("vienna.loop", PeerHealth(State.UNREACHABLE, ahead_ms, ahead_ms, ahead_ms, ahead_ms, 4))
    await stage.pass_until(lambda: stage.events)
    assert stage.clock.monotonic_s() < 1


async def test_a_bug_of_ours_does_not_end_the_watch(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESTART_S", 0.0)
    calls: list[int] = []
    tick = stage.watch._members.tick

    def fail_once(now_ms: int) -> Any:
        calls.append(now_ms)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return tick(now_ms)

    monkeypatch.setattr(stage.watch._members, "tick", fail_once)
    stage.watch.watch("vienna.loop", PeerHealth.new(NOW_MS))
    await stage.pass_until(lambda: stage.events)
    assert len(calls) >= 2


# Cities


@pytest.fixture
async def triangle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[City]]:
    """Berlin, Munich and Vienna, each with a link to both others, and read in their registries."""
    monkeypatch.setattr(watch, "ACQUAINTED_WITHIN_S", 0.0)
    identities = [
        identity_of(name, place)
        for name, place in (("berlin.loop", BERLIN), ("munich.loop", VIENNA), ("vienna.loop", VIENNA))
    ]
    settings = FederationSettings(admission="open", radius_km=None, health_preset="lan")
    async with federation_of(tmp_path, *identities, settings=settings) as cities:
        for one, other in ((0, 1), (1, 2), (0, 2)):
            await befriend(cities[one], cities[other])
        # Only now, so that each is read when it knows everybody.
        cities[0].network.websockets = True
        await eventually(lambda: all(linked(a, b) for a in cities for b in cities if a is not b), *cities, step_ms=200)
        await eventually(lambda: all(acquainted(a, b) for a in cities for b in cities if a is not b), *cities)
        yield cities


def linked(one: City, other: City) -> bool:
    return one.federation.links.carries(other.node_id)


def acquainted(one: City, other: City) -> bool:
    """Whether one knows that the other knows the third."""
    return len(one.federation.introductions.last_listed_by(other.node_id)) >= 2


async def test_linked_cities_are_pinged_and_not_asked_for_their_cards(triangle: list[City]) -> None:
    berlin, munich, _ = triangle
    berlin.network.calls.clear()
    for _ in range(10):
        await let_pass(2_000, *triangle)
        await asyncio.sleep(0.005)
    assert {city.health(other.node_id) for city in triangle for other in triangle if city is not other} == {"active"}
    assert [call for city in triangle for call in berlin.network.to(city.node_id, INFO)] == []
    listed = await munich.peer("vienna.loop")
    assert (listed["why"], listed["suspected_by"], listed["linked"]) == ("answered", [], True)
    assert listed["round_trip_ms"] is not None


async def test_a_city_that_falls_silent_is_suspected_by_all_and_given_up_and_found_again(triangle: list[City]) -> None:
    berlin, munich, _ = triangle
    network = berlin.network
    network.down.add("vienna.loop")
    network.mute_wires("vienna.loop", "berlin.loop")
    network.mute_wires("vienna.loop", "munich.loop")
    both = (berlin, munich)
    await eventually(lambda: [city.health("vienna.loop") for city in both] == ["suspect"] * 2, *triangle, step_ms=200)
    await eventually(
        lambda: any(
            getattr(city.federation.watch.status("vienna.loop"), "suspected_by", None) == {other.node_id}
            for city, other in (both, both[::-1])
        ),
        *triangle,
        step_ms=200,
    )
    await eventually(
        lambda: [city.health("vienna.loop") for city in both] == ["unreachable"] * 2, *triangle, step_ms=200
    )
    assert berlin.health("munich.loop") == munich.health("berlin.loop") == "active"
    network.down.clear()
    await network.cut_wires(*network.cities)
    await eventually(lambda: [city.health("vienna.loop") for city in both] == ["active"] * 2, *triangle, step_ms=200)


async def test_a_city_that_only_others_reach_stays_suspected(triangle: list[City]) -> None:
    berlin, munich, _ = triangle
    network = berlin.network
    network.cut.add(("munich.loop", "vienna.loop"))
    network.mute_wires("munich.loop", "vienna.loop")
    await eventually(lambda: munich.health("vienna.loop") == "suspect", *triangle, step_ms=200)
    assert munich.federation.watch.why("vienna.loop") is Why.ONLY_OTHERS_REACH_IT
    states = set()
    for _ in range(30):
        await let_pass(2_000, *triangle)
        await asyncio.sleep(0.01)
        states.add(munich.health("vienna.loop"))
    assert states == {"suspect"}
    assert berlin.health("vienna.loop") == "active"
    network.cut.clear()
    await network.cut_wires("munich.loop", "vienna.loop")
    await eventually(lambda: munich.health("vienna.loop") == "active", *triangle, step_ms=200)


async def test_who_is_suspended_is_watched_no_more(triangle: list[City]) -> None:
    _, munich, _ = triangle
    assert await munich.federation.suspend_peer("vienna.loop")
    await eventually(lambda: munich.federation.watch.status("vienna.loop") is None)
    assert await munich.federation.resume_peer("vienna.loop")
    await eventually(lambda: munich.health("vienna.loop") == "active", *triangle, step_ms=200)
    assert await munich.federation.remove_peer("vienna.loop")
    assert munich.federation.watch.status("vienna.loop") is None
