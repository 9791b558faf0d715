"""Files that are there whole or not at all: a new database, and a backup of one in use."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings, Tx, files
from loopd.database.files import new_file
from tests.support import ManualClock
from tests.unit.database.items import file_names, insert, numbers


async def test_a_new_database_is_one_file_for_its_owner_alone(path: Path) -> None:
    async with await Database.create(path, DatabaseSettings(), ManualClock()) as database:
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert await database.one("SELECT count(*) FROM migration") is not None
    assert modes == {0o600}
    assert file_names(path.parent) == [path.name]


def test_a_new_database_never_replaces_anything(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        asyncio.run(Database.create(path, DatabaseSettings(), ManualClock()))
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("links_work", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links_work: bool
) -> None:
    if not links_work:

        def no_links(_source: Path, _target: Path) -> None:
            raise PermissionError("no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "target"

    def overtaken() -> None:
        with new_file(target) as partial:
            partial.write_bytes(b"ours")
            target.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        overtaken()
    assert target.read_bytes() == b"theirs"
    target.unlink()
    with new_file(target) as partial:
        partial.write_bytes(b"ours")
    assert target.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    def give_up() -> None:
        with new_file(tmp_path / "target") as partial:
            partial.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        give_up()
    assert list(tmp_path.iterdir()) == []


async def test_the_log_is_brought_into_the_file_at_16_mib(database: Database, path: Path) -> None:
    def write_a_mib(tx: Tx) -> None:
        tx.execute("CREATE TABLE IF NOT EXISTS block (content BLOB)")
        tx.execute("INSERT INTO block VALUES (zeroblob(1048576))")

    for _ in range(40):
        await database.write(write_a_mib)
    log = path.with_name(f"{path.name}-wal")
    assert 14 * 2**20 < log.stat().st_size < 18 * 2**20


def fill(tx: Tx) -> None:
    """Enough that copying takes many steps."""
    tx.execute("CREATE TABLE heap (content BLOB)")
    tx.execute("INSERT INTO heap VALUES (zeroblob(20000000))")


async def test_a_backup_under_writes_is_of_one_moment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAGES_A_STEP", 20)
    await database.write(fill)
    stop, busy = asyncio.Event(), asyncio.Event()
    acknowledged: list[int] = []

    async def write_on() -> None:
        number = 0
        while not stop.is_set():
            await database.write(insert(number))
            acknowledged.append(number)
            number += 1
            if number == 200:
                busy.set()

    writing = asyncio.ensure_future(write_on())
    await busy.wait()
    before = len(acknowledged)
    target = tmp_path / "backup.db"
    async with asyncio.timeout(20):
        await database.backup(target)
    after = len(acknowledged)
    stop.set()
    await writing
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not [name for name in file_names(tmp_path) if name.startswith(".")]
    async with await Database.open(target, DatabaseSettings(), SystemClock()) as copy:
        copied = numbers(copy)
    assert copied == set(range(len(copied)))
    assert before <= len(copied) <= after + 1


async def test_a_backup_needs_no_companion_file(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    await database.backup(target)
    copy = sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)
    mode = copy.execute("PRAGMA journal_mode").fetchone()[0]
    copy.close()
    assert mode == "delete"


async def test_a_backup_that_is_cancelled_leaves_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAGES_A_STEP", 1)
    await database.write(fill)
    target = tmp_path / "backups" / "loopd.db"
    target.parent.mkdir()
    backup = asyncio.ensure_future(database.backup(target))
    async with asyncio.timeout(10):
        while not file_names(target.parent):  # noqa: ASYNC110 - the other side is a thread that tells nobody
            await asyncio.sleep(0)
    backup.cancel()
    await asyncio.wait([backup])
    assert backup.cancelled()
    assert file_names(target.parent) == []
    await database.backup(target)
    with pytest.raises(FileExistsError):
        await database.backup(target)


async def test_a_backup_whose_place_is_not_there_says_so(database: Database, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await database.backup(tmp_path / "nowhere" / "loopd.db")
