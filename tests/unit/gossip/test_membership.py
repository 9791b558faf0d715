"""Watching peers: probes through others, suspicion and what contradicts it, and what no peer's word can do."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.frames import Ack, Alive, Credit, Frame, Nack, Ping, PingRequest, Suspect
from loopd.gossip.health import Signal, ceiling_ms
from loopd.gossip.membership import AskNodeInfo, Belief, Effect, Membership, Observed, Send, Why
from loopd.gossip.probing import WAN
from loopd.protocol.limits import PROBE_ERRANDS_PER_PEER_MAX

OWN = "own.loop"
TARGET = "target.loop"
HELPERS = ("first.loop", "second.loop", "third.loop")
STRANGER = "stranger.loop"
INCARNATION = 1_800_000_000_000
HOUR_MS = 3_600_000


class World:
    """A node's membership, and peers that answer or not. Everything arrives 20 ms after it was sent."""

    def __init__(self, *, helpers: tuple[str, ...] = HELPERS, linked: bool = True) -> None:
        self.now_ms = 1_000_000
        self.member = Membership(OWN, WAN, INCARNATION, Random(7).random, self.now_ms)
        self.answering = set(helpers)
        self.seen_by: set[str] = set()
        self.done: list[tuple[int, Effect]] = []
        self._coming: list[tuple[int, str, Frame | int]] = []
        for peer in (TARGET, *helpers):
            self.member.watch(peer, self.now_ms)
            if linked or peer != TARGET:
                self.carry_out(self.member.link_up(peer, self.now_ms))
        for helper in helpers:
            self.member.acquainted(helper, [TARGET])

    def carry_out(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            self.done.append((self.now_ms, effect))
            match effect:
                case Send(peer, Ping(number, _)) if peer in self.answering:
                    self._coming.append((self.now_ms + 20, peer, Ack(number, 5)))
                case Send(peer, PingRequest(number, _)) if peer in self.answering:
                    answer = Ack(number, 5) if peer in self.seen_by else Nack(number)
                    self._coming.append((self.now_ms + 20, peer, answer))
                case AskNodeInfo(peer, number, _) if peer in self.answering:
                    self._coming.append((self.now_ms + 20, peer, number))
        return effects

    def receive(self, peer: str, frame: Frame) -> list[Effect]:
        return self.carry_out(self.member.receive(peer, frame, self.now_ms))

    def run(self, for_ms: int) -> list[tuple[int, Effect]]:
        """What was done in that time."""
        begin, until_ms = len(self.done), self.now_ms + for_ms
        while True:
            due_ms = max(min([self.member.next_timer_ms(), *(at_ms for at_ms, *_ in self._coming)]), self.now_ms)
            if due_ms > until_ms:
                self.now_ms = until_ms
                return self.done[begin:]
            self.now_ms = due_ms
            for arrival in [each for each in self._coming if each[0] <= due_ms]:
                self._coming.remove(arrival)
                _, peer, what = arrival
                if isinstance(what, int):
                    self.carry_out(self.member.answered(peer, what, due_ms))
                else:
                    self.receive(peer, what)
            self.carry_out(self.member.tick(due_ms))

    def until(self, belief: Belief, within_ms: int = 60_000) -> int:
        """Run until the target is believed to be so; how long it took."""
        began_ms = self.now_ms
        while self.member.status(TARGET).belief is not belief:
            self.run(10)
            assert self.now_ms - began_ms <= within_ms, f"never {belief}"
        return self.now_ms - began_ms

    def sent(self, kind: type[Frame], peer: str | None = None) -> list[tuple[int, str, Frame]]:
        return [
            (at_ms, effect.peer, effect.frame)
            for at_ms, effect in self.done
            if isinstance(effect, Send) and isinstance(effect.frame, kind) and peer in (None, effect.peer)
        ]

    def verdicts(self) -> list[tuple[Signal, Why]]:
        """What was observed of the target, without the answers to probes."""
        return [
            (effect.event.signal, effect.why)
            for _, effect in self.done
            if isinstance(effect, Observed) and effect.peer == TARGET and effect.why is not Why.ANSWERED
        ]

    @property
    def belief(self) -> Belief:
        return self.member.status(TARGET).belief


def settled(world: World) -> World:
    """A world in which everybody answered for a minute."""
    world.answering.add(TARGET)
    world.run(60_000)
    assert world.verdicts() == []
    return world


def test_a_peer_that_answers_is_probed_every_interval_and_observed_each_time() -> None:
    world = settled(World())
    pings = [at_ms for at_ms, *_ in world.sent(Ping, TARGET)]
    assert all(0.9 * 5_000 <= later - at <= 1.1 * 5_000 + 20 for at, later in pairwise(pings))
    assert len(pings) >= 11
    status = world.member.status(TARGET)
    assert (status.belief, status.round_trip_ms, status.timeout_ms) == (Belief.REACHABLE, 20, 300)
    assert 0 < status.next_probe_ms - world.now_ms <= 5_500
    assert world.member.doubt == 0


def test_a_failed_peer_is_asked_for_through_others_then_suspected_then_confirmed() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    failed_ms, begin = world.now_ms, len(world.done)
    world.until(Belief.SUSPECTED)
    # One ping missed; then another, and all helpers.
    asked = {peer for at_ms, peer, _ in world.sent(PingRequest)}
    assert asked == set(HELPERS)
    told = [peer for at_ms, peer, _ in world.sent(Suspect) if at_ms >= failed_ms]
    assert set(told) == {TARGET, *HELPERS}
    world.until(Belief.FAILED)
    assert world.now_ms - failed_ms <= WAN.detection_bound_ms(300)
    assert world.verdicts() == [
        (Signal.SUSPECTED, Why.NOBODY_REACHES_IT),
        (Signal.FAILURE_CONFIRMED, Why.SUSPICION_RAN_OUT),
    ]
    # While it is suspected it is tried again and again.
    assert len([effect for at_ms, effect in world.done[begin:] if effect == Send(TARGET, Suspect(TARGET, 5))]) >= 9


def test_an_absent_peer_is_tried_at_the_back_off_without_troubling_others_and_is_found_again() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.FAILED)
    asked_before = len(world.sent(PingRequest))
    begin = world.now_ms
    world.run(HOUR_MS)
    assert len(world.sent(PingRequest)) == asked_before
    tries = [at_ms for at_ms, *_ in world.sent(Ping, TARGET) if at_ms > begin]
    waits = [later - at for at, later in pairwise(tries)]
    assert max(waits) <= ceiling_ms(0) + 3 * WAN.link_waits.most_ms
    assert min(waits[10:]) >= ceiling_ms(0) // 2
    world.answering.add(TARGET)
    assert world.until(Belief.REACHABLE) <= ceiling_ms(0) + 3 * WAN.link_waits.most_ms


