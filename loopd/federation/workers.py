"""The workers: one for each node that is sent to, begun where one is needed, and anew after a bug of ours."""

import asyncio
import random
from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from loopd.federation.worker import Surroundings, Worker

log = structlog.get_logger(__name__)

# How long a worker rests that a bug of ours ended.
RESTART_S: Final = 1.0


class Workers:
    """Those that run, by node id. Between `start()` and `stop()` only."""

    def __init__(self, randomness: random.Random) -> None:
        self._random = randomness
        self._around: Surroundings | None = None
        self._running: dict[str, tuple[Worker, asyncio.Task[None]]] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter([worker for worker, _ in self._running.values()])

    def start(self, around: Surroundings, node_ids: Iterable[str]) -> None:
        """Begin one for each of these nodes; the others follow when something is queued for them."""
        self._around = around
        for node_id in node_ids:
            self.ensure(node_id)

    async def stop(self) -> None:
        """End them all. What was in flight is sent again after the next start."""
        self._around = None
        tasks = [task for _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def find(self, node_id: str) -> Worker | None:
        """A node's worker, where it has one."""
        entry = self._running.get(node_id)
        return None if entry is None else entry[0]

    def ensure(self, node_id: str) -> Worker | None:
        """A node's worker, begun where there is none; None while nothing is sent at all."""
        if self._around is None:
            return None
        entry = self._running.get(node_id)
        if entry is None or entry[1].done():
            worker = Worker(node_id, self._around, self._random)
            task = asyncio.create_task(worker.run(), name=f"worker-{node_id}")
            task.add_done_callback(lambda done: self._ended(node_id, done))
            entry = self._running[node_id] = (worker, task)
        return entry[0]

    def wake(self, node_id: str) -> None:
        """Something changed for a node: its worker, if it has one, looks around."""
        worker = self.find(node_id)
        if worker is not None:
            worker.wake()

    def wake_all(self) -> None:
        """Something changed for everybody."""
        for worker in self:
            worker.wake()

    def dismiss(self, node_id: str) -> None:
        """End a node's worker: what it still has in flight must not count for a node of that name to come."""
        entry = self._running.pop(node_id, None)
        if entry is not None:
            entry[1].cancel()
            self._unwatch(node_id)

    def _ended(self, node_id: str, task: asyncio.Task[None]) -> None:
        entry = self._running.get(node_id)
        if entry is not None and entry[1] is task:
            del self._running[node_id]
            self._unwatch(node_id)
        if not task.cancelled() and task.exception() is not None:
            log.error("worker_failed", peer=node_id, exc_info=task.exception())
            # A bug of ours must not silence a peer for good.
            asyncio.get_running_loop().call_later(RESTART_S, self.ensure, node_id)

    def _unwatch(self, node_id: str) -> None:
        if self._around is not None:
            self._around.watch.unwatch(node_id)
