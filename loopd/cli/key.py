"""`loopd key`: the key by which other nodes know this one."""

from collections.abc import Awaitable, Callable
from typing import Any

import click

from loopd.cli.admin_client import AdminClient, stopped_database, with_daemon_or_alone
from loopd.cli.options import CommandGroup, directory_argument, json_option
from loopd.cli.output import cell, print_fields, print_json
from loopd.directory import NodeDirectory
from loopd.settings import Settings


@click.group(cls=CommandGroup)
def key() -> None:
    """The node's key: show, rotate, revoke; with the daemon running or stopped."""


@key.command()
@directory_argument
@json_option
def show(directory: NodeDirectory, as_json: bool) -> None:
    """Show the key's fingerprint, which other operators compare, and the keys that the node had before."""
    _print(_ask(directory, "GET", "", None, "show"), as_json)


@key.command()
@directory_argument
@json_option
def rotate(directory: NodeDirectory, as_json: bool) -> None:
    """Replace the key by a new one. The old and the new key sign that, and every peer is told.

    Nobody has to admit the node anew. Where the daemon is stopped, it tells its peers when it starts.
    """
    _print(_ask(directory, "POST", "/rotate", {}, "rotate"), as_json)


@key.command()
@directory_argument
@click.argument("key_id", metavar="KEY-ID")
@click.option("--present", is_flag=True, help="Revoke the present key too, if KEY-ID is that.")
@json_option
def revoke(directory: NodeDirectory, key_id: str, present: bool, as_json: bool) -> None:
    """Let nothing count any more that is signed with the key KEY-ID (of `loopd key show`).

    After a key was stolen: rotate, then revoke the one before. Revoking the present key needs --present; the node then
    has a new one that nobody knows, and every peer's operator has to admit it anew.
    """
    if not present and _ask(directory, "GET", "", None, "show")["key_id"] == key_id:
        raise click.UsageError("that is the present key: `loopd key rotate` first, or say --present")
    _print(_ask(directory, "POST", "/revoke", {"key_id": key_id}, "revoke", key_id), as_json)


def _ask(
    directory: NodeDirectory, method: str, path: str, body: dict[str, Any] | None, action: str, *arguments: str
) -> dict[str, Any]:
    async def by_daemon(client: AdminClient) -> dict[str, Any]:
        answer: dict[str, Any] = await client.request(method, f"/admin/v1/key{path}", body)
        return answer

    async def directly(settings: Settings) -> dict[str, Any]:
        # Imported only here: where the daemon runs, none of its parts is needed.
        from loopd.daemon import identity_of, own_key_alone

        async with stopped_database(directory, settings) as database:
            own_key = await own_key_alone(directory, identity_of(settings, directory), database)
            actions: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
                "rotate": own_key.rotate,
                "revoke": own_key.revoke,
            }
            return own_key.show() if action == "show" else await actions[action](*arguments)

    return with_daemon_or_alone(directory, by_daemon, directly)


def _print(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print_fields({"node": answer["node"], "key id": answer["key_id"], "fingerprint": answer["fingerprint"]})
    for former in answer["former"]:
        ended = f"replaced {cell(former['replaced_at'])}"
        if former["revoked_at"] is not None:
            ended = f"revoked {cell(former['revoked_at'])}"
        click.echo(f"before: {former['key_id']}, {ended}")
