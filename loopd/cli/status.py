"""`loopd status`."""

import click

from loopd.cli.admin_client import call
from loopd.cli.options import directory_argument, json_option
from loopd.cli.output import flatten, print_fields, print_json
from loopd.directory import NodeDirectory


@click.command()
@directory_argument
@json_option
def status(directory: NodeDirectory, as_json: bool) -> None:
    """How the running daemon of DIR does. Exit 1 where none runs."""
    answer = call(directory, "GET", "/admin/v1/status")
    if as_json:
        print_json(answer)
    else:
        print_fields(flatten(answer))
