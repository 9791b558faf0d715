"""Routing over a real database: a node that knows others, what it has, what it heard, and what it is told to fetch."""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, RowSource, Tx
from loopd.events.service import EventLog
from loopd.federation import nodes
from loopd.federation.heard import HeardSubjects
from loopd.federation.nodes import AddedBy, Admission
from loopd.federation.settings import DEFAULT_RINGS
from loopd.protocol.documents import check_document, dump_json
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.subjects import HeardSubject
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.vocabulary import LOOPD_FEATURES
from loopd.registry import offered
from loopd.registry.service import Registry
from loopd.routing.assignment import best_assignment
from loopd.routing.destinations import Destinations, SignalFetcher
from loopd.routing.matching import Matching
from loopd.routing.planner import Planner
from loopd.routing.planning import Batch, Need, Plan, make_plan
from loopd.routing.plans import Plans
from loopd.routing.route import read_position
from loopd.routing.service import Routing
from loopd.routing.wanted import Wanted
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from tests.exchange_support import (
    BERLIN,
    CONTEXT,
    DAY_MS,
    MUNICH,
    NOW_MS,
    VIENNA,
    Home,
    RecordingOutbox,
    signals_document,
)
from tests.registry_support import Munich, RecordingAnnouncer, material_json
from tests.support import ManualClock

T = TypeVar("T")

CITIES = {"munich.loop": MUNICH, "vienna.loop": VIENNA, "berlin.loop": BERLIN}


@dataclass(frozen=True)
class Reached:
    ring: int
    offered_since_ms: int


class FakeOverflow:
    """The rings as they come, and how far each subject was announced."""

    def __init__(self) -> None:
        self.rings = tuple(settings.ring for settings in DEFAULT_RINGS)
        self.reached_by: dict[str, Reached] = {}

    def reached(self, source: RowSource, subject_id: str) -> Reached | None:
        return self.reached_by.get(subject_id)


class PlannerHere(Planner):
    """Plans in this process: what a process of its own adds is tested beside it."""

    async def plan(self, batches: Sequence[Batch], needs: Sequence[Need]) -> Plan:
        return make_plan(batches, needs, best_assignment)


