"""An exchange to test with: a node, fakes of what it needs, and the documents that go in and out."""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, RowSource, Tx
from loopd.events.service import EventLog
from loopd.exchange.documents import Agreement
from loopd.exchange.lifecycle import Lifecycle, Ports
from loopd.exchange.mirror_telling import MirrorTelling
from loopd.exchange.mirroring import Mirroring
from loopd.exchange.ports import DealMaker, Records, SettlementHooks
from loopd.exchange.selection import BY_HAND, Policy
from loopd.exchange.service import BidWish, Exchange
from loopd.protocol.documents import Document, check_document
from loopd.protocol.errors import NotFound, Refusal
from loopd.protocol.geo import Location
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import HeardSubject, Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.transactions import Transaction
from loopd.protocol.vocabulary import Feature
from loopd.registry.service import Registry
from loopd.registry.stock import Stock
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from tests.support import ManualClock

T = TypeVar("T")

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
NOW_MS = 1_790_000_000_000
DAY_MS = 24 * 3600 * 1000
GRAIN = "MAT-DE-MUC-2026-FOOD-B847F3"
DESK = "PRD-DE-MUC-2026-DESK-F4A7B2"
MUNICH, VIENNA, BERLIN = Location(48.1351, 11.5820), Location(48.2082, 16.3738), Location(52.5200, 13.4050)


@dataclass(frozen=True)
class Home:
    """The node under test."""

    node_id: str
    location: Location
    context_url: str = CONTEXT
    city: str = "Munich"
    endpoint: str = "https://munich.example/api/v1"


@dataclass(frozen=True)
class FakeRecord:
    subject: Subject
    document: bytes

    @property
    def registered(self) -> Quantity:
        return Quantity(self.subject.quantity, self.subject.unit)


