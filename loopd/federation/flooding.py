"""Announcements that come in: checked, decided by the engine, delivered and relayed in one transaction (§9.3).

The way of a copy: the sender's headers (already verified), the document, the origin's key and signature, then the
engine's decision inside the writer's transaction together with everything it changes. The answer follows the commit.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import PublicKey, decode_signature
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation import explain, heard, key_store, messages, nodes, replay
from loopd.federation.authentication import NodeCaller
from loopd.federation.door import Door
from loopd.federation.heard import HeardHook, nobody_listens
from loopd.federation.introductions import Introductions, can_be_asked
from loopd.federation.messages import Message
from loopd.federation.misbehaviour import Misbehaviour
from loopd.federation.nodes import AddedBy, Introduction
from loopd.federation.outbox import Outbox
from loopd.federation.settings import FederationSettings
from loopd.gossip.flood import Copy, Decision, HopState, Newest, Reason, View, decide, read_hop_headers
from loopd.gossip.reputation import Conduct
from loopd.gossip.share import within_share
from loopd.identity import Identity
from loopd.net.http_client import DialError
from loopd.protocol.announcement import TYPE, read_announcement
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Forbidden, Invalid, Refusal, Unauthorized, Unavailable
from loopd.protocol.ids import is_node_id
from loopd.protocol.nodes import KnownNode, Standing
from loopd.protocol.signing import (
    X_LOOP_HOP,
    X_LOOP_ORIGIN,
    X_LOOP_ORIGIN_SIGNATURE,
    X_LOOP_ORIGIN_TIMESTAMP,
    X_LOOP_TTL,
    announcement_signing_string,
    message_id,
    read_utc_timestamp,
)

log = structlog.get_logger(__name__)

# One question: on the loop each costs more than all that is looked up for it.
_LOOK = """
SELECT (SELECT number FROM node_request WHERE digest = :digest) AS accepted_as,
       m.best_ttl, m.hop_value, h.revision, h.issued_at_ms, h.message_id, h.verified
FROM (SELECT 1) LEFT JOIN message m ON m.message_id = :message_id
LEFT JOIN heard h ON h.origin = :origin AND h.subject = :subject
"""

KEY_CONFLICT = "key_conflict"
# Messages that wait because two peers disagree about their origin's key; beyond it a further one is refused for now.
HELD_MESSAGES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Received:
    """One copy as it was sent: the engine's view of it, and the texts and bytes that are stored and passed on."""

    copy: Copy
    body: bytes
    origin_timestamp: str
    origin_signature: str
    # The sender's own headers stand for the origin's, and were verified with the request.
    short_form: bool
    # Whether the origin's signature holds for others too: one that names its receiver does not.
    relayable: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """What is stored that bears on a copy; `accepted_as` is the number of the request, if this is its repeat."""

    view: View
    accepted_as: int | None


