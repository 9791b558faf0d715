"""Reads off the event loop: a small pool of connections, each on a thread of its own."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiosqlite

from loopd.database.connection import connect, is_storage_error, shutting_down, storage_unavailable
from loopd.database.rows import Parameters
from loopd.database.settings import DatabaseSettings
from loopd.protocol.errors import Unavailable


class Reader:
    """Reads on one connection of the pool; what it sees is said by whoever handed it out."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row, or None. All that match are fetched: say `LIMIT 1` where that may be many."""
        rows = await self.all(sql, parameters)
        return rows[0] if rows else None

    async def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Every row."""
        try:
            return list(await self._connection.execute_fetchall(sql, parameters))
        except asyncio.CancelledError:
            # Whoever gets this connection next shall not wait for an answer that nobody wants.
            await self._connection.interrupt()
            raise
        except sqlite3.Error as error:
            if is_storage_error(error):
                raise storage_unavailable() from error
            raise


class Readers:
    """The pool. A connection is lent to one borrower at a time; who waits too long is refused."""

    def __init__(self, connections: list[aiosqlite.Connection], settings: DatabaseSettings) -> None:
        self._connections = connections
        self._idle = list(connections)
        self._free = asyncio.Semaphore(len(connections))
        self._settings = settings
        self._waiting = 0
        self._closing = False

    @classmethod
    async def open(cls, path: Path, settings: DatabaseSettings) -> "Readers":
        """Open every connection of the pool, or none."""

        def connector() -> sqlite3.Connection:
            return connect(path, busy_timeout_s=settings.busy_timeout_s, read_only=True)

        connections: list[aiosqlite.Connection] = []
        try:
            for _ in range(settings.readers):
                connections.append(await aiosqlite.Connection(connector, iter_chunk_size=64))
        except BaseException:
            await _close_all(connections)
            raise
        return cls(connections, settings)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Reader]:
        """A reader whose every query sees the newest commit."""
        await self._wait_for_free()
        connection = self._idle.pop()
        try:
            yield Reader(connection)
        finally:
            self._idle.append(connection)
            self._free.release()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        """A reader whose queries all see the database of one moment, that of the first of them."""
        await self._wait_for_free()
        connection = self._idle.pop()
        try:
            await connection.execute_fetchall("BEGIN")
            yield Reader(connection)
        finally:
            # On a task of its own: a second cancellation must not give back a connection inside a transaction.
            await asyncio.shield(asyncio.ensure_future(self._end_snapshot(connection)))

    async def close(self) -> None:
        """Refuse new reads, wait for those that run, and end the threads."""
        self._closing = True
        for _ in self._connections:
            await self._free.acquire()
        await _close_all(self._connections)

    async def _wait_for_free(self) -> None:
        self._refuse_if_closing()
        if self._waiting >= self._settings.queue_max:
            raise Unavailable("overloaded", "Too many reads are waiting.", retry_after_s=1)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.busy_timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("overloaded", "Reads take too long.", retry_after_s=1) from None
        finally:
            self._waiting -= 1
        try:
            self._refuse_if_closing()
        except Unavailable:
            self._free.release()
            raise

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise shutting_down()

    async def _end_snapshot(self, connection: aiosqlite.Connection) -> None:
        try:
            # Not begun, if the caller was cancelled that early: then there is nothing to end.
            with suppress(sqlite3.Error):
                await connection.execute_fetchall("ROLLBACK")
        finally:
            self._idle.append(connection)
            self._free.release()


async def _close_all(connections: list[aiosqlite.Connection]) -> None:
    for connection in connections:
        await connection.close()
