from math import pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.geo import MEAN_EARTH_RADIUS_KM, Location, between_km, within_radius

LOCATIONS = st.builds(Location, st.floats(-90, 90), st.floats(-180, 180))
MUNICH, VIENNA, BERLIN = Location(48.1351, 11.5820), Location(48.2082, 16.3738), Location(52.5200, 13.4050)
HALF_EQUATOR_KM = pi * MEAN_EARTH_RADIUS_KM


@pytest.mark.parametrize(
    ("a", "b", "expected_km"),
    [
        (MUNICH, VIENNA, 355.5),
        (MUNICH, BERLIN, 504.4),
        (Location(0, 0), Location(0, 180), HALF_EQUATOR_KM),
        (Location(90, 0), Location(-90, 77), HALF_EQUATOR_KM),
        (Location(0, 179.5), Location(0, -179.5), HALF_EQUATOR_KM / 180),
    ],
)
def test_known_distances(a: Location, b: Location, expected_km: float) -> None:
    assert between_km(a, b) == pytest.approx(expected_km, rel=2e-3)


@given(LOCATIONS, LOCATIONS)
def test_a_distance_is_the_same_both_ways_and_at_most_half_the_equator(a: Location, b: Location) -> None:
    assert between_km(a, b) == pytest.approx(between_km(b, a), abs=1e-6)
    assert 0 <= between_km(a, b) <= HALF_EQUATOR_KM + 1e-6


@given(LOCATIONS)
def test_nothing_is_far_from_itself(a: Location) -> None:
    assert between_km(a, a) == 0


@given(LOCATIONS, LOCATIONS, LOCATIONS)
def test_no_detour_is_shorter(a: Location, b: Location, c: Location) -> None:
    assert between_km(a, c) <= between_km(a, b) + between_km(b, c) + 1e-3


@given(LOCATIONS, LOCATIONS)
def test_at_the_radius_is_inside(a: Location, b: Location) -> None:
    radius_km = between_km(a, b)
    assert within_radius(a, b, radius_km)
    assert within_radius(a, b, None)
    assert not within_radius(a, b, radius_km - 0.001)


@pytest.mark.parametrize(("lat", "lon"), [(90.1, 0), (-90.1, 0), (0, 180.1), (0, -180.1), (float("nan"), 0)])
def test_no_such_place(lat: float, lon: float) -> None:
    with pytest.raises(ValueError):
        Location(lat, lon)
