"""`loopd plan`: many batches and many demands at once."""

from pathlib import Path
from typing import Any

import click

from loopd.cli.admin_client import call
from loopd.cli.options import directory_argument, json_option, read_file
from loopd.cli.output import cell, print_json, print_table
from loopd.directory import NodeDirectory

_COLUMNS = ("batch", "at", "demand", "of", "quantity", "loop cost", "km")


@click.command()
@directory_argument
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@json_option
def plan(directory: NodeDirectory, file: Path | None, as_json: bool) -> None:
    """Assign batches to demands: as many as can be served, for the least LoopCost. Nothing is changed.

    Without FILE all that this node offers, and all that is looked for, here and at peers. FILE, or standard input with
    -, names others, as POST /api/v1/route/plan describes. The daemon must be running, with loopd[plan] installed.
    """
    task = b"{}" if file is None else read_file(file)
    answer = call(directory, "POST", "/api/v1/route/plan", document=task)
    if as_json:
        print_json(answer)
        return
    print_table(_COLUMNS, [_row(pair) for pair in answer["assignment"]], "Nothing can be served.")
    in_turn, saves = answer["in_turn"], answer["saves"]
    lines = [
        f"served: {answer['served']} for {answer['loop_cost']} LC",
        f"each in turn: {in_turn['served']} for {in_turn['loop_cost']} LC",
    ]
    if saves["loop_cost"] is not None:
        lines.append(f"saved: {saves['loop_cost']} LC")
    if answer["unserved"]:
        lines.append(f"not served: {cell([demand['id'] for demand in answer['unserved']])}")
    # On standard error, so that the table alone goes into a pipe.
    for line in lines:
        click.echo(line, err=True)


def _row(pair: dict[str, Any]) -> list[Any]:
    batch, demand = pair["batch"], pair["demand"]
    quantity = f"{pair['quantity']} {pair['unit']}"
    return [batch["id"], batch["node"], demand["id"], demand["node"], quantity, pair["loop_cost"], pair["distance_km"]]
