"""`loopd ledger`: the city's money. What only reads opens the database itself, the daemon running or not."""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from loopd.cli.accounts import account_path
from loopd.cli.admin_client import AdminRefused, call
from loopd.cli.failure import Failure
from loopd.cli.options import CommandGroup, DecimalParameter, directory_argument, json_option, limit_option
from loopd.cli.output import print_fields, print_gap, print_json, print_table
from loopd.database.connection import check_ours, connect
from loopd.database.rows import ConnectionRows
from loopd.directory import NodeDirectory
from loopd.ledger import checks
from loopd.ledger.export import journal
from loopd.protocol.limits import LIST_LIMIT_MAX
from loopd.protocol.money import amount_json
from loopd.settings import load_settings

_ACCOUNTS = "/admin/v1/ledger/accounts"
_MONEY = DecimalParameter(2)
_BUSY_TIMEOUT_S = 5.0
_ISSUANCE = "/api/v1/loopcoin/issuance"

account_argument = click.argument("account_id", metavar="ACCOUNT")
transfer_id_option = click.option(
    "--id", "transfer_id", type=click.UUID, help="The transfer's id, to repeat a command without effect."
)


@click.group(cls=CommandGroup)
def ledger() -> None:
    """The city's currency: accounts, issuance, and books that can be checked."""


@contextmanager
def _books(directory: NodeDirectory) -> Iterator[ConnectionRows]:
    """The books of one moment, read from the file."""
    check_ours(directory.database_file)
    connection = connect(directory.database_file, busy_timeout_s=_BUSY_TIMEOUT_S, read_only=True)
    try:
        connection.execute("BEGIN")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger_entry'").fetchone() is None:
            raise Failure("the database is older than this program: start the daemon once")
        yield ConnectionRows(connection)
    except sqlite3.Error as error:
        raise Failure(f"the books cannot be read: {error}") from None
    finally:
        connection.close()


@ledger.command()
@directory_argument
@json_option
def check(directory: NodeDirectory, as_json: bool) -> None:
    """Recompute every invariant of the books from the raw entries; exit 1 if one is broken."""
    with _books(directory) as source:
        findings = checks.check(source)
    if as_json:
        print_json([{"invariant": each.invariant, "holds": each.holds, "broken": each.broken} for each in findings])
    else:
        rows = [["holds" if each.holds else "BROKEN", each.invariant, ", ".join(each.broken)] for each in findings]
        print_table(("", "invariant", "where"), rows, "")
    broken = sum(not each.holds for each in findings)
    if broken:
        raise Failure(f"{broken} of {len(findings)} invariants are broken")


@ledger.command(name="trial-balance")
@directory_argument
@json_option
def trial_balance(directory: NodeDirectory, as_json: bool) -> None:
    """Show every account's debits, credits and balance, and that each currency sums to nothing."""
    with _books(directory) as source:
        lines = checks.trial_balance(source)
    columns = ("account", "currency", "debits", "credits", "balance", "held")
    rows: list[list[Any]] = [
        [line.account, line.currency, *map(amount_json, (line.debits_minor, line.credits_minor)),
         amount_json(line.balance_minor), amount_json(line.held_minor)]
        for line in lines
    ]  # fmt: skip
    for currency in sorted({line.currency for line in lines}):
        total_minor = sum(line.balance_minor for line in lines if line.currency == currency)
        rows.append(["total", currency, None, None, amount_json(total_minor), None])
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows, "There are no accounts.")


@ledger.command()
@directory_argument
@click.argument("peer", metavar="PEER")
@json_option
def reconcile(directory: NodeDirectory, peer: str, as_json: bool) -> None:
    """Compare both cities' books of what is between them, and name the first difference; exit 1 if there is one."""
    answer = call(directory, "POST", f"/api/v1/loopcoin/clearing/{quote(peer)}/reconcile", {})
    if as_json:
        print_json(answer)
    else:
        print_fields({name: value for name, value in answer.items() if value is not None})
    if not answer["agrees"]:
        raise SystemExit(1)


