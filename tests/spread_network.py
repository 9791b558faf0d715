"""A small network of nodes that speak over links, under a virtual clock: the engine's own classes over dictionaries.

A node decides and keeps as the daemon does: one unit of work decides on a copy and stores what follows, the log is read
from a cursor for each peer, and a cursor passes what its peer settled. What a link had in flight is lost with it.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, log
from random import Random

from loopd.crypto.hop_chain import hop_anchor
from loopd.gossip.flood import Copy, HopState, Newest, View, decide
from loopd.gossip.frames import Copy as CopyFrame
from loopd.gossip.frames import Deferred, Done, Frame, Have, Want, decode_batch, encode_batch
from loopd.gossip.spread import Effects, LogEntry, Spread, Upgrade, Verdict
from loopd.protocol.announcement import Announcement
from loopd.protocol.geo import Location, between_km
from loopd.protocol.subjects import SubjectKind

EPOCH_MS = 1_800_000_000_000
VALIDITY_MS = 86_400_000


@dataclass(frozen=True)
class Message:
    announcement: Announcement
    message_id: bytes
    body: bytes
    seed: bytes


@dataclass
class Node:
    number: int
    name: str
    place: Location
    held: dict[bytes, HopState] = field(default_factory=dict)
    newest: dict[str, Newest] = field(default_factory=dict)
    delivered: dict[bytes, list[float]] = field(default_factory=dict)
    log: list[tuple[LogEntry, str | None]] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    read_up_to: dict[str, int] = field(default_factory=dict)
    aside: dict[str, set[int]] = field(default_factory=dict)
    spread: Spread = field(default_factory=Spread)
    wakes_at: float | None = None


@dataclass
class Link:
    """One connection; a later one between the same nodes is another."""

    up: bool = True
    last_arrival: dict[int, float] = field(default_factory=dict)


class Network:
    """`commit_ms` draws how long a unit of work takes; `plain` floods bodies to every peer instead of using links."""

    def __init__(self, random: Random, places: list[Location], *, plain: bool = False, codec: bool = False) -> None:
        self.random = random
        self.nodes = [Node(number, f"n{number}.loop", place) for number, place in enumerate(places)]
        self.number = {node.name: node.number for node in self.nodes}
        self.links: dict[frozenset[int], Link] = {}
        self.messages: dict[bytes, Message] = {}
        self.now = 0.0
        self.plain = plain
        self.in_order = not plain
        self.codec = codec
        self.counted: Counter[str] = Counter()
        self.bodies: Counter[bytes] = Counter()
        self.commit_ms: Callable[[], float] = lambda: 0.0
        self.refuses: Callable[[Node, Message], bool] = lambda node, message: False
        self.malicious: dict[int, Callable[[int, str, list[Frame]], None]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    # Time

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.now)

    # Links

    def link_up(self, a: int, b: int) -> None:
        pair = frozenset((a, b))
        if pair in self.links:
            return
        self.links[pair] = Link()
        for node, peer in ((self.nodes[a], self.nodes[b]), (self.nodes[b], self.nodes[a])):
            if node.number not in self.malicious:
                node.spread.link_up(peer.name)
                node.read_up_to[peer.name] = node.cursors.get(peer.name, 0)
                self.pump(node, peer.name)

    def link_down(self, a: int, b: int) -> None:
        link = self.links.pop(frozenset((a, b)), None)
        if link is None:
            return
        link.up = False
        for node, peer in ((self.nodes[a], self.nodes[b]), (self.nodes[b], self.nodes[a])):
            if node.number not in self.malicious:
                for to, frame in node.spread.link_down(peer.name, self.now_ms):
                    self.send(node.number, to, [frame])
                self.wake(node)

    def peers(self, number: int) -> list[str]:
        return [self.nodes[other].name for pair in self.links if number in pair for other in pair - {number}]

    def delay_ms(self, a: int, b: int) -> float:
        """One way: 3 ms, 1 ms for each 100 km, and a lognormal part of median 5 ms and sigma 0.8."""
        km = between_km(self.nodes[a].place, self.nodes[b].place)
        return 3 + km / 100 + exp(self.random.gauss(log(5), 0.8))

    def send(self, sender: int, receiver: str, frames: list[Frame]) -> None:
        to = self.number[receiver]
        link = self.links.get(frozenset((sender, to)))
        if link is None or not frames:
            return
        for frame in frames:
            self.counted[type(frame).__name__] += 1
            if isinstance(frame, CopyFrame):
                self.bodies[frame.body] += 1
        if self.codec:
            frames = decode_batch(encode_batch(frames))
        arrival = self.now + self.delay_ms(sender, to)
        if self.in_order:
            # A link is a stream: what was sent later does not arrive earlier. Plain copies are requests of their own.
            arrival = link.last_arrival[to] = max(arrival, link.last_arrival.get(to, 0.0))
        name = self.nodes[sender].name

        def arrive() -> None:
            if link.up:
                self.receive(to, name, frames)

        self.at(arrival, arrive)

    # Nodes

    def announce(self, origin: int, *, radius_km: float | None = None, subject: str = "") -> Message:
        node = self.nodes[origin]
        seed, number = self.random.randbytes(32), len(self.messages)
        announcement = Announcement(
            subject=subject or f"MAT-DE-MUC-2026-FOOD-{number:06}",
            subject_kind=SubjectKind.MATERIAL,
            origin=node.name,
            available=True,
            state=None,
            category=None,
            quantity=None,
            unit=None,
            location=None,
            available_from_ms=None,
            expires_ms=None,
            revision=number + 1,
            issued_at_ms=self.now_ms,
            valid_until_ms=self.now_ms + VALIDITY_MS,
            ttl=3,
            radius_km=radius_km,
            origin_location=node.place,
            hop_anchor=hop_anchor(seed, 3),
        )
        body = number.to_bytes(8, "big") * 8
        message = Message(announcement, self.random.randbytes(32), body, seed)
        self.messages[body] = message
        self.queue(node, message, None, HopState(3, seed))
        return message

    def queue(self, node: Node, message: Message, came_from: str | None, forward: HopState) -> None:
        """Write a copy into the log, for every peer."""
        before = any(entry.message_id == message.message_id for entry, _ in node.log[-64:])
        entry = LogEntry(
            len(node.log) + 1,
            message.message_id,
            message.announcement.origin,
            "2027-01-15T08:00:00Z",
            "s" * 86,
            forward.ttl,
            forward.hop_value,
            message.body,
            before,
        )
        node.log.append((entry, came_from))
        for peer in self.peers(node.number):
            self.pump(node, peer)

    def goes_to(self, entry: LogEntry, came_from: str | None, peer: str) -> bool:
        announcement = self.messages[entry.body].announcement
        inside = announcement.radius_km is None or (
            announcement.origin_location is not None
            and between_km(announcement.origin_location, self.nodes[self.number[peer]].place) <= announcement.radius_km
        )
        return peer not in (came_from, entry.origin) and inside

    def pump(self, node: Node, peer: str) -> None:
        """Offer what the log has for the peer."""
        if self.plain:
            for entry, came_from in node.log[node.read_up_to[peer] :]:
                if self.goes_to(entry, came_from, peer):
                    number = entry.entry
                    self.send(node.number, peer, [_copy(entry, number)])
            node.read_up_to[peer] = len(node.log)
            return
        while (room := node.spread.room(peer)) and node.read_up_to[peer] < len(node.log):
            start = node.read_up_to[peer]
            entries = [
                entry if self.goes_to(entry, came_from, peer) else entry.entry
                for entry, came_from in node.log[start : start + room]
            ]
            offers = node.spread.offers(peer, entries)
            node.read_up_to[peer] += offers.taken
            self.advance(node, peer, offers.cursor)
            self.send(node.number, peer, offers.frames)

    def advance(self, node: Node, peer: str, cursor: int | None) -> None:
        if cursor is not None:
            assert cursor > node.cursors.get(peer, 0), "a cursor went back"
            node.cursors[peer] = cursor

    def receive(self, to: int, sender: str, frames: list[Frame]) -> None:
        if to in self.malicious:
            self.malicious[to](to, sender, frames)
            return
        node = self.nodes[to]
        for frame in frames:
            match frame:
                case CopyFrame():
                    self.receive_copy(node, sender, frame)
                case Have():
                    self.receive_have(node, sender, frame)
                case Want():
                    self.send(to, sender, node.spread.received_want(sender, frame))
                case Done():
                    progress = node.spread.received_done(sender, frame)
                    self.advance(node, sender, progress and progress.cursor)
                    self.pump(node, sender)
                case Deferred():
                    self.receive_deferred(node, sender, frame)
        self.wake(node)

    def receive_deferred(self, node: Node, sender: str, frame: Deferred) -> None:
        progress = node.spread.received_deferred(sender, frame)
        if progress is None:
            return
        aside = node.aside.setdefault(sender, set())
        aside.add(progress.entry)
        self.advance(node, sender, progress.cursor)

        def again() -> None:
            if progress.entry in aside and frozenset((node.number, self.number[sender])) in self.links:
                aside.discard(progress.entry)
                entry = node.log[progress.entry - 1][0]
                offers = node.spread.offers(sender, [entry], in_order=False)
                self.send(node.number, sender, offers.frames)

        self.at(self.now + frame.retry_after_ms, again)

    def receive_copy(self, node: Node, sender: str, frame: CopyFrame) -> None:
        message = self.messages[frame.body]
        if not self.plain:
            node.spread.received_copy(sender, frame, message.message_id, self.now_ms)
        state = HopState(frame.ttl, frame.hop_value)
        self.at(self.now + self.commit_ms(), lambda: self.commit(node, message, sender, frame.number, state))

    def receive_have(self, node: Node, sender: str, frame: Have) -> None:
        answer = node.spread.received_have(sender, frame, node.held.get(frame.message_id), self.now_ms)
        for to, out in answer.frames:
            self.send(node.number, to, [out])
        if answer.verdict is Verdict.UPGRADE:
            self.upgrade(
                node, Upgrade(sender, frame.number, frame.message_id, frame.origin, frame.ttl, frame.hop_value)
            )

    def upgrade(self, node: Node, better: Upgrade) -> None:
        message = next(known for known in self.messages.values() if known.message_id == better.message_id)
        state = HopState(better.ttl, better.hop_value)
        self.at(self.now + self.commit_ms(), lambda: self.commit(node, message, better.peer, better.number, state))

    def commit(self, node: Node, message: Message, sender: str, number: int, state: HopState) -> None:
        """One unit of work: decide, keep, deliver, queue; then answer."""
        announcement = message.announcement
        if self.refuses(node, message):
            effects = node.spread.put_off(sender, number, message.message_id, "overloaded", 1_000, self.now_ms)
            self.carry_out(node, effects)
            return
        copy = Copy(
            announcement,
            message.message_id,
            sender,
            announcement.origin,
            announcement.issued_at_ms,
            state.ttl,
            state.hop_value,
        )
        seen = node.held.get(message.message_id)
        view = View(node.name, node.place, seen, node.newest.get(announcement.subject))
        decision = decide(copy, view, self.now_ms)
        self.counted[decision.reason.value] += 1
        if decision.held is not None:
            node.held[message.message_id] = decision.held
        if decision.deliver:
            node.delivered.setdefault(message.message_id, []).append(self.now)
            node.newest[announcement.subject] = Newest(
                announcement.revision, announcement.issued_at_ms, message.message_id
            )
        if decision.forward is not None:
            self.queue(node, message, sender, decision.forward)
        if not self.plain:
            held = node.held.get(message.message_id)
            reason: str = decision.reason
            effects = node.spread.decided(
                sender, number, message.message_id, announcement.origin, reason, held, self.now_ms
            )
            self.carry_out(node, effects)

    def carry_out(self, node: Node, effects: Effects) -> None:
        for to, frame in effects.frames:
            self.send(node.number, to, [frame])
        for better in effects.upgrades:
            self.upgrade(node, better)
        self.wake(node)

    def wake(self, node: Node) -> None:
        """See to it that the node's timers run."""
        due_ms = node.spread.next_timer_ms()
        if due_ms is None:
            return
        due = max(self.now, float(due_ms - EPOCH_MS))
        if node.wakes_at is not None and self.now <= node.wakes_at <= due:
            return
        node.wakes_at = due

        def tick() -> None:
            if node.wakes_at == due:
                node.wakes_at = None
            for to, frame in node.spread.tick(self.now_ms):
                self.send(node.number, to, [frame])
            self.wake(node)

        self.at(due, tick)

    # Looking

    def hops(self, origin: int, radius_km: float | None = None, reach: int = 3) -> dict[int, int]:
        """Hops from the origin, up to `reach`, along nodes inside the radius: breadth first."""
        centre, hops, ring = self.nodes[origin].place, {origin: 0}, [origin]
        for distance in range(1, reach + 1):
            ring = [
                other
                for other in sorted({self.number[peer] for inner in ring for peer in self.peers(inner)})
                if other not in hops and (radius_km is None or between_km(centre, self.nodes[other].place) <= radius_km)
            ]
            hops |= dict.fromkeys(ring, distance)
        del hops[origin]
        return hops


