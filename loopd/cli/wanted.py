"""`loopd wanted`: what this city looks for."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import click

from loopd.cli.admin_client import call
from loopd.cli.options import CommandGroup, DecimalParameter, directory_argument, json_option, limit_option
from loopd.cli.output import print_fields, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.limits import QUANTITY_MAX_FRACTION_DIGITS
from loopd.protocol.vocabulary import UNITS

_COLUMNS = ("id", "node", "category", "quantity", "max price", "radius km", "status", "valid until")
_MONEY_DECIMALS = 2
_KM_DECIMALS = 3


@click.group(cls=CommandGroup)
def wanted() -> None:
    """Demand: what this city looks for, and what its peers do. The daemon must be running."""


@wanted.command()
@directory_argument
@click.argument("category")
@click.argument("quantity", type=DecimalParameter(QUANTITY_MAX_FRACTION_DIGITS))
@click.argument("unit", type=click.Choice(UNITS))
@click.option("--product", is_flag=True, help="CATEGORY is one of products.")
@click.option("--max-price", type=DecimalParameter(_MONEY_DECIMALS), help="The most that is paid for all of it, in LC.")
@click.option("--radius-km", type=DecimalParameter(_KM_DECIMALS), help="How far around; without: everywhere.")
@click.option("--wanted-by", help="The business of this city that it is for; peers are not told.")
@click.option("--valid-for", "valid_for_s", metavar="SECONDS", type=click.IntRange(min=1), help="Without: 30 days.")
@json_option
def add(
    directory: NodeDirectory,
    category: str,
    quantity: Decimal,
    unit: str,
    product: bool,
    as_json: bool,
    **extras: Any,
) -> None:
    """Look for QUANTITY UNIT of CATEGORY, which may end in *. Prints what fits already."""
    key = "product_category" if product else "category"
    body = {key: category, "quantity": quantity, "unit": unit}
    body |= {name: value for name, value in extras.items() if value is not None}
    _show(call(directory, "POST", "/api/v1/wanted", body), as_json)


@wanted.command(name="list")
@directory_argument
@click.option("--peers", is_flag=True, help="What peers look for, instead.")
@click.option("--all", "closed_too", is_flag=True, help="Also what was closed or has expired.")
@limit_option
@json_option
def list_demands(directory: NodeDirectory, peers: bool, closed_too: bool, limit: int, as_json: bool) -> None:
    """List what is looked for, newest first."""
    scope = "federation" if peers else "local"
    path = f"/api/v1/wanted?scope={scope}&limit={limit}" + ("" if closed_too else "&status=open")
    answer = call(directory, "GET", path)
    if as_json:
        print_json(answer)
    else:
        print_table(_COLUMNS, [_row(entry) for entry in answer["results"]], "Nothing is looked for.")


@wanted.command()
@directory_argument
@click.argument("demand_id", metavar="ID")
@json_option
def show(directory: NodeDirectory, demand_id: str, as_json: bool) -> None:
    """Show what this city looks for under ID, and what fits it."""
    _show(call(directory, "GET", f"/api/v1/wanted/{quote(demand_id, safe='')}"), as_json)


@wanted.command()
@directory_argument
@click.argument("demand_id", metavar="ID")
@click.option("--fulfilled", is_flag=True, help="Somebody served it; without: it is withdrawn.")
@json_option
def close(directory: NodeDirectory, demand_id: str, fulfilled: bool, as_json: bool) -> None:
    """Look no longer for what ID names. Peers are told."""
    body = {"status": "fulfilled" if fulfilled else "withdrawn"}
    _show(call(directory, "POST", f"/api/v1/wanted/{quote(demand_id, safe='')}/close", body), as_json)


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print_fields(dict(zip(_COLUMNS, _row(answer), strict=True)))
    for match in answer.get("matches", ()):
        subject = match.get("material") or match.get("product")
        print_fields({"fits": f"{subject} at {match.get('node')}" + ("" if match.get("available") else ", gone")})


def _row(entry: Mapping[str, Any]) -> list[Any]:
    return [
        entry.get("id"),
        entry.get("node"),
        entry.get("category") or entry.get("product_category"),
        f"{entry.get('quantity')} {entry.get('unit')}",
        entry.get("max_price"),
        entry.get("radius_km"),
        entry.get("status"),
        entry.get("valid_until"),
    ]
