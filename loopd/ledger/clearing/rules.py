"""The protocol by which two nodes settle a transaction: what each side does at what it hears; pure.

The buyer's node pays, and decides. It holds the money and sends PREPARE; the seller's node, the payee's, reserves and
answers PREPARED, and from then on neither voids nor expires by itself: it asks until it is told. Whatever is repeated,
late or out of order leads to the same end; what cannot be, in an honest run, is a Misstep and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Decision(StrEnum):
    """What the payer's node decides, once."""

    POST = "post"
    VOID = "void"


class Ask(StrEnum):
    """What the payee's node asks of the payer's, by how the transaction goes there."""

    POST = "post"
    VOID = "void"
    FREEZE = "freeze"


class PayerState(StrEnum):
    """How a settlement stands where the money comes from."""

    HELD = "held"
    PREPARED = "prepared"
    POSTED = "posted"
    VOIDED = "voided"


class PayeeState(StrEnum):
    """How it stands where the money goes."""

    REQUESTED = "requested"
    REFUSED = "refused"
    PREPARED = "prepared"
    POSTED = "posted"
    VOIDED = "voided"


class PayerEvent(StrEnum):
    """What happens to the payer's side."""

    PREPARED = "prepared"
    REFUSED = "refused"
    ASKED = "asked"
    ASKED_POST = "asked_post"
    ASKED_VOID = "asked_void"
    ASKED_FREEZE = "asked_freeze"
    ACKNOWLEDGED_POST = "acknowledged_post"
    ACKNOWLEDGED_VOID = "acknowledged_void"
    RESOLVE_POST = "resolve_post"
    RESOLVE_VOID = "resolve_void"
    TIMED_OUT = "timed_out"
    REMIND = "remind"


class PayeeEvent(StrEnum):
    """What happens to the payee's side."""

    PREPARE = "prepare"
    PREPARE_UNFIT = "prepare_unfit"
    DECIDED_POST = "decided_post"
    DECIDED_VOID = "decided_void"
    NOT_TAKEN = "not_taken"
    ASK_POST = "ask_post"
    ASK_VOID = "ask_void"
    ASK_FREEZE = "ask_freeze"
    REMIND = "remind"


class Say(StrEnum):
    """What one side tells the other; each is a document of its own."""

    REQUEST = "request"
    PREPARE = "prepare"
    PREPARED = "prepared"
    REFUSED = "refused"
    DECISION = "decision"
    ACKNOWLEDGEMENT = "acknowledgement"
    INQUIRY = "inquiry"


class Book(StrEnum):
    """What the books do in the transaction in which the state changes."""

    RESERVE = "reserve"
    POST = "post"
    VOID = "void"


# What may follow, for the tables of states; nothing follows a decision.
PAYER_MOVES: Final[Mapping[PayerState, tuple[PayerState, ...]]] = {
    PayerState.HELD: (PayerState.PREPARED, PayerState.POSTED, PayerState.VOIDED),
    PayerState.PREPARED: (PayerState.POSTED, PayerState.VOIDED),
    PayerState.POSTED: (),
    PayerState.VOIDED: (),
}
PAYEE_MOVES: Final[Mapping[PayeeState, tuple[PayeeState, ...]]] = {
    PayeeState.REQUESTED: (PayeeState.PREPARED, PayeeState.REFUSED, PayeeState.VOIDED),
    PayeeState.REFUSED: (PayeeState.VOIDED,),
    PayeeState.PREPARED: (PayeeState.POSTED, PayeeState.VOIDED),
    PayeeState.POSTED: (),
    PayeeState.VOIDED: (),
}


class Misstep(Exception):
    """What no honest peer says, or an operator may not do; `reason` is the word of the refusal."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Payer:
    """The payer's side. `wanted` is a post that was asked for before the payee's node had prepared."""

    state: PayerState
    frozen: bool = False
    wanted: bool = False
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Payee:
    """The payee's side, and what it asks for."""

    state: PayeeState
    ask: Ask | None = None


@dataclass(frozen=True, slots=True)
class PayerStep:
    """The payer's side after an event; what its books do, and what it says."""

    payer: Payer
    book: Book | None = None
    say: Say | None = None


