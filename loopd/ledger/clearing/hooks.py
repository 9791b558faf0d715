"""The ledger as transactions need it, wherever the buyer's account is; see `loopd.exchange.ports.SettlementHooks`."""

from collections.abc import Mapping
from typing import Any

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.clearing.payee import PayeeSide
from loopd.ledger.clearing.rules import Ask
from loopd.ledger.clearing.views import clearance_json
from loopd.ledger.service import Ledger
from loopd.ledger.settlement import Settlements
from loopd.protocol.transactions import Transaction


class TransactionPayments:
    """Inside the city the books pay at once; of a buyer in another one, its node is asked."""

    def __init__(self, ledger: Ledger, inside: Settlements, between: PayeeSide) -> None:
        self._ledger = ledger
        self._inside = inside
        self._between = between

    def hold(self, tx: Tx, transaction: Transaction) -> str | None:
        """Hold what the buyer will pay; None where that stands, or the buyer's node is asked to.

        Else the reason: those of `Settlements.hold` and `PayeeSide.request`.
        """
        if not transaction.names_accounts or not self._crosses(transaction):
            return self._inside.hold(tx, transaction)
        return self._between.request(tx, transaction) if self._ledger.enabled else "no_ledger"

    def post(self, tx: Tx, transaction: Transaction) -> bool:
        """Pay, at delivery; whether all of it is posted now."""
        if self._crosses(transaction):
            return self._between.ask(tx, transaction, Ask.POST)
        return self._inside.post(tx, transaction)

    def release(self, tx: Tx, transaction: Transaction) -> None:
        """Give back what was held."""
        if self._crosses(transaction):
            self._between.ask(tx, transaction, Ask.VOID)
        else:
            self._inside.release(tx, transaction)

    def freeze(self, tx: Tx, transaction: Transaction) -> None:
        """Keep what was held until the dispute is resolved."""
        if self._crosses(transaction):
            self._between.ask(tx, transaction, Ask.FREEZE)
        else:
            self._inside.freeze(tx, transaction)

    def describe(self, source: RowSource, transaction: Transaction) -> Mapping[str, Any] | None:
        """What is known of the payment; None where nothing is."""
        if not self._crosses(transaction):
            return self._inside.describe(source, transaction)
        known = self._between.find(source, transaction)
        return None if known is None else clearance_json(known)

    def _crosses(self, transaction: Transaction) -> bool:
        return transaction.buyer != self._ledger.node.node_id
