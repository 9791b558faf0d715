"""Bids as documents between nodes (MaterialOffer, BidStatus) and as answers of the API."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from loopd.exchange.rules import Judged, Terms
from loopd.exchange.tables import MadeBid, Selection
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.money import amount_json
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.timestamps import format_timestamp

OFFER_TYPE: Final = "MaterialOffer"
STATUS_TYPE: Final = "BidStatus"
WITHDRAWAL_TYPE: Final = "BidWithdrawal"
# The MaterialOffer was the first, and nothing follows a withdrawal.
WITHDRAWN_VERSION: Final = 2
SCHEMA_VERSION: Final = "0.2.0"
# Where a node is told what others alone decide.
MIRROR_PATH: Final = "/api/v1/federate/mirror"


def material_offer(bid: MadeBid, bidder: str, context_url: str) -> dict[str, Any]:
    """The MaterialOffer (§8.2) of a bid, with this project's additions: id, quantity, distance, moment of making."""
    return {
        "@context": context_url,
        "@type": OFFER_TYPE,
        "schema_version": SCHEMA_VERSION,
        "id": bid.offer_id,
        bid.kind.value: bid.subject_id,
        "from": bidder,
        "base_price": amount_json(bid.cost.base_minor),
        "loop_cost": amount_json(bid.cost.total_minor),
        **_terms_json(bid.terms),
        **({} if bid.buyer_account is None else {"buyer_account": bid.buyer_account}),
        "issued_at": format_timestamp(bid.made_at_ms),
        "valid_until": format_timestamp(bid.valid_until_ms),
    }


def bid_status(
    *,
    context_url: str,
    owner: str,
    offer_id: str,
    kind: SubjectKind,
    subject_id: str,
    status: str,
    reason: str,
    version: int,
    updated_at_ms: int,
) -> dict[str, Any]:
    """What the owner's node tells a bidder's: `selected` or `declined`, with the reason."""
    return {
        "@context": context_url,
        "@type": STATUS_TYPE,
        "schema_version": SCHEMA_VERSION,
        "node": owner,
        "offer": offer_id,
        kind.value: subject_id,
        "status": status,
        "version": version,
        "updated_at": format_timestamp(updated_at_ms),
        "reason": reason,
    }


def bid_withdrawal(bid: MadeBid, bidder: str, context_url: str, withdrawn_at_ms: int) -> dict[str, Any]:
    """What the owner's node is told of a bid that its bidder takes back."""
    return {
        "@context": context_url,
        "@type": WITHDRAWAL_TYPE,
        "schema_version": SCHEMA_VERSION,
        "from": bidder,
        "offer": bid.offer_id,
        bid.kind.value: bid.subject_id,
        "version": WITHDRAWN_VERSION,
        "withdrawn_at": format_timestamp(withdrawn_at_ms),
    }


def bid_json(judged: Judged, now_ms: int) -> dict[str, Any]:
    """A bid as its owner's node lists it; `loop_cost` and `breakdown` are null where they cannot be computed."""
    bid = judged.bid
    listed: dict[str, Any] = {
        "id": bid.number,
        "from": bid.bidder,
        "base_price": amount_json(bid.terms.base_minor),
        **_cost_json(judged.cost),
        "rank": judged.rank,
        "reason": judged.unranked,
        "status": "expired" if bid.has_expired(now_ms) else bid.state.value,
        "verified": bid.verified,
        **_terms_json(bid.terms),
        "received_at": format_timestamp(bid.received_at_ms),
        "valid_until": format_timestamp(bid.valid_until_ms),
    }
    if bid.claimed_minor is not None:
        listed["claimed_loop_cost"] = amount_json(bid.claimed_minor)
    if bid.offer_id is not None:
        listed["offer"] = bid.offer_id
    if judged.stale_signals:
        listed["stale_signals"] = True
    return listed


def listing_json(
    kind: SubjectKind,
    subject_id: str,
    ranked: Sequence[Judged],
    selection: Selection | None,
    asking_lc: Decimal | None,
    now_ms: int,
) -> dict[str, Any]:
    """All bids on a subject in the order of the ranking, and which was selected why (§12.1)."""
    selected = next((each.bid for each in ranked if selection is not None and each.bid.number == selection.bid), None)
    listing: dict[str, Any] = {
        kind.value: subject_id,
        "offers": [bid_json(each, now_ms) for each in ranked],
        "selected": None if selected is None else selected.bidder,
        "selected_offer": None if selected is None else selected.number,
        "reason": None if selected is None or selection is None else selection.reason.value,
    }
    if selected is not None and selection is not None:
        listing["selected_at"] = format_timestamp(selection.selected_at_ms)
    if asking_lc is not None:
        listing["asking_price"] = asking_lc
    return listing


def made_bid_json(bid: MadeBid, bidder: str, now_ms: int) -> dict[str, Any]:
    """An own bid at another city, with what is known of its fate."""
    waiting = bid.state.value in ("queued", "accepted")
    shown: dict[str, Any] = {
        "id": bid.number,
        "offer": bid.offer_id,
        bid.kind.value: bid.subject_id,
        "from": bidder,
        "to": bid.owner,
        "base_price": amount_json(bid.cost.base_minor),
        **_cost_json(bid.cost),
        **_terms_json(bid.terms),
        "status": "expired" if waiting and bid.valid_until_ms <= now_ms else bid.state.value,
        "reason": bid.reason,
        "made_at": format_timestamp(bid.made_at_ms),
        "valid_until": format_timestamp(bid.valid_until_ms),
        "updated_at": format_timestamp(bid.changed_at_ms),
    }
    if bid.stale_signals:
        shown["stale_signals"] = True
    return shown


def _cost_json(cost: LoopCost | None) -> dict[str, Any]:
    if cost is None:
        return {"loop_cost": None, "breakdown": None}
    return {"loop_cost": amount_json(cost.total_minor), "breakdown": cost.breakdown_json()}


def _terms_json(terms: Terms) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    if terms.quantity is not None:
        stated |= {"quantity": terms.quantity.value, "unit": terms.quantity.unit}
    if terms.distance_km is not None:
        stated["distance_km"] = terms.distance_km
    return stated
