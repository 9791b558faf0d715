"""Settlements with other nodes as one: both sides of them, and the hooks by which transactions are paid."""

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.ledger.clearing.hooks import TransactionPayments
from loopd.ledger.clearing.payee import PayeeSide
from loopd.ledger.clearing.payer import PayerSide
from loopd.ledger.clearing.ports import Bids, Outbox, Sales
from loopd.ledger.clearing.postings import Postings
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.clearing.telling import Telling
from loopd.ledger.ports import Events
from loopd.ledger.service import Ledger
from loopd.ledger.settlement import Settlements


class ClearingRoom:
    """`clearing` is the door for other nodes and the operator, `payments` that for transactions."""

    def __init__(
        self,
        ledger: Ledger,
        inside: Settlements,
        clock: Clock,
        audit: AuditLog,
        events: Events,
        outbox: Outbox,
        bids: Bids,
        sales: Sales,
    ) -> None:
        postings = Postings(ledger)
        telling = Telling(ledger.node, clock, audit, events, outbox)
        payee = PayeeSide(ledger, clock, postings, sales, telling)
        self.clearing = Clearing(ledger, clock, PayerSide(ledger, clock, postings, bids, telling), payee)
        self.payments = TransactionPayments(ledger, inside, payee)
