"""Routing's answers, as JSON values."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from loopd.protocol.loopcost import LoopCost
from loopd.protocol.money import amount_json
from loopd.routing.atlas import Departure
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
    return Decimal(format((Decimal(metres) / METRES_PER_KM).normalize(), "f"))


def _degrees(degrees: float) -> Decimal:
    return Decimal(repr(degrees))
