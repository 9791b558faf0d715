"""Which peers are of this node's own choice: those that the operator named or approved, and those that were dialled.

Peers that came by themselves are never counted among them (see docs/protocol-notes.md, Peers).
"""

import sqlite3
from collections.abc import Callable, Iterable

from loopd.database.writer import Tx
from loopd.federation import nodes
from loopd.federation.nodes import AddedBy
from loopd.gossip.health import PeerHealth, State
from loopd.gossip.topology import CurrentPeer, Origin
from loopd.protocol.nodes import Standing

CHOSEN = """
SELECT n.*, c.node_id AS chosen, c.teller, c.chosen_at_ms FROM node n
LEFT JOIN chosen_peer c ON c.node_id = n.node_id WHERE n.standing = 'peer' ORDER BY n.node_id
"""

# Nodes that were dialled and have not accepted yet: how many, and those that were asked long ago.
_ASKED = "FROM chosen_peer c JOIN node n USING (node_id) WHERE n.standing = 'pending' AND c.teller IS NOT NULL"
COUNT_ASKED = f"SELECT count(*) AS asked {_ASKED}"
OVERDUE = f"SELECT c.node_id {_ASKED} AND c.chosen_at_ms < :before_ms"


def choose(tx: Tx, node_id: str, teller: str | None, now_ms: int) -> None:
    """Count a node of the directory as chosen: dialled because `teller` named it; None: approved by the operator."""
    tx.execute(
        "INSERT INTO chosen_peer (node_id, teller, chosen_at_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (node_id) DO UPDATE SET teller = excluded.teller, chosen_at_ms = excluded.chosen_at_ms",
        (node_id, teller, now_ms),
    )


def let_go(tx: Tx, node_id: str, now_ms: int) -> bool:
    """End what this node began by its own choice; the key stays known. False where it is not of that kind any more.

    It becomes one that is only heard of: it may still send requests, as bids, and be dialled again some day.
    """
    row = tx.one(
        "SELECT 1 FROM chosen_peer c JOIN node n USING (node_id) WHERE node_id = ? AND c.teller IS NOT NULL"
        " AND n.standing IN ('peer', 'pending') AND n.added_by <> 'operator'",
        (node_id,),
    )
    if row is None:
        return False
    tx.execute("DELETE FROM chosen_peer WHERE node_id = ?", (node_id,))
    nodes.set_standing(tx, node_id, Standing.INTRODUCED, now_ms)
    nodes.owe_handshake(tx, node_id, owed=False)
    return True


def is_chosen(tx: Tx, node_id: str) -> bool:
    """Whether the node is of this one's own choice."""
    return (
        tx.one(
            "SELECT 1 FROM node n LEFT JOIN chosen_peer c USING (node_id)"
            " WHERE node_id = ? AND (c.node_id IS NOT NULL OR n.added_by = 'operator')",
            (node_id,),
        )
        is not None
    )


def current_peers(rows: Iterable[sqlite3.Row], health_of: Callable[[str], PeerHealth | None]) -> list[CurrentPeer]:
    """The peers, from the rows of `CHOSEN`, as the topology counts them.

    One that nobody has looked at yet is suspect: neither there nor gone.
    """
    found = []
    for row in rows:
        known, health = nodes.known_node(row), health_of(row["node_id"])
        if row["added_by"] == AddedBy.OPERATOR or (row["chosen"] is not None and row["teller"] is None):
            origin = Origin.OPERATOR
        else:
            origin = Origin.INBOUND if row["chosen"] is None else Origin.OUTBOUND
        since_ms = row["added_at_ms"] if row["chosen_at_ms"] is None else row["chosen_at_ms"]
        state = State.SUSPECT if health is None else health.state
        found.append(CurrentPeer(known.node_id, known.location, state, origin, since_ms, row["teller"]))
    return found
