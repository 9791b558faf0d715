"""Rings of announcement: nearby first, farther away until somebody takes it, and nobody is left with what is over."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopd.federation.settings import FederationSettings, RingSettings
from loopd.protocol.documents import read_json
from loopd.protocol.geo import Location
from loopd.protocol.subjects import SubjectState
from tests.federation_support import (
    BERLIN,
    DAY_MS,
    GRAIN,
    MUNICH,
    NOW_MS,
    VIENNA,
    City,
    befriend,
    eventually,
    federation_of,
    identity_of,
    rest,
    subject_of,
)

HOUR_MS = 3_600_000
USUAL = FederationSettings(admission="open")
ROME = Location(41.9028, 12.4964)


def told(city: City) -> list[dict[str, Any]]:
    return [read_json(row["body"]) for row in city.rows("SELECT body FROM message ORDER BY message_number")]


def radii(city: City) -> list[float | None]:
    return [None if body["radius_km"] is None else float(body["radius_km"]) for body in told(city)]


async def pass_time(city: City, hours: float) -> None:
    city.clock.advance(int(hours * HOUR_MS))
    await city.federation.housekeeping.widen()


async def test_each_ring_opens_at_its_time_and_a_withdrawal_reaches_the_widest(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop"), settings=USUAL) as (munich,):
        await munich.announce(subject_of())
        for hours in (5.9, 0.1, 18, 48, 100):
            await pass_time(munich, hours)
        assert radii(munich) == [50, 200, 1000, None]
        assert [body["revision"] for body in told(munich)] == [1, 2, 3, 4]
        await munich.announce(subject_of(state=SubjectState.WITHDRAWN))
        assert radii(munich)[-1] is None
        assert munich.rows("SELECT widen_at_ms FROM own_announcement") == [{"widen_at_ms": None}]


async def test_nobody_in_the_first_ring_vienna_in_the_second_berlin_in_the_third(tmp_path: Path) -> None:
    rings = tuple(RingSettings(radius_km=km, after_s=s) for km, s in ((50, 0), (400, 5), (1000, 10)))
    plan = FederationSettings(admission="open", rings=rings)
    names = (("munich", MUNICH), ("vienna", VIENNA), ("berlin", BERLIN), ("rome", ROME))
    identities = [identity_of(f"{name}.loop", place) for name, place in names]
    async with federation_of(tmp_path, *identities, settings=plan) as cities:
        munich, vienna, berlin, rome = cities
        for other in (vienna, berlin, rome):
            await befriend(munich, other)
        await munich.announce(subject_of())
        await rest(*cities)
        assert not any(city.heard() for city in (vienna, berlin, rome))
        await pass_time(munich, 5 / 3600)
        await eventually(lambda: vienna.heard_subjects() == {GRAIN}, *cities)
        assert not berlin.heard()
        await pass_time(munich, 5 / 3600)
        await eventually(lambda: berlin.heard_subjects() == rome.heard_subjects() == {GRAIN}, *cities)
        await munich.announce(subject_of(state=SubjectState.RESERVED))
        await eventually(lambda: not any(city.heard()[0]["available"] for city in (vienna, berlin, rome)), *cities)


async def test_the_rings_are_looked_for_without_anybody_asking(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop"), settings=USUAL) as (munich,):
        await munich.announce(subject_of())
        munich.clock.advance(6 * HOUR_MS)
        await eventually(lambda: radii(munich) == [50, 200])


async def test_a_ring_that_opened_while_the_node_was_down_opens_when_it_is_back(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop"), settings=USUAL) as (munich,):
        await munich.announce(subject_of())
        await munich.crash()
        munich.clock.advance(25 * HOUR_MS)
        await munich.come_back()
        await munich.federation.housekeeping.widen()
        assert radii(munich) == [50, 1000]


async def test_nothing_is_widened_when_it_expires_first_or_is_taken(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop"), settings=USUAL) as (munich,):
        await munich.announce(subject_of(expires_ms=NOW_MS + 6 * HOUR_MS))
        await munich.announce(subject_of("MAT-DE-MUC-2026-FOOD-C847F3"))
        await munich.announce(subject_of("MAT-DE-MUC-2026-FOOD-C847F3", state=SubjectState.RESERVED))
        await pass_time(munich, 7)
        assert radii(munich) == [50, 50, 50]


async def test_what_is_available_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop"), settings=USUAL) as (munich,):
        await munich.announce(subject_of())
        await pass_time(munich, 6)
        await munich.announce(subject_of(state=SubjectState.RESERVED))
        await pass_time(munich, 1)
        await munich.announce(subject_of())
        await pass_time(munich, 17)
        assert radii(munich) == [50, 200, 200, 200, 1000]


async def test_a_renewal_stays_in_its_ring(tmp_path: Path) -> None:
    slow = (RingSettings(radius_km=50, after_s=0), RingSettings(radius_km=200, after_s=6 * 24 * 3600))
    async with federation_of(
        tmp_path, identity_of("munich.loop"), settings=FederationSettings(admission="open", rings=slow)
    ) as (munich,):
        await munich.announce(subject_of())
        munich.clock.advance(7 * DAY_MS // 2)
        await munich.federation.housekeeping.keep_house()
        assert radii(munich) == [50, 50]
        munich.clock.advance(5 * DAY_MS // 2)
        await munich.federation.housekeeping.widen()
        assert radii(munich) == [50, 50, 200]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("wait", "take", "free", "restart")), st.integers(1, 40)), max_size=8))
async def test_whatever_happens_the_radius_told_last_covers_all_that_were_told(
    tmp_path_factory: Any, steps: list[tuple[str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("rings")
    async with federation_of(directory, identity_of("munich.loop"), settings=USUAL) as (munich,):
        await munich.announce(subject_of())
        for step, hours in steps:
            match step:
                case "wait":
                    await pass_time(munich, hours)
                case "take":
                    await munich.announce(subject_of(state=SubjectState.RESERVED))
                case "free":
                    await munich.announce(subject_of())
                case "restart":
                    await munich.crash()
                    await munich.come_back()
        reach = [float("inf") if radius is None else radius for radius in radii(munich)]
        assert reach == sorted(reach)
