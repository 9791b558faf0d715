"""Who delivers, over links that send ids first: held against a breadth-first walk that knows nothing of messages.

Each seed draws a network, how long decisions take, what is lost, and when links break and come back.
"""

from random import Random

import pytest

from loopd.gossip.frames import Copy, Deferred, Done, Frame, Have, Want
from loopd.protocol.geo import Location
from tests.spread_network import Message, Network, Node

STATIC_SEEDS, CHURN_SEEDS, REFUSING_SEEDS, ADVERSARY_SEEDS = 120, 120, 40, 100
MESSAGES = 6
SETTLED_MS = 400_000.0


def draw_network(random: Random) -> tuple[Network, list[tuple[int, int]]]:
    count = random.randint(3, 22)
    places = [Location(random.uniform(45, 55), random.uniform(5, 20)) for _ in range(count)]
    network = Network(random, places, codec=random.random() < 0.3)
    pairs = {tuple(sorted((node, random.randrange(node)))) for node in range(1, count) if random.random() < 0.9}
    pairs |= {tuple(sorted(random.sample(range(count), 2))) for _ in range(random.randrange(2 * count))}
    # Links keep their order; what the engine makes of frames does not rest on it.
    network.in_order = random.random() < 0.7
    slowness = random.choice([0.0, 1.0, 30.0])
    network.commit_ms = lambda: random.expovariate(1) * slowness
    return network, sorted((a, b) for a, b in pairs)


def announce_some(network: Network, random: Random) -> list[tuple[int, float | None, Message]]:
    """A few messages of one or two origins, some in a burst, some inside a radius."""
    origins = random.sample(range(len(network.nodes)), 2)
    announced = []
    for _ in range(MESSAGES):
        origin = random.choice(origins)
        radius_km = None if random.random() < 0.6 else random.uniform(200, 1200)
        announced.append((origin, radius_km, network.announce(origin, radius_km=radius_km)))
        network.run(network.now + random.choice([0, 5, 400]))
    return announced


def check_ball(network: Network, announced: list[tuple[int, float | None, Message]], seed: int) -> None:
    for origin, radius_km, message in announced:
        hops = network.hops(origin, radius_km)
        delivered = {
            node.number: len(node.delivered[message.message_id])
            for node in network.nodes
            if message.message_id in node.delivered
        }
        assert delivered == dict.fromkeys(hops, 1), f"seed {seed}"
        best = {number: network.nodes[number].held[message.message_id].ttl for number in hops}
        assert best == {number: 4 - distance for number, distance in hops.items()}, f"seed {seed}"


def check_settled(network: Network, seed: int) -> None:
    """Every cursor stands at the end of its log, and nothing waits for anything."""
    for node in network.nodes:
        for peer in network.peers(node.number):
            assert node.cursors.get(peer, 0) == len(node.log), f"seed {seed}"
            assert not node.aside.get(peer), f"seed {seed}"
        assert node.spread.next_timer_ms() is None, f"seed {seed}"


def test_exactly_the_ball_delivers_once_and_at_its_best_ttl() -> None:
    upgrades = wants = 0
    for seed in range(STATIC_SEEDS):
        random = Random(seed)
        network, pairs = draw_network(random)
        for a, b in pairs:
            network.link_up(a, b)
        announced = announce_some(network, random)
        network.run(network.now + SETTLED_MS)
        check_ball(network, announced, seed)
        check_settled(network, seed)
        upgrades += network.counted["upgraded"]
        wants += network.counted["Want"]
    assert upgrades > STATIC_SEEDS
    assert wants > STATIC_SEEDS


def test_links_that_break_and_come_back_lose_nothing() -> None:
    reconnects = 0
    for seed in range(CHURN_SEEDS):
        random = Random(1000 + seed)
        network, pairs = draw_network(random)
        for a, b in pairs:
            if random.random() < 0.8:
                network.link_up(a, b)
        announced = announce_some(network, random)
        for _ in range(random.randrange(25)):
            a, b = random.choice(pairs)
            if frozenset((a, b)) in network.links and random.random() < 0.7:
                network.link_down(a, b)
                reconnects += 1
            if random.random() < 0.6:
                network.link_up(a, b)
            network.run(network.now + random.choice([0, 1, 4, 20, 100]))
        for a, b in pairs:
            network.link_up(a, b)
        network.run(network.now + SETTLED_MS)
        check_ball(network, announced, seed)
        check_settled(network, seed)
    assert reconnects > CHURN_SEEDS


