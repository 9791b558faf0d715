"""Both sides' statements of what is between two cities, compared entry by entry; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loopd.ledger.clearing.rules import PayeeState, PayerState
from loopd.protocol.money import amount_json, parse_amount

# What a statement lists: all that is or may be in the other's books too.
LISTED: Final = (PayerState.PREPARED.value, PayerState.POSTED.value)


@dataclass(frozen=True, slots=True)
class Entry:
    """A settlement in one side's statement."""

    payer: str
    id: str
    state: str
    payer_minor: int
    payee_minor: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The first entry in which the statements differ, by the payer's node and the id; None where a side lacks it."""

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
    """The statements of `home` and of its peer. Reasons: `missing_here`, `missing_there`, `other_amounts`.

    A payee that has prepared waits for a payer that may hold, have decided or be about to: that is no difference.
    """
    ours, theirs = _by_name(here), _by_name(there)
    in_flight = 0
    for name in sorted(ours.keys() | theirs.keys()):
        own, other = ours.get(name), theirs.get(name)
        if own is not None and other is not None:
            if (own.payer_minor, own.payee_minor) != (other.payer_minor, other.payee_minor):
                return Comparison(len(ours.keys() & theirs.keys()), in_flight, Difference("other_amounts", own, other))
            in_flight += own.state != other.state
            continue
        alone = own or other
        payee_waits = (
            alone is not None
            and alone.state == PayeeState.PREPARED.value
            and (alone.payer != home) == (own is not None)
        )
        if not payee_waits:
            reason = "missing_there" if other is None else "missing_here"
            return Comparison(len(ours.keys() & theirs.keys()), in_flight, Difference(reason, own, other))
        in_flight += 1
    return Comparison(len(ours.keys() & theirs.keys()), in_flight, None)


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry as it is told."""
    return {
        "payer": entry.payer,
        "id": entry.id,
        "state": entry.state,
        "payer_amount": amount_json(entry.payer_minor),
        "payee_amount": amount_json(entry.payee_minor),
    }


def read_entry(value: Mapping[str, Any]) -> Entry:
    """An entry of another node's statement. ValueError where it is none."""
    texts = [value.get(name) for name in ("payer", "id", "state")]
    payer, settlement_id, state = (text if isinstance(text, str) else "" for text in texts)
    if not payer or not settlement_id or state not in LISTED:
        raise ValueError("not an entry of a statement")
    amounts = [parse_amount(value.get(name, "")) for name in ("payer_amount", "payee_amount")]
    return Entry(payer, settlement_id.lower(), state, *amounts)


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


def _by_name(entries: Iterable[Entry]) -> dict[tuple[str, str], Entry]:
    return {(entry.payer, entry.id): entry for entry in entries}
