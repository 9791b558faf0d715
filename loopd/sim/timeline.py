"""Virtual time: what happens next, in order, and never twice at once in another order."""

import heapq
from collections.abc import Callable
from typing import Final

US_PER_MS: Final = 1_000
US_PER_S: Final = 1_000_000


class Runaway(Exception):
    """More happened than a run of this size can honestly need: something answers itself without end."""


class Timeline:
    """Events by their time in microseconds from the run's start; those of the same time in the order they were set."""

    def __init__(self, events_max: int) -> None:
        """`events_max`: beyond so many events the run is a Runaway."""
        self.now_us = 0
        self.events = 0
        self._events_max = events_max
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._set = 0

    def after(self, delay_us: int, what: Callable[[], None]) -> None:
        """Let it happen so much later."""
        self.at(self.now_us + max(0, delay_us), what)

    def at(self, when_us: int, what: Callable[[], None]) -> None:
        """Let it happen at that time, which is not past."""
        self._set += 1
        heapq.heappush(self._waiting, (max(when_us, self.now_us), self._set, what))

    def run_until(self, end_us: int) -> None:
        """Let everything happen up to that time. Raises Runaway."""
        while self._waiting and self._waiting[0][0] <= end_us:
            self.now_us, _, what = heapq.heappop(self._waiting)
            self.events += 1
            if self.events > self._events_max:
                raise Runaway(f"more than {self._events_max} events by {self.now_us / US_PER_S:.3f} s")
            what()
        self.now_us = end_us
