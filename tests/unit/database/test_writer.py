"""Group commit: what shares a transaction, what is undone alone, and what is answered when."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings, Tx
from loopd.database.connection import connect
from loopd.database.writer import Writer
from loopd.protocol.errors import Conflict, Unavailable
from tests.support import ManualClock
from tests.unit.database.items import file_names, insert, make_items, numbers


class Gate:
    """A unit that holds the writer's thread until it is opened, so that others gather behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, _tx: Tx) -> None:
        self.entered.set()
        if not self._open.wait(timeout=10):
            raise TimeoutError("the gate was never opened")

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def closed_gate(database: Database | Writer) -> AsyncIterator[Gate]:
    gate = Gate()
    holding = asyncio.ensure_future(database.write(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    try:
        yield gate
    finally:
        gate.open()
        await asyncio.wait([holding])


async def begun(*writes: Any) -> list["asyncio.Task[Any]"]:
    """The writes as tasks that have been queued."""
    tasks = [asyncio.ensure_future(write) for write in writes]
    await asyncio.sleep(0)
    return tasks


async def test_a_hundred_writers_share_few_commits(database: Database) -> None:
    before = database.statistics

    async def client(first: int) -> None:
        for number in range(first, first + 20):
            assert await database.write(insert(number)) == number

    await asyncio.gather(*(client(first * 20) for first in range(100)))
    after = database.statistics
    assert numbers(database) == set(range(2000))
    assert after.units - before.units == 2000
    assert after.commits - before.commits < 200


async def test_a_batch_keeps_to_its_ceiling(path: Path) -> None:
    async with await Database.create(path, DatabaseSettings(batch_max=10), SystemClock()) as database:
        await database.write(make_items)
        async with closed_gate(database) as gate:
            writes = await begun(*(database.write(insert(number)) for number in range(95)))
            before = database.statistics.commits
            gate.open()
            await asyncio.gather(*writes)
        # The gate's own batch takes nine, the other 86 need nine more.
        assert database.statistics.commits - before == 10


async def test_a_batch_is_committed_when_its_time_is_over(path: Path) -> None:
    clock = ManualClock()
    async with await Database.create(path, DatabaseSettings(batch_max_ms=50), clock) as database:
        async with closed_gate(database) as gate:
            writes = await begun(*(database.write(lambda _tx: clock.advance(20)) for _ in range(6)))
            before = database.statistics.commits
            gate.open()
            await asyncio.gather(*writes)
        assert database.statistics.commits - before == 2


async def test_a_unit_that_raises_is_undone_alone(database: Database) -> None:
    def refuse(tx: Tx) -> None:
        tx.execute("INSERT INTO item VALUES (100)")
        raise Conflict("taken", "It is taken.")

    async with closed_gate(database) as gate:
        writes = await begun(
            database.write(insert(1)), database.write(refuse), database.write(insert(1)), database.write(insert(2))
        )
        gate.open()
        results = await asyncio.gather(*writes, return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], Conflict)
    assert isinstance(results[2], sqlite3.IntegrityError)
    assert results[3] == 2
    assert numbers(database) == {1, 2}


async def test_units_see_what_came_before_them_in_the_same_transaction(database: Database) -> None:
    def count(tx: Tx) -> int:
        tx.execute("INSERT INTO item DEFAULT VALUES")
        row = tx.one("SELECT count(*) AS items FROM item")
        return 0 if row is None else int(row["items"])

    assert await asyncio.gather(*(database.write(count) for _ in range(50))) == list(range(1, 51))


@settings(max_examples=25, deadline=None)
@given(outcomes=st.lists(st.sampled_from(["keep", "raise", "violate"]), max_size=30))
async def test_what_is_stored_is_exactly_what_was_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[str]
) -> None:
    path = tmp_path_factory.mktemp("property") / "loopd.db"
    async with await Database.create(path, DatabaseSettings(readers=1), SystemClock()) as database:
        await database.write(make_items)

        async def attempt(number: int, outcome: str) -> int | None:
            def unit(tx: Tx) -> int:
                tx.execute("INSERT INTO item VALUES (?)", (number,))
                if outcome == "raise":
                    raise Conflict("no", "No.")
                if outcome == "violate":
                    tx.execute("INSERT INTO item VALUES (?)", (number,))
                return number

            try:
                return await database.write(unit)
            except (Conflict, sqlite3.IntegrityError):
                return None

        answers = await asyncio.gather(*(attempt(number, outcome) for number, outcome in enumerate(outcomes)))
        assert numbers(database) == {answer for answer in answers if answer is not None}


