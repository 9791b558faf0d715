"""Judges of a run that share nothing with the engine: what must be so, from the map, the faults and the load.

Each gives its findings as sentences; none where all is well.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING, Final

from loopd.protocol.geo import Location
from loopd.protocol.limits import LINK_OFFERS_MAX
from loopd.sim.disk import Message
from loopd.sim.scenario import Attack

if TYPE_CHECKING:
    from loopd.sim.world import World

_EARTH_RADIUS_KM: Final = 6371.0088
_HOPS: Final = 3


def violations(world: "World") -> list[str]:
    """Everything that is wrong with a run that was played."""
    return [finding for check in _CHECKS for finding in check(world)]


def inside(world: "World", message: Message) -> list[bool]:
    """For each node, whether it lies inside the message's radius."""
    radius_km, origin = message.announcement.radius_km, message.origin
    return [
        radius_km is None or _chord_km(world.places[origin], place) <= radius_km * (1 + 1e-12) for place in world.places
    ]


def hops(world: "World", message: Message) -> dict[int, int]:
    """How many hops each node of the ball is from the origin, breadth first.

    Along honest nodes inside the radius that are there at the end, and links that are: those that came late too, for
    repair fills them.
    """
    scope = inside(world, message)
    distance, ring = {message.origin: 0}, [message.origin]
    for step in range(1, _HOPS + 1):
        following = []
        for node in ring:
            for peer in world.peers_of[node]:
                lasts = (min(node, peer), max(node, peer)) not in world.removed and peer not in world.gone
                if lasts and peer not in distance and scope[peer] and peer not in world.malicious:
                    distance[peer] = step
                    following.append(peer)
        ring = following
    del distance[message.origin]
    return distance


def highest_ttl(world: "World", message: Message) -> list[int]:
    """The highest TTL at which a copy can reach each node over all links there ever are; 0: none can.

    Who repeats its value adds one hop.
    """
    scope = inside(world, message)
    best = [0] * len(world.places)
    frontier = [(message.origin, _HOPS)]
    while frontier:
        following = []
        for node, given in frontier:
            for peer in world.peers_of[node]:
                # Those who attack together pass things on to each other wherever they are.
                gets_it = scope[peer] or (node in world.malicious and peer in world.malicious)
                if gets_it and peer != message.origin and given > best[peer]:
                    best[peer] = given
                    repeats = world.malicious.get(peer) is Attack.REPEATED_HOP
                    onward = min(given, _HOPS - 1) if repeats else given - 1
                    if onward:
                        following.append((peer, onward))
        frontier = following
    return best


def delivered(world: "World", message: Message) -> list[int]:
    """The nodes that delivered a message, in order."""
    return [
        number
        for number, tables in enumerate(world.tables)
        if any(message_id == message.message_id for message_id, _ in tables.delivered)
    ]


def is_due(world: "World", message: Message) -> bool:
    """Whether everybody in scope must have it by the end: it is acknowledged, still valid, and its subject's newest."""
    if message.message_id not in world.facts.made:
        return False
    announcement = message.announcement
    newest = max(
        (
            other.announcement.revision
            for other in world.messages.values()
            if other.origin == message.origin and other.announcement.subject == announcement.subject
        ),
    )
    span_ms = announcement.valid_until_ms - announcement.issued_at_ms
    valid_until_s = message.made_at_us / 1e6 + span_ms / 1e3 - 2 * world.scenario.skew_max_ms / 1e3
    return announcement.revision == newest and valid_until_s > world.scenario.end_s


def _missing(world: "World") -> Iterator[str]:
    """The ball, from below: all that healed must have brought it to all of it, at the best TTL there is."""
    for message in world.messages.values():
        if not is_due(world, message):
            continue
        reached = dict.fromkeys(delivered(world, message))
        for node, distance in hops(world, message).items():
            if node not in reached:
                yield f"missing: message {message.number} at node {node}, {distance} hops away"
                continue
            row = world.tables[node].messages.get(message.message_id)
            if row is None or row.best.ttl < _HOPS + 1 - distance:
                held = None if row is None else row.best.ttl
                yield f"low TTL: message {message.number} at node {node}, {distance} hops away, held with {held}"


