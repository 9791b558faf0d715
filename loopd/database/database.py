"""The door of the database: write through units of work, read beside them."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from loopd.clock import Clock
from loopd.database.connection import UnusableDatabase, check_ours, connect
from loopd.database.files import copy_database, new_file
from loopd.database.migrations import migrate, shipped_migrations
from loopd.database.readers import Reader, Readers
from loopd.database.rows import ConnectionRows, Parameters, RowSource
from loopd.database.settings import DatabaseSettings
from loopd.database.writer import Tx, Writer, WriterStatistics

T = TypeVar("T")


class Database:
    """One open database, for one event loop. Always close it: its threads keep the process alive.

    Every method may raise Unavailable: `storage` when the disk, the file or another process is to blame, `overloaded`
    when too much waits, `shutting_down` after `close()`. Mistakes in SQL and violated constraints are sqlite3.Error.
    """

    def __init__(self, path: Path, writer: Writer, writing: sqlite3.Connection, readers: Readers) -> None:
        self._path = path
        self._writer = writer
        self._writing = writing
        self._readers = readers
        self._reading_here = connect(path, busy_timeout_s=0.0, read_only=True)
        self._points = ConnectionRows(self._reading_here)
        self._closed: asyncio.Task[None] | None = None

    @classmethod
    async def create(cls, path: Path, settings: DatabaseSettings, clock: Clock) -> "Database":
        """Make a new database at `path` and open it. FileExistsError if something is there."""
        await asyncio.to_thread(_create_file, path, clock)
        return await cls.open(path, settings, clock)

    @classmethod
    async def open(cls, path: Path, settings: DatabaseSettings, clock: Clock) -> "Database":
        """Open the database at `path` and bring its schema up to date.

        UnusableDatabase if there is none (a daemon whose disk is not mounted must not begin anew), or if it is damaged,
        locked, not writable, another program's, or of a newer loopd.
        """
        writing = await asyncio.to_thread(_open_for_writing, path, settings, clock)
        try:
            readers = await Readers.open(path, settings)
        except BaseException:
            writing.close()
            raise
        return cls(path, Writer(writing, settings, clock), writing, readers)

    async def __aenter__(self) -> "Database":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def write(self, unit: Callable[[Tx], T]) -> T:
        """Run `unit` on the writer's thread and return its result once it is committed and on the disk.

        Concurrent units share a transaction and run one after the other, each seeing what those before it did. A unit
        that raises is undone alone, and its exception is raised here. If the commit fails, every unit of that
        transaction raises Unavailable `storage`. A caller that is cancelled before its unit began has no effect; later,
        the unit stands or falls as if somebody still waited.

        A unit must be quick, touch nothing but its `tx` and its arguments, and return values, not cursors.
        """
        return await self._writer.write(unit)

    async def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row, or None, off the loop; say `LIMIT 1` where many may match."""
        async with self._readers.lend() as reader:
            return await reader.one(sql, parameters)

    async def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Every row, off the loop; the query bounds their number."""
        async with self._readers.lend() as reader:
            return await reader.all(sql, parameters)

    def snapshot(self) -> AbstractAsyncContextManager[Reader]:
        """Several reads of one moment: `async with database.snapshot() as reader`.

        Keep it short, for the log of changes cannot shrink meanwhile, and read through `reader` alone inside: another
        read would wait for a second connection of the pool while holding the first.
        """
        return self._readers.snapshot()

    def point(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """A read by key on the event loop's own thread: microseconds, nothing longer."""
        return self._points.one(sql, parameters)

    @property
    def points(self) -> RowSource:
        """`point()` for functions that take a RowSource, and so work inside a unit as well."""
        return self._points

    @property
    def statistics(self) -> WriterStatistics:
        """What the writer did since the start."""
        return self._writer.statistics

    async def backup(self, target: Path) -> None:
        """Copy the database as it is at one moment to `target`, while it goes on being used.

        The copy is checked, is a single file, and appears under its name only when it is on the disk. FileExistsError
        if `target` exists; OSError or sqlite3.Error if it cannot be written. Cancelling leaves nothing.
        """
        stop = threading.Event()
        copying = asyncio.ensure_future(asyncio.to_thread(copy_database, self._path, target, stop))
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([copying])
            copying.exception()
            raise

    async def empty_log(self) -> bool:
        """Bring the log of changes into the file and cut it to nothing, so that it no longer tells their order.

        False where somebody was reading or writing: then it is for the caller to try again.
        """
        return await asyncio.to_thread(_empty_log, self._path)

    async def close(self) -> None:
        """Finish what was accepted, then refuse, and end every thread. May be called again."""
        if self._closed is None:
            self._closed = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        await self._writer.drain()
        await self._readers.close()
        self._reading_here.close()
        # The last connection to close writes the log back into the file: not on the loop.
        await asyncio.to_thread(self._writing.close)


def _empty_log(path: Path) -> bool:
    connection = connect(path, busy_timeout_s=1.0)
    try:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return busy == 0


def _create_file(path: Path, clock: Clock) -> None:
    with new_file(path) as partial:
        connection = connect(partial, busy_timeout_s=1.0)
        try:
            migrate(connection, shipped_migrations(), clock)
        finally:
            connection.close()


def _open_for_writing(path: Path, settings: DatabaseSettings, clock: Clock) -> sqlite3.Connection:
    check_ours(path)
    try:
        connection = connect(
            path, busy_timeout_s=settings.busy_timeout_s, synchronous=settings.synchronous, one_thread=False
        )
        try:
            migrate(connection, shipped_migrations(), clock)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise UnusableDatabase(f"{path} cannot be opened or brought up to date: {error}") from error
    return connection
