"""Who becomes a peer, who stays one, and what that opens (§9.1), between nodes as cities would run them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import Answer, RunningNode, eventually, free_port, init_nodes, running, settled, together
from tests.peer import FakePeer, utc

UNLIMITED = {"LOOPD_API__USER_REQUESTS_PER_MINUTE": "0", "LOOPD_API__NODE_REQUESTS_PER_MINUTE": "0"}
LOOPBACK = {"LOOPD_FEDERATION__ALLOWED_NETWORKS": '["127.0.0.0/8"]'}
# What they announce goes out to all at once.
ONE_RING = {"LOOPD_FEDERATION__RADIUS_KM": "1000"}
VERIFIED = {"LOOPD_FEDERATION__ADMISSION": "verified"}
HANDSHAKE = "/api/v1/federation/handshake"
FINGERPRINT = re.compile(r"[0-9a-f]{4}(:[0-9a-f]{4}){15}")


def city_nodes(base: Path, *names: str, **environment: str) -> list[RunningNode]:
    return init_nodes(base, *names, development=False, **UNLIMITED, **ONE_RING, **environment)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Two nodes with manual admission, in a network that both allow."""
    a, b = city_nodes(tmp_path_factory.mktemp("peering"), "a", "b", **LOOPBACK)
    with running(a, b):
        yield a, b


@pytest.fixture
def strangers(shared: tuple[RunningNode, RunningNode]) -> Iterator[tuple[RunningNode, RunningNode]]:
    """The two, who forget each other afterwards."""
    a, b = shared
    yield a, b
    for node, other in ((a, b), (b, a)):
        node.admin("DELETE", f"/peers/{other.node_id}")


@pytest.fixture
def peers(strangers: tuple[RunningNode, RunningNode]) -> tuple[RunningNode, RunningNode]:
    """The two, as peers."""
    a, b = strangers
    b.add_peer(a)
    assert a.cli("peer", "approve", b.node_id).status == 0
    eventually(lambda: b.standing("a.loop") == "peer", "B has A as a peer")
    return a, b


def shake(node: RunningNode, peer: FakePeer, **changes: Any) -> Answer:
    """Send a node the handshake of a peer that is no process."""
    body = peer.handshake(**changes)
    return node.request("POST", HANDSHAKE, body, peer.headers(HANDSHAKE, body, node.node_id))


def test_a_stranger_waits_for_the_operator(strangers: tuple[RunningNode, RunningNode]) -> None:
    a, b = strangers
    added = b.cli("peer", "add", a.endpoint)
    assert (added.status, added.err) == (0, "")
    assert "pending" in added.out
    own, theirs = (found.group() for found in FINGERPRINT.finditer(added.out))
    assert (own, theirs) == (b.status()["fingerprint"], a.status()["fingerprint"])
    waiting = a.peer("b.loop")
    assert waiting is not None
    assert (waiting["status"], waiting["fingerprint"], waiting["endpoint"]) == ("waiting", own, b.endpoint)
    assert b.standing("a.loop") == "pending"
    # A stranger is told of no announcement, and nothing that A does tells B of one.
    kept_back, before = b.register(), a.register()
    settled(a, b)
    assert (a.heard(kept_back), b.heard(before)) == (None, None)
    listed = a.get("/api/v1/federation/nodes").json()["nodes"]
    assert listed == []

    approved = a.cli("peer", "approve", "b.loop")
    assert (approved.status, approved.err) == (0, "")
    eventually(lambda: b.standing("a.loop") == "peer", "A has shaken hands back")
    assert a.standing("b.loop") == "peer"
    after = b.register()
    assert a.hears(after)["verified"]
    assert b.hears(a.register())["verified"]
    assert a.cli("peer", "approve", "b.loop").status == 1


def test_whom_the_operator_added_is_accepted_at_once(strangers: tuple[RunningNode, RunningNode]) -> None:
    a, b = strangers
    assert a.add_peer(b)["status"] == "pending"
    # B's operator adds A in his turn: A wanted that already.
    assert b.add_peer(a)["status"] == "accepted"
    assert (a.standing("b.loop"), b.standing("a.loop")) == ("peer", "peer")


def test_verified_admission_calls_back(tmp_path: Path) -> None:
    a, b = city_nodes(tmp_path, "a", "b", **VERIFIED, **LOOPBACK)
    with running(a, b):
        added = b.cli("peer", "add", a.endpoint)
        assert added.status == 0, added.err
        assert "accepted" in added.out
        assert a.standing("b.loop") == "peer"
        assert a.hears(b.register())["verified"]
        # It proves the endpoint: another node that claims B's address is not there.
        thief = FakePeer("thief.loop", 48.0, 11.0, endpoint=b.endpoint)
        answer = shake(a, thief)
        assert (answer.status, answer.json()["status"]) == (202, "rejected")
        assert "another id or key" in answer.json()["message"]
        assert a.standing("thief.loop") is None


def test_the_call_back_reaches_no_private_network(tmp_path: Path) -> None:
    a, b = city_nodes(tmp_path, "a", "b", **VERIFIED)
    with running(a, b):
        # B's own operator named A's address, so B may call there; A was only told B's.
        refused = b.cli("peer", "add", a.endpoint)
        assert refused.status == 1
        assert "network that this node does not call" in refused.err + refused.out
        assert (a.standing("b.loop"), b.standing("a.loop")) == (None, None)
        for address in ("https://169.254.169.254/api/v1", "https://[::1]:8443/api/v1", "https://localhost/api/v1"):
            answer = shake(a, FakePeer("stranger.loop", 48.0, 11.0, endpoint=address))
            assert answer.json()["status"] == "rejected", address
            assert "network that this node does not call" in answer.json()["message"], answer.json()
            assert a.standing("stranger.loop") is None