@dataclass(frozen=True, slots=True)
class PayeeStep:
    """The payee's side after an event; what its books do, and what it says."""

    payee: Payee
    book: Book | None = None
    say: Say | None = None


_PAYER_DECIDED: Final = {PayerState.POSTED: Decision.POST, PayerState.VOIDED: Decision.VOID}
_PAYEE_DECIDED: Final = {PayeeState.POSTED: Decision.POST, PayeeState.VOIDED: Decision.VOID}
_RESOLUTIONS: Final = {PayerEvent.RESOLVE_POST: Decision.POST, PayerEvent.RESOLVE_VOID: Decision.VOID}
_ACKNOWLEDGED: Final = {PayerEvent.ACKNOWLEDGED_POST: Decision.POST, PayerEvent.ACKNOWLEDGED_VOID: Decision.VOID}
_DECIDED: Final = {PayeeEvent.DECIDED_POST: Decision.POST, PayeeEvent.DECIDED_VOID: Decision.VOID}
_ASKS: Final = {PayeeEvent.ASK_POST: Ask.POST, PayeeEvent.ASK_VOID: Ask.VOID, PayeeEvent.ASK_FREEZE: Ask.FREEZE}


def payer_decision(payer: Payer) -> Decision | None:
    """What the payer's side has decided; None as long as it may still void."""
    return _PAYER_DECIDED.get(payer.state)


def payee_decision(payee: Payee) -> Decision | None:
    """What the payee's side was told."""
    return _PAYEE_DECIDED.get(payee.state)


def payer_opens(*, held: bool) -> PayerStep:
    """A request came: the money is held, or the settlement is void from the start."""
    if held:
        return PayerStep(Payer(PayerState.HELD), say=Say.PREPARE)
    return PayerStep(Payer(PayerState.VOIDED), say=Say.DECISION)


def payer_step(payer: Payer, event: PayerEvent) -> PayerStep:
    """What the payer's side does. Misstep: `not_decided`, `other_decision`, `already_prepared`, `not_prepared`,
    `not_frozen`, `already_posted`, `already_voided`.
    """
    decided = payer_decision(payer)
    if event in _ACKNOWLEDGED:
        return _payer_acknowledged(payer, _ACKNOWLEDGED[event])
    if event in _RESOLUTIONS:
        return _payer_resolves(payer, _RESOLUTIONS[event])
    if event is PayerEvent.REFUSED and payer.state in (PayerState.PREPARED, PayerState.POSTED):
        raise Misstep("already_prepared")
    if decided is not None:
        return PayerStep(payer, say=Say.DECISION)
    if payer.state is PayerState.HELD:
        return _payer_holds(payer, event)
    return _payer_prepared(payer, event)


def payee_opens() -> PayeeStep:
    """A bid was selected: the buyer's node is asked to hold."""
    return PayeeStep(Payee(PayeeState.REQUESTED), say=Say.REQUEST)


def payee_step(payee: Payee, event: PayeeEvent) -> PayeeStep:
    """What the payee's side does. Misstep: `not_prepared`, `other_decision`."""
    if event in _DECIDED:
        return _payee_told(payee, _DECIDED[event])
    if payee_decision(payee) is not None:
        # A PREPARE that comes again finds the end; nothing is left to ask. One that comes late, for a sale that was off
        # before the other side heard of it, is told so: else that money would wait for its time to run out.
        answer = Say.ACKNOWLEDGEMENT if payee.state is PayeeState.POSTED else Say.REFUSED
        return PayeeStep(payee, say=answer if event in (PayeeEvent.PREPARE, PayeeEvent.PREPARE_UNFIT) else None)
    if event is PayeeEvent.NOT_TAKEN:
        # Where nothing is promised that ends it; there is no decision that could be acknowledged.
        promised = payee.state is PayeeState.PREPARED
        return PayeeStep(payee if promised else replace(payee, state=PayeeState.VOIDED))
    if event in _ASKS:
        return _payee_asks(payee, _ASKS[event])
    if event is PayeeEvent.REMIND:
        return PayeeStep(payee, say=Say.REQUEST if payee.state is PayeeState.REQUESTED else Say.INQUIRY)
    if payee.state is PayeeState.PREPARED:
        return PayeeStep(payee, say=Say.PREPARED)
    if payee.state is PayeeState.REFUSED or event is PayeeEvent.PREPARE_UNFIT:
        return PayeeStep(replace(payee, state=PayeeState.REFUSED), say=Say.REFUSED)
    return PayeeStep(replace(payee, state=PayeeState.PREPARED), Book.RESERVE, Say.PREPARED)


