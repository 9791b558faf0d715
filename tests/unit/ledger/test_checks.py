import re
import sqlite3
from pathlib import Path

import pytest

from loopd.ledger import checks
from loopd.ledger.authority import Authority
from loopd.ledger.movements import Phase
from loopd.ledger.orders import read_order
from loopd.protocol.contexts import vocabulary_iri
from loopd.protocol.documents import check_document, dump_json
from loopd.protocol.timestamps import format_timestamp
from tests.ledger_support import ANNA, BREWERY, DAY_MS, MARIA, LedgerNode, ledger_node

ZOE = "user:zoe@munich.loop"

ORDERED = "what was paid is what its payer ordered"

# What somebody with the file in hand could do, once the triggers that forbid it are gone, and which invariant tells.
TAMPERED = [
    ("UPDATE ledger_entry SET amount_minor = amount_minor + 1 WHERE transfer = 2", "balances are the sums"),
    ("UPDATE ledger_entry SET amount_minor = amount_minor + 1 WHERE transfer = 2 AND amount_minor > 0", "debits equal"),
    ("DELETE FROM ledger_entry WHERE transfer = 3", "what was posted moved its amount"),
    ("DELETE FROM ledger_entry WHERE transfer = 3 AND amount_minor < 0", "what was posted moved its amount"),
    ("UPDATE ledger_entry SET amount_minor = -amount_minor WHERE transfer = 3", "what was posted moved its amount"),
    ("UPDATE ledger_entry SET account = 1 WHERE transfer = 3 AND amount_minor > 0", "what was posted moved its amount"),
    (
        "INSERT INTO ledger_entry SELECT payer, number, 5, -amount_minor, at_ms FROM ledger_transfer "
        "WHERE phase = 'pending' UNION ALL SELECT payee, number, 5, amount_minor, at_ms FROM ledger_transfer "
        "WHERE phase = 'pending'",
        "what was posted moved its amount",
    ),
    (
        "INSERT INTO ledger_entry SELECT 1, 3, day, CASE day WHEN 1 THEN 5 ELSE -5 END, at_ms FROM ledger_transfer, "
        "(SELECT 1 AS day UNION SELECT 2) WHERE number = 3",
        "what was posted moved its amount",
    ),
    ("UPDATE ledger_transfer SET amount_minor = amount_minor + 1 WHERE number = 3", "what was posted moved its amount"),
    ("UPDATE ledger_entry SET at_ms = at_ms + 1 WHERE transfer = 3", "an entry is dated as its transfer"),
    ("UPDATE ledger_account SET balance_minor = balance_minor + 1 WHERE role = 'holder'", "balances are the sums"),
    ("UPDATE ledger_lot SET amount_minor = amount_minor + 1", "lots are the sums"),
    ("UPDATE ledger_lot SET issue_day = issue_day + 1", "lots are the sums"),
    ("UPDATE ledger_lot SET amount_minor = amount_minor + 1", "the lots of an account are its balance"),
    ("UPDATE ledger_entry SET issue_day = 5 WHERE issue_day = -1", "entries have an issue day"),
    ("UPDATE ledger_account SET held_minor = held_minor + 1 WHERE held_minor > 0", "what is held is what is pending"),
    ("UPDATE ledger_lot SET held_minor = 0", "what is held of a lot"),
    ("UPDATE ledger_hold SET state = 'voided' WHERE state = 'pending'", "a pending transfer ended as its end says"),
    ("UPDATE ledger_account SET role = 'fund' WHERE role = 'issuance'", "nothing is spent that is not there"),
    ("UPDATE ledger_closing SET balance_minor = balance_minor + 1", "closing balances"),
    ("DELETE FROM ledger_closing WHERE account = 1", "closing balances"),
    ("UPDATE ledger_account SET currency = 'EUR' WHERE id LIKE 'user:maria%'", "both accounts of a transfer"),
    (
        "UPDATE ledger_hold SET state = 'voided' WHERE transfer IN (SELECT max(number) FROM ledger_transfer "
        "WHERE link IS NOT NULL AND kind = 'payment' AND number IN "
        "(SELECT transfer FROM ledger_hold WHERE state = 'pending'))",
        "what is linked",
    ),
    ("UPDATE ledger_settlement SET total_minor = total_minor + 1", "a settlement's lines"),
    ("DELETE FROM ledger_entry WHERE account = 1", "issued + received"),
    # What leaves every sum as it is.
    (
        "INSERT INTO ledger_entry SELECT account, 999, issue_day, -amount_minor, at_ms FROM ledger_entry "
        "WHERE transfer = 2 UNION ALL SELECT account, 998, issue_day, amount_minor, at_ms FROM ledger_entry "
        "WHERE transfer = 2",
        "no transfer is missing",
    ),
    ("DELETE FROM ledger_transfer WHERE phase = 'pending' AND kind = 'settlement'", "no transfer is missing"),
    ("UPDATE ledger_time SET at_ms = at_ms - 1", "nothing is dated later"),
    ("UPDATE ledger_transfer SET kind = 'payment' WHERE kind = 'issuance'", "what the ledger keeps for itself"),
    ("UPDATE ledger_transfer SET kind = 'decay' WHERE kind = 'payment'", "what the ledger keeps for itself"),
    ("UPDATE ledger_transfer SET kind = 'settlement' WHERE kind = 'issuance'", "what the ledger keeps for itself"),
    ("UPDATE ledger_hold SET payer = payer + 1 WHERE state = 'posted'", "what is held of lots is the amount"),
    ("UPDATE ledger_hold_lot SET amount_minor = amount_minor + 1", "what is held of lots is the amount"),
    ("UPDATE ledger_hold_lot SET issue_day = issue_day + 1 WHERE hold = 4", "what was posted of a hold"),
    ("DELETE FROM ledger_closing WHERE day = (SELECT max(day) FROM ledger_closing)", "closing balances"),
    ("INSERT INTO ledger_closing SELECT account, day + 7, balance_minor FROM ledger_closing", "closing balances"),
    ("UPDATE ledger_settlement SET lines = replace(lines, '6000', '5999')", "a settlement's lines"),
    ("UPDATE ledger_settlement SET bonus_minor = 1, bonus_due_minor = 1", "a settlement's bonus"),
    ("UPDATE ledger_lot SET due_ms = due_ms + 1", "no lot misses a boundary"),
    ("UPDATE ledger_account SET role = 'fund' WHERE role = 'reserve'", "an account is for what its id says"),
    (
        "UPDATE ledger_account SET currency = 'EUR' WHERE id LIKE 'node:transport@%'",
        "an account is for what its id says",
    ),
    ("UPDATE ledger_transfer SET kind = 'issuance' WHERE kind = 'payment'", "what the ledger keeps for itself"),
    ("UPDATE ledger_transfer SET kind = 'redemption' WHERE kind = 'backing'", "what the ledger keeps for itself"),
    ("UPDATE ledger_transfer SET kind = 'backing' WHERE kind = 'issuance'", "what the ledger keeps for itself"),
    ("UPDATE ledger_transfer SET kind = 'bonus' WHERE kind = 'payment'", "what the ledger keeps for itself"),
    ("UPDATE ledger_transfer SET kind = 'bonus' WHERE phase = 'post'", "a pending transfer ended as its end says"),
    ("UPDATE ledger_transfer SET link = NULL WHERE phase = 'void'", "a pending transfer ended as its end says"),
    ("UPDATE ledger_transfer SET phase = 'post' WHERE kind = 'backing'", "a pending transfer ended as its end says"),
    ("UPDATE ledger_transfer SET pending = 1 WHERE number = 1", "a pending transfer ended as its end says"),
    ("UPDATE ledger_transfer SET at_ms = 0 WHERE phase = 'void'", "a pending transfer ended as its end says"),
    ("UPDATE ledger_hold SET expires_at_ms = NULL WHERE state = 'expired'", "a pending transfer ended as its end says"),
    ("DELETE FROM ledger_settlement", "a settlement's lines"),
    ("UPDATE ledger_transfer SET id = 'x' WHERE kind = 'payment' AND phase = 'posted' AND number = 3", ORDERED),
    ("UPDATE ledger_transfer SET document = NULL WHERE kind = 'payment' AND phase = 'pending'", ORDERED),
    ("UPDATE ledger_transfer SET document = x'7b' WHERE kind = 'payment' AND phase = 'pending'", ORDERED),
    ("UPDATE ledger_transfer SET document = CAST(replace(document, ':100', ':101') AS BLOB) WHERE number = 3", ORDERED),
    ("UPDATE ledger_transfer SET document = CAST(replace(document, 'anna', 'hans') AS BLOB)", ORDERED),
    ("UPDATE ledger_settlement SET transaction_id = 'TXN-2026-01-15-002'", "a settlement is of its own transaction"),
]

