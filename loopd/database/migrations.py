"""Numbered migrations: `migrations/NNNN_name.sql`, each applied once, in one transaction with its record.

A process killed at any moment leaves each migration applied or not, never half. A file is not edited once it was
released: its digest is recorded, and a database that remembers another text is refused.
"""

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from loopd.clock import Clock
from loopd.database.connection import APPLICATION_ID, UnusableDatabase

_FILE_NAME = re.compile(r"(\d{4})_([a-z][a-z0-9_]*)\.sql", re.ASCII)

_RECORDS = """
CREATE TABLE IF NOT EXISTS migration (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    applied_at_ms INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; `text` is SQL that neither begins nor ends a transaction."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped_migrations() -> tuple[Migration, ...]:
    """The migrations of this version of loopd, in the order in which they are applied."""
    found: dict[int, Migration] = {}
    for file in files("loopd.database").joinpath("migrations").iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            continue
        migration = Migration(int(match.group(1)), match.group(2), file.read_text(encoding="utf-8"))
        if migration.number in found:
            raise ValueError(f"two migrations have the number {migration.number}")
        found[migration.number] = migration
    return tuple(found[number] for number in sorted(found))


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], clock: Clock) -> None:
    """Bring the database to the newest of `migrations`.

    UnusableDatabase if it is newer than them, if a text changed after it was applied, or if one was left out;
    sqlite3.Error if a migration fails, which leaves the database as the one before made it.
    """
    # A table is rebuilt by dropping it, which would cascade; what refers to it is checked as a whole instead.
    connection.execute("PRAGMA foreign_keys=OFF")
    _prepare(connection)
    for migration in _pending(connection, migrations):
        try:
            _apply(connection, migration, clock.now_ms())
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    connection.execute("PRAGMA foreign_keys=ON")


def _prepare(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise UnusableDatabase("the database's file system does not support a write-ahead log")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_RECORDS)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute("COMMIT")


def _pending(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    applied = {row["number"]: row for row in connection.execute("SELECT number, name, sha256 FROM migration")}
    newest_known = max((migration.number for migration in migrations), default=0)
    newest_applied = max(applied, default=0)
    if newest_applied > newest_known:
        raise UnusableDatabase(
            f"the database is newer than this loopd: it has migration {newest_applied}, the program {newest_known}"
        )
    pending = []
    for migration in migrations:
        record = applied.pop(migration.number, None)
        if record is None:
            if migration.number < newest_applied:
                raise UnusableDatabase(f"migration {migration.number} was left out when later ones were applied")
            pending.append(migration)
        elif (record["name"], record["sha256"]) != (migration.name, migration.sha256):
            raise UnusableDatabase(f"migration {migration.number} changed after it was applied to this database")
    if applied:
        raise UnusableDatabase(f"migration {min(applied)} was applied to this database, but loopd does not have it")
    return pending


def _apply(connection: sqlite3.Connection, migration: Migration, now_ms: int) -> None:
    # executescript() commits only what is open before it, so the transaction that the script begins stays open.
    connection.executescript(f"BEGIN IMMEDIATE;\n{migration.text}")
    if not connection.in_transaction:
        raise UnusableDatabase(f"migration {migration.number} ends its transaction by itself")
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise UnusableDatabase(f"migration {migration.number} leaves rows that refer to nothing")
    connection.execute(
        "INSERT INTO migration (number, name, sha256, applied_at_ms) VALUES (?, ?, ?, ?)",
        (migration.number, migration.name, migration.sha256, now_ms),
    )
    connection.execute("COMMIT")
