"""Puts one listener's API together: routes, access, limits, descriptions."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from loopd.api.access import AccessControl, NodeAuthenticator, NoOffences, Offences, Plane, TokenVerifier
from loopd.api.dispatcher import Dispatcher, Serving
from loopd.api.docs import ApiIdentity, DocsRoutes
from loopd.api.limits import RateLimits
from loopd.api.listener import HttpServer, Listener
from loopd.api.matching import RouteTable
from loopd.api.metrics import RequestMetrics
from loopd.api.openapi import Schemas
from loopd.api.routes import Route
from loopd.api.settings import ApiSettings
from loopd.clock import Clock
from loopd.gossip import frames


@dataclass(frozen=True, kw_only=True)
class ApiServices:
    """What both planes share. `schemas` maps an entity's name, as routes use it, to its JSON Schema."""

    settings: ApiSettings
    clock: Clock
    tokens: TokenVerifier
    identity: ApiIdentity
    schemas: Schemas
    node_authenticator: NodeAuthenticator | None = None
    offences: Offences = field(default_factory=NoOffences)
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    serving: Serving = field(default_factory=Serving)


class App:
    """One plane's API, ready to listen. Made inside a running event loop."""

    def __init__(self, routes: Sequence[Route], dispatcher: Dispatcher, server: HttpServer, serving: Serving) -> None:
        self.routes = tuple(routes)
        self._dispatcher = dispatcher
        self._listener = Listener(server)
        self._serving = serving

    async def handle_carried(self, peer: str, sent: frames.Request) -> frames.Response:
        """Answer a request that a peer sent over its link, as its HTTP counterpart would be answered."""
        return await self._dispatcher.handle_carried(peer, sent)

    async def listen_tcp(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Listen on an address; gives back the one bound. OSError where it is taken."""
        return await self._listener.listen_tcp(host, port, ssl_context)

    async def listen_unix(self, path: Path) -> None:
        """Listen on a unix socket with mode 0600."""
        await self._listener.listen_unix(path)

    @property
    def running(self) -> int:
        """How many requests are being handled."""
        return self._dispatcher.running

    def drain(self) -> None:
        """From now on new requests get 503 and `Connection: close`; running ones go on. Both planes drain together."""
        self._serving.draining = True

    async def close(self, timeout_s: float) -> None:
        """Drain, wait for running requests for at most `timeout_s`, then close every connection."""
        self.drain()
        self._listener.stop_accepting()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                await self._dispatcher.wait_until_idle()
        await self._listener.close(max(0.1, deadline_s - loop.time()))


def build_app(routes: Iterable[Route], plane: Plane, services: ApiServices) -> App:
    """The API of one plane.

    The public plane leaves the admin routes out; the admin planes serve all. `/openapi.json`, `/docs` and what they
    say are of exactly the routes that are served here.
    """
    docs = DocsRoutes(services.identity)
    served = [route for route in (*routes, *docs.routes()) if plane.is_admin or not route.admin]
    docs.describe(served, services.schemas)
    dispatcher = Dispatcher(
        RouteTable(served),
        plane,
        services.settings,
        AccessControl(plane, services.tokens),
        RateLimits(services.settings, services.clock),
        services.metrics,
        services.serving,
        services.node_authenticator,
        services.offences,
    )
    server = HttpServer(dispatcher.handle, services.settings, bounded=not plane.is_admin)
    return App(served, dispatcher, server, services.serving)
