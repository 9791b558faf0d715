"""Settlements with other nodes as the API shows them; pure. No account is named."""

from typing import Any

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
        "frozen": clearance.frozen,
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
