"""Statements about keys, taken and passed on (§9.2): who held a node to a key holds it to the one that replaced it.

A statement is taken in one transaction with what it changes, and told to each peer before anything else goes there,
in the order in which it was taken: so nobody is sent what the new key signed before it can know that key.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.federation import key_store, nodes
from loopd.federation.requests import NodeRequests
from loopd.gossip.key_statements import Revocation, Rotation, Statement
from loopd.net.http_client import PeerAnswer
from loopd.protocol.errors import Forbidden, Invalid, Unauthorized
from loopd.protocol.limits import KEY_STATEMENTS_PER_NODE_PER_DAY_MAX, REQUEST_CLOCK_TOLERANCE_MS
from loopd.protocol.nodes import KnownNode, Standing
from loopd.protocol.vocabulary import Feature

log = structlog.get_logger(__name__)

KEY_PATH: Final = "/federate/key"
_DAY_MS: Final = 24 * 3600 * 1000


class Finding(StrEnum):
    """What was decided on a statement: one code each. Only what is taken is passed on."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    OWN_NODE = "own_node"  # about this node, which knows its own keys
    UNKNOWN_NODE = "unknown_node"  # nothing is held to that node's key here
    OTHER_KEY = "other_key"  # neither of its keys is the one that is known here
    SUPERSEDED = "superseded"  # a later rotation was taken


def judge(source: RowSource, own_node_id: str, statement: Statement, now_ms: int) -> Finding:
    """What to do with a statement whose own signatures held.

    Invalid `bad_times` where it lies ahead; Unauthorized `revoked_key` for a rotation from or to a revoked key;
    Forbidden `too_many_statements`.
    """
    if statement.issued_at_ms > now_ms + REQUEST_CLOCK_TOLERANCE_MS:
        raise Invalid("bad_times", "the statement lies ahead of this node's clock")
    if key_store.is_known(source, statement.statement_id):
        return Finding.DUPLICATE
    if statement.node_id == own_node_id:
        return Finding.OWN_NODE
    node = nodes.find(source, statement.node_id)
    if node is None:
        return Finding.UNKNOWN_NODE
    finding = _fits(source, statement, node.public_key)
    if finding is Finding.TAKEN and (
        key_store.count_since(source, statement.node_id, now_ms - _DAY_MS) >= KEY_STATEMENTS_PER_NODE_PER_DAY_MAX
    ):
        raise Forbidden("too_many_statements", "a node's key does not change that often")
    return finding


def _fits(source: RowSource, statement: Statement, current: bytes | None) -> Finding:
    """Whether the statement builds on the key that is known here."""
    if isinstance(statement, Revocation):
        if key_store.is_revoked(source, statement.revoked_key):
            return Finding.DUPLICATE
        own_word = statement.signed_by == statement.revoked_key
        known = current is not None and statement.signed_by == current
        former = own_word and statement.revoked_key in key_store.former_keys(source, statement.node_id)
        return Finding.TAKEN if known or former else Finding.OTHER_KEY
    if key_store.is_revoked(source, statement.old_key) or key_store.is_revoked(source, statement.new_key):
        raise Unauthorized("revoked_key", "a revoked key does not rotate, and nothing rotates to it")
    if statement.new_key == current:
        return Finding.TAKEN  # known by a handshake already: it vouches for the key it had before
    if statement.sequence <= key_store.last_rotation(source, statement.node_id):
        return Finding.SUPERSEDED
    return Finding.TAKEN if statement.old_key == current else Finding.OTHER_KEY


def keep(tx: Tx, audit: AuditLog, statement: Statement, body: bytes, came_from: str | None, now_ms: int) -> None:
    """Keep a statement, with its audit entry, to be told to every peer; `came_from` None for this node's own."""
    key_store.keep_statement(tx, statement, body, came_from, now_ms)
    key = statement.new_key if isinstance(statement, Rotation) else statement.revoked_key
    event = {
        "event": "key_rotated" if isinstance(statement, Rotation) else "key_revoked",
        "sequence": statement.sequence,
        "fingerprint": PublicKey(key).fingerprint,
    }
    audit.append(tx, AuditKind.NODE_INTERACTION, statement.node_id, event)


