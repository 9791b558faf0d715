"""The SQL of transfers and their entries."""

import sqlite3
from collections.abc import Sequence

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.lots import Part
from loopd.ledger.movements import Kind, Movement, Phase, Transfer

_COLUMNS = (
    "t.number, t.id, t.kind, t.phase, t.pending, t.payer, t.payee, p.id AS payer_id, q.id AS payee_id, "
    "p.currency, t.amount_minor, t.at_ms, t.link, t.digest, t.document"
)
_TABLES = "ledger_transfer t JOIN ledger_account p ON p.number = t.payer JOIN ledger_account q ON q.number = t.payee"
_TRANSFER = f"SELECT {_COLUMNS} FROM {_TABLES}"


def find(source: RowSource, transfer_id: str) -> Transfer | None:
    """The transfer of an id."""
    row = source.one(f"{_TRANSFER} WHERE t.id = ?", (transfer_id,))
    return None if row is None else _transfer(row)


def by_number(source: RowSource, number: int) -> Transfer:
    """The transfer of a number that is referred to."""
    row = source.one(f"{_TRANSFER} WHERE t.number = ?", (number,))
    if row is None:
        raise RuntimeError(f"there is no transfer {number}")
    return _transfer(row)


def ending_of(source: RowSource, number: int) -> Transfer | None:
    """What ended a pending transfer."""
    row = source.one(f"{_TRANSFER} WHERE t.pending = ?", (number,))
    return None if row is None else _transfer(row)


def linked(source: RowSource, link: str) -> list[Transfer]:
    """What stands and falls together, in the order of the books."""
    return [_transfer(row) for row in source.all(f"{_TRANSFER} WHERE t.link = ? ORDER BY t.number", (link,))]


def insert(tx: Tx, movement: Movement, phase: Phase, pending: int | None, at_ms: int) -> Transfer:
    """Write a transfer down; gives it as it stands there."""
    cursor = tx.execute(
        "INSERT INTO ledger_transfer (id, kind, phase, pending, payer, payee, amount_minor, at_ms, link, digest, "
        "document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            movement.id,
            movement.kind,
            phase,
            pending,
            movement.payer.number,
            movement.payee.number,
            movement.amount_minor,
            at_ms,
            movement.link,
            movement.digest,
            movement.document,
        ),
    )
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted transfer has no number")
    return Transfer(
        cursor.lastrowid,
        movement.id,
        movement.kind,
        phase,
        pending,
        movement.payer.number,
        movement.payee.number,
        movement.payer.id,
        movement.payee.id,
        movement.payer.currency,
        movement.amount_minor,
        at_ms,
        movement.link,
        movement.digest,
        movement.document,
    )


def insert_entries(tx: Tx, transfer: int, account: int, parts: Sequence[Part], sign: int, at_ms: int) -> None:
    """One side of a transfer; balances, lots and closings follow by the database's triggers."""
    tx.executemany(
        "INSERT INTO ledger_entry (account, transfer, issue_day, amount_minor, at_ms) VALUES (?, ?, ?, ?, ?)",
        [(account, transfer, part.issue_day, sign * part.amount_minor, at_ms) for part in parts],
    )


def parts_of(source: RowSource, transfer: int, account: int) -> list[Part]:
    """What a transfer moved on one account, by issue day; debits are negative."""
    rows = source.all(
        "SELECT issue_day, amount_minor FROM ledger_entry WHERE account = ? AND transfer = ? ORDER BY issue_day",
        (account, transfer),
    )
    return [Part(row["issue_day"], row["amount_minor"]) for row in rows]


def statement(source: RowSource, account: int, before: int | None, limit: int) -> list[tuple[Transfer, int]]:
    """An account's posted transfers with what each moved on it, the last written first."""
    rows = source.all(
        "WITH moved AS (SELECT transfer, sum(amount_minor) AS minor FROM ledger_entry WHERE account = ? "
        "AND transfer < ? GROUP BY transfer ORDER BY transfer DESC LIMIT ?) "
        f"SELECT {_COLUMNS}, moved.minor FROM {_TABLES} JOIN moved ON moved.transfer = t.number ORDER BY t.number DESC",
        (account, 2**63 - 1 if before is None else before, limit),
    )
    return [(_transfer(row), row["minor"]) for row in rows]


def _transfer(row: sqlite3.Row) -> Transfer:
    return Transfer(
        row["number"],
        row["id"],
        Kind(row["kind"]),
        Phase(row["phase"]),
        row["pending"],
        row["payer"],
        row["payee"],
        row["payer_id"],
        row["payee_id"],
        row["currency"],
        row["amount_minor"],
        row["at_ms"],
        row["link"],
        row["digest"],
        row["document"],
    )
