"""Nodes that speak §8.2 alone, among nodes that speak all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import RunningNode, befriend, eventually, init_nodes, running, settled
from tests.plain_node import PlainNode, plain_node

SUBJECT = "MAT-DE-LAB-2026-FOOD-B847F3"
OTHER = "MAT-DE-LAB-2026-FOOD-C111A1"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PlainNode, RunningNode, RunningNode]]:
    """Lab–A–B: A's operator admitted the lab node, which signs nothing."""
    base = tmp_path_factory.mktemp("plain")
    a, b = init_nodes(base, "a", "b")
    with plain_node(base) as lab, running(a, b):
        befriend(a, b)
        added = a.cli("peer", "add", lab.endpoint, "--auth", "unsigned-lab")
        assert added.status == 0, added.err
        yield lab, a, b


def test_without_the_operators_word_a_node_without_signatures_is_no_peer(tmp_path: Path) -> None:
    (a,) = init_nodes(tmp_path, "a")
    with plain_node(tmp_path) as lab, running(a):
        refused = a.cli("peer", "add", lab.endpoint)
        assert refused.status == 1
        assert "unsigned-lab" in refused.err
        answer = lab.announce(a, SUBJECT)
        assert (answer.status, answer.reason) == (401, "unknown_node")


def test_its_announcements_are_taken_unverified_and_not_relayed(
    stage: tuple[PlainNode, RunningNode, RunningNode],
) -> None:
    lab, a, b = stage
    answer = lab.announce(a, SUBJECT)
    assert (answer.status, answer.json()["status"]) == (202, "accepted")
    entry = a.hears(SUBJECT)
    assert (entry["verified"], entry["via"], entry["origin"]) == (False, "lab.loop", "lab.loop")
    marker = a.register()
    b.hears(marker)
    settled(a, b)
    assert b.heard(SUBJECT) is None
    # Only in its own name.
    forged = lab.announce(a, OTHER, origin="b.loop")
    assert (forged.status, forged.reason) == (400, "origin_mismatch")
    assert a.heard(OTHER) is None


def test_it_gets_the_short_form_of_what_its_neighbour_announces_itself(
    stage: tuple[PlainNode, RunningNode, RunningNode],
) -> None:
    lab, a, b = stage
    relayed = b.register()
    a.hears(relayed)
    own = a.register()
    taken = eventually(lambda: lab.announcements().get(own), "the lab node gets A's announcement")
    settled(b, a)
    assert relayed not in lab.announcements()
    assert [name for name in taken.headers if name.lower().startswith("x-loop")] == []
    assert taken.headers["X-Node-Target"] is None
    assert taken.headers["X-Node-ID"] == "a.loop"
    assert taken.headers["X-Node-Signature"]
    assert (taken.body["origin"], taken.body["available"]) == ("a.loop", True)
