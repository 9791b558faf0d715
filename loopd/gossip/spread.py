"""How messages go over links with few bodies: ids first where the peer likely has the message, bodies on request.

One `Spread` serves a node, sans I/O. Its caller keeps the durable things: the log of what is to go out, a cursor in it
for each peer, and the messages held. All that is kept here may be lost at any moment at the cost of needless bodies;
which nodes deliver never depends on it.

Sending, for each peer with a link:

    link_up(peer)                                  then offer from the peer's cursor on
    room(peer) -> int                              how many entries to load at most
    offers(peer, entries, in_order=True, ids_only=False) -> Offers
    received_want(peer, want) -> list[Frame]
    received_done(peer, done) -> Progress | None
    received_deferred(peer, deferred) -> Progress | None

An offer is a Copy where the peer asked for bodies of this origin unasked, or never said; else a Have. A better TTL of
what was offered before is a Have. Entries that do not go to the peer (`loopd.gossip.flood.route`) are given as their
place in the log alone, so that the cursor may pass them too. An entry is settled by the peer's Done alone, and the
cursor may pass it then: the peer holds the message durably at that TTL, or refused it for good. `in_order=False` is
for entries that stood aside and for repair, `ids_only` for repair where several peers may offer the same.

Receiving:

    received_have(peer, have, held, now_ms) -> HaveAnswer
    received_copy(peer, copy, message_id, now_ms)  at once, before it is decided
    decided(peer, number, message_id, origin, reason, held, now_ms) -> Effects
    put_off(peer, number, message_id, reason, retry_after_ms, now_ms) -> Effects
    settled_elsewhere(message_id, held, now_ms) -> Effects    it came by a request of §8.2, or is this node's own

`held` is the best copy that the node holds durably, None where it holds none. For `Verdict.UPGRADE`, and for each of
`Effects.upgrades`, the caller runs `decide` on the stored announcement with the offer's TTL and hop value in place of
a copy's, applies it, and reports it by `decided`, as for a Copy. `reason` is the flood's, or another word where
the copy was refused before (`bad_origin_signature`). `put_off` is for what the node cannot take now.

Time:

    tick(now_ms) -> list[(peer, Frame)]            what became due
    next_timer_ms() -> int | None                  when to call it
    link_down(peer, now_ms) -> list[(peer, Frame)] what it owed is asked for elsewhere; what it offered is forgotten,
                                                   and it will offer it again
    round_trip(peer, round_trip_ms)                a measured round trip, from probes

Bounds: see LINK_* and SPREAD_* in loopd/protocol/limits.py. A link whose offers are at their ceiling takes no more
entries until some are settled; a peer that has more ids waiting here than it may is answered Deferred; an id that
nobody brings in `BRINGING_MAX_MS` is answered Deferred to all that offered it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final

from loopd.gossip.flood import HopState, Reason
from loopd.gossip.frames import Copy, Deferred, Done, Frame, Have, Want
from loopd.gossip.offering import NOTHING_BETTER_TTL, LogEntry, Offering, Offers, Progress
from loopd.gossip.remembered import Remembered
from loopd.gossip.sources import Estimate, Sources
from loopd.gossip.timers import Timers
from loopd.protocol.limits import (
    LINK_BODY_MAX_BYTES,
    LINK_WAITING_MAX,
    SPREAD_MESSAGES_REMEMBERED,
    SPREAD_ORIGINS_REMEMBERED,
)

__all__ = ["Effects", "HaveAnswer", "LogEntry", "Offers", "Progress", "Spread", "Upgrade", "Verdict"]

# An id that nobody brings is put off after this, so that no offer stays open for ever.
BRINGING_MAX_MS: Final = 60_000
PUT_OFF_RETRY_MS: Final = 5_000

# How long the source's body is waited for: its usual lag behind the first offer, and so many mean deviations. Fewer at
# the last hop, where nothing else makes up for lost time. More once a node asked early too often: mostly the body comes
# all the same, so each early ask costs one.
_SOURCE_DEVIATIONS: Final = 1.5
_LAST_HOP_DEVIATIONS: Final = 0.5
_PATIENT_DEVIATIONS: Final = 4.0
# Early asks that each first body earns, and how many can be saved up.
_EARLY_ASKS_EARNED: Final = 0.2
_EARLY_ASKS_SAVED_MAX: Final = 3.0
# How long a body that was asked for is waited for, before another peer is asked: as RFC 6298 does it, within bounds.
_ANSWER_DEVIATIONS: Final = 4.0
_ANSWER_MIN_MS, _ANSWER_FIRST_MS, _ANSWER_MAX_MS = 30, 500, 2_000
# A later offer than this says nothing about who is fast: it comes from repair or after a reconnect.
_LAG_MAX_MS: Final = 2_000

# Decided like this, a message stays so whatever copy of it comes.
_FINAL: Final = frozenset({Reason.EXPIRED, Reason.OUT_OF_SCOPE, Reason.SUPERSEDED})
# The peer holds what was offered, or has no use for it for good.
_HELD_THERE: Final = frozenset({Reason.ACCEPTED, Reason.UPGRADED, Reason.DUPLICATE})

PeerFrame = tuple[str, Frame]


class Verdict(StrEnum):
    """What a Have came to."""

    SETTLED = "settled"
    UPGRADE = "upgrade"
    WAITING = "waiting"
    PUT_OFF = "put_off"


@dataclass(frozen=True, slots=True)
class HaveAnswer:
    """What to do with a Have: send the frames, and for UPGRADE decide on the stored announcement."""

    verdict: Verdict
    frames: list[PeerFrame]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A better TTL that was offered for a message that is held now: to be decided on, then reported by `decided`."""

    peer: str
    number: int
    message_id: bytes
    origin: str
    ttl: int
    hop_value: bytes | None


