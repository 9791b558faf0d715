"""Routing's routes on listening sockets, with a client of both planes."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.idempotency import IdempotentWriter
from loopd.api.loopcost import LoopCostRoutes
from loopd.api.route import RouteRoutes
from loopd.api.route_plan import RoutePlanRoutes
from loopd.api.routes import Route
from loopd.api.tokens import TokenStore
from loopd.api.wanted import WantedRoutes
from tests.registry_api import HttpAnswer
from tests.routing_support import RoutingNode
from tests.served import served


class RoutingApi:
    """A client of the public plane, with a token of a scope or without."""

    def __init__(self, node: RoutingNode, session: ClientSession, base: str, tokens: Mapping[str, str]) -> None:
        self.node = node
        self._session = session
        self._base = base
        self._tokens = tokens

    async def get(self, path: str, scope: str | None = "offer:write") -> HttpAnswer:
        return await self._send("GET", path, None, self._bearer(scope))

    async def post(
        self, path: str, value: Any, scope: str | None = "offer:write", headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """A POST of JSON; `value` may be bytes, None sends no body."""
        return await self._send("POST", path, value, {**(headers or {}), **self._bearer(scope)})

    def _bearer(self, scope: str | None) -> dict[str, str]:
        return {} if scope is None else {"Authorization": f"Bearer {self._tokens[scope]}"}

    async def _send(self, method: str, path: str, value: Any, headers: Mapping[str, str]) -> HttpAnswer:
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        sent = {**headers} if body is None else {"Content-Type": "application/json", **headers}
        async with self._session.request(method, self._base + path, data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


def routes_of(node: RoutingNode) -> Iterable[Route]:
    """The routes of a node's routing and demand."""
    write = IdempotentWriter(node.database, node.clock).write
    nouns = (
        LoopCostRoutes(node.routing),
        RouteRoutes(node.routing),
        RoutePlanRoutes(node.plans),
        WantedRoutes(node.wanted, node.database, write),
    )
    return [route for noun in nouns for route in noun.routes()]


@asynccontextmanager
async def routing_api(node: RoutingNode) -> AsyncIterator[RoutingApi]:
    """Serve a node's routing."""
    database, clock = node.database, node.clock
    store = TokenStore(database, clock)
    tokens = {
        scope: (await database.write(lambda tx, scope=scope: store.create(tx, [scope], 3600, clock.now_ms()))).text
        for scope in ("material:write", "offer:write", "admin")
    }
    async with served(routes_of(node), clock, store) as bases, ClientSession() as session:
        yield RoutingApi(node, session, bases[Plane.PUBLIC], tokens)
