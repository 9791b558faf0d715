"""Real nodes for tests: `loopd run` processes, spoken to over TLS as a client would, and over the admin socket."""

import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from loopd.net.tls import DevelopmentAuthority, development_names
from loopd.net.unix_path import short_unix_path
from loopd.protocol.contexts import context_url
from loopd.protocol.timestamps import format_timestamp

T = TypeVar("T")

LOOPD = (sys.executable, "-m", "loopd")
CONTEXT = context_url("local-loop-io.github.io")
DOCUMENT = "application/ld+json"
# Many at once on a busy machine start slowly.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 30.0
POLL_S = 0.03

# Processes that test side by side, as pytest-xdist numbers them.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# Below the range from which the kernel takes ports for outgoing connections: a node that is down for a while finds its
# own free again. Each worker has a part of its own.
PORTS = range(20_000 + _WORKER, 32_000, _WORKERS)

_numbers = count(1)
_ports_given: set[int] = set()
_port_lock = threading.Lock()


def free_port() -> int:
    """A port that nobody listens on, and that this process was not given before."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        with _port_lock:
            if port not in _ports_given:
                _ports_given.add(port)
                return port


def eventually(look: Callable[[], T | None], what: str, within_s: float = 30.0) -> T:
    """Look again and again until something is there, and give it. AssertionError with `what` at the deadline."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(POLL_S)
    return found


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make the calls at the same time; their results in order, or the first one's exception."""
    with ThreadPoolExecutor(max_workers=max(1, len(calls))) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """`details.reason` of a refusal."""
        found: str = self.json()["error"]["details"]["reason"]
        return found


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str


