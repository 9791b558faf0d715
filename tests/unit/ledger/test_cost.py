"""A payment costs what it moves, counted in steps of the database, so that no clock is asked."""

from pathlib import Path

from loopd.database import Tx
from tests.ledger_support import ANNA, BREWERY, DAY_MS, MARIA, LedgerNode, ledger_node

MANY = 60


async def steps_of_a_payment(node: LedgerNode) -> int:
    """How many steps of SQLite's machine it takes Maria to pay Anna once more on the same day."""
    await node.pay(MARIA, ANNA, 1)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(tx: Tx) -> None:
        tx._connection.set_progress_handler(step, 1)

    def look_away(tx: Tx) -> None:
        tx._connection.set_progress_handler(None, 1)

    await node.write(watch)
    await node.pay(MARIA, ANNA, 1)
    await node.write(look_away)
    return steps


async def test_a_payment_costs_the_same_with_coins_of_many_days(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        few = await steps_of_a_payment(node)
        for _ in range(MANY):
            node.clock.advance(DAY_MS)
            await node.issue(MARIA, 100)
            await node.issue(ANNA, 100)
        # Not even one step for each.
        assert await steps_of_a_payment(node) < few + MANY


async def test_a_payment_costs_the_same_with_many_pending(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        await node.hold(MARIA, BREWERY, 1)
        few = await steps_of_a_payment(node)
        for _ in range(MANY):
            await node.hold(MARIA, BREWERY, 1)
        # Not even one step for each.
        assert await steps_of_a_payment(node) < few + MANY
