"""Forgets old events, in the background."""

import asyncio
from contextlib import suppress

import structlog

from loopd.database import Database
from loopd.events.service import EventLog
from loopd.protocol.errors import Unavailable

# A flood adds what it adds in this time to what is kept.
PRUNE_EVERY_S = 10.0

log = structlog.get_logger(__name__)


class EventPruning:
    """Keeps the event log within its bounds from `start` to `stop`."""

    def __init__(self, events: EventLog, database: Database, every_s: float = PRUNE_EVERY_S) -> None:
        self._events = events
        self._database = database
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="event-pruning")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._events.prune(self._database)
            except Unavailable as error:
                log.warning("events_not_pruned", error=str(error))
            except Exception:
                # A log that nobody prunes fills the disk.
                log.exception("events_not_pruned")
