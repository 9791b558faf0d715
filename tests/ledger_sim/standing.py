"""What stands in a city's books, held against what its model has; AssertionError where they differ."""

import json
from collections.abc import Mapping
from itertools import permutations
from typing import Any

from loopd.ledger import checks
from loopd.ledger.reconciliation.rules import compare
from loopd.ledger.reconciliation.tables import statement
from tests.ledger_sim.asks import Key
from tests.ledger_sim.city import City
from tests.ledger_sim.deals import ENDED
from tests.ledger_sim.netting import Model


def check_money(city: City, model: Model) -> None:
    """Lots, balances and what of them is held, on every account."""
    found, known = _found(city), _known(model)
    differences = [
        f"{account}: {found.get(account)}, expected {known.get(account)}"
        for account in sorted(found.keys() | known.keys())
        if found.get(account) != known.get(account)
    ]
    assert not differences, f"{city.node_id}: {'; '.join(differences)}"


def check_deal(city: City, model: Model, key: Key, settlement: str | None) -> None:
    """A sale between cities as this one keeps it, and what its exchange was told of it."""
    row = city.source.one(
        "SELECT side, state, frozen, wanted, acknowledged, ask, reason, payer_minor, payee_minor "
        "FROM clearing_settlement WHERE id = ?",
        (settlement,),
    )
    found, known = None if row is None else tuple(row), _deal(model, key)
    assert found == known, f"{city.node_id} keeps {key} as {found}, expected {known}"
    if key in model.ins:
        told = city.told_of(key[1])
        assert told == model.told.get(key[1]), f"{city.node_id}: {key} was told as {told}: {model.told.get(key[1])}"


def check_runs(city: City, model: Model, keys: Mapping[str, Key]) -> None:
    """The runs with all others, what they list, and the discharges."""
    found: dict[Any, Any] = {}
    rows = city.source.all("SELECT number, peer, run, state, method, period, closed_at_ms, reason FROM netting_run")
    listed: dict[int, set[Key]] = {}
    for row in city.source.all("SELECT id, netting_run FROM clearing_settlement WHERE netting_run IS NOT NULL"):
        listed.setdefault(row["netting_run"], set()).add(keys[row["id"]])
    for number, peer, run, *rest in rows:
        found[peer, run] = (*rest, listed.get(number, set()))
    for row in city.source.all("SELECT * FROM netting_discharge"):
        sides: tuple[str, str] = (city.node_id, row["peer"]) if row["side"] == "debtor" else (row["peer"], city.node_id)
        runs = tuple(json.loads(row["runs"]))
        name = f"even {runs[0]}" if row["reference"] == "even" else row["id"]
        found[*sides, name] = (row["state"], runs, row["reference"], row["backing_minor"], row["reason"])
    known: dict[Any, Any] = {}
    for signed, each in model.runs.items():
        sales = set(each.sales) if each.state != "refused" else set()
        known[signed] = (each.state, each.method, each.period, each.closed_ms, each.reason, sales)
    for discharge, paid in model.discharges.items():
        known[discharge] = (paid.state, paid.runs, paid.reference, paid.amount, paid.reason)
    for name in found.keys() | known.keys():
        place = f"{city.node_id}: {name} is {found.get(name)}, expected {known.get(name)}"
        assert found.get(name) == known.get(name), place


def check_alike(models: Mapping[str, Model]) -> None:
    """While nothing is on its way: both sides of every sale stand alike, and who has decided on money knows that."""
    for buyer, model in models.items():
        for key, out in model.outs.items():
            seller = models[key[0]].ins[key]
            place = f"{buyer} of {key}: {out.state} {seller.state}"
            assert out.state == seller.state, place
            # That nothing was ever held is said once, and again to who asks; nobody waits for an acknowledgement.
            assert out.acknowledged == (out.state in ENDED) or out.promise is None, place
            assert out.state in ENDED or out.frozen or seller.ask is None, place
    for model in models.values():
        for key, seller in model.ins.items():
            there = models[seller.deal.sale.buyer_city].outs if seller.deal is not None else {}
            assert key in there or seller.state == "voided", f"{key} was never heard of"


def check_by_themselves(cities: Mapping[str, City]) -> None:
    """The ledgers' own checks find nothing, and neither do their reconciliations."""
    for name, city in cities.items():
        broken = [each for each in checks.check(city.source) if not each.holds]
        assert not broken, f"{name}: {broken}"
    for here, there in permutations(cities, 2):
        ours, theirs = (
            [entry for _, entry in statement(cities[name].source, name, peer, 0, -1)]
            for name, peer in ((here, there), (there, here))
        )
        comparison = compare(ours, theirs, here)
        assert comparison.difference is None, f"{here} and {there}: {comparison}"


def _found(city: City) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rows = city.source.all("SELECT number, id, currency, role, balance_minor, held_minor FROM ledger_account")
    for number, account, currency, role, balance, held in rows:
        if role == "holder":
            lots = city.source.all(
                "SELECT issue_day, amount_minor, held_minor FROM ledger_lot WHERE account = ? ORDER BY issue_day",
                (number,),
            )
            found[account] = [tuple(lot) for lot in lots]
        elif role == "issuance":
            found[f"{account} {currency[:3]}"] = -balance
        else:
            found[account] = (balance, held)
    return found


def _known(model: Model) -> dict[str, Any]:
    known: dict[str, Any] = {account: model.lots(account) for account in model.coins}
    for fund, free in model.funds.items():
        held = model.held(fund)
        known[fund] = (free + held, held)
    for peer, owed in model.owed.items():
        known[f"node:clearing.{peer}@{model.node}"] = (owed, model.coming[peer])
    known[f"node:reserve@{model.node}"] = (model.figures["reserve"], model.figures["reserve held"])
    known[f"node:issuance@{model.node} LC-"] = model.figures["issued"] - model.figures["redeemed"]
    known[f"node:issuance@{model.node} {model.backing}"] = model.figures["reserve"]
    return known


def _deal(model: Model, key: Key) -> tuple[Any, ...] | None:
    out, seller = model.outs.get(key), model.ins.get(key)
    if out is not None:
        paid, received = (out.promise.paid, out.promise.received) if out.promise is not None else (0, 0)
        flags = int(out.frozen), int(out.wanted), int(out.acknowledged)
        return ("payer", out.state, *flags, None, out.reason, paid, received)
    if seller is None:
        return None
    paid, received = (seller.promise.paid, seller.promise.received) if seller.promise is not None else (0, 0)
    return ("payee", seller.state, 0, 0, 0, seller.ask, seller.reason, paid, received)
