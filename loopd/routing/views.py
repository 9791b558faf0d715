"""Routing's answers, as JSON values."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from loopd.protocol.limits import UNRANKED_NAMED_MAX
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.money import amount_json
from loopd.protocol.timestamps import format_timestamp
from loopd.routing.atlas import Departure
from loopd.routing.demand_tables import Match
from loopd.routing.demands import CATEGORY_KEYS, TYPE, Demand, Supply
from loopd.routing.ladder import Rung
from loopd.routing.planning import Pair, Plan
from loopd.routing.route import Page, Question
from loopd.routing.rules import METRES_PER_KM, Costed
from loopd.signals.rules import SignalReading, signal_json


def loop_costs_json(
    base_minor: int,
    category: str,
    departure: Departure,
    export: SignalReading,
    costed: Sequence[Costed],
    signals_unknown: Sequence[str],
    location_unknown: Sequence[str],
) -> dict[str, Any]:
    """What a price comes to at each destination, and of which ones it cannot be told."""
    return {
        "base_price": amount_json(base_minor),
        "category": category,
        "origin": origin_json(departure, export),
        "results": [
            {
                "node": each.node_id,
                **cost_json(each.cost),
                "distance_km": each.distance_km,
                "stale_signals": each.stale_signals or (export.stale and each.node_id != departure.node_id),
            }
            for each in costed
        ],
        "signals_unknown": list(signals_unknown),
        "location_unknown": list(location_unknown),
    }


def route_json(question: Question, page: Page, now_ms: int) -> dict[str, Any]:
    """A page of a route, without its `next`. Of the nodes that cannot be ranked the first are named."""
    return {
        question.kind.value: question.subject_id,
        "category": question.category,
        "base_price": amount_json(question.base_minor),
        "origin": origin_json(question.departure, question.export),
        "ladder": [_rung_json(rung) for rung in page.ladder],
        "results": [
            {
                "rank": entry.rank,
                "node": entry.node_id,
                **cost_json(entry.cost),
                "distance_km": km_json(entry.metres),
                "ring": entry.ring,
                "stale_signals": entry.stale_signals,
                "wanted": [demand_json(demand, now_ms) for demand in entry.demands],
            }
            for entry in page.entries
        ],
        "total": page.total,
        "signals_unknown": _some(page.signals_unknown),
        "location_unknown": _some(page.location_unknown),
    }


def _rung_json(rung: Rung) -> dict[str, Any]:
    return {
        "ring": rung.ring,
        "radius_km": rung.radius_km,
        "open": rung.open,
        "opens_at": None if rung.opens_at_ms is None else format_timestamp(rung.opens_at_ms),
        "destinations": rung.destinations,
        "wanting": rung.wanting,
        "lowest_loop_cost": None if rung.lowest is None else amount_json(rung.lowest[0]),
    }


def _some(node_ids: Sequence[str]) -> dict[str, Any]:
    return {"count": len(node_ids), "nodes": list(node_ids[:UNRANKED_NAMED_MAX])}


def origin_json(departure: Departure, export: SignalReading) -> dict[str, Any]:
    """Where something begins, and what its city charges for letting it go."""
    return {
        "node": departure.node_id,
        "location": {"lat": _degrees(departure.location.lat), "lon": _degrees(departure.location.lon)},
        "signal": signal_json(export.basis_points),
        "stale_signals": export.stale,
    }


def cost_json(cost: LoopCost) -> dict[str, Any]:
    """The total with its components, in LC."""
    return {"loop_cost": amount_json(cost.total_minor), "breakdown": cost.breakdown_json()}


def km_json(metres: int) -> Decimal:
    """Whole metres in kilometres, without needless zeros: `355.861`."""
    return _plain(Decimal(metres) / METRES_PER_KM)


def plan_json(
    supplies: Sequence[Supply],
    demands: Sequence[Demand],
    plan: Plan,
    signals_unknown: Sequence[str],
    location_unknown: Sequence[str],
) -> dict[str, Any]:
    """An assignment, its totals, and what it saves over serving each demand in turn.

    The first of `supplies` and `demands` are those of the plan, in its order.
    """
    cost_minor = sum(pair.cost.total_minor for pair in plan.pairs)
    more = len(plan.pairs) - plan.served_in_turn
    served = {pair.need for pair in plan.pairs}
    used = {pair.batch for pair in plan.pairs}
    return {
        "assignment": [_pair_json(supplies[pair.batch], demands[pair.need], pair) for pair in plan.pairs],
        "served": len(plan.pairs),
        "loop_cost": amount_json(cost_minor),
        "unserved": [_named(each) for index, each in enumerate(demands) if index not in served],
        "unused": [_named_supply(each) for index, each in enumerate(supplies) if index not in used],
        "in_turn": {"served": plan.served_in_turn, "loop_cost": amount_json(plan.cost_in_turn)},
        # Where more are served there is no cost to compare with.
        "saves": {"served": more, "loop_cost": None if more else amount_json(plan.cost_in_turn - cost_minor)},
        "signals_unknown": list(signals_unknown),
        "location_unknown": list(location_unknown),
    }


def _pair_json(supply: Supply, demand: Demand, pair: Pair) -> dict[str, Any]:
    return {
        "batch": _named_supply(supply),
        "demand": _named(demand),
        "quantity": demand.quantity.value,
        "unit": demand.quantity.unit,
        **cost_json(pair.cost),
        "distance_km": km_json(pair.metres),
    }


def _named(demand: Demand) -> dict[str, str]:
    return {"node": demand.node_id, "id": demand.demand_id}


def _named_supply(supply: Supply) -> dict[str, str]:
    return {"node": supply.node_id, "id": supply.subject_id}


def loop_demand(demand: Demand, context_url: str) -> dict[str, Any]:
    """The LoopDemand by which a peer is told: flow metadata, and nothing of who it is for."""
    return {
        "@context": context_url,
        "@type": TYPE,
        "schema_version": "0.2.0",
        "id": demand.demand_id,
        "node": demand.node_id,
        **_wish_json(demand),
        "status": demand.state.value,
        "version": demand.version,
        "issued_at": format_timestamp(demand.issued_at_ms),
        "valid_until": format_timestamp(demand.valid_until_ms),
    }


def demand_json(demand: Demand, now_ms: int, matches: Sequence[Match] | None = None) -> dict[str, Any]:
    """A demand as this node lists it, with what fits it where that is asked for."""
    shown: dict[str, Any] = {
        "id": demand.demand_id,
        "node": demand.node_id,
        "verified": demand.verified,
        **_wish_json(demand),
        "status": demand.state_at(now_ms).value,
        "issued_at": format_timestamp(demand.issued_at_ms),
        "valid_until": format_timestamp(demand.valid_until_ms),
    }
    if demand.wanted_by is not None:
        shown["wanted_by"] = demand.wanted_by
    if matches is not None:
        shown["matches"] = [
            {
                "node": match.node_id,
                match.kind.value: match.subject_id,
                "available": match.available and (match.ends_ms is None or now_ms < match.ends_ms),
                "matched_at": format_timestamp(match.matched_at_ms),
            }
            for match in matches
        ]
    return shown


def _wish_json(demand: Demand) -> dict[str, Any]:
    wish: dict[str, Any] = {
        CATEGORY_KEYS[demand.kind]: demand.pattern,
        "quantity": demand.quantity.value,
        "unit": demand.quantity.unit,
    }
    if demand.max_price_minor is not None:
        wish["max_price"] = amount_json(demand.max_price_minor)
    if demand.radius_km is not None:
        wish["radius_km"] = _plain(demand.radius_km)
    if demand.location is not None:
        wish["location"] = {"lat": _degrees(demand.location.lat), "lon": _degrees(demand.location.lon)}
    return wish


def _degrees(degrees: float) -> Decimal:
    return Decimal(repr(degrees))


def _plain(number: Decimal) -> Decimal:
    """Without needless zeros, and not in scientific notation."""
    return Decimal(format(number.normalize(), "f"))
