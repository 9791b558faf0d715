"""The negentropy v1 message: a version byte, then ranges in ascending order (see docs/protocol-notes.md, Repair).

A key is an item as 40 bytes, timestamp big-endian, then id: bytes compare as items do. Every range begins where the one
before ended, the first at the lowest key; what follows the last, up to `INFINITY`, is settled.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from loopd.gossip.errors import ProtocolError

VERSION: Final = 0x61
# First bytes that name a version at all; others are no message of this protocol.
VERSIONS: Final = range(0x60, 0x70)

ID_BYTES: Final = 32
TIMESTAMP_BYTES: Final = 8
KEY_BYTES: Final = TIMESTAMP_BYTES + ID_BYTES
FINGERPRINT_BYTES: Final = 16
SUM_MASK: Final = (1 << 256) - 1

# The timestamp that is no item's.
INFINITE_TIMESTAMP: Final = 2**64 - 1
LOWEST: Final = bytes(KEY_BYTES)
INFINITY: Final = INFINITE_TIMESTAMP.to_bytes(TIMESTAMP_BYTES) + bytes(ID_BYTES)

_VARINT_MAX_BITS: Final = 64
_VARINT_MAX_BYTES: Final = 10
_MODE_BYTES: Final = 1
_BOUND_MAX_BYTES: Final = _VARINT_MAX_BYTES + 1 + ID_BYTES
_SKIP_MAX_BYTES: Final = _BOUND_MAX_BYTES + _MODE_BYTES
# What must stay free until the end: the skip that waits, and one fingerprint up to infinity.
_REMAINDER_MAX_BYTES: Final = _SKIP_MAX_BYTES + 2 + _MODE_BYTES + FINGERPRINT_BYTES
_ID_LIST_HEAD_MAX_BYTES: Final = _BOUND_MAX_BYTES + _MODE_BYTES + _VARINT_MAX_BYTES


class Mode(IntEnum):
    """What a range carries."""

    SKIP = 0
    FINGERPRINT = 1
    ID_LIST = 2


@dataclass(frozen=True, slots=True)
class Range:
    """One range up to `upper`, exclusive. `payload`: nothing, the fingerprint, or the ids one after the other."""

    upper: bytes
    mode: Mode
    payload: bytes

    def ids(self) -> Iterator[bytes]:
        """The ids of an id list, in the order they were sent."""
        return (self.payload[at : at + ID_BYTES] for at in range(0, len(self.payload), ID_BYTES))


def item_key(timestamp_ms: int, item_id: bytes) -> bytes:
    """An item as a key. ValueError for an id that is not 32 bytes, and for a timestamp that no item can have."""
    if len(item_id) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes")
    if not 0 <= timestamp_ms < INFINITE_TIMESTAMP:
        raise ValueError("a timestamp is a 64-bit integer below infinity")
    return timestamp_ms.to_bytes(TIMESTAMP_BYTES) + item_id


def separating_bound(before: bytes, key: bytes) -> bytes:
    """The shortest bound above `before` and not above `key`, which is the item after it; filled up with zeros."""
    if before[:TIMESTAMP_BYTES] != key[:TIMESTAMP_BYTES]:
        return key[:TIMESTAMP_BYTES] + bytes(ID_BYTES)
    length = next(at for at in range(TIMESTAMP_BYTES, KEY_BYTES) if before[at] != key[at]) + 1
    return key[:length] + bytes(KEY_BYTES - length)


def fingerprint(id_sum: int, count: int) -> bytes:
    """16 bytes for a set of ids, from their sum as little-endian integers and their number."""
    total = (id_sum & SUM_MASK).to_bytes(ID_BYTES, "little")
    return hashlib.sha256(total + encode_varint(count)).digest()[:FINGERPRINT_BYTES]


def encode_varint(value: int) -> bytes:
    """Base 128, most significant digit first, the high bit on all digits but the last."""
    digits = bytearray((value & 0x7F,))
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    digits.reverse()
    return bytes(digits)


class Reader:
    """Bytes from a peer, taken from the front. Every method raises ProtocolError where they do not hold."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes were not taken yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise ProtocolError("truncated", "The message ends in the middle of a field.")
        self._at += count
        return self._data[self._at - count : self._at]

    def varint(self) -> int:
        """The next varint, in as few digits as possible and at most 64 bits."""
        value = 0
        first = True
        while True:
            digit = self.take(1)[0]
            if first and digit == 0x80:
                raise ProtocolError("bad_varint", "A varint begins with a digit that says nothing.")
            value = value << 7 | digit & 0x7F
            if value >> _VARINT_MAX_BITS:
                raise ProtocolError("bad_varint", "A varint has more than 64 bits.")
            if digit < 0x80:
                return value
            first = False


def message_version(message: bytes) -> int:
    """The version byte. ProtocolError where there is none."""
    if not message or message[0] not in VERSIONS:
        raise ProtocolError("no_version", "The message does not begin with a version.")
    return message[0]


