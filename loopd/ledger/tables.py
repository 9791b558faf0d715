"""The SQL of accounts, terms, the ledger's time, and past balances."""

import sqlite3
from collections.abc import Sequence
from decimal import Decimal

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.accounts import Role
from loopd.ledger.dates import DAY_MS
from loopd.ledger.movements import Account
from loopd.ledger.terms import ExpiryPolicy, Terms, Version

_ACCOUNT = "SELECT number, id, currency, role, public_key, opened_at_ms, balance_minor, held_minor FROM ledger_account"


def find_account(source: RowSource, account_id: str, currency: str) -> Account | None:
    """The account of an id in one currency."""
    row = source.one(f"{_ACCOUNT} WHERE id = ? AND currency = ?", (account_id, currency))
    return None if row is None else _account(row)


def account_by_number(source: RowSource, number: int) -> Account:
    """The account of a number that is referred to."""
    row = source.one(f"{_ACCOUNT} WHERE number = ?", (number,))
    if row is None:
        raise RuntimeError(f"there is no account {number}")
    return _account(row)


def accounts_page(source: RowSource, after: int, limit: int) -> list[Account]:
    """Accounts in the order in which they were opened, from a number on."""
    return [_account(row) for row in source.all(f"{_ACCOUNT} WHERE number > ? ORDER BY number LIMIT ?", (after, limit))]


def accounts_of_role(source: RowSource, role: Role, currency: str) -> list[Account]:
    """All accounts of a role; for the node's own, of which there are few."""
    return [_account(row) for row in source.all(f"{_ACCOUNT} WHERE role = ? AND currency = ?", (role, currency))]


def insert_account(
    tx: Tx, account_id: str, currency: str, role: Role, public_key: str | None, opened_at_ms: int
) -> None:
    """Open an account."""
    tx.execute(
        "INSERT INTO ledger_account (id, currency, role, public_key, opened_at_ms) VALUES (?, ?, ?, ?, ?)",
        (account_id, currency, role, public_key, opened_at_ms),
    )


def set_public_key(tx: Tx, number: int, public_key: str | None) -> None:
    """Register another key for an account, or none."""
    tx.execute("UPDATE ledger_account SET public_key = ? WHERE number = ?", (public_key, number))


def hold_funds(tx: Tx, number: int, amount_minor: int) -> None:
    """Reserve so much of an account's balance, or free it where the amount is negative."""
    tx.execute("UPDATE ledger_account SET held_minor = held_minor + ? WHERE number = ?", (amount_minor, number))


def balance_at(source: RowSource, account: int, moment_ms: int) -> int:
    """The balance as of a moment, what is dated at it included: a day's closing, and what that day brought."""
    day = moment_ms // DAY_MS
    row = source.one(
        "SELECT balance_minor FROM ledger_closing WHERE account = ? AND day < ? ORDER BY day DESC LIMIT 1",
        (account, day),
    )
    moved = source.one(
        "SELECT coalesce(sum(amount_minor), 0) AS minor FROM ledger_entry WHERE account = ? AND at_ms BETWEEN ? AND ?",
        (account, day * DAY_MS, moment_ms),
    )
    return (0 if row is None else int(row["balance_minor"])) + (0 if moved is None else int(moved["minor"]))


def terms_versions(source: RowSource) -> list[Version]:
    """All versions of the terms, oldest first."""
    rows = source.all("SELECT * FROM ledger_terms ORDER BY valid_from_ms")
    return [Version(row["valid_from_ms"], _terms(row)) for row in rows]


def insert_terms(tx: Tx, version: Version) -> None:
    """Another version of the terms."""
    terms = version.terms
    tx.execute(
        "INSERT INTO ledger_terms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            version.valid_from_ms,
            terms.currency_code,
            terms.backed_by,
            str(terms.exchange_rate),
            str(terms.local_bonus),
            terms.expiry_months,
            str(terms.decay_rate),
            terms.max_issuance_minor,
            str(terms.reserve_ratio),
            terms.expiry_policy,
        ),
    )


def ledger_time(source: RowSource) -> int:
    """The newest moment at which anything was done."""
    row = source.one("SELECT at_ms FROM ledger_time")
    return 0 if row is None else int(row["at_ms"])


def set_ledger_time(tx: Tx, at_ms: int) -> None:
    """Move the ledger's time on."""
    tx.execute(
        "INSERT INTO ledger_time (one, at_ms) VALUES (1, ?) ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms", (at_ms,)
    )


def numbers(rows: Sequence[sqlite3.Row]) -> list[int]:
    """The first column of rows of account or transfer numbers."""
    return [int(row[0]) for row in rows]


def _account(row: sqlite3.Row) -> Account:
    return Account(
        row["number"],
        row["id"],
        row["currency"],
        Role(row["role"]),
        row["public_key"],
        row["opened_at_ms"],
        row["balance_minor"],
        row["held_minor"],
    )


def _terms(row: sqlite3.Row) -> Terms:
    return Terms(
        row["currency_code"],
        row["backed_by"],
        Decimal(row["exchange_rate"]),
        Decimal(row["local_bonus"]),
        row["expiry_months"],
        Decimal(row["decay_rate"]),
        row["max_issuance_minor"],
        Decimal(row["reserve_ratio"]),
        ExpiryPolicy(row["expiry_policy"]),
    )
