"""`/api/v1/mirror`: the deals of this city whose seller is another node, as that node decided, and wishes to it."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from loopd.api.answers import Answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, QueryParameter, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.exchange.mirror_requests import StatusRequests
from loopd.exchange.mirror_rules import EntityKey, RequestState
from loopd.exchange.mirroring import Mirroring
from loopd.protocol.documents import refuse_personal_data
from loopd.protocol.errors import NotFound
from loopd.protocol.lifecycle import MirroredEntity

_PATH: Final = "/api/v1/mirror"
_NOUN: Final = "Mirror"
_REASON_MAX_CHARACTERS: Final = 280

_CURSOR: Final = QueryParameter(
    name="cursor",
    description="Where the page begins; taken from `next` of the page before.",
    kind=int,
    minimum=1,
    reason="bad_cursor",
)
_ENTITY: Final = QueryParameter(
    name="entity",
    description="Only offers, matches, transfers or transactions.",
    choices=tuple(entity.value for entity in MirroredEntity),
    reason="unknown_entity",
)
_NODE: Final = QueryParameter(name="node", description="Only what this node decides.", max_characters=253)

_MOMENT: Final = {"type": "string", "format": "date-time"}
_REQUEST: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "status", "reason", "state", "answer", "asked_at", "changed_at"],
    "properties": {
        "id": {"type": "string"},
        "status": {"type": "string", "description": "The status that was asked for."},
        "reason": {"type": ["string", "null"]},
        "state": {"enum": [state.value for state in RequestState]},
        "answer": {"type": ["string", "null"], "description": "The word in which the seller's node refused."},
        "asked_at": _MOMENT,
        "changed_at": _MOMENT,
    },
}
_MIRRORED: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["node", "entity", "id", "version", "status", "updated_at", "received_at", "document", "request"],
    "properties": {
        "node": {"type": "string", "description": "The seller's node, which alone decides."},
        "entity": {"enum": [entity.value for entity in MirroredEntity]},
        "id": {"type": "string"},
        "version": {"type": "integer", "minimum": 1},
        "status": {"type": "string"},
        "updated_at": _MOMENT,
        "received_at": _MOMENT,
        "document": {"type": "object", "description": "The Offer, Match, Transfer or MaterialTransaction."},
        "request": {"description": "The last wish of this node, or null.", "oneOf": [_REQUEST, {"type": "null"}]},
    },
}
_WISH: Final = RequestForm(
    {
        "type": "object",
        "required": ["status"],
        "additionalProperties": False,
        "properties": {
            "status": {"type": "string", "description": "The status that is wished for."},
            "reason": {"type": "string", "maxLength": _REASON_MAX_CHARACTERS},
        },
    }
)


class MirrorRoutes:
    """Reads what other nodes decided, and asks them."""

    def __init__(self, mirroring: Mirroring, requests: StatusRequests, database: Database, write: Write) -> None:
        self._mirroring = mirroring
        self._requests = requests
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        one = f"{_PATH}/{{node}}/{{entity}}/{{id}}"
        return [
            Route(
                method="GET",
                path=_PATH,
                handler=self.page,
                noun=_NOUN,
                summary="List what other nodes decided on deals with this city",
                description="Offers, matches, transfers and transactions whose seller is another node, as that node "
                "told them last; those first heard of last come first. `next` is the path of the page that follows.",
                query=(LIMIT, _ENTITY, _NODE, _CURSOR),
                successes={200: Success(description="One page.", schema=_page_schema())},
            ),
            Route(
                method="GET",
                path=one,
                handler=self.read,
                noun=_NOUN,
                summary="Read an Offer, Match, Transfer or transaction of another node",
                successes={200: Success(description="As it was told last.", schema=_MIRRORED)},
                refusals={404: ("unknown_mirror",)},
            ),
            Route(
                method="POST",
                path=f"{one}/status",
                handler=self.ask,
                noun=_NOUN,
                summary="Ask the seller's node for a status",
                description="A buyer may reject a Match that is proposed or let go of one that is accepted "
                "(`expired`), acknowledge a Transfer that is under way (`completed`), cancel a transaction while it "
                "is pending, and dispute one that is not over. The seller's node decides: its answer shows as "
                "`request`, and what it changed as a new version.",
                access=Scope.OFFER_WRITE,
                body=Body.REQUIRED,
                request_schema=_WISH.schema,
                successes={202: Success(description="The wish is on its way.", schema=_REQUEST)},
                refusals={
                    400: ("bad_status", "personal_data"),
                    403: ("owner_decides",),
                    404: ("unknown_mirror",),
                    409: ("terminal", "transition", "already_asked"),
                },
            ),
        ]

    async def page(self, request: Request) -> Answer:
        entity, node_id = request.text("entity"), request.text("node")
        before = None if request.query["cursor"] is None else request.integer("cursor")
        chosen = None if entity is None else MirroredEntity(entity)
        page = await self._mirroring.page(self._database, request.limit, before, chosen, node_id)
        following = None
        if page.before is not None:
            query = {"limit": request.limit, "entity": entity, "node": node_id, "cursor": page.before}
            following = f"{_PATH}?{urlencode({name: value for name, value in query.items() if value is not None})}"
        return json_answer({"results": page.results, "next": following})

    async def read(self, request: Request) -> Answer:
        return json_answer(self._mirroring.view(self._database.points, _key(request)))

    async def ask(self, request: Request) -> Answer:
        key, wish = _key(request), _WISH.read(request.body)
        refuse_personal_data(wish)

        def unit(tx: Tx) -> Answer:
            return json_answer(self._requests.ask(tx, key, wish["status"], wish.get("reason")), 202)

        return await self._write(request, unit)


def _key(request: Request) -> EntityKey:
    name = request.parameters["entity"]
    entity = next((each for each in MirroredEntity if each.value == name), None)
    if entity is None:
        raise NotFound("unknown_mirror", "Mirrored are offers, matches, transfers and transactions.")
    return EntityKey(request.parameters["node"], entity, request.parameters["id"])


def _page_schema() -> Mapping[str, Any]:
    return {
        "type": "object",
        "required": ["results", "next"],
        "properties": {
            "results": {"type": "array", "items": _MIRRORED},
            "next": {"type": ["string", "null"]},
        },
    }
