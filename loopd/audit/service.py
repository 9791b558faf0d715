"""The audit log's door: append within the transaction of what is recorded, check the chain, erase a payload."""

import secrets
from collections.abc import Callable, Mapping

from loopd.audit import tables
from loopd.audit.rules import SALT_BYTES, AuditKind, Break, ChainCheck, ChainReport, entry_hash, payload_digest
from loopd.clock import Clock
from loopd.database import Reader, Tx
from loopd.protocol.json_text import JSON, dump_json

__all__ = ["AuditKind", "AuditLog", "Break", "ChainReport"]

# Small enough that the event loop never works on one chunk for more than about a millisecond.
_CHUNK_ENTRIES = 200


class AuditLog:
    """The node's append-only log of registrations, settlements, signal changes and node interactions (§10.5)."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._clock = clock
        self._random_bytes = random_bytes

    def append(self, tx: Tx, kind: AuditKind, subject: str, payload: Mapping[str, JSON]) -> int:
        """Record what happened to `subject` (an id) in the transaction in which it happens; returns the sequence.

        `payload` is JSON. It tells what was done and points at documents by id or digest rather than repeating them.
        """
        # The head is read, not remembered: another unit's savepoint may have been rolled back since.
        last, previous_hash = tables.head(tx)
        sequence, at_ms = last + 1, self._clock.now_ms()
        body = dump_json(payload)
        salt = self._random_bytes(SALT_BYTES)
        digest = payload_digest(salt, body)
        link = entry_hash(previous_hash, sequence, at_ms, kind.value.encode(), subject.encode(), digest)
        tables.insert(tx, sequence, at_ms, kind.value, subject, body, salt, digest, link)
        return sequence

    def erase(self, tx: Tx, sequence: int, reason: str) -> bool:
        """Erase an entry's payload and record that; the chain still holds. False if there was none to erase.

        Backups made before still have it.
        """
        if not tables.erase_payload(tx, sequence):
            return False
        self.append(tx, AuditKind.OPERATOR, f"audit:{sequence}", {"event": "payload_erased", "reason": reason})
        return True

    async def verify(self, reader: Reader) -> ChainReport:
        """Walk the whole log, from a snapshot if it is being written to, and name the first entry that is broken."""
        check = ChainCheck()
        position = tables.FIRST_ROW
        while entries := await tables.entries_from(reader, position, _CHUNK_ENTRIES):
            for entry in entries:
                if not check.feed(entry):
                    return check.report
            position = entries[-1].sequence + 1
        return check.report
