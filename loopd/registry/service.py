"""The registries' door: register, read, change of state, and what the rest of the node asks about records."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database import RowSource, Tx
from loopd.events.service import EventKind, EventLog
from loopd.protocol.documents import Document, read_json
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.limits import LIST_MAX_BYTES
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.registry import tables
from loopd.registry.rules import (
    check_transition,
    compacted_text,
    facts_of,
    has_expired,
    is_available,
    same_city,
    same_json,
)
from loopd.registry.tables import Reader, Record, UpdateText

REGISTERED = "registered"
EXPIRED = "expired"

_REGISTERED_EVENTS = {
    SubjectKind.MATERIAL: EventKind.MATERIAL_REGISTERED,
    SubjectKind.PRODUCT: EventKind.PRODUCT_REGISTERED,
}
_STATUS_EVENTS = {SubjectKind.MATERIAL: EventKind.MATERIAL_STATUS, SubjectKind.PRODUCT: EventKind.PRODUCT_STATUS}


class HomeNode(Protocol):
    """What the registry must know of its own node: the city whose records it announces."""

    @property
    def city(self) -> str: ...


class Announcer(Protocol):
    """Tells other cities. Both calls belong to the transaction of what they tell."""

    def record_changed(self, tx: Tx, subject: Subject) -> bytes | None:
        """A record is new or its state changed: announce that, where the node's settings and its past ask for it."""
        ...

    def announce(self, tx: Tx, subject: Subject) -> bytes | None:
        """Announce a subject because somebody asked; gives the message id, or None where there is nothing to tell."""
        ...


class RecordListener(Protocol):
    """Another room that follows the records."""

    def record_changed(self, tx: Tx, record: Record) -> None:
        """A record is new, or what this node lays over it changed; in the transaction of that."""
        ...


@dataclass(frozen=True, slots=True)
class Registration:
    """What came of a registration: the stored record, and whether it is new."""

    record: Record
    created: bool


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What came of a MaterialStatusUpdate: its id, when this node carried it out, and whether that was now."""

    update_id: str
    created_at_ms: int
    created: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first; `next_cursor` asks for those after them, None where there are none."""

    records: list[Record]
    next_cursor: int | None


