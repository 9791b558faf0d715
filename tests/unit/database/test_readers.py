"""Reads beside the writer: the newest commit, one moment, and a pool that is neither exhausted nor leaked."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings
from loopd.database.readers import Readers
from loopd.protocol.errors import Unavailable
from tests.unit.database.items import insert, make_items

COUNT = "SELECT count(*) AS items FROM item"
# Counts to a number that takes minutes.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n"


async def test_every_way_of_reading_sees_the_newest_commit(database: Database) -> None:
    for number in range(5):
        await database.write(insert(number))
        row = await database.one("SELECT number FROM item WHERE number = ?", (number,))
        assert row is not None
        assert row["number"] == number
        assert len(await database.all("SELECT number FROM item")) == number + 1
        point = database.point(COUNT)
        assert point is not None
        assert point["items"] == number + 1
    assert await database.one("SELECT number FROM item WHERE number = 99") is None
    assert database.point("SELECT number FROM item WHERE number = 99") is None


async def test_a_snapshot_stays_at_its_moment(database: Database) -> None:
    await database.write(insert(1))
    async with database.snapshot() as reader:
        first = await reader.all("SELECT number FROM item")
        await database.write(insert(2))
        second = await reader.all("SELECT number FROM item")
        newest = await database.all("SELECT number FROM item")
    assert [len(first), len(second), len(newest)] == [1, 1, 2]
    async with database.snapshot() as reader:
        assert len(await reader.all("SELECT number FROM item")) == 2


async def test_nothing_but_the_writer_writes(database: Database) -> None:
    for reading in (database.one, database.all):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await reading("INSERT INTO item VALUES (1)")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.point("INSERT INTO item VALUES (1)")


async def test_a_point_read_leaves_no_view_behind(database: Database, path: Path) -> None:
    for number in range(10):
        await database.write(insert(number))
    database.point("SELECT number FROM item")
    await database.write(insert(100))
    other = sqlite3.connect(path)
    busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert busy == 0


async def test_a_mistake_in_a_query_is_the_callers_and_costs_no_reader(database: Database) -> None:
    for _ in range(5):
        with pytest.raises(sqlite3.OperationalError):
            await database.one("SELECT nothing FROM nowhere")
        with pytest.raises(RuntimeError):
            async with database.snapshot():
                raise RuntimeError
    assert await database.one(COUNT) is not None


async def test_a_cancelled_read_is_interrupted_and_its_reader_serves_on(database: Database) -> None:
    for _ in range(3):
        reads = [asyncio.ensure_future(database.one(ENDLESS)) for _ in range(2)]
        await asyncio.sleep(0.05)
        for read in reads:
            read.cancel()
        await asyncio.wait(reads)
        assert all(read.cancelled() for read in reads)
        async with asyncio.timeout(5):
            assert await asyncio.gather(database.one(COUNT), database.one(COUNT))


@pytest.mark.parametrize("steps", range(8))
async def test_a_snapshot_cancelled_at_any_step_gives_back_a_clean_reader(path: Path, steps: int) -> None:
    async with await Database.create(path, DatabaseSettings(readers=1), SystemClock()) as database:
        await database.write(make_items)

        async def count_twice() -> None:
            async with database.snapshot() as reader:
                await reader.one(COUNT)
                await reader.one(COUNT)

        task = asyncio.ensure_future(count_twice())
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await database.write(insert(1))
        async with asyncio.timeout(5), database.snapshot() as reader:
            row = await reader.one(COUNT)
        assert row is not None
        assert row["items"] == 1


async def test_who_waits_too_long_for_a_reader_is_refused(path: Path) -> None:
    settings = DatabaseSettings(readers=1, busy_timeout_s=0.05)
    async with await Database.create(path, settings, SystemClock()) as database:
        async with database.snapshot():
            with pytest.raises(Unavailable) as refused:
                await database.one("SELECT 1")
        assert await database.one("SELECT 1") is not None
    assert refused.value.reason == "overloaded"


async def test_too_many_waiting_reads_are_refused_at_once(path: Path) -> None:
    settings = DatabaseSettings(readers=1, queue_max=2)
    async with await Database.create(path, settings, SystemClock()) as database:
        async with database.snapshot():
            waiting = [asyncio.ensure_future(database.one("SELECT 1")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable) as refused:
                await database.one("SELECT 1")
        assert all(await asyncio.gather(*waiting))
    assert refused.value.reason == "overloaded"


async def test_closing_waits_for_reads_that_run_and_refuses_those_that_wait(path: Path) -> None:
    await (await Database.create(path, DatabaseSettings(), SystemClock())).close()
    readers = await Readers.open(path, DatabaseSettings(readers=1))

    async def read() -> None:
        async with readers.lend() as lent:
            await lent.one("SELECT 1")

    async with readers.snapshot() as reader:
        waiting = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(readers.close())
        await asyncio.sleep(0)
        assert await reader.one("SELECT 1") is not None
        assert not closing.done()
    for refused in (waiting, asyncio.ensure_future(read())):
        with pytest.raises(Unavailable, match="stopping"):
            await refused
    await closing
