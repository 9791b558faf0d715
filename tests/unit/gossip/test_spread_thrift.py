"""How many bodies travel, and how much later the last node has the message than by plain flooding."""

from random import Random

import pytest

from tests.spread_network import Network, draw_cities, draw_mix

LEARNING, MEASURED = 20, 15
BETWEEN_MS = 1_500.0


def flood(count: int, seed: int, *, plain: bool) -> tuple[list[float], list[float]]:
    """Bodies for each delivery, and when the last node had it in ms, for the messages of one origin in their order."""
    random = Random(seed)
    places = draw_cities(random, count)
    network = Network(random, places, plain=plain)
    for pair in sorted(sorted(pair) for pair in draw_mix(random, places)):
        network.link_up(*pair)
    origin = random.randrange(count)
    ball = set(network.hops(origin))
    copies, last_ms = [], []
    for _ in range(LEARNING + MEASURED):
        began = network.now
        message = network.announce(origin)
        network.run(began + BETWEEN_MS)
        at = {node.number: node.delivered[message.message_id][0] for node in network.nodes if node.delivered}
        assert set(at) == ball
        copies.append(network.bodies[message.body] / len(ball))
        last_ms.append(max(at.values()) - began)
    return copies, last_ms


@pytest.mark.parametrize("count", [50, 120, 300])
def test_after_twenty_messages_few_bodies_travel_twice(count: int) -> None:
    copies, last_ms = flood(count, 5, plain=False)
    plain_copies, plain_last_ms = flood(count, 5, plain=True)
    learned = copies[LEARNING:]
    assert sum(learned) / len(learned) <= 1.25
    assert sum(plain_copies) / len(plain_copies) > 2
    # The slowest of few messages is mostly chance: twice is far from what ids first would cost without learning.
    assert max(last_ms[LEARNING:]) <= 2 * max(plain_last_ms[LEARNING:])
