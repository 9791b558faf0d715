"""How a vote on signals goes (§6.2, §6.3), pure: its states, its rules, what a tally may say and what it comes to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.loopcost import signal_basis_points
from loopd.protocol.vocabulary import DEFAULT_SIGNAL, SIGNAL_KEYS
from loopd.signals.rules import basis_points_of

# §6.2: 0.10 in a voting period.
MAX_CHANGE_BASIS_POINTS: Final = 1_000


class State(StrEnum):
    """Where a proposal stands."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    CLOSED = "closed"
    COUNTED = "counted"
    PASSED = "passed"
    FAILED = "failed"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    ANNULLED = "annulled"


class Event(StrEnum):
    """What moves a proposal."""

    OPENS = "the window opens"
    UNFIT = "it does not fit what is in force"
    CLOSES = "the window closes"
    RESULT = "a result is there"
    CERTIFIED_PASSED = "certified, passed"
    CERTIFIED_FAILED = "certified, not passed"
    WITHDRAWN = "withdrawn"
    ANNULLED = "annulled"


MOVES: Final[Mapping[tuple[State, Event], State]] = {
    (State.SCHEDULED, Event.OPENS): State.OPEN,
    (State.SCHEDULED, Event.UNFIT): State.REFUSED,
    (State.SCHEDULED, Event.WITHDRAWN): State.WITHDRAWN,
    (State.OPEN, Event.CLOSES): State.CLOSED,
    (State.OPEN, Event.ANNULLED): State.ANNULLED,
    (State.CLOSED, Event.RESULT): State.COUNTED,
    (State.CLOSED, Event.ANNULLED): State.ANNULLED,
    # A result that was entered wrongly is entered again, until it is certified.
    (State.COUNTED, Event.RESULT): State.COUNTED,
    (State.COUNTED, Event.ANNULLED): State.ANNULLED,
    (State.COUNTED, Event.CERTIFIED_PASSED): State.PASSED,
    (State.COUNTED, Event.CERTIFIED_FAILED): State.FAILED,
}
UNDECIDED: Final = frozenset({State.SCHEDULED, State.OPEN, State.CLOSED, State.COUNTED})


def follow(state: State, event: Event) -> State:
    """The state after an event. Conflict `wrong_state` where the table has none."""
    following = MOVES.get((state, event))
    if following is None:
        possible = [known.value for before, known in MOVES if before is state]
        message = f"The proposal is {state.value}; now {event.value} is not possible."
        raise Conflict("wrong_state", message, {"state": state.value, "possible": possible})
    return following


class Method(StrEnum):
    """Who counts: the municipality, whose officer attests the result, or this node, which takes ballots."""

    ATTESTED = "attested"
    BALLOTS = "ballots"


@dataclass(frozen=True, slots=True)
class Change:
    """One category's signal, from and to, in basis points."""

    category: str
    current: int
    proposed: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules of one vote, frozen when its window opens. `appeals_ms`: from the count to the certification."""

    eligible: int
    quorum: Fraction
    threshold: Fraction
    appeals_ms: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted. Who voted neither for nor against abstained."""

    eligible: int
    voted: int
    votes_for: int
    votes_against: int

    @property
    def abstained(self) -> int:
        return self.voted - self.votes_for - self.votes_against


def has_passed(tally: Tally, terms: Terms) -> bool:
    """Whether somebody voted, enough did, and more than the threshold of those who decided are for it; a tie fails."""
    decided = tally.votes_for + tally.votes_against
    return (
        tally.voted > 0 and tally.voted >= terms.quorum * tally.eligible and tally.votes_for > terms.threshold * decided
    )


def read_changes(changes: Iterable[Mapping[str, Any]]) -> tuple[Change, ...]:
    """The changes of a SignalProposal, each within what a period allows.

    Invalid with the place: `unknown_category`, `repeated_category`, `bad_signal`, `no_change`, `change_too_large`.
    """
    found: dict[str, Change] = {}
    for index, stated in enumerate(changes):
        place, category = f"/changes/{index}", stated["category"]
        if category not in SIGNAL_KEYS:
            raise refused("unknown_category", f"{place}/category", "there is no such category")
        if category in found:
            raise refused("repeated_category", f"{place}/category", "a category is changed once in a proposal")
        values = {}
        for name in ("current", "proposed"):
            try:
                values[name] = basis_points_of(stated[name])
            except ValueError as error:
                raise refused("bad_signal", f"{place}/{name}", str(error)) from None
        difference = abs(values["proposed"] - values["current"])
        if difference == 0:
            raise refused("no_change", f"{place}/proposed", "the proposed value is the current one")
        if difference > MAX_CHANGE_BASIS_POINTS:
            raise refused("change_too_large", f"{place}/proposed", "a signal changes by at most 0.10 in a period")
        found[category] = Change(category, values["current"], values["proposed"], stated.get("reason"))
    return tuple(found.values())


