"""Where the nodes of a run lie, and who is whose peer: drawn in many shapes."""

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Final

from loopd.protocol.geo import Location, between_km

Pair = tuple[int, int]

# §9.4: peers within a band of distances in km, from so many to so many.
_BANDS: Final = ((0.0, 200.0, 3, 5), (200.0, 1000.0, 2, 3), (1000.0, 1e9, 1, 2))
# In a federation larger than this a node draws from a sample: comparing everybody with everybody grows too dear.
_COMPARED_MAX: Final = 300


def draw_places(random: Random, count: int) -> list[Location]:
    """Places in clusters, as cities lie: a few regions across a continent."""
    regions = [Location(random.uniform(42, 58), random.uniform(-5, 25)) for _ in range(max(2, count // 20))]
    return [
        Location(region.lat + random.gauss(0, 0.8), region.lon + random.gauss(0, 1.2))
        for region in (regions[number % len(regions)] for number in range(count))
    ]


def draw_links(random: Random, shape: str, places: list[Location]) -> list[Pair]:
    """The pairs of peers, the lower number first, in order. KeyError for a shape that does not exist."""
    return sorted({(min(a, b), max(a, b)) for a, b in _SHAPES[shape](random, places) if a != b})


def _mix(random: Random, places: list[Location]) -> set[Pair]:
    """The mix of §9.4: each node dials until it has its nearby, regional and distant peers, where there are such."""
    count = len(places)
    links: set[Pair] = set()
    have = [[0, 0, 0] for _ in places]
    for a in random.sample(range(count), count):
        others = random.sample(range(count), min(count, _COMPARED_MAX))
        distances = [(b, between_km(places[a], places[b])) for b in others if b != a]
        for band, (low, high, least, most) in enumerate(_BANDS):
            wanted = random.randint(least, most)
            for b, km in distances:
                if have[a][band] >= wanted:
                    break
                pair = (min(a, b), max(a, b))
                if low <= km < high and pair not in links and have[b][band] < most:
                    links.add(pair)
                    have[a][band] += 1
                    have[b][band] += 1
    return links


def _tree(random: Random, places: list[Location]) -> set[Pair]:
    return {(random.randrange(node), node) for node in range(1, len(places))}


def _chain(random: Random, places: list[Location]) -> set[Pair]:
    order = random.sample(range(len(places)), len(places))
    return set(pairwise(order))


def _ring(random: Random, places: list[Location]) -> set[Pair]:
    """A ring with chords across."""
    count = len(places)
    chords = {(random.randrange(count), random.randrange(count)) for _ in range(count // 4)}
    return {(node, (node + 1) % count) for node in range(count)} | chords


def _sparse(random: Random, places: list[Location]) -> set[Pair]:
    """Pairs drawn without regard to anything; parts may hang apart."""
    count = len(places)
    return {(random.randrange(count), random.randrange(count)) for _ in range(int(count * random.uniform(1, 3)))}


def _star(random: Random, places: list[Location]) -> set[Pair]:
    """Node 0 knows everybody, nobody else anyone."""
    return {(0, node) for node in range(1, len(places))}


def _hubs(random: Random, places: list[Location]) -> set[Pair]:
    """Few nodes that most know, at most 40 each, and few links among the others."""
    count = len(places)
    hubs = random.sample(range(count), max(1, count // 30))
    spokes = {(random.choice(hubs), node) for node in range(count)}
    between = {(a, b) for a in hubs for b in hubs if random.random() < 0.3}
    return spokes | between | {(random.randrange(count), random.randrange(count)) for _ in range(count // 3)}


def _ladder(random: Random, places: list[Location]) -> set[Pair]:
    """Many ways of nearly the same length, so that a long one is often the first."""
    count = len(places)
    width = random.randint(2, 6)
    return {
        (node, other)
        for node in range(count)
        for other in range((node // width + 1) * width, min(count, (node // width + 2) * width))
        if random.random() < 0.7
    } | {(node, node + 1) for node in range(count - 1)}


_SHAPES: Final[dict[str, Callable[[Random, list[Location]], set[Pair]]]] = {
    "mix": _mix,
    "tree": _tree,
    "chain": _chain,
    "ring": _ring,
    "sparse": _sparse,
    "hubs": _hubs,
    "ladder": _ladder,
    "star": _star,
}
SHAPES: Final = tuple(_SHAPES)
