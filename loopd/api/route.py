"""`/api/v1/route`: where a material or a product should go (§3.3, §7)."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from loopd.api.answers import Answer, json_answer
from loopd.api.loopcost import AMOUNT, BREAKDOWN, DISTANCE, NODE_ID, NODE_IDS, ORIGIN, SUBJECT_ID
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, QueryParameter, RateClass, Route, Scope, Success
from loopd.api.wanted import DEMAND
from loopd.protocol.limits import ROUTE_LIMIT_MAX
from loopd.routing.route import read_position
from loopd.routing.service import Routing

_QUESTION: Final = RequestForm(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "material": {**SUBJECT_ID, "description": "A material of this node, or heard of."},
            "product": {**SUBJECT_ID, "description": "The same for a product; one of the two."},
            "base_price": {**AMOUNT, "description": "LC of the seller's node; the asking price if absent."},
            "wanted_only": {"type": "boolean", "description": "Only destinations that look for it."},
        },
    }
)
_UNRANKED: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["count", "nodes"],
    "properties": {"count": {"type": "integer"}, "nodes": {**NODE_IDS, "description": "The first of them."}},
}
_RING: Final = {"type": ["integer", "null"], "description": "0 the own city, then ring by ring; null beyond the last."}
_RUNG: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["ring", "radius_km", "open", "opens_at", "destinations", "wanting", "lowest_loop_cost"],
    "properties": {
        "ring": _RING,
        "radius_km": {"type": ["number", "null"], "description": "Null is unbounded."},
        "open": {"type": ["boolean", "null"], "description": "Whether it is announced so far; null if not known."},
        "opens_at": {"type": ["string", "null"], "format": "date-time"},
        "destinations": {"type": "integer"},
        "wanting": {"type": "integer", "description": "How many of them look for it."},
        "lowest_loop_cost": {"type": ["number", "null"]},
    },
}
_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["category", "base_price", "origin", "ladder", "results", "total", "next"],
    "properties": {
        "category": {"type": "string", "description": "Whose signals count."},
        "base_price": AMOUNT,
        "origin": ORIGIN,
        "ladder": {"type": "array", "items": _RUNG, "description": "From the own city outwards."},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["rank", "node", "loop_cost", "breakdown", "distance_km", "ring", "stale_signals"],
                "properties": {
                    "rank": {"type": "integer"},
                    "node": NODE_ID,
                    "loop_cost": AMOUNT,
                    "breakdown": BREAKDOWN,
                    "distance_km": DISTANCE,
                    "ring": _RING,
                    "stale_signals": {"type": "boolean"},
                    "wanted": {"type": "array", "items": DEMAND, "description": "What it looks for that this fits."},
                },
            },
        },
        "total": {"type": "integer", "description": "How many are ranked."},
        "signals_unknown": {**_UNRANKED, "description": "Not ranked: their signals are not known here."},
        "location_unknown": {**_UNRANKED, "description": "Not ranked: it is not known where they are."},
        "next": {"type": ["string", "null"], "description": "Where to post the same body for the next page."},
    },
}


class RouteRoutes:
    """The ranking of destinations."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    def routes(self) -> list[Route]:
        limit = QueryParameter(
            name="limit",
            description="How many destinations the page holds at most.",
            kind=int,
            default=ROUTE_LIMIT_MAX,
            minimum=1,
            maximum=ROUTE_LIMIT_MAX,
            reason="bad_limit",
        )
        cursor = QueryParameter(
            name="cursor", description="Where the page begins; taken from `next`.", reason="bad_cursor"
        )
        return [
            Route(
                method="POST",
                path="/api/v1/route",
                handler=self.rank,
                noun="Routing",
                summary="Rank the destinations of a material or a product",
                description="All nodes that are known here, lowest LoopCost first, nearer first among equals, with "
                "what they look for; and the ladder of overflow: the own city, then ring by ring as announcements "
                "widen. Computed from published signals; expired ones are marked, and those that are due fetched "
                "in the background.",
                access=Scope.OFFER_WRITE,
                rate=RateClass.SEARCH,
                body=Body.REQUIRED,
                query=(limit, cursor),
                request_schema=_QUESTION.schema,
                example='{"material": "MAT-DE-MUC-2026-FOOD-B847F3", "base_price": 60}',
                successes={200: Success(description="One page.", schema=_ANSWER)},
                refusals={
                    400: ("bad_amount", "bad_subject", "no_price"),
                    404: ("unknown_material", "unknown_product", "unknown_node"),
                    409: ("signals_unknown", "location_unknown"),
                },
            )
        ]

    async def rank(self, request: Request) -> Answer:
        value, limit, cursor = _QUESTION.read(request.body), request.limit, request.text("cursor")
        after = None if cursor is None else read_position(cursor)
        page, following = await self._routing.route(value, after, limit)
        query = None if following is None else urlencode({"limit": limit, "cursor": following.text()})
        return json_answer({**page, "next": None if query is None else f"{request.path}?{query}"})
