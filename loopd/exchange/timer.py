"""The exchange's timer: ends what is past its time, and selects where the node does that by itself."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from loopd.clock import Clock
from loopd.database import Database, RowSource, Tx
from loopd.ticker import Ticker

# A Match's end is in its row; this is only how late the node may notice.
TICK_S = 0.5


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
        self._ticker = Ticker("exchange-timer", self.step, tick_s, "exchange_not_moved")

    async def start(self) -> None:
        """Catch up, and begin."""
        await self.step()
        self._ticker.start()

    async def stop(self) -> None:
        """End."""
        await self._ticker.stop()

    async def step(self) -> None:
        """Do what is due now."""
        now_ms = self._clock.now_ms()
        for each in self._timed:
            if each.is_due(self._database.points, now_ms):
                await self._database.write(partial(each.tick, now_ms=now_ms))
