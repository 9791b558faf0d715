"""Which of this node's peers are there: probes, suspicion and refutation, sans I/O (§9.4).

The federation is sparse. Nobody has a list of all nodes; each node watches its own peers, and asks those that know the
same peer (SWIM with Lifeguard's additions; numbers in `probing`):

    watch / unwatch, link_up / link_down, acquainted      whom to watch, how to reach it, and who else knows it
    receive(peer, frame, now_ms) -> effects               Ping, Ack, PingRequest, Nack, Suspect, Alive
    answered / unanswered(peer, number, now_ms)           what came of an AskNodeInfo
    tick(now_ms) -> effects, next_timer_ms()              call `tick` at that time, or as soon after it as possible

A probe is a Ping where there is a link, else a question for NodeInfo. A missed answer sends another, and asks helpers.
Where nobody gets an answer, the peer is suspected; a suspicion that nothing contradicts in time is a confirmed failure.

Three kinds of evidence are kept apart. Only an answer to this node's own probe makes a peer reachable. What others say,
or what the peer says unasked, shows that it lives: it restarts the suspicion and hastens a probe, and opens nothing. A
peer that calls here is probed and nothing else. So half-open and one-way paths leave a peer suspected, neither sent to
nor declared failed; and a peer that lies about another can do no more than that.

`now_ms` is a monotonic clock's: only differences count. `PeerHealth` stays the stored row; feed it each `Observed`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final

from loopd.gossip.frames import Ack, Alive, Frame, Nack, Ping, PingRequest, Suspect
from loopd.gossip.health import DEFAULT_TIMING, Event, Signal, Timing, backoff_ms
from loopd.gossip.probing import INTERVAL_JITTER, Doubt, Preset, RoundTrip
from loopd.protocol.limits import PROBE_ERRANDS_PER_PEER_MAX, PROBES_UNANSWERED_MAX

# A stall shows itself by a timer that comes late, so there is always one within this time.
_HEARTBEAT_MS: Final = 500
# How long the answer to a probe still says something.
_ANSWER_MEMORY_MS: Final = 60_000
# How long a peer's word that it suspects another is remembered: a little longer than it probes between two words.
_CLAIM_MEMORY_MS: Final = 10_000
# Peers that are told of a new suspicion.
_TOLD_MAX: Final = 8
# A peer that calls, or of which something is said, is probed at most this often on that account.
_HASTENED_SPACING_MS: Final = 1_000
# An incarnation begins as the wall clock in milliseconds. Who claims one this far ahead remembers no life of this node.
_INCARNATION_LEAP_MAX: Final = 30 * 24 * 3600 * 1000


class Belief(StrEnum):
    """What this node thinks of a peer."""

    REACHABLE = "reachable"
    SUSPECTED = "suspected"
    FAILED = "failed"


class Why(StrEnum):
    """What a belief rests on: one code each."""

    ANSWERED = "answered"
    NOBODY_REACHES_IT = "nobody_reaches_it"
    ONLY_OTHERS_REACH_IT = "only_others_reach_it"
    SUSPICION_RAN_OUT = "suspicion_ran_out"
    STILL_SILENT = "still_silent"


@dataclass(frozen=True, slots=True)
class Send:
    """Send the frame over the link with this peer."""

    peer: str
    frame: Frame


@dataclass(frozen=True, slots=True)
class AskNodeInfo:
    """Ask the peer for its NodeInfo over HTTP, and say by `answered` or `unanswered` what came of it."""

    peer: str
    number: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Observed:
    """Feed `event` to the peer's PeerHealth. `link_round_trip_ms` where an answer over a link measured one."""

    peer: str
    event: Event
    why: Why
    link_round_trip_ms: int | None = None


