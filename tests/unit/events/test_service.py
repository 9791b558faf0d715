"""The event log in its database: part of the transaction, in the order of commits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import pytest

from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.rules import ALL_KINDS
from loopd.events.service import Event, EventKind, EventLog
from loopd.events.tables import newest_id
from loopd.protocol.errors import Conflict
from loopd.protocol.limits import EVENT_DATA_MAX_BYTES, EVENTS_KEPT_MS
from tests.support import ManualClock

CLOCK = ManualClock(now_ms=1_790_000_000_123)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    settings = DatabaseSettings(readers=1, synchronous="NORMAL")
    async with await Database.create(tmp_path / "loopd.db", settings, CLOCK) as opened:
        yield opened


def appending(log: EventLog, subject: str) -> Callable[[Tx], int]:
    return lambda tx: log.append(tx, EventKind.MATERIAL_REGISTERED, subject, {"category": "food"})


async def stored(database: Database) -> list[tuple[int, str]]:
    return [(row["id"], row["subject"]) for row in await database.all("SELECT id, subject FROM event ORDER BY id")]


async def test_an_entry_holds_what_happened(database: Database) -> None:
    data = {"quantity": Decimal("2.50"), "unit": "kg"}
    log = EventLog(CLOCK)
    event_id = await database.write(lambda tx: log.append(tx, EventKind.MATERIAL_STATUS, "MAT-1", data))
    row = database.point("SELECT * FROM event")
    assert row is not None
    assert tuple(row) == (event_id, "material.status", "MAT-1", CLOCK.now_ms(), b'{"quantity":2.50,"unit":"kg"}')


async def test_concurrent_writers_are_told_of_in_the_order_of_their_commits(database: Database) -> None:
    told: list[Event] = []
    log = EventLog(CLOCK, told.append)
    subjects = [f"MAT-{number}" for number in range(300)]
    ids = await asyncio.gather(*(database.write(appending(log, subject)) for subject in subjects))
    assert [(event.event_id, event.subject) for event in told] == await stored(database)
    assert sorted(ids) == list(range(1, 301))
    assert {event.event_id: event.subject for event in told} == dict(zip(ids, subjects, strict=True))


async def test_what_is_undone_leaves_neither_event_nor_gap(database: Database) -> None:
    told: list[Event] = []
    log = EventLog(CLOCK, told.append)

    def refused(tx: Tx) -> None:
        log.append(tx, EventKind.OFFER_CREATED, "OFFER-1", {})
        raise Conflict("transition", "no")

    await asyncio.gather(
        database.write(appending(log, "MAT-1")),
        database.write(refused),
        database.write(appending(log, "MAT-2")),
        return_exceptions=True,
    )
    assert await stored(database) == [(1, "MAT-1"), (2, "MAT-2")]
    assert [event.subject for event in told] == ["MAT-1", "MAT-2"]


@pytest.mark.parametrize("data", [{"account": "user:ana@munich.loop"}, {"note": "x" * EVENT_DATA_MAX_BYTES}])
async def test_long_data_and_a_persons_account_are_refused(database: Database, data: dict[str, str]) -> None:
    log = EventLog(CLOCK)
    with pytest.raises(ValueError, match=r"ledger\.posted"):
        await database.write(lambda tx: log.append(tx, EventKind.LEDGER_POSTED, "T-1", data))
    assert await stored(database) == []


async def test_what_is_too_much_or_too_old_is_forgotten_kind_by_kind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopd.events.service.EVENTS_KEPT_PER_KIND_MAX", 3)
    monkeypatch.setattr("loopd.events.service.EVENTS_PRUNED_AT_ONCE", 2)
    clock = ManualClock()
    log = EventLog(clock)

    async def happen(kind: EventKind, count: int) -> None:
        for number in range(count):
            await database.write(lambda tx, number=number: log.append(tx, kind, f"{kind.value}-{number}", {}))

    await happen(EventKind.OFFER_CREATED, 2)
    clock.advance(EVENTS_KEPT_MS + 1)
    await happen(EventKind.OFFER_CREATED, 1)
    await happen(EventKind.SUBJECT_HEARD, 10)
    await log.prune(database)
    assert [event_id for event_id, _ in await stored(database)] == [3, 11, 12, 13]
    offers = await log.after(database, {EventKind.OFFER_CREATED}, 0, 10)
    assert ([event.event_id for event in offers.events], offers.gone_through) == ([3], 2)
    assert (await log.after(database, {EventKind.OFFER_CREATED}, 2, 10)).gone_through is None
    assert (await log.after(database, ALL_KINDS, 2, 10)).gone_through == 10


async def test_an_id_is_never_given_twice_even_when_all_are_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopd.events.service.EVENTS_KEPT_PER_KIND_MAX", 0)
    log = EventLog(CLOCK)
    for subject in ("MAT-1", "MAT-2"):
        await database.write(appending(log, subject))
    await log.prune(database)
    assert await stored(database) == []
    assert newest_id(database.points) == 2
    assert await database.write(appending(log, "MAT-3")) == 3


async def test_an_id_after_the_newest_is_unknown(database: Database) -> None:
    log = EventLog(CLOCK)
    assert (await log.after(database, ALL_KINDS, 0, 10)).unknown is False
    await database.write(appending(log, "MAT-1"))
    assert [(await log.after(database, ALL_KINDS, last_id, 10)).unknown for last_id in (0, 1, 2)] == [
        False,
        False,
        True,
    ]