@dataclass(frozen=True, slots=True)
class Effects:
    """Frames to send, and upgrades to decide on."""

    frames: list[PeerFrame]
    upgrades: list[Upgrade]


@dataclass(slots=True)
class _Link:
    offering: Offering
    # Offers of this link, by number and message, that the caller is deciding on. A decision that outlived its link must
    # not be taken for one on the same number of the next.
    in_hand: set[tuple[int, bytes]] = field(default_factory=set)
    # Ids that this peer offered and that wait here for their body or a decision.
    waiting: int = 0
    round_trip: Estimate = field(default_factory=Estimate)
    # Bodies asked for that did not come in time, since the last one that did.
    broken_promises: int = 0


@dataclass(slots=True)
class _Waiting:
    """A message that was offered and whose body or decision is awaited."""

    origin: str
    since_ms: int
    offers: dict[tuple[str, int], Have] = field(default_factory=dict)
    # Peers asked for the body, and when.
    asked: dict[str, int] = field(default_factory=dict)
    # Copies and upgrades handed to the caller that were not decided yet.
    deciding: int = 0
    # Everybody who offered was asked, and did not answer in time.
    overdue: bool = False
    # The source of this origin, when its body was no longer waited for.
    late_source: str | None = None


class Spread:
    """The engine of one node's links. `counted` counts what was sent and what came, by kind."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._numbers = count(1)
        self._lazy: Remembered[tuple[str, str], None] = Remembered(SPREAD_ORIGINS_REMEMBERED * 16)
        self._sources = Sources()
        self._waiting: dict[bytes, _Waiting] = {}
        self._first_offer_ms: Remembered[bytes, int] = Remembered(SPREAD_MESSAGES_REMEMBERED)
        self._final: Remembered[bytes, str] = Remembered(SPREAD_MESSAGES_REMEMBERED)
        self._timers: Timers[bytes] = Timers()
        self._early_asks = _EARLY_ASKS_SAVED_MAX
        self.counted: Counter[str] = Counter()

    # Sending

    def link_up(self, peer: str) -> None:
        """A link to the peer is there, with nothing offered over it yet."""
        self._links[peer] = _Link(Offering(self._numbers))

    def room(self, peer: str) -> int:
        """How many entries can be offered to the peer now; 0 where it has no link."""
        link = self._links.get(peer)
        return 0 if link is None else max(0, link.offering.room)

    def offers(
        self,
        peer: str,
        entries: Sequence[LogEntry | int],
        *,
        in_order: bool = True,
        ids_only: bool = False,
    ) -> Offers:
        """Offer entries of the log in their order; those that do not go to this peer are given as their place only."""
        link = self._links.get(peer)
        answer = Offers([], 0, [], [], None)
        if link is None:
            return answer
        taken = 0
        for entry in entries:
            if link.offering.room <= 0:
                break
            taken += 1
            if isinstance(entry, int):
                link.offering.pass_over(entry)
                continue
            eager = not ids_only and (peer, entry.origin) not in self._lazy
            frame = link.offering.take_up(entry, eager, in_order)
            if frame is not None:
                answer.frames.append(frame)
                self.counted["copies_sent" if isinstance(frame, Copy) else "haves_sent"] += 1
            elif len(entry.body) > LINK_BODY_MAX_BYTES:
                answer.too_long.append(entry.entry)
            else:
                answer.needless.append(entry.entry)
        return Offers(answer.frames, taken, answer.needless, answer.too_long, link.offering.advance())

    def received_want(self, peer: str, want: Want) -> list[Frame]:
        """The body, if it was offered over this link, is not settled, and was not sent already."""
        link = self._links.get(peer)
        copy = None if link is None else link.offering.wanted(want.message_id)
        if copy is None:
            self.counted["wants_ignored"] += 1
            return []
        self.counted["copies_sent"] += 1
        return [copy]

    def received_done(self, peer: str, done: Done) -> Progress | None:
        """The peer settled an offer. None where there is none of this number in flight."""
        link = self._links.get(peer)
        offer = None if link is None else link.offering.settle(done.number)
        if link is None or offer is None:
            return None
        entry = offer.entry
        if done.reason in _HELD_THERE:
            link.offering.note_holding(entry.message_id, entry.ttl)
        elif done.reason in _FINAL:
            link.offering.note_holding(entry.message_id, NOTHING_BETTER_TTL)
        if done.eager:
            self._lazy.pop((peer, entry.origin), None)
        else:
            self._lazy[(peer, entry.origin)] = None
        return Progress(entry.entry, entry.message_id, entry.origin, done.reason, None, link.offering.advance())

    def received_deferred(self, peer: str, deferred: Deferred) -> Progress | None:
        """The peer cannot settle an offer now. None where there is none of this number in flight."""
        link = self._links.get(peer)
        offer = None if link is None else link.offering.settle(deferred.number)
        if link is None or offer is None:
            return None
        entry, retry_ms = offer.entry, deferred.retry_after_ms
        return Progress(entry.entry, entry.message_id, entry.origin, deferred.reason, retry_ms, link.offering.advance())

    # Receiving

    def received_have(self, peer: str, have: Have, held: HopState | None, now_ms: int) -> HaveAnswer:
        """An id is offered."""
        link = self._links.get(peer)
        if link is None:
            return HaveAnswer(Verdict.SETTLED, [])
        self._note_offer(link, peer, have.origin, have.message_id, have.ttl, now_ms)
        if held is not None and held.ttl >= have.ttl:
            return HaveAnswer(Verdict.SETTLED, [(peer, self._done(peer, have.number, have.origin, Reason.DUPLICATE))])
        final = self._final.get(have.message_id)
        if final is not None:
            return HaveAnswer(Verdict.SETTLED, [(peer, self._done(peer, have.number, have.origin, final))])
        waiting = self._waiting.get(have.message_id)
        if waiting is not None and (peer, have.number) in waiting.offers:
            return HaveAnswer(Verdict.WAITING, [])
        if link.waiting >= LINK_WAITING_MAX:
            return HaveAnswer(Verdict.PUT_OFF, [(peer, Deferred(have.number, "too_many_offers", PUT_OFF_RETRY_MS))])
        if waiting is None:
            waiting = self._waiting[have.message_id] = _Waiting(have.origin, now_ms)
        waiting.offers[(peer, have.number)] = have
        link.waiting += 1
        if held is not None:
            if waiting.deciding:
                # Another upgrade is being decided; what that leaves to better is taken up then.
                return HaveAnswer(Verdict.WAITING, [])
            waiting.deciding += 1
            link.in_hand.add((have.number, have.message_id))
            return HaveAnswer(Verdict.UPGRADE, [])
        return HaveAnswer(Verdict.WAITING, self._ask_in_time(have.message_id, waiting, now_ms))

    def received_copy(self, peer: str, copy: Copy, message_id: bytes, now_ms: int) -> None:
        """A body came; nobody else is asked for it while it is decided on."""
        self.counted["copies_received"] += 1
        waiting = self._waiting.get(message_id)
        if waiting is None:
            waiting = self._waiting[message_id] = _Waiting(copy.origin, now_ms)
        waiting.deciding += 1
        link = self._links.get(peer)
        if link is None:
            return
        link.in_hand.add((copy.number, message_id))
        self._note_offer(link, peer, copy.origin, message_id, copy.ttl, now_ms)
        asked_ms = waiting.asked.get(peer)
        if asked_ms is not None:
            link.round_trip.add(now_ms - asked_ms)
            link.broken_promises = 0
        self._timers.cancel(message_id)

    def decided(
        self, peer: str, number: int, message_id: bytes, origin: str, reason: str, held: HopState | None, now_ms: int
    ) -> Effects:
        """A copy or an upgrade was decided on, and what that changed is durable."""
        if reason in _FINAL:
            self._final[message_id] = reason
        if reason == Reason.ACCEPTED:
            self._early_asks = min(self._early_asks + _EARLY_ASKS_EARNED, _EARLY_ASKS_SAVED_MAX)
        effects = self._settle(message_id, held, now_ms, decided=(peer, number))
        if self._was_in_hand(peer, number, message_id):
            effects.frames.insert(0, (peer, self._done(peer, number, origin, reason)))
        return effects

    def put_off(
        self, peer: str, number: int, message_id: bytes, reason: str, retry_after_ms: int, now_ms: int
    ) -> Effects:
        """A copy or an upgrade could not be decided on now; who else offers the message may have better luck."""
        frames: list[PeerFrame] = []
        if self._was_in_hand(peer, number, message_id):
            frames.append((peer, Deferred(number, str(reason), retry_after_ms)))
            frames += self._put_off_others(peer, number, message_id, reason, retry_after_ms)
        effects = self._settle(message_id, None, now_ms, decided=(peer, number))
        return Effects(frames + effects.frames, effects.upgrades)

    def settled_elsewhere(self, message_id: bytes, held: HopState | None, now_ms: int) -> Effects:
        """The message came another way than over a link."""
        return self._settle(message_id, held, now_ms, decided=None)

    # Time

    def tick(self, now_ms: int) -> list[PeerFrame]:
        """Ask for what did not come, and put off what nobody brings."""
        frames: list[PeerFrame] = []
        for message_id in self._timers.due(now_ms):
            waiting = self._waiting.get(message_id)
            if waiting is None or waiting.deciding:
                continue
            if now_ms - waiting.since_ms >= BRINGING_MAX_MS:
                frames += self._put_off_all(message_id, waiting)
            else:
                self._note_broken_promise(waiting)
                frames += self._ask(message_id, waiting, now_ms)
        return frames

    def next_timer_ms(self) -> int | None:
        """When `tick` has something to do; None where nothing waits."""
        return self._timers.next_ms()

    def link_down(self, peer: str, now_ms: int) -> list[PeerFrame]:
        """The link is gone, and with it what was in flight either way."""
        if self._links.pop(peer, None) is None:
            return []
        self._sources.forget(peer)
        frames: list[PeerFrame] = []
        for message_id, waiting in list(self._waiting.items()):
            for key in [key for key in waiting.offers if key[0] == peer]:
                del waiting.offers[key]
            was_asked = waiting.asked.pop(peer, None) is not None
            if not waiting.offers and not waiting.deciding:
                del self._waiting[message_id]
                self._timers.cancel(message_id)
            elif was_asked and not waiting.deciding:
                frames += self._ask(message_id, waiting, now_ms)
        return frames

    def round_trip(self, peer: str, round_trip_ms: float) -> None:
        """A round trip of this link was measured."""
        link = self._links.get(peer)
        if link is not None:
            link.round_trip.add(round_trip_ms)

    def _note_offer(self, link: _Link, peer: str, origin: str, message_id: bytes, ttl: int, now_ms: int) -> None:
        """Who offers a message holds it with one TTL more, and how late it is tells how good a source it is."""
        offered_before = message_id in link.offering.peer_holds
        link.offering.note_holding(message_id, ttl + 1)
        first_ms = self._first_offer_ms.get(message_id)
        if first_ms is None:
            first_ms = self._first_offer_ms[message_id] = now_ms
        if not offered_before and now_ms - first_ms <= _LAG_MAX_MS:
            self._sources.note(origin, peer, now_ms - first_ms)

    def _done(self, peer: str, number: int, origin: str, reason: str) -> Done:
        return Done(number, str(reason), reason in _HELD_THERE and self._sources.choose(origin, peer))

    def _settle(
        self, message_id: bytes, held: HopState | None, now_ms: int, decided: tuple[str, int] | None
    ) -> Effects:
        """Answer the offers of a message that a decision settled, and go on with those it did not."""
        waiting = self._waiting.get(message_id)
        effects = Effects([], [])
        if waiting is None:
            return effects
        if decided is not None:
            waiting.deciding = max(0, waiting.deciding - 1)
            self._take_out(waiting, decided)
        final = self._final.get(message_id)
        for key, have in list(waiting.offers.items()):
            if final is not None or (held is not None and held.ttl >= have.ttl):
                self._take_out(waiting, key)
                reason = Reason.DUPLICATE if final is None else final
                effects.frames.append((key[0], self._done(key[0], key[1], have.origin, reason)))
        if waiting.deciding:
            return effects
        if not waiting.offers:
            self._end(message_id, waiting, now_ms)
        elif held is not None:
            waiting.deciding += 1
            self._timers.cancel(message_id)
            best = _best_upgrade(waiting)
            self._links[best.peer].in_hand.add((best.number, message_id))
            effects.upgrades.append(best)
        else:
            effects.frames.extend(self._ask(message_id, waiting, now_ms))
        return effects

    def _put_off_others(
        self, peer: str, number: int, message_id: bytes, reason: str, retry_after_ms: int
    ) -> list[PeerFrame]:
        """The peer kept its promise, so it may be asked again: when it offers the message again, and not before."""
        waiting, in_hand = self._waiting.get(message_id), self._links[peer].in_hand
        if waiting is None:
            return []
        waiting.asked.pop(peer, None)
        others = [
            each
            for offerer, each in waiting.offers
            if offerer == peer and each != number and (each, message_id) not in in_hand
        ]
        for each in others:
            self._take_out(waiting, (peer, each))
        return [(peer, Deferred(each, str(reason), retry_after_ms)) for each in others]

    def _was_in_hand(self, peer: str, number: int, message_id: bytes) -> bool:
        link = self._links.get(peer)
        if link is None or (number, message_id) not in link.in_hand:
            return False
        link.in_hand.remove((number, message_id))
        return True

    def _take_out(self, waiting: _Waiting, key: tuple[str, int]) -> None:
        link = self._links.get(key[0])
        if waiting.offers.pop(key, None) is not None and link is not None:
            link.waiting -= 1

    def _end(self, message_id: bytes, waiting: _Waiting, now_ms: int) -> None:
        del self._waiting[message_id]
        self._timers.cancel(message_id)
        late = self._links.get(waiting.late_source or "")
        if late is not None and waiting.late_source is not None and message_id not in late.offering.peer_holds:
            # It brought nothing at all: it counts as if it had just now.
            lag_ms = min(_LAG_MAX_MS, now_ms - waiting.since_ms)
            self._sources.note(waiting.origin, waiting.late_source, lag_ms)

    def _ask_in_time(self, message_id: bytes, waiting: _Waiting, now_ms: int) -> list[PeerFrame]:
        """Ask for a body now, or once its origin's source is late with it."""
        if waiting.deciding or (waiting.asked and not waiting.overdue):
            return []
        expected = self._sources.source(waiting.origin)
        if not waiting.asked and expected is not None and all(peer != expected[0] for peer, _ in waiting.offers):
            first_ms = self._first_offer_ms.get(message_id, now_ms)
            due_ms = first_ms + int(expected[1].above(self._patience(waiting)))
            if due_ms > now_ms:
                self._timers.set(message_id, due_ms)
                return []
        return self._ask(message_id, waiting, now_ms)

    def _patience(self, waiting: _Waiting) -> float:
        if self._early_asks < 1:
            return _PATIENT_DEVIATIONS
        last_hop = all(have.ttl == 1 for have in waiting.offers.values())
        return _LAST_HOP_DEVIATIONS if last_hop else _SOURCE_DEVIATIONS

    def _ask(self, message_id: bytes, waiting: _Waiting, now_ms: int) -> list[PeerFrame]:
        """Ask the best of those that offered the message and were not asked yet."""
        candidates = {peer for peer, _ in waiting.offers if peer not in waiting.asked and peer in self._links}
        if not candidates:
            waiting.overdue = True
            self._timers.set(message_id, waiting.since_ms + BRINGING_MAX_MS)
            return []
        peer = min(candidates, key=self._promise)
        waiting.asked[peer] = now_ms
        waiting.overdue = False
        self._timers.set(message_id, now_ms + self._answer_time_ms(self._links[peer]))
        self.counted["wants_sent"] += 1
        return [(peer, Want(message_id))]

    def _promise(self, peer: str) -> tuple[int, float, str]:
        """Whom to ask first: who kept what it promised, then who is fast."""
        link = self._links[peer]
        round_trip_ms = link.round_trip.mean_ms if link.round_trip.samples else float(_ANSWER_FIRST_MS)
        return link.broken_promises, round_trip_ms, peer

    @staticmethod
    def _answer_time_ms(link: _Link) -> int:
        if not link.round_trip.samples:
            return _ANSWER_FIRST_MS
        return int(min(max(link.round_trip.above(_ANSWER_DEVIATIONS), _ANSWER_MIN_MS), _ANSWER_MAX_MS))

    def _note_broken_promise(self, waiting: _Waiting) -> None:
        """The time for an answer is over, or for the source to bring the body unasked."""
        if not waiting.asked:
            expected = self._sources.source(waiting.origin)
            if expected is not None:
                waiting.late_source = expected[0]
                self._early_asks -= 1
            return
        last_asked = max(waiting.asked, key=lambda peer: waiting.asked[peer])
        link = self._links.get(last_asked)
        if link is not None and not waiting.overdue:
            link.broken_promises += 1
            # Who promises first and brings nothing is not to become, or stay, anybody's source.
            self._sources.note(waiting.origin, last_asked, _LAG_MAX_MS)
            self.counted["promises_broken"] += 1

    def _put_off_all(self, message_id: bytes, waiting: _Waiting) -> list[PeerFrame]:
        frames: list[PeerFrame] = []
        for peer, number in list(waiting.offers):
            self._take_out(waiting, (peer, number))
            frames.append((peer, Deferred(number, "not_brought", PUT_OFF_RETRY_MS)))
        del self._waiting[message_id]
        return frames


def _best_upgrade(waiting: _Waiting) -> Upgrade:
    """The best TTL on offer; the others may be settled by it."""
    (peer, number), have = max(waiting.offers.items(), key=lambda item: item[1].ttl)
    return Upgrade(peer, number, have.message_id, have.origin, have.ttl, have.hop_value)
