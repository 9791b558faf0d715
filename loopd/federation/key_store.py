"""Keys that nodes had before, and keys that count no more. Beside `nodes`, where the present ones are."""

import sqlite3
from collections.abc import Callable
from typing import Final

from loopd.crypto.keys import PublicKey
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.gossip.key_statements import Rotation, Statement
from loopd.protocol.errors import Unauthorized
from loopd.protocol.limits import (
    ANNOUNCEMENT_MAX_VALIDITY_MS,
    FORMER_KEYS_TRIED_MAX,
    REQUEST_CLOCK_TOLERANCE_MS,
    SEEN_GRACE_MS,
)

# As long as anything that a replaced key signed can be valid.
FORMER_KEY_KEPT_MS: Final = ANNOUNCEMENT_MAX_VALIDITY_MS + REQUEST_CLOCK_TOLERANCE_MS + SEEN_GRACE_MS


def is_revoked(source: RowSource, key: bytes) -> bool:
    """Whether nothing signed with that key counts."""
    return source.one("SELECT 1 FROM revoked_key WHERE public_key = ?", (key,)) is not None


def former_keys(source: RowSource, node_id: str) -> list[bytes]:
    """The keys that a node replaced lately, newest first."""
    return [row["public_key"] for row in _former(source, node_id)]


def _former(source: RowSource, node_id: str) -> list[sqlite3.Row]:
    return source.all(
        "SELECT public_key, replaced_at_ms FROM former_key WHERE node_id = ? ORDER BY replaced_at_ms DESC LIMIT ?",
        (node_id, FORMER_KEYS_TRIED_MAX),
    )


def holds_under_former_key(
    source: RowSource, node_id: str, signed_at_ms: int, holds: Callable[[PublicKey], bool]
) -> bool:
    """Whether a signature, made at that moment, is that of a key which the node had then and has replaced since.

    The moment may lie behind the replacement by as much as clocks may differ. Unauthorized `revoked_key` where it is
    that of a key which was revoked.
    """
    for row in _former(source, node_id):
        if signed_at_ms <= row["replaced_at_ms"] + REQUEST_CLOCK_TOLERANCE_MS and holds(PublicKey(row["public_key"])):
            return True
    revoked = source.all(
        "SELECT public_key FROM revoked_key WHERE node_id = ? ORDER BY revoked_at_ms DESC LIMIT ?",
        (node_id, FORMER_KEYS_TRIED_MAX),
    )
    for row in revoked:
        if holds(PublicKey(row["public_key"])):
            raise Unauthorized("revoked_key", f"that key of {node_id} was revoked")
    return False


def keep_former(tx: Tx, rotation: Rotation) -> None:
    """The old key of a rotation verifies what was signed before it."""
    tx.execute(
        "INSERT INTO former_key (node_id, public_key, replaced_at_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (node_id, public_key) DO NOTHING",
        (rotation.node_id, rotation.old_key, rotation.issued_at_ms),
    )


def revoke(tx: Tx, node_id: str, key: bytes, now_ms: int) -> None:
    """Nothing signed with the key counts any more, whoever it may be."""
    tx.execute("DELETE FROM former_key WHERE public_key = ?", (key,))
    tx.execute(
        "INSERT INTO revoked_key (public_key, node_id, revoked_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (key, node_id, now_ms),
    )


def prune(tx: Tx, now_ms: int) -> None:
    """Forget former keys that nothing valid can be signed with."""
    tx.execute("DELETE FROM former_key WHERE replaced_at_ms < ?", (now_ms - FORMER_KEY_KEPT_MS,))


def is_known(source: RowSource, statement_id: bytes) -> bool:
    """Whether a statement was taken before."""
    return source.one("SELECT 1 FROM key_statement WHERE statement_id = ?", (statement_id,)) is not None


def last_rotation(source: RowSource, node_id: str) -> int:
    """The highest sequence number of a node's rotations; 0 where there is none."""
    row = source.one(
        "SELECT max(sequence) AS last FROM key_statement WHERE node_id = ? AND kind = 'rotation'", (node_id,)
    )
    return 0 if row is None or row["last"] is None else int(row["last"])


def last_sequence(source: RowSource, node_id: str) -> int:
    """The highest sequence number of any of a node's statements; 0 where there is none."""
    row = source.one("SELECT max(sequence) AS last FROM key_statement WHERE node_id = ?", (node_id,))
    return 0 if row is None or row["last"] is None else int(row["last"])


def count_since(source: RowSource, node_id: str, since_ms: int) -> int:
    """How many statements of a node were taken since that moment."""
    row = source.one(
        "SELECT count(*) AS statements FROM key_statement WHERE node_id = ? AND received_at_ms > ?", (node_id, since_ms)
    )
    return 0 if row is None else int(row["statements"])


def keep_statement(tx: Tx, statement: Statement, body: bytes, came_from: str | None, now_ms: int) -> None:
    """Keep a statement, to be told to every peer."""
    kind = "rotation" if isinstance(statement, Rotation) else "revocation"
    tx.execute(
        "INSERT INTO key_statement (statement_id, node_id, kind, sequence, body, came_from, received_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (statement.statement_id, statement.node_id, kind, statement.sequence, body, came_from, now_ms),
    )


def next_untold(source: RowSource, node_id: str) -> sqlite3.Row | None:
    """The first statement that a peer was not told."""
    return source.one(
        "SELECT * FROM key_statement WHERE number >"
        " coalesce((SELECT number FROM key_statement_cursor WHERE node_id = ?), 0) ORDER BY number LIMIT 1",
        (node_id,),
    )


def told(tx: Tx, node_id: str, number: int) -> None:
    """A peer was told every statement up to this one. Nothing happens where it was removed meanwhile."""
    tx.execute(
        "INSERT INTO key_statement_cursor (node_id, number) SELECT node_id, ? FROM node WHERE node_id = ?"
        " ON CONFLICT (node_id) DO UPDATE SET number = max(number, excluded.number)",
        (number, node_id),
    )
