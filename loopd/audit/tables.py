"""The audit log's SQL; its table and triggers are made by migration 0001."""

from loopd.audit.rules import GENESIS_HASH, StoredEntry
from loopd.database import Reader, RowSource, Tx

# Lower than any row a tampering hand can have put before the first entry.
FIRST_ROW = -(2**63)


def head(source: RowSource) -> tuple[int, bytes]:
    """Sequence and hash of the last entry; 0 and the genesis hash while there is none."""
    row = source.one("SELECT sequence, entry_hash FROM audit_entry ORDER BY sequence DESC LIMIT 1")
    return (row[0], row[1]) if row is not None else (0, GENESIS_HASH)


def insert(
    tx: Tx,
    sequence: int,
    at_ms: int,
    kind: str,
    subject: str,
    payload: bytes,
    salt: bytes,
    payload_digest: bytes,
    entry_hash: bytes,
) -> None:
    tx.execute(
        "INSERT INTO audit_entry (sequence, at_ms, kind, subject, payload, salt, payload_digest, entry_hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (sequence, at_ms, kind, subject, payload, salt, payload_digest, entry_hash),
    )


def erase_payload(tx: Tx, sequence: int) -> bool:
    """Whether there was a payload to erase."""
    cursor = tx.execute(
        "UPDATE audit_entry SET payload = NULL, salt = NULL WHERE sequence = ? AND payload IS NOT NULL", (sequence,)
    )
    return cursor.rowcount > 0


async def entries_from(reader: Reader, sequence: int, limit: int) -> list[StoredEntry]:
    """Up to `limit` entries from `sequence` on, in order."""
    rows = await reader.all(
        "SELECT sequence, at_ms, CAST(kind AS BLOB) AS kind, CAST(subject AS BLOB) AS subject, "
        "payload, salt, payload_digest, entry_hash FROM audit_entry WHERE sequence >= ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    return [StoredEntry(*row) for row in rows]
