"""Has plans made in a process of their own: one at a time, bounded in time and memory, and ended where nobody waits."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from loopd.protocol.errors import Unavailable
from loopd.protocol.limits import PLAN_MAX_S
from loopd.routing.planning import EXIT_TOO_DEAR, Batch, Need, Plan, TooDear, problem_text, read_plan

_COMMAND: Final = (sys.executable, "-m", "loopd.routing.plan_process")
# What is solved is small: threads of the linear algebra would only wait for each other.
_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_A_DAY_S: Final = 86_400

log = structlog.get_logger(__name__)


def solver_installed() -> bool:
    """Whether the optional extra that plans is there."""
    return importlib.util.find_spec("scipy") is not None


class Planner:
    """Makes plans. `command` is what it starts, for at most `max_s`."""

    def __init__(
        self,
        installed: Callable[[], bool] = solver_installed,
        command: Sequence[str] = _COMMAND,
        max_s: float = PLAN_MAX_S,
    ) -> None:
        self._installed = installed
        self._command = command
        self._max_s = max_s
        self._planning = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a plan is being made."""
        return self._planning.locked()

    async def plan(self, batches: Sequence[Batch], needs: Sequence[Need]) -> Plan:
        """The best assignment. TooDear where costs cannot be added exactly.

        Unavailable (503): `plan_unavailable` without scipy, `plan_busy` while another plan is made, `plan_timeout`.
        """
        if not self._installed():
            message = "Plans need scipy, which is not installed: pip install 'loopd[plan]'."
            raise Unavailable("plan_unavailable", message, retry_after_s=_A_DAY_S)
        if self.busy:
            raise Unavailable("plan_busy", "Another plan is being made.", retry_after_s=2)
        async with self._planning:
            problem = await asyncio.to_thread(problem_text, batches, needs)
            return read_plan(await self._run(problem))

    async def _run(self, problem: bytes) -> bytes:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **_ENVIRONMENT}
        )
        try:
            async with asyncio.timeout(self._max_s):
                answer, complaint = await process.communicate(problem)
        except TimeoutError:
            raise Unavailable(
                "plan_timeout", f"No plan was found within {self._max_s:g} s.", retry_after_s=60
            ) from None
        finally:
            # Also where whoever asked has gone.
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == EXIT_TOO_DEAR:
            raise TooDear("the costs of a plan this large are too high to be added exactly")
        if process.returncode != 0:
            log.error("plan_failed", status=process.returncode, output=complaint[-2_000:].decode(errors="replace"))
            raise RuntimeError("the process that plans failed")
        return answer
