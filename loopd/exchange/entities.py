"""Offers, Matches, Transfers and transactions as the seller's node keeps them, and what their documents say. Pure.

A document is an Offer, a Match, a Transfer or a MaterialTransaction that its schema holds for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeGuard

from loopd.exchange.rules import invalid, read_moment
from loopd.protocol.errors import Conflict
from loopd.protocol.ids import is_exchange_id, is_node_id
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import TRANSACTION_ID_MAX_CHARACTERS
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.money import parse_amount
from loopd.protocol.quantity import Quantity, parse_quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.transactions import Transaction, TransactionStatus

TYPES: Final[Mapping[MirroredEntity, str]] = {
    MirroredEntity.OFFER: "Offer",
    MirroredEntity.MATCH: "Match",
    MirroredEntity.TRANSFER: "Transfer",
    MirroredEntity.TRANSACTION: "MaterialTransaction",
}
_CITY_MIN_CHARACTERS: Final = 2
_CITY_MAX_CHARACTERS: Final = 80


class OfferStatus(StrEnum):
    """Whether an Offer can be matched."""

    OPEN = "open"
    RESERVED = "reserved"
    WITHDRAWN = "withdrawn"


class MatchStatus(StrEnum):
    """`proposed` and `accepted` reserve what the Offer offers."""

    PROPOSED = "proposed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"


class TransferStatus(StrEnum):
    """Where the goods are."""

    SCHEDULED = "scheduled"
    IN_TRANSIT = "in_transit"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the four have in common. `document` is what was received; `version` rises by one with each change.

    `counterpart` is the node on the other side, None where there is none but this one.
    """

    entity: ClassVar[MirroredEntity]

    id: str
    document: bytes
    subject_id: str
    kind: SubjectKind
    counterpart: str | None
    status: str
    created_at_ms: int
    changed_at_ms: int
    version: int = 1
    reason: str | None = None
    number: int = 0

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self.entity.lifecycle.is_terminal(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Entry):
    """The owner's supply: a quantity of a subject, until `available_until_ms`."""

    entity: ClassVar[MirroredEntity] = MirroredEntity.OFFER

    quantity: Quantity
    available_until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Match(Entry):
    """An Offer and where it goes. It ends at `valid_until_ms` unless a Transfer was made of it."""

    entity: ClassVar[MirroredEntity] = MirroredEntity.MATCH

    offer_id: str
    to_city: str
    valid_until_ms: int

    @property
    def is_active(self) -> bool:
        """Whether it reserves what its Offer offers."""
        return self.status in (MatchStatus.PROPOSED, MatchStatus.ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Entry):
    """The goods on their way. `part_id` is the record of what was transferred, where that was not the whole."""

    entity: ClassVar[MirroredEntity] = MirroredEntity.TRANSFER

    match_id: str
    received_at_ms: int | None = None
    part_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale(Entry):
    """A transaction with what the exchange keeps of it beside; `details` is what its last change told."""

    entity: ClassVar[MirroredEntity] = MirroredEntity.TRANSACTION

    match_id: str
    seller: str
    buyer: str
    seller_account: str | None
    buyer_account: str | None
    quantity: Quantity
    cost: LoopCost
    details: bytes | None = None

    @property
    def transaction(self) -> Transaction:
        """The sale as the ledger knows it."""
        return Transaction(
            transaction_id=self.id,
            subject_id=self.subject_id,
            kind=self.kind,
            seller=self.seller,
            buyer=self.buyer,
            seller_account=self.seller_account,
            buyer_account=self.buyer_account,
            quantity=self.quantity,
            cost=self.cost,
            status=TransactionStatus(self.status),
            version=self.version,
            created_at_ms=self.created_at_ms,
            changed_at_ms=self.changed_at_ms,
        )


def check_change(entity: MirroredEntity, current: str, following: str) -> None:
    """Conflict (409) where a status may not follow another: `terminal` from the last one, else `transition`.

    Invalid (400) `bad_status` for what is no status of the entity.
    """
    lifecycle = entity.lifecycle
    if following not in lifecycle.successors:
        raise invalid("bad_status", "/status", f"a status is one of {', '.join(lifecycle.successors)}")
    if lifecycle.allows(current, following):
        return
    details = {"current": current, "requested": following, "allowed": list(lifecycle.successors[current])}
    if lifecycle.is_terminal(current):
        raise Conflict("terminal", f"From {current} nothing moves.", details)
    raise Conflict("transition", f"{following} does not follow {current}; {lifecycle.told(current)}.", details)


