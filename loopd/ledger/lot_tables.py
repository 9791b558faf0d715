"""The SQL of lots and of what is held of them."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.lots import Lot, Part
from loopd.ledger.movements import Hold, HoldState
from loopd.ledger.tables import numbers

_HOLD = "SELECT transfer, payer, state, expires_at_ms FROM ledger_hold"


def lots(source: RowSource, account: int) -> list[Lot]:
    """An account's lots, the oldest first."""
    rows = source.all(
        "SELECT issue_day, amount_minor, held_minor FROM ledger_lot WHERE account = ? ORDER BY issue_day", (account,)
    )
    return [Lot(row["issue_day"], row["amount_minor"], row["held_minor"]) for row in rows]


def oldest_lots(tx: Tx, account: int, amount_minor: int) -> list[Lot]:
    """The oldest lots with coins that are not held, as many as make up an amount; all where they hold less."""
    rows = tx.execute(
        "SELECT issue_day, amount_minor, held_minor FROM ledger_lot WHERE account = ? AND amount_minor > held_minor "
        "ORDER BY issue_day",
        (account,),
    )
    found: list[Lot] = []
    # An account may hold coins of hundreds of days: read no further than is paid.
    with closing(rows):
        for row in rows:
            found.append(Lot(row["issue_day"], row["amount_minor"], row["held_minor"]))
            amount_minor -= found[-1].available_minor
            if amount_minor <= 0:
                break
    return found


def due_lots(source: RowSource, account: int, until_ms: int) -> list[tuple[Lot, int]]:
    """The lots with a boundary that may be due, and from when on it has not been charged."""
    rows = source.all(
        "SELECT issue_day, amount_minor, held_minor, due_ms FROM ledger_lot "
        "WHERE account = ? AND due_ms <= ? AND amount_minor > held_minor ORDER BY issue_day",
        (account, until_ms),
    )
    return [(Lot(row["issue_day"], row["amount_minor"], row["held_minor"]), row["due_ms"]) for row in rows]


def set_due(tx: Tx, account: int, issue_day: int, due_ms: int) -> None:
    """Set the moment from which on a lot's boundaries are still to be charged."""
    tx.execute(
        "UPDATE ledger_lot SET due_ms = ? WHERE account = ? AND issue_day = ? AND due_ms <> ?",
        (due_ms, account, issue_day, due_ms),
    )


def look_again(tx: Tx, from_ms: int) -> None:
    """Other terms hold from a moment on: boundaries may lie where none was expected."""
    tx.execute("UPDATE ledger_lot SET due_ms = ? WHERE due_ms > ?", (from_ms, from_ms))


def hold_part(tx: Tx, account: int, part: Part, sign: int) -> None:
    """Reserve a part of a lot, or free it with a sign of -1."""
    tx.execute(
        "UPDATE ledger_lot SET held_minor = held_minor + ? WHERE account = ? AND issue_day = ?",
        (sign * part.amount_minor, account, part.issue_day),
    )


def insert_hold(tx: Tx, hold: Hold, parts: Sequence[Part]) -> None:
    """What is pending, and which coins it holds."""
    tx.execute(
        "INSERT INTO ledger_hold (transfer, payer, expires_at_ms) VALUES (?, ?, ?)",
        (hold.transfer, hold.payer, hold.expires_at_ms),
    )
    tx.executemany(
        "INSERT INTO ledger_hold_lot (hold, issue_day, amount_minor) VALUES (?, ?, ?)",
        [(hold.transfer, part.issue_day, part.amount_minor) for part in parts],
    )


def end_hold(tx: Tx, transfer: int, state: HoldState) -> None:
    """A pending transfer ends, once."""
    tx.execute("UPDATE ledger_hold SET state = ? WHERE transfer = ?", (state, transfer))