class FakeRecords:
    """A registry in memory. It forgets nothing on rollback, so tests of concurrency use the real one."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.records: dict[str, FakeRecord] = {}
        self.changes: list[tuple[str, SubjectState, str]] = []

    def add(self, subject: Subject, asking_price: Any = None) -> None:
        document: dict[str, Any] = {"id": subject.subject_id}
        if asking_price is not None:
            document["metadata"] = {"asking_price": asking_price}
        self.records[subject.subject_id] = FakeRecord(subject, json.dumps(document).encode())

    def find(self, source: RowSource, subject_id: str) -> FakeRecord | None:
        return self.records.get(subject_id)

    def require(self, source: RowSource, kind: SubjectKind, subject_id: str) -> FakeRecord:
        record = self.find(source, subject_id)
        if record is None or record.subject.kind is not kind:
            raise NotFound(f"unknown_{kind.value}", "No such record.")
        return record

    def is_available(self, subject: Subject) -> bool:
        return subject.available and (subject.expires_ms is None or subject.expires_ms > self._clock.now_ms())

    def change_state(self, tx: Tx, subject_id: str, state: SubjectState, cause: str) -> Subject:
        record = self.records[subject_id]
        self.records[subject_id] = replace(record, subject=replace(record.subject, state=state))
        self.changes.append((subject_id, state, cause))
        return self.records[subject_id].subject


class FakeDeals:
    """Reserves the whole of a subject for every deal, and makes nothing else of it."""

    def __init__(self, records: FakeRecords) -> None:
        self._records = records

    def agree(self, tx: Tx, deal: Agreement) -> str | None:
        self._records.change_state(tx, deal.subject_id, SubjectState.RESERVED, f"sold to {deal.buyer}")
        return None

    def city_of(self, tx: Tx, node_id: str) -> str:
        return node_id


class NoMirror:
    """Tells nobody."""

    def changed(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        version: int,
        document: Mapping[str, Any],
        counterpart: str,
    ) -> None:
        """Do nothing."""


class NoSettlement:
    """A node without a ledger: nothing is held and nothing is paid."""

    def hold(self, tx: Tx, transaction: Transaction) -> str | None:
        """Refused where accounts are named: no money stands behind them here."""
        return "no_ledger" if transaction.names_accounts else None

    def post(self, tx: Tx, transaction: Transaction) -> bool:
        """Nothing is ever posted."""
        return False

    def release(self, tx: Tx, transaction: Transaction) -> None:
        """Nothing was held."""

    def freeze(self, tx: Tx, transaction: Transaction) -> None:
        """Nothing was held."""

    def describe(self, source: RowSource, transaction: Transaction) -> Mapping[str, Any] | None:
        """Nothing is known."""
        return None


class FakeDirectory:
    def __init__(self, *nodes: KnownNode) -> None:
        self.nodes = {node.node_id: node for node in nodes}

    def find(self, source: RowSource, node_id: str) -> KnownNode | None:
        return self.nodes.get(node_id)


class FakeHeard:
    def __init__(self) -> None:
        self.subjects: dict[str, HeardSubject] = {}

    def find(self, source: RowSource, subject_id: str) -> HeardSubject | None:
        return self.subjects.get(subject_id)


@dataclass(frozen=True)
class Queued:
    target: str
    path: str
    body: bytes
    expires_at_ms: int
    reference: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RecordingOutbox:
    def __init__(self) -> None:
        self.queued: list[Queued] = []

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        self.queued.append(Queued(target, path, body, expires_at_ms, reference))


def known_node(node_id: str, location: Location | None, **changes: Any) -> KnownNode:
    node = KnownNode(
        node_id=node_id,
        standing=Standing.PEER,
        auth=PeerAuth.SIGNED,
        endpoint=f"https://{node_id}/api/v1",
        public_key=bytes(32),
        location=location,
        features=frozenset({Feature.MIRROR, Feature.PRODUCTS}),
        named_by_operator=False,
    )
    return replace(node, **changes)


def grain(**changes: Any) -> Subject:
    """500 kg of spent grain in Munich."""
    subject = Subject(
        subject_id=GRAIN,
        kind=SubjectKind.MATERIAL,
        category="organic-food",
        quantity=Decimal(500),
        unit="kg",
        available_from_ms=NOW_MS,
        expires_ms=None,
        location=MUNICH,
        state=SubjectState.AVAILABLE,
    )
    return replace(subject, **changes)


def desk(**changes: Any) -> Subject:
    """Twelve desks in Munich."""
    return grain(
        subject_id=DESK,
        kind=SubjectKind.PRODUCT,
        category="furniture-office",
        quantity=Decimal(12),
        unit="piece",
        **changes,
    )


def heard_grain(**changes: Any) -> HeardSubject:
    """The same, as another city heard it of Munich."""
    heard = HeardSubject(
        subject_id=GRAIN,
        kind=SubjectKind.MATERIAL,
        origin="munich.loop",
        message_id=bytes(32),
        category="organic-food",
        quantity=Decimal(500),
        unit="kg",
        location=Location(48.14, 11.58),
        available=True,
        valid_until_ms=NOW_MS + 7 * DAY_MS,
        verified=True,
    )
    return replace(heard, **changes)


def signals_document(node_id: str, signals: Mapping[str, float], **changes: Any) -> Document:
    """A LoopSignalConfig that holds around NOW_MS."""
    value = {
        "@context": CONTEXT,
        "@type": "LoopSignalConfig",
        "node": node_id,
        "signals": signals,
        "valid_from": format_timestamp(NOW_MS - DAY_MS),
        "valid_until": format_timestamp(NOW_MS + 30 * DAY_MS),
        **changes,
    }
    return check_document(json.dumps(value).encode(), "LoopSignalConfig")


def offer_json(**changes: Any) -> bytes:
    """Vienna's MaterialOffer of §12.1, 400 km stated. A change to None leaves the key out."""
    value = {
        "@context": CONTEXT,
        "@type": "MaterialOffer",
        "material": GRAIN,
        "from": "vienna.loop",
        "base_price": 60,
        "loop_cost": 104,
        "distance_km": 400,
        "valid_until": format_timestamp(NOW_MS + DAY_MS),
        **changes,
    }
    return json.dumps({key: stated for key, stated in value.items() if stated is not None}).encode()


def status_json(**changes: Any) -> bytes:
    """The BidStatus with which Munich tells that a bid was selected."""
    value = {
        "@context": CONTEXT,
        "@type": "BidStatus",
        "schema_version": "0.2.0",
        "node": "munich.loop",
        "material": GRAIN,
        "status": "selected",
        "version": 1,
        "updated_at": format_timestamp(NOW_MS),
        "reason": "lowest_loop_cost",
        **changes,
    }
    return json.dumps(value).encode()


