from pathlib import Path

import pytest

from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.signals.rules import SignalConfiguration, month_of
from loopd.signals.watch import Oddity, remarks_on
from tests.exchange_support import NOW_MS, signals_document
from tests.voting_support import DAY_MS, VotingNode, voting_node


def told(start: str, **signals: int) -> SignalConfiguration:
    start_ms = parse_timestamp(f"2026-{start}T00:00:00Z")
    stated = {name.replace("_", "-"): value for name, value in signals.items()}
    return SignalConfiguration("vienna.loop", stated, start_ms, month_of(start_ms)[1])


NOW = parse_timestamp("2026-06-15T00:00:00Z")


@pytest.mark.parametrize(
    ("known", "new", "expected"),
    [
        ([told("05-01", default=500)], told("06-01", default=1500), []),
        ([told("05-01", default=500)], told("06-01", default=1501), [Oddity.JUMP]),
        ([told("05-01", default=500)], told("06-01", default=500, glass_clear=1501), [Oddity.JUMP]),
        ([told("06-01", default=500)], told("06-10", default=1501), [Oddity.JUMP]),
        # Two months apart, two votes may lie between.
        ([told("04-01", default=500)], told("06-01", default=2500), []),
        ([told("04-01", default=500)], told("06-01", default=2501), [Oddity.JUMP]),
        ([told("06-01", default=500)], told("05-01", default=500), [Oddity.WENT_BACK]),
        # What has not begun yet takes nothing back.
        ([told("06-01", default=500), told("07-01", default=500)], told("06-01", default=500), []),
        ([told("06-01", default=500)], told("06-01", default=600), [Oddity.CONTRADICTION]),
        ([told("06-01", default=500)], told("06-01", default=500), []),
        ([], told("06-01", default=9000), []),
    ],
)
def test_what_is_odd(known: list[SignalConfiguration], new: SignalConfiguration, expected: list[Oddity]) -> None:
    assert [remark.kind for remark in remarks_on(known, new, NOW)] == expected


async def _hear(node: VotingNode, value: float, start_ms: int, until_ms: int) -> None:
    document = signals_document(
        "vienna.loop",
        {"organic-food": value},
        valid_from=format_timestamp(start_ms),
        valid_until=format_timestamp(until_ms),
    )
    await node.write(lambda tx: node.signals.remember(tx, "vienna.loop", document))


async def test_oddities_are_kept_and_shown(tmp_path: Path) -> None:
    async with voting_node(tmp_path, NOW_MS) as node:
        await _hear(node, 0.2, NOW_MS - 2 * DAY_MS, NOW_MS + DAY_MS)
        (shown,) = node.signals.peers(node.database.points)
        assert (shown["node"], shown["stale"], shown["remarks"]) == ("vienna.loop", False, [])
        for _ in range(2):  # fetched again and again
            await _hear(node, 0.5, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
        await _hear(node, 0.2, NOW_MS - 2 * DAY_MS, NOW_MS + DAY_MS)
        node.clock.advance(2 * DAY_MS)
        (shown,) = node.signals.peers(node.database.points)
        assert shown["stale"]
        remarks = {(remark["kind"], *remark["categories"]) for remark in shown["remarks"]}
        assert remarks == {("jump", "organic-food"), ("went_back",)}
        # It is used all the same: the newest that has begun.
        reading = node.signals.basis_points(node.database.points, "vienna.loop", "organic-food")
        assert reading is not None
        assert (reading.basis_points, reading.stale) == (5000, True)


async def test_few_remarks_are_kept(tmp_path: Path) -> None:
    async with voting_node(tmp_path, NOW_MS) as node:
        for number in range(50):
            node.clock.advance(1000)
            start_ms = NOW_MS - DAY_MS + number * 1000
            await _hear(node, 0.9 if number % 2 else 0.1, start_ms, NOW_MS + DAY_MS)
        (shown,) = node.signals.peers(node.database.points)
        assert len(shown["remarks"]) == 20
