"""The event log's SQL; its tables are made by migration 0013."""

from loopd.database import Tx


def insert(tx: Tx, kind: str, subject: str, at_ms: int, data: bytes) -> int:
    """Append an entry; gives its id."""
    cursor = tx.execute(
        "INSERT INTO event (kind, subject, at_ms, data) VALUES (?, ?, ?, ?)", (kind, subject, at_ms, data)
    )
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted event has no row id")
    return cursor.lastrowid
