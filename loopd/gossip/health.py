"""A peer's health (§9.1, §9.4): a table of states and events, and when to try the peer again.

Probing never stops for a peer that is not suspended, so a peer that came back is found without any traffic. See
docs/protocol-notes.md, Health, where the diagram is drawn from `MOVES`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

from loopd.protocol.limits import RETRY_AFTER_MAX_MS

_DAY_MS: Final = 24 * 3600 * 1000
# Doubling beyond this adds nothing below any ceiling.
_DOUBLINGS_MAX: Final = 20


class State(StrEnum):
    """How a peer is, as far as this node can tell."""

    ACTIVE = "active"
    SUSPECT = "suspect"  # something failed; probes ask whether it is there before anybody says it is not
    UNREACHABLE = "unreachable"  # several probes in a row failed
    MAINTENANCE = "maintenance"  # it says that it is being worked on
    SUSPENDED = "suspended"  # set aside by the operator; not tried at all


class Signal(StrEnum):
    """What can happen to a peer."""

    PROBE_SUCCEEDED = "probe_succeeded"
    PROBE_FAILED = "probe_failed"
    SUSPECTED = "suspected"  # neither this node's probes nor its helpers' were answered, or only others' are
    FAILURE_CONFIRMED = "failure_confirmed"  # nothing contradicted the suspicion in time
    REQUEST_SUCCEEDED = "request_succeeded"
    REQUEST_FAILED = "request_failed"  # no answer, or a 5xx
    DEFERRED = "deferred"  # a 429 or 503 with Retry-After: it is there, and asks for patience
    MAINTENANCE_STARTED = "maintenance_started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"


class Guard(StrEnum):
    """What must hold, beside the signal, for a move; without it the peer stays in its state."""

    ALWAYS = "always"
    PROBES_EXHAUSTED = "enough probes failed in a row"
    MAINTENANCE_OVERDUE = "the maintenance has lasted too long"


STATES: Final = tuple(State)
NOT_SUSPENDED: Final = (State.ACTIVE, State.SUSPECT, State.UNREACHABLE, State.MAINTENANCE)

# Every change of state there is. What is not listed leaves the state as it is.
MOVES: Final[Mapping[tuple[State, Signal], tuple[State, Guard]]] = {
    (State.ACTIVE, Signal.PROBE_FAILED): (State.SUSPECT, Guard.ALWAYS),
    (State.ACTIVE, Signal.SUSPECTED): (State.SUSPECT, Guard.ALWAYS),
    (State.ACTIVE, Signal.FAILURE_CONFIRMED): (State.UNREACHABLE, Guard.ALWAYS),
    (State.SUSPECT, Signal.FAILURE_CONFIRMED): (State.UNREACHABLE, Guard.ALWAYS),
    (State.MAINTENANCE, Signal.FAILURE_CONFIRMED): (State.UNREACHABLE, Guard.MAINTENANCE_OVERDUE),
    (State.ACTIVE, Signal.REQUEST_FAILED): (State.SUSPECT, Guard.ALWAYS),
    (State.SUSPECT, Signal.PROBE_FAILED): (State.UNREACHABLE, Guard.PROBES_EXHAUSTED),
    (State.MAINTENANCE, Signal.PROBE_FAILED): (State.UNREACHABLE, Guard.MAINTENANCE_OVERDUE),
    **{
        (state, signal): (State.ACTIVE, Guard.ALWAYS)
        for state in (State.SUSPECT, State.UNREACHABLE, State.MAINTENANCE)
        for signal in (Signal.PROBE_SUCCEEDED, Signal.REQUEST_SUCCEEDED)
    },
    **{(state, Signal.DEFERRED): (State.ACTIVE, Guard.ALWAYS) for state in (State.SUSPECT, State.UNREACHABLE)},
    **{
        (state, Signal.MAINTENANCE_STARTED): (State.MAINTENANCE, Guard.ALWAYS)
        for state in (State.ACTIVE, State.SUSPECT, State.UNREACHABLE)
    },
    **{(state, Signal.SUSPENDED): (State.SUSPENDED, Guard.ALWAYS) for state in NOT_SUSPENDED},
    (State.SUSPENDED, Signal.RESUMED): (State.SUSPECT, Guard.ALWAYS),
}

# What NodeRegistry shows; a peer that is only suspected is still believed to be there.
REGISTRY_STATUS: Final[Mapping[State, str]] = {
    State.ACTIVE: "active",
    State.SUSPECT: "active",
    State.UNREACHABLE: "inactive",
    State.MAINTENANCE: "maintenance",
    State.SUSPENDED: "suspended",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """The numbers of the machine. ValueError where they contradict each other.

    A healthy peer is probed every `probe_interval_ms`, less up to a fifth of jitter. An absent one is tried again
    after `first_retry_ms`, doubled with each failure up to a ceiling: `first_day_ceiling_ms` in the first day of its
    absence, then rising evenly to `final_ceiling_ms` at the end of `ceiling_growth_days`. Half of each delay is jitter.
    """

    probe_interval_ms: int = 10_000
    first_retry_ms: int = 1_000
    first_day_ceiling_ms: int = 20_000
    final_ceiling_ms: int = 15 * 60 * 1000
    ceiling_growth_days: int = 7
    probes_before_unreachable: int = 3
    maintenance_max_ms: int = 4 * 3600 * 1000

    def __post_init__(self) -> None:
        if not 0 < self.first_retry_ms <= self.first_day_ceiling_ms <= self.final_ceiling_ms:
            raise ValueError("a first retry comes before the first day's ceiling, and that before the final one")
        if self.ceiling_growth_days < 2 or self.probe_interval_ms <= 0 or self.probes_before_unreachable < 1:
            raise ValueError("a growth over less than two days, a probe interval or a count below its least")


DEFAULT_TIMING: Final = Timing()


@dataclass(frozen=True, slots=True)
class Event:
    """A signal; `retry_after_ms` comes with DEFERRED.

    `next_attempt_in_ms` comes with a signal of `membership`, which plans its probes itself; None: planned here.
    """

    signal: Signal
    retry_after_ms: int = 0
    next_attempt_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PeerHealth:
    """One peer's health, all of it, so that it survives a restart as a row. Moments are milliseconds since the epoch.

    `as_of_ms` is the last event, `since_ms` when the state began. `next_attempt_at_ms` is the next probe, None while
    suspended. Requests go to an active peer, from `send_after_ms` on. `absent_since_ms` is the first failure since
    the peer last answered.
    """

    state: State
    as_of_ms: int
    since_ms: int
    next_attempt_at_ms: int | None
    send_after_ms: int
    probe_failures: int = 0
    request_failures: int = 0
    absent_since_ms: int | None = None
    last_success_ms: int | None = None
    last_failure_ms: int | None = None

    @classmethod
    def new(cls, now_ms: int) -> "PeerHealth":
        """A peer that was just admitted: believed to be there, and probed at once."""
        return cls(State.ACTIVE, now_ms, now_ms, now_ms, now_ms)

    @property
    def registry_status(self) -> str:
        """The status that NodeRegistry shows: active, inactive, maintenance or suspended."""
        return REGISTRY_STATUS[self.state]

    def may_send(self, now_ms: int) -> bool:
        """Whether requests may go to the peer now."""
        return self.state is State.ACTIVE and (now_ms >= self.send_after_ms or now_ms < self.as_of_ms)

    def to_row(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"state": self.state.value}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "PeerHealth":
        """What `to_row` gave. ValueError where fields are missing or unknown, as another version may have left it."""
        if set(row) != {field.name for field in fields(cls)}:
            raise ValueError("not the fields of a peer's health")
        return cls(**{**row, "state": State(row["state"])})


def ceiling_ms(absent_ms: int, timing: Timing = DEFAULT_TIMING) -> int:
    """The longest wait between two attempts to reach a peer that has been absent so long."""
    beyond_first_day_ms = absent_ms - _DAY_MS
    if beyond_first_day_ms <= 0:
        return timing.first_day_ceiling_ms
    growth_ms = (timing.ceiling_growth_days - 1) * _DAY_MS
    span_ms = timing.final_ceiling_ms - timing.first_day_ceiling_ms
    return timing.first_day_ceiling_ms + span_ms * min(beyond_first_day_ms, growth_ms) // growth_ms


def backoff_ms(failures: int, absent_ms: int, jitter: float, timing: Timing = DEFAULT_TIMING) -> int:
    """The wait after so many failures in a row; `jitter` is a random number from 0 to 1."""
    full_ms = timing.first_retry_ms << min(max(failures - 1, 0), _DOUBLINGS_MAX)
    capped_ms = min(full_ms, ceiling_ms(absent_ms, timing))
    return capped_ms // 2 + int(capped_ms / 2 * _within_unit(jitter))


def transition(
    health: PeerHealth, event: Event, now_ms: int, jitter: float, timing: Timing = DEFAULT_TIMING
) -> PeerHealth:
    """The peer's health after an event. `jitter` is a random number from 0 to 1, drawn for this event."""
    after = _transition(health, event, now_ms, jitter, timing)
    if event.next_attempt_in_ms is None or after.state is State.SUSPENDED:
        return after
    planned_in_ms = min(max(event.next_attempt_in_ms, 0), timing.final_ceiling_ms)
    return replace(after, next_attempt_at_ms=now_ms + planned_in_ms)


