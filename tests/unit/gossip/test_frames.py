"""Frames as bytes: what is sent is read back, and nothing else than frames or a ProtocolError comes of any bytes."""

import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import (
    FRAME_TYPES,
    FRAME_VERSION,
    OWN_DIALECT,
    PACKED_FROM_BYTES,
    Ack,
    Alive,
    Copy,
    Credit,
    Deferred,
    Dialect,
    Done,
    Frame,
    Goodbye,
    Have,
    Nack,
    Ping,
    PingRequest,
    Priority,
    Reconcile,
    ReconcileTtls,
    Request,
    Response,
    Suspect,
    Want,
    agree,
    decode_batch,
    encode_batch,
    encode_frame,
    fits,
    join_batch,
    priority,
    takes_credit,
)
from loopd.protocol.limits import (
    LINK_BATCH_MAX_BYTES,
    LINK_BATCH_MAX_FRAMES,
    LINK_BODY_MAX_BYTES,
    LINK_CREDIT_MAX_BYTES,
    LINK_CREDIT_MAX_FRAMES,
    LINK_HEADERS_MAX,
)

PLAIN = Dialect(FRAME_VERSION)
NUMBERS = st.integers(0, 2**53 - 1)
IDS = st.binary(min_size=32, max_size=32)
HOPS = st.none() | IDS
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
BODIES = st.binary(max_size=500)
TTLS = st.integers(1, 3)
HEADERS = st.lists(st.tuples(TEXTS, TEXTS), max_size=4).map(tuple)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Copy, NUMBERS, TEXTS, TEXTS, TEXTS, TTLS, HOPS, BODIES),
    st.builds(Have, NUMBERS, IDS, TTLS, HOPS, TEXTS),
    st.builds(Want, IDS),
    st.builds(Done, NUMBERS, TEXTS, st.booleans()),
    st.builds(Deferred, NUMBERS, TEXTS, st.integers(0, 900_000)),
    st.builds(Request, NUMBERS, st.sampled_from(["GET", "POST"]), TEXTS, HEADERS, BODIES),
    st.builds(Response, NUMBERS, st.integers(100, 599), HEADERS, BODIES),
    st.builds(Ping, NUMBERS, NUMBERS),
    st.builds(Ack, NUMBERS, NUMBERS),
    st.builds(PingRequest, NUMBERS, TEXTS),
    st.builds(Nack, NUMBERS),
    st.builds(Suspect, TEXTS, NUMBERS),
    st.builds(Alive, TEXTS, NUMBERS),
    st.builds(Reconcile, NUMBERS, BODIES),
    st.builds(ReconcileTtls, NUMBERS, BODIES),
    st.builds(Credit, st.integers(0, LINK_CREDIT_MAX_BYTES), st.integers(0, LINK_CREDIT_MAX_FRAMES)),
    st.builds(Goodbye, TEXTS),
)
HAVE = Have(7, b"m" * 32, 2, b"h" * 32, "munich.loop")


def batch(items: Any, version: int = FRAME_VERSION) -> bytes:
    return bytes((version, 0)) + msgpack.packb(items)


def reason_for(data: bytes, dialect: Dialect = OWN_DIALECT) -> str:
    with pytest.raises(ProtocolError) as refused:
        decode_batch(data, dialect)
    return refused.value.reason