def material(city: str, **changes: Any) -> dict[str, Any]:
    """A MaterialDNA that no other call gave, in that city, available now."""
    return {
        "@context": CONTEXT,
        "@type": "MaterialDNA",
        "schema_version": "0.2.0",
        "id": f"MAT-DE-CTY-2026-FOOD-A{next(_numbers):06d}",
        "category": "organic-food",
        "quantity": {"value": 500, "unit": "kg"},
        "origin_city": city,
        "current_city": city,
        "available_from": format_timestamp(time.time_ns() // 1_000_000),
        **changes,
    }


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("loopd", timeout=REQUEST_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short_unix_path(self._path) as path:
            self.sock.connect(path)


def send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over a connection that may have served others, and will be closed by whoever opened it."""
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


class RunningNode:
    """A node's directory, and its process while it runs. Whoever starts it stops it: see `running()`."""

    def __init__(self, root: Path, node_id: str, city: str, port: int, ca_file: Path) -> None:
        self.root = root
        self.node_id = node_id
        self.city = city
        self.port = port
        self.ca_file = ca_file
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"RunningNode({self.node_id})"

    @classmethod
    def init(
        cls,
        base: Path,
        name: str,
        *,
        lat: float = 48.0,
        lon: float = 11.0,
        development: bool = True,
        directory: str | None = None,
        **environment: str,
    ) -> "RunningNode":
        """Make `name`.loop below `base`, where all its nodes share one authority. `environment` goes with every start.

        Without `development` it is a node as a city would run it: manual admission, limits, guarded calls, and a
        certificate of that authority.
        """
        port, city = free_port(), f"City {name.upper()}"
        node = cls(base / (directory or name), f"{name}.loop", city, port, base / "ca" / "ca.pem")
        address = f"127.0.0.1:{port}"
        identity = {"node-id": node.node_id, "name": city, "city": city, "country": "DE", "lat": lat, "lon": lon}
        options = [f"--{key}={value}" for key, value in identity.items()]
        options += [f"--listen={address}", f"--endpoint={node.endpoint}"]
        if development:
            options += ["--dev", f"--ca={base / 'ca'}"]
        else:
            certificate, key = issue_certificate(base)
            options += [f"--tls-cert={certificate}", f"--tls-key={key}"]
            node.environment["LOOPD_TLS__CA_FILE"] = str(node.ca_file)
            # Who is whose peer is the test's to say.
            node.environment["LOOPD_FEDERATION__LEARN_PEERS"] = "false"
        made = node.cli("init", *options)
        assert made.status == 0, made.err
        node.environment |= {"LOOPD_FEDERATION__PROBE_INTERVAL_S": "0.5", **environment}
        return node

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}/api/v1"

    @property
    def log_file(self) -> Path:
        return self.root / "loopd.log"

    @property
    def runs(self) -> bool:
        """Whether the daemon was started and not stopped since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.node_id} does not run"
        return self._process.pid

    # The process

    def start(self, **environment: str) -> None:
        """Start the daemon and wait until it is ready. What is added to the environment stays for later starts."""
        assert self._process is None, f"{self.node_id} runs already"
        self.environment |= environment
        begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*LOOPD, "run", str(self.root)], stdout=log, stderr=log, env=os.environ | self.environment
            )
        process = self._process

        def ready() -> bool:
            assert process.poll() is None, f"{self.node_id} ended: {self.log_text()[-2000:]}"
            with self.log_file.open("rb") as log:
                log.seek(begin)
                return b'"event":"ready"' in log.read()

        try:
            eventually(ready, f"{self.node_id} is ready", START_TIMEOUT_S)
        except BaseException:
            self.kill9()
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the process to end by itself; its exit status."""
        assert self._process is not None, f"{self.node_id} does not run"
        status = self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        return status

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill9(self) -> None:
        """SIGKILL; nothing happens where the node does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log_text(self) -> str:
        """All that the node's processes have logged."""
        return self.log_file.read_text()

    def cli(self, *arguments: str | Path, stdin: bytes = b"") -> Finished:
        """Run `loopd` with the first argument, this node's directory, and the rest: `cli("token", "create", ...)`."""
        deals = ("material", "offer", "supply", "match", "transfer", "transaction")
        groups = ("token", "peer", *deals, "ledger", "clearing", "key", "webhook")
        words = 2 if arguments[0] in groups else 1
        command = [*LOOPD, *arguments[:words], self.root, *arguments[words:]]
        ended = subprocess.run(
            list(map(str, command)),
            input=stdin,
            capture_output=True,
            env=os.environ | self.environment,
            timeout=60,
            check=False,
        )
        return Finished(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    # HTTP

    def connection(self) -> http.client.HTTPSConnection:
        """A new connection to the public API, which whoever asked closes."""
        context = client_context(self.ca_file)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT_S, context=context)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, scope: str = ""
    ) -> Answer:
        """One request to the public API; `body` is sent as it is if it is bytes, else as JSON."""
        sent = {"Content-Type": DOCUMENT, **(headers or {})}
        if scope:
            sent["Authorization"] = f"Bearer {self.token(scope)}"
        with closing(self.connection()) as connection:
            return send(connection, method, path, _bytes(body), sent)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A GET without a token."""
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any = None, scope: str = "material:write") -> Answer:
        """A POST with a token of that scope."""
        return self.request("POST", path, body, scope=scope)

    def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """A request to the admin socket, `path` below `/admin/v1` unless it begins with `/api` or `/metrics`."""
        full = path if path.startswith(("/api", "/metrics")) else f"/admin/v1{path}"
        with closing(_UnixConnection(self.root / "admin.sock")) as connection:
            return send(connection, method, full, _bytes(body), {"Content-Type": "application/json"})

    def token(self, scope: str) -> str:
        """A token of that scope, made once."""
        if scope not in self._tokens:
            made = self.admin("POST", "/tokens", {"scopes": [scope], "ttl_s": 3600})
            assert made.status == 201, made.body
            self._tokens[scope] = made.json()["token"]
        return self._tokens[scope]

    # What tests ask and do most

    def status(self) -> dict[str, Any]:
        """The daemon's account of itself."""
        answer = self.admin("GET", "/status")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    def decisions(self, reason: str = "accepted") -> int:
        """How many announcements this process has decided on so."""
        return int(self.status()["announcements"].get(reason, 0))

    def add_peer(self, other: "RunningNode") -> dict[str, Any]:
        """Shake hands with another node."""
        answer = self.admin("POST", "/peers", {"url": other.endpoint})
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    def peer(self, node_id: str) -> dict[str, Any] | None:
        """What this node's list says of a peer."""
        answer = self.admin("GET", "/peers")
        assert answer.status == 200, answer.body
        return next((entry for entry in answer.json()["peers"] if entry["id"] == node_id), None)

    def standing(self, node_id: str) -> str | None:
        """How a node stands here: peer, pending, waiting, suspended; None where it is in no list."""
        entry = self.peer(node_id)
        return None if entry is None else entry["status"]

    def heard(self, subject: str) -> dict[str, Any] | None:
        """What this node heard of a subject."""
        answer = self.get("/api/v1/federation/announcements?limit=100")
        assert answer.status == 200, answer.body
        return next((entry for entry in answer.json()["results"] if entry["subject"] == subject), None)

    def hears(self, subject: str, **expected: Any) -> dict[str, Any]:
        """Wait until this node heard of a subject, with those values."""

        def look() -> dict[str, Any] | None:
            entry = self.heard(subject)
            fits = entry is not None and all(entry[key] == value for key, value in expected.items())
            return entry if fits else None

        return eventually(look, f"{self.node_id} hears of {subject} {expected}")

    def register(self, **changes: Any) -> str:
        """Register a new material of this node's city; its id."""
        document = material(self.city, **changes)
        answer = self.post("/api/v1/material", document)
        assert answer.status == 201, answer.body
        return str(document["id"])

    def set_status(self, material_id: str, status: str) -> None:
        """Change a material's availability."""
        update = {
            "@context": CONTEXT,
            "@type": "MaterialStatusUpdate",
            "schema_version": "0.2.0",
            "id": str(uuid4()),
            "material_id": material_id,
            "status": status,
            "updated_at": format_timestamp(time.time_ns() // 1_000_000),
        }
        answer = self.post("/api/v1/material-status", update)
        assert answer.status == 201, answer.body


def _bytes(body: Any) -> bytes | None:
    return body if body is None or isinstance(body, bytes) else json.dumps(body).encode()


@cache
def client_context(ca_file: Path) -> ssl.SSLContext:
    """Trusts that authority alone."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def issue_certificate(base: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 from the authority of `base`, and its key."""
    authority = DevelopmentAuthority.open_or_create(base / "ca", datetime.now(UTC))
    issued = authority.issue(development_names("127.0.0.1", "127.0.0.1"), datetime.now(UTC))
    number = next(_numbers)
    certificate, key = base / f"certificate-{number}.pem", base / f"key-{number}.pem"
    certificate.write_bytes(issued.certificate_pem)
    key.touch(mode=0o600)
    key.write_bytes(issued.key_pem)
    return certificate, key


@contextmanager
def running(*nodes: RunningNode) -> Iterator[None]:
    """Start the nodes, all at once; whatever happened, none of them runs afterwards."""
    try:
        together([node.start for node in nodes])
        yield
    finally:
        for node in nodes:
            node.kill9()


def init_nodes(base: Path, *names: str, **options: Any) -> list[RunningNode]:
    """Several nodes, 74 km from each to the next, with the same options."""
    return together(
        [
            lambda name=name, place=place: RunningNode.init(base, name, lon=11.0 + place, **options)
            for place, name in enumerate(names)
        ]
    )


def befriend(a: RunningNode, b: RunningNode) -> None:
    """Make two nodes peers."""
    assert a.add_peer(b)["status"] == "accepted"
    eventually(lambda: b.standing(a.node_id) == "peer", f"{b} has {a} as a peer")


def chain(nodes: Sequence[RunningNode]) -> None:
    """Make each node a peer of the next."""
    for left, right in pairwise(nodes):
        befriend(left, right)


def linked(*nodes: RunningNode) -> None:
    """Wait until each node has a link to the next."""
    for left, right in pairwise(nodes):
        for node, other in ((left, right), (right, left)):
            eventually(lambda node=node, other=other: _has_link(node, other), f"{node} has a link to {other}")


def _has_link(node: RunningNode, other: RunningNode) -> bool:
    entry = node.peer(other.node_id)
    return entry is not None and bool(entry["linked"])


def settled(*nodes: RunningNode) -> None:
    """Wait until none of the nodes has anything left to send.

    A node queues what it passes on in the transaction in which it takes it, and takes it before the sender's queue
    lets it go. So where all queues are empty one after the other in the direction of travel, nothing is under way.
    """
    for node in nodes:
        eventually(lambda node=node: node.status()["queued"] == 0, f"{node} has sent everything")
