"""Repeats of node requests: answered as the first was, without a second effect (§9.2).

The memory is durable and written in the transaction of the request's effect, so that no crash comes between. Only
what had an effect, and so was answered 202, is remembered: a refusal did nothing, and is found again.
"""

from collections.abc import Callable

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation.authentication import NodeCaller
from loopd.protocol.limits import REPLAY_MEMORY_MS

# Forgetting much at once would keep every other write waiting.
PRUNED_AT_ONCE = 1_000


def recall(source: RowSource, caller: NodeCaller) -> int | None:
    """The number under which this very request was accepted before, or None."""
    row = source.one("SELECT number FROM node_request WHERE digest = ?", (caller.replay_digest,))
    return None if row is None else int(row["number"])


def accept_once(tx: Tx, caller: NodeCaller, now_ms: int, effect: Callable[[Tx], None]) -> int:
    """Run the effect of a request and remember that it was accepted; a repeat has no effect.

    Gives the request's number (≥ 1), the `id` of the answer. A Refusal that the effect raises passes through, and
    nothing is remembered.
    """
    known = recall(tx, caller)
    if known is not None:
        return known
    effect(tx)
    row = tx.execute(
        "INSERT INTO node_request (digest, forget_at_ms) VALUES (?, ?)",
        (caller.replay_digest, now_ms + REPLAY_MEMORY_MS),
    )
    if row.lastrowid is None:
        raise RuntimeError("an inserted row has no number")
    return row.lastrowid


def prune(tx: Tx, now_ms: int) -> bool:
    """Forget requests that can no longer be repeated; many of them in several calls. Whether more are left."""
    forgotten = tx.execute(
        "DELETE FROM node_request WHERE number IN"
        " (SELECT number FROM node_request WHERE forget_at_ms <= ? ORDER BY forget_at_ms LIMIT ?)",
        (now_ms, PRUNED_AT_ONCE),
    )
    return forgotten.rowcount == PRUNED_AT_ONCE