def test_links_that_stay_down_keep_the_ball_between_its_bounds() -> None:
    """At least the ball of the links that were up throughout, at most that of their union."""
    for seed in range(CHURN_SEEDS):
        random = Random(2000 + seed)
        network, pairs = draw_network(random)
        for a, b in pairs:
            network.link_up(a, b)
        announced = announce_some(network, random)
        most = [set(network.hops(origin, radius_km)) for origin, radius_km, _ in announced]
        for a, b in random.sample(pairs, len(pairs) // 3):
            network.link_down(a, b)
            network.run(network.now + random.choice([0, 3, 10]))
        least = [set(network.hops(origin, radius_km)) for origin, radius_km, _ in announced]
        network.run(network.now + SETTLED_MS)
        for (_, _, message), low, high in zip(announced, least, most, strict=True):
            delivered = {node.number for node in network.nodes if message.message_id in node.delivered}
            assert low <= delivered <= high, f"seed {seed}"
        check_settled(network, seed)


def test_a_node_that_cannot_store_for_a_while_gets_everything_later() -> None:
    put_off = 0
    for seed in range(REFUSING_SEEDS):
        random = Random(3000 + seed)
        network, pairs = draw_network(random)
        until = random.uniform(100, 5_000)

        def refuses(node: Node, message: Message, network: Network = network, until: float = until) -> bool:
            return node.number % 3 == 0 and network.now < until

        network.refuses = refuses
        for a, b in pairs:
            network.link_up(a, b)
        announced = announce_some(network, random)
        network.run(network.now + SETTLED_MS)
        check_ball(network, announced, seed)
        check_settled(network, seed)
        put_off += network.counted["Deferred"]
    assert put_off > REFUSING_SEEDS


class Liar:
    """Offers what it does not have and what does not exist, wants everything, answers no Want, claims every TTL."""

    def __init__(self, network: Network, random: Random) -> None:
        self.network = network
        self.random = random
        self.number = 0
        self.sent = 0

    def __call__(self, own: int, sender: str, frames: list[Frame]) -> None:
        random, network = self.random, self.network
        for frame in frames:
            match frame:
                case Copy():
                    message = network.messages[frame.body]
                    self._lie(own, message.message_id, frame.origin, frame.hop_value)
                case Have():
                    self._lie(own, frame.message_id, frame.origin, frame.hop_value)
                    network.send(own, sender, [Want(frame.message_id)] * 3)
            if isinstance(frame, Copy | Have) and random.random() < 0.7:
                reason = random.choice(["accepted", "duplicate", "nonsense"])
                network.send(own, sender, [Done(frame.number, reason, random.random() < 0.5)])
            elif isinstance(frame, Copy | Have) and random.random() < 0.5:
                network.send(own, sender, [Deferred(frame.number, "never", 900_000)])
        network.send(own, sender, [Done(random.randrange(40), "accepted", True), Want(random.randbytes(32))])

    def _lie(self, own: int, message_id: bytes, origin: str, hop_value: bytes | None) -> None:
        if self.sent > 200:
            return
        for peer in self.network.peers(own):
            for ttl in (1, 2, 3):
                for claimed in (message_id, self.random.randbytes(32)):
                    self.number += 1
                    self.sent += 1
                    value = self.random.choice([hop_value, self.random.randbytes(32)])
                    self.network.send(own, peer, [Have(self.number, claimed, ttl, value, origin)])


@pytest.mark.parametrize("first_seed", range(0, ADVERSARY_SEEDS, 25))
def test_a_liar_neither_stops_the_flood_nor_widens_it_by_more_than_itself(first_seed: int) -> None:
    refused = 0
    for seed in range(first_seed, first_seed + 25):
        random = Random(4000 + seed)
        network, pairs = draw_network(random)
        origin, liar = random.sample(range(len(network.nodes)), 2)
        network.malicious[liar] = Liar(network, random)
        for a, b in pairs:
            network.link_up(a, b)
        messages = []
        for _ in range(MESSAGES):
            messages.append(network.announce(origin))
            network.run(network.now + random.choice([5, 400]))
        network.run(network.now + SETTLED_MS)
        hops = network.hops(origin)
        most = set(hops)
        if liar in hops:
            # It can pass on its own value, and so leave itself out of the count.
            most |= set(network.hops(liar, reach=4 - hops[liar]))
        for a, b in pairs:
            if liar in (a, b):
                network.link_down(a, b)
        without_liar = set(network.hops(origin))
        for message in messages:
            delivered = {node.number for node in network.nodes if message.message_id in node.delivered}
            assert without_liar <= delivered <= most, f"seed {seed}"
            assert all(len(node.delivered.get(message.message_id, [])) <= 1 for node in network.nodes), f"seed {seed}"
        assert all(node.spread.next_timer_ms() is None for node in network.nodes), f"seed {seed}"
        refused += network.counted["bad_hop"]
    assert refused > 0
