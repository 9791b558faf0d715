"""What the settlement between cities is told of bids and sales; see `loopd.ledger.clearing.ports`."""

from collections.abc import Callable

import structlog

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange.lifecycle import Lifecycle
from loopd.exchange.selection import Selecting
from loopd.exchange.tables import find_standing_bid
from loopd.ledger.clearing.ports import Consent
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import BID_STATUS_DELIVERY_MS
from loopd.protocol.transactions import TransactionStatus

# Goods that have left are not called back because the money did not come.
_CAN_BE_CALLED_OFF = frozenset({TransactionStatus.PENDING, TransactionStatus.CONFIRMED})

log = structlog.get_logger(__name__)


class MadeBids:
    """The bids that this city made at others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def consent(self, source: RowSource, owner: str, subject_id: str, buyer_account: str) -> Consent | None:
        """The newest bid for a subject of `owner` that names the account, and was neither withdrawn nor lost.

        Of one that ended so long ago that no word of its owner's can be on its way any more, none.
        """
        bid = find_standing_bid(source, subject_id, owner, buyer_account)
        if bid is None or bid.valid_until_ms + BID_STATUS_DELIVERY_MS < self._clock.now_ms():
            return None
        return Consent(bid.offer_id, bid.cost.total_minor, bid.cost.import_minor)


class PaidSales:
    """The transactions of this node, once the buyer's node has decided on their payment."""

    def __init__(self, node_id: str, lifecycle: Callable[[], Lifecycle], selecting: Callable[[], Selecting]) -> None:
        self._node_id = node_id
        self._lifecycle = lifecycle
        self._selecting = selecting

    def settled(self, tx: Tx, transaction_id: str) -> None:
        """All of it is paid: what is delivered is completed."""
        self._lifecycle().transactions.settled(tx, transaction_id, self._node_id)

    def held(self, tx: Tx, transaction_id: str) -> None:
        """The money is held, and reserved for here: the bids that lost are told."""
        self._selecting().money_held(tx, self._lifecycle().transactions.require(tx, transaction_id).match_id)

    def failed(self, tx: Tx, transaction_id: str, reason: str) -> None:
        """Nothing will be paid: the sale is cancelled, and the next bid has its turn. What has left stays sold."""
        lifecycle = self._lifecycle()
        sale = lifecycle.transactions.require(tx, transaction_id)
        if sale.status not in _CAN_BE_CALLED_OFF:
            log.warning("sale_not_paid", transaction=transaction_id, status=sale.status, reason=reason)
            self._selecting().money_held(tx, sale.match_id)
            return
        status = TransactionStatus.CANCELLED.value
        lifecycle.change_status(tx, MirroredEntity.TRANSACTION, transaction_id, status, None, {"reason": reason})
        self._selecting().money_failed(tx, sale.match_id)
