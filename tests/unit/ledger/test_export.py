from decimal import Decimal
from pathlib import Path

import pytest
from beancount import loader
from beancount.core import realization

from loopd.ledger.accounts import Role
from loopd.ledger.export import beancount_account, journal
from loopd.ledger.movements import Phase
from loopd.ledger.tables import accounts_page
from tests.ledger_support import ANNA, BREWERY, DAY_MS, FUND, MARIA, NODE, LedgerNode, ledger_node

DOTTED, UNDERSCORED = "user:maria.k@munich.loop", "user:maria_k@munich.loop"


async def a_year_of_life(node: LedgerNode) -> None:
    await node.open(DOTTED, UNDERSCORED)
    await node.issue(MARIA, "1000.01", backing=1200)
    for day in range(0, 360, 30):
        await node.pay(MARIA, BREWERY, "10.07")
        await node.pay(MARIA, DOTTED, 1)
        await node.pay(MARIA, UNDERSCORED, 2)
        held = await node.hold(BREWERY, ANNA, "3.33")
        await node.end(held, Phase.POST if day % 60 else Phase.VOID)
        node.clock.advance(30 * DAY_MS)
    await node.charge()
    await node.pay(FUND, ANNA, "0.01")
    await node.hold(MARIA, ANNA, 1)


async def test_beancount_reads_the_journal_without_an_error_and_finds_the_same_balances(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await a_year_of_life(node)
        points = node.database.points
        entries, errors, _ = loader.load_string("\n".join(journal(points, NODE)))
        assert errors == []
        root = realization.realize(entries)
        for account in accounts_page(points, 0, 100):
            found = realization.get(root, beancount_account(account.id, account.role))
            inventory = found.balance.get_currency_units(account.currency)
            assert inventory.number == Decimal(account.balance_minor).scaleb(-2), account.id


async def test_an_empty_ledger_is_an_empty_journal(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        _, errors, _ = loader.load_string("\n".join(journal(node.database.points, NODE)))
        assert errors == []


@pytest.mark.parametrize(
    ("account", "role", "expected"),
    [
        (MARIA, Role.HOLDER, "Assets:Holders:User:Maria"),
        (DOTTED, Role.HOLDER, "Assets:Holders:User:MariaDk"),
        (UNDERSCORED, Role.HOLDER, "Assets:Holders:User:MariaUk"),
        ("business:9-to-5@munich.loop", Role.HOLDER, "Assets:Holders:Business:9-to-5"),
        (FUND, Role.FUND, "Assets:Funds:Community-fund"),
        ("node:clearing.vienna.loop@munich.loop", Role.CLEARING, "Liabilities:Clearing:ClearingDviennaDloop"),
    ],
)
def test_names_of_the_journal(account: str, role: str, expected: str) -> None:
    assert beancount_account(account, role) == expected
