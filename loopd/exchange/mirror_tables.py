"""The SQL of the mirror: what was told to others, what others told, and the wishes between them."""

import sqlite3
from dataclasses import dataclass

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange.mirror_rules import EntityKey, RequestState, Version
from loopd.protocol.json_text import read_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import MIRROR_GAPS_PER_NODE_MAX

# Forgetting much at once would keep every other write waiting.
_PRUNED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ToldVersion:
    """The newest version that a node was told of an entity of this one."""

    counterpart: str
    version: int
    status: str


@dataclass(frozen=True, slots=True)
class Mirrored:
    """An entity of another node, as it was told last."""

    number: int
    key: EntityKey
    version: Version
    size_bytes: int
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class Gap:
    """An entity of which a later version exists than the one that is held."""

    key: EntityKey
    wanted: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Partner:
    """A node whose decisions this one mirrors. `compared_to` is how far in its list of what it told."""

    node: str
    compared_to: int
    compared_whole_at_ms: int
    attempts: int


@dataclass(frozen=True, slots=True)
class MadeRequest:
    """A wish of this node at a seller's, and what came of it: `answer` is the word in which it was refused."""

    number: int
    request_id: str
    key: EntityKey
    status: str
    reason: str | None
    state: RequestState
    answer: str | None
    asked_at_ms: int
    changed_at_ms: int


# The seller's side

# The versions that one node was told of one entity, from the oldest on; takes counterpart, entity, id, after, limit.
TOLD_VERSIONS = """
SELECT version, body FROM mirror_told
WHERE counterpart = ? AND entity = ? AND entity_id = ? AND version > ? ORDER BY version LIMIT ?
"""
# The newest version of each entity that one node was told of, oldest told first; takes counterpart, after, limit.
TOLD_NEWEST = """
SELECT number, entity, entity_id, version FROM mirror_told
WHERE counterpart = ? AND newest = 1 AND number > ? ORDER BY number LIMIT ?
"""


def told_to(source: RowSource, entity: MirroredEntity, entity_id: str) -> list[ToldVersion]:
    """Who was told of an entity of this node, and what last."""
    rows = source.all(
        "SELECT counterpart, version, status FROM mirror_told"
        " WHERE entity = ? AND entity_id = ? AND newest = 1 ORDER BY counterpart",
        (entity.value, entity_id),
    )
    return [ToldVersion(row["counterpart"], row["version"], row["status"]) for row in rows]


def find_told(source: RowSource, counterpart: str, entity: MirroredEntity, entity_id: str) -> ToldVersion | None:
    """What a node was told last of an entity of this one."""
    row = source.one(
        "SELECT version, status FROM mirror_told WHERE entity = ? AND entity_id = ? AND counterpart = ? AND newest = 1",
        (entity.value, entity_id, counterpart),
    )
    return None if row is None else ToldVersion(counterpart, row["version"], row["status"])


def insert_told(
    tx: Tx, counterpart: str, entity: MirroredEntity, entity_id: str, version: int, status: str, body: bytes
) -> int:
    """Keep a version that a node is told, as the newest; gives its number."""
    tx.execute(
        "UPDATE mirror_told SET newest = 0 WHERE entity = ? AND entity_id = ? AND counterpart = ? AND newest = 1",
        (entity.value, entity_id, counterpart),
    )
    cursor = tx.execute(
        "INSERT INTO mirror_told (counterpart, entity, entity_id, version, status, newest, body)"
        " VALUES (?, ?, ?, ?, ?, 1, ?)",
        (counterpart, entity.value, entity_id, version, status, body),
    )
    return _number(cursor)


def find_granted(source: RowSource, node: str, request_id: str) -> bytes | None:
    """The digest of a wish that was carried out before."""
    row = source.one("SELECT digest FROM mirror_granted WHERE node = ? AND request_id = ?", (node, request_id))
    return None if row is None else bytes(row["digest"])


def insert_granted(tx: Tx, node: str, request_id: str, digest: bytes, now_ms: int, forget_at_ms: int) -> None:
    """Remember a wish that is carried out, and forget some that nobody repeats any more."""
    tx.execute(
        "DELETE FROM mirror_granted WHERE rowid IN"
        " (SELECT rowid FROM mirror_granted WHERE forget_at_ms <= ? ORDER BY forget_at_ms LIMIT ?)",
        (now_ms, _PRUNED_AT_ONCE),
    )
    tx.execute(
        "INSERT INTO mirror_granted (node, request_id, digest, forget_at_ms) VALUES (?, ?, ?, ?)",
        (node, request_id, digest, forget_at_ms),
    )


# The other side

# What others told, the newest first; takes the number before which the page begins, and how many.
_MIRRORED = "SELECT * FROM mirror WHERE number < :before"
_IN_ORDER = " ORDER BY number DESC LIMIT :limit"


