"""The room as one: bids and selection, the lifecycle of deals, and what both sides of a deal mirror."""

import secrets

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.database import Database, Tx
from loopd.due import DueTimer
from loopd.events.service import EventLog
from loopd.exchange.lifecycle import Lifecycle, Ports
from loopd.exchange.mirror_keeper import MirrorKeeper
from loopd.exchange.mirror_requests import StatusRequests
from loopd.exchange.mirror_telling import MirrorTelling
from loopd.exchange.mirroring import Mirroring
from loopd.exchange.ports import (
    Heard,
    HomeNode,
    NodeDirectory,
    Outbox,
    SettlementHooks,
    SignalReadings,
    SignedReads,
)
from loopd.exchange.selection import Policy
from loopd.exchange.service import Exchange
from loopd.exchange.settings import ExchangeSettings
from loopd.protocol.documents import Document
from loopd.registry.service import Registry
from loopd.registry.stock import Stock


class ExchangeRoom:
    """Everything of a node's exchange over one database. `start` to `stop`."""

    def __init__(
        self,
        node: HomeNode,
        settings: ExchangeSettings,
        database: Database,
        audit: AuditLog,
        events: EventLog,
        clock: Clock,
        registry: Registry,
        signals: SignalReadings,
        settlement: SettlementHooks,
        directory: NodeDirectory,
        heard: Heard,
        outbox: Outbox,
        reads: SignedReads,
    ) -> None:
        self.telling = MirrorTelling(node, clock, directory, outbox)
        self.lifecycle = Lifecycle(
            Ports(
                node=node,
                clock=clock,
                audit=audit,
                events=events,
                records=registry,
                stock=Stock(registry, clock, audit),
                directory=directory,
                mirror=self.telling,
                settlement=settlement,
                random_hex=secrets.token_hex,
            ),
            settings.match_validity_s * 1000,
        )
        policy = Policy(settings.select == "lowest-cost", settings.select_after_s * 1000)
        self.bids = Exchange(
            node, clock, audit, events, registry, signals, directory, heard, outbox, self.lifecycle, policy
        )
        self._timer = DueTimer("exchange-timer", [self.lifecycle, self.bids.selecting], database, clock)
        self.mirroring = Mirroring(node, clock, audit, events, lambda: self.keeper.wake())
        self.status_requests = StatusRequests(node, clock, audit, outbox, self.lifecycle, secrets.token_hex)
        self.keeper = MirrorKeeper(database, clock, self.mirroring, directory, reads)

    async def start(self) -> None:
        """End what ended meanwhile, at its time; then keep time, and fetch what the mirror lacks."""
        await self._timer.start()
        self.keeper.start()

    async def stop(self) -> None:
        """End the work in the background."""
        await self._timer.stop()
        await self.keeper.stop()

    def receive_bid_status(self, tx: Tx, caller_node_id: str, document: Document) -> None:
        """Take what became of a bid; its owner may have a deal to tell of."""
        self.bids.receive_status(tx, caller_node_id, document)
        self.mirroring.expect(tx, caller_node_id)

    def request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """Tell whoever queued a request how it was answered; each knows its own by the reference."""
        self.bids.request_answered(tx, reference, status, reason)
        self.telling.update_answered(reference, status, reason)
        self.status_requests.request_answered(tx, reference, status, reason)
