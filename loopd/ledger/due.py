"""The timer of the ledger: what comes due while nobody asks is written down all the same."""

import asyncio
import contextlib

import structlog

from loopd.clock import Clock
from loopd.database import Database
from loopd.ledger.service import Ledger
from loopd.protocol.errors import Unavailable

# What is due is dated at its own moment, whenever it is written: this is only how late the fund may see it.
TICK_S = 5.0

log = structlog.get_logger(__name__)


class DueTime:
    """Runs in the background, over a ledger that has begun."""

    def __init__(self, ledger: Ledger, database: Database, clock: Clock, tick_s: float = TICK_S) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._tick_s = tick_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        if self._ledger.enabled:
            self._task = asyncio.create_task(self._run(), name="ledger-due")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def step(self) -> None:
        """Charge all that is due now, some accounts in each transaction."""
        while self._ledger.is_due(self._database.points):
            await self._database.write(self._ledger.charge_due)

    async def _run(self) -> None:
        while True:
            try:
                await self.step()
            except Unavailable as error:
                log.warning("due_not_charged", error=str(error))
            except Exception:
                # What comes due next must be charged all the same.
                log.exception("due_not_charged")
            await asyncio.sleep(self._tick_s)
