"""`loopd run`."""

import click

from loopd.cli.options import directory_argument
from loopd.directory import NodeDirectory
from loopd.observe.logging import configure_logging
from loopd.settings import load_settings


@click.command()
@directory_argument
def run(directory: NodeDirectory) -> None:
    """Run the daemon on DIR until SIGTERM or SIGINT; running requests are finished first.

    A second daemon on the same directory is refused.
    """
    settings = load_settings(directory.root)
    configure_logging(settings.log)
    with directory.lock():
        from loopd import daemon

        daemon.run(directory, settings)
