"""`loopd simulate` and the measurements."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from loopd.cli.simulate import simulate
from loopd.sim import targets

SMALL = ["--nodes", "20", "--seed", "7", "--messages", "3"]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(simulate, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_json_tells_both_runs_and_their_figures() -> None:
    shown = json.loads(run(*SMALL, "--json"))
    assert set(shown) == {"engine", "plain_flooding"}
    engine, plain = shown["engine"], shown["plain_flooding"]
    assert engine["coverage"] == plain["coverage"] == 1.0
    assert engine["deliveries"] == plain["deliveries"] > 0
    assert engine["copies_per_delivery_learned"] < plain["copies_per_delivery_learned"]
    assert engine["latency_p50_ms"] <= engine["latency_p99_ms"] <= engine["latency_max_ms"]


def test_the_same_seed_says_the_same() -> None:
    faults = ("--loss", "0.1", "--partition", "2:10", "--crashes", "3", "--json")
    assert run(*SMALL, *faults) == run(*SMALL, *faults)


def test_the_table_stands_beside_plain_flooding_unless_that_is_not_wanted() -> None:
    assert run(*SMALL).splitlines()[0] == "figure\tengine\tplain flooding"
    assert run(*SMALL, "--no-plain-flooding").splitlines()[0] == "figure\tengine"


def test_the_plot_is_a_picture_with_a_curve_for_each_run(tmp_path: Path) -> None:
    file = tmp_path / "run.svg"
    run(*SMALL, "--plot", str(file))
    lines = re.findall(r'<polyline points="([^"]+)"', file.read_text())
    assert len(lines) == 4
    assert all(len(line.split()) >= 3 for line in lines)


@pytest.mark.parametrize("arguments", [["--partition", "10"], ["--partition", "9:8"], ["--plot", "run.png"]])
def test_what_cannot_be_played_is_misuse(arguments: list[str]) -> None:
    assert CliRunner().invoke(simulate, arguments).exit_code == 2


def test_no_forged_ttl_is_accepted() -> None:
    figures = targets.forge(5_000, seed=2)
    assert (figures["attempts"], figures["accepted"]) == (5_000, 0)


def test_a_node_that_returns_is_not_stampeded() -> None:
    figures = targets.returning(peers=20, messages=10)
    assert figures["findings"] == []
    assert figures["most begun within a second"] == 5
    assert figures["messages back"] == 10
