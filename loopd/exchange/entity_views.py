"""Offers, Matches, Transfers and transactions as they are given out: what was received, the node's words over it."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.exchange.entities import Entry, Match, Sale, Transfer
from loopd.protocol.json_text import read_json
from loopd.protocol.money import amount_json
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.transactions import Transaction

TRANSACTION_PATH: Final = "/api/v1/transaction"
_STATUS_TYPE: Final = "TransactionStatus"
_SCHEMA_VERSION: Final = "0.2.0"
_ACCOUNTS: Final = ("seller_account", "buyer_account")
_PERSON: Final = "user:"


def entry_json(entry: Entry, context_url: str) -> dict[str, Any]:
    """An entity as it is answered: its document with `status`, `version`, `updated_at` and, where it has one, `reason`.

    Of a transaction a TransactionStatus, with the MaterialTransaction in it.
    """
    if isinstance(entry, Sale):
        return _sale_json(entry, context_url)
    value = {**_object(entry.document), **_state_json(entry)}
    if isinstance(entry, Match):
        value["valid_until"] = format_timestamp(entry.valid_until_ms)
    if isinstance(entry, Transfer) and entry.received_at_ms is not None:
        value["received_at"] = format_timestamp(entry.received_at_ms)
    if isinstance(entry, Transfer) and entry.part_id is not None:
        value["part_id"] = entry.part_id
    if entry.counterpart is not None and isinstance(entry, Match):
        value["to_node"] = entry.counterpart
    return value


def mirrored_json(entry: Entry, context_url: str) -> dict[str, Any]:
    """An entity as the node on the other side is told it: of a transaction the MaterialTransaction, as it stands."""
    if isinstance(entry, Sale):
        return {**_object(entry.document), **_state_json(entry)}
    return entry_json(entry, context_url)


def public_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same for everybody's eyes: details of transactions are public, the identities of users are not (§10.3)."""
    sale = value.get("transaction")
    if not isinstance(sale, Mapping):
        return dict(value)
    return {**value, "transaction": without_persons(sale)}


def without_persons(value: Mapping[str, Any]) -> dict[str, Any]:
    """A document without the accounts of persons."""
    return {key: stated for key, stated in value.items() if key not in _ACCOUNTS or not str(stated).startswith(_PERSON)}


def settlement_json(transaction: Transaction, context_url: str, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of a transaction's payment: whether there is one, and what the ledger says (`settlement`)."""
    return {
        "@context": context_url,
        "transaction_id": transaction.transaction_id,
        transaction.kind.value: transaction.subject_id,
        "seller": transaction.seller,
        "buyer": transaction.buyer,
        "status": transaction.status.value,
        "names_accounts": transaction.names_accounts,
        "final_cost": amount_json(transaction.cost.total_minor),
        "breakdown": transaction.cost.breakdown_json(),
        "settlement": None if known is None else dict(known),
    }


def _sale_json(sale: Sale, context_url: str) -> dict[str, Any]:
    value = {
        "@context": context_url,
        "@type": _STATUS_TYPE,
        "schema_version": _SCHEMA_VERSION,
        "transaction_id": sale.id,
        **_state_json(sale),
        "match_id": sale.match_id,
        "settlement_url": f"{TRANSACTION_PATH}/{sale.id}/settlement",
        "transaction": _object(sale.document),
    }
    if sale.details is not None:
        value["details"] = _object(sale.details)
    return value


def _state_json(entry: Entry) -> dict[str, Any]:
    state = {"status": entry.status, "version": entry.version, "updated_at": format_timestamp(entry.changed_at_ms)}
    return state if entry.reason is None else {**state, "reason": entry.reason}


def _object(text: bytes) -> dict[str, Any]:
    value = read_json(text)
    if not isinstance(value, dict):
        raise TypeError("a stored document is a JSON object")
    return value
