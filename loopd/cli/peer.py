"""`loopd peer`: the nodes that this one federates with."""

from urllib.parse import quote

import click

from loopd.cli.admin_client import call
from loopd.cli.failure import Failure
from loopd.cli.options import CommandGroup, directory_argument, json_option
from loopd.cli.output import cell, print_fields, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.nodes import PeerAuth

_COLUMNS = (
    "id",
    "status",
    "health",
    "why",
    "suspected_by",
    "conduct",
    "score",
    "round_trip_ms",
    "admission",
    "queue",
    "last_success",
    "last_failure",
    "next_attempt",
    "endpoint",
)


@click.group(cls=CommandGroup)
def peer() -> None:
    """Peers: add, list, approve, suspend, resume, remove. The daemon must be running."""


@peer.command()
@directory_argument
@click.argument("url")
@click.option(
    "--auth",
    type=click.Choice([auth.value for auth in PeerAuth]),
    default=PeerAuth.SIGNED.value,
    show_default=True,
    help="unsigned-lab: a lab node without real signatures; its messages are marked unverified and not relayed.",
)
@json_option
def add(directory: NodeDirectory, url: str, auth: str, as_json: bool) -> None:
    """Shake hands with the node at URL (https://.../api/v1) and print both fingerprints.

    Compare them with the other operator. Where the other side must approve first, what it waits for is printed.
    """
    answer = call(directory, "POST", "/admin/v1/peers", {"url": url, "auth": auth})
    if as_json:
        print_json(answer)
    else:
        print_fields(
            {
                "peer": (answer.get("peer") or {}).get("id"),
                "status": answer.get("status"),
                "message": answer.get("message"),
                "own fingerprint": answer.get("own_fingerprint"),
                "peer fingerprint": answer.get("peer_fingerprint"),
            }
        )
    if answer.get("status") == "rejected":
        raise Failure(f"{url} refused: {cell(answer.get('message'))}")


@peer.command(name="list")
@directory_argument
@json_option
def list_peers(directory: NodeDirectory, as_json: bool) -> None:
    """List the peers and those who ask to be one, with their health. --json also gives fingerprints and features.

    The fingerprints of those who wait for approval are told on standard error, to be compared on the telephone.
    """
    answer = call(directory, "GET", "/admin/v1/peers")
    if as_json:
        print_json(answer)
        return
    rows = [[entry.get(column) for column in _COLUMNS] for entry in answer["peers"]]
    print_table(_COLUMNS, rows, f"There are no peers. loopd peer add {directory.root} URL adds one.")
    missing = (answer.get("mix") or {}).get("missing") or {}
    if missing:
        lacking = ", ".join(f"{cell(count)} {cell(band)}" for band, count in missing.items())
        click.echo(f"To the mix of peers that is wanted, these are missing: {lacking}.", err=True)
    for entry in answer["peers"]:
        if entry.get("status") == "waiting":
            shown = (
                f"{cell(entry.get('id'))} waits for your approval and shows the key {cell(entry.get('fingerprint'))}"
            )
            click.echo(shown, err=True)


def _decision(name: str, method: str, suffix: str, done: str, text: str) -> None:
    @peer.command(name=name, help=text)
    @directory_argument
    @click.argument("peer_id", metavar="PEER-ID")
    @json_option
    def decide(directory: NodeDirectory, peer_id: str, as_json: bool) -> None:
        answer = call(directory, method, f"/admin/v1/peers/{quote(peer_id, safe='')}{suffix}")
        if as_json:
            print_json(answer)
        else:
            click.echo(f"{peer_id}: {done}")

    _ = decide


_decision(
    "approve", "POST", "/approve", "approved", "Make PEER-ID, which asked for it, a peer. Compare fingerprints first."
)
_decision("suspend", "POST", "/suspend", "suspended", "Take nothing from PEER-ID and send it nothing until resumed.")
_decision("resume", "POST", "/resume", "resumed", "End the suspension of PEER-ID, and forgive it.")
_decision("remove", "DELETE", "", "removed", "Forget PEER-ID, its key and what is queued for it.")
