"""This node's own key: shown, replaced, revoked. A crash at any point leaves a node that can go on.

The new key is on the disk before its statement is written, and the statement is committed before the new key takes the
old one's place. Whoever starts in between finishes what was begun: see `finish`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import SEED_BYTES, NodeKey, PublicKey
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.directory import NodeDirectory
from loopd.federation import key_store
from loopd.federation.rotation import keep
from loopd.gossip.key_statements import build_revocation, build_rotation
from loopd.identity import Identity
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.json_text import read_json
from loopd.protocol.timestamps import format_timestamp

_OWN_STATEMENTS: Final = "SELECT * FROM key_statement WHERE node_id = ? ORDER BY number"


@dataclass(frozen=True, slots=True)
class _Former:
    """A key that this node had."""

    key: PublicKey
    replaced_at: str
    revoked_at_ms: int | None


class OwnKey:
    """Rotates and revokes.

    `stated` is called after the commit of a statement, before the new key is taken up: it tells the peers that can be
    reached, and waits for that, but not for long.
    """

    def __init__(
        self,
        directory: NodeDirectory,
        identity: Identity,
        database: Database,
        audit: AuditLog,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        stated: Callable[[], Awaitable[None]],
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._database = database
        self._audit = audit
        self._clock = clock
        self._random_bytes = random_bytes
        self._stated = stated
        self._under_way = asyncio.Lock()

    def show(self) -> dict[str, Any]:
        """The present key and those before it, newest first."""
        return {
            "node": self._identity.node_id,
            "key_id": self._identity.key.public.key_id,
            "fingerprint": self._identity.key.public.fingerprint,
            "former": [
                {
                    "key_id": former.key.key_id,
                    "fingerprint": former.key.fingerprint,
                    "replaced_at": former.replaced_at,
                    "revoked_at": None if former.revoked_at_ms is None else format_timestamp(former.revoked_at_ms),
                }
                for former in reversed(_former_keys(self._database.points, self._identity.node_id))
            ],
        }

    async def rotate(self) -> dict[str, Any]:
        """Replace the key by a new one, and tell the peers. What `show` then says."""
        async with self._under_way:
            old, new = self._identity.key, self._make_key()

            def state(tx: Tx) -> None:
                sequence = key_store.last_sequence(tx, self._identity.node_id) + 1
                now_ms = self._clock.now_ms()
                rotation, body = build_rotation(
                    self._identity.context_url, self._identity.node_id, sequence, old, new, now_ms
                )
                keep(tx, self._audit, rotation, body, None, now_ms)

            await self._database.write(state)
            await self._stated()
            await self._take_up(new, vouched_for=True)
        return self.show()

    async def revoke(self, key_id: str) -> dict[str, Any]:
        """Revoke the present key, or one before it, by its key id. What `show` then says.

        After the present one's revocation the node has a new key that nobody knows: every peer's operator has to admit
        it anew. NotFound `unknown_key`, Conflict `already_revoked`.
        """
        async with self._under_way:
            present = self._identity.key
            if key_id == present.public.key_id:
                new = self._make_key()
                await self._state_revocation(present.public.raw, present)
                await self._stated()
                await self._take_up(new, vouched_for=False)
                return self.show()
            for former in _former_keys(self._database.points, self._identity.node_id):
                if former.key.key_id == key_id:
                    if former.revoked_at_ms is not None:
                        raise Conflict("already_revoked", "that key is revoked already")
                    await self._state_revocation(former.key.raw, present)
                    await self._stated()
                    await self._database.write(lambda tx: _renew_all(tx, self._clock.now_ms()))
                    return self.show()
            raise NotFound("unknown_key", "this node has and had no key with that id")

    async def _state_revocation(self, revoked: bytes, signer: NodeKey) -> None:
        def state(tx: Tx) -> None:
            identity, now_ms = self._identity, self._clock.now_ms()
            sequence = key_store.last_sequence(tx, identity.node_id) + 1
            revocation, body = build_revocation(
                identity.context_url, identity.node_id, sequence, revoked, signer, now_ms
            )
            key_store.revoke(tx, identity.node_id, revoked, now_ms)
            keep(tx, self._audit, revocation, body, None, now_ms)

        await self._database.write(state)

    def _make_key(self) -> NodeKey:
        seed = self._random_bytes(SEED_BYTES)
        self._directory.write_next_key(seed)
        return NodeKey.from_seed(seed)

    async def _take_up(self, new: NodeKey, *, vouched_for: bool) -> None:
        # What is announced again is signed with the new key from here on: a crash before the write is finished later.
        self._identity.key = new
        await self._database.write(lambda tx: _begin_anew(tx, vouched_for, self._clock.now_ms()))
        self._directory.take_up_next_key()


async def finish(directory: NodeDirectory, identity: Identity, database: Database, now_ms: int) -> None:
    """Take up a new key whose statement was committed before the daemon ended; forget one that never was stated."""
    waiting = directory.load_next_key()
    if waiting is None:
        return
    rows = database.points.all(_OWN_STATEMENTS, (identity.node_id,))
    last = read_json(rows[-1]["body"]) if rows else None
    said = last if isinstance(last, dict) else {}
    rotated = said.get("new_key") == waiting.public.raw.hex()
    revoked = said.get("revoked_key") == said.get("signed_by") == identity.key.public.raw.hex()
    if rotated or revoked:
        identity.key = waiting
        await database.write(lambda tx: _begin_anew(tx, rotated, now_ms))
        directory.take_up_next_key()
    else:
        directory.forget_next_key()


def _former_keys(source: RowSource, node_id: str) -> list[_Former]:
    """Every key that this node replaced or revoked, oldest first."""
    found: dict[str, str] = {}
    for row in source.all(_OWN_STATEMENTS, (node_id,)):
        statement: Any = read_json(row["body"])
        found.setdefault(statement.get("old_key") or statement["revoked_key"], statement["issued_at"])
    formers = []
    for key, replaced_at in found.items():
        revoked = source.one("SELECT revoked_at_ms FROM revoked_key WHERE public_key = ?", (bytes.fromhex(key),))
        revoked_at_ms = None if revoked is None else int(revoked["revoked_at_ms"])
        formers.append(_Former(PublicKey(bytes.fromhex(key)), replaced_at, revoked_at_ms))
    return formers


def _begin_anew(tx: Tx, vouched_for: bool, now_ms: int) -> None:
    """What follows from a new key; `vouched_for`: the old one said that this one follows it."""
    _renew_all(tx, now_ms)
    if not vouched_for:
        # It is shown in a handshake, and the peers' operators decide.
        tx.execute("UPDATE node SET handshake_owed = 1 WHERE standing = 'peer'")


def _renew_all(tx: Tx, now_ms: int) -> None:
    """Announce again, with the new key, what is available: who comes to know the node later knows no other."""
    tx.execute("UPDATE own_announcement SET renew_at_ms = min(renew_at_ms, ?) WHERE renew_at_ms IS NOT NULL", (now_ms,))
