"""A small API over real sockets, with every kind of route."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from loopd.api.access import Plane
from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.app import ApiServices, App, build_app
from loopd.api.docs import ApiIdentity
from loopd.api.health import HealthRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.metrics import RequestMetrics
from loopd.api.paging import CURSOR
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Access, Body, QueryParameter, RateClass, Route, Scope, Success
from loopd.api.settings import ApiSettings
from loopd.api.token_admin import TokenRoutes
from loopd.api.tokens import TokenStore
from loopd.clock import SystemClock
from loopd.database.database import Database
from loopd.database.settings import DatabaseSettings
from loopd.database.writer import Tx
from loopd.protocol.errors import Conflict, Unauthorized, Unavailable
from tests.support import ManualClock

THING = {"title": "Thing", "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@dataclass(frozen=True)
class Caller:
    node_id: str
    verified: bool = True


class HeaderAuthenticator:
    """Takes the node's word for who it is; the signature is tested where it is made."""

    async def authenticate(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Caller:
        if "X-Node-ID" not in headers:
            raise Unauthorized("missing_header", "X-Node-ID is missing.", {"header": "X-Node-ID"})
        return Caller(headers["X-Node-ID"])


@dataclass
class Things:
    """A noun with an effect that can be counted."""

    writer: IdempotentWriter
    effects: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def routes(self) -> list[Route]:
        thing = {200: Success(description="A thing", schema="Thing", content_type=LD_JSON)}
        anything = {200: Success(description="Anything", schema={"type": "object"})}
        base = "/api/v1/thing"
        word = QueryParameter(name="kind", description="Which.", choices=("big", "small"))
        return [
            Route(
                method="POST",
                path=base,
                handler=self._make,
                noun="Things",
                summary="Make a thing",
                access=Scope.MATERIAL_WRITE,
                body=Body.REQUIRED,
                request_schema="Thing",
                example='{"name": "grain"}',
                successes={201: Success(description="Made", schema="Thing", content_type=LD_JSON)},
                refusals={409: ("taken",)},
            ),
            Route(
                method="GET",
                path=base,
                handler=self._list,
                noun="Things",
                summary="List things",
                query=(LIMIT, CURSOR, word),
                successes=anything,
            ),
            Route(
                method="GET",
                path=f"{base}/{{id}}",
                handler=self._show,
                noun="Things",
                summary="Read a thing",
                description="With `<id>` alone.",
                successes=thing,
            ),
            Route(
                method="POST",
                path=f"{base}/search",
                handler=self._search,
                noun="Things",
                summary="Search",
                rate=RateClass.SEARCH,
                body=Body.OPTIONAL,
                request_schema={"type": "object"},
                successes=anything,
            ),
            Route(
                method="POST",
                path=f"{base}/{{id}}/announce",
                handler=self._show,
                noun="Things",
                summary="Announce",
                access=Scope.MATERIAL_WRITE,
                successes=thing,
            ),
            Route(
                method="POST",
                path="/api/v1/federate/thing",
                handler=self._from_node,
                noun="Between nodes",
                summary="A node says something",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema="Thing",
                successes=anything,
            ),
            Route(
                method="GET",
                path="/api/v1/slow",
                handler=self._slow,
                noun="Things",
                summary="Wait",
                successes=anything,
            ),
            Route(
                method="GET",
                path="/api/v1/broken",
                handler=self._broken,
                noun="Things",
                summary="Fail",
                successes=anything,
            ),
            Route(
                method="GET",
                path="/api/v1/later",
                handler=self._later,
                noun="Things",
                summary="Refuse for now",
                successes=anything,
            ),
        ]

    async def _make(self, request: Request) -> Answer:
        body = request.body

        def unit(tx: Tx) -> Answer:
            self.effects += 1
            if b"taken" in body:
                raise Conflict("taken", "There is one already.")
            return entity_answer(body, 201, {"Location": "/api/v1/thing/1"})

        return await self.writer.write(request, unit)

    async def _list(self, request: Request) -> Answer:
        return json_answer({"limit": request.limit, "kind": request.text("kind")})

    async def _show(self, request: Request) -> Answer:
        return entity_answer({"name": request.parameters["id"], "client": request.client, "by": request.principal.id})

    async def _search(self, request: Request) -> Answer:
        return json_answer({"bytes": len(request.body)})

    async def _from_node(self, request: Request) -> Answer:
        return json_answer({"node": request.node.node_id, "bytes": len(request.body)})

    async def _slow(self, request: Request) -> Answer:
        self.entered.set()
        await self.release.wait()
        return json_answer({})

    async def _broken(self, request: Request) -> Answer:
        raise ValueError("/etc/secret and a password")

    async def _later(self, request: Request) -> Answer:
        raise Unavailable("storage", "Not now.", retry_after_s=7)


class Client:
    """Calls one listener."""

    def __init__(self, session: aiohttp.ClientSession, base: str, address: tuple[str, int] | None = None) -> None:
        self._session = session
        self._base = base
        self.address = address

    async def call(self, method: str, path: str, **options: Any) -> "Reply":
        async with self._session.request(method, self._base + path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def raw(self, data: bytes, timeout_s: float = 5) -> bytes:
        """Send bytes as they are, and read until the server closes or falls silent."""
        if self.address is None:
            raise RuntimeError("only a TCP listener is called raw")
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(data)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout_s)
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            return head + await asyncio.wait_for(reader.readexactly(length), timeout_s)
        finally:
            writer.close()


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def reason(self) -> str:
        """The machine's word of a refusal."""
        return str(self.json()["error"]["details"]["reason"])


@dataclass
class Harness:
    """Both planes of a small node."""

    public: Client
    admin: Client
    admin_tcp: Client
    things: Things
    tokens: TokenStore
    database: Database
    clock: ManualClock
    app: App
    routes: list[Route]

    async def token(self, *scopes: str, ttl_s: int = 3600) -> str:
        now_ms = self.clock.now_ms()
        made = await self.database.write(lambda tx: self.tokens.create(tx, scopes, ttl_s, now_ms))
        return made.text

    async def bearer(self, *scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self.token(*scopes)}"}


@asynccontextmanager
async def serve(directory: Path, **settings: Any) -> AsyncIterator[Harness]:
    """Run the small node with these settings; limits are off where they are not given."""
    off = {f"{name}_requests_per_minute": 0 for name in ("user", "node", "search")}
    clock = ManualClock()
    database = await Database.create(directory / "api.db", DatabaseSettings(synchronous="NORMAL"), SystemClock())
    tokens = TokenStore(database, clock)
    things = Things(IdempotentWriter(database, clock, keys_max=5))
    metrics = RequestMetrics()
    routes = [
        *things.routes(),
        *HealthRoutes(database, clock, "munich.loop", "0.1.0").routes(),
        *TokenRoutes(tokens, database, clock).routes(),
        *metrics.routes(),
    ]
    services = ApiServices(
        settings=ApiSettings(**{**off, **settings}),
        clock=clock,
        tokens=tokens,
        identity=ApiIdentity(title="Munich", version="0.1.0", base_url="https://munich.example"),
        schemas={"Thing": THING},
        node_authenticator=HeaderAuthenticator(),
        metrics=metrics,
    )
    planes = (Plane.PUBLIC, Plane.ADMIN_SOCKET, Plane.ADMIN_ADDRESS)
    public, admin, admin_tcp = (build_app(routes, plane, services) for plane in planes)
    address = await public.listen_tcp("127.0.0.1", 0)
    admin_address = await admin_tcp.listen_tcp("127.0.0.1", 0)
    socket_path = directory / "admin.sock"
    await admin.listen_unix(socket_path)
    unix = aiohttp.UnixConnector(str(socket_path))
    try:
        async with aiohttp.ClientSession() as session, aiohttp.ClientSession(connector=unix) as admin_session:
            yield Harness(
                Client(session, f"http://127.0.0.1:{address[1]}", address),
                Client(admin_session, "http://localhost"),
                Client(session, f"http://127.0.0.1:{admin_address[1]}", admin_address),
                things,
                tokens,
                database,
                clock,
                public,
                routes,
            )
    finally:
        things.release.set()
        for app in (public, admin, admin_tcp):
            await app.close(1)
        await tokens.close()
        await database.close()