def test_a_helper_is_asked_only_about_peers_that_it_knows() -> None:
    world = settled(World())
    world.member.acquainted(HELPERS[0], [])
    world.member.acquainted(HELPERS[1], [STRANGER])
    world.answering.discard(TARGET)
    world.until(Belief.FAILED)
    assert {peer for _, peer, _ in world.sent(PingRequest)} == {HELPERS[2]}


def test_without_anybody_who_knows_the_peer_its_own_silence_decides() -> None:
    world = settled(World(helpers=()))
    world.answering.discard(TARGET)
    assert world.until(Belief.FAILED) <= WAN.detection_bound_ms(300, doubt=1)
    assert world.member.doubt == 1


def test_one_missed_answer_changes_nothing_where_the_second_comes() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    while not world.sent(PingRequest):
        world.run(10)
    # The first of the two questions is answered late, the second not at all.
    first = world.sent(Ping, TARGET)[-2][2]
    assert isinstance(first, Ping)
    world.receive(TARGET, Ack(first.number, 5))
    assert (world.belief, world.verdicts()) == (Belief.REACHABLE, [])


def test_a_peer_that_only_others_reach_is_never_declared_failed_and_nothing_is_sent_to_it() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.seen_by = {HELPERS[0]}
    world.until(Belief.SUSPECTED)
    world.run(HOUR_MS)
    assert world.verdicts() == [(Signal.SUSPECTED, Why.ONLY_OTHERS_REACH_IT)]
    # After the first minutes it costs no more than a healthy peer would, and its helpers.
    per_hour = len([at_ms for at_ms, *_ in world.sent(Ping, TARGET) if at_ms > world.now_ms - HOUR_MS // 2])
    assert per_hour <= HOUR_MS / 2 / WAN.suspected_pace_ms / 2
    # And when others lose it too, it is confirmed as any other.
    world.seen_by = set()
    assert world.until(Belief.FAILED) <= WAN.detection_bound_ms(300) + WAN.suspected_pace_ms


def test_what_the_peer_says_unasked_makes_it_not_reachable_but_hastens_a_probe() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.FAILED)
    world.run(600_000)
    for frame in (Ping(99, 7), Alive(TARGET, 10**12)):
        world.run(3_000)
        begin = world.now_ms
        world.receive(TARGET, frame)
        world.run(0)
        assert world.belief is Belief.FAILED
        assert [at_ms for at_ms, *_ in world.sent(Ping, TARGET) if at_ms == begin] == [begin]
        world.run(1_500)
    begin = world.now_ms
    world.carry_out(world.member.contacted_by(TARGET, world.now_ms))
    world.run(0)
    assert world.belief is Belief.FAILED
    assert world.sent(Ping, TARGET)[-1][0] == begin


def test_a_peer_that_calls_without_end_is_probed_once_a_second_at_most() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.FAILED)
    begin = world.now_ms
    for _ in range(600):
        world.receive(TARGET, Ping(1, 1))
        world.run(100)
    tries = [at_ms for at_ms, *_ in world.sent(Ping, TARGET) if at_ms >= begin]
    assert 15 <= len(tries) <= 61
    assert all(later - at >= 1_000 for at, later in pairwise(tries))


