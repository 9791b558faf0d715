"""Random federations of the real classes, with losses and crashes: who delivers, once all is healed.

The reference walks the graph and knows nothing of messages. Time is the manual clock's.
"""

import asyncio
import random
from pathlib import Path

import pytest

from loopd.federation.settings import FederationSettings
from loopd.protocol.geo import Location, within_radius
from tests.federation_support import NOW_MS, City, Network, befriend, identity_of, let_pass, subject_of
from tests.support import ManualClock

ROUND_MS = 1_500
ROUNDS_MAX = 400


def draw_links(draw: random.Random, count: int) -> set[tuple[int, int]]:
    """A line, a ring or a tree, with chords."""
    order = draw.sample(range(count), count)
    shape = draw.choice(("line", "ring", "tree"))
    links = {(node, draw.randrange(node)) for node in range(1, count)} if shape == "tree" else set()
    if shape != "tree":
        links = set(zip(order, order[1:] + (order[:1] if shape == "ring" else []), strict=False))
    links |= {(draw.randrange(count), draw.randrange(count)) for _ in range(draw.randrange(3))}
    return {(a, b) for a, b in links if a != b}


def ball(links: set[tuple[int, int]], places: list[Location], origin: int, radius_km: float | None) -> set[int]:
    """The nodes within three hops of the origin along nodes inside the radius."""
    reached = ring = {origin}
    for _ in range(3):
        beyond = {b for a, b in links if a in ring} | {a for a, b in links if b in ring}
        ring = {node for node in beyond - reached if within_radius(places[origin], places[node], radius_km)}
        reached = reached | ring
    return reached - {origin}


async def round_of(cities: list[City]) -> None:
    """A little time passes, and what is under way gets on."""
    await let_pass(ROUND_MS, *cities)
    await asyncio.sleep(0.004)


async def play(cities: list[City], draw: random.Random, origins: list[int]) -> None:
    """Announcements while requests get lost and cities crash; then everything is up again."""
    network = cities[0].network
    for origin in origins:
        if cities[origin].working:
            await cities[origin].announce(subject_of(subject_id(origin)))
        for _ in range(draw.randrange(4)):
            await round_of(cities)
        victim = draw.choice(cities)
        if victim.working:
            await victim.crash()
        absent = [city for city in cities if not city.working]
        if len(absent) > 1:
            await draw.choice(absent).come_back()
    for city in cities:
        if not city.working:
            await city.come_back()
    network.loss = 0.0


def subject_id(origin: int) -> str:
    return f"MAT-DE-MUC-2026-FOOD-{origin:06d}"


def delivered(city: City) -> set[int]:
    return {int(row["subject"][-6:]) for row in city.heard()}


@pytest.mark.parametrize("seed", range(6))
async def test_all_within_three_hops_and_inside_the_radius_deliver_once(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    count = draw.randint(3, 10)
    places = [Location(draw.uniform(47, 54), draw.uniform(6, 16)) for _ in range(count)]
    links = draw_links(draw, count)
    radius_km = draw.choice((None, 250.0, 500.0))
    network, clock = Network(loss=0.2, chance=random.Random(seed)), ManualClock(NOW_MS)
    settings = FederationSettings(admission="open", radius_km=radius_km, announcement_validity_s=604_800)
    cities = [
        City(network, tmp_path, clock, identity_of(f"n{node}.loop", place), settings)
        for node, place in enumerate(places)
    ]
    try:
        for city in cities:
            await city.open()
        for a, b in links:
            await befriend(cities[a], cities[b])
        announced = draw.sample(range(count), min(count, 3))
        await play(cities, draw, announced)
        made = {node for node in announced if cities[node].rows("SELECT 1 FROM own_announcement")}
        wanted = {
            node: {origin for origin in made if node in ball(links, places, origin, radius_km)} for node in range(count)
        }
        for _ in range(ROUNDS_MAX):
            if all(delivered(cities[node]) == wanted[node] for node in range(count)):
                break
            await round_of(cities)
        for _ in range(10):
            await round_of(cities)
        assert {node: delivered(cities[node]) for node in range(count)} == wanted
        for city in cities:
            accepted = city.rows("SELECT payload FROM audit_entry WHERE CAST(payload AS TEXT) LIKE '%\"accepted\"%'")
            assert len(accepted) == len(delivered(city))
    finally:
        for city in cities:
            if city.working:
                await city.federation.stop()
                await city.database.close()
