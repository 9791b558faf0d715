"""The numbers of failure detection: presets, the time-out that a peer's round trips give, and doubt in oneself.

Pure values; `membership` is the machine that uses them. Sources: SWIM (Das, Gupta, Motivala 2002) for the probes,
Lifeguard (Dadgar, Phillips, Currey 2018) for the doubt and the shrinking suspicion, RFC 6298 for the time-out.
"""

from dataclasses import dataclass
from math import log
from typing import Final

# RFC 6298, 2.3: the weights of a new sample in the mean and in its deviation, and the deviations that are waited for.
_MEAN_WEIGHT: Final = 1 / 8
_DEVIATION_WEIGHT: Final = 1 / 4
_DEVIATIONS_WAITED: Final = 4
# A probe interval varies by this share both ways, so that nodes started together do not keep step.
INTERVAL_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Waits:
    """The bounds of an adaptive time-out, milliseconds: before the first sample, never below, never above.

    ValueError where they are out of order.
    """

    first_ms: int
    least_ms: int
    most_ms: int

    def __post_init__(self) -> None:
        if not 0 < self.least_ms <= self.first_ms <= self.most_ms:
            raise ValueError("the first time-out lies between the least and the most")


@dataclass(frozen=True, slots=True)
class Preset:
    """The knobs of failure detection, milliseconds. ValueError where they contradict each other.

    With W the time-out for the peer and D = 1 + `doubt_step` × doubt, a peer that fails is confirmed after at most
        1.1 × interval + D × W + (D × W_helper + nack_after) + D × suspicion(c)
    which is `detection_bound_ms`; suspicion(c) falls with the number c of others who suspect it too:
        suspicion(c) = most − (most − least) × log(1 + c) / log(1 + confirmations), not below least.
    """

    # Load: 2 frames for each peer and interval. Longer: less of it, and every absence is noticed that much later.
    interval_ms: int
    # W = SRTT + 4 × RTTVAR within these bounds, over a link. A lower least: sooner suspicion, more needless helpers.
    link_waits: Waits
    # The same for NodeInfo over HTTP: a new connection takes four round trips before the answer's first byte.
    http_waits: Waits
    # k others are asked. If a frame is lost with probability p, a round misses a peer that is there with probability
    # q = (1 − (1 − p)²)² × (1 − (1 − p)⁴)^k: 0.0014 at p = 0.1 and k = 3. Each more costs 4 frames a missed answer.
    helpers: int
    # How long a helper tries before it says that it got no answer either. Shorter than W there: helpers err.
    nack_after_ms: int
    # While a peer is suspected it is probed this often, also through others: n = suspicion / pace rounds, so a peer
    # that is there is confirmed by loss alone with probability q^n. Shorter: more rounds, more load when many fail.
    suspected_pace_ms: int
    # How long a suspicion lasts before it counts: with no confirmation, and at the least. Both must exceed the longest
    # stall that a live peer may have, less what was waited before: a peer that stalls answers when it wakes.
    suspicion_most_ms: int
    suspicion_least_ms: int
    # So many others who suspect it too bring the suspicion to its least. More: rumours count less.
    confirmations: int
    # Rounds in a row that only others' probes succeeded, until nothing more is sent to the peer.
    detours: int
    # A timer that comes later than this is a stall of this node, not of its peers. Shorter: more doubt under load.
    stall_tolerance_ms: int
    # Doubt in oneself goes from 0 to this, and lengthens time-outs and suspicions by this share a step.
    doubt_most: int
    doubt_step: float

    def __post_init__(self) -> None:
        if not 0 < self.suspicion_least_ms <= self.suspicion_most_ms:
            raise ValueError("a suspicion's least comes before its most")
        counts = (self.interval_ms, self.nack_after_ms, self.suspected_pace_ms, self.stall_tolerance_ms)
        if min(*counts, self.confirmations, self.detours) <= 0 or min(self.helpers, self.doubt_most) < 0:
            raise ValueError("a time or a count below its least")
        if self.doubt_step < 0:
            raise ValueError("doubt does not shorten anything")

    def suspicion_ms(self, confirmations: int, doubt: int) -> int:
        """How long a suspicion lasts that so many others share (Lifeguard, LHA Suspicion)."""
        span_ms = self.suspicion_most_ms - self.suspicion_least_ms
        shared = min(1.0, log(1 + confirmations) / log(1 + self.confirmations))
        return int((self.suspicion_most_ms - span_ms * shared) * self.doubt_factor(doubt))

    def doubt_factor(self, doubt: int) -> float:
        """What time-outs and suspicions are multiplied by."""
        return 1 + self.doubt_step * doubt

    def detection_bound_ms(self, timeout_ms: int, doubt: int = 0) -> int:
        """How long until a peer that failed is confirmed, at most, with that time-out for it and for the helpers."""
        waited_ms = 2 * int(timeout_ms * self.doubt_factor(doubt)) + self.nack_after_ms
        return int(self.interval_ms * (1 + INTERVAL_JITTER)) + waited_ms + self.suspicion_ms(0, doubt)


