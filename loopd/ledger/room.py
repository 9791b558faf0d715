"""The room as one: the books, what of them comes due, and payments inside the city and between cities."""

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.database import Database, Tx
from loopd.due import DueTimer
from loopd.ledger.clearing.ports import Bids, Outbox, Sales
from loopd.ledger.clearing.room import ClearingRoom
from loopd.ledger.due import DueTime
from loopd.ledger.netting.ports import NodeKeys
from loopd.ledger.netting.room import make_netting
from loopd.ledger.ports import Events, HomeNode
from loopd.ledger.reconciliation.ports import StatementReads
from loopd.ledger.reconciliation.service import Reconciling
from loopd.ledger.service import Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.settlement import Settlements


class LedgerRoom:
    """Everything of a node's ledger over one database. `begin` before anybody calls, then `start` to `stop`.

    `books` is the ledger, `settlements` pays inside the city, `clearing` between cities; `payments` is how
    transactions ask for either. `netting` discharges what lies between cities.
    """

    def __init__(
        self,
        node: HomeNode,
        settings: LedgerSettings,
        database: Database,
        audit: AuditLog,
        events: Events,
        clock: Clock,
        outbox: Outbox,
        bids: Bids,
        sales: Sales,
        reads: StatementReads,
        keys: NodeKeys,
    ) -> None:
        self._database = database
        self.books = Ledger(node, settings, audit, clock, events)
        self.settlements = Settlements(self.books, audit, events)
        between = ClearingRoom(self.books, self.settlements, clock, audit, events, outbox, bids, sales)
        self.clearing, self.payments = between.clearing, between.payments
        self.reconciling = Reconciling(node.node_id, self.clearing, database, reads)
        self._due = DueTime(self.books, database, clock)
        self.netting = make_netting(self.books, self.clearing, clock, keys, audit, events, outbox)
        self._between = DueTimer("clearing-timer", [self.clearing, self.netting], database, clock)

    async def begin(self) -> None:
        """Make the books what the settings say; see `Ledger.begin`."""
        await self._database.write(self.books.begin)

    async def start(self) -> None:
        """Charge what comes due, propose runs, and tell other nodes again what they have not answered."""
        self._due.start()
        await self._between.start()

    async def stop(self) -> None:
        """End the work in the background."""
        await self._due.stop()
        await self._between.stop()

    def request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """Tell whoever queued a request how it was answered; each knows its own by the reference."""
        self.clearing.request_answered(tx, reference, status, reason)
        self.netting.request_answered(reference, status, reason)
