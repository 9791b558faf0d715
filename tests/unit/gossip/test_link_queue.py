"""What goes over a link first, and what the receiver's credit holds back."""

from random import Random

import pytest

from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import (
    OWN_DIALECT,
    Copy,
    Credit,
    Done,
    Frame,
    Have,
    Ping,
    Reconcile,
    Request,
    Want,
    decode_batch,
)
from loopd.gossip.link_queue import ReceiveWindow, SendQueue, cost_bytes
from loopd.protocol.limits import (
    LINK_BATCH_MAX_BYTES,
    LINK_BODY_MAX_BYTES,
    LINK_CREDIT_MAX_BYTES,
    LINK_CREDIT_MAX_FRAMES,
    LINK_QUEUE_MAX_FRAMES,
)

COPY = Copy(1, "munich.loop", "t", "s", 3, b"h" * 32, b"{}")
HAVE = Have(2, b"m" * 32, 2, None, "munich.loop")
DONE = Done(3, "accepted", True)
PING = Ping(4, 1)


def queue_of(*frames: Frame, credit: Credit | None = None) -> SendQueue:
    queue = SendQueue(OWN_DIALECT)
    if credit is not None:
        queue.granted(credit)
    for frame in frames:
        assert queue.put(frame)
    return queue


def sent(queue: SendQueue) -> list[Frame]:
    batch = queue.next_batch()
    return [] if batch is None else decode_batch(batch)


def test_health_goes_before_repair_before_bulk_and_each_keeps_its_order() -> None:
    second = Ping(5, 1)
    queue = queue_of(COPY, HAVE, DONE, PING, second, credit=Credit(10_000, 10))
    assert sent(queue) == [PING, second, DONE, HAVE, COPY]
    assert queue.next_batch() is None
    assert queue.waiting == 0


def test_without_credit_nothing_new_goes_but_health_and_answers_do() -> None:
    queue = queue_of(COPY, HAVE, DONE, PING, Want(b"m" * 32), Reconcile(1, b""), Request(1, "GET", "/", (), b""))
    assert sent(queue) == [PING, DONE, Want(b"m" * 32)]
    assert queue.next_batch() is None
    assert queue.waiting == 4
    queue.granted(Credit(cost_bytes(HAVE), 1))
    assert sent(queue) == [HAVE]
    queue.granted(Credit(0, 10))
    assert queue.next_batch() is None
    queue.granted(Credit(10_000, 0))
    assert sent(queue) == [Reconcile(1, b""), COPY, Request(1, "GET", "/", (), b"")]


def test_batches_stay_within_their_ceiling() -> None:
    body = Random(1).randbytes(LINK_BODY_MAX_BYTES)
    copies = [Copy(number, "munich.loop", "t", "s", 3, None, body) for number in range(4)]
    queue = queue_of(*copies, credit=Credit(LINK_CREDIT_MAX_BYTES, 10))
    for copy in copies:
        batch = queue.next_batch()
        assert batch is not None
        assert len(batch) <= LINK_BATCH_MAX_BYTES
        assert decode_batch(batch) == [copy]


def test_a_full_queue_takes_no_more() -> None:
    queue = queue_of(*[PING] * LINK_QUEUE_MAX_FRAMES)
    assert not queue.put(PING)
    while queue.next_batch() is not None:
        pass
    assert queue.put(PING)


def test_nobody_grants_beyond_the_ceiling() -> None:
    queue = queue_of(credit=Credit(LINK_CREDIT_MAX_BYTES, LINK_CREDIT_MAX_FRAMES))
    with pytest.raises(ProtocolError):
        queue.granted(Credit(1, 0))
    with pytest.raises(ProtocolError):
        queue_of(credit=Credit(0, LINK_CREDIT_MAX_FRAMES)).granted(Credit(0, 1))


def test_a_sender_beyond_its_credit_is_found_out() -> None:
    window = ReceiveWindow(frames=2)
    assert window.opening() == Credit(LINK_CREDIT_MAX_BYTES, 2)
    window.arrived(COPY)
    window.arrived(PING)
    window.arrived(HAVE)
    with pytest.raises(ProtocolError) as refused:
        window.arrived(HAVE)
    assert refused.value.reason == "beyond_credit"
    with pytest.raises(ValueError, match="longest frame"):
        ReceiveWindow(size_bytes=LINK_BODY_MAX_BYTES)


@pytest.mark.parametrize("seed", range(20))
def test_both_sides_count_alike_and_never_stop_for_good(seed: int) -> None:
    random = Random(seed)
    queue, window = SendQueue(OWN_DIALECT), ReceiveWindow(frames=random.choice([1, 7, 1024]))
    queue.granted(window.opening())
    frames: list[Frame] = [
        Copy(number, "a.loop", "t", "s", 1, None, bytes(random.choice([10, 5_000, LINK_BODY_MAX_BYTES])))
        for number in range(60)
    ]
    unsent, in_hand, arrived = list(frames), list[Frame](), list[Frame]()
    while len(arrived) < len(frames) or in_hand:
        while unsent and queue.put(unsent[0]):
            unsent.pop(0)
        batch = queue.next_batch()
        for frame in decode_batch(batch) if batch is not None else []:
            window.arrived(frame)
            arrived.append(frame)
            in_hand.append(frame)
        assert in_hand or batch is not None, "both sides wait for each other"
        for _ in range(random.randint(1, len(in_hand)) if in_hand else 0):
            credit = window.finished(in_hand.pop(random.randrange(len(in_hand))))
            if credit is not None:
                queue.granted(credit)
    assert arrived == frames
