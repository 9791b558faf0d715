"""What others say of a peer, and of this node itself: it hastens probes, and opens nothing; see `membership`."""

from typing import Final

from loopd.gossip.frames import Alive, Suspect
from loopd.gossip.verdicts import CLAIM_MEMORY_MS, Verdicts
from loopd.gossip.watching import HASTENED_SPACING_MS, Belief, Circle, Send, Watched

# An incarnation begins as the wall clock in milliseconds. Who claims one this far ahead remembers no life of this node.
_INCARNATION_LEAP_MAX: Final = 30 * 24 * 3600 * 1000


class Hearsay:
    """Suspicions that others tell of, and denials of them."""

    def __init__(self, circle: Circle, verdicts: Verdicts) -> None:
        self._circle = circle
        self._verdicts = verdicts
        self._denied_ms: int | None = None

    def suspected_by(self, peer: str, claim: Suspect, now_ms: int) -> None:
        """A peer says that it suspects another, or this node."""
        if claim.node_id == self._circle.node_id:
            self._deny(peer, claim.incarnation, now_ms)
            return
        watched = self._circle.peers.get(claim.node_id)
        if watched is None or peer not in self._circle.peers or peer == claim.node_id:
            return
        watched.claims[peer] = (now_ms, claim.incarnation)
        if watched.suspicion is not None:
            if claim.incarnation >= watched.suspicion.incarnation:
                watched.suspicion.shared_by.add(peer)
        elif watched.belief is Belief.REACHABLE:
            if watched.linked and now_ms >= watched.warned_ms + HASTENED_SPACING_MS:
                watched.warned_ms = now_ms
                self._circle.effects.append(Send(watched.peer, Suspect(watched.peer, claim.incarnation)))
            self._verdicts.probe_soon(watched, now_ms)

    def _deny(self, peer: str, incarnation: int, now_ms: int) -> None:
        """Somebody suspects this node: rise above what it knew. A false number from far ahead is not followed."""
        if self._circle.incarnation <= incarnation <= self._circle.incarnation + _INCARNATION_LEAP_MAX:
            self._circle.incarnation = incarnation + 1
            if self._denied_ms is None or now_ms >= self._denied_ms + self._circle.preset.interval_ms:
                self._denied_ms = now_ms
                self._circle.doubt.rise()
        self._circle.effects.append(Send(peer, Alive(self._circle.node_id, self._circle.incarnation)))

    def alive(self, peer: str, claim: Alive, now_ms: int) -> None:
        """A peer says that it, or another, is there."""
        watched = self._circle.peers.get(claim.node_id)
        if watched is None or peer not in self._circle.peers:
            return
        if peer == claim.node_id:
            watched.incarnation = max(watched.incarnation, claim.incarnation)
            self._pass_denial_on(watched, claim, now_ms)
        if watched.suspicion is not None and claim.incarnation > watched.suspicion.incarnation:
            watched.suspicion.incarnation = claim.incarnation
            self._verdicts.sign_of_life(watched, now_ms)
        if watched.belief is not Belief.REACHABLE:
            self._verdicts.probe_soon(watched, now_ms)

    def _pass_denial_on(self, watched: Watched, denial: Alive, now_ms: int) -> None:
        """Those that said they suspect it hear its own word."""
        for peer, (at_ms, incarnation) in list(watched.claims.items()):
            if incarnation < denial.incarnation or now_ms - at_ms > CLAIM_MEMORY_MS:
                del watched.claims[peer]
                if now_ms - at_ms <= CLAIM_MEMORY_MS:
                    self._circle.effects.append(Send(peer, denial))

    def heard_from(self, peer: str, incarnation: int, now_ms: int) -> None:
        """A peer called. That proves its way here, not the way there."""
        if (watched := self._circle.peers.get(peer)) is not None:
            watched.incarnation = max(watched.incarnation, incarnation)
            if watched.belief is not Belief.REACHABLE:
                self._verdicts.probe_soon(watched, now_ms)
