"""The registry's routes on a listening socket, and a client that holds a token."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from yarl import URL

from loopd.api.access import Plane
from loopd.api.app import ApiServices, build_app
from loopd.api.docs import ApiIdentity
from loopd.api.idempotency import IdempotentWriter
from loopd.api.material import MaterialRoutes
from loopd.api.product import ProductRoutes
from loopd.api.settings import ApiSettings
from loopd.api.status_updates import StatusUpdateRoutes
from loopd.api.tokens import TokenStore
from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings
from loopd.events.service import EventLog
from loopd.protocol.subjects import SubjectKind, SubjectState
from loopd.registry.service import Registry, release_nothing
from tests.registry_support import NOW_MS, Munich, RecordingAnnouncer, set_state
from tests.support import ManualClock

UNLIMITED = ApiSettings(user_requests_per_minute=0)
ENTITY_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    name: {"type": "object"} for name in ("MaterialDNA", "ProductDNA", "MaterialStatusUpdate", "ProductStatusUpdate")
}


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of a refusal."""
        return str(self.json["error"]["details"]["reason"])

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and the reason of a refusal."""
        return self.status, self.reason


class RegistryApi:
    """A client of a node that has nothing but its registry."""

    def __init__(self, session: ClientSession, token: str, database: Database, clock: ManualClock) -> None:
        self.base = ""
        self._session = session
        self._token = token
        self._database = database
        self.clock = clock
        self.announcer = RecordingAnnouncer()
        self.registry = Registry(Munich(), clock, AuditLog(clock), EventLog(clock), self.announcer)

    async def get(self, path: str) -> HttpAnswer:
        async with self._session.get(URL(self.base + path, encoded=True)) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, *, authorised: bool = True
    ) -> HttpAnswer:
        sent = {"Content-Type": "application/ld+json", **(headers or {})}
        if authorised:
            sent["Authorization"] = f"Bearer {self._token}"
        async with self._session.post(URL(self.base + path, encoded=True), data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())

    async def change_state(self, subject_id: str, state: SubjectState) -> None:
        await self._database.write(lambda tx: set_state(self.registry, tx, subject_id, state, "by hand"))


@asynccontextmanager
async def registry_api(directory: Path) -> AsyncIterator[RegistryApi]:
    """A node in `directory` that serves its registry, and a client of it."""
    clock = ManualClock(NOW_MS)
    async with (
        await Database.create(directory / "loopd.db", DatabaseSettings(), clock) as database,
        ClientSession() as session,
    ):
        tokens = TokenStore(database, clock)
        token = await database.write(lambda tx: tokens.create(tx, ["material:write"], 3600, NOW_MS))
        client = RegistryApi(session, token.text, database, clock)
        write = IdempotentWriter(database, clock).write
        routes = [
            *MaterialRoutes(client.registry, database, write).routes(),
            *ProductRoutes(client.registry, database, write).routes(),
            *StatusUpdateRoutes(SubjectKind.MATERIAL, client.registry, database, write, release_nothing).routes(),
            *StatusUpdateRoutes(SubjectKind.PRODUCT, client.registry, database, write, release_nothing).routes(),
        ]
        services = ApiServices(
            settings=UNLIMITED,
            clock=clock,
            tokens=tokens,
            identity=ApiIdentity(title="Munich", version="0.1.0", base_url="https://munich.example"),
            schemas=ENTITY_SCHEMAS,
        )
        app = build_app(routes, Plane.PUBLIC, services)
        host, port = await app.listen_tcp("127.0.0.1", 0)
        client.base = f"http://{host}:{port}"
        try:
            yield client
        finally:
            await app.close(1.0)
