"""The daemon as a process: how it ends, who else may use its directory, copies and tokens while it runs."""

import http.client
import json
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from tests.nodes import DOCUMENT, RunningNode, eventually, material, running, send


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    node = RunningNode.init(tmp_path, "a")
    with running(node):
        yield node


def begin_registration(node: RunningNode, connection: http.client.HTTPSConnection) -> tuple[str, bytes]:
    """Send all of a registration but the end of its body; the material's id and what is left to send."""
    document = material(node.city)
    body = json.dumps(document).encode()
    connection.putrequest("POST", "/api/v1/material")
    for name, value in (
        ("Content-Type", DOCUMENT),
        ("Content-Length", str(len(body))),
        ("Authorization", f"Bearer {node.token('material:write')}"),
    ):
        connection.putheader(name, value)
    connection.endheaders(body[:-20])
    # Another connection was served from beginning to end meanwhile: the daemon has begun with this one, too.
    assert node.get("/health").status == 200
    return document["id"], body[-20:]


def draining(node: RunningNode) -> None:
    node.signal(signal.SIGTERM)
    eventually(lambda: '"event":"stopping"' in node.log_text(), f"{node} stops")


def test_sigterm_lets_a_running_request_finish(node: RunningNode) -> None:
    with closing(node.connection()) as busy, closing(node.connection()) as idle:
        assert send(idle, "GET", "/health").json()["status"] == "ok"
        material_id, rest = begin_registration(node, busy)
        draining(node)
        # Who comes now is told to go elsewhere.
        refused = send(idle, "GET", "/health")
        assert (refused.status, refused.reason) == (503, "draining")
        assert int(refused.headers["Retry-After"]) >= 1
        with closing(node.connection()) as late, pytest.raises(ConnectionError):
            late.connect()
        busy.send(rest)
        assert busy.getresponse().status == 201
        assert node.wait() == 0
    node.start()
    assert node.get(f"/api/v1/material/{material_id}").status == 200
    assert node.stop() == 0


def test_sigterm_waits_no_longer_than_its_timeout(node: RunningNode) -> None:
    assert node.stop() == 0
    node.start(LOOPD_DAEMON__SHUTDOWN_TIMEOUT_S="1")
    with closing(node.connection()) as busy:
        material_id, _ = begin_registration(node, busy)
        began_s = time.monotonic()
        assert node.stop() == 0
        took_s = time.monotonic() - began_s
    assert 0.9 < took_s < 8
    node.start()
    assert node.get(f"/api/v1/material/{material_id}").status == 404


def test_a_second_daemon_on_the_directory_is_refused(node: RunningNode) -> None:
    second = node.cli("run")
    assert (second.status, second.out) == (1, "")
    assert "in use by another loopd process" in second.err
    assert node.get("/health").status == 200
    assert node.status()["node"] == "a.loop"
    # Only the process kept it: killed without a word, it leaves nothing to clean up.
    node.kill9()
    node.start()
    assert node.get("/health").json()["node"] == "a.loop"


def test_a_directory_may_lie_deeper_than_a_socket_path_is_long(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    node = RunningNode.init(deep, "a")
    with running(node):
        assert node.cli("status").status == 0
        assert (node.root / "admin.sock").stat().st_mode & 0o777 == 0o600
        assert node.stop() == 0
    assert not (node.root / "admin.sock").exists()


def test_a_copy_made_while_clients_register_is_a_whole_node(node: RunningNode, tmp_path: Path) -> None:
    token, enough, answered = node.token("material:write"), Event(), []
    headers = {"Content-Type": DOCUMENT, "Authorization": f"Bearer {token}"}

    def register() -> None:
        with closing(node.connection()) as connection:
            while not enough.is_set():
                document = material(node.city)
                assert (
                    send(connection, "POST", "/api/v1/material", json.dumps(document).encode(), headers).status == 201
                )
                answered.append(document["id"])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(register) for _ in range(4)]
        try:
            eventually(lambda: len(answered) > 50, "registrations")
            before = list(answered)
            copied = node.cli("backup", tmp_path / "copy.db")
            eventually(lambda: len(answered) > len(before) + 50, "registrations go on")
        finally:
            enough.set()
        for client in clients:
            client.result()
    assert (copied.status, copied.out.strip()) == (0, str(tmp_path / "copy.db"))
    again = node.cli("backup", tmp_path / "copy.db")
    assert again.status == 1
    assert "already" in again.err

    assert node.stop() == 0
    restored = RunningNode(tmp_path / "restored", node.node_id, node.city, node.port, node.ca_file)
    shutil.copytree(node.root, restored.root, ignore=shutil.ignore_patterns("loopd.db*", "loopd.log", "*.sock"))
    shutil.copy(tmp_path / "copy.db", restored.root / "loopd.db")
    with running(restored), closing(restored.connection()) as connection:
        assert {send(connection, "GET", f"/api/v1/material/{material_id}").status for material_id in before} == {200}
        assert restored.register()


def test_tokens_made_while_it_runs_and_while_it_does_not(node: RunningNode) -> None:
    def post(token: str) -> int:
        return node.request(
            "POST", "/api/v1/material", material(node.city), {"Authorization": f"Bearer {token}"}
        ).status

    made = node.cli("token", "create", "--scope", "material:write")
    assert (made.status, made.err) == (0, "")
    running_token = made.out.strip()
    other = node.cli("token", "create", "--scope", "offer:write").out.strip()
    brief = node.cli("token", "create", "--scope", "material:write", "--ttl", "1").out.strip()
    assert (post(running_token), post(other), post("loopd_nonsense")) == (201, 403, 401)
    assert node.stop() == 0
    stopped_token = node.cli("token", "create", "--scope", "material:write").out.strip()
    node.start()
    assert [post(token) for token in (running_token, stopped_token)] == [201, 201]
    eventually(lambda: post(brief) == 401, "the token of one second expires")
    assert running_token not in node.log_text()
    assert running_token.encode() not in (node.root / "loopd.db").read_bytes()
