"""A LoopCoinTransfer (§5.2) as an order: what is to move, and the bytes that its payer signs; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import rfc8785

from loopd.ledger.refusals import Fault, refused
from loopd.protocol.documents import Document
from loopd.protocol.limits import HOLD_MAX_MS, LEDGER_AMOUNT_MAX_LC, REQUEST_CLOCK_TOLERANCE_MS, TRANSFER_MAX_AGE_MS
from loopd.protocol.money import MINOR_PER_LC, parse_amount
from loopd.protocol.timestamps import parse_timestamp

# Ids of what the ledger does by itself follow from what it is done for: doing it twice is seen.
# They are UUIDs of version 8 (RFC 9562 §5.8), which is for such uses and which callers have no reason to take.
_OWN_IDS: Final = "loopd-ledger-v1"
_OWN_VERSION: Final = 8


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants moved. With `hold_until_ms` it only reserves the funds, until it is posted or voided."""

    id: str
    payer: str
    payee: str
    amount_minor: int
    currency: str
    stated_at_ms: int
    hold_until_ms: int | None
    signature: str | None
    signed: bytes
    received: bytes
    # Where a time stands that cannot be read; told only once its turn has come.
    unreadable: str | None = None

    @property
    def digest(self) -> bytes:
        """By which a repeat is told from another order: the signature is no part of it."""
        return sha256(self.signed).digest()


def read_order(document: Document) -> Order:
    """The order of a LoopCoinTransfer that fits its schema.

    Refusal `bad_amount`, `not_canonical`, `reserved_id`. Times that cannot be read are `check_times`'s to refuse.
    """
    value = document.value
    amount_minor, signed, order_id = read_amount(value["amount"]), signed_bytes(value), read_id(value["id"])
    moments = {key: _moment(value[key]) for key in ("timestamp", "hold_until") if key in value}
    return Order(
        id=order_id,
        payer=value["from"],
        payee=value["to"],
        amount_minor=amount_minor,
        currency=value["currency"],
        stated_at_ms=moments["timestamp"] or 0,
        hold_until_ms=moments.get("hold_until"),
        signature=value.get("signature"),
        signed=signed,
        received=document.received,
        unreadable=next((f"/{key}" for key, moment_ms in moments.items() if moment_ms is None), None),
    )


def read_id(text: str) -> str:
    """A caller's id in small letters, from a UUID's text. Refusal `reserved_id` for one that only the ledger gives.

    What the ledger will do by itself can be foreseen: who took the id of it beforehand would keep it from being done.
    """
    given = UUID(text)
    if given.version == _OWN_VERSION:
        raise refused(Fault.RESERVED_ID, {"pointer": "/id"})
    return str(given)


def read_amount(value: Any, pointer: str = "/amount") -> int:
    """Hundredths of a positive amount. Refusal `bad_amount`, the place named."""
    try:
        amount_minor = parse_amount(value)
    except ValueError:
        amount_minor = 0
    if not 0 < amount_minor <= LEDGER_AMOUNT_MAX_LC * MINOR_PER_LC:
        raise refused(Fault.BAD_AMOUNT, {"pointer": pointer})
    return amount_minor


def signed_bytes(value: Mapping[str, Any]) -> bytes:
    """The RFC 8785 form of the transfer without `signature`. Refusal `not_canonical`."""
    try:
        return rfc8785.dumps(_as_numbers({key: item for key, item in value.items() if key != "signature"}))
    except rfc8785.CanonicalizationError:
        raise refused(Fault.NOT_CANONICAL) from None


def check_times(order: Order, now_ms: int, at_ms: int) -> None:
    """Refusal `bad_time` for an order from the drawer or from the future, or a hold without a sensible end.

    `now_ms` is the clock's, `at_ms` what the order would be dated at.
    """
    if order.unreadable is not None:
        raise refused(Fault.BAD_TIME, {"pointer": order.unreadable})
    age_ms = now_ms - order.stated_at_ms
    if not -REQUEST_CLOCK_TOLERANCE_MS <= age_ms <= TRANSFER_MAX_AGE_MS:
        raise refused(Fault.BAD_TIME, {"pointer": "/timestamp"})
    if order.hold_until_ms is not None and not at_ms < order.hold_until_ms <= at_ms + HOLD_MAX_MS:
        raise refused(Fault.BAD_TIME, {"pointer": "/hold_until"})


def own_id(*parts: str | int) -> str:
    """The id of a transfer that the ledger makes by itself, from what it is made for."""
    number = int.from_bytes(sha256("\n".join(map(str, (_OWN_IDS, *parts))).encode()).digest()[:16], "big")
    number = number & ~(0xF << 76) | _OWN_VERSION << 76
    return str(UUID(int=number & ~(0b11 << 62) | 0b10 << 62))


def own_digest(*parts: str | int) -> bytes:
    """The digest of such a transfer."""
    return sha256("\n".join(map(str, parts)).encode()).digest()


def _moment(stated: Any) -> int | None:
    try:
        return parse_timestamp(stated) if isinstance(stated, str) else None
    except ValueError:
        return None


def _as_numbers(value: Any) -> Any:
    # RFC 8785 writes a number as a double does. One that a double rounds would share its form with others.
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        number = float(value)
        if Decimal(repr(number)) != value:
            raise refused(Fault.NOT_CANONICAL)
        return number
    if isinstance(value, Mapping):
        return {key: _as_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_numbers(item) for item in value]
    return value