def _too_many(world: "World") -> Iterator[str]:
    """The ball, from above: nobody has it whom no copy can reach, nor at a TTL that none can have there."""
    for message in world.messages.values():
        highest = highest_ttl(world, message)
        for node, tables in enumerate(world.tables):
            row = tables.messages.get(message.message_id)
            if node == message.origin or row is None:
                continue
            if row.best.ttl > highest[node]:
                yield f"high TTL: message {message.number} at node {node}: {row.best.ttl}, not {highest[node]}"
        for node in delivered(world, message):
            if highest[node] == 0:
                yield f"too many: message {message.number} at node {node}"


def _out_of_scope(world: "World") -> Iterator[str]:
    for message in world.messages.values():
        scope = inside(world, message)
        for node in delivered(world, message):
            if not scope[node]:
                yield f"out of scope: message {message.number} at node {node}"


def _twice(world: "World") -> Iterator[str]:
    for node, tables in enumerate(world.tables):
        for message_id, times in Counter(message_id for message_id, _ in tables.delivered).items():
            if times > 1:
                yield f"{times} times: message {world.messages[message_id].number} at node {node}"


def _forgotten(world: "World") -> Iterator[str]:
    """Who said that it holds a message holds it."""
    for node, message_id in world.facts.kept:
        if node not in world.malicious and message_id not in world.tables[node].messages:
            yield f"forgotten: message {world.messages[message_id].number} at node {node}"


def _late(world: "World") -> Iterator[str]:
    """Nothing is delivered after its end, as far as clocks can differ."""
    slack_us = 2 * world.scenario.skew_max_ms * 1_000
    # What was decided in time may wait for the disk.
    slack_us += 5_000_000
    for node, tables in enumerate(world.tables):
        for message_id, at_us in tables.delivered:
            message = world.messages[message_id]
            announcement = message.announcement
            span_us = (announcement.valid_until_ms - announcement.issued_at_ms) * 1_000
            if at_us > message.made_at_us + span_us + slack_us:
                yield f"too late: message {message.number} at node {node}"


def _not_genuine(world: "World") -> Iterator[str]:
    for node, tables in enumerate(world.tables):
        for message_id, _ in tables.delivered:
            if message_id not in world.messages:
                yield f"not genuine: {message_id.hex()} at node {node}"


def _newest(world: "World") -> Iterator[str]:
    """A node that holds several states of a subject ends with the newest of them."""
    for node, tables in enumerate(world.tables):
        for (origin, subject), newest in tables.newest.items():
            held = [
                row.message.announcement.revision
                for row in tables.messages.values()
                if (row.message.announcement.origin, row.message.announcement.subject) == (origin, subject)
            ]
            if held and newest.revision < max(held):
                yield f"not the newest: {subject} of {origin} at node {node}"


def _misjudged(world: "World") -> Iterator[str]:
    """Health converges: who is there is not given up, and who is gone is."""
    for number, node in world.living.items():
        if node.watch is None:
            continue
        for peer in world.peers_of[number]:
            belief = node.watch.belief(world.names[peer])
            if peer in world.gone and belief != "failed":
                yield f"misjudged: node {peer} is gone, and {belief} to node {number}"
            if peer in world.living and belief == "failed":
                yield f"misjudged: node {peer} is there, and {belief} to node {number}"


def _unbounded(world: "World") -> Iterator[str]:
    if not world.scenario.plain_flooding and world.facts.most_offers > LINK_OFFERS_MAX:
        yield f"unbounded: {world.facts.most_offers} offers over one link at once"


_CHECKS: Final[tuple[Callable[["World"], Iterator[str]], ...]] = (
    _missing,
    _too_many,
    _out_of_scope,
    _twice,
    _forgotten,
    _late,
    _not_genuine,
    _newest,
    _misjudged,
    _unbounded,
)


def _chord_km(a: Location, b: Location) -> float:
    """The great-circle distance by the chord through the earth: another way than the engine's."""
    x, y = _on_sphere(a), _on_sphere(b)
    chord = sqrt(sum((p - q) ** 2 for p, q in zip(x, y, strict=True)))
    return 2 * _EARTH_RADIUS_KM * asin(min(1.0, chord / 2))


def _on_sphere(place: Location) -> tuple[float, float, float]:
    phi, lam = radians(place.lat), radians(place.lon)
    return cos(phi) * cos(lam), cos(phi) * sin(lam), sin(phi)