def read_ranges(message: bytes) -> list[Range]:
    """The ranges of a message of this version, the whole of it checked. Raises ProtocolError.

    An id stands in a message once. The work is linear in the message's length.
    """
    reader = Reader(message)
    reader.take(1)
    ranges: list[Range] = []
    listed: set[bytes] = set()
    lower, timestamp = LOWEST, 0
    while reader.left:
        if lower == INFINITY:
            raise ProtocolError("bad_bound", "A range follows the one that ends at infinity.")
        upper, timestamp = _read_bound(reader, timestamp)
        if upper < lower:
            raise ProtocolError("bad_bound", "A range ends before it begins.")
        part = Range(upper, *_read_payload(reader))
        if part.mode is Mode.ID_LIST:
            ids_before = len(listed)
            listed.update(part.ids())
            if len(listed) - ids_before < len(part.payload) // ID_BYTES:
                raise ProtocolError("duplicate_id", "An id is listed twice.")
        ranges.append(part)
        lower = upper
    return ranges


def _read_bound(reader: Reader, timestamp_before: int) -> tuple[bytes, int]:
    step = reader.varint()
    length = reader.varint()
    if length > ID_BYTES:
        raise ProtocolError("bad_bound", "The prefix of a bound is longer than an id.")
    prefix = reader.take(length)
    if step == 0:
        if prefix:
            raise ProtocolError("bad_bound", "Infinity has no prefix.")
        return INFINITY, timestamp_before
    timestamp = timestamp_before + step - 1
    if timestamp >= INFINITE_TIMESTAMP:
        raise ProtocolError("bad_bound", "A bound has a timestamp beyond 64 bits.")
    return timestamp.to_bytes(TIMESTAMP_BYTES) + prefix + bytes(ID_BYTES - length), timestamp


def _read_payload(reader: Reader) -> tuple[Mode, bytes]:
    match reader.varint():
        case Mode.SKIP:
            return Mode.SKIP, b""
        case Mode.FINGERPRINT:
            return Mode.FINGERPRINT, reader.take(FINGERPRINT_BYTES)
        case Mode.ID_LIST:
            return Mode.ID_LIST, reader.take(reader.varint() * ID_BYTES)
        case _:
            raise ProtocolError("bad_mode", "A range has a mode that does not exist.")


class MessageWriter:
    """A message being written. Skips that touch are joined; one that nothing follows is left out.

    Whoever writes a range asks `fits` after it, and `rewind`s to before it if not; `cut` then always has room.
    """

    def __init__(self, frame_max_bytes: int) -> None:
        self._room = frame_max_bytes - _REMAINDER_MAX_BYTES
        self._data = bytearray((VERSION,))
        self._timestamp = 0
        self._skip_to: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it says that everything is settled."""
        return len(self._data) == 1

    @property
    def fits(self) -> bool:
        """Whether what was written leaves room for `cut`."""
        return len(self._data) <= self._room

    @property
    def ids_that_fit(self) -> int:
        """How many ids the next range can list."""
        waiting = 0 if self._skip_to is None else _SKIP_MAX_BYTES
        return max(0, (self._room - len(self._data) - waiting - _ID_LIST_HEAD_MAX_BYTES) // ID_BYTES)

    def mark(self) -> tuple[int, int, bytes | None]:
        """This place, for `rewind`."""
        return len(self._data), self._timestamp, self._skip_to

    def rewind(self, mark: tuple[int, int, bytes | None]) -> None:
        """Take back everything since the mark."""
        length, self._timestamp, self._skip_to = mark
        del self._data[length:]

    def skip(self, upper: bytes) -> None:
        """A range that is settled, or that the other side is not to be asked about."""
        self._skip_to = upper

    def fingerprint(self, upper: bytes, value: bytes) -> None:
        """A range to be compared."""
        self._begin(upper, Mode.FINGERPRINT)
        self._data += value

    def id_list(self, upper: bytes, ids: bytes) -> None:
        """All ids of a range, one after the other."""
        self._begin(upper, Mode.ID_LIST)
        self._data += encode_varint(len(ids) // ID_BYTES)
        self._data += ids

    def cut(self, value: bytes) -> None:
        """End here: one fingerprint for everything from here up to infinity."""
        self.fingerprint(INFINITY, value)

    def message(self) -> bytes:
        """What was written."""
        return bytes(self._data)

    def _begin(self, upper: bytes, mode: Mode) -> None:
        if self._skip_to is not None:
            self._bound(self._skip_to)
            self._data.append(Mode.SKIP)
            self._skip_to = None
        self._bound(upper)
        self._data.append(mode)

    def _bound(self, key: bytes) -> None:
        if key == INFINITY:
            self._data += b"\x00\x00"
            return
        timestamp = int.from_bytes(key[:TIMESTAMP_BYTES])
        prefix = key[TIMESTAMP_BYTES:].rstrip(b"\x00")
        self._data += encode_varint(timestamp - self._timestamp + 1)
        self._timestamp = timestamp
        self._data.append(len(prefix))
        self._data += prefix
