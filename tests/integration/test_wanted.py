"""Demand and routing over real processes: a city looks for what its peer has, and both learn of it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.nodes import RunningNode, befriend, eventually, init_nodes, running

SIGNALS = {"a.loop": '{"default": 0.40}', "b.loop": '{"default": 0.20}'}
WISH = {"category": "organic-*", "quantity": 200, "unit": "kg"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """A and B, peers, each with signals of its own."""
    nodes = init_nodes(tmp_path_factory.mktemp("wanted"), "a", "b")
    for node in nodes:
        node.environment["LOOPD_SIGNALS__VALUES"] = SIGNALS[node.node_id]
    with running(*nodes):
        befriend(*nodes)
        yield nodes


def look_for(node: RunningNode, **wish: Any) -> str:
    answer = node.admin("POST", "/api/v1/wanted", {**WISH, **wish})
    assert answer.status == 201, answer.body
    return str(answer.json()["id"])


def known_demands(node: RunningNode) -> dict[str, str]:
    """What the node's peers look for, with its status."""
    results = node.admin("GET", "/api/v1/wanted?scope=federation&limit=100").json()["results"]
    return {entry["id"]: entry["status"] for entry in results}


def matched(node: RunningNode, demand: str) -> list[str]:
    """What the node was told to fit a demand."""
    results = node.admin("GET", "/api/v1/events?limit=100&kind=wanted.matched").json()["results"]
    return [event["data"]["material"] for event in results if event["subject"] == demand]


def test_both_cities_learn_that_supply_meets_demand(two: list[RunningNode]) -> None:
    a, b = two
    early = a.register()
    b.hears(early)
    demand = look_for(b, wanted_by="farm-b")
    assert matched(b, demand) == [early]
    eventually(lambda: demand in known_demands(a), "a knows what b looks for")
    assert matched(a, demand) == [early]
    late = a.register()
    assert late in matched(a, demand)
    eventually(lambda: late in matched(b, demand), "b is told of what a registered")

    def routed() -> dict[str, Any] | None:
        found: dict[str, Any] = a.admin("POST", "/api/v1/route", {"material": late, "base_price": 60}).json()
        return found if found["total"] == 2 else None

    page = eventually(routed, "a knows b's signals")
    ranked = {entry["node"]: entry for entry in page["results"]}
    assert [entry["node"] for entry in page["results"]] == ["a.loop", "b.loop"]
    assert [wish["id"] for wish in ranked["b.loop"]["wanted"]] == [demand]
    assert "wanted_by" not in ranked["b.loop"]["wanted"][0]
    cost = a.post("/api/v1/loopcost", {"base_price": 60, "material": late, "destination": "b.loop"}).json()
    assert cost["results"][0]["loop_cost"] == ranked["b.loop"]["loop_cost"]
    assert cost["results"][0]["breakdown"]["export"] == 24

    plan = a.admin("POST", "/api/v1/route/plan", {"batches": [{"material": early}, {"material": late}]}).json()
    assert (plan["served"], plan["assignment"][0]["demand"]) == (1, {"node": "b.loop", "id": demand})
    ids = [batch["id"] for batch in (plan["assignment"][0]["batch"], *plan["unused"])]
    assert sorted(ids) == sorted([early, late])


def test_what_changed_while_a_peer_was_down_is_told_then(two: list[RunningNode]) -> None:
    a, b = two
    closed = look_for(b)
    eventually(lambda: closed in known_demands(a), "a knows what b looks for")
    a.kill9()
    assert b.admin("POST", f"/api/v1/wanted/{closed}/close", {"status": "fulfilled"}).status == 200
    opened = look_for(b, quantity=100)
    b.kill9()
    b.start()
    a.start()
    eventually(lambda: known_demands(a).get(closed) == "fulfilled", "a knows that it was served")
    eventually(lambda: known_demands(a).get(opened) == "open", "a knows what b looks for since")
    subject = a.register(quantity={"value": 150, "unit": "kg"})
    assert matched(a, opened)[0] == subject
    assert subject not in matched(a, closed)
