"""Reading rows, the same way inside a unit of work and outside of one."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Parameters = Sequence[Any] | Mapping[str, Any]


class RowSource(Protocol):
    """Anything that answers a query at once: a unit's `Tx`, or `Database.points`."""

    def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        ...

    def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Every row."""
        ...


class ConnectionRows:
    """A RowSource over a connection of the calling thread."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        cursor = self._connection.execute(sql, parameters)
        try:
            row: sqlite3.Row | None = cursor.fetchone()
        finally:
            # A statement left half-read keeps its view of the database, and the log cannot shrink.
            cursor.close()
        return row

    def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Every row."""
        return self._connection.execute(sql, parameters).fetchall()
