"""What is known of all destinations, read once and again when it changed; and signals fetched that are missing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import groupby, islice

import structlog

from loopd.clock import Clock
from loopd.database import Database
from loopd.protocol.limits import SIGNALS_RETRY_MS, SIGNALS_WAITING_MAX
from loopd.routing.atlas import Atlas, Place
from loopd.routing.ports import Directory, HomeNode, SignalsKnown
from loopd.signals.rules import SignalConfiguration

# Signals fetched at the same time; the rest wait.
FETCHED_AT_ONCE = 8
# Nodes of one question that are looked at; whether one is due is a read by key.
LOOKED_AT = 200

_VERSION = "SELECT version FROM destinations_version WHERE only_row = 1"
_NEVER_MS = 2**63

log = structlog.get_logger(__name__)


class Destinations:
    """Keeps the atlas of all known nodes, this one among them, as of the newest commit."""

    def __init__(
        self, home: HomeNode, database: Database, directory: Directory, signals: SignalsKnown, clock: Clock
    ) -> None:
        self._home = home
        self._database = database
        self._directory = directory
        self._signals = signals
        self._clock = clock
        self._reading = asyncio.Lock()
        self._atlas: Atlas | None = None
        self._known: tuple[int, SignalConfiguration] | None = None
        self._holds_until_ms = 0

    async def atlas(self) -> Atlas:
        """Every known node with its place and the signals in force now."""
        async with self._reading:
            own = self._signals.own(self._database.points)
            row = self._database.point(_VERSION)
            version = 0 if row is None else int(row["version"])
            now_ms = self._clock.now_ms()
            if self._atlas is None or self._known != (version, own) or now_ms >= self._holds_until_ms:
                self._atlas, self._holds_until_ms = await self._read(own, now_ms)
                self._known = (version, own)
            return self._atlas

    async def _read(self, own: SignalConfiguration, now_ms: int) -> tuple[Atlas, int]:
        async with self._database.snapshot() as reader:
            nodes = await self._directory.destinations(reader)
            configurations = await self._signals.of_others(reader)
        home = self._home

        def drawn() -> tuple[Atlas, int]:
            in_force, holds_until_ms = _in_force(configurations, now_ms)
            places = [Place(node.node_id, node.location, in_force.get(node.node_id)) for node in nodes]
            return Atlas([*places, Place(home.node_id, home.location, own)]), holds_until_ms

        return await asyncio.to_thread(drawn)


def _in_force(configurations: Iterable[SignalConfiguration], now_ms: int) -> tuple[dict[str, SignalConfiguration], int]:
    """Of each node the configuration with the latest start that has come, and when the first of them is replaced."""
    found = {}
    holds_until_ms = _NEVER_MS
    for node_id, of_node in groupby(configurations, key=lambda configuration: configuration.node_id):
        for configuration in of_node:
            if configuration.valid_from_ms > now_ms:
                holds_until_ms = min(holds_until_ms, configuration.valid_from_ms)
                break
            found[node_id] = configuration
    return found, holds_until_ms


class SignalFetcher:
    """Fetches signals in the background that somebody needs for a cost, each node's seldom, a few at once."""

    def __init__(
        self,
        own_id: str,
        database: Database,
        signals: SignalsKnown,
        clock: Clock,
        fetch: Callable[[str], Awaitable[None]],
    ) -> None:
        self._own_id = own_id
        self._database = database
        self._signals = signals
        self._clock = clock
        self._fetch = fetch
        self._waiting: dict[str, None] = {}
        self._tried_at_ms: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, node_ids: Iterable[str]) -> None:
        """Have the signals fetched of those nodes that are due; this node itself never is."""
        now_ms = self._clock.now_ms()
        self._tried_at_ms = {
            node_id: at_ms for node_id, at_ms in self._tried_at_ms.items() if 0 <= now_ms - at_ms < SIGNALS_RETRY_MS
        }
        asked = [node_id for node_id in islice(node_ids, LOOKED_AT) if node_id not in self._tried_at_ms]
        for node_id in self._signals.due(self._database.points, asked):
            if len(self._waiting) < SIGNALS_WAITING_MAX and node_id != self._own_id:
                self._waiting[node_id] = None
        for _ in range(min(len(self._waiting), FETCHED_AT_ONCE - len(self._tasks))):
            task = asyncio.create_task(self._work(), name="signal-fetcher")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        while self._waiting:
            node_id = next(iter(self._waiting))
            del self._waiting[node_id]
            self._tried_at_ms[node_id] = self._clock.now_ms()
            try:
                await self._fetch(node_id)
            except Exception:
                # The next node's signals are wanted all the same.
                log.exception("signals_not_fetched", node=node_id)

    async def settled(self) -> None:
        """Return when nothing is being fetched."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """End what is being fetched."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