@dataclass(frozen=True, slots=True)
class Proof:
    """The raw key that an origin is held to, its signature having held; None where it has none left.

    It held under that key, or one that the origin had before. `introduction` where it is to be pinned with the message.
    """

    key: bytes | None
    introduction: Introduction | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a copy came to, before the transaction.

    `signature_holds` is False where nothing was to rest on it. `disputed`: peers introduce different keys for the
    origin, and the message is to wait.
    """

    signature_holds: bool
    proof: Proof | None = None
    disputed: bool = False


class Flooding:
    """Takes announcements from peers.

    `decided` counts each decision by its reason; `came_by_request` is told of each message of which a copy was decided
    on that came by a request; `heard` of each subject whose newest state was delivered, in that transaction.
    """

    def __init__(
        self,
        identity: Identity,
        settings: FederationSettings,
        database: Database,
        introductions: Introductions,
        outbox: Outbox,
        audit: AuditLog,
        clock: Clock,
        decided: Callable[[str], None],
        came_by_request: Callable[[bytes], None] = lambda message_id: None,
        *,
        misbehaviour: Misbehaviour,
        heard: HeardHook = nobody_listens,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._database = database
        self._introductions = introductions
        self._outbox = outbox
        self._audit = audit
        self._clock = clock
        self._decided = decided
        self._came_by_request = came_by_request
        self._misbehaviour = misbehaviour
        self._heard = heard
        self._door = Door()

    async def receive(self, caller: NodeCaller, headers: Mapping[str, str], body: bytes) -> int:
        """Take one announcement; the number under which it was accepted, after its commit.

        Invalid `bad_hop`, `origin_mismatch`, `bad_times` or what the document is refused for; Unauthorized
        `bad_origin_signature`; Forbidden `not_a_peer`; Unavailable where the origin's key cannot be had now. Each is
        counted by its reason, as what is accepted is.
        """
        received: Received | None = None
        try:
            if caller.node.standing is not Standing.PEER:
                raise Forbidden("not_a_peer", "only peers announce; a handshake comes first")
            async with self.turn(caller.node_id, len(body)):
                received = read_copy(caller, headers, body)
                return await self._receive(caller, received)
        except Refusal as refusal:
            copy = None if received is None or not caller.verified else received.copy
            self._refused(caller.node_id, refusal, copy)
            raise

    def turn(self, node_id: str, size_bytes: int) -> AbstractAsyncContextManager[None]:
        """A peer's turn to have so much of what it sent worked on. Refusal 429 `over_share` beyond its bound."""
        greylisted = self._misbehaviour.conduct(node_id) is not Conduct.CLEAR
        return self._door.turn(node_id, size_bytes, last=greylisted)

    async def _receive(self, caller: NodeCaller, received: Received) -> int:
        look = self._look(self._database.points, received, caller.replay_digest)
        if look.accepted_as is not None:
            return look.accepted_as
        foreseen = decide(received.copy, look.view, self._clock.now_ms())
        checked = await self._check(caller.node, received, foreseen, sender_verified=caller.verified)
        now_ms = self._clock.now_ms()

        def effect(tx: Tx) -> None:
            self.take(tx, caller.node, received, checked, now_ms)

        number = await self._database.write(lambda tx: replay.accept_once(tx, caller, now_ms, effect))
        self._came_by_request(received.copy.message_id)
        return number

    async def check(self, sender: KnownNode, received: Received) -> Checked:
        """Look at a copy that a peer sent over a link, before the transaction. Refusal as in `receive`."""
        foreseen = self._decide(self._database.points, received, self._clock.now_ms())
        return await self._check(sender, received, foreseen, sender_verified=True)

    async def _check(
        self, sender: KnownNode, received: Received, foreseen: Decision, *, sender_verified: bool
    ) -> Checked:
        if foreseen.held is None:
            # Nothing would rest on the origin's signature.
            return Checked(signature_holds=False)
        if received.short_form or not sender_verified:
            # The sender's own headers are the signature.
            return Checked(signature_holds=True)
        proof = await self._origin_signature(sender, received)
        return Checked(signature_holds=proof is not None, proof=proof, disputed=proof is None)

    def take(self, tx: Tx, sender: KnownNode, received: Received, checked: Checked, now_ms: int) -> str:
        """Decide on a copy that was looked at, and carry the decision out; its reason. Refusal as in `receive`."""
        if checked.disputed:
            self._hold(tx, received, now_ms)
            return KEY_CONFLICT
        decision = self._decide(tx, received, now_ms)
        refusal = decision.refusal()
        if refusal is not None:
            raise refusal
        if decision.held is not None:
            if not checked.signature_holds:
                # What stood against it ended between the look and the transaction.
                raise Unavailable("changed_meanwhile", "send it again", 1)
            self._rely_on(tx, sender, received.copy.origin, checked.proof, now_ms)
        self._carry_out(tx, received, decision, now_ms)
        return decision.reason.value

    def refused(self, sender: str, refusal: Refusal, copy: Copy | None = None) -> None:
        """Count a copy that came over a link and was refused, and hold it against its sender if it is an offence.

        `copy` is None where it could not be read.
        """
        self._refused(sender, refusal, copy)
        self._misbehaviour.refused(sender, refusal.reason)

    def _refused(self, sender: str, refusal: Refusal, copy: Copy | None) -> None:
        self._decided(refusal.reason)
        if copy is not None:
            self._misbehaviour.copy_refused(sender, refusal.reason, copy)
        log.info("announcement_refused", peer=sender, reason=refusal.reason)

    @staticmethod
    def _rely_on(tx: Tx, sender: KnownNode, origin: str, proof: Proof | None, now_ms: int) -> None:
        """Hold the sender's standing and the origin's key, as seen before the transaction, against what is stored now.

        A peer may have been suspended, and another peer may have introduced another key, while this one's was fetched.
        """
        standing = tx.one("SELECT standing FROM node WHERE node_id = ?", (sender.node_id,))
        if standing is None or standing["standing"] != Standing.PEER:
            raise Forbidden("not_a_peer", "only peers announce; a handshake comes first")
        if proof is None:
            return
        if proof.introduction is not None:
            nodes.introduce(tx, proof.introduction, now_ms)
        pinned = tx.one("SELECT public_key FROM node WHERE node_id = ?", (origin,))
        if pinned is None:
            raise Unavailable("unknown_origin", f"no further key fits here, so none of {origin} is known", 60)
        if pinned["public_key"] != proof.key:
            raise Unavailable("changed_meanwhile", "send it again", 1)

    def apply(self, tx: Tx, received: Received, now_ms: int) -> Decision:
        """Decide on a copy whose signatures held, and carry the decision out."""
        decision = self._decide(tx, received, now_ms)
        self._carry_out(tx, received, decision, now_ms)
        return decision

    def _decide(self, source: RowSource, received: Received, now_ms: int) -> Decision:
        return decide(received.copy, self._look(source, received, b"").view, now_ms)

    def _carry_out(self, tx: Tx, received: Received, decision: Decision, now_ms: int) -> None:
        copy, announcement = received.copy, received.copy.announcement
        if decision.held is not None:
            if decision.reason is Reason.UPGRADED:
                tx.execute(
                    "UPDATE message SET best_ttl = ?, hop_value = ? WHERE message_id = ?",
                    (decision.held.ttl, decision.held.hop_value, copy.message_id),
                )
            else:
                self._store(tx, received, decision.held, now_ms)
        explain.copy_came(tx, copy.message_id, copy.sender, copy.ttl, decision.reason.value, now_ms)
        if decision.deliver:
            self._heard(tx, heard.deliver(tx, copy, now_ms))
        if decision.forward is not None and received.relayable:
            self._outbox.flood(
                tx,
                copy.message_id,
                copy.sender,
                decision.forward.ttl,
                decision.forward.hop_value,
                announcement.valid_until_ms,
            )
        if decision.held is not None:
            event = {"event": "announcement", "message_id": copy.message_id.hex(), "reason": decision.reason.value}
            self._audit.append(tx, AuditKind.NODE_INTERACTION, copy.sender, event)
        tx.after_commit(lambda: self._report(received, decision))

    def _report(self, received: Received, decision: Decision) -> None:
        self._decided(decision.reason.value)
        log.info(
            "announcement",
            message_id=received.copy.message_id.hex(),
            subject=received.copy.announcement.subject,
            origin=received.copy.origin,
            peer=received.copy.sender,
            ttl=received.copy.ttl,
            reason=decision.reason.value,
            relay=decision.relay.value,
        )

    def _store(self, tx: Tx, received: Received, held: HopState, now_ms: int) -> None:
        copy, announcement = received.copy, received.copy.announcement
        stored = messages.count_held(tx, copy.origin, copy.sender)
        if stored.messages >= self._settings.max_messages:
            raise Unavailable("too_many_messages", "this node holds as many announcements as it can", 60)
        if not within_share(stored, self._settings.max_messages, self._settings.max_peers):
            raise Unavailable("floods_over_share", "the room that is left is kept for other origins and senders", 60)
        message = Message(
            copy.message_id,
            copy.origin,
            received.origin_timestamp,
            received.origin_signature,
            received.body,
            announcement.subject,
            announcement.subject_kind,
            announcement.anchored,
            received.relayable and copy.verified,
            announcement.radius_km,
            announcement.origin_location,
            announcement.valid_until_ms,
        )
        messages.store(tx, message, held, now_ms, copy.sender)

    def _look(self, source: RowSource, received: Received, replay_digest: bytes) -> _Look:
        copy = received.copy
        row = source.one(
            _LOOK,
            {
                "digest": replay_digest,
                "message_id": copy.message_id,
                "origin": copy.origin,
                "subject": copy.announcement.subject,
            },
        )
        if row is None:
            raise RuntimeError("a query of one row has none")
        seen = None if row["best_ttl"] is None else HopState(row["best_ttl"], row["hop_value"])
        newest = None
        if row["revision"] is not None:
            newest = Newest(row["revision"], row["issued_at_ms"], row["message_id"], bool(row["verified"]))
        return _Look(View(self._identity.node_id, self._identity.location, seen, newest), row["accepted_as"])

    def _held_before(self, received: Received) -> bool:
        """Whether the origin signed a message with a key that it has replaced since. Unauthorized `revoked_key`."""
        copy = received.copy
        return key_store.holds_under_former_key(
            self._database.points, copy.origin, copy.origin_timestamp_ms, lambda key: signature_holds(key, received)
        )

    async def _origin_signature(self, sender: KnownNode, received: Received) -> Proof | None:
        """The key under which a copy's origin signature holds. None where peers introduce different keys.

        That is: the signature holds under what the sender introduces, and an earlier introduction names another key.
        """
        origin = received.copy.origin
        if received.copy.is_direct and sender.public_key is not None:
            if not signature_holds(PublicKey(sender.public_key), received) and not self._held_before(received):
                raise _bad_signature(origin)
            return Proof(sender.public_key, None)
        record = nodes.find_record(self._database.points, origin)
        known_key = None if record is None else record.known.public_key
        if known_key is not None and signature_holds(PublicKey(known_key), received):
            return Proof(known_key, None)
        if self._held_before(received) and record is not None:
            return Proof(known_key, None)
        if record is not None and record.key_source is not AddedBy.INTRODUCTION:
            raise _bad_signature(origin)
        introduction = await self._introduced_by_sender(sender, origin, afresh=record is not None)
        if introduction is None:
            if record is not None:
                raise _bad_signature(origin)
            raise Unavailable("unknown_origin", f"no key of {origin} is known, and its relay lists none", 5)
        if not signature_holds(PublicKey(introduction.public_key), received):
            raise _bad_signature(origin)
        return None if record is not None else Proof(introduction.public_key, introduction)

    async def _introduced_by_sender(self, sender: KnownNode, origin: str, *, afresh: bool) -> Introduction | None:
        if not can_be_asked(sender):
            return None
        try:
            return await self._introductions.ask(sender, origin, afresh=afresh)
        except DialError as error:
            # What the call met is for this node's operator; told to the sender, it would show him this network.
            log.warning("registry_not_read", peer=sender.node_id, origin=origin, error=str(error))
            raise Unavailable(
                "unknown_origin", f"no key of {origin} is known, and its relay could not be asked", 5
            ) from error

    def _hold(self, tx: Tx, received: Received, now_ms: int) -> None:
        """Keep a message whose origin's key is in dispute, until a handshake or the operator settles it."""
        copy = received.copy
        row = tx.one("SELECT count(*) AS held FROM held_message")
        if row is not None and row["held"] >= HELD_MESSAGES_MAX:
            raise Unavailable(KEY_CONFLICT, "too many messages wait for keys in dispute", 60)
        tx.execute(
            "INSERT INTO held_message (message_id, origin, sender, origin_timestamp, origin_signature, ttl,"
            " hop_value, body, held_at_ms, valid_until_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (message_id) DO NOTHING",
            (
                copy.message_id,
                copy.origin,
                copy.sender,
                received.origin_timestamp,
                received.origin_signature,
                copy.ttl,
                copy.hop_value,
                received.body,
                now_ms,
                copy.announcement.valid_until_ms,
            ),
        )
        explain.copy_came(tx, copy.message_id, copy.sender, copy.ttl, KEY_CONFLICT, now_ms)
        tx.after_commit(lambda: self._decided(KEY_CONFLICT))
        log.warning("key_conflict", origin=copy.origin, peer=copy.sender, message_id=copy.message_id.hex())

    def release(self, tx: Tx, origin: str, key: PublicKey) -> int:
        """Take what was held for an origin whose key is settled now; how many of its messages were taken."""
        taken = 0
        for row in tx.all("SELECT * FROM held_message WHERE origin = ?", (origin,)):
            received = read_full_form(
                row["body"],
                row["sender"],
                origin,
                row["origin_timestamp"],
                row["origin_signature"],
                row["ttl"],
                row["hop_value"],
            )
            if signature_holds(key, received):
                try:
                    decision = self.apply(tx, received, self._clock.now_ms())
                except Unavailable as refusal:  # no room: what settled the key stands all the same
                    log.warning("held_message_lost", origin=origin, reason=refusal.reason)
                    continue
                taken += decision.deliver
        tx.execute("DELETE FROM held_message WHERE origin = ?", (origin,))
        return taken


