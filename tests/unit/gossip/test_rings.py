import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.gossip.rings import Opening, Ring, check_plan, opening

HOUR_MS = 3_600_000
PLAN = (Ring(50, 0), Ring(200, 6 * HOUR_MS), Ring(1000, 24 * HOUR_MS), Ring(None, 72 * HOUR_MS))


@pytest.mark.parametrize(
    ("age_h", "number", "radius_km", "next_h"),
    [(0, 0, 50, 6), (5.999, 0, 50, 6), (6, 1, 200, 24), (24, 2, 1000, 72), (72, 3, None, None), (9999, 3, None, None)],
)
def test_a_ring_opens_at_its_age(age_h: float, number: int, radius_km: float | None, next_h: int | None) -> None:
    since_ms = 1_790_000_000_000
    expected = Opening(number, radius_km, None if next_h is None else since_ms + next_h * HOUR_MS)
    assert opening(PLAN, since_ms, since_ms + int(age_h * HOUR_MS)) == expected


def test_no_ring_opens_at_the_end_of_what_is_offered_or_later() -> None:
    assert opening(PLAN, 0, 0, expires_ms=6 * HOUR_MS).next_at_ms is None
    assert opening(PLAN, 0, 0, expires_ms=6 * HOUR_MS + 1).next_at_ms == 6 * HOUR_MS


def test_a_clock_set_back_and_a_slower_plan_draw_nothing_in_again() -> None:
    assert opening(PLAN, 100 * HOUR_MS, 0, reached=2) == Opening(2, 1000, 172 * HOUR_MS)
    slower = (Ring(50, 0), Ring(200, 100 * HOUR_MS))
    assert opening(slower, 0, 10 * HOUR_MS, reached=1) == Opening(1, 200, None)


def test_a_plan_that_became_shorter_ends_with_its_last_ring() -> None:
    assert opening((Ring(80, 0),), 0, 10 * HOUR_MS, reached=3) == Opening(0, 80, None)


@given(
    steps=st.lists(st.integers(1, 10**9), max_size=5),
    ages=st.lists(st.integers(0, 10**10), min_size=1, max_size=6).map(sorted),
)
def test_a_ring_never_closes_and_the_moment_told_is_the_moment_it_opens(steps: list[int], ages: list[int]) -> None:
    rings = [Ring(1, 0)]
    for index, step in enumerate(steps):
        rings.append(Ring(index + 2, rings[-1].after_ms + step))
    check_plan(rings)
    reached = 0
    for age in ages:
        found = opening(rings, 0, age, reached=reached)
        assert found.number >= reached
        assert found.number == sum(ring.after_ms <= age for ring in rings) - 1
        if found.next_at_ms is not None:
            assert opening(rings, 0, found.next_at_ms - 1).number == found.number
            assert opening(rings, 0, found.next_at_ms).number == found.number + 1
        reached = found.number


@pytest.mark.parametrize(
    ("rings", "fault"),
    [
        ((), "at least one"),
        ((Ring(50, 1),), "at once"),
        ((Ring(50, 0), Ring(100, 0)), "later"),
        ((Ring(50, 0), Ring(50, 1)), "wider"),
        ((Ring(None, 0), Ring(50, 1)), "wider"),
        ((Ring(None, 0), Ring(None, 1)), "wider"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(rings: tuple[Ring, ...], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_plan(rings)


def test_the_usual_plan_holds() -> None:
    check_plan(PLAN)
