"""`python -m bench`: measure, print the table, and write it into the documentation if asked to."""

import itertools
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import click
import uvloop

from bench import bare
from bench.load import Connection, UnexpectedAnswer, http_request, load
from bench.messages import LD_JSON, MATERIAL_PATH, BenchPeer, material, material_id, registrations
from bench.over_link import load_link
from bench.processes import NotStarted, ServerProcess, free_port, loopd, running
from bench.report import as_json, as_markdown, setting, write_into
from bench.rows import Result, Row, Sample, summarise
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings
from loopd.directory import NodeDirectory
from loopd.net.tls import DevelopmentAuthority, client_context

ROUNDS = 3
# Announcements are signed before the clock starts, some more than a node can take in that time.
SIGNED_PER_S = 6000
READ_MATERIALS = 200


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running node of the bench's own."""

    node_id: str
    directory: Path
    server: ServerProcess


class Bench:
    """The servers that are measured, and the rows that load them."""

    def __init__(self, root: Path, connections: int, stack: ExitStack) -> None:
        self._root = root
        self._connections = connections
        self._stack = stack
        self._authority = DevelopmentAuthority.open_or_create(root / "ca", datetime.now(UTC))
        self._tls = client_context(self._authority.certificate_file)

    def hello_rows(self) -> list[Row]:
        """Rows of a bare server: the smallest request there is, and one that brings a material."""
        issued = self._authority.issue([ip_address("127.0.0.1")], datetime.now(UTC))
        certificate, key = self._root / "hello.crt", self._root / "hello.key"
        certificate.write_bytes(issued.certificate_pem)
        key.write_bytes(issued.key_pem)
        port = free_port()
        command = ("bench.hello", str(port), certificate, key)
        server = self._stack.enter_context(running(command, port, self._root / "hello.log"))
        body = material(0)
        get = http_request("GET", "/hello", {})
        post = http_request("POST", "/hello", {"Content-Type": LD_JSON}, body)
        return [
            self._row(bare.HELLO_GET, "bare aiohttp, GET over TLS 1.3", server, itertools.repeat(get), 200),
            self._row(bare.HELLO_POST, f"bare aiohttp, POST of {len(body)} B", server, itertools.repeat(post), 200),
        ]

    def start_daemon(self, name: str) -> Daemon:
        """A node as `loopd init --dev` sets it up, running."""
        node_id, directory, port = f"{name}.loop", self._root / name, free_port()
        loopd(
            *("init", directory, "--node-id", node_id, "--name", name.title(), "--city", "Munich", "--country", "DE"),
            *("--lat", "48.1351", "--lon", "11.5820", "--listen", f"127.0.0.1:{port}"),
            *("--endpoint", f"https://127.0.0.1:{port}/api/v1", "--dev", "--ca", self._root / "ca"),
        )
        log_file = self._root / f"{name}.log"
        server = self._stack.enter_context(running(("loopd", "run", directory), port, log_file))
        return Daemon(node_id, directory, server)

    async def registry_rows(self, daemon: Daemon) -> list[Row]:
        """Rows of a node without peers: what its own city does with it."""
        token = loopd("token", "create", daemon.directory, "--scope", "material:write")
        await self._expect(daemon, 201, list(itertools.islice(registrations(token), 1)))
        first = list(range(10_000_000, 10_000_000 + READ_MATERIALS))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": LD_JSON}
        await self._expect(
            daemon, 201, [http_request("POST", MATERIAL_PATH, headers, material(number)) for number in first]
        )
        reads = [http_request("GET", f"{MATERIAL_PATH}/{material_id(number)}", {}) for number in first]
        return [
            self._row("reads", "reads of a material", daemon.server, itertools.cycle(reads), 200, (bare.HELLO_GET,)),
            self._row(
                "registrations",
                "registrations, durable",
                daemon.server,
                registrations(token),
                201,
                (bare.HELLO_POST, bare.SCHEMA, bare.COMMIT_GROUP),
            ),
        ]

    async def federation_row(self, daemon: Daemon) -> Row:
        """The row of a node that hears from a peer, which is the bench."""
        peer = BenchPeer(f"https://127.0.0.1:{free_port()}/api/v1")
        await self._expect(daemon, 202, [peer.handshake(daemon.node_id)])

        async def sample(seconds: float) -> Sample:
            signed = [peer.announcement(daemon.node_id) for _ in range(int(seconds * SIGNED_PER_S))]
            return await load(daemon.server, self._tls, iter(signed), 202, self._connections, seconds)

        parts = (bare.HELLO_POST, bare.SCHEMA, bare.VERIFY, bare.VERIFY, bare.COMMIT_GROUP)
        return Row("announcements", "signed announcements accepted, over HTTP", sample, parts)

    async def link_row(self, daemon: Daemon) -> Row:
        """The row of a node that hears from the bench over a link."""
        peer = BenchPeer(f"https://127.0.0.1:{free_port()}/api/v1")
        await self._expect(daemon, 202, [peer.handshake(daemon.node_id)])
        target = (daemon.node_id, NodeDirectory(daemon.directory).load_node_key().public)

        async def sample(seconds: float) -> Sample:
            signed = [peer.copy(number) for number in range(int(seconds * SIGNED_PER_S))]
            return await load_link(daemon.server, self._tls, peer, target, signed, seconds)

        # No request, and no signature of the sender's on each: the origin's alone.
        parts = (bare.SCHEMA, bare.VERIFY, bare.COMMIT_GROUP)
        return Row("announcements-link", "signed announcements accepted, over a link", sample, parts)

    def _row(
        self,
        name: str,
        title: str,
        server: ServerProcess,
        requests: Iterator[bytes],
        status: int,
        parts: tuple[str, ...] = (),
    ) -> Row:
        async def sample(seconds: float) -> Sample:
            return await load(server, self._tls, requests, status, self._connections, seconds)

        return Row(name, title, sample, parts)

    async def _expect(self, daemon: Daemon, status: int, requests: Sequence[bytes]) -> None:
        connection = await Connection.open(daemon.server.port, self._tls)
        for request in requests:
            answer = await connection.exchange(request)
            if answer.status != status:
                raise UnexpectedAnswer(f"expected {status}, got {answer.status}: {answer.body[:500].decode()}")
        await connection.close()


