"""What cities tell each other: read from the bytes that were sent, and held against what the sender's model knows.

Whatever a city says must be true of it: that is what makes both sides decide alike. When it has to say it again is no
rule; that it says enough shows once the links are quiet.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from tests.ledger_sim.asks import Key
from tests.ledger_sim.deals import ENDED, Promise
from tests.ledger_sim.mail import Mail, Sent
from tests.ledger_sim.netting import Model
from tests.ledger_sim.netting_words import content_of, minor

_DECISIONS = {"posted": "post", "voided": "void"}
_FIRST = date(1970, 1, 1)


class Post:
    """Reads messages; `keys` tells which sale a settlement's id stands for, once its seller has said so."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.ids: dict[Key, str] = {}

    def read(self, model: Model, sent: Sent) -> Mail:
        """A message that a city has sent. AssertionError where the city's model knows better."""
        value = json.loads(sent.body, parse_float=Decimal)
        if not value["@type"].startswith("Settlement"):
            told = content_of(model, value, self.keys)
            return Mail(model.node, sent.target, sent, value["@type"], None, content=told)
        if value["@type"] == "SettlementRequest":
            known = self.keys.setdefault(value["id"], (model.node, value["transaction"]))
            assert known == (model.node, value["transaction"]), f"one id, two sales: {value}"
            assert self.ids.setdefault(known, value["id"]) == value["id"], f"one sale, two ids: {value}"
        key = self.keys[value["id"]]
        found, known, word = _READERS[value["@type"]](model, key, value)
        assert found == known, f"{model.node} says {found}, and knows {known}: {value}"
        content = None if isinstance(known, str | tuple) else known
        return Mail(model.node, sent.target, sent, value["@type"], key, word, value.get("reason"), content)


# What a message says, what its sender's model knows, and the one word that matters.
_Read = tuple[Any, Any, str | None]


def _request(model: Model, key: Key, value: Mapping[str, Any]) -> _Read:
    deal = model.ins[key].deal
    assert deal is not None
    found = (
        (value["payee"], value["transaction"], value["material"], value["payer"]),
        (value["seller_account"], value["buyer_account"], value["currency"], value["backed_by"]),
        Fraction(value["exchange_rate"]),
        {line: minor(amount) for line, amount in value["lines"].items()},
    )
    sale = deal.sale
    known = (
        (sale.seller_city, sale.transaction, sale.subject, sale.buyer_city),
        (sale.seller, sale.buyer, deal.currency, deal.backing),
        deal.rate,
        sale.lines,
    )
    assert found == known, f"{model.node} asks for {found}, and sells {known}"
    return deal, deal, None


def _prepare(model: Model, key: Key, value: Mapping[str, Any]) -> _Read:
    lines = [(each["line"], minor(each["payer_amount"]), minor(each["payee_amount"])) for each in value["lines"]]
    days = [((date.fromisoformat(each["day"]) - _FIRST).days, minor(each["amount"])) for each in value["issue_days"]]
    found = Promise(value["currency"], Fraction(value["exchange_rate"]), tuple(lines), tuple(days))
    assert model.outs[key].state == "held"
    return found, model.outs[key].promise, None


def _answer(model: Model, key: Key, value: Mapping[str, Any]) -> _Read:
    known = model.ins[key]
    # What is off is refused for good.
    answer, reason = ("prepared", None) if known.state == "prepared" else ("refused", known.reason)
    assert known.state in ("prepared", "refused", "voided")
    return (value["answer"], value.get("reason")), (answer, reason), value["answer"]


def _decision(model: Model, key: Key, value: Mapping[str, Any]) -> _Read:
    known = model.outs[key]
    return (value["decision"], value.get("reason")), (_DECISIONS[known.state], known.reason), value["decision"]


def _acknowledgement(model: Model, key: Key, value: Mapping[str, Any]) -> _Read:
    # What it never asked for is void.
    decision = _DECISIONS[model.ins[key].state] if key in model.ins else "void"
    return value["decision"], decision, value["decision"]


def _inquiry(model: Model, key: Key, value: Mapping[str, Any]) -> _Read:
    known = model.ins[key]
    assert known.state not in ENDED
    found = (value["transaction"], value.get("asks"), value.get("reason"))
    return found, (key[1], known.ask, known.reason), value.get("asks")


# Another kind of message about sales is another reader.
_READERS: Final[Mapping[str, Callable[[Model, Key, Mapping[str, Any]], _Read]]] = {
    "SettlementRequest": _request,
    "SettlementPrepare": _prepare,
    "SettlementAnswer": _answer,
    "SettlementDecision": _decision,
    "SettlementAcknowledgement": _acknowledgement,
    "SettlementInquiry": _inquiry,
}
