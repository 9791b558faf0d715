"""The mirror's routes on a listening socket, with a client that is a user or another node."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.federate_mirror import FederateMirrorRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.mirror import MirrorRoutes
from loopd.api.node_effects import NodeRequestWriter
from loopd.api.tokens import TokenStore
from loopd.exchange.mirror_rules import REQUEST_TYPE, UPDATE_TYPE
from tests.exchange_api import TrustingAuthenticator
from tests.exchange_support import NOW_MS
from tests.mirror_support import MirrorNode
from tests.registry_api import HttpAnswer
from tests.served import served


class MirrorApi:
    """A client of one node."""

    def __init__(self, session: ClientSession, base: str, token: str) -> None:
        self._session = session
        self._base = base
        self._token = token

    async def get(self, path: str, as_node: str | None = None) -> HttpAnswer:
        return await self._send("GET", path, None, {} if as_node is None else {"X-Node-ID": as_node})

    async def post(self, path: str, value: Any, *, authorised: bool = True) -> HttpAnswer:
        headers = {"Authorization": f"Bearer {self._token}"} if authorised else {}
        return await self._send("POST", path, value, headers)

    async def tell(self, path: str, value: Any, as_node: str | None) -> HttpAnswer:
        return await self._send("POST", path, value, {} if as_node is None else {"X-Node-ID": as_node})

    async def _send(self, method: str, path: str, value: Any, headers: Mapping[str, str]) -> HttpAnswer:
        body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        sent = {**headers} if body is None else {"Content-Type": "application/json", **headers}
        async with self._session.request(method, self._base + path, data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def mirror_api(node: MirrorNode) -> AsyncIterator[MirrorApi]:
    """Serve a node's mirror."""
    database, clock = node.database, node.clock
    store = TokenStore(database, clock)
    token = (await database.write(lambda tx: store.create(tx, ["offer:write"], 3600, NOW_MS))).text
    takers = {UPDATE_TYPE: node.mirroring.receive, REQUEST_TYPE: node.requests.receive}
    once = NodeRequestWriter(database, clock).accept_once
    write = IdempotentWriter(database, clock).write
    routes = [
        *FederateMirrorRoutes(takers, node.telling, database, once).routes(),
        *MirrorRoutes(node.mirroring, node.requests, database, write).routes(),
    ]
    async with (
        served(routes, clock, store, node_authenticator=TrustingAuthenticator()) as bases,
        ClientSession() as session,
    ):
        yield MirrorApi(session, bases[Plane.PUBLIC], token)
