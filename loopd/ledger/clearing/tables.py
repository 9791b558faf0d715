"""The SQL of settlements with other nodes."""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.clearing.messages import Name
from loopd.ledger.clearing.rules import Ask, Payee, PayeeState, Payer, PayerState

# The other node of a row, as the index of the settlements with a peer has it.
PEER: Final = "CASE side WHEN 'payer' THEN payee_node ELSE payer_node END"


class Side(StrEnum):
    """Which side of a settlement this node is."""

    PAYER = "payer"
    PAYEE = "payee"


@dataclass(frozen=True, slots=True)
class Clearance:
    """A settlement as this node keeps it. `request` and `prepare` are the documents as they were sent."""

    number: int
    name: Name
    side: Side
    state: str
    transaction_id: str | None
    frozen: bool
    wanted: bool
    acknowledged: bool
    ask: Ask | None
    reason: str | None
    bid: str | None
    request: bytes | None
    prepare: bytes | None
    payer_minor: int
    payee_minor: int
    opened_at_ms: int
    changed_at_ms: int
    reminders: int

    @property
    def peer(self) -> str:
        """The other node."""
        return self.name.payee if self.side is Side.PAYER else self.name.payer

    @property
    def is_frozen(self) -> bool:
        """Whether a dispute keeps it from ending, as far as this side knows."""
        return self.frozen or (self.ask is Ask.FREEZE and self.state not in (PayeeState.POSTED, PayeeState.VOIDED))

    @property
    def payer(self) -> Payer:
        """This side as the rules see it, where it is the payer's."""
        return Payer(PayerState(self.state), self.frozen, self.wanted, self.acknowledged)

    @property
    def payee(self) -> Payee:
        """This side as the rules see it, where it is the payee's."""
        return Payee(PayeeState(self.state), self.ask)


@dataclass(frozen=True, slots=True)
class Opening:
    """A settlement that this node hears of for the first time; see `Clearance`."""

    name: Name
    side: Side
    state: str
    transaction_id: str
    reason: str | None = None
    bid: str | None = None
    request: bytes | None = None
    prepare: bytes | None = None
    payer_minor: int = 0
    payee_minor: int = 0


def find(source: RowSource, payer_node: str, settlement_id: str) -> Clearance | None:
    """The settlement of a payer's node and an id."""
    row = source.one("SELECT * FROM clearing_settlement WHERE payer_node = ? AND id = ?", (payer_node, settlement_id))
    return None if row is None else clearance_of(row)


def find_of_transaction(source: RowSource, payee_node: str, transaction_id: str) -> Clearance | None:
    """The settlement of a transaction, which its payee's node keeps."""
    row = source.one(
        "SELECT * FROM clearing_settlement WHERE payee_node = ? AND transaction_id = ?", (payee_node, transaction_id)
    )
    return None if row is None else clearance_of(row)


def find_by_number(source: RowSource, number: int) -> Clearance | None:
    """The settlement of an own number."""
    row = source.one("SELECT * FROM clearing_settlement WHERE number = ?", (number,))
    return None if row is None else clearance_of(row)


def find_between(source: RowSource, nodes: tuple[str, str], settlement_id: str) -> Clearance | None:
    """The settlement of an id between two nodes, whichever of them pays."""
    for payer, payee in (nodes, nodes[::-1]):
        known = find(source, payer, settlement_id.lower())
        if known is not None and known.name.payee == payee:
            return known
    return None


def is_bid_used(source: RowSource, payee_node: str, bid: str) -> bool:
    """Whether the money for a bid is held or paid already."""
    row = source.one(
        "SELECT 1 FROM clearing_settlement WHERE payee_node = ? AND bid = ? AND state <> 'voided'", (payee_node, bid)
    )
    return row is not None


def is_void_often(source: RowSource, peer: str, since_ms: int, limit: int) -> bool:
    """Whether that many settlements of a peer's, for which nothing was ever held here, began since a moment."""
    row = source.one(
        f"SELECT opened_at_ms FROM clearing_settlement WHERE {PEER} = ? AND side = 'payer' AND prepare IS NULL "
        "ORDER BY number DESC LIMIT 1 OFFSET ?",
        (peer, limit - 1),
    )
    return row is not None and row["opened_at_ms"] > since_ms


