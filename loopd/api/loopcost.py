"""`/api/v1/loopcost`: what something costs elsewhere (§7)."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, RateClass, Route, Success
from loopd.protocol.limits import DISTANCE_MAX_KM, LOOP_COST_DESTINATIONS_MAX
from loopd.protocol.vocabulary import DEFAULT_SIGNAL, MATERIAL_CATEGORIES
from loopd.routing.service import Routing

AMOUNT: Final = {"type": "number", "minimum": 0, "description": "LC, at most two decimals."}
NODE_ID: Final = {"type": "string", "pattern": r"^[a-z0-9\-]+\.loop$", "maxLength": 253}
SUBJECT_ID: Final = {"type": "string", "minLength": 1, "maxLength": 200}
DISTANCE: Final = {"type": "number", "minimum": 0, "maximum": int(DISTANCE_MAX_KM)}
NODE_IDS: Final = {"type": "array", "items": NODE_ID}
BREAKDOWN: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["base", "export", "import", "distance"],
    "properties": dict.fromkeys(("base", "export", "import", "distance"), AMOUNT),
}
ORIGIN: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["node", "location", "signal", "stale_signals"],
    "properties": {
        "node": NODE_ID,
        "location": {"type": "object"},
        "signal": {"type": "number", "description": "What its city charges for letting the category go."},
        "stale_signals": {"type": "boolean"},
    },
}
_QUESTION: Final = RequestForm(
    {
        "type": "object",
        "required": ["base_price"],
        "additionalProperties": False,
        "properties": {
            "base_price": {**AMOUNT, "description": "LC of the seller's node; two decimals."},
            "material": {**SUBJECT_ID, "description": "A material of this node, or heard of; gives origin, category."},
            "product": {**SUBJECT_ID, "description": "The same for a product."},
            "category": {
                "type": "string",
                "enum": [*MATERIAL_CATEGORIES, DEFAULT_SIGNAL],
                "description": "Without a subject: whose signal counts. Products, and what is absent: `default`.",
            },
            "origin": {**NODE_ID, "description": "Without a subject: where it comes from; this node if absent."},
            "destination": {**NODE_ID, "description": "Where it goes; this node if absent."},
            "distance_km": {**DISTANCE, "description": "The way to `destination`, not below the great circle."},
            "destinations": {
                "type": "array",
                "minItems": 1,
                "maxItems": LOOP_COST_DESTINATIONS_MAX,
                "items": {
                    **NODE_ID,
                    "type": ["string", "object"],
                    "required": ["node"],
                    "additionalProperties": False,
                    "properties": {"node": NODE_ID, "distance_km": DISTANCE},
                },
            },
        },
    }
)
_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["base_price", "category", "origin", "results", "signals_unknown", "location_unknown"],
    "properties": {
        "base_price": AMOUNT,
        "category": {"type": "string"},
        "origin": ORIGIN,
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node", "loop_cost", "breakdown", "distance_km", "stale_signals"],
                "properties": {
                    "node": NODE_ID,
                    "loop_cost": AMOUNT,
                    "breakdown": BREAKDOWN,
                    "distance_km": DISTANCE,
                    "stale_signals": {"type": "boolean", "description": "A city's signals expired; none newer known."},
                },
            },
        },
        "signals_unknown": {**NODE_IDS, "description": "Destinations whose signals are not known here."},
        "location_unknown": {**NODE_IDS, "description": "Destinations of which it is not known where they are."},
    },
}


class LoopCostRoutes:
    """The calculator."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/loopcost",
                handler=self.compute,
                noun="Routing",
                summary="Compute what a price comes to elsewhere",
                description="Base price, both cities' signals and the way (§7), each rounded half-even to 0.01; inside "
                "one city the base price alone. Signals that this node lacks are fetched in the background: ask again.",
                rate=RateClass.SEARCH,
                body=Body.REQUIRED,
                request_schema=_QUESTION.schema,
                example='{"base_price": 60, "category": "organic-food", "destination": "vienna.loop", '
                '"distance_km": 400}',
                successes={200: Success(description="The cost of each destination, as asked.", schema=_ANSWER)},
                refusals={
                    400: (
                        "bad_amount",
                        "bad_subject",
                        "bad_destination",
                        "bad_distance",
                        "distance_below_great_circle",
                    ),
                    404: ("unknown_material", "unknown_product", "unknown_node"),
                    409: ("signals_unknown", "location_unknown"),
                },
            )
        ]

    async def compute(self, request: Request) -> Answer:
        return json_answer(await self._routing.loop_costs(_QUESTION.read(request.body)))
