"""The door at which announcements come in: each peer in turn, a bounded number at once (see docs/gossip.md, Defence).

What a peer sends beyond its bound is refused with 429, to it alone. What waits for something, such as a key, holds no
more places than one peer may hold.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from loopd.gossip.fair_queue import FairQueue
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import (
    ANNOUNCEMENTS_AT_ONCE_MAX,
    ANNOUNCEMENTS_PER_PEER_AT_ONCE_MAX,
    ANNOUNCEMENTS_WAITING_PER_PEER_MAX,
    ANNOUNCEMENTS_WAITING_PER_PEER_MAX_BYTES,
)

QUANTUM_BYTES = 16 * 1024
# What taking an announcement costs beside its bytes, counted as bytes: a small one is not free.
BASE_COST_BYTES = 2 * 1024
RETRY_AFTER_S = 1


class Door:
    """Lets announcements in. Greylisted peers' come when no other waits."""

    def __init__(
        self, at_once: int = ANNOUNCEMENTS_AT_ONCE_MAX, per_peer: int = ANNOUNCEMENTS_PER_PEER_AT_ONCE_MAX
    ) -> None:
        self._at_once = at_once
        self._per_peer = per_peer
        self._inside: dict[str, int] = {}
        self._total = 0
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(
            QUANTUM_BYTES, ANNOUNCEMENTS_WAITING_PER_PEER_MAX, ANNOUNCEMENTS_WAITING_PER_PEER_MAX_BYTES
        )

    @asynccontextmanager
    async def turn(self, peer: str, size_bytes: int, *, last: bool = False) -> AsyncIterator[None]:
        """Work on an announcement of that peer, once it is its turn. Refusal 429 `over_share` beyond its bound."""
        await self._enter(peer, size_bytes, last)
        try:
            yield
        finally:
            self._leave(peer)

    def waiting(self, peer: str) -> int:
        """How many announcements of a peer wait."""
        return self._queue.waiting(peer)

    async def _enter(self, peer: str, size_bytes: int, last: bool) -> None:
        if not self._queue.waiting(peer) and self._has_room(peer) and (not last or not len(self._queue)):
            self._count(peer)
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._queue.offer(peer, admitted, BASE_COST_BYTES + size_bytes, last=last):
            raise Refusal(429, "over_share", "Too many of this node's announcements wait here.", None, RETRY_AFTER_S)
        try:
            await admitted
        except asyncio.CancelledError:
            # A place that came at the same moment goes to the next; one that did not come is passed over later.
            if admitted.done() and not admitted.cancelled():
                self._leave(peer)
            raise

    def _has_room(self, peer: str) -> bool:
        return self._total < self._at_once and self._inside.get(peer, 0) < self._per_peer

    def _count(self, peer: str) -> None:
        self._inside[peer] = self._inside.get(peer, 0) + 1
        self._total += 1

    def _leave(self, peer: str) -> None:
        self._total -= 1
        self._inside[peer] -= 1
        if not self._inside[peer]:
            del self._inside[peer]
        while (found := self._queue.take(self._has_room)) is not None:
            next_peer, admitted = found
            if not admitted.done():
                self._count(next_peer)
                admitted.set_result(None)
