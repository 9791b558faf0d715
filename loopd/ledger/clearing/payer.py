"""The payer's side of a settlement: it holds the money of its buyer, and decides."""

from typing import Final

from loopd.clock import Clock
from loopd.database.writer import Tx
from loopd.ledger.arithmetic import Line
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.messages import Name, Request, prepare_json, read_request, settlement_id
from loopd.ledger.clearing.ports import Bids
from loopd.ledger.clearing.postings import Postings
from loopd.ledger.clearing.rules import (
    Ask,
    Book,
    Decision,
    Misstep,
    PayerEvent,
    PayerState,
    PayerStep,
    payer_decision,
    payer_opens,
    payer_step,
)
from loopd.ledger.clearing.tables import Clearance, Opening, Side
from loopd.ledger.clearing.telling import Telling
from loopd.ledger.dates import DAY_MS
from loopd.ledger.movements import Phase
from loopd.ledger.service import Ledger
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, Unavailable
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import SETTLEMENT_PREPARE_MS, SETTLEMENTS_VOID_PER_PEER_PER_DAY_MAX

_ASKED: Final = {
    Ask.POST: PayerEvent.ASKED_POST,
    Ask.VOID: PayerEvent.ASKED_VOID,
    Ask.FREEZE: PayerEvent.ASKED_FREEZE,
}


