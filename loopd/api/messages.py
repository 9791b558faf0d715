"""`/admin/v1/messages`: what was decided on an announcement, and why."""

from typing import Any

from loopd.api.answers import Answer, json_answer
from loopd.api.requests import Request
from loopd.api.routes import Route, Scope, Success
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.federation import explain

_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["message_id", "held", "copies", "peers"],
    "properties": {
        "message_id": {"type": "string"},
        "held": {"type": "boolean", "description": "Whether the message is stored here; the rest of it only if so."},
        "origin": {"type": "string"},
        "own": {"type": "boolean", "description": "Whether this node made it."},
        "subject": {"type": "string"},
        "kind": {"type": "string", "enum": ["material", "product"]},
        "available": {"type": "boolean"},
        "state": {"type": "string"},
        "revision": {"type": "integer"},
        "newest": {"type": "boolean", "description": "Whether it is the newest state of its subject."},
        "expired": {"type": "boolean"},
        "radius_km": {"type": ["number", "null"]},
        "best_ttl": {"type": "integer"},
        "received_at": {"type": "string", "format": "date-time"},
        "valid_until": {"type": "string", "format": "date-time"},
        "copies": {
            "type": "array",
            "description": "Each copy that came, with the reason code of what was decided on it.",
            "items": {
                "type": "object",
                "properties": {
                    "peer": {"type": "string"},
                    "ttl": {"type": ["integer", "null"]},
                    "reason": {"type": "string"},
                    "first_at": _MOMENT,
                    "last_at": _MOMENT,
                    "times": {"type": "integer"},
                },
            },
        },
        "peers": {
            "type": "array",
            "description": "Each peer, with whether the message went there, and why or why not.",
            "items": {
                "type": "object",
                "properties": {
                    "peer": {"type": "string"},
                    "outcome": {"type": "string", "enum": ["sent", "not_sent", "refused", "waiting"]},
                    "reason": {"type": "string"},
                    "status": {"type": ["integer", "null"]},
                    "ttl": {"type": "integer"},
                    "at": _MOMENT,
                },
            },
        },
    },
}


class MessageRoutes:
    """Explains one message."""

    def __init__(self, own_node_id: str, database: Database, clock: Clock) -> None:
        self._own_node_id = own_node_id
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/admin/v1/messages/{id}",
                handler=self._explain,
                noun="Operation",
                summary="Explain what became of an announcement",
                description="The id is that of the log and of the list of announcements; its first 8 digits will do "
                "where no other begins so.",
                access=Scope.ADMIN,
                admin=True,
                successes={200: Success(description="When it came, from whom, and what was decided", schema=_SCHEMA)},
                refusals={
                    400: ("bad_message_id",),
                    404: ("unknown_message",),
                    409: ("ambiguous_message_id",),
                },
            )
        ]

    async def _explain(self, request: Request) -> Answer:
        async with self._database.snapshot() as reader:
            return json_answer(
                await explain.explanation(reader, request.parameters["id"], self._own_node_id, self._clock.now_ms())
            )
