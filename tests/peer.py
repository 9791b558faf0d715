"""A LOOP node of another make, to hold loopd against: it signs, announces and answers as the protocol's text says.

Written from §8.2, §9.2, §9.3 and docs/protocol-notes.md alone. It shares no code with loopd's own signing, so that a
mistake there cannot hide here.
"""

import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
ANNOUNCE = "/api/v1/federate/announce"
OFFER = "/api/v1/federate/offer"
MIRROR = "/api/v1/federate/mirror"
HANDSHAKE = "/api/v1/federation/handshake"
TTL = 3

# DER of a SubjectPublicKeyInfo for Ed25519 (RFC 8410), before the 32 bytes of the key.
_PUBLIC_KEY_HEAD = bytes.fromhex("302a300506032b6570032100")

# Takes a field out of a document.
ABSENT: Any = object()


def utc(offset_s: float = 0) -> str:
    """Now, or so many seconds from now, as the protocol writes it; with milliseconds."""
    moment = datetime.now(UTC) + timedelta(seconds=offset_s)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def document(kind: str, **fields: Any) -> bytes:
    """A LOOP document; a field that is ABSENT is left out."""
    value = {"@context": CONTEXT, "@type": kind, **fields}
    return json.dumps({key: item for key, item in value.items() if item is not ABSENT}).encode()


@dataclass(frozen=True)
class Message:
    """An announcement with its origin's signature and the values of its hop chain: the seed first, the anchor last."""

    origin: str
    body: bytes
    timestamp: str
    signature: str
    chain: tuple[bytes, ...]

    def headers(self, ttl: int = TTL) -> dict[str, str]:
        """What every copy carries that arrives with this TTL."""
        return {
            "X-Loop-Origin": self.origin,
            "X-Loop-Origin-Timestamp": self.timestamp,
            "X-Loop-Origin-Signature": self.signature,
            "X-Loop-TTL": str(ttl),
            "X-Loop-Hop": self.chain[TTL - ttl].hex(),
        }

    @property
    def message_id(self) -> str:
        return hashlib.sha256(self.origin.encode() + b"\n" + self.body).hexdigest()


@dataclass(frozen=True)
class FakePeer:
    """One node: its id, its key, where it says it is."""

    node_id: str
    lat: float
    lon: float
    endpoint: str = "https://127.0.0.1:1/api/v1"
    key: SigningKey = field(default_factory=SigningKey.generate, repr=False)

    def with_other_key(self) -> "FakePeer":
        """An impostor: the same id, another key."""
        return replace(self, key=SigningKey.generate())

    @property
    def public_key_pem(self) -> str:
        encoded = base64.b64encode(_PUBLIC_KEY_HEAD + bytes(self.key.verify_key)).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----"

    def sign(self, method: str, path: str, timestamp: str, target: str | None, body: bytes) -> str:
        """§9.2's signature: base64url without padding of Ed25519 over seven lines."""
        digest = hashlib.sha256(body).hexdigest()
        lines = ["loop-node-request-v1", method, path, self.node_id, timestamp, target or "", digest]
        signature = self.key.sign("\n".join(lines).encode()).signature
        return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()

    def headers(
        self, path: str, body: bytes, target: str | None, *, timestamp: str | None = None, method: str = "POST"
    ) -> dict[str, str]:
        """The sender's own headers."""
        moment = utc() if timestamp is None else timestamp
        headers = {
            "X-Node-ID": self.node_id,
            "X-Timestamp": moment,
            "X-Node-Signature": self.sign(method, path, moment, target, body),
        }
        return headers if target is None else {**headers, "X-Node-Target": target}

    def announcement(self, material: str, **changes: Any) -> Message:
        """An announcement of a material in the full form; `changes` replace its fields, or remove them (ABSENT)."""
        chain = [hashlib.sha256(f"{self.node_id} {material} {utc()}".encode()).digest()]
        for _ in range(TTL):
            chain.append(hashlib.sha256(chain[-1]).digest())
        fields = {
            "material": material,
            "origin": self.node_id,
            "available": True,
            "category": "organic-food",
            "quantity": 500,
            "unit": "kg",
            "revision": 1,
            "issued_at": utc(),
            "valid_until": utc(24 * 3600),
            "ttl": TTL,
            "radius_km": None,
            "origin_location": {"lat": self.lat, "lon": self.lon},
            "hop_anchor": chain[TTL].hex(),
        }
        return self.signed_message(document("MaterialAnnouncement", **{**fields, **changes}), tuple(chain))

    def signed_message(self, body: bytes, chain: tuple[bytes, ...], timestamp: str | None = None) -> Message:
        """Any bytes, signed as this origin's announcement."""
        moment = utc() if timestamp is None else timestamp
        return Message(self.node_id, body, moment, self.sign("POST", ANNOUNCE, moment, None, body), chain)

    def handshake(self, **changes: Any) -> bytes:
        """A NodeHandshake."""
        fields = {
            "schema_version": "0.2.0",
            "node_id": self.node_id,
            "name": self.node_id.removesuffix(".loop").title(),
            "endpoint": self.endpoint,
            "capabilities": ["material-registry", "productdna"],
            "public_key": self.public_key_pem,
            "timestamp": utc(),
        }
        return document("NodeHandshake", **{**fields, **changes})

    def node_info(self) -> bytes:
        """Its NodeInfo."""
        return document(
            "NodeInfo",
            id=self.node_id,
            name=self.node_id,
            version="0.2.0",
            endpoint=self.endpoint,
            location={"lat": self.lat, "lon": self.lon, "city": "Vienna", "country": "AT"},
            capabilities=["material-registry"],
            public_key=self.public_key_pem,
        )

    def registry_entry(self) -> Mapping[str, Any]:
        """What another node's registry says of this one."""
        place = {"lat": self.lat, "lon": self.lon}
        entry = {"id": self.node_id, "endpoint": self.endpoint, "location": place, "status": "active"}
        return {**entry, "public_key": self.public_key_pem}


class PeerServer:
    """Serves what a peer is asked: its NodeInfo, and a registry that introduces `introduced`; 404 for all else."""

    def __init__(self, certificate: Path, key: Path, port: int) -> None:
        self._pages: dict[str, bytes] = {}
        pages = self._pages

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                page = pages.get(self.path, b"{}")
                self.send_response(200 if self.path in pages else 404)
                self.send_header("Content-Type", "application/ld+json")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # The handshake is made by the thread of the connection, so that a slow one holds up nobody.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def show(self, peer: FakePeer, *introduced: FakePeer) -> None:
        """Answer as that peer from now on."""
        entries = [dict(other.registry_entry()) for other in introduced]
        self._pages["/api/v1/node/info"] = peer.node_info()
        self._pages["/api/v1/federation/nodes"] = document(
            "NodeRegistry", schema_version="0.2.0", version=utc()[:10], nodes=entries
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
