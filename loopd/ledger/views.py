"""What the ledger shows: entities of §5 and lists, each for those who may see it; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from loopd.ledger.accounts import is_public
from loopd.ledger.dates import day_text
from loopd.ledger.figures import Figures
from loopd.ledger.lots import Lot
from loopd.ledger.movements import HOLD_MOVES, Account, HoldState, Phase, Transfer
from loopd.ledger.terms import Terms
from loopd.protocol.json_text import read_json
from loopd.protocol.money import MINOR_PER_LC, amount_json
from loopd.protocol.timestamps import format_timestamp

_STATE_OF_PHASE = {Phase.PENDING: HoldState.PENDING, Phase.POSTED: HoldState.POSTED, **HOLD_MOVES}


def config_json(terms: Terms, figures: Figures, node_id: str, context_url: str) -> dict[str, Any]:
    """LoopCoinConfig (§5.1). `current_supply` is in whole LC, as the entity has it, rounded down."""
    found: dict[str, Any] = {
        "@context": context_url,
        "@type": "LoopCoinConfig",
        "schema_version": "0.2.0",
        "issuer": node_id,
        "currency_code": terms.currency_code,
        "backed_by": terms.backed_by,
        "exchange_rate": terms.exchange_rate,
        "local_bonus": terms.local_bonus,
        "expiry_months": terms.expiry_months,
        "decay_rate": terms.decay_rate,
        "current_supply": figures.supply_minor // MINOR_PER_LC,
        "reserve_ratio": terms.reserve_ratio,
        "expiry_policy": terms.expiry_policy.value,
    }
    if terms.max_issuance_minor is not None:
        found["max_issuance"] = terms.max_issuance_minor // MINOR_PER_LC
    return found


def account_json(
    account: Account, lots: Sequence[tuple[Lot, int]], pending: Sequence[Transfer], *, masked: bool
) -> dict[str, Any]:
    """An account. Each lot comes with the moment at which it loses value next, in ms. `masked`: for the public."""
    found: dict[str, Any] = {
        **account_line(account),
        "pending": [_pending_line(each, masked=masked) for each in pending],
    }
    if account.has_lots:
        found["lots"] = [
            {
                "issued": day_text(lot.issue_day),
                "amount": amount_json(lot.amount_minor),
                "held": amount_json(lot.held_minor),
                "loses_value_at": format_timestamp(next_ms),
            }
            for lot, next_ms in lots
        ]
    return found


def _pending_line(transfer: Transfer, *, masked: bool) -> dict[str, Any]:
    payee = _shown(transfer.payee_id, masked=masked)
    return {
        "id": None if payee is None else transfer.id,
        "to": payee,
        "amount": amount_json(transfer.amount_minor),
    }


def account_line(account: Account) -> dict[str, Any]:
    """An account in a list."""
    return {
        "id": account.id,
        "currency": account.currency,
        "balance": amount_json(account.balance_minor),
        "held": amount_json(account.held_minor),
        "available": amount_json(account.available_minor),
        "has_key": account.public_key is not None,
        "opened_at": format_timestamp(account.opened_at_ms),
    }


def transfer_json(transfer: Transfer, ending: Transfer | None, context_url: str) -> dict[str, Any]:
    """LoopCoinTransfer (§5.2) with what became of it: `status`, and when. An order is given back as it came."""
    if transfer.document is not None:
        found: dict[str, Any] = dict(_received(transfer.document))
    else:
        found = {
            "@context": context_url,
            "@type": "LoopCoinTransfer",
            "schema_version": "0.2.0",
            "id": transfer.id,
            "from": transfer.payer_id,
            "to": transfer.payee_id,
            "amount": amount_json(transfer.amount_minor),
            "currency": transfer.currency,
            "timestamp": format_timestamp(transfer.at_ms),
        }
    found["kind"] = transfer.kind.value
    last = transfer if ending is None else ending
    found["status"] = _STATE_OF_PHASE[last.phase].value
    found["recorded_at"] = format_timestamp(last.at_ms)
    if transfer.link is not None:
        found["link"] = transfer.link
    return found


def statement_line(account_id: str, transfer: Transfer, moved_minor: int, *, masked: bool) -> dict[str, Any]:
    """What a transfer did to an account. `masked`: for the public, who learns of persons and businesses nothing.

    Not even the transfer's id: that of a decay follows from whose it is.
    """
    other = _shown(transfer.payee_id if transfer.payer_id == account_id else transfer.payer_id, masked=masked)
    return {
        "id": None if other is None else transfer.id,
        "kind": transfer.kind.value,
        "counterpart": other,
        "amount": amount_json(moved_minor),
        "at": format_timestamp(transfer.at_ms),
    }


def figures_json(terms: Terms, figures: Figures) -> dict[str, Any]:
    """What circulates and what stands behind it."""
    return {
        "currency": terms.currency_code,
        "supply": amount_json(figures.supply_minor),
        "max_issuance": None if terms.max_issuance_minor is None else amount_json(terms.max_issuance_minor),
        "backed_by": terms.backed_by,
        "reserve": amount_json(figures.reserve_minor),
        "claims": amount_json(figures.claims_minor),
    }


def _shown(account_id: str, *, masked: bool) -> str | None:
    return account_id if not masked or is_public(account_id) else None


def _received(document: bytes) -> Mapping[str, Any]:
    value = read_json(document)
    if not isinstance(value, dict):
        raise RuntimeError("a stored order is no object")
    return value