def test_an_answer_that_comes_late_ends_a_suspicion() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    world.run(9_000)
    early = next(frame for at_ms, _, frame in reversed(world.sent(Ping, TARGET)) if at_ms < world.now_ms - 5_000)
    assert isinstance(early, Ping)
    world.receive(TARGET, Ack(early.number, 5))
    assert world.belief is Belief.REACHABLE


def test_others_that_suspect_it_too_shorten_the_suspicion() -> None:
    took_ms = []
    for confirming in (0, 1, 2, 3):
        world = settled(World())
        world.answering.discard(TARGET)
        world.until(Belief.SUSPECTED)
        for helper in HELPERS[:confirming]:
            # One that repeats itself counts once, and so do those that are nobody's peers.
            for peer in (helper, helper, STRANGER):
                world.receive(peer, Suspect(TARGET, 5))
        assert world.member.status(TARGET).suspected_by == set(HELPERS[:confirming])
        took_ms.append(world.until(Belief.FAILED))
    assert took_ms[0] == pytest.approx(WAN.suspicion_most_ms, abs=50)
    assert took_ms[0] > took_ms[1] > took_ms[2] == took_ms[3]
    assert took_ms[3] == pytest.approx(WAN.suspicion_least_ms, abs=50)


def test_nobodys_word_makes_a_suspicion() -> None:
    world = settled(World())
    begin = world.now_ms
    for _ in range(100):
        for helper in HELPERS:
            world.receive(helper, Suspect(TARGET, 10**15))
        world.run(100)
    assert world.verdicts() == []
    # It is looked at, and told, but not as often as they say so.
    assert 8 <= len([at_ms for at_ms, *_ in world.sent(Ping, TARGET) if at_ms >= begin]) <= 12
    assert 8 <= len(world.sent(Suspect, TARGET)) <= 12


def test_what_others_said_shortly_before_counts_for_the_suspicion() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.receive(HELPERS[0], Suspect(TARGET, 5))
    world.until(Belief.SUSPECTED)
    assert world.member.status(TARGET).suspected_by == {HELPERS[0]}


@pytest.mark.parametrize("speaker", [TARGET, HELPERS[0]])
def test_a_denial_with_a_higher_incarnation_begins_the_suspicion_anew(speaker: str) -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    world.run(11_000)
    world.receive(HELPERS[1], Suspect(TARGET, 5))
    until_ms = world.member.status(TARGET).suspected_until_ms
    world.receive(speaker, Alive(TARGET, 5))
    assert world.member.status(TARGET).suspected_until_ms == until_ms
    world.receive(speaker, Alive(TARGET, 6))
    status = world.member.status(TARGET)
    assert (status.belief, status.suspected_by) == (Belief.SUSPECTED, frozenset())
    assert status.suspected_until_ms == world.now_ms + WAN.suspicion_most_ms
    # The same word again is no news.
    world.run(1_000)
    world.receive(speaker, Alive(TARGET, 6))
    assert world.member.status(TARGET).suspected_until_ms == status.suspected_until_ms