class RoutingNode:
    """One node's routing; registry and directory are real, what it heard and what it sends are fakes."""

    def __init__(self, home: Home, database: Database, clock: ManualClock, signals: Mapping[str, Decimal]) -> None:
        self.home = home
        self.database = database
        self.clock = clock
        self.events = EventLog(clock)
        self.heard = HeardSubjects(clock)
        self.outbox = RecordingOutbox()
        self.signals = Signals(home.node_id, CONTEXT, SignalsSettings(values=dict(signals)), clock, self.events)
        self.announcer = RecordingAnnouncer()
        self.fetched: list[str] = []
        self.destinations = Destinations(home, database, nodes, self.signals, clock)
        self.fetcher = SignalFetcher(home.node_id, database, self.signals, clock, self._fetch)
        audit = AuditLog(clock)
        self.matching = Matching(home, clock, offered, self.heard, nodes, self.events)
        self.chance = (f"{number:016x}" for number in itertools.count(1))
        self.wanted = Wanted(
            home, clock, audit, self.events, self.matching, nodes, self.outbox, lambda length: next(self.chance)
        )
        self.registry = Registry(Munich(), clock, audit, self.events, self.announcer, [self.wanted])
        self.overflow = FakeOverflow()
        self.routing = Routing(
            home,
            database,
            clock,
            self.registry,
            self.heard,
            self.matching,
            self.overflow,
            self.destinations,
            self.fetcher,
        )

        self.planner = PlannerHere()
        self.plans = Plans(
            home,
            database,
            clock,
            offered,
            self.heard,
            self.matching,
            self.destinations,
            self.fetcher,
            self.planner,
        )

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def know(
        self,
        node_id: str,
        location: Location | None = None,
        features: frozenset[str] = LOOPD_FEATURES,
        **signals: float,
    ) -> None:
        """Another node, a peer; with the signals it published, if any."""
        admission = Admission(
            node_id=node_id,
            standing=Standing.PEER,
            auth=PeerAuth.SIGNED,
            added_by=AddedBy.HANDSHAKE,
            name=node_id,
            endpoint=f"https://{node_id}/api/v1",
            public_key=bytes(32),
            location=location or CITIES.get(node_id),
            features=features,
            handshake_at_ms=self.clock.now_ms(),
        )
        await self.write(lambda tx: nodes.admit(tx, admission, self.clock.now_ms()))
        if signals:
            await self.publish(node_id, **signals)

    async def register(self, number: int = 0, **changes: Any) -> str:
        """A material of this node, 500 kg of organic food unless `changes` say else."""
        document = check_document(material_json(number, **changes), "MaterialDNA")
        registration = await self.write(lambda tx: self.registry.register(tx, document))
        return registration.record.subject.subject_id

    async def register_product(self, body: bytes) -> None:
        document = check_document(body, "ProductDNA")
        await self.write(lambda tx: self.registry.register(tx, document))

    async def hear(self, subject: HeardSubject) -> None:
        """Another city's announcement is delivered."""

        def unit(tx: Tx) -> None:
            tx.execute(
                """INSERT OR REPLACE INTO heard (origin, subject, subject_kind, message_id, revision, issued_at_ms,
                    available, category, quantity, unit, lat, lon, via, verified, received_at_ms, heard_number,
                    valid_until_ms)
                VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?,
                    (SELECT coalesce(max(heard_number), 0) + 1 FROM heard), ?)""",
                (
                    subject.origin,
                    subject.subject_id,
                    subject.kind.value,
                    subject.message_id,
                    self.clock.now_ms(),
                    subject.available,
                    subject.category,
                    None if subject.quantity is None else str(subject.quantity),
                    subject.unit,
                    None if subject.location is None else subject.location.lat,
                    None if subject.location is None else subject.location.lon,
                    subject.origin,
                    self.clock.now_ms(),
                    subject.valid_until_ms,
                ),
            )
            self.wanted.heard(tx, subject)

        await self.write(unit)

    async def want(self, **wish: Any) -> dict[str, Any]:
        """Look for something, 200 kg of organic food unless `wish` says else; None leaves a key out."""
        stated = {"category": "organic-food", "quantity": 200, "unit": "kg", **wish}
        value = {key: each for key, each in stated.items() if each is not None}
        return await self.write(lambda tx: self.wanted.register(tx, value))

    def peer(self, node_id: str) -> KnownNode:
        node = nodes.find(self.database.points, node_id)
        assert node is not None
        return node

    def receive(self, tx: Tx, demand: Any, caller: str = "vienna.loop") -> None:
        self.wanted.receive(tx, caller, check_document(dump_json(demand), "LoopDemand"))

    async def told(self, body: Any, caller: str = "vienna.loop") -> None:
        """A LoopDemand of another node arrives."""
        document = check_document(body if isinstance(body, bytes) else dump_json(body), "LoopDemand")
        await self.write(lambda tx: self.wanted.receive(tx, caller, document))

    def demand(self, demand_id: str) -> dict[str, Any]:
        return self.wanted.show(self.database.points, demand_id)

    async def matched(self) -> list[tuple[str, str]]:
        """Every match that was told of: the demand's id and that of what fits it."""
        rows = await self.database.all("SELECT subject, data FROM event WHERE kind = 'wanted.matched' ORDER BY id")
        found = [(row["subject"], json.loads(row["data"])) for row in rows]
        return [(demand, data.get("material") or data["product"]) for demand, data in found]

    async def publish(self, node_id: str, **signals: float) -> None:
        stated = {name.replace("_", "-"): value for name, value in signals.items()}
        document = signals_document(node_id, stated)
        await self.write(lambda tx: self.signals.remember(tx, node_id, document))

    async def cost(self, **question: Any) -> dict[str, Any]:
        """The answer to a question for LoopCosts, as a client reads it."""
        asked = json.loads(json.dumps(question), parse_float=Decimal)
        return dict(await self.routing.loop_costs(asked))

    async def route(self, cursor: str | None = None, limit: int = 100, **question: Any) -> tuple[Any, str | None]:
        """A page of a route as a client reads it, and the cursor of the next."""
        asked = json.loads(json.dumps(question), parse_float=Decimal)
        after = None if cursor is None else read_position(cursor)
        page, following = await self.routing.route(asked, after, limit)
        return page, None if following is None else following.text()

    async def plan(self, **task: Any) -> dict[str, Any]:
        """A plan as a client reads it."""
        return await self.plans.plan(json.loads(json.dumps(task), parse_float=Decimal))

    async def _fetch(self, node_id: str) -> None:
        self.fetched.append(node_id)


def loop_demand(**changes: Any) -> dict[str, Any]:
    """Vienna looks for 200 kg of organic food."""
    value = {
        "@context": CONTEXT,
        "@type": "LoopDemand",
        "id": "WNT-000000001",
        "node": "vienna.loop",
        "category": "organic-*",
        "quantity": 200,
        "unit": "kg",
        "status": "open",
        "version": 1,
        "issued_at": format_timestamp(NOW_MS),
        "valid_until": format_timestamp(NOW_MS + DAY_MS),
        **changes,
    }
    return {key: stated for key, stated in value.items() if stated is not None}


@asynccontextmanager
async def routing_node(
    directory: Path,
    home: Home | None = None,
    signals: Mapping[str, Decimal] | None = None,
    clock: ManualClock | None = None,
) -> AsyncIterator[RoutingNode]:
    """Munich, if nobody else, which lets organic food go at 40 %."""
    home = home or Home("munich.loop", MUNICH)
    clock = clock or ManualClock(NOW_MS)
    path = directory / f"{home.node_id}.db"
    opened = Database.open if path.exists() else Database.create
    async with await opened(path, DatabaseSettings(synchronous="NORMAL"), clock) as database:
        node = RoutingNode(home, database, clock, signals or {"organic-food": Decimal("0.40")})
        try:
            yield node
        finally:
            await node.fetcher.stop()
