import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from loopd.directory import NodeDirectory
from loopd.protocol.limits import TOKEN_TTL_MAX_S
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
TOKEN = re.compile(r"loopd_[A-Za-z0-9_-]{43}\n")


def test_with_the_daemon_stopped_the_database_is_used(run: Run, node: NodeDirectory) -> None:
    result = run("token", "create", node.root, "--scope", "material:write")
    assert (result.exit_code, result.stderr) == (0, "")
    assert TOKEN.fullmatch(result.stdout)
    made = json.loads(run("token", "create", node.root, "--scope", "admin", "--ttl", "60", "--json").stdout)
    assert (made["id"], made["scopes"]) == (2, ["admin"])
    listed = json.loads(run("token", "list", node.root, "--json").stdout)["tokens"]
    assert [entry["id"] for entry in listed] == [2, 1]
    assert "token" not in listed[0]
    assert run("token", "revoke", node.root, 1).exit_code == 0
    result = run("token", "revoke", node.root, 1)
    assert (result.exit_code, result.stderr) == (1, "loopd: There is no token with this id.\n")
    assert run("token", "list", node.root).stdout.splitlines()[1].startswith("2\tadmin\t")


def test_with_the_daemon_running_it_is_asked(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /admin/v1/tokens"] = (201, {"token": "loopd_abc", "id": 1})
    daemon.answers["GET /admin/v1/tokens"] = (200, {"tokens": []})
    daemon.answers["DELETE /admin/v1/tokens/7"] = (204, None)
    arguments = ["--scope", "material:write,offer:write", "--scope", "material:write"]
    assert run("token", "create", node.root, *arguments).stdout == "loopd_abc\n"
    assert run("token", "list", node.root).exit_code == 0
    assert run("token", "revoke", node.root, 7).exit_code == 0
    assert daemon.requests == [
        ("POST", "/admin/v1/tokens", {"scopes": ["material:write", "offer:write"], "ttl_s": 3600}),
        ("GET", "/admin/v1/tokens", None),
        ("DELETE", "/admin/v1/tokens/7", None),
    ]


def test_a_daemon_that_is_just_starting_is_waited_for(run: Run, node: NodeDirectory) -> None:
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with node.lock():
            locked.set()
            release.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(5)
    result = run("token", "create", node.root, "--scope", "admin")
    assert result.exit_code == 1
    assert "no daemon answers" in result.stderr
    threading.Thread(target=lambda: (time.sleep(0.2), release.set())).start()
    assert TOKEN.fullmatch(run("token", "create", node.root, "--scope", "admin").stdout)
    holder.join()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scope", "root"],
        ["--scope", ","],
        [],
        ["--scope", "admin", "--ttl", "59"],
        ["--scope", "admin", "--ttl", str(TOKEN_TTL_MAX_S + 1)],
        ["--scope", "admin", "--ttl", "long"],
    ],
)
def test_bad_scopes_and_times_are_misuse(run: Run, node: NodeDirectory, arguments: list[str]) -> None:
    result = run("token", "create", node.root, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("loopd: ")


def test_an_unknown_scope_names_those_there_are(run: Run, node: NodeDirectory) -> None:
    result = run("token", "create", node.root, "--scope", "root")
    assert "there is no scope root (there are: material:write, offer:write, account, admin)" in result.stderr


def test_a_backup_opens_and_never_overwrites(run: Run, node: NodeDirectory, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    result = run("backup", node.root, target)
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    connection = sqlite3.connect(target)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    result = run("backup", node.root, target)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert run("backup", node.root, tmp_path / "nowhere" / "backup.db").exit_code == 1


def test_a_running_daemon_backs_itself_up(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("backup", node.root, "backup.db").exit_code == 0
    assert daemon.requests == [("POST", "/admin/v1/backup", {"file": str(tmp_path / "backup.db")})]
