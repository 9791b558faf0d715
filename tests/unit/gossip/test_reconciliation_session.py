"""Whole comparisons: against the tests' own peer, byte for byte, and against a liar."""

from collections.abc import Callable
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.errors import ProtocolError
from loopd.gossip.reconciliation import Initiator, Items, ItemSet, Responder
from loopd.gossip.reconciliation.wire import INFINITY, MessageWriter, item_key, read_ranges
from loopd.protocol.limits import RECONCILIATION_MESSAGES_MAX
from tests.negentropy import Peer

Pair = tuple[int, bytes]
UNLIMITED = 2**40
SHAPES = ("random", "stretch", "recent", "one", "disjoint", "equal", "same time", "empty", "theirs empty")


def an_id(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def as_set(pairs: list[Pair]) -> ItemSet:
    return Items((timestamp, item_id, 3, 0) for timestamp, item_id in pairs).snapshot()


def two_sets(shape: str, count: int, random: Random) -> tuple[list[Pair], list[Pair]]:
    """What each side holds; every item has its own id."""
    times = 1 if shape == "same time" else count * 3
    pairs = sorted((random.randrange(times), an_id(random.getrandbits(60))) for _ in range(count))
    at = random.randrange(count)
    missing: dict[str, Callable[[int], bool]] = {
        "random": lambda number: random.random() < 0.1,
        "same time": lambda number: random.random() < 0.1,
        "stretch": lambda number: at <= number < at + count // 10,
        "recent": lambda number: number >= count - count // 10,
        "one": lambda number: number == at,
        "equal": lambda number: False,
        "disjoint": lambda number: number % 2 == 0,
        "empty": lambda number: True,
        "theirs empty": lambda number: False,
    }
    ours = [pair for number, pair in enumerate(pairs) if not missing[shape](number)]
    theirs = {"disjoint": [pair for number, pair in enumerate(pairs) if number % 2 == 0], "theirs empty": []}
    other = theirs.get(shape, pairs)
    if shape == "random":
        other = [pair for pair in pairs if random.random() < 0.9]
    return (ours, other) if random.random() < 0.5 else (other, ours)


def differences(ours: list[Pair], theirs: list[Pair]) -> tuple[set[bytes], set[bytes]]:
    mine, others = {item_id for _, item_id in ours}, {item_id for _, item_id in theirs}
    return mine - others, others - mine


def run(initiator: Initiator, answer: Callable[[bytes], bytes | None], limit: int) -> int:
    """Let them talk to the end; how many round trips that took."""
    message: bytes | None = initiator.start()
    trips = 0
    while message is not None:
        assert len(message) <= limit
        reply = answer(message)
        assert reply is not None
        assert len(reply) <= limit
        message = initiator.receive(reply)
        trips += 1
    return trips


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 31, 33, 700])
def test_both_sides_speak_as_the_other_implementation_does(shape: str, count: int) -> None:
    ours, theirs = two_sets(shape, count, Random(f"{shape}{count}"))
    initiator, responder = Initiator(as_set(ours), UNLIMITED), Responder(as_set(theirs), UNLIMITED)
    asking, answering = Peer(ours), Peer(theirs)
    message, same = initiator.start(), asking.first()
    while message is not None:
        assert message == same
        reply = responder.receive(message)
        assert reply == answering.next(message)
        message, same = initiator.receive(reply), asking.next(reply) or b""
    assert same == b""
    assert (set(initiator.have), set(initiator.need)) == (asking.have, asking.need) == differences(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("our_limit", "their_limit"), [(4096, 4096), (4096, None), (UNLIMITED, 4096), (6000, 4500)])
