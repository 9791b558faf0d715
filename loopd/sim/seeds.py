"""One drawn run, played and judged: what a failing seed is kept as."""

import traceback
from collections import Counter
from dataclasses import dataclass

from loopd.sim.checks import violations
from loopd.sim.scenario import Kind, Scenario, draw
from loopd.sim.world import World


@dataclass(frozen=True, slots=True)
class Judged:
    """A run's findings, none where all is well, and how much happened in it."""

    kind: Kind
    seed: int
    findings: list[str]
    counted: Counter[str]


def judge(kind: Kind, seed: int) -> Judged:
    """Play the run of a kind and seed. An error in it is a finding like others."""
    scenario = draw(kind, seed)
    counted = Counter({"runs": 1, "nodes": scenario.nodes})
    world = World(scenario)
    try:
        world.run()
        findings = violations(world)
    except Exception as error:  # whatever goes wrong in a run is what the run is for
        place = traceback.extract_tb(error.__traceback__)[-1]
        findings = [f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"]
    counted["deliveries"] = sum(len(tables.delivered) for tables in world.tables)
    counted["kills"] = world.facts.counted["crashes"]
    return Judged(kind, seed, findings, counted)


def play_through(scenario: Scenario) -> World:
    """A run that was played."""
    world = World(scenario)
    world.run()
    return world
