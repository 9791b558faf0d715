"""The three daemons as processes, set up and started with the commands that an operator uses."""

import asyncio
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from loopd.demo.cast import BACKED_BY, CATEGORY, CITIES, CREDIT_LIMIT_LC, RINGS, City, partners
from loopd.demo.failure import DemoFailed
from loopd.demo.stage import AUTHORITY_NAME, POLL_S, Recorded, Stage, end
from loopd.protocol.json_text import read_json

HOST: Final = "127.0.0.1"
# Where the nodes that stay are looked for first.
USUAL_PORTS: Final = (8443, 8444, 8445)
# Where the others listen: below the range from which the kernel takes ports for outgoing connections, which could take
# one between the moment when it was found free and the start of its node.
OTHER_PORTS: Final = range(12_000, 20_000)
COMMAND_TIMEOUT_S: Final = 60.0
LOG_TAIL_LINES: Final = 6
LOG_TAIL_BYTES: Final = 16 * 1024
# A node that was killed closes its connections a moment before its process is gone.
DEATH_PATIENCE_S: Final = 0.5

_PROGRAM: Final = (sys.executable, "-m", "loopd")


@dataclass
class Node:
    """One city's node. `process` is None until it is started."""

    city: City
    directory: Path
    log_file: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        """Its URL without a path."""
        return f"https://{HOST}:{self.port}"

    @property
    def endpoint(self) -> str:
        """What other nodes call."""
        return f"{self.address}/api/v1"

    def recorded(self) -> Recorded | None:
        """The process as the stage remembers it; None before the start."""
        if self.process is None:
            return None
        return Recorded(self.city.node_id, self.process.pid, self.address, str(self.directory))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one kind of event, oldest first."""
        lines = self.log_file.read_bytes().splitlines(keepends=True)
        entries = (json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n"))
        return [entry for entry in entries if entry["event"] == event]

    def why_ended(self) -> str | None:
        """How its process ended, in words; None while it runs."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return None
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def failure(self, sentence: str) -> DemoFailed:
        """The sentence with this node's last log lines below it."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        except OSError:
            lines = []
        if not lines:
            return DemoFailed(sentence)
        return DemoFailed("\n".join([sentence, f"The end of {self.city.node_id}'s log:", *(f"  {x}" for x in lines)]))


class Nodes:
    """All three. Between `start` and `stop` a process that ends by itself is a failure of the demonstration."""

    def __init__(self, stage: Stage, ports: tuple[int, ...]) -> None:
        self._stage = stage
        self._by_id = {
            city.node_id: Node(city, stage.root / city.directory_name, stage.root / f"{city.directory_name}.log", port)
            for city, port in zip(CITIES, ports, strict=True)
        }

    def of(self, city: City) -> Node:
        """The node of a city."""
        return self._by_id[city.node_id]

    @property
    def authority_directory(self) -> Path:
        """Where the development authority lies."""
        return self._stage.root / AUTHORITY_NAME

    @property
    def authority_file(self) -> Path:
        """The certificate that clients of these nodes must trust."""
        return self.authority_directory / "ca.pem"

    async def set_up(self) -> None:
        """Make a directory, key, certificate and database for each, all at once; and write what is set for its city."""
        self._stage.clear()
        self._stage.record([])
        await asyncio.gather(*(self._init(node) for node in self._by_id.values()))

    async def _init(self, node: Node) -> None:
        city = node.city
        options = {
            "--node-id": city.node_id,
            "--name": city.name,
            "--city": city.name,
            "--country": city.country,
            "--lat": str(city.lat),
            "--lon": str(city.lon),
            "--listen": f"{HOST}:{node.port}",
            "--endpoint": node.endpoint,
            "--ca": str(self.authority_directory),
        }
        words = [word for pair in options.items() for word in pair]
        await self.command(node, "init", str(node.directory), *words, "--dev")
        _write_settings(node.directory / "loopd.toml", city)

    def start(self) -> None:
        """Start the daemons, in sessions of their own: what is typed at this terminal does not reach them."""
        for node in self._by_id.values():
            with node.log_file.open("wb") as log:
                node.process = subprocess.Popen(
                    [*_PROGRAM, "run", str(node.directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                    start_new_session=True,
                )
            self._stage.record(self.recorded())

    def recorded(self) -> list[Recorded]:
        """The processes that were started."""
        return [recorded for node in self._by_id.values() if (recorded := node.recorded()) is not None]

    async def stop(self) -> None:
        """End every process that was started."""
        await end(self.recorded())
        for node in self._by_id.values():
            if node.process is not None:
                node.process.wait()

    def check(self) -> None:
        """DemoFailed where one of them has ended."""
        for node in self._by_id.values():
            why = node.why_ended()
            if why is not None:
                raise node.failure(f"{node.city.node_id} has ended by itself ({why})")

    async def explain(self, node: Node, sentence: str) -> DemoFailed:
        """What to raise where something failed at a node: that a process has ended, if it has, else the sentence."""
        deadline_s = time.monotonic() + DEATH_PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                self.check()
            except DemoFailed as failure:
                return failure
            await asyncio.sleep(POLL_S)
        return node.failure(sentence)

    async def command(self, node: Node, *arguments: str) -> bytes:
        """Run a `loopd` command and give what it printed. DemoFailed where it fails."""
        process = await asyncio.create_subprocess_exec(
            *_PROGRAM,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                output, errors = await process.communicate()
        except TimeoutError:
            raise node.failure(f"`{self.shown(*arguments)}` took more than {COMMAND_TIMEOUT_S:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip()
            raise await self.explain(node, f"`{self.shown(*arguments)}` failed:\n{said}")
        return output

    async def json_command(self, node: Node, *arguments: str) -> Any:
        """The same for a command that prints JSON."""
        return read_json(await self.command(node, *arguments, "--json"))

    def shown(self, *arguments: str) -> str:
        """A command as people would type it in the demonstration's directory."""
        root = f"{self._stage.root}/"
        return shlex.join(["loopd", *(argument.removeprefix(root) for argument in arguments)])


