"""Rounds of probes, and what follows from them: who is suspected, and who is given up; see `membership`."""

from typing import Final

from loopd.gossip.frames import Suspect
from loopd.gossip.health import Event, Signal, backoff_ms
from loopd.gossip.questions import Questions
from loopd.gossip.watching import (
    HASTENED_SPACING_MS,
    Belief,
    Circle,
    Observed,
    Round,
    Send,
    Suspicion,
    Watched,
    Why,
)

# How long a peer's word that it suspects another is remembered: a little longer than it probes between two words.
CLAIM_MEMORY_MS: Final = 10_000
# Peers that are told of a new suspicion.
_TOLD_MAX: Final = 8


class Verdicts:
    """What is believed of each peer, from the answers to this node's own probes and from signs of its life."""

    def __init__(self, circle: Circle, questions: Questions) -> None:
        self._circle = circle
        self._questions = questions

    def tick(self, watched: Watched, now_ms: int) -> None:
        """What is due of this peer: the end of a suspicion or of a round, and the next probe."""
        suspicion = watched.suspicion
        if suspicion is not None and now_ms >= self._circle.suspicion_ends_ms(suspicion):
            self._confirm(watched, suspicion, now_ms)
        if watched.round is not None and now_ms >= watched.round.ends_ms:
            self.round_ended(watched, watched.round, now_ms)
        if watched.round is None and now_ms >= watched.next_probe_ms:
            self._begin_round(watched, now_ms)

    def _begin_round(self, watched: Watched, now_ms: int) -> None:
        number = self._questions.ask(watched, now_ms)
        if watched.suspicion is None:
            watched.round = Round(now_ms + self._circle.timeout_ms(watched), number)
            return
        # Suspected: everything at once, and the peer is told, so that it can deny it.
        pace_ms = self._circle.preset.suspected_pace_ms
        ends_ms = now_ms + (pace_ms if watched.linked else max(pace_ms, self._circle.timeout_ms(watched)))
        helpers = self._questions.ask_helpers(watched, now_ms)
        watched.round = Round(ends_ms, number, helpers, set(helpers))
        if watched.linked:
            self._circle.effects.append(Send(watched.peer, Suspect(watched.peer, watched.suspicion.incarnation)))

    def round_ended(self, watched: Watched, ended: Round, now_ms: int) -> None:
        """No answer came in time."""
        if watched.belief is Belief.FAILED:
            watched.round = None
            watched.failures += 1
            self._wait_longer(watched, Signal.PROBE_FAILED, Why.STILL_SILENT, now_ms)
        elif ended.helpers is None:
            self._ask_around(watched, ended, now_ms)
        else:
            self._judge(watched, ended, now_ms)

    def _ask_around(self, watched: Watched, missed: Round, now_ms: int) -> None:
        """The first answer is missing: try once more, and ask those that know the peer."""
        missed.last_number = self._questions.ask(watched, now_ms)
        missed.helpers = self._questions.ask_helpers(watched, now_ms)
        missed.silent_helpers = set(missed.helpers)
        waits_ms = [self._circle.timeout_ms(watched)]
        waits_ms += [
            self._circle.timeout_ms(self._circle.peers[name]) + self._circle.preset.nack_after_ms
            for name in missed.helpers
        ]
        missed.ends_ms = now_ms + max(waits_ms)

    def _judge(self, watched: Watched, ended: Round, now_ms: int) -> None:
        """The peer answered none of the questions of a round."""
        watched.round = None
        watched.detours = watched.detours + 1 if ended.seen_by_others else 0
        if watched.suspicion is not None:
            lasting = watched.detours > self._circle.preset.detours
            watched.next_probe_ms = now_ms + (self._circle.interval_ms() if lasting else 0)
            return
        # Helpers say at least that they found nothing. Where most say not even that, the fault may lie here.
        if 2 * len(ended.silent_helpers) > len(ended.helpers or ()) or not ended.helpers:
            self._circle.doubt.rise()
        if not ended.seen_by_others:
            self._suspect(watched, Why.NOBODY_REACHES_IT, now_ms)
        elif watched.detours >= self._circle.preset.detours:
            self._suspect(watched, Why.ONLY_OTHERS_REACH_IT, now_ms)
        else:
            watched.next_probe_ms = now_ms + self._circle.preset.suspected_pace_ms

    def _suspect(self, watched: Watched, why: Why, now_ms: int) -> None:
        recent = {peer for peer, (at_ms, _) in watched.claims.items() if now_ms - at_ms <= CLAIM_MEMORY_MS}
        watched.belief = Belief.SUSPECTED
        watched.suspicion = Suspicion(now_ms, watched.incarnation, recent)
        watched.next_probe_ms = now_ms
        self._circle.effects.append(Observed(watched.peer, Event(Signal.SUSPECTED, next_attempt_in_ms=0), why))
        for peer in self._circle.drawn(self._circle.who_knows(watched), _TOLD_MAX):
            self._circle.effects.append(Send(peer, Suspect(watched.peer, watched.incarnation)))

    def _confirm(self, watched: Watched, suspicion: Suspicion, now_ms: int) -> None:
        watched.belief = Belief.FAILED
        watched.suspicion = watched.round = None
        watched.failures, watched.detours = 1, 0
        watched.absent_since_ms = suspicion.since_ms
        self._wait_longer(watched, Signal.FAILURE_CONFIRMED, Why.SUSPICION_RAN_OUT, now_ms)

    def _wait_longer(self, watched: Watched, signal: Signal, why: Why, now_ms: int) -> None:
        absent_ms = now_ms - watched.absent_since_ms
        wait_ms = backoff_ms(watched.failures, absent_ms, self._circle.draw(), self._circle.timing)
        watched.next_probe_ms = now_ms + wait_ms
        self._circle.effects.append(Observed(watched.peer, Event(signal, next_attempt_in_ms=wait_ms), why))

    def reached(self, watched: Watched, now_ms: int, patience_ms: int, link_round_trip_ms: int | None) -> None:
        """The peer answered a probe of this node, and asks not to be probed again for so long."""
        if watched.belief is Belief.REACHABLE:
            self._circle.doubt.fall()
        watched.belief = Belief.REACHABLE
        watched.suspicion = watched.round = None
        watched.detours = watched.failures = 0
        wait_ms = self._circle.interval_ms() + min(patience_ms, self._circle.timing.final_ceiling_ms)
        watched.next_probe_ms = now_ms + wait_ms
        event = Event(Signal.PROBE_SUCCEEDED, next_attempt_in_ms=wait_ms)
        self._circle.effects.append(Observed(watched.peer, event, Why.ANSWERED, link_round_trip_ms))

    def sign_of_life(self, watched: Watched, now_ms: int) -> None:
        """It lives, by another way than this node's own: whoever suspects it has to begin anew."""
        if watched.suspicion is not None:
            watched.suspicion.since_ms = now_ms
            watched.suspicion.shared_by.clear()
            watched.claims.clear()

    def probe_soon(self, watched: Watched, now_ms: int) -> None:
        """Probe the peer now, or as soon as it may be hastened again."""
        due_ms = now_ms
        if watched.hastened_ms is not None:
            due_ms = max(now_ms, watched.hastened_ms + HASTENED_SPACING_MS)
        if watched.round is None and due_ms < watched.next_probe_ms:
            watched.hastened_ms = watched.next_probe_ms = due_ms

    def way_changed(self, watched: Watched, now_ms: int) -> None:
        """Ask over the new way at once; a round that is under way goes on, so changing ways puts no verdict off."""
        if watched.round is None:
            watched.next_probe_ms = now_ms
        else:
            watched.round.last_number = self._questions.ask(watched, now_ms)
