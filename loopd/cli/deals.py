"""`loopd supply`, `match`, `transfer`, `transaction`: what this city offers, whom it goes to, and where it is."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from loopd.cli.admin_client import call
from loopd.cli.options import DECISIONS, CommandGroup, directory_argument, json_option, limit_option, read_file
from loopd.cli.output import json_bytes, print_fields, print_gap, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.contexts import CURRENT_VERSION, context_url
from loopd.protocol.lifecycle import MirroredEntity
from loopd.settings import load_settings


@dataclass(frozen=True, slots=True)
class _Noun:
    """One of the four: its command, what its document is called, and the columns of its list beside the usual ones."""

    command: str
    entity: MirroredEntity
    document: str
    columns: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"/api/v1/{self.entity.value}"

    @property
    def statuses(self) -> tuple[str, ...]:
        return tuple(self.entity.lifecycle.successors)


_SUPPLY = _Noun("supply", MirroredEntity.OFFER, "Offer", ("quantity", "to_city", "available_until"))
_MATCH = _Noun("match", MirroredEntity.MATCH, "Match", ("offer_id", "to_city", "to_node", "valid_until"))
_TRANSFER = _Noun("transfer", MirroredEntity.TRANSFER, "Transfer", ("match_id", "handoff_at", "received_at", "part_id"))
_TRANSACTION = _Noun(
    "transaction", MirroredEntity.TRANSACTION, "MaterialTransaction", ("match_id", "buyer", "loop_cost")
)


def _group(noun: _Noun, summary: str) -> click.Group:
    """The commands of one of the four, but for how it is made."""
    group = CommandGroup(noun.command, help=f"{summary} The daemon must be running.")

    @group.command(name="list", help="List them, newest first.")
    @directory_argument
    @click.option("--status", type=click.Choice(noun.statuses), help="Only those that have this status.")
    @limit_option
    @json_option
    def list_entries(directory: NodeDirectory, status: str | None, limit: int, as_json: bool) -> None:
        query = {"limit": limit, **({} if status is None else {"status": status})}
        answer = call(directory, "GET", f"{noun.path}?{urlencode(query)}")
        if as_json:
            print_json(answer)
            return
        columns = ("id", "subject", "status", "version", *(name.replace("_", " ") for name in noun.columns))
        rows = [_row(entry, noun) for entry in answer["results"]]
        print_table(columns, rows, f"There is no {noun.command} here.")

    @group.command(help="Show one with its whole history.")
    @directory_argument
    @click.argument("entry_id", metavar="ID")
    @json_option
    def show(directory: NodeDirectory, entry_id: str, as_json: bool) -> None:
        answer = call(directory, "GET", f"{_path_of(noun, entry_id)}/history")
        if as_json:
            print_json(answer)
            return
        newest = answer["results"][-1].get("document") or {}
        names = ("id", "subject", "status", "version", *noun.columns)
        print_fields(dict(zip(names, _row({**answer["results"][-1], **newest}, noun), strict=True)))
        print_gap()
        columns = ("version", "status", "reason", "changed_by", "changed_at")
        rows = [[change.get(name) for name in columns] for change in answer["results"]]
        print_table([name.replace("_", " ") for name in columns], rows, "")

    @group.command(help=f"Move one to another status: {', '.join(noun.statuses)}.")
    @directory_argument
    @click.argument("entry_id", metavar="ID")
    @click.argument("status", type=click.Choice(noun.statuses), metavar="STATUS")
    @click.option("--reason", help="Why; it is kept with the new version.")
    @json_option
    def status(directory: NodeDirectory, entry_id: str, status: str, reason: str | None, as_json: bool) -> None:
        body = {"status": status, **({} if reason is None else {"reason": reason})}
        _print_state(call(directory, "POST", f"{_path_of(noun, entry_id)}/status", body), as_json)

    return group


def _add_create(group: click.Group, noun: _Noun) -> click.Group:
    """The command that makes one of a document."""

    @group.command(help=f"Make the {noun.document} in FILE, or from standard input with -. Prints its id and status.")
    @directory_argument
    @click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
    @json_option
    def create(directory: NodeDirectory, file: Path, as_json: bool) -> None:
        _print_state(call(directory, "POST", noun.path, document=read_file(file)), as_json)

    return group


def _path_of(noun: _Noun, entry_id: str) -> str:
    return f"{noun.path}/{quote(entry_id, safe='')}"


def _print_state(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    shown = {"id": answer.get("id") or answer.get("transaction_id")}
    print_fields({**shown, **{name: answer.get(name) for name in ("status", "version", "updated_at")}})


def _row(entry: Any, noun: _Noun) -> list[Any]:
    sale = entry.get("transaction") or {}
    stated = {**sale, "loop_cost": (sale.get("offer") or {}).get("loop_cost"), **entry}
    subject = next((stated[name] for name in _SUBJECT_KEYS if stated.get(name)), None)
    identifier = entry.get("transaction_id") or entry.get("id")
    return [identifier, subject, entry["status"], entry["version"], *(_cell(stated.get(name)) for name in noun.columns)]


_SUBJECT_KEYS = ("material_id", "product_id", "material", "product")


def _cell(value: Any) -> Any:
    return f"{value.get('value')} {value.get('unit')}" if isinstance(value, dict) else value


supply = _add_create(_group(_SUPPLY, "Offers of this city: how much of what is to be had, until when."), _SUPPLY)
match = _add_create(
    _group(_MATCH, "Matches: an offer and whom it goes to. An active one reserves what is offered."), _MATCH
)
transfer = _group(_TRANSFER, "Transfers: goods on their way.")
transaction = _add_create(_group(_TRANSACTION, "Transactions: what was sold, and where it stands."), _TRANSACTION)


@transfer.command(name="create")
@directory_argument
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--match", "match_id", metavar="MATCH-ID", help="Whose goods go; `transaction list` names it.")
@click.option("--handoff-at", metavar="TIME", help="When they are handed over, 2026-11-21T08:00:00Z; without: now.")
@click.option("--id", "transfer_id", metavar="ID", help="Its id; without, one is made.")
@json_option
def create_transfer(
    directory: NodeDirectory,
    file: Path | None,
    match_id: str | None,
    handoff_at: str | None,
    transfer_id: str | None,
    as_json: bool,
) -> None:
    """Make a Transfer of the goods of a Match, or the one in FILE (standard input with -). Prints its id and status.

    A transaction that becomes `in_transit` makes one by itself, where there is none. The transaction follows its
    Transfer, and its payment does; the buyer's city says that the goods have come with `loopd mirror ask`.
    """
    if file is not None:
        if match_id or handoff_at or transfer_id:
            raise click.UsageError("FILE says all of it; the options make a Transfer without one")
        _print_state(call(directory, "POST", _TRANSFER.path, document=read_file(file)), as_json)
        return
    if match_id is None:
        raise click.UsageError("name a FILE, or the Match with --match")
    of_match = call(directory, "GET", _path_of(_MATCH, match_id))
    document = {
        "@context": context_url(load_settings(directory.root).node.context_host),
        "@type": _TRANSFER.document,
        "schema_version": CURRENT_VERSION,
        "id": transfer_id or f"TRANSFER-{secrets.token_hex(8).upper()}",
        "match_id": match_id,
        **{name: of_match[name] for name in ("material_id", "product_id") if name in of_match},
        "status": "scheduled",
        "handoff_at": handoff_at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    _print_state(call(directory, "POST", _TRANSFER.path, document=json_bytes(document)), as_json)


@transaction.command()
@directory_argument
@click.argument("transaction_id", metavar="ID")
@json_option
def settlement(directory: NodeDirectory, transaction_id: str, as_json: bool) -> None:
    """Show what a transaction of this city pays to whom, and whether it is held, posted, voided or frozen."""
    _print_settlement(call(directory, "GET", _settlement_path(transaction_id)), as_json)


@transaction.command()
@directory_argument
@click.argument("transaction_id", metavar="ID")
@click.argument("decision", type=click.Choice(DECISIONS))
@json_option
def resolve(directory: NodeDirectory, transaction_id: str, decision: str, as_json: bool) -> None:
    """End the dispute about the payment of a transaction within this city: post it, or void it. Once.

    What another city pays is resolved there, with `loopd clearing resolve`.
    """
    path = f"{_settlement_path(transaction_id)}/resolve"
    _print_settlement(call(directory, "POST", path, {"decision": decision}), as_json)


def _settlement_path(transaction_id: str) -> str:
    return f"/api/v1/loopcoin/settlement/{quote(transaction_id, safe='')}"


def _print_settlement(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    payment = answer["payment"]
    shown = {"id": answer["transaction_id"], "seller": answer["seller"], "buyer": answer["buyer"]}
    print_fields({**shown, "payment": payment["state"], "total": payment["total"], **payment["lines"]})
