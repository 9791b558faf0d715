"""InterNodeSettlement (§5.3) as two nodes sign it, and what else they tell each other of runs and discharges; pure.

Both nodes make the document of a run from their own books: whoever is to sign it compares what came with what it would
have written itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context
from typing import Any, Final

from loopd.crypto.keys import NodeKey, PublicKey, decode_signature, encode_signature
from loopd.ledger.accounts import clearing_id
from loopd.ledger.arithmetic import Line, payer_amount
from loopd.ledger.clearing.messages import SCHEMA_VERSION, Prepare, Request
from loopd.ledger.netting.rules import Claim, DischargeState, Method, Payment, Period
from loopd.ledger.orders import signed_bytes
from loopd.protocol.errors import Invalid
from loopd.protocol.json_text import pointer
from loopd.protocol.money import amount_json, parse_amount
from loopd.protocol.timestamps import format_timestamp, parse_timestamp

RUN_TYPE: Final = "InterNodeSettlement"
REFUSAL_TYPE: Final = "NettingRefusal"
NOTICE_TYPE: Final = "DischargeNotice"
ANSWER_TYPE: Final = "DischargeAnswer"
NETTING_TYPES: Final = frozenset({RUN_TYPE, REFUSAL_TYPE, NOTICE_TYPE, ANSWER_TYPE})

# As many digits as every double gives back: the rate is told for people, the amounts beside it are exact.
_TOLD_RATE: Final = Context(prec=15)
_PERSON: Final = "user:"


@dataclass(frozen=True, slots=True)
class RunName:
    """Which run: the node that proposes and the other one, and its number among theirs."""

    from_node: str
    to_node: str
    run: int

    @property
    def nodes(self) -> tuple[str, str]:
        """Both, the proposing one first."""
        return self.from_node, self.to_node


@dataclass(frozen=True, slots=True)
class Proposal:
    """A run as it is proposed, before its payments."""

    name: RunName
    method: Method
    period: Period
    closed_at_ms: int


@dataclass(frozen=True, slots=True)
class SettledSale:
    """A posted settlement: what was asked for, and what was prepared for it."""

    request: Request
    prepare: Prepare

    @property
    def payment(self) -> Payment:
        """What crossed."""
        name, prepare = self.request.name, self.prepare
        return Payment(name.payer, name.payee, prepare.payer_minor, prepare.payee_minor, self.request.exchange_rate)


@dataclass(frozen=True, slots=True)
class Notice:
    """A payment from one reserve to the other, as its debtor announces it. `runs` are discharged by it."""

    debtor: str
    creditor: str
    id: str
    runs: Sequence[int]
    backing_minor: int
    backing: str
    reference: str


def run_json(proposal: Proposal, sales: Sequence[SettledSale], claims: Sequence[Claim], url: str) -> dict[str, Any]:
    """The document of a run without its signatures. `url` is its JSON-LD context."""
    return {
        "@context": url,
        "@type": RUN_TYPE,
        "schema_version": SCHEMA_VERSION,
        "from_node": proposal.name.from_node,
        "to_node": proposal.name.to_node,
        "transfers": [_transfer_json(sale) for sale in sales],
        "settlement_method": proposal.method.value,
        "settlement_period": proposal.period.value,
        "run": proposal.name.run,
        "closed_at": format_timestamp(proposal.closed_at_ms),
        "claims": [
            {"debtor": each.debtor, "creditor": each.creditor, "amount": amount_json(each.backing_minor)}
            for each in claims
        ],
    }


def signed(document: Mapping[str, Any], node_id: str, key: NodeKey) -> dict[str, Any]:
    """The document with one more signature: Ed25519 over its RFC 8785 form without `signatures`."""
    signature = {"key_id": key.public.key_id, "signature": encode_signature(key.sign(_signed_part(document)))}
    return {**document, "signatures": {**document.get("signatures", {}), node_id: signature}}


def is_signed(document: Mapping[str, Any], node_id: str, keys: Sequence[PublicKey]) -> bool:
    """Whether the node's signature stands under the document and holds under one of its keys."""
    stated = document.get("signatures")
    entry = stated.get(node_id) if isinstance(stated, Mapping) else None
    text = entry.get("signature") if isinstance(entry, Mapping) else None
    try:
        signature = decode_signature(text if isinstance(text, str) else "")
    except ValueError:
        return False
    message = _signed_part(document)
    return any(key.verify(message, signature) for key in keys)


def difference(ours: Any, theirs: Any) -> str | None:
    """The place, as a JSON pointer, of the first difference between two documents of a run; their signatures aside."""
    return _difference(_unsigned(ours), _unsigned(theirs), ())


def read_proposal(value: Mapping[str, Any]) -> tuple[Proposal, list[str]]:
    """A run and the ids of its payments, out of an InterNodeSettlement that fits its schema.

    Invalid `not_a_run` with the place, where it has not what makes it one.
    """
    run, closed_at, period = value.get("run"), value.get("closed_at"), value.get("settlement_period", "daily")
    if isinstance(run, bool) or not isinstance(run, int) or not 1 <= run < 2**53:
        raise _no_run("/run", "a number from 1 on")
    try:
        closed_at_ms = parse_timestamp(closed_at if isinstance(closed_at, str) else "")
    except ValueError:
        raise _no_run("/closed_at", "a date-time") from None
    ids = [each.get("id") for each in value["transfers"]]
    for index, each in enumerate(ids):
        if not isinstance(each, str):
            raise _no_run(f"/transfers/{index}/id", "the settlement's id")
    name = RunName(value["from_node"], value["to_node"], run)
    return Proposal(name, Method(value["settlement_method"]), Period(period), closed_at_ms), ids


