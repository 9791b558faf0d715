"""`loopd clearing`: what lies between this city and another: payments, the runs that both sign, and their discharge."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from loopd.cli.admin_client import call
from loopd.cli.options import directory_argument, json_option
from loopd.cli.output import print_fields, print_json, print_table
from loopd.directory import NodeDirectory

_DISCHARGE = ("id", "debtor", "creditor", "amount", "currency", "state", "reference", "runs", "changed_at", "reason")
peer_argument = click.argument("peer", metavar="PEER")


@click.group()
def clearing() -> None:
    """What this city and another owe each other, the runs that both sign, and how they are paid."""


@clearing.command()
@directory_argument
@peer_argument
@json_option
def show(directory: NodeDirectory, peer: str, as_json: bool) -> None:
    """Show the balance with PEER, what signed runs leave to be paid, and the newest payments between both cities."""
    answer = call(directory, "GET", _path(peer))
    if as_json:
        print_json(answer)
        return
    print_fields({name: value for name, value in answer.items() if name not in ("results", "next")})
    columns = ("transaction", "payer", "payee", "state", "payer_amount", "payee_amount", "changed_at", "reason")
    _table(columns, answer["results"], "Nothing was settled yet.")


@clearing.command()
@directory_argument
@peer_argument
@json_option
def runs(directory: NodeDirectory, peer: str, as_json: bool) -> None:
    """List the newest runs with PEER: what both cities signed that is to be paid."""
    answer = call(directory, "GET", _path(peer, "/runs"))
    if as_json:
        print_json(answer["results"])
        return
    rows = [
        {**run, **claim, "discharged": "yes" if claim.get("discharged") else "no"}
        for run in answer["results"]
        for claim in run["claims"] or [{}]
    ]
    columns = ("run", "state", "method", "closed_at", "debtor", "creditor", "amount", "discharged", "reason")
    _table(columns, rows, "There are no runs yet.")


@clearing.command()
@directory_argument
@peer_argument
@json_option
def propose(directory: NodeDirectory, peer: str, as_json: bool) -> None:
    """Propose a run of what both cities have posted to PEER now, before its period is over."""
    answer = call(directory, "POST", _path(peer, "/runs"), {})
    if as_json:
        print_json(answer)
    else:
        print_fields({name: answer[name] for name in ("run", "state", "method")})


@clearing.command()
@directory_argument
@peer_argument
@click.argument("run", type=click.IntRange(min=1))
def document(directory: NodeDirectory, peer: str, run: int) -> None:
    """Print the InterNodeSettlement of RUN with PEER, as both cities signed it."""
    print_json(call(directory, "GET", _path(peer, f"/runs/{run}")))


@clearing.command()
@directory_argument
@peer_argument
@json_option
def discharges(directory: NodeDirectory, peer: str, as_json: bool) -> None:
    """List the newest payments from reserve to reserve between this city and PEER."""
    answer = call(directory, "GET", _path(peer, "/discharges"))
    if as_json:
        print_json(answer["results"])
    else:
        _table(_DISCHARGE, answer["results"], "Nothing was paid yet.")


@clearing.command()
@directory_argument
@peer_argument
@click.argument("run", type=click.IntRange(min=1))
@click.argument("reference")
@click.option("--id", "discharge_id", type=click.UUID, help="The discharge's id, to repeat a command without effect.")
@json_option
def pay(
    directory: NodeDirectory, peer: str, run: int, reference: str, discharge_id: uuid.UUID | None, as_json: bool
) -> None:
    """Announce to PEER that this city has paid what RUN makes it owe; REFERENCE is the bank's.

    So much of the reserve is held until the peer says whether the money came. With the method `clearing` all that is
    carried up to RUN is paid together.
    """
    body = {"id": str(discharge_id or uuid.uuid4()), "run": run, "reference": reference}
    _show(call(directory, "POST", _path(peer, "/discharges"), body), as_json)


@clearing.command()
@directory_argument
@peer_argument
@click.argument("discharge_id", metavar="ID", type=click.UUID)
@json_option
def confirm(directory: NodeDirectory, peer: str, discharge_id: uuid.UUID, as_json: bool) -> None:
    """Say that the payment ID of PEER has come: it is in the reserve, and PEER owes so much less. That is final."""
    _show(call(directory, "POST", _path(peer, f"/discharges/{discharge_id}/confirm"), {}), as_json)


@clearing.command()
@directory_argument
@peer_argument
@click.argument("discharge_id", metavar="ID", type=click.UUID)
@click.argument("reason")
@json_option
def deny(directory: NodeDirectory, peer: str, discharge_id: uuid.UUID, reason: str, as_json: bool) -> None:
    """Say that the payment ID of PEER has not come, and why: the runs are owed again. That is final."""
    _show(call(directory, "POST", _path(peer, f"/discharges/{discharge_id}/deny"), {"reason": reason}), as_json)


def _path(peer: str, rest: str = "") -> str:
    return f"/api/v1/loopcoin/clearing/{quote(peer)}{rest}"


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    print_table(columns, [[row.get(column) for column in columns] for row in rows], empty)


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_fields({name: answer[name] for name in _DISCHARGE if name in answer})
