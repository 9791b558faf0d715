"""Events as they are committed, fanned out in memory: whoever follows costs no query."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection
from contextlib import suppress

from loopd.events.rules import Event, EventKind
from loopd.protocol.errors import Unavailable
from loopd.protocol.limits import (
    EVENT_FOLLOWERS_MAX,
    EVENT_FOLLOWERS_PER_CLIENT_MAX,
    EVENT_QUEUE_MAX,
)


class Follower:
    """One who follows the feed: a bounded queue of the events of its kinds, since the one with the id `since`.

    What comes while the queue is full is dropped, all that follows too, and `overflowed` says so.
    """

    def __init__(self, kinds: Collection[EventKind], since: int) -> None:
        self.since = since
        self.overflowed = False
        self.ended = False
        self._kinds = kinds
        self._queue: deque[Event] = deque()
        self._woken = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Take an event that was committed."""
        if event.kind not in self._kinds or self.overflowed:
            return
        if len(self._queue) >= EVENT_QUEUE_MAX:
            self.overflowed = True
        else:
            self._queue.append(event)
        self._woken.set()

    def end(self) -> None:
        """Nothing follows any more."""
        self.ended = True
        self._woken.set()

    def begin_again(self, since: int) -> None:
        """Forget what waits, and follow from the event with that id, up to which the log was read meanwhile."""
        self._queue.clear()
        self.since = since
        self.overflowed = False

    async def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to take or to be told; False where the time is over before."""
        if self._queue or self.overflowed or self.ended:
            return True
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._woken.wait()
        return False

    def take(self, limit: int) -> list[Event]:
        """Up to `limit` of the events that wait, in order."""
        return [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]


class EventFeed:
    """Tells events to those who follow. `head` is the id of the newest one told, at first of the newest in the log."""

    def __init__(self, head: int) -> None:
        self.head = head
        self._followers: dict[Follower, str] = {}
        self._by_client: Counter[str] = Counter()
        self._watchers: list[Callable[[Event], None]] = []
        self._closed = False

    def committed(self, event: Event) -> None:
        """Pass on an event; called on the event loop, in the order of ids."""
        self.head = event.event_id
        for follower in self._followers:
            follower.offer(event)
        for watcher in self._watchers:
            watcher(event)

    def watch(self, watcher: Callable[[Event], None]) -> None:
        """Have `watcher` called with each event from now on; it must be quick and not raise."""
        self._watchers.append(watcher)

    def follow(self, client: str, kinds: Collection[EventKind], *, operator: bool = False) -> Follower:
        """Follow the events of these kinds from now on. Whoever follows leaves.

        Unavailable (503) `draining`; `too_many_streams` where `client`, or all together, follow as often as may be.
        What strangers take keeps no operator out.
        """
        if self._closed:
            raise Unavailable("draining", "The node is stopping.", retry_after_s=10)
        crowded = self._by_client[client] >= EVENT_FOLLOWERS_PER_CLIENT_MAX
        if crowded or (not operator and len(self._followers) >= EVENT_FOLLOWERS_MAX):
            raise Unavailable("too_many_streams", "As many streams are open as are kept.", retry_after_s=30)
        follower = Follower(kinds, self.head)
        self._followers[follower] = client
        self._by_client[client] += 1
        return follower

    @property
    def followers(self) -> Collection[Follower]:
        """Who follows now."""
        return self._followers.keys()

    def leave(self, follower: Follower) -> None:
        """Follow no longer."""
        client = self._followers.pop(follower)
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]

    def close(self) -> None:
        """End whoever follows, and let nobody begin."""
        self._closed = True
        for follower in self._followers:
            follower.end()
