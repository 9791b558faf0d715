"""The SQL of runs, their claims, and discharges."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger.clearing.tables import PEER, Clearance, clearance_of
from loopd.ledger.netting.documents import Proposal
from loopd.ledger.netting.rules import (
    DISCHARGE_MOVES,
    RUN_MOVES,
    Claim,
    DischargeSide,
    DischargeState,
    KeptClaim,
    Method,
    Period,
    RunState,
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as this node keeps it. `document` is the InterNodeSettlement, with the signatures that there are."""

    number: int
    peer: str
    run: int
    state: RunState
    method: Method
    period: Period
    document: bytes
    reason: str | None
    closed_at_ms: int
    changed_at_ms: int
    reminders: int


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A run of a peer that this node did not sign, and why not. `place` points into its document."""

    run: int
    reason: str
    place: str | None


@dataclass(frozen=True, slots=True)
class Discharge:
    """A payment from reserve to reserve as this node keeps it."""

    number: int
    peer: str
    side: DischargeSide
    id: str
    state: DischargeState
    runs: Sequence[int]
    reference: str
    backing_minor: int
    falls_minor: int
    reason: str | None
    opened_at_ms: int
    changed_at_ms: int
    reminders: int

    def sides(self, home: str) -> tuple[str, str]:
        """Debtor and creditor, one of which is the own node, `home`."""
        return (home, self.peer) if self.side is DischargeSide.DEBTOR else (self.peer, home)


# Settlements that wait for a run


def unlisted(source: RowSource, peer: str, before_ms: int, limit: int) -> list[Clearance]:
    """What both books hold as posted before a moment and no run lists, the oldest first.

    The payee's side is told of a decision that the payer's has carried out; the payer's side knows by the
    acknowledgement.
    """
    rows = source.all(
        "SELECT * FROM clearing_settlement WHERE netting_run IS NULL AND state = 'posted' "
        f"AND (side = 'payee' OR acknowledged = 1) AND {PEER} = :peer AND changed_at_ms < :before "
        "ORDER BY changed_at_ms, number LIMIT :limit",
        {"peer": peer, "before": before_ms, "limit": limit},
    )
    return [clearance_of(row) for row in rows]


def listed_in(source: RowSource, run: int) -> list[Clearance]:
    """The settlements that a run lists, by its own number."""
    rows = source.all("SELECT * FROM clearing_settlement WHERE netting_run = ? ORDER BY number", (run,))
    return [clearance_of(row) for row in rows]


def run_of(source: RowSource, settlement: int) -> int | None:
    """The run that lists a settlement, by own number."""
    row = source.one("SELECT netting_run FROM clearing_settlement WHERE number = ?", (settlement,))
    return None if row is None else row["netting_run"]


def list_in(tx: Tx, run: int, settlements: Iterable[int]) -> None:
    """These settlements are in that run."""
    tx.executemany(
        "UPDATE clearing_settlement SET netting_run = ? WHERE number = ?", [(run, number) for number in settlements]
    )


def give_back(tx: Tx, run: int) -> None:
    """The settlements of a refused run are in none again."""
    tx.execute("UPDATE clearing_settlement SET netting_run = NULL WHERE netting_run = ?", (run,))


# Runs


def find_run(source: RowSource, peer: str, run: int) -> Run | None:
    """The run of that number with a peer."""
    row = source.one("SELECT * FROM netting_run WHERE peer = ? AND run = ?", (peer, run))
    return None if row is None else _run(row)


def run_by_number(source: RowSource, number: int) -> Run:
    """The run of an own number that is referred to."""
    row = source.one("SELECT * FROM netting_run WHERE number = ?", (number,))
    if row is None:
        raise RuntimeError(f"there is no run {number}")
    return _run(row)


def last_run(source: RowSource, peer: str) -> Run | None:
    """The newest run with a peer."""
    row = source.one("SELECT * FROM netting_run WHERE peer = ? ORDER BY run DESC LIMIT 1", (peer,))
    return None if row is None else _run(row)


def runs_page(source: RowSource, peer: str, before: int | None, limit: int) -> list[Run]:
    """The runs with a peer, the newest first."""
    rows = source.all(
        "SELECT * FROM netting_run WHERE peer = ? AND run < ? ORDER BY run DESC LIMIT ?",
        (peer, 2**63 - 1 if before is None else before, limit),
    )
    return [_run(row) for row in rows]


def insert_run(tx: Tx, peer: str, proposal: Proposal, document: bytes, at_ms: int) -> Run:
    """Keep a run with a peer that one of both nodes proposes; `document` is the proposal as it is signed."""
    run = proposal.name.run
    tx.execute(
        "INSERT INTO netting_run (peer, run, state, method, period, document, closed_at_ms, changed_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (peer, run, RunState.PROPOSED, proposal.method, proposal.period, document, proposal.closed_at_ms, at_ms),
    )
    kept = find_run(tx, peer, run)
    if kept is None:
        raise RuntimeError("an inserted run is not there")
    return kept


def decide_run(tx: Tx, run: Run, state: RunState, document: bytes, reason: str | None, at_ms: int) -> None:
    """The other side has signed, or refused. RuntimeError where that may not follow."""
    if state not in RUN_MOVES[run.state]:
        raise RuntimeError(f"a run does not go from {run.state} to {state}")
    tx.execute(
        "UPDATE netting_run SET state = ?, document = ?, reason = ?, changed_at_ms = ?, remind_at_ms = NULL "
        "WHERE number = ?",
        (state, document, reason, at_ms, run.number),
    )


def find_unsigned(source: RowSource, peer: str) -> Unsigned | None:
    """The newest run of a peer that this node did not sign."""
    row = source.one("SELECT run, reason, place FROM netting_unsigned WHERE peer = ?", (peer,))
    return None if row is None else Unsigned(row["run"], row["reason"], row["place"])


def note_unsigned(tx: Tx, peer: str, unsigned: Unsigned) -> None:
    """This node does not sign that run of a peer; one of a lower number is noted no more."""
    tx.execute(
        "INSERT INTO netting_unsigned (peer, run, reason, place) VALUES (?, ?, ?, ?) ON CONFLICT (peer) DO UPDATE SET "
        "run = excluded.run, reason = excluded.reason, place = excluded.place WHERE excluded.run > run",
        (peer, unsigned.run, unsigned.reason, unsigned.place),
    )


def remind_of_run(tx: Tx, number: int, at_ms: int, reminders: int) -> None:
    """When the proposal is said again."""
    tx.execute("UPDATE netting_run SET remind_at_ms = ?, reminders = ? WHERE number = ?", (at_ms, reminders, number))


def due_runs(source: RowSource, now_ms: int, limit: int) -> list[Run]:
    """Proposals that are to be said again."""
    rows = source.all(
        "SELECT * FROM netting_run WHERE remind_at_ms <= ? ORDER BY remind_at_ms LIMIT ?", (now_ms, limit)
    )
    return [_run(row) for row in rows]


# Claims


def insert_claims(tx: Tx, run: int, claims: Iterable[Claim], home: str) -> None:
    """What an agreed run makes each owe."""
    tx.executemany(
        "INSERT INTO netting_claim (run, debtor, creditor, backing_minor, falls_minor) VALUES (?, ?, ?, ?, ?)",
        [(run, each.debtor, each.creditor, each.backing_minor, each.falls_minor[home]) for each in claims],
    )


def claims_of_run(source: RowSource, number: int) -> list[KeptClaim]:
    """The claims of a run of an own number."""
    return _claims(source, "r.number = ?", (number,))


def open_claims(source: RowSource, peer: str) -> list[KeptClaim]:
    """What is not discharged between this node and a peer, nor on the way to be, by run."""
    return _claims(source, "r.peer = ? AND c.discharge IS NULL", (peer,))


def claims_of_discharge(source: RowSource, discharge: int) -> list[KeptClaim]:
    """What a discharge pays."""
    return _claims(source, "c.discharge = ?", (discharge,))


def discharge_claims(tx: Tx, claims: Iterable[KeptClaim], discharge: int | None) -> None:
    """These claims are paid by that discharge; or by none, where it was denied."""
    tx.executemany(
        "UPDATE netting_claim SET discharge = ? WHERE run = ? AND debtor = ?",
        [(discharge, each.number, each.debtor) for each in claims],
    )


# Discharges


def find_discharge(source: RowSource, peer: str, side: DischargeSide, discharge_id: str) -> Discharge | None:
    """The discharge of an id, which its debtor gave."""
    row = source.one(
        "SELECT * FROM netting_discharge WHERE peer = ? AND side = ? AND id = ?", (peer, side, discharge_id)
    )
    return None if row is None else _discharge(row)


def discharge_by_number(source: RowSource, number: int) -> Discharge:
    """The discharge of an own number that is referred to."""
    row = source.one("SELECT * FROM netting_discharge WHERE number = ?", (number,))
    if row is None:
        raise RuntimeError(f"there is no discharge {number}")
    return _discharge(row)


def discharges_page(source: RowSource, peer: str, before: int | None, limit: int) -> list[Discharge]:
    """The discharges between this node and a peer, the newest first."""
    rows = source.all(
        "SELECT * FROM netting_discharge WHERE peer = ? AND number < ? ORDER BY number DESC LIMIT ?",
        (peer, 2**63 - 1 if before is None else before, limit),
    )
    return [_discharge(row) for row in rows]


def count_denied(source: RowSource, peer: str, side: DischargeSide, since_ms: int) -> int:
    """How many discharges of a side were denied lately."""
    row = source.one(
        "SELECT count(*) AS denied FROM netting_discharge WHERE peer = ? AND side = ? AND state = 'denied' "
        "AND opened_at_ms > ?",
        (peer, side, since_ms),
    )
    return 0 if row is None else int(row["denied"])


def insert_discharge(tx: Tx, discharge: Discharge) -> Discharge:
    """Keep a discharge; gives it with its number, which it did not have before."""
    tx.execute(
        "INSERT INTO netting_discharge (peer, side, id, state, runs, reference, backing_minor, falls_minor, reason, "
        "opened_at_ms, changed_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            discharge.peer,
            discharge.side,
            discharge.id,
            discharge.state,
            json.dumps(list(discharge.runs)),
            discharge.reference,
            discharge.backing_minor,
            discharge.falls_minor,
            discharge.reason,
            discharge.opened_at_ms,
            discharge.changed_at_ms,
        ),
    )
    kept = find_discharge(tx, discharge.peer, discharge.side, discharge.id)
    if kept is None:
        raise RuntimeError("an inserted discharge is not there")
    return kept


def decide_discharge(tx: Tx, discharge: Discharge, state: DischargeState, reason: str | None, at_ms: int) -> None:
    """The creditor has said whether the money came. RuntimeError where that may not follow."""
    if state not in DISCHARGE_MOVES[discharge.state]:
        raise RuntimeError(f"a discharge does not go from {discharge.state} to {state}")
    tx.execute(
        "UPDATE netting_discharge SET state = ?, reason = ?, changed_at_ms = ?, remind_at_ms = NULL WHERE number = ?",
        (state, reason, at_ms, discharge.number),
    )


def remind_of_discharge(tx: Tx, number: int, at_ms: int, reminders: int) -> None:
    """When the announcement is said again."""
    tx.execute(
        "UPDATE netting_discharge SET remind_at_ms = ?, reminders = ? WHERE number = ?", (at_ms, reminders, number)
    )


def due_discharges(source: RowSource, now_ms: int, limit: int) -> list[Discharge]:
    """Announcements that are to be said again."""
    rows = source.all(
        "SELECT * FROM netting_discharge WHERE remind_at_ms <= ? ORDER BY remind_at_ms LIMIT ?", (now_ms, limit)
    )
    return [_discharge(row) for row in rows]


def _claims(source: RowSource, condition: str, parameters: tuple[str | int, ...]) -> list[KeptClaim]:
    rows = source.all(
        "SELECT c.run AS number, r.run, r.method, c.debtor, c.creditor, c.backing_minor, c.falls_minor, c.discharge "
        f"FROM netting_claim c JOIN netting_run r ON r.number = c.run WHERE {condition} ORDER BY r.run, c.debtor",
        parameters,
    )
    return [
        KeptClaim(
            row["number"],
            row["run"],
            Method(row["method"]),
            row["debtor"],
            row["creditor"],
            row["backing_minor"],
            row["falls_minor"],
            row["discharge"],
        )
        for row in rows
    ]


def _run(row: sqlite3.Row) -> Run:
    return Run(
        row["number"],
        row["peer"],
        row["run"],
        RunState(row["state"]),
        Method(row["method"]),
        Period(row["period"]),
        row["document"],
        row["reason"],
        row["closed_at_ms"],
        row["changed_at_ms"],
        row["reminders"],
    )


def _discharge(row: sqlite3.Row) -> Discharge:
    return Discharge(
        row["number"],
        row["peer"],
        DischargeSide(row["side"]),
        row["id"],
        DischargeState(row["state"]),
        json.loads(row["runs"]),
        row["reference"],
        row["backing_minor"],
        row["falls_minor"],
        row["reason"],
        row["opened_at_ms"],
        row["changed_at_ms"],
        row["reminders"],
    )