def touched(changes: Iterable[Change], signals: Mapping[str, int]) -> frozenset[str]:
    """The categories whose value in force a proposal moves: with `default` all those that have none of their own."""
    categories = {change.category for change in changes}
    if DEFAULT_SIGNAL in categories:
        categories |= SIGNAL_KEYS - signals.keys()
    return frozenset(categories)


def changed(signals: Mapping[str, int], changes: Iterable[Change]) -> dict[str, int]:
    """The signals after a proposal has passed."""
    return dict(signals) | {change.category: change.proposed for change in changes}


def differing(changes: Iterable[Change], signals: Mapping[str, int]) -> list[str]:
    """The categories whose `current` is not what is in force."""
    return [
        change.category for change in changes if signal_basis_points(dict(signals), change.category) != change.current
    ]


def beyond_limit(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """The categories, and `default`, whose value in force would differ by more than 0.10."""
    return [
        category
        for category in sorted(SIGNAL_KEYS)
        if abs(signal_basis_points(dict(before), category) - signal_basis_points(dict(after), category))
        > MAX_CHANGE_BASIS_POINTS
    ]


def read_tally(stated: Mapping[str, Any], terms: Terms) -> Tally:
    """The tally in a result as it was entered, or Invalid `impossible_tally` with the place.

    `total_voted`, `votes_for` and `votes_against` are there; `total_eligible`, `abstentions` and `status` are checked
    where they are. Without `abstentions` those who voted neither way abstained.
    """
    for name in ("total_eligible", "total_voted", "votes_for", "votes_against", "abstentions"):
        count = stated.get(name, 0)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise _impossible(name, "a count is a whole number of at least 0")
    if stated.get("total_eligible", terms.eligible) != terms.eligible:
        raise _impossible("total_eligible", f"when the window opened {terms.eligible} were eligible")
    tally = Tally(terms.eligible, stated["total_voted"], stated["votes_for"], stated["votes_against"])
    if tally.voted > tally.eligible:
        raise _impossible("total_voted", "more voted than were eligible")
    if tally.abstained < 0:
        raise _impossible("total_voted", "fewer voted than there are votes for and against")
    if stated.get("abstentions", tally.abstained) != tally.abstained:
        raise _impossible("abstentions", "the votes for and against and the abstentions are not those who voted")
    expected = status_of(tally, terms)
    if stated.get("status", expected) != expected:
        raise _impossible("status", f"by these numbers it is {expected}")
    return tally


def status_of(tally: Tally, terms: Terms) -> str:
    """The outcome as a LoopVote names it."""
    return "passed" if has_passed(tally, terms) else "failed"


def read_fraction(text: str) -> Fraction:
    """An exact share of the whole such as `1/2`, `0` or `1`. ValueError for anything else."""
    numerator, _, denominator = text.partition("/")
    parts = (numerator, denominator or "1")
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts) or text.endswith("/"):
        raise ValueError("a fraction is written as 1/2, 0 or 1")
    if int(parts[1]) == 0 or not int(parts[0]) <= int(parts[1]):
        raise ValueError("a fraction of the voters lies between 0 and 1")
    return Fraction(int(parts[0]), int(parts[1]))


def refused(reason: str, pointer: str, message: str) -> Invalid:
    """A 400 with the place that is wrong."""
    errors = [{"pointer": pointer, "rule": reason, "message": message}]
    return Invalid(reason, f"{pointer}: {message}", {"errors": errors})


def _impossible(name: str, message: str) -> Invalid:
    return refused("impossible_tally", f"/{name}", message)


@dataclass(frozen=True, slots=True)
class Vote:
    """A proposal and what became of it. `closes_stated_ms` says to which month it belongs, `closes_ms` when it ends.

    `terms` is there once the window has opened, `tally` once a result is.
    """

    number: int
    vote_id: str
    state: State
    method: Method
    changes: tuple[Change, ...]
    opens_ms: int
    closes_stated_ms: int
    closes_ms: int
    eligible: int | None = None
    terms: Terms | None = None
    tally: Tally | None = None
    attestation: str | None = None
    reason: str | None = None
    counted_at_ms: int | None = None
    decided_at_ms: int | None = None
    effective_from_ms: int | None = None

    @property
    def due_ms(self) -> int | None:
        """When time alone moves it next."""
        return {State.SCHEDULED: self.opens_ms, State.OPEN: self.closes_ms}.get(self.state)

    def frozen(self) -> Terms:
        """The terms of a vote whose window has opened; before that Conflict `wrong_state`."""
        if self.terms is None:
            raise Conflict("wrong_state", "The rules are frozen when the window opens.", {"state": self.state.value})
        return self.terms
