"""What is written of every version of an Offer, Match, Transfer or transaction, in the transaction of the change."""

from typing import Final

from loopd.audit.service import AuditKind, AuditLog
from loopd.database.writer import Tx
from loopd.events.service import EventKind, EventLog
from loopd.exchange import entity_tables as tables
from loopd.exchange.entities import Entry
from loopd.exchange.entity_views import entry_json, mirrored_json
from loopd.exchange.ports import HomeNode, Mirror
from loopd.protocol.json_text import JSON, dump_json
from loopd.protocol.lifecycle import MirroredEntity

_FIRST_VERSION: Final = 1


class Chronicle:
    """The history, the audit log, the event log, and the mirror of the node on the other side."""

    def __init__(self, node: HomeNode, audit: AuditLog, events: EventLog, mirror: Mirror) -> None:
        self._node = node
        self._audit = audit
        self._events = events
        self._mirror = mirror

    def write(self, tx: Tx, entry: Entry, by: str) -> None:
        """An entry has a new version, at the wish of the node `by`."""
        document = entry_json(entry, self._node.context_url)
        tables.insert_change(tx, entry, by, dump_json(document))
        is_new = entry.version == _FIRST_VERSION
        kind = EventKind(f"{entry.entity.value}.{'created' if is_new else 'status'}")
        what: dict[str, JSON] = {"status": entry.status, "version": entry.version, entry.kind.value: entry.subject_id}
        if entry.reason is not None:
            what["reason"] = entry.reason
        self._events.append(tx, kind, entry.id, what)
        audited = AuditKind.SETTLEMENT if entry.entity is MirroredEntity.TRANSACTION else AuditKind.NODE_INTERACTION
        self._audit.append(tx, audited, entry.id, {"event": kind.value, "by": by, **what})
        if entry.counterpart is not None:
            told = mirrored_json(entry, self._node.context_url)
            self._mirror.changed(tx, entry.entity, entry.id, entry.version, told, entry.counterpart)
