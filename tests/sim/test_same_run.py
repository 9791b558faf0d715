"""One seed is one run, byte for byte, in every process."""

import os
import subprocess
import sys

import pytest

from loopd.sim.scenario import Kind, draw
from loopd.sim.seeds import play_through

SHOW = "import sys; from loopd.sim.scenario import *; from loopd.sim.seeds import *; " + (
    "print(play_through(draw(Kind(sys.argv[1]), int(sys.argv[2]))).digest)"
)


def digest_elsewhere(kind: Kind, seed: int, hash_seed: str) -> str:
    """The digest of the run's trace in another process, whose sets and dictionaries hash differently."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    arguments = [sys.executable, "-c", SHOW, kind.value, str(seed)]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("kind", [Kind.FAULTS, Kind.MALICE, Kind.KILLS])
def test_another_process_plays_the_same_run(kind: Kind) -> None:
    seed = 3
    here = play_through(draw(kind, seed)).digest
    assert {digest_elsewhere(kind, seed, "1"), digest_elsewhere(kind, seed, "2")} == {here}


def test_another_seed_is_another_run() -> None:
    assert play_through(draw(Kind.FAULTS, 3)).digest != play_through(draw(Kind.FAULTS, 4)).digest
