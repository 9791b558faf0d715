from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.gossip.fair_queue import FairQueue


def queue(quantum: int = 10, entries: int = 1000, cost: int = 10**9) -> FairQueue[str]:
    return FairQueue(quantum, entries, cost)


def drained(waiting: FairQueue[str], count: int | None = None) -> list[str]:
    taken: list[str] = []
    while len(taken) != count and (found := waiting.take()) is not None:
        taken.append(found[0])
    return taken


def test_a_loud_peer_costs_only_itself() -> None:
    waiting = queue(entries=500)
    refused = sum(not waiting.offer("loud", "x", 10) for _ in range(10_000))
    assert refused == 9_500
    for peer in ("quiet", "shy"):
        assert waiting.offer(peer, "x", 10)
    assert set(drained(waiting, 3)) == {"loud", "quiet", "shy"}
    assert len(waiting) == 499
    assert (waiting.waiting("loud"), waiting.waiting("quiet")) == (499, 0)


def test_shares_are_of_cost_not_of_entries() -> None:
    waiting = queue(quantum=100)
    for _ in range(400):
        waiting.offer("large", "x", 100)
        waiting.offer("small", "x", 10)
    counts = Counter(drained(waiting, 220))
    assert counts["small"] == 200
    assert counts["large"] == 20


def test_one_entry_fits_whatever_it_costs_and_a_second_does_not() -> None:
    waiting = queue(quantum=1, cost=100)
    assert waiting.offer("a", "first", 10**6)
    assert not waiting.offer("a", "second", 1)
    assert waiting.offer("b", "other", 1)
    assert waiting.take() == ("b", "other")
    assert waiting.take() == ("a", "first")
    assert waiting.offer("a", "second", 1)


def test_who_comes_last_waits_for_all_others_and_still_comes() -> None:
    waiting = queue()
    waiting.offer("grey", "1", 5, last=True)
    for _ in range(3):
        waiting.offer("good", "2", 50)
    assert drained(waiting) == ["good", "good", "good", "grey"]


def test_who_may_not_be_served_is_passed_over_and_keeps_its_place() -> None:
    waiting = queue()
    waiting.offer("busy", "1", 5)
    waiting.offer("free", "2", 5)
    assert waiting.take(lambda peer: peer != "busy") == ("free", "2")
    assert waiting.take(lambda peer: peer != "busy") is None
    assert waiting.take() == ("busy", "1")
    assert waiting.take() is None


def test_bounds_and_costs_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FairQueue(0, 1, 1)
    with pytest.raises(ValueError, match="costs something"):
        queue().offer("a", "x", 0)


@given(
    offers=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 50)), max_size=80),
    quantum=st.integers(1, 60),
)
def test_nothing_is_lost_or_reordered_within_a_peer_and_nobody_gets_ahead_of_its_share(
    offers: list[tuple[str, int]], quantum: int
) -> None:
    waiting: FairQueue[tuple[int, int]] = FairQueue(quantum, 1000, 10**9)
    for number, (peer, cost) in enumerate(offers):
        assert waiting.offer(peer, (number, cost), cost)
    served: Counter[str] = Counter()
    left = Counter(peer for peer, _ in offers)
    order: dict[str, list[int]] = {}
    while (found := waiting.take()) is not None:
        peer, (number, cost) = found
        served[peer] += cost
        left[peer] -= 1
        order.setdefault(peer, []).append(number)
        backlogged = [other for other in left if left[other] > 0]
        for other in backlogged:
            # The bound of the algorithm: what one gets ahead of another while both wait.
            assert served[peer] - served[other] <= quantum + 2 * 50
    assert len(waiting) == 0
    expected = {peer: [n for n, (p, _) in enumerate(offers) if p == peer] for peer, _ in offers}
    assert order == expected
