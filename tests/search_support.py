"""A node that can be searched: the registry and the catalogue over a real database, and what a client does with it."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from loopd.api.requests import Request
from loopd.api.search import SearchRoutes
from loopd.audit.service import AuditLog
from loopd.catalogue.search import Search
from loopd.catalogue.service import Catalogue
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.protocol.documents import check_document
from loopd.protocol.geo import Location
from loopd.protocol.subjects import HeardSubject, SubjectState
from loopd.registry.service import Registry
from loopd.registry.stock import Stock
from loopd.registry.tables import Record
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from tests.exchange_support import MUNICH, NOW_MS, VIENNA, FakeDirectory, known_node, signals_document
from tests.registry_support import CONTEXT, RecordingAnnouncer, material_id, material_json, product_json, set_state
from tests.support import ManualClock

T = TypeVar("T")


class SearchNode:
    """Munich, with Vienna known to it."""

    def __init__(self, database: Database, clock: ManualClock, entries_max: int) -> None:
        self.home = home = SimpleNamespace(node_id="munich.loop", city="Munich", location=MUNICH, context_url=CONTEXT)
        self.database = database
        self.clock = clock
        self.directory = FakeDirectory(known_node("vienna.loop", VIENNA))
        self.catalogue = Catalogue(home, clock, self.directory, entries_max)
        audit, events = AuditLog(clock), EventLog(clock)
        self.registry = Registry(home, clock, audit, events, RecordingAnnouncer(), [self.catalogue])
        self.stock = Stock(self.registry, clock, audit)
        signals = {"organic-food": Decimal("0.4"), "default": Decimal("0.1")}
        self.signals = Signals("munich.loop", CONTEXT, SignalsSettings(values=signals), clock, events)
        self.routes = {
            route.path: route
            for route in SearchRoutes(
                Search(home, database, clock, self.registry, self.signals, self.directory), MUNICH
            ).routes()
        }

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def register(self, body: bytes) -> Record:
        document = check_document(body, frozenset({"MaterialDNA", "ProductDNA"}))
        registration = await self.write(lambda tx: self.registry.register(tx, document))
        return registration.record

    async def material(self, number: int, **changes: Any) -> Record:
        return await self.register(material_json(number, id=material_id(number), **changes))

    async def product(self, number: int, **changes: Any) -> Record:
        return await self.register(product_json(id=f"PRD-DE-MUC-2026-{number:06d}", **changes))

    async def change(self, number: int, state: SubjectState) -> None:
        await self.write(lambda tx: set_state(self.registry, tx, material_id(number), state, "by hand"))

    async def hear(self, *heard: HeardSubject) -> None:
        def unit(tx: Tx) -> None:
            for each in heard:
                self.catalogue.heard(tx, each)

        await self.write(unit)

    async def publish(self, node_id: str, **signals: float) -> None:
        document = signals_document(node_id, {name.replace("_", "-"): value for name, value in signals.items()})
        await self.write(lambda tx: self.signals.remember(tx, node_id, document))

    async def post(self, url: str, body: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """The answer to a search as a client reads it; a Refusal where it is refused."""
        parts = urlsplit(url)
        route = self.routes[parts.path]
        request = Request(
            id="1",
            method="POST",
            target=url,
            path=parts.path,
            parameters={},
            query={"cursor": parse_qs(parts.query).get("cursor", [None])[0]},
            headers={},
            client="",
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        )
        answer = await route.handler(request)
        shown = json.loads(answer.body, parse_float=Decimal)
        if not isinstance(shown, dict):
            raise TypeError("an answer is an object")
        return shown

    async def search(self, kind: str = "material", **body: Any) -> dict[str, Any]:
        return await self.post(f"/api/v1/{kind}/search", body)

    async def found(self, kind: str = "material", **body: Any) -> list[str]:
        """The ids of the first page."""
        return [result["id"] for result in (await self.search(kind, **body))["results"]]

    async def pages(self, kind: str = "material", **body: Any) -> AsyncIterator[dict[str, Any]]:
        """Page after page, to the end."""
        url: str | None = f"/api/v1/{kind}/search"
        while url is not None:
            page = await self.post(url, body)
            yield page
            url = page["next"]


@asynccontextmanager
async def search_node(directory: Path, entries_max: int = 1_000) -> AsyncIterator[SearchNode]:
    clock = ManualClock(NOW_MS)
    settings = DatabaseSettings(synchronous="NORMAL")
    async with await Database.create(directory / "munich.db", settings, clock) as database:
        yield SearchNode(database, clock, entries_max)


def heard(number: int = 0, origin: str = "vienna.loop", **changes: Any) -> HeardSubject:
    """What another city announced, valid for a day."""
    fields: dict[str, Any] = {
        "subject_id": material_id(number),
        "kind": "material",
        "origin": origin,
        "message_id": bytes(32),
        "category": "organic-food",
        "quantity": Decimal(500),
        "unit": "kg",
        "location": Location(48.2, 16.37),
        "available": True,
        "valid_until_ms": NOW_MS + 86_400_000,
        "verified": True,
        "state": "available",
        "available_from_ms": NOW_MS,
        "expires_ms": None,
    }
    return HeardSubject(**{**fields, **changes})
