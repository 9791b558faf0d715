"""Handshakes: how two nodes become peers (§9.1, §9.2).

The dialer reads the other's NodeInfo over TLS, pins the key and location it finds there, and sends a NodeHandshake
signed with its own key, which stands in the body. Who receives one decides by the admission mode. Both sides are peers
when it was accepted. See docs/protocol-notes.md, Peers.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.writer import Tx
from loopd.federation import choices, key_store, nodes
from loopd.federation.authentication import NodeHeaders
from loopd.federation.nodes import AddedBy, Admission, HandshakeClaim, NodeRecord
from loopd.federation.requests import Destination, NodeRequests, normalise_endpoint, refusal_reason
from loopd.federation.settings import FederationSettings
from loopd.gossip.topology import inbound_room
from loopd.identity import FEATURES, Identity
from loopd.net.http_client import CallbackGate, DialError, DialFailure
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Conflict, Invalid, Refusal, Unauthorized
from loopd.protocol.geo import Location
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import REQUEST_CLOCK_TOLERANCE_MS
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.protocol.vocabulary import Feature

log = structlog.get_logger(__name__)

HANDSHAKE_PATH = "/federation/handshake"
NODE_INFO_PATH = "/node/info"


class HandshakeFailed(Exception):
    """A handshake this node began came to nothing; the text says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver of a handshake decides; `message` is at most 280 characters."""

    status: Literal["accepted", "rejected"]
    message: str


class Verdict(StrEnum):
    """What the admission rules say of a handshake that is signed rightly."""

    ACCEPT = "accept"
    CALL_BACK = "call_back"
    WAIT = "wait"


def admission_verdict(record: NodeRecord | None, signed: bool, mode: Literal["manual", "verified", "open"]) -> Verdict:
    """Who becomes a peer by asking. What the operator added is accepted; a node without a key always waits for him.

    A node that this one asked before, by its own choice, gives its answer by asking back: it is accepted too.
    So does who shows a key for a peer that was admitted without one: nothing says that it is the same.
    """
    if record is not None and record.known.standing is Standing.PEER:
        return Verdict.ACCEPT if record.pinned else Verdict.WAIT
    if record is not None and record.is_wanted and record.pinned and signed:
        return Verdict.ACCEPT
    if not signed or mode == "manual":
        return Verdict.WAIT
    return Verdict.CALL_BACK if mode == "verified" else Verdict.ACCEPT


@dataclass(frozen=True, slots=True)
class NodeCard:
    """What a NodeInfo says, as far as a handshake needs it."""

    node_id: str
    name: str
    endpoint: str
    public_key: PublicKey | None
    location: Location


def read_node_info(body: bytes) -> NodeCard:
    """The card of a NodeInfo document. Invalid where it is none."""
    value = check_document(body, "NodeInfo").value
    place = value["location"]
    return NodeCard(
        value["id"],
        value["name"],
        value["endpoint"],
        _public_key(value.get("public_key"), "/public_key"),
        Location(float(place["lat"]), float(place["lon"])),
    )


class Handshakes:
    """Both ends of a handshake. `admitted` is called after the commit with the id of each node that became a peer.

    `keeps_places`: some of the places for peers are for those that this node chooses itself.
    """

    def __init__(
        self,
        identity: Identity,
        settings: FederationSettings,
        requests: NodeRequests,
        gate: CallbackGate,
        audit: AuditLog,
        clock: Clock,
        admitted: Callable[[str], None],
        *,
        keeps_places: bool = False,
    ) -> None:
        self._identity = identity
        self._settings = settings
        without = set() if settings.links == "auto" else {Feature.LINK}
        self._features = [feature for feature in FEATURES if feature not in without]
        self._requests = requests
        self._gate = gate
        self._audit = audit
        self._clock = clock
        self._admitted = admitted
        self._keeps_places = keeps_places
        self._under_way: dict[str, asyncio.Event] = {}

    def check(self, path: str, headers: Mapping[str, str], body: bytes) -> HandshakeClaim:
        """The claim of a received handshake whose signature, where it has a key, held. Refusal otherwise."""
        value = check_document(body, "NodeHandshake").value
        node_id = str(value["node_id"])
        if node_id == self._identity.node_id:
            raise Conflict("own_node", "a node does not shake hands with itself")
        key = _public_key(value.get("public_key"), "/public_key")
        if key is not None:
            self._check_signature(path, headers, body, node_id, key)
        try:
            endpoint = normalise_endpoint(value["endpoint"])
        except ValueError as error:
            raise Invalid("bad_endpoint", str(error), {"pointer": "/endpoint"}) from error
        made_at_ms = parse_timestamp(value["timestamp"])
        if made_at_ms - self._clock.now_ms() > REQUEST_CLOCK_TOLERANCE_MS:
            # Nothing would be newer than it until then.
            raise Unauthorized("clock_skew", "the handshake's timestamp lies ahead of this node's clock",
                               {"server_time": format_timestamp(self._clock.now_ms())})  # fmt: skip
        return HandshakeClaim(
            node_id,
            value["name"],
            endpoint,
            None if key is None else key.raw,
            frozenset(value["capabilities"]),
            made_at_ms,
            self._clock.now_ms(),
        )

    def _check_signature(
        self, path: str, headers: Mapping[str, str], body: bytes, node_id: str, key: PublicKey
    ) -> None:
        sent = NodeHeaders.read(headers)
        sent.check_time(self._clock.now_ms())
        if sent.node_id != node_id:
            raise Invalid("origin_mismatch", "X-Node-ID and the document name different nodes")
        sent.verify("POST", path, body, key)
        sent.check_target(self._identity.node_id)

    async def verify_endpoint(self, claim: HandshakeClaim) -> Location:
        """Call back the endpoint that a stranger claims. HandshakeFailed unless it shows the same id and key.

        Refusal 429 where its host was called too often.
        """
        with self._gate.call(urlsplit(claim.endpoint).hostname or ""):
            try:
                answer = await self._requests.get(Destination(claim.endpoint, None, False), NODE_INFO_PATH)
                card = read_node_info(answer.body)
            except (DialError, Refusal) as error:
                # A stranger who learned what the call met could look around in this node's network.
                log.info("endpoint_not_verified", node=claim.node_id, endpoint=claim.endpoint, error=str(error))
                raise HandshakeFailed(_why_unasked(error)) from error
        if card.node_id != claim.node_id or card.public_key is None or card.public_key.raw != claim.public_key:
            raise HandshakeFailed("the endpoint shows another id or key")
        return card.location

    def decide(self, tx: Tx, claim: HandshakeClaim, called_back: Location | None) -> Answer | Verdict:
        """Carry out what a checked handshake brings. `Verdict.CALL_BACK`: ask the endpoint, then come again."""
        record = nodes.find_record(tx, claim.node_id)
        waiting = nodes.find_claim(tx, claim.node_id)
        if claim.public_key is not None and key_store.is_revoked(tx, claim.public_key):
            raise Unauthorized("revoked_key", "that key was revoked")
        self._refuse_other_key(record, waiting, claim)
        if record is not None and record.known.standing is Standing.SUSPENDED:
            return Answer("rejected", "suspended by the operator")
        if record is not None and claim.handshake_at_ms <= record.handshake_at_ms:
            return _standing_answer(record)
        is_peer = record is not None and record.known.standing is Standing.PEER
        if is_peer and claim.public_key is None:
            return Answer("accepted", "known; what is not signed changes nothing")
        verdict = admission_verdict(record, claim.public_key is not None, self._settings.admission)
        if verdict is Verdict.CALL_BACK and called_back is None:
            return verdict
        if verdict is Verdict.WAIT:
            return self._wait(tx, waiting, claim)
        if not is_peer and not self._has_room(tx, record):
            return Answer("rejected", "this node has as many peers as it admits")
        self.admit(tx, claim, AddedBy.HANDSHAKE, called_back)
        return Answer("accepted", "welcome")

    def _has_room(self, tx: Tx, record: NodeRecord | None) -> bool:
        """Whether one more may become a peer by asking: a stranger takes no place of this node's own choice."""
        most = self._settings.max_peers
        if not self._keeps_places or (record is not None and record.is_wanted):
            return nodes.count(tx, Standing.PEER) < most
        peers = choices.current_peers(tx.all(choices.CHOSEN), lambda node_id: None)
        return inbound_room(peers, most, self._settings.mix) > 0

    def admit(
        self,
        tx: Tx,
        claim: HandshakeClaim,
        added_by: AddedBy,
        location: Location | None,
        auth: PeerAuth = PeerAuth.SIGNED,
    ) -> None:
        """Make the claimant a peer, with its audit entry."""
        record = nodes.find_record(tx, claim.node_id)
        if record is not None and claim.public_key is None:
            auth = record.known.auth
        nodes.admit(
            tx,
            Admission(
                claim.node_id,
                Standing.PEER,
                auth,
                added_by,
                claim.name,
                claim.endpoint,
                claim.public_key,
                location,
                claim.features,
                claim.handshake_at_ms,
            ),
            self._clock.now_ms(),
        )
        self._record(tx, claim.node_id, "admitted", claim.endpoint, claim.public_key)
        tx.after_commit(lambda: self._admitted(claim.node_id))

    def _wait(self, tx: Tx, waiting: HandshakeClaim | None, claim: HandshakeClaim) -> Answer:
        if waiting is None and nodes.count_claims(tx) >= self._settings.max_pending_peers:
            return Answer("rejected", "too many nodes wait for the operator's approval")
        # Anybody can send an unsigned one in another's name; it must not stand in the way of that node's own.
        signed_at_last = waiting is not None and waiting.public_key is None and claim.public_key is not None
        if waiting is None or signed_at_last or claim.handshake_at_ms > waiting.handshake_at_ms:
            nodes.record_claim(tx, claim)
        if waiting is None:
            self._record(tx, claim.node_id, "handshake_waits", claim.endpoint, claim.public_key)
        return Answer("rejected", "pending: waits for the operator's approval")

    @staticmethod
    def _refuse_other_key(record: NodeRecord | None, waiting: HandshakeClaim | None, claim: HandshakeClaim) -> None:
        pinned = record.known.public_key if record is not None and record.pinned else None
        if pinned is None and waiting is not None:
            pinned = waiting.public_key
        if pinned is not None and pinned != claim.public_key:
            raise Unauthorized("bad_signature", "this node id is pinned to another key here")

    @asynccontextmanager
    async def shaking(
        self, to: Destination, auth: PeerAuth, pinned_key: bytes | None = None
    ) -> AsyncIterator[tuple[Admission, Answer]]:
        """Begin a handshake: read the other's NodeInfo, send ours. What it establishes, and what the other said.

        HandshakeFailed where the other cannot be asked, answers with something else, or shows another key than the
        pinned one. Who writes down what it establishes does so inside the block: see `settled`.
        """
        card = await self.read_card(to)
        if card.node_id == self._identity.node_id:
            raise HandshakeFailed("that address is this node itself")
        if to.target is not None and card.node_id != to.target:
            raise HandshakeFailed(f"expected {to.target} there, found {card.node_id}")
        if card.public_key is None and auth is PeerAuth.SIGNED:
            raise HandshakeFailed(f"{card.node_id} shows no key; only `--auth unsigned-lab` admits such a node")
        shown_key = None if card.public_key is None else card.public_key.raw
        if pinned_key is not None and shown_key != pinned_key:
            raise HandshakeFailed(f"{card.node_id} shows another key than the pinned one")
        done = self._under_way[card.node_id] = asyncio.Event()
        try:
            destination = Destination(to.endpoint, card.node_id, to.named_by_operator)
            response = await self._send_handshake(destination, self._clock.now_ms())
            admission = Admission(
                card.node_id,
                Standing.PEER if response["status"] == "accepted" else Standing.PENDING,
                auth,
                AddedBy.OPERATOR if to.named_by_operator else AddedBy.HANDSHAKE,
                card.name,
                to.endpoint,
                shown_key,
                card.location,
                frozenset(response["capabilities"]),
                0,  # their newest handshake to us, of which this is none
                to.named_by_operator,
            )
            yield admission, Answer(response["status"], response.get("message", ""))
        finally:
            done.set()
            if self._under_way.get(card.node_id) is done:
                del self._under_way[card.node_id]

    async def settled(self, node_id: str) -> None:
        """Wait for a handshake with that node that this one has begun, as long as a request may take.

        The other side counts this node as a peer, and may speak to it, before this one has read its answer.
        """
        done = self._under_way.get(node_id)
        if done is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.request_timeout_s):
                    await done.wait()

    async def read_card(self, to: Destination) -> NodeCard:
        """The NodeInfo of a node. HandshakeFailed where there is none."""
        try:
            answer = await self._requests.get(to, NODE_INFO_PATH)
            if answer.status != 200:
                raise HandshakeFailed(f"{to.endpoint} answers NodeInfo with {answer.status}")
            return read_node_info(answer.body)
        except (DialError, Refusal) as error:
            raise HandshakeFailed(f"{to.endpoint} shows no NodeInfo: {error}") from error

    async def _send_handshake(self, to: Destination, now_ms: int) -> dict[str, Any]:
        identity = self._identity
        body = dump_json(
            {
                "@context": identity.context_url,
                "@type": "NodeHandshake",
                "schema_version": "0.2.0",
                "node_id": identity.node_id,
                "name": identity.name,
                "endpoint": identity.endpoint,
                "capabilities": self._features,
                "public_key": identity.key.public.to_pem(),
                "timestamp": format_timestamp(now_ms),
            }
        )
        try:
            answer = await self._requests.post(to, HANDSHAKE_PATH, body)
            if answer.status != 202:
                raise HandshakeFailed(
                    f"the handshake was answered with {answer.status} {refusal_reason(answer)}".rstrip()
                )
            response: dict[str, Any] = check_document(answer.body, "NodeHandshakeResponse").value
        except (DialError, Refusal) as error:
            raise HandshakeFailed(f"the handshake was not answered: {error}") from error
        if response["peer_id"] != to.target:
            raise HandshakeFailed(f"the handshake was answered by {response['peer_id']}")
        return response

    def response(self, answer: Answer) -> dict[str, Any]:
        """The NodeHandshakeResponse of a decision."""
        return {
            "@context": self._identity.context_url,
            "@type": "NodeHandshakeResponse",
            "schema_version": "0.2.0",
            "status": answer.status,
            "peer_id": self._identity.node_id,
            "capabilities": self._features,
            "received_at": format_timestamp(self._clock.now_ms()),
            "lab_only": True,
            "message": answer.message,
        }

    def establish(self, tx: Tx, admission: Admission) -> None:
        """Write what a handshake begun here established; a waiting claim of the same node is settled by it.

        HandshakeFailed where the other shows a revoked key.
        """
        if admission.public_key is not None and key_store.is_revoked(tx, admission.public_key):
            raise HandshakeFailed(f"{admission.node_id} shows a key that was revoked")
        nodes.admit(tx, admission, self._clock.now_ms())
        if admission.standing is Standing.PENDING:
            nodes.owe_handshake(tx, admission.node_id, owed=True)
        self._record(tx, admission.node_id, admission.standing.value, admission.endpoint, admission.public_key)
        tx.after_commit(lambda: self._admitted(admission.node_id))

    def _record(self, tx: Tx, node_id: str, event: str, endpoint: str, public_key: bytes | None) -> None:
        fingerprint = None if public_key is None else PublicKey(public_key).fingerprint
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            node_id,
            {"event": event, "endpoint": endpoint, "fingerprint": fingerprint},
        )
        log.info("handshake", node=node_id, outcome=event, endpoint=endpoint, fingerprint=fingerprint)


def _why_unasked(error: Exception) -> str:
    """What a stranger is told of a call to his endpoint: this node's rule where that forbade it, else nothing more."""
    if isinstance(error, DialError) and error.kind is DialFailure.REFUSED_ADDRESS:
        return "the endpoint lies in a network that this node does not call"
    return "the endpoint could not be asked"


def _standing_answer(record: NodeRecord) -> Answer:
    if record.known.standing is Standing.PEER:
        return Answer("accepted", "no newer than the last handshake")
    return Answer("rejected", "pending: no newer than the last handshake")


def _public_key(pem: str | None, pointer: str) -> PublicKey | None:
    if pem is None:
        return None
    try:
        return PublicKey.from_pem(pem)
    except ValueError as error:
        raise Invalid("bad_public_key", f"the public key is no Ed25519 SubjectPublicKeyInfo in PEM: {error}",
                      {"pointer": pointer}) from error  # fmt: skip
