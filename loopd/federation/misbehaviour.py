"""What peers did wrong, kept with them: their points, and what follows (see docs/gossip.md, Defence).

Offences cost no write of their own: `flush` writes them together, soon. A crash forgives the last second's.
"""

from collections.abc import Callable
from typing import Final

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation import explain
from loopd.gossip.flood import Copy
from loopd.gossip.reputation import OFFENCE_OF_REASON, Conduct, Reputation
from loopd.protocol.errors import Forbidden

log = structlog.get_logger(__name__)

# Refused copies that wait to be written down for `explain`; further ones are only counted.
REFUSED_COPIES_MAX: Final = 1_000


class Misbehaviour:
    """The reputations of the nodes that this one knows. `banned` is told of each from which nothing is taken now."""

    def __init__(self, database: Database, audit: AuditLog, clock: Clock, banned: Callable[[str], None]) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._banned = banned
        # Of those who sent something since the start; nodes are bounded, so this is.
        self._known: dict[str, Reputation] = {}
        # What is not written yet: nodes with the reason that moved them last, and refused copies.
        self._unwritten: dict[str, str] = {}
        self._refused: list[tuple[bytes, str, int | None, str, int]] = []

    def of(self, node_id: str) -> Reputation:
        """A node's reputation now."""
        known = self._known.get(node_id)
        if known is None:
            known = self._known[node_id] = load(self._database.points, node_id)
        return known.at(self._clock.now_ms()) if known.points else known

    def conduct(self, node_id: str) -> Conduct:
        """What follows from a node's points now."""
        return self.of(node_id).conduct

    def refuse_banned(self, node_id: str) -> None:
        """Forbidden `banned` where nothing is taken from the node."""
        if self.conduct(node_id) is Conduct.BANNED:
            raise Forbidden("banned", f"{node_id} did too much that no node does; this fades, or the operator lifts it")

    def copy_refused(self, node_id: str, reason: str, copy: Copy) -> None:
        """A copy of an announcement was refused that could be read: `explain` shows it."""
        if len(self._refused) < REFUSED_COPIES_MAX:
            self._refused.append((copy.message_id, node_id, copy.ttl, reason, self._clock.now_ms()))

    def refused(self, node_id: str, reason: str) -> None:
        """What a node sent, and its own signature holds for, was refused: count it if that was an offence."""
        offence = OFFENCE_OF_REASON.get(reason)
        if offence is None:
            return
        now_ms, before = self._clock.now_ms(), self.of(node_id)
        after = self._known[node_id] = before.after(offence, now_ms)
        self._unwritten[node_id] = reason
        if after.conduct is not before.conduct:
            log.warning("peer_conduct", peer=node_id, conduct=after.conduct.value, was=before.conduct.value)
            if after.conduct is Conduct.BANNED:
                self._banned(node_id)

    async def flush(self) -> None:
        """Write down what is not written yet."""
        moved, refused = self._unwritten, self._refused
        if not moved and not refused:
            return
        self._unwritten, self._refused = {}, []
        try:
            await self._database.write(lambda tx: self._write(tx, moved, refused))
        except BaseException:
            self._unwritten = moved | self._unwritten
            self._refused = (refused + self._refused)[:REFUSED_COPIES_MAX]
            raise

    def _write(self, tx: Tx, moved: dict[str, str], refused: list[tuple[bytes, str, int | None, str, int]]) -> None:
        for message_id, peer, ttl, reason, at_ms in refused:
            explain.copy_came(tx, message_id, peer, ttl, reason, at_ms)
        for node_id, reason in moved.items():
            before, after = load(tx, node_id), self._known.get(node_id)
            if after is None:  # forgotten meanwhile
                continue
            _store(tx, node_id, after)
            if after.conduct is not before.conduct:
                event = {"event": "conduct", "conduct": after.conduct.value, "reason": reason}
                self._audit.append(tx, AuditKind.NODE_INTERACTION, node_id, event)

    def forgive(self, tx: Tx, node_id: str) -> bool:
        """Clear a node's points, as the operator wishes. False where nothing follows from them."""
        stored = load(tx, node_id).at(self._clock.now_ms())
        known = self._known.get(node_id, stored).at(self._clock.now_ms())
        if known.conduct is Conduct.CLEAR and stored.conduct is Conduct.CLEAR:
            return False
        tx.execute("DELETE FROM peer_reputation WHERE node_id = ?", (node_id,))
        tx.after_commit(lambda: self.forget(node_id))
        return True

    def forget(self, node_id: str) -> None:
        """Look at what is stored next time: the node was removed, or forgiven."""
        self._known.pop(node_id, None)
        self._unwritten.pop(node_id, None)


def load(source: RowSource, node_id: str) -> Reputation:
    """A node's stored reputation."""
    row = source.one("SELECT points, as_of_ms, conduct FROM peer_reputation WHERE node_id = ?", (node_id,))
    return Reputation() if row is None else Reputation(row["points"], row["as_of_ms"], Conduct(row["conduct"]))


def _store(tx: Tx, node_id: str, reputation: Reputation) -> None:
    """Keep a node's reputation, unless the node was removed meanwhile."""
    tx.execute(
        "INSERT INTO peer_reputation (node_id, points, as_of_ms, conduct)"
        " SELECT node_id, ?, ?, ? FROM node WHERE node_id = ? ON CONFLICT (node_id) DO UPDATE SET"
        " points = excluded.points, as_of_ms = excluded.as_of_ms, conduct = excluded.conduct",
        (reputation.points, reputation.as_of_ms, reputation.conduct.value, node_id),
    )
