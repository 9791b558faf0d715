"""`loopd webhook`: which endpoints are told of events."""

from typing import Any

import click

from loopd.cli.admin_client import call
from loopd.cli.failure import Failure
from loopd.cli.options import CommandGroup, directory_argument, json_option
from loopd.cli.output import print_fields, print_json, print_table
from loopd.directory import NodeDirectory

_PATH = "/admin/v1/webhooks"
_COLUMNS = ("id", "url", "kinds", "status", "failures", "last_error", "last_success_at", "next_attempt_at")

webhook_argument = click.argument("webhook_id", metavar="ID", type=click.IntRange(min=1))


@click.group(cls=CommandGroup)
def webhook() -> None:
    """Webhooks: add, list, test, rotate, enable, remove. The daemon must be running."""


@webhook.command()
@directory_argument
@click.argument("url")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    default=["*"],
    show_default=True,
    help="Such as 'material.*' or bid.told; repeated.",
)
@json_option
def add(directory: NodeDirectory, url: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Send the events that happen from now on to URL, and print the secret, which is not shown again.

    The receiver checks the signatures with it, as Standard Webhooks describes.
    """
    _show_secret(call(directory, "POST", _PATH, {"url": url, "kinds": list(kinds)}), as_json)


@webhook.command(name="list")
@directory_argument
@json_option
def list_webhooks(directory: NodeDirectory, as_json: bool) -> None:
    """List the webhooks and how they do."""
    answer = call(directory, "GET", _PATH)
    if as_json:
        print_json(answer)
        return
    rows = [
        [" ".join(entry[column]) if column == "kinds" else entry[column] for column in _COLUMNS]
        for entry in answer["webhooks"]
    ]
    print_table(_COLUMNS, rows, "There are no webhooks.")


@webhook.command()
@directory_argument
@webhook_argument
@json_option
def test(directory: NodeDirectory, webhook_id: int, as_json: bool) -> None:
    """Send a message of the type webhook.test, once, and print what came of it."""
    answer = call(directory, "POST", f"{_PATH}/{webhook_id}/test")
    if as_json:
        print_json(answer)
    elif answer["delivered"]:
        print_fields({"message": answer["message_id"], "status": answer["status"]})
    if not answer["delivered"]:
        raise Failure(answer["error"] or f"the endpoint answered {answer['status']}")


@webhook.command()
@directory_argument
@webhook_argument
@json_option
def rotate(directory: NodeDirectory, webhook_id: int, as_json: bool) -> None:
    """Give the webhook a new secret and print it; for a day messages are signed with the former one too."""
    _show_secret(call(directory, "POST", f"{_PATH}/{webhook_id}/rotate"), as_json)


@webhook.command()
@directory_argument
@webhook_argument
def enable(directory: NodeDirectory, webhook_id: int) -> None:
    """Begin again at once with an endpoint that fails, or that was given up."""
    call(directory, "POST", f"{_PATH}/{webhook_id}/enable")


@webhook.command()
@directory_argument
@webhook_argument
def remove(directory: NodeDirectory, webhook_id: int) -> None:
    """Send nothing more."""
    call(directory, "DELETE", f"{_PATH}/{webhook_id}")


def _show_secret(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_fields({"webhook": answer["id"], "secret": answer["secret"]})
