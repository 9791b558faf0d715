"""The payee's side of a settlement: it asks for the money, reserves what is prepared, and does as it is told."""

import re
from typing import Final

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.arithmetic import distribute
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.messages import (
    Name,
    Prepare,
    Request,
    fault_of_prepare,
    read_prepare,
    read_request,
    request_json,
    settlement_id,
)
from loopd.ledger.clearing.ports import Sales
from loopd.ledger.clearing.postings import Postings
from loopd.ledger.clearing.rules import (
    Ask,
    Book,
    Decision,
    Misstep,
    PayeeEvent,
    PayeeState,
    payee_decision,
    payee_opens,
    payee_step,
)
from loopd.ledger.clearing.tables import Clearance, Opening, Side
from loopd.ledger.clearing.telling import Telling
from loopd.ledger.dates import day_of
from loopd.ledger.movements import Phase
from loopd.ledger.service import Ledger
from loopd.protocol.documents import Document
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.transactions import Transaction

# A reason as the messages have it.
_WORD: Final = re.compile(r"[a-z_]{1,60}", re.ASCII)
_ASKS: Final = {
    Ask.POST: PayeeEvent.ASK_POST,
    Ask.VOID: PayeeEvent.ASK_VOID,
    Ask.FREEZE: PayeeEvent.ASK_FREEZE,
}


