"""The registries' door: register, read, change of state, and what the rest of the node asks about records."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
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
from loopd.registry.handover import with_custody
from loopd.registry.rules import (
    STATUS_UPDATE_TYPES,
    check_transition,
    compacted_text,
    facts_of,
    has_expired,
    is_available,
    same_city,
    same_json,
)
from loopd.registry.tables import Reader, Record, UpdateText

# Called before a state that the owner asks for: (tx, record, state).
Release = Callable[[Tx, Record, SubjectState], None]

_SELLER_ACCOUNT = "seller_account"
_PERSON = "user:"

REGISTERED = "registered"
EXPIRED = "expired"

_REGISTERED_EVENTS = {
    SubjectKind.MATERIAL: EventKind.MATERIAL_REGISTERED,
    SubjectKind.PRODUCT: EventKind.PRODUCT_REGISTERED,
}
_STATUS_EVENTS = {SubjectKind.MATERIAL: EventKind.MATERIAL_STATUS, SubjectKind.PRODUCT: EventKind.PRODUCT_STATUS}


def release_nothing(tx: Tx, record: Record, state: SubjectState) -> None:
    """Nothing stands against a change of state."""


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
        self.tell(tx, record)
        return Registration(record, created=True)

    def update_status(self, tx: Tx, document: Document, release: Release = release_nothing) -> StatusChange:
        """Carry out a checked MaterialStatusUpdate or ProductStatusUpdate.

        `release` ends, or refuses to end, what stands against the change. The same update again gives the first
        answer; another one under its id is Conflict (409) `other_content`. NotFound (404) `unknown_material` or
        `unknown_product`; Conflict `transition` or `terminal` where the state may not follow.
        """
        value = document.value
        # A UUID is the same in either case.
        update_id = str(value["id"]).lower()
        earlier = tables.find_state_change(tx, update_id)
        if earlier is not None:
            if not same_json(read_json(earlier.document), value):
                raise _other_content()
            return StatusChange(value["id"], earlier.changed_at_ms, created=False)
        kind = next(kind for kind, name in STATUS_UPDATE_TYPES.items() if name == document.type)
        subject_id = value[f"{kind.value}_id"]
        record = self.require(tx, kind, subject_id)
        update = UpdateText(update_id, document.received, compacted_text(document))
        state = SubjectState(value["status"])
        check_transition(record.subject.state, state)
        release(tx, record, state)
        # What was released may have changed the state already.
        record = self.require(tx, kind, subject_id)
        changed = self._lay_state(tx, record, state, value.get("reason"), update)
        return StatusChange(value["id"], changed.state_changed_at_ms, created=True)

    def set_state(self, tx: Tx, record: Record, state: SubjectState, cause: str) -> Record:
        """Change a record's state for the node's own reasons, such as a Match; `cause` says which.

        Conflict (409) `transition` or `terminal`. Gives the record as it is then.
        """
        check_transition(record.subject.state, state)
        return self._lay_state(tx, record, state, cause, None)

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

    def status_update(self, source: RowSource, kind: SubjectKind, update_id: str) -> dict[str, Any]:
        """A MaterialStatusUpdate or ProductStatusUpdate as it was received; NotFound (404) `unknown_update`."""
        found = tables.find_state_change(source, update_id.lower())
        document = {} if found is None else _object(found.document)
        if document.get("@type") != STATUS_UPDATE_TYPES[kind]:
            raise NotFound("unknown_update", "No such update was carried out here.")
        return document

    async def status_updates(
        self, reader: Reader, kind: SubjectKind, subject_id: str | None, cursor: int | None, limit: int
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Updates that were carried out, newest first, of one subject or of all; and the cursor of the next page."""
        rows, following = await tables.page_of_updates(reader, kind, subject_id, cursor, limit)
        return [_object(row) for row in rows], following

    async def page(
        self, reader: Reader, kind: SubjectKind, limit: int, category: str | None = None, cursor: int | None = None
    ) -> Page:
        """Up to `limit` records of a kind, newest first; fewer where their documents reach LIST_MAX_BYTES."""
        records, next_cursor = await tables.page_of_records(reader, kind, category, cursor, limit, LIST_MAX_BYTES)
        return Page(records, next_cursor)

    async def numbered(self, reader: Reader, numbers: Sequence[int]) -> dict[int, Record]:
        """The records of some numbers, few enough for one list."""
        return await tables.records_numbered(reader, numbers)

    async def count_active(self, reader: Reader, kind: SubjectKind = SubjectKind.MATERIAL) -> int:
        """How many records of a kind can be had now: NodeInfo's `materials_active`."""
        return await tables.count_available(reader, kind, self._clock.now_ms())

    def document(self, record: Record) -> dict[str, Any]:
        """What was received, with its unknown fields."""
        return _object(record.document)

    def view(self, record: Record) -> dict[str, Any]:
        """A record as it is given out: what was received, and over it what this node adds or changed.

        `status` is `registered`. `availability` is `{status, updated_at, quantity}`: `status` one of `available`,
        `reserved`, `withdrawn`, and `expired` for what nobody took in time; `quantity` what is neither transferred nor
        reserved. A record that was handed over has its place and its chain of custody as of then. Everybody may see it,
        so that a person's account (`metadata.seller_account`) is left out.
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
        left = {"value": record.left.value, "unit": record.left.unit}
        return {
            **with_custody(_without_person(received), self.custody(record)),
            "current_city": record.current_city,
            "status": REGISTERED,
            "availability": {"status": status, "updated_at": format_timestamp(updated_at_ms), "quantity": left},
        }

    def custody(self, record: Record) -> list[dict[str, Any]]:
        """The events by which a record's chain of custody went on since it was registered."""
        return [] if record.custody is None else list(_object(record.custody)["events"])

    def _same_record(self, tx: Tx, document: Document, subject: Subject) -> Record:
        record = self.require(tx, subject.kind, subject.subject_id)
        if record.document != document.received and not same_json(self.document(record), document.value):
            raise _other_content()
        return record

    def _lay_state(
        self, tx: Tx, record: Record, state: SubjectState, cause: str | None, update: UpdateText | None
    ) -> Record:
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
        self.tell(tx, changed)
        return changed

    def tell(self, tx: Tx, record: Record) -> None:
        """A record is new or was changed: tell the listeners, and other cities where that is for them."""
        for listener in self._listeners:
            listener.record_changed(tx, record)
        if has_expired(record.subject.expires_ms, self._clock.now_ms()):
            return
        if same_city(record.current_city, self._city):
            self._announcer.record_changed(tx, record.subject)


def _without_person(received: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = received.get("metadata")
    if not isinstance(metadata, Mapping) or not str(metadata.get(_SELLER_ACCOUNT)).startswith(_PERSON):
        return received
    return {**received, "metadata": {key: stated for key, stated in metadata.items() if key != _SELLER_ACCOUNT}}


def _object(text: bytes) -> dict[str, Any]:
    value = read_json(text)
    if not isinstance(value, dict):
        raise TypeError("a stored document is a JSON object")
    return value


def _other_content() -> Conflict:
    return Conflict("other_content", "What is stored under this id has other content.")
