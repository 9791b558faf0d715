"""API tokens (§10.2): random, scoped, expiring, revocable; only their hash is stored."""

import asyncio
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import structlog

from loopd.api.requests import Principal
from loopd.api.routes import Scope
from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.readers import Reader
from loopd.database.writer import Tx
from loopd.protocol.errors import Conflict, Invalid, NotFound, Unauthorized, Unavailable
from loopd.protocol.ids import account_node
from loopd.protocol.limits import TOKEN_TTL_MAX_S, TOKEN_TTL_MIN_S, TOKENS_MAX
from loopd.protocol.timestamps import format_timestamp

# Secret scanners find a leaked token by its beginning.
TOKEN_PREFIX: Final = "loopd_"  # noqa: S105 - the public part
_TOKEN_CHARACTERS: Final = len(TOKEN_PREFIX) + 43
_USE_NOTED_EVERY_MS: Final = 60_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A token just made. `text` is the secret and is never to be had again."""

    id: int
    text: str = field(repr=False)
    scopes: tuple[Scope, ...]
    created_at_ms: int
    expires_at_ms: int
    account: str | None = None


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token."""

    id: int
    scopes: tuple[Scope, ...]
    created_at_ms: int
    expires_at_ms: int
    last_used_at_ms: int | None
    account: str | None = None


def parse_scopes(names: Collection[str]) -> tuple[Scope, ...]:
    """Scopes by their names, each once, in a fixed order. Invalid `bad_scope` for none or an unknown one."""
    allowed = [scope.value for scope in Scope]
    unknown = sorted(set(names) - set(allowed))
    if unknown or not names:
        raise Invalid("bad_scope", f"A token has one or more of the scopes {', '.join(allowed)}.", {"allowed": allowed})
    return tuple(scope for scope in Scope if scope.value in names)


class TokenStore:
    """Makes, verifies, lists and revokes tokens. When a token was used is written at most once a minute."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._audit = AuditLog(clock)
        self._noting: dict[int, asyncio.Task[None]] = {}

    def create(self, tx: Tx, scopes: Collection[str], ttl_s: int, now_ms: int, account: str | None = None) -> Token:
        """A new token; one of the scope `account` is bound to one. Invalid `bad_scope`, `bad_account`, `bad_ttl`;
        Conflict `too_many_tokens`.
        """
        parsed = parse_scopes(scopes)
        if (account is not None) != (Scope.ACCOUNT in parsed) or not _is_holder(account):
            message = "A token of the scope account names a person's or a business's account, and no other token does."
            raise Invalid("bad_account", message)
        if not TOKEN_TTL_MIN_S <= ttl_s <= TOKEN_TTL_MAX_S:
            message = f"A token lives {TOKEN_TTL_MIN_S} to {TOKEN_TTL_MAX_S} seconds."
            raise Invalid("bad_ttl", message, {"minimum": TOKEN_TTL_MIN_S, "maximum": TOKEN_TTL_MAX_S})
        # An expired token is kept a day, so that its owner is told that it expired.
        tx.execute("DELETE FROM api_token WHERE expires_at_ms < ?", (now_ms - 24 * 3600 * 1000,))
        count = tx.one("SELECT count(*) AS count FROM api_token")
        if count is not None and count["count"] >= TOKENS_MAX:
            raise Conflict("too_many_tokens", f"There are {TOKENS_MAX} tokens; revoke some first.")
        text = TOKEN_PREFIX + secrets.token_urlsafe(32)
        expires_at_ms = now_ms + ttl_s * 1000
        cursor = tx.execute(
            "INSERT INTO api_token (hash, scopes, created_at_ms, expires_at_ms, account) VALUES (?, ?, ?, ?, ?)",
            (_hash(text), " ".join(parsed), now_ms, expires_at_ms, account),
        )
        if cursor.lastrowid is None:
            raise RuntimeError("an inserted token has no row id")
        event = {"event": "token_created", "scopes": " ".join(parsed), "expires_at": format_timestamp(expires_at_ms)}
        self._audit.append(tx, AuditKind.OPERATOR, f"token:{cursor.lastrowid}", event)
        return Token(cursor.lastrowid, text, parsed, now_ms, expires_at_ms, account)

    def verify(self, text: str) -> Principal:
        """Who holds the token. Unauthorized `bad_token` (also when revoked), `expired_token`."""
        row = None
        if len(text) == _TOKEN_CHARACTERS and text.isascii() and text.startswith(TOKEN_PREFIX):
            row = self._database.point(
                "SELECT id, scopes, expires_at_ms, last_used_at_ms, account FROM api_token WHERE hash = ?",
                (_hash(text),),
            )
        if row is None:
            raise Unauthorized("bad_token", "This token is unknown or was revoked.")
        now_ms = self._clock.now_ms()
        if now_ms >= row["expires_at_ms"]:
            raise Unauthorized("expired_token", "This token has expired.")
        if now_ms - (row["last_used_at_ms"] or 0) >= _USE_NOTED_EVERY_MS:
            self._note_use(row["id"], now_ms)
        return Principal(f"token:{row['id']}", frozenset(row["scopes"].split()), row["account"])

    async def list(self, reader: Reader) -> list[TokenRecord]:
        """All tokens, newest first."""
        rows = await reader.all(
            "SELECT id, scopes, created_at_ms, expires_at_ms, last_used_at_ms, account FROM api_token ORDER BY id DESC"
        )
        return [
            TokenRecord(
                row["id"],
                tuple(Scope(scope) for scope in row["scopes"].split()),
                row["created_at_ms"],
                row["expires_at_ms"],
                row["last_used_at_ms"],
                row["account"],
            )
            for row in rows
        ]

    def revoke(self, tx: Tx, token_id: int) -> None:
        """From the commit on the token is refused. NotFound `unknown_token`."""
        if tx.execute("DELETE FROM api_token WHERE id = ?", (token_id,)).rowcount == 0:
            raise NotFound("unknown_token", "There is no token with this id.")
        self._audit.append(tx, AuditKind.OPERATOR, f"token:{token_id}", {"event": "token_revoked"})

    async def close(self) -> None:
        """Wait for what is still being noted. Before the database closes."""
        await asyncio.gather(*self._noting.values())

    def _note_use(self, token_id: int, now_ms: int) -> None:
        if token_id in self._noting:
            return
        task = asyncio.get_running_loop().create_task(self._write_use(token_id, now_ms))
        self._noting[token_id] = task
        task.add_done_callback(lambda _: self._noting.pop(token_id, None))

    async def _write_use(self, token_id: int, now_ms: int) -> None:
        statement = "UPDATE api_token SET last_used_at_ms = ? WHERE id = ?"

        def unit(tx: Tx) -> None:
            tx.execute(statement, (now_ms, token_id))

        try:
            await self._database.write(unit)
        except Unavailable as refusal:
            _log.debug("token use not noted", token=token_id, reason=refusal.reason)


def _is_holder(account: str | None) -> bool:
    return account is None or (account_node(account) is not None and not account.startswith("node:"))


def _hash(text: str) -> bytes:
    return sha256(text.encode("ascii")).digest()
