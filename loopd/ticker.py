"""Work that comes round: what every room's timer has in common."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from loopd.protocol.errors import Unavailable

log = structlog.get_logger(__name__)


class Ticker:
    """Does `step` every `tick_s` in the background, from `start` to `stop`, the first time at once.

    A step that fails is logged as `failure`, and the next one comes all the same: what falls due then must be done
    whatever went wrong before.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], tick_s: float, failure: str) -> None:
        self._name = name
        self._step = step
        self._tick_s = tick_s
        self._failure = failure
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """End; a step under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Unavailable as error:
                log.warning(self._failure, error=str(error))
            except Exception:
                log.exception(self._failure)
            await asyncio.sleep(self._tick_s)
