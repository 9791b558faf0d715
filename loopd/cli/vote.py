"""`loopd vote`: proposals to change the city's signals, from the first word to the record that anybody can check."""

import csv
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from loopd.cli.admin_client import call
from loopd.cli.failure import Failure
from loopd.cli.options import CommandGroup, directory_argument, json_option, limit_option
from loopd.cli.output import cell, json_bytes, print_fields, print_json, print_table
from loopd.clock import SystemClock
from loopd.directory import NodeDirectory
from loopd.protocol.contexts import context_url
from loopd.protocol.errors import Invalid
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import VOTE_ROLL_MAX, VOTE_ROLL_PART_MAX
from loopd.protocol.timestamps import format_timestamp
from loopd.settings import load_settings
from loopd.signals.ballots import CREDENTIAL_BYTES, SALT_BYTES, credential_hash, print_credential, voter_hash
from loopd.signals.verification import verify_record

_COLUMNS = ("vote", "status", "method", "opens", "closes", "changes", "reason")
# A part of a roll, each entry of it about 160 bytes, stays below what a request may be.
_ROLL_PART = min(VOTE_ROLL_PART_MAX, 5_000)


@click.group(cls=CommandGroup)
def vote() -> None:
    """Votes on signals: propose, enter or count results, certify, check. The daemon must be running."""


def _read_change(_context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[dict[str, Any]]:
    changes = []
    for text in values:
        category, _, rest = text.partition("=")
        current, separator, proposed = rest.partition(":")
        try:
            numbers = [read_json(value.encode()) for value in (current, proposed)]
        except Invalid:
            separator = ""
        if not category or not separator:
            raise click.BadParameter(f"{text!r} is not CATEGORY=CURRENT:PROPOSED", param=parameter)
        changes.append({"category": category, "current": numbers[0], "proposed": numbers[1]})
    return changes


@vote.command()
@directory_argument
@click.option(
    "--change",
    "changes",
    metavar="CATEGORY=CURRENT:PROPOSED",
    multiple=True,
    required=True,
    callback=_read_change,
    help="plastic-pet=0.20:0.30; repeated. At most 0.10; they pass or fail together.",
)
@click.option("--opens", metavar="TIME", help="When the window opens, ISO 8601; without: now.")
@click.option("--closes", metavar="TIME", required=True, help="When it closes, ISO 8601.")
@click.option("--reason", help="Why, published with every change.")
@click.option("--eligible", type=click.IntRange(min=1), help="How many may vote; without: signals.eligible.")
@click.option("--ballots", is_flag=True, help="Take ballots on this node (signals.ballots must be on).")
@click.option("--id", "vote_id", help="The vote's id; without, one is made.")
@json_option
def propose(
    directory: NodeDirectory,
    changes: list[dict[str, Any]],
    opens: str | None,
    closes: str,
    reason: str | None,
    ballots: bool,
    as_json: bool,
    **extras: Any,
) -> None:
    """Propose to change signals. The rules are frozen and published when the window opens."""
    node = load_settings(directory.root).node
    body: dict[str, Any] = {
        "@context": context_url(node.context_host),
        "@type": "SignalProposal",
        "schema_version": "0.2.0",
        "node": node.id,
        "changes": [change if reason is None else {**change, "reason": reason} for change in changes],
        "voting_opens": format_timestamp(SystemClock().now_ms()) if opens is None else opens,
        "voting_closes": closes,
        "method": "ballots" if ballots else "attested",
    }
    body |= {name: value for name, value in extras.items() if value is not None}
    _show(call(directory, "POST", "/api/v1/signals/proposals", body), as_json)


@vote.command(name="list")
@directory_argument
@limit_option
@json_option
def list_votes(directory: NodeDirectory, limit: int, as_json: bool) -> None:
    """List proposals and what became of them, newest first."""
    answer = call(directory, "GET", f"/api/v1/signals/proposals?limit={limit}")
    if as_json:
        print_json(answer)
        return
    rows = []
    for entry in answer["results"]:
        changes = [f"{each['category']} {each['current']} to {each['proposed']}" for each in entry["changes"]]
        moments = (entry["voting_opens"], entry["voting_closes"])
        rows.append([entry["vote_id"], entry["status"], entry["method"], *moments, changes, entry.get("reason")])
    print_table(_COLUMNS, rows, "There are no proposals.")


@vote.command()
@directory_argument
@click.argument("vote_id", metavar="VOTE-ID")
@json_option
def withdraw(directory: NodeDirectory, vote_id: str, as_json: bool) -> None:
    """Take a proposal back before its window opens."""
    _show(call(directory, "POST", f"/api/v1/signals/proposals/{quote(vote_id, safe='')}/withdraw"), as_json)


@vote.command()
@directory_argument
@click.argument("vote_id", metavar="VOTE-ID")
@click.option("--voted", "total_voted", type=int, required=True, help="How many voted.")
@click.option("--for", "votes_for", type=int, required=True, help="Votes in favour.")
@click.option("--against", "votes_against", type=int, required=True, help="Votes against.")
@click.option("--abstained", "abstentions", type=int, help="Abstentions, to be checked against the others.")
@click.option("--attestation", required=True, help="What attests it, such as the minutes; published.")
@json_option
def result(directory: NodeDirectory, vote_id: str, as_json: bool, **stated: Any) -> None:
    """Enter the municipality's result of a closed vote, as its officer. It is kept as attested."""
    body = {name: value for name, value in stated.items() if value is not None}
    _show(call(directory, "POST", f"{_path(vote_id)}/result", body), as_json)


@vote.command()
@directory_argument
@click.argument("vote_id", metavar="VOTE-ID")
@json_option
def certify(directory: NodeDirectory, vote_id: str, as_json: bool) -> None:
    """Make the outcome final. Where it passed, the new signals hold from now on."""
    _show(call(directory, "POST", f"{_path(vote_id)}/certify"), as_json)


@vote.command()
@directory_argument
@click.argument("vote_id", metavar="VOTE-ID")
@click.argument("reason")
@json_option
def annul(directory: NodeDirectory, vote_id: str, reason: str, as_json: bool) -> None:
    """End a vote without an outcome, as after an appeal that was upheld. REASON is published."""
    _show(call(directory, "POST", f"{_path(vote_id)}/annul", {"reason": reason}), as_json)


@vote.command(name="open-roll")
@directory_argument
@click.argument("vote_id", metavar="VOTE-ID")
@click.argument("voters_file", metavar="VOTERS", type=click.File(encoding="utf-8"))
@click.argument("credentials_file", metavar="CREDENTIALS", type=click.Path(path_type=Path))
def open_roll(directory: NodeDirectory, vote_id: str, voters_file: Any, credentials_file: Path) -> None:
    """Make a credential for every line of VOTERS, write them to CREDENTIALS, and give the node their hashes.

    CREDENTIALS is for the printer: each voter's line and credential. It holds the salt too, with which the roll could
    be read; the node never sees it. Destroy the file when all are printed.
    """
    voters = list(dict.fromkeys(line.strip() for line in voters_file if line.strip()))
    if not 1 <= len(voters) <= VOTE_ROLL_MAX:
        raise Failure(f"a roll has 1 to {VOTE_ROLL_MAX:,} voters; there are {len(voters):,} different lines")
    salt = secrets.token_bytes(SALT_BYTES)
    printed = [(voter, print_credential(secrets.token_bytes(CREDENTIAL_BYTES))) for voter in voters]
    _write_credentials(credentials_file, salt, printed)
    entries = [
        {
            "voter": voter_hash(vote_id, salt, voter).hex(),
            "credential": credential_hash(vote_id, credential).hex(),
        }
        for voter, credential in printed
    ]
    # In an order that is not that of the list.
    entries.sort(key=lambda entry: entry["credential"])
    answer: Mapping[str, Any] = {}
    for start in range(0, len(entries), _ROLL_PART):
        answer = call(directory, "POST", f"{_path(vote_id)}/roll", {"entries": entries[start : start + _ROLL_PART]})
    print_fields({"eligible": answer.get("eligible")})


@vote.command()
@directory_argument
@click.argument("vote_id", metavar="VOTE-ID")
@click.argument("file", type=click.Path(path_type=Path))
def export(directory: NodeDirectory, vote_id: str, file: Path) -> None:
    """Write the signed record of a decided vote to FILE: all that `verify` needs."""
    record = call(directory, "GET", f"{_path(vote_id)}/record")
    try:
        with file.open("xb") as out:
            out.write(json_bytes(record, indented=True) + b"\n")
    except OSError as error:
        raise Failure(f"{file} could not be written: {error.strerror}") from None


@vote.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "fingerprint", help="The fingerprint that the node's key must have.")
@json_option
def verify(file: Path, fingerprint: str | None, as_json: bool) -> None:
    """Recompute the outcome of a vote from its record in FILE, offline. No node and no directory is needed."""
    try:
        verdict = verify_record(read_json(file.read_bytes()))
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from None
    other_key = fingerprint is not None and fingerprint.replace(":", "") != verdict.fingerprint.replace(":", "")
    problems = {finding.check: finding.problem for finding in verdict.findings if finding.problem is not None}
    if other_key:
        problems["the key"] = "its fingerprint is another one"
    facts = {
        "node": verdict.node,
        "key": verdict.fingerprint,
        "outcome": verdict.outcome,
        "kind": "attested, not verifiable: the counts are an officer's word" if verdict.attested else "ballots",
        "eligible": verdict.tally.eligible,
        "voted": verdict.tally.voted,
        "for": verdict.tally.votes_for,
        "against": verdict.tally.votes_against,
        "abstained": verdict.tally.abstained,
    }
    if as_json:
        print_json({**facts, "holds": not problems, "problems": problems})
    else:
        checks = {finding.check: finding.problem or "holds" for finding in verdict.findings}
        print_fields({**facts, **checks})
    if problems:
        raise Failure("the record does not hold: " + "; ".join(f"{name}: {why}" for name, why in problems.items()))


