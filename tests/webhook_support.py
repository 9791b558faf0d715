"""Webhooks of a node whose endpoints are fakes that answer as a test tells them."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.deliveries import Deliveries, Surroundings
from loopd.events.feed import EventFeed
from loopd.events.service import EventKind, EventLog
from loopd.events.webhook_rules import Patience
from loopd.events.webhook_tables import Webhook
from loopd.events.webhooks import SecretWebhook, Webhooks
from loopd.net.http_client import DialError, PeerAnswer
from tests.support import ManualClock

ENDPOINT = "https://hooks.example/loop"
PATIENCE = Patience(first_retry_ms=1_000, give_up_after_ms=100_000)


@dataclass
class Received:
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def subject(self) -> str:
        value = json.loads(self.body)
        return str(value["data"].get("subject", value["type"]))


@dataclass
class FakeWorld:
    """Endpoints that answer as they are told; 204 where nothing is said. Every request is kept."""

    received: list[Received] = field(default_factory=list)
    answers: dict[str, list[int | DialError]] = field(default_factory=dict)
    always: dict[str, int] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        trusted: bool,
        timeout_s: float,
        max_answer_bytes: int,
    ) -> PeerAnswer:
        assert (method, trusted) == ("POST", False)
        async with self.arrived:
            self.received.append(Received(url, headers, body or b""))
            self.arrived.notify_all()
        if url in self.silent:
            await asyncio.Event().wait()
        waiting = self.answers.get(url)
        answer = waiting.pop(0) if waiting else self.always.get(url, 204)
        if isinstance(answer, DialError):
            raise answer
        return PeerAnswer(answer, self.headers, b"", 1)

    async def count(self, number: int, url: str = ENDPOINT) -> list[Received]:
        """Wait until so many requests came to an endpoint."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.to(url)) >= number)
        return self.to(url)

    def to(self, url: str) -> list[Received]:
        return [received for received in self.received if received.url == url]


class WebhookNode:
    """A log with webhooks. `restart` is what a new start of the process is."""

    def __init__(self, database: Database, world: FakeWorld) -> None:
        self.database = database
        self.world = world
        self.clock = ManualClock()
        self.audit = AuditLog(self.clock)
        self.begin(0)

    def begin(self, head: int) -> None:
        self.feed = EventFeed(head)
        self.log = EventLog(self.clock, self.feed.committed)
        around = (self.database, self.log, self.audit, self.world, self.clock, random.Random(3), PATIENCE)
        self.deliveries = Deliveries(Surroundings("munich.loop", *around))
        self.feed.watch(self.deliveries.happened)
        self.webhooks = Webhooks(self.audit, self.clock, self.deliveries.changed)
        self.deliveries.start()

    async def restart(self) -> None:
        await self.deliveries.stop()
        self.begin(self.feed.head)

    async def add(self, url: str = ENDPOINT, *kinds: str) -> SecretWebhook:
        return await self.database.write(lambda tx: self.webhooks.add(tx, url, kinds or ["*"]))

    async def happen(self, *subjects: str, kind: EventKind = EventKind.MATERIAL_STATUS) -> None:
        def unit(tx: Tx) -> None:
            for subject in subjects:
                self.log.append(tx, kind, subject, {})

        await self.database.write(unit)

    def state(self, number: int) -> Webhook:
        return self.webhooks.require(self.database.points, number)

    async def until(self, number: int, failures: int) -> None:
        """Wait until that many failures are stored, or the webhook is disabled."""
        async with asyncio.timeout(20):
            while (now := self.state(number).standing).failures < failures and now.disabled is None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def settled(self, number: int) -> None:
        """Wait until the webhook was told of everything."""
        async with asyncio.timeout(20):
            while self.state(number).cursor < self.feed.head:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def later(self, number: int, ms: int = 60_000) -> None:
        """Let time pass, and the worker notice it."""
        self.clock.advance(ms)
        self.deliveries.changed(number)

    async def audited(self) -> list[str]:
        rows = await self.database.all("SELECT payload FROM audit_entry ORDER BY sequence")
        return [json.loads(row["payload"])["event"] for row in rows]


@asynccontextmanager
async def webhook_node(directory: Path) -> AsyncIterator[WebhookNode]:
    """A node in `directory`, whose deliveries are under way."""
    settings = DatabaseSettings(readers=2, synchronous="NORMAL")
    async with await Database.create(directory / "loopd.db", settings, ManualClock()) as database:
        opened = WebhookNode(database, FakeWorld())
        try:
            yield opened
        finally:
            await opened.deliveries.stop()
