"""The directory of other nodes: who they are, how they stand to this one, and the key each is held to (§9.1).

A key that came by handshake or from the operator is pinned: an introduction never replaces it, and a handshake with
another key is refused before it gets here. Only the functions of this file write the `node` table.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from loopd.database.readers import Reader
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.protocol.geo import Location
from loopd.protocol.limits import HANDSHAKE_CLAIM_MAX_MS
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing

# Little is kept of an introduced origin, so many fit. Beyond it one of whom nothing is held makes room, else a new
# introduction is refused.
INTRODUCED_NODES_MAX = 10_000

# Handshakes closer together than this do not have every valid announcement sent again.
FLOODS_AGAIN_SPACING_MS = 60_000

_COLUMNS = "node_id, standing, auth, endpoint, public_key, lat, lon, features, endpoint_by_operator, name"


class AddedBy(StrEnum):
    """What brought a node into the directory."""

    OPERATOR = "operator"
    HANDSHAKE = "handshake"
    INTRODUCTION = "introduction"


@dataclass(frozen=True, slots=True)
class Admission:
    """What a handshake, made or received, establishes about another node."""

    node_id: str
    standing: Standing
    auth: PeerAuth
    added_by: AddedBy
    name: str
    endpoint: str
    public_key: bytes | None
    location: Location | None
    features: frozenset[str]
    handshake_at_ms: int
    endpoint_by_operator: bool = False


@dataclass(frozen=True, slots=True)
class HandshakeClaim:
    """A handshake that waits for the operator: what another node says of itself, signed by the key it shows."""

    node_id: str
    name: str
    endpoint: str
    public_key: bytes | None
    features: frozenset[str]
    handshake_at_ms: int
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A directory entry with what only admission and the operator's list need."""

    known: KnownNode
    name: str
    added_by: AddedBy
    key_source: AddedBy | None
    introduced_by: str | None
    handshake_at_ms: int
    handshake_owed: bool
    added_at_ms: int

    @property
    def pinned(self) -> bool:
        """Whether the key stands until the operator says otherwise; an introduced one gives way to a handshake."""
        return self.known.public_key is not None and self.key_source is not AddedBy.INTRODUCTION

    @property
    def is_wanted(self) -> bool:
        """Whether the operator added the node, or this one asked it to be a peer."""
        return self.added_by is AddedBy.OPERATOR or self.known.standing is Standing.PENDING


def known_node(row: sqlite3.Row) -> KnownNode:
    """The directory's row as the other rooms see it."""
    location = None if row["lat"] is None or row["lon"] is None else Location(row["lat"], row["lon"])
    return KnownNode(
        row["node_id"],
        Standing(row["standing"]),
        PeerAuth(row["auth"]),
        row["endpoint"],
        row["public_key"],
        location,
        _features(row["features"]),
        bool(row["endpoint_by_operator"]),
        row["name"],
    )


def find(source: RowSource, node_id: str) -> KnownNode | None:
    """The node of that id, however it stands."""
    row = source.one(f"SELECT {_COLUMNS} FROM node WHERE node_id = ?", (node_id,))
    return None if row is None else known_node(row)


def find_record(source: RowSource, node_id: str) -> NodeRecord | None:
    """The whole directory entry of a node."""
    row = source.one("SELECT * FROM node WHERE node_id = ?", (node_id,))
    return None if row is None else node_record(row)


def node_record(row: sqlite3.Row) -> NodeRecord:
    """The directory's row, whole."""
    return NodeRecord(
        known_node(row),
        row["name"] or row["node_id"],
        AddedBy(row["added_by"]),
        AddedBy(row["key_source"]) if row["key_source"] else None,
        row["introduced_by"],
        row["handshake_at_ms"],
        bool(row["handshake_owed"]),
        row["added_at_ms"],
    )


def peers(tx: Tx) -> list[KnownNode]:
    """All nodes in the standing of a peer."""
    return [known_node(row) for row in tx.all(f"SELECT {_COLUMNS} FROM node WHERE standing = 'peer'")]


async def destinations(reader: Reader) -> list[KnownNode]:
    """All nodes that something could go to: peers, and those that peers introduced."""
    rows = await reader.all(f"SELECT {_COLUMNS} FROM node WHERE standing IN ('peer', 'introduced')")
    return await asyncio.to_thread(lambda: [known_node(row) for row in rows])


def count(source: RowSource, standing: Standing) -> int:
    """How many nodes stand so."""
    row = source.one("SELECT count(*) AS nodes FROM node WHERE standing = ?", (standing.value,))
    return 0 if row is None else int(row["nodes"])


