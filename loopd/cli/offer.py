"""`loopd offer`: bids on materials, and the owner's choice among them."""

from decimal import Decimal
from typing import Any
from urllib.parse import quote

import click

from loopd.cli.accounts import require_account
from loopd.cli.admin_client import call
from loopd.cli.options import CommandGroup, DecimalParameter, directory_argument, json_option
from loopd.cli.output import cell, print_fields, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.limits import QUANTITY_MAX_FRACTION_DIGITS
from loopd.protocol.vocabulary import UNITS

_MONEY_DECIMALS = 2
_COST_PARTS = ("base", "export", "import", "distance")


@click.group(cls=CommandGroup)
def offer() -> None:
    """Offers for materials: make, list, select, withdraw. The daemon must be running."""


@offer.command()
@directory_argument
@click.argument("material_id", metavar="MATERIAL-ID")
@click.argument("price", type=DecimalParameter(_MONEY_DECIMALS))
@click.option("--quantity", type=DecimalParameter(QUANTITY_MAX_FRACTION_DIGITS), help="A part of it; without: all.")
@click.option("--unit", type=click.Choice(UNITS), help="The unit of --quantity.")
@click.option("--distance-km", type=DecimalParameter(3), help="The transport's length, where it is known.")
@click.option("--valid-for", "valid_for_s", metavar="SECONDS", type=click.IntRange(min=1), help="How long it stands.")
@click.option("--bidder", help="The business of this city that bids, for a material of this node.")
@click.option(
    "--buyer-account", metavar="ACCOUNT", help="Who pays, once the offer is selected: an account of this node."
)
@json_option
def make(directory: NodeDirectory, material_id: str, price: Decimal, as_json: bool, **extras: Any) -> None:
    """Offer PRICE (LC of the seller's node, for the whole quantity offered for) for MATERIAL-ID.

    The LoopCost is computed here and sent to the node that has the material, which computes its own and ranks.
    """
    if account := extras["buyer_account"]:
        # Nobody would find out before the offer is selected, when the money is to be held.
        require_account(directory, account)
    body = {"material": material_id, "base_price": price}
    body |= {name: value for name, value in extras.items() if value is not None}
    answer = call(directory, "POST", "/admin/v1/offers", body)
    if as_json:
        print_json(answer)
        return
    breakdown = answer.get("breakdown") or {}
    print_fields(
        {
            "offer": answer.get("id"),
            **{part: breakdown.get(part) for part in _COST_PARTS},
            "loop cost": answer.get("loop_cost"),
            "status": answer.get("status"),
            "valid until": answer.get("valid_until"),
        }
    )


@offer.command(name="list")
@directory_argument
@click.argument("material_id", metavar="MATERIAL-ID")
@json_option
def list_offers(directory: NodeDirectory, material_id: str, as_json: bool) -> None:
    """List the offers for MATERIAL-ID of this node: ranked by LoopCost, with the reason of every place."""
    _show(call(directory, "GET", f"{_subject_path(material_id)}/offers"), as_json)


@offer.command()
@directory_argument
@click.argument("material_id", metavar="MATERIAL-ID")
@click.argument("offer_id", metavar="[OFFER-ID]", required=False)
@json_option
def select(directory: NodeDirectory, material_id: str, offer_id: str | None, as_json: bool) -> None:
    """Select OFFER-ID for MATERIAL-ID; without it, the one with the lowest LoopCost. The bidders are told."""
    body = {} if offer_id is None else {"offer": offer_id}
    _show(call(directory, "POST", f"{_subject_path(material_id)}/select", body), as_json)


@offer.command()
@directory_argument
@click.argument("offer_id", metavar="OFFER-ID")
@click.option("--material", "material_id", metavar="MATERIAL-ID", help="The material of this node that it is for.")
@json_option
def withdraw(directory: NodeDirectory, offer_id: str, material_id: str | None, as_json: bool) -> None:
    """Take back OFFER-ID: an offer of this node in another city, or, with --material, one that was made here."""
    path = "/admin/v1" if material_id is None else _subject_path(material_id)
    answer = call(directory, "POST", f"{path}/offers/{quote(offer_id, safe='')}/withdraw")
    if material_id is not None:
        _show(answer, as_json)
    elif as_json:
        print_json(answer)
    else:
        print_fields({"offer": answer.get("id"), "status": answer.get("status")})


def _subject_path(subject_id: str) -> str:
    noun = "product" if subject_id.startswith("PRD-") else "material"
    return f"/api/v1/{noun}/{quote(subject_id, safe='')}"


def _show(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    columns = ("rank", "offer", "from", *_COST_PARTS, "loop cost", "status", "reason", "valid until")
    rows = []
    for entry in answer["offers"]:
        breakdown = entry.get("breakdown") or {}
        rows.append(
            [
                entry.get("rank"),
                entry.get("id"),
                entry.get("bidder") or entry.get("from"),
                *(breakdown.get(part) for part in _COST_PARTS),
                entry.get("loop_cost"),
                entry.get("status"),
                entry.get("reason"),
                entry.get("valid_until"),
            ]
        )
    print_table(columns, rows, "There are no offers.")
    if answer.get("selected"):
        # On standard error, so that the table alone goes into a pipe.
        click.echo(f"selected: {cell(answer['selected'])} ({cell(answer.get('reason'))})", err=True)
