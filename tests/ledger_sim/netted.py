"""Runs and discharges of two cities held against each other, read anew from their raw rows.

While nothing is on its way. AssertionError names the first place that is wrong.
"""

import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

from loopd.database.rows import RowSource
from loopd.ledger.netting.documents import is_signed
from loopd.protocol.json_text import read_json
from tests.ledger_sim.city import KEYS

Sources = Mapping[str, RowSource]


def check_between(sources: Sources) -> None:
    """Both have signed the same, both know alike what is paid, and the clearing accounts are what is not."""
    for pair in combinations(sorted(sources), 2):
        here, there = ((sources[name], name, other) for name, other in (pair, pair[::-1]))
        runs, discharges = _runs(*here), _discharges(*here)
        assert runs == _runs(*there), f"{pair}: runs {runs} and {_runs(*there)}"
        assert discharges == _discharges(*there), f"{pair}: discharges {discharges} and {_discharges(*there)}"
        for document in runs.values():
            value = read_json(document)
            assert isinstance(value, dict)
            assert [is_signed(value, name, [KEYS[name].public]) for name in pair] == [True, True], value
        assert _open_sales(*here) == _open_sales(*there), f"{pair}: what is not paid differs"
        for each in (here, there):
            _check_listed(each, runs)
            _check_balance(*each)
    for name, source in sources.items():
        _check_reserve(source, name)


def _runs(source: RowSource, home: str, peer: str) -> dict[int, bytes]:
    """What both have signed, to the byte; nothing is undecided."""
    rows = source.all("SELECT run, state, document FROM netting_run WHERE peer = ?", (peer,))
    assert not any(row["state"] == "proposed" for row in rows), f"{home} waits for {peer}"
    return {row["run"]: row["document"] for row in rows if row["state"] == "agreed"}


def _discharges(source: RowSource, home: str, peer: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """By debtor and id: how it stands, what it pays and for what."""
    rows = source.all("SELECT * FROM netting_discharge WHERE peer = ?", (peer,))
    return {
        (home if row["side"] == "debtor" else peer, row["id"]): (
            *(row[name] for name in ("state", "runs", "reference", "backing_minor")),
            row["reason"],
        )
        for row in rows
    }


def _check_listed(books: tuple[RowSource, str, str], runs: Mapping[int, bytes]) -> None:
    """Each payment is in at most one signed run, and the book says in which; what is owed follows from them alone."""
    source, home, peer = books
    query = (
        "SELECT s.id, r.run FROM clearing_settlement s JOIN netting_run r ON r.number = s.netting_run WHERE r.peer = ?"
    )
    kept = {row["id"]: row["run"] for row in source.all(query, (peer,))}
    told: dict[str, int] = {}
    for number, document in runs.items():
        value = json.loads(document, parse_float=Decimal)
        for transfer in value["transfers"]:
            assert told.setdefault(transfer["id"], number) == number, f"{transfer['id']} is in two runs"
        claims = {(each["debtor"], each["creditor"]): Fraction(each["amount"]) for each in value["claims"]}
        expected = _claims(source, value)
        assert claims == expected, f"{home} and {peer} signed {claims} in run {number}, not {expected}"
    assert kept == told, f"{home} lists {kept} with {peer}, and has signed {told}"


def _claims(source: RowSource, value: Mapping[str, Any]) -> dict[tuple[str, str], Fraction]:
    """What the payments of a run come to in the backing, from what was asked for and prepared."""
    first, second = value["from_node"], value["to_node"]
    owed, crossed = dict.fromkeys((first, second), Fraction(0)), dict.fromkeys((first, second), 0)
    for transfer in value["transfers"]:
        row = source.one(
            "SELECT payer_node, request, payee_minor FROM clearing_settlement WHERE id = ? AND state = 'posted'",
            (transfer["id"],),
        )
        assert row is not None, f"{transfer['id']} is not posted"
        rate = Fraction(json.loads(row["request"], parse_float=Decimal)["exchange_rate"])
        owed[row["payer_node"]] += row["payee_minor"] / rate
        crossed[row["payer_node"]] += row["payee_minor"]
    if value["settlement_method"] != "gross":
        owed, crossed = {first: owed[first] - owed[second]}, {first: sum(crossed.values())}
    found = {}
    for name, amount in owed.items():
        other = second if name == first else first
        if crossed[name]:
            found[(name, other) if amount >= 0 else (other, name)] = Fraction(-(-abs(amount) // 1), 100)
    return found


def _open_sales(source: RowSource, home: str, peer: str) -> Counter[str]:
    """The posted sales that no confirmed discharge pays."""
    rows = source.all(
        "SELECT s.id, d.state FROM clearing_settlement s LEFT JOIN netting_run r ON r.number = s.netting_run "
        "LEFT JOIN netting_claim c ON c.run = r.number AND (r.method <> 'gross' OR c.debtor = s.payer_node) "
        "LEFT JOIN netting_discharge d ON d.number = c.discharge "
        "WHERE s.state = 'posted' AND ? IN (s.payer_node, s.payee_node)",
        (peer,),
    )
    # In one row each: neither a run nor a claim has a sale twice.
    assert len({row["id"] for row in rows}) == len(rows), f"{home} pays a sale with {peer} twice"
    return Counter(row["id"] for row in rows if row["state"] != "confirmed")


def _check_balance(source: RowSource, home: str, peer: str) -> None:
    """The clearing account is what is not paid, line by line as it crossed."""
    row = source.one(
        "SELECT coalesce(sum(e.amount_minor), 0) AS minor FROM ledger_account a "
        "JOIN ledger_entry e ON e.account = a.number WHERE a.id = ?",
        (f"node:clearing.{peer}@{home}",),
    )
    assert row is not None
    expected = 0
    for name in _open_sales(source, home, peer):
        sale = source.one("SELECT side, payer_minor, payee_minor FROM clearing_settlement WHERE id = ?", (name,))
        assert sale is not None
        expected += sale["payer_minor"] if sale["side"] == "payer" else -sale["payee_minor"]
    assert row["minor"] == expected, f"{home} with {peer}: {row['minor']}, and {expected} is not paid"


def _check_reserve(source: RowSource, home: str) -> None:
    """Each confirmed discharge moved the reserve once, by what it pays."""
    moved = source.one(
        "SELECT coalesce(sum(e.amount_minor), 0) AS minor, count(*) AS times FROM ledger_account a "
        "JOIN ledger_entry e ON e.account = a.number JOIN ledger_transfer t ON t.number = e.transfer "
        "WHERE a.role = 'reserve' AND t.kind = 'settlement'"
    )
    paid = source.one(
        "SELECT coalesce(sum(CASE side WHEN 'debtor' THEN -backing_minor ELSE backing_minor END), 0) AS minor, "
        "count(*) AS times FROM netting_discharge WHERE state = 'confirmed' AND backing_minor > 0"
    )
    assert moved is not None
    assert paid is not None
    assert tuple(moved) == tuple(paid), f"{home}: the reserve moved {tuple(moved)}, and paid was {tuple(paid)}"
