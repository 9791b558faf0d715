"""One node's `Spread`, step by step: what is offered how, what is asked when, and what happens at each bound."""

from dataclasses import replace

import pytest

from loopd.gossip.flood import HopState, Reason
from loopd.gossip.frames import Copy, Deferred, Done, Have, Want
from loopd.gossip.spread import BRINGING_MAX_MS, LogEntry, Spread, Upgrade, Verdict
from loopd.protocol.limits import LINK_BODY_MAX_BYTES, LINK_OFFERS_MAX, LINK_OFFERS_MAX_BYTES, LINK_WAITING_MAX

NOW = 1_000_000
A, B, C = "a.loop", "b.loop", "c.loop"
ORIGIN = "munich.loop"


def entry(number: int, ttl: int = 2, message: int | None = None, size: int = 10) -> LogEntry:
    return LogEntry(
        number, message_id(number if message is None else message), ORIGIN, "t", "s", ttl, b"h" * 32, b"b" * size
    )


def message_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


def have(number: int, message: int, ttl: int = 2) -> Have:
    return Have(number, message_id(message), ttl, b"h" * 32, ORIGIN)


def spread_with(*peers: str) -> Spread:
    spread = Spread()
    for peer in peers:
        spread.link_up(peer)
    return spread


def take(spread: Spread, peer: str, number: int, message: int, ttl: int = 2, *, at: int = NOW) -> list[object]:
    """A copy comes and is accepted."""
    copy = Copy(number, ORIGIN, "t", "s", ttl, b"h" * 32, b"b")
    spread.received_copy(peer, copy, message_id(message), at)
    held = HopState(ttl, b"h" * 32)
    return list(spread.decided(peer, number, message_id(message), ORIGIN, Reason.ACCEPTED, held, at).frames)


def test_bodies_go_unasked_until_the_peer_says_otherwise() -> None:
    spread = spread_with(A)
    (first,) = spread.offers(A, [entry(1)]).frames
    assert isinstance(first, Copy)
    progress = spread.received_done(A, Done(first.number, "duplicate", eager=False))
    assert progress is not None
    assert (progress.entry, progress.cursor) == (1, 1)
    (second,) = spread.offers(A, [entry(2)]).frames
    assert second == Have(second.number, message_id(2), 2, b"h" * 32, ORIGIN)
    spread.received_done(A, Done(second.number, "accepted", eager=True))
    assert isinstance(spread.offers(A, [entry(3)]).frames[0], Copy)


def test_a_better_ttl_travels_without_the_body() -> None:
    spread = spread_with(A, B)
    spread.offers(A, [entry(1, ttl=1)])
    (better,) = spread.offers(A, [entry(2, ttl=2, message=1)]).frames
    assert isinstance(better, Have)
    assert spread.received_want(A, Want(message_id(1))) == []
    # After a restart the log knows that the message was offered before.
    (after_restart,) = spread.offers(B, [replace(entry(2, message=1), repeated=True)]).frames
    assert isinstance(after_restart, Have)
    (body,) = spread.received_want(B, Want(message_id(1)))
    assert isinstance(body, Copy)
    assert body.number == after_restart.number


def test_the_cursor_waits_for_the_first_that_is_not_settled() -> None:
    spread = spread_with(A)
    offers = spread.offers(A, [1, entry(2), 3, entry(4), entry(6), 7])
    assert (offers.taken, offers.cursor) == (6, 1)
    first, second, third = (frame.number for frame in offers.frames if isinstance(frame, Copy))
    progress = spread.received_done(A, Done(second, "accepted", True))
    assert progress is not None
    assert (progress.entry, progress.cursor) == (4, None)
    put_off = spread.received_deferred(A, Deferred(first, "overloaded", 1_000))
    assert put_off is not None
    assert (put_off.entry, put_off.cursor, put_off.retry_after_ms) == (2, 4, 1_000)
    last = spread.received_done(A, Done(third, "accepted", True))
    assert last is not None
    assert last.cursor == 7
    assert spread.received_done(A, Done(third, "accepted", True)) is None


