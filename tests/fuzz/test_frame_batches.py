"""The frame decoder under bytes of every kind: a list of frames or a ProtocolError, nothing else, in little time."""

import zlib
from random import Random

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import (
    FRAME_TYPES,
    FRAME_VERSION,
    OWN_DIALECT,
    Copy,
    Dialect,
    Done,
    Have,
    Ping,
    Request,
    decode_batch,
    encode_batch,
)

MUTATED_BATCHES = 20_000
DIALECTS = [OWN_DIALECT, Dialect(FRAME_VERSION), Dialect(FRAME_VERSION, packs=True)]
HONEST = [
    Copy(1, "munich.loop", "2026-01-01T00:00:00Z", "s" * 86, 3, b"h" * 32, b'{"@type": "MaterialAnnouncement"}' * 30),
    Have(2, b"m" * 32, 2, None, "munich.loop"),
    Done(2, "accepted", True),
    Request(3, "POST", "/api/v1/federate/offer", (("X-Node-ID", "berlin.loop"),), b"{}"),
    Ping(4, 1_800_000_000_000),
]


def decode(data: bytes, dialect: Dialect) -> bool:
    """Whether the bytes were a batch; its frames are then ones that can be sent."""
    try:
        frames = decode_batch(data, dialect)
    except ProtocolError:
        return False
    assert all(type(frame) in FRAME_TYPES for frame in frames)
    assert decode_batch(encode_batch(frames, dialect), dialect) == frames
    return True


def mutated(random: Random, data: bytes) -> bytes:
    octets = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(octets) + 1)
        match random.randrange(5):
            case 0 if place < len(octets):
                octets[place] ^= 1 << random.randrange(8)
            case 1 if place < len(octets):
                octets[place] = random.choice([0, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xC7, 0xCF, 0xDD, 0xDF, 0xFF])
            case 2:
                octets[place:place] = random.randbytes(random.randint(1, 8))
            case 3:
                del octets[place : place + random.randint(1, 40)]
            case _:
                octets[place:place] = octets[: random.randint(0, 40)]
    return bytes(octets)


def test_batches_with_a_few_bytes_changed() -> None:
    random = Random(7)
    taken = 0
    plain, packed = encode_batch(HONEST, Dialect(FRAME_VERSION)), encode_batch(HONEST)
    array = plain[2:]
    for _ in range(MUTATED_BATCHES):
        match random.randrange(3):
            case 0:
                data = mutated(random, plain)
            case 1:
                data = mutated(random, packed)
            case _:
                data = bytes((FRAME_VERSION, 1)) + zlib.compress(mutated(random, array), 1)
        taken += decode(data, random.choice(DIALECTS))
    # Some changes leave a batch, in a body or a number; most do not.
    assert 0 < taken < MUTATED_BATCHES // 2


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(st.tuples(st.integers(-1, 20), st.lists(VALUES, max_size=7)), max_size=4), st.sampled_from(DIALECTS))
@settings(max_examples=300, deadline=None)
def test_arrays_of_anything(items: list[tuple[int, list[object]]], dialect: Dialect) -> None:
    decode(bytes((FRAME_VERSION, 0)) + msgpack.packb([[kind, *values] for kind, values in items]), dialect)


@given(st.binary(max_size=200), st.sampled_from(DIALECTS))
@settings(max_examples=300, deadline=None)
def test_bytes_of_anything(data: bytes, dialect: Dialect) -> None:
    decode(data, dialect)
    decode(bytes((FRAME_VERSION, 0)) + data, dialect)
    decode(bytes((FRAME_VERSION, 1)) + zlib.compress(data), dialect)
