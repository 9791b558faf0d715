"""When a run is made, what it makes each city owe, and how runs and discharges move; pure.

A run lists payments that both books hold. Its claims say what is to be paid in the backing, and by how much the
clearing accounts of both cities fall once that is done.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from loopd.ledger.dates import DAY_MS
from loopd.protocol.limits import DISCHARGE_RUNS_MAX

_HOUR_MS: Final = 3_600_000
_WEEK_MS: Final = 7 * DAY_MS
# 1970-01-01 was a Thursday; weeks begin on Mondays.
_FIRST_MONDAY_MS: Final = 4 * DAY_MS


class Method(StrEnum):
    """How two nodes settle (§5.3).

    `clearing`: runs are signed, and their balance stays on the clearing accounts until one payment discharges all of
    them. `gross`: each city pays in full what its own buyers owe, nothing is set off. `netting`: the city that owes
    more pays the difference of the run.
    """

    CLEARING = "clearing"
    GROSS = "gross"
    NETTING = "netting"


class Period(StrEnum):
    """How often they settle (§5.3). All of it in UTC; weeks begin on Mondays."""

    IMMEDIATE = "immediate"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"


class RunState(StrEnum):
    """How a run stands. Its payments are in no other run unless it is refused."""

    PROPOSED = "proposed"
    AGREED = "agreed"
    REFUSED = "refused"


class DischargeState(StrEnum):
    """How a payment from reserve to reserve stands. Who receives it says whether it came."""

    ANNOUNCED = "announced"
    CONFIRMED = "confirmed"
    DENIED = "denied"


class DischargeSide(StrEnum):
    """Which side of a discharge this node is."""

    DEBTOR = "debtor"
    CREDITOR = "creditor"


RUN_MOVES: Final[Mapping[RunState, tuple[RunState, ...]]] = {
    RunState.PROPOSED: (RunState.AGREED, RunState.REFUSED),
    RunState.AGREED: (),
    RunState.REFUSED: (),
}
DISCHARGE_MOVES: Final[Mapping[DischargeState, tuple[DischargeState, ...]]] = {
    DischargeState.ANNOUNCED: (DischargeState.CONFIRMED, DischargeState.DENIED),
    DischargeState.CONFIRMED: (),
    DischargeState.DENIED: (),
}


def proposes(home: str, peer: str) -> bool:
    """Whether `home` is the one of both that proposes their runs: the smaller node id."""
    return home < peer


def closes_at(period: Period, now_ms: int) -> int:
    """What was posted before this moment belongs into the run that is due now."""
    if period is Period.IMMEDIATE:
        return now_ms + 1
    if period is Period.WEEKLY:
        return (now_ms - _FIRST_MONDAY_MS) // _WEEK_MS * _WEEK_MS + _FIRST_MONDAY_MS
    length_ms = _HOUR_MS if period is Period.HOURLY else DAY_MS
    return now_ms // length_ms * length_ms


def may_propose_again(period: Period, refused_at_ms: int, now_ms: int) -> bool:
    """Whether a new run may follow a refused one: in the next period, and not before the next hour."""
    pace = Period.HOURLY if period is Period.IMMEDIATE else period
    return closes_at(pace, now_ms) > refused_at_ms


@dataclass(frozen=True, slots=True)
class Payment:
    """What crossed in one settlement, in both currencies. `payee_rate` is LC for one unit of the backing, frozen."""

    payer: str
    payee: str
    payer_minor: int
    payee_minor: int
    payee_rate: Decimal

    @property
    def backing(self) -> Fraction:
        """What the payee's coins are worth in hundredths of the backing, exactly."""
        return self.payee_minor / Fraction(self.payee_rate)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be paid for a run, in hundredths of the backing; and by how much it lowers each clearing account.

    `falls_minor` has the two node ids. The debtor's account, above zero by what it owes, falls by a positive amount;
    the creditor's, below zero, by a negative one.
    """

    debtor: str
    creditor: str
    backing_minor: int
    falls_minor: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class KeptClaim:
    """A claim of an agreed run. `falls_minor` is by how much the own clearing account falls when it is discharged."""

    number: int
    run: int
    method: Method
    debtor: str
    creditor: str
    backing_minor: int
    falls_minor: int
    discharge: int | None


def claims_of(method: Method, nodes: tuple[str, str], payments: Sequence[Payment]) -> list[Claim]:
    """The claims of a run between two nodes, in the order of their debtors; none for payments of nothing.

    What is owed is rounded up to a hundredth: the payee's coins are to be covered.
    """
    first, second = nodes
    if method is Method.GROSS:
        directions = ((first, second), (second, first))
        found = [
            _claim(direction, [each for each in payments if each.payer == direction[0]]) for direction in directions
        ]
    else:
        found = [_claim(nodes, payments)]
    return [claim for claim in found if claim.backing_minor or any(claim.falls_minor.values())]


def owed_minor(debtor: str, claims: Iterable[KeptClaim]) -> int:
    """What `debtor` owes by claims between the same two nodes, the other's debts set off; below zero it is owed."""
    return sum(each.backing_minor if each.debtor == debtor else -each.backing_minor for each in claims)


def paid_together(method: Method, run: int, debtor: str, waiting: Iterable[KeptClaim]) -> list[KeptClaim]:
    """Which of the claims that wait one payment for a run discharges; `waiting` are in the order of their runs.

    With `clearing` all that is carried up to that run, as much as one payment may; else what `debtor` owes by that run.
    """
    if method is Method.CLEARING:
        carried = [each for each in waiting if each.method is Method.CLEARING and each.run <= run]
        return carried[:DISCHARGE_RUNS_MAX]
    return [each for each in waiting if each.run == run and each.debtor == debtor]


def fault_of_payment(debtor: str, stated_minor: int, claims: Sequence[KeptClaim]) -> str | None:
    """Why `debtor` cannot have paid so much for these claims: `in_discharge`, `not_debtor`, `other_amount`."""
    if any(each.discharge is not None for each in claims):
        return "in_discharge"
    expected_minor = owed_minor(debtor, claims)
    if expected_minor <= 0:
        return "not_debtor"
    return None if expected_minor == stated_minor else "other_amount"


def _claim(nodes: tuple[str, str], payments: Iterable[Payment]) -> Claim:
    """What the first of both nodes owes the other, or the other way about."""
    first, second = nodes
    owed, falls = Fraction(0), dict.fromkeys(nodes, 0)
    for each in payments:
        owed += each.backing if each.payer == first else -each.backing
        falls[each.payer] += each.payer_minor
        falls[each.payee] -= each.payee_minor
    debtor, creditor = (first, second) if owed >= 0 else (second, first)
    backing_minor = -(-abs(owed).numerator // owed.denominator)
    return Claim(debtor, creditor, backing_minor, falls)
