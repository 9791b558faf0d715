"""Who asks, and whether they may: Bearer tokens (§10.2), node signatures (§9.2), the operator's own socket."""

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from multidict import CIMultiDictProxy

from loopd.api.requests import ANONYMOUS, OPERATOR, NodeCaller, Principal
from loopd.api.routes import Access, Route, Scope
from loopd.protocol.errors import Forbidden, Unauthorized


class Plane(Enum):
    """Which listener a request came in by.

    The operator's unix socket serves every route, and who can open it is the operator. A loopback address can be
    opened by every account of the machine, so there every request, reads included, needs an admin token.
    """

    PUBLIC = "public"
    ADMIN_SOCKET = "admin-socket"
    ADMIN_ADDRESS = "admin-address"

    @property
    def is_admin(self) -> bool:
        return self is not Plane.PUBLIC


class NodeAuthenticator(Protocol):
    """Verifies a node's signature (§9.2); the federation implements it."""

    async def authenticate(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> NodeCaller:
        """The node that signed the request. `target` is the path with query as sent. Refusal where it fails."""
        ...


class Offences(Protocol):
    """Keeps what nodes do wrong; the federation implements it."""

    def refused(self, node_id: str, reason: str) -> None:
        """What a node certainly sent was refused: count it if that was an offence."""
        ...


class NoOffences:
    """Where nobody keeps them."""

    def refused(self, node_id: str, reason: str) -> None:
        """Nothing."""


class TokenVerifier(Protocol):
    """Tells whose token this is."""

    def verify(self, text: str) -> Principal:
        """Unauthorized `bad_token` or `expired_token`."""
        ...


class AccessControl:
    """Decides for one listener, before a body is read, who a request's principal is."""

    def __init__(self, plane: Plane, tokens: TokenVerifier) -> None:
        self._plane = plane
        self._tokens = tokens

    def principal(self, route: Route, headers: CIMultiDictProxy[str]) -> Principal:
        """Unauthorized `missing_token`, `bad_token`, `expired_token`; Forbidden `insufficient_scope`.

        A node route's principal is anonymous here: its signature covers the body and is verified after that.
        """
        if self._plane is Plane.ADMIN_SOCKET:
            return OPERATOR
        required = route.access
        if self._plane is Plane.ADMIN_ADDRESS:
            required = Scope.ADMIN
        if isinstance(required, Access):
            if route.token_shows_more and "Authorization" in headers:
                return self._tokens.verify(bearer_token(headers))
            return ANONYMOUS
        principal = self._tokens.verify(bearer_token(headers))
        if not principal.may(required):
            message = f"This token may not do that; it takes the scope {required.value}."
            raise Forbidden("insufficient_scope", message, {"required": required.value})
        return principal


def bearer_token(headers: CIMultiDictProxy[str]) -> str:
    """The token of `Authorization: Bearer` (RFC 6750). Unauthorized `missing_token`, `bad_token`."""
    values = headers.getall("Authorization", ())
    if not values:
        raise Unauthorized("missing_token", "This takes a token: Authorization: Bearer TOKEN.")
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise Unauthorized("bad_token", "Authorization is given once, as Bearer TOKEN.")
    return token.strip()
