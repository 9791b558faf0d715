"""The room as one: costs and routes, plans, and demand with its matches."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.database import Database
from loopd.events.service import EventLog
from loopd.registry import offered
from loopd.registry.service import Registry
from loopd.routing.destinations import Destinations, SignalFetcher
from loopd.routing.matching import Matching
from loopd.routing.planner import Planner
from loopd.routing.plans import Plans
from loopd.routing.ports import Directory, Heard, HeardSupply, HomeNode, Outbox, Overflow, Peers
from loopd.routing.service import Routing
from loopd.routing.wanted import Wanted
from loopd.routing.wanted_time import WantedTime
from loopd.signals.service import Signals


class Announced(Heard, HeardSupply, Protocol):
    """What other nodes announced, by its id and by its category."""


class Nodes(Directory, Peers, Protocol):
    """The nodes that this one knows."""


class RoutingRoom:
    """Everything of a node's routing over one database. `start` to `stop`.

    `fetch_signals` asks a node for its signals, because somebody waits for a cost.
    """

    def __init__(
        self,
        node: HomeNode,
        database: Database,
        audit: AuditLog,
        events: EventLog,
        clock: Clock,
        registry: Registry,
        signals: Signals,
        nodes: Nodes,
        heard: Announced,
        outbox: Outbox,
        overflow: Overflow,
        fetch_signals: Callable[[str], Awaitable[None]],
    ) -> None:
        self._fetcher = SignalFetcher(node.node_id, database, signals, clock, fetch_signals)
        matching = Matching(node, clock, offered, heard, nodes, events)
        destinations = Destinations(node, database, nodes, signals, clock)
        self.routes = Routing(node, database, clock, registry, heard, matching, overflow, destinations, self._fetcher)
        self.plans = Plans(node, database, clock, offered, heard, matching, destinations, self._fetcher, Planner())
        self.wanted = Wanted(node, clock, audit, events, matching, nodes, outbox, secrets.token_hex)
        self._wanted_time = WantedTime(self.wanted, database)

    def start(self) -> None:
        """Begin to end demand that has passed."""
        self._wanted_time.start()

    async def stop(self) -> None:
        """End the work in the background."""
        await self._wanted_time.stop()
        await self._fetcher.stop()