Effect = Send | AskNodeInfo | Observed


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What can be shown of a peer. Times are of the clock given in `now_ms`; `round_trip_ms` None before the first."""

    belief: Belief
    linked: bool
    round_trip_ms: int | None
    timeout_ms: int
    next_probe_ms: int
    suspected_until_ms: int | None
    suspected_by: frozenset[str]


class _Errand(StrEnum):
    """Why something was asked."""

    OWN = "own"  # a probe of this node
    HELP = "help"  # a helper was asked
    RELAY = "relay"  # asked for another node


@dataclass(slots=True)
class _Asked:
    """A question whose answer may still come. `asker` and `asker_number`: on whose behalf, where it is a relay."""

    errand: _Errand
    asked: str
    target: str
    at_ms: int
    stalls: int
    linked: bool
    asker: str = ""
    asker_number: int = 0
    # A relay whose asker waits for an answer or a Nack.
    is_open_errand: bool = False


@dataclass(slots=True)
class _Round:
    """One probe with all that belongs to it. `helpers` is None until they were asked."""

    ends_ms: int
    last_number: int
    helpers: frozenset[str] | None = None
    silent_helpers: set[str] = field(default_factory=set)
    seen_by_others: bool = False


@dataclass(slots=True)
class _Suspicion:
    since_ms: int
    incarnation: int
    shared_by: set[str] = field(default_factory=set)


class _Watched:
    """A peer."""

    def __init__(self, peer: str, preset: Preset, now_ms: int) -> None:
        self.peer = peer
        self.linked = False
        self.link_trips = RoundTrip(preset.link_waits)
        self.http_trips = RoundTrip(preset.http_waits)
        self.belief = Belief.REACHABLE
        self.incarnation = 0
        self.next_probe_ms = now_ms
        self.hastened_ms: int | None = None
        # When it was last told what others think of it.
        self.warned_ms = now_ms - _HASTENED_SPACING_MS
        self.round: _Round | None = None
        self.suspicion: _Suspicion | None = None
        self.detours = 0
        self.failures = 0
        self.absent_since_ms = now_ms
        # Who says that it suspects this peer: when, and as of which incarnation.
        self.claims: dict[str, tuple[int, int]] = {}
        # Whom this peer knows.
        self.acquaintances: frozenset[str] = frozenset()

    @property
    def trips(self) -> RoundTrip:
        return self.link_trips if self.linked else self.http_trips


class Membership:
    """The failure detector of one node.

    `incarnation` is the wall clock in milliseconds when this life of the node began. `draw` gives random numbers from
    0 to 1. `timing` is that of the stored health: absent peers are tried again at its back-off.
    """

    def __init__(
        self,
        node_id: str,
        preset: Preset,
        incarnation: int,
        draw: Callable[[], float],
        now_ms: int,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self._preset = preset
        self._timing = timing
        self._draw = draw
        self._doubt = Doubt(preset.doubt_most)
        self._peers: dict[str, _Watched] = {}
        self._asked: dict[int, _Asked] = {}
        self._errands: dict[str, int] = {}
        self._nacks_due: list[tuple[int, int]] = []
        self._number = 0
        self._stalls = 0
        self._denied_ms: int | None = None
        self._heartbeat_ms = self._expected_ms = now_ms + _HEARTBEAT_MS
        self._effects: list[Effect] = []

    @property
    def doubt(self) -> int:
        """How little this node trusts itself: 0 fully."""
        return self._doubt.level

    def peers(self) -> frozenset[str]:
        """Who is watched."""
        return frozenset(self._peers)

    def status(self, peer: str) -> PeerStatus:
        """What can be shown of a peer. KeyError for one that is not watched."""
        watched = self._peers[peer]
        smoothed_ms = watched.trips.smoothed_ms
        suspicion = watched.suspicion
        return PeerStatus(
            watched.belief,
            watched.linked,
            None if smoothed_ms is None else round(smoothed_ms),
            watched.trips.timeout_ms,
            watched.next_probe_ms,
            None if suspicion is None else self._suspicion_ends_ms(suspicion),
            frozenset() if suspicion is None else frozenset(suspicion.shared_by),
        )

    # Whom to watch

    def watch(
        self,
        peer: str,
        now_ms: int,
        belief: Belief = Belief.REACHABLE,
        absent_ms: int = 0,
        failures: int = 0,
        next_probe_in_ms: int = 0,
    ) -> None:
        """Begin to watch a peer; nothing if it is. The rest is what its stored health says, after a restart.

        A stored suspicion is not taken up: it would have to be formed anew, so the peer is probed at once.
        """
        if peer in self._peers or peer == self.node_id:
            return
        watched = self._peers[peer] = _Watched(peer, self._preset, now_ms)
        if belief is Belief.FAILED:
            watched.belief = belief
            watched.failures = max(failures, 1)
            watched.absent_since_ms = now_ms - max(absent_ms, 0)
            longest_ms = self._timing.final_ceiling_ms
            watched.next_probe_ms = now_ms + min(max(next_probe_in_ms, 0), longest_ms)
        self._plan(now_ms)

    def unwatch(self, peer: str) -> None:
        """Watch a peer no more: it was removed or suspended."""
        self._peers.pop(peer, None)
        for watched in self._peers.values():
            watched.claims.pop(peer, None)
            if watched.suspicion is not None:
                watched.suspicion.shared_by.discard(peer)

    def acquainted(self, peer: str, known: Iterable[str]) -> None:
        """The peer says, by its registry, whom it knows: it can be asked about them."""
        if (watched := self._peers.get(peer)) is not None:
            watched.acquaintances = frozenset(known) & self._peers.keys()

    def link_up(self, peer: str, now_ms: int) -> list[Effect]:
        """There is a link now: probe over it at once. That it was made says nothing yet of this way."""
        if (watched := self._peers.get(peer)) is not None and not watched.linked:
            watched.linked = True
            self._way_changed(watched, now_ms)
        return self._take_effects(now_ms)

    def link_down(self, peer: str, now_ms: int) -> list[Effect]:
        """The link broke: look at once whether the peer is there, over HTTP."""
        if (watched := self._peers.get(peer)) is not None and watched.linked:
            watched.linked = False
            self._way_changed(watched, now_ms)
        return self._take_effects(now_ms)

    def contacted_by(self, peer: str, now_ms: int) -> list[Effect]:
        """The peer called here. Hastens a probe where the peer is not reachable; opens nothing."""
        watched = self._peers.get(peer)
        if watched is not None and watched.belief is not Belief.REACHABLE:
            self._probe_soon(watched, now_ms)
        return self._take_effects(now_ms)

    def request_failed(self, peer: str, now_ms: int) -> list[Effect]:
        """A request to the peer got no answer: look whether it is there."""
        if (watched := self._peers.get(peer)) is not None:
            self._probe_soon(watched, now_ms)
        return self._take_effects(now_ms)

    # What happens

    def answered(self, peer: str, number: int, now_ms: int, patience_ms: int = 0) -> list[Effect]:
        """The peer answered the question for its NodeInfo, and is itself; so long it asks not to be probed again."""
        self._notice_stall(now_ms)
        asked = self._asked.get(number)
        if asked is not None and asked.asked == peer and not asked.linked and asked.errand is not _Errand.HELP:
            self._ack(number, asked, None, now_ms, patience_ms)
        return self._take_effects(now_ms)

    def unanswered(self, peer: str, number: int, now_ms: int) -> list[Effect]:
        """The question for NodeInfo failed: refused, timed out, or answered by another."""
        self._notice_stall(now_ms)
        asked = self._asked.get(number)
        if asked is None or asked.asked != peer or asked.linked or asked.errand is _Errand.HELP:
            return self._take_effects(now_ms)
        self._give_up_errand(number)
        self._forget(number)
        watched = self._peers.get(peer)
        ended = None if watched is None else watched.round
        # Only the first question of a round is given up early: a port that refuses at once is not asked ever faster.
        if watched is not None and ended is not None and ended.last_number == number and ended.helpers is None:
            self._round_ended(watched, ended, now_ms)
        return self._take_effects(now_ms)

    def receive(self, peer: str, frame: Frame, now_ms: int) -> list[Effect]:
        """A frame from an authenticated peer. Those of other kinds, and what nobody asked for, change nothing."""
        self._notice_stall(now_ms)
        match frame:
            case Ping():
                self._effects.append(Send(peer, Ack(frame.number, self.incarnation)))
                self._heard_from(peer, frame.incarnation, now_ms)
            case Ack():
                asked = self._asked.get(frame.number)
                if asked is not None and asked.asked == peer and asked.linked:
                    self._ack(frame.number, asked, frame.incarnation, now_ms)
            case PingRequest():
                self._errand(peer, frame, now_ms)
            case Nack():
                self._nack(peer, frame.number)
            case Suspect():
                self._suspected_by(peer, frame, now_ms)
            case Alive():
                self._alive(peer, frame, now_ms)
            case _:
                pass
        return self._take_effects(now_ms)

    def next_timer_ms(self) -> int:
        """When `tick` is due."""
        return self._expected_ms

    def tick(self, now_ms: int) -> list[Effect]:
        """What is due now. Early calls do no harm; late ones make this node doubt itself."""
        self._notice_stall(now_ms)
        for watched in self._peers.values():
            self._tick_peer(watched, now_ms)
        while self._nacks_due and self._nacks_due[0][0] <= now_ms:
            self._give_up_errand(heappop(self._nacks_due)[1])
        self._forget_old(now_ms)
        self._heartbeat_ms = now_ms + _HEARTBEAT_MS
        return self._take_effects(now_ms)

    def _take_effects(self, now_ms: int) -> list[Effect]:
        self._plan(now_ms)
        effects, self._effects = self._effects, []
        return effects

    def _plan(self, now_ms: int) -> None:
        due_ms = min((self._due_ms(watched) for watched in self._peers.values()), default=self._heartbeat_ms)
        if self._nacks_due:
            due_ms = min(due_ms, self._nacks_due[0][0])
        # What others say or less doubt can end a suspicion in the past: then it is due now, and nobody was late.
        self._expected_ms = max(min(due_ms, self._heartbeat_ms), now_ms)

    def _due_ms(self, watched: _Watched) -> int:
        due_ms = watched.next_probe_ms if watched.round is None else watched.round.ends_ms
        if watched.suspicion is not None:
            return min(due_ms, self._suspicion_ends_ms(watched.suspicion))
        return due_ms

    def _suspicion_ends_ms(self, suspicion: _Suspicion) -> int:
        return suspicion.since_ms + self._preset.suspicion_ms(len(suspicion.shared_by), self._doubt.level)

    def _notice_stall(self, now_ms: int) -> None:
        """This node slept: the time counts for nobody's silence, and what came meanwhile is heard before it judges."""
        late_ms = now_ms - self._expected_ms
        if late_ms <= self._preset.stall_tolerance_ms:
            return
        self._stalls += 1
        self._doubt.rise(1 + late_ms // 1000)
        shift_ms = late_ms + self._preset.stall_tolerance_ms
        for watched in self._peers.values():
            watched.next_probe_ms = max(watched.next_probe_ms, now_ms)
            if watched.round is not None:
                watched.round.ends_ms += shift_ms
            if watched.suspicion is not None:
                watched.suspicion.since_ms += shift_ms
        self._nacks_due = [(due_ms + shift_ms, number) for due_ms, number in self._nacks_due]
        self._heartbeat_ms = now_ms + _HEARTBEAT_MS
        self._plan(now_ms)

    # Probing

    def _tick_peer(self, watched: _Watched, now_ms: int) -> None:
        suspicion = watched.suspicion
        if suspicion is not None and now_ms >= self._suspicion_ends_ms(suspicion):
            self._confirm(watched, suspicion, now_ms)
        if watched.round is not None and now_ms >= watched.round.ends_ms:
            self._round_ended(watched, watched.round, now_ms)
        if watched.round is None and now_ms >= watched.next_probe_ms:
            self._begin_round(watched, now_ms)

    def _begin_round(self, watched: _Watched, now_ms: int) -> None:
        number = self._ask(watched, now_ms)
        if watched.suspicion is None:
            watched.round = _Round(now_ms + self._timeout_ms(watched), number)
            return
        # Suspected: everything at once, and the peer is told, so that it can deny it.
        pace_ms = self._preset.suspected_pace_ms
        ends_ms = now_ms + (pace_ms if watched.linked else max(pace_ms, self._timeout_ms(watched)))
        helpers = self._ask_helpers(watched, now_ms)
        watched.round = _Round(ends_ms, number, helpers, set(helpers))
        if watched.linked:
            self._effects.append(Send(watched.peer, Suspect(watched.peer, watched.suspicion.incarnation)))

    def _round_ended(self, watched: _Watched, ended: _Round, now_ms: int) -> None:
        """No answer came in time."""
        if watched.belief is Belief.FAILED:
            watched.round = None
            watched.failures += 1
            self._wait_longer(watched, Signal.PROBE_FAILED, Why.STILL_SILENT, now_ms)
        elif ended.helpers is None:
            self._ask_around(watched, ended, now_ms)
        else:
            self._judge(watched, ended, now_ms)

    def _ask_around(self, watched: _Watched, missed: _Round, now_ms: int) -> None:
        """The first answer is missing: try once more, and ask those that know the peer."""
        missed.last_number = self._ask(watched, now_ms)
        missed.helpers = self._ask_helpers(watched, now_ms)
        missed.silent_helpers = set(missed.helpers)
        waits_ms = [self._timeout_ms(watched)]
        waits_ms += [self._timeout_ms(self._peers[name]) + self._preset.nack_after_ms for name in missed.helpers]
        missed.ends_ms = now_ms + max(waits_ms)

    def _judge(self, watched: _Watched, ended: _Round, now_ms: int) -> None:
        """The peer answered none of the questions of a round."""
        watched.round = None
        watched.detours = watched.detours + 1 if ended.seen_by_others else 0
        if watched.suspicion is not None:
            lasting = watched.detours > self._preset.detours
            watched.next_probe_ms = now_ms + (self._interval_ms() if lasting else 0)
            return
        # Helpers say at least that they found nothing. Where most say not even that, the fault may lie here.
        if 2 * len(ended.silent_helpers) > len(ended.helpers or ()) or not ended.helpers:
            self._doubt.rise()
        if not ended.seen_by_others:
            self._suspect(watched, Why.NOBODY_REACHES_IT, now_ms)
        elif watched.detours >= self._preset.detours:
            self._suspect(watched, Why.ONLY_OTHERS_REACH_IT, now_ms)
        else:
            watched.next_probe_ms = now_ms + self._preset.suspected_pace_ms

    def _suspect(self, watched: _Watched, why: Why, now_ms: int) -> None:
        recent = {peer for peer, (at_ms, _) in watched.claims.items() if now_ms - at_ms <= _CLAIM_MEMORY_MS}
        watched.belief = Belief.SUSPECTED
        watched.suspicion = _Suspicion(now_ms, watched.incarnation, recent)
        watched.next_probe_ms = now_ms
        self._effects.append(Observed(watched.peer, Event(Signal.SUSPECTED, next_attempt_in_ms=0), why))
        for peer in self._drawn(self._who_knows(watched), _TOLD_MAX):
            self._effects.append(Send(peer, Suspect(watched.peer, watched.incarnation)))

    def _confirm(self, watched: _Watched, suspicion: _Suspicion, now_ms: int) -> None:
        watched.belief = Belief.FAILED
        watched.suspicion = watched.round = None
        watched.failures, watched.detours = 1, 0
        watched.absent_since_ms = suspicion.since_ms
        self._wait_longer(watched, Signal.FAILURE_CONFIRMED, Why.SUSPICION_RAN_OUT, now_ms)

    def _wait_longer(self, watched: _Watched, signal: Signal, why: Why, now_ms: int) -> None:
        absent_ms = now_ms - watched.absent_since_ms
        wait_ms = backoff_ms(watched.failures, absent_ms, self._draw(), self._timing)
        watched.next_probe_ms = now_ms + wait_ms
        self._effects.append(Observed(watched.peer, Event(signal, next_attempt_in_ms=wait_ms), why))

    def _reached(self, watched: _Watched, now_ms: int, patience_ms: int, link_round_trip_ms: int | None) -> None:
        """The peer answered a probe of this node."""
        if watched.belief is Belief.REACHABLE:
            self._doubt.fall()
        watched.belief = Belief.REACHABLE
        watched.suspicion = watched.round = None
        watched.detours = watched.failures = 0
        wait_ms = self._interval_ms() + min(patience_ms, self._timing.final_ceiling_ms)
        watched.next_probe_ms = now_ms + wait_ms
        event = Event(Signal.PROBE_SUCCEEDED, next_attempt_in_ms=wait_ms)
        self._effects.append(Observed(watched.peer, event, Why.ANSWERED, link_round_trip_ms))

    def _sign_of_life(self, watched: _Watched, now_ms: int) -> None:
        """It lives, by another way than this node's own: whoever suspects it has to begin anew."""
        if watched.suspicion is not None:
            watched.suspicion.since_ms = now_ms
            watched.suspicion.shared_by.clear()
            watched.claims.clear()

    def _probe_soon(self, watched: _Watched, now_ms: int) -> None:
        due_ms = now_ms
        if watched.hastened_ms is not None:
            due_ms = max(now_ms, watched.hastened_ms + _HASTENED_SPACING_MS)
        if watched.round is None and due_ms < watched.next_probe_ms:
            watched.hastened_ms = watched.next_probe_ms = due_ms

    def _way_changed(self, watched: _Watched, now_ms: int) -> None:
        """Ask over the new way at once; a round that is under way goes on, so changing ways puts no verdict off."""
        if watched.round is None:
            watched.next_probe_ms = now_ms
        else:
            watched.round.last_number = self._ask(watched, now_ms)

    # Questions and answers

    def _ask(self, watched: _Watched, now_ms: int, asker: str | None = None, asker_number: int = 0) -> int:
        """Ask the peer whether it is there, for this node or for another. The question's number."""
        errand = _Errand.OWN if asker is None else _Errand.RELAY
        asked = _Asked(errand, watched.peer, watched.peer, now_ms, self._stalls, watched.linked)
        if asker is not None:
            asked.asker, asked.asker_number, asked.is_open_errand = asker, asker_number, True
        number = self._remember(asked)
        if watched.linked:
            self._effects.append(Send(watched.peer, Ping(number, self.incarnation)))
        else:
            self._effects.append(AskNodeInfo(watched.peer, number, self._timeout_ms(watched)))
        return number

    def _ask_helpers(self, watched: _Watched, now_ms: int) -> frozenset[str]:
        helpers = self._drawn(self._who_knows(watched), self._preset.helpers)
        for helper in helpers:
            asked = _Asked(_Errand.HELP, helper, watched.peer, now_ms, self._stalls, linked=True)
            self._effects.append(Send(helper, PingRequest(self._remember(asked), watched.peer)))
        return frozenset(helpers)

    def _ack(self, number: int, asked: _Asked, incarnation: int | None, now_ms: int, patience_ms: int = 0) -> None:
        self._forget(number)
        watched = self._peers.get(asked.target)
        if watched is None or now_ms - asked.at_ms > _ANSWER_MEMORY_MS:
            return
        if asked.errand is _Errand.HELP:
            if watched.round is not None:
                watched.round.seen_by_others = True
                watched.round.silent_helpers.discard(asked.asked)
            self._sign_of_life(watched, now_ms)
            return
        # A round trip that a stall of this node fell into measures the stall.
        measured_ms = now_ms - asked.at_ms if asked.stalls == self._stalls else None
        if measured_ms is not None:
            trips = watched.link_trips if asked.linked else watched.http_trips
            trips.measured(measured_ms)
        if incarnation is not None:
            watched.incarnation = max(watched.incarnation, incarnation)
        # The other way may work while the present one does not.
        if asked.linked == watched.linked:
            self._reached(watched, now_ms, patience_ms, measured_ms if asked.linked else None)
        if asked.errand is _Errand.RELAY:
            self._effects.append(Send(asked.asker, Ack(asked.asker_number, watched.incarnation)))

    def _nack(self, peer: str, number: int) -> None:
        """The helper hears this node. Its answer may still come, so the question stays."""
        asked = self._asked.get(number)
        if asked is None or asked.errand is not _Errand.HELP or asked.asked != peer:
            return
        watched = self._peers.get(asked.target)
        if watched is not None and watched.round is not None:
            watched.round.silent_helpers.discard(peer)

    def _errand(self, peer: str, request: PingRequest, now_ms: int) -> None:
        """Ask one of this node's own peers, nobody else, on behalf of another."""
        watched = self._peers.get(request.target)
        if watched is None or peer not in self._peers or self._errands.get(peer, 0) >= PROBE_ERRANDS_PER_PEER_MAX:
            self._effects.append(Send(peer, Nack(request.number)))
            return
        self._errands[peer] = self._errands.get(peer, 0) + 1
        number = self._ask(watched, now_ms, peer, request.number)
        wait_ms = min(self._timeout_ms(watched), self._preset.nack_after_ms)
        heappush(self._nacks_due, (now_ms + wait_ms, number))

    def _give_up_errand(self, number: int) -> None:
        """Say that no answer came so far. One that comes later is passed on all the same."""
        asked = self._asked.get(number)
        if asked is not None and self._close_errand(asked):
            self._effects.append(Send(asked.asker, Nack(asked.asker_number)))

    def _close_errand(self, asked: _Asked) -> bool:
        """Whether it was open."""
        if not asked.is_open_errand:
            return False
        asked.is_open_errand = False
        self._errands[asked.asker] -= 1
        if not self._errands[asked.asker]:
            del self._errands[asked.asker]
        return True

    def _remember(self, asked: _Asked) -> int:
        self._number += 1
        self._asked[self._number] = asked
        if len(self._asked) > PROBES_UNANSWERED_MAX:
            self._forget(next(iter(self._asked)))
        return self._number

    def _forget(self, number: int) -> None:
        self._close_errand(self._asked.pop(number))

    def _forget_old(self, now_ms: int) -> None:
        while self._asked:
            number, oldest = next(iter(self._asked.items()))
            if now_ms - oldest.at_ms <= _ANSWER_MEMORY_MS:
                return
            self._forget(number)

    # What others say

    def _suspected_by(self, peer: str, claim: Suspect, now_ms: int) -> None:
        if claim.node_id == self.node_id:
            self._deny(peer, claim.incarnation, now_ms)
            return
        watched = self._peers.get(claim.node_id)
        if watched is None or peer not in self._peers or peer == claim.node_id:
            return
        watched.claims[peer] = (now_ms, claim.incarnation)
        if watched.suspicion is not None:
            if claim.incarnation >= watched.suspicion.incarnation:
                watched.suspicion.shared_by.add(peer)
        elif watched.belief is Belief.REACHABLE:
            if watched.linked and now_ms >= watched.warned_ms + _HASTENED_SPACING_MS:
                watched.warned_ms = now_ms
                self._effects.append(Send(watched.peer, Suspect(watched.peer, claim.incarnation)))
            self._probe_soon(watched, now_ms)

    def _deny(self, peer: str, incarnation: int, now_ms: int) -> None:
        """Somebody suspects this node: rise above what it knew. A false number from far ahead is not followed."""
        if self.incarnation <= incarnation <= self.incarnation + _INCARNATION_LEAP_MAX:
            self.incarnation = incarnation + 1
            if self._denied_ms is None or now_ms >= self._denied_ms + self._preset.interval_ms:
                self._denied_ms = now_ms
                self._doubt.rise()
        self._effects.append(Send(peer, Alive(self.node_id, self.incarnation)))

    def _alive(self, peer: str, claim: Alive, now_ms: int) -> None:
        watched = self._peers.get(claim.node_id)
        if watched is None or peer not in self._peers:
            return
        if peer == claim.node_id:
            watched.incarnation = max(watched.incarnation, claim.incarnation)
            self._pass_denial_on(watched, claim, now_ms)
        if watched.suspicion is not None and claim.incarnation > watched.suspicion.incarnation:
            watched.suspicion.incarnation = claim.incarnation
            self._sign_of_life(watched, now_ms)
        if watched.belief is not Belief.REACHABLE:
            self._probe_soon(watched, now_ms)

    def _pass_denial_on(self, watched: _Watched, denial: Alive, now_ms: int) -> None:
        """Those that said they suspect it hear its own word."""
        for peer, (at_ms, incarnation) in list(watched.claims.items()):
            if incarnation < denial.incarnation or now_ms - at_ms > _CLAIM_MEMORY_MS:
                del watched.claims[peer]
                if now_ms - at_ms <= _CLAIM_MEMORY_MS:
                    self._effects.append(Send(peer, denial))

    def _heard_from(self, peer: str, incarnation: int, now_ms: int) -> None:
        if (watched := self._peers.get(peer)) is not None:
            watched.incarnation = max(watched.incarnation, incarnation)
            if watched.belief is not Belief.REACHABLE:
                self._probe_soon(watched, now_ms)

    # Choices

    def _who_knows(self, watched: _Watched) -> list[str]:
        """The reachable peers that can be asked about this one, or told."""
        return [
            other.peer
            for other in self._peers.values()
            if other.linked and other.belief is Belief.REACHABLE and watched.peer in other.acquaintances
        ]

    def _drawn(self, names: list[str], count: int) -> list[str]:
        """So many of the names, by lot."""
        return names if len(names) <= count else sorted(names, key=lambda _: self._draw())[:count]

    def _timeout_ms(self, watched: _Watched) -> int:
        return int(watched.trips.timeout_ms * self._preset.doubt_factor(self._doubt.level))

    def _interval_ms(self) -> int:
        return int(self._preset.interval_ms * (1 + INTERVAL_JITTER * (2 * self._draw() - 1)))
