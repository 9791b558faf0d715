"""Announcements that come in: checked, decided by the engine, delivered and relayed in one transaction (§9.3).

The way of a copy: the sender's headers (already verified), the document, the origin's key and signature, then the
engine's decision inside the writer's transaction together with everything it changes. The answer follows the commit.
"""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import PublicKey, decode_signature
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation import heard, nodes, replay
from loopd.federation.authentication import NodeCaller
from loopd.federation.introductions import Introductions, can_be_asked
from loopd.federation.nodes import AddedBy, Introduction
from loopd.federation.outbox import Outbox
from loopd.federation.settings import FederationSettings
from loopd.gossip.flood import Copy, Decision, HopState, Reason, View, decide, read_hop_headers
from loopd.identity import Identity
from loopd.net.http_client import DialError
from loopd.protocol.announcement import TYPE, read_announcement
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Forbidden, Invalid, Refusal, Unauthorized, Unavailable
from loopd.protocol.ids import is_node_id
from loopd.protocol.nodes import Standing
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
class Proof:
    """The raw key under which an origin's signature held; `introduction` where it is to be pinned with the message."""

    key: bytes
    introduction: Introduction | None


class Flooding:
    """Takes announcements from peers. `decided` counts each decision by its reason."""

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
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._database = database
        self._introductions = introductions
        self._outbox = outbox
        self._audit = audit
        self._clock = clock
        self._decided = decided

    async def receive(self, caller: NodeCaller, headers: Mapping[str, str], body: bytes) -> int:
        """Take one announcement; the number under which it was accepted, after its commit.

        Invalid `bad_hop`, `origin_mismatch`, `bad_times` or what the document is refused for; Unauthorized
        `bad_origin_signature`; Forbidden `not_a_peer`; Unavailable where the origin's key cannot be had now. Each is
        counted by its reason, as what is accepted is.
        """
        try:
            return await self._receive(caller, headers, body)
        except Refusal as refusal:
            self._decided(refusal.reason)
            log.info("announcement_refused", peer=caller.node_id, reason=refusal.reason)
            raise

    async def _receive(self, caller: NodeCaller, headers: Mapping[str, str], body: bytes) -> int:
        known = replay.recall(self._database.points, caller)
        if known is not None:
            return known
        if caller.node.standing is not Standing.PEER:
            raise Forbidden("not_a_peer", "only peers announce; a handshake comes first")
        received = read_copy(caller, headers, body)
        now_ms = self._clock.now_ms()
        foreseen = self._decide(self._database.points, received, now_ms)
        if foreseen.held is None or received.short_form or not caller.verified:
            # Nothing would rest on the origin's signature, or the sender's own headers are it.
            return await self._take(caller, received, signature_checked=foreseen.held is not None)
        proof = await self._origin_signature(caller, received)
        if proof is None:
            return await self._hold(caller, received)
        return await self._take(caller, received, signature_checked=True, proof=proof)

    async def _take(
        self, caller: NodeCaller, received: Received, *, signature_checked: bool, proof: Proof | None = None
    ) -> int:
        now_ms = self._clock.now_ms()

        def effect(tx: Tx) -> None:
            decision = self._decide(tx, received, now_ms)
            refusal = decision.refusal()
            if refusal is not None:
                raise refusal
            if decision.held is not None and not signature_checked:
                # What stood against it ended between the look and the transaction.
                raise Unavailable("changed_meanwhile", "send it again", 1)
            if proof is not None and decision.held is not None:
                self._rely_on(tx, caller, received.copy.origin, proof, now_ms)
            self._carry_out(tx, received, decision, now_ms)

        return await self._database.write(lambda tx: replay.accept_once(tx, caller, now_ms, effect))

    @staticmethod
    def _rely_on(tx: Tx, caller: NodeCaller, origin: str, proof: Proof, now_ms: int) -> None:
        """Hold the sender's standing and the origin's key, as seen before the transaction, against what is stored now.

        A peer may have been suspended, and another peer may have introduced another key, while this one's was fetched.
        """
        standing = tx.one("SELECT standing FROM node WHERE node_id = ?", (caller.node_id,))
        if standing is None or standing["standing"] != Standing.PEER:
            raise Forbidden("not_a_peer", "only peers announce; a handshake comes first")
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
        return decide(received.copy, self._view(source, received), now_ms)

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
        if decision.deliver:
            heard.deliver(tx, copy, now_ms)
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
        row = tx.one("SELECT messages FROM message_count")
        if row is not None and row["messages"] >= self._settings.max_messages:
            raise Unavailable("too_many_messages", "this node holds as many announcements as it can", 60)
        announcement = received.copy.announcement
        place = announcement.origin_location
        tx.execute(
            "INSERT INTO message (message_id, origin, origin_timestamp, origin_signature, body, subject, subject_kind,"
            " anchored, radius_km, origin_lat, origin_lon, valid_until_ms, best_ttl, hop_value, received_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                received.copy.message_id,
                received.copy.origin,
                received.origin_timestamp,
                received.origin_signature,
                received.body,
                announcement.subject,
                announcement.subject_kind.value,
                announcement.anchored,
                announcement.radius_km,
                None if place is None else place.lat,
                None if place is None else place.lon,
                announcement.valid_until_ms,
                held.ttl,
                held.hop_value,
                now_ms,
            ),
        )

    def _view(self, source: RowSource, received: Received) -> View:
        copy = received.copy
        row = source.one("SELECT best_ttl, hop_value FROM message WHERE message_id = ?", (copy.message_id,))
        return View(
            self._identity.node_id,
            self._identity.location,
            None if row is None else HopState(row["best_ttl"], row["hop_value"]),
            heard.newest(source, copy.origin, copy.announcement.subject),
        )

    async def _origin_signature(self, caller: NodeCaller, received: Received) -> Proof | None:
        """The key under which a copy's origin signature holds. None where peers introduce different keys.

        That is: the signature holds under what the sender introduces, and an earlier introduction names another key.
        """
        origin = received.copy.origin
        record = nodes.find_record(self._database.points, origin)
        known_key = None if record is None else record.known.public_key
        if known_key is not None and signature_holds(PublicKey(known_key), received):
            return Proof(known_key, None)
        if record is not None and record.key_source is not AddedBy.INTRODUCTION:
            raise _bad_signature(origin)
        introduction = await self._introduced_by_sender(caller, origin, afresh=record is not None)
        if introduction is None:
            if record is not None:
                raise _bad_signature(origin)
            raise Unavailable("unknown_origin", f"no key of {origin} is known, and its relay lists none", 5)
        if not signature_holds(PublicKey(introduction.public_key), received):
            raise _bad_signature(origin)
        return None if record is not None else Proof(introduction.public_key, introduction)

    async def _introduced_by_sender(self, caller: NodeCaller, origin: str, *, afresh: bool) -> Introduction | None:
        if not can_be_asked(caller.node):
            return None
        try:
            return await self._introductions.ask(caller.node, origin, afresh=afresh)
        except DialError as error:
            raise Unavailable(
                "unknown_origin", f"no key of {origin} is known, and its relay could not be asked: {error}", 5
            ) from error

    async def _hold(self, caller: NodeCaller, received: Received) -> int:
        """Keep a message whose origin's key is in dispute, until a handshake or the operator settles it."""
        now_ms = self._clock.now_ms()
        copy = received.copy

        def effect(tx: Tx) -> None:
            row = tx.one("SELECT count(*) AS held FROM held_message")
            if row is not None and row["held"] >= HELD_MESSAGES_MAX:
                raise Unavailable("key_conflict", "too many messages wait for keys in dispute", 60)
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

        number = await self._database.write(lambda tx: replay.accept_once(tx, caller, now_ms, effect))
        self._decided("key_conflict")
        log.warning("key_conflict", origin=copy.origin, peer=copy.sender, message_id=copy.message_id.hex())
        return number

    def release(self, tx: Tx, origin: str, key: PublicKey) -> int:
        """Take what was held for an origin whose key is settled now; how many of its messages were taken."""
        taken = 0
        for row in tx.all("SELECT * FROM held_message WHERE origin = ?", (origin,)):
            received = _read_held(row)
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


def _read_held(row: sqlite3.Row) -> Received:
    """A held message as it was received."""
    body, hop_value = row["body"], row["hop_value"]
    value = check_document(body, TYPE).value
    copy = _copy(value, body, row["sender"], row["origin"], row["origin_timestamp"], row["ttl"], hop_value, True)
    return Received(copy, body, row["origin_timestamp"], row["origin_signature"], short_form=False, relayable=True)


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
