"""`/api/v1/wanted`: what this city looks for, and what its peers do."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from loopd.api.answers import Answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.loopcost import AMOUNT
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, QueryParameter, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.protocol.limits import BID_MAX_VALIDITY_S, DEMAND_RADIUS_MAX_KM
from loopd.protocol.vocabulary import UNITS
from loopd.routing.demands import DemandState
from loopd.routing.wanted import Wanted

_MOMENT: Final = {"type": "string", "format": "date-time"}
_PATTERN: Final = {"type": "string", "maxLength": 41}
LOCATION: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["lat", "lon"],
    "additionalProperties": False,
    "properties": {
        "lat": {"type": "number", "minimum": -90, "maximum": 90},
        "lon": {"type": "number", "minimum": -180, "maximum": 180},
    },
}
WISH: Final[Mapping[str, Any]] = {
    "category": {**_PATTERN, "description": "A category of materials, or the beginning of some and `*`."},
    "product_category": {**_PATTERN, "description": "The same of products; one of the two."},
    "quantity": {"type": "number", "exclusiveMinimum": 0, "description": "How much is needed; less does not fit."},
    "unit": {"type": "string", "enum": list(UNITS)},
    "max_price": {**AMOUNT, "description": "The most that is paid for all of it, before penalties and the way."},
    "radius_km": {"type": "number", "exclusiveMinimum": 0, "maximum": int(DEMAND_RADIUS_MAX_KM)},
    "location": {**LOCATION, "description": "Where it is needed, kept to 0.01°; where this node is if absent."},
}
_NEW: Final = RequestForm(
    {
        "type": "object",
        "required": ["quantity", "unit"],
        "additionalProperties": False,
        "properties": {
            **WISH,
            "wanted_by": {
                "type": "string",
                "description": "The business of this city that it is for: 2 to 80 of a-z, 0-9 and -; never told.",
            },
            "valid_until": _MOMENT,
            "valid_for_s": {"type": "integer", "minimum": 1, "maximum": BID_MAX_VALIDITY_S},
        },
    }
)
_CLOSE: Final = RequestForm(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {"status": {"type": "string", "enum": ["fulfilled", "withdrawn"]}},
    }
)
DEMAND: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "node", "quantity", "unit", "status", "issued_at", "valid_until"],
    "properties": {
        "id": {"type": "string"},
        "node": {"type": "string"},
        "verified": {"type": "boolean", "description": "Whether its node's signature held."},
        **WISH,
        "status": {"type": "string", "enum": [state.value for state in DemandState]},
        "issued_at": _MOMENT,
        "valid_until": _MOMENT,
        "matches": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node", "available", "matched_at"],
                "properties": {
                    "node": {"type": "string"},
                    "material": {"type": "string"},
                    "product": {"type": "string"},
                    "available": {"type": "boolean", "description": "Whether it can still be had."},
                    "matched_at": _MOMENT,
                },
            },
        },
    },
}
_CURSOR: Final = QueryParameter(
    name="cursor",
    description="Where the page begins; taken from `next` of the page before.",
    kind=int,
    minimum=1,
    reason="bad_cursor",
)
_NEWEST: Final = 2**63 - 1


class WantedRoutes:
    """Register, read, list and close demand."""

    def __init__(self, wanted: Wanted, database: Database, write: Write) -> None:
        self._wanted = wanted
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        demand = Success(description="The demand, with what fits it.", schema=DEMAND)
        page = {
            "type": "object",
            "required": ["results", "next"],
            "properties": {"results": {"type": "array", "items": DEMAND}, "next": {"type": ["string", "null"]}},
        }
        scope = QueryParameter(
            name="scope",
            description="What this city looks for, or what its peers do.",
            choices=("local", "federation"),
            default="local",
            reason="bad_scope",
        )
        status = QueryParameter(
            name="status",
            description="Only demand that stands so.",
            choices=tuple(state.value for state in DemandState),
            reason="bad_status",
        )
        return [
            Route(
                method="POST",
                path="/api/v1/wanted",
                handler=self.register,
                noun="Wanted",
                summary="Look for something",
                description="Compared at once with what there is here and what was heard, and from then on with all "
                "that is registered or announced; each match is an event, `wanted.matched`. Peers inside the radius "
                "are told of it, without `wanted_by`. Without an end it stands for 30 days.",
                access=Scope.OFFER_WRITE,
                body=Body.REQUIRED,
                request_schema=_NEW.schema,
                example='{"category": "organic-*", "quantity": 200, "unit": "kg", "max_price": 40, "radius_km": 500}',
                successes={201: demand},
                refusals={
                    400: (
                        "unknown_category",
                        "bad_quantity",
                        "bad_amount",
                        "bad_radius",
                        "bad_business",
                        "bad_time",
                        "expired",
                    ),
                    503: ("too_many_demands",),
                },
            ),
            Route(
                method="GET",
                path="/api/v1/wanted",
                handler=self.page,
                noun="Wanted",
                summary="List demand, newest first",
                access=Scope.OFFER_WRITE,
                query=(LIMIT, scope, status, _CURSOR),
                successes={200: Success(description="One page, without matches.", schema=page)},
            ),
            Route(
                method="GET",
                path="/api/v1/wanted/{id}",
                handler=self.read,
                noun="Wanted",
                summary="Read a demand of this city with its matches",
                access=Scope.OFFER_WRITE,
                successes={200: demand},
                refusals={404: ("unknown_demand",)},
            ),
            Route(
                method="POST",
                path="/api/v1/wanted/{id}/close",
                handler=self.close,
                noun="Wanted",
                summary="Look for something no longer",
                description="`fulfilled` if somebody served it, else `withdrawn`, which it is if nothing is said. "
                "Peers are told. The same again changes nothing.",
                access=Scope.OFFER_WRITE,
                body=Body.OPTIONAL,
                request_schema=_CLOSE.schema,
                successes={200: demand},
                refusals={404: ("unknown_demand",), 409: ("terminal",)},
            ),
        ]

    async def register(self, request: Request) -> Answer:
        value = _NEW.read(request.body)

        def unit(tx: Tx) -> Answer:
            demand = self._wanted.register(tx, value)
            return json_answer(demand, 201, {"Location": f"/api/v1/wanted/{demand['id']}"})

        return await self._write(request, unit)

    async def page(self, request: Request) -> Answer:
        limit, scope, status = request.limit, request.text("scope"), request.text("status")
        before = _NEWEST if request.query["cursor"] is None else request.integer("cursor")
        state = None if status is None else DemandState(status)
        results, cursor = await self._wanted.page(self._database, scope == "local", state, before, limit)
        following = None
        if cursor is not None:
            query = {"limit": limit, "scope": scope, "status": status, "cursor": cursor}
            stated = urlencode({key: value for key, value in query.items() if value is not None})
            following = f"/api/v1/wanted?{stated}"
        return json_answer({"results": results, "next": following})

    async def read(self, request: Request) -> Answer:
        return json_answer(self._wanted.show(self._database.points, request.parameters["id"]))

    async def close(self, request: Request) -> Answer:
        state = DemandState(_CLOSE.read(request.body).get("status", DemandState.WITHDRAWN))

        def unit(tx: Tx) -> Answer:
            return json_answer(self._wanted.close(tx, request.parameters["id"], state))

        return await self._write(request, unit)