def admit(tx: Tx, admission: Admission, now_ms: int) -> None:
    """Write what a handshake establishes. The key becomes pinned; a location that is not known keeps the known one.

    Another endpoint than the operator gave loses his permission to lie in a private network. Who shakes hands again may
    have lost what it had, so every flood that is still valid goes out to it once more; it knows a repeat.
    """
    location = admission.location
    values = {
        "node_id": admission.node_id,
        "standing": admission.standing.value,
        "auth": admission.auth.value,
        "added_by": admission.added_by.value,
        "name": admission.name,
        "endpoint": admission.endpoint,
        "endpoint_by_operator": admission.endpoint_by_operator,
        "public_key": admission.public_key,
        "key_source": None if admission.public_key is None else admission.added_by.value,
        "lat": location.lat if location else None,
        "lon": location.lon if location else None,
        "features": _features_json(admission.features),
        "handshake_at_ms": admission.handshake_at_ms,
        "now_ms": now_ms,
    }
    anew = _begins_anew(tx, admission)
    tx.execute(
        "INSERT INTO node (node_id, standing, auth, added_by, name, endpoint, endpoint_by_operator, public_key,"
        " key_source, lat, lon, features, handshake_at_ms, added_at_ms, changed_at_ms)"
        " VALUES (:node_id, :standing, :auth, :added_by, :name, :endpoint, :endpoint_by_operator, :public_key,"
        " :key_source, :lat, :lon, :features, :handshake_at_ms, :now_ms, :now_ms)"
        " ON CONFLICT (node_id) DO UPDATE SET standing = excluded.standing, auth = excluded.auth,"
        " added_by = CASE WHEN node.added_by = 'operator' THEN 'operator' ELSE excluded.added_by END,"
        " name = excluded.name, endpoint_by_operator = max(excluded.endpoint_by_operator,"
        " node.endpoint_by_operator AND node.endpoint = excluded.endpoint), endpoint = excluded.endpoint,"
        " public_key = coalesce(excluded.public_key, node.public_key),"
        " key_source = coalesce(excluded.key_source, node.key_source), introduced_by = NULL,"
        " lat = coalesce(excluded.lat, node.lat), lon = coalesce(excluded.lon, node.lon),"
        " features = excluded.features, handshake_owed = 0, changed_at_ms = excluded.changed_at_ms,"
        " handshake_at_ms = max(node.handshake_at_ms, excluded.handshake_at_ms)",
        values,
    )
    if anew:
        tx.execute("UPDATE outbox_cursor SET flood_entry = 0 WHERE node_id = ?", (admission.node_id,))
    tx.execute("DELETE FROM handshake_claim WHERE node_id = ?", (admission.node_id,))


def _begins_anew(tx: Tx, admission: Admission) -> bool:
    """Whether the node is to get what is valid from the start: it is no peer yet, or shakes hands after a while.

    A peer that comes with an empty database shakes hands again; one that does so all the time gets nothing by it.
    """
    row = tx.one("SELECT standing, handshake_at_ms FROM node WHERE node_id = ?", (admission.node_id,))
    if row is None or row["standing"] != Standing.PEER.value or admission.handshake_at_ms == 0:
        return True
    return bool(admission.handshake_at_ms - row["handshake_at_ms"] >= FLOODS_AGAIN_SPACING_MS)


def owe_handshake(tx: Tx, node_id: str, owed: bool) -> None:
    """Remember that this node still has to shake hands with that one, or that it has."""
    tx.execute("UPDATE node SET handshake_owed = ? WHERE node_id = ?", (owed, node_id))


def record_claim(tx: Tx, claim: HandshakeClaim) -> None:
    """Keep a handshake until the operator decides; a newer one of the same node takes its place.

    How long it waits counts from the first, so that nobody keeps a place by asking again.
    """
    tx.execute(
        "INSERT INTO handshake_claim (node_id, name, endpoint, public_key, features, handshake_at_ms, received_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id) DO UPDATE SET name = excluded.name,"
        " endpoint = excluded.endpoint, public_key = excluded.public_key, features = excluded.features,"
        " handshake_at_ms = excluded.handshake_at_ms",
        (
            claim.node_id,
            claim.name,
            claim.endpoint,
            claim.public_key,
            _features_json(claim.features),
            claim.handshake_at_ms,
            claim.received_at_ms,
        ),
    )


def find_claim(source: RowSource, node_id: str) -> HandshakeClaim | None:
    """The handshake of that node which waits for the operator."""
    row = source.one("SELECT * FROM handshake_claim WHERE node_id = ?", (node_id,))
    return None if row is None else handshake_claim(row)


