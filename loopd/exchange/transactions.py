"""Transactions: what was sold, where it stands, and when it is paid (§8.1). A Match has at most one that stands."""

from dataclasses import dataclass
from typing import Final

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange import entity_tables as tables
from loopd.exchange.chronicle import Chronicle
from loopd.exchange.entities import Match, Sale, check_change
from loopd.exchange.ports import SettlementHooks
from loopd.exchange.received import ReceivedText
from loopd.protocol.errors import NotFound
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.transactions import TransactionStatus

# The way of a transaction that goes well; it follows its Transfer from `confirmed` to `delivered`.
_WAY: Final = (
    TransactionStatus.PENDING,
    TransactionStatus.CONFIRMED,
    TransactionStatus.IN_TRANSIT,
    TransactionStatus.DELIVERED,
    TransactionStatus.COMPLETED,
)


@dataclass(frozen=True, slots=True)
class Transactions:
    """The transactions of this node, the seller's, and what the ledger is asked at each step."""

    clock: Clock
    settlement: SettlementHooks
    chronicle: Chronicle

    def keep(self, tx: Tx, sale: Sale, text: ReceivedText, by: str) -> Sale:
        """Write a new transaction, whose money is held already."""
        tables.SALES.insert(tx, sale, text.received, text.compacted)
        sale = text.read(sale)
        self.chronicle.write(tx, sale, by)
        return sale

    def require(self, source: RowSource, transaction_id: str) -> Sale:
        """The transaction of an id; NotFound (404) `unknown_transaction`."""
        sale = tables.SALES.find(source, transaction_id)
        if sale is None:
            raise NotFound("unknown_transaction", "No such transaction is kept here.")
        return sale

    def follow(self, tx: Tx, match: Match, status: TransactionStatus, by: str, details: bytes | None = None) -> None:
        """The goods of a Match have come so far: its transaction, if one stands, goes there too."""
        sale = tables.standing_sale(tx, match.id)
        if sale is None or sale.status not in _WAY:
            return
        for step in _WAY[_WAY.index(TransactionStatus(sale.status)) + 1 : _WAY.index(status) + 1]:
            sale = self.move(tx, sale, step, by, details=details)

    def move(
        self,
        tx: Tx,
        sale: Sale,
        status: TransactionStatus,
        by: str,
        reason: str | None = None,
        details: bytes | None = None,
    ) -> Sale:
        """Take one step, and have the ledger do its part; what is delivered and wholly paid is completed at once.

        Conflict (409) `transition`, `terminal`.
        """
        check_change(MirroredEntity.TRANSACTION, sale.status, status)
        kept = sale.details if details is None else details
        moved = tables.SALES.move(tx, sale, status, reason, self.clock.now_ms(), details=kept)
        self.chronicle.write(tx, moved, by)
        if status is TransactionStatus.CANCELLED:
            self.settlement.release(tx, moved.transaction)
        elif status is TransactionStatus.DISPUTED:
            self.settlement.freeze(tx, moved.transaction)
        elif status is TransactionStatus.DELIVERED and self.settlement.post(tx, moved.transaction):
            return self.move(tx, moved, TransactionStatus.COMPLETED, by, "settled")
        return moved

    def cancel_of(self, tx: Tx, match: Match, by: str, reason: str | None) -> None:
        """A Match has ended: so has its transaction, unless it is past cancelling."""
        sale = tables.standing_sale(tx, match.id)
        if sale is not None and not sale.is_terminal:
            self.move(tx, sale, TransactionStatus.CANCELLED, by, reason)

    def settled(self, tx: Tx, transaction_id: str, by: str) -> None:
        """The ledger has paid all of a delivered transaction. Of one in another status nothing changes."""
        sale = self.require(tx, transaction_id)
        if sale.status == TransactionStatus.DELIVERED:
            self.move(tx, sale, TransactionStatus.COMPLETED, by, "settled")
