"""Places and great-circle distances."""

from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt

MEAN_EARTH_RADIUS_KM = 6371.0088


@dataclass(frozen=True, slots=True)
class Location:
    """A point on the globe: degrees north, degrees east."""

    lat: float
    lon: float

    def __post_init__(self) -> None:
        if not -90 <= self.lat <= 90 or not -180 <= self.lon <= 180:
            raise ValueError("a latitude lies within ±90°, a longitude within ±180°")


def distance_km(a_lat: float, a_lon: float, b_lat: float, b_lon: float) -> float:
    """The haversine distance between two points, degrees in, kilometres out, on the mean earth."""
    a_phi, b_phi = radians(a_lat), radians(b_lat)
    half_chord = sin((b_phi - a_phi) / 2) ** 2 + cos(a_phi) * cos(b_phi) * sin(radians(b_lon - a_lon) / 2) ** 2
    # Rounding can lift the argument of antipodes a hair above 1.
    return 2 * MEAN_EARTH_RADIUS_KM * asin(min(1.0, sqrt(half_chord)))


def between_km(a: Location, b: Location) -> float:
    """The great-circle distance of two locations in kilometres."""
    return distance_km(a.lat, a.lon, b.lat, b.lon)


def within_radius(a: Location, b: Location, radius_km: float | None) -> bool:
    """Whether `b` lies inside the circle around `a`; at the radius is inside, `None` is unbounded (§9.3)."""
    return radius_km is None or between_km(a, b) <= radius_km