def mirrored_page(*, by_entity: bool, by_node: bool) -> str:
    """The query of a page of what others told; its parameters are before, limit and, where chosen, entity and node."""
    chosen = (" AND entity = :entity" if by_entity else "") + (" AND node = :node" if by_node else "")
    return _MIRRORED + chosen + _IN_ORDER


def find_mirrored(source: RowSource, key: EntityKey) -> Mirrored | None:
    """What is held of an entity of another node."""
    row = source.one("SELECT * FROM mirror WHERE node = ? AND entity = ? AND entity_id = ?", key_parameters(key))
    return None if row is None else mirrored_of(row)


def mirrored_of(row: sqlite3.Row) -> Mirrored:
    """A row of `mirror`."""
    version = Version(
        row["version"], row["follows"], row["status"], row["updated_at_ms"], read_json(bytes(row["document"]))
    )
    return Mirrored(row["number"], key_of(row), version, len(row["document"]), row["received_at_ms"])


def key_of(row: sqlite3.Row) -> EntityKey:
    """The key in a row that has one."""
    return EntityKey(row["node"], MirroredEntity(row["entity"]), row["entity_id"])


def put_mirrored(tx: Tx, key: EntityKey, version: Version, document: bytes, now_ms: int) -> None:
    """Keep a version as the one that is held."""
    tx.execute(
        "INSERT INTO mirror"
        " (node, entity, entity_id, version, follows, status, document, updated_at_ms, received_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (node, entity, entity_id) DO UPDATE SET version = excluded.version, follows = excluded.follows,"
        " status = excluded.status, document = excluded.document, updated_at_ms = excluded.updated_at_ms,"
        " received_at_ms = excluded.received_at_ms",
        (
            *key_parameters(key),
            version.number,
            version.follows,
            version.status,
            document,
            version.updated_at_ms,
            now_ms,
        ),
    )


_NOT_ASKED = "node NOT IN (SELECT value FROM json_each(:asked))"
# Gaps whose time has come, the first first, but those of nodes that are asked already (`asked`, a JSON array).
GAPS_DUE = f"""
SELECT * FROM mirror_gap WHERE next_attempt_at_ms <= :now_ms AND {_NOT_ASKED}
ORDER BY next_attempt_at_ms LIMIT :limit
"""


def gap_of(row: sqlite3.Row) -> Gap:
    """A row of `mirror_gap`."""
    return Gap(key_of(row), row["wanted"], row["attempts"])


def note_gap(tx: Tx, key: EntityKey, wanted: int, now_ms: int) -> None:
    """Remember that a later version exists, to be fetched at once. A schedule that runs already goes on."""
    tx.execute(
        "INSERT INTO mirror_gap (node, entity, entity_id, wanted, next_attempt_at_ms) SELECT ?, ?, ?, ?, ?"
        " WHERE (SELECT count(*) FROM mirror_gap WHERE node = ?) < ?"
        " ON CONFLICT (node, entity, entity_id) DO UPDATE SET wanted = max(wanted, excluded.wanted)",
        (*key_parameters(key), wanted, now_ms, key.node, MIRROR_GAPS_PER_NODE_MAX),
    )


def close_gap(tx: Tx, key: EntityKey, version: int) -> None:
    """Nothing up to that version is missing any more."""
    tx.execute(
        "DELETE FROM mirror_gap WHERE node = ? AND entity = ? AND entity_id = ? AND wanted <= ?",
        (*key_parameters(key), version),
    )


def postpone_gap(tx: Tx, key: EntityKey, next_attempt_at_ms: int) -> None:
    """Try again later."""
    tx.execute(
        "UPDATE mirror_gap SET attempts = attempts + 1, next_attempt_at_ms = ?"
        " WHERE node = ? AND entity = ? AND entity_id = ?",
        (next_attempt_at_ms, *key_parameters(key)),
    )


def postpone_gaps(tx: Tx, node: str, next_attempt_at_ms: int) -> None:
    """Try nothing of a node before that."""
    tx.execute(
        "UPDATE mirror_gap SET next_attempt_at_ms = ? WHERE node = ? AND next_attempt_at_ms < ?",
        (next_attempt_at_ms, node, next_attempt_at_ms),
    )


def hasten_gaps(tx: Tx, node: str, now_ms: int) -> None:
    """The node answers again: fetch at once what is missing of it."""
    tx.execute(
        "UPDATE mirror_gap SET next_attempt_at_ms = ? WHERE node = ? AND next_attempt_at_ms > ?", (now_ms, node, now_ms)
    )


# Nodes with which a comparison is due, the first first, but those that are asked already.
PARTNERS_DUE = f"""
SELECT * FROM mirror_partner WHERE next_comparison_at_ms <= :now_ms AND {_NOT_ASKED}
ORDER BY next_comparison_at_ms LIMIT :limit
"""
# When the next gap or comparison is due.
NEXT_DUE = f"""
SELECT min(due_ms) AS due_ms FROM
    (SELECT min(next_attempt_at_ms) AS due_ms FROM mirror_gap WHERE {_NOT_ASKED}
     UNION ALL SELECT min(next_comparison_at_ms) FROM mirror_partner WHERE {_NOT_ASKED})
"""