def insert(tx: Tx, opening: Opening, at_ms: int) -> Clearance:
    """Keep a new settlement."""
    name = opening.name
    tx.execute(
        "INSERT INTO clearing_settlement (payer_node, id, payee_node, side, state, transaction_id, reason, bid, "
        "request, prepare, payer_minor, payee_minor, opened_at_ms, changed_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name.payer,
            name.id,
            name.payee,
            opening.side,
            opening.state,
            opening.transaction_id,
            opening.reason,
            opening.bid,
            opening.request,
            opening.prepare,
            opening.payer_minor,
            opening.payee_minor,
            at_ms,
            at_ms,
        ),
    )
    kept = find(tx, name.payer, name.id)
    if kept is None:
        raise RuntimeError("an inserted settlement is not there")
    return kept


def change_payer(tx: Tx, number: int, payer: Payer, reason: str | None, at_ms: int) -> None:
    """The payer's side stands otherwise now."""
    tx.execute(
        "UPDATE clearing_settlement SET state = ?, frozen = ?, wanted = ?, acknowledged = ?, "
        "reason = coalesce(?, reason), changed_at_ms = ?, reminders = 0 WHERE number = ?",
        (payer.state, payer.frozen, payer.wanted, payer.acknowledged, reason, at_ms, number),
    )


def change_payee(tx: Tx, number: int, payee: Payee, reason: str | None, at_ms: int) -> None:
    """The payee's side stands otherwise now."""
    tx.execute(
        "UPDATE clearing_settlement SET state = ?, ask = ?, reason = coalesce(?, reason), changed_at_ms = ?, "
        "reminders = 0 WHERE number = ?",
        (payee.state, payee.ask, reason, at_ms, number),
    )


def note_prepared(tx: Tx, number: int, prepare: bytes, payer_minor: int, payee_minor: int) -> None:
    """What the payee's node has reserved for."""
    tx.execute(
        "UPDATE clearing_settlement SET prepare = ?, payer_minor = ?, payee_minor = ? WHERE number = ?",
        (prepare, payer_minor, payee_minor, number),
    )


def remind_at(tx: Tx, number: int, at_ms: int | None, reminders: int) -> None:
    """When the other side is told or asked again; None where there is nothing to."""
    tx.execute(
        "UPDATE clearing_settlement SET remind_at_ms = ?, reminders = ? WHERE number = ?", (at_ms, reminders, number)
    )


def due(source: RowSource, now_ms: int, limit: int) -> list[Clearance]:
    """The settlements of which the other side is to be reminded, those that waited longest first."""
    rows = source.all(
        "SELECT * FROM clearing_settlement WHERE remind_at_ms <= ? ORDER BY remind_at_ms LIMIT ?", (now_ms, limit)
    )
    return [clearance_of(row) for row in rows]


def find_due(source: RowSource, number: int, now_ms: int) -> Clearance | None:
    """The settlement of an own number, if it is one of those."""
    row = source.one("SELECT * FROM clearing_settlement WHERE number = ? AND remind_at_ms <= ?", (number, now_ms))
    return None if row is None else clearance_of(row)


def page(source: RowSource, peer: str, before: int | None, limit: int) -> list[Clearance]:
    """The settlements with a peer, the newest first."""
    rows = source.all(
        f"SELECT * FROM clearing_settlement WHERE {PEER} = :peer AND number < :before "
        "ORDER BY number DESC LIMIT :limit",
        {"peer": peer, "before": 2**63 - 1 if before is None else before, "limit": limit},
    )
    return [clearance_of(row) for row in rows]


def clearance_of(row: sqlite3.Row) -> Clearance:
    """A row of the table."""
    return Clearance(
        row["number"],
        Name(row["payer_node"], row["payee_node"], row["id"]),
        Side(row["side"]),
        row["state"],
        row["transaction_id"],
        bool(row["frozen"]),
        bool(row["wanted"]),
        bool(row["acknowledged"]),
        None if row["ask"] is None else Ask(row["ask"]),
        row["reason"],
        row["bid"],
        row["request"],
        row["prepare"],
        row["payer_minor"],
        row["payee_minor"],
        row["opened_at_ms"],
        row["changed_at_ms"],
        row["reminders"],
    )
