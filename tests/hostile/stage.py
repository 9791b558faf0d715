"""The stage on which hostile requests play: one real daemon, with peers of another make around it."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hostile.wire import Reply, Wire, request
from tests.nodes import RunningNode, eventually, free_port, issue_certificate, running
from tests.peer import ANNOUNCE, HANDSHAKE, FakePeer, Message, PeerServer, document

OWN = "munich.loop"
# Whatever is to be refused carries this word, and the database must not know it at the end.
REFUSED = "REFUSED"

HERE = "MAT-DE-MUC-2026-FOOD-HERE01"
WITHDRAWN = "MAT-DE-MUC-2026-FOOD-GONE01"
ABSENT_ID = "MAT-DE-MUC-2026-FOOD-ABSENT"

MARIA = f"user:maria@{OWN}"

LD_JSON = {"Content-Type": "application/ld+json"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Row:
    """One hostile request: what is sent, and the status and `details.reason` that it must get.

    `reason` is empty for what is taken; status 0 is a connection that ends without an answer.
    """

    name: str
    status: int
    reason: str
    data: bytes | Callable[["Stage"], bytes]

    def bytes_for(self, stage: "Stage") -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data(stage)


def material(**changes: Any) -> bytes:
    """A MaterialDNA of Munich that is to be refused, unless `changes` say otherwise."""
    fields = {
        "schema_version": "0.2.0",
        "id": f"MAT-DE-MUC-2026-FOOD-{REFUSED}",
        "category": "organic-food",
        "quantity": {"value": 500, "unit": "kg"},
        "origin_city": "Munich",
        "current_city": "Munich",
        "available_from": "2026-01-01T00:00:00Z",
    }
    return document("MaterialDNA", **{**fields, **changes})


@dataclass
class Stage:
    """What a hostile request may need. `replies` are all answers of the daemon so far."""

    wire: Wire
    node: RunningNode
    vienna: FakePeer
    berlin: FakePeer
    suspended: FakePeer
    introduced: FakePeer
    disputed: FakePeer
    stranger: FakePeer
    tokens: Mapping[str, str]
    replies: list[Reply] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    # The same node as `disputed`, as somebody else says.
    disputed_twin: FakePeer = field(init=False)

    def __post_init__(self) -> None:
        self.disputed_twin = self.disputed.with_other_key()

    def send(self, data: bytes) -> Reply:
        reply = self.wire.exchange(data)
        self.replies.append(reply)
        if reply.status in (400, 401):
            # Each row is to be answered for itself, and not for what its peer did before.
            for peer in (self.vienna, self.berlin):
                assert self.node.admin("POST", f"/peers/{peer.node_id}/resume").status in (200, 404)
        return reply

    def get(self, target: str) -> Any:
        reply = self.send(request("GET", target))
        assert reply.status == 200, reply
        return reply.json()

    def bearer(self, scope: str = "material:write") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[scope]}"}

    def post(self, target: str, body: bytes, scope: str = "material:write", **headers: str) -> bytes:
        """A POST of a user with a token."""
        return request("POST", target, {**LD_JSON, **self.bearer(scope), **headers}, body)

    def fresh_id(self, word: str = REFUSED) -> str:
        """An id of a material in Vienna that nobody used; by its word it is to be refused."""
        number = self.numbers[word] = self.numbers.get(word, 0) + 1
        return f"MAT-AT-VIE-2026-FOOD-{word}{number}"


def signed(
    peer: FakePeer,
    path: str,
    body: bytes,
    *,
    target: str | None = OWN,
    timestamp: str | None = None,
    change: Mapping[str, str | None] | None = None,
    extra: Mapping[str, str] | None = None,
    signed_path: str | None = None,
    signed_body: bytes | None = None,
    signed_method: str = "POST",
) -> bytes:
    """A node's request. `change` replaces headers after signing (None removes one)."""
    own = peer.headers(
        path if signed_path is None else signed_path,
        body if signed_body is None else signed_body,
        target,
        timestamp=timestamp,
        method=signed_method,
    )
    headers: dict[str, str | None] = {**LD_JSON, **own, **(extra or {}), **(change or {})}
    return request("POST", path, {name: value for name, value in headers.items() if value is not None}, body)


def copy_of(
    sender: FakePeer, message: Message, ttl: int = 3, change: Mapping[str, str | None] | None = None, **options: Any
) -> bytes:
    """A copy of an announcement as loopd nodes send it; `change` replaces any header."""
    return signed(sender, ANNOUNCE, message.body, extra=message.headers(ttl), change=change, **options)


