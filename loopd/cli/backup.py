"""`loopd backup`."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import click

from loopd.cli.admin_client import AdminClient, with_daemon_or_alone
from loopd.cli.failure import Failure
from loopd.cli.options import directory_argument
from loopd.database.connection import check_ours
from loopd.database.files import copy_database
from loopd.directory import NodeDirectory
from loopd.settings import Settings


@click.command()
@directory_argument
@click.argument("file", type=click.Path(path_type=Path))
def backup(directory: NodeDirectory, file: Path) -> None:
    """Copy the database of DIR to the new FILE.

    The copy is of one moment, with the daemon running or stopped. A running daemon writes FILE itself, as its own user:
    the system service can write below /var/lib/loopd only. The node's key and settings are not in it.
    """
    target = file.absolute()

    async def by_daemon(client: AdminClient) -> None:
        await client.request("POST", "/admin/v1/backup", {"file": str(target)}, timeout_s=None)

    async def directly(settings: Settings) -> None:
        # Not through Database.open, which would migrate: the backup before an upgrade is of what is there.
        check_ours(directory.database_file)
        try:
            await asyncio.to_thread(copy_database, directory.database_file, target, threading.Event())
        except FileExistsError as error:
            raise Failure(str(error)) from None
        except (OSError, sqlite3.Error) as error:
            raise Failure(f"{target} could not be written: {error}") from None

    with_daemon_or_alone(directory, by_daemon, directly)
    click.echo(str(target))
