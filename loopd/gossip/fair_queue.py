"""Fair queueing (deficit round robin, Shreedhar and Varghese 1995): one loud peer costs only itself.

Each peer has a queue of its own, bounded in entries and in cost. Whoever has something waiting is given the same
quantum in turn, and takes from its queue what its quanta add up to. What a peer sends beyond its bound is refused, to
it alone.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Lane(Generic[T]):
    """One peer's queue of (cost, item); `deficit` is what it was given and has not used."""

    entries: deque[tuple[int, T]] = field(default_factory=deque)
    waiting_cost: int = 0
    deficit: int = 0


class FairQueue(Generic[T]):
    """A queue with a lane for each peer. Costs are whole numbers in one unit, such as bytes.

    Peers whose entries were offered with `last` come when no other may be served. Memory is bounded by
    `lane_entries` and `lane_cost` for each peer that has something waiting; a lane that is empty is forgotten.
    """

    def __init__(self, quantum: int, lane_entries: int, lane_cost: int) -> None:
        if min(quantum, lane_entries, lane_cost) < 1:
            raise ValueError("a quantum and bounds of at least one")
        self._quantum = quantum
        self._lane_entries = lane_entries
        self._lane_cost = lane_cost
        self._lanes: dict[str, _Lane[T]] = {}
        # Whose turn it is, in order; one ring for those who come first and one for those who come last.
        self._turns: tuple[deque[str], deque[str]] = (deque(), deque())
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def waiting(self, peer: str) -> int:
        """How many entries of a peer wait."""
        lane = self._lanes.get(peer)
        return 0 if lane is None else len(lane.entries)

    def offer(self, peer: str, item: T, cost: int, *, last: bool = False) -> bool:
        """Append to the peer's lane. False, and nothing is kept, where its bound is reached.

        One entry always fits, whatever it costs. ValueError for a cost below one.
        """
        if cost < 1:
            raise ValueError("every entry costs something")
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = _Lane()
            self._turns[last].append(peer)
        elif len(lane.entries) >= self._lane_entries or lane.waiting_cost + cost > self._lane_cost:
            return False
        lane.entries.append((cost, item))
        lane.waiting_cost += cost
        self._entries += 1
        return True

    def take(self, may_be_served: Callable[[str], bool] = lambda peer: True) -> tuple[str, T] | None:
        """The next entry with its peer. None where nothing waits of a peer that may be served now."""
        for turns in self._turns:
            served = [peer for peer in turns if may_be_served(peer)]
            if served:
                return self._next(turns, frozenset(served))
        return None

    def _next(self, turns: deque[str], served: frozenset[str]) -> tuple[str, T]:
        self._grant_whole_rounds(turns, served)
        while True:
            peer = turns[0]
            lane = self._lanes[peer]
            if peer in served:
                if lane.deficit >= lane.entries[0][0]:
                    return peer, self._pop(turns, peer, lane)
                lane.deficit += self._quantum
                if lane.deficit >= lane.entries[0][0]:
                    return peer, self._pop(turns, peer, lane)
            turns.rotate(-1)

    def _grant_whole_rounds(self, turns: deque[str], served: frozenset[str]) -> None:
        """Give at once the rounds in which nobody could take anything, so that a dear entry costs no idle walk."""
        lacking = (self._lanes[peer].entries[0][0] - self._lanes[peer].deficit for peer in turns if peer in served)
        idle_rounds = max((min(lacking) - 1) // self._quantum, 0)
        for peer in served if idle_rounds else ():
            self._lanes[peer].deficit += idle_rounds * self._quantum

    def _pop(self, turns: deque[str], peer: str, lane: _Lane[T]) -> T:
        cost, item = lane.entries.popleft()
        lane.deficit -= cost
        lane.waiting_cost -= cost
        self._entries -= 1
        if not lane.entries:
            # An empty lane saves nothing up.
            turns.popleft()
            del self._lanes[peer]
        elif lane.deficit < lane.entries[0][0]:
            turns.rotate(-1)
        return item