@given(st.lists(FRAMES, max_size=20), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_sent_is_read_back(frames: list[Frame], packs: bool) -> None:
    dialect = Dialect(FRAME_VERSION, packs=packs)
    assert decode_batch(encode_batch(frames, dialect), dialect) == frames


def test_a_have_on_the_wire() -> None:
    data = encode_batch([HAVE], PLAIN)
    assert data == b"\x01\x00\x91\x96\x02\x07\xc4\x20" + b"m" * 32 + b"\x02\xc4\x20" + b"h" * 32 + b"\xabmunich.loop"


def test_every_kind_has_its_own_number_and_a_place_in_the_order() -> None:
    assert len({frame_type.KIND for frame_type in FRAME_TYPES}) == len(FRAME_TYPES) == 17
    assert priority(Ping(1, 1)) is Priority.HEALTH
    assert priority(Credit(1, 1)) is Priority.HEALTH
    assert priority(Reconcile(1, b"")) is priority(HAVE) is Priority.REPAIR
    assert priority(Copy(1, "a", "t", "s", 1, None, b"")) is Priority.BULK
    assert not any(takes_credit(frame) for frame in (Ping(1, 1), Done(1, "accepted", True), Want(b"m" * 32)))
    assert all(takes_credit(frame) for frame in (HAVE, Copy(1, "a", "t", "s", 1, None, b""), Reconcile(1, b"")))


@pytest.mark.parametrize("change", [{"ttl": 0}, {"ttl": 4}, {"ttl": True}, {"ttl": 2.0}, {"ttl": "2"}, {"ttl": None}])
def test_a_field_of_another_type_or_beyond_its_bounds_is_refused(change: dict[str, Any]) -> None:
    values = {"number": 7, "message_id": b"m" * 32, "ttl": 2, "hop_value": None, "origin": "a.loop"} | change
    assert reason_for(batch([[Have.KIND, *values.values()]])) == "bad_frame"
    with pytest.raises(ValueError, match=r"Have\.ttl"):
        encode_frame(Have(**values))


@pytest.mark.parametrize(
    "item",
    [
        [Want.KIND, b"m" * 31],
        [Want.KIND, "m" * 32],
        [Want.KIND],
        [Want.KIND, b"m" * 32, 1],
        [Done.KIND, 1, "accepted", 1],
        [Done.KIND, -1, "accepted", True],
        [Done.KIND, 2**53, "accepted", True],
        [Done.KIND, 1, "", True],
        [Done.KIND, 1, "r" * 65, True],
        [Request.KIND, 1, "GET", "/", [["a", "b", "c"]], b""],
        [Request.KIND, 1, "GET", "/", [["a", "b"]] * (LINK_HEADERS_MAX + 1), b""],
        [Request.KIND, 1, "GET", "/", [], b"b" * (LINK_BODY_MAX_BYTES + 1)],
        [Credit.KIND, LINK_CREDIT_MAX_BYTES + 1, 1],
        [Have.KIND, 1, b"m" * 32, 1, b"short", "a.loop"],
        [],
        [True],
        [-1],
        ["2"],
        2,
        None,
        {},
    ],
)
def test_what_is_no_frame(item: Any) -> None:
    data = batch([[Want.KIND, b"m" * 32], item])
    assert reason_for(data) in {"bad_frame", "bad_batch"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02\x00\x90",
        b"\x01\x02\x90",
        b"\x01\x00",
        b"\x01\x00\x90\x90",
        b"\x01\x00\x80",
        b"\x01\x00\x91\xc1",
        b"\x01\x00\x91\xd4\x01\x00",
        b"\x01\x00\x91\x92\x03\xd6\xff\x00\x00\x00\x00",
        b"\x01\x00\x91\x92\x11\xa1\xff",
        b"\x01\x00" + b"\x91" * 100_000,
        b"\x01\x00\xdd\xff\xff\xff\xff",
        b"\x01\x00\x91\x92\x03\xc6\xff\xff\xff\xff",
        b"\x01\x01nothing packed",
        b"\x01\x00\x90" + bytes(LINK_BATCH_MAX_BYTES),
    ],
)
def test_what_is_no_batch(data: bytes) -> None:
    reason_for(data)


def test_a_batch_that_unpacks_to_more_than_a_batch_is_not_unpacked() -> None:
    bomb = bytes((FRAME_VERSION, 1)) + zlib.compress(bytes(LINK_BATCH_MAX_BYTES * 100), 9)
    assert len(bomb) < LINK_BATCH_MAX_BYTES
    assert reason_for(bomb) == "bad_packing"
    packed = bytes((FRAME_VERSION, 1)) + zlib.compress(b"\x90")
    assert decode_batch(packed) == []
    assert reason_for(packed + b"\x00") == "bad_packing"
    assert reason_for(packed[:-1]) == "bad_packing"
    assert reason_for(packed, PLAIN) == "bad_packing"


def test_packing_is_used_where_it_was_agreed_and_pays() -> None:
    copy = Copy(1, "a.loop", "t", "s", 1, None, b'{"category": "food-bakery"}' * 40)
    assert len(copy.body) >= PACKED_FROM_BYTES
    packed, plain = encode_batch([copy]), encode_batch([copy], PLAIN)
    assert (packed[1], plain[1]) == (1, 0)
    assert len(packed) < len(plain) / 4
    assert encode_batch([HAVE])[1] == 0


def test_unknown_kinds_are_skipped_only_where_agreed() -> None:
    data = batch([[99, "of a later version", [1]], [Want.KIND, b"m" * 32]])
    assert decode_batch(data, Dialect(FRAME_VERSION, skips_unknown=True)) == [Want(b"m" * 32)]
    assert reason_for(data, PLAIN) == "unknown_frame"


def test_two_sides_agree_on_the_lesser_of_each() -> None:
    theirs = Dialect(FRAME_VERSION + 3, packs=True, skips_unknown=False)
    assert agree(OWN_DIALECT, theirs) == agree(theirs, OWN_DIALECT) == Dialect(FRAME_VERSION, True, False)
    assert reason_for(batch([], version=2)) == "bad_version"
    assert decode_batch(batch([], version=2), Dialect(2)) == []


def test_a_batch_takes_so_many_frames_and_bytes_and_no_more() -> None:
    longest = encode_frame(Reconcile(1, b"r" * LINK_BODY_MAX_BYTES))
    assert fits(1, len(longest))
    assert len(decode_batch(join_batch([longest], PLAIN))) == 1
    assert not fits(2, 2 * len(longest))
    with pytest.raises(ValueError, match="more frames"):
        join_batch([longest, longest], PLAIN)
    many = [encode_frame(Nack(1))] * LINK_BATCH_MAX_FRAMES
    assert len(decode_batch(join_batch(many, PLAIN))) == LINK_BATCH_MAX_FRAMES
    with pytest.raises(ValueError, match="more frames"):
        join_batch([*many, many[0]], PLAIN)
    assert reason_for(batch([[Nack.KIND, 1]] * (LINK_BATCH_MAX_FRAMES + 1))) == "bad_batch"
