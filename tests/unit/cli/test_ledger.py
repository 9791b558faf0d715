import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from beancount import loader
from click.testing import Result

from loopd.crypto.keys import NodeKey
from loopd.database import Database, DatabaseSettings
from loopd.directory import NodeDirectory
from loopd.ledger.settings import LedgerSettings
from tests.fake_daemon import FakeDaemon
from tests.ledger_support import BREWERY, CURRENCY, FUND, MARIA, START_MS, LedgerNode
from tests.support import ManualClock

Run = Callable[..., Result]

ACCOUNTS = "/admin/v1/ledger/accounts"
LINE = {
    "id": MARIA,
    "currency": CURRENCY,
    "balance": 95.5,
    "held": 0,
    "available": 95.5,
    "has_key": True,
    "opened_at": "2026-01-15T10:00:00Z",
}
TRANSFER = {"id": "7", "from": FUND, "to": MARIA, "amount": 5, "currency": CURRENCY, "status": "posted"}


@pytest.fixture
def books(node: NodeDirectory) -> NodeDirectory:
    """A stopped node with some money in its books."""

    async def fill() -> None:
        clock = ManualClock(START_MS)
        async with await Database.open(node.database_file, DatabaseSettings(), clock) as database:
            ledger = LedgerNode(database, clock, LedgerSettings(currency_code=CURRENCY))
            await ledger.restart()
            await ledger.open(MARIA, BREWERY)
            await ledger.issue(MARIA, 100)
            await ledger.pay(MARIA, BREWERY, "40.50")

    asyncio.run(fill())
    return node


def test_sound_books_hold(run: Run, books: NodeDirectory) -> None:
    result = run("ledger", "check", books.root)
    assert result.exit_code == 0, result.stderr
    assert all(line.startswith("holds\t") for line in result.stdout.splitlines()[1:])
    findings = json.loads(run("ledger", "check", books.root, "--json").stdout)
    assert all(finding["holds"] for finding in findings)


def test_broken_books_are_told_and_the_command_fails(run: Run, books: NodeDirectory) -> None:
    connection = sqlite3.connect(books.database_file)
    connection.execute("UPDATE ledger_closing SET balance_minor = balance_minor + 1")
    connection.commit()
    connection.close()
    result = run("ledger", "check", books.root)
    assert result.exit_code == 1
    assert "BROKEN\tclosing balances" in result.stdout
    assert "1 of" in result.stderr


def test_the_trial_balance_has_a_total_for_each_currency(run: Run, books: NodeDirectory) -> None:
    rows = json.loads(run("ledger", "trial-balance", books.root, "--json").stdout)
    assert [row["balance"] for row in rows if row["account"] == "total"] == [0, 0]
    assert [row["balance"] for row in rows if row["account"] == MARIA] == [59.5]
    assert f"{BREWERY}\t{CURRENCY}\t0.00\t40.50\t40.50" in run("ledger", "trial-balance", books.root).stdout


def test_the_journal_goes_to_a_file_or_a_pipe(run: Run, books: NodeDirectory, tmp_path: Path) -> None:
    shown = run("ledger", "export", books.root).stdout
    assert loader.load_string(shown)[1] == []
    file = tmp_path / "books.beancount"
    assert run("ledger", "export", books.root, file).stdout == f"{file}\n"
    assert file.read_text(encoding="utf-8") == shown
    again = run("ledger", "export", books.root, file)
    assert (again.exit_code, again.stderr) == (1, f"loopd: {file} could not be written: File exists\n")


def test_where_there_are_no_books(run: Run, node: NodeDirectory, tmp_path: Path) -> None:
    assert run("ledger", "check", node.root).exit_code == 0
    nowhere = run("ledger", "check", tmp_path / "nothing")
    assert (nowhere.exit_code, nowhere.stderr.startswith("loopd: there is no database")) == (1, True)


def test_accounts_are_opened_and_listed_by_the_daemon(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    pem = NodeKey.from_seed(bytes(32)).public.to_pem()
    key.write_text(pem, encoding="ascii")
    daemon.answers[f"POST {ACCOUNTS}"] = (201, LINE)
    daemon.answers[f"GET {ACCOUNTS}"] = (200, {"results": [LINE], "next": None})
    assert run("ledger", "account", "add", node.root, MARIA, "--key", key).exit_code == 0
    assert run("ledger", "account", "add", node.root, BREWERY, "--json").exit_code == 0
    assert run("ledger", "account", "list", node.root).stdout.splitlines()[1].startswith(f"{MARIA}\t{CURRENCY}\t95.5")
    assert json.loads(run("ledger", "account", "list", node.root, "--json").stdout) == [LINE]
    assert [body for _, _, body in daemon.requests[:2]] == [{"id": MARIA, "public_key": pem}, {"id": BREWERY}]


def test_money_is_issued_paid_and_shown_by_the_daemon(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /api/v1/loopcoin/issuance"] = (201, TRANSFER)
    daemon.answers["POST /api/v1/loopcoin/transfers"] = (201, TRANSFER)
    daemon.answers["GET /api/v1/loopcoin/config"] = (200, {"@context": "c", "currency_code": CURRENCY})
    lot = {"issued": "2026-01-15", "amount": 95.5, "held": 0, "loses_value_at": "2026-08-15T00:00:00Z"}
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{MARIA}"] = (200, {**LINE, "lots": [lot]})
    transfer_id = "550e8400-e29b-41d4-a716-446655440000"
    assert run("ledger", "issue", node.root, MARIA, "100", "--backing", "90.5", "--id", transfer_id).exit_code == 0
    paid = run("ledger", "pay", node.root, FUND, MARIA, "5", "--memo", "A prize", "--id", transfer_id, "--json")
    assert json.loads(paid.stdout) == TRANSFER
    assert "2026-01-15\t95.5" in run("ledger", "show", node.root, MARIA).stdout
    assert json.loads(run("ledger", "show", node.root, MARIA, "--json").stdout)["balance"] == 95.5
    bodies = {path: body for method, path, body in daemon.requests if method == "POST"}
    assert bodies["/api/v1/loopcoin/issuance"] == {"id": transfer_id, "to": MARIA, "amount": 100, "backing": 90.5}
    order = bodies["/api/v1/loopcoin/transfers"]
    assert (order["from"], order["to"], order["amount"], order["memo"]) == (FUND, MARIA, 5, "A prize")


@pytest.mark.parametrize("amount", ["-1", "1.005", "much"])
def test_an_amount_that_is_none_is_misuse(run: Run, node: NodeDirectory, amount: str) -> None:
    assert run("ledger", "issue", node.root, MARIA, amount).exit_code == 2
