"""`loopd events`: what happened at the node, and what happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import click

from loopd.cli.admin_client import AdminClient, call
from loopd.cli.failure import Failure
from loopd.cli.options import directory_argument, json_option, limit_option
from loopd.cli.output import cell, json_bytes, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.settings import load_settings

_COLUMNS = ("id", "at", "kind", "subject", "data")


@click.command()
@directory_argument
@click.option("--kind", "kinds", multiple=True, help="Only these, such as material.registered or 'bid.*'; repeated.")
@click.option("--after", metavar="ID", type=click.IntRange(min=0), help="Begin after this event, the oldest first.")
@click.option("--follow", is_flag=True, help="Go on with what happens, until interrupted or the node stops.")
@limit_option
@json_option
def events(
    directory: NodeDirectory, kinds: tuple[str, ...], after: int | None, follow: bool, limit: int, as_json: bool
) -> None:
    """List what happened, the newest first. The daemon must be running.

    With --follow each event is a line as it happens, with --json a JSON document.
    """
    query: dict[str, Any] = {"kind": ",".join(kinds)} if kinds else {}
    if follow:
        asyncio.run(_follow(directory, query, after, as_json))
        return
    if after is not None:
        query["after"] = after
    answer = call(directory, "GET", f"/api/v1/events?{urlencode({'limit': limit, **query})}")
    if as_json:
        print_json(answer)
    else:
        print_table(_COLUMNS, [_row(event) for event in answer["results"]], "Nothing happened.")


async def _follow(directory: NodeDirectory, query: dict[str, Any], after: int | None, as_json: bool) -> None:
    """Print what happens; come again where a stream ends, and go on after the last event."""
    settings, reason = load_settings(directory.root), ""
    async with AdminClient.open(directory, settings) as client:
        while reason != "draining":
            asked = query if after is None else {**query, "last_event_id": after}
            reason = ""
            async for name, last_id, data in _blocks(client, f"/api/v1/stream?{urlencode(asked)}"):
                after = last_id if last_id is not None else after
                if name == "message":
                    _print(data, as_json)
                elif name == "gap":
                    click.echo(f"loopd: some events are missing ({data['reason']})", err=True)
                elif name == "end":
                    reason = data["reason"]
            if not reason:
                raise Failure("the daemon broke off")


async def _blocks(client: AdminClient, path: str) -> AsyncIterator[tuple[str, int | None, Any]]:
    """The blocks of a stream of server-sent events: name, id, data; of a sign of life the id alone."""
    name, last_id, data = "message", None, ""
    async for line in client.lines(path):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "id":
            last_id = int(value)
        elif field == "data":
            data = value
        elif not line:
            yield (name, last_id, json.loads(data, parse_float=Decimal)) if data else ("alive", last_id, None)
            name, last_id, data = "message", None, ""


def _print(event: Any, as_json: bool) -> None:
    click.echo(json_bytes(event) if as_json else "\t".join(map(cell, _row(event))))


def _row(event: Any) -> list[Any]:
    return [*(event[column] for column in _COLUMNS[:-1]), json_bytes(event["data"]).decode()]
