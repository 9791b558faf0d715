"""`loopd route`: where a material or a product should go."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import click

from loopd.cli.admin_client import call
from loopd.cli.options import DecimalParameter, directory_argument, json_option, limit_option
from loopd.cli.output import cell, print_json, print_table
from loopd.directory import NodeDirectory

_COLUMNS = ("rank", "node", "base", "export", "import", "distance", "loop cost", "km", "ring", "wanted", "stale")
_RUNG_COLUMNS = ("ring", "radius_km", "open", "opens_at", "destinations", "wanting", "lowest_loop_cost")
_MONEY_DECIMALS = 2


@click.command()
@directory_argument
@click.argument("subject_id", metavar="MATERIAL-ID")
@click.option(
    "--price", type=DecimalParameter(_MONEY_DECIMALS), help="In LC of its city; without: what is asked for it."
)
@click.option("--wanted", "wanted_only", is_flag=True, help="Only destinations that look for it.")
@click.option("--ladder", is_flag=True, help="The overflow ladder instead: the own city first, then ring by ring.")
@limit_option
@json_option
def route(
    directory: NodeDirectory,
    subject_id: str,
    price: Decimal | None,
    wanted_only: bool,
    ladder: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Rank the destinations of MATERIAL-ID by LoopCost, the lowest first. The daemon must be running."""
    kind = "product" if subject_id.startswith("PRD-") else "material"
    question: dict[str, Any] = {kind: subject_id}
    if price is not None:
        question["base_price"] = price
    if wanted_only:
        question["wanted_only"] = True
    answer = call(directory, "POST", f"/api/v1/route?limit={limit}", question)
    if as_json:
        print_json(answer)
    elif ladder:
        rungs = [[rung.get(column) for column in _RUNG_COLUMNS] for rung in answer["ladder"]]
        print_table(_RUNG_COLUMNS, rungs, "There is no ladder.")
    else:
        print_table(_COLUMNS, [_row(entry) for entry in answer["results"]], "There is nowhere to go.")
        _tell_unranked(answer)


def _row(entry: Mapping[str, Any]) -> list[Any]:
    breakdown = entry.get("breakdown") or {}
    return [
        entry.get("rank"),
        entry.get("node"),
        *(breakdown.get(part) for part in ("base", "export", "import", "distance")),
        entry.get("loop_cost"),
        entry.get("distance_km"),
        entry.get("ring"),
        [demand.get("id") for demand in entry.get("wanted", ())],
        "stale" if entry.get("stale_signals") else None,
    ]


def _tell_unranked(answer: Mapping[str, Any]) -> None:
    """On standard error, so that the table alone goes into a pipe."""
    for key, what in (("signals_unknown", "signals"), ("location_unknown", "places")):
        unranked = answer.get(key) or {}
        if unranked.get("count"):
            click.echo(f"not ranked, their {what} are not known: {cell(unranked['nodes'])}", err=True)
