"""`/api/v1/events` and `/api/v1/stream`: what happened at this node, as a list and as it happens."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from loopd.api.answers import Answer, json_answer
from loopd.api.event_stream import HEADERS, EventStream
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, QueryParameter, Route, Success
from loopd.clock import Clock
from loopd.database import Database
from loopd.events.feed import EventFeed
from loopd.events.rules import ALL_KINDS, PUBLIC_KINDS, EventKind, event_json, kinds_named
from loopd.events.service import EventLog
from loopd.protocol.errors import Forbidden, Invalid

_ID_MAX: Final = 2**53 - 1
_KIND: Final = QueryParameter(
    name="kind",
    description="Only events of these kinds, with commas between; `material.*` stands for all of a noun.",
    max_characters=1_000,
    reason="bad_kind",
)
_CURSOR: Final = QueryParameter(
    name="cursor",
    description="Events before this id, the newest first; taken from `next` of the page before.",
    kind=int,
    minimum=1,
    maximum=_ID_MAX,
    reason="bad_cursor",
)
_AFTER: Final = QueryParameter(
    name="after",
    description="Events after this id, the oldest first; 0 begins with the oldest that is kept.",
    kind=int,
    minimum=0,
    maximum=_ID_MAX,
    reason="bad_cursor",
)
_LAST_EVENT_ID: Final = QueryParameter(
    name="last_event_id",
    description="As the header Last-Event-ID, for a client that cannot send it; the header goes before it.",
    kind=int,
    minimum=0,
    maximum=_ID_MAX,
    reason="bad_event_id",
)
EVENT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "kind", "subject", "at", "data"],
    "properties": {
        "id": {"type": "integer"},
        "kind": {"enum": [kind.value for kind in EventKind]},
        "subject": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "data": {"type": "object"},
    },
}
_PAGE_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["results", "next"],
    "properties": {
        "results": {"type": "array", "items": EVENT_SCHEMA},
        "next": {"type": ["string", "null"]},
        "gone_through": {"type": ["integer", "null"]},
    },
}
_WHO_SEES = (
    "Everybody sees what happens to materials, products, offers, matches, transfers and signals, and what was heard of "
    "other cities. Bids, demand, transactions, the ledger and the state of peers are the operator's: an admin token "
    "shows them."
)


class EventRoutes:
    """The event log as the API shows it."""

    def __init__(self, log: EventLog, feed: EventFeed, database: Database, clock: Clock) -> None:
        self._log = log
        self._feed = feed
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        refusals = {403: ("insufficient_scope",)}
        return [
            Route(
                method="GET",
                path="/api/v1/events",
                handler=self._list,
                noun="Events",
                summary="List what happened",
                description=f"The newest first, or from `after` on in the order in which it happened. {_WHO_SEES} Of "
                "each kind the newest 20,000 of the last 30 days are kept; where some of those asked for with `after` "
                "may be gone, `gone_through` is the id up to which.",
                query=(LIMIT, _KIND, _CURSOR, _AFTER),
                successes={200: Success(description="One page.", schema=_PAGE_SCHEMA)},
                refusals=refusals,
                token_shows_more=True,
            ),
            Route(
                method="GET",
                path="/api/v1/stream",
                handler=self._stream,
                noun="Events",
                summary="Follow what happens",
                description="Server-sent events, from now on or from `Last-Event-ID` on, each once and in order. "
                f"{_WHO_SEES} Every event is a message with an id, its data the JSON of the list. Beside them come "
                "`gap` (events asked for are gone, `through` that id; or the id is `unknown_id` here) and, as the last "
                "one, `end` with a reason: `too_slow` (more waited for this client than is kept), `lifetime` (an "
                "hour), `draining` (the node stops). A client comes again with the last id that it has, and misses "
                "nothing. A comment every 15 s keeps the connection alive.",
                query=(_KIND, _LAST_EVENT_ID),
                successes={200: Success(description="The stream has begun", content_type=HEADERS["Content-Type"])},
                refusals={**refusals, 503: ("too_many_streams",)},
                token_shows_more=True,
                lasting=True,
            ),
        ]

    async def _list(self, request: Request) -> Answer:
        kinds, limit = _kinds(request), request.limit
        if request.query["after"] is None:
            before = None if request.query["cursor"] is None else request.integer("cursor")
            events = await self._log.newest(self._database, kinds, before, limit)
            return json_answer({"results": list(map(event_json, events)), "next": _next(request, "cursor", events)})
        if request.query["cursor"] is not None:
            raise Invalid("bad_cursor", "Either `cursor` or `after`: they go in opposite directions.")
        page = await self._log.after(self._database, kinds, request.integer("after"), limit)
        following = _next(request, "after", page.events)
        results = list(map(event_json, page.events))
        return json_answer({"results": results, "next": following, "gone_through": page.gone_through})

    async def _stream(self, request: Request) -> web.StreamResponse:
        kinds, last_id = _kinds(request), _last_event_id(request)
        follower = self._feed.follow(request.client, kinds, operator=request.principal.may("admin"))
        try:
            response = web.StreamResponse(headers={**HEADERS, "X-Request-Id": request.id})
            # Who comes again after the end shall not find the connection that is about to close.
            response.force_close()
            await response.prepare(request.http)
            around = (self._log, self._feed, self._database, self._clock)
            stream = EventStream(response, follower, kinds, *around, is_gone=lambda: request.http.transport is None)
            await stream.run(last_id)
        finally:
            self._feed.leave(follower)
        return response


def _kinds(request: Request) -> frozenset[EventKind]:
    """The kinds that are asked for, as far as the caller may see them."""
    visible = ALL_KINDS if request.principal.may("admin") else PUBLIC_KINDS
    text = request.text("kind")
    if text is None:
        return visible
    names = text.split(",")
    try:
        named = kinds_named(names)
    except ValueError as error:
        details = {"allowed": sorted(EventKind)}
        raise Invalid("bad_kind", f"A kind is one of the allowed, or a noun with a star: {error}.", details) from None
    if "*" in names:
        return visible
    if not named <= visible:
        message = "These events are the operator's; an admin token shows them."
        raise Forbidden("insufficient_scope", message, {"kinds": sorted(named - visible)})
    return named


def _next(request: Request, direction: str, events: list[Any]) -> str | None:
    if len(events) < request.limit:
        return None
    query: dict[str, int | str] = {"limit": request.limit, direction: events[-1].event_id}
    kind = request.text("kind")
    if kind is not None:
        query["kind"] = kind
    return f"{request.path}?{urlencode(query)}"


def _last_event_id(request: Request) -> int | None:
    """The id after which the client wants to go on, None for a client that begins."""
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return None if request.query["last_event_id"] is None else request.integer("last_event_id")
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= _ID_MAX):
        raise Invalid("bad_event_id", "Last-Event-ID is an id of this stream.", {"header": "Last-Event-ID"})
    return int(text)
