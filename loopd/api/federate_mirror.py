"""`/api/v1/federate/mirror`: what other nodes decided on this node's bids there."""

from loopd.api.answers import Answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, AcceptOnce, accepted
from loopd.api.requests import Request
from loopd.api.routes import Access, Body, RateClass, Route
from loopd.database import Tx
from loopd.exchange.service import Exchange
from loopd.exchange.views import STATUS_TYPE
from loopd.protocol.documents import check_document


class FederateMirrorRoutes:
    """Takes BidStatus documents; of what another node alone decides, this one keeps a mirror."""

    def __init__(self, exchange: Exchange, accept_once: AcceptOnce) -> None:
        self._exchange = exchange
        self._accept_once = accept_once

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/federate/mirror",
                handler=self.receive,
                noun="Federation",
                summary="Tell a bidder's node what became of its bid",
                description="For nodes that name `mirror` in their handshake. Only the node that the bid was made to "
                "may tell. A version that is not newer than the last changes nothing and is answered 202 as well.",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema=STATUS_TYPE,
                successes={202: ACCEPTED},
                refusals={
                    400: (*DOCUMENT_REFUSALS, "origin_mismatch"),
                    404: ("unknown_offer",),
                },
            )
        ]

    async def receive(self, request: Request) -> Answer:
        caller, document = request.node, check_document(request.body, STATUS_TYPE)

        def effect(tx: Tx) -> None:
            self._exchange.receive_status(tx, caller.node_id, document)

        return accepted(await self._accept_once(request, effect))
