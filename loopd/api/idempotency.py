"""`Idempotency-Key`: a POST that is repeated has one effect, and the repeat gets the first answer.

The answer is stored in the transaction of the effect. Units of work run one after the other, so of two requests with
one key the second finds what the first stored. A refusal is not stored: it had no effect, and what it depends on may
change. Answers are kept for a day, and a bounded number for each caller.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final, Protocol

import orjson
from multidict import CIMultiDictProxy

from loopd.api.answers import Answer
from loopd.api.requests import Request
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.limits import IDEMPOTENCY_KEY_MAX_CHARACTERS, IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_MEMORY_MS

Unit = Callable[[Tx], Answer]

REPLAY_HEADER: Final = "Idempotency-Replayed"
# More than one old answer goes for each new one, so that what expired drains away.
_PRUNED_AT_ONCE: Final = 4


class Write(Protocol):
    """How a handler carries out its effect: `return await write(request, unit)`."""

    async def __call__(self, request: Request, unit: Unit) -> Answer: ...


def idempotency_key(headers: CIMultiDictProxy[str]) -> str | None:
    """The request's key: 1 to 255 visible ASCII characters, once. Invalid `bad_idempotency_key`."""
    values = headers.getall("Idempotency-Key", ())
    if not values:
        return None
    key = values[0]
    visible = key.isascii() and key.isprintable() and " " not in key
    if len(values) > 1 or not visible or not 1 <= len(key) <= IDEMPOTENCY_KEY_MAX_CHARACTERS:
        message = f"Idempotency-Key is 1 to {IDEMPOTENCY_KEY_MAX_CHARACTERS} visible ASCII characters, given once."
        raise Invalid("bad_idempotency_key", message)
    return key


class IdempotentWriter:
    """Runs units of work for handlers, once for each key. Its `write` is what nouns take as `Write`."""

    def __init__(self, database: Database, clock: Clock, keys_max: int = IDEMPOTENCY_KEYS_MAX) -> None:
        self._database = database
        self._clock = clock
        self._keys_max = keys_max

    async def write(self, request: Request, unit: Unit) -> Answer:
        """The unit's answer after its commit, or the stored one. Conflict `idempotency_mismatch` for another body."""
        key = request.idempotency_key
        if key is None:
            return await self._database.write(unit)
        digest = request_digest(request)
        now_ms = self._clock.now_ms()
        return await self._database.write(lambda tx: self._once(tx, request.principal.id, key, digest, now_ms, unit))

    def _once(self, tx: Tx, principal: str, key: str, digest: bytes, now_ms: int, unit: Unit) -> Answer:
        row = tx.one(
            "SELECT id, request_digest, created_at_ms, status, content_type, headers, body "
            "FROM idempotent_answer WHERE principal = ? AND key = ?",
            (principal, key),
        )
        if row is not None and row["created_at_ms"] > now_ms - IDEMPOTENCY_MEMORY_MS:
            if row["request_digest"] != digest:
                message = "This Idempotency-Key was used for another request."
                raise Conflict("idempotency_mismatch", message)
            headers = {**orjson.loads(row["headers"]), REPLAY_HEADER: "true"}
            return Answer(row["status"], row["body"], row["content_type"], headers)
        if row is not None:
            tx.execute("DELETE FROM idempotent_answer WHERE id = ?", (row["id"],))
        answer = unit(tx)
        if answer.status < 400:
            self._remember(tx, principal, key, digest, now_ms, answer)
        return answer

    def _remember(self, tx: Tx, principal: str, key: str, digest: bytes, now_ms: int, answer: Answer) -> None:
        last = tx.one("SELECT max(sequence) AS sequence FROM idempotent_answer WHERE principal = ?", (principal,))
        sequence = 1 + ((last["sequence"] or 0) if last is not None else 0)
        headers = orjson.dumps(dict(answer.headers)).decode()
        tx.execute(
            "INSERT INTO idempotent_answer (principal, key, sequence, request_digest, created_at_ms, status, "
            "content_type, headers, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (principal, key, sequence, digest, now_ms, answer.status, answer.content_type, headers, answer.body),
        )
        tx.execute(
            "DELETE FROM idempotent_answer WHERE principal = ? AND sequence <= ?",
            (principal, sequence - self._keys_max),
        )
        tx.execute(
            "DELETE FROM idempotent_answer WHERE id IN "
            "(SELECT id FROM idempotent_answer WHERE created_at_ms <= ? ORDER BY created_at_ms LIMIT ?)",
            (now_ms - IDEMPOTENCY_MEMORY_MS, _PRUNED_AT_ONCE),
        )


def request_digest(request: Request) -> bytes:
    """What makes two requests the same one: method, path with query, body."""
    return sha256(f"{request.method}\n{request.target}\n".encode() + sha256(request.body).digest()).digest()
