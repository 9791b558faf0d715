"""The audit chain, pure: what is hashed, and how a stored chain is checked.

Entry n's hash is SHA-256 over the hash of entry n - 1 (32 zero bytes before the first) and the encoding of entry n:
the tag, sequence and time as 64-bit big-endian integers, kind and subject each after its length in 32 bits, and the
payload's digest, SHA-256 over a 16-byte salt and the payload. Without the salt nobody can guess an erased payload from
its digest.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

GENESIS_HASH = bytes(32)
SALT_BYTES = 16

_TAG = b"loopd-audit-entry-v1\n"
_NUMBERS = struct.Struct(">qq")
_LENGTH = struct.Struct(">I")


class AuditKind(StrEnum):
    """What §10.5 demands a record of, and what the operator does to the node."""

    REGISTRATION = "registration"
    SETTLEMENT = "settlement"
    SIGNAL_CHANGE = "signal_change"
    NODE_INTERACTION = "node_interaction"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is found. Texts are bytes: what was tampered with need not be UTF-8."""

    sequence: int
    at_ms: int
    kind: bytes
    subject: bytes
    payload: bytes | None
    salt: bytes | None
    payload_digest: bytes
    entry_hash: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain stops being true: the first entry that is wrong or missing, and what is wrong with it."""

    sequence: int
    problem: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What came of a check: the entries that hold, how many of them are erased, and the last one's hash.

    A chain whose end was cut off is a shorter chain without a break: it shows only against a hash noted elsewhere.
    """

    entries: int
    erased: int
    head_hash: bytes
    first_break: Break | None


def payload_digest(salt: bytes, payload: bytes) -> bytes:
    """The 32 bytes that stand for the payload in the chain."""
    return sha256(salt + payload).digest()


def entry_hash(previous_hash: bytes, sequence: int, at_ms: int, kind: bytes, subject: bytes, digest: bytes) -> bytes:
    """The 32 bytes that stand for the entry and all before it."""
    return sha256(
        b"".join(
            (
                previous_hash,
                _TAG,
                _NUMBERS.pack(sequence, at_ms),
                _LENGTH.pack(len(kind)),
                kind,
                _LENGTH.pack(len(subject)),
                subject,
                digest,
            )
        )
    ).digest()


class ChainCheck:
    """Walks a chain from its first entry; `feed` each in order of sequence, then ask for the `report`."""

    def __init__(self) -> None:
        self._entries = 0
        self._erased = 0
        self._hash = GENESIS_HASH
        self._break: Break | None = None

    def feed(self, entry: StoredEntry) -> bool:
        """Whether the chain still holds with `entry`. After a break nothing more is looked at."""
        if self._break is None:
            self._break = self._find_break(entry)
        if self._break is not None:
            return False
        self._entries = entry.sequence
        self._erased += entry.payload is None
        self._hash = entry.entry_hash
        return True

    @property
    def report(self) -> ChainReport:
        return ChainReport(self._entries, self._erased, self._hash, self._break)

    def _find_break(self, entry: StoredEntry) -> Break | None:
        expected = self._entries + 1
        if entry.sequence < expected:
            return Break(entry.sequence, "it stands before the first entry")
        if entry.sequence > expected:
            return Break(expected, f"it is missing; entry {entry.sequence} comes next")
        if (entry.payload is None) != (entry.salt is None):
            return Break(expected, "its payload and its salt were not erased together")
        if (
            entry.payload is not None
            and entry.salt is not None
            and payload_digest(entry.salt, entry.payload) != entry.payload_digest
        ):
            return Break(expected, "its payload is not the one that was recorded")
        computed = entry_hash(self._hash, entry.sequence, entry.at_ms, entry.kind, entry.subject, entry.payload_digest)
        if computed != entry.entry_hash:
            return Break(expected, "its hash does not follow from its content and the entry before it")
        return None
