"""The processes that are measured: a bare server, and daemons as an operator would start them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """A server did not come up; the text ends with its log."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process that serves HTTPS on a port of 127.0.0.1."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        """Processor time so far, of all its threads, in user space and in the kernel (see proc(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def loopd(*arguments: str | Path) -> str:
    """Run one `loopd` command; its standard output, stripped. CalledProcessError where it fails."""
    finished = subprocess.run(
        [sys.executable, "-m", "loopd", *map(str, arguments)], stdout=subprocess.PIPE, check=True, text=True
    )
    return finished.stdout.strip()


@contextmanager
def running(command: Sequence[str | Path], port: int, log_file: Path) -> Iterator[ServerProcess]:
    """Start a server, wait until it accepts connections, stop it at the end.

    NotStarted where it does not come up.
    """
    with log_file.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *map(str, command)], stdout=log, stderr=log)
    try:
        _wait_until_up(process, port, log_file)
        yield ServerProcess(process.pid, port)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotStarted(f"{' '.join(map(str, process.args[1:]))} did not start:\n{log_file.read_text()[-2000:]}")  # type: ignore[index]
