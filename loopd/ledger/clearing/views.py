"""Settlements with other nodes as the API shows them; pure. No account is named."""

from typing import Any

from loopd.ledger.clearing.messages import Request
from loopd.ledger.clearing.rules import PayeeState
from loopd.ledger.clearing.tables import Clearance
from loopd.protocol.money import amount_json
from loopd.protocol.timestamps import format_timestamp


def clearance_json(clearance: Clearance) -> dict[str, Any]:
    """A settlement with both amounts that cross, each in its own city's currency."""
    shown: dict[str, Any] = {
        "id": clearance.name.id,
        "payer": clearance.name.payer,
        "payee": clearance.name.payee,
        "state": clearance.state,
        "frozen": clearance.is_frozen,
        "payer_amount": amount_json(clearance.payer_minor),
        "payee_amount": amount_json(clearance.payee_minor),
        "opened_at": format_timestamp(clearance.opened_at_ms),
        "changed_at": format_timestamp(clearance.changed_at_ms),
    }
    if clearance.transaction_id is not None:
        shown["transaction"] = clearance.transaction_id
    if clearance.reason is not None:
        shown["reason"] = clearance.reason
    return shown


def entity_json(clearance: Clearance, request: Request, context_url: str) -> dict[str, Any]:
    """Settlement (§7.4) of a sale to another city, as either side knows it, in the seller's currency."""
    total, frozen = amount_json(request.total_minor), clearance.is_frozen
    lines = {line.value: amount_json(minor) for line, minor in request.lines.items()}
    payment: dict[str, Any] = {"state": "frozen" if frozen else clearance.state, "total": total, "lines": lines}
    if clearance.reason is not None:
        payment["reason"] = clearance.reason
    return {
        "@context": context_url,
        "@type": "Settlement",
        "schema_version": "0.2.0",
        "transaction_id": request.transaction_id,
        request.kind.value: request.subject_id,
        "seller": clearance.name.payee,
        "buyer": clearance.name.payer,
        "final_cost": total,
        "distribution": lines,
        "settled_at": format_timestamp(clearance.changed_at_ms),
        "confirmation": {"payment_completed": clearance.state == PayeeState.POSTED},
        "payment": payment,
    }
