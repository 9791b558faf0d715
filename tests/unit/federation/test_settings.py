import json

import pytest

from loopd.federation.settings import DEFAULT_RINGS, FederationSettings
from loopd.gossip.rings import Ring
from loopd.settings import SettingsError, parse_settings

NODE = """
[node]
id = "munich.loop"
name = "Munich"
city = "Munich"
country = "DE"
lat = 48.1
lon = 11.6
endpoint = "https://munich.example/api/v1"
"""
HOUR_MS = 3_600_000
USUAL = (Ring(50, 0), Ring(200, 6 * HOUR_MS), Ring(1000, 24 * HOUR_MS), Ring(None, 72 * HOUR_MS))


def federation(text: str = "", environment: dict[str, str] | None = None) -> FederationSettings:
    return parse_settings(f"{NODE}\n[federation]\n{text}", "loopd.toml", environment or {}).federation


def test_the_usual_rings_and_one_in_development() -> None:
    assert federation().ring_plan(development=False) == USUAL
    assert federation().ring_plan(development=True) == (Ring(1000, 0),)


@pytest.mark.parametrize("development", [False, True])
def test_a_radius_that_was_set_is_the_one_ring(development: bool) -> None:
    assert federation("radius_km = 300").ring_plan(development=development) == (Ring(300, 0),)
    assert federation('radius_km = "none"').ring_plan(development=development) == (Ring(None, 0),)


@pytest.mark.parametrize("development", [False, True])
def test_rings_that_were_set_count_in_the_file_and_in_the_environment(development: bool) -> None:
    inline = 'radius_km = 300\nrings = [{ radius_km = 50, after_s = 0 }, { radius_km = "none", after_s = 4 }]'
    tables = '[[federation.rings]]\nradius_km = 50\nafter_s = 0\n[[federation.rings]]\nradius_km = "none"\nafter_s = 4'
    variable = json.dumps([{"radius_km": 50, "after_s": 0}, {"radius_km": None, "after_s": 4}])
    expected = (Ring(50, 0), Ring(None, 4000))
    assert federation(inline).ring_plan(development=development) == expected
    assert federation(tables).ring_plan(development=development) == expected
    in_environment = federation("", {"LOOPD_FEDERATION__RINGS": variable})
    assert in_environment.ring_plan(development=development) == expected


@pytest.mark.parametrize(
    ("rings", "fault"),
    [
        ("[]", "at least one ring"),
        ("[{ radius_km = 50, after_s = 3 }]", "opens at once"),
        ("[{ radius_km = 50, after_s = 0 }, { radius_km = 40, after_s = 3 }]", "wider"),
        ("[{ radius_km = 50 }]", "allowed: table with radius_km"),
        ("[{ radius_km = 50, after_s = 0, after = 3 }]", "allowed: table with radius_km"),
        (str([{"radius_km": n + 1, "after_s": n} for n in range(9)]).replace("':", "' ="), "at most 8 rings"),
    ],
)
def test_rings_that_make_no_sense_are_refused_and_named(rings: str, fault: str) -> None:
    with pytest.raises(SettingsError) as caught:
        federation(f"rings = {rings}")
    (problem,) = caught.value.problems
    assert problem.setting.startswith("federation.rings")
    assert fault in str(problem)


def test_the_default_is_valid_when_it_is_written_out() -> None:
    assert FederationSettings(rings=DEFAULT_RINGS).ring_plan(development=True) == USUAL