def handshake_claim(row: sqlite3.Row) -> HandshakeClaim:
    """A waiting handshake's row."""
    return HandshakeClaim(
        row["node_id"],
        row["name"],
        row["endpoint"],
        row["public_key"],
        _features(row["features"]),
        row["handshake_at_ms"],
        row["received_at_ms"],
    )


def count_claims(source: RowSource) -> int:
    """How many handshakes wait."""
    row = source.one("SELECT count(*) AS claims FROM handshake_claim")
    return 0 if row is None else int(row["claims"])


def prune_claims(tx: Tx, now_ms: int) -> int:
    """Forget handshakes that waited too long for the operator; how many."""
    since_ms = now_ms - HANDSHAKE_CLAIM_MAX_MS
    return tx.execute("DELETE FROM handshake_claim WHERE received_at_ms <= ?", (since_ms,)).rowcount


def remove_claim(tx: Tx, node_id: str) -> bool:
    """Forget a waiting handshake; False where there is none."""
    return tx.execute("DELETE FROM handshake_claim WHERE node_id = ?", (node_id,)).rowcount > 0


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a peer says of an origin whose messages it relays."""

    node_id: str
    endpoint: str
    public_key: bytes
    location: Location
    features: frozenset[str]
    introduced_by: str


def introduce(tx: Tx, introduction: Introduction, now_ms: int) -> bool:
    """Pin the key of an origin that a peer relays. False where the node is known already or no more fit."""
    if find(tx, introduction.node_id) is not None:
        return False
    if count(tx, Standing.INTRODUCED) >= INTRODUCED_NODES_MAX and not _forget_idle_introduction(tx):
        return False
    tx.execute(
        "INSERT INTO node (node_id, standing, auth, added_by, endpoint, public_key, key_source, introduced_by,"
        " lat, lon, features, added_at_ms, changed_at_ms)"
        " VALUES (?, 'introduced', 'signed', 'introduction', ?, ?, 'introduction', ?, ?, ?, ?, ?, ?)",
        (
            introduction.node_id,
            introduction.endpoint,
            introduction.public_key,
            introduction.introduced_by,
            introduction.location.lat,
            introduction.location.lon,
            _features_json(introduction.features),
            now_ms,
            now_ms,
        ),
    )
    return True


def _forget_idle_introduction(tx: Tx) -> bool:
    """Make room: forget the oldest introduced node of which no message is held and for which nothing waits."""
    forgotten = tx.execute(
        "DELETE FROM node WHERE node_id = (SELECT node_id FROM node n WHERE standing = 'introduced'"
        " AND NOT EXISTS (SELECT 1 FROM message WHERE origin = n.node_id)"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE target = n.node_id) ORDER BY changed_at_ms LIMIT 1)"
    )
    return forgotten.rowcount > 0


def rekey(tx: Tx, node_id: str, key: bytes | None, now_ms: int) -> None:
    """Hold a node to another key, by its own statement; None: to none, until somebody settles which."""
    tx.execute(
        "UPDATE node SET public_key = :key, key_source = iif(:key IS NULL, NULL, key_source),"
        " changed_at_ms = :now_ms WHERE node_id = :node_id",
        {"key": key, "now_ms": now_ms, "node_id": node_id},
    )


def set_standing(tx: Tx, node_id: str, standing: Standing, now_ms: int) -> None:
    """Move a node to another standing."""
    tx.execute("UPDATE node SET standing = ?, changed_at_ms = ? WHERE node_id = ?", (standing.value, now_ms, node_id))


def set_auth(tx: Tx, node_id: str, auth: PeerAuth, now_ms: int) -> None:
    """Change how a node's requests are authenticated; the operator's decision alone."""
    tx.execute("UPDATE node SET auth = ?, changed_at_ms = ? WHERE node_id = ?", (auth.value, now_ms, node_id))


def set_location(tx: Tx, node_id: str, location: Location, now_ms: int) -> None:
    """Keep where a node says it is, in its NodeInfo."""
    tx.execute(
        "UPDATE node SET lat = ?, lon = ?, changed_at_ms = ? WHERE node_id = ?",
        (location.lat, location.lon, now_ms, node_id),
    )


def remove(tx: Tx, node_id: str) -> bool:
    """Forget a node with its cursor and health; False where it is not known."""
    return tx.execute("DELETE FROM node WHERE node_id = ?", (node_id,)).rowcount > 0


@lru_cache(maxsize=1024)
def _features(text: str) -> frozenset[str]:
    """The stored list, read once: every request of a node asks for it."""
    return frozenset(json.loads(text))


def _features_json(features: Iterable[str]) -> str:
    return json.dumps(sorted(features), separators=(",", ":"))