def _told(node_id: str, number: int, tx: Tx) -> None:
    key_store.told(tx, node_id, number)


class KeyStatements:
    """Takes statements and tells them on. `taken` is called after the commit of each that is to be told.

    `key_settled` releases, in the transaction, what waited for a node's key.
    """

    def __init__(
        self,
        own_node_id: str,
        database: Database,
        requests: NodeRequests,
        audit: AuditLog,
        clock: Clock,
        taken: Callable[[], None],
        key_settled: Callable[[Tx, str, PublicKey], object],
    ) -> None:
        self._own_node_id = own_node_id
        self._database = database
        self._requests = requests
        self._audit = audit
        self._clock = clock
        self._taken = taken
        self._key_settled = key_settled

    async def receive(self, sender: str, statement: Statement, body: bytes) -> Finding:
        """Take a statement that somebody sent. Refusals as in `judge`."""
        now_ms = self._clock.now_ms()
        # What changes nothing costs no write.
        finding = judge(self._database.points, self._own_node_id, statement, now_ms)
        if finding is Finding.TAKEN:
            finding = await self._database.write(lambda tx: self._take(tx, sender, statement, body, now_ms))
        log.info(
            "key_statement", node=statement.node_id, peer=sender, sequence=statement.sequence, reason=finding.value
        )
        if finding is Finding.OWN_NODE:
            log.error("key_statement_of_own_node", peer=sender, statement_id=statement.statement_id.hex())
        return finding

    def _take(self, tx: Tx, sender: str, statement: Statement, body: bytes, now_ms: int) -> Finding:
        finding = judge(tx, self._own_node_id, statement, now_ms)
        if finding is not Finding.TAKEN:
            return finding
        if isinstance(statement, Rotation):
            self._rotate(tx, statement, now_ms)
        else:
            self._revoke(tx, statement, now_ms)
        keep(tx, self._audit, statement, body, sender, now_ms)
        tx.after_commit(self._taken)
        return finding

    def _rotate(self, tx: Tx, rotation: Rotation, now_ms: int) -> None:
        key_store.keep_former(tx, rotation)
        node = nodes.find(tx, rotation.node_id)
        if node is not None and node.public_key == rotation.old_key:
            nodes.rekey(tx, rotation.node_id, rotation.new_key, now_ms)
            self._key_settled(tx, rotation.node_id, PublicKey(rotation.new_key))

    def _revoke(self, tx: Tx, revocation: Revocation, now_ms: int) -> None:
        key_store.revoke(tx, revocation.node_id, revocation.revoked_key, now_ms)
        node = nodes.find(tx, revocation.node_id)
        if node is None or node.public_key != revocation.revoked_key:
            return
        if node.standing is Standing.INTRODUCED:
            # Whoever relays it may introduce it anew, with another key.
            nodes.remove(tx, node.node_id)
        else:
            nodes.rekey(tx, node.node_id, None, now_ms)

    def untold(self, node: KnownNode) -> bool:
        """Whether there is a statement that a peer is to be told and was not."""
        return (
            node.standing is Standing.PEER
            and Feature.KEY_ROTATION in node.features
            and key_store.next_untold(self._database.points, node.node_id) is not None
        )

    async def tell(self, node: KnownNode) -> PeerAnswer | None:
        """Tell a peer what it was not told, one statement after the other.

        None once it knows all; else the answer of a peer that asks for patience. DialError where there was none.
        """
        while self.untold(node):
            row = key_store.next_untold(self._database.points, node.node_id)
            if row is None:
                return None
            if node.node_id not in (row["came_from"], row["node_id"]):
                answer = await self._requests.deliver(node, KEY_PATH, row["body"])
                log.info("key_statement_told", peer=node.node_id, node=row["node_id"], status=answer.status)
                if answer.status == 429 or answer.status >= 500:
                    return answer
            await self._database.write(partial(_told, node.node_id, row["number"]))
        return None
