"""The bytes, worked out by hand, and what is refused."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.gossip.errors import ProtocolError
from loopd.gossip.reconciliation import Initiator, Items, Responder
from loopd.gossip.reconciliation.wire import (
    INFINITY,
    LOWEST,
    MessageWriter,
    Mode,
    Reader,
    encode_varint,
    fingerprint,
    item_key,
    read_ranges,
    separating_bound,
)

A, B, C = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32
PRINT = b"\x0f" * 16
INFINITE_BOUND = "0000"


def items(*pairs: tuple[int, bytes]) -> Items:
    return Items((timestamp_ms, item_id, 3, 0) for timestamp_ms, item_id in pairs)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8100"), (300, "822c"), (16383, "ff7f"), (2**64 - 1, "81ffffffffffffffff7f")],
)
def test_a_varint_has_its_most_significant_digit_first(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).varint() == value


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_read_as_it_was_written(value: int) -> None:
    reader = Reader(encode_varint(value) + b"\x01")
    assert (reader.varint(), reader.left) == (value, 1)


@pytest.mark.parametrize("encoded", ["", "81", "ff80", "8000", "82808080808080808000", "ffffffffffffffffffffffff7f"])
def test_a_varint_that_is_cut_off_padded_or_too_large_is_refused(encoded: str) -> None:
    with pytest.raises(ProtocolError):
        Reader(bytes.fromhex(encoded)).varint()


def test_a_fingerprint_is_the_sum_and_the_count_hashed() -> None:
    by_hand = sha256(b"\x03" + bytes(31) + b"\x02").digest()[:16]
    assert fingerprint(1 + 2, 2) == by_hand
    one, two = b"\x01" + bytes(31), b"\x02" + bytes(31)
    assert items((1, one), (1, two)).snapshot().fingerprint(0, 2) == by_hand


def test_the_sum_wraps_at_256_bits() -> None:
    all_ones, two = b"\xff" * 32, b"\x02" + bytes(31)
    wrapped = sha256(b"\x01" + bytes(31) + b"\x02").digest()[:16]
    assert items((1, all_ones), (2, two)).snapshot().fingerprint(0, 2) == wrapped


def test_an_empty_set_begins_with_an_empty_list_up_to_infinity() -> None:
    assert Initiator(items().snapshot()).start().hex() == "61" + INFINITE_BOUND + "02" + "00"


def test_one_item_is_listed() -> None:
    assert Initiator(items((5, A)).snapshot()).start().hex() == "61" + INFINITE_BOUND + "0201" + A.hex()


def test_what_is_listed_is_answered_with_the_own_list() -> None:
    message = bytes.fromhex("61" + INFINITE_BOUND + "0201" + A.hex())
    answer = "61" + INFINITE_BOUND + "0202" + B.hex() + C.hex()
    assert Responder(items((9, C), (7, B)).snapshot()).receive(message).hex() == answer
    initiator = Initiator(items((5, A)).snapshot())
    initiator.start()
    assert initiator.receive(bytes.fromhex(answer)) is None
    assert (initiator.have, initiator.need) == ([A], [B, C])


def test_equal_sets_are_settled_by_the_version_byte_alone() -> None:
    held = [(1000 + number, number.to_bytes(32)) for number in range(32)]
    first = Initiator(items(*held).snapshot()).start()
    # Sixteen parts of two; the timestamps of the bounds are told by their difference: 1002 from zero, then 2.
    expected = b"\x61"
    for part in range(15):
        expected += bytes.fromhex("876b" if part == 0 else "03") + b"\x00\x01" + _print_of(held, part)
    assert first == expected + bytes.fromhex(INFINITE_BOUND) + b"\x01" + _print_of(held, 15)
    assert Responder(items(*held).snapshot()).receive(first) == b"\x61"
    initiator = Initiator(items(*held).snapshot())
    initiator.start()
    assert initiator.receive(b"\x61") is None
    assert (initiator.have, initiator.need) == ([], [])


def _print_of(held: list[tuple[int, bytes]], part: int) -> bytes:
    total = sum(int.from_bytes(item_id, "little") for _, item_id in held[2 * part : 2 * part + 2])
    return sha256(total.to_bytes(32, "little") + b"\x02").digest()[:16]


@pytest.mark.parametrize(
    ("before", "after", "bound"),
    [
        ((5, A), (6, A), "07" + "00"),
        ((5, A), (5, B), "06" + "01bb"),
        ((5, b"\xaa\xbb" + bytes(30)), (5, b"\xaa\xbc" + bytes(30)), "06" + "02aabc"),
        ((5, b"\xaa" * 31 + b"\x00"), (5, A), "06" + "20" + A.hex()),
    ],
)
def test_a_bound_has_the_shortest_prefix_that_separates(
    before: tuple[int, bytes], after: tuple[int, bytes], bound: str
) -> None:
    key = separating_bound(item_key(*before), item_key(*after))
    assert item_key(*before) < key <= item_key(*after)
    writer = MessageWriter(4096)
    writer.fingerprint(key, PRINT)
    assert writer.message().hex() == "61" + bound + "01" + PRINT.hex()
    assert read_ranges(writer.message())[0].upper == key


def test_skips_that_touch_are_one_and_the_last_is_left_out() -> None:
    writer = MessageWriter(4096)
    writer.skip(item_key(10, bytes(32)))
    writer.skip(item_key(20, bytes(32)))
    writer.id_list(item_key(30, bytes(32)), A)
    writer.skip(item_key(40, bytes(32)))
    assert writer.message().hex() == "61" + "150000" + "0b000201" + A.hex()
    assert [part.mode for part in read_ranges(writer.message())] == [Mode.SKIP, Mode.ID_LIST]


def test_another_version_is_answered_with_the_own_one() -> None:
    responder = Responder(items((5, A)).snapshot())
    assert responder.receive(b"\x62whatever") == b"\x61"
    assert responder.receive(b"\x60") == b"\x61"
    initiator = Initiator(items((5, A)).snapshot())
    with pytest.raises(ProtocolError) as refused:
        initiator.receive(b"\x60")
    assert refused.value.reason == "unsupported_version"


@pytest.mark.parametrize("limit", [0, 4095])
@pytest.mark.parametrize("side", [Initiator, Responder])
def test_a_frame_below_the_least_is_a_mistake_of_ours(side: type[Initiator | Responder], limit: int) -> None:
    with pytest.raises(ValueError, match="4096"):
        side(items().snapshot(), limit)


# Each is wrong in one place.
HOSTILE = {
    "nothing": "",
    "no version": "00",
    "JSON": b"{}".hex(),
    "half a bound": "6101",
    "prefix longer than an id": "610121" + "11" * 33 + "00",
    "prefix cut off": "610104aabb",
    "prefix of infinity": "610001aa00",
    "no mode": "61" + INFINITE_BOUND,
    "unknown mode": "61" + INFINITE_BOUND + "03",
    "fingerprint cut off": "61" + INFINITE_BOUND + "01" + "00" * 15,
    "list without its count": "61" + INFINITE_BOUND + "02",
    "list cut off": "61" + INFINITE_BOUND + "0202" + A.hex() + "bb" * 31,
    "count beyond the frame": "61" + INFINITE_BOUND + "02" + "81ffffffffffffffff7f" + A.hex(),
    "an id twice in a list": "61" + INFINITE_BOUND + "0202" + A.hex() * 2,
    "an id in two lists": "61" + "0500" + "0201" + A.hex() + INFINITE_BOUND + "0201" + A.hex(),
    "bounds that go back": "61" + "0501bb" + "00" + "0101aa" + "00",
    "a range beyond infinity": "61" + INFINITE_BOUND + "00" + "0100" + "00",
    "infinity twice": "61" + INFINITE_BOUND + "00" + INFINITE_BOUND + "00",
    "the timestamp of infinity": "61" + "82808080808080808000" + "00" + "00",
    "timestamps that add up too far": "61" + "81ffffffffffffffff7f" + "00" + "00" + "03" + "00" + "00",
    "a varint over 64 bits": "61" + "ff" * 12 + "7f" + "00" + "00",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_a_protocol_error_on_either_side(name: str) -> None:
    message = bytes.fromhex(HOSTILE[name])
    initiator = Initiator(items((5, A)).snapshot())
    initiator.start()
    with pytest.raises(ProtocolError):
        initiator.receive(message)
    with pytest.raises(ProtocolError):
        Responder(items((5, A)).snapshot()).receive(message)


def test_the_lowest_and_the_highest_key_are_no_items() -> None:
    assert bytes(40) == LOWEST
    assert b"\xff" * 8 + bytes(32) == INFINITY
    with pytest.raises(ValueError, match="timestamp"):
        item_key(2**64 - 1, A)
    with pytest.raises(ValueError, match="timestamp"):
        item_key(-1, A)
    with pytest.raises(ValueError, match="32 bytes"):
        item_key(1, A[:31])
