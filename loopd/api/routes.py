"""The table of routes: everything that is true of a route is said once, here, and all else is made from it.

Matching, access, limits, body rules, the OpenAPI description and the documentation page read the same `Route`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from aiohttp import web

from loopd.api.answers import Answer
from loopd.api.requests import Request
from loopd.protocol.limits import DOCUMENT_MAX_BYTES, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, LIST_LIMIT_MIN

Handler = Callable[[Request], Awaitable[Answer | web.StreamResponse]]

# The name of an entity or of a shared component, or a small JSON Schema of the route's own.
SchemaReference = str | Mapping[str, Any]


class Scope(StrEnum):
    """What a token may do. `admin` implies the others, but `account`: that is bound to one account of the ledger."""

    MATERIAL_WRITE = "material:write"
    OFFER_WRITE = "offer:write"
    ACCOUNT = "account"
    ADMIN = "admin"


class Access(Enum):
    """Who may call a route that asks for no token."""

    OPEN = "open"
    NODE = "node"


class RateClass(Enum):
    """Which of §10.4's limits counts a request."""

    USER = "user"
    SEARCH = "search"
    NODE = "node"
    NONE = "none"


class Body(Enum):
    """Whether a request carries a JSON document."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameter:
    """One parameter of the query string. `kind` int is checked against the bounds; a failure is 400 with `reason`."""

    name: str
    description: str
    kind: type[int] | type[str] = str
    default: int | str | None = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    max_characters: int = 300
    reason: str = "bad_parameter"

    def schema(self) -> dict[str, Any]:
        """The parameter's JSON Schema, as OpenAPI shows it."""
        if self.kind is int:
            found: dict[str, Any] = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        else:
            found = {"type": "string", "maxLength": self.max_characters, "enum": list(self.choices) or None}
        found["default"] = self.default
        return {name: value for name, value in found.items() if value is not None}


LIMIT = QueryParameter(
    name="limit",
    description="How many entries the page holds at most.",
    kind=int,
    default=LIST_LIMIT_DEFAULT,
    minimum=LIST_LIMIT_MIN,
    maximum=LIST_LIMIT_MAX,
    reason="bad_limit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """One successful answer of a route."""

    description: str
    schema: SchemaReference | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path. `path` is a template; `{id}` stands for one whole segment.

    `access` is open, a node's signature, or the scope that a token needs. `successes` maps the status to what it
    carries. `refusals` maps a status to the reasons that this route adds to those that every route of its kind has
    (see `refusals_of`). `admin` routes are served on the operator's listener alone. `repeatable` is False where a
    stored answer must not exist, because it holds a secret. `token_shows_more`: an open route on which a token, where
    one is sent along, is checked, and may authorise or show more. A `lasting` route keeps its connection for hours: it
    takes no place among the requests in work, and nobody waits for its end. Of an `unlogged` one no log tells that it
    was.
    """

    method: str
    path: str
    handler: Handler
    noun: str
    summary: str
    successes: Mapping[int, Success]
    access: Access | Scope = Access.OPEN
    rate: RateClass = RateClass.USER
    body: Body = Body.NONE
    body_max_bytes: int = DOCUMENT_MAX_BYTES
    request_schema: SchemaReference | None = None
    query: tuple[QueryParameter, ...] = ()
    refusals: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    description: str = ""
    example: str = ""
    admin: bool = False
    token_shows_more: bool = False
    repeatable: bool = True
    lasting: bool = False
    unlogged: bool = False

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.method != self.method.upper():
            raise ValueError(f"{self.method} {self.path} is not a route")
        if self.access is Access.NODE and self.rate is not RateClass.NODE:
            raise ValueError(f"{self.path}: a node's requests are counted as a node's")

    @property
    def key(self) -> str:
        """`POST /api/v1/material`: how logs, metrics and the documentation name the route."""
        return f"{self.method} {self.path}"

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The names of the path's parameters, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @property
    def takes_idempotency_key(self) -> bool:
        """Whether `Idempotency-Key` counts here: on every POST of a user."""
        by_users = isinstance(self.access, Scope) or self.token_shows_more
        return self.method == "POST" and by_users and self.repeatable


_BODY_REASONS = ("bad_body",)
_DOCUMENT_REASONS = (
    "not_json",
    "duplicate_key",
    "not_finite",
    "nul_character",
    "lone_surrogate",
    "nesting_too_deep",
    "number_out_of_range",
    "schema",
)


def refusals_of(route: Route) -> dict[int, tuple[str, ...]]:
    """Every refusal of a route, status to reasons: its own, and those that follow from how it is declared."""
    found: dict[int, list[str]] = {status: list(reasons) for status, reasons in route.refusals.items()}

    def add(status: int, *reasons: str) -> None:
        listed = found.setdefault(status, [])
        listed.extend(reason for reason in reasons if reason not in listed)

    add(400, "unknown_parameter", "bad_query", *(parameter.reason for parameter in route.query))
    if route.query:
        add(400, "repeated_parameter")
    if route.body is Body.NONE:
        add(400, "unexpected_body")
    else:
        add(400, *_BODY_REASONS, *_DOCUMENT_REASONS)
        add(408, "body_too_slow")
        add(413, "payload_too_large")
        add(415, "unsupported_media_type")
    if route.takes_idempotency_key:
        add(400, "bad_idempotency_key")
        add(409, "idempotency_mismatch")
    if isinstance(route.access, Scope):
        add(401, "missing_token", "bad_token", "expired_token")
        add(403, "insufficient_scope")
    if route.token_shows_more:
        add(401, "bad_token", "expired_token")
    if route.access is Access.NODE:
        add(401, "missing_header", "bad_timestamp", "clock_skew", "unknown_node", "bad_signature", "revoked_key")
        add(401, "wrong_target")
        add(403, "suspended", "banned")
    if route.parameter_names:
        add(404, "not_found")
    if route.rate is not RateClass.NONE:
        add(429, "rate_limited")
    add(503, "overloaded", "draining")
    return {status: tuple(reasons) for status, reasons in sorted(found.items())}
