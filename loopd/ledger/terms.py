"""The currency's terms (§5.1) and which of them were in force when; pure.

Every change of the settings makes a new version. What happens at a moment follows the version then in force, so that
the same books come of it whenever they are written.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import inf

from loopd.ledger.dates import add_months, day_of, start_of


class ExpiryPolicy(StrEnum):
    """What happens to coins that were not spent in time."""

    DECAY = "decay"
    FORFEIT = "forfeit"


@dataclass(frozen=True, slots=True)
class Terms:
    """One version of the currency's properties. Rates are exact; `max_issuance_minor` None means without a cap."""

    currency_code: str
    backed_by: str
    exchange_rate: Decimal
    local_bonus: Decimal
    expiry_months: int
    decay_rate: Decimal
    max_issuance_minor: int | None
    reserve_ratio: Decimal
    expiry_policy: ExpiryPolicy

    def boundary(self, issue_day: int, number: int) -> int:
        """The `number`-th moment at which a lot of that issue day loses value, from 0 on, in ms.

        With decay the first is a month after the expiry, with forfeit it is the expiry; then one follows each month.
        """
        months = self.expiry_months + number + (1 if self.expiry_policy is ExpiryPolicy.DECAY else 0)
        return start_of(add_months(issue_day, months))

    def loss_minor(self, amount_minor: int) -> int:
        """What a boundary takes of an amount: the holder keeps the floor of what the rate leaves."""
        if self.expiry_policy is ExpiryPolicy.FORFEIT:
            return amount_minor
        kept = amount_minor * (1 - Fraction(self.decay_rate))
        return amount_minor - kept.numerator // kept.denominator


@dataclass(frozen=True, slots=True)
class Version:
    """Terms and the moment from which they hold."""

    valid_from_ms: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class Boundary:
    """A moment at which a lot loses value, and the terms by which."""

    at_ms: int
    terms: Terms


class TermsHistory:
    """All versions, oldest first. ValueError for none."""

    def __init__(self, versions: Sequence[Version]) -> None:
        if not versions:
            raise ValueError("there are no terms")
        self._versions = sorted(versions, key=lambda version: version.valid_from_ms)
        self._starts = [version.valid_from_ms for version in self._versions]

    @property
    def newest(self) -> Terms:
        """The terms in force now."""
        return self._versions[-1].terms

    def at(self, moment_ms: int) -> Terms:
        """The terms in force at a moment; before the first version, the first."""
        return self._versions[max(bisect_right(self._starts, moment_ms) - 1, 0)].terms

    def boundaries(self, issue_day: int, from_ms: int, until_ms: int) -> list[Boundary]:
        """The boundaries of a lot from one moment to another, both included, in order.

        A moment is a boundary if the version in force at that moment says so.
        """
        found = []
        for terms, begins_ms, ends_ms in self._spans(from_ms):
            number = _first_number(terms, issue_day, begins_ms)
            while (at_ms := terms.boundary(issue_day, number)) <= min(ends_ms, until_ms):
                found.append(Boundary(at_ms, terms))
                number += 1
        return found

    def next_boundary(self, issue_day: int, after_ms: int) -> int:
        """The first boundary later than a moment, by the terms as far as they are known."""
        for terms, begins_ms, ends_ms in self._spans(after_ms + 1):
            at_ms = terms.boundary(issue_day, _first_number(terms, issue_day, begins_ms))
            if at_ms <= ends_ms:
                return at_ms
        raise RuntimeError("the newest terms have no end")

    def _spans(self, from_ms: int) -> Iterator[tuple[Terms, int, float]]:
        """The terms from a moment on, each with its first and its last millisecond; the newest have no last."""
        ends = [*(start - 1 for start in self._starts[1:]), inf]
        for index, ends_ms in enumerate(ends):
            if from_ms <= ends_ms:
                begins_ms = from_ms if index == 0 else max(from_ms, self._starts[index])
                yield self._versions[index].terms, begins_ms, ends_ms


def _first_number(terms: Terms, issue_day: int, from_ms: int) -> int:
    """The number of the first boundary at a moment or later."""
    # A month has at most 31 days: begin near the right number, below it, and step.
    elapsed_days = max(day_of(from_ms) - issue_day, 0)
    number = max(elapsed_days // 31 - terms.expiry_months - 2, 0)
    while terms.boundary(issue_day, number) < from_ms:
        number += 1
    return number
