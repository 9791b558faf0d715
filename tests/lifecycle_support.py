"""A seller's node to test with: its registry and its lifecycle over a real database, and the documents that go in."""

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import orjson

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, RowSource, Tx
from loopd.events.service import EventLog
from loopd.exchange.entities import TYPES
from loopd.exchange.lifecycle import Lifecycle, Ports
from loopd.exchange.received import Created
from loopd.protocol.documents import check_document
from loopd.protocol.geo import Location
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.nodes import KnownNode
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.transactions import Transaction
from loopd.registry.service import Registry
from loopd.registry.stock import Stock
from tests.exchange_support import MUNICH, VIENNA, FakeDirectory, known_node
from tests.registry_support import (
    CONTEXT,
    NOW_MS,
    PRODUCT_ID,
    RecordingAnnouncer,
    material_id,
    material_json,
    product_json,
    status_update_json,
)
from tests.support import ManualClock

T = TypeVar("T")

DAY_MS = 24 * 3_600_000
MATCH_VALIDITY_MS = 7 * DAY_MS
MATERIAL = material_id()
OFFER, MATCH, TRANSFER, TRANSACTION = MirroredEntity


@dataclass(frozen=True)
class Munich:
    node_id: str = "munich.loop"
    city: str = "Munich"
    endpoint: str = "https://munich.example/api/v1"
    location: Location = MUNICH
    context_url: str = CONTEXT


@dataclass(frozen=True)
class Told:
    """What the mirror was given."""

    entity: MirroredEntity
    entity_id: str
    version: int
    document: Mapping[str, Any]
    counterpart: str


class RecordingMirror:
    """Writes down what the other side is to be told. It forgets nothing on rollback."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def changed(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        version: int,
        document: Mapping[str, Any],
        counterpart: str,
    ) -> None:
        self.told.append(Told(entity, entity_id, version, document, counterpart))


class FakeLedger:
    """A ledger that writes down what it is asked. `refusal` refuses to hold; `pays` posts all of it at once."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.refusal: str | None = None
        self.pays = False

    def hold(self, tx: Tx, transaction: Transaction) -> str | None:
        self.calls.append(("hold", transaction.transaction_id))
        return self.refusal if transaction.names_accounts else None

    def post(self, tx: Tx, transaction: Transaction) -> bool:
        self.calls.append(("post", transaction.transaction_id))
        return self.pays and transaction.names_accounts

    def release(self, tx: Tx, transaction: Transaction) -> None:
        self.calls.append(("release", transaction.transaction_id))

    def freeze(self, tx: Tx, transaction: Transaction) -> None:
        self.calls.append(("freeze", transaction.transaction_id))

    def describe(self, source: RowSource, transaction: Transaction) -> Mapping[str, Any] | None:
        return {"state": "held"} if transaction.names_accounts else None