def test_what_the_peer_offered_is_not_offered_back() -> None:
    spread = spread_with(A)
    spread.received_have(A, have(1, 5, ttl=1), None, NOW)
    offers = spread.offers(A, [entry(1, ttl=2, message=5), entry(2, ttl=3, message=5)])
    assert offers.needless == [1]
    assert [type(frame) for frame in offers.frames] == [Copy]


def test_the_window_of_offers_is_bounded_in_number_and_bytes() -> None:
    spread = spread_with(A, B)
    assert spread.offers(A, [entry(number) for number in range(1, LINK_OFFERS_MAX + 9)]).taken == LINK_OFFERS_MAX
    assert spread.room(A) == 0
    spread.received_done(A, Done(1, "accepted", True))
    assert spread.room(A) == 1
    long = LINK_BODY_MAX_BYTES
    taken = spread.offers(B, [entry(number, size=long) for number in range(1, 20)]).taken
    assert LINK_OFFERS_MAX_BYTES <= taken * long < LINK_OFFERS_MAX_BYTES + long
    assert spread.room("stranger.loop") == 0
    assert spread.offers("stranger.loop", [entry(1)]).taken == 0


def test_what_is_too_long_for_a_link_goes_another_way() -> None:
    spread = spread_with(A)
    offers = spread.offers(A, [entry(1, size=LINK_BODY_MAX_BYTES + 1)])
    assert (offers.frames, offers.too_long, offers.cursor) == ([], [1], 1)


def test_a_want_is_answered_once_and_only_for_what_was_offered() -> None:
    spread = spread_with(A)
    assert spread.received_want(A, Want(message_id(1))) == []
    spread.offers(A, [entry(1)], ids_only=True)
    assert len(spread.received_want(A, Want(message_id(1)))) == 1
    assert spread.received_want(A, Want(message_id(1))) == []
    assert spread.counted["wants_ignored"] == 2


def test_an_id_nobody_else_brings_is_asked_for_at_once_and_the_next_after_a_while() -> None:
    spread = spread_with(A, B)
    answer = spread.received_have(A, have(1, 5), None, NOW)
    assert (answer.verdict, answer.frames) == (Verdict.WAITING, [(A, Want(message_id(5)))])
    assert spread.received_have(B, have(1, 5), None, NOW + 1).frames == []
    due_ms = spread.next_timer_ms()
    assert due_ms is not None
    assert spread.tick(due_ms - 1) == []
    assert spread.tick(due_ms) == [(B, Want(message_id(5)))]
    # Who did not answer is asked last from now on.
    spread.received_have(A, have(2, 6), None, due_ms)
    assert spread.link_down(A, due_ms) == []
    assert take(spread, B, 1, 5, at=due_ms + 5) == [(B, Done(1, "accepted", True))]
    assert spread.next_timer_ms() is None


def test_the_source_of_an_origin_is_waited_for() -> None:
    spread = spread_with(A, B)
    for message in range(8):
        take(spread, A, message, message, at=NOW + message * 1_000)
        late = spread.received_have(B, have(message, message), HopState(2, None), NOW + message * 1_000 + 20)
        assert late.frames == [(B, Done(message, "duplicate", eager=False))]
        spread.received_have(B, have(100 + message, 200 + message), None, NOW + message * 1_000 + 100)
        take(spread, A, 200 + message, 200 + message, at=NOW + message * 1_000 + 108)
    at = NOW + 50_000
    assert spread.received_have(B, have(50, 50), None, at).frames == []
    due_ms = spread.next_timer_ms()
    assert due_ms is not None
    assert at < due_ms < at + 60
    assert spread.tick(due_ms) == [(B, Want(message_id(50)))]


def test_a_link_that_goes_down_is_asked_no_more() -> None:
    spread = spread_with(A, B)
    spread.received_have(A, have(1, 5), None, NOW)
    spread.received_have(B, have(1, 5), None, NOW)
    assert spread.link_down(A, NOW + 1) == [(B, Want(message_id(5)))]
    assert spread.link_down(B, NOW + 1) == []
    assert spread.next_timer_ms() is None


