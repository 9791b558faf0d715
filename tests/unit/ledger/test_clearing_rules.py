"""The settlement's two machines: each rule, and both together over a bad network, from seeds."""

import pytest

from loopd.ledger.clearing.rules import (
    PAYEE_MOVES,
    PAYER_MOVES,
    Book,
    Misstep,
    Payee,
    PayeeEvent,
    PayeeState,
    PayeeStep,
    Payer,
    PayerEvent,
    PayerState,
    PayerStep,
    Say,
    payee_step,
    payer_step,
)
from tests.clearing_machines import Network

HELD, PREPARED = Payer(PayerState.HELD), Payer(PayerState.PREPARED)
POSTED, VOIDED = Payer(PayerState.POSTED), Payer(PayerState.VOIDED)


@pytest.mark.parametrize("seed", range(150))
def test_both_sides_decide_alike_whatever_the_network_does(seed: int) -> None:
    network = Network(seed, settlements=6)
    for _ in range(200):
        network.disturb()
        network.check(calm=False)
    network.calm_down()
    network.check(calm=True)


@pytest.mark.parametrize("state", PayerState)
@pytest.mark.parametrize("event", PayerEvent)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_payer_moves_as_its_table_says(state: PayerState, event: PayerEvent, frozen: bool) -> None:
    payer = Payer(state, frozen=frozen)
    try:
        step = payer_step(payer, event)
    except Misstep:
        return
    assert step.payer.state in (state, *PAYER_MOVES[state])
    ended = step.payer.state is not state and not PAYER_MOVES[step.payer.state]
    assert (step.book is not None) == ended


@pytest.mark.parametrize("state", PayeeState)
@pytest.mark.parametrize("event", PayeeEvent)
def test_a_payee_moves_as_its_table_says(state: PayeeState, event: PayeeEvent) -> None:
    try:
        step = payee_step(Payee(state), event)
    except Misstep:
        return
    assert step.payee.state in (state, *PAYEE_MOVES[state])
    reserved = PayeeState.PREPARED in (state, step.payee.state)
    assert (step.book is not None) == (reserved and step.payee.state is not state)


def test_what_is_prepared_ends_by_a_decision_alone() -> None:
    prepared = Payee(PayeeState.PREPARED)
    for event in set(PayeeEvent) - {PayeeEvent.DECIDED_POST, PayeeEvent.DECIDED_VOID}:
        assert payee_step(prepared, event).payee.state is PayeeState.PREPARED


def test_a_post_that_is_asked_for_too_early_waits_for_the_other_side() -> None:
    waiting = payer_step(HELD, PayerEvent.ASKED_POST)
    assert waiting == PayerStep(Payer(PayerState.HELD, wanted=True), say=Say.PREPARE)
    posted = payer_step(waiting.payer, PayerEvent.PREPARED)
    assert (posted.payer.state, posted.book, posted.say) == (PayerState.POSTED, Book.POST, Say.DECISION)


def test_the_payer_voids_before_its_decision_and_never_after() -> None:
    assert payer_step(HELD, PayerEvent.TIMED_OUT).book is Book.VOID
    assert payer_step(PREPARED, PayerEvent.TIMED_OUT) == PayerStep(PREPARED)
    assert payer_step(PREPARED, PayerEvent.ASKED_VOID).book is Book.VOID
    assert payer_step(POSTED, PayerEvent.ASKED_VOID) == PayerStep(POSTED, say=Say.DECISION)


def test_a_dispute_freezes_until_it_is_resolved() -> None:
    frozen = payer_step(PREPARED, PayerEvent.ASKED_FREEZE).payer
    for event in (PayerEvent.ASKED_POST, PayerEvent.ASKED_VOID, PayerEvent.TIMED_OUT, PayerEvent.REMIND):
        assert payer_step(frozen, event) == PayerStep(frozen)
    assert payer_step(frozen, PayerEvent.RESOLVE_POST).book is Book.POST
    assert payer_step(frozen, PayerEvent.RESOLVE_VOID).book is Book.VOID


@pytest.mark.parametrize(
    ("payer", "event", "reason"),
    [
        (HELD, PayerEvent.ACKNOWLEDGED_POST, "not_decided"),
        (PREPARED, PayerEvent.ACKNOWLEDGED_VOID, "not_decided"),
        (POSTED, PayerEvent.ACKNOWLEDGED_VOID, "other_decision"),
        (VOIDED, PayerEvent.ACKNOWLEDGED_POST, "other_decision"),
        (PREPARED, PayerEvent.REFUSED, "already_prepared"),
        (POSTED, PayerEvent.REFUSED, "already_prepared"),
        (PREPARED, PayerEvent.RESOLVE_POST, "not_frozen"),
        (Payer(PayerState.HELD, frozen=True), PayerEvent.RESOLVE_POST, "not_prepared"),
        (POSTED, PayerEvent.RESOLVE_VOID, "already_posted"),
        (VOIDED, PayerEvent.RESOLVE_POST, "already_voided"),
    ],
)
def test_a_payer_refuses_what_cannot_be(payer: Payer, event: PayerEvent, reason: str) -> None:
    with pytest.raises(Misstep) as raised:
        payer_step(payer, event)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("state", "event", "reason"),
    [
        (PayeeState.REQUESTED, PayeeEvent.DECIDED_POST, "not_prepared"),
        (PayeeState.REFUSED, PayeeEvent.DECIDED_POST, "not_prepared"),
        (PayeeState.VOIDED, PayeeEvent.DECIDED_POST, "other_decision"),
        (PayeeState.POSTED, PayeeEvent.DECIDED_VOID, "other_decision"),
    ],
)
def test_a_payee_refuses_what_cannot_be(state: PayeeState, event: PayeeEvent, reason: str) -> None:
    with pytest.raises(Misstep) as raised:
        payee_step(Payee(state), event)
    assert raised.value.reason == reason


def test_a_cancelled_request_promises_nothing_any_more() -> None:
    cancelled = payee_step(Payee(PayeeState.REQUESTED), PayeeEvent.ASK_VOID)
    assert cancelled.payee.state is PayeeState.REFUSED
    assert payee_step(cancelled.payee, PayeeEvent.PREPARE).say is Say.REFUSED


def test_a_prepare_that_comes_after_the_end_hears_of_it() -> None:
    assert payee_step(Payee(PayeeState.POSTED), PayeeEvent.PREPARE).say is Say.ACKNOWLEDGEMENT
    assert payee_step(Payee(PayeeState.VOIDED), PayeeEvent.PREPARE).say is Say.REFUSED
    for held in (HELD, Payer(PayerState.HELD, frozen=True)):
        assert payer_step(held, PayerEvent.REFUSED).book is Book.VOID
    assert payer_step(VOIDED, PayerEvent.REFUSED) == PayerStep(VOIDED, say=Say.DECISION)


def test_a_repeated_decision_is_acknowledged_again_and_moves_nothing() -> None:
    posted = Payee(PayeeState.POSTED)
    assert payee_step(posted, PayeeEvent.DECIDED_POST) == PayeeStep(posted, say=Say.ACKNOWLEDGEMENT)
