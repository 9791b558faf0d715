"""Cities that federate inside one process: the real federation over real databases, on a network made of calls.

A `Network` carries requests from one city's client to another's routes. It can lose them, hold them, answer in a
city's place, and take cities down. Time stands still until a test lets it pass.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from multidict import CIMultiDict

from loopd.api.federate_announce import FederateAnnounceRoutes
from loopd.api.federation import FederationRoutes
from loopd.api.keys import KeyStatementRoutes
from loopd.api.node import NodeRoutes
from loopd.api.requests import Request
from loopd.api.routes import Access
from loopd.audit.service import AuditLog
from loopd.crypto.hop_chain import hop_anchor
from loopd.crypto.keys import NodeKey, encode_signature
from loopd.database import Database, DatabaseSettings
from loopd.events.service import EventLog
from loopd.federation import nodes, replay
from loopd.federation.authentication import NodeCaller
from loopd.federation.nodes import AddedBy, Admission
from loopd.federation.requests import NodeRequests
from loopd.federation.service import Federation, Modules
from loopd.federation.settings import FederationSettings
from loopd.gossip import frames
from loopd.identity import FEATURES, NODE_INFO_CAPABILITIES, Identity
from loopd.net.http_client import DialError, DialFailure, PeerAnswer, PeerClient
from loopd.protocol.announcement import build_announcement
from loopd.protocol.documents import read_json
from loopd.protocol.errors import Refusal
from loopd.protocol.geo import Location
from loopd.protocol.json_text import dump_json
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.signing import (
    ANNOUNCE_PATH,
    API_ROOT,
    X_LOOP_HOP,
    X_LOOP_ORIGIN,
    X_LOOP_ORIGIN_SIGNATURE,
    X_LOOP_ORIGIN_TIMESTAMP,
    X_LOOP_TTL,
    X_NODE_ID,
    X_NODE_SIGNATURE,
    X_NODE_TARGET,
    X_TIMESTAMP,
    announcement_signing_string,
    request_signing_string,
)
from loopd.protocol.subjects import HeardSubject, Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from tests.link_wire import End, wire
from tests.support import ManualClock

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
NOW_MS = 1_790_000_000_000
# Shorter than what the failure detector takes for a stall.
SMOOTH_STEP_MS = 200
WIRE_TURNS = 10
DAY_MS = 24 * 3600 * 1000
GRAIN = "MAT-DE-MUC-2026-FOOD-B847F3"
DESK = "PRD-DE-MUC-2026-DESK-F4A7B2"
MUNICH, VIENNA, BERLIN = Location(48.1351, 11.5820), Location(48.2082, 16.3738), Location(52.5200, 13.4050)
OFFER_PATH = f"{API_ROOT}/federate/offer"

# One thread to read is enough here, and what survives the end of the objects need not survive that of the power.
FAST_DATABASE = DatabaseSettings(readers=1, synchronous="NORMAL")

Answering = Callable[[str, str, str], Awaitable[PeerAnswer | None]]


def key_of(node_id: str) -> NodeKey:
    return NodeKey.from_seed(sha256(node_id.encode()).digest())


def identity_of(node_id: str, location: Location = MUNICH, key: NodeKey | None = None) -> Identity:
    endpoint = f"https://{node_id}{API_ROOT}"
    name = node_id.removesuffix(".loop").title()
    return Identity(node_id, name, name, "DE", location, endpoint, key or key_of(node_id), CONTEXT)


def subject_of(subject_id: str = GRAIN, **changes: Any) -> Subject:
    fields: dict[str, Any] = {
        "subject_id": subject_id,
        "kind": SubjectKind.PRODUCT if subject_id.startswith("PRD") else SubjectKind.MATERIAL,
        "category": "furniture-office" if subject_id.startswith("PRD") else "organic-food",
        "quantity": Decimal(500),
        "unit": "kg",
        "available_from_ms": NOW_MS,
        "expires_ms": None,
        "location": MUNICH,
        "state": SubjectState.AVAILABLE,
    }
    return Subject(**{**fields, **changes})


def answer_of(status: int, value: Any = None, headers: Mapping[str, str] | None = None) -> PeerAnswer:
    return PeerAnswer(status, CIMultiDict(headers or {}), b"" if value is None else dump_json(value), 1)


def refusal_answer(refusal: Refusal) -> PeerAnswer:
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return answer_of(refusal.status, refusal.envelope(), headers)


def refuse(status: int, reason: str, retry_after_s: int | None = None) -> PeerAnswer:
    """What a peer answers that does not take a request."""
    return refusal_answer(Refusal(status, reason, "no", retry_after_s=retry_after_s))


@dataclass(frozen=True)
class Call:
    """One request on the network, as it was sent."""

    sender: str
    target: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass
class Network:
    """Who can be reached, and what happens on the way.

    `down` cities answer nothing, `cut` pairs (sender, target) cannot speak. `loss` is the share of requests that get
    lost, half of them on the way back. `answering` may answer in a city's place.
    """

    cities: dict[str, "City"] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    cut: set[tuple[str, str]] = field(default_factory=set)
    loss: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    answering: Answering | None = None
    calls: list[Call] = field(default_factory=list)
    # Whether WebSockets are carried; those that are open, with both ends' cities.
    websockets: bool = False
    wires: list[tuple[str, str, End, End]] = field(default_factory=list)
    taking: set[asyncio.Task[None]] = field(default_factory=set)

    def connect(self, sender: str, target: str) -> End:
        """The sender's end of a WebSocket to a city."""
        city = self.cities.get(target)
        if not self.websockets or city is None or target in self.down or (sender, target) in self.cut:
            raise DialError(DialFailure.CONNECT, f"{target}: no connection")
        dialled, taken = wire()
        self.wires.append((sender, target, dialled, taken))
        task = asyncio.create_task(city.federation.links.accept(taken))
        self.taking.add(task)
        task.add_done_callback(self.taking.discard)
        return dialled

    def mute_wires(self, *cities: str) -> None:
        """Lose from now on what goes over the open WebSockets between two of these cities; neither end notices."""
        for sender, target, dialled, taken in self.wires:
            if {sender, target} <= set(cities):
                dialled.mute = taken.mute = True

    async def cut_wires(self, *cities: str) -> None:
        """Break every WebSocket between two of these cities, without a word to either."""
        for sender, target, dialled, taken in self.wires:
            if {sender, target} <= set(cities):
                await dialled.close()
                await taken.close()

    def to(self, target: str, path: str, method: str | None = None) -> list[Call]:
        """The calls of a city for a path, as `/node/info`."""
        full = API_ROOT + path
        return [c for c in self.calls if c.target == target and c.path == full and method in (None, c.method)]

    async def carry(
        self, sender: str, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> PeerAnswer:
        parts = urlsplit(url)
        target = parts.hostname or ""
        self.calls.append(Call(sender, target, method, parts.path, CIMultiDict(headers), body))
        await asyncio.sleep(0)
        fate = self.chance.random()
        if fate < self.loss / 2:
            raise DialError(DialFailure.TIMEOUT, f"{target}: lost on the way there")
        answer = await self.answering(target, method, parts.path) if self.answering is not None else None
        if answer is None:
            city = self.cities.get(target)
            if city is None or target in self.down or (sender, target) in self.cut:
                raise DialError(DialFailure.CONNECT, f"{target}: no connection")
            answer = await city.serve(method, parts.path, CIMultiDict(headers), body)
        if fate < self.loss:
            raise DialError(DialFailure.TIMEOUT, f"{target}: lost on the way back")
        return answer


class NetworkClient:
    """What a city's federation has for a PeerClient."""

    def __init__(self, network: Network, node_id: str) -> None:
        self._network = network
        self._node_id = node_id

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        trusted: bool,
        timeout_s: float,
        max_answer_bytes: int,
    ) -> PeerAnswer:
        answer = await self._network.carry(self._node_id, method, url, headers, body)
        if len(answer.body) > max_answer_bytes:
            raise DialError(DialFailure.TOO_LARGE, "too large")
        return answer

    async def open_websocket(self, url: str, **bounds: Any) -> End:
        return self._network.connect(self._node_id, urlsplit(url).hostname or "")