@vote.command()
@directory_argument
@json_option
def peers(directory: NodeDirectory, as_json: bool) -> None:
    """Show other nodes' signals: until when they hold, whether that is past, and what is odd about them."""
    answer = call(directory, "GET", "/admin/v1/signals/peers")
    if as_json:
        print_json(answer)
        return
    rows = []
    for entry in answer["peers"]:
        configuration = entry["configuration"] or {}
        remarks = [f"{each['kind']} {cell(each['categories'])} at {each['valid_from']}" for each in entry["remarks"]]
        moments = (configuration.get("valid_from"), configuration.get("valid_until"), entry["fetched_at"])
        rows.append([entry["node"], *moments, entry["stale"], remarks])
    print_table(("node", "valid_from", "valid_until", "fetched_at", "stale", "remarks"), rows, "None are known.")


def _write_credentials(file: Path, salt: bytes, printed: Sequence[tuple[str, str]]) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Failure(f"{file} could not be made: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("salt", salt.hex()))
        writer.writerows(printed)


def _path(vote_id: str) -> str:
    return f"/api/v1/signals/votes/{quote(vote_id, safe='')}"


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    results = answer.get("results") or {}
    print_fields(
        {
            "vote": answer["vote_id"],
            "state": answer.get("state") or answer.get("status"),
            **{name: value for name, value in results.items() if name != "status"},
        }
    )
