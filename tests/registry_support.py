"""A registry to test with: a city, an announcer that writes down what it is told, and documents."""

import json
from typing import Any
from uuid import UUID

from loopd.database import Tx
from loopd.protocol.subjects import Subject, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.registry.service import Registry

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
NOW_MS = 1_790_000_000_000
PRODUCT_ID = "PRD-DE-MUC-2026-DESK-F4A7B2"


class Munich:
    city = "Munich"


class RecordingAnnouncer:
    """Writes down what it is told; `fail` makes it raise, `nothing_to_tell` makes it announce nothing."""

    def __init__(self) -> None:
        self.changed: list[Subject] = []
        self.announced: list[Subject] = []
        self.fail = False
        self.nothing_to_tell = False

    def record_changed(self, tx: Tx, subject: Subject) -> bytes | None:
        if self.fail:
            raise RuntimeError("the announcer failed")
        self.changed.append(subject)
        return None

    def announce(self, tx: Tx, subject: Subject) -> bytes | None:
        if self.nothing_to_tell:
            return None
        self.announced.append(subject)
        return bytes(32)


def set_state(registry: Registry, tx: Tx, subject_id: str, state: SubjectState, cause: str) -> Subject:
    """Change a registered subject's state for the node's own reasons."""
    record = registry.find(tx, subject_id)
    assert record is not None
    return registry.set_state(tx, record, state, cause).subject


def material_id(number: int = 0) -> str:
    return f"MAT-DE-MUC-2026-FOOD-{number:06d}"


def material_json(number: int = 0, **changes: Any) -> bytes:
    """A MaterialDNA of Munich, available from NOW_MS on."""
    value = {
        "@context": CONTEXT,
        "@type": "MaterialDNA",
        "schema_version": "0.2.0",
        "id": material_id(number),
        "category": "organic-food",
        "quantity": {"value": 500, "unit": "kg"},
        "origin_city": "Munich",
        "current_city": "Munich",
        "available_from": format_timestamp(NOW_MS),
        **changes,
    }
    return json.dumps(value).encode()


def product_json(**changes: Any) -> bytes:
    """A ProductDNA of Munich, available from NOW_MS on."""
    value = {
        "@context": CONTEXT,
        "@type": "ProductDNA",
        "schema_version": "0.2.0",
        "id": PRODUCT_ID,
        "product_category": "furniture-office",
        "name": "Standing desk",
        "condition": "good",
        "quantity": {"value": 12, "unit": "piece"},
        "origin_city": "Munich",
        "current_city": "Munich",
        "available_from": format_timestamp(NOW_MS),
        **changes,
    }
    return json.dumps(value).encode()


def status_update_json(number: int, status: str, **changes: Any) -> bytes:
    """A MaterialStatusUpdate of the material `material_id()`."""
    value = {
        "@context": CONTEXT,
        "@type": "MaterialStatusUpdate",
        "schema_version": "0.2.0",
        "id": str(UUID(int=number, version=4)),
        "material_id": material_id(),
        "status": status,
        "updated_at": format_timestamp(NOW_MS),
        **changes,
    }
    return json.dumps(value).encode()
