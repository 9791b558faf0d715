"""This node's own announcements: made when a record changes, renewed and widened while it stays available (§9.3).

An announcement is signed once. Its bytes, its seed and its place in the outbox are stored in the transaction of the
change it tells of, so that a crash can neither lose it nor tell of a change that did not happen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.hop_chain import hop_anchor
from loopd.crypto.keys import encode_signature
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation import messages
from loopd.federation.messages import Message
from loopd.federation.outbox import Outbox
from loopd.federation.settings import FederationSettings
from loopd.gossip.flood import HopState
from loopd.gossip.rings import Opening, Ring, opening
from loopd.identity import Identity
from loopd.protocol.announcement import build_announcement
from loopd.protocol.limits import ANNOUNCEMENT_MAX_VALIDITY_MS, FLOOD_TTL_MAX, REQUEST_CLOCK_TOLERANCE_MS
from loopd.protocol.signing import announcement_signing_string, message_id
from loopd.protocol.subjects import Subject
from loopd.protocol.timestamps import format_timestamp

log = structlog.get_logger(__name__)

HOP_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Last:
    """What was last announced of a subject."""

    revision: int
    available: bool
    valid_until_ms: int
    widest_radius_km: float | None
    offered_since_ms: int
    ring: int


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a subject was offered: the ring's place in the plan, and since when it is offered at all."""

    ring: int
    offered_since_ms: int


