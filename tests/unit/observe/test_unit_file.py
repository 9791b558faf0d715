import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import annotated_types
import pytest

from loopd.settings import DaemonSettings

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "systemd" / "loopd.service"


@pytest.fixture
def unit() -> dict[str, list[str]]:
    values = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            values[key].append(value)
    return values


def test_it_runs_the_daemon_as_its_own_user_and_waits_for_it(unit: dict[str, list[str]]) -> None:
    assert unit["Type"] == ["notify"]
    assert unit["User"] == unit["Group"] == ["loopd"]
    assert unit["ExecStart"] == ["/opt/loopd/bin/loopd run /var/lib/loopd"]
    assert unit["StateDirectory"] == ["loopd"]


def test_neither_a_migration_nor_a_drain_is_killed_half_way(unit: dict[str, list[str]]) -> None:
    assert unit["TimeoutStartSec"] == ["infinity"]
    (longest,) = (
        bound.le
        for bound in DaemonSettings.model_fields["shutdown_timeout_s"].metadata
        if isinstance(bound, annotated_types.Le)
    )
    assert isinstance(longest, int)
    assert int(unit["TimeoutStopSec"][0]) > longest


def test_it_is_sandboxed(unit: dict[str, list[str]]) -> None:
    for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert unit[key] == ["yes"], key
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    assert unit["SystemCallFilter"][0] == "@system-service"


def test_the_service_manager_accepts_it(tmp_path: Path) -> None:
    """Where systemd is not installed the other tests have to do."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    copy = tmp_path / "loopd.service"
    copy.write_text(UNIT.read_text().replace("/opt/loopd/bin/loopd", "/bin/true"))
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("prefix", ["relative", "/opt/a b", "/opt/$(id)"])
def test_the_installer_refuses_an_odd_prefix(prefix: str) -> None:
    script = ROOT / "scripts" / "install.sh"
    done = subprocess.run(["sh", script, prefix], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 1
    assert "PREFIX" in done.stderr