async def test_callbacks_follow_the_commit_and_precede_the_answer(database: Database) -> None:
    events: list[str] = []
    loop_thread = threading.get_ident()

    def unit(tx: Tx) -> None:
        tx.execute("INSERT INTO item VALUES (1)")
        tx.after_commit(lambda: events.append(f"committed {sorted(numbers(database))} {threading.get_ident()}"))

    await database.write(unit)
    events.append("answered")
    assert events == [f"committed [1] {loop_thread}", "answered"]


async def test_callbacks_of_a_failed_unit_are_dropped(database: Database) -> None:
    called: list[int] = []

    def unit(tx: Tx) -> None:
        tx.after_commit(lambda: called.append(1))
        raise Conflict("no", "No.")

    with pytest.raises(Conflict):
        await database.write(unit)
    await database.write(lambda _tx: None)
    assert called == []


async def test_a_failing_callback_neither_hides_the_result_nor_stops_the_next(database: Database) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    called: list[int] = []

    def unit(tx: Tx) -> str:
        tx.after_commit(lambda: [][0])
        tx.after_commit(lambda: called.append(1))
        return "stored"

    assert await database.write(unit) == "stored"
    assert called == [1]
    assert [type(context["exception"]) for context in reported] == [IndexError]


async def test_a_caller_cancelled_before_its_unit_began_has_no_effect(database: Database) -> None:
    async with closed_gate(database) as gate:
        cancelled, kept = await begun(database.write(insert(1)), database.write(insert(2)))
        cancelled.cancel()
        await asyncio.wait([cancelled])
        gate.open()
        assert await kept == 2
    assert cancelled.cancelled()
    assert numbers(database) == {2}


async def test_a_caller_cancelled_after_its_unit_began_leaves_it_to_stand(database: Database) -> None:
    entered, leave, called = threading.Event(), threading.Event(), []

    def unit(tx: Tx) -> None:
        tx.execute("INSERT INTO item VALUES (1)")
        tx.after_commit(lambda: called.append(1))
        entered.set()
        leave.wait(10)

    (write,) = await begun(database.write(unit))
    await asyncio.to_thread(entered.wait, 10)
    write.cancel()
    await asyncio.wait([write])
    leave.set()
    await database.write(lambda _tx: None)
    assert write.cancelled()
    assert numbers(database) == {1}
    assert called == [1]
    assert database.statistics.waiting == 0


async def test_a_full_queue_refuses_at_once(path: Path) -> None:
    async with await Database.create(path, DatabaseSettings(queue_max=3), SystemClock()) as database:
        async with closed_gate(database):
            waiting = await begun(*(database.write(lambda _tx: None) for _ in range(3)))
            with pytest.raises(Unavailable) as refused:
                await database.write(lambda _tx: None)
        await asyncio.gather(*waiting)
        await database.write(lambda _tx: None)
    assert refused.value.reason == "overloaded"
    assert refused.value.retry_after_s


async def test_stop_iteration_reaches_the_caller_as_a_fault(database: Database) -> None:
    empty: list[int] = []
    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(lambda _tx: next(iter(empty)))
    assert await database.write(insert(1)) == 1


async def test_a_failed_unit_leaves_no_statement_open(database: Database, path: Path) -> None:
    await database.write(lambda tx: tx.executemany("INSERT INTO item VALUES (?)", [(n,) for n in range(10)]))

    def unit(tx: Tx) -> None:
        cursor = tx.execute("SELECT number FROM item")
        raise Conflict("found", str(cursor.fetchone()["number"]))

    with pytest.raises(Conflict) as kept:
        await database.write(unit)
    await database.write(insert(100))
    with sqlite3.connect(path) as other:
        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert busy == 0
    assert kept.value.__traceback__ is not None


