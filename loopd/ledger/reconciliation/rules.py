"""Both sides' statements of what is between two cities, compared entry by entry; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from loopd.ledger.clearing.rules import PayeeState, PayerState
from loopd.protocol.money import amount_json, parse_amount

# What a statement lists: all that is or may be in the other's books too.
LISTED: Final = (PayerState.PREPARED.value, PayerState.POSTED.value)


class EntryKind(StrEnum):
    """What a statement lists: payments, and what discharged them."""

    SETTLEMENT = "settlement"
    DISCHARGE = "discharge"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line in one side's statement. A discharge has its debtor as payer, and what was paid, in the backing, twice."""

    payer: str
    id: str
    state: str
    payer_minor: int
    payee_minor: int
    kind: EntryKind = EntryKind.SETTLEMENT

    @property
    def name(self) -> tuple[str, str, str]:
        """By which both sides know it."""
        return self.kind, self.payer, self.id

    def waits(self, *, at_payer: bool) -> bool:
        """Whether one side alone may have it: of a settlement the payee's, of a discharge the debtor's."""
        return self.state == PayeeState.PREPARED.value and at_payer == (self.kind is EntryKind.DISCHARGE)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first entry in which the statements differ, by kind, payer's node and id; None where a side lacks it."""

    reason: str
    here: Entry | None
    there: Entry | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many entries both have, and how many of all are still on their way from one to the other."""

    compared: int
    in_flight: int
    difference: Difference | None


def compare(here: Iterable[Entry], there: Iterable[Entry], home: str) -> Comparison:
    """The statements of `home` and of its peer.

    Reasons: `missing_here`, `missing_there`, `other_amounts`, `other_decision` (posted by who does not decide).
    A payee that has prepared waits for a payer that may hold, have decided or be about to; a debtor that has announced
    waits for a creditor that may not have heard of it. Neither is a difference.
    """
    ours, theirs = ({entry.name: entry for entry in entries} for entries in (here, there))
    compared, in_flight = len(ours.keys() & theirs.keys()), 0
    for name in sorted(ours.keys() | theirs.keys()):
        own, other = ours.get(name), theirs.get(name)
        if own is not None and other is not None:
            if (own.payer_minor, own.payee_minor) != (other.payer_minor, other.payee_minor):
                return Comparison(compared, in_flight, Difference("other_amounts", own, other))
            if _decided_alone(own, other, home):
                return Comparison(compared, in_flight, Difference("other_decision", own, other))
            in_flight += own.state != other.state
            continue
        alone = own or other
        if alone is None or not alone.waits(at_payer=(alone.payer == home) == (own is not None)):
            reason = "missing_there" if other is None else "missing_here"
            return Comparison(compared, in_flight, Difference(reason, own, other))
        in_flight += 1
    return Comparison(compared, in_flight, None)


def _decided_alone(own: Entry, other: Entry, home: str) -> bool:
    """Whether the side that only follows has posted what the other has not: a settlement's payer decides on it, of a
    discharge its creditor.
    """
    of_payer, of_payee = (own, other) if own.payer == home else (other, own)
    decides, follows = (of_payer, of_payee) if own.kind is EntryKind.SETTLEMENT else (of_payee, of_payer)
    return (decides.state, follows.state) == LISTED


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry as it is told."""
    return {
        "kind": entry.kind.value,
        "payer": entry.payer,
        "id": entry.id,
        "state": entry.state,
        "payer_amount": amount_json(entry.payer_minor),
        "payee_amount": amount_json(entry.payee_minor),
    }


def read_entry(value: Mapping[str, Any]) -> Entry:
    """An entry of another node's statement. ValueError where it is none."""
    texts = [value.get(name) for name in ("payer", "id", "state")]
    payer, entry_id, state = (text if isinstance(text, str) else "" for text in texts)
    if not payer or not entry_id or state not in LISTED:
        raise ValueError("not an entry of a statement")
    amounts = [parse_amount(value.get(name, "")) for name in ("payer_amount", "payee_amount")]
    payer_minor, payee_minor = amounts
    return Entry(payer, entry_id.lower(), state, payer_minor, payee_minor, EntryKind(value.get("kind", "settlement")))


def comparison_json(peer: str, comparison: Comparison) -> dict[str, Any]:
    """A comparison as the operator sees it."""
    difference = comparison.difference
    told = None
    if difference is not None:
        told = {
            "reason": difference.reason,
            "here": None if difference.here is None else entry_json(difference.here),
            "there": None if difference.there is None else entry_json(difference.there),
        }
    return {
        "peer": peer,
        "agrees": difference is None,
        "compared": comparison.compared,
        "in_flight": comparison.in_flight,
        "difference": told,
    }
