"""Exact arithmetic of money: exchange between currencies, the reserve, and how a payment is distributed; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction


class NoRate(ValueError):
    """A rate of zero, or currencies that are backed differently, cannot be exchanged."""


def payer_amount(payee_minor: int, payer_rate: Decimal, payee_rate: Decimal) -> int:
    """What the payer is debited so that the payee gets its fixed amount: the exact ceiling.

    A rate is LC for one unit of the backing that both share. NoRate for a rate of zero.
    """
    if payer_rate <= 0 or payee_rate <= 0:
        raise NoRate("a rate of zero exchanges nothing")
    return _ceiling(payee_minor * Fraction(payer_rate) / Fraction(payee_rate))


def backing_of(amount_minor: int, exchange_rate: Decimal) -> int:
    """The backing, in its hundredths, that the city pays out for an amount of LC, rounded down. NoRate for a zero."""
    if exchange_rate <= 0:
        raise NoRate("a rate of zero has no backing")
    return _floor(Fraction(amount_minor) / Fraction(exchange_rate))


def share(amount_minor: int, rate: Decimal) -> int:
    """A rate's part of an amount, floored: the bonus."""
    return _floor(amount_minor * Fraction(rate))


def is_covered(cover_minor: int, exchange_rate: Decimal, claims_minor: int, supply_minor: int, ratio: Decimal) -> bool:
    """Whether the reserve suffices: its worth in LC and the counted claims on peers against ratio × supply.

    `claims_minor` is what peers owe, each up to its credit limit, less what they are owed.
    """
    return cover_minor * Fraction(exchange_rate) + claims_minor >= Fraction(ratio) * supply_minor


class Line(StrEnum):
    """The recipients of §7.4, and what it leaves over."""

    SELLER = "seller_receives"
    SELLER_COMMUNITY = "seller_community_fund"
    BUYER_COMMUNITY = "buyer_community_fund"
    TRANSPORT = "transport_cost"
    RESIDUAL = "residual"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a LoopCost is distributed (§7.4). The five lines add up to what the buyer pays."""

    lines: Mapping[Line, int]

    @property
    def total_minor(self) -> int:
        return sum(self.lines.values())


def distribute(base_minor: int, export_minor: int, import_minor: int, distance_minor: int) -> Distribution:
    """The lines of a payment: 60 + 24 + 12 + 8 is 36 for the seller, 24, 12 and 8, and 24 that §7.4 names nobody for.

    The buyer pays the export penalty and the seller gets that much less, so it is there twice: once for the origin's
    community fund, once as the residual. ValueError for a negative component, or an export penalty above the base.
    """
    if min(base_minor, export_minor, import_minor, distance_minor) < 0 or export_minor > base_minor:
        raise ValueError("a cost has no negative part, and no export penalty above the base price")
    return Distribution(
        {
            Line.SELLER: base_minor - export_minor,
            Line.SELLER_COMMUNITY: export_minor,
            Line.BUYER_COMMUNITY: import_minor,
            Line.TRANSPORT: distance_minor,
            Line.RESIDUAL: export_minor,
        }
    )


def _floor(value: Fraction) -> int:
    return value.numerator // value.denominator


def _ceiling(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
