"""The one way in which a command fails."""

import click


class Failure(click.ClickException):
    """The command was understood and could not be carried out: exit 1."""

    exit_code = 1
