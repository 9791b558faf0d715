"""The sending half of one link: what was offered over it and is not settled, and how far its peer got in the log."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from loopd.gossip.frames import Copy, Frame, Have
from loopd.gossip.remembered import Remembered
from loopd.protocol.limits import (
    FLOOD_TTL_MAX,
    LINK_BODY_MAX_BYTES,
    LINK_OFFERS_MAX,
    LINK_OFFERS_MAX_BYTES,
    SPREAD_MESSAGES_REMEMBERED,
)

# Who holds a message so well has no use for any offer of it.
NOTHING_BETTER_TTL: Final = FLOOD_TTL_MAX + 1


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the outbox that is to go to a peer; `ttl` and `hop_value` are those of the outgoing copy.

    `entry` is its place in the log. `repeated`: an earlier entry is of the same message.
    """

    entry: int
    message_id: bytes
    origin: str
    origin_timestamp: str
    origin_signature: str
    ttl: int
    hop_value: bytes | None
    body: bytes
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Offers:
    """What became of the log entries given to `Spread.offers`.

    `taken` of them, from the front, were taken up; the rest have to wait. `frames` are to be sent. `needless` are
    settled without a frame, for the peer has shown that it holds as good a copy. `too_long` are to stand aside and go
    as requests of §8.2, before the cursor passes them. Both are places in the log; `cursor` is as in `Progress`.
    """

    frames: list[Frame]
    taken: int
    needless: list[int]
    too_long: list[int]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class Progress:
    """An offer is settled. `entry` is its place in the log, `reason` what the peer said.

    `retry_after_ms` is given where the peer cannot settle it now: the entry is to stand aside and be offered again.
    `cursor`: everything up to this place is settled or stands aside; None where that is as before, or the entry was
    not offered in order.
    """

    entry: int
    message_id: bytes
    origin: str
    reason: str
    retry_after_ms: int | None
    cursor: int | None


@dataclass(slots=True)
class Offer:
    """An offer in flight."""

    entry: LogEntry
    number: int
    in_order: bool
    with_body: bool

    def copy(self) -> Copy:
        entry = self.entry
        return Copy(
            self.number,
            entry.origin,
            entry.origin_timestamp,
            entry.origin_signature,
            entry.ttl,
            entry.hop_value,
            entry.body,
        )

    def have(self) -> Have:
        entry = self.entry
        return Have(self.number, entry.message_id, entry.ttl, entry.hop_value, entry.origin)


@dataclass(slots=True)
class Offering:
    """One link's offers. `peer_holds`: the best TTL at which its peer has shown to hold a message.

    `numbers` are those of all links of this node, so that what one link's offer was answered is never taken for the
    answer to one of the link that came after it.
    """

    numbers: Iterator[int]
    peer_holds: Remembered[bytes, int] = field(default_factory=lambda: Remembered(SPREAD_MESSAGES_REMEMBERED))
    _offered: Remembered[bytes, None] = field(default_factory=lambda: Remembered(SPREAD_MESSAGES_REMEMBERED))
    _in_flight: dict[int, Offer] = field(default_factory=dict)
    _in_flight_of: dict[bytes, list[Offer]] = field(default_factory=dict)
    _in_flight_bytes: int = 0
    # Places in the log in the order they were offered, until the first of them is settled.
    _order: deque[int] = field(default_factory=deque)
    _settled: set[int] = field(default_factory=set)

    @property
    def in_flight(self) -> int:
        """Offers that are not settled."""
        return len(self._in_flight)

    @property
    def room(self) -> int:
        """How many more offers can be made now."""
        full = self._in_flight_bytes >= LINK_OFFERS_MAX_BYTES
        return 0 if full else LINK_OFFERS_MAX - max(len(self._in_flight), len(self._order))

    def note_holding(self, message_id: bytes, ttl: int) -> None:
        """The peer has shown that it holds the message at this TTL."""
        if ttl > self.peer_holds.get(message_id, 0):
            self.peer_holds[message_id] = ttl

    def take_up(self, entry: LogEntry, eager: bool, in_order: bool) -> Frame | None:
        """Offer an entry. None where that is needless: it is settled at once."""
        if in_order:
            self._order.append(entry.entry)
        if self.peer_holds.get(entry.message_id, 0) >= entry.ttl or len(entry.body) > LINK_BODY_MAX_BYTES:
            if in_order:
                self._settled.add(entry.entry)
            return None
        with_body = eager and not entry.repeated and entry.message_id not in self._offered
        offer = Offer(entry, next(self.numbers), in_order, with_body)
        self._offered[entry.message_id] = None
        self._in_flight[offer.number] = offer
        self._in_flight_of.setdefault(entry.message_id, []).append(offer)
        self._in_flight_bytes += len(entry.body)
        return offer.copy() if with_body else offer.have()

    def pass_over(self, entry: int) -> None:
        """An entry that does not go to this peer: the cursor may pass it once it passed those before."""
        self._order.append(entry)
        self._settled.add(entry)

    def wanted(self, message_id: bytes) -> Copy | None:
        """The body for a Want: once for each message in flight, and only for one. The best offer of it is taken up."""
        offers = self._in_flight_of.get(message_id, [])
        if not offers or any(offer.with_body for offer in offers):
            return None
        best = max(offers, key=lambda offer: offer.entry.ttl)
        best.with_body = True
        return best.copy()

    def settle(self, number: int) -> Offer | None:
        """Take an offer out of flight; None where there is none of this number."""
        offer = self._in_flight.pop(number, None)
        if offer is None:
            return None
        of_message = self._in_flight_of[offer.entry.message_id]
        of_message.remove(offer)
        if not of_message:
            del self._in_flight_of[offer.entry.message_id]
        self._in_flight_bytes -= len(offer.entry.body)
        if offer.in_order:
            self._settled.add(offer.entry.entry)
        return offer

    def advance(self) -> int | None:
        """The place in the log up to which everything is settled, if that has changed."""
        cursor = None
        while self._order and self._order[0] in self._settled:
            cursor = self._order.popleft()
            self._settled.remove(cursor)
        return cursor
