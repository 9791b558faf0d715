"""Repair over a link: what one side missed while there was none is found by comparing what both hold (§9.4).

The side that dialled compares, once for each link; see docs/protocol-notes.md, Repair. What is found goes out as offers
without bodies, beside the log. A message is compared only with a peer inside its radius, and only as the newest state
of its subject, with a signature that holds for others and the proof that lets it be passed on.

At the bounds: a node takes up at most `SESSIONS_PER_S` comparisons a second, whoever began them, so that one that
returns to many peers at once stays at work; the others wait for their turn. What is held is read anew at most every
`ITEMS_FRESH_S`, however many compare: who comes in between waits. A comparison that the peer's set outran is made
again, `ATTEMPTS_MAX` times.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from loopd.clock import Clock
from loopd.crypto.hop_chain import next_hop_value
from loopd.database.database import Database
from loopd.gossip.errors import ProtocolError
from loopd.gossip.flood import Outgoing, Route, route
from loopd.gossip.frames import Reconcile, ReconcileTtls
from loopd.gossip.offering import LogEntry
from loopd.gossip.reconciliation import Initiator, Items, ItemSet, Offer, Responder
from loopd.net.link import Link
from loopd.protocol.geo import Location, within_radius
from loopd.protocol.nodes import KnownNode
from loopd.protocol.subjects import SubjectKind

log = structlog.get_logger(__name__)

SESSIONS_PER_S: Final = 5
ITEMS_FRESH_S: Final = 2.0
ATTEMPTS_MAX: Final = 3
_AGAIN_AFTER_S: Final = 5.0

# What is compared: the newest state of each subject that others can verify, with its proof, and this node's own
# announcements, which it gives out undiminished and which so count as their TTL and one more.
_ITEMS: Final = """
SELECT h.issued_at_ms, m.message_id, m.best_ttl AS ttl, m.origin_lat, m.origin_lon, m.radius_km
FROM heard h JOIN message m ON m.message_id = h.message_id
WHERE m.relayable AND h.valid_until_ms > :now_ms AND (m.hop_value IS NOT NULL OR NOT m.anchored)
UNION ALL
SELECT m.received_at_ms, m.message_id, m.best_ttl + 1, m.origin_lat, m.origin_lon, m.radius_km
FROM own_announcement a JOIN message m ON m.message_id = a.message_id
WHERE a.valid_until_ms > :now_ms
"""

_Scope = tuple[float | None, float | None, float | None]


class HeldItems:
    """What this node holds, as comparisons see it: read anew for those that ask, at most every `ITEMS_FRESH_S`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._items = Items()
        self._scopes: dict[_Scope, int] = {}
        self._read_at_s: float | None = None
        self._reading = asyncio.Lock()

    async def within_reach_of(self, peer: KnownNode) -> ItemSet:
        """The items inside whose radius the peer lies, as they stand now or a moment later.

        Never as they stood before: what came since would be missed until the next comparison.
        """
        asked_at_s = self._clock.monotonic_s()
        async with self._reading:
            if self._read_at_s is None or self._read_at_s < asked_at_s:
                if self._read_at_s is not None:
                    await asyncio.sleep(max(0.0, self._read_at_s + ITEMS_FRESH_S - self._clock.monotonic_s()))
                read_at_s = self._clock.monotonic_s()
                await self._read()
                self._read_at_s = read_at_s
        inside = {number for scope, number in self._scopes.items() if _reaches(scope, peer.location)}
        return self._items.snapshot(None if len(inside) == len(self._scopes) else inside)

    async def _read(self) -> None:
        rows = await self._database.all(_ITEMS, {"now_ms": self._clock.now_ms()})
        scopes: dict[_Scope, int] = {}
        items = (
            (
                row["issued_at_ms"],
                row["message_id"],
                row["ttl"],
                scopes.setdefault((row["origin_lat"], row["origin_lon"], row["radius_km"]), len(scopes)),
            )
            for row in rows
        )
        # At 100,000 items this takes half a second: not on the loop.
        self._items, self._scopes = await asyncio.to_thread(Items, items), scopes


def _reaches(scope: _Scope, place: Location | None) -> bool:
    lat, lon, radius_km = scope
    if place is None or lat is None or lon is None:
        return True
    return within_radius(Location(lat, lon), place, radius_km)


class Pace:
    """Lets comparisons begin one after the other, `SESSIONS_PER_S` at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait for this comparison's turn."""
        now_s = self._clock.monotonic_s()
        begin_s = max(now_s, self._next_s)
        self._next_s = begin_s + 1 / SESSIONS_PER_S
        await asyncio.sleep(begin_s - now_s)


