"""`loopd search`: what can be had, here or as other cities announced it."""

from decimal import Decimal
from typing import Any

import click

from loopd.catalogue.query import CATEGORY_KEY
from loopd.catalogue.sections import SearchScope
from loopd.cli.admin_client import call
from loopd.cli.options import DecimalParameter, directory_argument, json_option, limit_option
from loopd.cli.output import print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.limits import QUANTITY_MAX_FRACTION_DIGITS
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import PRODUCT_CONDITIONS, UNITS

_COLUMNS = ("id", "category", "condition", "quantity", "distance km", "loop cost", "node", "verified", "expires")


@click.command()
@directory_argument
@click.option("--products", is_flag=True, help="Products instead of materials.")
@click.option("--federation", is_flag=True, help="What other cities announced, instead of what is registered here.")
@click.option("--category", help="A category, or the beginning of one followed by *.")
@click.option("--condition", type=click.Choice(PRODUCT_CONDITIONS), help="A product's condition.")
@click.option("--radius-km", type=DecimalParameter(3), help="Only what lies so near.")
@click.option("--near", type=(float, float), metavar="LAT LON", help="Where from; without: this node.")
@click.option("--min-quantity", type=DecimalParameter(QUANTITY_MAX_FRACTION_DIGITS), help="At least so much is left.")
@click.option(
    "--unit", type=click.Choice(UNITS), help="The unit of --min-quantity; without: kg, or pieces of products."
)
@click.option("--available-from", metavar="TIME", help="What can still be had then, such as 2026-11-21T08:00:00Z.")
@click.option("--available-until", metavar="TIME", help="What can be had by then.")
@click.option("--max-loop-cost", type=DecimalParameter(2), help="LC, at the price that is asked.")
@click.option("--destination", metavar="NODE-ID", help="Where the LoopCost leads to; without: this node.")
@click.option("--text", help="Words, or their beginnings, in name, manufacturer and notes.")
@click.option("--all", "every_page", is_flag=True, help="All results, page after page.")
@limit_option
@json_option
def search(
    directory: NodeDirectory,
    products: bool,
    federation: bool,
    near: tuple[float, float] | None,
    every_page: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Find what can be had now: nearest first where a place or a radius is given, else newest first.

    The daemon must be running.
    """
    kind = SubjectKind.PRODUCT if products else SubjectKind.MATERIAL
    body = {name: value for name, value in filters.items() if value is not None}
    if "category" in body:
        body[CATEGORY_KEY[kind]] = body.pop("category")
    if near is not None:
        body["near"] = {"lat": Decimal(str(near[0])), "lon": Decimal(str(near[1]))}
    if federation:
        body["scope"] = SearchScope.FEDERATION.value
    answer = call(directory, "POST", f"/api/v1/{kind.value}/search", body)
    while every_page and answer["next"] is not None:
        following = call(directory, "POST", answer["next"], body)
        answer = {**answer, "results": [*answer["results"], *following["results"]], "next": following["next"]}
    if as_json:
        print_json(answer)
        return
    print_table(_COLUMNS, [_row(result) for result in answer["results"]], f"No {kind.value} was found.")
    # On standard error, so that the table alone goes into a pipe.
    omitted = f"; {answer['omitted']} without a price left out" if answer.get("omitted") else ""
    click.echo(f"{len(answer['results'])} of {answer['total']}{omitted}", err=True)


def _row(result: Any) -> list[Any]:
    quantity = result.get("quantity")
    return [
        result.get("id"),
        result.get("category") or result.get("product_category"),
        result.get("condition"),
        f"{quantity.get('value')} {quantity.get('unit')}" if isinstance(quantity, dict) else None,
        result.get("distance_km"),
        result.get("loop_cost"),
        result.get("source_node"),
        result.get("verified"),
        result.get("expires"),
    ]
