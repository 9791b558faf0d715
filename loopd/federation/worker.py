"""One worker for each node that is sent to: it keeps the node's health, sends what waits, and keeps what comes of it.

A peer that is down costs its worker's sleep and nothing else: no shared pool waits for it. Whether the node is there it
learns from the watch, which probes; what waited goes out when a probe found it. See docs/protocol-notes.md, Health.
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
from loopd.events.service import EventKind, EventLog
from loopd.federation import explain, health_store, nodes, outbox
from loopd.federation.outbox import Entry, FloodEntry, RequestEntry
from loopd.federation.requests import Destination, NodeRequests, refusal_reason, retry_after_ms
from loopd.federation.rotation import KEY_PATH, KeyStatements
from loopd.federation.watch import Watch
from loopd.gossip.flood import Outgoing, Route, route
from loopd.gossip.health import Event, PeerHealth, Signal, State, Timing, transition
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

ANNOUNCE_PATH = "/federate/announce"

# An anchorless message has no hop value; its relays still carry the header, for receivers that look for it.
NO_HOP_VALUE = "0" * 64

# Reasons of a 503 that lie in the message: other messages can be taken meanwhile.
_OF_ONE_MESSAGE = frozenset({"unknown_origin", "key_conflict", "changed_meanwhile", "floods_over_share"})

# How long a worker sleeps at most before it looks around; what it waits for wakes it earlier.
IDLE_S = 60.0


class Outcome(Enum):
    """What came of one entry."""

    DONE = auto()  # taken, refused for good, or not for this node
    ASIDE = auto()  # this entry cannot be taken now, others can
    STOP = auto()  # the node cannot be reached or asks for patience: the entry stays where it is


@dataclass(frozen=True, slots=True)
class Result:
    """What came of sending one entry.

    `answered` is the status and reason of the answer, or 0 and why nothing was sent; final unless the outcome is ASIDE.
    `event` is what the answer says of the node's health, None where it says nothing.
    """

    outcome: Outcome
    answered: tuple[int, str] | None = None
    event: Event | None = None


class RequestAnswered(Protocol):
    """The module that queued a request learns, in the transaction that ends it, how it was answered."""

    def __call__(self, tx: Tx, reference: str, status: int, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker shares."""

    own_node_id: str
    database: Database
    requests: NodeRequests
    events: EventLog
    clock: Clock
    timing: Timing
    watch: Watch
    request_answered: RequestAnswered
    # Asked once a probe succeeded: fetch what else is due from this peer.
    contacted: Callable[[KnownNode], Awaitable[None]]
    # A handshake that is still owed: made before anything else.
    shake_hands: Callable[[KnownNode], Awaitable[bool]]
    # What nodes stated about their keys: told before anything that a new key signed.
    key_statements: KeyStatements
    # Whether the log goes to a node over a link now.
    linked: Callable[[str], bool]
    # Told when the node knows what was stated about keys: the link has waited for it.
    keys_told: Callable[[str], None]