@ledger.command()
@directory_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def export(directory: NodeDirectory, file: Path | None) -> None:
    """Write the books as a Beancount journal to FILE, or to standard output. It names every account: keep it safe."""
    node_id = load_settings(directory.root).node.id
    with _books(directory) as source:
        if file is None:
            for line in journal(source, node_id):
                click.echo(line)
            return
        try:
            with file.open("x", encoding="utf-8") as target:
                target.writelines(f"{line}\n" for line in journal(source, node_id))
        except OSError as error:
            raise Failure(f"{file} could not be written: {error.strerror}") from None
    click.echo(str(file))


@ledger.group()
def account() -> None:
    """Accounts of people and businesses."""


class PublicKeyParameter(click.ParamType[str]):
    """A file with a public key, as its text. A private one never leaves the command."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            text = Path(value).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value} cannot be read: {getattr(error, 'strerror', None) or 'it is no PEM'}", param, ctx)
        if "PRIVATE KEY" in text:
            self.fail(f"{value} is a private key; `openssl pkey -in {value} -pubout` gives the public one", param, ctx)
        return text


@account.command()
@directory_argument
@account_argument
@click.option("--key", "public_key", metavar="FILE", type=PublicKeyParameter(), help="Its public key, Ed25519, PEM.")
@json_option
def add(directory: NodeDirectory, account_id: str, public_key: str | None, as_json: bool) -> None:
    """Open ACCOUNT, such as user:maria@munich.loop. With a key its holder signs; without, a token pays."""
    body = {"id": account_id}
    if public_key is not None:
        body["public_key"] = public_key
    answer = call(directory, "POST", _ACCOUNTS, body)
    print_json(answer) if as_json else print_fields(answer)


@account.command()
@directory_argument
@account_argument
@click.argument("public_key", metavar="[FILE]", required=False, type=PublicKeyParameter())
@json_option
def key(directory: NodeDirectory, account_id: str, public_key: str | None, as_json: bool) -> None:
    """Let the public key in FILE (Ed25519, PEM) sign for ACCOUNT from now on; without FILE none, and a token pays."""
    path = f"{_ACCOUNTS}/{quote(account_id, safe=':@')}/key"
    answer = call(directory, "POST", path, {"public_key": public_key})
    print_json(answer) if as_json else print_fields(answer)


@account.command(name="list")
@directory_argument
@json_option
def list_accounts(directory: NodeDirectory, as_json: bool) -> None:
    """List all accounts with their balances, the node's own too."""
    found: list[dict[str, Any]] = []
    path: str | None = f"{_ACCOUNTS}?limit={LIST_LIMIT_MAX}"
    while path is not None:
        page = call(directory, "GET", path)
        found += page["results"]
        path = page["next"]
    if as_json:
        print_json(found)
        return
    columns = ("id", "currency", "balance", "held", "has_key")
    print_table(columns, [[each[column] for column in columns] for each in found], "There are no accounts.")


@ledger.command()
@directory_argument
@account_argument
@click.argument("amount", type=_MONEY)
@click.option("--backing", type=_MONEY, help="What is taken into the reserve for it, in the backing currency.")
@transfer_id_option
@json_option
def issue(
    directory: NodeDirectory,
    account_id: str,
    amount: Decimal,
    backing: Decimal | None,
    transfer_id: uuid.UUID | None,
    as_json: bool,
) -> None:
    """Issue AMOUNT of LC to ACCOUNT, within max_issuance and what the reserve covers."""
    body: dict[str, Any] = {"id": str(transfer_id or uuid.uuid4()), "to": account_id, "amount": amount}
    if backing:
        body["backing"] = backing
    _show(_issuance(directory, body), as_json)


def _reserve_command(kind: str, summary: str) -> None:
    """One of the two that move the backing alone."""

    @ledger.command(kind, help=summary)
    @directory_argument
    @click.argument("amount", type=_MONEY)
    @transfer_id_option
    @json_option
    def move(directory: NodeDirectory, amount: Decimal, transfer_id: uuid.UUID | None, as_json: bool) -> None:
        body = {"id": str(transfer_id or uuid.uuid4()), "kind": kind, "backing": amount}
        _show(_issuance(directory, body), as_json)


