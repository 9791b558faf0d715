"""The audit log in its database: part of the transaction, append-only, checked row by row."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.audit.rules import ChainReport
from loopd.audit.service import AuditKind, AuditLog
from loopd.database import Database, DatabaseSettings, Tx
from loopd.protocol.errors import Conflict
from tests.support import ManualClock

CLOCK = ManualClock(now_ms=1_790_000_000_123)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with await Database.create(tmp_path / "loopd.db", DatabaseSettings(readers=1), CLOCK) as opened:
        yield opened


@pytest.fixture
def audit() -> AuditLog:
    return AuditLog(CLOCK, lambda size: b"s" * size)


async def verify(database: Database, audit: AuditLog) -> ChainReport:
    async with database.snapshot() as reader:
        return await audit.verify(reader)


def appending(audit: AuditLog, subject: str) -> Callable[[Tx], int]:
    return lambda tx: audit.append(tx, AuditKind.REGISTRATION, subject, {"event": "registered"})


async def append_many(database: Database, audit: AuditLog, count: int) -> None:
    await asyncio.gather(*(database.write(appending(audit, f"subject-{number}")) for number in range(count)))


async def test_an_entry_holds_what_was_recorded(database: Database, audit: AuditLog) -> None:
    payload = {"event": "selected", "amount": Decimal("104.20"), "place": "München"}
    assert await database.write(lambda tx: audit.append(tx, AuditKind.SETTLEMENT, "offer:1", payload)) == 1
    row = database.point("SELECT * FROM audit_entry")
    assert row is not None
    assert (row["sequence"], row["at_ms"], row["kind"], row["subject"]) == (1, CLOCK.now_ms(), "settlement", "offer:1")
    assert row["payload"] == '{"event":"selected","amount":104.20,"place":"München"}'.encode()
    assert row["salt"] == b"s" * 16


async def test_concurrent_entries_form_one_chain(database: Database, audit: AuditLog) -> None:
    await append_many(database, audit, 450)
    report = await verify(database, audit)
    assert (report.entries, report.erased, report.first_break) == (450, 0, None)
    head = database.point("SELECT entry_hash FROM audit_entry WHERE sequence = 450")
    assert head is not None
    assert report.head_hash == head["entry_hash"]


async def test_a_unit_that_fails_leaves_no_entry_and_no_gap(database: Database, audit: AuditLog) -> None:
    def recorded_then_refused(tx: Tx) -> None:
        audit.append(tx, AuditKind.REGISTRATION, "nothing", {})
        raise Conflict("no", "No.")

    results = await asyncio.gather(
        database.write(appending(audit, "a")),
        database.write(recorded_then_refused),
        database.write(appending(audit, "b")),
        return_exceptions=True,
    )
    assert [result for result in results if isinstance(result, int)] == [1, 2]
    report = await verify(database, audit)
    assert (report.entries, report.first_break) == (2, None)


async def test_an_empty_log_holds(database: Database, audit: AuditLog) -> None:
    report = await verify(database, audit)
    assert (report.entries, report.first_break) == (0, None)


async def test_an_erased_payload_is_gone_recorded_and_the_chain_holds(
    database: Database, audit: AuditLog, tmp_path: Path
) -> None:
    def record(tx: Tx) -> int:
        return audit.append(tx, AuditKind.REGISTRATION, "a", {"note": "erase-this-secret"})

    await append_many(database, audit, 3)
    assert await database.write(record) == 4
    assert await database.write(lambda tx: audit.erase(tx, 4, "asked for by the city"))
    assert not await database.write(lambda tx: audit.erase(tx, 4, "again"))
    assert not await database.write(lambda tx: audit.erase(tx, 99, "never there"))
    report = await verify(database, audit)
    assert (report.entries, report.erased, report.first_break) == (5, 1, None)
    record_of_it = database.point("SELECT kind, subject FROM audit_entry WHERE sequence = 5")
    assert record_of_it is not None
    assert tuple(record_of_it) == ("operator", "audit:4")
    await database.close()
    assert b"erase-this-secret" not in await asyncio.to_thread((tmp_path / "loopd.db").read_bytes)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_entry WHERE sequence = 3",
        "DELETE FROM audit_entry",
        "UPDATE audit_entry SET sequence = 9 WHERE sequence = 3",
        "UPDATE audit_entry SET at_ms = at_ms + 1 WHERE sequence = 2",
        "UPDATE audit_entry SET kind = 'operator' WHERE sequence = 2",
        "UPDATE audit_entry SET subject = 'other' WHERE sequence = 2",
        "UPDATE audit_entry SET payload = x'7b7d' WHERE sequence = 2",
        "UPDATE audit_entry SET salt = zeroblob(16) WHERE sequence = 2",
        "UPDATE audit_entry SET payload = NULL WHERE sequence = 2",
        "UPDATE audit_entry SET payload_digest = zeroblob(32) WHERE sequence = 2",
        "UPDATE audit_entry SET entry_hash = zeroblob(32) WHERE sequence = 2",
        "REPLACE INTO audit_entry SELECT * FROM audit_entry WHERE sequence = 2",
        "INSERT INTO audit_entry SELECT 9, at_ms, kind, subject, payload, salt, payload_digest, entry_hash "
        "FROM audit_entry WHERE sequence = 3",
    ],
)
async def test_the_database_refuses_all_but_appending(database: Database, audit: AuditLog, statement: str) -> None:
    await append_many(database, audit, 3)
    before = [tuple(row) for row in database.points.all("SELECT * FROM audit_entry")]

    def tamper(tx: Tx) -> None:
        tx.execute(statement)

    with pytest.raises(sqlite3.IntegrityError):
        await database.write(tamper)
    assert [tuple(row) for row in database.points.all("SELECT * FROM audit_entry")] == before


def tampering(statement: str, parameters: tuple[Any, ...]) -> Callable[[Tx], None]:
    """What somebody does who has the file and knows the triggers."""

    def unit(tx: Tx) -> None:
        for trigger in ("audit_entry_only_follows", "audit_entry_only_erases", "audit_entry_never_goes"):
            tx.execute(f"DROP TRIGGER {trigger}")
        tx.execute(statement, parameters)

    return unit


@pytest.mark.parametrize(
    ("statement", "parameters", "broken"),
    [
        ("UPDATE audit_entry SET sequence = -7 WHERE sequence = 250", (), -7),
        ("UPDATE audit_entry SET sequence = 9223372036854775807 WHERE sequence = 250", (), 250),
        ("UPDATE audit_entry SET at_ms = at_ms + 1 WHERE sequence = 250", (), 250),
        ("UPDATE audit_entry SET kind = ? WHERE sequence = 250", ("operator",), 250),
        ("UPDATE audit_entry SET subject = CAST(? AS TEXT) WHERE sequence = 250", (b"\xff\xfe",), 250),
        ("UPDATE audit_entry SET payload = ? WHERE sequence = 250", (b"{}",), 250),
        ("UPDATE audit_entry SET salt = ? WHERE sequence = 250", (b"",), 250),
        ("UPDATE audit_entry SET payload_digest = zeroblob(32) WHERE sequence = 250", (), 250),
        ("UPDATE audit_entry SET entry_hash = zeroblob(32) WHERE sequence = 250", (), 250),
        ("DELETE FROM audit_entry WHERE sequence = 250", (), 250),
        ("DELETE FROM audit_entry WHERE sequence = 1", (), 1),
    ],
)
async def test_what_got_past_the_triggers_is_named(
    database: Database, audit: AuditLog, statement: str, parameters: tuple[Any, ...], broken: int
) -> None:
    await append_many(database, audit, 260)
    await database.write(tampering(statement, parameters))
    report = await verify(database, audit)
    assert report.first_break is not None
    assert report.first_break.sequence == broken
    assert report.entries == max(broken - 1, 0)


async def test_salts_differ(database: Database) -> None:
    audit = AuditLog(CLOCK)
    await append_many(database, audit, 10)
    assert len({row["salt"] for row in database.points.all("SELECT salt FROM audit_entry")}) == 10
