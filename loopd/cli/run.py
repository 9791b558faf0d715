"""`loopd run`."""

import click

from loopd.cli.failure import Failure
from loopd.cli.options import directory_argument
from loopd.directory import NodeDirectory
from loopd.observe.logging import configure_logging
from loopd.settings import load_settings


@click.command()
@directory_argument
def run(directory: NodeDirectory) -> None:
    """Run the daemon on DIR.

    SIGTERM or SIGINT end it, after the running requests are finished. A second daemon on the same directory is refused.
    """
    settings = load_settings(directory.root)
    configure_logging(settings.log)
    with directory.lock():
        # Imported only here: the other commands need none of the daemon's parts.
        from loopd.daemon import run as run_daemon

        try:
            run_daemon(directory, settings)
        except OSError as error:
            raise Failure(f"the daemon could not go on: {error.strerror or error}") from error