def environment() -> Mapping[str, str]:
    """This process's environment without the settings of a node that it may hold: they would reach all three."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOOPD_")}


def free_ports(usual: tuple[int, ...] = ()) -> tuple[int, ...]:
    """A port for each city: the usual one where it is free, else one that nobody else listens on."""
    with ExitStack() as held:
        return tuple(_hold(held, usual[index : index + 1]) for index in range(len(CITIES)))


def _hold(held: ExitStack, wanted: tuple[int, ...]) -> int:
    """Bind a port and keep it until all are found, so that none is named twice."""
    candidate = held.enter_context(socket.socket())
    # As the daemon does: a port whose last connections are still fading away is free.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for port in (*wanted, *random.sample(OTHER_PORTS, len(OTHER_PORTS))):
        with suppress(OSError):
            candidate.bind((HOST, port))
            return port
    raise DemoFailed(f"no port is free at {HOST} between {OTHER_PORTS.start} and {OTHER_PORTS.stop}")


def _write_settings(settings_file: Path, city: City) -> None:
    """Put the rings of this demonstration, and the city's signal and currency, into its settings, where an operator
    would.
    """
    rings = ", ".join(f"{{ radius_km = {ring.radius_km}, after_s = {ring.after_s} }}" for ring in RINGS)
    limits = ", ".join(f'"{partner.node_id}" = {CREDIT_LIMIT_LC}' for partner in partners(city))
    currency = f'currency_code = "{city.currency_code}"\nbacked_by = "{BACKED_BY}"\nexchange_rate = 1\n'
    text = settings_file.read_text()
    for header, line in (
        ("[federation]\n", f"rings = [{rings}]\n"),
        ("[signals]\n", f"values = {{ {CATEGORY} = {city.signal} }}\n"),
        ("[ledger]\n", f"{currency}credit_limits = {{ {limits} }}\n"),
    ):
        if header not in text:
            raise DemoFailed(f"{settings_file} has no section {header.strip()}")
        text = text.replace(header, header + line, 1)
    settings_file.write_text(text)
