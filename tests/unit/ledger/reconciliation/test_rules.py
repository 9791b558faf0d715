"""Comparing two statements: whatever differs is found, what is on its way is none."""

from dataclasses import replace

import pytest

from loopd.ledger.reconciliation.rules import Entry, EntryKind, compare, read_entry

HERE, THERE = "munich.loop", "vienna.loop"


def entry(number: int, payer: str = HERE, state: str = "posted", payer_minor: int = 92, payee_minor: int = 70) -> Entry:
    return Entry(payer, f"{number:03d}", state, payer_minor, payee_minor)


ENTRIES = [entry(number, payer) for number in range(4) for payer in (HERE, THERE)]


def test_the_same_books_agree() -> None:
    assert compare(ENTRIES, reversed(ENTRIES), HERE).difference is None
    assert compare(ENTRIES, ENTRIES, HERE).compared == len(ENTRIES)


@pytest.mark.parametrize("missing", range(len(ENTRIES)))
def test_an_entry_that_a_side_lacks_is_named(missing: int) -> None:
    rest = [each for each in ENTRIES if each is not ENTRIES[missing]]
    for here, there, reason in ((rest, ENTRIES, "missing_here"), (ENTRIES, rest, "missing_there")):
        difference = compare(here, there, HERE).difference
        assert difference is not None
        assert (difference.reason, difference.here or difference.there) == (reason, ENTRIES[missing])


@pytest.mark.parametrize("change", [{"payer_minor": 93}, {"payee_minor": 71}])
def test_another_amount_is_named(change: dict[str, int]) -> None:
    lie = replace(ENTRIES[5], **change)
    difference = compare(ENTRIES, [lie if each is ENTRIES[5] else each for each in ENTRIES], HERE).difference
    assert difference is not None
    assert (difference.reason, difference.here, difference.there) == ("other_amounts", ENTRIES[5], lie)


def test_what_is_on_its_way_is_counted_and_no_difference() -> None:
    posted, prepared = entry(1), entry(1, state="prepared")
    for here, there in (([posted], [prepared]), ([], [prepared])):
        found = compare(here, there, HERE)
        assert (found.in_flight, found.difference) == (1, None)
    # A payer that knows of a reserve that is nowhere.
    assert compare([prepared], [], HERE).difference is not None


@pytest.mark.parametrize("kind", EntryKind)
@pytest.mark.parametrize("decides_here", [True, False])
def test_what_the_deciding_side_has_not_decided_on_is_a_difference(kind: EntryKind, decides_here: bool) -> None:
    """A payer decides on its settlement, and of a discharge who is paid."""
    payer = HERE if decides_here == (kind is EntryKind.SETTLEMENT) else THERE
    posted, prepared = (replace(entry(1, payer, state), kind=kind) for state in ("posted", "prepared"))
    ours, theirs = (prepared, posted) if decides_here else (posted, prepared)
    difference = compare([ours], [theirs], HERE).difference
    assert difference is not None
    assert (difference.reason, difference.here, difference.there) == ("other_decision", ours, theirs)
    assert compare([theirs], [ours], HERE).in_flight == 1


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"payer": HERE, "id": "1", "state": "held", "payer_amount": 1, "payee_amount": 1},
        {"payer": HERE, "id": "1", "state": "posted", "payer_amount": "1", "payee_amount": 1},
        {"payer": HERE, "id": "1", "state": "posted", "payer_amount": -1, "payee_amount": 1},
    ],
)
def test_what_is_no_entry_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"entry|amount"):
        read_entry(value)
