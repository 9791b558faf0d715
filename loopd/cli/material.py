"""`loopd material`: what this city registers."""

import json
from pathlib import Path
from typing import Any

import click

from loopd.cli.accounts import require_account
from loopd.cli.admin_client import call
from loopd.cli.failure import Failure
from loopd.cli.options import CommandGroup, directory_argument, json_option, limit_option, read_file
from loopd.cli.output import print_json, print_table
from loopd.directory import NodeDirectory


@click.group(cls=CommandGroup)
def material() -> None:
    """Materials and products of this node. The daemon must be running."""


@material.command()
@directory_argument
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@json_option
def add(directory: NodeDirectory, file: Path, as_json: bool) -> None:
    """Register the MaterialDNA or ProductDNA in FILE, or from standard input with -. Prints its id and status."""
    document = read_file(file)
    path = "/api/v1/product" if _type_of(document) == "ProductDNA" else "/api/v1/material"
    answer = call(directory, "POST", path, document=document)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['id']}\t{answer['status']}")
    account = (answer.get("metadata") or {}).get("seller_account")
    if isinstance(account, str):
        _warn_of_unpaid(directory, account)


@material.command(name="list")
@directory_argument
@click.option("--products", is_flag=True, help="Products instead of materials.")
@limit_option
@json_option
def list_records(directory: NodeDirectory, products: bool, limit: int, as_json: bool) -> None:
    """List what is registered at this node, newest first."""
    noun = "product" if products else "material"
    answer = call(directory, "GET", f"/api/v1/{noun}?limit={limit}")
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            entry.get("id"),
            entry.get("category") or entry.get("product_category"),
            _quantity(entry.get("quantity")),
            entry.get("status"),
            entry.get("current_city"),
            entry.get("expires"),
        ]
        for entry in answer["results"]
    ]
    columns = ("id", "category", "quantity", "status", "city", "expires")
    print_table(columns, rows, f"No {noun} is registered here.")


def _warn_of_unpaid(directory: NodeDirectory, account: str) -> None:
    """It is registered all the same: the account may be opened before anybody buys."""
    try:
        require_account(directory, account)
    except Failure as missing:
        told = (
            f"/metadata/seller_account {missing.message}\n  until there is, no offer that is to be paid can be selected"
        )
        for line in told.splitlines():
            click.echo(f"loopd: {line}", err=True)


def _type_of(document: bytes) -> Any:
    """The document's `@type`, None where it cannot be told; the daemon then says what is wrong with it."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return None
    return value.get("@type") if isinstance(value, dict) else None


def _quantity(value: Any) -> str | None:
    return f"{value.get('value')} {value.get('unit')}" if isinstance(value, dict) else None
