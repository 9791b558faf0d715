"""What a run shows: coverage, latency and what it cost, as numbers for tables, JSON and the plot."""

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from loopd.sim.checks import delivered, hops, is_due, violations
from loopd.sim.disk import Message
from loopd.sim.scenario import Scenario
from loopd.sim.world import World

# An origin's links have learned by then who brings its messages.
LEARNED_AFTER: Final = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run. Latencies in ms from the origin's commit to the receiver's; None where there are none.

    `due` of the nodes in the ball are to have a message by the end, `covered` of them do. A copy is a body sent.
    `*_first`: of each origin's first message; `*_learned`: of those after its 20th, or of its last.
    """

    deliveries: int
    due: int
    covered: int
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    latency_max_ms: float | None
    copies_per_delivery: float | None
    copies_per_delivery_first: float | None
    copies_per_delivery_learned: float | None
    ids_per_delivery: float | None
    frames: dict[str, int]
    reasons: dict[str, int]
    violations: list[str]
    digest: str

    @property
    def coverage(self) -> float:
        """The share of the ball that was reached."""
        return self.covered / self.due if self.due else 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"coverage": self.coverage, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Played:
    """A run that was played: its figures, and the series for the plot."""

    scenario: Scenario
    figures: Figures
    # Latencies in ms in ascending order, and copies per delivery of each message in the order they were made.
    latencies_ms: list[float]
    copies: list[float]


def play(scenario: Scenario) -> Played:
    """Play a run and work out its figures."""
    world = World(scenario)
    world.run()
    return measure(world)


def measure(world: World) -> Played:
    """The figures of a run that was played."""
    messages = list(world.messages.values())
    reached = {message.message_id: delivered(world, message) for message in messages}
    latencies_ms = sorted(_latencies_ms(world))
    due = covered = 0
    for message in messages:
        if is_due(world, message):
            ball = hops(world, message)
            due += len(ball)
            covered += len([node for node in reached[message.message_id] if node in ball])
    copies = {
        message.message_id: world.facts.bodies[message.message_id] / len(reached[message.message_id])
        for message in messages
        if reached[message.message_id]
    }
    deliveries = sum(map(len, reached.values()))
    figures = Figures(
        deliveries,
        due,
        covered,
        percentile(latencies_ms, 0.5),
        percentile(latencies_ms, 0.9),
        percentile(latencies_ms, 0.99),
        percentile(latencies_ms, 1.0),
        _per(sum(world.facts.bodies[message.message_id] for message in messages), deliveries),
        _mean(world, messages, reached, slice(0, 1)),
        _mean(world, messages, reached, slice(LEARNED_AFTER, None)) or _mean(world, messages, reached, slice(-1, None)),
        _per(sum(world.facts.haves[message.message_id] for message in messages), deliveries),
        dict(sorted(world.facts.counted.items())),
        dict(sorted(world.facts.reasons.items())),
        violations(world),
        world.digest,
    )
    return Played(world.scenario, figures, latencies_ms, list(copies.values()))


def percentile(ascending: list[float], share: float) -> float | None:
    """The value at or below which that share of them lies; None of none."""
    if not ascending:
        return None
    place = max(0, -(-round(share * 1_000_000) * len(ascending) // 1_000_000) - 1)
    return round(ascending[place], 3)


def _latencies_ms(world: World) -> list[float]:
    made = world.facts.made
    return [
        (at_us - made[message_id]) / 1_000
        for tables in world.tables
        for message_id, at_us in tables.delivered
        if message_id in made
    ]


def _mean(world: World, messages: list[Message], reached: dict[bytes, list[int]], part: slice) -> float | None:
    """Copies per delivery over a part of each origin's messages."""
    chosen = [
        message
        for origin in world.origins
        for message in [message for message in messages if message.origin == origin][part]
        if reached[message.message_id]
    ]
    ratios = [world.facts.bodies[each.message_id] / len(reached[each.message_id]) for each in chosen]
    return round(fmean(ratios), 4) if ratios else None


def _per(count: int, deliveries: int) -> float | None:
    return round(count / deliveries, 4) if deliveries else None
