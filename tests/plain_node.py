"""A LOOP node of the plain kind: §8.2 and nothing more, a placeholder where a signature belongs.

It keeps every request that it gets, and answers as such nodes do.
"""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.nodes import CONTEXT, Answer, RunningNode, free_port, issue_certificate
from tests.peer import document, utc

PLACEHOLDER = "lab-signature-placeholder"
ANNOUNCE = "/api/v1/federate/announce"


@dataclass(frozen=True)
class Taken:
    """One POST that the node got."""

    path: str
    headers: Message
    body: Any


@dataclass
class PlainNode:
    """Its id, its port, and what it got so far."""

    node_id: str
    port: int
    taken: list[Taken] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}/api/v1"

    def announcements(self) -> dict[str, Taken]:
        """The announcements it got, the last one of each subject."""
        return {taken.body["material"]: taken for taken in self.taken if taken.path == ANNOUNCE}

    def announce(self, node: RunningNode, material: str, **changes: Any) -> Answer:
        """Announce a material to a node in the short form of §8.2; `changes` are further fields or other values."""
        fields = {"material": material, "origin": self.node_id, "available": True, **changes}
        return self.post(node, ANNOUNCE, document("MaterialAnnouncement", **fields))

    def post(self, node: RunningNode, path: str, body: bytes) -> Answer:
        """Send a node a document with the three headers of §9.2."""
        headers = {"X-Node-ID": self.node_id, "X-Timestamp": utc(), "X-Node-Signature": PLACEHOLDER}
        return node.request("POST", path, body, headers)

    def answer(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """What it answers: its NodeInfo without a key, yes to a handshake, accepted to all else that is posted."""
        head = {"@context": CONTEXT, "schema_version": "0.2.0"}
        if method == "POST" and path.endswith("/federation/handshake"):
            words = {"status": "accepted", "peer_id": self.node_id, "received_at": utc(), "lab_only": True}
            return 202, {**head, "@type": "NodeHandshakeResponse", "capabilities": ["interop-v0.2.0"], **words}
        if method == "POST":
            return 202, {"status": "accepted", "id": len(self.taken)}
        if path.endswith("/node/info"):
            place = {"lat": 48.2, "lon": 11.5, "city": "Lab", "country": "DE"}
            words = {"id": self.node_id, "name": "Lab", "version": "0.2.0", "endpoint": self.endpoint}
            return 200, {
                **head,
                "@type": "NodeInfo",
                **words,
                "location": place,
                "capabilities": ["material-registry"],
            }
        return 404, {"error": {"code": "NOT_FOUND", "message": "not here", "details": {}}}


@contextmanager
def plain_node(base: Path, node_id: str = "lab.loop") -> Iterator[PlainNode]:
    """Serve a plain node over TLS, with a certificate of the authority of `base`."""
    plain = PlainNode(node_id, free_port())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            plain.taken.append(Taken(self.path, self.headers, json.loads(body)))
            self._answer("POST")

        def _answer(self, method: str) -> None:
            status, value = plain.answer(method, self.path)
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/ld+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issue_certificate(base))
    server = ThreadingHTTPServer(("127.0.0.1", plain.port), Handler)
    # Each connection's thread is ended with the process: the daemon keeps its connections open.
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield plain
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
