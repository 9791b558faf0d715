"""The other side of the mirror: what sellers' nodes told this one, and what is known to be missing of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventKind, EventLog
from loopd.exchange import mirror_tables as tables
from loopd.exchange.mirror_rules import (
    REFUSED_RETRY_MS,
    WHOLE_COMPARISON_MS,
    EntityKey,
    Finding,
    Newest,
    Told,
    find,
    read_update,
    retry_delay_ms,
)
from loopd.exchange.mirror_tables import Gap, Mirrored, Partner
from loopd.exchange.mirror_views import mirrored_json
from loopd.exchange.ports import HomeNode
from loopd.protocol.documents import Document
from loopd.protocol.errors import Invalid, NotFound, Refusal, Unavailable
from loopd.protocol.json_text import JSON, dump_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import MIRRORED_PER_NODE_MAX, MIRRORED_PER_NODE_MAX_BYTES

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MirroredPage:
    """A page of what others told; `before` is where the next one begins, None on the last."""

    results: list[dict[str, Any]]
    before: int | None


class Mirroring:
    """Keeps what other nodes decide, version by version. `wake` is called after a commit that leaves a gap."""

    def __init__(
        self, node: HomeNode, clock: Clock, audit: AuditLog, events: EventLog, wake: Callable[[], None]
    ) -> None:
        self._node = node
        self._clock = clock
        self._audit = audit
        self._events = events
        self._wake = wake

    def receive(self, tx: Tx, caller_node_id: str, document: Document) -> Finding:
        """Take a MirrorUpdate from the node that writes the entity.

        A version that is held, or older, changes nothing. One that others are missing before is not kept: they are
        fetched, and it with them. Refuses as `read_update` and `find` do, besides Invalid (400) `origin_mismatch`,
        `not_counterpart`; Unavailable (503) `too_many_mirrored`.
        """
        told = read_update(document.value)
        if told.key.node != caller_node_id:
            message = "What a node decides comes from the node that signs it."
            raise Invalid("origin_mismatch", message, {"owner": told.key.node, "signer": caller_node_id})
        return self.take(tx, told)

    def take(self, tx: Tx, told: Told) -> Finding:
        """Take a version whose owner is certain; refuses as `receive` does."""
        if told.counterpart != self._node.node_id:
            message = "What is mirrored is told to the other side of the deal alone."
            raise Invalid("not_counterpart", message, {"counterpart": told.counterpart})
        held = tables.find_mirrored(tx, told.key)
        finding = find(None if held is None else held.version, told.version, told.key.entity)
        if finding is Finding.APPLIES:
            self._apply(tx, told, held)
        elif finding is Finding.GAP:
            self._note_missing(tx, told.key, told.version.number)
        return finding

    def _apply(self, tx: Tx, told: Told, held: Mirrored | None) -> None:
        key, version, now_ms = told.key, told.version, self._clock.now_ms()
        document = dump_json(version.document)
        self._count(tx, key.node, held, len(document), now_ms)
        tables.put_mirrored(tx, key, version, document, now_ms)
        tables.close_gap(tx, key, version.number)
        what: dict[str, JSON] = {"node": key.node, "version": version.number, "status": version.status}
        audited = {"event": "mirrored", "entity": key.entity.value, **what}
        self._audit.append(tx, AuditKind.NODE_INTERACTION, key.entity_id, audited)
        kind = EventKind(f"{key.entity.value}.{'created' if held is None else 'status'}")
        self._events.append(tx, kind, key.entity_id, what)

    def _count(self, tx: Tx, node_id: str, held: Mirrored | None, size_bytes: int, now_ms: int) -> None:
        entities, total_bytes = tables.held_of(tx, node_id)
        entities += held is None
        total_bytes += size_bytes - (0 if held is None else held.size_bytes)
        if entities > MIRRORED_PER_NODE_MAX or total_bytes > MIRRORED_PER_NODE_MAX_BYTES:
            raise Unavailable("too_many_mirrored", "As much of this node is held as is kept.", retry_after_s=3600)
        tables.set_held(tx, node_id, entities, total_bytes, now_ms + WHOLE_COMPARISON_MS)

    def _note_missing(self, tx: Tx, key: EntityKey, wanted: int) -> None:
        tables.note_gap(tx, key, wanted, self._clock.now_ms())
        tx.after_commit(self._wake)

    # Fetching what is missing

    def take_all(self, tx: Tx, versions: Iterable[Told]) -> Refusal | None:
        """Take versions in order, up to the first that is refused: its refusal, or None."""
        for told in versions:
            try:
                self.take(tx, told)
            except Refusal as refusal:
                return refusal
        return None

    def held(self, source: RowSource, key: EntityKey) -> int:
        """The version that is held of an entity, 0 for none."""
        mirrored = tables.find_mirrored(source, key)
        return 0 if mirrored is None else mirrored.version.number

    def note_missing(self, tx: Tx, entries: Iterable[Newest]) -> list[Gap]:
        """Remember which of the entries of a node's list are not held; gives those."""
        missing = []
        for entry in entries:
            held = self.held(tx, entry.key)
            if held < entry.version:
                tables.note_gap(tx, entry.key, entry.version, self._clock.now_ms())
                missing.append(Gap(entry.key, entry.version, 0))
            elif held > entry.version:
                log.warning("mirror_owner_behind", **_named(entry.key), held=held, told=entry.version)
        return missing

    def not_fetched(self, tx: Tx, gap: Gap) -> None:
        """The owner could not be asked: later, and for nothing else of it before."""
        later_ms = self._clock.now_ms() + retry_delay_ms(gap.attempts + 1)
        tables.postpone_gap(tx, gap.key, later_ms)
        tables.postpone_gaps(tx, gap.key.node, later_ms)

    def fetched(self, tx: Tx, gap: Gap) -> None:
        """The owner told what it has; what it then still lacks is nowhere."""
        held = self.held(tx, gap.key)
        if held < gap.wanted:
            log.warning("mirror_gap_of_nothing", **_named(gap.key), held=held, wanted=gap.wanted)
        # Of what was told meanwhile, more may be missing.
        tables.close_gap(tx, gap.key, max(held, gap.wanted))

    def not_taken(self, tx: Tx, gap: Gap, refusal: Refusal) -> None:
        """What the owner tells cannot be."""
        log.warning("mirror_refused", **_named(gap.key), reason=refusal.reason)
        tables.postpone_gap(tx, gap.key, self._clock.now_ms() + REFUSED_RETRY_MS)

    def expect(self, tx: Tx, node_id: str) -> None:
        """A node has decided on a bid of this one: should all that it tells get lost, a comparison will find it."""
        tables.expect(tx, node_id, self._clock.now_ms() + WHOLE_COMPARISON_MS)

    def returned(self, tx: Tx, node_id: str) -> None:
        """A node that was away answers again: compare, and fetch what is missing of it, now."""
        now_ms = self._clock.now_ms()
        tables.compare_now(tx, node_id, now_ms)
        tables.hasten_gaps(tx, node_id, now_ms)
        tx.after_commit(self._wake)

    def compared(self, tx: Tx, partner: Partner, compared_to: int, *, whole: bool) -> None:
        """A comparison went through, so far in the node's list."""
        now_ms = self._clock.now_ms()
        whole_at_ms = now_ms if whole else partner.compared_whole_at_ms
        tables.compared(tx, partner.node, compared_to, whole_at_ms, whole_at_ms + WHOLE_COMPARISON_MS)

    def not_compared(self, tx: Tx, partner: Partner) -> None:
        """The node gave no list: later."""
        tables.postpone_comparison(tx, partner.node, self._clock.now_ms() + retry_delay_ms(partner.attempts + 1))

    # Showing it

    def view(self, source: RowSource, key: EntityKey) -> dict[str, Any]:
        """What is held of an entity. NotFound (404) `unknown_mirror`."""
        mirrored = tables.find_mirrored(source, key)
        if mirrored is None:
            raise NotFound("unknown_mirror", f"No such {key.entity.value} of {key.node} is held here.")
        return mirrored_json(mirrored, tables.find_last_request(source, key))

    async def page(
        self, database: Database, limit: int, before: int | None, entity: MirroredEntity | None, node_id: str | None
    ) -> MirroredPage:
        """What others told, those that were first heard of last first; of one kind or one node where that is chosen."""
        query = tables.mirrored_page(by_entity=entity is not None, by_node=node_id is not None)
        parameters = {"limit": limit + 1, "before": 2**63 - 1 if before is None else before, "node": node_id}
        async with database.snapshot() as reader:
            rows = await reader.all(query, {**parameters, "entity": entity})
            found = [tables.mirrored_of(row) for row in rows[:limit]]
            results = []
            for mirrored in found:
                rows_of_request = await reader.all(tables.LAST_REQUEST, tables.key_parameters(mirrored.key))
                request = tables.request_of(rows_of_request[0]) if rows_of_request else None
                results.append(mirrored_json(mirrored, request))
        return MirroredPage(results, found[-1].number if len(rows) > limit else None)


def _named(key: EntityKey) -> dict[str, str]:
    return {"node": key.node, "entity": key.entity.value, "id": key.entity_id}
