"""`/api/v1/federate/offer`: other nodes' bids on what this node has (§8.2)."""

from loopd.api.answers import Answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, AcceptOnce, accepted
from loopd.api.requests import Request
from loopd.api.routes import Access, Body, RateClass, Route
from loopd.database import Tx
from loopd.exchange.service import Exchange
from loopd.exchange.views import OFFER_TYPE
from loopd.protocol.documents import check_document


class FederateOfferRoutes:
    """Takes MaterialOffers."""

    def __init__(self, exchange: Exchange, accept_once: AcceptOnce) -> None:
        self._exchange = exchange
        self._accept_once = accept_once

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/federate/offer",
                handler=self.receive,
                noun="Federation",
                summary="Bid on a material or a product of this node",
                description="`base_price` is in this node's LC, for `quantity` (in `unit`) or, without it, for all. "
                "One bid of a node on a subject is live: a newer one replaces it. This node computes the LoopCost "
                "itself, and ranks by its own figure. `from` is the node that signs.",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema=OFFER_TYPE,
                successes={202: ACCEPTED},
                refusals={
                    400: (
                        *DOCUMENT_REFUSALS,
                        "origin_mismatch",
                        "not_available",
                        "expired",
                        "other_content",
                        "bad_id",
                        "bad_time",
                        "bad_amount",
                        "bad_quantity",
                        "unit_mismatch",
                        "quantity_above_available",
                        "bad_account",
                        "bad_distance",
                        "distance_below_great_circle",
                    ),
                    404: ("unknown_material", "unknown_product"),
                    503: ("too_many_bids",),
                },
            )
        ]

    async def receive(self, request: Request) -> Answer:
        caller, document = request.node, check_document(request.body, OFFER_TYPE)

        def effect(tx: Tx) -> None:
            self._exchange.receive_offer(tx, caller.node_id, caller.verified, document)

        return accepted(await self._accept_once(request, effect))
