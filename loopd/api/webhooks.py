"""`/admin/v1/webhooks`: the operator says which endpoints are told of events."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from loopd.api.answers import Answer, json_answer
from loopd.api.requests import Request
from loopd.api.routes import Body, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.events.deliveries import Deliveries
from loopd.events.rules import EventKind
from loopd.events.webhook_tables import Webhook
from loopd.events.webhooks import SecretWebhook, Webhooks
from loopd.protocol.errors import Invalid, NotFound
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import WEBHOOK_URL_MAX_CHARACTERS
from loopd.protocol.timestamps import format_timestamp

T = TypeVar("T")

_PATH: Final = "/admin/v1/webhooks"
_UNKNOWN: Final[Mapping[int, tuple[str, ...]]] = {404: ("unknown_webhook",)}
_MOMENT: Final[Mapping[str, Any]] = {"type": ["string", "null"], "format": "date-time"}
_WEBHOOK: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "url": {"type": "string"},
        "kinds": {"type": "array", "items": {"type": "string"}},
        "status": {"enum": ["active", "failing", "gone", "gave_up"]},
        "cursor": {"type": "integer"},
        "failures": {"type": "integer"},
        "last_error": {"type": ["string", "null"]},
        "created_at": {"type": "string", "format": "date-time"},
        "last_success_at": _MOMENT,
        "failing_since": _MOMENT,
        "next_attempt_at": _MOMENT,
        "disabled_at": _MOMENT,
    },
}
_SECRET: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {**_WEBHOOK["properties"], "secret": {"type": "string", "pattern": "^whsec_"}},
}
_REQUEST: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["url"],
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string", "maxLength": WEBHOOK_URL_MAX_CHARACTERS},
        "kinds": {
            "type": "array",
            "minItems": 1,
            "maxItems": len(EventKind),
            "items": {"type": "string"},
            "default": ["*"],
        },
    },
}
_OUTCOME: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "message_id": {"type": "string"},
        "delivered": {"type": "boolean"},
        "status": {"type": ["integer", "null"]},
        "error": {"type": ["string", "null"]},
    },
}


class WebhookRoutes:
    """A secret is in the answer to its making and nowhere else: so that answer is never stored for a repeat."""

    def __init__(self, webhooks: Webhooks, deliveries: Deliveries, database: Database) -> None:
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._database = database

    def routes(self) -> list[Route]:
        return [
            self._route(
                "POST",
                "",
                self._add,
                "Send events to an endpoint",
                {201: Success(description="The webhook with its secret, which is not shown again", schema=_SECRET)},
                {400: ("bad_url", "bad_kind"), 409: ("too_many_webhooks",)},
                "What happens from now on is sent as signed requests (Standard Webhooks), in order, until each is "
                "answered 2xx. `kinds` are names as in the list of events, `*` for all.",
                body=Body.REQUIRED,
            ),
            self._route(
                "GET",
                "",
                self._list,
                "List the webhooks",
                {
                    200: Success(
                        description="All of them",
                        schema={"type": "object", "properties": {"webhooks": {"type": "array", "items": _WEBHOOK}}},
                    )
                },
                {},
            ),
            self._route(
                "GET",
                "/{id}",
                self._show,
                "How a webhook does",
                {200: Success(description="The webhook", schema=_WEBHOOK)},
                _UNKNOWN,
            ),
            self._route(
                "DELETE", "/{id}", self._remove, "Remove a webhook", {204: Success(description="Removed")}, _UNKNOWN
            ),
            self._route(
                "POST",
                "/{id}/rotate",
                self._rotate,
                "Give a webhook a new secret",
                {200: Success(description="The webhook with its new secret", schema=_SECRET)},
                _UNKNOWN,
                "For a day messages carry a signature of the former secret as well.",
            ),
            self._route(
                "POST",
                "/{id}/enable",
                self._enable,
                "Begin again with an endpoint that fails or was given up",
                {200: Success(description="The webhook", schema=_WEBHOOK)},
                _UNKNOWN,
                "At once, with the event after the last one that it took.",
            ),
            self._route(
                "POST",
                "/{id}/test",
                self._test,
                "Send a message that tells nothing",
                {200: Success(description="What came of it", schema=_OUTCOME)},
                _UNKNOWN,
                "Its type is `webhook.test`. It is sent once, whether the webhook is disabled or not.",
            ),
        ]

    def _route(
        self,
        method: str,
        path: str,
        handler: Any,
        summary: str,
        successes: Mapping[int, Success],
        refusals: Mapping[int, tuple[str, ...]],
        description: str = "",
        body: Body = Body.NONE,
    ) -> Route:
        return Route(
            method=method,
            path=_PATH + path,
            handler=handler,
            noun="Webhooks",
            summary=summary,
            description=description,
            access=Scope.ADMIN,
            admin=True,
            body=body,
            request_schema=None if body is Body.NONE else _REQUEST,
            successes=successes,
            refusals=refusals,
            repeatable=False,
        )

    async def _add(self, request: Request) -> Answer:
        url, kinds = _read(request.body)
        made = await self._database.write(lambda tx: self._webhooks.add(tx, url, kinds))
        return _secret_answer(made, 201, {"Location": f"{_PATH}/{made.webhook.number}"})

    async def _list(self, request: Request) -> Answer:
        return json_answer({"webhooks": [_shown(webhook) for webhook in self._webhooks.every(self._database.points)]})

    async def _show(self, request: Request) -> Answer:
        return json_answer(_shown(self._webhooks.require(self._database.points, _number(request))))

    async def _remove(self, request: Request) -> Answer:
        await self._change(request, self._webhooks.remove)
        return Answer(204)

    async def _rotate(self, request: Request) -> Answer:
        return _secret_answer(await self._change(request, self._webhooks.rotate), 200, {})

    async def _enable(self, request: Request) -> Answer:
        return json_answer(_shown(await self._change(request, self._webhooks.enable)))

    async def _test(self, request: Request) -> Answer:
        webhook = self._webhooks.require(self._database.points, _number(request))
        message, attempt = await self._deliveries.test(webhook)
        return json_answer(
            {
                "message_id": message.message_id,
                "delivered": attempt.succeeded,
                "status": attempt.status,
                "error": attempt.error,
            }
        )

    async def _change(self, request: Request, change: Callable[[Tx, int], T]) -> T:
        number = _number(request)
        return await self._database.write(lambda tx: change(tx, number))


def _number(request: Request) -> int:
    text = request.parameters["id"]
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise NotFound("unknown_webhook", "There is no webhook with this id.")
    return int(text)


def _read(body: bytes) -> tuple[str, list[str]]:
    value = read_json(body)
    if not isinstance(value, dict) or set(value) - {"url", "kinds"}:
        raise Invalid("schema", "The body is an object with url and, if wished, kinds.")
    url, kinds = value.get("url"), value.get("kinds", ["*"])
    if not isinstance(url, str):
        raise Invalid("bad_url", "url is a text.", {"pointer": "/url"})
    if not isinstance(kinds, list) or len(kinds) > len(EventKind) or not all(isinstance(kind, str) for kind in kinds):
        raise Invalid("bad_kind", "kinds is a list of names.", {"pointer": "/kinds"})
    return url, kinds


def _secret_answer(made: SecretWebhook, status: int, headers: Mapping[str, str]) -> Answer:
    return json_answer(
        {**_shown(made.webhook), "secret": made.secret}, status, {"Cache-Control": "no-store", **headers}
    )


def _shown(webhook: Webhook) -> dict[str, Any]:
    standing = webhook.standing
    status = "failing" if standing.failures else "active"
    if standing.disabled is not None:
        status = standing.disabled.value
    waiting = standing.failures and standing.disabled is None
    return {
        "id": webhook.number,
        "url": webhook.url,
        "kinds": list(webhook.kinds),
        "status": status,
        "cursor": webhook.cursor,
        "failures": standing.failures,
        "last_error": standing.last_error,
        "created_at": format_timestamp(webhook.created_at_ms),
        "last_success_at": _moment(webhook.last_success_at_ms),
        "failing_since": _moment(standing.failing_since_ms),
        "next_attempt_at": _moment(standing.next_attempt_at_ms) if waiting else None,
        "disabled_at": _moment(webhook.disabled_at_ms),
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_timestamp(at_ms)
