"""A node that has nothing but its event log, served over real sockets, and a client that reads streams."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout

from loopd.api.access import Plane
from loopd.api.app import ApiServices, build_app
from loopd.api.docs import ApiIdentity
from loopd.api.events import EventRoutes
from loopd.api.settings import ApiSettings
from loopd.api.tokens import TokenStore
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.feed import EventFeed
from loopd.events.service import EventKind, EventLog
from tests.support import ManualClock

NOW_MS = 1_790_000_000_000
UNLIMITED = ApiSettings(user_requests_per_minute=0)
# Longer than any test waits for what must come; a stream that stays silent fails the test, it does not hang it.
PATIENCE = ClientTimeout(total=30)


@dataclass
class Block:
    """One block of a stream: an event, a word of the stream itself, or a sign of life."""

    name: str = "message"
    id: int | None = None
    data: Any = None
    comments: list[str] = field(default_factory=list)


def parse_block(lines: list[str]) -> Block:
    """The lines of a block, as WHATWG's rules read them."""
    block, data = Block(), []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "":
            block.comments.append(value)
        elif name == "id":
            block.id = int(value)
        elif name == "event":
            block.name = value
        elif name == "data":
            data.append(value)
    if data:
        block.data = json.loads("\n".join(data))
    return block


class Stream:
    """Reads one open stream. `last_id` is what a browser would come again with."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        self.last_id: int | None = None

    async def block(self) -> Block | None:
        """The next block, None at the end."""
        lines: list[str] = []
        while line := await self.response.content.readline():
            text = line.decode().removesuffix("\n")
            if not text:
                block = parse_block(lines)
                self.last_id = self.last_id if block.id is None else block.id
                return block
            lines.append(text)
        return None

    async def told(self) -> Block:
        """The next block that carries something."""
        while (block := await self.block()) is not None:
            if block.data is not None:
                return block
        raise AssertionError("the stream ended")

    async def events(self, count: int) -> list[Any]:
        """The next events, with nothing else between them."""
        found = [await self.told() for _ in range(count)]
        assert {block.name for block in found} <= {"message"}, found
        assert [block.id for block in found] == [block.data["id"] for block in found]
        return [block.data for block in found]

    async def begun(self) -> None:
        """Wait until the stream goes on live: then it has told its position."""
        while (block := await self.block()) is not None:
            if block.comments:
                return
        raise AssertionError("the stream ended")


class EventsApi:
    """A client of the node, and the node's log."""

    def __init__(self, session: ClientSession, database: Database, clock: ManualClock) -> None:
        self.base = ""
        self.address = ("", 0)
        self.session = session
        self.database = database
        self.clock = clock
        self.tokens = TokenStore(database, clock)
        self.feed = EventFeed(0)
        self.log = EventLog(clock, self.feed.committed)

    async def happen(self, *subjects: str, kind: EventKind = EventKind.MATERIAL_REGISTERED, **data: str) -> None:
        """Let events happen, all in one transaction."""

        def unit(tx: Tx) -> None:
            for subject in subjects:
                self.log.append(tx, kind, subject, {"n": len(subjects), **data})

        await self.database.write(unit)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        async with self.session.get(self.base + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def token(self, *scopes: str) -> dict[str, str]:
        made = await self.database.write(lambda tx: self.tokens.create(tx, scopes, 3600, self.clock.now_ms()))
        return {"Authorization": f"Bearer {made.text}"}

    @asynccontextmanager
    async def stream(self, query: str = "", headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
        async with self.session.get(f"{self.base}/api/v1/stream{query}", headers=headers, timeout=PATIENCE) as answer:
            assert answer.status == 200, await answer.text()
            yield Stream(answer)


@asynccontextmanager
async def events_api(directory: Path) -> AsyncIterator[EventsApi]:
    """A node in `directory` that serves its events."""
    clock = ManualClock(NOW_MS)
    settings = DatabaseSettings(readers=2, synchronous="NORMAL")
    async with (
        await Database.create(directory / "loopd.db", settings, clock) as database,
        ClientSession() as session,
    ):
        client = EventsApi(session, database, clock)
        services = ApiServices(
            settings=UNLIMITED,
            clock=clock,
            tokens=client.tokens,
            identity=ApiIdentity(title="Munich", version="0.1.0", base_url="https://munich.example"),
            schemas={},
        )
        routes = EventRoutes(client.log, client.feed, database, clock).routes()
        app = build_app(routes, Plane.PUBLIC, services)
        host, port = await app.listen_tcp("127.0.0.1", 0)
        client.base, client.address = f"http://{host}:{port}", (host, port)
        try:
            yield client
        finally:
            client.feed.close()
            await app.close(1.0)
            await client.tokens.close()