def test_a_strangers_denial_counts_for_nothing() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    world.run(5_000)
    before = world.member.status(TARGET).suspected_until_ms
    world.receive(STRANGER, Alive(TARGET, 10**12))
    world.receive(TARGET, Alive(STRANGER, 10**12))
    assert world.member.status(TARGET).suspected_until_ms == before


def test_who_is_suspected_itself_denies_it() -> None:
    world = settled(World())
    assert world.receive(TARGET, Suspect(OWN, INCARNATION)) == [Send(TARGET, Alive(OWN, INCARNATION + 1))]
    assert world.member.doubt == 1
    # An older suspicion is answered with what is, and a false number from far ahead is not followed.
    for incarnation in (INCARNATION, 2**53 - 1):
        assert world.receive(TARGET, Suspect(OWN, incarnation)) == [Send(TARGET, Alive(OWN, INCARNATION + 1))]
    assert world.member.doubt == 1
    assert world.receive(TARGET, Suspect(OWN, INCARNATION + 50)) == [Send(TARGET, Alive(OWN, INCARNATION + 51))]


def test_a_suspicion_is_told_to_the_peer_and_its_denial_to_who_had_it() -> None:
    world = settled(World())
    said = world.receive(HELPERS[0], Suspect(TARGET, 5))
    assert said == [Send(TARGET, Suspect(TARGET, 5))]
    assert world.receive(TARGET, Alive(TARGET, 6)) == [Send(HELPERS[0], Alive(TARGET, 6))]
    assert world.receive(TARGET, Alive(TARGET, 7)) == []


def test_a_node_that_slept_doubts_itself_and_hears_first_what_came_meanwhile() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    ping = world.sent(Ping, TARGET)[-1][2]
    assert isinstance(ping, Ping)
    world.now_ms += 40_000  # longer than any suspicion
    world.carry_out(world.member.tick(world.now_ms))
    assert world.belief is Belief.SUSPECTED
    assert world.member.doubt == WAN.doubt_most
    world.receive(TARGET, Ack(ping.number, 5))
    assert world.belief is Belief.REACHABLE
    # The answer's round trip was the sleep, and is no measure of the way.
    assert world.member.status(TARGET).round_trip_ms == 20
    world.answering.add(TARGET)
    world.run(60_000)
    assert world.member.doubt == 0


def test_a_frame_that_is_read_before_the_late_timer_shows_the_sleep_too() -> None:
    world = settled(World())
    world.now_ms += 8_000
    world.receive(HELPERS[0], Credit(1, 1))
    assert world.member.doubt == WAN.doubt_most
    assert world.carry_out(world.member.tick(world.now_ms))
    world.run(0)
    assert world.verdicts() == []


def test_doubt_lengthens_time_outs_and_suspicions() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    before = world.member.status(TARGET).suspected_until_ms
    assert before is not None
    world.receive(HELPERS[0], Suspect(OWN, INCARNATION))
    after = world.member.status(TARGET).suspected_until_ms
    assert after == before + WAN.suspicion_most_ms * WAN.doubt_step


def test_a_suspicion_that_others_shorten_into_the_past_ends_at_once_and_is_no_sleep() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    world.run(WAN.suspicion_most_ms - 500)
    for helper in HELPERS:
        world.receive(helper, Suspect(TARGET, 5))
    assert world.member.next_timer_ms() == world.now_ms
    world.run(0)
    assert world.belief is Belief.FAILED
    assert world.member.doubt == 0


def test_a_peer_without_a_link_is_asked_for_its_node_info() -> None:
    world = World(linked=False)
    settled(world)
    assert world.sent(Ping, TARGET) == []
    world.answering.discard(TARGET)
    took_ms = world.until(Belief.FAILED)
    assert took_ms <= WAN.detection_bound_ms(WAN.http_waits.least_ms)
    assert {peer for _, peer, _ in world.sent(PingRequest)} == set(HELPERS)


