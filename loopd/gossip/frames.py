"""What two nodes say to each other over a link: frames, and batches of them as bytes.

A batch is two bytes and a msgpack array. The first byte is the version of the frames, the second is 1 where the array
is packed with zlib and 0 where it is not. The array's items are frames: the number of the kind, then the fields.

    Dialect(version, packs, skips_unknown)          what both sides agreed on when the link was made; `agree` finds it
    encode_batch(frames, dialect) -> bytes          ValueError for a frame that nobody would take
    decode_batch(data, dialect) -> list[Frame]      the frames, or ProtocolError; nothing else for any bytes
    encode_frame(frame) -> bytes                    one packed frame, for a queue that counts bytes
    join_batch(packed, dialect) -> bytes            a batch of packed frames
    priority(frame) -> Priority                     health before repair before bulk
    takes_credit(frame) -> bool                     whether the receiver must have granted room for it

Nothing is converted: a field of another type, beyond its ceiling, missing or too many is a protocol error, and so are
extension types, maps, floats and bytes after the end. Kinds that this node does not know are skipped only where both
sides agreed so, which is what lets a later version say more to those that understand it.

A batch is packed where that pays: from `PACKED_FROM_BYTES` on, and if it came out smaller. Announcements share most of
their text: two of them (1.7 kB) shrink to a half, eight to 28 %, two hundred to 22 %, for 5 to 20 µs a kB. One alone
gains a third at the highest cost, ids next to nothing.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, Final

import msgpack  # type: ignore[import-untyped]

from loopd.crypto.hop_chain import HOP_VALUE_BYTES
from loopd.gossip.errors import ProtocolError
from loopd.protocol.ids import NODE_ID_MAX_CHARACTERS
from loopd.protocol.limits import (
    FLOOD_TTL_MAX,
    LINK_BATCH_MAX_BYTES,
    LINK_BATCH_MAX_FRAMES,
    LINK_BODY_MAX_BYTES,
    LINK_CREDIT_MAX_BYTES,
    LINK_CREDIT_MAX_FRAMES,
    LINK_HEADER_MAX_CHARACTERS,
    LINK_HEADERS_MAX,
    RETRY_AFTER_MAX_MS,
)

FRAME_VERSION: Final = 1
MESSAGE_ID_BYTES: Final = 32
# Below this a batch is sent as it is.
PACKED_FROM_BYTES: Final = 1024

_HEAD_BYTES: Final = 2
# What the array's own head takes at most.
_ARRAY_HEAD_BYTES: Final = 5
_PLAIN, _PACKED = 0, 1
_PACKING_LEVEL: Final = 1
_NUMBER_MAX: Final = 2**53 - 1
_REASON_MAX_CHARACTERS: Final = 64
_PATH_MAX_CHARACTERS: Final = 1024
_TIMESTAMP_MAX_CHARACTERS: Final = 64
_SIGNATURE_MAX_CHARACTERS: Final = 128


class Priority(IntEnum):
    """Which frame goes first where several wait."""

    HEALTH = 0
    REPAIR = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Copy:
    """A whole message. `number` is the sender's running number of an offer on this link.

    `ttl` and `hop_value` are those of this copy. In answer to a Want the number is that of the offer it took up.
    """

    KIND: ClassVar[int] = 1
    number: int
    origin: str
    origin_timestamp: str
    origin_signature: str
    ttl: int
    hop_value: bytes | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Have:
    """I can give you this message, at this TTL: an offer without the body, and how a better TTL travels.

    `origin` says whose message it is, so that the receiver can tell which link is likely to bring it.
    """

    KIND: ClassVar[int] = 2
    number: int
    message_id: bytes
    ttl: int
    hop_value: bytes | None
    origin: str


@dataclass(frozen=True, slots=True)
class Want:
    """Send me the body of a message that you offered."""

    KIND: ClassVar[int] = 3
    message_id: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The offer is settled for good, and what it changed is durable; `reason` is the flood's reason code.

    `eager`: send bodies of this origin unasked; else offer their ids first.
    """

    KIND: ClassVar[int] = 4
    number: int
    reason: str
    eager: bool


