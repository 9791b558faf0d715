"""The signals' SQL: what other nodes published, as this node last fetched it."""

import json
from dataclasses import dataclass

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.signals.rules import SignalConfiguration

# Of each node: the one in force, the next, and the last of before, for as long as nothing newer has begun.
CONFIGURATIONS_PER_NODE = 3


def save(tx: Tx, configuration: SignalConfiguration, fetched_at_ms: int) -> None:
    """Keep a fetched configuration; one that begins at the same moment is replaced, the oldest beyond three go."""
    tx.execute(
        "INSERT INTO signal_configuration (node_id, valid_from_ms, valid_until_ms, signals, fetched_at_ms)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (node_id, valid_from_ms) DO UPDATE SET"
        " valid_until_ms = excluded.valid_until_ms, signals = excluded.signals, fetched_at_ms = excluded.fetched_at_ms",
        (
            configuration.node_id,
            configuration.valid_from_ms,
            configuration.valid_until_ms,
            json.dumps(dict(configuration.signals), sort_keys=True, separators=(",", ":")),
            fetched_at_ms,
        ),
    )
    tx.execute(
        "DELETE FROM signal_configuration WHERE node_id = ? AND valid_from_ms NOT IN (SELECT valid_from_ms"
        " FROM signal_configuration WHERE node_id = ? ORDER BY fetched_at_ms DESC, valid_from_ms DESC LIMIT ?)",
        (configuration.node_id, configuration.node_id, CONFIGURATIONS_PER_NODE),
    )


def configuration_in_force(source: RowSource, node_id: str, now_ms: int) -> SignalConfiguration | None:
    """The configuration of a node with the latest start that has come."""
    row = source.one(
        "SELECT valid_from_ms, valid_until_ms, signals FROM signal_configuration"
        " WHERE node_id = ? AND valid_from_ms <= ? ORDER BY valid_from_ms DESC LIMIT 1",
        (node_id, now_ms),
    )
    if row is None:
        return None
    return SignalConfiguration(node_id, json.loads(row["signals"]), row["valid_from_ms"], row["valid_until_ms"])


@dataclass(frozen=True, slots=True)
class Fetched:
    """When something of a node was fetched last, and the end of what is known of it."""

    at_ms: int
    known_until_ms: int


def last_fetched(source: RowSource, node_id: str) -> Fetched | None:
    """How recent the knowledge of a node's signals is; None where nothing was ever fetched."""
    row = source.one(
        "SELECT max(fetched_at_ms) AS at_ms, max(valid_until_ms) AS until_ms FROM signal_configuration"
        " WHERE node_id = ?",
        (node_id,),
    )
    return None if row is None or row["at_ms"] is None else Fetched(row["at_ms"], row["until_ms"])
