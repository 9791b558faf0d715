import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from loopd.cli.root import COMMANDS
from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in root.iterdir()}


@pytest.mark.parametrize("command", [*COMMANDS, "token create", "peer approve", "offer make", "material add"])
def test_every_command_explains_itself(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["status"], ["status", "--nonsense", "x"], ["peer"], ["peer", "frobnicate"]]
)
def test_misuse_is_exit_2_and_told_on_standard_error(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_the_command_and_the_module_are_one() -> None:
    for command in ([str(Path(sys.executable).parent / "loopd")], [sys.executable, "-m", "loopd"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(".") == 2
        done = subprocess.run([*command, "tokne"], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert done.stderr.startswith("loopd: there is no command 'tokne'")


def test_check_config_changes_nothing(run: Run, node: NodeDirectory) -> None:
    before = snapshot(node.root)
    result = run("check-config", node.root)
    assert (result.exit_code, result.stderr) == (0, "")
    assert snapshot(node.root) == before


def test_check_config_shows_the_resolved_settings(run: Run, node: NodeDirectory) -> None:
    result = run("check-config", node.root, "--json", LOOPD_FEDERATION__RADIUS_KM="7")
    shown = json.loads(result.stdout)
    assert (result.exit_code, shown["valid"], shown["problems"]) == (0, True, [])
    assert shown["settings"]["federation"]["radius_km"] == 7
    assert shown["settings"]["tls"]["certificate"] == str(node.root / "tls-cert.pem")


def test_check_config_tells_all_problems(run: Run, node: NodeDirectory) -> None:
    node.node_key_file.chmod(0o644)
    node.database_file.unlink()
    (node.root / "tls-key.pem").write_text("nothing")
    result = run("check-config", node.root)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("loopd: ") for line in lines)
    assert "mode 0644, must be 0600" in lines[0]
    assert "tls-key.pem" in lines[1]
    assert "there is no database" in lines[2]
    assert not node.database_file.exists()
    shown = json.loads(run("check-config", node.root, "--json").stdout)
    assert (shown["valid"], len(shown["problems"])) == (False, 3)


def test_check_config_names_variable_and_file(run: Run, node: NodeDirectory, tmp_path: Path) -> None:
    result = run("check-config", node.root, LOOPD_FEDERATION__RADIUS_KM="-3")
    assert result.exit_code == 1
    assert result.stderr.startswith("loopd: LOOPD_FEDERATION__RADIUS_KM: federation.radius_km = -3")
    result = run("check-config", tmp_path / "nowhere", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["settings"] is None
    assert not (tmp_path / "nowhere").exists()


def test_check_config_notices_what_is_no_key_and_no_database(run: Run, node: NodeDirectory) -> None:
    node.node_key_file.write_bytes((node.root / "tls-key.pem").read_bytes())
    node.database_file.write_bytes(b"not a database" * 100)
    result = run("check-config", node.root)
    assert result.exit_code == 1
    assert "not an Ed25519 key" in result.stderr
    assert "cannot be read as a database" in result.stderr


def test_a_second_daemon_is_refused(run: Run, node: NodeDirectory) -> None:
    with node.lock():
        result = run("run", node.root)
    assert result.exit_code == 1
    assert "in use by another loopd process" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "DIR"),
        ("peer", "list", "DIR"),
        ("peer", "add", "DIR", "https://127.0.0.1:1/api/v1"),
        ("material", "list", "DIR"),
        ("offer", "list", "DIR", "MAT-DE-MUC-2025-PLASTIC-B847F3"),
    ],
)
def test_what_needs_the_daemon_says_how_to_start_it(run: Run, node: NodeDirectory, arguments: tuple[str, ...]) -> None:
    before = snapshot(node.root)
    result = run(*(str(node.root) if argument == "DIR" else argument for argument in arguments))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"loopd run {node.root}" in result.stderr
    assert snapshot(node.root) == before


def test_status_prints_what_the_daemon_says(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /admin/v1/status"] = (200, {"node": "munich.loop", "peers": {"active": 2}, "odd": "a\x1b[2Jb"})
    result = run("status", node.root)
    assert result.stdout == "node\tmunich.loop\npeers.active\t2\nodd\ta�[2Jb\n"
    assert json.loads(run("status", node.root, "--json").stdout)["peers"] == {"active": 2}


def test_the_key_of_who_waits_is_told_beside_the_list(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    asking = {"id": "vienna.loop", "status": "waiting", "fingerprint": "5a69:78ea"}
    known = {"id": "berlin.loop", "status": "peer", "fingerprint": "e32d:bbb2"}
    daemon.answers["GET /admin/v1/peers"] = (200, {"peers": [known, asking]})
    result = run("peer", "list", node.root)
    assert result.stdout.count("\n") == 3
    assert result.stderr == "vienna.loop waits for your approval and shows the key 5a69:78ea\n"


def test_what_the_mix_lacks_is_told_beside_the_list(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    mix = {"missing": {"nearby": 2, "distant": 1}}
    daemon.answers["GET /admin/v1/peers"] = (200, {"peers": [], "mix": mix})
    told = run("peer", "list", node.root).stderr
    assert told.endswith("To the mix of peers that is wanted, these are missing: 2 nearby, 1 distant.\n")
    daemon.answers["GET /admin/v1/peers"] = (200, {"peers": [], "mix": {"missing": {}}})
    assert "missing" not in run("peer", "list", node.root).stderr


def test_an_answer_that_makes_no_sense_is_a_failure(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /admin/v1/status"] = (200, "<html>")
    assert "not JSON" in run("status", node.root).stderr
    daemon.answers["GET /admin/v1/status"] = (502, ["?"])
    result = run("status", node.root)
    assert (result.exit_code, result.stderr) == (1, "loopd: the daemon answered 502\n")


def test_a_socket_deep_down_is_reached(run: Run, tmp_path: Path, node: NodeDirectory) -> None:
    deep = NodeDirectory(tmp_path / ("x" * 100) / ("y" * 100))
    deep.root.parent.mkdir()
    node.root.rename(deep.root)
    fake = FakeDaemon(deep, {"GET /admin/v1/status": (200, {"node": "munich.loop"})}).run()
    next(fake)
    try:
        assert run("status", deep.root).stdout == "node\tmunich.loop\n"
    finally:
        fake.close()


def test_the_admin_address_gets_the_token_of_the_environment(
    run: Run, node: NodeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = {}

    async def request(self: Any, method: str, path: str, body: Any = None, **_: Any) -> Any:
        sent.update(self._session.headers, place=self._base_url)
        return {}

    monkeypatch.setattr("loopd.cli.admin_client.AdminClient.request", request)
    environment = {"LOOPD_API__ADMIN_LISTEN": "127.0.0.1:8444", "LOOPD_ADMIN_TOKEN": "loopd_x"}
    assert run("status", node.root, **environment).exit_code == 0
    assert (sent["Authorization"], sent["place"]) == ("Bearer loopd_x", "http://127.0.0.1:8444")


def test_the_lock_goes_with_the_process(node: NodeDirectory) -> None:
    script = (
        "import sys, time; from pathlib import Path; from loopd.directory import NodeDirectory\n"
        "with NodeDirectory(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    assert not node.in_use()
    process = subprocess.Popen([sys.executable, "-c", script, str(node.root)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert node.in_use()
    finally:
        process.kill()
        process.communicate()
    assert not node.in_use()
    with node.lock(patience_s=0):
        assert node.lock_file.exists()


@pytest.mark.parametrize("group", ["", "ledger", "ledger account", "clearing", "transfer"])
def test_a_list_of_commands_is_not_cut(run: Run, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = run(*group.split(), "--help").stdout.partition("Commands:")[2].splitlines()
    assert len(lines) > 2
    assert [line for line in lines if line.endswith("...")] == []
