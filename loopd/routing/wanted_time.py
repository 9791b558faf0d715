"""The timer of demand: ends what is over, and forgets what ended long ago."""

from loopd.database import Database
from loopd.routing.wanted import Wanted
from loopd.ticker import Ticker

# A demand counts no more from its end on, whoever noticed; this is only how late that is written down and told.
TICK_S = 5.0


class WantedTime:
    """Runs in the background, between `start` and `stop`."""

    def __init__(self, wanted: Wanted, database: Database, tick_s: float = TICK_S) -> None:
        self._wanted = wanted
        self._database = database
        self._ticker = Ticker("wanted-time", self.step, tick_s, "demand_not_ended")

    def start(self) -> None:
        """Begin."""
        self._ticker.start()

    async def stop(self) -> None:
        """End."""
        await self._ticker.stop()

    async def step(self) -> None:
        """Do what is due now, in units that keep no other write waiting for long."""
        while self._wanted.is_due(self._database.points):
            await self._database.write(self._wanted.tick)
