"""The seller's side of the mirror: each version of what this node decides, told to the other side of the deal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.exchange import mirror_tables as tables
from loopd.exchange.mirror_rules import EntityKey, Told, Version
from loopd.exchange.mirror_views import mirror_update
from loopd.exchange.ports import HomeNode, NodeDirectory, Outbox
from loopd.exchange.received import TOO_LARGE
from loopd.exchange.views import MIRROR_PATH
from loopd.protocol.errors import Invalid, NotFound
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import MIRROR_DELIVERY_MS, MIRROR_PAGE_MAX_BYTES, MIRROR_UPDATE_MAX_BYTES
from loopd.protocol.vocabulary import Feature

UPDATE_REFERENCE: Final = "mirror:"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorPage:
    """A page of what one node was told; `after` is where the next one begins, None on the last."""

    results: list[dict[str, Any]]
    after: int | None


class MirrorTelling:
    """Tells others what this node, the seller's, decided, and tells it again to who asks."""

    def __init__(self, node: HomeNode, clock: Clock, directory: NodeDirectory, outbox: Outbox) -> None:
        self._node = node
        self._clock = clock
        self._directory = directory
        self._outbox = outbox

    def changed(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        version: int,
        document: Mapping[str, Any],
        counterpart: str,
    ) -> None:
        """See `loopd.exchange.ports.Mirror`.

        Invalid (400) `too_large_to_mirror` (TOO_LARGE) where the document does not fit a message between nodes.
        """
        told = {each.counterpart: each.version for each in tables.told_to(tx, entity, entity_id)}
        for reader in sorted({*told, counterpart}):
            self._tell(tx, entity, entity_id, reader, self._version(version, told.get(reader, 0), document))

    def _version(self, number: int, follows: int, document: Mapping[str, Any]) -> Version:
        if number <= follows:
            raise RuntimeError(f"version {number} is told after version {follows}")
        return Version(number, follows, document["status"], self._clock.now_ms(), document)

    def _tell(self, tx: Tx, entity: MirroredEntity, entity_id: str, reader: str, version: Version) -> None:
        told = Told(EntityKey(self._node.node_id, entity, entity_id), reader, version)
        body = dump_json(mirror_update(told, self._node.context_url))
        if len(body) > MIRROR_UPDATE_MAX_BYTES:
            message = f"The {entity.value} is too large to be told to {reader}."
            raise Invalid(TOO_LARGE, message, {"max_bytes": MIRROR_UPDATE_MAX_BYTES})
        number = tables.insert_told(tx, reader, entity, entity_id, version.number, version.status, body)
        node = self._directory.find(tx, reader)
        # Of a node that a peer introduced no features are known: what does not concern it, it refuses.
        if node is None or (node.features and Feature.MIRROR not in node.features):
            return
        expires_at_ms = version.updated_at_ms + MIRROR_DELIVERY_MS
        self._outbox.enqueue(tx, reader, MIRROR_PATH, body, expires_at_ms, f"{UPDATE_REFERENCE}{number}")

    def update_answered(self, reference: str, status: int, reason: str) -> None:
        """How the other side finally answered a version; what it did not take, it can still ask for."""
        if reference.startswith(UPDATE_REFERENCE) and status // 100 != 2:
            log.warning("mirror_not_taken", reference=reference, status=status, reason=reason)

    async def versions(
        self, database: Database, reader: str, entity: MirroredEntity, entity_id: str, after: int, limit: int
    ) -> MirrorPage:
        """The versions after one that a node was told of an entity, as MirrorUpdates.

        NotFound (404) `unknown_mirror` where it was told nothing of that.
        """
        if tables.find_told(database.points, reader, entity, entity_id) is None:
            raise NotFound("unknown_mirror", f"No such {entity.value} is told to {reader}.")
        rows = await database.all(tables.TOLD_VERSIONS, (reader, entity.value, entity_id, after, limit + 1))
        taken: list[dict[str, Any]] = []
        size_bytes = 0
        for row in rows[:limit]:
            size_bytes += len(row["body"])
            if taken and size_bytes > MIRROR_PAGE_MAX_BYTES:
                break
            taken.append(read_json(bytes(row["body"])))
        return MirrorPage(taken, taken[-1]["version"] if len(taken) < len(rows) else None)

    async def newest(self, database: Database, reader: str, after: int, limit: int) -> MirrorPage:
        """The newest version of each entity that a node was told of, in the order of telling."""
        rows = await database.all(tables.TOLD_NEWEST, (reader, after, limit + 1))
        results = [
            {"number": row["number"], "entity": row["entity"], "id": row["entity_id"], "version": row["version"]}
            for row in rows[:limit]
        ]
        return MirrorPage(results, results[-1]["number"] if len(rows) > limit else None)
