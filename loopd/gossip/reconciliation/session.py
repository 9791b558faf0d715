"""One comparison of two sets, from the side that asks and from the side that answers.

Both work on a snapshot. The initiator narrows the differences down until it knows them; then the TTLs of what both hold
are compared, part by part, and each side knows what it can offer the other (see docs/protocol-notes.md, Repair):

    initiator.start()                     → the first message
    responder.receive(message)            → the answer
    initiator.receive(answer)             → the next message, None when the differences are known
    initiator.offers()                    → what the responder lacks
    initiator.next_ttls()                 → a part of the TTLs, None when all were answered
    responder.receive_ttls(part)          → the answer, and what to offer
    initiator.receive_ttls(answer)        → what to offer

A ProtocolError from any of them ends the session. Work and memory for a message are linear in its length and in the own
items, the number of messages is bounded, and so is what a session remembers.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from loopd.gossip.errors import ProtocolError
from loopd.gossip.reconciliation.items import ItemSet
from loopd.gossip.reconciliation.ttls import TtlAnswer, TtlPart, common_fingerprint, offered_ttl
from loopd.gossip.reconciliation.wire import (
    INFINITY,
    VERSION,
    MessageWriter,
    Mode,
    Range,
    fingerprint,
    message_version,
    read_ranges,
    separating_bound,
)
from loopd.protocol.limits import (
    FLOOD_TTL_MAX,
    RECONCILIATION_FRAME_MAX_BYTES,
    RECONCILIATION_FRAME_MIN_BYTES,
    RECONCILIATION_MESSAGES_MAX,
    RECONCILIATION_NEED_MAX,
    RECONCILIATION_TTLS_MAX,
)

# A range is split into that many; below twice as many items its ids are listed.
BRANCHES: Final = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """A message that the other side lacks, or holds with a lower TTL than `ttl`, which it would get from here.

    The hop value that goes with it is that of the stored copy hashed once, or as it is where this node is the origin.
    """

    message_id: bytes
    ttl: int


class _Side(ABC):
    """What both sides share."""

    def __init__(self, items: ItemSet, frame_max_bytes: int = RECONCILIATION_FRAME_MAX_BYTES) -> None:
        """`frame_max_bytes`: no message from here is longer. ValueError below the protocol's least, 4096."""
        if frame_max_bytes < RECONCILIATION_FRAME_MIN_BYTES:
            raise ValueError(f"a frame has at least {RECONCILIATION_FRAME_MIN_BYTES} bytes")
        self._items = items
        self._frame_max_bytes = frame_max_bytes
        self._received = 0

    def _count_message(self) -> None:
        self._received += 1
        if self._received > RECONCILIATION_MESSAGES_MAX:
            raise ProtocolError("too_many_messages", "The comparison does not come to an end.")

    def _answer(self, message: bytes) -> MessageWriter:
        """Go through the other side's ranges and write what is to be said to them, as far as the frame has room."""
        items, writer = self._items, MessageWriter(self._frame_max_bytes)
        lower = 0
        for part in read_ranges(message):
            upper = items.find(part.upper)
            before = writer.mark()
            reached = self._answer_range(writer, part, lower, upper)
            fits = writer.fits
            if not fits:
                writer.rewind(before)
                reached = lower
            if not fits or reached < upper:
                writer.cut(items.fingerprint(reached, len(items)))
                break
            lower = upper
        return writer

    def _answer_range(self, writer: MessageWriter, part: Range, lower: int, upper: int) -> int:
        """Answer one range; up to which index that was done."""
        if part.mode is Mode.ID_LIST:
            return self._answer_ids(writer, part, lower, upper)
        if part.mode is Mode.SKIP or part.payload == self._items.fingerprint(lower, upper):
            writer.skip(part.upper)
        else:
            self._split(writer, lower, upper, part.upper)
        return upper

    @abstractmethod
    def _answer_ids(self, writer: MessageWriter, part: Range, lower: int, upper: int) -> int:
        """Answer an id list; up to which index that was done."""

    def _split(self, writer: MessageWriter, lower: int, upper: int, upper_bound: bytes) -> None:
        """The ids of a range where they are few, else a fingerprint for each of its parts."""
        items, count = self._items, upper - lower
        if count < 2 * BRANCHES:
            writer.id_list(upper_bound, b"".join(items.ids(lower, upper)))
            return
        size, larger = divmod(count, BRANCHES)
        for branch in range(BRANCHES):
            end = lower + size + (branch < larger)
            bound = upper_bound if end == upper else separating_bound(items.key(end - 1), items.key(end))
            writer.fingerprint(bound, items.fingerprint(lower, end))
            lower = end


