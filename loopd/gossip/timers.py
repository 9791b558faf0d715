"""Due times by key, the earliest first."""

import heapq
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Timers(Generic[Key]):
    """One timer for each key. Setting one again replaces it."""

    def __init__(self) -> None:
        self._due_ms: dict[Key, tuple[int, int]] = {}
        # What was replaced or cancelled stays until it is reached; the counter tells it from what counts.
        self._heap: list[tuple[int, int, Key]] = []
        self._set = 0

    def set(self, key: Key, due_ms: int) -> None:
        """Set the key's timer."""
        self._set += 1
        self._due_ms[key] = (due_ms, self._set)
        heapq.heappush(self._heap, (due_ms, self._set, key))
        if len(self._heap) > 2 * len(self._due_ms) + 64:
            self._heap = [(due, order, key) for key, (due, order) in self._due_ms.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Take the key's timer away, if it has one."""
        self._due_ms.pop(key, None)

    def next_ms(self) -> int | None:
        """The earliest time that is set."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int) -> list[Key]:
        """The keys whose time has come, each of them once and in order; their timers are gone."""
        keys = []
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now_ms:
            key = heapq.heappop(self._heap)[2]
            del self._due_ms[key]
            keys.append(key)
            self._drop_stale()
        return keys

    def _drop_stale(self) -> None:
        while self._heap and self._due_ms.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
