"""`loopd token`: who may write through the API."""

from collections.abc import Sequence
from typing import Any

import click

from loopd.api.routes import Scope
from loopd.api.tokens import Token, TokenRecord, TokenStore
from loopd.cli.admin_client import AdminClient, stopped_database, with_daemon_or_alone
from loopd.cli.options import CommandGroup, directory_argument, json_option
from loopd.cli.output import print_json, print_table
from loopd.clock import SystemClock
from loopd.directory import NodeDirectory
from loopd.protocol.limits import TOKEN_TTL_DEFAULT_S, TOKEN_TTL_MAX_S, TOKEN_TTL_MIN_S
from loopd.protocol.timestamps import format_timestamp
from loopd.settings import Settings


@click.group(cls=CommandGroup)
def token() -> None:
    """Tokens for the API, made with the daemon running or stopped."""


def read_scopes(_context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[str]:
    """Scopes from a repeated option, each possibly several with commas between."""
    allowed = [scope.value for scope in Scope]
    names = list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        said = f"there is no scope {', '.join(unknown)}" if unknown else "at least one scope is needed"
        raise click.BadParameter(f"{said} (there are: {', '.join(allowed)})", param=parameter)
    return names


@token.command()
@directory_argument
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    callback=read_scopes,
    help="material:write (materials, products, status, announce), offer:write, account (pays from the account that "
    "--account names) or admin; repeated, or with commas.",
)
@click.option(
    "--ttl",
    "ttl_s",
    metavar="SECONDS",
    type=click.IntRange(TOKEN_TTL_MIN_S, TOKEN_TTL_MAX_S),
    default=TOKEN_TTL_DEFAULT_S,
    show_default=True,
    help="How long it is valid: a minute to a year.",
)
@click.option("--account", help="The account of the ledger that a token of the scope account is bound to.")
@json_option
def create(directory: NodeDirectory, scopes: list[str], ttl_s: int, account: str | None, as_json: bool) -> None:
    """Make a token and print it, alone. It is not shown again: only its hash is stored."""

    async def by_daemon(client: AdminClient) -> Any:
        bound = {} if account is None else {"account": account}
        return await client.request("POST", "/admin/v1/tokens", {"scopes": scopes, "ttl_s": ttl_s, **bound})

    async def directly(settings: Settings) -> Any:
        async with stopped_database(directory, settings) as database:
            clock = SystemClock()
            store = TokenStore(database, clock)
            made = await database.write(lambda tx: store.create(tx, scopes, ttl_s, clock.now_ms(), account))
            return {"token": made.text, **_shown(made)}

    answer = with_daemon_or_alone(directory, by_daemon, directly)
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["token"])


@token.command(name="list")
@directory_argument
@json_option
def list_tokens(directory: NodeDirectory, as_json: bool) -> None:
    """List the tokens, newest first. The tokens themselves are not known to anybody any more."""

    async def by_daemon(client: AdminClient) -> Any:
        return await client.request("GET", "/admin/v1/tokens")

    async def directly(settings: Settings) -> Any:
        async with stopped_database(directory, settings) as database, database.snapshot() as reader:
            records = await TokenStore(database, SystemClock()).list(reader)
            return {"tokens": [{**_shown(record), "last_used_at": _time(record.last_used_at_ms)} for record in records]}

    answer = with_daemon_or_alone(directory, by_daemon, directly)
    if as_json:
        print_json(answer)
        return
    columns = ("id", "scopes", "account", "created_at", "expires_at", "last_used_at")
    rows = [[entry.get(column) for column in columns] for entry in answer["tokens"]]
    print_table(columns, rows, "There are no tokens.")


@token.command()
@directory_argument
@click.argument("token_id", metavar="ID", type=click.IntRange(min=1))
def revoke(directory: NodeDirectory, token_id: int) -> None:
    """Revoke the token with this ID (of `loopd token list`) at once."""

    async def by_daemon(client: AdminClient) -> None:
        await client.request("DELETE", f"/admin/v1/tokens/{token_id}")

    async def directly(settings: Settings) -> None:
        async with stopped_database(directory, settings) as database:
            store = TokenStore(database, SystemClock())
            await database.write(lambda tx: store.revoke(tx, token_id))

    with_daemon_or_alone(directory, by_daemon, directly)


def _shown(made: Token | TokenRecord) -> dict[str, Any]:
    """What the daemon's routes say of a token."""
    return {
        "id": made.id,
        "scopes": list(made.scopes),
        "created_at": _time(made.created_at_ms),
        "expires_at": _time(made.expires_at_ms),
        "account": made.account,
    }


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_timestamp(at_ms)
