"""`loopd explain`: the story of one announcement."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from loopd.cli.admin_client import call
from loopd.cli.options import directory_argument, json_option
from loopd.cli.output import cell, print_json
from loopd.directory import NodeDirectory

# Each reason code in words. A code that is not here, such as another node's, is shown as it is.
MEANINGS: Final[Mapping[str, str]] = {
    # of a copy that came
    "accepted": "new: delivered",
    "upgraded": "known, but this copy may travel farther: passed on again",
    "duplicate": "known already",
    "expired": "its time was over",
    "out_of_scope": "this node lies outside its radius",
    "superseded": "a newer state of its subject was known",
    "origin_mismatch": "refused: its origin did not sign it",
    "bad_hop": "refused: it cannot have the TTL that it showed",
    "bad_times": "refused: its times contradict each other or this node's clock",
    "bad_origin_signature": "refused: the origin's signature does not hold",
    "revoked_key": "refused: signed with a revoked key",
    "unknown_origin": "put off: no key of its origin could be had",
    "key_conflict": "held: peers disagree about the key of its origin",
    "changed_meanwhile": "put off: something changed while it was looked at",
    "too_many_messages": "put off: this node holds as many as it can",
    "floods_over_share": "put off: floods over its share of what this node holds",
    "over_share": "put off: too many of that peer's waited here",
    "overloaded": "put off: too much at once",
    # of a peer
    "taken": "taken",
    "not_a_peer": "it is no peer",
    "came_from": "it sent it here",
    "origin": "it made it",
    "plain_peer": "it cannot take what others originated",
    "no_products": "it does not know products",
    "outside_radius": "it lies outside the radius",
    "outdated": "a newer copy or state goes there instead",
    "queued": "in the queue",
    "set_aside": "the peer could not take it; tried again",
}
_OUTCOMES: Final[Mapping[str, str]] = {
    "sent": "sent",
    "not_sent": "not sent",
    "refused": "sent, refused",
    "waiting": "waits",
}


@click.command()
@directory_argument
@click.argument("message_id", metavar="MESSAGE-ID")
@json_option
def explain(directory: NodeDirectory, message_id: str, as_json: bool) -> None:
    """Tell what became of an announcement: when it came, from whom, and which peer got it, or why not.

    MESSAGE-ID is the hexadecimal id of the log, or its first 8 digits or more. The daemon must be running.
    """
    told = call(directory, "GET", f"/admin/v1/messages/{quote(message_id, safe='')}")
    if as_json:
        print_json(told)
    else:
        for line in story(told):
            click.echo(line)


def story(told: Mapping[str, Any]) -> list[str]:
    """What the daemon says of a message, in sentences, one a line."""
    lines = [f"message {told['message_id']}", *_message(told), ""]
    copies = told["copies"]
    lines += ["It came here:", *map(_copy, copies)] if copies else [_never_came(told)]
    peers = told["peers"]
    lines += ["", "To the peers:" if peers else "No peer was to get it."]
    width = max((len(cell(entry["peer"])) for entry in peers), default=0)
    return lines + [_peer(entry, width) for entry in peers]


def _message(told: Mapping[str, Any]) -> list[str]:
    if not told["held"]:
        return ["  is not held here"]
    state = cell(told.get("state") or ("available" if told.get("available") else "not available"))
    radius = "unbounded" if told["radius_km"] is None else f"within {cell(told['radius_km'])} km"
    ended = "was" if told["expired"] else "is"
    newest = "the newest state" if told["newest"] else "an older state; a newer one is known"
    return [
        f"  {cell(told['subject'])} of {cell(told['origin'])}: {state}, {newest}",
        f"  {radius}, {ended} valid until {cell(told['valid_until'])}",
    ]


def _never_came(told: Mapping[str, Any]) -> str:
    if told["held"] and told["own"]:
        return f"It was made here, {cell(told['received_at'])}."
    return "How it came is not remembered any more." if told["held"] else "No copy of it came."


def _copy(entry: Mapping[str, Any]) -> str:
    ttl = "without a TTL" if entry["ttl"] is None else f"TTL {entry['ttl']}"
    often = "" if entry["times"] == 1 else f", {entry['times']} times until {cell(entry['last_at'])}"
    return f"  {cell(entry['first_at'])}  from {cell(entry['peer'])}, {ttl}: {_meaning(entry['reason'])}{often}"


def _peer(entry: Mapping[str, Any], width: int) -> str:
    at = f", {cell(entry['at'])}" if entry["at"] is not None else ""
    status = f" ({entry['status']})" if entry["outcome"] == "refused" else ""
    sent = "" if entry["outcome"] == "not_sent" else f" with TTL {entry['ttl']}"
    return (
        f"  {cell(entry['peer']):<{width}}  {_OUTCOMES[entry['outcome']]}{sent}{at}:"
        f" {_meaning(entry['reason'])}{status}"
    )


def _meaning(reason: str) -> str:
    shown = cell(reason)
    return f"{shown} - {MEANINGS[reason]}" if reason in MEANINGS and MEANINGS[reason] != reason else shown
