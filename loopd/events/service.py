"""The event log's door: append within the transaction of what happened."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from loopd.clock import Clock
from loopd.database import Tx
from loopd.events import tables
from loopd.events.rules import Event, EventKind
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import EVENT_DATA_MAX_BYTES

__all__ = ["Event", "EventKind", "EventLog"]


def _nobody(event: Event) -> None:
    pass


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
