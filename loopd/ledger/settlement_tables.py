"""The SQL of settlements."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.arithmetic import Line


class SettlementState(StrEnum):
    """How a transaction's payment stands."""

    HELD = "held"
    FROZEN = "frozen"
    POSTED = "posted"
    VOIDED = "voided"


# What may follow; from a dispute only its resolution.
SETTLEMENT_MOVES: Final[Mapping[SettlementState, tuple[SettlementState, ...]]] = {
    SettlementState.HELD: (SettlementState.POSTED, SettlementState.VOIDED, SettlementState.FROZEN),
    SettlementState.FROZEN: (SettlementState.POSTED, SettlementState.VOIDED),
    SettlementState.POSTED: (),
    SettlementState.VOIDED: (),
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """A transaction's payment, in hundredths."""

    seller_node: str
    transaction_id: str
    state: SettlementState
    buyer_node: str
    subject: str
    payer: str
    total_minor: int
    lines: Mapping[Line, int]
    link: str
    bonus_minor: int
    bonus_due_minor: int
    held_at_ms: int
    ended_at_ms: int | None


def find(source: RowSource, seller_node: str, transaction_id: str) -> Settlement | None:
    """The settlement of a transaction."""
    row = source.one(
        "SELECT * FROM ledger_settlement WHERE seller_node = ? AND transaction_id = ?", (seller_node, transaction_id)
    )
    return None if row is None else _settlement(row)


def insert(tx: Tx, settlement: Settlement) -> None:
    """A new settlement."""
    tx.execute(
        "INSERT INTO ledger_settlement VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            settlement.seller_node,
            settlement.transaction_id,
            settlement.state,
            settlement.buyer_node,
            settlement.subject,
            settlement.payer,
            settlement.total_minor,
            json.dumps({line.value: minor for line, minor in settlement.lines.items()}),
            settlement.link,
            settlement.bonus_minor,
            settlement.bonus_due_minor,
            settlement.held_at_ms,
            settlement.ended_at_ms,
        ),
    )


def change_state(tx: Tx, settlement: Settlement, state: SettlementState, ended_at_ms: int | None) -> None:
    """The settlement stands otherwise now. RuntimeError where that may not follow."""
    if state not in SETTLEMENT_MOVES[settlement.state]:
        raise RuntimeError(f"a settlement does not go from {settlement.state} to {state}")
    tx.execute(
        "UPDATE ledger_settlement SET state = ?, ended_at_ms = ? WHERE seller_node = ? AND transaction_id = ?",
        (state, ended_at_ms, settlement.seller_node, settlement.transaction_id),
    )


def note_bonus(tx: Tx, settlement: Settlement, paid_minor: int, due_minor: int) -> None:
    """What the payer got, and what the rate would have given."""
    tx.execute(
        "UPDATE ledger_settlement SET bonus_minor = ?, bonus_due_minor = ? "
        "WHERE seller_node = ? AND transaction_id = ?",
        (paid_minor, due_minor, settlement.seller_node, settlement.transaction_id),
    )


def _settlement(row: sqlite3.Row) -> Settlement:
    return Settlement(
        row["seller_node"],
        row["transaction_id"],
        SettlementState(row["state"]),
        row["buyer_node"],
        row["subject"],
        row["payer"],
        row["total_minor"],
        {Line(name): minor for name, minor in json.loads(row["lines"]).items()},
        row["link"],
        row["bonus_minor"],
        row["bonus_due_minor"],
        row["held_at_ms"],
        row["ended_at_ms"],
    )
