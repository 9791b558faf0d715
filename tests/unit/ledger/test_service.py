from pathlib import Path

from loopd.ledger.dates import day_of
from loopd.ledger.movements import Phase
from loopd.protocol.timestamps import format_timestamp
from tests.ledger_support import ANNA, BREWERY, DAY_MS, FUND, ISSUANCE, MARIA, RESERVE, START_MS, lc, ledger_node


async def test_what_is_issued_stands_against_the_reserve(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        assert node.balance(MARIA) == lc(100)
        assert node.balance(ISSUANCE) == lc(-100)
        assert node.balance(RESERVE) == lc(100)
        assert node.lots(MARIA) == [(day_of(START_MS), lc(100), 0)]


async def test_a_payment_moves_and_a_hold_waits(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        await node.pay(MARIA, BREWERY, 30)
        held = await node.hold(MARIA, ANNA, 20)
        assert (node.balance(MARIA), node.available(MARIA), node.balance(ANNA)) == (lc(70), lc(50), 0)
        await node.end(held, Phase.POST)
        assert (node.balance(MARIA), node.available(MARIA), node.balance(ANNA)) == (lc(50), lc(50), lc(20))
        again = await node.hold(MARIA, ANNA, 50)
        await node.end(again, Phase.VOID)
        assert (node.balance(MARIA), node.available(MARIA), node.balance(ANNA)) == (lc(50), lc(50), lc(20))
        assert node.balance(FUND) == 0


async def test_what_an_order_is_answered_with_is_what_stands_in_the_books(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        done = [await node.issue(MARIA, 100)]
        done += await node.submit(node.order(MARIA, BREWERY, 30))
        done += await node.submit(node.order(MARIA, ANNA, 1), node.order(MARIA, BREWERY, 2))
        until = format_timestamp(node.clock.now_ms() + DAY_MS)
        done += await node.submit(node.order(MARIA, ANNA, 20, hold_until=until))
        for each in done:
            assert each.transfer == node.ledger.find_transfer(node.database.points, each.transfer.id)
