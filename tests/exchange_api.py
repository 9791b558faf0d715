"""The exchange's routes on listening sockets, one for the public and one for the operator, with clients of both."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.bids import BidRoutes
from loopd.api.federate_mirror import FederateMirrorRoutes, Taker
from loopd.api.federate_offer import FederateOfferRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.node_effects import AcceptOnce, NodeRequestWriter
from loopd.api.routes import Route
from loopd.api.signals import SignalRoutes
from loopd.api.tokens import TokenStore
from loopd.exchange.mirror_rules import UPDATE_TYPE
from loopd.exchange.views import STATUS_TYPE
from loopd.federation.authentication import NodeCaller
from loopd.protocol.errors import Unauthorized
from loopd.signals.rules import TYPE as SIGNALS_TYPE
from tests.exchange_support import NOW_MS, ExchangeNode, known_node
from tests.registry_api import HttpAnswer
from tests.served import BOTH_PLANES, served


class TrustingAuthenticator:
    """Believes the caller's name. Requests with one body are repeats of each other, as with one signing string."""

    async def authenticate(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes) -> NodeCaller:
        node_id = headers.get("X-Node-ID")
        if node_id is None:
            raise Unauthorized("missing_header", "X-Node-ID is missing")
        digest = sha256(node_id.encode() + body).digest()
        return NodeCaller(known_node(node_id, None), True, "", "", None, digest)


class ExchangeApi:
    """A client of a node: `public` routes with a token of one scope, or as another node; `admin` as the operator."""

    def __init__(self, node: ExchangeNode, session: ClientSession, tokens: Mapping[str, str]) -> None:
        self.node = node
        self.bases: dict[Plane, str] = {}
        self.refreshed: list[str] = []
        self.signals_on_refresh: dict[str, float] = {}
        self._session = session
        self._tokens = tokens

    async def refresh_signals(self, node_id: str) -> None:
        """What stands for asking a node: it answers what the test has put into `signals_on_refresh`."""
        self.refreshed.append(node_id)
        if self.signals_on_refresh:
            await self.node.remember_signals(node_id, **self.signals_on_refresh)

    def federate_mirror_routes(self, once: AcceptOnce) -> list[Route]:
        node = self.node
        takers: dict[str, Taker] = {
            STATUS_TYPE: node.exchange.receive_status,
            SIGNALS_TYPE: node.signals.remember,
            UPDATE_TYPE: node.mirroring.receive,
        }
        return FederateMirrorRoutes(takers, node.telling, node.database, once).routes()

    async def get(self, path: str) -> HttpAnswer:
        return await self._send("GET", Plane.PUBLIC, path, None, {})

    async def post(
        self, path: str, value: Any, scope: str | None = "offer:write", headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """A POST of JSON to the public plane; `value` may be bytes, None sends no body."""
        return await self._send("POST", Plane.PUBLIC, path, value, {**(headers or {}), **self._bearer(scope)})

    async def post_as_node(self, path: str, body: bytes, node_id: str | None) -> HttpAnswer:
        return await self._send("POST", Plane.PUBLIC, path, body, {} if node_id is None else {"X-Node-ID": node_id})

    async def admin(self, method: str, path: str, value: Any = None) -> HttpAnswer:
        return await self._send(method, Plane.ADMIN_ADDRESS, path, value, self._bearer("admin"))

    def _bearer(self, scope: str | None) -> dict[str, str]:
        return {} if scope is None else {"Authorization": f"Bearer {self._tokens[scope]}"}

    async def _send(self, method: str, plane: Plane, path: str, value: Any, headers: Mapping[str, str]) -> HttpAnswer:
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        sent = {**headers} if body is None else {"Content-Type": "application/json", **headers}
        async with self._session.request(method, self.bases[plane] + path, data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def exchange_api(node: ExchangeNode) -> AsyncIterator[ExchangeApi]:
    """Serve a node's exchange and signals."""
    database, clock = node.database, node.clock
    store = TokenStore(database, clock)
    texts = {
        scope: (await database.write(lambda tx, scope=scope: store.create(tx, [scope], 3600, NOW_MS))).text
        for scope in ("material:write", "offer:write", "admin")
    }
    async with ClientSession() as session:
        client = ExchangeApi(node, session, texts)
        write = IdempotentWriter(database, clock).write
        once = NodeRequestWriter(database, clock).accept_once
        routes = [
            *BidRoutes(node.exchange, database, write, client.refresh_signals).routes(),
            *FederateOfferRoutes(node.exchange, once).routes(),
            *client.federate_mirror_routes(once),
            *SignalRoutes(node.signals, database).routes(),
        ]
        authenticator = TrustingAuthenticator()
        async with served(routes, clock, store, planes=BOTH_PLANES, node_authenticator=authenticator) as client.bases:
            yield client
