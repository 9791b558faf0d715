"""`python -m loopd.sim`: many seeds over all cores, and the measurements that docs/gossip.md names."""

import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import click

from loopd.sim import targets
from loopd.sim.scenario import Kind
from loopd.sim.seeds import Judged, judge

# How often the progress is told, to people and to a log.
_SHOWN_EVERY_S: Final = 5.0
_LOGGED_EVERY_S: Final = 60.0
_KINDS: Final = [kind.value for kind in Kind]


@click.group()
def commands() -> None:
    """Play drawn federations, and measure the engine on them."""


@commands.command()
@click.option("--kind", "kinds", type=click.Choice(_KINDS), multiple=True, help="Which runs; without it: all kinds.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--count", default=100, show_default=True, help="How many seeds of each kind.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes at once.")
@click.option("--keep", type=click.Path(path_type=Path), help="A file to which failing seeds are added.")
def seeds(kinds: tuple[str, ...], first: int, count: int, jobs: int, keep: Path | None) -> None:
    """Play and judge many seeds; exit 1 where one fails."""
    failed: list[Judged] = []
    began_s = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for kind in map(Kind, kinds or _KINDS):
            totals: Counter[str] = Counter()
            shown_s = time.monotonic()
            for judged in pool.map(partial(judge, kind), range(first, first + count), chunksize=4):
                totals.update(judged.counted)
                if judged.findings:
                    failed.append(judged)
                    click.echo(
                        f"{kind} {judged.seed}: {judged.findings[0]} ({len(judged.findings)} findings)", err=True
                    )
                if time.monotonic() - shown_s >= (_SHOWN_EVERY_S if sys.stderr.isatty() else _LOGGED_EVERY_S):
                    shown_s = time.monotonic()
                    click.echo(f"{kind}: {totals['runs']:,} of {count:,} runs", err=True)
            facts = ", ".join(f"{totals[name]:,} {name}" for name in sorted(totals) if name != "runs")
            click.echo(f"{kind}: {totals['runs']:,} runs, {facts}")
    click.echo(f"{len(failed)} failed, in {time.monotonic() - began_s:.0f} s")
    if keep is not None and failed:
        _keep(keep, failed)
    sys.exit(1 if failed else 0)


def _keep(file: Path, failed: list[Judged]) -> None:
    kept = file.read_text() if file.exists() else ""
    lines = [f"{judged.kind} {judged.seed}\n" for judged in failed]
    file.write_text(kept + "".join(line for line in lines if line not in kept))


@commands.command()
@click.option("--attempts", default=1_000_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def forge(attempts: int, seed: int) -> None:
    """Claim TTLs that the sender's value does not prove, in every way a relay could."""
    _print(targets.forge(attempts, seed))


@commands.command()
@click.option("--runs", default=10, show_default=True, help="For each size.")
@click.option("--nodes", "sizes", multiple=True, type=int, default=(50, 100, 200, 300), show_default=True)
def thrift(runs: int, sizes: tuple[int, ...]) -> None:
    """Copies for each delivery and the last delivery, beside plain flooding in the same runs."""
    _print(targets.thrift(runs, sizes))


@commands.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--nodes", default=100, show_default=True)
def healing(runs: int, nodes: int) -> None:
    """10 % loss and a partition of an hour: what arrives within 60 s of its end."""
    _print(targets.healing(runs, nodes))


@commands.command()
@click.option("--peers", default=100, show_default=True)
@click.option("--messages", default=200, show_default=True, help="What was missed.")
def returning(peers: int, messages: int) -> None:
    """One node comes back and all its peers meet it: how fast repair begins and ends."""
    _print(targets.returning(peers, messages))


def _print(figures: dict[str, object]) -> None:
    for name, value in figures.items():
        click.echo(f"{name}: {value}")


if __name__ == "__main__":
    commands()
