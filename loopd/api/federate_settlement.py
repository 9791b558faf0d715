"""`/api/v1/federate/settlement`: how two nodes settle what one city's account pays to the other's."""

from typing import Final

from loopd.api.answers import Answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, AcceptOnce, accepted
from loopd.api.requests import Request
from loopd.api.routes import Access, Body, RateClass, Route
from loopd.database import Tx
from loopd.ledger.clearing.messages import MESSAGE_TYPES, SETTLEMENT_PATH
from loopd.ledger.clearing.service import Clearing
from loopd.protocol.documents import check_document

_SCHEMA: Final = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in sorted(MESSAGE_TYPES)]}


class FederateSettlementRoutes:
    """Takes the messages of settlements."""

    def __init__(self, clearing: Clearing, accept_once: AcceptOnce) -> None:
        self._clearing = clearing
        self._accept_once = accept_once

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path=SETTLEMENT_PATH,
                handler=self.receive,
                noun="Federation",
                summary="Settle a sale between two cities",
                description="For nodes that name `settlement` in their handshake and have a credit limit here. The "
                "seller's node sends a SettlementRequest at selection; the buyer's holds the money and sends a "
                "SettlementPrepare; the seller's reserves and sends a SettlementAnswer; at delivery it sends a "
                "SettlementInquiry that asks for `post`, the buyer's decides and sends a SettlementDecision, and the "
                "SettlementAcknowledgement ends it. Repeats are answered as the first was, by messages of this node.",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema=_SCHEMA,
                successes={202: ACCEPTED},
                refusals={
                    400: (*DOCUMENT_REFUSALS, "origin_mismatch", "not_counterpart", "bad_amount"),
                    403: ("not_settling",),
                    404: ("no_ledger",),
                    409: (
                        "other_content",
                        "not_decided",
                        "other_decision",
                        "already_prepared",
                        "not_prepared",
                        "unknown_settlement",
                    ),
                },
            )
        ]

    async def receive(self, request: Request) -> Answer:
        caller, document = request.node, check_document(request.body, MESSAGE_TYPES)

        def effect(tx: Tx) -> None:
            self._clearing.receive(tx, caller.node_id, document)

        return accepted(await self._accept_once(request, effect))