def _transition(health: PeerHealth, event: Event, now_ms: int, jitter: float, timing: Timing) -> PeerHealth:
    before = _on_this_clock(health, now_ms)
    state = _following(before, event.signal, now_ms, timing)
    after = before if state is before.state else replace(before, state=state, since_ms=now_ms)
    if state is State.SUSPENDED:
        return replace(after, next_attempt_at_ms=None)
    next_probe_ms = now_ms + timing.probe_interval_ms - int(timing.probe_interval_ms / 5 * _within_unit(jitter))
    match event.signal:
        case Signal.PROBE_SUCCEEDED | Signal.MAINTENANCE_STARTED:
            return _answered(after, now_ms, next_probe_ms)
        case Signal.REQUEST_SUCCEEDED:
            return replace(_answered(after, now_ms, next_probe_ms), request_failures=0, send_after_ms=now_ms)
        case Signal.DEFERRED:
            ready_ms = now_ms + min(max(event.retry_after_ms, 0), RETRY_AFTER_MAX_MS)
            # A probe counts against a limit like any request: what waits to be sent comes first.
            probe_ms = ready_ms + next_probe_ms - now_ms
            return replace(_answered(after, now_ms, probe_ms), send_after_ms=ready_ms)
        case Signal.PROBE_FAILED | Signal.SUSPECTED | Signal.FAILURE_CONFIRMED:
            return _probe_failed(after, now_ms, jitter, timing)
        case Signal.REQUEST_FAILED if before.state is State.ACTIVE:
            return _request_failed(after, now_ms, jitter, timing)
        case Signal.RESUMED if before.state is State.SUSPENDED:
            return replace(PeerHealth.new(now_ms), state=state, last_success_ms=after.last_success_ms)
        case _:
            return after


