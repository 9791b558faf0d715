"""Migrations: each whole or not at all, in order, and never onto a database that is not what it seems."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopd.database import Database, DatabaseSettings, UnusableDatabase
from loopd.database.connection import APPLICATION_ID, connect
from loopd.database.migrations import Migration, migrate, shipped_migrations
from tests.support import ManualClock
from tests.unit.database.items import file_names

FIRST = Migration(1, "first", "CREATE TABLE first (number INTEGER PRIMARY KEY); INSERT INTO first VALUES (1);")
SECOND = Migration(2, "second", "-- a semicolon; in a comment\nCREATE TABLE second (number INTEGER PRIMARY KEY);")


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    path.touch()
    opened = connect(path, busy_timeout_s=0.0)
    yield opened
    opened.close()


def tables(connection: sqlite3.Connection) -> set[str]:
    return {row["name"] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def test_each_is_applied_once_and_recorded(connection: sqlite3.Connection) -> None:
    clock = ManualClock(now_ms=1000)
    migrate(connection, [FIRST], clock)
    clock.advance(5)
    migrate(connection, [FIRST, SECOND], clock)
    records = connection.execute("SELECT number, name, sha256, applied_at_ms FROM migration").fetchall()
    assert [tuple(record) for record in records] == [
        (1, "first", FIRST.sha256, 1000),
        (2, "second", SECOND.sha256, 1005),
    ]
    assert len(connection.execute("SELECT number FROM first").fetchall()) == 1
    assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE second (number INTEGER); INSERT INTO nowhere VALUES (1);",
        "CREATE TABLE second (number INTEGER",
        "CREATE TABLE second (number INTEGER REFERENCES first (number)); INSERT INTO second VALUES (99);",
        "CREATE TABLE second (number INTEGER); ROLLBACK;",
    ],
)
def test_one_that_fails_leaves_the_database_as_it_was(connection: sqlite3.Connection, text: str) -> None:
    migrate(connection, [FIRST], ManualClock())
    with pytest.raises((sqlite3.Error, UnusableDatabase)):
        migrate(connection, [FIRST, Migration(2, "second", text)], ManualClock())
    assert not connection.in_transaction
    assert tables(connection) == {"first", "migration"}
    migrate(connection, [FIRST, SECOND], ManualClock())
    assert tables(connection) == {"first", "migration", "second"}


def test_a_table_can_be_rebuilt_without_losing_what_refers_to_it(connection: sqlite3.Connection) -> None:
    child = "CREATE TABLE child (number INTEGER REFERENCES first (number) ON DELETE CASCADE); "
    rebuild = (
        "CREATE TABLE wider (number INTEGER PRIMARY KEY, name TEXT); INSERT INTO wider SELECT number, 'x' FROM first;"
        "DROP TABLE first; ALTER TABLE wider RENAME TO first;"
    )
    steps = [
        FIRST,
        Migration(2, "child", child + "INSERT INTO child VALUES (1);"),
        Migration(3, "rebuild", rebuild),
    ]
    migrate(connection, steps, ManualClock())
    assert len(connection.execute("SELECT * FROM child JOIN first USING (number)").fetchall()) == 1


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ([FIRST], "newer than this loopd"),
        ([FIRST, Migration(2, "second", "CREATE TABLE other (number INTEGER);")], "changed after it was applied"),
        ([FIRST, Migration(2, "renamed", SECOND.text)], "changed after it was applied"),
        ([SECOND], "loopd does not have it"),
    ],
)
def test_a_database_that_is_not_what_it_seems_is_refused(
    connection: sqlite3.Connection, known: list[Migration], why: str
) -> None:
    migrate(connection, [FIRST, SECOND], ManualClock())
    with pytest.raises(UnusableDatabase, match=why):
        migrate(connection, known, ManualClock())


def test_one_that_was_left_out_is_not_applied_late(connection: sqlite3.Connection) -> None:
    migrate(connection, [SECOND], ManualClock())
    with pytest.raises(UnusableDatabase, match="left out"):
        migrate(connection, [FIRST, SECOND], ManualClock())


def test_the_shipped_ones_build_a_sound_schema(connection: sqlite3.Connection) -> None:
    shipped = shipped_migrations()
    assert [migration.name for migration in shipped[:1]] == ["audit"]
    migrate(connection, shipped, ManualClock())
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    # A deferred constraint would fail at the commit, and with it everybody's writes.
    assert not [migration.name for migration in shipped if "DEFERR" in migration.text.upper()]
    lax = connection.execute(
        "SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict AND schema = 'main'"
    )
    assert [row["name"] for row in lax if not row["name"].startswith("sqlite_")] == []


SLOW_MIGRATION = """
import sys
from pathlib import Path
from loopd.clock import SystemClock
from loopd.database.connection import connect
from loopd.database.migrations import Migration, migrate

