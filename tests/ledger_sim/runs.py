"""One seed played through, and what came of it."""

import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.ledger_sim.world import World

# Each seed that ever failed, with its operations: "seed operations" a line.
SEEDS: Final = Path(__file__).parent / "seeds.txt"
# What is counted of a run, by the titles of its report.
FIGURES: Final = {
    "operations": "operations",
    "refused": "of them refused",
    "sales": "sales between cities, as their sellers were told",
    "postings": "postings",
    "happened": "what else happened",
}


@dataclass
class Tally:
    """What happened in some runs. `failed` are seeds with what went wrong."""

    operations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    sales: Counter[str] = field(default_factory=Counter)
    postings: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Put another one's figures to these."""
        for name in FIGURES:
            getattr(self, name).update(getattr(other, name))
        self.failed += other.failed


def play(seed: int, operations: int) -> Tally:
    """The run of a seed. An error in it is a failure like others, told with what happened last."""
    world, tally = World(seed), Tally()
    try:
        world.run(operations)
    except Exception as error:  # whatever goes wrong in a run is what the run is for
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = [*world.trace, f"{type(error).__name__} in {place.name}, line {place.lineno}: {error}"]
        tally.failed.append((seed, "\n".join(told)))
    for name in FIGURES:
        setattr(tally, name, getattr(world, name))
    world.close()
    return tally


def replay_of(seed: int, operations: int) -> str:
    """How to play a seed again."""
    return f"python -m tests.ledger_sim --seed {seed} --shard-size {operations}"


def kept_seeds() -> list[tuple[int, int]]:
    """The seeds that ever failed, and how many operations they ran."""
    lines = SEEDS.read_text().splitlines()
    return [(int(seed), int(operations)) for seed, operations in map(str.split, lines)]


def keep(seed: int, operations: int) -> None:
    """Keep a seed that failed."""
    if (seed, operations) not in kept_seeds():
        with SEEDS.open("a") as file:
            file.write(f"{seed} {operations}\n")


class Progress:
    """How far some operations are, and how fast; `line` is for people."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began_s

    def line(self, done: int) -> str:
        """So many are done, at which rate, and how long it takes from here."""
        rate = done / max(self.seconds, 0.001)
        left_s = max(self._total - done, 0) / max(rate, 0.001)
        return f"{done:,} of {self._total:,} operations, {rate:,.0f}/s, {left_s / 60:.1f} min left"
