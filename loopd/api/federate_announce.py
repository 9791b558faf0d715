"""`/api/v1/federate/announce`: announcements from other nodes (§8.2)."""

from loopd.api.answers import Answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, accepted, node_caller
from loopd.api.requests import Request
from loopd.api.routes import Access, Body, RateClass, Route
from loopd.federation.flooding import Flooding


class FederateAnnounceRoutes:
    """Takes announcements into the flood."""

    def __init__(self, flooding: Flooding) -> None:
        self._flooding = flooding

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/federate/announce",
                handler=self._announce,
                noun="Federation",
                summary="Announce a material or a product",
                description="Accepted, duplicate, expired, out of scope and superseded announcements are all answered "
                "202. A copy that the origin did not send itself carries the five X-Loop headers.",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema="MaterialAnnouncement",
                successes={202: ACCEPTED},
                refusals={
                    400: (*DOCUMENT_REFUSALS, "bad_hop", "origin_mismatch", "bad_times"),
                    401: ("bad_origin_signature",),
                    403: ("not_a_peer",),
                    429: ("over_share",),
                    503: (
                        "unknown_origin",
                        "too_many_messages",
                        "floods_over_share",
                        "key_conflict",
                        "changed_meanwhile",
                    ),
                },
            )
        ]

    async def _announce(self, request: Request) -> Answer:
        number = await self._flooding.receive(node_caller(request), request.headers, request.body)
        return accepted(number)