def _copy(entry: LogEntry, number: int) -> CopyFrame:
    return CopyFrame(
        number, entry.origin, entry.origin_timestamp, entry.origin_signature, entry.ttl, entry.hop_value, entry.body
    )


def draw_cities(random: Random, count: int) -> list[Location]:
    """Places in clusters, as cities lie: a few regions across a continent."""
    regions = [Location(random.uniform(42, 58), random.uniform(-5, 25)) for _ in range(max(2, count // 20))]
    return [
        Location(region.lat + random.gauss(0, 0.8), region.lon + random.gauss(0, 1.2))
        for region in (regions[number % len(regions)] for number in range(count))
    ]


def draw_mix(random: Random, places: list[Location]) -> set[frozenset[int]]:
    """Links in the mix of §9.4: each node dials until it has 3 to 5 nearby, 2 or 3 regional and 1 or 2 distant ones."""
    links: set[frozenset[int]] = set()
    bands = ((0, 200, 3, 5), (200, 1000, 2, 3), (1000, 1e9, 1, 2))
    have = [[0, 0, 0] for _ in places]
    between = {(a, b): between_km(places[a], places[b]) for a in range(len(places)) for b in range(a + 1, len(places))}
    for a in random.sample(range(len(places)), len(places)):
        others = random.sample(range(len(places)), len(places))
        for band, (low, high, least, most) in enumerate(bands):
            wanted = random.randint(least, most)
            for b in others:
                if have[a][band] >= wanted:
                    break
                pair = frozenset((a, b))
                if a == b or pair in links or have[b][band] >= most:
                    continue
                if low <= between[(min(a, b), max(a, b))] < high:
                    links.add(pair)
                    have[a][band] += 1
                    have[b][band] += 1
    return links