def test_a_port_that_refuses_at_once_is_not_asked_ever_faster() -> None:
    world = World(linked=False)
    settled(world)
    world.answering.discard(TARGET)
    begin, asked = world.now_ms, 0
    while world.belief is not Belief.FAILED:
        for at_ms, effect in world.run(10):
            if isinstance(effect, AskNodeInfo) and at_ms >= begin:
                asked += 1
                world.carry_out(world.member.unanswered(TARGET, effect.number, world.now_ms))
    assert asked <= 2 + (world.now_ms - begin) / WAN.suspected_pace_ms
    assert world.now_ms - begin <= WAN.detection_bound_ms(WAN.http_waits.least_ms)


def test_only_the_peer_that_was_asked_can_answer_and_only_the_way_it_was_asked() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    number = world.sent(Ping, TARGET)[-1][2].number  # type: ignore[union-attr]
    for peer in (*HELPERS, STRANGER):
        world.receive(peer, Ack(number, 5))
    world.receive(TARGET, Ack(number + 1_000, 5))
    world.carry_out(world.member.answered(TARGET, number, world.now_ms))
    world.carry_out(world.member.unanswered(TARGET, number, world.now_ms))
    assert world.belief is Belief.SUSPECTED


def test_links_that_come_and_go_put_no_verdict_off() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    began_ms = world.now_ms
    while world.belief is not Belief.FAILED:
        world.carry_out(world.member.link_down(TARGET, world.now_ms))
        world.run(150)
        world.carry_out(world.member.link_up(TARGET, world.now_ms))
        world.run(150)
        assert world.now_ms - began_ms <= WAN.detection_bound_ms(WAN.http_waits.most_ms)


def test_a_failed_request_hastens_a_probe() -> None:
    world = settled(World())
    world.run(1_000)
    world.carry_out(world.member.request_failed(TARGET, world.now_ms))
    world.run(0)
    assert world.sent(Ping, TARGET)[-1][0] == world.now_ms


def test_a_helper_asks_its_own_peer_and_passes_the_answer_on() -> None:
    world = settled(World())
    world.receive(HELPERS[0], PingRequest(77, TARGET))
    world.run(20)
    assert world.sent(Ack, HELPERS[0])[-1][2] == Ack(77, 5)
    # Without an answer it says so; one that comes late is passed on all the same.
    world.answering.discard(TARGET)
    world.receive(HELPERS[0], PingRequest(78, TARGET))
    ping = world.sent(Ping, TARGET)[-1][2]
    assert isinstance(ping, Ping)
    world.run(300)
    assert world.sent(Nack, HELPERS[0])[-1][2] == Nack(78)
    world.receive(TARGET, Ack(ping.number, 6))
    assert world.sent(Ack, HELPERS[0])[-1][2] == Ack(78, 6)


def test_a_helper_asks_nobody_but_its_own_peers_and_not_without_end() -> None:
    world = settled(World())
    assert world.receive(HELPERS[0], PingRequest(1, STRANGER)) == [Send(HELPERS[0], Nack(1))]
    assert world.receive(STRANGER, PingRequest(2, TARGET)) == [Send(STRANGER, Nack(2))]
    world.answering.discard(TARGET)
    for number in range(100):
        world.receive(HELPERS[0], PingRequest(number, TARGET))
    assert len([at_ms for at_ms, *_ in world.sent(Ping, TARGET) if at_ms == world.now_ms]) == PROBE_ERRANDS_PER_PEER_MAX
    # Another one is served meanwhile, and so is the first when its errands have ended.
    assert served(world, HELPERS[1])
    assert not served(world, HELPERS[0])
    world.run(1_200)
    assert served(world, HELPERS[0])


def served(world: World, helper: str) -> bool:
    """Whether the target is asked for it."""
    said = world.receive(helper, PingRequest(500, TARGET))
    return any(isinstance(each, Send) and each.peer == TARGET for each in said)


def test_a_helper_without_a_link_to_the_peer_asks_over_http() -> None:
    world = settled(World(linked=False))
    [asked] = [each for each in world.receive(HELPERS[0], PingRequest(9, TARGET)) if isinstance(each, AskNodeInfo)]
    assert world.carry_out(world.member.unanswered(TARGET, asked.number, world.now_ms)) == [Send(HELPERS[0], Nack(9))]


