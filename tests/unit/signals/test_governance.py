from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES, SIGNAL_KEYS
from loopd.signals.governance import (
    MOVES,
    UNDECIDED,
    Change,
    Event,
    State,
    Tally,
    Terms,
    beyond_limit,
    changed,
    differing,
    follow,
    has_passed,
    read_changes,
    read_fraction,
    read_tally,
    status_of,
    touched,
)

COUNTS = st.integers(0, 200)
SHARES = st.fractions(0, 1, max_denominator=12)


def terms(eligible: int = 150_000, quorum: str = "0", threshold: str = "1/2") -> Terms:
    return Terms(eligible, read_fraction(quorum), read_fraction(threshold), 0)


def change(**values: Any) -> dict[str, Any]:
    return {"category": "plastic-pet", "current": Decimal("0.20"), "proposed": Decimal("0.30"), **values}


def result(**values: Any) -> dict[str, Any]:
    """The result of §12.2."""
    return {"total_voted": 52_500, "votes_for": 35_700, "votes_against": 16_800, **values}


@pytest.mark.parametrize(("current", "proposed"), [("0.30", "0.40"), ("0.70", "0.80"), ("0.10", "0"), ("1", "0.9")])
def test_a_change_of_exactly_a_tenth_is_taken(current: str, proposed: str) -> None:
    (taken,) = read_changes([change(current=Decimal(current), proposed=Decimal(proposed))])
    assert abs(taken.proposed - taken.current) == 1000


@pytest.mark.parametrize(
    ("changes", "reason", "pointer"),
    [
        ([change(current=Decimal("0.30"), proposed=Decimal("0.4001"))], "change_too_large", "/changes/0/proposed"),
        ([change(current=Decimal("0.70"), proposed=Decimal("0.5999"))], "change_too_large", "/changes/0/proposed"),
        ([change(), change()], "repeated_category", "/changes/1/category"),
        ([change(category="gold")], "unknown_category", "/changes/0/category"),
        ([change(proposed=Decimal("0.20"))], "no_change", "/changes/0/proposed"),
        ([change(proposed=Decimal("0.20001"))], "bad_signal", "/changes/0/proposed"),
        ([change(current=Decimal("1.1"))], "bad_signal", "/changes/0/current"),
    ],
)
def test_changes_that_are_refused_name_the_place(changes: list[Any], reason: str, pointer: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_changes(changes)
    assert refusal.value.reason == reason
    assert refusal.value.details["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("stated", "pointer"),
    [
        (result(total_voted=150_001), "/total_voted"),
        (result(total_voted=52_499), "/total_voted"),
        (result(votes_for=-1), "/votes_for"),
        (result(votes_against=-1), "/votes_against"),
        (result(total_voted=-1), "/total_voted"),
        (result(votes_for=True), "/votes_for"),
        (result(votes_for=Decimal("1.5")), "/votes_for"),
        (result(abstentions=1), "/abstentions"),
        (result(total_voted=52_501, abstentions=0), "/abstentions"),
        (result(status="failed"), "/status"),
        (result(votes_for=16_800, votes_against=35_700, status="passed"), "/status"),
        (result(status="pending"), "/status"),
        (result(total_eligible=150_001), "/total_eligible"),
    ],
)
def test_impossible_tallies_name_the_place(stated: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_tally(stated, terms())
    assert refusal.value.reason == "impossible_tally"
    assert refusal.value.details["errors"][0]["pointer"] == pointer


def test_a_result_without_abstentions_implies_them() -> None:
    tally = read_tally(result(total_voted=60_000, status="passed"), terms())
    assert tally.abstained == 7_500


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_only_tallies_that_add_up_are_taken(eligible: int, voted: int, votes_for: int, votes_against: int) -> None:
    stated = {"total_voted": voted, "votes_for": votes_for, "votes_against": votes_against}
    possible = votes_for + votes_against <= voted <= eligible
    try:
        taken = read_tally(stated, terms(eligible))
    except Invalid:
        assert not possible
    else:
        assert possible
        assert (taken.voted, taken.abstained) == (voted, voted - votes_for - votes_against)


@given(COUNTS, COUNTS, COUNTS, st.integers(1, 600), SHARES, SHARES)
def test_what_passes(votes_for: int, votes_against: int, abstained: int, spare: int, quorum: Any, share: Any) -> None:
    voted = votes_for + votes_against + abstained
    tally = Tally(voted + spare, voted, votes_for, votes_against)
    expected = (
        voted > 0
        and voted * quorum.denominator >= quorum.numerator * (voted + spare)
        and votes_for * share.denominator > share.numerator * (votes_for + votes_against)
    )
    assert has_passed(tally, Terms(tally.eligible, quorum, share, 0)) is expected


@pytest.mark.parametrize(
    ("votes_for", "votes_against", "voted", "quorum", "threshold", "status"),
    [
        (0, 0, 0, "0", "0", "failed"),
        (5, 5, 10, "0", "1/2", "failed"),
        (6, 5, 11, "0", "1/2", "passed"),
        (1, 0, 33, "1/3", "1/2", "failed"),
        (1, 0, 34, "1/3", "1/2", "passed"),
        (2, 1, 3, "0", "2/3", "failed"),
        (0, 0, 3, "0", "1/2", "failed"),
    ],
)
def test_ties_quorums_and_thresholds(
    votes_for: int, votes_against: int, voted: int, quorum: str, threshold: str, status: str
) -> None:
    rules = terms(100, quorum, threshold)
    assert status_of(Tally(100, voted, votes_for, votes_against), rules) == status


@pytest.mark.parametrize("text", ["", "1/0", "2", "3/2", "-1/2", "0.5", "1/", "/2", "1/2/3", "1 /2", "½"])
def test_what_is_no_fraction(text: str) -> None:
    with pytest.raises(ValueError):
        read_fraction(text)


def test_fractions_are_exact() -> None:
    assert [read_fraction(text) for text in ("0", "1", "1/3", "2/4")] == [0, 1, Fraction(1, 3), Fraction(1, 2)]


def test_from_a_decided_proposal_nothing_moves() -> None:
    for state in State:
        possible = {event for before, event in MOVES if before is state}
        assert bool(possible) is (state in UNDECIDED)
        for event in Event:
            if event in possible:
                assert follow(state, event) is MOVES[state, event]
            else:
                with pytest.raises(Conflict) as refusal:
                    follow(state, event)
                assert refusal.value.details["state"] == state.value


def test_default_moves_every_category_without_a_signal_of_its_own() -> None:
    signals = {"plastic-pet": 2000, "default": 500}
    on_default, on_pet = Change("default", 500, 1500), Change("plastic-pet", 2000, 3000)
    assert touched([on_pet], signals) == {"plastic-pet"}
    assert touched([on_default], signals) == SIGNAL_KEYS - {"plastic-pet"}
    assert changed(signals, [on_default, on_pet]) == {"plastic-pet": 3000, "default": 1500}


def test_current_is_compared_with_what_is_in_force() -> None:
    signals = {"default": 500}
    assert differing([Change("glass-clear", 500, 600), Change("default", 400, 500)], signals) == ["default"]


def test_the_limit_counts_what_is_in_force_and_not_what_is_written() -> None:
    assert beyond_limit({"default": 500}, {"default": 500, "glass-clear": 1500}) == []
    assert beyond_limit({"default": 500}, {"default": 500, "glass-clear": 1501}) == ["glass-clear"]
    assert set(beyond_limit({}, {"default": 1001})) == {*MATERIAL_CATEGORIES, "default"}
