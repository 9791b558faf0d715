"""`/admin/v1/tokens`: the operator makes, lists and revokes tokens."""

from typing import Any

from loopd.api.answers import Answer, json_answer
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, Route, Scope, Success
from loopd.api.tokens import TokenRecord, TokenStore
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.protocol.errors import NotFound
from loopd.protocol.limits import TOKEN_TTL_DEFAULT_S, TOKEN_TTL_MAX_S, TOKEN_TTL_MIN_S
from loopd.protocol.timestamps import format_timestamp

_SCOPES = {"type": "array", "minItems": 1, "items": {"enum": [scope.value for scope in Scope]}}
_RECORD = {
    "id": {"type": "integer"},
    "scopes": _SCOPES,
    "created_at": {"type": "string", "format": "date-time"},
    "expires_at": {"type": "string", "format": "date-time"},
    "account": {"type": ["string", "null"]},
}
_REQUEST = RequestForm(
    {
        "type": "object",
        "required": ["scopes"],
        "additionalProperties": False,
        "properties": {
            "scopes": _SCOPES,
            "ttl_s": {
                "type": "integer",
                "minimum": TOKEN_TTL_MIN_S,
                "maximum": TOKEN_TTL_MAX_S,
                "default": TOKEN_TTL_DEFAULT_S,
            },
            "account": {"type": "string", "description": "What a token of the scope `account` is bound to."},
        },
    }
)


class TokenRoutes:
    """The secret is in the answer to its making and nowhere else: so its answer is never stored for a repeat."""

    def __init__(self, tokens: TokenStore, database: Database, clock: Clock) -> None:
        self._tokens = tokens
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        last_used = {"last_used_at": {"type": ["string", "null"], "format": "date-time"}}
        return [
            Route(
                method="POST",
                path="/admin/v1/tokens",
                handler=self._create,
                noun="Tokens",
                summary="Make a token",
                description="The token is shown once. A repeat with the same Idempotency-Key makes another.",
                access=Scope.ADMIN,
                body=Body.REQUIRED,
                request_schema=_REQUEST.schema,
                example='{"scopes": ["material:write"], "ttl_s": 3600}',
                successes={
                    201: Success(
                        description="The token and what it may do",
                        schema={"type": "object", "properties": {"token": {"type": "string"}, **_RECORD}},
                    )
                },
                refusals={400: ("bad_account",), 409: ("too_many_tokens",)},
                admin=True,
                repeatable=False,
            ),
            Route(
                method="GET",
                path="/admin/v1/tokens",
                handler=self._list,
                noun="Tokens",
                summary="List the tokens, newest first",
                access=Scope.ADMIN,
                successes={
                    200: Success(
                        description="All tokens, expired ones for a day",
                        schema={
                            "type": "object",
                            "properties": {
                                "tokens": {
                                    "type": "array",
                                    "items": {"type": "object", "properties": {**_RECORD, **last_used}},
                                }
                            },
                        },
                    )
                },
                admin=True,
            ),
            Route(
                method="DELETE",
                path="/admin/v1/tokens/{id}",
                handler=self._revoke,
                noun="Tokens",
                summary="Revoke a token at once",
                access=Scope.ADMIN,
                successes={204: Success(description="It is revoked")},
                refusals={404: ("unknown_token",)},
                admin=True,
            ),
        ]

    async def _create(self, request: Request) -> Answer:
        stated = _REQUEST.read(request.body)
        scopes, ttl_s = stated["scopes"], int(stated.get("ttl_s", TOKEN_TTL_DEFAULT_S))
        account, now_ms = stated.get("account"), self._clock.now_ms()
        token = await self._database.write(lambda tx: self._tokens.create(tx, scopes, ttl_s, now_ms, account))
        body = {
            "token": token.text,
            "id": token.id,
            "scopes": list(token.scopes),
            "created_at": format_timestamp(token.created_at_ms),
            "expires_at": format_timestamp(token.expires_at_ms),
            "account": token.account,
        }
        return json_answer(body, 201, {"Cache-Control": "no-store"})

    async def _list(self, request: Request) -> Answer:
        async with self._database.snapshot() as reader:
            return json_answer({"tokens": [_shown(record) for record in await self._tokens.list(reader)]})

    async def _revoke(self, request: Request) -> Answer:
        text = request.parameters["id"]
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise NotFound("unknown_token", "There is no token with this id.")

        def unit(tx: Tx) -> Answer:
            self._tokens.revoke(tx, int(text))
            return Answer(204)

        return await self._database.write(unit)


def _shown(record: TokenRecord) -> dict[str, Any]:
    last_used_at_ms = record.last_used_at_ms
    return {
        "id": record.id,
        "scopes": list(record.scopes),
        "created_at": format_timestamp(record.created_at_ms),
        "expires_at": format_timestamp(record.expires_at_ms),
        "account": record.account,
        "last_used_at": None if last_used_at_ms is None else format_timestamp(last_used_at_ms),
    }
