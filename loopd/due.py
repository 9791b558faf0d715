"""What falls due by what the database says: each done in a transaction of its own, so that none holds up the others."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from loopd.clock import Clock
from loopd.database import Database, RowSource, Tx
from loopd.protocol.errors import Unavailable
from loopd.ticker import Ticker

log = structlog.get_logger(__name__)

# What is due has its time in its row; this is only how late the node may notice.
TICK_S: Final = 0.5
# When what failed is tried again.
PUT_OFF_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Due:
    """One thing that fell due. `do` looks whether it still is: meanwhile somebody else may have seen to it."""

    name: str
    do: Callable[[Tx], None]


class Timed(Protocol):
    """Something of which things fall due."""

    def due(self, source: RowSource, now_ms: int) -> Sequence[Due]:
        """Some of what is due now, what waited longest first."""
        ...


class DueTimer:
    """Runs in the background. What came due while the node was down is begun before `start` ends.

    What fails is logged and put off, and everything else goes on.
    """

    def __init__(
        self, name: str, timed: Sequence[Timed], database: Database, clock: Clock, tick_s: float = TICK_S
    ) -> None:
        self._timed = timed
        self._database = database
        self._clock = clock
        self._ticker = Ticker(name, self.step, tick_s, "nothing_done")
        self._put_off_until_ms: dict[str, int] = {}

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
        self._put_off_until_ms = {name: until for name, until in self._put_off_until_ms.items() if until > now_ms}
        for each in self._timed:
            waiting = [due for due in each.due(self._database.points, now_ms) if due.name not in self._put_off_until_ms]
            await asyncio.gather(*(self._do(due, now_ms) for due in waiting))

    async def _do(self, due: Due, now_ms: int) -> None:
        try:
            await self._database.write(due.do)
        except Unavailable as error:
            log.warning("due_not_done", what=due.name, error=str(error))
        except Exception:
            log.exception("due_not_done", what=due.name)
            self._put_off_until_ms[due.name] = now_ms + PUT_OFF_MS
