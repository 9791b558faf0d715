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

What is held of each peer is in `watching`; `questions` are asked and errands run, `verdicts` follow from the answers,
and `hearsay` is what others say.

`now_ms` is a monotonic clock's: only differences count. `PeerHealth` stays the stored row; feed it each `Observed`.
"""

from collections.abc import Callable, Iterable
from typing import Final

from loopd.gossip.frames import Ack, Alive, Frame, Nack, Ping, PingRequest, Suspect
from loopd.gossip.health import DEFAULT_TIMING, Timing
from loopd.gossip.hearsay import Hearsay
from loopd.gossip.probing import Preset
from loopd.gossip.questions import ANSWER_MEMORY_MS, Asked, Errand, Questions
from loopd.gossip.verdicts import Verdicts
from loopd.gossip.watching import AskNodeInfo, Belief, Circle, Effect, Observed, PeerStatus, Send, Watched, Why

__all__ = ["AskNodeInfo", "Belief", "Effect", "Membership", "Observed", "PeerStatus", "Send", "Why"]

# A stall shows itself by a timer that comes late, so there is always one within this time.
_HEARTBEAT_MS: Final = 500


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
        self._circle = Circle(node_id, preset, incarnation, draw, timing)
        self._questions = Questions(self._circle)
        self._verdicts = Verdicts(self._circle, self._questions)
        self._hearsay = Hearsay(self._circle, self._verdicts)
        self._heartbeat_ms = self._expected_ms = now_ms + _HEARTBEAT_MS

    @property
    def incarnation(self) -> int:
        """Which life of this node it is; it rises when somebody has to be told that the node is there."""
        return self._circle.incarnation

    @property
    def doubt(self) -> int:
        """How little this node trusts itself: 0 fully."""
        return self._circle.doubt.level

    def peers(self) -> frozenset[str]:
        """Who is watched."""
        return frozenset(self._circle.peers)

    def status(self, peer: str) -> PeerStatus:
        """What can be shown of a peer. KeyError for one that is not watched."""
        watched = self._circle.peers[peer]
        smoothed_ms = watched.trips.smoothed_ms
        suspicion = watched.suspicion
        return PeerStatus(
            watched.belief,
            watched.linked,
            None if smoothed_ms is None else round(smoothed_ms),
            watched.trips.timeout_ms,
            watched.next_probe_ms,
            None if suspicion is None else self._circle.suspicion_ends_ms(suspicion),
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
        if peer in self._circle.peers or peer == self._circle.node_id:
            return
        watched = self._circle.peers[peer] = Watched(peer, self._circle.preset, now_ms)
        if belief is Belief.FAILED:
            watched.belief = belief
            watched.failures = max(failures, 1)
            watched.absent_since_ms = now_ms - max(absent_ms, 0)
            longest_ms = self._circle.timing.final_ceiling_ms
            watched.next_probe_ms = now_ms + min(max(next_probe_in_ms, 0), longest_ms)
        self._plan(now_ms)

    def unwatch(self, peer: str) -> None:
        """Watch a peer no more: it was removed or suspended."""
        self._circle.peers.pop(peer, None)
        for watched in self._circle.peers.values():
            watched.claims.pop(peer, None)
            if watched.suspicion is not None:
                watched.suspicion.shared_by.discard(peer)

    def acquainted(self, peer: str, known: Iterable[str]) -> None:
        """The peer says, by its registry, whom it knows: it can be asked about them."""
        if (watched := self._circle.peers.get(peer)) is not None:
            watched.acquaintances = frozenset(known) & self._circle.peers.keys()

    def link_up(self, peer: str, now_ms: int) -> list[Effect]:
        """There is a link now: probe over it at once. That it was made says nothing yet of this way."""
        if (watched := self._circle.peers.get(peer)) is not None and not watched.linked:
            watched.linked = True
            self._verdicts.way_changed(watched, now_ms)
        return self._take_effects(now_ms)

    def link_down(self, peer: str, now_ms: int) -> list[Effect]:
        """The link broke: look at once whether the peer is there, over HTTP."""
        if (watched := self._circle.peers.get(peer)) is not None and watched.linked:
            watched.linked = False
            self._verdicts.way_changed(watched, now_ms)
        return self._take_effects(now_ms)

    def contacted_by(self, peer: str, now_ms: int) -> list[Effect]:
        """The peer called here. Hastens a probe where the peer is not reachable; opens nothing."""
        watched = self._circle.peers.get(peer)
        if watched is not None and watched.belief is not Belief.REACHABLE:
            self._verdicts.probe_soon(watched, now_ms)
        return self._take_effects(now_ms)

    def request_failed(self, peer: str, now_ms: int) -> list[Effect]:
        """A request to the peer got no answer: look whether it is there."""
        if (watched := self._circle.peers.get(peer)) is not None:
            self._verdicts.probe_soon(watched, now_ms)
        return self._take_effects(now_ms)

    # What happens

    def answered(self, peer: str, number: int, now_ms: int, patience_ms: int = 0) -> list[Effect]:
        """The peer answered the question for its NodeInfo, and is itself; so long it asks not to be probed again."""
        self._notice_stall(now_ms)
        asked = self._questions.find(number)
        if asked is not None and asked.asked == peer and not asked.linked and asked.errand is not Errand.HELP:
            self._ack(number, asked, None, now_ms, patience_ms)
        return self._take_effects(now_ms)

    def unanswered(self, peer: str, number: int, now_ms: int) -> list[Effect]:
        """The question for NodeInfo failed: refused, timed out, or answered by another."""
        self._notice_stall(now_ms)
        asked = self._questions.find(number)
        if asked is None or asked.asked != peer or asked.linked or asked.errand is Errand.HELP:
            return self._take_effects(now_ms)
        self._questions.give_up_errand(number)
        self._questions.forget(number)
        watched = self._circle.peers.get(peer)
        ended = None if watched is None else watched.round
        # Only the first question of a round is given up early: a port that refuses at once is not asked ever faster.
        if watched is not None and ended is not None and ended.last_number == number and ended.helpers is None:
            self._verdicts.round_ended(watched, ended, now_ms)
        return self._take_effects(now_ms)

    def receive(self, peer: str, frame: Frame, now_ms: int) -> list[Effect]:
        """A frame from an authenticated peer. Those of other kinds, and what nobody asked for, change nothing."""
        self._notice_stall(now_ms)
        match frame:
            case Ping():
                self._circle.effects.append(Send(peer, Ack(frame.number, self._circle.incarnation)))
                self._hearsay.heard_from(peer, frame.incarnation, now_ms)
            case Ack():
                asked = self._questions.find(frame.number)
                if asked is not None and asked.asked == peer and asked.linked:
                    self._ack(frame.number, asked, frame.incarnation, now_ms)
            case PingRequest():
                self._speaks_of(peer, frame.target)
                self._questions.run_errand(peer, frame, now_ms)
            case Nack():
                self._nack(peer, frame.number)
            case Suspect():
                self._speaks_of(peer, frame.node_id)
                self._hearsay.suspected_by(peer, frame, now_ms)
            case Alive():
                self._hearsay.alive(peer, frame, now_ms)
            case _:
                pass
        return self._take_effects(now_ms)

    def _speaks_of(self, peer: str, target: str) -> None:
        """The peer watches that node too, so it can be asked about it, whatever its registry said when it was read."""
        watched = self._circle.peers.get(peer)
        if watched is not None and target in self._circle.peers and target != peer:
            watched.acquaintances |= {target}

    def next_timer_ms(self) -> int:
        """When `tick` is due."""
        return self._expected_ms

    def tick(self, now_ms: int) -> list[Effect]:
        """What is due now. Early calls do no harm; late ones make this node doubt itself."""
        self._notice_stall(now_ms)
        for watched in self._circle.peers.values():
            self._verdicts.tick(watched, now_ms)
        self._questions.tick(now_ms)
        self._heartbeat_ms = now_ms + _HEARTBEAT_MS
        return self._take_effects(now_ms)

    def _take_effects(self, now_ms: int) -> list[Effect]:
        self._plan(now_ms)
        effects, self._circle.effects = self._circle.effects, []
        return effects

    def _plan(self, now_ms: int) -> None:
        due_ms = min((self._due_ms(watched) for watched in self._circle.peers.values()), default=self._heartbeat_ms)
        nack_ms = self._questions.next_nack_ms()
        if nack_ms is not None:
            due_ms = min(due_ms, nack_ms)
        # What others say or less doubt can end a suspicion in the past: then it is due now, and nobody was late.
        self._expected_ms = max(min(due_ms, self._heartbeat_ms), now_ms)

    def _due_ms(self, watched: Watched) -> int:
        due_ms = watched.next_probe_ms if watched.round is None else watched.round.ends_ms
        if watched.suspicion is not None:
            return min(due_ms, self._circle.suspicion_ends_ms(watched.suspicion))
        return due_ms

    def _notice_stall(self, now_ms: int) -> None:
        """This node slept: the time counts for nobody's silence, and what came meanwhile is heard before it judges."""
        late_ms = now_ms - self._expected_ms
        if late_ms <= self._circle.preset.stall_tolerance_ms:
            return
        self._circle.stalls += 1
        self._circle.doubt.rise(1 + late_ms // 1000)
        shift_ms = late_ms + self._circle.preset.stall_tolerance_ms
        for watched in self._circle.peers.values():
            watched.next_probe_ms = max(watched.next_probe_ms, now_ms)
            if watched.round is not None:
                watched.round.ends_ms += shift_ms
            if watched.suspicion is not None:
                watched.suspicion.since_ms += shift_ms
        self._questions.put_off(shift_ms)
        self._heartbeat_ms = now_ms + _HEARTBEAT_MS
        self._plan(now_ms)

    # Answers

    def _ack(self, number: int, asked: Asked, incarnation: int | None, now_ms: int, patience_ms: int = 0) -> None:
        self._questions.forget(number)
        watched = self._circle.peers.get(asked.target)
        if watched is None or now_ms - asked.at_ms > ANSWER_MEMORY_MS:
            return
        if asked.errand is Errand.HELP:
            if watched.round is not None:
                watched.round.seen_by_others = True
                watched.round.silent_helpers.discard(asked.asked)
            self._verdicts.sign_of_life(watched, now_ms)
            return
        # A round trip that a stall of this node fell into measures the stall.
        measured_ms = now_ms - asked.at_ms if asked.stalls == self._circle.stalls else None
        if measured_ms is not None:
            trips = watched.link_trips if asked.linked else watched.http_trips
            trips.measured(measured_ms)
        if incarnation is not None:
            watched.incarnation = max(watched.incarnation, incarnation)
        # The other way may work while the present one does not.
        if asked.linked == watched.linked:
            self._verdicts.reached(watched, now_ms, patience_ms, measured_ms if asked.linked else None)
        if asked.errand is Errand.RELAY:
            self._circle.effects.append(Send(asked.asker, Ack(asked.asker_number, watched.incarnation)))

    def _nack(self, peer: str, number: int) -> None:
        """The helper hears this node. Its answer may still come, so the question stays."""
        asked = self._questions.find(number)
        if asked is None or asked.errand is not Errand.HELP or asked.asked != peer:
            return
        watched = self._circle.peers.get(asked.target)
        if watched is not None and watched.round is not None:
            watched.round.silent_helpers.discard(peer)
