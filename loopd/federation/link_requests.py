"""Requests for one node alone, such as bids, over its link: asked here, answered there, and the other way round.

A request goes as it would have gone by HTTP, with the sender's own signed headers, and meets the same checks there.
`post` gives None where the link cannot carry it, or broke before the answer came: then the very same request goes by
HTTP, and whoever got it twice knows the second for a repeat. A peer that leaves one unanswered is asked no more over
this link.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import structlog
from multidict import CIMultiDict

from loopd.clock import Clock
from loopd.gossip.frames import Request, Response
from loopd.net.http_client import PeerAnswer
from loopd.net.link import Link
from loopd.protocol.limits import (
    LINK_BODY_MAX_BYTES,
    LINK_REQUESTS_AT_ONCE,
    LINK_REQUESTS_UNANSWERED_MAX,
)

log = structlog.get_logger(__name__)

# Answers a request of the node with that id as its HTTP counterpart would be answered; never raises.
Serve = Callable[[str, Request], Awaitable[Response]]


class LinkRequests:
    """The requests over one link. `run()` with the link; `post` comes from anywhere."""

    def __init__(self, link: Link, serve: Serve, clock: Clock, timeout_s: float) -> None:
        self._link = link
        self._serve = serve
        self._clock = clock
        self._timeout_s = timeout_s
        self._number = 0
        self._unanswered: dict[int, asyncio.Future[Response]] = {}
        self._silent = False
        # What the peer asks; bounded by the credit that was granted.
        self._waiting: deque[Request] = deque()
        self._in_work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until cancelled; then whoever waits for an answer learns that none comes."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for answered in self._unanswered.values():
                answered.cancel()
            for task in self._in_work:
                task.cancel()
            await asyncio.gather(*self._in_work, return_exceptions=True)

    # This node's own

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> PeerAnswer | None:
        """The answer to a POST; None where it has to go by HTTP."""
        if (
            self._silent
            or not self._link.is_open
            or len(body) > LINK_BODY_MAX_BYTES
            or len(self._unanswered) >= LINK_REQUESTS_UNANSWERED_MAX
        ):
            return None
        self._number += 1
        number, began_s = self._number, self._clock.monotonic_s()
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._unanswered[number] = answered
        self._link.send([Request(number, "POST", path, tuple(headers.items()), body)])
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wait([answered])
        except TimeoutError:
            self._silent = True
            log.info("link_request_unanswered", peer=self._link.peer, path=path)
            return None
        finally:
            del self._unanswered[number]
        if answered.cancelled():
            return None
        response = answered.result()
        elapsed_ms = round((self._clock.monotonic_s() - began_s) * 1000)
        return PeerAnswer(response.status, CIMultiDict(response.headers), response.body, elapsed_ms)

    def answered(self, frame: Response) -> None:
        """An answer came. One that nobody waits for any more changes nothing."""
        answered = self._unanswered.get(frame.number)
        if answered is not None and not answered.done():
            answered.set_result(frame)

    # The peer's

    def received(self, frame: Request) -> None:
        """A request came: a few are worked on at once, the others wait."""
        self._waiting.append(frame)
        self._take_up()

    def _take_up(self) -> None:
        while self._waiting and len(self._in_work) < LINK_REQUESTS_AT_ONCE and self._link.is_open:
            task = asyncio.create_task(self._answer(self._waiting.popleft()))
            self._in_work.add(task)
            task.add_done_callback(self._worked_on)

    def _worked_on(self, task: asyncio.Task[None]) -> None:
        self._in_work.discard(task)
        self._take_up()

    async def _answer(self, frame: Request) -> None:
        response = await self._serve(self._link.peer, frame)
        self._link.send([response])
        self._link.finished([frame])
