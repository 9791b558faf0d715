"""`/api/v1/federate/mirror`: what one node alone decides, told to the others that it concerns."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from loopd.api.answers import Answer, json_answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, AcceptOnce, accepted
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Access, Body, QueryParameter, RateClass, Route, Success
from loopd.database import Database, Tx
from loopd.exchange.mirror_rules import UPDATE_TYPE
from loopd.exchange.mirror_telling import MirrorPage, MirrorTelling
from loopd.exchange.views import MIRROR_PATH
from loopd.protocol.documents import Document, check_document
from loopd.protocol.errors import NotFound
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import REVISION_MAX

# What takes a document of one type from the node of that id.
Taker = Callable[[Tx, str, Document], object]

_AFTER: Final = QueryParameter(
    name="after",
    description="What the page begins after; taken from `next` of the page before.",
    kind=int,
    default=0,
    minimum=0,
    maximum=REVISION_MAX,
    reason="bad_cursor",
)


class FederateMirrorRoutes:
    """Takes what other nodes decide, by the document's type, and tells again what this one decided."""

    def __init__(
        self,
        takers: Mapping[str, Taker],
        telling: MirrorTelling,
        database: Database,
        accept_once: AcceptOnce,
    ) -> None:
        self._takers = takers
        self._telling = telling
        self._database = database
        self._accept_once = accept_once

    def routes(self) -> list[Route]:
        return [self._receive_route(), self._newest_route(), self._versions_route()]

    def _receive_route(self) -> Route:
        return Route(
            method="POST",
            path=MIRROR_PATH,
            handler=self.receive,
            noun="Federation",
            summary="Tell what the sender alone decides, or ask for it",
            description="For nodes that name `mirror` in their handshake. A BidStatus tells what became of a bid, a "
            "BidWithdrawal that its bidder takes it back. A "
            "MirrorUpdate is one version of an Offer, Match, Transfer or transaction, told by the seller's node to the "
            "other side; a version that is not newer changes nothing and is answered 202 as well, and one before which "
            "others are missing has them fetched. A StatusRequest asks the seller's node for a status. A "
            "LoopSignalConfig is the sender's own, as it publishes it. A LoopDemand is what the sender's city looks "
            "for, told by a peer to one that names `wanted`.",
            access=Access.NODE,
            rate=RateClass.NODE,
            body=Body.REQUIRED,
            request_schema={"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in sorted(self._takers)]},
            successes={202: ACCEPTED},
            refusals={
                400: (
                    *DOCUMENT_REFUSALS,
                    "origin_mismatch",
                    "not_counterpart",
                    "other_content",
                    "document_mismatch",
                    "bad_version",
                    "bad_status",
                    "bad_signal",
                    "bad_time",
                    "unknown_category",
                    "bad_quantity",
                    "bad_amount",
                    "bad_radius",
                ),
                403: ("owner_decides", "not_a_peer"),
                404: ("unknown_offer", "unknown_mirror"),
                409: ("transition", "terminal", "in_transfer", "fulfilled", "part_exists"),
                503: ("too_many_mirrored",),
            },
        )

    def _newest_route(self) -> Route:
        return Route(
            method="GET",
            path=MIRROR_PATH,
            handler=self.newest,
            noun="Federation",
            summary="List what the caller was told",
            description="The newest version of each Offer, Match, Transfer and transaction that this node told the "
            "calling one, in the order of telling: to find what got lost.",
            access=Access.NODE,
            rate=RateClass.NODE,
            query=(_AFTER, LIMIT),
            successes={200: Success(description="One page.", schema=_page_schema(_ENTRY))},
        )

    def _versions_route(self) -> Route:
        return Route(
            method="GET",
            path=f"{MIRROR_PATH}/{{entity}}/{{id}}",
            handler=self.versions,
            noun="Federation",
            summary="Tell versions again",
            description="The versions after one that the calling node was told of an entity, as MirrorUpdates. Nobody "
            "else may read them. A page of large documents may hold fewer than `limit`.",
            access=Access.NODE,
            rate=RateClass.NODE,
            query=(_AFTER, LIMIT),
            successes={
                200: Success(
                    description="One page.", schema=_page_schema({"$ref": f"#/components/schemas/{UPDATE_TYPE}"})
                )
            },
            refusals={404: ("unknown_mirror",)},
        )

    async def receive(self, request: Request) -> Answer:
        caller, document = request.node, check_document(request.body, frozenset(self._takers))

        def effect(tx: Tx) -> None:
            self._takers[document.type](tx, caller.node_id, document)

        return accepted(await self._accept_once(request, effect))

    async def newest(self, request: Request) -> Answer:
        page = await self._telling.newest(self._database, request.node.node_id, request.integer("after"), request.limit)
        return _page_answer(request, page)

    async def versions(self, request: Request) -> Answer:
        name, entity_id = request.parameters["entity"], request.parameters["id"]
        entity = next((each for each in MirroredEntity if each.value == name), None)
        if entity is None:
            raise NotFound("unknown_mirror", "Mirrored are offers, matches, transfers and transactions.")
        page = await self._telling.versions(
            self._database, request.node.node_id, entity, entity_id, request.integer("after"), request.limit
        )
        return _page_answer(request, page)


def _page_answer(request: Request, page: MirrorPage) -> Answer:
    following = None
    if page.after is not None:
        following = f"{request.path}?{urlencode({'after': page.after, 'limit': request.limit})}"
    return json_answer({"results": page.results, "next": following})


_ENTRY: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["number", "entity", "id", "version"],
    "properties": {
        "number": {"type": "integer", "minimum": 1, "description": "Its place in the list; rises with each telling."},
        "entity": {"enum": [entity.value for entity in MirroredEntity]},
        "id": {"type": "string"},
        "version": {"type": "integer", "minimum": 1},
    },
}


def _page_schema(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "type": "object",
        "required": ["results", "next"],
        "properties": {
            "results": {"type": "array", "items": entry},
            "next": {"type": ["string", "null"]},
        },
    }
