"""The timer of the ledger: what comes due while nobody asks is written down all the same."""

from functools import partial

import structlog

from loopd.clock import Clock
from loopd.database import Database
from loopd.ledger.service import Ledger
from loopd.protocol.errors import Unavailable
from loopd.ticker import Ticker

log = structlog.get_logger(__name__)

# What is due is dated at its own moment, whenever it is written: this is only how late the fund may see it.
TICK_S = 5.0


class DueTime:
    """Runs in the background, over a ledger that has begun."""

    def __init__(self, ledger: Ledger, database: Database, clock: Clock, tick_s: float = TICK_S) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._ticker = Ticker("ledger-due", self.step, tick_s, "due_not_charged")

    def start(self) -> None:
        """Begin."""
        if self._ledger.enabled:
            self._ticker.start()

    async def stop(self) -> None:
        """End."""
        await self._ticker.stop()

    async def step(self) -> None:
        """Charge all that is due now, some accounts in each transaction."""
        while self._ledger.is_due(self._database.points):
            try:
                await self._database.write(self._ledger.charge_due)
            except Unavailable:
                raise
            except Exception:
                log.exception("due_not_charged")
                await self._charge_one_by_one()
                return

    async def _charge_one_by_one(self) -> None:
        """One account cannot be charged: that must not keep the others' coins from ageing."""
        for number in self._ledger.due_accounts(self._database.points):
            try:
                await self._database.write(partial(self._ledger.charge_accounts, numbers=[number]))
            except Unavailable:
                raise
            except Exception:
                log.exception("account_not_charged", account=number)
