"""The room as one: the signals in force, and the votes that change them."""

from collections.abc import Callable

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import NodeKey
from loopd.database import Database
from loopd.events.service import EventLog
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from loopd.signals.voting import Tell, Voting
from loopd.signals.voting_time import VotingTime


class SignalsRoom:
    """Everything of a node's signals over one database. `start` to `stop`.

    `key` gives the node's key, which may be another one tomorrow; `tell` passes on what a vote decided.
    """

    def __init__(
        self,
        node_id: str,
        context_url: str,
        key: Callable[[], NodeKey],
        settings: SignalsSettings,
        database: Database,
        audit: AuditLog,
        events: EventLog,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self.published = Signals(node_id, context_url, settings, clock, events)
        self.voting = Voting(node_id, context_url, key, settings, audit, clock, tell)
        self._time = VotingTime(self.voting, database, clock)

    async def start(self) -> None:
        """Open and close what came due meanwhile, at its time; then keep time."""
        await self._time.start()

    async def stop(self) -> None:
        """End the work in the background."""
        await self._time.stop()