def test_a_restart_takes_up_an_absence_where_it_was() -> None:
    world = World()
    world.member.watch("absent.loop", world.now_ms, Belief.FAILED, 3 * HOUR_MS, failures=40, next_probe_in_ms=15_000)
    assert world.member.status("absent.loop").belief is Belief.FAILED
    assert world.member.status("absent.loop").next_probe_ms == world.now_ms + 15_000
    world.run(15_000)
    asked = [at_ms for at_ms, each in world.done if isinstance(each, AskNodeInfo) and each.peer == "absent.loop"]
    assert asked == [world.now_ms]


def test_who_is_watched_no_more_is_not_probed_and_its_word_is_forgotten() -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    world.receive(HELPERS[0], Suspect(TARGET, 5))
    world.member.unwatch(HELPERS[0])
    assert world.member.status(TARGET).suspected_by == frozenset()
    world.member.unwatch(TARGET)
    begin = len(world.done)
    world.run(60_000)
    assert {each.peer for _, each in world.done[begin:]} == set(HELPERS[1:])
    assert world.member.peers() == set(HELPERS[1:])


PEERS = st.sampled_from([TARGET, *HELPERS, STRANGER])
NUMBERS = st.integers(0, 60)
FRAMES = st.one_of(
    st.builds(Ping, NUMBERS, NUMBERS),
    st.builds(Ack, NUMBERS, NUMBERS),
    st.builds(Nack, NUMBERS),
    st.builds(PingRequest, NUMBERS, st.sampled_from([TARGET, OWN, STRANGER])),
    st.builds(Suspect, st.sampled_from([TARGET, OWN, STRANGER]), NUMBERS),
    st.builds(Alive, st.sampled_from([TARGET, OWN, STRANGER]), NUMBERS),
)


@given(st.lists(st.tuples(PEERS, FRAMES, st.sampled_from([0, 1, 50, 400, 3_000])), max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_others_say_only_the_peers_own_answer_makes_it_reachable(
    said: list[tuple[str, Frame, int]],
) -> None:
    world = settled(World())
    world.answering.discard(TARGET)
    world.until(Belief.FAILED)
    for peer, frame, passed_ms in said:
        if peer == TARGET and isinstance(frame, Ack):
            continue
        world.receive(peer, frame)
        world.run(passed_ms)
        assert world.belief is Belief.FAILED
        assert world.member.next_timer_ms() <= world.now_ms + 500
    world.answering.add(TARGET)
    world.until(Belief.REACHABLE)


@given(st.lists(st.tuples(PEERS, FRAMES, st.sampled_from([0, 1, 50, 400, 3_000])), max_size=60))
@settings(max_examples=100, deadline=None)
def test_one_frame_gives_no_more_than_a_few(said: list[tuple[str, Frame, int]]) -> None:
    world = settled(World())
    for peer, frame, passed_ms in said:
        assert len(world.receive(peer, frame)) <= 1 + len(HELPERS)
        world.run(passed_ms)


@pytest.mark.parametrize("spoken", [Suspect(TARGET, 0), PingRequest(9, TARGET)])
def test_who_speaks_of_a_peer_can_be_asked_about_it(spoken: Frame) -> None:
    world = World(helpers=("first.loop",))
    world.member.acquainted("first.loop", [])
    settled(world)
    world.receive("first.loop", spoken)
    world.answering.discard(TARGET)
    world.until(Belief.SUSPECTED)
    assert world.sent(PingRequest, "first.loop")


def test_who_asks_for_patience_is_probed_after_it() -> None:
    world = World(helpers=(), linked=False)
    (question,) = [effect for _, effect in world.run(10) if isinstance(effect, AskNodeInfo)]
    (observed,) = world.member.answered(TARGET, question.number, world.now_ms, 60_000)
    assert isinstance(observed, Observed)
    assert observed.event.next_attempt_in_ms is not None
    assert observed.event.next_attempt_in_ms >= 60_000 + WAN.interval_ms * 0.9
    assert world.member.status(TARGET).next_probe_ms == world.now_ms + observed.event.next_attempt_in_ms


def test_an_answer_over_a_link_tells_how_long_it_took() -> None:
    world = settled(World())
    answers = [effect for _, effect in world.done if isinstance(effect, Observed) and effect.peer == TARGET]
    assert {answer.link_round_trip_ms for answer in answers} == {20}
    by_card = settled(World(linked=False))
    answers = [effect for _, effect in by_card.done if isinstance(effect, Observed) and effect.peer == TARGET]
    assert {answer.link_round_trip_ms for answer in answers} == {None}
