"""What the bids on a subject cost by this node's own reckoning, and how they rank."""

from decimal import Decimal

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.exchange import tables
from loopd.exchange.ports import HomeNode, HostedRecord, NodeDirectory, SignalReadings
from loopd.exchange.rules import (
    Judged,
    Leg,
    announced_location,
    asking_price_in,
    bid_cost,
    claimed_cost,
    judge,
    ranking,
    signal_category,
)
from loopd.protocol.geo import Location
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import Subject


class Judging:
    """Judges bids by the signals and places that are known now."""

    def __init__(self, node: HomeNode, clock: Clock, signals: SignalReadings, directory: NodeDirectory) -> None:
        self._node = node
        self._clock = clock
        self._signals = signals
        self._directory = directory

    def ranked(self, source: RowSource, record: HostedRecord) -> list[Judged]:
        """The live bids on a record: ranked, and after them those without a rank."""
        subject, now_ms = record.subject, self._clock.now_ms()
        left = Quantity(subject.quantity, subject.unit)
        asking_lc = self.asking_price(record)
        judged = []
        for bid in tables.live_bids(source, subject.subject_id):
            figure = bid_cost(bid.terms, None if bid.local else self._leg(source, subject, bid.bidder))
            judged.append(judge(bid, figure, record.registered, left, asking_lc, now_ms))
        return ranking(judged)

    def origin(self, subject: Subject) -> Location:
        """Where a subject lies, as announcements tell it; else where this node does."""
        return self._node.location if subject.location is None else announced_location(subject.location)

    def asking_price(self, record: HostedRecord) -> Decimal | None:
        """What the owner asks for all of a record, in LC."""
        return asking_price_in(record.document)

    def agreed_cost(self, source: RowSource, subject: Subject, judged: Judged) -> LoopCost:
        """What a selected bid costs: by this node's own reckoning, or, where that lacks something, by the bidder's."""
        if judged.cost is not None:
            return judged.cost
        return claimed_cost(judged.bid, self._leg(source, subject, judged.bid.bidder))

    def _leg(self, source: RowSource, subject: Subject, bidder: str) -> Leg:
        category = signal_category(subject.kind, subject.category)
        node = self._directory.find(source, bidder)
        return Leg(
            self.origin(subject),
            None if node is None else node.location,
            self._signals.basis_points(source, self._node.node_id, category),
            self._signals.basis_points(source, bidder, category),
        )