# Coins of one's own made younger, in entries and lots alike: every sum is as it was.
RENEWED = (
    "UPDATE ledger_entry SET issue_day = issue_day + 9 WHERE amount_minor > 0 AND account = "
    "(SELECT number FROM ledger_account WHERE id LIKE 'user:anna%')",
    "UPDATE ledger_lot SET issue_day = issue_day + 9 WHERE account = "
    "(SELECT number FROM ledger_account WHERE id LIKE 'user:anna%')",
)

# The same of coins that the city paid out, which nobody had before.
ISSUED_LATER = (
    "UPDATE ledger_entry SET issue_day = issue_day + 9 WHERE amount_minor > 0 AND account = "
    "(SELECT number FROM ledger_account WHERE id LIKE 'user:zoe%')",
    "UPDATE ledger_lot SET issue_day = issue_day + 9 WHERE account = "
    "(SELECT number FROM ledger_account WHERE id LIKE 'user:zoe%')",
)


async def life(node: LedgerNode) -> None:
    await node.issue(MARIA, 1000)
    await node.pay(MARIA, BREWERY, 100)
    await node.end(await node.hold(MARIA, ANNA, 10), Phase.POST)
    await node.hold(MARIA, ANNA, 20)
    until = format_timestamp(node.clock.now_ms() + DAY_MS * 30)
    await node.submit(*(node.order(MARIA, payee, 5, hold_until=until) for payee in (ANNA, BREWERY)))
    sale = node.sale(60)
    await node.write(lambda tx: node.settlements.hold(tx, sale))
    await node.hold(MARIA, BREWERY, 3, days=1)
    both = await node.submit(*(node.order(MARIA, payee, 4, hold_until=until) for payee in (ANNA, BREWERY)))
    await node.end(both[0].transfer, Phase.VOID)
    await node.open(ZOE)
    await node.issue(ZOE, 5)
    node.clock.advance(DAY_MS)
    await node.pay(BREWERY, ANNA, 1)
    await node.charge()