class ExchangeNode:
    """One node's exchange over a real database; all else it needs is a fake that the test fills."""

    def __init__(self, home: Home, database: Database, clock: ManualClock, signals: Mapping[str, Decimal]) -> None:
        self.home = home
        self.database = database
        self.clock = clock
        self.audit = AuditLog(clock)
        self.events = EventLog(clock)
        self.records = FakeRecords(clock)
        self.directory = FakeDirectory()
        self.heard = FakeHeard()
        self.outbox = RecordingOutbox()
        self.signals = Signals(home.node_id, CONTEXT, SignalsSettings(values=dict(signals)), clock, self.events)
        self.chance = (f"{number:016x}" for number in itertools.count(1))
        self.exchange = self.exchange_over(self.records, FakeDeals(self.records))
        self.telling = MirrorTelling(home, clock, self.directory, self.outbox)
        self.mirroring = Mirroring(home, clock, self.audit, self.events, lambda: None)

    def exchange_over(self, records: Records, deals: DealMaker, policy: Policy = BY_HAND) -> Exchange:
        """The node's exchange over a registry, and what makes deals of its selections."""
        return Exchange(
            self.home,
            self.clock,
            self.audit,
            self.events,
            records,
            self.signals,
            self.directory,
            self.heard,
            self.outbox,
            deals,
            policy,
            lambda length: next(self.chance),
        )

    def lifecycle_over(self, registry: Registry, settlement: SettlementHooks | None = None) -> Lifecycle:
        """What really makes deals, over a real registry."""
        return Lifecycle(
            Ports(
                node=self.home,
                clock=self.clock,
                audit=self.audit,
                events=self.events,
                records=registry,
                stock=Stock(registry, self.clock, self.audit),
                directory=self.directory,
                mirror=NoMirror(),
                settlement=settlement or NoSettlement(),
                random_hex=lambda length: next(self.chance),
            ),
            7 * DAY_MS,
        )

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def remember_signals(self, node_id: str, **signals: float) -> None:
        stated = {name.replace("_", "-"): value for name, value in signals.items()}
        document = signals_document(node_id, stated)
        await self.write(lambda tx: self.signals.remember(tx, node_id, document))

    async def local_bid(self, bidder: str, base_price: Any, subject: str = GRAIN, **terms: Any) -> dict[str, Any]:
        kind = SubjectKind.PRODUCT if subject == DESK else SubjectKind.MATERIAL
        wish = BidWish(subject, kind, bidder, {"base_price": base_price, **terms})
        return await self.write(lambda tx: self.exchange.bid_here(tx, wish))

    async def bid(self, base_price: Any, subject: str = GRAIN, bidder: str | None = None, **terms: Any) -> Any:
        kind = SubjectKind.PRODUCT if subject == DESK else SubjectKind.MATERIAL
        wish = BidWish(subject, kind, bidder, {"base_price": base_price, **terms})
        return await self.write(lambda tx: self.exchange.make_bid(tx, wish))

    async def receive(self, body: bytes, caller: str = "vienna.loop", verified: bool = True) -> int:
        document = check_document(body, "MaterialOffer")
        return await self.write(lambda tx: self.exchange.receive_offer(tx, caller, verified, document))

    async def told(self, body: bytes, caller: str = "munich.loop") -> int:
        document = check_document(body, "BidStatus")
        return await self.write(lambda tx: self.exchange.receive_status(tx, caller, document))

    async def select(self, number: int | None = None, subject: str = GRAIN) -> dict[str, Any]:
        kind = SubjectKind.PRODUCT if subject == DESK else SubjectKind.MATERIAL
        return await self.write(lambda tx: self.exchange.select(tx, kind, subject, number))

    def listing(self, subject: str = GRAIN) -> dict[str, Any]:
        kind = SubjectKind.PRODUCT if subject == DESK else SubjectKind.MATERIAL
        return self.exchange.listing(self.database.points, kind, subject)

    async def audited(self) -> list[str]:
        """The events in the audit log, in order."""
        rows = await self.database.all("SELECT payload FROM audit_entry ORDER BY sequence")
        return [json.loads(row["payload"])["event"] for row in rows]


@asynccontextmanager
async def exchange_node(
    directory: Path, home: Home, signals: Mapping[str, Decimal], clock: ManualClock | None = None
) -> AsyncIterator[ExchangeNode]:
    """A node's exchange with its database in `directory`."""
    clock = ManualClock(NOW_MS) if clock is None else clock
    path = directory / f"{home.node_id}.db"
    async with await Database.create(path, DatabaseSettings(synchronous="NORMAL"), clock) as database:
        yield ExchangeNode(home, database, clock, signals)


def reason_of(refusal: Any) -> str:
    """The reason of a caught Refusal."""
    error = refusal.value
    if not isinstance(error, Refusal):
        raise TypeError(f"{error!r} is no refusal")
    return error.reason
