"""One client's stream of events: server-sent events (WHATWG HTML, §9.2), first from the log, then as they come."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from aiohttp import web

from loopd.clock import Clock
from loopd.database import Database
from loopd.events.feed import EventFeed, Follower
from loopd.events.rules import Event, EventKind, event_text
from loopd.events.service import EventLog
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import EVENT_STREAM_HEARTBEAT_S, EVENT_STREAM_MAX_S, EVENT_STREAM_PAGE

# How soon a client comes again whose stream has ended.
_RETRY_MS: Final = 2_000
# A client that is gone leaves its place to others soon, not only when a sign of life does not reach it.
_LOOKS_PER_HEARTBEAT: Final = 15

# A proxy that gathered the answer, or stored it, would make of it a list that never ends.
HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Server": "loopd",
}


class EventStream:
    """What is written to one client that follows. `run()` returns when the stream has ended, for whatever reason."""

    def __init__(
        self,
        response: web.StreamResponse,
        follower: Follower,
        kinds: Collection[EventKind],
        log: EventLog,
        feed: EventFeed,
        database: Database,
        clock: Clock,
        *,
        is_gone: Callable[[], bool] = lambda: False,
        heartbeat_s: float = EVENT_STREAM_HEARTBEAT_S,
        max_s: float = EVENT_STREAM_MAX_S,
    ) -> None:
        self._response = response
        self._follower = follower
        self._kinds = kinds
        self._log = log
        self._feed = feed
        self._database = database
        self._clock = clock
        self._is_gone = is_gone
        self._look_s = heartbeat_s / _LOOKS_PER_HEARTBEAT
        self._ends_at_s = clock.monotonic_s() + max_s
        self._position = follower.since

    async def run(self, last_id: int | None) -> None:
        """Tell what came after `last_id`, and go on; without one, what comes from now on."""
        try:
            await self._response.write(f"retry: {_RETRY_MS}\n\n".encode())
            if last_id is not None:
                await self._replay(last_id)
            await self._tell_position()
            reason = await self._go_on()
            await self._tell("end", {"reason": reason})
        except ConnectionError:
            # The client is gone; it comes again with the last id that it has.
            pass

    async def _replay(self, last_id: int) -> None:
        """Tell from the log what came after an id, up to where the follower's queue begins."""
        self._position = last_id
        if last_id > self._follower.since:
            # Read elsewhere before this node's own feed told of it, or of another life of the node.
            if (await self._log.after(self._database, self._kinds, last_id, 1)).unknown:
                await self._tell("gap", {"reason": "unknown_id", "after": last_id})
                self._position = self._follower.since
            return
        gap_told_through = 0
        while self._position < self._follower.since and not self._is_over():
            page = await self._log.after(self._database, self._kinds, self._position, EVENT_STREAM_PAGE)
            if page.gone_through is not None and page.gone_through > gap_told_through:
                gap_told_through = page.gone_through
                await self._tell("gap", {"reason": "forgotten", "after": self._position, "through": gap_told_through})
            events = [event for event in page.events if event.event_id <= self._follower.since]
            complete = len(events) < len(page.events) or len(page.events) < EVENT_STREAM_PAGE
            await self._write(events)
            if complete:
                self._position = self._follower.since
            if self._follower.overflowed:
                # Reading the log is slower than what is added to it; the queue is of no use before the end is near.
                self._follower.begin_again(self._feed.head)

    async def _go_on(self) -> str:
        """Tell what comes until the stream is over; gives the reason."""
        while not self._is_over():
            await self._wait()
            waiting = self._follower.take(EVENT_STREAM_PAGE)
            if events := [event for event in waiting if event.event_id > self._position]:
                await self._write(events)
            elif self._follower.overflowed:
                return "too_slow"
            elif not waiting and not self._is_over():
                self._position = max(self._position, self._feed.head)
                await self._tell_position()
        return "draining" if self._follower.ended else "lifetime"

    async def _wait(self) -> None:
        """Until there is something to tell, or the stream is over, or it is time for a sign of life."""
        for _ in range(_LOOKS_PER_HEARTBEAT):
            if await self._follower.wait(self._look_s) or self._is_over():
                return

    def _is_over(self) -> bool:
        return self._follower.ended or self._is_gone() or self._clock.monotonic_s() >= self._ends_at_s

    async def _write(self, events: Sequence[Event]) -> None:
        if events:
            frames = [b"id: %d\ndata: %b\n\n" % (event.event_id, event_text(event)) for event in events]
            await self._response.write(b"".join(frames))
            self._position = events[-1].event_id

    async def _tell(self, name: str, data: dict[str, Any]) -> None:
        await self._response.write(b"event: %b\ndata: %b\n\n" % (name.encode(), dump_json(data)))

    async def _tell_position(self) -> None:
        """A sign of life. A client of rare kinds comes again with the id up to which it has missed nothing."""
        await self._response.write(b": still here\nid: %d\n\n" % self._position)
