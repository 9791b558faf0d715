"""The exchange's timer: ends what is past its time, and selects where the node does that by itself."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog

from loopd.clock import Clock
from loopd.database import Database, RowSource, Tx
from loopd.protocol.errors import Unavailable

# A Match's end is in its row; this is only how late the node may notice.
TICK_S = 0.5

log = structlog.get_logger(__name__)


class Timed(Protocol):
    """Something that falls due by what the database says."""

    def is_due(self, source: RowSource, now_ms: int) -> bool:
        """Whether there is something to do now."""
        ...

    def tick(self, tx: Tx, now_ms: int) -> None:
        """Do some of it."""
        ...


class ExchangeTimer:
    """Runs in the background. What came due while the node was down is begun before `start` ends."""

    def __init__(self, timed: Sequence[Timed], database: Database, clock: Clock, tick_s: float = TICK_S) -> None:
        self._timed = timed
        self._database = database
        self._clock = clock
        self._tick_s = tick_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Catch up, and begin."""
        await self.step()
        self._task = asyncio.create_task(self._run(), name="exchange-timer")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def step(self) -> None:
        """Do what is due now."""
        now_ms = self._clock.now_ms()
        for each in self._timed:
            if each.is_due(self._database.points, now_ms):
                await self._database.write(partial(each.tick, now_ms=now_ms))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self.step()
            except Unavailable as error:
                log.warning("exchange_not_moved", error=str(error))
            except Exception:
                # The next Match must end all the same.
                log.exception("exchange_not_moved")