# One machine: every stall is a scheduler's, so little patience is needed.
LOCAL: Final = Preset(
    interval_ms=1_000,
    link_waits=Waits(200, 50, 500),
    http_waits=Waits(500, 250, 1_000),
    helpers=3,
    nack_after_ms=250,
    suspected_pace_ms=400,
    suspicion_most_ms=4_000,
    suspicion_least_ms=3_000,
    confirmations=2,
    detours=3,
    stall_tolerance_ms=100,
    doubt_most=8,
    doubt_step=0.25,
)
# One building or campus: short ways; machines pause for seconds where they are overcommitted.
LAN: Final = Preset(
    interval_ms=2_000,
    link_waits=Waits(500, 100, 1_000),
    http_waits=Waits(1_000, 500, 2_000),
    helpers=3,
    nack_after_ms=500,
    suspected_pace_ms=750,
    suspicion_most_ms=8_000,
    suspicion_least_ms=6_000,
    confirmations=2,
    detours=3,
    stall_tolerance_ms=150,
    doubt_most=8,
    doubt_step=0.25,
)
# Between cities: confirmed within 30 s, and a stall of 10 s is no failure.
WAN: Final = Preset(
    interval_ms=5_000,
    link_waits=Waits(1_000, 300, 2_000),
    http_waits=Waits(3_000, 2_000, 5_000),
    helpers=3,
    nack_after_ms=1_000,
    suspected_pace_ms=1_500,
    suspicion_most_ms=15_000,
    suspicion_least_ms=12_000,
    confirmations=2,
    detours=3,
    stall_tolerance_ms=250,
    doubt_most=8,
    doubt_step=0.25,
)
PRESETS: Final = {"local": LOCAL, "lan": LAN, "wan": WAN}


class RoundTrip:
    """The time-out for one way to one peer, from its measured round trips (RFC 6298, 2).

    Answers are told apart by their numbers, so a late one is a sample like any other, and there is nothing to double
    after a time-out: a way that has become slow shows itself. A sample counts as at most the longest time-out, so one
    stall is soon forgotten.
    """

    __slots__ = ("_deviation_ms", "_waits", "smoothed_ms", "timeout_ms")

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._deviation_ms = 0.0
        self.smoothed_ms: float | None = None
        self.timeout_ms = waits.first_ms

    def measured(self, round_trip_ms: int) -> None:
        """Take a sample in."""
        sample_ms = float(min(max(round_trip_ms, 0), self._waits.most_ms))
        if self.smoothed_ms is None:
            self.smoothed_ms = sample_ms
            self._deviation_ms = sample_ms / 2
        else:
            self._deviation_ms += _DEVIATION_WEIGHT * (abs(self.smoothed_ms - sample_ms) - self._deviation_ms)
            self.smoothed_ms += _MEAN_WEIGHT * (sample_ms - self.smoothed_ms)
        wanted_ms = int(self.smoothed_ms + _DEVIATIONS_WAITED * self._deviation_ms)
        self.timeout_ms = min(max(wanted_ms, self._waits.least_ms), self._waits.most_ms)


class Doubt:
    """How far this node trusts its own clock and ears: 0 fully (Lifeguard's local health multiplier, less one).

    It rises with own stalls, with helpers that say nothing, and with having to deny one's own failure; each answered
    probe lowers it.
    """

    __slots__ = ("_most", "level")

    def __init__(self, most: int) -> None:
        self._most = most
        self.level = 0

    def rise(self, steps: int = 1) -> None:
        """Something speaks against this node."""
        self.level = min(self.level + steps, self._most)

    def fall(self) -> None:
        """A probe was answered in time."""
        self.level = max(self.level - 1, 0)