class Worker:
    """Sends to one node. Start it with `run()`; `wake()` when there may be something to do."""

    def __init__(self, node_id: str, around: Surroundings, randomness: random.Random) -> None:
        self.node_id = node_id
        self._around = around
        self._random = randomness
        self._wake = asyncio.Event()
        # Held while floods are in flight: a link that takes over begins where they end.
        self._flooding = asyncio.Lock()
        self._health: PeerHealth | None = None
        self._stored: PeerHealth | None = None
        # A probe was answered since this worker began, and since its last look.
        self._found = self._answered = False
        self._batch_entries = outbox.BATCH_ENTRIES

    def __repr__(self) -> str:
        return f"Worker({self.node_id}, {self._health.state.value if self._health else 'new'})"

    @property
    def health(self) -> PeerHealth | None:
        """The node's health as last decided."""
        return self._health

    def wake(self) -> None:
        """Something was queued for this node, or its standing changed."""
        self._wake.set()

    def flood_queued(self) -> None:
        """Something was queued for all peers. One that cannot be sent to now looks when it can."""
        if self._health is None or self._may_send():
            self._wake.set()

    async def floods_settled(self) -> None:
        """Wait until no flood of this worker is in flight; with a link, none follows."""
        async with self._flooding:
            pass

    def observed(self, event: Event) -> None:
        """The watch saw the node, or missed it."""
        if self._health is not None:
            self._move(event)
            if event.signal is Signal.PROBE_SUCCEEDED:
                self._found = self._answered = True
            self.wake()

    async def run(self) -> None:
        """Work until cancelled, or until nothing is left: the node was removed, or is no peer and has no request."""
        while (node := nodes.find(self._around.database.points, self.node_id)) is not None:
            self._wake.clear()
            if node.standing is Standing.INTRODUCED and not await self._has_requests():
                if self._wake.is_set():  # a request was queued since the look
                    continue
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
        health = self._take_health()
        suspended = node.standing is Standing.SUSPENDED
        if suspended != (health.state is State.SUSPENDED):
            health = self._move(Event(Signal.SUSPENDED if suspended else Signal.RESUMED))
        if suspended:
            around.watch.unwatch(self.node_id)
        else:
            around.watch.watch(self.node_id, health)
        await self._store()
        answered, self._answered = self._answered, False
        if answered and node.standing is Standing.PEER:
            await around.contacted(node)
        if self._may_send():
            if self._owes_handshake() and not await around.shake_hands(node):
                return self._until_sending_s()
            if not await self._tell_keys(node):
                return self._until_sending_s()
            if await self._send(node):
                return 0.0
        return self._until_sending_s()

    def _take_health(self) -> PeerHealth:
        if self._health is None:
            now_ms = self._around.clock.now_ms()
            self._health = self._stored = health_store.load(self._around.database.points, self.node_id, now_ms)
        return self._health

    def _until_sending_s(self) -> float:
        """How long nothing may be sent; each probe that is answered ends the wait too."""
        if self._health is None or self._health.state is not State.ACTIVE:
            return IDLE_S
        wait_ms = self._health.send_after_ms - self._around.clock.now_ms()
        return max(0.01, wait_ms / 1000) if wait_ms > 0 else IDLE_S

    def _may_send(self) -> bool:
        """Whether requests may go to the node. None does before it was found to be itself."""
        return self._found and self._health is not None and self._health.may_send(self._around.clock.now_ms())

    def _owes_handshake(self) -> bool:
        row = self._around.database.point("SELECT handshake_owed FROM node WHERE node_id = ?", (self.node_id,))
        return row is not None and bool(row["handshake_owed"])

    async def _has_requests(self) -> bool:
        return await self._around.database.one(outbox.HAS_REQUESTS, {"node": self.node_id}) is not None

    # Health

    def _move(self, event: Event) -> PeerHealth:
        """Move the health on."""
        around, before = self._around, self._take_health()
        after = transition(before, event, around.clock.now_ms(), self._random.random(), around.timing)
        self._health = after
        if after.state is not before.state:
            log.info("peer_health", peer=self.node_id, state=after.state.value, was=before.state.value)
        return after

    async def _store(self) -> None:
        """Write the health down where it is worth a write, and tell where it moved."""
        around, health, before = self._around, self._take_health(), self._stored
        if before is None or not health_store.worth_storing(before, health):
            return

        def unit(tx: Tx) -> None:
            health_store.save(tx, self.node_id, health)
            if health.state is not before.state:
                moved = {"status": health.state.value, "was": before.state.value}
                around.events.append(tx, EventKind.PEER_STATUS, self.node_id, moved)

        # Whoever comes here meanwhile tells what follows this.
        self._stored = health
        try:
            await around.database.write(unit)
        except BaseException:
            self._stored = before
            raise

    async def _signal(self, event: Event) -> None:
        """Something that was sent says how the node is."""
        self._move(event)
        if event.signal is Signal.REQUEST_FAILED:
            self._around.watch.request_failed(self.node_id)
        await self._store()

    # Sending

    async def _tell_keys(self, node: KnownNode) -> bool:
        """Tell the node what was stated about keys; whether it knows all of it now."""
        statements = self._around.key_statements
        if not statements.untold(node):
            return True
        try:
            patience = await statements.tell(node)
        except DialError as error:
            log.info("send_failed", peer=self.node_id, path=KEY_PATH, error=str(error))
            await self._signal(Event(Signal.REQUEST_FAILED))
            return False
        if patience is not None:
            await self._signal(Event(Signal.DEFERRED, retry_after_ms(patience)))
            return False
        self._around.keys_told(self.node_id)
        return True

    async def _send(self, node: KnownNode) -> bool:
        """Send one batch of each kind. True where more may wait."""
        is_peer = node.standing is Standing.PEER
        query = {"node": self.node_id, "own": self._around.own_node_id, "limit": self._batch_entries}
        requests = await self._batch(outbox.REQUESTS_AFTER_CURSOR, query)
        if requests and not await self._work_off(node, requests, outbox.advance_requests):
            return False
        async with self._flooding:
            over_http = is_peer and not self._around.linked(self.node_id)
            floods = await self._batch(outbox.FLOODS_AFTER_CURSOR, query) if over_http else []
            if floods and not await self._tell_keys(node):
                # One of them may be signed with a key whose statement was taken since the last look.
                return False
            if floods and not await self._work_off(node, floods, outbox.advance_floods):
                return False
        aside = await self._batch(
            outbox.ASIDE_DUE,
            {**query, "now_ms": self._around.clock.now_ms(), "retry_max_ms": outbox.ASIDE_RETRY_MAX_MS},
        )
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
        event = _verdict(results)
        if event is not None:
            await self._signal(event)
        now_ms = self._around.clock.now_ms()

        def record(tx: Tx) -> bool:
            last = None
            for entry, result in zip(entries, results, strict=True):
                if result.outcome is Outcome.STOP:
                    if advance is None:
                        continue
                    break
                self._explain(tx, entry, result, now_ms)
                if result.outcome is Outcome.ASIDE:
                    if not outbox.set_aside(tx, self.node_id, entry.entry, now_ms):
                        break
                else:
                    self._settle(tx, entry, result, stood_aside=advance is None)
                last = entry.entry
            if advance is not None and last is not None:
                advance(tx, self.node_id, last)
            return last == entries[-1].entry

        went_through = await self._around.database.write(record)
        # Who has to be patient with a node goes on with one entry: of many at once, the first may be the one refused.
        self._batch_entries = min(2 * self._batch_entries, outbox.BATCH_ENTRIES) if went_through else 1
        return went_through and self._may_send()

    def _explain(self, tx: Tx, entry: Entry, result: Result, now_ms: int) -> None:
        if isinstance(entry, FloodEntry) and result.answered is not None:
            status, reason = result.answered
            explain.peer_settled(tx, entry.message_id, self.node_id, entry.ttl, reason or explain.TAKEN, status, now_ms)

    def _settle(self, tx: Tx, entry: Entry, result: Result, *, stood_aside: bool) -> None:
        # A request that ended meanwhile has its answer already.
        if isinstance(entry, RequestEntry) and result.answered is not None and outbox.holds(tx, entry.entry):
            self._around.request_answered(tx, entry.reference, *result.answered)
        if stood_aside:
            outbox.settle_aside(tx, self.node_id, entry.entry)

    async def _deliver(self, node: KnownNode, entry: Entry) -> Result:
        """Send one entry if it is for this node."""
        if entry.expires_at_ms <= self._around.clock.now_ms():
            return Result(Outcome.DONE, (0, "expired"))
        try:
            if isinstance(entry, RequestEntry):
                answer = await self._around.requests.deliver(node, entry.path.removeprefix(API_ROOT), entry.body)
            elif (decision := flood_route(entry, node)) is Route.SEND:
                answer = await self._post_copy(node, entry)
            else:
                log.debug("not_sent", peer=self.node_id, message_id=entry.message_id.hex(), reason=decision.value)
                return Result(Outcome.DONE, (0, decision.value))
        except DialError as error:
            log.info("send_failed", peer=self.node_id, **_named(entry), error=str(error))
            return Result(Outcome.STOP, event=Event(Signal.REQUEST_FAILED))
        return self._judge(entry, answer)

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

    def _judge(self, entry: Entry, answer: PeerAnswer) -> Result:
        """What an answer means for the entry and for the node's health.

        Tried again: 429, 5xx, and `clock_skew`, signed afresh. Every other refusal is final.
        """
        reason = refusal_reason(answer)
        outcome, event = Outcome.ASIDE, None
        if answer.status in (429, 503) and reason not in _OF_ONE_MESSAGE:
            outcome = Outcome.STOP if answer.status == 429 else Outcome.ASIDE
            event = Event(Signal.DEFERRED, retry_after_ms(answer))
        elif answer.status == 503:
            event = Event(Signal.REQUEST_SUCCEEDED)
        elif answer.status < 500 and not (answer.status == 401 and reason == "clock_skew"):
            outcome, event = Outcome.DONE, Event(Signal.REQUEST_SUCCEEDED)
        facts = {"peer": self.node_id, **_named(entry), "status": answer.status}
        if outcome is not Outcome.DONE:
            log.warning("send_deferred", **facts, reason=reason)
            return Result(outcome, (answer.status, reason), event)
        if answer.status >= 300:
            log.warning("send_refused", **facts, reason=reason)
        else:
            log.debug("sent", **facts)
        return Result(outcome, (answer.status, reason), event)