class Initiator(_Side):
    """The side that asks, and that learns the differences."""

    def __init__(
        self,
        items: ItemSet,
        frame_max_bytes: int = RECONCILIATION_FRAME_MAX_BYTES,
        need_max: int = RECONCILIATION_NEED_MAX,
    ) -> None:
        """`need_max`: how many ids it may lack, as many as this node holds at most; beyond: ProtocolError."""
        super().__init__(items, frame_max_bytes)
        self._need_max = need_max
        self._have: set[int] = set()
        # How many of the own items stand before each id that is needed.
        self._need: dict[bytes, int] = {}
        self._comparison: _Comparison | None = None
        self.ttls_differ = False
        """Whether the other side's set was not what it had told, for some part: what it lacks there stays unknown."""

    @property
    def have(self) -> list[bytes]:
        """The ids that only this side holds, in order."""
        return [self._items.message_id(index) for index in sorted(self._have)]

    @property
    def need(self) -> list[bytes]:
        """The ids that only the other side holds."""
        return list(self._need)

    def start(self) -> bytes:
        """The first message."""
        writer = MessageWriter(self._frame_max_bytes)
        self._split(writer, 0, len(self._items), INFINITY)
        return writer.message()

    def receive(self, message: bytes) -> bytes | None:
        """The next message; None when every difference is known. Raises ProtocolError."""
        self._count_message()
        if message_version(message) != VERSION:
            raise ProtocolError("unsupported_version", "The other side speaks another version.")
        writer = self._answer(message)
        return None if writer.is_empty else writer.message()

    def offers(self) -> list[Offer]:
        """What the other side lacks and can be given. A message held with TTL 1 is not given on."""
        items = self._items
        return [
            Offer(items.message_id(index), ttl)
            for index in sorted(self._have)
            if (ttl := offered_ttl(items.ttl(index), 0)) is not None
        ]

    def next_ttls(self) -> bytes | None:
        """The next part of the TTLs held, for all that the other side holds; None when there is no more.

        One part is under way at a time: the next one follows `receive_ttls`.
        """
        if self._comparison is None:
            self._comparison = _Comparison(self._items, self._have, self._need.values(), self._frame_max_bytes)
        return self._comparison.next_part()

    def receive_ttls(self, answer: bytes) -> list[Offer]:
        """What the other side holds with a TTL that this one can better. Raises ProtocolError."""
        if self._comparison is None:
            raise ProtocolError("unexpected", "Nobody asked for TTLs.")
        offers = self._comparison.receive(TtlAnswer.decode(answer))
        if offers is None:
            self.ttls_differ = True
        return offers or []

    def _answer_ids(self, writer: MessageWriter, part: Range, lower: int, upper: int) -> int:
        """Note the differences; nothing more is to be said of the range."""
        own = {item_id: index for index, item_id in enumerate(self._items.ids(lower, upper), lower)}
        place = lower
        for item_id in part.ids():
            index = own.pop(item_id, None)
            if index is None:
                self._need[item_id] = place
            else:
                place = max(place, index + 1)
        self._have.update(own.values())
        if len(self._need) > self._need_max:
            raise ProtocolError("too_many_items", "The other side lists more ids than a node holds.")
        writer.skip(part.upper)
        return upper


