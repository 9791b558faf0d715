"""Peers' health on the disk: a restart neither forgets an absence nor hurries a retry."""

import json

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.gossip.health import PeerHealth

# What only repeats itself, success or failure, is written down this often at most: it costs a write and tells little.
STORE_SPACING_MS = 60_000


def load(points: RowSource, node_id: str, now_ms: int) -> PeerHealth:
    """A node's stored health; that of a new one where there is none, or none that this version understands."""
    row = points.one("SELECT health FROM peer_health WHERE node_id = ?", (node_id,))
    if row is None:
        return PeerHealth.new(now_ms)
    try:
        return PeerHealth.from_row(json.loads(row["health"]))
    except ValueError:
        return PeerHealth.new(now_ms)


def save(tx: Tx, node_id: str, health: PeerHealth) -> None:
    """Store a node's health, unless the node was removed meanwhile."""
    tx.execute(
        "INSERT INTO peer_health (node_id, health) SELECT node_id, ? FROM node WHERE node_id = ?"
        " ON CONFLICT (node_id) DO UPDATE SET health = excluded.health",
        (json.dumps(health.to_row(), separators=(",", ":")), node_id),
    )


def worth_storing(before: PeerHealth, after: PeerHealth) -> bool:
    """Whether the change must survive a restart: a move to another state, or a success or failure after long."""
    return (
        after.state is not before.state
        or _slot(after.last_success_ms) != _slot(before.last_success_ms)
        or _slot(after.last_failure_ms) != _slot(before.last_failure_ms)
    )


def _slot(moment_ms: int | None) -> int | None:
    return None if moment_ms is None else moment_ms // STORE_SPACING_MS
