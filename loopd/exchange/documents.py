"""The documents that this node writes itself: of a deal that a selection or a sale made, and of its goods. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from loopd.protocol.loopcost import LoopCost
from loopd.protocol.money import amount_json
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.timestamps import format_timestamp

_SCHEMA_VERSION: Final = "0.2.0"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was agreed on: a quantity of a subject, who buys it (a node), where it goes, what it costs and who pays."""

    kind: SubjectKind
    subject_id: str
    quantity: Quantity
    buyer: str
    from_city: str
    to_city: str
    cost: LoopCost
    seller_account: str | None = None
    buyer_account: str | None = None

    def waits_for(self, home: str) -> bool:
        """Whether another node than `home` is asked for the money."""
        return self.buyer != home and self.seller_account is not None and self.buyer_account is not None

    @property
    def quantity_json(self) -> dict[str, Any]:
        """The quantity as documents state it."""
        return {"value": self.quantity.value, "unit": self.quantity.unit}


def offer_document(deal: Agreement, offer_id: str, context_url: str, until_ms: int) -> dict[str, Any]:
    """An Offer of what was agreed on."""
    return {
        **_head(context_url, "Offer", offer_id),
        f"{deal.kind.value}_id": deal.subject_id,
        "from_city": deal.from_city,
        "to_city": deal.to_city,
        "quantity": deal.quantity_json,
        "status": "open",
        "available_until": format_timestamp(until_ms),
    }


def match_document(
    deal: Agreement, match_id: str, offer_id: str, context_url: str, matched_at_ms: int
) -> dict[str, Any]:
    """The accepted Match of an agreement."""
    return {
        **_head(context_url, "Match", match_id),
        f"{deal.kind.value}_id": deal.subject_id,
        "offer_id": offer_id,
        "from_city": deal.from_city,
        "to_city": deal.to_city,
        "to_node": deal.buyer,
        "status": "accepted",
        "matched_at": format_timestamp(matched_at_ms),
    }


def transfer_document(
    kind: SubjectKind, subject_id: str, transfer_id: str, match_id: str, context_url: str, handoff_at_ms: int
) -> dict[str, Any]:
    """A Transfer that a transaction set going."""
    return {
        **_head(context_url, "Transfer", transfer_id),
        f"{kind.value}_id": subject_id,
        "match_id": match_id,
        "status": "scheduled",
        "handoff_at": format_timestamp(handoff_at_ms),
    }


def transaction_document(
    deal: Agreement, transaction_id: str, match_id: str, seller: str, context_url: str, agreed_at_ms: int
) -> dict[str, Any]:
    """The MaterialTransaction of an agreement."""
    accounts = {"seller_account": deal.seller_account, "buyer_account": deal.buyer_account}
    cost = deal.cost
    return {
        **_head(context_url, "MaterialTransaction", transaction_id),
        deal.kind.value: deal.subject_id,
        "seller": seller,
        "buyer": deal.buyer,
        "offer": {
            "base_price": amount_json(cost.base_minor),
            "loop_cost": amount_json(cost.total_minor),
            "breakdown": {
                "export_penalty": amount_json(cost.export_minor),
                "import_penalty": amount_json(cost.import_minor),
                "distance_cost": amount_json(cost.distance_minor),
            },
        },
        "quantity": deal.quantity_json,
        "match_id": match_id,
        "timestamp": format_timestamp(agreed_at_ms),
        "status": "pending",
        **{name: account for name, account in accounts.items() if account is not None},
    }


def _head(context_url: str, entity: str, entity_id: str) -> dict[str, Any]:
    return {"@context": context_url, "@type": entity, "schema_version": _SCHEMA_VERSION, "id": entity_id}
