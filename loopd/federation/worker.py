"""One worker for each node that is sent to: it probes, sends what waits, and keeps what comes of it.

A peer that is down costs its worker's sleep and nothing else: no shared pool waits for it. Recovery needs no traffic:
the probe finds a peer that came back, and what waited goes out then. Inbound contact only hastens a probe; it never
counts as being able to send. See docs/protocol-notes.md, Health.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.federation import health_store, nodes, outbox
from loopd.federation.handshake import NodeCard, read_node_info
from loopd.federation.outbox import Entry, FloodEntry, RequestEntry
from loopd.federation.requests import Destination, NodeRequests, refusal_reason
from loopd.gossip.flood import Outgoing, Route, route
from loopd.gossip.health import Event, PeerHealth, Signal, Timing, transition
from loopd.net.http_client import DialError, PeerAnswer
from loopd.protocol.errors import Refusal
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode, Standing
from loopd.protocol.signing import (
    API_ROOT,
    X_LOOP_HOP,
    X_LOOP_ORIGIN,
    X_LOOP_ORIGIN_SIGNATURE,
    X_LOOP_ORIGIN_TIMESTAMP,
    X_LOOP_TTL,
)
from loopd.protocol.subjects import SubjectKind

log = structlog.get_logger(__name__)

NODE_INFO_PATH = "/node/info"
ANNOUNCE_PATH = "/federate/announce"

# An anchorless message has no hop value; its relays still carry the header, for receivers that look for it.
NO_HOP_VALUE = "0" * 64

# How long a worker sleeps at most before it looks around; what it waits for wakes it earlier.
IDLE_S = 60.0


class Outcome(Enum):
    """What came of one entry."""

    DONE = auto()  # taken, refused for good, or not for this node
    ASIDE = auto()  # this entry cannot be taken now, others can
    STOP = auto()  # the node cannot be reached or asks for patience: the entry stays where it is


class RequestAnswered(Protocol):
    """The module that queued a request learns, in the transaction that ends it, how it was answered."""

    def __call__(self, tx: Tx, reference: str, status: int, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker shares."""

    own_node_id: str
    database: Database
    requests: NodeRequests
    clock: Clock
    timing: Timing
    request_answered: RequestAnswered
    # Asked once a probe succeeded: fetch what else is due from this peer.
    contacted: Callable[[KnownNode], Awaitable[None]]
    # A handshake that is still owed: made before anything else.
    shake_hands: Callable[[KnownNode], Awaitable[bool]]


