"""What two nodes tell each other of runs and discharges, durably queued; and the chronicle of both."""

from typing import Final

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.writer import Tx
from loopd.events.service import EventKind
from loopd.ledger.clearing.messages import SETTLEMENT_PATH
from loopd.ledger.clearing.ports import Outbox
from loopd.ledger.clearing.telling import reminder_delay_ms
from loopd.ledger.netting.documents import RunName
from loopd.ledger.netting.tables import Discharge, Run
from loopd.ledger.ports import Events
from loopd.protocol.json_text import JSON
from loopd.protocol.money import amount_json

# An answer that got lost is asked for again.
_ANSWER_VALID_MS: Final = 3_600_000
_REFERENCE: Final = "netting"

log = structlog.get_logger(__name__)


class NettingTelling:
    """Queues messages, and writes down what happened."""

    def __init__(self, clock: Clock, audit: AuditLog, events: Events, outbox: Outbox) -> None:
        self._clock = clock
        self._audit = audit
        self._events = events
        self._outbox = outbox

    def say(self, tx: Tx, peer: str, subject: str, body: bytes, reminders: int) -> int:
        """Queue what wants an answer; gives the moment from which it is to be said again, in ms."""
        again_ms = self._clock.now_ms() + reminder_delay_ms(reminders)
        self._outbox.enqueue(tx, peer, SETTLEMENT_PATH, body, again_ms, f"{_REFERENCE}:{subject}")
        return again_ms

    def answer(self, tx: Tx, peer: str, body: bytes) -> None:
        """Queue an answer."""
        expires_ms = self._clock.now_ms() + _ANSWER_VALID_MS
        self._outbox.enqueue(tx, peer, SETTLEMENT_PATH, body, expires_ms, f"{_REFERENCE}:answer")

    def not_taken(self, reference: str, status: int, reason: str) -> None:
        """Another node refused even to hear of it; it is told again in its time."""
        if reference.partition(":")[0] == _REFERENCE and status // 100 == 4:
            log.warning("netting_not_taken", reference=reference, status=status, reason=reason)

    def refused(self, tx: Tx, name: RunName, reason: str, place: str | None) -> None:
        """This node does not sign what a peer proposed."""
        log.warning("netting_run_refused", peer=name.from_node, run=name.run, reason=reason, place=place)
        told: dict[str, JSON] = {"event": "netting_not_signed", "peer": name.from_node, "reason": reason}
        self._audit.append(tx, AuditKind.SETTLEMENT, f"{name.from_node} {name.run}", told)

    def record_run(self, tx: Tx, run: Run) -> None:
        """A run stands otherwise now."""
        told: dict[str, JSON] = {"state": run.state.value, "peer": run.peer, "run": run.run}
        if run.reason is not None:
            told["reason"] = run.reason
        subject = f"{run.peer} {run.run}"
        self._audit.append(tx, AuditKind.SETTLEMENT, subject, {"event": f"netting_{run.state.value}", **told})
        self._events.append(tx, EventKind.LEDGER_RUN, subject, told)

    def record_discharge(self, tx: Tx, discharge: Discharge) -> None:
        """A discharge stands otherwise now."""
        told: dict[str, JSON] = {
            "state": discharge.state.value,
            "peer": discharge.peer,
            "side": discharge.side.value,
            "amount": amount_json(discharge.backing_minor),
        }
        if discharge.reason is not None:
            told["reason"] = discharge.reason
        audited: dict[str, JSON] = {"event": f"discharge_{discharge.state.value}", **told}
        self._audit.append(tx, AuditKind.SETTLEMENT, discharge.id, audited)
        self._events.append(tx, EventKind.LEDGER_DISCHARGE, discharge.id, told)
