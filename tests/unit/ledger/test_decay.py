import itertools
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.database.writer import Tx
from loopd.ledger import checks, lot_tables, tables
from loopd.ledger.authority import OPERATOR
from loopd.ledger.dates import day_text
from loopd.ledger.due import DueTime
from loopd.ledger.issuance import Issue
from loopd.ledger.movements import Phase
from loopd.ledger.refusals import UnusableLedger
from loopd.protocol.limits import DUE_ACCOUNTS_AT_ONCE
from loopd.protocol.timestamps import parse_timestamp
from tests.ledger_support import ANNA, BREWERY, DAY_MS, FUND, MARIA, START_MS, LedgerNode, lc, ledger_node, new_id


async def year(directory: Path, charged_daily: bool, **settings: Any) -> dict[str, list[tuple[Any, ...]]]:
    """A year in which things happen, charged each day or only where something happens."""
    async with ledger_node(directory, start_ms=parse_timestamp("2027-08-31T10:00:00Z"), **settings) as node:
        await node.issue(MARIA, "1000.01", id="00000000-0000-4000-8000-000000000000")
        held = []
        for day in range(1, 366):
            node.clock.advance(DAY_MS)
            if charged_daily:
                await node.charge()
            if day % 50 == 7:
                transfer_id = f"00000000-0000-4000-8000-{day:012d}"
                await node.issue(MARIA, "99.99", id=transfer_id.replace("4000", "4002"))
                held.append(await node.hold(MARIA, ANNA, "33.33", days=40, id=transfer_id))
                await node.pay(MARIA, BREWERY, "17.77", id=transfer_id.replace("4000", "4001"))
            if day % 100 == 20:
                await node.end(held[-1], Phase.POST)
        await node.charge()
        assert all(finding.holds for finding in checks.check(node.database.points))
        return await node.books()