class FaultyConnection:
    """A connection whose chosen statements fail as a broken disk makes them fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.failing: set[str] = set()
        self.error = sqlite3.OperationalError("disk I/O error")
        self.error.sqlite_errorcode = sqlite3.SQLITE_IOERR

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql in self.failing:
            raise self.error
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        return self._connection.executemany(sql, rows)


def new_connection(path: Path) -> sqlite3.Connection:
    path.touch()
    connection = connect(path, busy_timeout_s=0.0, one_thread=False)
    connection.execute("CREATE TABLE item (number INTEGER PRIMARY KEY)")
    return connection


@asynccontextmanager
async def faulty_writer(path: Path) -> AsyncIterator[tuple[Writer, FaultyConnection]]:
    connection = new_connection(path)
    faulty = FaultyConnection(connection)
    writer = Writer(faulty, DatabaseSettings(), SystemClock())  # type: ignore[arg-type]
    try:
        yield writer, faulty
    finally:
        await writer.drain()
        connection.close()


def stored(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [number for (number,) in connection.execute("SELECT number FROM item ORDER BY number")]
    finally:
        connection.close()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
async def test_when_the_transaction_fails_nobody_is_told_done(path: Path, statement: str) -> None:
    called: list[int] = []

    def with_callback(tx: Tx) -> None:
        tx.execute("INSERT INTO item VALUES (3)")
        tx.after_commit(lambda: called.append(1))

    def refuse(_tx: Tx) -> None:
        raise Conflict("no", "No.")

    async with faulty_writer(path) as (writer, connection):
        connection.failing = {statement}
        results = await asyncio.gather(
            writer.write(insert(1)), writer.write(refuse), writer.write(with_callback), return_exceptions=True
        )
        assert [getattr(result, "reason", result) for result in results] == ["storage"] * 3
        connection.failing = set()
        assert await writer.write(insert(2)) == 2
        assert stored(path) == [2]
        assert called == []


async def test_a_disk_error_inside_a_unit_is_a_503_for_it_alone(path: Path) -> None:
    async with faulty_writer(path) as (writer, connection):
        connection.failing = {"DELETE FROM item"}

        def clear(tx: Tx) -> None:
            tx.execute("INSERT INTO item VALUES (5)")
            tx.execute("DELETE FROM item")

        results = await asyncio.gather(writer.write(insert(1)), writer.write(clear), return_exceptions=True)
        assert [getattr(result, "reason", result) for result in results] == [1, "storage"]
        assert stored(path) == [1]


async def test_a_rollback_that_fails_is_made_up_for_by_the_next_batch(path: Path) -> None:
    async with faulty_writer(path) as (writer, connection):
        connection.failing = {"COMMIT", "ROLLBACK"}
        with pytest.raises(Unavailable):
            await writer.write(insert(1))
        connection.failing = set()
        assert await writer.write(insert(2)) == 2
        assert stored(path) == [2]


async def test_a_unit_whose_error_ends_the_transaction_fails_the_whole_batch(path: Path) -> None:
    def like_a_full_disk(tx: Tx) -> None:
        tx.execute("INSERT INTO item VALUES (10)")
        tx.execute("INSERT OR ROLLBACK INTO item VALUES (10)")

    async with faulty_writer(path) as (writer, _):
        async with closed_gate(writer) as gate:
            writes = await begun(writer.write(insert(1)), writer.write(like_a_full_disk), writer.write(insert(2)))
            gate.open()
            results = await asyncio.gather(*writes, return_exceptions=True)
        assert [getattr(result, "reason", result) for result in results] == ["storage", "storage", 2]
        assert stored(path) == [2]


async def test_a_unit_that_commits_by_itself_is_not_acknowledged(path: Path) -> None:
    def commit(tx: Tx) -> None:
        tx.execute("COMMIT")

    async with faulty_writer(path) as (writer, _):
        with pytest.raises(Unavailable):
            await writer.write(commit)
        assert await writer.write(insert(2)) == 2


async def test_a_disk_that_is_full_is_no_fault_of_the_caller(database: Database) -> None:
    pages = await database.write(lambda tx: tx.one("PRAGMA page_count"))
    assert pages is not None
    await database.write(lambda tx: tx.one(f"PRAGMA max_page_count={pages[0] + 1}"))

    def large(tx: Tx) -> None:
        tx.execute("CREATE TABLE heap (content BLOB)")
        tx.execute("INSERT INTO heap VALUES (zeroblob(1000000))")

    with pytest.raises(Unavailable) as refused:
        await database.write(large)
    assert refused.value.reason == "storage"
    assert await database.write(insert(1)) == 1


async def test_another_process_that_holds_the_file_costs_a_503_and_no_more(path: Path) -> None:
    settings = DatabaseSettings(busy_timeout_s=0.05)
    async with await Database.create(path, settings, SystemClock()) as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as refused:
            await database.write(lambda _tx: None)
        other.execute("ROLLBACK")
        other.close()
        await database.write(lambda _tx: None)
    assert refused.value.reason == "storage"


async def test_closing_finishes_what_waits_and_then_refuses(path: Path) -> None:
    database = await Database.create(path, DatabaseSettings(), SystemClock())
    await database.write(make_items)
    async with closed_gate(database) as gate:
        writes = await begun(*(database.write(insert(number)) for number in range(20)))
        (closing,) = await begun(database.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refused:
            await database.write(insert(100))
        gate.open()
        assert await asyncio.gather(*writes) == list(range(20))
        await closing
    await database.close()
    with pytest.raises(Unavailable):
        await database.one("SELECT 1")
    assert refused.value.reason == "shutting_down"
    assert stored(path) == list(range(20))
    assert file_names(path.parent) == [path.name]
