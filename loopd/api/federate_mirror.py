"""`/api/v1/federate/mirror`: what other nodes alone decide: on this node's bids there, and on their own signals."""

from typing import Final

from loopd.api.answers import Answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, AcceptOnce, accepted
from loopd.api.requests import Request
from loopd.api.routes import Access, Body, RateClass, Route
from loopd.database import Tx
from loopd.exchange.service import Exchange
from loopd.exchange.views import STATUS_TYPE
from loopd.protocol.documents import check_document
from loopd.signals.rules import TYPE as SIGNALS_TYPE
from loopd.signals.service import Signals

_TYPES: Final = frozenset({STATUS_TYPE, SIGNALS_TYPE})
_SCHEMA: Final = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in sorted(_TYPES)]}


class FederateMirrorRoutes:
    """Takes BidStatus and LoopSignalConfig documents; of what another node alone decides, this one keeps a mirror."""

    def __init__(self, exchange: Exchange, signals: Signals, accept_once: AcceptOnce) -> None:
        self._exchange = exchange
        self._signals = signals
        self._accept_once = accept_once

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/federate/mirror",
                handler=self.receive,
                noun="Federation",
                summary="Tell what became of a bid, or new signals",
                description="For nodes that name `mirror` in their handshake. A BidStatus goes to the bidder's node, "
                "and only the node that the bid was made to may tell it. A version that is not newer than the last "
                "changes nothing and is answered 202 as well. A LoopSignalConfig is the sender's own, as it publishes "
                "it.",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema=_SCHEMA,
                successes={202: ACCEPTED},
                refusals={
                    400: (*DOCUMENT_REFUSALS, "origin_mismatch", "bad_signal", "bad_time"),
                    404: ("unknown_offer",),
                },
            )
        ]

    async def receive(self, request: Request) -> Answer:
        caller, document = request.node, check_document(request.body, _TYPES)

        def effect(tx: Tx) -> None:
            if document.type == SIGNALS_TYPE:
                self._signals.remember(tx, caller.node_id, document)
                return
            self._exchange.receive_status(tx, caller.node_id, document)

        return accepted(await self._accept_once(request, effect))
