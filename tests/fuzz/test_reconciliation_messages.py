"""Whatever bytes come, in whatever order: an answer within the frame, or a protocol error, and nothing else."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.errors import ProtocolError
from loopd.gossip.reconciliation import Initiator, Items, Responder
from loopd.gossip.reconciliation.wire import encode_varint

FRAME_BYTES = 4096
HELD = Items((number // 3, sha256(b"%d" % number).digest(), 1 + number % 4, 0) for number in range(600)).snapshot()
IDS = [HELD.message_id(number) for number in range(0, 600, 7)]

varints = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.sampled_from([2**64, 2**70])).map(encode_varint)
bounds = st.builds(
    lambda timestamp, prefix, length: timestamp + (length or encode_varint(len(prefix))) + prefix,
    varints,
    st.one_of(st.just(b""), st.binary(max_size=33), st.sampled_from(IDS)),
    st.one_of(st.none(), st.none(), st.none(), varints),
)
listed = st.lists(st.one_of(st.sampled_from(IDS), st.binary(min_size=32, max_size=32)), max_size=12)
payloads = st.one_of(
    st.just(b"\x00"),
    st.binary(min_size=16, max_size=16).map(lambda print_: b"\x01" + print_),
    st.sampled_from([HELD.fingerprint(0, 600), HELD.fingerprint(0, 0)]).map(lambda print_: b"\x01" + print_),
    listed.map(lambda ids: b"\x02" + encode_varint(len(ids)) + b"".join(ids)),
    st.builds(lambda count, ids: b"\x02" + count + b"".join(ids), varints, listed),
    st.binary(max_size=20),
)
versions = st.sampled_from([b"\x61"] * 8 + [b"\x60", b"\x6f", b"\x01", b""])
messages = st.builds(
    lambda version, ranges: version + b"".join(bound + payload for bound, payload in ranges),
    versions,
    st.lists(st.tuples(bounds, payloads), max_size=8),
)
ttl_messages = st.builds(
    lambda version, print_, start, count, ttls: version + print_ + start + count + ttls,
    st.sampled_from([b"\x01", b"\x01", b"\x02"]),
    st.one_of(st.just(b""), st.just(HELD.fingerprint(0, 600)), st.binary(min_size=16, max_size=16)),
    varints,
    varints,
    st.binary(max_size=200),
)
anything = st.one_of(messages, ttl_messages, st.binary(max_size=200))


def answered_or_refused(ask: Callable[[], bytes | None]) -> bytes | None:
    try:
        answer = ask()
    except ProtocolError:
        return None
    assert answer is None or len(answer) <= FRAME_BYTES
    return answer


@given(st.lists(anything, max_size=5))
@settings(max_examples=300, deadline=None)
def test_either_side_answers_or_refuses(received: list[bytes]) -> None:
    initiator, responder = Initiator(HELD, FRAME_BYTES), Responder(HELD, FRAME_BYTES)
    initiator.start()
    for message in received:
        answered_or_refused(lambda message=message: initiator.receive(message))
        answered_or_refused(lambda message=message: responder.receive(message))
        answered_or_refused(lambda message=message: responder.receive_ttls(message)[0])
    assert set(initiator.have) <= set(HELD.ids(0, len(HELD)))


@given(anything)
@settings(max_examples=150, deadline=None)
def test_what_a_liar_says_of_its_set_leaves_the_ttls_sound(message: bytes) -> None:
    initiator, responder = Initiator(HELD, FRAME_BYTES), Responder(HELD, FRAME_BYTES)
    initiator.start()
    with suppress(ProtocolError):
        initiator.receive(message)
    while (part := initiator.next_ttls()) is not None:
        assert len(part) <= FRAME_BYTES
        initiator.receive_ttls(responder.receive_ttls(part)[0])
    assert all(1 <= offer.ttl <= 3 for offer in initiator.offers())


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_an_honest_message_with_damage_is_answered_or_refused(data: st.DataObject) -> None:
    other = Items((number // 3, sha256(b"%d" % number).digest(), 3, 0) for number in range(0, 600, 2)).snapshot()
    honest = bytearray(Initiator(other, FRAME_BYTES).start())
    for _ in range(data.draw(st.integers(1, 4))):
        honest[data.draw(st.integers(0, len(honest) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(honest[: data.draw(st.integers(0, len(honest)))])
    answer = answered_or_refused(lambda: Responder(HELD, FRAME_BYTES).receive(damaged))
    if answer is not None:
        initiator = Initiator(other, FRAME_BYTES)
        initiator.start()
        answered_or_refused(lambda: initiator.receive(answer))