class Announcer:
    """Announces this node's subjects, each in the ring that is open for it.

    `random_bytes` gives the secret seed of each hop chain. `development`: one ring, unless rings are set.
    """

    def __init__(
        self,
        identity: Identity,
        settings: FederationSettings,
        outbox: Outbox,
        audit: AuditLog,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        *,
        development: bool = False,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._outbox = outbox
        self._audit = audit
        self._clock = clock
        self._random_bytes = random_bytes
        self._development = development

    def record_changed(self, tx: Tx, subject: Subject) -> bytes | None:
        """A record was registered or its availability changed: announce it as the settings say.

        Available: at once if `announce` is "auto", else if others were told so, perhaps of another quantity. No longer
        available: only if others were told that it is. The id of the announcement, or None where none was made.
        """
        if subject.available and self._settings.announce == "auto":
            return self.announce(tx, subject)
        last = self._last(tx, subject.subject_id)
        if last is None or last.valid_until_ms <= self._clock.now_ms() or (subject.available and not last.available):
            return None
        return self.announce(tx, subject)

    def announce(self, tx: Tx, subject: Subject) -> bytes | None:
        """Make, sign, store and queue an announcement of the subject as it is now. Its 32-byte id.

        None where the subject has expired: there is nothing left to tell.
        """
        now_ms = self._clock.now_ms()
        last = self._last(tx, subject.subject_id)
        valid_until_ms = self._valid_until_ms(subject, last, now_ms)
        if valid_until_ms <= now_ms:
            return None
        # A clock that was set back must not make a subject wait for the moment at which it was offered.
        offered_since_ms = now_ms if last is None else min(last.offered_since_ms, now_ms)
        ring = self._ring(subject, last, offered_since_ms, now_ms)
        radius_km = ring.radius_km if subject.available or last is None else last.widest_radius_km
        revision = 1 if last is None else last.revision + 1
        seed = self._random_bytes(HOP_SEED_BYTES)
        message = self._signed(subject, revision, radius_km, now_ms, valid_until_ms, hop_anchor(seed, FLOOD_TTL_MAX))
        messages.store(tx, message, HopState(FLOOD_TTL_MAX, seed), now_ms)
        widest_km = radius_km if last is None else _wider(radius_km, last.widest_radius_km)
        stated = _Last(revision, subject.available, valid_until_ms, widest_km, offered_since_ms, ring.number)
        self._remember(tx, subject, message, stated, self._renew_at_ms(subject, now_ms), ring.next_at_ms)
        self._outbox.flood(tx, message.message_id, None, FLOOD_TTL_MAX, seed, valid_until_ms)
        self._told(tx, subject, message, revision)
        return message.message_id

    def _signed(
        self,
        subject: Subject,
        revision: int,
        radius_km: float | None,
        now_ms: int,
        valid_until_ms: int,
        anchor: bytes,
    ) -> Message:
        identity = self._identity
        body = build_announcement(
            subject,
            context_url=identity.context_url,
            origin=identity.node_id,
            origin_location=identity.location,
            revision=revision,
            issued_at_ms=now_ms,
            valid_until_ms=valid_until_ms,
            radius_km=radius_km,
            hop_anchor=anchor,
        )
        timestamp = format_timestamp(now_ms)
        signature = identity.key.sign(announcement_signing_string(identity.node_id, timestamp, body))
        return Message(
            message_id(identity.node_id, timestamp, body, anchored=True),
            identity.node_id,
            timestamp,
            encode_signature(signature),
            body,
            subject.subject_id,
            subject.kind,
            True,
            True,
            radius_km,
            identity.location,
            valid_until_ms,
        )

    @staticmethod
    def _remember(
        tx: Tx, subject: Subject, message: Message, stated: _Last, renew_at_ms: int | None, widen_at_ms: int | None
    ) -> None:
        """Keep what the next announcement of this subject follows from."""
        tx.execute(
            "INSERT INTO own_announcement (subject, subject_kind, revision, message_id, available, valid_until_ms,"
            " widest_radius_km, renew_at_ms, offered_since_ms, ring, widen_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET"
            " revision = excluded.revision, message_id = excluded.message_id, available = excluded.available,"
            " valid_until_ms = excluded.valid_until_ms, widest_radius_km = excluded.widest_radius_km,"
            " renew_at_ms = excluded.renew_at_ms, offered_since_ms = excluded.offered_since_ms,"
            " ring = excluded.ring, widen_at_ms = excluded.widen_at_ms",
            (
                subject.subject_id,
                subject.kind.value,
                stated.revision,
                message.message_id,
                stated.available,
                stated.valid_until_ms,
                stated.widest_radius_km,
                renew_at_ms,
                stated.offered_since_ms,
                stated.ring,
                widen_at_ms,
            ),
        )

    def _told(self, tx: Tx, subject: Subject, message: Message, revision: int) -> None:
        """Write the announcement into the audit log, and into the node's log once it is committed."""
        told = {"message_id": message.message_id.hex(), "state": subject.state.value, "revision": revision}
        self._audit.append(tx, AuditKind.NODE_INTERACTION, subject.subject_id, {"event": "announced", **told})
        place = {"subject": subject.subject_id, "radius_km": message.radius_km}
        tx.after_commit(lambda: log.info("announced", **told, **place))

    @property
    def rings(self) -> Sequence[Ring]:
        """How far subjects are offered, and when: the plan that is in use."""
        return self._settings.ring_plan(development=self._development)

    def reached(self, source: RowSource, subject_id: str) -> Reached | None:
        """How far a subject of this node is announced by now; None for what is not on offer."""
        last = self._last(source, subject_id)
        return Reached(last.ring, last.offered_since_ms) if last is not None and last.available else None

    def _valid_until_ms(self, subject: Subject, last: _Last | None, now_ms: int) -> int:
        valid_until_ms = now_ms + self._settings.announcement_validity_s * 1000
        if subject.available:
            return valid_until_ms if subject.expires_ms is None else min(valid_until_ms, subject.expires_ms)
        # What was said before must not outlive its withdrawal.
        if last is not None:
            valid_until_ms = max(valid_until_ms, last.valid_until_ms)
        return min(valid_until_ms, now_ms + ANNOUNCEMENT_MAX_VALIDITY_MS)

    def _renew_at_ms(self, subject: Subject, now_ms: int) -> int | None:
        """At half its validity, as long as there is still something to offer then."""
        renew_at_ms = now_ms + self._settings.announcement_validity_s * 1000 // 2
        ends_before = subject.expires_ms is not None and renew_at_ms >= subject.expires_ms
        return renew_at_ms if subject.available and not ends_before else None

    def _ring(self, subject: Subject, last: _Last | None, offered_since_ms: int, now_ms: int) -> Opening:
        """The ring that is open for the subject. What is not available waits for no further one."""
        reached = 0 if last is None else last.ring
        found = opening(self.rings, offered_since_ms, now_ms, subject.expires_ms, reached)
        return found if subject.available else replace(found, number=reached, next_at_ms=None)

    @staticmethod
    def _last(source: RowSource, subject_id: str) -> _Last | None:
        row = source.one("SELECT * FROM own_announcement WHERE subject = ?", (subject_id,))
        if row is None:
            return None
        return _Last(
            row["revision"],
            bool(row["available"]),
            row["valid_until_ms"],
            row["widest_radius_km"],
            row["offered_since_ms"],
            row["ring"],
        )


def due_renewals(source: RowSource, validity_ms: int, now_ms: int, limit: int) -> list[str]:
    """Subjects whose announcement has reached half its validity.

    Also those that were announced ahead of the present moment, by a clock that was set back since: others refused
    them for their times.
    """
    rows = source.all(
        "SELECT subject FROM own_announcement WHERE renew_at_ms <= ? OR renew_at_ms > ? ORDER BY renew_at_ms LIMIT ?",
        (now_ms, now_ms + validity_ms // 2 + REQUEST_CLOCK_TOLERANCE_MS, limit),
    )
    return [row["subject"] for row in rows]


def due_widenings(source: RowSource, now_ms: int, limit: int) -> list[str]:
    """Subjects for which a wider ring has opened."""
    rows = source.all(
        "SELECT subject FROM own_announcement WHERE widen_at_ms <= ? ORDER BY widen_at_ms LIMIT ?", (now_ms, limit)
    )
    return [row["subject"] for row in rows]


def stop_renewing(tx: Tx, subject_id: str) -> None:
    """The subject is not available any more, or expired: its announcement runs out."""
    tx.execute("UPDATE own_announcement SET renew_at_ms = NULL, widen_at_ms = NULL WHERE subject = ?", (subject_id,))


def _wider(a_km: float | None, b_km: float | None) -> float | None:
    return None if a_km is None or b_km is None else max(a_km, b_km)