class City:
    """One node. `open()` takes its database up again after `crash()`; `start()` begins its work in the background."""

    def __init__(
        self,
        network: Network,
        directory: Path,
        clock: ManualClock,
        identity: Identity,
        settings: FederationSettings | None = None,
    ) -> None:
        self.network = network
        self.clock = clock
        self.identity = identity
        self.settings = settings or FederationSettings(admission="open", radius_km=None)
        self.subjects: dict[str, Subject] = {}
        self.decisions: Counter[str] = Counter()
        self.answered: list[tuple[str, int, str]] = []
        self.offers: list[bytes] = []
        self.contacted: list[str] = []
        # Requests that came over a link.
        self.carried: list[frames.Request] = []
        self.told: list[HeardSubject] = []
        self.working = False
        self.directory = directory
        network.cities[identity.node_id] = self

    @property
    def node_id(self) -> str:
        return self.identity.node_id

    async def open(self, *, started: bool = True) -> None:
        path = self.directory / f"{self.node_id}.db"
        opening = Database.open if path.exists() else Database.create
        self.database = await opening(path, FAST_DATABASE, self.clock)
        self.audit = AuditLog(self.clock)
        client = cast(PeerClient, NetworkClient(self.network, self.node_id))
        self.federation = Federation(
            self.identity,
            self.settings,
            self.database,
            client,
            self.audit,
            EventLog(self.clock),
            self.clock,
            random.Random(7),
            random.Random(self.node_id).randbytes,
            heard=lambda tx, subject: self.told.append(subject),
        )
        nouns = (
            NodeRoutes(self.identity, NODE_INFO_CAPABILITIES, self._statistics, {}),
            FederationRoutes(self.identity, self.federation, self.database, self.clock),
            FederateAnnounceRoutes(self.federation.flooding),
            KeyStatementRoutes(
                self.federation.key_statements, self.federation.authenticator, self.federation.misbehaviour
            ),
        )
        self._routes = {(route.method, route.path): route for noun in nouns for route in noun.routes()}
        if started:
            await self.start()

    async def start(self) -> None:
        self.working = True
        await self.federation.start(
            Modules(
                lambda tx, subject_id: self.subjects.get(subject_id),
                lambda tx, reference, status, reason: self.answered.append((reference, status, reason)),
                self._was_contacted,
                lambda reason: self.decisions.update((reason,)),
                self._serve_carried,
            )
        )

    async def crash(self) -> None:
        """Lose everything but the database file."""
        self.network.down.add(self.node_id)
        self.working = False
        await self.federation.stop()
        await self.database.close()

    async def come_back(self) -> None:
        await self.open()
        self.network.down.discard(self.node_id)

    async def _statistics(self) -> dict[str, int]:
        return {"materials_active": len(self.subjects)}

    async def _was_contacted(self, node: KnownNode, requests: NodeRequests) -> None:
        self.contacted.append(node.node_id)

    # What others ask of it

    async def serve(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> PeerAnswer:
        """One request as the API would answer it."""
        request = None
        try:
            if path == OFFER_PATH:
                return await self._take_offer(method, path, headers, body or b"")
            route = self._routes[method, path]
            request = Request(
                id="1",
                method=method,
                target=path,
                path=path,
                parameters={},
                query={},
                headers=headers,
                client="",
                body=body or b"",
            )
            if route.access is Access.NODE:
                request.caller = await self.federation.authenticator.authenticate(method, path, headers, request.body)
            answer = await route.handler(request)
        except Refusal as refusal:
            if request is not None and request.caller is not None and request.caller.verified:
                self.federation.misbehaviour.refused(request.caller.node_id, refusal.reason)
            return refusal_answer(refusal)
        return PeerAnswer(answer.status, CIMultiDict(answer.headers), answer.body, 1)

    async def _serve_carried(self, peer: str, sent: frames.Request) -> frames.Response:
        """A request that came over a link."""
        self.carried.append(sent)
        answer = await self.serve(sent.method, sent.path, CIMultiDict(sent.headers), sent.body)
        return frames.Response(
            sent.number, answer.status, tuple((str(k), v) for k, v in answer.headers.items()), answer.body
        )

    async def _take_offer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> PeerAnswer:
        caller = await self.federation.authenticator.authenticate(method, path, headers, body)
        now_ms = self.clock.now_ms()
        number = await self.database.write(
            lambda tx: replay.accept_once(tx, caller, now_ms, lambda tx: self.offers.append(body))
        )
        return answer_of(202, {"status": "accepted", "id": number})

    # What tests do with it

    async def announce(self, subject: Subject) -> bytes:
        """Register or change a record, and announce it."""
        self.subjects[subject.subject_id] = subject
        number = await self.database.write(lambda tx: self.federation.announcer.announce(tx, subject))
        if number is None:
            raise AssertionError("nothing was announced")
        return number

    async def request(self, target: str, body: bytes, reference: str, valid_ms: int = DAY_MS) -> None:
        """Queue a request for one node."""
        ends_ms = self.clock.now_ms() + valid_ms
        await self.database.write(
            lambda tx: self.federation.outbox.enqueue(tx, target, OFFER_PATH, body, ends_ms, reference)
        )

    async def admit(self, other: Identity, **changes: Any) -> None:
        """Make another node a peer, as a handshake would have."""
        admission = admission_of(other, **changes)
        await self.database.write(lambda tx: nodes.admit(tx, admission, self.clock.now_ms()))
        if self.working:
            self.federation._admitted(other.node_id)

    def find(self, node_id: str) -> KnownNode | None:
        return nodes.find(self.database.points, node_id)

    def heard(self) -> list[dict[str, Any]]:
        rows = self.database.points.all("SELECT * FROM heard ORDER BY heard_number")
        return [dict(row) for row in rows]

    def heard_subjects(self) -> set[str]:
        return {row["subject"] for row in self.heard()}

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
        return [dict(row) for row in self.database.points.all(sql, tuple(parameters))]

    async def peer(self, node_id: str) -> dict[str, Any]:
        """A node as the operator sees it."""
        return next(entry for entry in await self.federation.peer_list() if entry["id"] == node_id)

    def health(self, node_id: str) -> str | None:
        health = self.federation.health_of(node_id)
        return None if health is None else health.state.value

    def look(self) -> None:
        """Let every worker look at the clock, which its sleep does not."""
        if self.working:
            self.federation.watch.wake()
            self.federation.workers.wake_all()


def admission_of(other: Identity, **changes: Any) -> Admission:
    fields: dict[str, Any] = {
        "node_id": other.node_id,
        "standing": Standing.PEER,
        "auth": PeerAuth.SIGNED,
        "added_by": AddedBy.HANDSHAKE,
        "name": other.name,
        "endpoint": other.endpoint,
        "public_key": other.key.public.raw,
        "location": other.location,
        "features": frozenset(FEATURES),
        "handshake_at_ms": 0,
    }
    return Admission(**{**fields, **changes})


async def befriend(a: City, b: City) -> None:
    """Make two cities peers of each other."""
    await a.admit(b.identity)
    await b.admit(a.identity)


async def eventually(condition: Callable[[], Any], *cities: City, step_ms: int = 0, timeout_s: float = 5.0) -> None:
    """Wait until the condition holds; with `step_ms`, time passes at the cities' clock meanwhile."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            if step_ms and cities:
                await let_pass(step_ms, *cities)
            await asyncio.sleep(0.002)


async def let_pass(ms: int, *cities: City) -> None:
    """Let time pass at the cities' clock, in steps that nobody takes for a stall of its own."""
    while ms > 0:
        cities[0].clock.advance(min(ms, SMOOTH_STEP_MS))
        ms -= SMOOTH_STEP_MS
        for city in cities:
            city.look()
        # A frame and its answer pass through some tasks at both ends.
        for _ in range(WIRE_TURNS if cities[0].network.websockets else 1):
            await asyncio.sleep(0)


async def rest(*cities: City, rounds: int = 15) -> None:
    """Give what is under way time to end, without the clock moving."""
    for _ in range(rounds):
        for city in cities:
            city.look()
        await asyncio.sleep(0.002)


@asynccontextmanager
async def federation_of(
    directory: Path, *identities: Identity, settings: FederationSettings | None = None, started: bool = True
) -> AsyncIterator[list[City]]:
    """Cities on one network with one clock; nobody knows anybody yet."""
    network, clock = Network(), ManualClock(NOW_MS)
    cities = [City(network, directory, clock, identity, settings) for identity in identities]
    opened: list[City] = []
    try:
        for city in cities:
            await city.open(started=started)
            opened.append(city)
        yield cities
    finally:
        for city in opened:
            await city.federation.stop()
            await city.database.close()


# What a peer sends, made by hand


@dataclass(frozen=True)
class Message:
    """An announcement as its origin made it."""

    origin: Identity
    body: bytes
    timestamp: str
    signature: str
    seed: bytes

    def hop_headers(self, ttl: int) -> dict[str, str]:
        """The five X-Loop headers of a copy with that TTL."""
        value = self.seed
        for _ in range(3 - ttl):
            value = sha256(value).digest()
        return {
            X_LOOP_ORIGIN: self.origin.node_id,
            X_LOOP_ORIGIN_TIMESTAMP: self.timestamp,
            X_LOOP_ORIGIN_SIGNATURE: self.signature,
            X_LOOP_TTL: str(ttl),
            X_LOOP_HOP: value.hex(),
        }


def message_of(
    origin: Identity,
    subject: Subject | None = None,
    *,
    revision: int = 1,
    now_ms: int = NOW_MS,
    valid_ms: int = DAY_MS,
    radius_km: float | None = None,
    signer: NodeKey | None = None,
) -> Message:
    """An announcement in the full form, signed by the origin or by `signer` in its name."""
    seed = sha256(f"{origin.node_id} {revision} {now_ms} {subject}".encode()).digest()
    body = build_announcement(
        subject or subject_of(),
        context_url=CONTEXT,
        origin=origin.node_id,
        origin_location=origin.location,
        revision=revision,
        issued_at_ms=now_ms,
        valid_until_ms=now_ms + valid_ms,
        radius_km=radius_km,
        hop_anchor=hop_anchor(seed, 3),
    )
    timestamp = format_timestamp(now_ms)
    signature = (signer or origin.key).sign(announcement_signing_string(origin.node_id, timestamp, body))
    return Message(origin, body, timestamp, encode_signature(signature), seed)


def plain_body(subject: str, origin: str = "vienna.loop") -> bytes:
    """What another LOOP node announces: nothing but the fields of §8.2."""
    return dump_json(
        {
            "@context": CONTEXT,
            "@type": "MaterialAnnouncement",
            "schema_version": "0.2.0",
            "material": subject,
            "origin": origin,
            "available": True,
        }
    )


def signed_headers(
    sender: Identity,
    path: str,
    body: bytes,
    now_ms: int = NOW_MS,
    target: str | None = None,
    key: NodeKey | None = None,
    method: str = "POST",
) -> CIMultiDict[str]:
    """A sender's own headers; `target` None leaves X-Node-Target out."""
    timestamp = format_timestamp(now_ms)
    signed = request_signing_string(method, path, sender.node_id, timestamp, target, body)
    headers = CIMultiDict(
        {
            X_NODE_ID: sender.node_id,
            X_TIMESTAMP: timestamp,
            X_NODE_SIGNATURE: encode_signature((key or sender.key).sign(signed)),
        }
    )
    if target is not None:
        headers[X_NODE_TARGET] = target
    return headers


async def send_copy(to: City, sender: Identity, message: Message, ttl: int | None, **headers: str | None) -> PeerAnswer:
    """Hand a copy to a city as the sender would; `ttl` None is the short form. `headers` replace, None takes away."""
    sent = signed_headers(sender, ANNOUNCE_PATH, message.body, to.clock.now_ms(), None if ttl is None else to.node_id)
    if ttl is not None:
        sent.update(message.hop_headers(ttl))
    for name, value in headers.items():
        sent.popall(name.replace("_", "-"), None)
        if value is not None:
            sent[name.replace("_", "-")] = value
    return await to.serve("POST", ANNOUNCE_PATH, sent, message.body)


def reason_of(answer: PeerAnswer) -> str:
    return str(json.loads(answer.body)["error"]["details"]["reason"])


def value_of(answer: PeerAnswer) -> Any:
    return read_json(answer.body)


def caller_of(node: KnownNode, text: str = "", verified: bool = True) -> NodeCaller:
    """A caller whose requests are told apart by `text`."""
    return NodeCaller(node, verified, format_timestamp(NOW_MS), "", None, sha256(text.encode()).digest())
