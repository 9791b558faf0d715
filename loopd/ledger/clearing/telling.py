"""What one side tells the other: durably queued with what it follows from, and again until that is answered."""

from typing import Any, Final

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.writer import Tx
from loopd.events.service import EventKind
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.messages import (
    SETTLEMENT_PATH,
    Name,
    acknowledgement_json,
    answer_json,
    decision_json,
    inquiry_json,
)
from loopd.ledger.clearing.ports import Outbox
from loopd.ledger.clearing.rules import Decision, Say, payee_decision, payer_decision
from loopd.ledger.clearing.tables import Clearance, Side
from loopd.ledger.ports import Events, HomeNode
from loopd.protocol.json_text import JSON, dump_json

# How references of its requests begin; a settlement's own number follows.
REFERENCE: Final = "settlement"
_REMIND_FIRST_MS: Final = 30_000
_REMIND_MAX_MS: Final = 3_600_000
# What becomes of such a message is of no interest.
_UNKNOWN: Final = "settlement-unknown"


def reminder_delay_ms(reminders: int) -> int:
    """How long to wait for an answer before saying the same again, after so many times."""
    return min(_REMIND_FIRST_MS << min(reminders, 16), _REMIND_MAX_MS)


class Telling:
    """Queues messages, and keeps the chronicle of settlements."""

    def __init__(self, node: HomeNode, clock: Clock, audit: AuditLog, events: Events, outbox: Outbox) -> None:
        self._node = node
        self._clock = clock
        self._audit = audit
        self._events = events
        self._outbox = outbox

    def say(self, tx: Tx, clearance: Clearance, say: Say | None, *, expects: bool) -> None:
        """Queue a message, if there is one. Where an answer is expected to what stands, it is said again later."""
        now_ms = self._clock.now_ms()
        delay_ms = reminder_delay_ms(clearance.reminders)
        if say is not None:
            body = self._body(clearance, say)
            reference = f"{REFERENCE}:{clearance.number}"
            self._outbox.enqueue(tx, clearance.peer, SETTLEMENT_PATH, body, now_ms + delay_ms, reference)
        tables.remind_at(tx, clearance.number, now_ms + delay_ms if expects else None, clearance.reminders + 1)

    def acknowledge_unknown(self, tx: Tx, name: Name) -> None:
        """Let a payer's node be done with what is void there and was never known here."""
        body = dump_json(acknowledgement_json(name, Decision.VOID, self._node.context_url))
        expires_at_ms = self._clock.now_ms() + _REMIND_FIRST_MS
        self._outbox.enqueue(tx, name.payer, SETTLEMENT_PATH, body, expires_at_ms, _UNKNOWN)

    def record(self, tx: Tx, clearance: Clearance, event: str) -> None:
        """The audit entry and the event of a change: they name no account."""
        told: dict[str, JSON] = {"event": f"clearing_{event}", "peer": clearance.peer, "side": clearance.side.value}
        if clearance.reason is not None:
            told["reason"] = clearance.reason
        subject = clearance.transaction_id or clearance.name.id
        self._audit.append(tx, AuditKind.SETTLEMENT, subject, told)
        data = {"state": event, "peer": clearance.peer, "side": clearance.side.value}
        self._events.append(tx, EventKind.LEDGER_SETTLEMENT, subject, data)

    def _body(self, clearance: Clearance, say: Say) -> bytes:
        kept = {Say.REQUEST: clearance.request, Say.PREPARE: clearance.prepare}.get(say)
        return dump_json(self._document(clearance, say)) if kept is None else kept

    def _document(self, clearance: Clearance, say: Say) -> dict[str, Any]:
        name, reason, url = clearance.name, clearance.reason, self._node.context_url
        if say in (Say.PREPARED, Say.REFUSED):
            return answer_json(name, say.value, reason if say is Say.REFUSED else None, url)
        if say is Say.INQUIRY and clearance.transaction_id is not None:
            return inquiry_json(name, clearance.transaction_id, clearance.payee.ask, reason, url)
        of_payer = clearance.side is Side.PAYER
        decision = payer_decision(clearance.payer) if of_payer else payee_decision(clearance.payee)
        if decision is None:
            raise RuntimeError(f"settlement {clearance.number} has nothing to tell as {say}")
        if say is Say.DECISION:
            return decision_json(name, decision, reason, url)
        return acknowledgement_json(name, decision, url)
