"""Drawn runs of every kind, and each one that ever failed."""

from pathlib import Path

import pytest

from loopd.sim.scenario import Kind
from loopd.sim.seeds import judge

KEPT = [line.split() for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()]


@pytest.mark.parametrize(("kind", "seed"), [(Kind(kind), int(seed)) for kind, seed in KEPT])
def test_runs_that_failed_once(kind: Kind, seed: int) -> None:
    assert judge(kind, seed).findings == []


@pytest.mark.parametrize("kind", list(Kind))
def test_some_runs_of_each_kind(kind: Kind) -> None:
    judged = [judge(kind, seed) for seed in range(1_000_000, 1_000_012)]
    assert [(each.seed, each.findings) for each in judged if each.findings] == []
    assert sum(each.counted["deliveries"] for each in judged) > 0
