"""What of a record is left: reserved for a deal, released again, or handed over for good.

available = registered - transferred - reserved, exactly. The record's state follows: `reserved` when nothing is left,
`available` when some is again, `withdrawn` when all was transferred.
"""

import hashlib

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database import Tx
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.json_text import dump_json
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind, SubjectState
from loopd.registry import tables
from loopd.registry.handover import Handover, part_document, part_id
from loopd.registry.rules import MATERIAL_TYPE, PRODUCT_TYPE, facts_of
from loopd.registry.service import Registry
from loopd.registry.tables import Record

_TYPE = {SubjectKind.MATERIAL: MATERIAL_TYPE, SubjectKind.PRODUCT: PRODUCT_TYPE}


class Stock:
    """The quantities of the registry's records. Every call belongs to the transaction of what it is done for."""

    def __init__(self, registry: Registry, clock: Clock, audit: AuditLog) -> None:
        self._registry = registry
        self._clock = clock
        self._audit = audit

    def reserve(self, tx: Tx, subject_id: str, quantity: Quantity, cause: str) -> None:
        """Promise a quantity to one deal.

        Conflict (409) `not_available` for what nobody can have now, `unit_mismatch`, `quantity_above_available`.
        """
        record = self._require(tx, subject_id)
        if not self._registry.is_available(record.subject):
            state = "expired" if record.subject.available else record.subject.state.value
            raise Conflict("not_available", f"The {record.subject.kind.value} is {state}.")
        if quantity.dimension is not record.left.dimension:
            raise Conflict("unit_mismatch", f"{quantity.unit} cannot be compared with {record.subject.unit}.")
        if quantity.is_more_than(record.left):
            message = f"Only {record.left.value:f} {record.left.unit} is available."
            raise Conflict("quantity_above_available", message)
        record = tables.set_left(tx, record, record.left.minus(quantity))
        if record.left.value == 0:
            self._registry.set_state(tx, record, SubjectState.RESERVED, cause)
        else:
            self._registry.tell(tx, record)

    def release(self, tx: Tx, subject_id: str, quantity: Quantity, cause: str) -> None:
        """Take a promise back. What the owner reserved by hand meanwhile stays reserved."""
        record = self._require(tx, subject_id)
        nothing_was_left = record.left.value == 0
        record = tables.set_left(tx, record, record.left.plus(quantity))
        if nothing_was_left and record.subject.state is SubjectState.RESERVED:
            self._registry.set_state(tx, record, SubjectState.AVAILABLE, cause)
        else:
            self._registry.tell(tx, record)

    def hand_over(self, tx: Tx, subject_id: str, quantity: Quantity, handover: Handover) -> str | None:
        """What was reserved has arrived elsewhere.

        The whole of a record moves it and extends its chain of custody. A part becomes a record of its own, whose id
        is given. Conflict (409) `part_exists` where that id is registered as something else.
        """
        record = self._require(tx, subject_id)
        is_whole = quantity.in_base() == record.registered.in_base()
        record = tables.set_transferred(tx, record, record.transferred.plus(quantity))
        if record.transferred.in_base() == record.registered.in_base():
            # Told while it still counts as this city's.
            record = self._registry.set_state(tx, record, SubjectState.WITHDRAWN, f"transfer {handover.transfer_id}")
        child = None if is_whole else self._keep_part(tx, record, quantity, handover)
        if is_whole:
            custody = [*self._registry.custody(record), handover.custody_event()]
            self._registry.tell(tx, tables.move(tx, record, handover.to_city, custody))
        told = {"event": "handed_over", "transfer": handover.transfer_id, "to": handover.to_city, "part": child}
        self._audit.append(tx, AuditKind.REGISTRATION, subject_id, told)
        return child

    def _keep_part(self, tx: Tx, parent: Record, quantity: Quantity, handover: Handover) -> str:
        kind = parent.subject.kind
        child_id = part_id(parent.subject.subject_id, kind, handover.transfer_id)
        if self._registry.find(tx, child_id) is not None:
            raise Conflict("part_exists", f"{child_id} is registered already.")
        document = part_document(self._registry.document(parent), child_id, quantity, handover)
        body = dump_json(document)
        tables.insert_part(tx, facts_of(_TYPE[kind], document), body, parent.subject.subject_id, self._clock.now_ms())
        told = {
            "event": "registered",
            "kind": kind.value,
            "category": parent.subject.category,
            "parent": parent.subject.subject_id,
            "document_sha256": hashlib.sha256(body).hexdigest(),
        }
        self._audit.append(tx, AuditKind.REGISTRATION, child_id, told)
        return child_id

    def _require(self, tx: Tx, subject_id: str) -> Record:
        record = self._registry.find(tx, subject_id)
        if record is None:
            raise NotFound("unknown_subject", "No such material or product is registered here.")
        return record
