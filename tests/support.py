"""What tests of several rooms share."""

import json
from typing import Any

from loopd.database import Database


async def happened(database: Database) -> list[tuple[str, str, Any]]:
    """The event log in order: kind, subject and data."""
    rows = await database.all("SELECT kind, subject, data FROM event ORDER BY id")
    return [(row["kind"], row["subject"], json.loads(row["data"])) for row in rows]


class ManualClock:
    """A clock that stands still until it is advanced."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._start_ms = now_ms
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return (self._now_ms - self._start_ms) / 1000

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass."""
        self._now_ms += ms

    def set_wall(self, now_ms: int) -> None:
        """Step the wall clock, as an administrator or NTP may; the monotonic one does not notice."""
        self._start_ms += now_ms - self._now_ms
        self._now_ms = now_ms
