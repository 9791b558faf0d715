import json
from collections.abc import Callable

from click.testing import Result

from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]


def test_with_the_daemon_stopped_the_key_file_and_the_database_change_together(run: Run, node: NodeDirectory) -> None:
    before = node.load_node_key().public
    shown = json.loads(run("key", "show", node.root, "--json").stdout)
    assert (shown["key_id"], shown["fingerprint"], shown["former"]) == (before.key_id, before.fingerprint, [])
    rotated = json.loads(run("key", "rotate", node.root, "--json").stdout)
    after = node.load_node_key().public
    assert before.raw != after.raw
    assert (rotated["key_id"], rotated["former"][0]["key_id"]) == (after.key_id, before.key_id)
    assert not node.next_key_file.exists()
    result = run("key", "revoke", node.root, before.key_id)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"before: {before.key_id}, revoked " in result.stdout
    assert node.load_node_key().public.raw == after.raw
    again = run("key", "revoke", node.root, before.key_id)
    assert (again.exit_code, again.stderr) == (1, "loopd: that key is revoked already\n")
    unknown = run("key", "revoke", node.root, "0" * 16)
    assert (unknown.exit_code, unknown.stderr) == (1, "loopd: this node has and had no key with that id\n")


def test_the_present_key_is_not_revoked_by_accident(run: Run, node: NodeDirectory) -> None:
    before = node.load_node_key().public
    result = run("key", "revoke", node.root, before.key_id)
    assert result.exit_code == 2
    assert "loopd key rotate" in result.stderr
    assert node.load_node_key().public.raw == before.raw
    assert run("key", "revoke", node.root, before.key_id, "--present").exit_code == 0
    assert node.load_node_key().public.raw != before.raw


def test_with_the_daemon_running_it_is_asked(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    shown = {"node": "munich.loop", "key_id": "ab" * 8, "fingerprint": "abab", "former": []}
    daemon.answers["GET /admin/v1/key"] = (200, shown)
    daemon.answers["POST /admin/v1/key/rotate"] = (200, shown)
    daemon.answers["POST /admin/v1/key/revoke"] = (200, shown)
    assert run("key", "show", node.root).stdout == "node\tmunich.loop\nkey id\tabababababababab\nfingerprint\tabab\n"
    assert run("key", "rotate", node.root).exit_code == 0
    assert run("key", "revoke", node.root, "cd" * 8).exit_code == 0
    assert [request[:2] for request in daemon.requests] == [
        ("GET", "/admin/v1/key"),
        ("POST", "/admin/v1/key/rotate"),
        ("GET", "/admin/v1/key"),
        ("POST", "/admin/v1/key/revoke"),
    ]
    assert daemon.requests[-1][2] == {"key_id": "cd" * 8}


def test_explain_tells_the_story_or_the_json(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    told = {"message_id": "ab" * 32, "held": False, "copies": [], "peers": []}
    daemon.answers["GET /admin/v1/messages/abababab"] = (200, told)
    lines = run("explain", node.root, "abababab").stdout.splitlines()
    assert lines[0] == f"message {'ab' * 32}"
    assert "No copy of it came." in lines
    assert json.loads(run("explain", node.root, "abababab", "--json").stdout) == told
