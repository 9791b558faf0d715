"""What cities tell each other of runs and discharges: read from the bytes, and held against the sender's model."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from tests.ledger_sim.asks import Key
from tests.ledger_sim.deals import CROSSING
from tests.ledger_sim.netting import Found, Model, Notice, NotSigned, Proposal

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def content_of(model: Model, value: Mapping[str, Any], keys: Mapping[str, Key]) -> Any:
    """What a message says; `keys` are the sales by their settlements' ids. AssertionError where its sender lies."""
    return _READERS[value["@type"]](model, value, keys)


def _run(model: Model, value: Mapping[str, Any], keys: Mapping[str, Key]) -> Proposal:
    first, second = value["from_node"], value["to_node"]
    peer, number, signed = second if first == model.node else first, value["run"], second in value["signatures"]
    known = model.runs[peer, number]
    assert first == min(first, second)
    assert set(value["signatures"]) == ({first, second} if signed else {first})
    assert known.state == "agreed" if model.node == second else known.state == "proposed"
    assert signed == (model.node == second)
    listed = [keys[each["id"]] for each in value["transfers"]]
    assert len(set(listed)) == len(listed), f"a sale twice in {value}"
    claims = tuple((each["debtor"], each["creditor"], minor(each["amount"])) for each in value["claims"])
    method, period = value["settlement_method"], value["settlement_period"]
    found = Proposal(number, method, period, _moment_ms(value["closed_at"]), frozenset(listed), claims, signed)
    owed = tuple((each.debtor, each.creditor, each.amount) for each in known.claims)
    expected = Proposal(number, known.method, known.period, known.closed_ms, known.sales, owed, signed)
    assert found == expected, f"{model.node} says {found}, and has {expected}"
    for key, transfer in zip(listed, value["transfers"], strict=True):
        told = _transfer(model, key)
        assert {name: transfer[name] for name in told} == told, f"{key}: {transfer}, expected {told}"
    return found


def _transfer(model: Model, key: Key) -> dict[str, Any]:
    """A payment as a run tells it, but for the rate, which is rounded for people."""
    known = model.outs.get(key) or model.ins[key]
    assert known.deal is not None
    assert known.promise is not None
    deal, promise, sale = known.deal, known.promise, known.deal.sale
    debits = dict.fromkeys(CROSSING, 0) | {line: paid for line, paid, _ in promise.lines}
    imported = -(-sale.lines["buyer_community_fund"] * promise.rate // deal.rate)
    return {
        "from": _shown(sale.buyer, sale.buyer_city, sale.seller_city),
        "to": _shown(sale.seller, sale.seller_city, sale.buyer_city),
        "amount": _told(debits["seller_receives"] + debits["residual"]),
        "from_currency": promise.currency,
        "to_currency": deal.currency,
        "fees": {
            "export_penalty": _told(debits["seller_community_fund"]),
            "import_penalty": _told(imported),
            "distance_cost": _told(debits["transport_cost"]),
        },
        "transaction": sale.transaction,
        "from_total": _told(promise.paid),
        "to_total": _told(promise.received),
    }


def _shown(account: str, city: str, other: str) -> str:
    """A person is not named."""
    return f"node:clearing.{other}@{city}" if account.startswith("user:") else account


def _refusal(model: Model, value: Mapping[str, Any], _: Mapping[str, Key]) -> NotSigned:
    found = NotSigned(value["run"], f"{value['reason']} {value['place']}")
    known = model.unsigned[value["from_node"]]
    if found.number == known.number:
        assert found == known, f"{model.node} says {found}, and knows {known}"
    else:
        assert (found.number < known.number, found.reason) == (True, "other_run /run"), f"{found} after {known}"
    assert value["to_node"] == model.node
    return found


def _notice(model: Model, value: Mapping[str, Any], _: Mapping[str, Key]) -> Notice:
    known = model.discharges[value["debtor"], value["creditor"], value["id"]]
    notice = Notice(value["id"], tuple(value["runs"]), minor(value["amount"]), value["currency"], value["reference"])
    expected = Notice(value["id"], known.runs, known.amount, model.backing, known.reference)
    assert notice == expected, f"{model.node} announces {notice}, and has {expected}"
    assert (value["debtor"], known.state) == (model.node, "announced"), f"{value}: {known}"
    return notice


def _answer(model: Model, value: Mapping[str, Any], _: Mapping[str, Key]) -> Found:
    known = model.discharges[value["debtor"], value["creditor"], value["id"]]
    found, expected = (value["answer"], value.get("reason")), (known.state, known.reason)
    assert (found, value["creditor"]) == (expected, model.node), f"{model.node} says {found}, and knows {expected}"
    return Found(value["id"], *found)


def _told(amount: int) -> Fraction:
    return Fraction(amount, 100)


def _moment_ms(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def minor(amount: Decimal | int) -> int:
    """Hundredths."""
    found = Decimal(amount) * 100
    assert found == int(found)
    return int(found)


_READERS: Final[Mapping[str, Callable[[Model, Mapping[str, Any], Mapping[str, Key]], Any]]] = {
    "InterNodeSettlement": _run,
    "NettingRefusal": _refusal,
    "DischargeNotice": _notice,
    "DischargeAnswer": _answer,
}
