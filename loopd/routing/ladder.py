"""The overflow ladder of something that is to go somewhere: its own city first, then ring by ring. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from loopd.gossip.rings import Ring
from loopd.routing.atlas import Atlas, Ranked
from loopd.routing.rules import ring_bounds, ring_within

OWN_CITY: Final = 0


@dataclass(slots=True)
class Rung:
    """A ring with who lies in it: `ring` 0 is the own city, None what lies beyond the last.

    `opens_at_ms` is None where it is not known, or the ring does not open. `lowest` is the first by LoopCost.
    """

    ring: int | None
    radius_km: float | None
    open: bool | None
    opens_at_ms: int | None
    destinations: int = 0
    wanting: int = 0
    lowest: Ranked | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """How far something is offered by now: the ring's place in the plan, and since when it is offered at all."""

    ring: int
    offered_since_ms: int
    expires_ms: int | None


def rings_of(atlas: Atlas, rings: Sequence[Ring], home: str, metres: Sequence[int]) -> list[int | None]:
    """Of each destination the rung it stands on: 0 the own city, from 1 the rings, None beyond the last.

    `metres` are the distances from the node that offers, as its announcements measure them.
    """
    bounds = ring_bounds(rings)
    found: list[int | None] = []
    for place, distance in zip(atlas.places, metres, strict=True):
        ring = ring_within(bounds, distance)
        found.append(OWN_CITY if place.node_id == home else None if ring is None else ring + 1)
    return found


def climb(
    rings: Sequence[Ring],
    opened: Opened | None,
    standing: Sequence[int | None],
    ranked: Sequence[Ranked],
    wanting: Collection[int],
    *,
    ours: bool,
) -> list[Rung]:
    """The rungs from the own city outwards. Of what another node offers it is not known how far it has come."""
    rungs: dict[int | None, Rung] = {OWN_CITY: Rung(OWN_CITY, 0.0, True, None)}
    for number, ring in enumerate(rings, start=1):
        is_open = number <= opened.ring + 1 if opened is not None else (False if ours else None)
        rungs[number] = Rung(number, ring.radius_km, is_open, _opens_at_ms(ring, opened))
    for entry in ranked:
        number_or_beyond = standing[entry[2]]
        rung = rungs.get(number_or_beyond)
        if rung is None:
            rung = rungs[number_or_beyond] = Rung(None, None, False, None)
        rung.destinations += 1
        rung.wanting += entry[2] in wanting
        if rung.lowest is None:
            rung.lowest = entry
    return list(rungs.values())


def _opens_at_ms(ring: Ring, opened: Opened | None) -> int | None:
    if opened is None:
        return None
    opens_at_ms = opened.offered_since_ms + ring.after_ms
    never = opened.expires_ms is not None and opens_at_ms >= opened.expires_ms
    return None if never else opens_at_ms