class PayerSide:
    """Settlements whose buyer's account is here."""

    def __init__(self, ledger: Ledger, clock: Clock, postings: Postings, bids: Bids, telling: Telling) -> None:
        self._ledger = ledger
        self._clock = clock
        self._postings = postings
        self._bids = bids
        self._telling = telling

    def settles_with(self, tx: Tx, peer: str) -> bool:
        """Whether there is a clearing account for a peer."""
        return self._postings.clearing_account(tx, peer) is not None

    def requested(self, tx: Tx, name: Name, document: Document) -> None:
        """A bid of this city was selected: hold the money, or say why not.

        Conflict (409) `other_content`; Invalid (400) `bad_id`, `bad_amount`, `not_counterpart`; Unavailable (503)
        `too_many_settlements`.
        """
        known = self._find(tx, name)
        if known is not None:
            if known.request is not None and known.request != document.received:
                raise Conflict("other_content", "This settlement was asked for with other content.")
            self._step(tx, known, PayerEvent.ASKED)
            return
        _check_id(name, document)
        try:
            request = read_request(document.value)
        except ValueError:
            raise Invalid("bad_amount", "An amount has at most two decimals.", {"pointer": "/lines"}) from None
        self._open(tx, request, document.received)

    def answered(self, tx: Tx, name: Name, document: Document) -> None:
        """The payee's node has reserved, or will not."""
        event = PayerEvent(document.value["answer"])
        self._step(tx, self._require(tx, name), event, document.value.get("reason"))

    def inquired(self, tx: Tx, name: Name, document: Document) -> None:
        """The payee's node asks. What this one never heard of is void from now on.

        Invalid (400) `bad_id`; Unavailable (503) `too_many_settlements`.
        """
        known = self._find(tx, name)
        if known is None:
            _check_id(name, document)
            opened, transaction_id = payer_opens(held=False), document.value["transaction"]
            opening = Opening(name, Side.PAYER, opened.payer.state, transaction_id, reason="unknown")
            self._keep(tx, opening, opened)
            return
        asks = document.value.get("asks")
        event = PayerEvent.ASKED if asks is None else _ASKED[Ask(asks)]
        self._step(tx, known, event, document.value.get("reason"))

    def acknowledged(self, tx: Tx, name: Name, document: Document) -> None:
        """The payee's node has carried a decision out."""
        self._step(tx, self._require(tx, name), PayerEvent(f"acknowledged_{document.value['decision']}"))

    def resolve(self, tx: Tx, clearance: Clearance, decision: Decision) -> None:
        """End a dispute. Misstep as the rules say."""
        self._step(tx, clearance, PayerEvent(f"resolve_{decision.value}"), "resolved")

    def remind(self, tx: Tx, clearance: Clearance) -> None:
        """Nothing was heard for a while: say it again, or give the money back."""
        waited_ms = self._clock.now_ms() - clearance.opened_at_ms
        late = clearance.payer.state is PayerState.HELD and waited_ms >= SETTLEMENT_PREPARE_MS
        if late and not clearance.frozen:
            self._step(tx, clearance, PayerEvent.TIMED_OUT, "timed_out")
            return
        self._step(tx, clearance, PayerEvent.REMIND)

    def _open(self, tx: Tx, request: Request, received: bytes) -> None:
        bid, fault = self._consent(tx, request)
        fault = fault or self._postings.fault_of_hold(tx, request)
        opened = payer_opens(held=fault is None)
        prepare, payer_minor, payee_minor = None, 0, 0
        if fault is None:
            held = self._postings.hold(tx, request)
            payer_minor, payee_minor = held.payer_minor, held.payee_minor
            prepare = dump_json(prepare_json(held, self._ledger.node.context_url))
        opening = Opening(
            request.name,
            Side.PAYER,
            opened.payer.state,
            request.transaction_id,
            reason=fault,
            bid=bid,
            request=received,
            prepare=prepare,
            payer_minor=payer_minor,
            payee_minor=payee_minor,
        )
        self._keep(tx, opening, opened)

    def _keep(self, tx: Tx, opening: Opening, opened: PayerStep) -> None:
        holds, now_ms = opened.payer.state is PayerState.HELD, self._clock.now_ms()
        peer, since_ms = opening.name.payee, now_ms - DAY_MS
        if not holds and tables.is_void_often(tx, peer, since_ms, SETTLEMENTS_VOID_PER_PEER_PER_DAY_MAX):
            message = "This node holds nothing for so many of that node's settlements that no more are kept today."
            raise Unavailable("too_many_settlements", message, retry_after_s=3_600)
        clearance = tables.insert(tx, opening, now_ms)
        self._telling.record(tx, clearance, clearance.state)
        # Who did not hear that nothing is held asks again; here nothing waits for it.
        self._telling.say(tx, clearance, opened.say, expects=holds)

    def _consent(self, tx: Tx, request: Request) -> tuple[str | None, str | None]:
        """The bid that the money is for, or why there is none: `no_bid`, `bid_settled`, `above_bid`."""
        owner = request.name.payee
        consent = self._bids.consent(tx, owner, request.subject_id, request.buyer_account)
        if consent is None:
            return None, "no_bid"
        if tables.is_bid_used(tx, owner, consent.bid):
            return None, "bid_settled"
        crossing_minor = request.total_minor - request.lines[Line.BUYER_COMMUNITY]
        most_minor = consent.total_minor - consent.import_minor
        if request.total_minor > consent.total_minor or crossing_minor > most_minor:
            return None, "above_bid"
        return consent.bid, None

    def _find(self, tx: Tx, name: Name) -> Clearance | None:
        known = tables.find(tx, name.payer, name.id)
        if known is not None and known.name != name:
            raise Invalid("not_counterpart", "A settlement is told of by its two sides alone.", {"settlement": name.id})
        return known

    def _require(self, tx: Tx, name: Name) -> Clearance:
        known = self._find(tx, name)
        if known is None:
            raise Misstep("unknown_settlement")
        return known

    def _step(self, tx: Tx, clearance: Clearance, event: PayerEvent, reason: str | None = None) -> None:
        step = payer_step(clearance.payer, event)
        if step.book is not None:
            self._postings.end(tx, clearance.name, Phase(step.book.value), None)
        if step.payer != clearance.payer:
            why = reason if step.book is Book.VOID or step.payer.frozen else None
            tables.change_payer(tx, clearance.number, step.payer, why, self._clock.now_ms())
            clearance = self._require(tx, clearance.name)
            self._telling.record(tx, clearance, _event_of(clearance))
        waits = clearance.payer.state is PayerState.HELD
        decided = payer_decision(clearance.payer) is not None and not clearance.acknowledged
        self._telling.say(tx, clearance, step.say, expects=waits or decided)


def _check_id(name: Name, document: Document) -> None:
    """Only the payee's own transactions give names, so that nobody takes one that another city will need."""
    if name.id != settlement_id(name.payee, document.value["transaction"]):
        raise Invalid("bad_id", "A settlement's id follows from its payee and the transaction.", {"pointer": "/id"})


def _event_of(clearance: Clearance) -> str:
    if clearance.acknowledged:
        return "acknowledged"
    return "frozen" if clearance.frozen else clearance.state
