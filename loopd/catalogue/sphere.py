"""Places as points on a unit sphere: there neither a pole nor the antimeridian is anything special.

The straight line through the sphere, squared, grows as the way along its surface does, so it orders and bounds places
without any trigonometry for each.
"""

from dataclasses import dataclass
from math import acos, cos, pi, radians, sin, sqrt
from typing import Final

from loopd.protocol.geo import MEAN_EARTH_RADIUS_KM, Location

# What the rounding of coordinates can come to, some micrometres: at the radius is inside.
_SLACK: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Direction:
    """A place as seen from the middle of the earth, a vector of length 1."""

    x: float
    y: float
    z: float


@dataclass(frozen=True, slots=True)
class Cap:
    """All places within a distance of one: a box around them in space, and the longest chord to them, squared."""

    box: tuple[float, float, float, float, float, float]
    reach: float


def direction_of(place: Location) -> Direction:
    """Where a place lies. The poles have one direction, whatever their longitude."""
    phi, lam = radians(place.lat), radians(place.lon)
    return Direction(cos(phi) * cos(lam), cos(phi) * sin(lam), sin(phi))


def cap_around(centre: Direction, radius_km: float) -> Cap:
    """The cap of a radius, at most half the way around the earth, which is everywhere."""
    angle = min(radius_km / MEAN_EARTH_RADIUS_KM, pi)
    bounds: list[float] = []
    for along in (centre.x, centre.y, centre.z):
        across = sqrt(max(0.0, 1 - along * along))
        to_axis = acos(max(-1.0, min(1.0, along)))
        # Where the cap holds the end of an axis, the box ends there.
        lower = -1.0 if pi - to_axis <= angle else along * cos(angle) - across * sin(angle)
        upper = 1.0 if to_axis <= angle else along * cos(angle) + across * sin(angle)
        bounds += [lower - _SLACK, upper + _SLACK]
    a, b, c, d, e, f = bounds
    return Cap((a, b, c, d, e, f), (2 * sin(angle / 2) + _SLACK) ** 2)
