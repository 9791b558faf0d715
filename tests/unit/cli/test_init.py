import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from cryptography import x509

from loopd.directory import NodeDirectory
from loopd.net.tls import DevelopmentAuthority, covers
from loopd.settings import load_settings

Run = Callable[..., Result]

NODE_OPTIONS = {
    "--node-id": "munich.loop",
    "--name": "Munich",
    "--city": "Munich",
    "--country": "DE",
    "--lat": "48.1351",
    "--lon": "11.5820",
    "--listen": "127.0.0.1:8443",
    "--endpoint": "https://127.0.0.1:8443/api/v1",
}


def options(**changes: str) -> list[str]:
    chosen = NODE_OPTIONS | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [part for pair in chosen.items() for part in pair]


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_development_node_is_complete(tmp_path: Path, run: Run) -> None:
    root, authority = tmp_path / "deep" / "munich", tmp_path / "ca"
    result = run("init", root, *options(), "--dev", "--ca", authority)
    assert (result.exit_code, result.stderr) == (0, "")
    assert names(root) == ["loopd.db", "loopd.toml", "node.key", "tls-cert.pem", "tls-key.pem"]
    for name in ("node.key", "loopd.db", "tls-key.pem"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    settings = load_settings(root, {})
    assert (settings.node.id, settings.node.lat, settings.api.listen) == ("munich.loop", 48.1351, "127.0.0.1:8443")
    assert (settings.federation.admission, settings.daemon.development) == ("open", True)
    assert not settings.federation.learn_peers
    assert settings.api.user_requests_per_minute == settings.api.node_requests_per_minute == 0
    assert settings.tls.ca_file == authority / "ca.pem"
    certificate = x509.load_pem_x509_certificate((root / "tls-cert.pem").read_bytes())
    assert covers(certificate, "127.0.0.1")
    assert covers(certificate, "localhost")
    assert NodeDirectory(root).load_node_key().public.fingerprint in result.stdout
    assert run("check-config", root).exit_code == 0


def test_nodes_share_an_authority_or_have_their_own(tmp_path: Path, run: Run) -> None:
    for name in ("munich", "vienna"):
        assert run("init", tmp_path / name, *options(), "--dev", "--ca", tmp_path / "ca").exit_code == 0
    assert load_settings(tmp_path / "munich", {}).tls.ca_file == load_settings(tmp_path / "vienna", {}).tls.ca_file
    assert run("init", tmp_path / "berlin", *options(), "--dev").exit_code == 0
    assert load_settings(tmp_path / "berlin", {}).tls.ca_file == tmp_path / "berlin" / "ca" / "ca.pem"
    assert run("check-config", tmp_path / "berlin").exit_code == 0


def test_a_given_certificate_is_checked_first(tmp_path: Path, run: Run) -> None:
    issued = DevelopmentAuthority.open_or_create(tmp_path / "ca", datetime.now(UTC)).issue(
        ["munich.example"], datetime.now(UTC)
    )
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    key.chmod(0o600)
    given = ["--tls-cert", certificate, "--tls-key", key]
    result = run("init", tmp_path / "munich", *options(), *given)
    assert result.exit_code == 1
    assert "does not cover the endpoint's host 127.0.0.1" in result.stderr
    assert not (tmp_path / "munich").exists()
    result = run("init", tmp_path / "munich", *options(endpoint="https://munich.example/api/v1"), *given)
    assert result.exit_code == 0
    settings = load_settings(tmp_path / "munich", {})
    assert (settings.tls.certificate, settings.federation.admission) == (certificate, "manual")


def test_without_a_certificate_it_says_where_one_belongs(tmp_path: Path, run: Run) -> None:
    result = run("init", tmp_path / "munich", *options())
    assert result.exit_code == 0
    assert "tls-cert.pem" in result.stdout
    result = run("check-config", tmp_path / "munich")
    assert result.exit_code == 1
    assert "tls-cert.pem: No such file" in result.stderr


def test_a_certificate_that_is_there_already_is_not_asked_for(tmp_path: Path, run: Run) -> None:
    for name in ("tls-cert.pem", "tls-key.pem"):
        (tmp_path / name).touch()
    result = run("init", tmp_path, *options())
    assert (result.exit_code, "tls-cert.pem" in result.stdout) == (0, False)


@pytest.mark.parametrize("taken", ["loopd.toml", "node.key", "loopd.db", "tls-key.pem", "tls-cert.pem", "ca"])
def test_nothing_is_ever_overwritten(tmp_path: Path, run: Run, taken: str) -> None:
    root = tmp_path / "munich"
    root.mkdir()
    (root / taken).write_bytes(b"precious")
    (root / "lost+found").mkdir()
    result = run("init", root, *options(), "--dev")
    assert result.exit_code == 1
    assert taken in result.stderr
    assert result.stderr.startswith("loopd: ")
    assert tree(root) == {taken: b"precious"}
    assert names(root) == sorted([taken, "lost+found"])


def test_an_empty_directory_that_is_there_is_used(tmp_path: Path, run: Run) -> None:
    assert run("init", tmp_path, *options(), "--dev").exit_code == 0
    assert run("init", tmp_path, *options(), "--dev").exit_code == 1


def test_a_failure_leaves_nothing(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "loopd.db")

    monkeypatch.setattr("loopd.cli.init._create_database", full)
    result = run("init", tmp_path / "deep" / "munich", *options(), "--dev")
    assert (result.exit_code, result.stderr) == (1, "loopd: loopd.db: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_placing_takes_back_what_was_placed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_but_settings(source: Path, target: Path) -> None:
        if target.name == "loopd.toml":
            raise OSError(5, "Input/output error", str(target))
        link(source, target)

    monkeypatch.setattr("loopd.cli.init.os.link", link_but_settings)
    assert run("init", tmp_path / "munich", *options(), "--dev").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        result = run("init", root, *options(), "--dev")
        assert result.exit_code == 1
        assert "irectory" in result.stderr


def test_of_two_at_once_one_wins(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "loopd", "init", str(tmp_path / "munich"), *options(), "--dev"]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda _: subprocess.run(arguments, capture_output=True, check=False).returncode, "ab"))
    assert sorted(codes) == [0, 1]
    assert NodeDirectory(tmp_path / "munich").load_node_key()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"node_id": "Munich"}, "--node-id"),
        ({"country": "de"}, "--country"),
        ({"lat": "91"}, "--lat"),
        ({"lat": "north"}, "--lat"),
        ({"lat": "nan"}, "--lat"),
        ({"listen": "8443"}, "--listen"),
        ({"endpoint": "http://munich.example/api/v1"}, "--endpoint"),
        ({"city": "M"}, "--city"),
    ],
)
def test_a_bad_option_is_misuse(tmp_path: Path, run: Run, change: dict[str, str], said: str) -> None:
    result = run("init", tmp_path / "munich", *options(**change), "--dev")
    assert result.exit_code == 2
    assert result.stderr.startswith("loopd: ")
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "extra", [["--tls-cert", "x"], ["--ca", "x"], ["--dev", "--tls-cert", "x", "--tls-key", "y"], ["--nonsense"]]
)
def test_options_that_do_not_go_together_are_misuse(tmp_path: Path, run: Run, extra: list[str]) -> None:
    assert run("init", tmp_path / "munich", *options(), *extra).exit_code == 2
    assert not (tmp_path / "munich").exists()
