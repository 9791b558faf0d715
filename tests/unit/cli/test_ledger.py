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


def test_what_is_pending_is_shown_with_what_lies_there(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    waiting = {"id": "4d3545f0-c36f-4bf9-b21c-bb8206d14804", "to": BREWERY, "amount": 3.5}
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{MARIA}"] = (200, {**LINE, "lots": [], "pending": [waiting]})
    shown = run("ledger", "show", node.root, MARIA).stdout.splitlines()
    assert shown[-1] == f"{waiting['id']}\t{BREWERY}\t3.5"
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{FUND}"] = (200, {**LINE, "id": FUND})
    assert "issued" not in run("ledger", "show", node.root, FUND).stdout


def test_the_balance_of_a_past_moment(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    past = {"id": MARIA, "currency": CURRENCY, "balance": 12.5, "at": "2026-01-16T00:00:00Z"}
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{MARIA}"] = (200, past)
    shown = run("ledger", "show", node.root, MARIA, "--at", "2026-01-16T00:00:00Z").stdout
    assert shown.splitlines()[2:] == ["balance\t12.5", "at\t2026-01-16T00:00:00Z"]
    assert daemon.requests[0][1].endswith("?at=2026-01-16T00:00:00Z")


def test_a_statement_is_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    line = {"id": "7", "kind": "payment", "counterpart": BREWERY, "amount": -3.5, "at": "2026-01-16T00:00:00Z"}
    page = {"results": [line], "next": None}
    daemon.answers[f"GET /api/v1/loopcoin/accounts/{MARIA}/statement"] = (200, page)
    shown = run("ledger", "statement", node.root, MARIA, "--limit", "5").stdout.splitlines()
    assert shown == ["at\tkind\tamount\tcounterpart", f"2026-01-16T00:00:00Z\tpayment\t-3.5\t{BREWERY}"]
    assert daemon.requests[0][1].endswith("/statement?limit=5")
    assert json.loads(run("ledger", "statement", node.root, MARIA, "--json").stdout) == page


@pytest.mark.parametrize("kind", ["deposit", "withdraw"])
def test_the_reserve_is_moved_alone(run: Run, node: NodeDirectory, daemon: FakeDaemon, kind: str) -> None:
    daemon.answers["POST /api/v1/loopcoin/issuance"] = (201, {**TRANSFER, "amount": 50, "currency": "EUR"})
    transfer_id = "550e8400-e29b-41d4-a716-446655440000"
    result = run("ledger", kind, node.root, "50", "--id", transfer_id)
    assert "amount\t50.00\ncurrency\tEUR" in result.stdout
    assert daemon.requests[0][2] == {"id": transfer_id, "kind": kind, "backing": 50}


def test_what_does_not_cover_is_told_with_where_to_look(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    error = {"code": "CONFLICT", "message": "The reserve would not cover it.", "details": {"reason": "under_reserve"}}
    daemon.answers["POST /api/v1/loopcoin/issuance"] = (409, {"error": error})
    result = run("ledger", "issue", node.root, MARIA, "100")
    assert (result.exit_code, "The reserve would not cover it. [under_reserve]" in result.stderr) == (1, True)
    assert f"loopd ledger status {node.root} shows" in result.stderr
    figures = {"currency": CURRENCY, "supply": 100, "max_issuance": None, "backed_by": "EUR", "reserve": 90}
    daemon.answers["GET /api/v1/loopcoin/issuance"] = (200, figures)
    assert "supply\t100\nmax_issuance\t-\n" in run("ledger", "status", node.root).stdout


def test_a_refusal_names_the_place(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    """Of two accounts one is not known."""
    details = {"reason": "unknown_account", "pointer": "/to"}
    daemon.answers["POST /api/v1/loopcoin/transfers"] = (404, {"error": {"message": "No such.", "details": details}})
    daemon.answers["GET /api/v1/loopcoin/config"] = (200, {"@context": "c", "currency_code": CURRENCY})
    result = run("ledger", "pay", node.root, FUND, MARIA, "5")
    assert (result.exit_code, result.stderr) == (1, "loopd: No such. [unknown_account]\nloopd:   /to\n")


def test_another_key_is_registered_and_a_private_one_stays_here(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path
) -> None:
    secret, public, path = tmp_path / "maria.pem", tmp_path / "maria.pub", f"{ACCOUNTS}/{MARIA}/key"
    key = NodeKey.from_seed(bytes(32))
    secret.write_text("-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n")
    public.write_text(key.public.to_pem(), encoding="ascii")
    daemon.answers[f"POST {path}"] = (200, LINE)
    for command in (
        ("account", "key", node.root, MARIA, secret),
        ("account", "add", node.root, MARIA, "--key", secret),
    ):
        result = run("ledger", *command)
        assert (result.exit_code, f"openssl pkey -in {secret} -pubout" in result.stderr) == (2, True)
    assert daemon.requests == []
    assert run("ledger", "account", "key", node.root, MARIA, public).exit_code == 0
    assert run("ledger", "account", "key", node.root, MARIA).exit_code == 0
    bodies = [body for _, _, body in daemon.requests]
    assert bodies == [{"public_key": key.public.to_pem()}, {"public_key": None}]


@pytest.mark.parametrize("amount", ["-1", "1.005", "much"])
def test_an_amount_that_is_none_is_misuse(run: Run, node: NodeDirectory, amount: str) -> None:
    assert run("ledger", "issue", node.root, MARIA, amount).exit_code == 2
