"""The share of the store that one origin, and one sender, may take: a model of a store that greedy nodes fill."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.share import Held, within_share

SENDERS_MAX = 6


class Store:
    """What is held, by origin and by sender."""

    def __init__(self, messages_max: int) -> None:
        self.messages_max = messages_max
        self.origins: Counter[str] = Counter()
        self.senders: Counter[str] = Counter()
        self.held: list[tuple[str, str]] = []

    def offer(self, origin: str, sender: str) -> bool:
        held = Held(self.origins.total(), self.origins[origin], self.senders[sender])
        taken = held.messages < self.messages_max and within_share(held, self.messages_max, SENDERS_MAX)
        if taken:
            self.origins[origin] += 1
            self.senders[sender] += 1
            self.held.append((origin, sender))
        return taken

    def end(self, messages: int) -> None:
        """The oldest messages end."""
        ended, self.held = self.held[:messages], self.held[messages:]
        self.origins.subtract(origin for origin, _ in ended)
        self.senders.subtract(sender for _, sender in ended)


def test_one_origin_alone_takes_half() -> None:
    store = Store(100)
    assert sum(store.offer("flood.loop", f"relay{number}.loop") for number in range(200)) == 50


def test_one_sender_of_invented_origins_takes_three_quarters() -> None:
    store = Store(100)
    assert sum(store.offer(f"invented{number}.loop", "flood.loop") for number in range(200)) == 75
    assert store.offer("honest.loop", "linz.loop")


@settings(max_examples=60)
@given(
    messages_max=st.integers(100, 400),
    # Who floods, of how many origins, and how often: one after the other, which leaves the least to the last.
    floods=st.lists(st.tuples(st.integers(1, SENDERS_MAX - 1), st.integers(1, 400), st.integers(0, 400)), max_size=12),
    ended=st.integers(0, 100),
)
def test_whoever_floods_each_other_sender_finds_its_part(
    messages_max: int, floods: list[tuple[int, int, int]], ended: int
) -> None:
    store = Store(messages_max)
    for sender, origins, times in floods:
        for number in range(times):
            store.offer(f"origin{number % origins}.sender{sender}.loop", f"sender{sender}.loop")
        store.end(ended)
    for number in range(messages_max // (4 * SENDERS_MAX)):
        assert store.offer(f"city{number}.loop", "newcomer.loop")
