"""A node that could not take a message gets it by whatever is offered to it next."""

from loopd.gossip.frames import Copy, Deferred, Have, Want
from loopd.gossip.spread import Spread, Verdict

PEER = "relay.loop"
ORIGIN = "origin.loop"
MESSAGE = bytes(31) + b"\x01"


def have(number: int) -> Have:
    return Have(number, MESSAGE, 1, bytes(32), ORIGIN)


def put_off_with_two_offers(spread: Spread) -> list[object]:
    """The peer offered a message twice, gave its body on request, and the node has no room for it now."""
    spread.link_up(PEER)
    assert spread.received_have(PEER, have(1), None, 0).frames == [(PEER, Want(MESSAGE))]
    assert spread.received_have(PEER, have(2), None, 1).verdict is Verdict.WAITING
    spread.received_copy(PEER, Copy(1, ORIGIN, "t", "s", 1, bytes(32), b"body"), MESSAGE, 20)
    return [frame for _, frame in spread.put_off(PEER, 1, MESSAGE, "overloaded", 1_000, 21).frames]


def test_every_offer_of_the_peer_is_put_off_with_the_one_that_was_taken_up() -> None:
    assert put_off_with_two_offers(Spread()) == [Deferred(1, "overloaded", 1_000), Deferred(2, "overloaded", 1_000)]


def test_the_peer_is_asked_again_as_soon_as_it_offers_again() -> None:
    spread = Spread()
    put_off_with_two_offers(spread)
    assert spread.received_have(PEER, have(3), None, 1_030).frames == [(PEER, Want(MESSAGE))]


def test_the_peer_is_asked_again_while_another_offer_waits() -> None:
    spread = Spread()
    spread.link_up("other.loop")
    spread.link_up(PEER)
    spread.received_have(PEER, have(1), None, 0)
    spread.received_have("other.loop", have(7), None, 1)
    spread.received_copy(PEER, Copy(1, ORIGIN, "t", "s", 1, bytes(32), b"body"), MESSAGE, 20)
    effects = spread.put_off(PEER, 1, MESSAGE, "overloaded", 1_000, 21)
    assert effects.frames == [(PEER, Deferred(1, "overloaded", 1_000)), ("other.loop", Want(MESSAGE))]
    # The other one does not answer in time.
    assert spread.tick(600) == []
    assert spread.received_have(PEER, have(3), None, 1_030).frames == [(PEER, Want(MESSAGE))]
