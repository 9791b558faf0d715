"""The one writer: concurrent units of work share a transaction, and with it the wait for the disk.

A unit is a plain function of a `Tx`. The writer's thread takes whatever waits, runs each unit inside a savepoint of one
`BEGIN IMMEDIATE`, commits, and only then answers the callers. It never waits for more units to come: the next batch
gathers while this one commits.
"""

import asyncio
import sqlite3
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from loopd.clock import Clock
from loopd.database.connection import is_storage_error, shutting_down, storage_unavailable
from loopd.database.rows import ConnectionRows, Parameters
from loopd.database.settings import DatabaseSettings
from loopd.protocol.errors import Unavailable

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Tx(ConnectionRows):
    """A unit's hold on the transaction. It lives on the writer's thread, and no longer than the unit."""

    __slots__ = ("_callbacks",)

    def __init__(self, connection: sqlite3.Connection, callbacks: list[Callable[[], None]]) -> None:
        super().__init__(connection)
        self._callbacks = callbacks

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement. Transactions are the writer's: a unit neither begins nor ends one."""
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement for each row of parameters."""
        self._connection.executemany(sql, rows)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the event loop once this unit is durable, before its caller goes on.

        It is dropped if the unit or its transaction fails, and runs even if the caller was cancelled.
        """
        self._callbacks.append(callback)


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """Counts since the start, and how many units wait now."""

    units: int
    commits: int
    failed_commits: int
    waiting: int


class _Job(Generic[T]):
    """One unit, who waits for it, and what came of it."""

    __slots__ = ("callbacks", "error", "future", "result", "unit")

    def __init__(self, unit: Callable[[Tx], T], future: asyncio.Future[T]) -> None:
        self.unit = unit
        self.future = future
        self.callbacks: list[Callable[[], None]] = []
        self.result: T | None = None
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.callbacks.clear()


class Writer:
    """Runs units on a thread of its own; made on the event loop that its callers wait on.

    `connection` is handed over: after this nobody else uses it, until `drain()` has returned.
    """

    def __init__(self, connection: sqlite3.Connection, settings: DatabaseSettings, clock: Clock) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job[Any]] = deque()
        self._work = threading.Condition()
        self._closing = False
        self._units = 0
        self._commits = 0
        self._failed_commits = 0
        # A daemon thread: whoever forgets to close loses what was not acknowledged, but the process ends.
        self._thread = threading.Thread(target=self._run, name="database-writer", daemon=True)
        self._thread.start()

    @property
    def statistics(self) -> WriterStatistics:
        return WriterStatistics(self._units, self._commits, self._failed_commits, len(self._jobs))

    async def write(self, unit: Callable[[Tx], T]) -> T:
        """Run `unit` and return its result once it is committed. See `Database.write`."""
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(unit, future)
        with self._work:
            if self._closing:
                raise shutting_down()
            if len(self._jobs) >= self._settings.queue_max:
                raise Unavailable("overloaded", "Too many writes are waiting.", retry_after_s=1)
            self._jobs.append(job)
            self._work.notify()
        return await future

    async def drain(self) -> None:
        """Refuse new units, and return when those that waited are done and answered."""
        with self._work:
            self._closing = True
            self._work.notify()
        await asyncio.to_thread(self._thread.join)

    # From here on: the writer's thread.

    def _run(self) -> None:
        while self._wait_for_work():
            self._run_batch()

    def _wait_for_work(self) -> bool:
        with self._work:
            while not self._jobs and not self._closing:
                self._work.wait()
            return bool(self._jobs)

    def _take(self) -> _Job[Any] | None:
        """The next unit that somebody still waits for."""
        with self._work:
            while self._jobs:
                job = self._jobs.popleft()
                if not job.future.cancelled():
                    return job
        return None

    def _run_batch(self) -> None:
        connection = self._connection
        jobs: list[_Job[Any]] = []
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
        except Exception as error:
            while (job := self._take()) is not None:
                jobs.append(job)
            self._fail(jobs, error)
            return
        deadline_s = self._clock.monotonic_s() + self._settings.batch_max_ms / 1000
        try:
            while len(jobs) < self._settings.batch_max and (job := self._take()) is not None:
                jobs.append(job)
                self._run_unit(job)
                if self._clock.monotonic_s() >= deadline_s:
                    break
            connection.execute("COMMIT")
        except Exception as error:
            self._fail(jobs, error)
            return
        self._units += len(jobs)
        self._commits += 1
        self._answer(jobs)

    def _run_unit(self, job: _Job[Any]) -> None:
        """Run one unit in its savepoint. Raises only if the whole transaction is lost."""
        connection = self._connection
        connection.execute("SAVEPOINT unit")
        try:
            job.result = job.unit(Tx(connection, job.callbacks))
        except BaseException as error:
            # Cursors in the frames of the failed unit would keep their view of the database.
            traceback.clear_frames(error.__traceback__)
            if not connection.in_transaction:
                # A full disk, for one, rolls back the whole transaction, and other units' work with it.
                raise sqlite3.OperationalError("a unit's error ended the transaction") from error
            connection.execute("ROLLBACK TO unit")
            if is_storage_error(error):
                _log.error("write_failed", error=repr(error))
                job.fail(storage_unavailable())
            elif isinstance(error, StopIteration):
                # A future cannot hold one.
                job.fail(RuntimeError("a unit of work raised StopIteration"))
            else:
                job.fail(error)
        connection.execute("RELEASE unit")

    def _fail(self, jobs: list[_Job[Any]], error: Exception) -> None:
        """Nothing of the transaction remains: tell every caller so, whatever its own unit came to."""
        self._failed_commits += 1
        _log.error("commit_failed", error=repr(error), cause=repr(error.__cause__), writes=len(jobs))
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as rollback_error:
            # The next batch tries again before it begins.
            _log.error("rollback_failed", error=repr(rollback_error))
        for job in jobs:
            job.fail(storage_unavailable())
        self._answer(jobs)

    def _answer(self, jobs: list[_Job[Any]]) -> None:
        try:
            self._loop.call_soon_threadsafe(_settle, self._loop, jobs)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            _log.warning("answers_dropped", writes=len(jobs))


def _settle(loop: asyncio.AbstractEventLoop, jobs: list[_Job[Any]]) -> None:
    """On the event loop: run what was to follow the commit, then wake the callers."""
    for job in jobs:
        for callback in job.callbacks:
            try:
                callback()
            except Exception as error:
                # The write stands, and so does its answer.
                loop.call_exception_handler({"message": "an after_commit callback failed", "exception": error})
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