def read_id(value: Mapping[str, Any]) -> str:
    """The id of a document; Invalid (400) `bad_id` for one that is longer than any that is kept."""
    stated: str = value["id"]
    if not is_exchange_id(stated):
        raise invalid("bad_id", "/id", "an id is 8 to 200 of A-Z, 0-9 and -")
    return stated


def read_transaction_id(value: Mapping[str, Any]) -> str:
    """The id of a MaterialTransaction; Invalid (400) `bad_id`."""
    stated: str = value["id"]
    if len(stated) > TRANSACTION_ID_MAX_CHARACTERS or not stated.isascii():
        raise invalid("bad_id", "/id", f"an id has at most {TRANSACTION_ID_MAX_CHARACTERS} characters")
    return stated


def is_city(stated: object) -> TypeGuard[str]:
    """Whether a value names a city as records do, in 2 to 80 characters."""
    return isinstance(stated, str) and _CITY_MIN_CHARACTERS <= len(stated) <= _CITY_MAX_CHARACTERS


def read_initial_status(entity: MirroredEntity, value: Mapping[str, Any], default: str = "") -> str:
    """The status that a new document may have; Invalid (400) `bad_status` for a later one."""
    stated: str = value.get("status", default)
    initial = entity.lifecycle.initial
    if stated not in initial:
        raise invalid("bad_status", "/status", f"a new one is {' or '.join(initial)}")
    return stated


def read_subject(value: Mapping[str, Any], suffix: str = "_id") -> tuple[SubjectKind, str]:
    """What a document is about: the material, where it names one; else the product."""
    kind = SubjectKind.MATERIAL if f"material{suffix}" in value else SubjectKind.PRODUCT
    return kind, value[f"{kind.value}{suffix}"]


def read_quantity(value: Mapping[str, Any]) -> Quantity:
    """The `quantity` of a document, with its unit; Invalid (400) `bad_quantity`: nothing, too large or too fine."""
    stated = value["quantity"]
    if not isinstance(stated, Mapping) or not {"value", "unit"} <= stated.keys() or not _is_number(stated["value"]):
        raise invalid("bad_quantity", "/quantity", "a quantity is an object of value and unit")
    try:
        quantity = parse_quantity(stated["value"], stated["unit"])
    except (TypeError, ValueError) as error:
        raise invalid("bad_quantity", "/quantity/value", str(error)) from None
    if quantity.value == 0:
        raise invalid("bad_quantity", "/quantity/value", "it is more than nothing")
    return quantity


def _is_number(stated: object) -> bool:
    return isinstance(stated, int | Decimal) and not isinstance(stated, bool)


def read_counterpart(value: Mapping[str, Any], home: str) -> str | None:
    """The node that a document names as the other side (`to_node`), None for this one and where it names none.

    Invalid (400) `bad_node` for what names no node.
    """
    stated = value.get("to_node")
    if stated is None:
        return None
    if not isinstance(stated, str) or not is_node_id(stated):
        raise invalid("bad_node", "/to_node", "a node is named like munich.loop")
    return None if stated == home else stated


def read_end(value: Mapping[str, Any], key: str, now_ms: int) -> int:
    """A moment at which something ends; Invalid (400) `bad_time`, or `expired` where that has passed."""
    end_ms = read_moment(value, key)
    if end_ms <= now_ms:
        raise invalid("expired", f"/{key}", "it ends in the future")
    return end_ms


_PRICES: Final = ("base_price", "loop_cost")
_PARTS: Final = ("export_penalty", "import_penalty", "distance_cost")


def read_cost(offer: Mapping[str, Any], *, same_node: bool, is_paid: bool) -> LoopCost:
    """The LoopCost of a MaterialTransaction, which is the sum of its parts.

    Invalid (400): `bad_amount`, and `bad_breakdown` where the parts do not add up to `loop_cost`. What is not broken
    down counts as distance; where accounts are to pay it (`is_paid`), and inside one node, there must be no such rest.
    """
    base_minor, total_minor = (_amount(offer[key], f"/offer/{key}") for key in _PRICES)
    stated = offer.get("breakdown", {})
    parts_minor = [_amount(stated.get(key, 0), f"/offer/breakdown/{key}") for key in _PARTS]
    rest_minor = total_minor - base_minor - sum(parts_minor)
    if rest_minor != 0 and (rest_minor < 0 or same_node or is_paid or stated):
        raise invalid("bad_breakdown", "/offer/loop_cost", "it is the sum of the base price and the breakdown")
    export_minor, import_minor, distance_minor = parts_minor
    return LoopCost(base_minor, export_minor, import_minor, distance_minor + rest_minor)


def _amount(stated: Any, pointer: str) -> int:
    try:
        return parse_amount(stated)
    except ValueError as error:
        raise invalid("bad_amount", pointer, str(error)) from None
