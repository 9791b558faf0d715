"""The TTLs of what both sides hold, two bits an item, and who can give whom a better one.

The initiator knows the responder's items by then, and so speaks of them in their order: 0 where it lacks the item,
else the TTL it holds. A digest of what both hold stands first: where the responder computes another one, the two do not
speak of the same items, and it says so. It answers with its own TTLs of what both hold, in the same order.

    part    = version, fingerprint (16 bytes), start (varint), count (varint), TTLs
    answer  = version, start (varint), 1, count (varint), TTLs    or    version, start (varint), 0: the sets differ

TTLs are packed four in a byte, the first in the lowest bits, and filled up with zeros. `start` counts the responder's
items before the part.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from loopd.gossip.errors import ProtocolError
from loopd.gossip.reconciliation.items import ItemSet
from loopd.gossip.reconciliation.wire import FINGERPRINT_BYTES, Reader, encode_varint, fingerprint
from loopd.protocol.limits import RECONCILIATION_TTLS_MAX

VERSION: Final = 1

_IN_A_BYTE: Final = 4
_PART_HEAD_MAX_BYTES: Final = 1 + FINGERPRINT_BYTES + 2 * 10


@dataclass(frozen=True, slots=True)
class TtlPart:
    """The initiator's TTLs for the responder's items from index `start` on, a byte each; 0 where it lacks the item."""

    start: int
    fingerprint: bytes
    ttls: bytes

    @staticmethod
    def items_within(frame_max_bytes: int) -> int:
        """How many items a part can speak of in a frame of this size."""
        return (frame_max_bytes - _PART_HEAD_MAX_BYTES) * _IN_A_BYTE

    def encode(self) -> bytes:
        """The part as bytes."""
        return bytes((VERSION,)) + self.fingerprint + encode_varint(self.start) + _pack(self.ttls)

    @classmethod
    def decode(cls, data: bytes) -> "TtlPart":
        """A part from a peer. Raises ProtocolError; one that speaks of no item is none."""
        reader = _reader(data)
        common = reader.take(FINGERPRINT_BYTES)
        start = reader.varint()
        ttls = _unpack(reader)
        if not ttls:
            raise ProtocolError("bad_length", "A part of the TTLs is empty.")
        return cls(start, common, ttls)


@dataclass(frozen=True, slots=True)
class TtlAnswer:
    """The responder's TTLs of what both hold of a part, one byte each; None where the sets differ."""

    start: int
    ttls: bytes | None

    def encode(self) -> bytes:
        """The answer as bytes."""
        head = bytes((VERSION,)) + encode_varint(self.start)
        return head + b"\x00" if self.ttls is None else head + b"\x01" + _pack(self.ttls)

    @classmethod
    def decode(cls, data: bytes) -> "TtlAnswer":
        """An answer from a peer. Raises ProtocolError."""
        reader = _reader(data)
        start = reader.varint()
        agreed = reader.take(1)
        if agreed not in (b"\x00", b"\x01"):
            raise ProtocolError("bad_mode", "An answer neither agrees nor differs.")
        ttls = _unpack(reader) if agreed == b"\x01" else None
        if reader.left:
            raise ProtocolError("bad_length", "More follows the end of the answer.")
        if ttls is not None and 0 in ttls:
            raise ProtocolError("bad_ttl", "Both sides hold the item, so it has a TTL.")
        return cls(start, ttls)


def offered_ttl(own: int, theirs: int) -> int | None:
    """The TTL that the holder of `own` can give to the holder of `theirs` (0: lacked); None where that is no better."""
    return own - 1 if own - 1 > theirs else None


def common_fingerprint(items: ItemSet, lower: int, upper: int, left_out: Iterable[int]) -> bytes:
    """The fingerprint of a range without the items at some of its indexes."""
    id_sum, count = items.id_sum(lower, upper), upper - lower
    for index in left_out:
        id_sum -= int.from_bytes(items.message_id(index), "little")
        count -= 1
    return fingerprint(id_sum, count)


def _reader(data: bytes) -> Reader:
    reader = Reader(data)
    if reader.take(1)[0] != VERSION:
        raise ProtocolError("no_version", "The TTLs come in a form that is not known here.")
    return reader


def _pack(ttls: bytes) -> bytes:
    padded = ttls + bytes(-len(ttls) % _IN_A_BYTE)
    fours = zip(padded[0::4], padded[1::4], padded[2::4], padded[3::4], strict=True)
    return encode_varint(len(ttls)) + bytes(a | b << 2 | c << 4 | d << 6 for a, b, c, d in fours)


def _unpack(reader: Reader) -> bytes:
    count = reader.varint()
    if count > RECONCILIATION_TTLS_MAX:
        raise ProtocolError("bad_length", "A message has too many TTLs.")
    packed = reader.take(-(-count // _IN_A_BYTE))
    if reader.left:
        raise ProtocolError("bad_length", "More follows the last TTL.")
    ttls = bytearray(len(packed) * _IN_A_BYTE)
    for place in range(_IN_A_BYTE):
        ttls[place::_IN_A_BYTE] = bytes(four >> 2 * place & 3 for four in packed)
    if any(ttls[count:]):
        raise ProtocolError("bad_length", "What fills up the last byte is not zero.")
    return bytes(ttls[:count])
