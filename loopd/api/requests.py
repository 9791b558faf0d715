"""What a handler gets: a request whose size, form, sender and parameters are already checked."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_to_bytes

from aiohttp import ClientError, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from loopd.protocol.errors import Invalid, Refusal, Unavailable
from loopd.protocol.limits import BODIES_MAX_BYTES, DOCUMENT_MAX_BYTES

_JSON_TYPES = frozenset({"application/json", "application/ld+json"})


class NodeCaller(Protocol):
    """A node whose signature held (or, in a lab, was waived: then `verified` is False)."""

    @property
    def node_id(self) -> str: ...

    @property
    def verified(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: `anonymous`, `operator`, `token:7` or `node:vienna.loop`, the scopes held, and a token's account."""

    id: str
    scopes: frozenset[str] = frozenset()
    account: str | None = None

    def may(self, scope: str) -> bool:
        """Whether the scope is held; `admin` implies every other."""
        return scope in self.scopes or "admin" in self.scopes


ANONYMOUS = Principal("anonymous")
OPERATOR = Principal("operator", frozenset({"admin"}))


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, checked as its route says.

    `target` is the path with query exactly as it was sent, `path` the same without query; `parameters` are the path's,
    decoded; `query` holds every declared parameter, typed, with its default. `caller` is there on node routes only.
    `connection` is aiohttp's own request; None for one that a node sent over its link.
    """

    id: str
    method: str
    target: str
    path: str
    parameters: Mapping[str, str]
    query: Mapping[str, int | str | None]
    headers: Mapping[str, str]
    client: str
    connection: web.BaseRequest | None = None
    principal: Principal = ANONYMOUS
    caller: NodeCaller | None = None
    body: bytes = b""
    idempotency_key: str | None = None

    @property
    def http(self) -> web.BaseRequest:
        """aiohttp's own request, for answers that stream."""
        if self.connection is None:
            raise RuntimeError(f"{self.path} has no connection of its own to stream to")
        return self.connection

    @property
    def node(self) -> NodeCaller:
        """The calling node; only on routes that ask for a node's signature."""
        if self.caller is None:
            raise RuntimeError(f"{self.path} is not called by nodes")
        return self.caller

    @property
    def limit(self) -> int:
        """The page size, on routes that declare `LIMIT`."""
        return self.integer("limit")

    def integer(self, name: str) -> int:
        """A declared integer parameter that has a value or a default."""
        value = self.query[name]
        if not isinstance(value, int):
            raise RuntimeError(f"{name} is not an integer parameter with a default")
        return value

    def text(self, name: str) -> str | None:
        """A declared text parameter, None where it is absent."""
        value = self.query[name]
        if isinstance(value, int):
            raise RuntimeError(f"{name} is an integer parameter")
        return value


class BodyBudget:
    """How many bytes of bodies are in memory, all requests together, with a ceiling."""

    def __init__(self, ceiling_bytes: int = BODIES_MAX_BYTES) -> None:
        self._ceiling_bytes = ceiling_bytes
        self._held_bytes = 0

    def take(self, count: int) -> None:
        """Unavailable `overloaded` where the bytes do not fit."""
        if self._held_bytes + count > self._ceiling_bytes:
            raise Unavailable("overloaded", "Too many large requests at once.", retry_after_s=1)
        self._held_bytes += count

    def give_back(self, count: int) -> None:
        self._held_bytes -= count


async def read_body(
    content: StreamReader,
    declared_bytes: int | None,
    budget: BodyBudget,
    timeout_s: float,
    max_bytes: int = DOCUMENT_MAX_BYTES,
) -> bytes:
    """The body, of at most `max_bytes`: nothing beyond that is read, whatever the headers said.

    The caller gives the bytes back to the budget when it is done with them. Refuses with 413 `payload_too_large`,
    408 `body_too_slow`, 400 `bad_body` (broken off, or chunks that are none), 503 `overloaded`.
    """
    if declared_bytes is not None and declared_bytes > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    held = 0
    try:
        if content.is_eof():
            parts.append(content.read_nowait(-1))
            held = len(parts[0])
            budget.take(held)
        else:
            async with asyncio.timeout(timeout_s):
                while part := await content.readany():
                    budget.take(len(part))
                    held += len(part)
                    parts.append(part)
                    if held > max_bytes:
                        raise _too_large(max_bytes)
        if held > max_bytes:
            raise _too_large(max_bytes)
    except TimeoutError as error:
        budget.give_back(held)
        raise Refusal(408, "body_too_slow", f"The body did not arrive within {timeout_s:g} s.") from error
    except (ClientError, HttpProcessingError, web.RequestPayloadError, OSError) as error:
        budget.give_back(held)
        raise Invalid("bad_body", "The body broke off, or its chunks are malformed.") from error
    except BaseException:
        budget.give_back(held)
        raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(max_bytes: int) -> Refusal:
    details = {"max_bytes": max_bytes}
    return Refusal(413, "payload_too_large", f"A document is at most {max_bytes:,} bytes here.", details)


def check_content_type(headers: Mapping[str, str]) -> None:
    """415 `unsupported_media_type` unless the body says that it is JSON or JSON-LD in UTF-8, and not compressed."""
    value = headers.get("Content-Type", "")
    if value not in _JSON_TYPES:
        media_type, _, rest = value.partition(";")
        if media_type.strip().lower() not in _JSON_TYPES or not _is_utf8(rest):
            raise _unsupported("A document is sent as application/ld+json or application/json, in UTF-8.")
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _unsupported("A document is sent uncompressed.")


def _is_utf8(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            return False
    return True


def _unsupported(message: str) -> Refusal:
    return Refusal(415, "unsupported_media_type", message, {"accepted": sorted(_JSON_TYPES)})


def decode_component(text: str, *, plus_is_space: bool = False) -> str | None:
    """A percent-encoded part of a URL as text; None where it is no UTF-8 or holds what no name here holds."""
    if plus_is_space:
        text = text.replace("+", " ")
    if "%" not in text:
        return text if text.isascii() and text.isprintable() else None
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        return None
    return decoded if decoded.isprintable() else None
