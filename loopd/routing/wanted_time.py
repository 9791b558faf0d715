"""The timer of demand: ends what is over, and forgets what ended long ago."""

import asyncio
import contextlib

import structlog

from loopd.database import Database
from loopd.protocol.errors import Unavailable
from loopd.routing.wanted import Wanted

# A demand counts no more from its end on, whoever noticed; this is only how late that is written down and told.
TICK_S = 5.0

log = structlog.get_logger(__name__)


class WantedTime:
    """Runs in the background, between `start` and `stop`."""

    def __init__(self, wanted: Wanted, database: Database, tick_s: float = TICK_S) -> None:
        self._wanted = wanted
        self._database = database
        self._tick_s = tick_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="wanted-time")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def step(self) -> None:
        """Do what is due now, in units that keep no other write waiting for long."""
        while self._wanted.is_due(self._database.points):
            await self._database.write(self._wanted.tick)

    async def _run(self) -> None:
        while True:
            try:
                await self.step()
            except Unavailable as error:
                log.warning("demand_not_ended", error=str(error))
            except Exception:
                # What ends next must be told all the same.
                log.exception("demand_not_ended")
            await asyncio.sleep(self._tick_s)
