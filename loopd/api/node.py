"""`/api/v1/node/info`: who this node is (§8.1)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import loopd
from loopd.api.answers import LD_JSON, Answer, entity_answer
from loopd.api.requests import Request
from loopd.api.routes import RateClass, Route, Success
from loopd.identity import Identity

# Counts what NodeInfo's statistics tell.
Statistics = Callable[[], Awaitable[dict[str, int]]]


class NodeRoutes:
    """Shows the node's own card. `contact` and `metadata` are the operator's, as configured."""

    def __init__(
        self, identity: Identity, capabilities: Sequence[str], statistics: Statistics, extras: dict[str, Any]
    ) -> None:
        self._identity = identity
        self._capabilities = capabilities
        self._statistics = statistics
        self._extras = extras

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/v1/node/info",
                handler=self._info,
                noun="Node",
                summary="Who this node is",
                # Peers probe with it.
                rate=RateClass.NODE,
                successes={
                    200: Success(description="The node's card", schema="NodeInfo", content_type=LD_JSON),
                },
            )
        ]

    async def _info(self, request: Request) -> Answer:
        identity = self._identity
        return entity_answer(
            {
                "@context": identity.context_url,
                "@type": "NodeInfo",
                "schema_version": "0.2.0",
                "id": identity.node_id,
                "name": identity.name,
                "version": loopd.__version__,
                "location": {
                    "lat": identity.location.lat,
                    "lon": identity.location.lon,
                    "city": identity.city,
                    "country": identity.country,
                },
                "capabilities": list(self._capabilities),
                "endpoint": identity.endpoint,
                "public_key": identity.key.public.to_pem(),
                "statistics": await self._statistics(),
                **self._extras,
            }
        )
