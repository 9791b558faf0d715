"""`loopd check-config`."""

import os
from datetime import UTC, datetime

import click

from loopd.cli.failure import Failure
from loopd.cli.options import directory_argument, json_option
from loopd.cli.output import print_json
from loopd.database.connection import UnusableDatabase, check_ours
from loopd.directory import DirectoryError, NodeDirectory
from loopd.net.tls import TlsError, certificate_problems, client_context
from loopd.settings import Settings, SettingsError, load_settings


@click.command(name="check-config")
@directory_argument
@json_option
def check_config(directory: NodeDirectory, as_json: bool) -> None:
    """Check the settings, key, certificate and database of DIR. Changes and creates nothing.

    With --json the settings as they are resolved: defaults, file, environment.
    """
    settings = None
    try:
        settings = load_settings(directory.root)
        problems = node_problems(directory, settings, datetime.now(UTC))
    except SettingsError as error:
        problems = list(map(str, error.problems))
    if as_json:
        print_json(
            {
                "directory": str(directory.root),
                "valid": not problems,
                "problems": problems,
                # Only what may be shown: a secret that became a setting would come out as asterisks.
                "settings": None if settings is None else settings.model_dump(),
            }
        )
    if problems:
        raise Failure("\n".join(problems))
    if not as_json:
        click.echo(f"{directory.root}: settings, key, certificate and database are in order")


def node_problems(directory: NodeDirectory, settings: Settings, now: datetime) -> list[str]:
    """What would keep the daemon from running, beyond the settings themselves."""
    problems = []
    try:
        directory.load_node_key()
    except DirectoryError as error:
        problems.append(str(error))
    problems += certificate_problems(settings.tls.certificate, settings.tls.key, settings.node.endpoint_host, now)
    try:
        client_context(settings.tls.ca_file)
    except TlsError as error:
        problems.append(str(error))
    try:
        check_ours(directory.database_file)
    except UnusableDatabase as error:
        problems.append(str(error))
    if not os.access(directory.root, os.W_OK):
        problems.append(f"{directory.root}: this user may not write here")
    return problems