numbers = "WITH RECURSIVE i(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM i WHERE v < 3000) SELECT v FROM i;"
insert = "INSERT INTO t{n} " + numbers
steps = [
    Migration(n, f"step_{n}", f"CREATE TABLE t{n} (v INTEGER);" + insert.replace("{n}", str(n)) * 3)
    for n in range(1, 200)
]
connection = connect(Path(sys.argv[1]), busy_timeout_s=5.0)
print("begin", flush=True)
migrate(connection, steps, SystemClock())
"""


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 40, 80])
def test_killed_at_any_moment_each_is_whole_or_not_there(path: Path, delay_ms: int) -> None:
    path.touch()
    child = subprocess.Popen([sys.executable, "-c", SLOW_MIGRATION, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(delay_ms / 1000)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    opened = connect(path, busy_timeout_s=5.0)
    try:
        if "migration" not in tables(opened):
            assert tables(opened) == set()
            return
        recorded = [row["number"] for row in opened.execute("SELECT number FROM migration ORDER BY number")]
        assert recorded == list(range(1, len(recorded) + 1))
        assert tables(opened) == {"migration"} | {f"t{number}" for number in recorded}
        for number in recorded:
            assert opened.execute(f"SELECT count(*) FROM t{number}").fetchone()[0] == 9000
    finally:
        opened.close()


def open_database(path: Path) -> None:
    async def open_and_close() -> None:
        await (await Database.open(path, DatabaseSettings(busy_timeout_s=0.0), ManualClock())).close()

    asyncio.run(open_and_close())


def test_a_foreign_file_is_refused_and_left_alone(path: Path) -> None:
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE theirs (number INTEGER)")
    foreign.commit()
    foreign.close()
    content = path.read_bytes()
    with pytest.raises(UnusableDatabase, match="not a database of loopd"):
        open_database(path)
    assert path.read_bytes() == content
    assert file_names(path.parent) == [path.name]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UnusableDatabase):
        open_database(path)
    assert path.read_bytes() == content


def kill_in_the_middle_of_a_checkpoint(path: Path) -> None:
    """Let 200 rows be in the log, and the file hold its new first page, which knows of pages that it lacks."""
    log = path.with_name(f"{path.name}-wal")
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("PRAGMA wal_autocheckpoint = 0")
    before = path.read_bytes()
    writing.execute("CREATE TABLE grown (content BLOB)")
    writing.executemany("INSERT INTO grown VALUES (?)", [(bytes(4096),)] * 200)
    kept_log = log.read_bytes()
    writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page_bytes = writing.execute("PRAGMA page_size").fetchone()[0]
    first_page = path.read_bytes()[:page_bytes]
    writing.close()
    path.write_bytes(first_page + before[page_bytes:])
    log.write_bytes(kept_log)


async def test_a_file_that_was_left_in_the_middle_of_a_checkpoint_is_opened(database: Database, path: Path) -> None:
    await database.close()
    kill_in_the_middle_of_a_checkpoint(path)
    alone = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        alone.execute("PRAGMA application_id")
    alone.close()
    async with await Database.open(path, DatabaseSettings(), ManualClock()) as opened:
        row = await opened.one("SELECT count(*) AS rows FROM grown")
        assert row is not None
        assert row["rows"] == 200


def test_a_missing_file_is_not_made_anew(path: Path) -> None:
    with pytest.raises(UnusableDatabase, match="there is no database"):
        open_database(path)
    assert not path.exists()


async def test_a_file_that_somebody_locks_is_refused_with_the_reason(database: Database, path: Path) -> None:
    await database.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnusableDatabase, match="locked"):
        await Database.open(path, DatabaseSettings(busy_timeout_s=0.0), ManualClock())
    other.close()
