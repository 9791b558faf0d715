"""The flood over real processes: how far an announcement travels along a chain and round a ring (§9.3)."""

from collections.abc import Iterator, Sequence

import pytest

from tests.nodes import RunningNode, befriend, chain, eventually, init_nodes, linked, material, running, settled

# E's announcements end between D (74 km) and C (149 km).
NARROW_KM = "100"


@pytest.fixture(scope="module", params=["off", "auto"], ids=["requests", "links"])
def five(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """A–B–C–D–E, each a peer of its neighbours alone; once with a request for each copy, once over links."""
    environment = {"LOOPD_FEDERATION__LINKS": request.param}
    nodes = init_nodes(tmp_path_factory.mktemp("chain"), "a", "b", "c", "d", "e", **environment)
    nodes[4].environment["LOOPD_FEDERATION__RADIUS_KM"] = NARROW_KM
    with running(*nodes):
        chain(nodes)
        if request.param == "auto":
            linked(*nodes)
        yield nodes


def ttls(nodes: Sequence[RunningNode], subject: str) -> list[int | None]:
    entries = [node.heard(subject) for node in nodes]
    return [None if entry is None else entry["ttl"] for entry in entries]


def accepted(nodes: Sequence[RunningNode]) -> list[int]:
    return [node.decisions() for node in nodes]


def test_an_announcement_travels_three_hops_and_no_further(five: list[RunningNode]) -> None:
    a, b, c, d, e = five
    before = accepted(five)
    subject = a.register()
    d.hears(subject)
    settled(*five)
    assert ttls(five, subject) == [None, 3, 2, 1, None]
    assert [now - was for now, was in zip(accepted(five), before, strict=True)] == [0, 1, 1, 1, 0]
    assert [node.hears(subject)["via"] for node in (b, c, d)] == ["a.loop", "b.loop", "c.loop"]
    # The way from D to E works, so what E did not hear was not sent.
    marker = c.register()
    assert e.hears(marker)["ttl"] == 2
    assert e.heard(subject) is None


def test_what_is_heard_keeps_its_bytes_and_is_verified_with_an_introduced_key(five: list[RunningNode]) -> None:
    a, b, c, d, _ = five
    subject = a.register(quantity={"value": 12.5, "unit": "t"})
    heard = [node.hears(subject) for node in (b, c, d)]
    assert all(entry["verified"] for entry in heard)
    assert {(entry["quantity"], entry["unit"], entry["category"]) for entry in heard} == {(12.5, "t", "organic-food")}
    assert len({entry["message_id"] for entry in heard}) == 1
    card = a.get("/api/v1/node/info").json()
    for node in (c, d):
        assert node.standing("a.loop") is None
        (listed,) = [entry for entry in node.get("/api/v1/federation/nodes").json()["nodes"] if entry["id"] == "a.loop"]
        assert listed["public_key"] == card["public_key"]
        assert listed["endpoint"] == a.endpoint


def test_beyond_the_radius_nobody_hears(five: list[RunningNode]) -> None:
    a, b, c, d, e = five
    subject = e.register()
    d.hears(subject, ttl=3)
    settled(e, d, c, b, a)
    assert ttls(five, subject) == [None, None, None, 3, None]
    # D did not even send it: C decided nothing.
    assert c.decisions("out_of_scope") == 0


def test_a_withdrawal_goes_as_far_as_what_it_withdraws(five: list[RunningNode]) -> None:
    a, b, c, d, e = five
    subject = a.register()
    available = d.hears(subject, available=True)
    a.set_status(subject, "withdrawn")
    for node, ttl in ((b, 3), (c, 2), (d, 1)):
        entry = node.hears(subject, available=False)
        assert entry["ttl"] == ttl
        assert entry["valid_until"] >= available["valid_until"]
    settled(*five)
    assert e.heard(subject) is None


def test_announcing_again_replaces_and_registering_again_does_nothing(five: list[RunningNode]) -> None:
    a, b, c, d, _ = five
    document = material(a.city)
    subject = document["id"]
    assert a.post("/api/v1/material", document).status == 201
    first = d.hears(subject)
    settled(*five)
    before = accepted(five)
    assert a.post("/api/v1/material", document).status == 200
    settled(*five)
    assert accepted(five) == before
    assert d.hears(subject)["message_id"] == first["message_id"]
    answer = a.post(f"/api/v1/material/{subject}/announce")
    assert answer.status == 202, answer.body
    for node in (b, c, d):
        eventually(lambda node=node: node.hears(subject)["message_id"] != first["message_id"], f"{node} hears it anew")
    settled(*five)
    assert [now - was for now, was in zip(accepted(five), before, strict=True)] == [0, 1, 1, 1, 0]


def test_in_a_ring_with_a_tail_each_node_delivers_once(five: list[RunningNode]) -> None:
    a, _, c, _, e = five
    befriend(c, a)
    try:
        for _ in range(5):
            settled(*five)
            before = accepted(five)
            subject = a.register()
            e.hears(subject)
            settled(*five, *five)
            assert ttls(five, subject) == [None, 3, 3, 2, 1]
            assert [now - was for now, was in zip(accepted(five), before, strict=True)] == [0, 1, 1, 1, 1]
    finally:
        for node, other in ((c, a), (a, c)):
            node.admin("DELETE", f"/peers/{other.node_id}")
