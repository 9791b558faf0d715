"""`python -m tests.ledger_sim`: the ledger against its model, from seeds, on all cores."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import click
import structlog

from tests.ledger_sim.runs import FIGURES, Progress, Tally, keep, play, replay_of

# How often the progress is told, to people and to a log.
_SHOWN_EVERY_S: Final = 1.0
_LOGGED_EVERY_S: Final = 30.0


@click.command()
@click.option("--operations", type=click.IntRange(1), default=1_000_000, show_default=True, help="All seeds together.")
@click.option("--shard-size", type=click.IntRange(1), default=10_000, show_default=True, help="Those of one seed.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--seed", type=click.IntRange(0), help="One seed alone, as a failing run named it.")
def main(operations: int, shard_size: int, first: int, jobs: int, seed: int | None) -> None:
    """Random operations in three cities; exit 1 where books and model part, the seed kept."""
    seeds = range(first, first - (-operations // shard_size)) if seed is None else range(seed, seed + 1)
    progress, total = Progress(len(seeds) * shard_size), Tally()
    is_terminal, shown_s = sys.stderr.isatty(), time.monotonic()
    for number, tally in zip(seeds, _played(seeds, shard_size, jobs), strict=True):
        total.add(tally)
        for _, told in tally.failed:
            keep(number, shard_size)
            click.echo(f"\nseed {number} failed; again: {replay_of(number, shard_size)}\n{told}", err=True)
        if time.monotonic() - shown_s >= (_SHOWN_EVERY_S if is_terminal else _LOGGED_EVERY_S):
            shown_s = time.monotonic()
            click.echo(
                ("\r" if is_terminal else "") + progress.line(total.operations.total()), err=True, nl=not is_terminal
            )
    if is_terminal:
        click.echo("", err=True)
    _report(total, len(seeds), first if seed is None else seed, progress.seconds)
    sys.exit(1 if total.failed else 0)


def _played(seeds: range, shard_size: int, jobs: int) -> Iterator[Tally]:
    if len(seeds) == 1:
        _be_quiet()
        yield play(seeds[0], shard_size)
        return
    with ProcessPoolExecutor(jobs, initializer=_be_quiet) as pool:
        yield from pool.map(play, seeds, [shard_size] * len(seeds))


def _be_quiet() -> None:
    """A refused message is a warning to an operator, and daily bread here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _report(total: Tally, seeds: int, first: int, seconds: float) -> None:
    for name, title in FIGURES.items():
        counted = getattr(total, name)
        click.echo(f"{counted.total():,} {title}" if name != "happened" else title)
        for what, count in counted.most_common():
            click.echo(f"{count:>12,}  {what}")
    done = total.operations.total()
    click.echo(
        f"seeds {first} to {first + seeds - 1}: {done:,} operations in {seconds:.0f} s, {done / seconds:,.0f}/s, "
        f"{len(total.failed)} failed"
    )


if __name__ == "__main__":
    main()