def test_open_admission_needs_development(tmp_path: Path) -> None:
    (node,) = city_nodes(tmp_path, "a", LOOPD_FEDERATION__ADMISSION="open")
    for command in ("check-config", "run"):
        refused = node.cli(command)
        assert refused.status in (1, 2)
        assert "federation.admission" in refused.err
        assert "must not be open" in refused.err


def test_a_pinned_id_is_not_taken_by_another_key(peers: tuple[RunningNode, RunningNode], tmp_path: Path) -> None:
    a, _ = peers
    pinned = a.peer("b.loop")
    (impostor,) = city_nodes(tmp_path, "b", **LOOPBACK)
    impostor.environment["LOOPD_TLS__CA_FILE"] = str(a.ca_file)
    with running(impostor):
        refused = impostor.cli("peer", "add", a.endpoint)
        assert refused.status == 1
        assert "401 bad_signature" in refused.err
    now = a.peer("b.loop")
    assert pinned is not None
    assert now is not None
    assert (now["fingerprint"], now["endpoint"]) == (pinned["fingerprint"], pinned["endpoint"])


def test_the_same_holds_for_who_only_waits(shared: tuple[RunningNode, RunningNode]) -> None:
    a, _ = shared
    stranger = FakePeer("first.loop", 48.0, 11.0)
    assert shake(a, stranger).json()["message"].startswith("pending")
    refused = shake(a, stranger.with_other_key())
    assert (refused.status, refused.reason) == (401, "bad_signature")
    assert a.admin("DELETE", "/peers/first.loop").status == 200


def test_a_handshake_no_newer_than_the_last_changes_nothing(shared: tuple[RunningNode, RunningNode]) -> None:
    a, _ = shared
    stranger = FakePeer("mover.loop", 48.0, 11.0, endpoint="https://old.example/api/v1")
    first = utc()
    assert shake(a, stranger, timestamp=first).status == 202
    for moment in (first, utc(-30)):
        shake(a, stranger, timestamp=moment, endpoint="https://new.example/api/v1", name="Moved")
        waiting = a.peer("mover.loop")
        assert waiting is not None
        assert (waiting["endpoint"], waiting["name"]) == ("https://old.example/api/v1", "Mover")
    shake(a, stranger, timestamp=utc(1), endpoint="https://new.example/api/v1")
    assert (a.peer("mover.loop") or {})["endpoint"] == "https://new.example/api/v1"
    assert a.admin("DELETE", "/peers/mover.loop").status == 200


def test_a_suspended_peer_is_neither_heard_nor_told(peers: tuple[RunningNode, RunningNode]) -> None:
    a, b = peers
    assert a.cli("peer", "suspend", "b.loop").status == 0
    refused = b.register()
    settled(b)
    kept_back = a.register()
    assert a.heard(refused) is None
    assert a.standing("b.loop") == "suspended"
    assert 'reason":"suspended' in b.log_text()
    (listed,) = a.get("/api/v1/federation/nodes").json()["nodes"]
    assert listed["status"] == "suspended"
    assert b.heard(kept_back) is None
    # It does not help to ask again.
    again = b.cli("peer", "add", a.endpoint)
    assert again.status == 1
    assert "suspended" in again.err

    assert a.cli("peer", "resume", "b.loop").status == 0
    # What waited for B goes out; what B was refused is gone, and it may announce it again.
    b.hears(kept_back)
    assert a.hears(b.register())["verified"]
    assert b.post(f"/api/v1/material/{refused}/announce").status == 202
    a.hears(refused)


def test_a_removed_peer_is_a_stranger(peers: tuple[RunningNode, RunningNode]) -> None:
    a, b = peers
    kept = b.register()
    a.hears(kept)
    assert a.cli("peer", "remove", "b.loop").status == 0
    assert a.standing("b.loop") is None
    unheard = b.register()
    settled(b)
    assert a.heard(unheard) is None
    assert 'reason":"unknown_node' in b.log_text()
    assert a.cli("peer", "remove", "b.loop").status == 1
    # What it had announced stays heard: its end is in the announcement.
    assert a.heard(kept) is not None


def test_two_that_add_each_other_at_once_are_peers(tmp_path: Path) -> None:
    a, b, c = init_nodes(tmp_path, "a", "b", "c")
    with running(a, b, c):
        pairs = [(a, b), (b, a), (b, c), (c, b), (c, a), (a, c)]
        answers = together([lambda one=one, other=other: one.add_peer(other) for one, other in pairs])
        assert {answer["status"] for answer in answers} == {"accepted"}
        assert {one.standing(other.node_id) for one, other in pairs} == {"peer"}


def test_a_node_that_is_not_there_is_told_so(shared: tuple[RunningNode, RunningNode]) -> None:
    a, _ = shared
    nobody = a.cli("peer", "add", f"https://127.0.0.1:{free_port()}")
    assert nobody.status == 1
    assert "no NodeInfo" in nobody.err
    itself = a.cli("peer", "add", a.endpoint)
    assert itself.status == 1
    assert "itself" in itself.err
