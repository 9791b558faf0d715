"""Keys: what other nodes state about theirs (`/api/v1/federate/key`), and this node's own (`/admin/v1/key`)."""

from typing import Any

import structlog

from loopd.api.answers import Answer, json_answer
from loopd.api.node_effects import DOCUMENT_REFUSALS
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, RateClass, Route, Scope, Success
from loopd.federation.authentication import NodeAuthenticator, NodeHeaders
from loopd.federation.misbehaviour import Misbehaviour
from loopd.federation.own_key import OwnKey
from loopd.federation.rotation import Finding, KeyStatements
from loopd.gossip.key_statements import STATEMENTS, Statement, read_statement
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Forbidden, Refusal

log = structlog.get_logger(__name__)

_KEY = {"key_id": {"type": "string"}, "fingerprint": {"type": "string"}}
_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_REVOKE = RequestForm(
    {
        "type": "object",
        "required": ["key_id"],
        "properties": {"key_id": {"type": "string"}},
        "additionalProperties": False,
    }
)
_OWN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "node": {"type": "string"},
        **_KEY,
        "former": {
            "type": "array",
            "items": {"type": "object", "properties": {**_KEY, "replaced_at": _MOMENT, "revoked_at": _MOMENT}},
        },
    },
}


class KeyStatementRoutes:
    """Takes rotations and revocations."""

    def __init__(self, statements: KeyStatements, authenticator: NodeAuthenticator, misbehaviour: Misbehaviour) -> None:
        self._statements = statements
        self._authenticator = authenticator
        self._misbehaviour = misbehaviour

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/federate/key",
                handler=self._receive,
                noun="Federation",
                summary="State that a node's key was replaced or revoked",
                description="A KeyRotation or a KeyRevocation, for nodes that name `key-rotation` in their handshake. "
                "It is signed in itself. Who passes on another node's signs the request as every node request; the "
                "node that it is about need not, since it may have no key that is known here yet. `reason` says what "
                "became of it; only what was taken changes anything and is passed on.",
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema={"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in sorted(STATEMENTS)]},
                successes={
                    202: Success(
                        description="It was looked at",
                        schema={
                            "type": "object",
                            "required": ["status", "reason"],
                            "properties": {
                                "status": {"const": "accepted"},
                                "reason": {"enum": [finding.value for finding in Finding]},
                            },
                        },
                    )
                },
                refusals={
                    400: (*DOCUMENT_REFUSALS, "bad_statement", "bad_times"),
                    401: (
                        "missing_header",
                        "bad_timestamp",
                        "clock_skew",
                        "unknown_node",
                        "bad_signature",
                        "revoked_key",
                        "wrong_target",
                        "bad_statement",
                    ),
                    403: ("suspended", "banned", "not_a_peer", "too_many_statements"),
                },
            )
        ]

    async def _receive(self, request: Request) -> Answer:
        headers = NodeHeaders.read(request.headers)
        value = check_document(request.body, STATEMENTS).value
        if headers.node_id == value["node_id"]:
            self._misbehaviour.refuse_banned(headers.node_id)
            return self._answer(await self._take(headers.node_id, read_statement(value), request.body))
        caller = await self._authenticator.authenticate(request.method, request.target, request.headers, request.body)
        if caller.node.standing != "peer":
            raise Forbidden("not_a_peer", "only peers pass on what others stated")
        try:
            return self._answer(await self._take(caller.node_id, read_statement(value), request.body))
        except Refusal as refusal:
            if caller.verified:
                self._misbehaviour.refused(caller.node_id, refusal.reason)
            raise

    async def _take(self, sender: str, statement: Statement, body: bytes) -> Finding:
        return await self._statements.receive(sender, statement, body)

    @staticmethod
    def _answer(finding: Finding) -> Answer:
        return json_answer({"status": "accepted", "reason": finding.value}, 202)


class OwnKeyRoutes:
    """The operator shows, rotates and revokes."""

    def __init__(self, own_key: OwnKey) -> None:
        self._own_key = own_key

    def routes(self) -> list[Route]:
        def route(method: str, path: str, summary: str, **rest: Any) -> Route:
            successes = {200: Success(description="The present key and those before it", schema=_OWN_SCHEMA)}
            return Route(
                method=method,
                path=path,
                summary=summary,
                noun="Operation",
                access=Scope.ADMIN,
                admin=True,
                successes=successes,
                **rest,
            )

        return [
            route("GET", "/admin/v1/key", "Show the node's key", handler=self._show),
            route(
                "POST",
                "/admin/v1/key/rotate",
                "Replace the node's key",
                description="The peers are told first; the answer comes when the new key is in use.",
                handler=self._rotate,
                body=Body.OPTIONAL,
                repeatable=False,
            ),
            route(
                "POST",
                "/admin/v1/key/revoke",
                "Revoke a key of this node",
                description="A key before the present one, or that itself: then every peer has to admit the node anew.",
                handler=self._revoke,
                body=Body.REQUIRED,
                request_schema=_REVOKE.schema,
                refusals={404: ("unknown_key",), 409: ("already_revoked",)},
                repeatable=False,
            ),
        ]

    async def _show(self, request: Request) -> Answer:
        return json_answer(self._own_key.show())

    async def _rotate(self, request: Request) -> Answer:
        return self._changed("rotated", await self._own_key.rotate())

    async def _revoke(self, request: Request) -> Answer:
        return self._changed("revoked", await self._own_key.revoke(_REVOKE.read(request.body)["key_id"]))

    @staticmethod
    def _changed(event: str, shown: dict[str, Any]) -> Answer:
        log.warning(f"own_key_{event}", fingerprint=shown["fingerprint"])
        return json_answer(shown)