class PayeeSide:
    """Settlements whose seller's account is here."""

    def __init__(self, ledger: Ledger, clock: Clock, postings: Postings, sales: Sales, telling: Telling) -> None:
        self._ledger = ledger
        self._clock = clock
        self._postings = postings
        self._sales = sales
        self._telling = telling

    def request(self, tx: Tx, transaction: Transaction) -> str | None:
        """Ask the buyer's node to hold the money. None where that is queued or stands, else the reason.

        `no_credit`, `no_rate`, `unknown_account`, `reserved_account`, `bad_breakdown`, `already_posted`,
        `already_voided`.
        """
        known = self.find(tx, transaction)
        if known is not None:
            decided = payee_decision(known.payee)
            return None if decided is None else f"already_{known.state}"
        seller_account, buyer_account = transaction.seller_account or "", transaction.buyer_account or ""
        fault = self._postings.fault_of_sale(tx, seller_account, transaction.buyer)
        if fault is not None:
            return fault
        cost, terms = transaction.cost, self._ledger.terms
        if cost.export_minor > cost.base_minor:
            return "bad_breakdown"
        lines = distribute(cost.base_minor, cost.export_minor, cost.import_minor, cost.distance_minor).lines
        home = self._ledger.node.node_id
        name = Name(transaction.buyer, home, settlement_id(home, transaction.transaction_id))
        request = Request(
            name,
            transaction.transaction_id,
            transaction.kind,
            transaction.subject_id,
            buyer_account,
            seller_account,
            terms.currency_code,
            terms.backed_by,
            terms.exchange_rate,
            lines,
        )
        opened, body = payee_opens(), dump_json(request_json(request, self._ledger.node.context_url))
        opening = Opening(name, Side.PAYEE, opened.payee.state, transaction.transaction_id, request=body)
        clearance = tables.insert(tx, opening, self._clock.now_ms())
        self._telling.record(tx, clearance, clearance.state)
        self._telling.say(tx, clearance, opened.say, expects=True)
        return None

    def ask(self, tx: Tx, transaction: Transaction, ask: Ask) -> bool:
        """Ask for what the transaction has come to; whether all of it is posted already."""
        known = self.find(tx, transaction)
        if known is None:
            return False
        if payee_decision(known.payee) is None:
            self._step(tx, known, _ASKS[ask], "cancelled" if ask is Ask.VOID else None)
        return known.payee.state is PayeeState.POSTED

    def find(self, source: RowSource, transaction: Transaction) -> Clearance | None:
        """The settlement of a transaction of this node."""
        return tables.find_of_transaction(source, transaction.seller, transaction.transaction_id)

    def prepare(self, tx: Tx, name: Name, document: Document) -> None:
        """The payer's node holds the money: reserve, or refuse; either is durable before it is told."""
        known = self._require(tx, name)
        if known.payee.state is not PayeeState.REQUESTED:
            self._step(tx, known, PayeeEvent.PREPARE)
            return
        try:
            prepare: Prepare | None = read_prepare(document.value)
        except ValueError:
            prepare = None
        fault = self._fault(tx, known, prepare)
        if prepare is None or fault is not None:
            self._step(tx, known, PayeeEvent.PREPARE_UNFIT, fault)
            return
        tables.note_prepared(tx, known.number, document.received, prepare.payer_minor, prepare.payee_minor)
        self._step(tx, self._require(tx, name), PayeeEvent.PREPARE)

    def decided(self, tx: Tx, name: Name, document: Document) -> None:
        """The payer's node has decided. That what was never asked for is void changes nothing here."""
        decision = Decision(document.value["decision"])
        known = tables.find(tx, name.payer, name.id)
        if known is None:
            if decision is Decision.POST:
                raise Misstep("unknown_settlement")
            self._telling.acknowledge_unknown(tx, name)
            return
        self._step(tx, known, PayeeEvent(f"decided_{decision.value}"), document.value.get("reason"))

    def not_taken(self, tx: Tx, clearance: Clearance, reason: str) -> None:
        """The other node refuses even to hear of it: where nothing is promised yet, the sale is off."""
        if clearance.payee.state in (PayeeState.REQUESTED, PayeeState.REFUSED):
            # It becomes the sale's reason, which everybody may read.
            word = reason if _WORD.fullmatch(reason) else "not_taken"
            self._step(tx, clearance, PayeeEvent.NOT_TAKEN, word)

    def remind(self, tx: Tx, clearance: Clearance) -> None:
        """Nothing was heard for a while: ask again."""
        self._step(tx, clearance, PayeeEvent.REMIND)

    def _fault(self, tx: Tx, known: Clearance, prepare: Prepare | None) -> str | None:
        if prepare is None:
            return "bad_amount"
        request = _request_of(known)
        fault = fault_of_prepare(prepare, request, day_of(self._ledger.now(tx)))
        return fault or self._postings.fault_of_reserve(tx, request, prepare.payee_minor)

    def _require(self, tx: Tx, name: Name) -> Clearance:
        known = tables.find(tx, name.payer, name.id)
        if known is None:
            raise Misstep("unknown_settlement")
        return known

    def _step(self, tx: Tx, clearance: Clearance, event: PayeeEvent, reason: str | None = None) -> None:
        before = clearance.payee
        step = payee_step(before, event)
        self._book(tx, clearance, step.book)
        if step.payee != before:
            tables.change_payee(tx, clearance.number, step.payee, reason, self._clock.now_ms())
            clearance = self._require(tx, clearance.name)
        if step.payee.state is not before.state:
            self._telling.record(tx, clearance, clearance.state)
        self._telling.say(tx, clearance, step.say, expects=payee_decision(step.payee) is None)
        if step.payee.state is not before.state and clearance.transaction_id is not None:
            self._tell_sale(tx, clearance, clearance.transaction_id)

    def _book(self, tx: Tx, clearance: Clearance, book: Book | None) -> None:
        if book is None or clearance.prepare is None:
            return
        prepare = read_prepare(read_json(clearance.prepare))
        if book is Book.RESERVE:
            self._postings.reserve(tx, _request_of(clearance), prepare)
        else:
            self._postings.end(tx, clearance.name, Phase(book.value), prepare)

    def _tell_sale(self, tx: Tx, clearance: Clearance, transaction_id: str) -> None:
        if clearance.payee.state is PayeeState.POSTED:
            self._sales.settled(tx, transaction_id)
        elif clearance.payee.state is PayeeState.PREPARED:
            self._sales.held(tx, transaction_id)
        elif clearance.payee.state is PayeeState.VOIDED:
            self._sales.failed(tx, transaction_id, clearance.reason or "voided")


def _request_of(clearance: Clearance) -> Request:
    if clearance.request is None:
        raise RuntimeError(f"settlement {clearance.number} was never asked for")
    return read_request(read_json(clearance.request))
