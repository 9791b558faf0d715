"""The directory that a demonstration plays in: whose it is, which processes run in it, and how those are ended."""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from loopd.demo.cast import CITIES
from loopd.demo.failure import DemoFailed

AUTHORITY_NAME: Final = "ca"
_RECORD_NAME: Final = "demo.json"
_LOCK_NAME: Final = "demo.lock"
# Longer than a daemon's own shutdown_timeout_s, so that it is killed only if it hangs.
STOP_PATIENCE_S: Final = 12.0
POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Recorded:
    """A node's process as the directory remembers it. `address` is the URL without a path."""

    node_id: str
    pid: int
    address: str
    directory: str

    def is_running(self) -> bool:
        """Whether that process is still there, and still is this node: ids of processes are used again."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return command.split(b"\0")[-3:-1] == [b"run", os.fsencode(self.directory)]

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is there to receive it."""
        if self.is_running():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


@dataclass(frozen=True, slots=True)
class Stage:
    """A demonstration's directory: one below it for each node, one for the authority, a log for each node."""

    root: Path

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep other demonstrations out while this one plays or cleans up. DemoFailed where one is at it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DemoFailed(f"{error.filename or self.root}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise DemoFailed(f"another `loopd demo` is at work in {self.root} at this moment") from None
        finally:
            os.close(descriptor)

    def recorded(self) -> list[Recorded]:
        """The nodes that the last demonstration here started; DemoFailed where the record is not readable."""
        record = self.root / _RECORD_NAME
        try:
            return [Recorded(**entry) for entry in json.loads(record.read_bytes())["nodes"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError):
            raise DemoFailed(f"{record} is not what `loopd demo` writes") from None

    def running(self) -> list[Recorded]:
        """Those of them that still run."""
        return [node for node in self.recorded() if node.is_running()]

    def record(self, nodes: Iterable[Recorded]) -> None:
        """Remember the processes, so that they can be ended after this one is gone."""
        draft = self.root / f"{_RECORD_NAME}.draft"
        draft.write_text(json.dumps({"nodes": [asdict(node) for node in nodes]}, indent=2) + "\n")
        draft.replace(self.root / _RECORD_NAME)

    def clear(self) -> None:
        """Make room: remove what an earlier demonstration left. DemoFailed where anything else has a name in use here.

        Only what stands beside a demonstration's record is removed, and only under the names that it makes.
        """
        taken = [self.root / name for name in self._names() if os.path.lexists(self.root / name)]
        if not (self.root / _RECORD_NAME).exists():
            if taken:
                raise DemoFailed(f"{taken[0]} is in the way, and not from `loopd demo`; name another directory")
            return
        for path in taken:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @staticmethod
    def _names() -> Sequence[str]:
        nodes = [city.directory_name for city in CITIES]
        return [AUTHORITY_NAME, *nodes, *(f"{name}.log" for name in nodes)]


async def end(nodes: Sequence[Recorded]) -> None:
    """Ask the processes to end, wait until they have, and kill those that do not."""
    for node in nodes:
        node.send(signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_PATIENCE_S
    while any(node.is_running() for node in nodes):
        if time.monotonic() >= deadline_s:
            for node in nodes:
                node.send(signal.SIGKILL)
            deadline_s += STOP_PATIENCE_S
        await asyncio.sleep(POLL_S)