async def measure(root: Path, seconds: float, connections: int) -> list[Result]:
    """Every row, in rounds that follow each other, so that what disturbs the machine disturbs all rows alike."""
    with ExitStack() as stack:
        database = await Database.create(root / "writer.db", DatabaseSettings(), SystemClock())
        try:
            await bare.prepare_writer(database)
            bench = Bench(root, connections, stack)
            rows = [
                *bench.hello_rows(),
                bare.verify_row(),
                bare.schema_row(),
                bare.commit_row(root, 1),
                bare.commit_row(root, bare.GROUP),
                bare.writer_row(database),
                *await bench.registry_rows(bench.start_daemon("munich")),
                await bench.federation_row(bench.start_daemon("vienna")),
                await bench.link_row(bench.start_daemon("graz")),
            ]
            samples: dict[str, list[Sample]] = {row.name: [] for row in rows}
            for _ in range(ROUNDS):
                for row in rows:
                    samples[row.name].append(await row.sample(seconds / ROUNDS))
        finally:
            await database.close()
    bare_cpu_us: dict[str, float] = {}
    results = []
    for row in rows:
        results.append(summarise(row, samples[row.name], bare_cpu_us))
        bare_cpu_us[row.name] = results[-1].cpu_us
    return results


@click.command()
@click.option("--seconds", default=6.0, show_default=True, help="How long each row is measured.")
@click.option("--connections", default=32, show_default=True, help="How many clients ask at once.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build"),
    show_default=True,
    help="Where the databases are made; on the disk that is to be measured, not in memory.",
)
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON instead of a table.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Also write the table into this document.")
def main(seconds: float, connections: int, directory: Path, json_wanted: bool, write: Path | None) -> None:
    """Measure what the node costs beside what its parts cost alone."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
        try:
            results = uvloop.run(measure(Path(root).resolve(), seconds, connections))
        except (UnexpectedAnswer, NotStarted, subprocess.CalledProcessError) as error:
            raise click.ClickException(str(error)) from error
        circumstances = setting(f"python -m bench --seconds {seconds:g} --connections {connections}", Path(root))
    table = as_markdown(circumstances, results)
    click.echo(as_json(circumstances, results) if json_wanted else table)
    if write is not None:
        write_into(write, table)


if __name__ == "__main__":
    main()
