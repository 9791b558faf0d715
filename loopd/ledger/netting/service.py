"""The door to netting: what other nodes tell this one of runs and discharges, what is due, and what the office does."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import structlog

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.due import Due
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.netting import tables
from loopd.ledger.netting.discharges import Discharges
from loopd.ledger.netting.documents import ANSWER_TYPE, NOTICE_TYPE, REFUSAL_TYPE, RUN_TYPE
from loopd.ledger.netting.runs import Runs
from loopd.ledger.netting.tables import Discharge, Run
from loopd.ledger.netting.telling import NettingTelling
from loopd.ledger.netting.views import discharge_json, run_line, terms_json
from loopd.ledger.service import Ledger
from loopd.protocol.documents import Document
from loopd.protocol.errors import Forbidden, Invalid, NotFound, Refusal
from loopd.protocol.limits import NETTING_REMINDERS_AT_ONCE

# Who says what: sender and receiver by the names that the document gives them.
_SIDES: Final[Mapping[str, tuple[str, str]]] = {
    REFUSAL_TYPE: ("to_node", "from_node"),
    NOTICE_TYPE: ("debtor", "creditor"),
    ANSWER_TYPE: ("creditor", "debtor"),
}

log = structlog.get_logger(__name__)


class Netting:
    """Runs and discharges with every peer that has a credit limit."""

    def __init__(
        self, ledger: Ledger, clearing: Clearing, runs: Runs, discharges: Discharges, telling: NettingTelling
    ) -> None:
        self._ledger = ledger
        self._clearing = clearing
        self._runs = runs
        self._discharges = discharges
        self._telling = telling

    # Other nodes

    def receive(self, tx: Tx, caller_node_id: str, document: Document) -> None:
        """Take a message of another node. A repeat is answered as the first was.

        NotFound (404) `no_ledger`; Invalid (400) `not_a_run`, `not_proposer`, `origin_mismatch`, `not_counterpart`,
        `bad_amount`; Forbidden (403) `not_settling`; Conflict (409), where nothing has moved: `unknown_run`,
        `other_content`, `bad_signature`, `already_refused`, `already_agreed`, `unknown_discharge`, `other_decision`,
        `too_many_denied`.
        """
        self._ledger.require_enabled()
        answers = self._check_sides(caller_node_id, document)
        if caller_node_id not in self._clearing.peers(tx):
            raise Forbidden("not_settling", "This node settles nothing with the calling one.")
        handlers: Mapping[str, Callable[[Tx, Document], None]] = {
            RUN_TYPE: self._runs.signed_by_peer if answers else self._runs.proposed,
            REFUSAL_TYPE: self._runs.refused_by_peer,
            NOTICE_TYPE: self._discharges.announced,
            ANSWER_TYPE: self._discharges.answered,
        }
        try:
            handlers[document.type](tx, document)
        except Refusal as refusal:
            log.warning("netting_refused", peer=caller_node_id, type=document.type, reason=refusal.reason)
            raise

    def request_answered(self, reference: str, status: int, reason: str) -> None:
        """What another node finally answered a message of this one with."""
        self._telling.not_taken(reference, status, reason)

    # The office

    def terms(self, source: RowSource, peer: str) -> dict[str, Any]:
        """How this city settles with a peer, and what is to be paid."""
        claims = tables.open_claims(source, peer)
        home, backing = self._ledger.node.node_id, self._ledger.terms.backed_by
        return terms_json(self._runs.method(peer), self._runs.period(peer), claims, home, backing)

    def propose(self, tx: Tx, peer: str) -> dict[str, Any]:
        """Propose a run now. NotFound (404) `no_ledger`, `unknown_peer`; Conflict (409) as `Runs.propose_now`."""
        self._clearing.require_account(tx, peer)
        return self._run_line(tx, self._runs.propose_now(tx, peer))

    def runs(self, source: RowSource, peer: str, before: int | None, limit: int) -> list[dict[str, Any]]:
        """The runs with a peer, the newest first. NotFound (404) `no_ledger`, `unknown_peer`."""
        self._clearing.require_account(source, peer)
        return [self._run_line(source, run) for run in tables.runs_page(source, peer, before, limit)]

    def document(self, source: RowSource, peer: str, run: int) -> bytes:
        """The InterNodeSettlement of a run, as it was signed. NotFound (404) `no_ledger`, `unknown_run`."""
        self._ledger.require_enabled()
        found = tables.find_run(source, peer, run)
        if found is None:
            raise NotFound("unknown_run", "There is no such run with that node.")
        return found.document

    def announce(self, tx: Tx, peer: str, discharge_id: str, run: int, reference: str) -> tuple[dict[str, Any], bool]:
        """This city has paid; whether that is new. Refusals as `Discharges.announce`."""
        self._clearing.require_account(tx, peer)
        discharge, is_new = self._discharges.announce(tx, peer, discharge_id, run, reference)
        return self._shown(discharge), is_new

    def confirm(self, tx: Tx, peer: str, discharge_id: str) -> dict[str, Any]:
        """What the peer announced has come. Refusals as `Discharges.confirm`."""
        self._ledger.require_enabled()
        return self._shown(self._discharges.confirm(tx, peer, discharge_id))

    def deny(self, tx: Tx, peer: str, discharge_id: str, reason: str) -> dict[str, Any]:
        """What the peer announced has not come. Refusals as `Discharges.deny`."""
        self._ledger.require_enabled()
        return self._shown(self._discharges.deny(tx, peer, discharge_id, reason))

    def discharges(self, source: RowSource, peer: str, before: int | None, limit: int) -> list[tuple[int, Any]]:
        """The discharges with a peer, the newest first, each with its number. NotFound (404) as `runs`."""
        self._clearing.require_account(source, peer)
        found = tables.discharges_page(source, peer, before, limit)
        return [(each.number, self._shown(each)) for each in found]

    # The timer

    def due(self, source: RowSource, now_ms: int) -> list[Due]:
        """Runs that are to be proposed, and what is to be said again."""
        if not self._ledger.enabled:
            return []
        found = [
            Due(f"run with {peer}", partial(self._propose_due, peer))
            for peer in self._clearing.peers(source)
            if self._runs.is_due(source, peer, now_ms)
        ]
        for run in tables.due_runs(source, now_ms, NETTING_REMINDERS_AT_ONCE):
            found.append(Due(f"run {run.number}", partial(self._remind_of_run, run.number)))
        for discharge in tables.due_discharges(source, now_ms, NETTING_REMINDERS_AT_ONCE):
            found.append(Due(f"discharge {discharge.number}", partial(self._remind_of_discharge, discharge.number)))
        return found

    def _propose_due(self, peer: str, tx: Tx) -> None:
        self._runs.propose_due(tx, peer)

    def _remind_of_run(self, number: int, tx: Tx) -> None:
        self._runs.remind(tx, tables.run_by_number(tx, number))

    def _remind_of_discharge(self, number: int, tx: Tx) -> None:
        self._discharges.remind(tx, tables.discharge_by_number(tx, number))

    def _check_sides(self, caller: str, document: Document) -> bool:
        """Whether an InterNodeSettlement is the answer to an own one; Invalid where it is not for both nodes to say."""
        value, home = document.value, self._ledger.node.node_id
        answers = document.type == RUN_TYPE and value["from_node"] == home
        sides = ("to_node", "from_node") if answers else _SIDES.get(document.type, ("from_node", "to_node"))
        sender, receiver = (value[side] for side in sides)
        if sender != caller:
            message = "Each side of a run or a discharge speaks for itself."
            raise Invalid("origin_mismatch", message, {"owner": sender, "signer": caller})
        if receiver != home:
            raise Invalid("not_counterpart", "That is told to its other side alone.", {"counterpart": receiver})
        return answers

    def _run_line(self, source: RowSource, run: Run) -> dict[str, Any]:
        return run_line(run, tables.claims_of_run(source, run.number))

    def _shown(self, discharge: Discharge) -> dict[str, Any]:
        return discharge_json(discharge, self._ledger.node.node_id, self._ledger.terms.backed_by)
