import pytest

from loopd.protocol.lifecycle import LIFECYCLES, Lifecycle

# The published transitions and terminal statuses, written down a second time.
TRANSITIONS = {
    "Offer": {"open-reserved", "open-withdrawn", "reserved-withdrawn", "reserved-open"},
    "Match": {"proposed-accepted", "proposed-rejected", "accepted-expired"},
    "Transfer": {"scheduled-in_transit", "in_transit-completed", "scheduled-cancelled", "in_transit-cancelled"},
    "MaterialStatusUpdate": {
        "available-reserved", "reserved-withdrawn", "available-withdrawn", "reserved-available",
    },
    "Transaction": {
        "pending-confirmed", "confirmed-in_transit", "in_transit-delivered", "delivered-completed",
        "pending-cancelled", "confirmed-cancelled", "in_transit-cancelled", "delivered-cancelled",
        "pending-disputed", "confirmed-disputed", "in_transit-disputed", "delivered-disputed",
    },
    "MaterialOffer": {"live-selected", "live-declined", "live-replaced", "live-withdrawn", "live-expired"},
    "LoopDemand": {"open-fulfilled", "open-withdrawn", "open-expired"},
}  # fmt: skip
TERMINAL = {
    "Offer": {"withdrawn"},
    "Match": {"rejected", "expired"},
    "Transfer": {"completed", "cancelled"},
    "MaterialStatusUpdate": {"withdrawn"},
    "Transaction": {"completed", "cancelled", "disputed"},
    "MaterialOffer": {"selected", "declined", "replaced", "withdrawn", "expired"},
    "LoopDemand": {"fulfilled", "withdrawn", "expired"},
}

each_lifecycle = pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=lambda lifecycle: lifecycle.entity)


def test_every_entity_with_a_status_has_one_table() -> None:
    assert sorted(lifecycle.entity for lifecycle in LIFECYCLES) == sorted(TRANSITIONS)


@each_lifecycle
def test_exactly_the_published_transitions_are_allowed(lifecycle: Lifecycle) -> None:
    allowed = {
        f"{current}-{following}"
        for current in lifecycle.successors
        for following in lifecycle.successors
        if lifecycle.allows(current, following)
    }
    assert allowed == TRANSITIONS[lifecycle.entity]


@each_lifecycle
def test_nothing_moves_from_a_terminal_status(lifecycle: Lifecycle) -> None:
    terminal = {status for status in lifecycle.successors if lifecycle.is_terminal(status)}
    assert terminal == TERMINAL[lifecycle.entity]


@each_lifecycle
def test_every_status_is_reached_from_an_initial_one(lifecycle: Lifecycle) -> None:
    reached, waiting = set(lifecycle.initial), list(lifecycle.initial)
    while waiting:
        for following in lifecycle.successors[waiting.pop()]:
            if following not in reached:
                reached.add(following)
                waiting.append(following)
    assert reached == set(lifecycle.successors)


def test_what_may_follow_is_told_in_words() -> None:
    lifecycle = Lifecycle("Thing", ("a",), {"a": ("b",), "b": ("c", "d"), "c": ("a", "b", "d"), "d": ()})
    assert [lifecycle.told(status) for status in "abc"] == ["b may", "c or d may", "a, b or d may"]
