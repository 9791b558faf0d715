"""Keys of real nodes: replaced while they run, and while one of them is down."""

from pathlib import Path

from tests.nodes import chain, eventually, init_nodes, running


def test_a_key_is_replaced_while_nodes_run_and_while_one_is_down(tmp_path: Path) -> None:
    nodes = init_nodes(tmp_path, "munich", "linz", "vienna")
    munich, linz, vienna = nodes
    with running(*nodes):
        chain(nodes)
        first = munich.register()
        told = vienna.hears(first)
        story = vienna.cli("explain", told["message_id"][:12])
        assert story.status == 0, story.err
        assert "from linz.loop, TTL 2: accepted" in story.out
        before = munich.admin("GET", "/key").json()
        rotated = munich.cli("key", "rotate", "--json")
        assert rotated.status == 0, rotated.err
        after = munich.admin("GET", "/key").json()
        assert before["key_id"] != after["key_id"]
        assert after["former"][0]["key_id"] == before["key_id"]
        vienna.hears(munich.register())
        linz.stop()
        assert munich.cli("key", "rotate").status == 0
        second = munich.register()
        linz.start()
        vienna.hears(second)
        munich.stop()
        assert munich.cli("key", "rotate").status == 0
        munich.start()
        vienna.hears(munich.register())
        peer = linz.peer("munich.loop")
        assert peer is not None
        assert peer["fingerprint"] == munich.admin("GET", "/key").json()["fingerprint"]
        revoked = munich.cli("key", "revoke", before["key_id"])
        assert revoked.status == 0, revoked.err
        eventually(lambda: linz.peer("munich.loop")["queue"] == 0, "everything is sent")  # type: ignore[index]
        vienna.hears(munich.register())
        for node in nodes:
            assert node.decisions("bad_origin_signature") == 0
            assert node.decisions("revoked_key") == 0
