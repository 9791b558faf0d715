"""Runs and discharges as the API shows them; pure. No account is named."""

from collections.abc import Sequence
from typing import Any

from loopd.ledger.netting.rules import KeptClaim, Method, Period, owed_minor
from loopd.ledger.netting.tables import Discharge, Run
from loopd.protocol.money import amount_json
from loopd.protocol.timestamps import format_timestamp


def run_line(run: Run, claims: Sequence[KeptClaim]) -> dict[str, Any]:
    """A run with what each city owes by it, and whether that is paid."""
    shown: dict[str, Any] = {
        "run": run.run,
        "state": run.state.value,
        "method": run.method.value,
        "period": run.period.value,
        "closed_at": format_timestamp(run.closed_at_ms),
        "claims": [
            {
                "debtor": each.debtor,
                "creditor": each.creditor,
                "amount": amount_json(each.backing_minor),
                "discharged": each.discharge is not None,
            }
            for each in claims
        ],
    }
    if run.reason is not None:
        shown["reason"] = run.reason
    return shown


def discharge_json(discharge: Discharge, home: str, backing: str) -> dict[str, Any]:
    """A payment from reserve to reserve."""
    debtor, creditor = discharge.sides(home)
    shown: dict[str, Any] = {
        "id": discharge.id,
        "debtor": debtor,
        "creditor": creditor,
        "state": discharge.state.value,
        "amount": amount_json(discharge.backing_minor),
        "currency": backing,
        "reference": discharge.reference,
        "runs": list(discharge.runs),
        "opened_at": format_timestamp(discharge.opened_at_ms),
        "changed_at": format_timestamp(discharge.changed_at_ms),
    }
    if discharge.reason is not None:
        shown["reason"] = discharge.reason
    return shown


def terms_json(method: Method, period: Period, claims: Sequence[KeptClaim], home: str, backing: str) -> dict[str, Any]:
    """How this city settles with a peer, and what its signed runs leave to be paid. `to_pay` below zero is to come."""
    to_pay = amount_json(owed_minor(home, claims))
    return {"method": method.value, "period": period.value, "to_pay": to_pay, "backed_by": backing}
