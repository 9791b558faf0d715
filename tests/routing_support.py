"""Routing over a real database: a node that knows others, what it has, what it heard, and what it is told to fetch."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.federation import nodes
from loopd.federation.nodes import AddedBy, Admission
from loopd.protocol.geo import Location
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.vocabulary import LOOPD_FEATURES
from loopd.routing.destinations import Destinations, SignalFetcher
from loopd.routing.service import Routing
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from tests.exchange_support import (
    BERLIN,
    CONTEXT,
    MUNICH,
    NOW_MS,
    VIENNA,
    FakeHeard,
    FakeRecords,
    Home,
    signals_document,
)
from tests.support import ManualClock

T = TypeVar("T")

CITIES = {"munich.loop": MUNICH, "vienna.loop": VIENNA, "berlin.loop": BERLIN}


class RoutingNode:
    """One node's routing; what it needs of registry and federation are fakes that the test fills."""

    def __init__(self, home: Home, database: Database, clock: ManualClock, signals: Mapping[str, Decimal]) -> None:
        self.home = home
        self.database = database
        self.clock = clock
        self.records = FakeRecords(clock)
        self.heard = FakeHeard()
        self.signals = Signals(home.node_id, CONTEXT, SignalsSettings(values=dict(signals)), clock, EventLog(clock))
        self.fetched: list[str] = []
        self.destinations = Destinations(home, database, nodes, self.signals, clock)
        self.fetcher = SignalFetcher(home.node_id, database, self.signals, clock, self._fetch)
        self.routing = Routing(home, database, clock, self.records, self.heard, self.destinations, self.fetcher)

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def know(self, node_id: str, location: Location | None = None, **signals: float) -> None:
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
            features=LOOPD_FEATURES,
            handshake_at_ms=self.clock.now_ms(),
        )
        await self.write(lambda tx: nodes.admit(tx, admission, self.clock.now_ms()))
        if signals:
            await self.publish(node_id, **signals)

    async def publish(self, node_id: str, **signals: float) -> None:
        stated = {name.replace("_", "-"): value for name, value in signals.items()}
        document = signals_document(node_id, stated)
        await self.write(lambda tx: self.signals.remember(tx, node_id, document))

    async def cost(self, **question: Any) -> dict[str, Any]:
        """The answer to a question for LoopCosts, as a client reads it."""
        asked = json.loads(json.dumps(question), parse_float=Decimal)
        return dict(await self.routing.loop_costs(asked))

    async def _fetch(self, node_id: str) -> None:
        self.fetched.append(node_id)


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
