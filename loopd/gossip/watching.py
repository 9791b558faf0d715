"""What a failure detector holds of the peers that it watches, and what it wants done; see `membership`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from loopd.gossip.frames import Frame
from loopd.gossip.health import Event, Timing
from loopd.gossip.probing import INTERVAL_JITTER, Doubt, Preset, RoundTrip

# A peer that calls, or of which something is said, is probed at most this often on that account.
HASTENED_SPACING_MS: Final = 1_000


class Belief(StrEnum):
    """What this node thinks of a peer."""

    REACHABLE = "reachable"
    SUSPECTED = "suspected"
    FAILED = "failed"


class Why(StrEnum):
    """What a belief rests on: one code each."""

    ANSWERED = "answered"
    NOBODY_REACHES_IT = "nobody_reaches_it"
    ONLY_OTHERS_REACH_IT = "only_others_reach_it"
    SUSPICION_RAN_OUT = "suspicion_ran_out"
    STILL_SILENT = "still_silent"


@dataclass(frozen=True, slots=True)
class Send:
    """Send the frame over the link with this peer."""

    peer: str
    frame: Frame


@dataclass(frozen=True, slots=True)
class AskNodeInfo:
    """Ask the peer for its NodeInfo over HTTP, and say by `answered` or `unanswered` what came of it."""

    peer: str
    number: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Observed:
    """Feed `event` to the peer's PeerHealth. `link_round_trip_ms` where an answer over a link measured one."""

    peer: str
    event: Event
    why: Why
    link_round_trip_ms: int | None = None


Effect = Send | AskNodeInfo | Observed


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What can be shown of a peer. Times are of the clock given in `now_ms`; `round_trip_ms` None before the first."""

    belief: Belief
    linked: bool
    round_trip_ms: int | None
    timeout_ms: int
    next_probe_ms: int
    suspected_until_ms: int | None
    suspected_by: frozenset[str]


@dataclass(slots=True)
class Round:
    """One probe with all that belongs to it. `helpers` is None until they were asked."""

    ends_ms: int
    last_number: int
    helpers: frozenset[str] | None = None
    silent_helpers: set[str] = field(default_factory=set)
    seen_by_others: bool = False


@dataclass(slots=True)
class Suspicion:
    """Since when a peer is suspected, as of which of its incarnations, and who suspects it too."""

    since_ms: int
    incarnation: int
    shared_by: set[str] = field(default_factory=set)


class Watched:
    """A peer: how it is reached, what is believed of it, and what is under way."""

    def __init__(self, peer: str, preset: Preset, now_ms: int) -> None:
        self.peer = peer
        self.linked = False
        self.link_trips = RoundTrip(preset.link_waits)
        self.http_trips = RoundTrip(preset.http_waits)
        self.belief = Belief.REACHABLE
        self.incarnation = 0
        self.next_probe_ms = now_ms
        self.hastened_ms: int | None = None
        # When it was last told what others think of it.
        self.warned_ms = now_ms - HASTENED_SPACING_MS
        self.round: Round | None = None
        self.suspicion: Suspicion | None = None
        self.detours = 0
        self.failures = 0
        self.absent_since_ms = now_ms
        # Who says that it suspects this peer: when, and as of which incarnation.
        self.claims: dict[str, tuple[int, int]] = {}
        # Whom this peer knows.
        self.acquaintances: frozenset[str] = frozenset()

    @property
    def trips(self) -> RoundTrip:
        """The round trips of the way that is used now."""
        return self.link_trips if self.linked else self.http_trips


class Circle:
    """One node and the peers that it watches: what its rounds, its questions and what it hears have in common.

    `effects` is what is to be done, in order; whoever carries it out takes it away.
    """

    def __init__(
        self, node_id: str, preset: Preset, incarnation: int, draw: Callable[[], float], timing: Timing
    ) -> None:
        self.node_id = node_id
        self.preset = preset
        self.incarnation = incarnation
        self.timing = timing
        self.doubt = Doubt(preset.doubt_most)
        self.draw = draw
        self.peers: dict[str, Watched] = {}
        self.effects: list[Effect] = []
        # How often this node itself slept.
        self.stalls = 0

    def who_knows(self, watched: Watched) -> list[str]:
        """The reachable peers that can be asked about this one, or told."""
        return [
            other.peer
            for other in self.peers.values()
            if other.linked and other.belief is Belief.REACHABLE and watched.peer in other.acquaintances
        ]

    def drawn(self, names: list[str], count: int) -> list[str]:
        """So many of the names, by lot."""
        return names if len(names) <= count else sorted(names, key=lambda _: self.draw())[:count]

    def timeout_ms(self, watched: Watched) -> int:
        """How long an answer of the peer is waited for."""
        return int(watched.trips.timeout_ms * self.preset.doubt_factor(self.doubt.level))

    def interval_ms(self) -> int:
        """How long until a peer that answered is asked again."""
        return int(self.preset.interval_ms * (1 + INTERVAL_JITTER * (2 * self.draw() - 1)))

    def suspicion_ends_ms(self, suspicion: Suspicion) -> int:
        """When a suspicion counts, if nothing contradicts it until then."""
        return suspicion.since_ms + self.preset.suspicion_ms(len(suspicion.shared_by), self.doubt.level)
