"""Bids from cities near and far, over real processes: ranked by the owner, selected, everybody told (§12.1)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.nodes import RunningNode, chain, eventually, init_nodes, running, settled, together

SIGNALS = {
    "a": '{"default": 0.40}',
    "b": '{"default": 0.20}',
    "c": '{"default": 0.10}',
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """A–B–C, each a peer of its neighbours alone, each with signals of its own."""
    nodes = init_nodes(tmp_path_factory.mktemp("bids"), "a", "b", "c")
    for node in nodes:
        node.environment["LOOPD_SIGNALS__VALUES"] = SIGNALS[node.node_id.removesuffix(".loop")]
    with running(*nodes):
        chain(nodes)
        yield nodes


def bid(node: RunningNode, subject: str, price: float, **terms: Any) -> dict[str, Any]:
    answer = node.admin("POST", "/offers", {"material": subject, "base_price": price, **terms})
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json()
    return found


def made(node: RunningNode, subject: str) -> dict[str, Any]:
    """The node's own account of its bid on a subject."""
    results = node.admin("GET", "/offers?limit=100").json()["results"]
    found: dict[str, Any] = next(entry for entry in results if entry["material"] == subject)
    return found


def listing(owner: RunningNode, subject: str) -> dict[str, dict[str, Any]]:
    """The owner's list, by who bids."""
    offers = owner.get(f"/api/v1/material/{subject}/offers").json()["offers"]
    return {entry.get("bidder") or entry["from"]: entry for entry in offers}


def events_of(node: RunningNode, subject: str, *nouns: str) -> list[str]:
    """The kinds of what happened to a subject at a node, the oldest first."""
    kinds = ",".join(f"{noun}.*" for noun in nouns)
    results = node.admin("GET", f"/api/v1/events?limit=100&kind={kinds}").json()["results"]
    return [event["kind"] for event in reversed(results) if event["subject"] == subject]


def becomes(node: RunningNode, subject: str, status: str) -> None:
    eventually(lambda: made(node, subject)["status"] == status, f"{node}'s bid on {subject} is {status}")


def test_a_node_two_hops_away_bids_and_all_are_told(three: list[RunningNode]) -> None:
    a, b, c = three
    subject = a.register()
    near, far = b.hears(subject), c.hears(subject)
    assert (near["ttl"], far["ttl"]) == (3, 2)
    # C is no peer of A: A looks C's key up with B, and C has A's from there.
    own = bid(c, subject, 60, distance_km=400)
    bid(b, subject, 60)
    becomes(c, subject, "accepted")
    becomes(b, subject, "accepted")
    assert a.standing("c.loop") is None
    offers = listing(a, subject)
    # Export by A's signal, import by C's, 0.02 LC for each kilometre: 60 + 24 + 6 + 8.
    assert offers["c.loop"]["loop_cost"] == own["loop_cost"]
    assert offers["c.loop"]["breakdown"] == own["breakdown"] == {"base": 60, "export": 24, "import": 6, "distance": 8}
    assert offers["c.loop"]["verified"]
    assert sorted(offer["rank"] for offer in offers.values()) == [1, 2]

    local = a.post(f"/api/v1/material/{subject}/offers", {"bidder": "farm-a", "base_price": 50}, "offer:write")
    assert local.status == 201, local.body
    assert listing(a, subject)["c.loop"]["rank"] in (2, 3)
    chosen = a.post(f"/api/v1/material/{subject}/select", {}, "offer:write").json()
    assert (chosen["selected"], chosen["reason"]) == ("farm-a", "lowest_loop_cost")
    becomes(c, subject, "declined")
    becomes(b, subject, "declined")
    for node in (b, c):
        node.hears(subject, available=False)
    assert events_of(a, subject, "material", "bid") == [
        "material.registered",
        *["bid.received"] * 3,
        "material.status",
        "bid.selected",
        *["bid.declined"] * 2,
    ]
    assert sorted(events_of(c, subject, "subject", "bid")) == ["bid.told", "subject.heard", "subject.heard"]
    settled(*three)


def test_who_is_selected_is_told_also_when_it_was_down(three: list[RunningNode]) -> None:
    a, _, c = three
    subject = a.register()
    c.hears(subject)
    bid(c, subject, 10)
    becomes(c, subject, "accepted")
    c.kill9()
    chosen = a.post(f"/api/v1/material/{subject}/select", {}, "offer:write").json()
    assert chosen["selected"] == "c.loop"
    c.start()
    becomes(c, subject, "selected")


def test_a_bid_waits_for_an_owner_that_is_down(three: list[RunningNode]) -> None:
    a, b, c = three
    subject = a.register()
    c.hears(subject)
    b.hears(subject)
    a.kill9()
    bid(c, subject, 10)
    bid(b, subject, 20)
    c.kill9()
    c.start()
    assert made(c, subject)["status"] == "queued"
    a.start()
    becomes(c, subject, "accepted")
    becomes(b, subject, "accepted")
    assert {who: offer["base_price"] for who, offer in listing(a, subject).items()} == {"c.loop": 10, "b.loop": 20}


def test_of_selections_at_the_same_time_one_holds(three: list[RunningNode]) -> None:
    a = three[0]
    subject = a.register()
    path = f"/api/v1/material/{subject}"
    offers = [
        a.post(f"{path}/offers", {"bidder": f"farm-{number}", "base_price": 50}, "offer:write").json()["id"]
        for number in range(6)
    ]
    answers = together(
        [lambda offer=offer: a.post(f"{path}/select", {"offer": offer}, "offer:write") for offer in offers]
    )
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409, 409]
    (held,) = [answer.json()["selected_offer"] for answer in answers if answer.status == 200]
    assert {answer.reason for answer in answers if answer.status == 409} == {"already_selected"}
    assert a.get(f"{path}/offers").json()["selected_offer"] == held
