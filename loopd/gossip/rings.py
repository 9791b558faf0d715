"""Overflow (§9.3): what is available is offered nearby first, and farther away the longer nobody has taken it.

Pure values: the plan of rings, and which of them is open at an age. See docs/gossip.md, Rings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Ring:
    """How far an offer goes (None: without bound) from that age on."""

    radius_km: float | None
    after_ms: int


@dataclass(frozen=True, slots=True)
class Opening:
    """The ring that is open, its place in the plan, and when the next one opens (None: there is none to come)."""

    number: int
    radius_km: float | None
    next_at_ms: int | None


def check_plan(rings: Sequence[Ring]) -> None:
    """ValueError unless the first ring is open at once, and each later one opens later and reaches farther."""
    if not rings:
        raise ValueError("at least one ring is needed")
    if rings[0].after_ms != 0:
        raise ValueError("the first ring opens at once: its after_s is 0")
    for inner, outer in pairwise(rings):
        if outer.after_ms <= inner.after_ms:
            raise ValueError("each ring opens later than the one before")
        if inner.radius_km is None or (outer.radius_km is not None and outer.radius_km <= inner.radius_km):
            raise ValueError("each ring is wider than the one before")


def opening(
    rings: Sequence[Ring], offered_since_ms: int, now_ms: int, expires_ms: int | None = None, reached: int = 0
) -> Opening:
    """The ring in which something is offered now that was first offered at `offered_since_ms`.

    `reached` is the ring in which it was offered last: no clock that was set back, and no longer plan, draws an offer
    in again. A plan that became shorter ends with its last ring. No ring opens at `expires_ms` or after it.
    """
    number = min(max(reached, 0), len(rings) - 1)
    while number + 1 < len(rings) and offered_since_ms + rings[number + 1].after_ms <= now_ms:
        number += 1
    next_at_ms = None
    if number + 1 < len(rings):
        next_at_ms = offered_since_ms + rings[number + 1].after_ms
        if expires_ms is not None and next_at_ms >= expires_ms:
            next_at_ms = None
    return Opening(number, rings[number].radius_km, next_at_ms)
