"""Wishes across the mirror: the other side of a deal asks, the seller's node decides."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.writer import Tx
from loopd.exchange import mirror_tables as tables
from loopd.exchange.mirror_rules import EntityKey, RequestState, check_wish
from loopd.exchange.mirror_views import request_json, status_request
from loopd.exchange.ports import HomeNode, Outbox, StatusChanges
from loopd.exchange.views import MIRROR_PATH
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.json_text import dump_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import STATUS_REQUEST_DELIVERY_MS, STATUS_REQUEST_MEMORY_MS

REQUEST_REFERENCE: Final = "mirror-request:"


class StatusRequests:
    """Both sides of a StatusRequest."""

    def __init__(
        self,
        node: HomeNode,
        clock: Clock,
        audit: AuditLog,
        outbox: Outbox,
        changes: StatusChanges,
        random_hex: Callable[[int], str],
    ) -> None:
        self._node = node
        self._clock = clock
        self._audit = audit
        self._outbox = outbox
        self._changes = changes
        self._random_hex = random_hex

    # The other side of the deal

    def ask(self, tx: Tx, key: EntityKey, status: str, reason: str | None) -> dict[str, Any]:
        """Ask the seller's node for a status; gives the wish as it stands, `queued`.

        NotFound (404) `unknown_mirror`; Invalid (400) `bad_status`; Conflict (409) `terminal`, `transition`,
        `already_asked`; Forbidden (403) `owner_decides`.
        """
        mirrored = tables.find_mirrored(tx, key)
        if mirrored is None:
            raise NotFound("unknown_mirror", f"No such {key.entity.value} of {key.node} is held here.")
        check_wish(key.entity, mirrored.version.status, status)
        last = tables.find_last_request(tx, key)
        if last is not None and last.state is RequestState.QUEUED:
            message = "A wish waits for the seller's node already."
            raise Conflict("already_asked", message, {"request": request_json(last)})
        now_ms = self._clock.now_ms()
        # The 0 keeps two letters from standing at a word's beginning: by chance the rest would pass as an IBAN.
        request_id = f"ASK-0{self._random_hex(8).upper()}"
        made = tables.insert_request(tx, request_id, key, status, reason, now_ms)
        body = dump_json(status_request(made, self._node.node_id, self._node.context_url))
        expires_at_ms = now_ms + STATUS_REQUEST_DELIVERY_MS
        self._outbox.enqueue(tx, key.node, MIRROR_PATH, body, expires_at_ms, f"{REQUEST_REFERENCE}{made.number}")
        self._record(tx, key, "status_asked", request_id, status)
        return request_json(made)

    def request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """How the seller's node finally answered a wish: 2xx granted, 0 not delivered in time, else refused."""
        if not reference.startswith(REQUEST_REFERENCE):
            return
        granted = status // 100 == 2
        state = RequestState.GRANTED if granted else RequestState.REFUSED if status else RequestState.EXPIRED
        number = int(reference.removeprefix(REQUEST_REFERENCE))
        tables.settle_request(tx, number, state, None if granted else reason, self._clock.now_ms())

    # The seller's side

    def receive(self, tx: Tx, caller_node_id: str, document: Document) -> None:
        """Carry out the wish of the other side of a deal; a repeat under the same id has no second effect.

        Invalid (400) `origin_mismatch`, `other_content`, `bad_status`; NotFound (404) `unknown_mirror`; Conflict (409)
        `terminal`, `transition`; Forbidden (403) `owner_decides`; besides, what the change of status itself refuses.
        """
        value = document.value
        if value["from"] != caller_node_id or value["owner"] != self._node.node_id:
            message = "A wish comes from the node that signs it, and goes to the one that decides."
            raise Invalid("origin_mismatch", message, {"from": value["from"], "owner": value["owner"]})
        request_id, digest = value["id"], sha256(document.received).digest()
        known = tables.find_granted(tx, caller_node_id, request_id)
        if known is not None:
            if known != digest:
                raise Invalid("other_content", "A wish with this id and other content was carried out before.")
            return
        entity, entity_id, status = MirroredEntity(value["entity"]), value["subject"], value["status"]
        told = tables.find_told(tx, caller_node_id, entity, entity_id)
        if told is None:
            raise NotFound("unknown_mirror", f"No such {entity.value} is told to {caller_node_id}.")
        check_wish(entity, told.status, status)
        details = {"reason": value["reason"]} if "reason" in value else {}
        self._changes.change_status(tx, entity, entity_id, status, caller_node_id, details)
        now_ms = self._clock.now_ms()
        tables.insert_granted(tx, caller_node_id, request_id, digest, now_ms, now_ms + STATUS_REQUEST_MEMORY_MS)
        self._record(tx, EntityKey(self._node.node_id, entity, entity_id), "status_granted", request_id, status)

    def _record(self, tx: Tx, key: EntityKey, event: str, request_id: str, status: str) -> None:
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            key.entity_id,
            {
                "event": event,
                "request": request_id,
                "node": key.node,
                "entity": key.entity.value,
                "status": status,
            },
        )
