"""Searches over real processes: what a city registers, another finds in the federation; once it is gone, no more."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.nodes import RunningNode, chain, eventually, init_nodes, running

SEARCHES_PER_MINUTE = 10


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    nodes = init_nodes(tmp_path_factory.mktemp("search"), "a", "b")
    with running(*nodes):
        chain(nodes)
        yield nodes


def search(node: RunningNode, url: str = "/api/v1/material/search", **body: Any) -> dict[str, Any]:
    answer = node.request("POST", url, body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def ids(page: dict[str, Any]) -> list[str]:
    return [result["id"] for result in page["results"]]


def test_what_one_city_announces_another_finds_until_it_is_gone(two: list[RunningNode]) -> None:
    a, b = two
    subject = a.register(category="metal-copper")
    assert ids(search(a, category="metal-*")) == [subject]
    assert ids(search(b, category="metal-*")) == []
    eventually(lambda: ids(search(b, category="metal-*", scope="federation")) == [subject], f"{b} finds {subject}")
    (result,) = search(b, category="metal-*", scope="federation", radius_km=20_000)["results"]
    assert (result["source_node"], result["verified"]) == ("a.loop", True)
    assert result["distance_km"] >= 0
    a.set_status(subject, "withdrawn")
    eventually(lambda: search(b, category="metal-*", scope="federation")["total"] == 0, f"{subject} is gone at {b}")
    assert search(a, category="metal-*")["total"] == 0


def test_pages_are_followed_and_survive_a_restart(two: list[RunningNode]) -> None:
    a, _ = two
    subjects = [a.register(category="glass-clear") for _ in range(5)]
    first = search(a, category="glass-*", limit=2)
    assert (first["total"], ids(first)) == (5, subjects[:2:-1])
    a.stop()
    a.start()
    a.register(category="glass-clear")
    second = search(a, first["next"], category="glass-*", limit=2)
    third = search(a, second["next"], category="glass-*", limit=2)
    assert [*ids(second), *ids(third)] == subjects[2::-1]
    assert third["next"] is None


def test_the_command_finds_what_the_api_finds(two: list[RunningNode]) -> None:
    a, _ = two
    subject = a.register(category="cardboard", metadata={"asking_price": 12.5, "notes": "flattened boxes"})
    done = a.cli("search", "--text", "box flat", "--max-loop-cost", "12.50")
    assert done.status == 0, done
    assert done.out.splitlines()[1].split("\t")[:2] == [subject, "cardboard"]


def test_searches_are_counted_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    node = RunningNode.init(tmp_path_factory.mktemp("limited"), "a", development=False)
    with running(node):
        for _ in range(SEARCHES_PER_MINUTE):
            search(node)
        answer = node.request("POST", "/api/v1/product/search", {})
        assert (answer.status, answer.reason) == (429, "rate_limited")
        assert node.get("/api/v1/material").status == 200
