"""What comes over links, taken into the flood: copies with their bodies, and better TTLs of what is held.

All that one link brought together is looked at first, signatures and all, then decided on and applied in one unit of
the writer, each by itself: one that is refused undoes no other. The answer to the peer follows the commit.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation.flooding import Checked, Flooding, Received, read_full_form
from loopd.gossip.flood import HopState, Reason
from loopd.gossip.frames import Copy as CopyFrame
from loopd.gossip.spread import Upgrade
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.protocol.nodes import KnownNode

log = structlog.get_logger(__name__)

# Reading and verifying one copy takes a good part of a millisecond: after so many, others get their turn.
_COPIES_IN_A_ROW = 8
_RETRY_MS = 5_000

_STORED = """
SELECT m.*, coalesce(h.verified, 1) AS verified FROM message m
LEFT JOIN heard h ON h.origin = m.origin AND h.subject = m.subject AND h.message_id = m.message_id
WHERE m.message_id = ?
"""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A copy that was read: who sent it under which number, and what it says."""

    sender: KnownNode
    number: int
    received: Received

    @property
    def message_id(self) -> bytes:
        return self.received.copy.message_id


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an offer. `held` is the best copy that is held now; `retry_after_ms` where it was not decided."""

    peer: str
    number: int
    message_id: bytes
    origin: str
    reason: str
    held: HopState | None
    retry_after_ms: int | None = None


def held(source: RowSource, message_id: bytes) -> HopState | None:
    """The best copy of a message that is held."""
    row = source.one("SELECT best_ttl, hop_value FROM message WHERE message_id = ?", (message_id,))
    return None if row is None else HopState(row["best_ttl"], row["hop_value"])


class LinkCopies:
    """Takes what links bring."""

    def __init__(self, database: Database, flooding: Flooding, clock: Clock) -> None:
        self._database = database
        self._flooding = flooding
        self._clock = clock

    def read(self, sender: KnownNode, frame: CopyFrame) -> Arrived:
        """A copy as it came. Refusal, counted, where its document or a field is bad."""
        try:
            received = read_full_form(
                frame.body,
                sender.node_id,
                frame.origin,
                frame.origin_timestamp,
                frame.origin_signature,
                frame.ttl,
                frame.hop_value,
            )
        except Refusal as refusal:
            self._flooding.refused(sender.node_id, refusal)
            raise
        return Arrived(sender, frame.number, received)

    async def take(self, copies: Sequence[Arrived]) -> list[Outcome]:
        """Decide on copies of one peer together, in its turn.

        Each one's outcome, in order, once what it changed is durable. Refusal where none was taken.
        """
        if not copies:
            return []
        size_bytes = sum(len(copy.received.body) for copy in copies)
        async with self._flooding.turn(copies[0].sender.node_id, size_bytes):
            return await self._take(copies)

    async def _take(self, copies: Sequence[Arrived]) -> list[Outcome]:
        looks: list[Checked | Refusal] = []
        for place in range(0, len(copies), _COPIES_IN_A_ROW):
            looks += await asyncio.gather(*(self._look(copy) for copy in copies[place : place + _COPIES_IN_A_ROW]))
            await asyncio.sleep(0)
        now_ms = self._clock.now_ms()

        def take(tx: Tx) -> list[Outcome | tuple[Arrived, Refusal]]:
            return [self._take_one(tx, copy, look, now_ms) for copy, look in zip(copies, looks, strict=True)]

        return [self._outcome(taken) for taken in await self._database.write(take)]

    async def _look(self, copy: Arrived) -> Checked | Refusal:
        try:
            return await self._flooding.check(copy.sender, copy.received)
        except Refusal as refusal:
            return refusal

    def _take_one(
        self, tx: Tx, copy: Arrived, look: Checked | Refusal, now_ms: int
    ) -> Outcome | tuple[Arrived, Refusal]:
        if isinstance(look, Refusal):
            return copy, look
        try:
            reason = self._flooding.take(tx, copy.sender, copy.received, look, now_ms)
        except Refusal as refusal:
            return copy, refusal
        best = held(tx, copy.message_id)
        return Outcome(copy.sender.node_id, copy.number, copy.message_id, copy.received.copy.origin, reason, best)

    def _outcome(self, taken: Outcome | tuple[Arrived, Refusal]) -> Outcome:
        """A refusal that lies in the copy is final; one that lies in this node, or in its view of the peer, is not."""
        if isinstance(taken, Outcome):
            return taken
        copy, refusal = taken
        self._flooding.refused(copy.sender.node_id, refusal, copy.received.copy)
        retry_after_ms = None
        if refusal.status in (403, 503):
            retry_after_ms = _RETRY_MS if refusal.retry_after_s is None else refusal.retry_after_s * 1000
        return Outcome(
            copy.sender.node_id,
            copy.number,
            copy.message_id,
            copy.received.copy.origin,
            refusal.reason,
            held(self._database.points, copy.message_id),
            retry_after_ms,
        )

    async def upgrade(self, offers: Sequence[tuple[KnownNode, Upgrade]]) -> list[Outcome]:
        """Decide on better TTLs of stored announcements, without their bodies, as `take` does on copies."""
        now_ms = self._clock.now_ms()

        def take(tx: Tx) -> list[Outcome | tuple[Arrived, Refusal]]:
            return [self._upgrade_one(tx, sender, offer, now_ms) for sender, offer in offers]

        return [self._outcome(taken) for taken in await self._database.write(take)]

    def _upgrade_one(self, tx: Tx, sender: KnownNode, offer: Upgrade, now_ms: int) -> Outcome | tuple[Arrived, Refusal]:
        def outcome(reason: str, best: HopState | None, retry_after_ms: int | None = None) -> Outcome:
            return Outcome(sender.node_id, offer.number, offer.message_id, offer.origin, reason, best, retry_after_ms)

        row = tx.one(_STORED, (offer.message_id,))
        if row is None:
            # It ended between the offer and the transaction.
            return outcome("changed_meanwhile", None, _RETRY_MS)
        if not row["verified"]:
            # From a node without signatures: it is passed on to nobody, so a better TTL of it is worth nothing.
            return outcome(Reason.DUPLICATE, HopState(FLOOD_TTL_MAX, None))
        try:
            received = read_full_form(
                row["body"],
                sender.node_id,
                row["origin"],
                row["origin_timestamp"],
                row["origin_signature"] or "",
                offer.ttl,
                offer.hop_value,
            )
            copy = Arrived(sender, offer.number, received)
        except Refusal as refusal:  # stored by another version of this program
            log.warning("stored_message_unreadable", message_id=offer.message_id.hex(), reason=refusal.reason)
            return outcome(refusal.reason, HopState(FLOOD_TTL_MAX, None))
        # The signature held when it was stored.
        return self._take_one(tx, copy, Checked(signature_holds=True), now_ms)