def _decide(payer: Payer, decision: Decision) -> PayerStep:
    state = PayerState.POSTED if decision is Decision.POST else PayerState.VOIDED
    return PayerStep(replace(payer, state=state, frozen=False), Book(decision.value), Say.DECISION)


def _payer_acknowledged(payer: Payer, decision: Decision) -> PayerStep:
    decided = payer_decision(payer)
    if decided is None:
        raise Misstep("not_decided")
    if decided is not decision:
        raise Misstep("other_decision")
    return PayerStep(replace(payer, acknowledged=True))


def _payer_resolves(payer: Payer, decision: Decision) -> PayerStep:
    decided = payer_decision(payer)
    if decided is decision:
        return PayerStep(payer, say=Say.DECISION)
    if decided is not None:
        raise Misstep("already_posted" if decided is Decision.POST else "already_voided")
    if not payer.frozen:
        raise Misstep("not_frozen")
    if decision is Decision.POST and payer.state is not PayerState.PREPARED:
        raise Misstep("not_prepared")
    return _decide(payer, decision)


def _payer_holds(payer: Payer, event: PayerEvent) -> PayerStep:
    if event is PayerEvent.REFUSED:
        return _decide(payer, Decision.VOID)
    if event is PayerEvent.PREPARED:
        prepared = replace(payer, state=PayerState.PREPARED)
        return _decide(prepared, Decision.POST) if payer.wanted and not payer.frozen else PayerStep(prepared)
    if event in (PayerEvent.ASKED_VOID, PayerEvent.TIMED_OUT) and not payer.frozen:
        return _decide(payer, Decision.VOID)
    if event is PayerEvent.ASKED_POST:
        return PayerStep(replace(payer, wanted=True), say=Say.PREPARE)
    if event is PayerEvent.ASKED_FREEZE:
        return PayerStep(replace(payer, frozen=True), say=Say.PREPARE)
    return PayerStep(payer, say=Say.PREPARE)


def _payer_prepared(payer: Payer, event: PayerEvent) -> PayerStep:
    if event is PayerEvent.ASKED_FREEZE:
        return PayerStep(replace(payer, frozen=True))
    if event is PayerEvent.ASKED_POST and not payer.frozen:
        return _decide(payer, Decision.POST)
    if event is PayerEvent.ASKED_VOID and not payer.frozen:
        return _decide(payer, Decision.VOID)
    return PayerStep(payer)


def _payee_told(payee: Payee, decision: Decision) -> PayeeStep:
    told = payee_decision(payee)
    if told is decision:
        return PayeeStep(payee, say=Say.ACKNOWLEDGEMENT)
    if told is not None:
        raise Misstep("other_decision")
    reserved = payee.state is PayeeState.PREPARED
    if decision is Decision.POST and not reserved:
        raise Misstep("not_prepared")
    state = PayeeState.POSTED if decision is Decision.POST else PayeeState.VOIDED
    return PayeeStep(replace(payee, state=state), Book(decision.value) if reserved else None, Say.ACKNOWLEDGEMENT)


def _payee_asks(payee: Payee, ask: Ask) -> PayeeStep:
    asking = payee if payee.ask is Ask.FREEZE else replace(payee, ask=ask)
    if payee.state is PayeeState.REQUESTED and ask is Ask.VOID:
        # It has promised nothing yet, and will not any more.
        return PayeeStep(replace(asking, state=PayeeState.REFUSED), say=Say.INQUIRY)
    # Whoever is asked about what it has not heard of decides void: until it has answered, the request comes first.
    return PayeeStep(asking, say=Say.REQUEST if payee.state is PayeeState.REQUESTED else Say.INQUIRY)
