"""A peer's health: every move of the table, and what no sequence of events can do."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.health import (
    DEFAULT_TIMING,
    MOVES,
    REGISTRY_STATUS,
    STATES,
    Event,
    Guard,
    PeerHealth,
    Signal,
    State,
    Timing,
    backoff_ms,
    ceiling_ms,
    transition,
)
from loopd.protocol.limits import RETRY_AFTER_MAX_MS

NOW_MS = 1_800_000_000_000
SECOND_MS, DAY_MS = 1_000, 86_400_000
TIMING = DEFAULT_TIMING


def after(health: PeerHealth, *signals: Signal, now_ms: int = NOW_MS, jitter: float = 1.0) -> PeerHealth:
    for signal in signals:
        health = transition(health, Event(signal), now_ms, jitter)
    return health


NEW = PeerHealth.new(NOW_MS)
IN_STATE = {
    State.ACTIVE: after(NEW, Signal.PROBE_SUCCEEDED),
    State.SUSPECT: after(NEW, Signal.PROBE_FAILED),
    State.UNREACHABLE: after(NEW, *[Signal.PROBE_FAILED] * 3),
    State.MAINTENANCE: after(NEW, Signal.MAINTENANCE_STARTED),
    State.SUSPENDED: after(NEW, Signal.SUSPENDED),
}
# The whole behaviour, row by row: what follows each state on each signal, where it is another state.
FOLLOWING = {
    State.ACTIVE: {
        Signal.PROBE_FAILED: State.SUSPECT,
        Signal.SUSPECTED: State.SUSPECT,
        Signal.FAILURE_CONFIRMED: State.UNREACHABLE,
        Signal.REQUEST_FAILED: State.SUSPECT,
        Signal.MAINTENANCE_STARTED: State.MAINTENANCE,
        Signal.SUSPENDED: State.SUSPENDED,
    },
    State.SUSPECT: {
        Signal.FAILURE_CONFIRMED: State.UNREACHABLE,
        Signal.PROBE_SUCCEEDED: State.ACTIVE,
        Signal.REQUEST_SUCCEEDED: State.ACTIVE,
        Signal.DEFERRED: State.ACTIVE,
        Signal.MAINTENANCE_STARTED: State.MAINTENANCE,
        Signal.SUSPENDED: State.SUSPENDED,
    },
    State.UNREACHABLE: {
        Signal.PROBE_SUCCEEDED: State.ACTIVE,
        Signal.REQUEST_SUCCEEDED: State.ACTIVE,
        Signal.DEFERRED: State.ACTIVE,
        Signal.MAINTENANCE_STARTED: State.MAINTENANCE,
        Signal.SUSPENDED: State.SUSPENDED,
    },
    State.MAINTENANCE: {
        Signal.PROBE_SUCCEEDED: State.ACTIVE,
        Signal.REQUEST_SUCCEEDED: State.ACTIVE,
        Signal.SUSPENDED: State.SUSPENDED,
    },
    State.SUSPENDED: {Signal.RESUMED: State.SUSPECT},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("signal", Signal)
def test_every_signal_in_every_state(state: State, signal: Signal) -> None:
    health = IN_STATE[state]
    assert health.state is state
    assert after(health, signal).state is FOLLOWING[state].get(signal, state)


def test_the_table_names_every_move_and_no_move_to_itself() -> None:
    unguarded = {key: following for key, (following, guard) in MOVES.items() if guard is Guard.ALWAYS}
    assert unguarded == {
        (state, signal): following for state, row in FOLLOWING.items() for signal, following in row.items()
    }
    assert all(following is not state for (state, _), (following, _) in MOVES.items())


def test_every_state_has_its_word_in_the_registry() -> None:
    assert {state: health.registry_status for state, health in IN_STATE.items()} == dict(REGISTRY_STATUS)
    assert set(REGISTRY_STATUS.values()) == {"active", "inactive", "maintenance", "suspended"}


def test_a_peer_is_unreachable_only_after_probes_in_a_row() -> None:
    states = []
    health = NEW
    for signal in [Signal.PROBE_FAILED] * 2 + [Signal.PROBE_SUCCEEDED] + [Signal.PROBE_FAILED] * 3:
        health = after(health, signal)
        states.append(health.state)
    assert states == [State.SUSPECT, State.SUSPECT, State.ACTIVE, State.SUSPECT, State.SUSPECT, State.UNREACHABLE]


def test_failed_requests_alone_make_nobody_unreachable() -> None:
    health = after(NEW, *[Signal.REQUEST_FAILED] * 50)
    assert health.state is State.SUSPECT
    # They were on their way together, and count once.
    assert health.request_failures == 1
    assert health.next_attempt_at_ms == NOW_MS


def test_a_long_maintenance_ends_in_being_unreachable() -> None:
    health = IN_STATE[State.MAINTENANCE]
    limit_ms = NOW_MS + TIMING.maintenance_max_ms
    assert after(health, Signal.PROBE_FAILED, now_ms=limit_ms - 1).state is State.MAINTENANCE
    assert after(health, Signal.PROBE_FAILED, now_ms=limit_ms).state is State.UNREACHABLE


def test_a_confirmed_failure_ends_only_an_overdue_maintenance() -> None:
    health = IN_STATE[State.MAINTENANCE]
    limit_ms = NOW_MS + TIMING.maintenance_max_ms
    assert after(health, Signal.FAILURE_CONFIRMED, now_ms=limit_ms - 1).state is State.MAINTENANCE
    assert after(health, Signal.FAILURE_CONFIRMED, now_ms=limit_ms).state is State.UNREACHABLE


@pytest.mark.parametrize(("planned_ms", "kept_ms"), [(0, 0), (7_000, 7_000), (-5, 0), (10**12, 900_000)])
def test_who_plans_the_probes_says_when_the_next_one_is(planned_ms: int, kept_ms: int) -> None:
    event = Event(Signal.PROBE_SUCCEEDED, next_attempt_in_ms=planned_ms)
    health = transition(IN_STATE[State.UNREACHABLE], event, NOW_MS, 1.0)
    assert (health.state, health.next_attempt_at_ms) == (State.ACTIVE, NOW_MS + kept_ms)
    suspended = transition(IN_STATE[State.SUSPENDED], event, NOW_MS, 1.0)
    assert (suspended.state, suspended.next_attempt_at_ms) == (State.SUSPENDED, None)


def test_a_suspended_peer_is_not_tried_until_it_is_resumed() -> None:
    health = IN_STATE[State.SUSPENDED]
    for signal in set(Signal) - {Signal.RESUMED}:
        health = after(health, signal, now_ms=NOW_MS + DAY_MS)
        assert health.next_attempt_at_ms is None
        assert not health.may_send(NOW_MS + 2 * DAY_MS)
    resumed = after(health, Signal.RESUMED, now_ms=NOW_MS + DAY_MS)
    assert resumed.next_attempt_at_ms == NOW_MS + DAY_MS
    assert not resumed.may_send(NOW_MS + DAY_MS)
    assert after(resumed, Signal.PROBE_SUCCEEDED, now_ms=NOW_MS + DAY_MS).may_send(NOW_MS + DAY_MS)


@pytest.mark.parametrize(("asked_ms", "granted_ms"), [(0, 0), (30_000, 30_000), (10**12, RETRY_AFTER_MAX_MS), (-5, 0)])
def test_asking_for_patience_delays_and_is_no_failure(asked_ms: int, granted_ms: int) -> None:
    health = transition(IN_STATE[State.ACTIVE], Event(Signal.DEFERRED, asked_ms), NOW_MS, 1.0)
    assert (health.state, health.probe_failures, health.absent_since_ms) == (State.ACTIVE, 0, None)
    assert health.may_send(NOW_MS + granted_ms)
    assert not health.may_send(NOW_MS + granted_ms - 1) or granted_ms == 0
    # The probe stands back behind what waits to be sent: it would use up what a limited peer grants.
    assert health.next_attempt_at_ms == NOW_MS + granted_ms + TIMING.probe_interval_ms * 4 // 5


def test_requests_that_fail_while_probes_succeed_have_a_back_off_of_their_own() -> None:
    health, now_ms, waits_ms = NEW, NOW_MS, []
    for _ in range(8):
        health = after(health, Signal.REQUEST_FAILED, Signal.PROBE_SUCCEEDED, now_ms=now_ms)
        assert health.state is State.ACTIVE
        waits_ms.append(health.send_after_ms - now_ms)
        now_ms = health.send_after_ms
    assert waits_ms == [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]
    assert after(health, Signal.REQUEST_SUCCEEDED, now_ms=now_ms).request_failures == 0


def test_the_ceiling_of_the_back_off() -> None:
    assert [ceiling_ms(days * DAY_MS) for days in (0, 1)] == [20_000, 20_000]
    assert ceiling_ms(4 * DAY_MS) == (20_000 + 900_000) // 2
    assert [ceiling_ms(days * DAY_MS) for days in (7, 8, 4000)] == [900_000] * 3


@given(st.integers(0, 10**9), st.integers(0, 10 * DAY_MS), st.floats(-1, 2))
@settings(max_examples=200)
def test_a_wait_lies_between_half_its_step_and_the_ceiling(failures: int, absent_ms: int, jitter: float) -> None:
    wait_ms = backoff_ms(failures, absent_ms, jitter)
    assert TIMING.first_retry_ms // 2 <= wait_ms <= ceiling_ms(absent_ms)


EVENTS = st.tuples(
    st.sampled_from(list(Signal)), st.integers(0, 10 * 60 * SECOND_MS), st.floats(0, 1), st.integers(0, 10**9)
)


@given(st.lists(EVENTS, max_size=60))
@settings(max_examples=200)
def test_no_sequence_of_events_leaves_a_wait_above_its_bound(
    events: list[tuple[Signal, int, float, int]],
) -> None:
    health, now_ms = NEW, NOW_MS
    for signal, passed_ms, jitter, asked_ms in events:
        now_ms += passed_ms
        health = transition(health, Event(signal, asked_ms), now_ms, jitter)
        if health.state is State.SUSPENDED:
            assert health.next_attempt_at_ms is None
            continue
        assert health.next_attempt_at_ms is not None
        wait_ms = health.next_attempt_at_ms - now_ms
        if health.absent_since_ms is not None:
            assert wait_ms <= ceiling_ms(now_ms - health.absent_since_ms)
            assert health.send_after_ms - now_ms <= max(TIMING.first_day_ceiling_ms, RETRY_AFTER_MAX_MS)
        assert wait_ms <= TIMING.probe_interval_ms + RETRY_AFTER_MAX_MS
        assert health.absent_since_ms is None or health.state is not State.ACTIVE


@given(st.lists(EVENTS, max_size=40), st.integers(0, 2**32))
@settings(max_examples=100)
def test_recovery_needs_no_traffic(events: list[tuple[Signal, int, float, int]], seed: int) -> None:
    """Whatever happened before: a peer that answers again is found within its bound, by probing alone."""
    health, now_ms = NEW, NOW_MS
    for signal, passed_ms, jitter, _ in events:
        now_ms += passed_ms
        health = transition(health, Event(signal), now_ms, jitter)
    if health.state is State.SUSPENDED:
        health = after(health, Signal.RESUMED, now_ms=now_ms)
    came_back_ms = now_ms
    bound_ms = 0 if health.absent_since_ms is None else ceiling_ms(now_ms - health.absent_since_ms)
    random = Random(seed)
    while not (health.state is State.ACTIVE and health.may_send(now_ms)):
        assert now_ms - came_back_ms <= max(bound_ms, TIMING.probe_interval_ms + TIMING.first_day_ceiling_ms)
        assert health.next_attempt_at_ms is not None
        if now_ms < health.next_attempt_at_ms:
            now_ms += 100
            continue
        health = after(health, Signal.PROBE_SUCCEEDED, now_ms=now_ms, jitter=random.random())


def test_an_absence_of_weeks_is_probed_at_its_growing_intervals() -> None:
    random, health, now_ms = Random(1), NEW, NOW_MS
    waits_by_day: dict[int, list[int]] = {}
    while now_ms < NOW_MS + 10 * DAY_MS:
        health = after(health, Signal.PROBE_FAILED, now_ms=now_ms, jitter=random.random())
        assert health.next_attempt_at_ms is not None
        waits_by_day.setdefault((now_ms - NOW_MS) // DAY_MS, []).append(health.next_attempt_at_ms - now_ms)
        now_ms = health.next_attempt_at_ms
    longest = {day: max(waits) for day, waits in waits_by_day.items()}
    assert longest[0] <= 20_000
    assert [longest[day] for day in range(8)] == sorted(longest[day] for day in range(8))
    assert 600_000 < longest[9] <= 900_000


@pytest.mark.parametrize("back_ms", [1, 60 * SECOND_MS, 400 * DAY_MS])
def test_a_clock_that_is_set_back_delays_nothing(back_ms: int) -> None:
    for state in (State.ACTIVE, State.SUSPECT, State.UNREACHABLE, State.MAINTENANCE):
        health = IN_STATE[state]
        earlier_ms = NOW_MS - back_ms
        assert health.may_send(earlier_ms) is (state is State.ACTIVE)
        failed = after(health, Signal.PROBE_FAILED, now_ms=earlier_ms)
        assert failed.next_attempt_at_ms is not None
        assert 0 < failed.next_attempt_at_ms - earlier_ms <= TIMING.first_day_ceiling_ms
        assert failed.absent_since_ms is not None
        assert failed.absent_since_ms <= earlier_ms


@pytest.mark.parametrize("state", STATES)
def test_health_survives_as_a_row(state: State) -> None:
    health = IN_STATE[state]
    assert PeerHealth.from_row(json.loads(json.dumps(health.to_row()))) == health


def test_a_row_of_another_version_is_refused() -> None:
    row = NEW.to_row()
    for other in ({**row, "more": 1}, {key: value for key, value in row.items() if key != "since_ms"}, {}):
        with pytest.raises(ValueError, match="fields"):
            PeerHealth.from_row(other)
    with pytest.raises(ValueError, match="asleep"):
        PeerHealth.from_row({**row, "state": "asleep"})


@pytest.mark.parametrize(
    "numbers",
    [
        {"first_retry_ms": 0},
        {"first_retry_ms": 30_000},
        {"first_day_ceiling_ms": 1_000_000},
        {"ceiling_growth_days": 1},
        {"probe_interval_ms": 0},
        {"probes_before_unreachable": 0},
    ],
)
def test_timing_that_contradicts_itself_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Timing(**numbers)
