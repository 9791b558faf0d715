"""The room as one: the log and who follows it, what forgets, and the webhooks with their deliveries."""

import random

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.database import Database
from loopd.events import tables
from loopd.events.deliveries import Client, Deliveries, Surroundings
from loopd.events.feed import EventFeed
from loopd.events.service import EventLog
from loopd.events.settings import WebhookSettings
from loopd.events.webhook_rules import Patience
from loopd.events.webhooks import Webhooks
from loopd.ticker import Ticker

# A flood adds what it adds in this time to what is kept.
PRUNE_EVERY_S = 10.0


class EventRoom:
    """Everything of a node's events over one database. `start` to `stop`; `part` ends the streams before that."""

    def __init__(
        self,
        node_id: str,
        settings: WebhookSettings,
        database: Database,
        audit: AuditLog,
        clock: Clock,
        client: Client,
        *,
        development: bool,
    ) -> None:
        self.feed = EventFeed(tables.newest_id(database.points))
        self.log = EventLog(clock, self.feed.committed)
        self._pruning = Ticker("event-pruning", lambda: self.log.prune(database), PRUNE_EVERY_S, "events_not_pruned")
        patience = Patience(round(settings.first_retry_s * 1000), settings.give_up_after_s * 1000)
        self.deliveries = Deliveries(
            Surroundings(node_id, database, self.log, audit, client, clock, random.SystemRandom(), patience)
        )
        self.feed.watch(self.deliveries.happened)
        self.webhooks = Webhooks(audit, clock, self.deliveries.changed, plain_http=development)

    def start(self) -> None:
        """Begin to forget what is old and to deliver what is due."""
        self._pruning.start()
        self.deliveries.start()

    def part(self) -> None:
        """End the streams, whose connections would otherwise stay open."""
        self.feed.close()

    async def stop(self) -> None:
        """End the work in the background."""
        await self._pruning.stop()
        await self.deliveries.stop()
