"""The demonstration's directory: what it removes, what it leaves alone, and which processes it takes for its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loopd.demo import stage as stage_module
from loopd.demo.failure import DemoFailed
from loopd.demo.stage import Recorded, Stage, end

OBEDIENT = "import sys; print('up', flush=True); sys.stdin.read()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these arguments that waits until it is ended."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            yield child
        finally:
            child.kill()


def recorded(pid: int, directory: Path) -> Recorded:
    return Recorded("munich.loop", pid, "https://127.0.0.1:1", str(directory))


@pytest.mark.parametrize("code", [OBEDIENT, STUBBORN])
async def test_nodes_are_ended_if_need_be_by_force(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "STOP_PATIENCE_S", 0.2)
    with process(code, "run", str(tmp_path)) as child:
        node = recorded(child.pid, tmp_path)
        assert node.is_running()
        await end([node])
        assert not node.is_running()
        assert child.wait(5) < 0


async def test_a_process_that_took_over_a_number_is_left_alone(tmp_path: Path) -> None:
    with process(OBEDIENT, "run", str(tmp_path / "another")) as child:
        node = recorded(child.pid, tmp_path)
        assert not node.is_running()
        await end([node])
        assert child.poll() is None


def test_the_record_gives_back_what_was_written(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.recorded() == []
    nodes = [recorded(os.getpid(), tmp_path)]
    stage.record(nodes)
    assert stage.recorded() == nodes
    assert stage.running() == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": [{"pid": 1}]}', '{"nodes": [1]}', "\xff"])
def test_a_record_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DemoFailed, match=r"demo\.json is not what"):
        Stage(tmp_path).recorded()


def test_what_is_not_the_demos_is_never_removed(tmp_path: Path) -> None:
    city = tmp_path / "munich"
    city.mkdir()
    with pytest.raises(DemoFailed, match="munich is in the way"):
        Stage(tmp_path).clear()
    assert city.is_dir()


def test_an_earlier_demo_is_removed_and_nothing_beside_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    stage = Stage(tmp_path / "data")
    with stage.reserved():
        stage.record([])
    for name in ("munich", "ca", "mine"):
        (stage.root / name).mkdir()
    (stage.root / "munich" / "loopd.toml").touch()
    (stage.root / "berlin.log").touch()
    (stage.root / "vienna").symlink_to(outside)
    stage.clear()
    assert sorted(path.name for path in stage.root.iterdir()) == ["demo.json", "demo.lock", "mine"]
    assert outside.is_dir()


def test_one_demo_at_a_time_uses_a_directory(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "data")
    with stage.reserved(), pytest.raises(DemoFailed, match="is at work in"), stage.reserved():
        pass
    with stage.reserved():
        pass


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoFailed, match="file"), Stage(tmp_path / "file" / "data").reserved():
        pass