def partner_of(row: sqlite3.Row) -> Partner:
    """A row of `mirror_partner`."""
    return Partner(row["node"], row["compared_to"], row["compared_whole_at_ms"], row["attempts"])


def held_of(source: RowSource, node: str) -> tuple[int, int]:
    """How many entities of a node are held, and how large they are together."""
    row = source.one("SELECT held, held_bytes FROM mirror_partner WHERE node = ?", (node,))
    return (0, 0) if row is None else (row["held"], row["held_bytes"])


def expect(tx: Tx, node: str, next_comparison_at_ms: int) -> None:
    """A node may have something to tell."""
    tx.execute(
        "INSERT INTO mirror_partner (node, next_comparison_at_ms) VALUES (?, ?) ON CONFLICT (node) DO NOTHING",
        (node, next_comparison_at_ms),
    )


def set_held(tx: Tx, node: str, held: int, held_bytes: int, next_comparison_at_ms: int) -> None:
    """So much of a node is held now."""
    tx.execute(
        "INSERT INTO mirror_partner (node, held, held_bytes, next_comparison_at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (node) DO UPDATE SET held = excluded.held, held_bytes = excluded.held_bytes",
        (node, held, held_bytes, next_comparison_at_ms),
    )


def compare_now(tx: Tx, node: str, now_ms: int) -> None:
    """A comparison with the node is due."""
    tx.execute(
        "INSERT INTO mirror_partner (node, next_comparison_at_ms) VALUES (?, ?)"
        " ON CONFLICT (node) DO UPDATE SET next_comparison_at_ms = min(next_comparison_at_ms, ?), attempts = 0",
        (node, now_ms, now_ms),
    )


def compared(tx: Tx, node: str, compared_to: int, compared_whole_at_ms: int, next_comparison_at_ms: int) -> None:
    """A comparison went through, so far in the node's list."""
    tx.execute(
        "UPDATE mirror_partner SET compared_to = ?, compared_whole_at_ms = ?, attempts = 0, next_comparison_at_ms = ?"
        " WHERE node = ?",
        (compared_to, compared_whole_at_ms, next_comparison_at_ms, node),
    )


def postpone_comparison(tx: Tx, node: str, next_comparison_at_ms: int) -> None:
    """The node gave no list: try again later."""
    tx.execute(
        "UPDATE mirror_partner SET attempts = attempts + 1, next_comparison_at_ms = ? WHERE node = ?",
        (next_comparison_at_ms, node),
    )


# Wishes


def insert_request(
    tx: Tx, request_id: str, key: EntityKey, status: str, reason: str | None, now_ms: int
) -> MadeRequest:
    """Keep a wish of this node. IntegrityError where one waits for an answer."""
    cursor = tx.execute(
        "INSERT INTO mirror_request"
        " (request_id, node, entity, entity_id, status, reason, state, asked_at_ms, changed_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
        (request_id, *key_parameters(key), status, reason, now_ms, now_ms),
    )
    number = _number(cursor)
    return MadeRequest(number, request_id, key, status, reason, RequestState.QUEUED, None, now_ms, now_ms)


def settle_request(tx: Tx, number: int, state: RequestState, answer: str | None, now_ms: int) -> None:
    """Write what came of a wish, once."""
    tx.execute(
        "UPDATE mirror_request SET state = ?, answer = ?, changed_at_ms = ? WHERE number = ? AND state = 'queued'",
        (state.value, answer, now_ms, number),
    )


# The last wish on an entity; takes `key_parameters`.
LAST_REQUEST = """
SELECT * FROM mirror_request WHERE node = ? AND entity = ? AND entity_id = ? ORDER BY number DESC LIMIT 1
"""


def find_last_request(source: RowSource, key: EntityKey) -> MadeRequest | None:
    """The last wish on an entity."""
    row = source.one(LAST_REQUEST, key_parameters(key))
    return None if row is None else request_of(row)


def request_of(row: sqlite3.Row) -> MadeRequest:
    """A row of `mirror_request`."""
    return MadeRequest(
        row["number"],
        row["request_id"],
        key_of(row),
        row["status"],
        row["reason"],
        RequestState(row["state"]),
        row["answer"],
        row["asked_at_ms"],
        row["changed_at_ms"],
    )


def key_parameters(key: EntityKey) -> tuple[str, str, str]:
    """What names an entity in every table."""
    return key.node, key.entity.value, key.entity_id


def _number(cursor: sqlite3.Cursor) -> int:
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted row has a number")
    return cursor.lastrowid