class Worker:
    """Sends to one node. Start it with `run()`; `wake()` when there may be something to do."""

    def __init__(self, node_id: str, around: Surroundings, randomness: random.Random) -> None:
        self.node_id = node_id
        self._around = around
        self._random = randomness
        self._wake = asyncio.Event()
        self._health: PeerHealth | None = None
        self.round_trip_ms: int | None = None

    def __repr__(self) -> str:
        return f"Worker({self.node_id}, {self._health.state.value if self._health else 'new'})"

    @property
    def health(self) -> PeerHealth | None:
        """The node's health as last decided."""
        return self._health

    def wake(self) -> None:
        """Something was queued, or the node's standing changed."""
        self._wake.set()

    async def contacted_us(self) -> None:
        """The node called here: look sooner whether it can be reached, if it could not."""
        if self._health is not None and not self._health.may_send(self._around.clock.now_ms()):
            await self._signal(Signal.INBOUND_CONTACT)
            self.wake()

    async def run(self) -> None:
        """Work until cancelled, or until nothing is left: the node was removed, or is no peer and has no request."""
        while (node := nodes.find(self._around.database.points, self.node_id)) is not None:
            self._wake.clear()
            if node.standing is Standing.INTRODUCED and not await self._has_requests():
                return
            try:
                wait_s = await self._turn(node)
            except Refusal as refusal:  # our own storage is overloaded or closing: nothing is lost, try again
                log.warning("worker_delayed", peer=self.node_id, reason=refusal.reason)
                wait_s = 1.0
            if wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait_s, IDLE_S)):
                        await self._wake.wait()

    async def _turn(self, node: KnownNode) -> float:
        """One round of what is due. How long there is nothing more to do, in seconds."""
        around = self._around
        if self._health is None:
            self._health = health_store.load(around.database.points, self.node_id, around.clock.now_ms())
        if (node.standing is Standing.SUSPENDED) != (self._health.next_attempt_at_ms is None):
            await self._signal(Signal.SUSPENDED if node.standing is Standing.SUSPENDED else Signal.RESUMED)
        if self._health.attempt_is_due(around.clock.now_ms()):
            await self._probe(node)
        if self._health.may_send(around.clock.now_ms()):
            if await self._owes_handshake() and not await around.shake_hands(node):
                return self._until_next_attempt_s()
            if await self._send(node):
                return 0.0
        return self._until_next_attempt_s()

    def _until_next_attempt_s(self) -> float:
        if self._health is None or self._health.next_attempt_at_ms is None:
            return IDLE_S
        now_ms = self._around.clock.now_ms()
        due_ms = self._health.next_attempt_at_ms
        if self._health.send_after_ms > now_ms:
            due_ms = min(due_ms, self._health.send_after_ms)
        return max(0.01, (due_ms - now_ms) / 1000)

    async def _owes_handshake(self) -> bool:
        row = self._around.database.point("SELECT handshake_owed FROM node WHERE node_id = ?", (self.node_id,))
        return row is not None and bool(row["handshake_owed"])

    async def _has_requests(self) -> bool:
        query = {"node": self.node_id, "is_peer": False}
        row = await self._around.database.one(outbox.QUEUE_LENGTH, query)
        return row is not None and row["waiting"] > 0

    # Health

    async def _signal(self, signal: Signal, retry_after_ms: int = 0) -> None:
        """Move the health on, and store it where that is worth a write."""
        around = self._around
        before = self._health or PeerHealth.new(around.clock.now_ms())
        now_ms = around.clock.now_ms()
        after = transition(before, Event(signal, retry_after_ms), now_ms, self._random.random(), around.timing)
        self._health = after
        if after.state is not before.state:
            log.info("peer_health", peer=self.node_id, state=after.state.value, was=before.state.value)
        if health_store.worth_storing(before, after):
            await around.database.write(lambda tx: health_store.save(tx, self.node_id, after))

    async def _probe(self, node: KnownNode) -> None:
        """Ask for the node's NodeInfo: is it there, is it still itself, and where is it?"""
        destination = Destination(node.endpoint, None, node.named_by_operator)
        try:
            answer = await self._around.requests.get(destination, NODE_INFO_PATH)
        except DialError as error:
            log.debug("probe_failed", peer=self.node_id, error=str(error))
            await self._signal(Signal.PROBE_FAILED)
            return
        if answer.status >= 500:
            await self._signal(Signal.PROBE_FAILED)
            return
        card = _card(answer)
        if card is not None and not self._is_itself(node, card):
            await self._signal(Signal.PROBE_FAILED)
            return
        self.round_trip_ms = answer.elapsed_ms
        await self._signal(Signal.PROBE_SUCCEEDED)
        if card is not None and node.location != card.location:
            await self._keep_location(card.location)
        if node.standing is Standing.PEER:
            await self._around.contacted(node)

    def _is_itself(self, node: KnownNode, card: NodeCard) -> bool:
        shown = None if card.public_key is None else card.public_key.raw
        if card.node_id == node.node_id and (node.public_key is None or shown == node.public_key):
            return True
        log.warning("probe_found_another_node", peer=self.node_id, found=card.node_id)
        return False

    async def _keep_location(self, location: Location) -> None:
        now_ms = self._around.clock.now_ms()
        await self._around.database.write(lambda tx: nodes.set_location(tx, self.node_id, location, now_ms))

    # Sending

    async def _send(self, node: KnownNode) -> bool:
        """Send one batch of each kind. True where more may wait."""
        is_peer = node.standing is Standing.PEER
        query = {"node": self.node_id, "own": self._around.own_node_id, "limit": outbox.BATCH_ENTRIES}
        requests = await self._batch(outbox.REQUESTS_AFTER_CURSOR, query)
        if requests and not await self._work_off(node, requests, outbox.advance_requests):
            return False
        floods = await self._batch(outbox.FLOODS_AFTER_CURSOR, query) if is_peer else []
        if floods and not await self._work_off(node, floods, outbox.advance_floods):
            return False
        aside = await self._batch(outbox.ASIDE_DUE, {**query, "now_ms": self._around.clock.now_ms()})
        if aside and not await self._work_off(node, aside, None):
            return False
        return bool(requests or floods or aside)

    async def _batch(self, sql: str, query: dict[str, object]) -> list[Entry]:
        return [outbox.entry_of(row) for row in await self._around.database.all(sql, query)]

    async def _work_off(
        self, node: KnownNode, entries: Sequence[Entry], advance: Callable[[Tx, str, int], None] | None
    ) -> bool:
        """Send a batch, all at once, and write down what came of it. False where sending has to pause.

        With `advance`, the cursor passes every entry before the first that has to wait where it is. Without it the
        entries stand aside already, and those that are done leave.
        """
        results = await asyncio.gather(*(self._deliver(node, entry) for entry in entries))
        now_ms = self._around.clock.now_ms()
        outcomes = [outcome for outcome, _ in results]
        settled = len(entries)
        if advance is not None and Outcome.STOP in outcomes:
            settled = outcomes.index(Outcome.STOP)

        def record(tx: Tx) -> None:
            for entry, (outcome, answered) in zip(entries[:settled], results[:settled], strict=True):
                if outcome is Outcome.ASIDE:
                    outbox.set_aside(tx, self.node_id, entry.entry, now_ms)
                elif outcome is Outcome.DONE:
                    if advance is None:
                        outbox.settle_aside(tx, self.node_id, entry.entry)
                    if isinstance(entry, RequestEntry) and answered is not None:
                        self._around.request_answered(tx, entry.reference, *answered)
            if advance is not None and settled > 0:
                advance(tx, self.node_id, entries[settled - 1].entry)

        await self._around.database.write(record)
        return Outcome.STOP not in outcomes

    async def _deliver(self, node: KnownNode, entry: Entry) -> tuple[Outcome, tuple[int, str] | None]:
        """Send one entry if it is for this node. The outcome, and for a request its final status and reason."""
        if entry.expires_at_ms <= self._around.clock.now_ms():
            return Outcome.DONE, (0, "expired")
        try:
            if isinstance(entry, RequestEntry):
                destination = Destination(node.endpoint, node.node_id, node.named_by_operator)
                answer = await self._around.requests.post(destination, entry.path.removeprefix(API_ROOT), entry.body)
            elif (decision := _flood_route(entry, node)) is Route.SEND:
                answer = await self._post_copy(node, entry)
            else:
                log.debug("not_sent", peer=self.node_id, message_id=entry.message_id.hex(), reason=decision.value)
                return Outcome.DONE, None
        except DialError as error:
            log.info("send_failed", peer=self.node_id, **_named(entry), error=str(error))
            await self._signal(Signal.REQUEST_FAILED)
            return Outcome.STOP, None
        return await self._judge(entry, answer)

    async def _post_copy(self, node: KnownNode, entry: FloodEntry) -> PeerAnswer:
        if not node.is_loopd:
            # The short form of §8.2: this node is the origin, its own headers are the signature.
            destination = Destination(node.endpoint, None, node.named_by_operator)
            return await self._around.requests.post(destination, ANNOUNCE_PATH, entry.body)
        return await self._around.requests.post(
            Destination(node.endpoint, node.node_id, node.named_by_operator),
            ANNOUNCE_PATH,
            entry.body,
            {
                X_LOOP_ORIGIN: entry.origin,
                X_LOOP_ORIGIN_TIMESTAMP: entry.origin_timestamp,
                X_LOOP_ORIGIN_SIGNATURE: entry.origin_signature,
                X_LOOP_TTL: str(entry.ttl),
                X_LOOP_HOP: NO_HOP_VALUE if entry.hop_value is None else entry.hop_value.hex(),
            },
        )

    async def _judge(self, entry: Entry, answer: PeerAnswer) -> tuple[Outcome, tuple[int, str] | None]:
        """What an answer means for the entry and for the node's health.

        Tried again: 429, 5xx, and `clock_skew`, signed afresh. Every other refusal is final.
        """
        reason = refusal_reason(answer)
        if answer.status in (429, 503):
            await self._signal(Signal.DEFERRED, _retry_after_ms(answer))
            return (Outcome.STOP if answer.status == 429 else Outcome.ASIDE), None
        if answer.status >= 500 or (answer.status == 401 and reason == "clock_skew"):
            log.warning("send_deferred", peer=self.node_id, **_named(entry), status=answer.status, reason=reason)
            return Outcome.ASIDE, None
        await self._signal(Signal.REQUEST_SUCCEEDED)
        if answer.status >= 300:
            log.warning("send_refused", peer=self.node_id, **_named(entry), status=answer.status, reason=reason)
        else:
            log.debug("sent", peer=self.node_id, **_named(entry), status=answer.status)
        return Outcome.DONE, (answer.status, reason)


def _named(entry: Entry) -> dict[str, str]:
    """What a line of the log calls an entry: who looks for a message, or for a bid, has its id."""
    if isinstance(entry, FloodEntry):
        return {"message_id": entry.message_id.hex(), "subject": entry.subject}
    return {"path": entry.path, "reference": entry.reference}


def _flood_route(entry: FloodEntry, node: KnownNode) -> Route:
    """Whether this copy goes to the node; OUTDATED where a better copy or a newer state follows in the log."""
    if entry.outdated:
        return Route.OUTDATED
    place = None
    if entry.origin_lat is not None and entry.origin_lon is not None:
        place = Location(entry.origin_lat, entry.origin_lon)
    message = Outgoing(entry.origin, SubjectKind(entry.subject_kind), place, entry.radius_km, entry.came_from)
    return route(message, node)


def _card(answer: PeerAnswer) -> NodeCard | None:
    """The node's card; a plain node that shows none, but answers, is there all the same."""
    if answer.status != 200:
        return None
    try:
        return read_node_info(answer.body)
    except Refusal:
        return None


def _retry_after_ms(answer: PeerAnswer) -> int:
    text = answer.headers.get("Retry-After", "")
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) <= 6 else 5_000
