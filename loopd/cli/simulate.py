"""`loopd simulate`: the engine on a drawn federation with faults, beside plain flooding."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from loopd.cli.failure import Failure
from loopd.cli.options import json_option
from loopd.cli.output import print_json, print_table
from loopd.sim.figures import Played, play
from loopd.sim.places import SHAPES
from loopd.sim.plot import svg
from loopd.sim.scenario import Cut, Scenario

_NODES_MAX: Final = 5_000
_MESSAGES_MAX: Final = 1_000
_ENGINE, _PLAIN = "engine", "plain flooding"
_COLOURS: Final = {_ENGINE: "#0a6", _PLAIN: "#b50"}


class CutParameter(click.ParamType[Cut]):
    """Two moments in seconds, START:END."""

    name = "start:end"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Cut:
        if isinstance(value, Cut):
            return value
        try:
            start_s, end_s = map(float, str(value).split(":"))
        except ValueError:
            self.fail(f"{value!r} is not START:END in seconds", param, ctx)
        if not 0 <= start_s < end_s <= 1e6:
            self.fail(f"{value!r} does not end after it starts", param, ctx)
        return Cut(start_s, end_s)


@click.command()
@click.option("--nodes", type=click.IntRange(2, _NODES_MAX), default=100, show_default=True, help="How many nodes.")
@click.option("--seed", type=int, default=1, show_default=True, help="Draws everything; the same seed, the same run.")
@click.option(
    "--messages", type=click.IntRange(1, _MESSAGES_MAX), default=25, show_default=True, help="For each origin."
)
@click.option("--origins", type=click.IntRange(1, 100), default=1, show_default=True, help="Nodes that announce.")
@click.option("--shape", type=click.Choice(SHAPES), default="mix", show_default=True, help="Who is whose peer.")
@click.option("--radius", "radius_km", type=click.FloatRange(min=0, min_open=True), help="Kilometres; else unbounded.")
@click.option("--loss", type=click.FloatRange(0, 0.5), default=0.0, show_default=True, help="Share of packets lost.")
@click.option("--partition", "cuts", type=CutParameter(), multiple=True, help="Seconds START:END; may be repeated.")
@click.option("--crashes", type=click.IntRange(0, 1_000), default=0, show_default=True, help="Nodes killed, and back.")
@click.option("--by-request", type=click.FloatRange(0, 1), default=0.0, help="Share of pairs that have no link.")
@click.option(
    "--plain-flooding/--no-plain-flooding", default=True, help="Play the same with plain flooding beside it (default)."
)
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Draw it into FILE.svg.")
@json_option
def simulate(
    nodes: int,
    seed: int,
    messages: int,
    origins: int,
    shape: str,
    radius_km: float | None,
    loss: float,
    cuts: tuple[Cut, ...],
    crashes: int,
    by_request: float,
    plain_flooding: bool,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    """Play the gossip engine on a drawn federation, and judge it.

    The engine is the daemon's own; time, network and disks are simulated. The run is judged by checkers that share
    nothing with the engine: who must have each message, once, within its scope. Exit code 1 where they find fault.
    """
    if plot_file is not None and plot_file.suffix != ".svg":
        raise click.UsageError("--plot draws SVG: name a file that ends in .svg")
    scenario = Scenario(
        seed,
        nodes=nodes,
        shape=shape,
        messages=messages,
        origins=min(origins, nodes),
        radius_km=(radius_km,),
        loss=loss,
        cuts=cuts,
        crashes=crashes,
        by_request=by_request,
    )
    if crashes:
        scenario = replace(scenario, faults_end_s=1.0 + messages * scenario.gap_s)
    runs = {_ENGINE: play(scenario)}
    if plain_flooding:
        runs[_PLAIN] = play(scenario.plain())
    if plot_file is not None:
        plot_file.write_text(svg([(name, _COLOURS[name], played) for name, played in runs.items()]))
    if as_json:
        print_json({name.replace(" ", "_"): played.figures.as_dict() for name, played in runs.items()})
    else:
        _show(runs)
    found = runs[_ENGINE].figures.violations
    if found:
        raise Failure("\n".join(found[:20]))


def _show(runs: dict[str, Played]) -> None:
    """What was measured, a line each, the runs side by side."""
    lines = [
        ("deliveries", "deliveries", "{}"),
        ("of the ball", "coverage", "{:.2%}"),
        ("median latency, ms", "latency_p50_ms", "{:.1f}"),
        ("90 % within, ms", "latency_p90_ms", "{:.1f}"),
        ("99 % within, ms", "latency_p99_ms", "{:.1f}"),
        ("last delivery, ms", "latency_max_ms", "{:.1f}"),
        ("copies for each delivery, first message", "copies_per_delivery_first", "{:.2f}"),
        ("copies for each delivery, after 20", "copies_per_delivery_learned", "{:.2f}"),
        ("ids for each delivery", "ids_per_delivery", "{:.2f}"),
    ]
    rows = []
    for label, name, form in lines:
        values = [getattr(played.figures, name) for played in runs.values()]
        rows.append([label, *("-" if value is None else form.format(value) for value in values)])
    print_table(["figure", *runs], rows, "nothing was measured")
