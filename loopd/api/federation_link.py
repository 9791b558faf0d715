"""`/api/v1/federation/link`: the lasting connection between two loopd nodes."""

from typing import Final

from aiohttp import web

from loopd.api.requests import Request
from loopd.api.routes import RateClass, Route, Success
from loopd.federation.links import Links
from loopd.protocol.errors import Invalid, NotFound
from loopd.protocol.limits import LINK_BATCH_MAX_BYTES, LINK_CLOSE_TIMEOUT_S, LINK_HEARTBEAT_S

_SWITCHING_PROTOCOLS: Final = 101


class FederationLinkRoutes:
    """Takes links from peers."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/v1/federation/link",
                handler=self._link,
                noun="Federation",
                summary="Keep a link",
                description="A WebSocket between two peers that both name `gossip-link`. Both sign a challenge before "
                "anything else is said; see the description of links.",
                rate=RateClass.NODE,
                successes={_SWITCHING_PROTOCOLS: Success(description="The WebSocket is open; the challenge follows")},
                refusals={400: ("not_a_websocket",), 404: ("links_off",)},
                lasting=True,
            )
        ]

    async def _link(self, request: Request) -> web.StreamResponse:
        if not self._links.enabled:
            raise NotFound("links_off", "This node keeps no links.")
        socket = web.WebSocketResponse(
            max_msg_size=LINK_BATCH_MAX_BYTES,
            heartbeat=LINK_HEARTBEAT_S,
            timeout=LINK_CLOSE_TIMEOUT_S,
            compress=False,
        )
        if not socket.can_prepare(request.http):
            raise Invalid("not_a_websocket", "This is opened as a WebSocket (RFC 6455).")
        self._links.check_room()
        await socket.prepare(request.http)
        await self._links.accept(socket)
        return socket