def read_copy(caller: NodeCaller, headers: Mapping[str, str], body: bytes) -> Received:
    """The copy that a peer sent, its document checked. Invalid or Unauthorized where a header or it is bad."""
    value = check_document(body, TYPE).value
    ttl, hop_value = read_hop_headers(headers.get(X_LOOP_TTL), headers.get(X_LOOP_HOP))
    names = (X_LOOP_ORIGIN, X_LOOP_ORIGIN_TIMESTAMP, X_LOOP_ORIGIN_SIGNATURE)
    origin, timestamp, signature = (headers.get(name) for name in names)
    short_form = origin is None and timestamp is None and signature is None
    if short_form != (ttl is None):
        raise Invalid(Reason.BAD_HOP, f"{X_LOOP_TTL} and {X_LOOP_ORIGIN} come together.")
    if short_form:
        origin, timestamp, signature = caller.node_id, caller.timestamp_text, caller.signature
    if not origin or not timestamp or not signature:
        raise Unauthorized("bad_origin_signature", f"{', '.join(names)} come together.")
    if not is_node_id(origin):
        # Nothing is looked up by it: what stands in a header need not even be text.
        raise Invalid(Reason.ORIGIN_MISMATCH, f"{X_LOOP_ORIGIN} names no node.")
    copy = _copy(value, body, caller.node_id, origin, timestamp, ttl, hop_value, caller.verified)
    return Received(copy, body, timestamp, signature, short_form, not short_form or caller.target is None)


