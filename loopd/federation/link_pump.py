"""What goes over one link: the log outwards from the peer's cursor, and what the peer sends inwards.

Four tasks: one reads and answers at once what costs nothing (health, settled offers, bodies that are asked for), one
takes copies and offers into the flood, as many together as have come, one offers what the log and repair hold, and one
writes down how far the peer got. A link that ends loses nothing: the cursor passed only what the peer has settled
durably, and what was being taken is taken to its end before another link to the same peer begins.

What is in the hands of these tasks is bounded by the credit granted to the peer, and by the offers that `Spread` lets
be in flight.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.federation import explain, nodes, outbox
from loopd.federation.flooding import KEY_CONFLICT
from loopd.federation.link_copies import Arrived, LinkCopies, Outcome, held
from loopd.federation.link_requests import LinkRequests
from loopd.federation.misbehaviour import Misbehaviour
from loopd.federation.outbox import FloodEntry
from loopd.gossip.errors import ProtocolError
from loopd.gossip.flood import Reason, Route
from loopd.gossip.frames import (
    Ack,
    Alive,
    Copy,
    Deferred,
    Done,
    Frame,
    Have,
    Nack,
    Ping,
    PingRequest,
    Reconcile,
    ReconcileTtls,
    Request,
    Response,
    Suspect,
    Want,
)
from loopd.gossip.offering import LogEntry, Progress
from loopd.gossip.spread import Effects, Spread, Upgrade, Verdict
from loopd.net.link import Link, LinkEnded
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import LINK_COPIES_AT_ONCE
from loopd.protocol.nodes import KnownNode

log = structlog.get_logger(__name__)

# How much of the log is looked at together.
_LOG_ENTRIES_AT_ONCE = 64
_ANSWERED_202 = frozenset(reason for reason in Reason if not reason.is_refusal) | {KEY_CONFLICT}
# Our own storage is overloaded: so long until the next attempt.
_OVERLOADED_S = 1.0


class RepairDesk(Protocol):
    """The repair that goes over one link."""

    def received(self, frame: Reconcile | ReconcileTtls) -> None:
        """A message of a session came; it is finished with later, by the desk itself."""

    async def run(self) -> None:
        """Compare, answer, and give what the peer lacks to `LinkPump.repair`, until cancelled."""


@dataclass(frozen=True, slots=True)
class LinkSurroundings:
    """What all links share. `route` says whether an entry goes to a node; `carry_out` sends frames over any link."""

    own_node_id: str
    database: Database
    clock: Clock
    spread: Spread
    copies: LinkCopies
    route: Callable[[FloodEntry, KnownNode], Route]
    # Whether everything was said to a node that has to come before what the log holds.
    may_offer: Callable[[KnownNode], bool]
    # Waits until no request with an entry of the log is in flight to a node.
    requests_settled: Callable[[str], Awaitable[None]]
    carry_out: Callable[[Effects], None]
    misbehaviour: Misbehaviour
    # Told of each frame about health.
    health: Callable[[str, Frame], None]

    def now_ms(self) -> int:
        """The time of links: it only rises."""
        return int(self.clock.monotonic_s() * 1000)


@dataclass(frozen=True, slots=True)
class _Explained:
    """What became of an offer, or why none was made, as `explain` shows it."""

    message_id: bytes
    ttl: int
    reason: str
    status: int


@dataclass(frozen=True, slots=True)
class _Written:
    """What is to be written down of a peer's progress: what was said of offers, entries that are to stand aside, and
    how far its cursor is."""

    explained: Sequence[_Explained] = ()
    aside: Sequence[int] = ()
    cursor: int | None = None


@dataclass(slots=True)
class _Inbox:
    """What came and is not dealt with. Bounded by the credit that was granted."""

    frames: deque[Copy | Have] = field(default_factory=deque)
    upgrades: deque[Upgrade] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)


class LinkPump:
    """Keeps one link busy. `run()` ends with the link."""

    def __init__(
        self,
        link: Link,
        around: LinkSurroundings,
        load_repaired: Callable[[KnownNode, Sequence[bytes]], list[LogEntry]],
    ) -> None:
        self.link = link
        self.peer = link.peer
        self.repair: RepairDesk | None = None
        self.requests: LinkRequests | None = None
        self._around = around
        self._load_repaired = load_repaired
        self._inbox = _Inbox()
        self._offered_up_to = 0
        self._offered_ttls: dict[int, int] = {}
        self._repaired: deque[bytes] = deque()
        self._look_at_log = asyncio.Event()
        self._written: deque[_Written] = deque()
        self._to_write = asyncio.Event()

    def __repr__(self) -> str:
        return f"LinkPump({self.link!r})"

    async def run(self) -> str:
        """Carry frames until the link ends; why it ended. What was being taken is finished first."""
        around = self._around
        around.spread.link_up(self.peer)
        self._look_at_log.set()
        desks = [desk.run() for desk in (self.repair, self.requests) if desk is not None]
        taking = asyncio.create_task(self._take_in(), name=f"link-take-{self.peer}")
        writing_down = asyncio.create_task(self._write_down(), name=f"link-progress-{self.peer}")
        others = [asyncio.create_task(work) for work in (self._read(), self.link.write(), self._offer(), *desks)]
        try:
            await asyncio.wait([taking, writing_down, *others], return_when=asyncio.FIRST_COMPLETED)
            reason = self._why([taking, writing_down, *others])
        finally:
            self.link.end("closed")
            for task in others:
                task.cancel()
            self._inbox.filled.set()
            self._to_write.set()
            await asyncio.gather(*others, self.link.close(), return_exceptions=True)
            await asyncio.gather(taking, writing_down, return_exceptions=True)
        return reason

    def _why(self, tasks: Iterable[asyncio.Task[None]]) -> str:
        for task in tasks:
            if not task.done() or task.cancelled():
                continue
            error = task.exception()
            if isinstance(error, ProtocolError):
                self.link.violation(error)
            elif error is not None and not isinstance(error, LinkEnded):
                log.error("link_failed", peer=self.peer, exc_info=error)
                self.link.end("failed")
        if self.link.violated:
            self._around.misbehaviour.refused(self.peer, "protocol_error")
        return self.link.end_reason or "closed"

    # Inwards

    async def _read(self) -> None:
        while True:
            for frame in await self.link.receive():
                self._sort(frame)

    def _sort(self, frame: Frame) -> None:
        around = self._around
        match frame:
            case Copy() | Have():
                self._inbox.frames.append(frame)
                self._inbox.filled.set()
            case Done():
                self._progressed(around.spread.received_done(self.peer, frame))
            case Deferred():
                self._progressed(around.spread.received_deferred(self.peer, frame))
            case Want():
                self.link.send(around.spread.received_want(self.peer, frame))
            case Ping() | Ack() | PingRequest() | Nack() | Suspect() | Alive():
                around.health(self.peer, frame)
            case Reconcile() | ReconcileTtls() if self.repair is not None:
                self.repair.received(frame)
            case Request() if self.requests is not None:
                self.requests.received(frame)
            case Response() if self.requests is not None:
                self.requests.answered(frame)
                self.link.finished([frame])
            case _:
                # What nobody here has use for yet; the room it took is free again.
                self.link.finished([frame])

    async def _take_in(self) -> None:
        """Take what came into the flood, as much together as there is."""
        inbox = self._inbox
        while self.link.is_open:
            if not inbox.frames and not inbox.upgrades:
                inbox.filled.clear()
                await inbox.filled.wait()
                continue
            frames = [inbox.frames.popleft() for _ in range(min(len(inbox.frames), LINK_COPIES_AT_ONCE))]
            upgrades = [inbox.upgrades.popleft() for _ in range(min(len(inbox.upgrades), LINK_COPIES_AT_ONCE))]
            await self._take(frames, upgrades)
            self.link.finished(frames)
        while inbox.upgrades:
            # Others may bring what this one offered.
            self._report(_put_off_upgrade(inbox.upgrades.popleft(), "link_ended", 1))

    async def _take(self, frames: Sequence[Copy | Have], upgrades: list[Upgrade]) -> None:
        around = self._around
        sender = nodes.find(around.database.points, self.peer)
        if sender is None:
            raise LinkEnded("unknown_node")
        copies: list[Arrived] = []
        for frame in frames:
            if isinstance(frame, Copy):
                self._read_copy(sender, frame, copies)
            else:
                self._look_at_offer(frame, upgrades)
        try:
            outcomes = await around.copies.take(copies)
            outcomes += await self._upgrade(upgrades)
        except Refusal as refusal:  # our own storage is overloaded or closing
            log.warning("link_copies_delayed", peer=self.peer, reason=refusal.reason)
            outcomes = [_put_off(self.peer, arrived.number, arrived, refusal) for arrived in copies]
            wait_s = refusal.retry_after_s or 1
            outcomes += [_put_off_upgrade(offer, refusal.reason, wait_s) for offer in upgrades]
        for outcome in outcomes:
            self._report(outcome)

    def _read_copy(self, sender: KnownNode, frame: Copy, copies: list[Arrived]) -> None:
        try:
            arrived = self._around.copies.read(sender, frame)
        except Refusal as refusal:
            self.link.send([Done(frame.number, refusal.reason, eager=False)])
            return
        self._around.spread.received_copy(self.peer, frame, arrived.message_id, self._around.now_ms())
        copies.append(arrived)

    def _look_at_offer(self, have: Have, upgrades: list[Upgrade]) -> None:
        around = self._around
        best = held(around.database.points, have.message_id)
        answer = around.spread.received_have(self.peer, have, best, around.now_ms())
        around.carry_out(Effects(answer.frames, []))
        if answer.verdict is Verdict.UPGRADE:
            upgrades.append(Upgrade(self.peer, have.number, have.message_id, have.origin, have.ttl, have.hop_value))

    async def _upgrade(self, upgrades: Sequence[Upgrade]) -> list[Outcome]:
        """Decide on better TTLs; those of peers that are known no more are put off."""
        known = [(nodes.find(self._around.database.points, offer.peer), offer) for offer in upgrades]
        outcomes = [_put_off_upgrade(offer, "unknown_node", 60) for sender, offer in known if sender is None]
        offers = [(sender, offer) for sender, offer in known if sender is not None]
        return outcomes + (await self._around.copies.upgrade(offers) if offers else [])

    def _report(self, outcome: Outcome) -> None:
        """Tell the engine what was decided; what follows from it goes out, over this link and others."""
        around, now_ms = self._around, self._around.now_ms()
        told = (outcome.peer, outcome.number, outcome.message_id)
        if outcome.retry_after_ms is not None:
            effects = around.spread.put_off(*told, outcome.reason, outcome.retry_after_ms, now_ms)
        else:
            effects = around.spread.decided(*told, outcome.origin, outcome.reason, outcome.held, now_ms)
        around.carry_out(effects)

    def upgrade(self, offer: Upgrade) -> bool:
        """Decide on this better TTL with what comes next. False where nothing comes any more."""
        if not self.link.is_open:
            return False
        self._inbox.upgrades.append(offer)
        self._inbox.filled.set()
        return True

    # Outwards

    def wake(self) -> None:
        """Something was queued for all peers."""
        self._look_at_log.set()

    def offer_repaired(self, message_ids: Iterable[bytes]) -> None:
        """Offer what the peer lacks, or holds with a lower TTL, beside the log."""
        self._repaired.extend(message_ids)
        self._look_at_log.set()

    async def _offer(self) -> None:
        around = self._around
        await around.requests_settled(self.peer)
        cursor = around.database.point("SELECT flood_entry FROM outbox_cursor WHERE node_id = ?", (self.peer,))
        self._offered_up_to = 0 if cursor is None else cursor["flood_entry"]
        while True:
            self._look_at_log.clear()
            try:
                offered = await self._offer_log()
                offered = self._offer_what_is_lacked() or offered
            except Refusal as refusal:  # our own storage is overloaded or closing
                log.warning("link_delayed", peer=self.peer, reason=refusal.reason)
                await asyncio.sleep(_OVERLOADED_S)
                continue
            if not offered:
                await self._look_at_log.wait()

    async def _offer_log(self) -> bool:
        """Offer what follows in the log; whether there may be more that fits."""
        around = self._around
        room = min(around.spread.room(self.peer), _LOG_ENTRIES_AT_ONCE)
        if room <= 0:
            return False
        query = {"after": self._offered_up_to, "own": around.own_node_id, "limit": room}
        rows = await around.database.all(outbox.FLOODS_AFTER, query)
        node = nodes.find(around.database.points, self.peer)
        if not rows or node is None or not around.may_offer(node):
            return False
        entries: list[LogEntry | int] = []
        passed: dict[int, _Explained] = {}
        for row in rows:
            entry = outbox.entry_of(row)
            not_sent = self._not_sent(entry, node)
            if not_sent is not None:
                passed[entry.entry] = not_sent
            going = isinstance(entry, FloodEntry) and not_sent is None
            entries.append(_offered(entry, repeated=bool(row["repeated"])) if going else entry.entry)
        offers = around.spread.offers(self.peer, entries)
        taken = entries[: offers.taken]
        if taken:
            self._offered_up_to = rows[offers.taken - 1]["entry"]
        self._offered_ttls.update((entry.entry, entry.ttl) for entry in taken if isinstance(entry, LogEntry))
        for place in (*offers.needless, *offers.too_long):
            del self._offered_ttls[place]
        self.link.send(offers.frames)
        explained = [passed[entry] for entry in taken if isinstance(entry, int) and entry in passed]
        if explained or offers.too_long or offers.cursor is not None:
            self._note(_Written(explained, offers.too_long, offers.cursor))
        return offers.taken == len(rows)

    def _not_sent(self, entry: outbox.Entry, node: KnownNode) -> _Explained | None:
        """Why an entry does not go to the peer; None where it does."""
        if not isinstance(entry, FloodEntry):
            return None
        reason = "expired"
        if entry.expires_at_ms > self._around.clock.now_ms():
            decision = self._around.route(entry, node)
            if decision is Route.SEND:
                return None
            reason = decision.value
        log.debug("not_sent", peer=self.peer, message_id=entry.message_id.hex(), reason=reason)
        return _Explained(entry.message_id, entry.ttl, reason, 0)

    def _offer_what_is_lacked(self) -> bool:
        around = self._around
        room = min(around.spread.room(self.peer), _LOG_ENTRIES_AT_ONCE, len(self._repaired))
        node = nodes.find(around.database.points, self.peer)
        if room <= 0 or node is None or not around.may_offer(node):
            return False
        lacked = [self._repaired.popleft() for _ in range(room)]
        entries = self._load_repaired(node, lacked)
        offers = around.spread.offers(self.peer, entries, in_order=False, ids_only=True)
        # What found no room waits for it.
        self._repaired.extendleft(entry.message_id for entry in reversed(entries[offers.taken :]))
        self.link.send(offers.frames)
        return offers.taken == len(entries)

    def _progressed(self, progress: Progress | None) -> None:
        """The peer settled an offer, or put it off: its place is free, and the cursor may move."""
        if progress is None:
            return
        put_off = progress.retry_after_ms is not None
        if progress.entry <= 0:  # not of the log: what the next comparison finds again need not be kept
            if put_off:
                log.info("repair_put_off", peer=self.peer, message_id=progress.message_id.hex(), reason=progress.reason)
        else:
            ttl = self._offered_ttls.pop(progress.entry, 0)
            explained = _Explained(progress.message_id, ttl, progress.reason, _status(progress))
            self._note(_Written([explained], [progress.entry] if put_off else [], progress.cursor))
        log.debug("sent", peer=self.peer, message_id=progress.message_id.hex(), reason=progress.reason)
        self._look_at_log.set()

    def _note(self, written: _Written) -> None:
        self._written.append(written)
        self._to_write.set()

    async def _write_down(self) -> None:
        """Keep the cursor and what stands aside, as much together as there is."""
        while self.link.is_open or self._written:
            if not self._written:
                self._to_write.clear()
                await self._to_write.wait()
                continue
            notes = list(self._written)
            self._written.clear()
            try:
                kept = await self._around.database.write(partial(self._keep, notes))
            except Refusal as refusal:  # the peer offers no less for it; what is sent again, it knows
                log.warning("link_progress_delayed", peer=self.peer, reason=refusal.reason)
                raise LinkEnded("overloaded") from refusal
            if not kept:
                raise LinkEnded("too_many_aside")

    def _keep(self, notes: Sequence[_Written], tx: Tx) -> bool:
        """False where too much stands aside for this node: the log itself waits then."""
        now_ms = self._around.clock.now_ms()
        for note in notes:
            for told in note.explained:
                explain.peer_settled(tx, told.message_id, self.peer, told.ttl, told.reason, told.status, now_ms)
            for entry in note.aside:
                if not outbox.set_aside(tx, self.peer, entry, now_ms):
                    return False
            if note.cursor is not None:
                outbox.advance_floods(tx, self.peer, note.cursor)
        return True


def _offered(entry: outbox.Entry, *, repeated: bool) -> LogEntry | int:
    """An entry of the log as the engine offers it."""
    if not isinstance(entry, FloodEntry):
        return entry.entry
    return LogEntry(
        entry.entry,
        entry.message_id,
        entry.origin,
        entry.origin_timestamp,
        entry.origin_signature,
        entry.ttl,
        entry.hop_value,
        entry.body,
        repeated,
    )


def _status(progress: Progress) -> int:
    """The status with which the same would have been answered to a request."""
    if progress.retry_after_ms is not None:
        return 503
    return 202 if progress.reason in _ANSWERED_202 else 400


def _put_off(peer: str, number: int, arrived: Arrived, refusal: Refusal) -> Outcome:
    origin = arrived.received.copy.origin
    retry_after_ms = 1000 * (refusal.retry_after_s or 1)
    return Outcome(peer, number, arrived.message_id, origin, refusal.reason, None, retry_after_ms)


def _put_off_upgrade(offer: Upgrade, reason: str, wait_s: int) -> Outcome:
    return Outcome(offer.peer, offer.number, offer.message_id, offer.origin, reason, None, 1000 * wait_s)