@dataclass(frozen=True, slots=True)
class Deferred:
    """The offer cannot be settled now. Offer it again, under a new number, after so long."""

    KIND: ClassVar[int] = 5
    number: int
    reason: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request for this node alone, such as a bid; it means what it means over HTTP."""

    KIND: ClassVar[int] = 6
    number: int
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to the request of the same number."""

    KIND: ClassVar[int] = 7
    number: int
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? `incarnation` is the sender's."""

    KIND: ClassVar[int] = 8
    number: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Yes; or, in answer to a PingRequest, its target is. `incarnation` is that of the node that is there."""

    KIND: ClassVar[int] = 9
    number: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Is the target there, as you see it?"""

    KIND: ClassVar[int] = 10
    number: int
    target: str


@dataclass(frozen=True, slots=True)
class Nack:
    """I am here, but the target of your PingRequest does not answer me either."""

    KIND: ClassVar[int] = 11
    number: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """The sender suspects this node, as of this incarnation."""

    KIND: ClassVar[int] = 12
    node_id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Alive:
    """This node is there, as of this incarnation."""

    KIND: ClassVar[int] = 13
    node_id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Reconcile:
    """One message of a reconciliation of ids."""

    KIND: ClassVar[int] = 14
    session: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ReconcileTtls:
    """One message of the comparison of TTLs that follows it."""

    KIND: ClassVar[int] = 15
    session: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """Room for so many more bytes and frames of those that take credit."""

    KIND: ClassVar[int] = 16
    bytes: int
    frames: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The link ends in good order."""

    KIND: ClassVar[int] = 17
    reason: str


Frame = (
    Copy
    | Have
    | Want
    | Done
    | Deferred
    | Request
    | Response
    | Ping
    | Ack
    | PingRequest
    | Nack
    | Suspect
    | Alive
    | Reconcile
    | ReconcileTtls
    | Credit
    | Goodbye
)
FRAME_TYPES: Final[tuple[type[Frame], ...]] = (
    Copy,
    Have,
    Want,
    Done,
    Deferred,
    Request,
    Response,
    Ping,
    Ack,
    PingRequest,
    Nack,
    Suspect,
    Alive,
    Reconcile,
    ReconcileTtls,
    Credit,
    Goodbye,
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What both sides of a link agreed on. `packs`: batches may come packed."""

    version: int = FRAME_VERSION
    packs: bool = False
    skips_unknown: bool = False


# What this version of loopd can do; each side names it when the link is made.
OWN_DIALECT: Final = Dialect(FRAME_VERSION, packs=True, skips_unknown=True)


def agree(ours: Dialect, theirs: Dialect) -> Dialect:
    """The dialect of a link: the lower version, and what both can do."""
    return Dialect(
        min(ours.version, theirs.version), ours.packs and theirs.packs, ours.skips_unknown and theirs.skips_unknown
    )


_PRIORITIES: Final[dict[type[Frame], Priority]] = {
    **dict.fromkeys((Ping, Ack, PingRequest, Nack, Suspect, Alive, Credit, Goodbye), Priority.HEALTH),
    **dict.fromkeys((Have, Want, Done, Deferred, Reconcile, ReconcileTtls), Priority.REPAIR),
    **dict.fromkeys((Copy, Request, Response), Priority.BULK),
}
# Answers and health never wait for credit: whoever grants none stops what is new, not what keeps the link going.
_TAKES_CREDIT: Final = frozenset({Copy, Have, Request, Response, Reconcile, ReconcileTtls})


def priority(frame: Frame) -> Priority:
    """How urgent a frame is. Frames of the same urgency keep their order."""
    return _PRIORITIES[type(frame)]


def takes_credit(frame: Frame) -> bool:
    """Whether a frame may be sent only into room that the receiver granted."""
    return type(frame) in _TAKES_CREDIT


