"""`loopd mirror`: the deals of this city whose seller is another node."""

from typing import Any
from urllib.parse import quote, urlencode

import click

from loopd.cli.admin_client import call
from loopd.cli.options import CommandGroup, directory_argument, json_option, limit_option
from loopd.cli.output import print_fields, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.lifecycle import MirroredEntity

_ENTITIES = [entity.value for entity in MirroredEntity]
_COLUMNS = ("node", "entity", "id", "status", "version", "updated", "asked for", "answer")


@click.group(cls=CommandGroup)
def mirror() -> None:
    """Deals that other nodes decide: list them, ask for a status. The daemon must be running."""


@mirror.command(name="list")
@directory_argument
@click.option("--entity", type=click.Choice(_ENTITIES), help="Only these.")
@click.option("--node", help="Only what this node decides.")
@limit_option
@json_option
def list_mirrored(directory: NodeDirectory, entity: str | None, node: str | None, limit: int, as_json: bool) -> None:
    """List offers, matches, transfers and transactions of other nodes, as these told them last."""
    query = {"limit": limit, "entity": entity, "node": node}
    stated = urlencode({name: value for name, value in query.items() if value is not None})
    answer = call(directory, "GET", f"/api/v1/mirror?{stated}")
    if as_json:
        print_json(answer)
        return
    print_table(_COLUMNS, [_row(entry) for entry in answer["results"]], "No other node decides on deals with this one.")


@mirror.command()
@directory_argument
@click.argument("node")
@click.argument("entity", type=click.Choice(_ENTITIES))
@click.argument("entity_id", metavar="ID")
@click.argument("status")
@click.option("--reason", help="Why, in a few words.")
@json_option
def ask(
    directory: NodeDirectory, node: str, entity: str, entity_id: str, status: str, reason: str | None, as_json: bool
) -> None:
    """Ask NODE, the seller's, that its ENTITY gets a STATUS: a transfer `completed`, say, once the goods have come."""
    path = "/".join(quote(part, safe="") for part in (node, entity, entity_id))
    body = {"status": status} if reason is None else {"status": status, "reason": reason}
    answer = call(directory, "POST", f"/api/v1/mirror/{path}/status", body)
    if as_json:
        print_json(answer)
        return
    print_fields({"request": answer.get("id"), "status": answer.get("status"), "state": answer.get("state")})


def _row(entry: dict[str, Any]) -> list[Any]:
    request = entry.get("request") or {}
    asked = request.get("status")
    return [
        *(entry.get(name) for name in ("node", "entity", "id", "status", "version", "updated_at")),
        asked,
        None if asked is None else request.get("answer") or request.get("state"),
    ]
