"""What two nodes tell each other of a settlement, as documents; and the exact amounts in them; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from loopd.ledger.arithmetic import Line, payer_amount
from loopd.ledger.clearing.rules import Ask, Decision
from loopd.ledger.dates import day_text, parse_day
from loopd.ledger.lots import Part
from loopd.ledger.orders import own_id
from loopd.protocol.money import amount_json, parse_amount
from loopd.protocol.subjects import SubjectKind

SETTLEMENT_PATH: Final = "/api/v1/federate/settlement"
SCHEMA_VERSION: Final = "0.2.0"
REQUEST_TYPE: Final = "SettlementRequest"
PREPARE_TYPE: Final = "SettlementPrepare"
ANSWER_TYPE: Final = "SettlementAnswer"
DECISION_TYPE: Final = "SettlementDecision"
ACKNOWLEDGEMENT_TYPE: Final = "SettlementAcknowledgement"
INQUIRY_TYPE: Final = "SettlementInquiry"
MESSAGE_TYPES: Final = frozenset(
    {REQUEST_TYPE, PREPARE_TYPE, ANSWER_TYPE, DECISION_TYPE, ACKNOWLEDGEMENT_TYPE, INQUIRY_TYPE}
)
# The lines that cross from the payer's city to the payee's; the import line stays where the goods go.
CROSSING: Final = (Line.SELLER, Line.SELLER_COMMUNITY, Line.TRANSPORT, Line.RESIDUAL)


@dataclass(frozen=True, slots=True)
class Name:
    """Which settlement: the payer's node and the id name it; `payee` is the other side."""

    payer: str
    payee: str
    id: str


@dataclass(frozen=True, slots=True)
class Request:
    """What the payee's node asks to be held, its rate frozen."""

    name: Name
    transaction_id: str
    kind: SubjectKind
    subject_id: str
    buyer_account: str
    seller_account: str
    currency: str
    backed_by: str
    exchange_rate: Decimal
    lines: Mapping[Line, int]

    @property
    def total_minor(self) -> int:
        """What the buyer pays, in the payee's currency."""
        return sum(self.lines.values())


@dataclass(frozen=True, slots=True)
class Crossing:
    """A line in both currencies."""

    line: Line
    payer_minor: int
    payee_minor: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """What the payer's node holds, its rate frozen, and from which days the seller's coins are."""

    name: Name
    currency: str
    exchange_rate: Decimal
    lines: Sequence[Crossing]
    issue_days: Sequence[Part]

    @property
    def payer_minor(self) -> int:
        """What crosses in all, in the payer's currency."""
        return sum(each.payer_minor for each in self.lines)

    @property
    def payee_minor(self) -> int:
        """The same in the payee's."""
        return sum(each.payee_minor for each in self.lines)


def settlement_id(payee: str, transaction_id: str) -> str:
    """What the settlement of a transaction of the payee's is called: a name that no other city can take."""
    return own_id("settlement", payee, transaction_id)


def crossings(lines: Mapping[Line, int], payer_rate: Decimal, payee_rate: Decimal) -> list[Crossing]:
    """The lines that cross, those of nothing left out; each debit is the exact ceiling. NoRate for a rate of zero."""
    return [
        Crossing(line, payer_amount(lines[line], payer_rate, payee_rate), lines[line])
        for line in CROSSING
        if lines[line]
    ]


def converted_days(parts: Iterable[Part], payer_minor: int, payee_minor: int) -> list[Part]:
    """The coins of the seller's line in its own currency: each day its share, and together exactly the amount."""
    converted, seen_minor, given_minor = [], 0, 0
    for part in parts:
        seen_minor += part.amount_minor
        share_minor = seen_minor * payee_minor // payer_minor - given_minor
        given_minor += share_minor
        if share_minor:
            converted.append(Part(part.issue_day, share_minor))
    return converted


def fault_of_prepare(prepare: Prepare, request: Request, today: int) -> str | None:
    """What is wrong with a PREPARE against what was asked for: `no_rate`, `other_amounts`, `bad_issue_days`.

    `today` is the payee's UTC day; coins of tomorrow can be those of a clock that is a little ahead.
    """
    if prepare.exchange_rate <= 0 or request.exchange_rate <= 0:
        return "no_rate"
    if list(prepare.lines) != crossings(request.lines, prepare.exchange_rate, request.exchange_rate):
        return "other_amounts"
    days = [part.issue_day for part in prepare.issue_days]
    if days != sorted(set(days)) or any(not 0 <= day <= today + 1 for day in days):
        return "bad_issue_days"
    seller_minor = sum(each.payer_minor for each in prepare.lines if each.line is Line.SELLER)
    if sum(part.amount_minor for part in prepare.issue_days) != seller_minor:
        return "other_amounts"
    return None


