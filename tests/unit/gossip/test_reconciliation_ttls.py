"""The TTLs of what both hold: who can offer whom what, against all pairs counted out."""

from hashlib import sha256
from random import Random

import pytest

from loopd.gossip.errors import ProtocolError
from loopd.gossip.reconciliation import Initiator, Items, Offer, Responder
from loopd.gossip.reconciliation.ttls import TtlAnswer, TtlPart, offered_ttl
from loopd.protocol.limits import RECONCILIATION_TTLS_MAX

Held = dict[int, int]
PRINT = b"\x0f" * 16


def an_id(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def as_items(held: Held) -> Items:
    """Items by number, two of a time, each with the TTL held."""
    return Items((number // 2, an_id(number), ttl, 0) for number, ttl in held.items())


def compare(initiator: Initiator, responder: Responder) -> tuple[list[Offer], list[Offer]]:
    """What the initiator and what the responder offers."""
    message: bytes | None = initiator.start()
    while message is not None:
        message = initiator.receive(responder.receive(message))
    ours, theirs = initiator.offers(), list[Offer]()
    while (part := initiator.next_ttls()) is not None:
        answer, offers = responder.receive_ttls(part)
        theirs += offers
        ours += initiator.receive_ttls(answer)
    return ours, theirs


def due(giver: Held, taker: Held) -> set[Offer]:
    return {Offer(an_id(number), ttl - 1) for number, ttl in giver.items() if ttl - 1 > min(taker.get(number, 0), 3)}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("frame", [4096, 2**18])
def test_each_side_offers_exactly_what_the_other_lacks_or_can_better(seed: int, frame: int) -> None:
    random = Random(seed)
    count = random.choice([0, 1, 5, 40, 3000])
    share = random.choice([0.0, 0.1, 0.5, 1.0])
    # An own message counts as its TTL plus one, and only one side can be its origin.
    ours = {number: random.randint(1, 3) for number in range(count) if random.random() >= share}
    theirs = {number: random.randint(1, 3) for number in range(count) if random.random() >= share / 2}
    for number in range(0, count, 7):
        ours.pop(number, None)
        (ours if random.random() < 0.5 else theirs)[number] = 4
    initiator = Initiator(as_items(ours).snapshot(), frame)
    our_offers, their_offers = compare(initiator, Responder(as_items(theirs).snapshot(), frame))
    assert len(our_offers) == len(set(our_offers))
    assert len(their_offers) == len(set(their_offers))
    assert set(our_offers) == due(ours, theirs)
    assert set(their_offers) == due(theirs, ours)
    assert not initiator.ttls_differ


def test_parts_follow_each_other_through_small_frames() -> None:
    held = {number: 1 + number % 3 for number in range(40_000)}
    initiator = Initiator(as_items(held).snapshot(), 4096)
    responder = Responder(as_items(held).snapshot(), 4096)
    initiator.receive(responder.receive(initiator.start()))
    sizes = []
    while (part := initiator.next_ttls()) is not None:
        sizes.append(len(part))
        initiator.receive_ttls(responder.receive_ttls(part)[0])
    assert max(sizes) <= 4096
    assert sum(sizes) < 10_000 + 40 * len(sizes)
    assert len(sizes) == 3


@pytest.mark.parametrize(
    ("own", "theirs", "offered"),
    [(1, 0, None), (2, 0, 1), (3, 0, 2), (4, 0, 3), (3, 1, 2), (3, 2, None), (2, 1, None), (4, 2, 3), (4, 3, None)],
)
def test_what_is_offered_is_one_less_and_better(own: int, theirs: int, offered: int | None) -> None:
    assert offered_ttl(own, theirs) == offered


def test_the_bytes_of_a_part_and_of_an_answer() -> None:
    part = TtlPart(300, PRINT, bytes((3, 0, 1, 2, 2)))
    assert part.encode().hex() == "01" + PRINT.hex() + "822c" + "05" + "9302"
    assert TtlPart.decode(part.encode()) == part
    answer = TtlAnswer(300, bytes((1, 3)))
    assert answer.encode().hex() == "01" + "822c" + "01" + "02" + "0d"
    assert TtlAnswer.decode(answer.encode()) == answer
    differ = TtlAnswer(5, None)
    assert differ.encode().hex() == "010500"
    assert TtlAnswer.decode(differ.encode()) == differ


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "02" + PRINT.hex() + "000103",
        "01" + PRINT.hex()[2:],
        "01" + PRINT.hex() + "00",
        "01" + PRINT.hex() + "0000",
        "01" + PRINT.hex() + "0005" + "93",
        "01" + PRINT.hex() + "0005" + "930200",
        "01" + PRINT.hex() + "0005" + "9306",
        "01" + PRINT.hex() + "00" + "81ffffffffffffffff7f" + "93",
        "01" + PRINT.hex() + "00" + "888001" + "ff" * (RECONCILIATION_TTLS_MAX // 4 + 1),
    ],
)
def test_a_hostile_part_is_a_protocol_error(hostile: str) -> None:
    with pytest.raises(ProtocolError):
        TtlPart.decode(bytes.fromhex(hostile))


@pytest.mark.parametrize(
    "hostile", ["", "0200", "01", "0100", "010002", "010000aa", "0100010000aa", "0100010100", "010001"]
)
def test_a_hostile_answer_is_a_protocol_error(hostile: str) -> None:
    with pytest.raises(ProtocolError):
        TtlAnswer.decode(bytes.fromhex(hostile))


def _talking() -> tuple[Initiator, Responder]:
    initiator = Initiator(as_items({1: 3, 2: 1, 3: 2}).snapshot())
    responder = Responder(as_items({1: 1, 2: 3, 4: 3}).snapshot())
    initiator.receive(responder.receive(initiator.start()))
    return initiator, responder


def test_sets_that_are_not_what_they_seemed_are_left_alone() -> None:
    initiator, _ = _talking()
    changed = Responder(as_items({1: 1, 3: 3, 4: 3}).snapshot())
    part = initiator.next_ttls()
    assert part is not None
    answer, offers = changed.receive_ttls(part)
    assert offers == []
    assert initiator.receive_ttls(answer) == []
    assert initiator.ttls_differ
    assert initiator.next_ttls() is None


def test_a_part_beyond_the_own_items_differs() -> None:
    responder = Responder(as_items({1: 1}).snapshot())
    answer, offers = responder.receive_ttls(TtlPart(0, PRINT, b"\x01\x01").encode())
    assert (TtlAnswer.decode(answer).ttls, offers) == (None, [])


def test_an_item_is_compared_once() -> None:
    initiator, responder = _talking()
    part = initiator.next_ttls()
    assert part is not None
    responder.receive_ttls(part)
    with pytest.raises(ProtocolError) as refused:
        responder.receive_ttls(part)
    assert refused.value.reason == "bad_part"


def test_an_answer_that_nobody_waits_for_is_a_protocol_error() -> None:
    initiator, responder = _talking()
    with pytest.raises(ProtocolError):
        initiator.receive_ttls(TtlAnswer(0, b"\x01\x03").encode())
    part = initiator.next_ttls()
    assert part is not None
    answer, _ = responder.receive_ttls(part)
    for wrong in (TtlAnswer(1, b"\x01\x03"), TtlAnswer(0, b"\x01"), TtlAnswer(0, b"\x01\x03\x01")):
        with pytest.raises(ProtocolError):
            initiator.receive_ttls(wrong.encode())
    assert initiator.receive_ttls(answer) == [Offer(an_id(1), 2)]
    with pytest.raises(ProtocolError):
        initiator.receive_ttls(answer)


def test_one_part_is_under_way_at_a_time() -> None:
    initiator, _ = _talking()
    initiator.next_ttls()
    with pytest.raises(RuntimeError, match="not answered"):
        initiator.next_ttls()