@pytest.mark.parametrize("settings", [{}, {"expiry_months": 1}, {"expiry_policy": "forfeit", "expiry_months": 3}])
async def test_one_late_run_and_365_daily_ones_give_the_same_books(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    late = await year(tmp_path, False, **settings)
    daily = await year(tmp_path_factory.mktemp("daily"), True, **settings)
    assert any(row[1] in ("decay", "forfeit") for row in late["transfers"])
    assert late == daily


@pytest.mark.parametrize(
    ("issued", "boundaries"),
    [
        ("2026-01-15T10:00:00Z", ["2026-08-15", "2026-09-15"]),
        ("2027-07-31T23:59:59.999Z", ["2028-02-29", "2028-03-31"]),
        ("2027-08-01T00:00:00Z", ["2028-03-01", "2028-04-01"]),
        ("2026-07-30T00:00:00Z", ["2027-02-28", "2027-03-30"]),
    ],
)
async def test_decay_is_dated_at_its_boundary(tmp_path: Path, issued: str, boundaries: list[str]) -> None:
    async with ledger_node(tmp_path, start_ms=parse_timestamp(issued)) as node:
        await node.issue(MARIA, 100)
        node.clock.set_wall(parse_timestamp(f"{boundaries[-1]}T12:00:00Z"))
        await node.charge()
        rows = await node.database.all("SELECT at_ms, amount_minor FROM ledger_transfer WHERE kind = 'decay'")
        assert [(day_text(row["at_ms"] // DAY_MS), row["at_ms"] % DAY_MS) for row in rows] == [
            (boundary, 0) for boundary in boundaries
        ]
        assert [row["amount_minor"] for row in rows] == [500, 475]
        assert (node.balance(MARIA), node.balance(FUND)) == (9_025, 975)


async def test_a_balance_of_any_past_moment_is_that_of_the_books_as_dated(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, expiry_months=1) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(100 * DAY_MS)
        await node.pay(MARIA, BREWERY, 10)
        points = node.database.points
        for account_id in (MARIA, BREWERY, FUND):
            account = node.ledger.require(points, account_id)
            rows = await node.database.all(
                "SELECT at_ms, amount_minor FROM ledger_entry WHERE account = ?", (account.number,)
            )
            for moment_ms in {START_MS - 1, *(row["at_ms"] + late for row in rows for late in (-1, 0, 1))}:
                expected = sum(row["amount_minor"] for row in rows if row["at_ms"] <= moment_ms)
                assert tables.balance_at(points, account.number, moment_ms) == expected


async def test_held_coins_defer_and_a_post_charges_nothing_missed(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, expiry_months=1) as node:
        await node.issue(MARIA, 100)
        held = await node.hold(MARIA, ANNA, 60, days=90)
        node.clock.advance(89 * DAY_MS)
        await node.charge()
        assert (node.balance(MARIA), node.balance(FUND)) == (lc(98), lc(2))
        await node.end(held, Phase.POST)
        assert (node.balance(MARIA), node.balance(ANNA), node.balance(FUND)) == (lc(38), lc(60), lc(2))
        node.clock.advance(2 * DAY_MS)
        await node.charge()
        assert node.balance(ANNA) == lc(57)


@pytest.mark.parametrize("expires", [True, False])
async def test_held_coins_that_come_back_lose_what_they_missed(tmp_path: Path, expires: bool) -> None:
    async with ledger_node(tmp_path, expiry_months=1) as node:
        await node.issue(MARIA, 100)
        held = await node.hold(MARIA, ANNA, 60, days=89)
        node.clock.advance(89 * DAY_MS if expires else 88 * DAY_MS)
        if expires:
            await node.charge()
        else:
            await node.end(held, Phase.VOID)
        assert (node.balance(MARIA), node.available(MARIA), node.balance(FUND)) == (lc(95), lc(95), lc(5))
        assert all(finding.holds for finding in checks.check(node.database.points))


async def test_paying_oneself_renews_nothing(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, expiry_months=1) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(58 * DAY_MS)
        for cents in range(1, 101):
            await node.pay(MARIA, ANNA, Decimal(cents) / 100)
        paid = node.balance(ANNA)
        assert node.lots(ANNA) == [(START_MS // DAY_MS, paid, 0)]
        await node.pay(ANNA, MARIA, Decimal(paid) / 100)
        assert node.lots(MARIA) == [(START_MS // DAY_MS, lc(100), 0)]
        node.clock.advance(DAY_MS)
        await node.charge()
        assert (node.balance(MARIA), node.balance(FUND)) == (lc(95), lc(5))


async def test_what_the_city_pays_out_is_dated_that_day(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(30 * DAY_MS)
        await node.pay(MARIA, FUND, 50)
        await node.pay(FUND, ANNA, 50)
        assert node.lots(ANNA) == [(START_MS // DAY_MS + 30, lc(50), 0)]


async def test_the_fund_gets_what_is_due_to_it_before_it_pays(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(212 * DAY_MS)
        await node.pay(FUND, ANNA, 5)
        assert (node.balance(MARIA), node.balance(ANNA), node.balance(FUND)) == (lc(95), lc(5), 0)


async def test_a_clock_that_is_set_back_does_not_set_the_books_back(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        first = await node.pay(MARIA, ANNA, 1)
        node.clock.advance(-DAY_MS)
        second = await node.pay(MARIA, ANNA, 1)
        assert second.at_ms == first.at_ms


async def test_other_terms_hold_from_the_restart_on(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(220 * DAY_MS)
        await node.restart(decay_rate=Decimal("0.1"), expiry_months=1)
        await node.charge()
        assert node.balance(MARIA) == lc(95)
        node.clock.advance(30 * DAY_MS)
        await node.charge()
        assert node.balance(MARIA) == 8_550
        assert len(tables.terms_versions(node.database.points)) == 2


async def test_a_late_run_after_other_terms_began_follows_the_terms_of_each_moment(tmp_path: Path) -> None:
    """Held coins come back, and what is left of them loses its value, both before the terms changed."""
    async with ledger_node(tmp_path, expiry_months=1, decay_rate=Decimal("0.1")) as node:
        await node.issue(MARIA, 100)
        await node.hold(MARIA, ANNA, 100, days=40)
        node.clock.advance(100 * DAY_MS)
        await node.restart(expiry_months=6, decay_rate=Decimal("0.2"))
        await node.charge()
        assert (node.balance(MARIA), node.available(MARIA)) == (8_100, 8_100)


@pytest.mark.parametrize("charged_before", [True, False])
async def test_terms_that_change_at_a_boundary_itself_come_after_it(tmp_path: Path, charged_before: bool) -> None:
    """What happens at the moment of a change follows the terms before it, whenever it is written."""
    async with ledger_node(tmp_path, expiry_months=1) as node:
        await node.issue(MARIA, 100)
        node.clock.set_wall(parse_timestamp("2026-03-15T00:00:00Z"))
        if charged_before:
            await node.charge()
        await node.restart(expiry_months=1, decay_rate=Decimal("0.2"))
        await node.charge()
        assert node.balance(MARIA) == lc(95)
        node.clock.set_wall(parse_timestamp("2026-04-15T00:00:00Z"))
        await node.charge()
        assert node.balance(MARIA) == lc(76)


async def test_the_currency_stays(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        for changes in ({"currency_code": "LC-BER"}, {"backed_by": "CHF"}):
            with pytest.raises(UnusableLedger, match="must stay"):
                await node.restart(**changes)


async def test_a_peer_that_gets_credit_gets_a_clearing_account(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.restart(credit_limits={"vienna.loop": Decimal(100)})
        assert node.balance("node:clearing.vienna.loop@munich.loop") == 0


def lots_by_issue(node: LedgerNode, account: str) -> dict[int, int]:
    return {day: amount for day, amount, _ in node.lots(account)}


async def test_who_receives_inherits_the_issue_days_the_oldest_first(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        today = START_MS // DAY_MS
        for amount in (10, 20, 30):
            await node.issue(MARIA, amount)
            node.clock.advance(DAY_MS)
        await node.pay(MARIA, ANNA, 25)
        assert lots_by_issue(node, ANNA) == {today: lc(10), today + 1: lc(15)}
        assert lots_by_issue(node, MARIA) == {today + 1: lc(5), today + 2: lc(30)}


async def test_the_fund_waits_while_a_whole_city_ages(tmp_path: Path) -> None:
    holders = [f"user:holder-{number}@munich.loop" for number in range(DUE_ACCOUNTS_AT_ONCE)]
    async with ledger_node(tmp_path, holders=(ANNA,)) as node:

        def fill(tx: Tx) -> None:
            for holder in holders:
                node.ledger.open_account(tx, holder, None)
                node.issuance.issue(tx, Issue(new_id(), holder, 100, 100))

        await node.write(fill)
        node.clock.advance(212 * DAY_MS)
        refusal = await node.refusal(node.order(FUND, ANNA, 1), authority=OPERATOR)
        assert (refusal.status, refusal.reason) == (503, "decay_due")
        await node.charge()
        await node.pay(FUND, ANNA, 1)


async def test_the_timer_charges_what_is_due(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(212 * DAY_MS)
        timer = DueTime(node.ledger, node.database, node.clock)
        await timer.step()
        assert (node.balance(MARIA), node.balance(FUND)) == (lc(95), lc(5))
        timer.start()
        await timer.stop()


async def test_an_account_that_cannot_be_charged_holds_up_nobody_else(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(1)
        await node.issue(ANNA, 100)
        number = node.ledger.require(node.database.points, MARIA).number
        broken = (
            f"CREATE TRIGGER broken BEFORE INSERT ON ledger_entry WHEN NEW.account = {number} "
            "BEGIN SELECT raise(ABORT, 'broken'); END"
        )
        await node.write(lambda tx: tx.execute(broken))
        node.clock.advance(212 * DAY_MS)
        timer = DueTime(node.ledger, node.database, node.clock)
        await timer.step()
        assert (node.balance(MARIA), node.balance(ANNA)) == (lc(100), lc(95))
        await node.write(lambda tx: tx.execute("DROP TRIGGER broken"))
        await timer.step()
        assert node.balance(MARIA) == lc(95)


async def test_what_is_due_is_found_without_looking_at_all_of_it(tmp_path: Path) -> None:
    """However many coins age at one midnight, each look at them is at a few."""
    async with ledger_node(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "loopd.db")
    connection.row_factory = sqlite3.Row
    try:
        lots = [(account, 5, 100, 0, 1_000) for account in range(5_000)]
        connection.executemany("INSERT INTO ledger_lot VALUES (?, ?, ?, ?, ?)", lots)
        source, steps = Tx(connection, []), {}
        for limit in (1, 100, 5_000):
            counted = itertools.count()
            connection.set_progress_handler(lambda counted=counted: next(counted) and 0, 1)
            assert len(lot_tables.due_accounts(source, 2_000, limit)) == limit
            steps[limit] = next(counted)
        connection.set_progress_handler(None, 1)
        assert steps[1] * 30 < steps[100] * 3 < steps[5_000]
        assert lot_tables.is_much_due(source, 2_000, 100)
        assert not lot_tables.is_much_due(source, 2_000, 5_001)
    finally:
        connection.close()
