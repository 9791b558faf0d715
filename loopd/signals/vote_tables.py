"""The SQL of proposals and their votes; that of ballots is in ballot_tables.py."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.signals.governance import (
    UNDECIDED,
    Change,
    Method,
    State,
    Tally,
    Terms,
    Vote,
    read_fraction,
)

_UNDECIDED = ", ".join(f"'{state.value}'" for state in sorted(UNDECIDED))


def add(tx: Tx, vote: Vote) -> int:
    """Keep a new proposal; its number."""
    cursor = tx.execute(
        "INSERT INTO signal_vote (vote_id, state, method, changes, opens_ms, closes_stated_ms, closes_ms, eligible)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            vote.vote_id,
            vote.state.value,
            vote.method.value,
            json.dumps([_change_json(change) for change in vote.changes], separators=(",", ":")),
            vote.opens_ms,
            vote.closes_stated_ms,
            vote.closes_ms,
            vote.eligible,
        ),
    )
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted row has a number")
    return cursor.lastrowid


def save(tx: Tx, vote: Vote) -> None:
    """Keep what became of a proposal."""
    terms, tally = vote.terms, vote.tally
    values: dict[str, Any] = {
        "state": vote.state.value,
        "eligible": vote.eligible if terms is None else terms.eligible,
        "quorum": None if terms is None else str(terms.quorum),
        "threshold": None if terms is None else str(terms.threshold),
        "appeals_ms": None if terms is None else terms.appeals_ms,
        "voted": None if tally is None else tally.voted,
        "votes_for": None if tally is None else tally.votes_for,
        "votes_against": None if tally is None else tally.votes_against,
        "attestation": vote.attestation,
        "reason": vote.reason,
        "counted_at_ms": vote.counted_at_ms,
        "decided_at_ms": vote.decided_at_ms,
        "effective_from_ms": vote.effective_from_ms,
    }
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    tx.execute(f"UPDATE signal_vote SET {assignments} WHERE number = :number", {**values, "number": vote.number})


def find(source: RowSource, vote_id: str) -> Vote | None:
    """The vote of an id."""
    row = source.one("SELECT * FROM signal_vote WHERE vote_id = ?", (vote_id,))
    return None if row is None else _vote(row)


def newest(source: RowSource, limit: int) -> list[Vote]:
    """The proposals, the newest first."""
    return [_vote(row) for row in source.all("SELECT * FROM signal_vote ORDER BY number DESC LIMIT ?", (limit,))]


def undecided(source: RowSource) -> list[Vote]:
    """The proposals that are not decided, in the order in which they were made."""
    rows = source.all(f"SELECT * FROM signal_vote WHERE state IN ({_UNDECIDED}) ORDER BY number")
    return [_vote(row) for row in rows]


def count(source: RowSource) -> int:
    """How many proposals there ever were."""
    row = source.one("SELECT count(*) AS number FROM signal_vote")
    return 0 if row is None else int(row["number"])


def claim(tx: Tx, number: int, categories: Iterable[str]) -> None:
    """Hold the categories for a proposal. sqlite3.IntegrityError where another undecided one has one of them."""
    tx.executemany(
        "INSERT INTO undecided_category (category, vote) VALUES (?, ?)",
        [(category, number) for category in sorted(categories)],
    )


def claimed(source: RowSource) -> dict[str, str]:
    """The categories of undecided proposals, each with the proposal's id."""
    rows = source.all("SELECT c.category, v.vote_id FROM undecided_category c JOIN signal_vote v ON v.number = c.vote")
    return {row["category"]: row["vote_id"] for row in rows}


def release(tx: Tx, number: int) -> None:
    """Let go of a decided proposal's categories."""
    tx.execute("DELETE FROM undecided_category WHERE vote = ?", (number,))


def _change_json(change: Change) -> dict[str, Any]:
    stated: dict[str, Any] = {
        "category": change.category,
        "current": change.current,
        "proposed": change.proposed,
    }
    if change.reason is not None:
        stated["reason"] = change.reason
    return stated


def _vote(row: sqlite3.Row) -> Vote:
    terms = tally = None
    if row["quorum"] is not None:
        quorum, threshold = read_fraction(row["quorum"]), read_fraction(row["threshold"])
        terms = Terms(row["eligible"], quorum, threshold, row["appeals_ms"])
    if row["voted"] is not None:
        tally = Tally(row["eligible"], row["voted"], row["votes_for"], row["votes_against"])
    return Vote(
        number=row["number"],
        vote_id=row["vote_id"],
        state=State(row["state"]),
        method=Method(row["method"]),
        changes=tuple(Change(**change) for change in json.loads(row["changes"])),
        opens_ms=row["opens_ms"],
        closes_stated_ms=row["closes_stated_ms"],
        closes_ms=row["closes_ms"],
        eligible=row["eligible"],
        terms=terms,
        tally=tally,
        attestation=row["attestation"],
        reason=row["reason"],
        counted_at_ms=row["counted_at_ms"],
        decided_at_ms=row["decided_at_ms"],
        effective_from_ms=row["effective_from_ms"],
    )
