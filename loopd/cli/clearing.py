"""`loopd clearing`: what lies between this city and another: payments, the runs that both sign, and their discharge."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from loopd.cli.admin_client import call
from loopd.cli.failure import Failure
from loopd.cli.options import DECISIONS, CommandGroup, directory_argument, json_option, limit_option
from loopd.cli.output import print_fields, print_gap, print_json, print_table
from loopd.directory import NodeDirectory
from loopd.protocol.limits import LIST_LIMIT_MAX

_DISCHARGE = ("id", "debtor", "creditor", "amount", "currency", "state", "reference", "runs", "changed_at", "reason")
peer_argument = click.argument("peer", metavar="PEER")


@click.group(cls=CommandGroup)
def clearing() -> None:
    """What this city and another owe each other, the runs that both sign, and how they are paid."""


@clearing.command()
@directory_argument
@peer_argument
@limit_option
@json_option
def show(directory: NodeDirectory, peer: str, limit: int, as_json: bool) -> None:
    """Show the balance with PEER, what signed runs leave to be paid, and the newest payments between both cities.

    What a dispute has frozen is ended by `resolve`.
    """
    answer = call(directory, "GET", _path(peer, f"?limit={limit}"))
    if as_json:
        print_json(answer)
        return
    print_fields(
        {
            "peer": peer,
            "balance": _debt(peer, "owes", answer["owes"], answer["currency"]),
            "to_pay": _debt(peer, "pays", answer["to_pay"], answer["backed_by"]),
            "credit_limit": f"{answer['credit_limit']} {answer['currency']}",
            "method": answer["method"],
            "period": answer["period"],
        }
    )
    print_gap()
    columns = ("transaction", "payer", "payee", "state", "payer_amount", "payee_amount", "changed_at", "reason")
    rows = [{**sale, "state": "frozen"} if sale.get("frozen") else sale for sale in answer["results"]]
    _table(columns, rows, "Nothing was settled yet.")


@clearing.command()
@directory_argument
@peer_argument
@click.argument("transaction_id", metavar="TRANSACTION")
@click.argument("decision", type=click.Choice(DECISIONS))
@json_option
def resolve(directory: NodeDirectory, peer: str, transaction_id: str, decision: str, as_json: bool) -> None:
    """End the dispute about what this city pays for TRANSACTION, a sale of PEER's: post it, or void it. Once.

    Where this city sold, the buyer's does that; within the city `loopd transaction resolve`.
    """
    settlement_id = _payment_for(directory, peer, transaction_id)
    answer = call(directory, "POST", _path(peer, f"/settlements/{settlement_id}/resolve"), {"decision": decision})
    if as_json:
        print_json(answer)
    else:
        columns = ("transaction", "payer", "payee", "state", "payer_amount", "payee_amount", "changed_at")
        print_fields({name: answer.get(name) for name in columns})


@clearing.command()
@directory_argument
@peer_argument
@limit_option
@json_option
def runs(directory: NodeDirectory, peer: str, limit: int, as_json: bool) -> None:
    """List the newest runs with PEER: what both cities signed that is to be paid."""
    answer = call(directory, "GET", _path(peer, f"/runs?limit={limit}"))
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
@limit_option
@json_option
def discharges(directory: NodeDirectory, peer: str, limit: int, as_json: bool) -> None:
    """List the newest payments from reserve to reserve between this city and PEER."""
    answer = call(directory, "GET", _path(peer, f"/discharges?limit={limit}"))
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


def _debt(peer: str, verb: str, amount: Any, currency: str) -> str:
    """Whose an amount is: this city's, or below zero the peer's."""
    if amount == 0:
        return f"nothing, in {currency}"
    return f"{'this city' if amount > 0 else peer} {verb} {abs(amount)} {currency}"


def _payment_for(directory: NodeDirectory, peer: str, transaction_id: str) -> str:
    """The id of this city's payment for a sale of the peer's. Both cities number their sales by themselves."""
    path: str | None = _path(peer, f"?limit={LIST_LIMIT_MAX}")
    while path is not None:
        page = call(directory, "GET", path)
        for sale in page["results"]:
            if sale["payee"] == peer and sale.get("transaction") == transaction_id:
                return str(sale["id"])
        path = page["next"]
    raise Failure(
        f"this city pays nothing for {transaction_id} to {peer} (loopd clearing show {directory.root} {peer})"
    )


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    print_table(columns, [[row.get(column) for column in columns] for row in rows], empty)


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_fields({name: answer[name] for name in _DISCHARGE if name in answer})