_reserve_command("deposit", "Take AMOUNT of the backing into the reserve; no coins are issued for it.")
_reserve_command(
    "withdraw", "Take AMOUNT of the backing out of the reserve, as far as what is left covers what circulates."
)


@ledger.command()
@directory_argument
@json_option
def status(directory: NodeDirectory, as_json: bool) -> None:
    """Show what circulates, how much may, and what stands behind it: the reserve, and what peers owe."""
    answer = call(directory, "GET", _ISSUANCE)
    print_json(answer) if as_json else print_fields(answer)


@ledger.command()
@directory_argument
@click.argument("payer", metavar="FROM")
@click.argument("payee", metavar="TO")
@click.argument("amount", type=_MONEY)
@click.option("--memo", help="At most 200 characters, and no personal data.")
@transfer_id_option
@json_option
def pay(
    directory: NodeDirectory,
    payer: str,
    payee: str,
    amount: Decimal,
    memo: str | None,
    transfer_id: uuid.UUID | None,
    as_json: bool,
) -> None:
    """Pay AMOUNT of LC from one of the node's own accounts, such as node:community-fund@..., to any other.

    From a person's or a business's account only its holder pays.
    """
    config = call(directory, "GET", "/api/v1/loopcoin/config")
    body = {
        "@context": config["@context"],
        "@type": "LoopCoinTransfer",
        "id": str(transfer_id or uuid.uuid4()),
        "from": payer,
        "to": payee,
        "amount": amount,
        "currency": config["currency_code"],
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if memo is not None:
        body["memo"] = memo
    _show(call(directory, "POST", "/api/v1/loopcoin/transfers", body), as_json)


@ledger.command()
@directory_argument
@account_argument
@click.option("--at", metavar="TIME", help="The balance of a past moment alone, such as 2026-11-21T08:00:00Z.")
@json_option
def show(directory: NodeDirectory, account_id: str, at: str | None, as_json: bool) -> None:
    """Show ACCOUNT: its balance, its lots with the moment at which each loses value, and what is pending."""
    query = "" if at is None else f"?{urlencode({'at': at})}"
    answer = call(directory, "GET", f"{account_path(account_id)}{query}")
    if as_json:
        print_json(answer)
        return
    if at is not None:
        print_fields({name: answer[name] for name in ("id", "currency", "balance", "at")})
        return
    print_fields({name: answer[name] for name in ("id", "currency", "balance", "held", "available")})
    # The node's own accounts have no lots.
    if "lots" in answer:
        _print_part(("issued", "amount", "held", "loses_value_at"), answer["lots"], "There are no lots.")
    if answer.get("pending"):
        _print_part(("pending", "to", "amount"), [{**each, "pending": each["id"]} for each in answer["pending"]], "")


@ledger.command()
@directory_argument
@account_argument
@limit_option
@json_option
def statement(directory: NodeDirectory, account_id: str, limit: int, as_json: bool) -> None:
    """List what was posted on ACCOUNT, the last written first. What is pending is not posted yet."""
    answer = call(directory, "GET", f"{account_path(account_id)}/statement?limit={limit}")
    if as_json:
        print_json(answer)
        return
    columns = ("at", "kind", "amount", "counterpart")
    rows = [[line.get(column) for column in columns] for line in answer["results"]]
    print_table(columns, rows, "Nothing was posted yet.")


def _print_part(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    print_gap()
    print_table(columns, [[row.get(column) for column in columns] for row in rows], empty)


def _issuance(directory: NodeDirectory, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call(directory, "POST", _ISSUANCE, body)
    except AdminRefused as refusal:
        if refusal.reason not in ("over_cap", "under_reserve"):
            raise
        hint = f"loopd ledger status {directory.root} shows what circulates, and what stands behind it"
        raise Failure(f"{refusal.message}\n  {hint}") from None
    return answer


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        shown = {name: answer[name] for name in ("id", "from", "to", "amount", "currency", "status")}
        print_fields({**shown, "amount": format(Decimal(answer["amount"]), ".2f")})
