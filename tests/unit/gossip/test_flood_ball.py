"""The flood in random networks: who delivers, held against a reference that knows nothing of messages.

Each seed draws a topology, places, a radius, delays, repeated copies and the order of arrival. The engine runs over
dictionaries; the reference walks the graph.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import acos, cos, radians, sin
from random import Random

from loopd.crypto.hop_chain import hop_anchor, next_hop_value
from loopd.gossip.flood import Copy, HopState, Newest, Reason, Route, View, decide, forward_targets
from loopd.protocol.announcement import PLAIN_REVISION, Announcement
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import Feature

NOW_MS = 1_800_000_000_000
VALIDITY_MS = 86_400_000
ORIGIN = 0
FEATURES = frozenset({Feature.FLOOD, Feature.PRODUCTS})
BALL_SEEDS, REVISION_SEEDS, ADVERSARY_SEEDS = 4000, 1000, 1000


@dataclass
class World:
    """Nodes by number, their places, who is connected with whom, and who knows whose place."""

    places: list[Location]
    links: list[set[int]]
    neighbours: list[list[KnownNode]]
    radius_km: float | None

    @property
    def nodes(self) -> range:
        return range(len(self.places))


def name(node: int) -> str:
    return f"n{node}.loop"


def number(node_id: str) -> int:
    return int(node_id.removeprefix("n").removesuffix(".loop"))


def draw_links(random: Random, count: int) -> list[set[int]]:
    """A line, a ring, a tree, or something looser that may fall apart; the last three with chords."""
    shape = random.choice(["line", "ring", "tree", "loose"])
    pairs: set[tuple[int, int]] = set()
    if shape in ("line", "ring"):
        order = random.sample(range(count), count)
        pairs = set(zip(order, order[1:] + order[:1] if shape == "ring" else order[1:], strict=False))
    if shape == "tree":
        pairs = {(node, random.randrange(node)) for node in range(1, count)}
    if shape != "line":
        chords = random.randrange(2 * count if shape == "loose" else count)
        pairs |= {(random.randrange(count), random.randrange(count)) for _ in range(chords)}
    links: list[set[int]] = [set() for _ in range(count)]
    for a, b in pairs:
        if a != b:
            links[a].add(b)
            links[b].add(a)
    return links


def draw_world(random: Random) -> World:
    count = random.randint(3, 40)
    places = [Location(random.uniform(45, 55), random.uniform(5, 20)) for _ in range(count)]
    links = draw_links(random, count)
    neighbours = []
    for node in range(count):
        known = []
        for peer in sorted(links[node]):
            place = places[peer] if random.random() < 0.7 else None
            peer_id = name(peer)
            known.append(
                KnownNode(
                    node_id=peer_id,
                    standing=Standing.PEER,
                    auth=PeerAuth.SIGNED,
                    endpoint=f"https://{peer_id}/api/v1",
                    public_key=None,
                    location=place,
                    features=FEATURES,
                    named_by_operator=False,
                )
            )
        neighbours.append(known)
    radius_km = None if random.random() < 0.4 else random.uniform(50, 1200)
    return World(places, links, neighbours, radius_km)


def is_inside(world: World, node: int) -> bool:
    """By the spherical law of cosines, where the engine uses the haversine."""
    if world.radius_km is None:
        return True
    a, b = world.places[ORIGIN], world.places[node]
    cosine = sin(radians(a.lat)) * sin(radians(b.lat)) + cos(radians(a.lat)) * cos(radians(b.lat)) * cos(
        radians(a.lon - b.lon)
    )
    return 6371.0088 * acos(min(1.0, cosine)) <= world.radius_km


def ball(world: World, absent: frozenset[int] = frozenset()) -> dict[int, int]:
    """Hops from the origin, up to three, along nodes inside the radius: breadth first."""
    hops = {ORIGIN: 0}
    ring = [ORIGIN]
    for distance in (1, 2, 3):
        ring = [
            node
            for node in {peer for inner in ring for peer in world.links[inner]}
            if node not in hops and node not in absent and is_inside(world, node)
        ]
        hops |= dict.fromkeys(ring, distance)
    del hops[ORIGIN]
    return hops


@dataclass(frozen=True)
class Message:
    announcement: Announcement
    message_id: bytes
    start: HopState


def draw_message(random: Random, world: World, revision: int) -> Message:
    """A message of the origin in the full form, or with revision 0 in the plain one."""
    plain = revision == PLAIN_REVISION
    seed = random.randbytes(32)
    announcement = Announcement(
        subject="MAT-DE-MUC-2026-FOOD-B847F3",
        subject_kind=SubjectKind.MATERIAL,
        origin=name(ORIGIN),
        available=True,
        state=None,
        category=None,
        quantity=None,
        unit=None,
        location=None,
        available_from_ms=None,
        expires_ms=None,
        revision=revision,
        issued_at_ms=NOW_MS,
        valid_until_ms=NOW_MS + VALIDITY_MS,
        ttl=3,
        radius_km=None if plain else world.radius_km,
        origin_location=None if plain else world.places[ORIGIN],
        hop_anchor=None if plain else hop_anchor(seed, 3),
    )
    return Message(announcement, random.randbytes(32), HopState(3, None if plain else seed))


@dataclass
class Node:
    seen: dict[bytes, HopState] = field(default_factory=dict)
    newest: Newest | None = None
    delivered: list[int] = field(default_factory=list)


@dataclass(frozen=True, order=True)
class Arrival:
    at: float
    tie: float
    sender: int
    receiver: int
    message: Message = field(compare=False)
    state: HopState = field(compare=False)


Behaviour = Callable[["Network", Arrival], None]


class Network:
    """The event loop: arrivals in the order of random delays, some of them twice."""

    def __init__(self, random: Random, world: World) -> None:
        self.random = random
        self.world = world
        self.nodes = [Node() for _ in world.nodes]
        self.malicious: dict[int, Behaviour] = {}
        self._arrivals: list[Arrival] = []
        self._now = 0.0

    def send(self, sender: int, receiver: int, message: Message, state: HopState) -> None:
        for _ in range(1 if self.random.random() < 0.8 else 2):
            at = self._now + self.random.expovariate(1) * self.random.choice([0.1, 1, 10])
            heapq.heappush(self._arrivals, Arrival(at, self.random.random(), sender, receiver, message, state))

    def announce(self, message: Message, at: float = 0.0) -> None:
        self._now = at
        for peer_id, reason in forward_targets(message.announcement, self.world.neighbours[ORIGIN], None):
            if reason is Route.SEND:
                self.send(ORIGIN, number(peer_id), message, message.start)

    def run(self) -> Iterator[tuple[Arrival, Reason]]:
        while self._arrivals:
            arrival = heapq.heappop(self._arrivals)
            self._now = arrival.at
            if arrival.receiver in self.malicious:
                self.malicious[arrival.receiver](self, arrival)
            else:
                yield arrival, self._receive(arrival)

    def _receive(self, arrival: Arrival) -> Reason:
        message, node = arrival.message, self.nodes[arrival.receiver]
        announcement, sender = message.announcement, name(arrival.sender)
        # A plain origin sends the short form, without any hop header.
        is_short = not announcement.anchored and arrival.sender == ORIGIN
        ttl = None if is_short else arrival.state.ttl
        copy = Copy(announcement, message.message_id, sender, announcement.origin, NOW_MS, ttl, arrival.state.hop_value)
        place = self.world.places[arrival.receiver]
        view = View(name(arrival.receiver), place, node.seen.get(message.message_id), node.newest)
        decision = decide(copy, view, NOW_MS + 1)
        if decision.held is not None:
            node.seen[message.message_id] = decision.held
        if decision.deliver:
            node.delivered.append(announcement.revision)
            node.newest = Newest(announcement.revision, announcement.issued_at_ms, message.message_id)
        if decision.forward is not None:
            neighbours = self.world.neighbours[arrival.receiver]
            for peer_id, reason in forward_targets(announcement, neighbours, sender):
                if reason is Route.SEND:
                    self.send(arrival.receiver, number(peer_id), message, decision.forward)
        return decision.reason


def test_the_nodes_that_deliver_are_exactly_the_ball_and_each_delivers_once() -> None:
    reasons: Counter[Reason] = Counter()
    for seed in range(BALL_SEEDS):
        random = Random(seed)
        world = draw_world(random)
        if random.random() < 0.2:
            world = replace(world, radius_km=None)
            message = draw_message(random, world, PLAIN_REVISION)
        else:
            message = draw_message(random, world, 1)
        network = Network(random, world)
        network.announce(message)
        reasons.update(reason for _, reason in network.run())
        hops = ball(world)
        delivered = {node: network.nodes[node].delivered for node in world.nodes if network.nodes[node].delivered}
        assert delivered == {node: [message.announcement.revision] for node in hops}, f"seed {seed}"
        best = {node: network.nodes[node].seen[message.message_id].ttl for node in hops}
        assert best == {node: 4 - distance for node, distance in hops.items()}, f"seed {seed}"
    # The networks were varied enough to take every way through the engine that honest nodes can take.
    assert set(reasons) == {Reason.ACCEPTED, Reason.UPGRADED, Reason.DUPLICATE, Reason.OUT_OF_SCOPE}


def test_the_newest_state_wins_everywhere_in_any_order_of_arrival() -> None:
    superseded = 0
    for seed in range(REVISION_SEEDS):
        random = Random(seed)
        world = draw_world(random)
        network = Network(random, world)
        for revision in (1, 2, 3):
            network.announce(draw_message(random, world, revision), at=random.uniform(0, 3))
        superseded += sum(reason is Reason.SUPERSEDED for _, reason in network.run())
        hops = ball(world)
        for node in world.nodes:
            delivered = network.nodes[node].delivered
            assert delivered == sorted(set(delivered)), f"seed {seed}: an older state was delivered after a newer one"
            assert (3 in delivered) is (node in hops), f"seed {seed}"
    assert superseded > REVISION_SEEDS


@dataclass
class Forger:
    """A malicious node: knows every value it was sent, claims every TTL with each of them and more, to everybody."""

    number: int
    held: set[bytes] = field(default_factory=set)
    best_ttl: int = 0

    def __call__(self, network: Network, arrival: Arrival) -> None:
        message, value = arrival.message, arrival.state.hop_value
        if value is None or message.announcement.hop_anchor is None:
            return
        proved = provable_ttl(value, message.announcement.hop_anchor)
        if value in self.held or (self.held and proved == 0):
            return
        self.held.add(value)
        self.best_ttl = max(self.best_ttl, proved)
        inventions = [network.random.randbytes(32), message.announcement.hop_anchor, message.message_id]
        for peer in network.world.links[self.number]:
            for candidate in (value, next_hop_value(value), *inventions):
                for ttl in (1, 2, 3):
                    network.send(self.number, peer, message, HopState(ttl, candidate))


def provable_ttl(value: bytes, anchor: bytes) -> int:
    """How many hashes lead from the value to the anchor, up to three; 0 where none do."""
    for ttl in (1, 2, 3):
        value = next_hop_value(value)
        if value == anchor:
            return ttl
    return 0


def reach_with_forgers(world: World, forgers: frozenset[int]) -> dict[int, int]:
    """The highest TTL with which each node can be reached at most: a forger repeats its value instead of hashing it.

    An honest node believes no relay that claims the full TTL.
    """
    best = dict.fromkeys(world.links[ORIGIN], 3)
    changed = True
    while changed:
        changed = False
        for node, ttl in list(best.items()):
            if node == ORIGIN or (node not in forgers and not is_inside(world, node)):
                continue
            for peer in world.links[node]:
                passed = ttl - 1 if node not in forgers else ttl if peer in forgers else min(ttl, 2)
                if passed > best.get(peer, 0):
                    best[peer] = passed
                    changed = True
    return {node: ttl for node, ttl in best.items() if is_inside(world, node) and node not in forgers | {ORIGIN}}


def test_no_forger_raises_a_ttl() -> None:
    attempts = 0
    for seed in range(ADVERSARY_SEEDS):
        random = Random(seed)
        world = draw_world(random)
        message = draw_message(random, world, 1)
        count = random.randint(1, max(1, len(world.nodes) // 6))
        forgers = frozenset(random.sample(world.nodes[1:], count))
        network = Network(random, world)
        minds = {node: Forger(node) for node in forgers}
        network.malicious.update(minds)
        network.announce(message)
        for arrival, reason in network.run():
            if arrival.sender in forgers:
                attempts += 1
                if reason in (Reason.ACCEPTED, Reason.UPGRADED):
                    assert arrival.state.ttl <= min(minds[arrival.sender].best_ttl, 2), f"seed {seed}"
        delivered = {node for node in world.nodes if network.nodes[node].delivered}
        assert all(len(network.nodes[node].delivered) <= 1 for node in world.nodes), f"seed {seed}"
        assert delivered <= set(reach_with_forgers(world, forgers)), f"seed {seed}"
        # Nor can forgers keep a message from whom honest nodes reach without them.
        assert delivered >= set(ball(world, absent=forgers)), f"seed {seed}"
    assert attempts > 50_000
