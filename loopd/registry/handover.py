"""What becomes of a record that changes hands: its chain of custody, and the id and document of a part. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from loopd.protocol.ids import SUBJECT_ID_MAX_CHARACTERS
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind

_TRACEABILITY: Final = "traceability"
_EVENTS: Final = "epcis_event_refs"
# Digits of a SHA-256 that tell the parts of one record from each other.
_PART_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class Handover:
    """A completed Transfer as the registry must know it: where to, and how it can be looked up."""

    transfer_id: str
    to_city: str
    url: str
    document_sha256: str

    def custody_event(self) -> dict[str, str]:
        """The event that a chain of custody is extended by (§4.4, `traceability.epcis_event_refs`)."""
        return {
            "event_type": "transaction",
            "event_id": self.transfer_id,
            "event_url": self.url,
            "hash_digest": self.document_sha256,
            "hash_method": "SHA-256",
        }


def part_id(parent_id: str, kind: SubjectKind, transfer_id: str) -> str:
    """The id of the part of a record that a Transfer takes: the parent's, and digits that follow from both ids."""
    digits = sha256(f"{parent_id}\n{transfer_id}".encode()).hexdigest()[:_PART_DIGITS].upper()
    # The 0 keeps two letters from standing at a word's beginning, where chance could make them look like an IBAN.
    suffix = f"0{digits}" if kind is SubjectKind.MATERIAL else f"-0{digits}"
    return parent_id[: SUBJECT_ID_MAX_CHARACTERS - len(suffix)] + suffix


def part_document(parent: Mapping[str, Any], child_id: str, quantity: Quantity, handover: Handover) -> dict[str, Any]:
    """The document of a part: the parent's, with the part's id, quantity and place, and its parent named."""
    document = {
        **parent,
        "id": child_id,
        "parent_id": parent["id"],
        "quantity": {**parent["quantity"], "value": quantity.value, "unit": quantity.unit},
        "current_city": handover.to_city,
    }
    return with_custody(document, [handover.custody_event()])


def with_custody(document: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A document whose chain of custody goes on with these events."""
    if not events:
        return dict(document)
    traceability = document.get(_TRACEABILITY, {})
    extended = [*traceability.get(_EVENTS, []), *events]
    return {**document, _TRACEABILITY: {**traceability, _EVENTS: extended}}