Check = Callable[[Any], bool]


def _number(low: int, high: int) -> Check:
    # The exact type: true is no number.
    return lambda value: type(value) is int and low <= value <= high


def _text(longest: int, shortest: int = 1) -> Check:
    return lambda value: type(value) is str and shortest <= len(value) <= longest


def _octets(longest: int, shortest: int = 0) -> Check:
    return lambda value: type(value) is bytes and shortest <= len(value) <= longest


def _is_hop_value(value: Any) -> bool:
    return value is None or (type(value) is bytes and len(value) == HOP_VALUE_BYTES)


def _are_headers(value: Any) -> bool:
    if type(value) is not tuple or len(value) > LINK_HEADERS_MAX:
        return False
    return all(type(pair) is tuple and len(pair) == 2 and _is_name(pair[0]) and _is_value(pair[1]) for pair in value)


_is_name: Final = _text(LINK_HEADER_MAX_CHARACTERS)
_is_value: Final = _text(LINK_HEADER_MAX_CHARACTERS, shortest=0)
_CHECKS: Final[dict[str, Check]] = {
    "number": _number(0, _NUMBER_MAX),
    "incarnation": _number(0, _NUMBER_MAX),
    "session": _number(0, _NUMBER_MAX),
    "ttl": _number(1, FLOOD_TTL_MAX),
    "status": _number(100, 599),
    "retry_after_ms": _number(0, RETRY_AFTER_MAX_MS),
    "bytes": _number(0, LINK_CREDIT_MAX_BYTES),
    "frames": _number(0, LINK_CREDIT_MAX_FRAMES),
    "origin": _text(NODE_ID_MAX_CHARACTERS),
    "target": _text(NODE_ID_MAX_CHARACTERS),
    "node_id": _text(NODE_ID_MAX_CHARACTERS),
    "origin_timestamp": _text(_TIMESTAMP_MAX_CHARACTERS),
    "origin_signature": _text(_SIGNATURE_MAX_CHARACTERS),
    "reason": _text(_REASON_MAX_CHARACTERS),
    "method": _text(16),
    "path": _text(_PATH_MAX_CHARACTERS),
    "message_id": _octets(MESSAGE_ID_BYTES, MESSAGE_ID_BYTES),
    "body": _octets(LINK_BODY_MAX_BYTES),
    "payload": _octets(LINK_BODY_MAX_BYTES),
    "hop_value": _is_hop_value,
    "headers": _are_headers,
    "eager": lambda value: type(value) is bool,
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of frame is read."""

    frame_type: type[Frame]
    names: tuple[str, ...]
    checks: tuple[Check, ...]

    def values(self, frame: Frame) -> list[Any]:
        return [getattr(frame, name) for name in self.names]

    def wrong_field(self, values: Sequence[Any]) -> str | None:
        for name, check, value in zip(self.names, self.checks, values, strict=True):
            if not check(value):
                return name
        return None


def _shape(frame_type: type[Frame]) -> _Shape:
    names = tuple(field.name for field in fields(frame_type))
    return _Shape(frame_type, names, tuple(_CHECKS[name] for name in names))


_SHAPES: Final = {frame_type.KIND: _shape(frame_type) for frame_type in FRAME_TYPES}


def encode_frame(frame: Frame) -> bytes:
    """One frame, as it stands in a batch. ValueError where a field is beyond what a receiver takes."""
    shape = _SHAPES[frame.KIND]
    values = shape.values(frame)
    wrong = shape.wrong_field(values)
    if wrong is not None:
        raise ValueError(f"{type(frame).__name__}.{wrong} is not one that can be sent")
    packed: bytes = msgpack.packb([frame.KIND, *values], use_bin_type=True)
    return packed


def join_batch(packed: Sequence[bytes], dialect: Dialect) -> bytes:
    """A batch of frames that `encode_frame` gave. ValueError where they are more than a batch takes."""
    array: bytes = msgpack.Packer().pack_array_header(len(packed)) + b"".join(packed)
    if len(packed) > LINK_BATCH_MAX_FRAMES or len(array) + _HEAD_BYTES > LINK_BATCH_MAX_BYTES:
        raise ValueError("these are more frames, or longer ones, than a batch takes")
    if dialect.packs and len(array) >= PACKED_FROM_BYTES:
        packed_array = zlib.compress(array, _PACKING_LEVEL)
        if len(packed_array) < len(array):
            return bytes((dialect.version, _PACKED)) + packed_array
    return bytes((dialect.version, _PLAIN)) + array


def fits(frames: int, size_bytes: int) -> bool:
    """Whether so many packed frames of that size together can go as one batch."""
    return frames <= LINK_BATCH_MAX_FRAMES and size_bytes + _HEAD_BYTES + _ARRAY_HEAD_BYTES <= LINK_BATCH_MAX_BYTES


def encode_batch(frames: Sequence[Frame], dialect: Dialect = OWN_DIALECT) -> bytes:
    """The frames as one batch. ValueError where they, or one of them, are more than a receiver takes."""
    return join_batch([encode_frame(frame) for frame in frames], dialect)


def decode_batch(data: bytes, dialect: Dialect = OWN_DIALECT) -> list[Frame]:
    """The frames of a batch. ProtocolError for any bytes that are not exactly one."""
    if len(data) > LINK_BATCH_MAX_BYTES:
        raise ProtocolError("batch_too_large", f"A batch has at most {LINK_BATCH_MAX_BYTES} bytes.")
    if len(data) < _HEAD_BYTES or data[0] != dialect.version:
        raise ProtocolError("bad_version", f"A batch on this link begins with version {dialect.version}.")
    frames: list[Frame] = []
    for item in _read_array(_unpacked(data, dialect)):
        frame = _read_frame(item, dialect)
        if frame is not None:
            frames.append(frame)
    return frames


def _unpacked(data: bytes, dialect: Dialect) -> bytes:
    """The array's bytes; what would unpack to more than a batch is not unpacked to its end."""
    form, content = data[1], data[_HEAD_BYTES:]
    if form == _PLAIN:
        return content
    if form != _PACKED or not dialect.packs:
        raise ProtocolError("bad_packing", "The batch comes in a form that was not agreed on.")
    unpacker = zlib.decompressobj()
    try:
        array = unpacker.decompress(content, LINK_BATCH_MAX_BYTES)
    except zlib.error as error:
        raise ProtocolError("bad_packing", "The batch does not unpack.") from error
    if not unpacker.eof or unpacker.unused_data:
        raise ProtocolError("bad_packing", "The batch unpacks to more than it may, or to something unfinished.")
    return array


def _read_array(array: bytes) -> tuple[Any, ...]:
    try:
        items = msgpack.unpackb(
            array,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_array_len=LINK_BATCH_MAX_FRAMES,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError("bad_batch", "The batch is not one msgpack array.") from error
    if type(items) is not tuple:
        raise ProtocolError("bad_batch", "The batch is not an array.")
    return items


def _read_frame(item: Any, dialect: Dialect) -> Frame | None:
    """One frame; None for a kind that is skipped."""
    if type(item) is not tuple or not item or type(item[0]) is not int or item[0] < 0:
        raise ProtocolError("bad_frame", "A frame is an array that begins with its kind.")
    shape = _SHAPES.get(item[0])
    if shape is None:
        if dialect.skips_unknown:
            return None
        raise ProtocolError("unknown_frame", "A frame of a kind that was not agreed on.")
    if len(item) != len(shape.names) + 1:
        raise ProtocolError("bad_frame", f"{shape.frame_type.__name__} has {len(shape.names)} fields.")
    wrong = shape.wrong_field(item[1:])
    if wrong is not None:
        raise ProtocolError("bad_frame", f"{shape.frame_type.__name__}.{wrong} is not what it may be.")
    frame: Frame = shape.frame_type(*item[1:])
    return frame
