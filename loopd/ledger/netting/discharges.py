"""How a balance between two cities is discharged: reserve against clearing, with the reference of the real payment.

The debtor's city pays outside, announces it, and holds so much of its reserve; the creditor's says whether the money
came, and that is final. Both books then lower the clearing account by what the discharged runs put there.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger import accounts, transfer_tables
from loopd.ledger.dates import DAY_MS
from loopd.ledger.movements import Account, Kind, Movement, Phase
from loopd.ledger.netting import tables
from loopd.ledger.netting.documents import Notice, answer_json, notice_json, read_notice
from loopd.ledger.netting.rules import (
    DischargeSide,
    DischargeState,
    KeptClaim,
    Method,
    RunState,
    fault_of_payment,
    owed_minor,
    paid_together,
)
from loopd.ledger.netting.tables import Discharge, Run
from loopd.ledger.netting.telling import NettingTelling
from loopd.ledger.orders import own_digest, own_id
from loopd.ledger.refusals import Fault, refused
from loopd.ledger.service import Ledger
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import DISCHARGES_DENIED_PER_DAY_MAX

# Where what two cities owe each other is the same, nothing is paid, and nothing is to be said.
_NOTHING_PAID: Final = "even"


class Discharges:
    """Both sides of the discharges with every peer."""

    def __init__(self, ledger: Ledger, clock: Clock, telling: NettingTelling) -> None:
        self._ledger = ledger
        self._clock = clock
        self._telling = telling

    # At the debtor's node

    def announce(self, tx: Tx, peer: str, discharge_id: str, run: int, reference: str) -> tuple[Discharge, bool]:
        """Hold what a run makes this city owe, and tell the peer that it was paid; False where that was done before.

        With `clearing` all that is carried up to the run is paid at once. NotFound (404) `unknown_run`; Conflict (409)
        `other_content`, `not_agreed`, `nothing_owed`, `too_many_denied`, `insufficient_reserve`.
        """
        known = tables.find_discharge(tx, peer, DischargeSide.DEBTOR, discharge_id)
        if known is not None:
            if known.reference != reference or run not in known.runs:
                raise Conflict("other_content", "A discharge with this id and other content is stored already.")
            return known, False
        claims = self._payable(tx, peer, run)
        if owed_minor(self._home, claims) <= 0:
            raise Conflict("nothing_owed", "This city owes nothing by that run, or has paid it already.")
        self._check_denied(tx, peer, DischargeSide.DEBTOR)
        discharge = self._keep(tx, self._paid((self._home, peer), discharge_id, reference, claims), claims)
        self._hold_reserve(tx, discharge)
        self._telling.record_discharge(tx, discharge)
        self._tell_notice(tx, discharge)
        return discharge, True

    def answered(self, tx: Tx, document: Document) -> None:
        """The creditor's node has said whether the money came. Conflict (409) `unknown_discharge`, `other_decision`."""
        value = document.value
        state = DischargeState(value["answer"])
        known = tables.find_discharge(tx, value["creditor"], DischargeSide.DEBTOR, value["id"].lower())
        if known is None:
            raise Conflict("unknown_discharge", "No such discharge was announced.")
        if known.state is state:
            return
        if known.state is not DischargeState.ANNOUNCED:
            raise Conflict("other_decision", "The discharge was decided otherwise before.")
        phase = Phase.POST if state is DischargeState.CONFIRMED else Phase.VOID
        held = transfer_tables.find(tx, _transfer_id(self._name(known), "backing"))
        if held is None:
            raise RuntimeError(f"discharge {known.number} holds nothing")
        at_ms = self._ledger.now(tx)
        self._ledger.end_pending(tx, held, phase, at_ms)
        if state is DischargeState.CONFIRMED:
            self._lower_clearing(tx, known, at_ms)
        self._decide(tx, known, state, value.get("reason"))

    def remind(self, tx: Tx, discharge: Discharge) -> None:
        """Nothing was heard for a while: announce it again."""
        if discharge.state is DischargeState.ANNOUNCED:
            self._tell_notice(tx, discharge)

    # At the creditor's node

    def announced(self, tx: Tx, document: Document) -> None:
        """The peer says that it paid. Kept until the operator says whether the money came; what does not fit the books
        is denied at once.

        Conflict (409) `unknown_run`, `other_content`, `too_many_denied`; Invalid (400) `bad_amount`.
        """
        try:
            notice = read_notice(document.value)
        except ValueError:
            raise Invalid("bad_amount", "An amount has at most two decimals.", {"pointer": "/amount"}) from None
        known = tables.find_discharge(tx, notice.debtor, DischargeSide.CREDITOR, notice.id)
        if known is None:
            known = self._take(tx, notice)
        elif _content(known) != _content(notice):
            raise Conflict("other_content", "This discharge was announced with other content.")
        if known.state is not DischargeState.ANNOUNCED:
            self._tell_answer(tx, known)

    def confirm(self, tx: Tx, peer: str, discharge_id: str) -> Discharge:
        """The money came: it is in the reserve, and the peer owes so much less. The same again changes nothing.

        NotFound (404) `unknown_discharge`; Conflict (409) `already_denied`, `not_creditor`.
        """
        known = self._require(tx, peer, discharge_id)
        if known.state is DischargeState.CONFIRMED:
            return known
        if known.state is DischargeState.DENIED:
            raise Conflict("already_denied", "The discharge was denied before.")
        at_ms = self._ledger.now(tx)
        self._receive_backing(tx, known, at_ms)
        self._lower_clearing(tx, known, at_ms)
        return self._decide_and_tell(tx, known, DischargeState.CONFIRMED, None)

    def deny(self, tx: Tx, peer: str, discharge_id: str, reason: str) -> Discharge:
        """The money did not come: what was to be discharged is owed again. The same again changes nothing.

        NotFound (404) `unknown_discharge`; Conflict (409) `already_confirmed`, `not_creditor`.
        """
        known = self._require(tx, peer, discharge_id)
        if known.state is DischargeState.DENIED:
            return known
        if known.state is DischargeState.CONFIRMED:
            raise Conflict("already_confirmed", "The discharge was confirmed before.")
        return self._decide_and_tell(tx, known, DischargeState.DENIED, reason)

    # At both

    def settle_even(self, tx: Tx, run: Run) -> None:
        """Where nothing is to be paid for a run, the signatures under it discharge it."""
        if run.method is Method.CLEARING:
            return
        for claim in tables.claims_of_run(tx, run.number):
            if claim.backing_minor == 0:
                sides = (claim.debtor, claim.creditor)
                paid = self._paid(sides, own_id("even", *sides, run.run), _NOTHING_PAID, [claim])
                discharge = self._keep(tx, paid, [claim])
                self._lower_clearing(tx, discharge, self._ledger.now(tx))
                self._decide(tx, discharge, DischargeState.CONFIRMED, None)

    @property
    def _home(self) -> str:
        return self._ledger.node.node_id

    def _payable(self, source: RowSource, peer: str, number: int) -> list[KeptClaim]:
        """What is paid together for a run, by how it settles."""
        run = tables.find_run(source, peer, number)
        if run is None:
            raise NotFound("unknown_run", "There is no such run with that node.")
        if run.state is not RunState.AGREED:
            raise Conflict("not_agreed", "Both cities sign a run before anything is paid for it.")
        return paid_together(run.method, run.run, self._home, tables.open_claims(source, peer))

    def _take(self, tx: Tx, notice: Notice) -> Discharge:
        """An announcement that is new: kept as it came, or denied where it does not fit."""
        self._check_denied(tx, notice.debtor, DischargeSide.CREDITOR)
        claims, fault = self._claimed(tx, notice)
        kept = self._keep(tx, notice, claims)
        if fault is not None:
            return self._decide(tx, kept, DischargeState.DENIED, fault)
        self._telling.record_discharge(tx, kept)
        return kept

    def _claimed(self, tx: Tx, notice: Notice) -> tuple[list[KeptClaim], str | None]:
        """The claims that an announcement names, and what is wrong with it: `other_currency`, `in_discharge`,
        `other_runs`, `not_debtor`, `other_amount`.
        """
        if notice.backing != self._ledger.terms.backed_by:
            return [], "other_currency"
        claims: list[KeptClaim] = []
        for number in notice.runs:
            run = tables.find_run(tx, notice.debtor, number)
            if run is None or run.state is not RunState.AGREED:
                raise Conflict("unknown_run", "That run was not signed by both nodes.", {"run": number})
            named = tables.claims_of_run(tx, run.number)
            if run.method is not Method.CLEARING and len(notice.runs) > 1:
                return [], "other_runs"
            claims += [each for each in named if run.method is Method.CLEARING or each.debtor == notice.debtor]
        if len(set(notice.runs)) != len(notice.runs):
            return [], "other_runs"
        fault = fault_of_payment(notice.debtor, notice.backing_minor, claims)
        return (claims, None) if fault is None else ([], fault)

    def _paid(self, sides: tuple[str, str], discharge_id: str, reference: str, claims: Sequence[KeptClaim]) -> Notice:
        """A payment of claims, from debtor to creditor."""
        paid_minor = max(owed_minor(sides[0], claims), 0)
        runs = [each.run for each in claims]
        return Notice(*sides, discharge_id, runs, paid_minor, self._ledger.terms.backed_by, reference)

    def _keep(self, tx: Tx, notice: Notice, claims: Sequence[KeptClaim]) -> Discharge:
        """Keep a payment as it is announced; `claims` are what it pays, none where it does not fit."""
        now_ms, is_own = self._clock.now_ms(), notice.debtor == self._home
        kept = tables.insert_discharge(
            tx,
            Discharge(
                number=0,
                peer=notice.creditor if is_own else notice.debtor,
                side=DischargeSide.DEBTOR if is_own else DischargeSide.CREDITOR,
                id=notice.id,
                state=DischargeState.ANNOUNCED,
                runs=notice.runs,
                reference=notice.reference,
                backing_minor=notice.backing_minor,
                falls_minor=sum(each.falls_minor for each in claims),
                reason=None,
                opened_at_ms=now_ms,
                changed_at_ms=now_ms,
                reminders=0,
            ),
        )
        tables.discharge_claims(tx, claims, kept.number)
        return kept

    def _decide(self, tx: Tx, discharge: Discharge, state: DischargeState, reason: str | None) -> Discharge:
        tables.decide_discharge(tx, discharge, state, reason, self._clock.now_ms())
        if state is DischargeState.DENIED:
            tables.discharge_claims(tx, tables.claims_of_discharge(tx, discharge.number), None)
        decided = replace(discharge, state=state, reason=reason, changed_at_ms=self._clock.now_ms())
        self._telling.record_discharge(tx, decided)
        return decided

    def _decide_and_tell(self, tx: Tx, discharge: Discharge, state: DischargeState, reason: str | None) -> Discharge:
        decided = self._decide(tx, discharge, state, reason)
        self._tell_answer(tx, decided)
        return decided

    def _check_denied(self, tx: Tx, peer: str, side: DischargeSide) -> None:
        since_ms = self._clock.now_ms() - DAY_MS
        if tables.count_denied(tx, peer, side, since_ms) >= DISCHARGES_DENIED_PER_DAY_MAX:
            raise Conflict("too_many_denied", "Too many payments were announced within a day that did not come.")

    def _require(self, tx: Tx, peer: str, discharge_id: str) -> Discharge:
        known = tables.find_discharge(tx, peer, DischargeSide.CREDITOR, discharge_id)
        if known is None:
            if tables.find_discharge(tx, peer, DischargeSide.DEBTOR, discharge_id) is not None:
                raise Conflict("not_creditor", "The city that is paid says whether the money came.")
            raise NotFound("unknown_discharge", "That node has announced no such payment.")
        return known

    # What is told

    def _notice(self, discharge: Discharge) -> Notice:
        debtor, creditor = discharge.sides(self._home)
        backing = self._ledger.terms.backed_by
        return Notice(
            debtor, creditor, discharge.id, discharge.runs, discharge.backing_minor, backing, discharge.reference
        )

    def _tell_notice(self, tx: Tx, discharge: Discharge) -> None:
        body = dump_json(notice_json(self._notice(discharge), self._ledger.node.context_url))
        at_ms = self._telling.say(tx, discharge.peer, f"discharge:{discharge.number}", body, discharge.reminders)
        tables.remind_of_discharge(tx, discharge.number, at_ms, discharge.reminders + 1)

    def _tell_answer(self, tx: Tx, discharge: Discharge) -> None:
        url = self._ledger.node.context_url
        body = dump_json(answer_json(self._notice(discharge), discharge.state, discharge.reason, url))
        self._telling.answer(tx, discharge.peer, body)

    # The books

    def _hold_reserve(self, tx: Tx, discharge: Discharge) -> None:
        reserve, outside = self._ledger.backing_accounts(tx)
        if not reserve.can_pay(discharge.backing_minor):
            raise refused(Fault.INSUFFICIENT_RESERVE)
        movement = self._movement(discharge, "backing", (reserve, outside), discharge.backing_minor)
        self._ledger.write(tx, movement, self._ledger.now(tx), pending=True)

    def _receive_backing(self, tx: Tx, discharge: Discharge, at_ms: int) -> None:
        reserve, outside = self._ledger.backing_accounts(tx)
        movement = self._movement(discharge, "backing", (outside, reserve), discharge.backing_minor)
        self._ledger.write(tx, movement, at_ms)

    def _lower_clearing(self, tx: Tx, discharge: Discharge, at_ms: int) -> None:
        """The clearing account falls by what the runs put there: those coins are redeemed, or issued, against it."""
        if discharge.falls_minor == 0:
            return
        clearing = self._ledger.require(tx, accounts.clearing_id(discharge.peer, self._home))
        issuance = self._ledger.require(tx, accounts.issuance_id(self._home))
        sides = (clearing, issuance) if discharge.falls_minor > 0 else (issuance, clearing)
        self._ledger.write(tx, self._movement(discharge, "clearing", sides, abs(discharge.falls_minor)), at_ms)

    def _movement(self, discharge: Discharge, leg: str, sides: tuple[Account, Account], amount_minor: int) -> Movement:
        named = self._name(discharge)
        payer, payee = sides
        digest = own_digest("discharge", *named, leg)
        link = own_id("discharge", *named)
        return Movement(_transfer_id(named, leg), Kind.SETTLEMENT, payer, payee, amount_minor, digest, link=link)

    def _name(self, discharge: Discharge) -> tuple[str, str, str]:
        return (*discharge.sides(self._home), discharge.id)


def _content(payment: Notice | Discharge) -> tuple[str, list[int], int]:
    """What makes an announcement the same again."""
    return payment.reference, list(payment.runs), payment.backing_minor


def _transfer_id(name: tuple[str, str, str], leg: str) -> str:
    return own_id("discharge", *name, leg)
