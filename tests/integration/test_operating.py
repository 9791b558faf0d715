"""The procedures of docs/operating.md, carried out."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import RunningNode, befriend, eventually, free_port, init_nodes, running

KEPT_BESIDE_THE_DATABASE = ("loopd.toml", "node.key", "tls-cert.pem", "tls-key.pem")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Two peers, running."""
    a, b = init_nodes(tmp_path, "a", "b")
    with running(a, b):
        befriend(a, b)
        yield a, b


def back_up(node: RunningNode) -> Path:
    """A copy of the database, made while the node runs."""
    copy = node.root.parent / f"{node.root.name}.backup"
    done = node.cli("backup", copy)
    assert done.status == 0, done.err
    return copy


def restored(node: RunningNode, copy: Path) -> RunningNode:
    """The node in a new directory, as the guide says: what was kept beside the database, and the copy as `loopd.db`."""
    node.kill9()
    root = node.root.with_name(f"{node.root.name}-restored")
    root.mkdir(mode=0o700)
    for name in KEPT_BESIDE_THE_DATABASE:
        shutil.copy2(node.root / name, root / name)
    shutil.copy2(copy, root / "loopd.db")
    again = RunningNode(root, node.node_id, node.city, node.port, node.ca_file)
    again.environment = node.environment
    checked = again.cli("check-config")
    assert checked.status == 0, checked.err
    return again


def test_a_restored_node_goes_on_as_the_same_node(pair: tuple[RunningNode, RunningNode]) -> None:
    a, b = pair
    before = a.register()
    b.hears(before)
    fingerprint = a.status()["fingerprint"]

    again = restored(a, back_up(a))
    with running(again):
        assert again.status()["fingerprint"] == fingerprint
        assert again.get(f"/api/v1/material/{before}").status == 200
        after = again.register()
        b.hears(after, origin="a.loop", verified=True)
        theirs = b.register()
        again.hears(theirs)


def test_after_an_older_copy_an_announcement_is_repeated_until_it_counts(pair: tuple[RunningNode, RunningNode]) -> None:
    """The peers hold revision 3; the copy remembers 1. Each announcement is one more."""
    a, b = pair
    material_id = a.register()
    b.hears(material_id)
    copy = back_up(a)
    a.set_status(material_id, "reserved")
    b.hears(material_id, available=False)
    a.set_status(material_id, "available")
    b.hears(material_id, available=True)

    again = restored(a, copy)
    with running(again):
        first = again.post(f"/api/v1/material/{material_id}/announce").json()["message_id"]
        eventually(lambda: b.decisions("superseded") == 1, "b knows better")
        assert b.heard(material_id)["message_id"] != first
        second = again.post(f"/api/v1/material/{material_id}/announce").json()["message_id"]
        b.hears(material_id, message_id=second)


def test_after_an_older_copy_a_revoked_token_is_valid_again(pair: tuple[RunningNode, RunningNode]) -> None:
    a, _ = pair
    token = a.cli("token", "create", "--scope", "material:write").out.strip()
    (listed,) = a.admin("GET", "/tokens").json()["tokens"]
    copy = back_up(a)
    assert a.cli("token", "revoke", str(listed["id"])).status == 0

    def registering(node: RunningNode) -> int:
        return node.request("POST", "/api/v1/material", {}, {"Authorization": f"Bearer {token}"}).status

    assert registering(a) == 401
    again = restored(a, copy)
    with running(again):
        assert registering(again) == 400
        assert again.cli("token", "revoke", str(listed["id"])).status == 0
        assert registering(again) == 401


def test_a_node_that_lost_its_key_is_taken_back_when_its_peers_forget_the_old_one(
    pair: tuple[RunningNode, RunningNode],
) -> None:
    a, b = pair
    known = a.register()
    b.hears(known)
    copy = back_up(a)
    a.kill9()
    fresh = RunningNode.init(a.root.parent, "a", directory="a-with-a-new-key")
    (fresh.root / "loopd.db").unlink()
    shutil.copy2(copy, fresh.root / "loopd.db")
    with running(fresh):
        refused = fresh.cli("peer", "add", b.endpoint)
        assert refused.status == 1
        assert "bad_signature" in refused.err

        assert b.cli("peer", "remove", "a.loop").status == 0
        added = b.cli("peer", "add", fresh.endpoint)
        assert added.status == 0, added.err
        assert fresh.status()["fingerprint"] in added.out
        b.hears(fresh.register(), origin="a.loop", verified=True)


def test_a_peer_that_moved_is_reached_once_its_new_address_is_added(pair: tuple[RunningNode, RunningNode]) -> None:
    a, b = pair
    b.stop()
    b.port = free_port()
    b.start(LOOPD_API__LISTEN=f"127.0.0.1:{b.port}", LOOPD_NODE__ENDPOINT=b.endpoint)
    waiting = a.register()

    added = a.cli("peer", "add", b.endpoint)
    assert added.status == 0, added.err
    assert a.peer("b.loop")["endpoint"] == b.endpoint
    b.hears(waiting)


def test_a_message_is_followed_by_its_id_through_the_logs_of_both(tmp_path: Path) -> None:
    a, b = init_nodes(tmp_path, "a", "b", LOOPD_LOG__LEVEL="debug")
    with running(a, b):
        befriend(a, b)
        message_id = b.hears(a.register())["message_id"]

        def line(node: RunningNode, event: str) -> bool:
            return any(f'"event":"{event}"' in row and message_id in row for row in node.log_text().splitlines())

        eventually(lambda: line(a, "announced") and line(a, "sent"), "a logs what it sent")
        assert line(b, "announcement")


def test_a_request_is_found_in_the_log_by_the_id_its_answer_carried(pair: tuple[RunningNode, RunningNode]) -> None:
    a, _ = pair
    answer = a.post("/api/v1/material", {}, scope="material:write")
    request_id = answer.headers["X-Request-Id"]
    (row,) = [row for row in a.log_text().splitlines() if request_id in row]
    assert '"route":"POST /api/v1/material","status":400' in row


def test_metrics_are_on_the_operators_socket_and_nowhere_else(pair: tuple[RunningNode, RunningNode]) -> None:
    a, _ = pair
    a.get("/health")
    assert a.get("/metrics").status == 404
    metrics = a.admin("GET", "/metrics").body.decode()
    assert 'loopd_http_requests_total{route="GET /health",status="200"}' in metrics
