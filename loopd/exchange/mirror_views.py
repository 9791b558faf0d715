"""The mirror's documents between nodes (MirrorUpdate, StatusRequest) and its answers of the API."""

from typing import Any

from loopd.exchange.entity_views import without_persons
from loopd.exchange.mirror_rules import REQUEST_TYPE, UPDATE_TYPE, Told
from loopd.exchange.mirror_tables import MadeRequest, Mirrored
from loopd.exchange.views import SCHEMA_VERSION
from loopd.protocol.timestamps import format_timestamp


def mirror_update(told: Told, context_url: str) -> dict[str, Any]:
    """What the seller's node tells the other side: one version of an entity."""
    key, version = told.key, told.version
    return {
        "@context": context_url,
        "@type": UPDATE_TYPE,
        "schema_version": SCHEMA_VERSION,
        "owner": key.node,
        "counterpart": told.counterpart,
        "entity": key.entity.value,
        "id": key.entity_id,
        "version": version.number,
        "follows": version.follows,
        "status": version.status,
        "updated_at": format_timestamp(version.updated_at_ms),
        "document": dict(version.document),
    }


def status_request(made: MadeRequest, asker: str, context_url: str) -> dict[str, Any]:
    """What the other side asks the seller's node for."""
    document = {
        "@context": context_url,
        "@type": REQUEST_TYPE,
        "schema_version": SCHEMA_VERSION,
        "id": made.request_id,
        "from": asker,
        "owner": made.key.node,
        "entity": made.key.entity.value,
        "subject": made.key.entity_id,
        "status": made.status,
        "issued_at": format_timestamp(made.asked_at_ms),
    }
    return document if made.reason is None else {**document, "reason": made.reason}


def mirrored_json(mirrored: Mirrored, request: MadeRequest | None) -> dict[str, Any]:
    """An entity of another node as everybody may see it, with the last wish that was sent there."""
    key, version = mirrored.key, mirrored.version
    return {
        "node": key.node,
        "entity": key.entity.value,
        "id": key.entity_id,
        "version": version.number,
        "status": version.status,
        "updated_at": format_timestamp(version.updated_at_ms),
        "received_at": format_timestamp(mirrored.received_at_ms),
        "document": without_persons(version.document),
        "request": None if request is None else request_json(request),
    }


def request_json(request: MadeRequest) -> dict[str, Any]:
    """A wish of this node; `answer` is the word in which the seller's node refused it."""
    return {
        "id": request.request_id,
        "status": request.status,
        "reason": request.reason,
        "state": request.state.value,
        "answer": request.answer,
        "asked_at": format_timestamp(request.asked_at_ms),
        "changed_at": format_timestamp(request.changed_at_ms),
    }
