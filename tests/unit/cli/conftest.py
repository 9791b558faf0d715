"""A node's directory, and a runner of commands."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loopd.cli.root import commands
from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

INIT = [
    *("--node-id", "munich.loop", "--name", "Munich", "--city", "Munich", "--country", "DE"),
    *("--lat", "48.1351", "--lon", "11.5820", "--listen", "127.0.0.1:8443"),
    *("--endpoint", "https://127.0.0.1:8443/api/v1"),
]

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process; arguments may be paths."""
    monkeypatch.setattr("loopd.cli.admin_client.START_PATIENCE_S", 1.0)

    def invoke(*arguments: object, stdin: bytes | None = None, **environment: str) -> Result:
        return CliRunner().invoke(commands, [str(argument) for argument in arguments], stdin, environment)

    return invoke


@pytest.fixture
def node(tmp_path: Path, run: Run) -> NodeDirectory:
    """A development node that was never started."""
    result = run("init", tmp_path / "munich", *INIT, "--dev", "--ca", tmp_path / "ca")
    assert result.exit_code == 0, result.output
    return NodeDirectory(tmp_path / "munich")


@pytest.fixture
def daemon(node: NodeDirectory) -> Iterator[FakeDaemon]:
    """The fake daemon, running on the node's directory."""
    yield from FakeDaemon(node).run()
