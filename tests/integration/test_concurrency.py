"""Many at once: one registration wins, one announcement goes out, and a mesh under load delivers each once."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.nodes import DOCUMENT, Answer, RunningNode, befriend, init_nodes, material, running, send, settled

CLIENTS = 12
EACH = 40


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """A, B and C, each a peer of both others."""
    nodes = init_nodes(tmp_path_factory.mktemp("mesh"), "a", "b", "c")
    with running(*nodes):
        for left, right in ((0, 1), (1, 2), (2, 0)):
            befriend(nodes[left], nodes[right])
        yield nodes


def at_once(call: Callable[[int], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(call, range(CLIENTS)))


def test_of_equal_registrations_one_creates(mesh: list[RunningNode]) -> None:
    a, b, _ = mesh
    document = material(a.city)
    a.token("material:write")
    answers = at_once(lambda _: a.post("/api/v1/material", document))
    assert sorted(answer.status for answer in answers) == [200] * (CLIENTS - 1) + [201]
    b.hears(document["id"])
    settled(*mesh)
    assert {node.decisions("superseded") for node in mesh} == {0}
    assert sum(entry["id"] == document["id"] for entry in a.get("/api/v1/material?limit=100").json()["results"]) == 1


def test_of_different_registrations_with_one_id_one_holds(mesh: list[RunningNode]) -> None:
    a = mesh[0]
    document = material(a.city)
    answers = at_once(lambda number: a.post("/api/v1/material", {**document, "quality": number / 100}))
    assert sorted(answer.status for answer in answers) == [201] + [409] * (CLIENTS - 1)
    (created,) = [answer.json() for answer in answers if answer.status == 201]
    assert a.get(f"/api/v1/material/{document['id']}").json()["quality"] == created["quality"]


def test_one_idempotency_key_has_one_effect(mesh: list[RunningNode]) -> None:
    a = mesh[0]
    documents = [material(a.city) for _ in range(CLIENTS)]
    headers = {"Idempotency-Key": "one-key"}

    def post(number: int) -> Answer:
        return a.request("POST", "/api/v1/material", documents[number], headers, "material:write")

    answers = at_once(post)
    assert sorted(answer.status for answer in answers) == [201] + [409] * (CLIENTS - 1)
    assert {answer.reason for answer in answers if answer.status == 409} == {"idempotency_mismatch"}
    kept = [a.get(f"/api/v1/material/{document['id']}").status for document in documents]
    assert sorted(kept) == [200] + [404] * (CLIENTS - 1)


def test_a_mesh_under_load_delivers_everything_once(mesh: list[RunningNode]) -> None:
    settled(*mesh)
    before = [node.decisions() for node in mesh]

    def register(node: RunningNode) -> list[str]:
        headers = {"Content-Type": DOCUMENT, "Authorization": f"Bearer {node.token('material:write')}"}
        ids = []
        with closing(node.connection()) as connection:
            for _ in range(EACH):
                document = material(node.city)
                answer = send(connection, "POST", "/api/v1/material", json.dumps(document).encode(), headers)
                assert answer.status == 201, answer.body
                ids.append(document["id"])
        return ids

    with ThreadPoolExecutor(3) as pool:
        registered = list(pool.map(register, mesh))
    settled(*mesh, *mesh)
    assert [node.decisions() - was for node, was in zip(mesh, before, strict=True)] == [2 * EACH] * 3
    for node, own in zip(mesh, registered, strict=True):
        heard, path = set(), "/api/v1/federation/announcements?limit=100"
        while path:
            page = node.get(path).json()
            assert all(entry["ttl"] == 3 for entry in page["results"])
            heard |= {entry["subject"] for entry in page["results"]}
            path = page["next"]
        assert {material_id for ids in registered for material_id in ids} - heard == set(own)