def read_name(value: Mapping[str, Any]) -> Name:
    """Which settlement a message is about."""
    return Name(value["payer"], value["payee"], value["id"].lower())


def read_request(value: Mapping[str, Any]) -> Request:
    """A SettlementRequest that fits its schema. ValueError for an amount finer than a hundredth."""
    kind = SubjectKind.MATERIAL if SubjectKind.MATERIAL.value in value else SubjectKind.PRODUCT
    return Request(
        read_name(value),
        value["transaction"],
        kind,
        value[kind.value],
        value["buyer_account"],
        value["seller_account"],
        value["currency"],
        value["backed_by"],
        Decimal(value["exchange_rate"]),
        {line: parse_amount(value["lines"][line.value]) for line in Line},
    )


def read_prepare(value: Mapping[str, Any]) -> Prepare:
    """A SettlementPrepare that fits its schema. ValueError for an amount finer than a hundredth, or no day."""
    return Prepare(
        read_name(value),
        value["currency"],
        Decimal(value["exchange_rate"]),
        [
            Crossing(Line(each["line"]), parse_amount(each["payer_amount"]), parse_amount(each["payee_amount"]))
            for each in value["lines"]
        ],
        [Part(parse_day(each["day"]), parse_amount(each["amount"])) for each in value["issue_days"]],
    )


def request_json(request: Request, context_url: str) -> dict[str, Any]:
    """The document of a request."""
    return {
        **_head(REQUEST_TYPE, request.name, context_url),
        "transaction": request.transaction_id,
        request.kind.value: request.subject_id,
        "buyer_account": request.buyer_account,
        "seller_account": request.seller_account,
        "currency": request.currency,
        "backed_by": request.backed_by,
        "exchange_rate": request.exchange_rate,
        "lines": {line.value: amount_json(minor) for line, minor in request.lines.items()},
    }


def prepare_json(prepare: Prepare, context_url: str) -> dict[str, Any]:
    """The document of a PREPARE."""
    return {
        **_head(PREPARE_TYPE, prepare.name, context_url),
        "currency": prepare.currency,
        "exchange_rate": prepare.exchange_rate,
        "lines": [
            {
                "line": each.line.value,
                "payer_amount": amount_json(each.payer_minor),
                "payee_amount": amount_json(each.payee_minor),
            }
            for each in prepare.lines
        ],
        "issue_days": [
            {"day": day_text(part.issue_day), "amount": amount_json(part.amount_minor)} for part in prepare.issue_days
        ],
    }


def answer_json(name: Name, answer: str, reason: str | None, context_url: str) -> dict[str, Any]:
    """`prepared`, or `refused` with its reason."""
    return {**_head(ANSWER_TYPE, name, context_url), "answer": answer, **_given(reason)}


def decision_json(name: Name, decision: Decision, reason: str | None, context_url: str) -> dict[str, Any]:
    """What the payer's node decided."""
    return {**_head(DECISION_TYPE, name, context_url), "decision": decision.value, **_given(reason)}


def acknowledgement_json(name: Name, decision: Decision, context_url: str) -> dict[str, Any]:
    """What the payee's node carried out."""
    return {**_head(ACKNOWLEDGEMENT_TYPE, name, context_url), "decision": decision.value}


def inquiry_json(
    name: Name, transaction_id: str, ask: Ask | None, reason: str | None, context_url: str
) -> dict[str, Any]:
    """What the payee's node asks."""
    asks = {} if ask is None else {"asks": ask.value}
    return {**_head(INQUIRY_TYPE, name, context_url), "transaction": transaction_id, **asks, **_given(reason)}


def _head(entity: str, name: Name, context_url: str) -> dict[str, Any]:
    return {
        "@context": context_url,
        "@type": entity,
        "schema_version": SCHEMA_VERSION,
        "payer": name.payer,
        "payee": name.payee,
        "id": name.id,
    }


def _given(reason: str | None) -> dict[str, str]:
    return {} if reason is None else {"reason": reason}
