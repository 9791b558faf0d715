"""A disk that loses what was not synced, and the tables of a node on it.

The writer is the daemon's: units of work share a transaction, one transaction at a time, and what a unit wants to say
or show is done after the sync. A transaction is there as a whole or not at all, so units run when it ends. A crash in
the middle of a sync leaves it or loses it, by draw; nobody was told of it either way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, log
from random import Random
from typing import Any, Final

from loopd.gossip.flood import HopState, Newest
from loopd.protocol.announcement import Announcement
from loopd.sim.timeline import US_PER_MS, Timeline

_SYNC_SIGMA: Final = 0.6
# Units in one transaction.
_GROUP_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Message:
    """A genuine announcement as its origin made it; `made_at_us` is true time, the rest are the real bytes."""

    number: int
    origin: int
    announcement: Announcement
    message_id: bytes
    body: bytes
    timestamp: str
    signature: str
    seed: bytes
    made_at_us: int


@dataclass(slots=True)
class Row:
    """A message that is held: the best copy's TTL and hop value; for one's own the TTL it starts with, and the seed."""

    message: Message
    best: HopState
    own: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of the outbox: a copy for all peers. `repeated`: an earlier entry is of the same message."""

    entry: int
    message: Message
    came_from: str | None
    forward: HopState
    repeated: bool


@dataclass(slots=True)
class Tables:
    """What is on the disk."""

    messages: dict[bytes, Row] = field(default_factory=dict)
    # By origin and subject, what others said last; and what this node itself did.
    newest: dict[tuple[str, str], Newest] = field(default_factory=dict)
    own: dict[str, bytes] = field(default_factory=dict)
    # Every delivery to the modules, as they would remember it: an id, and when in true time.
    delivered: list[tuple[bytes, int]] = field(default_factory=list)
    log: list[Logged] = field(default_factory=list)
    last_entry: dict[bytes, int] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    aside: dict[str, dict[int, None]] = field(default_factory=dict)

    def queue(self, message: Message, came_from: str | None, forward: HopState) -> None:
        """Write a copy into the log."""
        entry = len(self.log) + 1
        self.log.append(Logged(entry, message, came_from, forward, message.message_id in self.last_entry))
        self.last_entry[message.message_id] = entry

    def is_outdated(self, logged: Logged) -> bool:
        """Whether a better copy of the message follows in the log, or a newer state of its subject is known."""
        message = logged.message
        announcement = message.announcement
        newest = self.newest.get((announcement.origin, announcement.subject))
        newest_id = self.own.get(announcement.subject) if newest is None else newest.message_id
        superseded = newest_id is not None and newest_id != message.message_id
        return superseded or self.last_entry[message.message_id] > logged.entry


Unit = Callable[[], Any]
Then = Callable[[Any], None]


class Writer:
    """One node's writer in one of its lives."""

    def __init__(self, timeline: Timeline, random: Random, fsync_ms: float) -> None:
        self._timeline = timeline
        self._random = random
        self._fsync_ms = fsync_ms
        self._queue: list[tuple[Unit, Then]] = []
        self._syncing: list[tuple[Unit, Then]] = []
        self._dead = False

    def write(self, unit: Unit, then: Then) -> None:
        """Run the unit in a transaction; `then` gets its result once that is synced."""
        if self._dead:
            return
        self._queue.append((unit, then))
        if not self._syncing:
            # The writer's thread takes up what comes in the same moment together.
            self._begin()

    def crash(self) -> None:
        """The process is gone. What was being synced may be on the disk, what waited is not."""
        self._dead = True
        if self._syncing and self._random.random() < 0.5:
            for unit, _ in self._syncing:
                unit()
        self._queue, self._syncing = [], []

    def _begin(self) -> None:
        self._syncing, self._queue = self._queue[:_GROUP_MAX], self._queue[_GROUP_MAX:]
        sync_ms = exp(self._random.gauss(log(self._fsync_ms), _SYNC_SIGMA))
        self._timeline.after(round(sync_ms * US_PER_MS), self._end)

    def _end(self) -> None:
        if self._dead:
            return
        results = [(then, unit()) for unit, then in self._syncing]
        self._syncing = []
        if self._queue:
            self._begin()
        for then, result in results:
            then(result)
