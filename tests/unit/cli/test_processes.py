"""The commands against a real daemon in a process of its own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import Result

from loopd.directory import NodeDirectory
from tests.nodes import free_port

Run = Callable[..., Result]
LOOPD = [sys.executable, "-m", "loopd"]


@contextmanager
def running(node: NodeDirectory, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The daemon, from its ready line on; killed at the end if it is still there."""
    command = [*LOOPD, "run", str(node.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        assert json.loads(ready)["event"] == "ready", ready
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_daemon_from_start_to_stop(node: NodeDirectory, tmp_path: Path, run: Run) -> None:
    listen = {"LOOPD_API__LISTEN": f"127.0.0.1:{free_port()}"}
    with running(node, **listen) as daemon:
        assert json.loads(run("status", node.root, "--json").stdout)["node"] == "munich.loop"
        made = run("token", "create", node.root, "--scope", "offer:write,admin")
        assert (made.exit_code, made.stderr) == (0, "")
        (listed,) = json.loads(run("token", "list", node.root, "--json").stdout)["tokens"]
        assert listed["scopes"] == ["offer:write", "admin"]
        assert run("token", "revoke", node.root, listed["id"]).exit_code == 0
        assert run("backup", node.root, tmp_path / "backup.db").exit_code == 0
        assert run("check-config", node.root).exit_code == 0
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=20) == 0
    connection = sqlite3.connect(tmp_path / "backup.db")
    assert connection.execute("SELECT count(*) FROM api_token").fetchone() == (0,)
    connection.close()
    stopped = run("status", node.root)
    assert stopped.exit_code == 1
    assert stopped.stderr.startswith("loopd: no daemon answers at ")


def test_over_an_address_the_daemon_wants_a_token(node: NodeDirectory, run: Run) -> None:
    token = run("token", "create", node.root, "--scope", "admin").stdout.strip()
    listen = {
        "LOOPD_API__LISTEN": f"127.0.0.1:{free_port()}",
        "LOOPD_API__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
    }
    with running(node, **listen):
        refused = run("status", node.root, **listen)
        assert refused.exit_code == 1
        assert "[missing_token]" in refused.stderr
        assert "LOOPD_ADMIN_TOKEN" in refused.stderr
        assert run("status", node.root, **listen, LOOPD_ADMIN_TOKEN=token).exit_code == 0


def test_an_address_that_is_taken_is_told(node: NodeDirectory) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [*LOOPD, "run", str(node.root)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env=os.environ | {"LOOPD_API__LISTEN": f"127.0.0.1:{port}"},
        )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"{port}" in result.stderr.splitlines()[-1]
