"""Why an order is refused, in the order in which it is looked at; pure.

Of an order with several faults the first in this list is told. Nothing has moved then. What only the account's holder
may know comes after the authority.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from loopd.protocol.errors import Refusal


class UnusableLedger(Exception):
    """The books do not fit the settings; the message tells the operator why."""


class Fault(Enum):
    """A fault of an order: reason, status, and the sentence for people."""

    BAD_AMOUNT = ("bad_amount", 400, "An amount is at least 0.01, has at most two decimals, and ends at 10^13 LC.")
    NOT_CANONICAL = ("not_canonical", 400, "A number in the order has no RFC 8785 form, and so no signature.")
    RESERVED_ID = ("reserved_id", 400, "An id of UUID version 8 is the ledger's own to give; take a random one.")
    WRONG_CURRENCY = ("wrong_currency", 400, "This ledger has another currency.")
    SAME_ACCOUNT = ("same_account", 400, "Nobody pays from an account to itself.")
    BAD_SIGNATURE = ("bad_signature", 401, "The signature is not that of the account's key over this order.")
    NOT_AUTHORISED = ("not_authorised", 403, "It takes the signature of the account's key, or a token bound to it.")
    OTHER_CONTENT = ("other_content", 409, "A transfer with this id and other content is stored already.")
    BAD_TIME = ("bad_time", 400, "An order is dated now, not days ago and not ahead; a hold ends later, in 90 days.")
    RESERVED_ACCOUNT = ("reserved_account", 403, "Only the node's own rules move money to or from this account.")
    OTHER_NODE = ("other_node", 409, "The account is another city's; only transactions settle between cities.")
    UNKNOWN_ACCOUNT = ("unknown_account", 404, "There is no such account here; the city's office opens accounts.")
    TOO_MANY_PENDING = ("too_many_pending", 409, "The account has 1,000 pending transfers; post or void some first.")
    NO_RATE = ("no_rate", 409, "The exchange rate is 0, so nothing is issued, redeemed or exchanged.")
    OVER_CAP = ("over_cap", 409, "More would circulate than max_issuance allows.")
    INSUFFICIENT_FUNDS = ("insufficient_funds", 409, "The account has less than that which is not held.")
    INSUFFICIENT_RESERVE = ("insufficient_reserve", 409, "The reserve has less than that.")
    UNDER_RESERVE = ("under_reserve", 409, "The reserve would not cover what circulates.")
    OF_A_TRANSACTION = ("of_a_transaction", 409, "The pending transfer is part of a settlement, which decides on it.")
    NOT_PENDING = ("not_pending", 409, "Only a pending transfer is posted or voided.")
    ALREADY_POSTED = ("already_posted", 409, "The pending transfer was posted.")
    ALREADY_VOIDED = ("already_voided", 409, "The pending transfer was voided.")
    ALREADY_EXPIRED = ("already_expired", 409, "The pending transfer expired.")
    NOT_FROZEN = ("not_frozen", 409, "The transaction is not disputed: its own way decides on its payment.")

    @property
    def reason(self) -> str:
        """The machine's word."""
        return self.value[0]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[1]

    @property
    def message(self) -> str:
        """The sentence for people."""
        return self.value[2]


def refused(fault: Fault, details: Mapping[str, Any] | None = None) -> Refusal:
    """The refusal of a fault."""
    return Refusal(fault.status, fault.reason, fault.message, details)