async def test_sound_books_keep_every_invariant(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await life(node)
        told: list[str] = []
        findings = checks.check(node.database.points, told.append)
        assert [finding for finding in findings if not finding.holds] == []
        assert told == [finding.invariant for finding in findings[: len(told)]]
        kept = checks.conservation(node.database.points)
        assert [(each.currency, each.issued_minor, each.holdings_minor) for each in kept] == [
            ("EUR", 100_500, 100_500),
            ("LC-MUC", 100_500, 100_500),
        ]


@pytest.mark.parametrize(("statement", "invariant"), TAMPERED)
async def test_what_is_tampered_with_is_found(tmp_path: Path, statement: str, invariant: str) -> None:
    async with ledger_node(tmp_path) as node:
        await life(node)
    broken = tamper(tmp_path / "loopd.db", statement)
    assert any(each.startswith(invariant) for each in broken), broken


async def test_coins_that_were_made_younger_are_found_by_who_paid_them(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await life(node)
    assert tamper(tmp_path / "loopd.db", *RENEWED) == ["who is paid by a holder gets coins of the same days"]


async def test_coins_that_were_made_younger_than_their_issue_are_found(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await life(node)
    assert tamper(tmp_path / "loopd.db", *ISSUED_LATER) == ["what the city pays out is dated that day"]


@pytest.mark.parametrize("amount", ["50", "50.0", "50.00", "50.000", "5e1", "0.5E2", "49.99", "0.01", "0.1", "12.30"])
@pytest.mark.parametrize("aliased", [False, True])
async def test_an_order_may_be_written_in_many_ways(tmp_path: Path, amount: str, aliased: bool) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        order = node.order(MARIA, BREWERY, 7)
        if aliased:
            order["@context"] = [order["@context"], {"sum": f"{vocabulary_iri()}amount"}]
            order["sum"] = order.pop("amount")
        text = re.sub(rb'"(amount|sum)":7', rb'"\1":' + amount.encode(), dump_json(order))
        read = read_order(check_document(text, "LoopCoinTransfer"))
        await node.write(lambda tx: node.ledger.submit(tx, [read], Authority(account=MARIA)))
        assert [finding for finding in checks.check(node.database.points) if not finding.holds] == []
    more = tamper(tmp_path / "loopd.db", "UPDATE ledger_transfer SET amount_minor = amount_minor + 1 WHERE number = 3")
    assert ORDERED in more


def tamper(file: Path, *statements: str) -> list[str]:
    """Change the file, and give the invariants that are broken then."""
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            if name.startswith(("ledger_", "clearing_")):
                connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
        return [each.invariant for each in checks.check(_Rows(connection)) if not each.holds]
    finally:
        connection.close()


class _Rows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, sql: str, parameters: object = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]

    def one(self, sql: str, parameters: object = ()) -> sqlite3.Row | None:
        return self._connection.execute(sql, parameters).fetchone()  # type: ignore[arg-type,no-any-return]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_transfer SET amount_minor = 1",
        "DELETE FROM ledger_transfer",
        "UPDATE ledger_entry SET amount_minor = 1",
        "DELETE FROM ledger_entry",
        "UPDATE ledger_terms SET decay_rate = '0'",
        "DELETE FROM ledger_terms",
        "UPDATE ledger_time SET at_ms = 0",
        "UPDATE ledger_hold SET state = 'voided'",
    ],
)
async def test_the_database_itself_forbids_to_change_what_happened(tmp_path: Path, statement: str) -> None:
    async with ledger_node(tmp_path) as node:
        await life(node)
        with pytest.raises(sqlite3.IntegrityError):
            await node.write(lambda tx: tx.execute(statement))


async def test_the_trial_balance_sums_to_nothing_in_each_currency(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await life(node)
        lines = checks.trial_balance(node.database.points)
        assert [line for line in lines if line.credits_minor - line.debits_minor != line.balance_minor] == []
        for currency in ("EUR", "LC-MUC"):
            assert sum(line.balance_minor for line in lines if line.currency == currency) == 0