class Responder(_Side):
    """The side that answers. It remembers nothing of the differences: what it is asked for says enough."""

    def __init__(self, items: ItemSet, frame_max_bytes: int = RECONCILIATION_FRAME_MAX_BYTES) -> None:
        super().__init__(items, frame_max_bytes)
        self._compared = 0

    def receive(self, message: bytes) -> bytes:
        """The answer to a message; one byte, the version spoken here, to another version. Raises ProtocolError."""
        self._count_message()
        if message_version(message) != VERSION:
            return bytes((VERSION,))
        return self._answer(message).message()

    def receive_ttls(self, message: bytes) -> tuple[bytes, list[Offer]]:
        """The answer to a part of the TTLs, and what to offer: what is lacked there, or can be bettered.

        Raises ProtocolError. Parts come in order and touch each other, so that no item is compared twice.
        """
        part = TtlPart.decode(message)
        if part.start != self._compared:
            raise ProtocolError("bad_part", "A part of the TTLs does not follow the one before.")
        self._count_message()
        self._compared = end = part.start + len(part.ttls)
        items = self._items
        lacked = [index for index, ttl in enumerate(part.ttls, part.start) if ttl == 0]
        if end > len(items) or common_fingerprint(items, part.start, end, lacked) != part.fingerprint:
            return TtlAnswer(part.start, None).encode(), []
        offers: list[Offer] = []
        answer = bytearray()
        for place, held in enumerate(items.ttls(part.start, end)):
            theirs = part.ttls[place]
            if theirs:
                answer.append(min(held, FLOOD_TTL_MAX))
            ttl = offered_ttl(held, theirs)
            if ttl is not None:
                offers.append(Offer(items.message_id(part.start + place), ttl))
        return TtlAnswer(part.start, bytes(answer)).encode(), offers

    def _answer_ids(self, writer: MessageWriter, part: Range, lower: int, upper: int) -> int:
        """The own ids of the range, as many as the frame has room for: the initiator learns both differences."""
        items = self._items
        reached = min(upper, lower + writer.ids_that_fit)
        bound = part.upper
        if reached < upper:
            if reached == lower:
                return lower
            bound = separating_bound(items.key(reached - 1), items.key(reached))
        writer.id_list(bound, b"".join(items.ids(lower, reached)))
        return reached


class _Comparison:
    """The initiator's TTLs, in the order of the responder's items, which it knows by now: what it lacks has TTL 0."""

    def __init__(self, items: ItemSet, have: set[int], need_places: Iterable[int], frame_max_bytes: int) -> None:
        self._items = items
        self._have = sorted(have)
        self._part_max = min(RECONCILIATION_TTLS_MAX, TtlPart.items_within(frame_max_bytes))
        self._ttls = bytearray()
        # The own index of every item that both hold.
        self._common = array("Q")
        needed = Counter(need_places)
        for index, ttl in enumerate(items.ttls(0, len(items))):
            self._ttls += bytes(needed[index]) if index in needed else b""
            if index not in have:
                self._ttls.append(min(ttl, FLOOD_TTL_MAX))
                self._common.append(index)
        self._ttls += bytes(needed[len(items)])
        self._start = 0
        self._common_start = 0
        self._asked: TtlPart | None = None

    def next_part(self) -> bytes | None:
        if self._asked is not None:
            raise RuntimeError("the part before was not answered yet")
        if self._start == len(self._ttls):
            return None
        ttls = bytes(self._ttls[self._start : self._start + self._part_max])
        common = self._common_of(ttls)
        digest = fingerprint(0, 0)
        if common:
            lower, upper = common[0], common[-1] + 1
            left_out = self._have[bisect_left(self._have, lower) : bisect_left(self._have, upper)]
            digest = common_fingerprint(self._items, lower, upper, left_out)
        self._asked = TtlPart(self._start, digest, ttls)
        return self._asked.encode()

    def receive(self, answer: TtlAnswer) -> list[Offer] | None:
        """What to offer; None where the sets are not what they seemed."""
        asked = self._asked
        if asked is None or answer.start != asked.start:
            raise ProtocolError("unexpected", "An answer belongs to no part of the TTLs.")
        common = self._common_of(asked.ttls)
        if answer.ttls is not None and len(answer.ttls) != len(common):
            raise ProtocolError("bad_length", "An answer has another number of TTLs than both sides hold.")
        self._asked = None
        self._start += len(asked.ttls)
        self._common_start += len(common)
        if answer.ttls is None:
            return None
        items = self._items
        return [
            Offer(items.message_id(index), ttl)
            for index, theirs in zip(common, answer.ttls, strict=True)
            if (ttl := offered_ttl(items.ttl(index), theirs)) is not None
        ]

    def _common_of(self, ttls: bytes) -> "array[int]":
        count = len(ttls) - ttls.count(0)
        return self._common[self._common_start : self._common_start + count]