class Repair:
    """The repair of one link, from whichever side."""

    def __init__(
        self,
        link: Link,
        find_peer: Callable[[], KnownNode | None],
        items: HeldItems,
        pace: Pace,
        max_messages: int,
        found: Callable[[Iterable[bytes]], None],
    ) -> None:
        """`found` is given the ids of what the peer lacks or holds with a lower TTL than it can have."""
        self._link = link
        self._find_peer = find_peer
        self._items = items
        self._pace = pace
        self._max_messages = max_messages
        self._found = found
        self._session = 0
        self._responder: Responder | None = None
        self._messages: deque[Reconcile | ReconcileTtls] = deque()
        self._came = asyncio.Event()

    def received(self, frame: Reconcile | ReconcileTtls) -> None:
        """A message of a comparison came. It is finished with, and its credit given back, when it is answered."""
        self._messages.append(frame)
        self._came.set()

    async def run(self) -> None:
        """Compare or answer until cancelled. ProtocolError ends the comparison, and with it the link."""
        if self._link.dialled:
            await self._compare_until_known()
        while True:
            await self._answer(await self._next())

    async def _next(self) -> Reconcile | ReconcileTtls:
        while not self._messages:
            self._came.clear()
            await self._came.wait()
        return self._messages.popleft()

    # The side that dialled

    async def _compare_until_known(self) -> None:
        for _ in range(ATTEMPTS_MAX):
            if not await self._compare():
                return
            await asyncio.sleep(_AGAIN_AFTER_S)

    async def _compare(self) -> bool:
        """One comparison; whether the peer's set changed meanwhile, so that it has to be made again."""
        await self._pace.turn()
        peer = self._find_peer()
        if peer is None:
            return False
        self._session += 1
        items = await self._items.within_reach_of(peer)
        initiator = Initiator(items, need_max=self._max_messages)
        message: bytes | None = initiator.start()
        while message is not None:
            self._link.send([Reconcile(self._session, message)])
            message = initiator.receive(await self._answer_to(Reconcile))
        offered = self._offer(initiator.offers())
        while (part := initiator.next_ttls()) is not None:
            self._link.send([ReconcileTtls(self._session, part)])
            offered += self._offer(initiator.receive_ttls(await self._answer_to(ReconcileTtls)))
        log.info("compared", peer=self._link.peer, held=len(items), lacked=len(initiator.need), offered=offered)
        return initiator.ttls_differ

    async def _answer_to(self, kind: type[Reconcile] | type[ReconcileTtls]) -> bytes:
        while True:
            frame = await self._next()
            self._link.finished([frame])
            if isinstance(frame, kind) and frame.session == self._session:
                return frame.payload

    # The side that was called

    async def _answer(self, frame: Reconcile | ReconcileTtls) -> None:
        if self._link.dialled:
            raise ProtocolError("unexpected", "The side that was called does not compare.")
        if frame.session > self._session:
            await self._pace.turn()
            peer = self._find_peer()
            if peer is None:
                return
            self._session = frame.session
            self._responder = Responder(await self._items.within_reach_of(peer))
        if self._responder is not None and frame.session == self._session:
            if isinstance(frame, Reconcile):
                self._link.send([Reconcile(self._session, self._responder.receive(frame.payload))])
            else:
                answer, offers = self._responder.receive_ttls(frame.payload)
                self._link.send([ReconcileTtls(self._session, answer)])
                offered = self._offer(offers)
                log.info("compared", peer=self._link.peer, offered=offered)
        self._link.finished([frame])

    def _offer(self, offers: Sequence[Offer]) -> int:
        self._found(offer.message_id for offer in offers)
        return len(offers)


class RepairLoader:
    """Makes offers of what a comparison found, as it is stored by then."""

    def __init__(self, own_node_id: str, database: Database, clock: Clock) -> None:
        self._own_node_id = own_node_id
        self._database = database
        self._clock = clock
        self._last_entry = 0

    def load(self, peer: KnownNode, message_ids: Sequence[bytes]) -> list[LogEntry]:
        """The offers for a peer; what ended since, or does not go to it, is left out. Their places are below zero."""
        entries = (self._load_one(peer, message_id) for message_id in message_ids)
        return [entry for entry in entries if entry is not None]

    def _load_one(self, peer: KnownNode, message_id: bytes) -> LogEntry | None:
        row = self._database.point("SELECT * FROM message WHERE message_id = ?", (message_id,))
        if row is None or not row["relayable"] or row["valid_until_ms"] <= self._clock.now_ms():
            return None
        place = None if row["origin_lat"] is None else Location(row["origin_lat"], row["origin_lon"])
        is_own = row["origin"] == self._own_node_id
        # Who relays is not asked here: the peer holds less of it than it would get.
        came_from = None if is_own else ""
        outgoing = Outgoing(row["origin"], SubjectKind(row["subject_kind"]), place, row["radius_km"], came_from)
        ttl, hop_value = row["best_ttl"], row["hop_value"]
        if not is_own:
            ttl, hop_value = ttl - 1, None if hop_value is None else next_hop_value(hop_value)
        if route(outgoing, peer) is not Route.SEND or ttl < 1:
            return None
        self._last_entry -= 1
        return LogEntry(
            self._last_entry,
            message_id,
            row["origin"],
            row["origin_timestamp"],
            row["origin_signature"] or "",
            ttl,
            hop_value,
            row["body"],
        )