class SellerNode:
    """One node's registry and lifecycle."""

    def __init__(self, database: Database, clock: ManualClock, *nodes: KnownNode) -> None:
        self.database = database
        self.clock = clock
        audit, events = AuditLog(clock), EventLog(clock)
        self.announcer = RecordingAnnouncer()
        self.mirror = RecordingMirror()
        self.ledger = FakeLedger()
        self.registry = Registry(Munich(), clock, audit, events, self.announcer)
        numbers = itertools.count(1)
        self.ports = Ports(
            node=Munich(),
            clock=clock,
            audit=audit,
            events=events,
            records=self.registry,
            stock=Stock(self.registry, clock, audit),
            directory=FakeDirectory(*nodes),
            mirror=self.mirror,
            settlement=self.ledger,
            random_hex=lambda length: f"{next(numbers):0{2 * length}x}",
        )
        self.lifecycle = Lifecycle(self.ports, MATCH_VALIDITY_MS)

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def register(self, number: int = 0, **changes: Any) -> str:
        document = check_document(material_json(number, **changes), "MaterialDNA")
        await self.write(lambda tx: self.registry.register(tx, document))
        return material_id(number)

    async def register_product(self, **changes: Any) -> str:
        document = check_document(product_json(**changes), "ProductDNA")
        await self.write(lambda tx: self.registry.register(tx, document))
        return PRODUCT_ID

    async def create(self, entity: MirroredEntity, value: Mapping[str, Any]) -> Created[Any]:
        document = check_document(orjson.dumps(value, default=float), TYPES[entity])
        return await self.write(lambda tx: self.lifecycle.create(tx, entity, document))

    async def offer(self, number: int = 0, **changes: Any) -> dict[str, Any]:
        return self.view(await self.create(OFFER, offer_value(number, **changes)))

    async def match(self, number: int = 0, **changes: Any) -> dict[str, Any]:
        return self.view(await self.create(MATCH, match_value(number, **changes)))

    async def transfer(self, number: int = 0, **changes: Any) -> dict[str, Any]:
        return self.view(await self.create(TRANSFER, transfer_value(number, **changes)))

    async def sale(self, number: int = 0, **changes: Any) -> dict[str, Any]:
        return self.view(await self.create(TRANSACTION, transaction_value(number, **changes)))

    async def change(
        self, entity: MirroredEntity, entity_id: str, status: str, by: str | None = None, **details: Any
    ) -> dict[str, Any]:
        return await self.write(lambda tx: self.lifecycle.change_status(tx, entity, entity_id, status, by, details))

    async def set_state(self, number: int, state: str, **changes: Any) -> None:
        document = check_document(status_update_json(number, state, **changes), "MaterialStatusUpdate")
        await self.write(lambda tx: self.registry.update_status(tx, document, self.lifecycle.release))

    async def tick(self) -> None:
        now_ms = self.clock.now_ms()
        for due in self.lifecycle.due(self.database.points, now_ms):
            await self.write(due.do)

    def view(self, created: Created[Any]) -> dict[str, Any]:
        return self.lifecycle.view(created.entry)

    def read(self, entity: MirroredEntity, entity_id: str) -> dict[str, Any]:
        return self.lifecycle.view(self.lifecycle.require(self.database.points, entity, entity_id))

    def status(self, entity: MirroredEntity, number: int = 0) -> str:
        return str(self.lifecycle.require(self.database.points, entity, entity_id(entity, number)).status)

    def left(self, subject_id: str = MATERIAL) -> Decimal:
        record = self.registry.find(self.database.points, subject_id)
        assert record is not None
        return record.left.value

    def state(self, subject_id: str = MATERIAL) -> str:
        record = self.registry.find(self.database.points, subject_id)
        assert record is not None
        return record.subject.state.value

    async def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, to hold against another time."""
        names = await self.database.all("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        found = {}
        for name in (row["name"] for row in names):
            rows = await self.database.all(f"SELECT * FROM {name}")
            found[name] = sorted((tuple(row) for row in rows), key=repr)
        return found


@asynccontextmanager
async def seller_node(directory: Path, clock: ManualClock | None = None) -> AsyncIterator[SellerNode]:
    """Munich's node with its database in `directory`; it is made there unless there is one."""
    clock = ManualClock(NOW_MS) if clock is None else clock
    path = directory / "munich.db"
    settings = DatabaseSettings(synchronous="NORMAL")
    opening = Database.open if path.exists() else Database.create
    vienna = known_node("vienna.loop", VIENNA, name="Vienna")
    async with await opening(path, settings, clock) as database:
        yield SellerNode(database, clock, vienna)


def entity_id(entity: MirroredEntity, number: int = 0) -> str:
    """The id that the documents below have."""
    return f"TXN-2026-09-21-{number:03d}" if entity is TRANSACTION else f"{entity.value.upper()}-{number:05d}"


def offer_value(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An Offer of 200 of Munich's 500 kg."""
    return _changed(
        {
            **_head("Offer", entity_id(OFFER, number)),
            "material_id": MATERIAL,
            "from_city": "Munich",
            "to_city": "Vienna",
            "quantity": {"value": 200, "unit": "kg"},
            "status": "open",
            "available_until": format_timestamp(NOW_MS + 30 * DAY_MS),
        },
        changes,
    )


def match_value(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An accepted Match of the Offer of the same number, with Vienna's node."""
    return _changed(
        {
            **_head("Match", entity_id(MATCH, number)),
            "material_id": MATERIAL,
            "offer_id": entity_id(OFFER, number),
            "from_city": "Munich",
            "to_city": "Vienna",
            "to_node": "vienna.loop",
            "status": "accepted",
            "matched_at": format_timestamp(NOW_MS),
        },
        changes,
    )


def transfer_value(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A Transfer of the Match of the same number."""
    return _changed(
        {
            **_head("Transfer", entity_id(TRANSFER, number)),
            "material_id": MATERIAL,
            "match_id": entity_id(MATCH, number),
            "status": "scheduled",
            "handoff_at": format_timestamp(NOW_MS + DAY_MS),
        },
        changes,
    )


def transaction_value(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A sale to Vienna at §12.1's figures."""
    return _changed(
        {
            **_head("MaterialTransaction", entity_id(TRANSACTION, number)),
            "material": MATERIAL,
            "seller": "munich.loop",
            "buyer": "vienna.loop",
            "offer": {
                "base_price": 60,
                "loop_cost": 104,
                "breakdown": {"export_penalty": 24, "import_penalty": 12, "distance_cost": 8},
            },
            "timestamp": format_timestamp(NOW_MS),
        },
        changes,
    )


def _head(entity: str, identifier: str) -> dict[str, Any]:
    return {"@context": CONTEXT, "@type": entity, "schema_version": "0.2.0", "id": identifier}


def _changed(value: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A document with changes; one to None leaves the field out."""
    merged = {**value, **changes}
    return {key: stated for key, stated in merged.items() if stated is not None}