def _following(health: PeerHealth, signal: Signal, now_ms: int, timing: Timing) -> State:
    following, guard = MOVES.get((health.state, signal), (health.state, Guard.ALWAYS))
    holds = {
        Guard.ALWAYS: True,
        Guard.PROBES_EXHAUSTED: health.probe_failures + 1 >= timing.probes_before_unreachable,
        Guard.MAINTENANCE_OVERDUE: now_ms - health.since_ms >= timing.maintenance_max_ms,
    }
    return following if holds[guard] else health.state


def _on_this_clock(health: PeerHealth, now_ms: int) -> PeerHealth:
    """The health with no moment that a clock set back would make it wait for."""
    if now_ms >= health.as_of_ms:
        return replace(health, as_of_ms=now_ms)
    return replace(
        health,
        as_of_ms=now_ms,
        since_ms=min(health.since_ms, now_ms),
        next_attempt_at_ms=None if health.next_attempt_at_ms is None else now_ms,
        send_after_ms=min(health.send_after_ms, now_ms),
        absent_since_ms=None if health.absent_since_ms is None else min(health.absent_since_ms, now_ms),
        last_failure_ms=None if health.last_failure_ms is None else min(health.last_failure_ms, now_ms),
    )


def _answered(health: PeerHealth, now_ms: int, next_probe_ms: int) -> PeerHealth:
    return replace(
        health, next_attempt_at_ms=next_probe_ms, probe_failures=0, absent_since_ms=None, last_success_ms=now_ms
    )


def _probe_failed(health: PeerHealth, now_ms: int, jitter: float, timing: Timing) -> PeerHealth:
    failures = health.probe_failures + 1
    absent_since_ms = now_ms if health.absent_since_ms is None else health.absent_since_ms
    wait_ms = backoff_ms(failures, now_ms - absent_since_ms, jitter, timing)
    return replace(
        health,
        next_attempt_at_ms=now_ms + wait_ms,
        probe_failures=failures,
        absent_since_ms=absent_since_ms,
        last_failure_ms=now_ms,
    )


def _request_failed(health: PeerHealth, now_ms: int, jitter: float, timing: Timing) -> PeerHealth:
    """A request failed that an active peer was sent: a probe asks at once whether it is there.

    Where probes succeed and requests fail all the same, the requests have a back-off of their own. Others that were
    on their way together with this one count no more: they failed of the same cause.
    """
    failures = health.request_failures + 1
    return replace(
        health,
        next_attempt_at_ms=now_ms,
        send_after_ms=now_ms + backoff_ms(failures, 0, jitter, timing),
        request_failures=failures,
        absent_since_ms=now_ms,
        last_failure_ms=now_ms,
    )


def _within_unit(jitter: float) -> float:
    return min(max(jitter, 0.0), 1.0)