def test_better_ttls_that_wait_become_upgrades_the_best_first() -> None:
    spread = spread_with(A, B, C)
    spread.received_have(B, have(1, 5, ttl=2), None, NOW)
    spread.received_have(C, have(1, 5, ttl=3), None, NOW)
    spread.received_copy(A, Copy(9, ORIGIN, "t", "s", 1, b"h" * 32, b"b"), message_id(5), NOW)
    held = HopState(1, b"h" * 32)
    effects = spread.decided(A, 9, message_id(5), ORIGIN, Reason.ACCEPTED, held, NOW)
    assert [peer for peer, _ in effects.frames] == [A]
    assert effects.upgrades == [Upgrade(C, 1, message_id(5), ORIGIN, 3, b"h" * 32)]
    # The best one was forged: the next is tried.
    effects = spread.decided(C, 1, message_id(5), ORIGIN, Reason.BAD_HOP, held, NOW)
    assert effects.frames == [(C, Done(1, "bad_hop", eager=False))]
    assert effects.upgrades == [Upgrade(B, 1, message_id(5), ORIGIN, 2, b"h" * 32)]
    effects = spread.decided(B, 1, message_id(5), ORIGIN, Reason.UPGRADED, HopState(2, None), NOW)
    (upgraded,) = (frame for _, frame in effects.frames)
    assert isinstance(upgraded, Done)
    assert (upgraded.number, upgraded.reason) == (1, "upgraded")
    assert spread.next_timer_ms() is None


def test_a_have_of_what_is_held_with_less_is_decided_without_a_body() -> None:
    spread = spread_with(A)
    assert spread.received_have(A, have(1, 5, ttl=2), HopState(1, None), NOW).verdict is Verdict.UPGRADE
    assert spread.received_have(A, have(2, 5, ttl=2), HopState(2, None), NOW).verdict is Verdict.SETTLED


@pytest.mark.parametrize("reason", [Reason.OUT_OF_SCOPE, Reason.SUPERSEDED, Reason.EXPIRED])
def test_what_is_final_for_a_message_is_asked_for_no_more(reason: Reason) -> None:
    spread = spread_with(A, B, C)
    spread.received_have(B, have(1, 5), None, NOW)
    spread.received_copy(A, Copy(9, ORIGIN, "t", "s", 1, b"h" * 32, b"b"), message_id(5), NOW)
    effects = spread.decided(A, 9, message_id(5), ORIGIN, reason, None, NOW)
    assert [(peer, frame.reason) for peer, frame in effects.frames if isinstance(frame, Done)] == [
        (A, reason.value),
        (B, reason.value),
    ]
    answer = spread.received_have(C, have(1, 5), None, NOW)
    assert (answer.verdict, answer.frames) == (Verdict.SETTLED, [(C, Done(1, reason.value, False))])


def test_a_decision_that_outlived_its_link_settles_nothing_of_the_next() -> None:
    spread = spread_with(A)
    spread.received_copy(A, Copy(1, ORIGIN, "t", "s", 2, b"h" * 32, b"b"), message_id(5), NOW)
    spread.link_down(A, NOW)
    spread.link_up(A)
    assert spread.decided(A, 1, message_id(5), ORIGIN, Reason.ACCEPTED, HopState(2, None), NOW).frames == []


def test_a_peer_with_too_many_ids_waiting_is_put_off_and_so_is_what_nobody_brings() -> None:
    spread = spread_with(A)
    for number in range(LINK_WAITING_MAX):
        assert spread.received_have(A, have(number, number), None, NOW).verdict is Verdict.WAITING
    beyond = spread.received_have(A, have(9_999, 9_999), None, NOW)
    assert beyond.verdict is Verdict.PUT_OFF
    assert isinstance(beyond.frames[0][1], Deferred)
    spread.tick(NOW + BRINGING_MAX_MS - 1)
    frames = [frame for _, frame in spread.tick(NOW + BRINGING_MAX_MS)]
    assert len(frames) == LINK_WAITING_MAX
    assert all(isinstance(frame, Deferred) and frame.reason == "not_brought" for frame in frames)
    assert spread.next_timer_ms() is None
    assert spread.received_have(A, have(1, 1), None, NOW + BRINGING_MAX_MS).verdict is Verdict.WAITING
