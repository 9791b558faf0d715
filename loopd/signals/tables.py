"""The signals' SQL: this node's own configurations, and what other nodes published, as it was last fetched."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.protocol.limits import SIGNAL_REMARKS_PER_NODE_MAX
from loopd.signals.rules import Approval, SignalConfiguration
from loopd.signals.watch import Oddity, Remark

# Of each node: the one in force, the next, and the last of before, for as long as nothing newer has begun.
CONFIGURATIONS_PER_NODE = 3

_CONFIGURATION = "SELECT node_id, valid_from_ms, valid_until_ms, signals FROM signal_configuration"
# What is kept of all other nodes.
ALL_CONFIGURATIONS = f"{_CONFIGURATION} ORDER BY node_id, valid_from_ms"


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
            _signals_text(configuration.signals),
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
        f"{_CONFIGURATION} WHERE node_id = ? AND valid_from_ms <= ? ORDER BY valid_from_ms DESC LIMIT 1",
        (node_id, now_ms),
    )
    return None if row is None else configuration_of(row)


@dataclass(frozen=True, slots=True)
class Fetched:
    """When something of a node was fetched last, and the end of what is known of it."""

    at_ms: int
    known_until_ms: int


def configuration_of(row: sqlite3.Row) -> SignalConfiguration:
    """A row of another node's configurations."""
    return SignalConfiguration(row["node_id"], json.loads(row["signals"]), row["valid_from_ms"], row["valid_until_ms"])


def last_fetched(source: RowSource, node_id: str) -> Fetched | None:
    """How recent the knowledge of a node's signals is; None where nothing was ever fetched."""
    row = source.one(
        "SELECT max(fetched_at_ms) AS at_ms, max(valid_until_ms) AS until_ms FROM signal_configuration"
        " WHERE node_id = ?",
        (node_id,),
    )
    return None if row is None or row["at_ms"] is None else Fetched(row["at_ms"], row["until_ms"])


def known_configurations(source: RowSource, node_id: str) -> list[SignalConfiguration]:
    """What is kept of another node's configurations, in order of their start."""
    rows = source.all(f"{_CONFIGURATION} WHERE node_id = ? ORDER BY valid_from_ms", (node_id,))
    return [configuration_of(row) for row in rows]


def known_nodes(source: RowSource) -> list[str]:
    """The nodes of which a configuration is kept."""
    return [row["node_id"] for row in source.all("SELECT DISTINCT node_id FROM signal_configuration ORDER BY node_id")]


# What is odd about them


def save_remark(tx: Tx, node_id: str, remark: Remark, noticed_at_ms: int) -> bool:
    """Keep a remark; False where it was made before. The oldest go when a node has too many."""
    cursor = tx.execute(
        "INSERT OR IGNORE INTO signal_remark (node_id, valid_from_ms, kind, categories, noticed_at_ms)"
        " VALUES (?, ?, ?, ?, ?)",
        (node_id, remark.valid_from_ms, remark.kind.value, json.dumps(remark.categories), noticed_at_ms),
    )
    tx.execute(
        "DELETE FROM signal_remark WHERE node_id = ? AND noticed_at_ms < (SELECT min(noticed_at_ms) FROM (SELECT"
        " noticed_at_ms FROM signal_remark WHERE node_id = ? ORDER BY noticed_at_ms DESC LIMIT ?))",
        (node_id, node_id, SIGNAL_REMARKS_PER_NODE_MAX),
    )
    return cursor.rowcount > 0


def remarks(source: RowSource, node_id: str) -> list[tuple[int, Remark]]:
    """What was noticed about a node, with the time at which it was, the newest first."""
    rows = source.all(
        "SELECT valid_from_ms, kind, categories, noticed_at_ms FROM signal_remark WHERE node_id = ?"
        " ORDER BY noticed_at_ms DESC, valid_from_ms DESC, kind",
        (node_id,),
    )
    return [
        (row["noticed_at_ms"], Remark(Oddity(row["kind"]), row["valid_from_ms"], tuple(json.loads(row["categories"]))))
        for row in rows
    ]


# This node's own


def save_own(tx: Tx, configuration: SignalConfiguration) -> None:
    """Keep a configuration that a vote, or the first vote's beginning, made."""
    approved_by = configuration.approved_by
    tx.execute(
        "INSERT INTO own_signal_configuration (valid_from_ms, valid_until_ms, signals, vote_id, turnout, approval)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            configuration.valid_from_ms,
            configuration.valid_until_ms,
            _signals_text(configuration.signals),
            None if approved_by is None else approved_by.vote_id,
            None if approved_by is None else str(approved_by.turnout),
            None if approved_by is None else str(approved_by.approval),
        ),
    )


def own_begun(source: RowSource, node_id: str, moment_ms: int) -> SignalConfiguration | None:
    """The stored configuration that had begun last at a moment."""
    row = source.one(
        "SELECT * FROM own_signal_configuration WHERE valid_from_ms <= ? ORDER BY valid_from_ms DESC LIMIT 1",
        (moment_ms,),
    )
    return None if row is None else _own(node_id, row)


def own_configurations(source: RowSource, node_id: str) -> list[SignalConfiguration]:
    """All that is stored, in order of their start."""
    return [_own(node_id, row) for row in source.all("SELECT * FROM own_signal_configuration ORDER BY valid_from_ms")]


def _own(node_id: str, row: sqlite3.Row) -> SignalConfiguration:
    approved_by = None
    if row["vote_id"] is not None:
        approved_by = Approval(row["vote_id"], Decimal(row["turnout"]), Decimal(row["approval"]))
    return SignalConfiguration(
        node_id, json.loads(row["signals"]), row["valid_from_ms"], row["valid_until_ms"], approved_by
    )


def _signals_text(signals: Mapping[str, int]) -> str:
    return json.dumps(dict(signals), sort_keys=True, separators=(",", ":"))