def refusal_json(name: RunName, reason: str, place: str | None, url: str) -> dict[str, Any]:
    """Why a run is not signed. `place` points into the document that was proposed."""
    placed = {} if place is None else {"place": place}
    head = {"from_node": name.from_node, "to_node": name.to_node, "run": name.run}
    return {**_head(REFUSAL_TYPE, url), **head, "reason": reason, **placed}


def read_refusal(value: Mapping[str, Any]) -> tuple[RunName, str]:
    """The run that a NettingRefusal is about, and the reason with its place."""
    place = value.get("place")
    reason = value["reason"] if place is None else f"{value['reason']} {place}"
    return RunName(value["from_node"], value["to_node"], value["run"]), reason


def notice_json(notice: Notice, url: str) -> dict[str, Any]:
    """The document of an announced payment."""
    return {
        **_head(NOTICE_TYPE, url),
        "debtor": notice.debtor,
        "creditor": notice.creditor,
        "id": notice.id,
        "runs": list(notice.runs),
        "amount": amount_json(notice.backing_minor),
        "currency": notice.backing,
        "reference": notice.reference,
    }


def read_notice(value: Mapping[str, Any]) -> Notice:
    """A DischargeNotice that fits its schema. ValueError for an amount finer than a hundredth."""
    return Notice(
        value["debtor"],
        value["creditor"],
        value["id"].lower(),
        value["runs"],
        parse_amount(value["amount"]),
        value["currency"],
        value["reference"],
    )


def answer_json(notice: Notice, state: DischargeState, reason: str | None, url: str) -> dict[str, Any]:
    """What the creditor's node says of an announced payment."""
    head = {"debtor": notice.debtor, "creditor": notice.creditor, "id": notice.id}
    given = {} if reason is None else {"reason": reason}
    return {**_head(ANSWER_TYPE, url), **head, "answer": state.value, **given}


def _transfer_json(sale: SettledSale) -> dict[str, Any]:
    """One payment: `amount` is the price, the fees come on top (§5.3), all in the payer's currency.

    A person is not named: the city's clearing account stands for the account. What crosses in all is `from_total` and
    `to_total`; the import penalty stays in the payer's city.
    """
    request, prepare, payment = sale.request, sale.prepare, sale.payment
    debits = dict.fromkeys(Line, 0) | {each.line: each.payer_minor for each in prepare.lines}
    import_minor = payer_amount(request.lines[Line.BUYER_COMMUNITY], prepare.exchange_rate, request.exchange_rate)
    return {
        "id": request.name.id,
        "from": _told_account(request.buyer_account, payment.payer, payment.payee),
        "to": _told_account(request.seller_account, payment.payee, payment.payer),
        "amount": amount_json(debits[Line.SELLER] + debits[Line.RESIDUAL]),
        "from_currency": prepare.currency,
        "to_currency": request.currency,
        "exchange_rate": _TOLD_RATE.divide(request.exchange_rate, prepare.exchange_rate),
        "fees": {
            "export_penalty": amount_json(debits[Line.SELLER_COMMUNITY]),
            "import_penalty": amount_json(import_minor),
            "distance_cost": amount_json(debits[Line.TRANSPORT]),
        },
        "transaction": request.transaction_id,
        "from_total": amount_json(payment.payer_minor),
        "to_total": amount_json(payment.payee_minor),
    }


def _told_account(account_id: str, node_id: str, other: str) -> str:
    return clearing_id(other, node_id) if account_id.startswith(_PERSON) else account_id


def _signed_part(document: Mapping[str, Any]) -> bytes:
    return signed_bytes(_unsigned(document))


def _unsigned(document: Any) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "signatures"}


def _difference(ours: Any, theirs: Any, path: tuple[str | int, ...]) -> str | None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys: Sequence[str | int] = sorted(ours.keys() | theirs.keys())
    elif isinstance(ours, list) and isinstance(theirs, list):
        keys = range(min(len(ours), len(theirs)))
        if len(ours) != len(theirs):
            keys = [*keys, len(keys)]
    else:
        same = isinstance(ours, str) == isinstance(theirs, str) and ours == theirs
        return None if same else pointer(path)
    for key in keys:
        if _lacks(ours, key) or _lacks(theirs, key):
            return pointer((*path, key))
        found = _difference(ours[key], theirs[key], (*path, key))
        if found is not None:
            return found
    return None


def _lacks(value: Any, key: Any) -> bool:
    return key not in value if isinstance(value, dict) else key >= len(value)


def _head(entity: str, url: str) -> dict[str, Any]:
    return {"@context": url, "@type": entity, "schema_version": SCHEMA_VERSION}


def _no_run(place: str, wanted: str) -> Invalid:
    message = f"A run of payments between two nodes has {wanted} there."
    return Invalid("not_a_run", message, {"pointer": place})