def test_small_frames_cost_round_trips_and_nothing_else(shape: str, our_limit: int, their_limit: int | None) -> None:
    ours, theirs = two_sets(shape, 1500, Random(f"{shape}{our_limit}"))
    initiator = Initiator(as_set(ours), our_limit)
    run(initiator, Peer(theirs, their_limit).next, max(our_limit, their_limit or UNLIMITED))
    assert (set(initiator.have), set(initiator.need)) == differences(ours, theirs)

    asking, responder = Peer(theirs, their_limit), Responder(as_set(ours), our_limit)
    message: bytes | None = asking.first()
    while message is not None:
        reply = responder.receive(message)
        assert len(reply) <= our_limit
        message = asking.next(reply)
    assert (asking.need, asking.have) == differences(ours, theirs)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=300),
    st.sampled_from([4096, UNLIMITED]),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_the_differences_are_found_whatever_the_sets(choice: list[tuple[int, int]], limit: int, seed: int) -> None:
    random = Random(seed)
    # Ids that begin alike put the prefixes of the bounds to the test.
    pairs = [(time, bytes(random.randrange(24)) + an_id(number)) for number, (time, _) in enumerate(choice)]
    pairs = [(time, item_id[:32]) for time, item_id in pairs]
    ours = [pair for pair, (_, kind) in zip(pairs, choice, strict=True) if kind != 1]
    theirs = [pair for pair, (_, kind) in zip(pairs, choice, strict=True) if kind != 2]
    initiator = Initiator(as_set(ours), limit)
    run(initiator, Responder(as_set(theirs), limit).receive, limit)
    assert (set(initiator.have), set(initiator.need)) == differences(ours, theirs)
    assert len(initiator.have) == len(set(initiator.have))


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_ids_with_long_common_prefixes(seed: int) -> None:
    random = Random(seed)
    # The fingerprint adds ids up: many that differ in two bytes alone, as no hash does, have equal sums by chance.
    ids = {bytes(random.randrange(25)).ljust(24, b"\x01") + random.randbytes(8) for _ in range(270)}
    alike = random.randbytes(random.randrange(29, 32))
    ids |= {alike.ljust(32, b"\x00"), alike.ljust(32, b"\xff")}
    pairs = [(7, item_id) for item_id in sorted(ids)]
    ours, theirs = random.sample(pairs, len(pairs) * 9 // 10), random.sample(pairs, len(pairs) * 9 // 10)
    initiator = Initiator(as_set(ours), 4096)
    run(initiator, Peer(theirs).next, UNLIMITED)
    assert (set(initiator.have), set(initiator.need)) == differences(ours, theirs)


def test_a_stretch_of_a_tenth_costs_little_more_than_its_ids() -> None:
    pairs = [(1_800_000_000_000 + number * 50, an_id(number)) for number in range(20_000)]
    lacking = pairs[:9_321] + pairs[11_321:]
    sent = 0

    responder = Responder(as_set(pairs))

    def answer(message: bytes) -> bytes:
        nonlocal sent
        reply = responder.receive(message)
        sent += len(message) + len(reply)
        return reply

    initiator = Initiator(as_set(lacking))
    assert run(initiator, answer, UNLIMITED) <= 4
    assert len(initiator.need) == 2000
    assert sent <= 40 * 2000


def test_equal_sets_cost_one_round_trip_and_about_324_bytes() -> None:
    held = as_set([(1_800_000_000_000 + number * 50, an_id(number)) for number in range(20_000)])
    initiator = Initiator(held)
    assert len(initiator.start()) + len(Responder(held).receive(initiator.start())) <= 340
    assert run(initiator, Responder(held).receive, UNLIMITED) == 1


def test_a_frame_that_has_no_room_left_ends_with_one_fingerprint_up_to_infinity() -> None:
    held = as_set([(number, an_id(number)) for number in range(1000)])
    writer = MessageWriter(UNLIMITED)
    writer.id_list(item_key(500, bytes(32)), b"")
    writer.skip(item_key(600, bytes(32)))
    writer.fingerprint(item_key(900, bytes(32)), bytes(16))
    answer = Responder(held, 4096).receive(writer.message())
    assert 4096 - 200 < len(answer) <= 4096
    some, rest = read_ranges(answer)
    listed = list(some.ids())
    assert listed == [an_id(number) for number in range(len(listed))]
    assert some.upper == item_key(len(listed), bytes(32))
    assert (rest.upper, rest.payload) == (INFINITY, held.fingerprint(len(listed), 1000))


def test_who_never_comes_to_an_end_is_left() -> None:
    initiator = Initiator(as_set([(number, an_id(number)) for number in range(40)]))
    writer = MessageWriter(UNLIMITED)
    writer.fingerprint(INFINITY, bytes(16))
    question = writer.message()
    initiator.start()
    for _ in range(RECONCILIATION_MESSAGES_MAX):
        assert initiator.receive(question) is not None
    with pytest.raises(ProtocolError) as refused:
        initiator.receive(question)
    assert refused.value.reason == "too_many_messages"
    responder = Responder(as_set([]))
    for _ in range(RECONCILIATION_MESSAGES_MAX):
        responder.receive(question)
    with pytest.raises(ProtocolError):
        responder.receive(question)


def test_who_lists_more_than_anybody_holds_is_left() -> None:
    initiator = Initiator(as_set([]), need_max=100)
    for first in (0, 50):
        writer = MessageWriter(UNLIMITED)
        writer.id_list(INFINITY, b"".join(an_id(number) for number in range(first, first + 50)))
        assert initiator.receive(writer.message()) is None
    writer = MessageWriter(UNLIMITED)
    writer.id_list(INFINITY, an_id(100))
    with pytest.raises(ProtocolError) as refused:
        initiator.receive(writer.message())
    assert refused.value.reason == "too_many_items"


def test_an_answer_costs_no_more_than_a_frame_whatever_is_asked() -> None:
    held = as_set([(number, an_id(number)) for number in range(5000)])
    writer = MessageWriter(UNLIMITED)
    for number in range(1, 5000):
        writer.fingerprint(item_key(number, bytes(32)), bytes(16))
    assert len(Responder(held, 10_000).receive(writer.message())) <= 10_000