def hold_of(source: RowSource, transfer: int) -> Hold | None:
    """How a pending transfer stands; None for one that never was pending."""
    row = source.one(f"{_HOLD} WHERE transfer = ?", (transfer,))
    return None if row is None else _hold(row)


def held_parts(source: RowSource, transfer: int) -> list[Part]:
    """The coins that a pending transfer holds."""
    rows = source.all(
        "SELECT issue_day, amount_minor FROM ledger_hold_lot WHERE hold = ? ORDER BY issue_day", (transfer,)
    )
    return [Part(row["issue_day"], row["amount_minor"]) for row in rows]


def expiring(source: RowSource, account: int, until_ms: int) -> list[Hold]:
    """An account's pending transfers that have expired by a moment, in the order of their ends."""
    rows = source.all(
        f"{_HOLD} WHERE payer = ? AND state = 'pending' AND expires_at_ms <= ? ORDER BY expires_at_ms, transfer",
        (account, until_ms),
    )
    return [_hold(row) for row in rows]


def pending_of(source: RowSource, account: int, limit: int) -> list[int]:
    """The newest pending transfers of a payer, by number."""
    return numbers(
        source.all(
            "SELECT transfer FROM ledger_hold WHERE payer = ? AND state = 'pending' ORDER BY transfer DESC LIMIT ?",
            (account, limit),
        )
    )


def count_pending(source: RowSource, account: int, limit: int) -> int:
    """How many pending transfers a payer has, counted up to a limit."""
    row = source.one(
        "SELECT count(*) AS count FROM (SELECT 1 FROM ledger_hold WHERE payer = ? AND state = 'pending' LIMIT ?)",
        (account, limit),
    )
    return 0 if row is None else int(row["count"])


def due_accounts(source: RowSource, until_ms: int, limit: int) -> list[int]:
    """Accounts on which something is due, those that waited longest first.

    At most `limit` lots and `limit` holds are read for it: when a whole city ages at once, that is a part of it.
    """
    rows = source.all(
        "SELECT account FROM (SELECT account, due_ms FROM (SELECT account, due_ms FROM ledger_lot "
        "WHERE due_ms <= :until AND amount_minor > held_minor ORDER BY due_ms LIMIT :limit) UNION ALL "
        "SELECT payer, expires_at_ms FROM (SELECT payer, expires_at_ms FROM ledger_hold WHERE state = 'pending' "
        "AND expires_at_ms IS NOT NULL AND expires_at_ms <= :until ORDER BY expires_at_ms LIMIT :limit)) "
        "GROUP BY account ORDER BY min(due_ms), account",
        {"until": until_ms, "limit": limit},
    )
    return numbers(rows)


def is_much_due(source: RowSource, until_ms: int, limit: int) -> bool:
    """Whether so many lots or so many holds are due that `due_accounts` may not give all of their accounts."""
    row = source.one(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM ledger_lot WHERE due_ms <= :until AND amount_minor > held_minor "
        "LIMIT :limit)) AS lots, (SELECT count(*) FROM (SELECT 1 FROM ledger_hold WHERE state = 'pending' "
        "AND expires_at_ms IS NOT NULL AND expires_at_ms <= :until LIMIT :limit)) AS holds",
        {"until": until_ms, "limit": limit},
    )
    return row is not None and max(row["lots"], row["holds"]) >= limit


def is_due(source: RowSource, account: int, until_ms: int) -> bool:
    """Whether anything may be due on an account."""
    row = source.one(
        "SELECT 1 FROM ledger_lot WHERE account = ? AND due_ms <= ? AND amount_minor > held_minor UNION ALL "
        "SELECT 1 FROM ledger_hold WHERE payer = ? AND state = 'pending' AND expires_at_ms <= ? LIMIT 1",
        (account, until_ms, account, until_ms),
    )
    return row is not None


def _hold(row: sqlite3.Row) -> Hold:
    return Hold(row["transfer"], row["payer"], HoldState(row["state"]), row["expires_at_ms"])