def _verdict(results: Sequence[Result]) -> Event | None:
    """What a batch, as a whole, says of the node's health.

    A wish for patience counts most, then a failure: an answer that came beside it does not make up for it. Where
    nothing but errors of its own came back, the node is not well.
    """
    events = [result.event for result in results if result.event is not None]
    deferred = [event for event in events if event.signal is Signal.DEFERRED]
    if deferred:
        return max(deferred, key=lambda event: event.retry_after_ms)
    if not events and len(results) > 1 and all(result.outcome is Outcome.ASIDE for result in results):
        return Event(Signal.REQUEST_FAILED)
    failed = [event for event in events if event.signal is Signal.REQUEST_FAILED]
    return next(iter(failed or events), None)


def _named(entry: Entry) -> dict[str, str]:
    """What a line of the log calls an entry: who looks for a message, or for a bid, has its id."""
    if isinstance(entry, FloodEntry):
        return {"message_id": entry.message_id.hex(), "subject": entry.subject}
    return {"path": entry.path, "reference": entry.reference}


def flood_route(entry: FloodEntry, node: KnownNode) -> Route:
    """Whether this copy goes to the node; OUTDATED where a better copy or a newer state follows in the log."""
    if entry.outdated:
        return Route.OUTDATED
    place = None
    if entry.origin_lat is not None and entry.origin_lon is not None:
        place = Location(entry.origin_lat, entry.origin_lon)
    message = Outgoing(entry.origin, SubjectKind(entry.subject_kind), place, entry.radius_km, entry.came_from)
    return route(message, node)
