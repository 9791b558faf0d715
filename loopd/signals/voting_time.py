"""The timer of votes: opens and closes their windows, and empties the database's log once ballots were closed."""

import asyncio
import contextlib

import structlog

from loopd.clock import Clock
from loopd.database import Database
from loopd.protocol.errors import Unavailable
from loopd.signals.voting import Voting

# A window's time is that of its proposal; this is only how late the node may notice.
TICK_S = 0.5

log = structlog.get_logger(__name__)


class VotingTime:
    """Runs in the background. What came due while the node was down is done before `start` ends."""

    def __init__(self, voting: Voting, database: Database, clock: Clock, tick_s: float = TICK_S) -> None:
        self._voting = voting
        self._database = database
        self._clock = clock
        self._tick_s = tick_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Catch up, and begin."""
        await self.step()
        self._task = asyncio.create_task(self._run(), name="voting-time")

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
        if self._voting.is_due(self._database.points, now_ms):
            await self._database.write(lambda tx: self._voting.tick(tx, now_ms))
        if self._voting.log_tells_order:
            self._voting.log_tells_order = not await self._database.empty_log()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self.step()
            except Unavailable as error:
                log.warning("votes_not_moved", error=str(error))
            except Exception:
                # The next vote's window must open and close all the same.
                log.exception("votes_not_moved")