def _tokens(node: RunningNode) -> dict[str, str]:
    """Tokens by their scopes, one that has expired and one that was revoked; made while the daemon is down."""

    def create(scope: str, *more: str) -> str:
        made = node.cli("token", "create", "--scope", scope, *more)
        assert made.status == 0, made.err
        return made.out.strip()

    tokens = {scope: create(scope) for scope in ("material:write", "offer:write")}
    tokens["expired"] = create("material:write")
    with closing(sqlite3.connect(node.root / "loopd.db")) as database, database:
        database.execute(
            "UPDATE api_token SET expires_at_ms = created_at_ms WHERE id = (SELECT max(id) FROM api_token)"
        )
    tokens["revoked"] = create("material:write")
    revoked = node.cli("token", "revoke", "4")
    assert revoked.status == 0, revoked.err
    tokens["account"] = create("account", "--account", MARIA)
    return tokens


# Short, so that requests which never end are answered while a test waits; and all that can be logged is.
SHORT_TIMES = {
    "LOOPD_API__IDLE_TIMEOUT_S": "1.5",
    "LOOPD_API__BODY_TIMEOUT_S": "1.0",
    "LOOPD_LOG__LEVEL": "debug",
}
# Munich keeps books, and Vienna has credit there.
MONEY = {"LOOPD_LEDGER__CURRENCY_CODE": "LC-MUC", "LOOPD_LEDGER__CREDIT_LIMITS": '{"vienna.loop": 5000}'}


@contextmanager
def staged(base: Path) -> Iterator[Stage]:
    """Munich runs. Vienna and Berlin are its peers, Salzburg is suspended.

    Vienna's registry lists Graz and Linz; Berlin's lists Linz with another key.
    """
    node = RunningNode.init(base, "munich", lat=48.1351, lon=11.5820, **SHORT_TIMES, **MONEY)
    tokens = _tokens(node)
    certificate, key = issue_certificate(base)
    ports = free_port(), free_port()
    endpoints = [f"https://127.0.0.1:{port}/api/v1" for port in ports]
    stage = Stage(
        wire=Wire(node.port, node.ca_file),
        node=node,
        vienna=FakePeer("vienna.loop", 48.2082, 16.3738, endpoints[0]),
        berlin=FakePeer("berlin.loop", 52.52, 13.405, endpoints[1]),
        suspended=FakePeer("salzburg.loop", 47.8095, 13.0550),
        introduced=FakePeer("graz.loop", 47.0707, 15.4395),
        disputed=FakePeer("linz.loop", 48.3069, 14.2858),
        stranger=FakePeer("stranger.loop", 50.0, 10.0),
        tokens=tokens,
    )
    servers = [PeerServer(certificate, key, port) for port in ports]
    servers[0].show(stage.vienna, stage.introduced, stage.disputed)
    servers[1].show(stage.berlin, stage.disputed_twin)
    for server in servers:
        server.start()
    try:
        with running(node):
            _set(stage)
            yield stage
    finally:
        for server in servers:
            server.stop()


def _set(stage: Stage) -> None:
    for peer in (stage.vienna, stage.berlin, stage.suspended):
        reply = stage.send(signed(peer, HANDSHAKE, peer.handshake()))
        assert reply.json()["status"] == "accepted", reply
    assert stage.node.cli("peer", "suspend", stage.suspended.node_id).status == 0
    for subject in (HERE, WITHDRAWN):
        assert stage.send(stage.post("/api/v1/material", material(id=subject))).status == 201
    for account in (MARIA, f"user:anna@{OWN}", f"business:brewery@{OWN}"):
        assert stage.node.admin("POST", "/ledger/accounts", {"id": account}).status == 201
    issue = {"id": "6a2f41a3-c54c-4ef0-8b7b-3d1c5e7f9a02", "to": MARIA, "amount": 100, "backing": 100}
    assert stage.node.admin("POST", "/api/v1/loopcoin/issuance", issue).status == 201
    # A peer is listed once its place is known, which bids are held against.
    eventually(lambda: "vienna.loop" in str(stage.get("/api/v1/federation/nodes")), "Munich knows where Vienna is")
    update = document(
        "MaterialStatusUpdate",
        schema_version="0.2.0",
        id="6a2f41a3-c54c-4ef0-8b7b-3d1c5e7f9a01",
        material_id=WITHDRAWN,
        status="withdrawn",
        updated_at="2026-01-02T00:00:00Z",
    )
    assert stage.send(stage.post("/api/v1/material-status", update)).status == 201


def listed_reasons(description: Mapping[str, Any], method: str, path: str) -> set[str] | None:
    """Every reason that the description names for a route; None where no route matches the path."""
    for template, operations in description["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        operation = operations.get(method.lower())
        if operation is not None and re.fullmatch(pattern, path):
            texts = (response["description"] for response in operation["responses"].values())
            return {reason for text in texts for reason in re.findall(r"`(\w+)`", text)}
    return None
