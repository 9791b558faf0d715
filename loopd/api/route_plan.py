"""`/api/v1/route/plan`: many batches and many demands at once."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.loopcost import AMOUNT, BREAKDOWN, DISTANCE, NODE_ID, NODE_IDS, SUBJECT_ID
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, RateClass, Route, Scope, Success
from loopd.api.wanted import LOCATION, WISH
from loopd.protocol.limits import PLAN_SIDE_MAX
from loopd.protocol.vocabulary import UNITS
from loopd.routing.plans import Plans

_ID: Final = {"type": "string", "minLength": 1, "maxLength": 200}
_BATCH: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "material": {**SUBJECT_ID, "description": "A material of this node, or heard of; nothing else beside it."},
        "product": {**SUBJECT_ID, "description": "The same for a product."},
        "id": {**_ID, "description": "Of one that is stated here: how the answer names it."},
        "category": {"type": "string", "maxLength": 40},
        "product_category": {"type": "string", "maxLength": 40},
        "quantity": {"type": "number", "minimum": 0},
        "unit": {"type": "string", "enum": list(UNITS)},
        "asking_price": {**AMOUNT, "description": "For all of it; nothing is asked if absent."},
        "origin": {**NODE_ID, "description": "This node if absent."},
        "location": LOCATION,
    },
}
_DEMAND: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "wanted": {**_ID, "description": "A demand that is registered, or that a peer told; its `node` beside it."},
        "node": {**NODE_ID, "description": "Whose it is; this node's if absent."},
        "id": {**_ID, "description": "Of one that is stated here: how the answer names it."},
        **WISH,
    },
}
_TASK: Final = RequestForm(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "batches": {
                "type": "array",
                "maxItems": PLAN_SIDE_MAX,
                "items": _BATCH,
                "description": "What there is; all that this node offers if absent, the newest of it.",
            },
            "demands": {
                "type": "array",
                "maxItems": PLAN_SIDE_MAX,
                "items": _DEMAND,
                "description": "What is looked for; all that is, here and at peers, if absent, the oldest of it.",
            },
        },
    }
)
_NAME: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["node", "id"],
    "properties": {"node": NODE_ID, "id": {"type": "string"}},
}
_NAMES: Final = {"type": "array", "items": _NAME}
_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["assignment", "served", "loop_cost", "unserved", "unused", "in_turn", "saves"],
    "properties": {
        "assignment": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["batch", "demand", "quantity", "unit", "loop_cost", "breakdown", "distance_km"],
                "properties": {
                    "batch": _NAME,
                    "demand": _NAME,
                    "quantity": {"type": "number"},
                    "unit": {"type": "string"},
                    "loop_cost": AMOUNT,
                    "breakdown": BREAKDOWN,
                    "distance_km": DISTANCE,
                },
            },
        },
        "served": {"type": "integer"},
        "loop_cost": {**AMOUNT, "description": "Of all that are served."},
        "unserved": _NAMES,
        "unused": _NAMES,
        "in_turn": {
            "type": "object",
            "description": "What it would come to if each demand in turn took the cheapest batch that is left.",
            "properties": {"served": {"type": "integer"}, "loop_cost": AMOUNT},
        },
        "saves": {
            "type": "object",
            "description": "How many more are served; where that is none, how much less it costs.",
            "properties": {"served": {"type": "integer"}, "loop_cost": {"type": ["number", "null"]}},
        },
        "signals_unknown": {**NODE_IDS, "description": "What is theirs was left out: their signals are not known."},
        "location_unknown": {**NODE_IDS, "description": "The same: it is not known where they are."},
    },
}


class RoutePlanRoutes:
    """The best assignment."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/route/plan",
                handler=self.plan,
                noun="Routing",
                summary="Assign many batches to many demands",
                description="One batch to one demand: as many as can be served and, of all such choices, the one that "
                "costs the least LoopCost. A pair may meet where category, quantity, price (what is asked, pro rata) "
                "and radius fit. Made in a process of its own, one plan at a time. Changes nothing.",
                access=Scope.OFFER_WRITE,
                rate=RateClass.SEARCH,
                body=Body.OPTIONAL,
                request_schema=_TASK.schema,
                successes={200: Success(description="The assignment, and what it saves.", schema=_ANSWER)},
                refusals={
                    400: (
                        "bad_subject",
                        "bad_demand",
                        "bad_quantity",
                        "bad_amount",
                        "bad_radius",
                        "unknown_category",
                        "named_twice",
                        "too_dear",
                    ),
                    404: ("unknown_material", "unknown_product", "unknown_demand"),
                    409: ("not_available",),
                    503: ("plan_unavailable", "plan_busy", "plan_timeout"),
                },
            )
        ]

    async def plan(self, request: Request) -> Answer:
        return json_answer(await self._plans.plan(_TASK.read(request.body)))