class Registry:
    """The records of this node, materials and products.

    Whatever writes takes the caller's `tx`, so that the record, its audit entry, its event and its announcement are
    one. Reads by key take any RowSource: a `tx`, or the database's point reads. The `listeners` are told of every
    change, in order.
    """

    def __init__(
        self,
        node: HomeNode,
        clock: Clock,
        audit: AuditLog,
        events: EventLog,
        announcer: Announcer,
        listeners: Sequence[RecordListener] = (),
    ) -> None:
        self._city = node.city
        self._clock = clock
        self._audit = audit
        self._events = events
        self._announcer = announcer
        self._listeners = listeners

    def register(self, tx: Tx, document: Document) -> Registration:
        """Register a checked MaterialDNA or ProductDNA.

        The same id with the same content gives the stored record; with other content Conflict (409), reason
        `other_content`. Invalid (400) for what cannot be kept, see `rules.facts_of`. What is expired, or lies in
        another city, registers and is not announced.
        """
        facts = facts_of(document.type, document.value)
        subject = facts.subject
        record = tables.insert_record(tx, facts, document.received, compacted_text(document), self._clock.now_ms())
        if record is None:
            return Registration(self._same_record(tx, document, subject), created=False)
        self._audit.append(
            tx,
            AuditKind.REGISTRATION,
            subject.subject_id,
            {
                "event": "registered",
                "kind": subject.kind.value,
                "category": subject.category,
                "document_sha256": hashlib.sha256(document.received).hexdigest(),
            },
        )
        data = {"category": subject.category, "quantity": subject.quantity, "unit": subject.unit}
        self._events.append(tx, _REGISTERED_EVENTS[subject.kind], subject.subject_id, data)
        self._tell(tx, record)
        return Registration(record, created=True)

    def update_material_status(self, tx: Tx, document: Document) -> StatusChange:
        """Carry out a checked MaterialStatusUpdate.

        The same update again gives the first answer; another one under its id is Conflict (409) `other_content`.
        NotFound (404) `unknown_material`; Conflict `transition` or `terminal` where the state may not follow.
        """
        value = document.value
        # A UUID is the same in either case.
        update_id = str(value["id"]).lower()
        earlier = tables.find_state_change(tx, update_id)
        if earlier is not None:
            if not same_json(read_json(earlier.document), value):
                raise _other_content()
            return StatusChange(value["id"], earlier.changed_at_ms, created=False)
        record = self.require(tx, SubjectKind.MATERIAL, value["material_id"])
        update = UpdateText(update_id, document.received, compacted_text(document))
        changed = self._change(tx, record, SubjectState(value["status"]), value.get("reason"), update)
        return StatusChange(value["id"], changed.state_changed_at_ms, created=True)

    def change_state(self, tx: Tx, subject_id: str, state: SubjectState, cause: str) -> Subject:
        """Change a record's state for the node's own reasons, such as a selected bid; `cause` says which.

        NotFound (404) `unknown_subject`; Conflict (409) `transition` or `terminal`. Gives the subject as it is then.
        """
        record = self.find(tx, subject_id)
        if record is None:
            raise NotFound("unknown_subject", "No such material or product is registered here.")
        return self._change(tx, record, state, cause, None).subject

    def announce(self, tx: Tx, kind: SubjectKind, subject_id: str) -> bytes:
        """Announce a record now, whatever the settings say; gives the message id.

        NotFound (404) where it is not registered; Conflict (409) with reason `expired`, `not_available` or
        `other_city` where it is not to be announced.
        """
        record = self.require(tx, kind, subject_id)
        if not record.subject.available:
            raise Conflict("not_available", f"It is {record.subject.state.value}.")
        if not same_city(record.current_city, self._city):
            raise Conflict("other_city", "Only what lies in this node's city is announced here.")
        expired = has_expired(record.subject.expires_ms, self._clock.now_ms())
        message_id = None if expired else self._announcer.announce(tx, record.subject)
        if message_id is None:
            raise Conflict("expired", "What has expired is not announced.")
        return message_id

    def find(self, source: RowSource, subject_id: str) -> Record | None:
        """The record of an id, or None."""
        return tables.find_record(source, subject_id)

    def require(self, source: RowSource, kind: SubjectKind, subject_id: str) -> Record:
        """The record of an id and kind; NotFound (404) `unknown_material` or `unknown_product`."""
        record = tables.find_record(source, subject_id)
        if record is None or record.subject.kind is not kind:
            raise NotFound(f"unknown_{kind.value}", f"No such {kind.value} is registered here.")
        return record

    def subject_by_id(self, source: RowSource, subject_id: str) -> Subject | None:
        """The flow metadata of an id as it stands now, or None."""
        return tables.find_subject(source, subject_id)

    def is_available(self, subject: Subject) -> bool:
        """Whether a subject can be had now: nobody holds it, and it has not expired."""
        return is_available(subject, self._clock.now_ms())

    async def page(
        self, reader: Reader, kind: SubjectKind, limit: int, category: str | None = None, cursor: int | None = None
    ) -> Page:
        """Up to `limit` records of a kind, newest first; fewer where their documents reach LIST_MAX_BYTES."""
        records, next_cursor = await tables.page_of_records(reader, kind, category, cursor, limit, LIST_MAX_BYTES)
        return Page(records, next_cursor)

    async def count_active(self, reader: Reader, kind: SubjectKind = SubjectKind.MATERIAL) -> int:
        """How many records of a kind can be had now: NodeInfo's `materials_active`."""
        return await tables.count_available(reader, kind, self._clock.now_ms())

    def document(self, record: Record) -> dict[str, Any]:
        """What was received, with its unknown fields."""
        value = read_json(record.document)
        if not isinstance(value, dict):
            raise TypeError("a stored document is a JSON object")
        return value

    def view(self, record: Record) -> dict[str, Any]:
        """A record as it is given out: what was received, and over it what this node adds or changed.

        `status` is `registered`. `availability` is `{status, updated_at}`, `status` one of `available`, `reserved`,
        `withdrawn`, and `expired` for what nobody took in time.
        """
        return self.view_of(record, self.document(record))

    def view_of(self, record: Record, received: Mapping[str, Any]) -> dict[str, Any]:
        """`view` for a caller that has read the document already."""
        subject = record.subject
        status, updated_at_ms = subject.state.value, record.state_changed_at_ms
        # Withdrawn is final: no later expiry hides it.
        expires_ms = None if subject.state is SubjectState.WITHDRAWN else subject.expires_ms
        if expires_ms is not None and has_expired(expires_ms, self._clock.now_ms()):
            status, updated_at_ms = EXPIRED, expires_ms
        return {
            **received,
            "current_city": record.current_city,
            "status": REGISTERED,
            "availability": {"status": status, "updated_at": format_timestamp(updated_at_ms)},
        }

    def _same_record(self, tx: Tx, document: Document, subject: Subject) -> Record:
        record = self.require(tx, subject.kind, subject.subject_id)
        if record.document != document.received and not same_json(self.document(record), document.value):
            raise _other_content()
        return record

    def _change(
        self, tx: Tx, record: Record, state: SubjectState, cause: str | None, update: UpdateText | None
    ) -> Record:
        check_transition(record.subject.state, state)
        now_ms = self._clock.now_ms()
        changed = tables.change_state(tx, record, state, now_ms, cause, update)
        self._audit.append(
            tx,
            AuditKind.REGISTRATION,
            record.subject.subject_id,
            {
                "event": "state_changed",
                "from": record.subject.state.value,
                "to": state.value,
                "update": None if update is None else update.update_id,
            },
        )
        moved = {"status": state.value, "was": record.subject.state.value}
        self._events.append(tx, _STATUS_EVENTS[record.subject.kind], record.subject.subject_id, moved)
        self._tell(tx, changed)
        return changed

    def _tell(self, tx: Tx, record: Record) -> None:
        for listener in self._listeners:
            listener.record_changed(tx, record)
        if has_expired(record.subject.expires_ms, self._clock.now_ms()):
            return
        if same_city(record.current_city, self._city):
            self._announcer.record_changed(tx, record.subject)


def _other_content() -> Conflict:
    return Conflict("other_content", "What is stored under this id has other content.")
