from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from loopd.database import Database, DatabaseSettings
from loopd.events.service import EventLog
from loopd.protocol.errors import Invalid
from loopd.protocol.schemas import schema_errors
from loopd.protocol.timestamps import format_timestamp
from loopd.signals.rules import SignalReading
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from loopd.signals.tables import CONFIGURATIONS_PER_NODE
from tests.exchange_support import CONTEXT, DAY_MS, NOW_MS, signals_document
from tests.support import ManualClock, happened

SETTINGS = SignalsSettings(values={"organic-food": Decimal("0.40"), "default": Decimal("0.05")}, refresh_s=300)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    async with await Database.create(tmp_path / "loopd.db", DatabaseSettings(synchronous="NORMAL"), clock) as opened:
        yield opened


@pytest.fixture
def signals(clock: ManualClock) -> Signals:
    return Signals("munich.loop", CONTEXT, SETTINGS, clock, EventLog(clock))


async def remember(signals: Signals, database: Database, value: float, from_ms: int, until_ms: int) -> None:
    document = signals_document(
        "vienna.loop",
        {"organic-food": value},
        valid_from=format_timestamp(from_ms),
        valid_until=format_timestamp(until_ms),
    )
    await database.write(lambda tx: signals.remember(tx, "vienna.loop", document))


def vienna(signals: Signals, database: Database, category: str = "organic-food") -> SignalReading | None:
    return signals.basis_points(database.points, "vienna.loop", category)


async def test_what_is_published_is_a_valid_document(signals: Signals, database: Database) -> None:
    published = signals.published(database.points)
    assert schema_errors("LoopSignalConfig", published) == []
    assert published["node"] == "munich.loop"
    assert published["signals"] == {"default": Decimal("0.05"), "organic-food": Decimal("0.4")}


async def test_own_signals_come_from_the_settings_and_never_expire(
    signals: Signals, database: Database, clock: ManualClock
) -> None:
    for _ in range(3):
        assert signals.basis_points(database.points, "munich.loop", "organic-food") == SignalReading(4000, stale=False)
        assert signals.basis_points(database.points, "munich.loop", "glass-clear") == SignalReading(500, stale=False)
        clock.advance(31 * DAY_MS)


async def test_what_was_never_fetched_is_not_known(signals: Signals, database: Database) -> None:
    assert vienna(signals, database) is None


async def test_the_configuration_in_force_is_the_one_that_began_last(
    signals: Signals, database: Database, clock: ManualClock
) -> None:
    await remember(signals, database, 0.2, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    await remember(signals, database, 0.3, NOW_MS + DAY_MS, NOW_MS + 2 * DAY_MS)
    assert vienna(signals, database) == SignalReading(2000, stale=False)
    clock.advance(DAY_MS)
    assert vienna(signals, database) == SignalReading(3000, stale=False)
    clock.advance(DAY_MS)
    assert vienna(signals, database) == SignalReading(3000, stale=True)


async def test_what_begins_in_the_future_is_not_in_force(signals: Signals, database: Database) -> None:
    await remember(signals, database, 0.3, NOW_MS + 1000, NOW_MS + DAY_MS)
    assert vienna(signals, database) is None


async def test_a_corrected_configuration_replaces_the_one_before(signals: Signals, database: Database) -> None:
    await remember(signals, database, 0.2, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    await remember(signals, database, 0.25, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    assert vienna(signals, database) == SignalReading(2500, stale=False)


async def test_few_configurations_of_a_node_are_kept(signals: Signals, database: Database) -> None:
    for day in range(10):
        await remember(signals, database, 0.2, NOW_MS - (20 - day) * DAY_MS, NOW_MS + DAY_MS)
    row = await database.one("SELECT count(*) AS kept, max(valid_from_ms) AS newest FROM signal_configuration")
    assert row is not None
    assert (row["kept"], row["newest"]) == (CONFIGURATIONS_PER_NODE, NOW_MS - 11 * DAY_MS)


async def test_a_node_speaks_for_itself_alone(signals: Signals, database: Database) -> None:
    document = signals_document("berlin.loop", {"default": 1})
    with pytest.raises(Invalid) as refusal:
        await database.write(lambda tx: signals.remember(tx, "vienna.loop", document))
    assert refusal.value.reason == "origin_mismatch"
    assert signals.basis_points(database.points, "berlin.loop", "default") is None


async def test_what_cannot_be_taken_exactly_leaves_what_was_known(signals: Signals, database: Database) -> None:
    await remember(signals, database, 0.2, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    with pytest.raises(Invalid) as refusal:
        await remember(signals, database, 0.12345, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    assert refusal.value.reason == "bad_signal"
    assert vienna(signals, database) == SignalReading(2000, stale=False)


async def test_what_is_due_to_be_fetched(signals: Signals, database: Database, clock: ManualClock) -> None:
    nodes = ["vienna.loop", "berlin.loop"]
    assert signals.due(database.points, nodes) == nodes
    await remember(signals, database, 0.2, NOW_MS - DAY_MS, NOW_MS + 10_000)
    assert signals.due(database.points, nodes) == ["berlin.loop"]
    clock.advance(9_999)
    assert signals.due(database.points, ["vienna.loop"]) == []
    clock.advance(1)  # its end
    assert signals.due(database.points, ["vienna.loop"]) == ["vienna.loop"]
    await remember(signals, database, 0.2, NOW_MS - DAY_MS, NOW_MS + 10_000)
    assert signals.due(database.points, ["vienna.loop"]) == []  # asked since then: next when the interval is over
    clock.advance(300_000)
    assert signals.due(database.points, ["vienna.loop"]) == ["vienna.loop"]


async def test_what_a_node_changed_is_an_event_and_what_it_issued_again_is_none(
    signals: Signals, database: Database
) -> None:
    for value, day in ((0.2, 0), (0.2, 0), (0.2, 1), (0.3, 2), (0.1, 1)):
        await remember(signals, database, value, NOW_MS + day * DAY_MS, NOW_MS + (day + 1) * DAY_MS)
    begins = [data["valid_from"] for _, _, data in await happened(database)]
    assert begins == [format_timestamp(NOW_MS), format_timestamp(NOW_MS + 2 * DAY_MS)]
    assert {(kind, subject) for kind, subject, _ in await happened(database)} == {("signals.changed", "vienna.loop")}