def read_full_form(
    body: bytes,
    sender: str,
    origin: str,
    origin_timestamp: str,
    origin_signature: str,
    ttl: int,
    hop_value: bytes | None,
) -> Received:
    """A copy in the full form, as it came over a link or was stored. Refusal where the document or a field is bad."""
    if not is_node_id(origin):
        raise Invalid(Reason.ORIGIN_MISMATCH, "The origin names no node.")
    value = check_document(body, TYPE).value
    copy = _copy(value, body, sender, origin, origin_timestamp, ttl, hop_value, True)
    return Received(copy, body, origin_timestamp, origin_signature, short_form=False, relayable=True)


def _copy(
    value: Mapping[str, Any],
    body: bytes,
    sender: str,
    origin: str,
    origin_timestamp: str,
    ttl: int | None,
    hop_value: bytes | None,
    verified: bool,
) -> Copy:
    timestamp_ms = read_utc_timestamp(origin_timestamp)
    announcement = read_announcement(value, timestamp_ms)
    number = message_id(origin, origin_timestamp, body, announcement.anchored)
    return Copy(announcement, number, sender, origin, timestamp_ms, ttl, hop_value, verified)


def _bad_signature(origin: str) -> Unauthorized:
    return Unauthorized("bad_origin_signature", f"the origin's signature does not hold for the key of {origin}")


def signature_holds(key: PublicKey, received: Received) -> bool:
    """Whether the origin's signature of these bytes is that key's."""
    try:
        signing_string = announcement_signing_string(received.copy.origin, received.origin_timestamp, received.body)
        return key.verify(signing_string, decode_signature(received.origin_signature))
    except ValueError:
        return False
