"""The timer of votes: opens and closes their windows, and empties the database's log once ballots were closed."""

from loopd.clock import Clock
from loopd.database import Database
from loopd.signals.voting import Voting
from loopd.ticker import Ticker

# A window's time is that of its proposal; this is only how late the node may notice.
TICK_S = 0.5


class VotingTime:
    """Runs in the background. What came due while the node was down is done before `start` ends."""

    def __init__(self, voting: Voting, database: Database, clock: Clock, tick_s: float = TICK_S) -> None:
        self._voting = voting
        self._database = database
        self._clock = clock
        self._ticker = Ticker("voting-time", self.step, tick_s, "votes_not_moved")

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
        if self._voting.is_due(self._database.points, now_ms):
            await self._database.write(lambda tx: self._voting.tick(tx, now_ms))
        if self._voting.log_tells_order:
            self._voting.log_tells_order = not await self._database.empty_log()
