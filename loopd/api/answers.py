"""What a handler gives back, and how refusals become the one error envelope of §8.3."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDict

from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import dump_json

LD_JSON: Final = "application/ld+json"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"

# A page may show itself and its own style sheet, nothing else.
HTML_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}

_TOKEN_REASONS: Final[Mapping[str, str]] = {
    "missing_token": 'Bearer realm="loopd"',
    "bad_token": 'Bearer realm="loopd", error="invalid_token"',
    "expired_token": 'Bearer realm="loopd", error="invalid_token", error_description="expired"',
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer: status, body bytes, and headers beside those that every answer has."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Lists, receipts and all else that is no entity: `application/json`."""
    return Answer(status, dump_json(value), JSON, headers or {})


def entity_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An entity: `application/ld+json`. `value` may be its bytes."""
    body = value if isinstance(value, bytes) else dump_json(value)
    return Answer(status, body, LD_JSON, headers or {})


def html_answer(body: str, status: int = 200) -> Answer:
    """A page for people, closed to scripts and to anything from outside."""
    return Answer(status, body.encode(), HTML, HTML_HEADERS)


def refusal_answer(refusal: Refusal) -> Answer:
    """The envelope of §8.3 with the headers that belong to the status."""
    headers: dict[str, str] = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, refusal.retry_after_s))
    if challenge := _TOKEN_REASONS.get(refusal.reason):
        headers["WWW-Authenticate"] = challenge
    return Answer(refusal.status, dump_json(refusal.envelope()), JSON, headers)


def bug_answer() -> Answer:
    """500: our own bug, told without any detail."""
    error = {"code": "INTERNAL_ERROR", "message": "The node failed; the request's id finds the cause in its log."}
    return Answer(500, dump_json({"error": {**error, "details": {"reason": "internal_error"}}}), JSON)


def http_response(answer: Answer, request_id: str) -> web.Response:
    """The answer as aiohttp sends it."""
    headers: CIMultiDict[str] = CIMultiDict(answer.headers)
    if answer.body or answer.status != 204:
        headers["Content-Type"] = answer.content_type
    headers["X-Request-Id"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Server"] = "loopd"
    return web.Response(status=answer.status, body=answer.body, headers=headers)
