"""A node in one of its lives: the engine between the network and the disk, as the daemon's pump holds it.

All that is here goes with a crash; what is to stay lies in the `Tables`. The next life is another `Node` on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from loopd.crypto.hop_chain import next_hop_value
from loopd.gossip.errors import ProtocolError
from loopd.gossip.flood import Copy, Decision, HopState, Newest, Outgoing, Route, View, decide, route
from loopd.gossip.frames import Copy as CopyFrame
from loopd.gossip.frames import Deferred, Done, Frame, Have, Reconcile, ReconcileTtls, Want, decode_batch, encode_batch
from loopd.gossip.health import backoff_ms
from loopd.gossip.spread import Effects, LogEntry, Spread, Upgrade, Verdict
from loopd.protocol.geo import within_radius
from loopd.protocol.nodes import KnownNode
from loopd.protocol.signing import message_id as message_id_of
from loopd.protocol.timestamps import parse_timestamp
from loopd.sim.disk import Logged, Message, Row, Tables, Writer
from loopd.sim.network import Batch, Connection
from loopd.sim.repair import Repair
from loopd.sim.requests import Requests
from loopd.sim.timeline import US_PER_MS, US_PER_S
from loopd.sim.watch import Watch

if TYPE_CHECKING:
    from loopd.sim.world import World

BAD_SIGNATURE: Final = "bad_origin_signature"
# Offers under way at once, beyond what the engine bounds, are no concern here; entries are loaded so many at a time.
_LOADED_AT_ONCE: Final = 256
_REFUSED_FOR_MS: Final = 1_000


@dataclass(slots=True)
class Link:
    """What this life knows of a link: the connection, the log read so far, and frames that go out together."""

    connection: Connection
    read_up_to: int
    outgoing: list[Frame] = field(default_factory=list)
    flushing: bool = False
    # Entries beside the log that are offered now.
    aside_offered: dict[int, None] = field(default_factory=dict)


class Node:
    """One life of a node. `peers`: by number, who they are; `by_request`: those that are spoken to by §8.2 alone."""

    def __init__(self, world: "World", number: int, tables: Tables, random: Random) -> None:
        self.world = world
        self.number = number
        self.name = world.names[number]
        self.place = world.places[number]
        self.tables = tables
        self.random = random
        self.alive = True
        self.spread = Spread()
        self.writer = Writer(world.timeline, random, world.scenario.fsync_ms)
        self.links: dict[str, Link] = {}
        self.repair = Repair(self)
        self.requests = Requests(self)
        self.peers: dict[str, KnownNode] = {world.names[peer]: world.known[peer] for peer in world.peers_of[number]}
        self._skew_ms = world.skews_ms[number]
        self.watch = Watch(self) if world.scenario.health else None
        self._wakes_at_us: int | None = None
        self._dial_failures: dict[int, int] = {}

    # Time

    @property
    def now_ms(self) -> int:
        """This node's clock."""
        return self.world.true_ms + self._skew_ms

    def after(self, delay_us: int, what: Callable[[], None]) -> None:
        """Let it happen later in this life."""

        def if_alive() -> None:
            if self.alive:
                what()

        self.world.timeline.after(delay_us, if_alive)

    # Life

    def start(self) -> None:
        """Begin: dial, and send what waits."""
        if self.watch is not None:
            self.watch.start()
        for peer in self.world.peers_of[self.number]:
            if (self.number, peer) in self.world.by_request:
                self.requests.pump(self.world.names[peer])
            elif self.number < peer:
                self._dial(peer)

    def crash(self) -> None:
        """End this life at once."""
        self.alive = False
        self.writer.crash()

    def wants_link(self, peer: int) -> None:
        """The link to this peer may be made again."""
        if self.number < peer:
            self._dial(peer)

    def _dial(self, peer: int) -> None:
        if self.world.names[peer] not in self.links and self.world.link_allowed(self.number, peer):
            self.world.network.dial(self.number, peer, lambda: self._dial_failed(peer))

    def _dial_failed(self, peer: int) -> None:
        if not self.alive:
            return
        failures = self._dial_failures[peer] = self._dial_failures.get(peer, 0) + 1
        wait_ms = backoff_ms(failures, 0, self.random.random())
        self.after(wait_ms * US_PER_MS, lambda: self._dial(peer))

    # Links

    def link_made(self, peer: int, connection: Connection) -> None:
        """A connection is there; one that was there before is gone."""
        name = self.world.names[peer]
        former = self.links.get(name)
        if former is not None:
            self.link_lost(peer, former.connection, redial=False)
            self.world.network.close(former.connection, self.number)
        self._dial_failures.pop(peer, None)
        self.links[name] = Link(connection, self.tables.cursors.get(name, 0))
        self.world.note("link", self.number, peer)
        self.spread.link_up(name)
        self._offer_aside(name)
        self.pump(name)
        self.repair.link_up(name, starts=self.number < peer)
        if self.watch is not None:
            self.watch.link_up(name)
        self._wake()

    def link_lost(self, peer: int, connection: Connection, redial: bool = True) -> None:
        """This end of the connection is closed."""
        name = self.world.names[peer]
        link = self.links.get(name)
        if link is None or link.connection is not connection:
            return
        del self.links[name]
        self.world.note("lost", self.number, peer)
        self.repair.link_down(name)
        if self.watch is not None:
            self.watch.link_down(name)
        self.send_all(self.spread.link_down(name, self.now_ms))
        self._wake()
        if redial and self.number < peer:
            self.after(self.random.randint(50, 1_000) * US_PER_MS, lambda: self._dial(peer))

    def send(self, peer: str, frame: Frame) -> None:
        """Send a frame; those of one moment go as one batch."""
        link = self.links.get(peer)
        if link is None:
            return
        self.world.facts.sent(self, peer, link.connection, frame)
        link.outgoing.append(frame)
        if not link.flushing:
            link.flushing = True
            self.after(0, lambda: self._flush(link))

    def send_all(self, frames: Sequence[tuple[str, Frame]]) -> None:
        """Send frames to whom they are for."""
        for peer, frame in frames:
            self.send(peer, frame)

    def _flush(self, link: Link) -> None:
        frames, link.outgoing, link.flushing = link.outgoing, [], False
        if self.world.scenario.codec:
            data = encode_batch(frames)
            self.world.network.send(link.connection, self.number, data, len(data))
        else:
            size_bytes = sum(len(frame.body) + 200 if isinstance(frame, CopyFrame) else 90 for frame in frames)
            self.world.network.send(link.connection, self.number, frames, size_bytes)

    def arrived(self, peer: int, connection: Connection, what: Batch) -> None:
        """A batch came."""
        name = self.world.names[peer]
        link = self.links.get(name)
        if link is None or link.connection is not connection:
            return
        try:
            frames = decode_batch(what) if isinstance(what, bytes) else what
        except ProtocolError as error:
            self.world.facts.counted[error.reason] += 1
            self._break_link(peer, connection)
            return
        for frame in frames:
            self.world.trace(self.number, peer, frame)
            try:
                self.receive(name, frame)
            except ProtocolError as error:
                self.world.facts.counted[error.reason] += 1
                self._break_link(peer, connection)
                return
        self._wake()

    def _break_link(self, peer: int, connection: Connection) -> None:
        """Whoever sends what is no frame is left alone for a while."""
        self.link_lost(peer, connection, redial=False)
        self.world.network.close(connection, self.number)
        self.after(5 * US_PER_S, lambda: self.wants_link(peer))

    # Frames

    def receive(self, peer: str, frame: Frame) -> None:
        """One frame from a peer."""
        match frame:
            case CopyFrame():
                self._received_copy(peer, frame)
            case Have():
                self._received_have(peer, frame)
            case Want():
                for answer in self.spread.received_want(peer, frame):
                    self.send(peer, answer)
            case Done():
                self._received_done(peer, frame)
            case Deferred():
                self.world.facts.settled(self.links[peer].connection, self.number, frame.number)
                self._received_deferred(peer, frame)
            case Reconcile() | ReconcileTtls():
                self.repair.receive(peer, frame)
            case _:
                if self.watch is not None:
                    self.watch.receive(peer, frame)

    def held(self, message_id: bytes) -> HopState | None:
        """The best copy that is on the disk. This node's own counts as better than any."""
        row = self.tables.messages.get(message_id)
        return None if row is None else row.best

    def _received_copy(self, peer: str, frame: CopyFrame) -> None:
        message_id = message_id_of(frame.origin, frame.origin_timestamp, frame.body, anchored=True)
        plain = self.world.scenario.plain_flooding
        if not plain:
            self.spread.received_copy(peer, frame, message_id, self.now_ms)

        def decided(reason: str) -> None:
            if reason == "overloaded":
                self._carry_out(
                    self.spread.put_off(peer, frame.number, message_id, reason, _REFUSED_FOR_MS, self.now_ms)
                )
            elif plain:
                self.send(peer, Done(frame.number, reason, eager=True))
            else:
                held = self.held(message_id)
                self._carry_out(
                    self.spread.decided(peer, frame.number, message_id, frame.origin, reason, held, self.now_ms)
                )

        self.take(peer, frame.origin, frame.origin_timestamp, frame.body, HopState(frame.ttl, frame.hop_value), decided)

    def _received_have(self, peer: str, have: Have) -> None:
        answer = self.spread.received_have(peer, have, self.held(have.message_id), self.now_ms)
        self.send_all(answer.frames)
        if answer.verdict is Verdict.UPGRADE:
            self._upgrade(Upgrade(peer, have.number, have.message_id, have.origin, have.ttl, have.hop_value))

    def _upgrade(self, better: Upgrade) -> None:
        """Decide on the stored announcement with the TTL that was offered."""
        message = self.tables.messages[better.message_id].message

        def decided(reason: str) -> None:
            if reason == "overloaded":
                effects = self.spread.put_off(
                    better.peer, better.number, better.message_id, reason, _REFUSED_FOR_MS, self.now_ms
                )
            else:
                effects = self.spread.decided(
                    better.peer,
                    better.number,
                    better.message_id,
                    better.origin,
                    reason,
                    self.held(better.message_id),
                    self.now_ms,
                )
            self._carry_out(effects)

        state = HopState(better.ttl, better.hop_value)
        # The origin is that of the stored announcement, whatever the offer said.
        origin = message.announcement.origin
        self.take(better.peer, origin, message.timestamp, message.body, state, decided)

    def _carry_out(self, effects: Effects) -> None:
        self.send_all(effects.frames)
        for better in effects.upgrades:
            self._upgrade(better)
        self._wake()

    # Deciding

    def take(
        self, sender: str, origin: str, timestamp: str, body: bytes, state: HopState, decided: Callable[[str], None]
    ) -> None:
        """Decide on a copy in a unit of work; `decided` gets the reason after its commit."""
        message = self.world.genuine(origin, timestamp, body)
        if message is None:
            # No signature of the origin holds for this: refused before anything is written.
            self.world.facts.decided(self, sender, None, BAD_SIGNATURE)
            self.after(0, lambda: decided(BAD_SIGNATURE))
            return
        if self.world.scenario.refuses and self.random.random() < self.world.scenario.refuses:
            self.after(0, lambda: decided("overloaded"))
            return
        before = len(self.tables.log)

        def then(reason: str) -> None:
            self.world.facts.decided(self, sender, message, reason)
            decided(reason)
            if len(self.tables.log) > before:
                self.pump_all()

        self.writer.write(lambda: self._apply(sender, message, state).reason.value, then)

    def _apply(self, sender: str, message: Message, state: HopState) -> Decision:
        """The unit of work: decide on what is stored, and store what follows."""
        announcement, tables = message.announcement, self.tables
        row = tables.messages.get(message.message_id)
        key = (announcement.origin, announcement.subject)
        copy = Copy(
            announcement,
            message.message_id,
            sender,
            announcement.origin,
            parse_timestamp(message.timestamp),
            state.ttl,
            state.hop_value,
        )
        view = View(self.name, self.place, None if row is None else row.best, tables.newest.get(key))
        decision = decide(copy, view, self.now_ms)
        if decision.held is not None:
            tables.messages[message.message_id] = Row(message, decision.held, own=False)
        if decision.deliver:
            tables.delivered.append((message.message_id, self.world.timeline.now_us))
            tables.newest[key] = Newest(announcement.revision, announcement.issued_at_ms, message.message_id)
        if decision.forward is not None:
            tables.queue(message, sender, decision.forward)
        return decision

    def announce(self, message: Message, acknowledged: Callable[[], None]) -> None:
        """Say something of one's own; `acknowledged` once it is on the disk."""

        def unit() -> None:
            seeded = HopState(message.announcement.ttl, message.seed)
            self.tables.messages[message.message_id] = Row(message, seeded, own=True)
            self.tables.own[message.announcement.subject] = message.message_id
            self.tables.queue(message, None, seeded)

        def then(_: None) -> None:
            acknowledged()
            self.pump_all()

        self.writer.write(unit, then)

    # Sending

    def pump_all(self) -> None:
        """Offer what is new in the log to everybody."""
        for peer in list(self.links):
            self.pump(peer)
        self.requests.pump_all()

    def pump(self, peer: str) -> None:
        """Offer what the log has for a peer that has a link."""
        link = self.links.get(peer)
        if link is None:
            return
        if self.world.scenario.plain_flooding:
            self._flood_plainly(peer, link)
            return
        log = self.tables.log
        while link.read_up_to < len(log) and (room := min(self.spread.room(peer), _LOADED_AT_ONCE)):
            entries = [self.entry_for(peer, logged) for logged in log[link.read_up_to : link.read_up_to + room]]
            offers = self.spread.offers(peer, entries)
            if not offers.taken:
                return
            link.read_up_to += offers.taken
            for frame in offers.frames:
                self.send(peer, frame)
            self.advance(peer, offers.cursor)

    def entry_for(self, peer: str, logged: Logged) -> LogEntry | int:
        """The entry as it is offered; its place alone where it does not go to the peer."""
        message = logged.message
        if not self.goes_to(peer, message, logged.came_from) or self.tables.is_outdated(logged):
            return logged.entry
        return _log_entry(logged.entry, message, logged.forward, logged.repeated)

    def goes_to(self, peer: str, message: Message, came_from: str | None) -> bool:
        """Whether the message is for the peer, and still valid."""
        announcement = message.announcement
        known = route(Outgoing.of(announcement, came_from), self.peers[peer])
        return known is Route.SEND and announcement.valid_until_ms > self.now_ms

    def in_both(self, peer: str, message: Message) -> bool:
        """Whether the message is valid and both nodes lie inside its radius."""
        announcement = message.announcement
        there = self.peers[peer].location
        if announcement.valid_until_ms <= self.now_ms or announcement.origin_location is None or there is None:
            return False
        return all(
            within_radius(announcement.origin_location, place, announcement.radius_km) for place in (self.place, there)
        )

    def offer_beside(self, peer: str, entries: Sequence[LogEntry], ids_only: bool) -> int:
        """Offer what is not the log's next; how many there was room for."""
        offers = self.spread.offers(peer, entries, in_order=False, ids_only=ids_only)
        for frame in offers.frames:
            self.send(peer, frame)
        for entry in offers.needless:
            self._beside_done(peer, entry)
        return offers.taken

    def repair_entry(self, entry: int, row: Row, ttl: int) -> LogEntry:
        """A held message as an offer of repair with the best TTL that can be given; `ttl` is the least it is to be."""
        forward = row.best if row.own else HopState(row.best.ttl - 1, _hashed(row.best))
        if forward.ttl < ttl:
            raise RuntimeError("a held TTL fell")
        return _log_entry(entry, row.message, forward, repeated=False)

    def _flood_plainly(self, peer: str, link: Link) -> None:
        for logged in self.tables.log[link.read_up_to :]:
            entry = self.entry_for(peer, logged)
            if isinstance(entry, LogEntry):
                self.send(
                    peer,
                    CopyFrame(
                        entry.entry,
                        entry.origin,
                        entry.origin_timestamp,
                        entry.origin_signature,
                        entry.ttl,
                        entry.hop_value,
                        entry.body,
                    ),
                )
        link.read_up_to = len(self.tables.log)

    def advance(self, peer: str, cursor: int | None) -> None:
        """The cursor passes what is done with for the peer."""
        if cursor is not None:
            self.writer.write(lambda: self._set_cursor(peer, cursor), lambda _: None)

    def _set_cursor(self, peer: str, cursor: int) -> None:
        self.tables.cursors[peer] = max(cursor, self.tables.cursors.get(peer, 0))

    def _received_done(self, peer: str, done: Done) -> None:
        progress = self.spread.received_done(peer, done)
        if progress is None:
            return
        self.advance(peer, progress.cursor)
        self._beside_done(peer, progress.entry)
        self.pump(peer)
        self.repair.room_again(peer)

    def _beside_done(self, peer: str, entry: int) -> None:
        link = self.links[peer]
        if entry in link.aside_offered:
            del link.aside_offered[entry]
            self.writer.write(lambda: self.tables.aside.get(peer, {}).pop(entry, None), lambda _: None)
        self.repair.settled(peer, entry)

    def _received_deferred(self, peer: str, deferred: Deferred) -> None:
        progress = self.spread.received_deferred(peer, deferred)
        if progress is None:
            return
        again_us = deferred.retry_after_ms * US_PER_MS
        if progress.entry < 0:
            self.repair.put_off(peer, progress.entry, again_us)
            return

        def unit() -> None:
            # Before the cursor passes an entry it stands beside the log.
            self.tables.aside.setdefault(peer, {})[progress.entry] = None
            if progress.cursor is not None:
                self._set_cursor(peer, progress.cursor)

        def then(_: None) -> None:
            link = self.links.get(peer)
            if link is not None:
                link.aside_offered.pop(progress.entry, None)
                self.after(again_us, lambda: self._offer_aside(peer))

        self.writer.write(unit, then)
        self.pump(peer)

    def _offer_aside(self, peer: str) -> None:
        link = self.links.get(peer)
        if link is None:
            return
        for entry in list(self.tables.aside.get(peer, {})):
            if entry in link.aside_offered:
                continue
            log_entry = self.entry_for(peer, self.tables.log[entry - 1])
            link.aside_offered[entry] = None
            if isinstance(log_entry, int):
                self._beside_done(peer, entry)
            elif not self.offer_beside(peer, [log_entry], ids_only=False):
                del link.aside_offered[entry]
                self.after(US_PER_S, lambda: self._offer_aside(peer))
                return

    # Timers

    def _wake(self) -> None:
        """See to it that the engine's timers run."""
        due_ms = self.spread.next_timer_ms()
        if due_ms is None:
            return
        due_us = max(self.world.timeline.now_us, (due_ms - self.now_ms) * US_PER_MS + self.world.timeline.now_us)
        if self._wakes_at_us is not None and self._wakes_at_us <= due_us:
            return
        self._wakes_at_us = due_us

        def tick() -> None:
            if self._wakes_at_us == due_us:
                self._wakes_at_us = None
                self.send_all(self.spread.tick(self.now_ms))
                self._wake()

        self.after(due_us - self.world.timeline.now_us, tick)

    def settled_elsewhere(self, message_id: bytes) -> None:
        """A message came by a request: offers of it over links may be settled by that."""
        self._carry_out(self.spread.settled_elsewhere(message_id, self.held(message_id), self.now_ms))


def _hashed(state: HopState) -> bytes | None:
    return None if state.hop_value is None else next_hop_value(state.hop_value)


def _log_entry(entry: int, message: Message, forward: HopState, repeated: bool) -> LogEntry:
    return LogEntry(
        entry,
        message.message_id,
        message.announcement.origin,
        message.timestamp,
        message.signature,
        forward.ttl,
        forward.hop_value,
        message.body,
        repeated,
    )
