"""Peers are learned from peers (§9.4), between nodes as cities would run them."""

from pathlib import Path

from tests.nodes import RunningNode, eventually, running, together

# No --dev: calls are guarded, and whoever asks is called back.
AS_CITIES = {
    "LOOPD_API__USER_REQUESTS_PER_MINUTE": "0",
    "LOOPD_API__NODE_REQUESTS_PER_MINUTE": "0",
    "LOOPD_FEDERATION__ADMISSION": "verified",
    "LOOPD_FEDERATION__LEARN_PEERS": "true",
    "LOOPD_FEDERATION__LEARN_INTERVAL_S": "0.5",
}
LOOPBACK = {"LOOPD_FEDERATION__ALLOWED_NETWORKS": '["127.0.0.0/8"]'}
# Four neighbours, and one 1,480 km south of them.
PLACES = {"a": 48.0, "b": 48.1, "c": 48.2, "d": 48.3, "far": 34.7}


def city(base: Path, name: str, environment: dict[str, str]) -> RunningNode:
    return RunningNode.init(base, name, lat=PLACES[name], development=False, **AS_CITIES, **environment)


def peers_of(node: RunningNode) -> set[str]:
    listed = node.admin("GET", "/peers").json()["peers"]
    return {entry["id"] for entry in listed if entry["status"] == "peer"}


def test_nodes_that_know_one_each_find_the_others_and_settle_in_the_mix(tmp_path: Path) -> None:
    nodes = together([lambda name=name: city(tmp_path, name, LOOPBACK) for name in PLACES])
    first, *others = nodes
    neighbours, far = nodes[:-1], nodes[-1]
    with running(*nodes):
        assert first.status()["mix"]["isolation"] == "alone"
        for node in others:
            assert node.add_peer(first)["status"] == "accepted"

        def settled(node: RunningNode) -> bool:
            # Three of the others are neighbours and one is distant; none is in between.
            mix = node.status()["mix"]
            found: bool = mix["missing"] == {"regional": 2} and mix["isolation"] in ("none", "one_teller")
            return found

        for node in neighbours:
            eventually(lambda node=node: settled(node), f"{node} has its mix", 90)
        everybody = {node.node_id for node in nodes}
        for node in neighbours:
            assert peers_of(node) == everybody - {node.node_id}
        # To the one far away all others are distant: of those it wants one or two, and the operator named one.
        mix = far.status()["mix"]
        assert mix["missing"] == {"nearby": 3, "regional": 2}
        assert 1 <= mix["chosen"]["distant"] <= 2
        listed = first.cli("peer", "list")
        assert "these are missing: 2 regional" in listed.err
        # What they learned serves: a record goes to all of them without the first.
        first.stop()
        subject = nodes[1].register()
        for node in nodes[2:-1]:
            assert node.hears(subject, via="b.loop", ttl=3)["verified"]


def test_a_learned_address_in_a_private_network_is_not_called(tmp_path: Path) -> None:
    open_one, guarded, learned = (
        city(tmp_path, "a", LOOPBACK),
        city(tmp_path, "b", {}),
        city(tmp_path, "c", LOOPBACK),
    )
    with running(open_one, guarded, learned):
        # The operator of B named A's address; that of C came to B from A alone.
        assert learned.add_peer(open_one)["status"] == "accepted"
        assert guarded.add_peer(open_one)["status"] == "accepted"
        eventually(lambda: '"event":"dial_failed"' in guarded.log_text(), "B has looked for C")
        assert "network that this node does not call" in guarded.log_text()
        assert guarded.standing("c.loop") is None
