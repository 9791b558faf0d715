"""The event log's door: append within the transaction of what happened, read pages, forget what is old."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from loopd.clock import Clock
from loopd.database import Database, Tx
from loopd.events import tables
from loopd.events.rules import Event, EventKind
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import (
    EVENT_DATA_MAX_BYTES,
    EVENTS_KEPT_MS,
    EVENTS_KEPT_PER_KIND_MAX,
    EVENTS_PRUNED_AT_ONCE,
)

__all__ = ["Event", "EventKind", "EventLog", "EventsAfter"]


def _nobody(event: Event) -> None:
    pass


@dataclass(frozen=True, slots=True)
class EventsAfter:
    """Some events after an id, the oldest first.

    `gone_through`: up to that id, which lies after the one asked for, events may have been forgotten; None where
    nothing is missing. `unknown`: no event ever had the id asked for, as when the node was restored from a backup.
    """

    events: list[Event]
    gone_through: int | None
    unknown: bool


class EventLog:
    """The facts of this node in the order of their commits, for lists, streams and webhooks.

    `committed` is told each event on the event loop, once it is durable and in the order of ids.
    """

    def __init__(self, clock: Clock, committed: Callable[[Event], None] = _nobody) -> None:
        self._clock = clock
        self._committed = committed

    def append(self, tx: Tx, kind: EventKind, subject: str, data: Mapping[str, Any]) -> int:
        """Record what happened to `subject` (an id) in the transaction in which it happens; returns the event's id.

        `data` is small JSON: it tells what changed and names documents by their id rather than repeating them. No
        personal data goes in, and no account of a person. ValueError for what is too long or names such an account.
        """
        body = dump_json(data)
        if len(body) > EVENT_DATA_MAX_BYTES or b'"user:' in body:
            raise ValueError(f"{kind.value}: an event's data is at most {EVENT_DATA_MAX_BYTES} bytes, and names nobody")
        at_ms = self._clock.now_ms()
        event_id = tables.insert(tx, kind.value, subject, at_ms, body)
        tx.after_commit(partial(self._committed, Event(event_id, kind, subject, at_ms, body)))
        return event_id

    async def newest(
        self, database: Database, kinds: Collection[EventKind], before: int | None, limit: int
    ) -> list[Event]:
        """Up to `limit` events of the kinds, the newest first; `before` an id, or None for the newest of all."""
        return await tables.newest(database, kinds, 2**63 - 1 if before is None else before, limit)

    async def after(self, database: Database, kinds: Collection[EventKind], after_id: int, limit: int) -> EventsAfter:
        """Up to `limit` events of the kinds that follow an id, and whether some that did are forgotten."""
        async with database.snapshot() as reader:
            pruned = await tables.pruned_through(reader, kinds)
            events = await tables.after(reader, kinds, after_id, limit)
        # No event is lost between the two reads: they are of one moment, and a point read sees at least as much.
        unknown = not events and after_id > tables.newest_id(database.points)
        return EventsAfter(events, pruned if pruned > after_id else None, unknown)

    async def prune(self, database: Database) -> None:
        """Forget of each kind what is too old or too much, in pieces that keep no other write waiting."""
        before_ms = self._clock.now_ms() - EVENTS_KEPT_MS
        for kind in EventKind:
            async with database.snapshot() as reader:
                through_id = await tables.prunable_through(
                    reader, kind, EVENTS_KEPT_PER_KIND_MAX, before_ms, EVENTS_PRUNED_AT_ONCE
                )
            if through_id:
                while await database.write(
                    partial(tables.prune, kind=kind, through_id=through_id, at_once=EVENTS_PRUNED_AT_ONCE)
                ):
                    pass
