"""Offers: the owner's supply, what may be matched (§4.6)."""

from dataclasses import dataclass

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange import entity_tables as tables
from loopd.exchange.chronicle import Chronicle
from loopd.exchange.entities import (
    Match,
    Offer,
    OfferStatus,
    check_change,
    read_end,
    read_id,
    read_initial_status,
    read_quantity,
    read_subject,
)
from loopd.exchange.ports import Records
from loopd.exchange.received import Created, ReceivedText, same_entry
from loopd.exchange.rules import invalid
from loopd.protocol.documents import Document
from loopd.protocol.errors import Invalid, NotFound
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind


@dataclass(frozen=True, slots=True)
class Offers:
    """The Offers of this node. An open one reserves nothing yet; its Match does."""

    clock: Clock
    records: Records
    chronicle: Chronicle

    def create(self, tx: Tx, document: Document, by: str) -> Created[Offer]:
        """Keep a checked Offer.

        The same again gives the stored one; another under its id is Conflict (409) `other_content`. NotFound (404)
        `unknown_material` or `unknown_product`; Invalid (400), mostly with the place: `bad_id`, `bad_status`,
        `bad_quantity`, `bad_time`, `expired`, `not_available`, `unit_mismatch`, `quantity_above_available`.
        """
        value = document.value
        offer_id = read_id(value)
        stored = tables.OFFERS.find(tx, offer_id)
        if stored is not None:
            return same_entry(stored, document)
        now_ms = self.clock.now_ms()
        kind, subject_id = read_subject(value)
        quantity = read_quantity(value)
        self._check_stock(tx, kind, subject_id, quantity)
        offer = Offer(
            id=offer_id,
            document=document.received,
            subject_id=subject_id,
            kind=kind,
            counterpart=None,
            status=read_initial_status(MirroredEntity.OFFER, value),
            created_at_ms=now_ms,
            changed_at_ms=now_ms,
            quantity=quantity,
            available_until_ms=read_end(value, "available_until", now_ms),
        )
        return Created(self.keep(tx, offer, ReceivedText.of(document), by))

    def keep(self, tx: Tx, offer: Offer, text: ReceivedText, by: str) -> Offer:
        """Write a new Offer that is known to hold."""
        tables.OFFERS.insert(tx, offer, text.received, text.compacted)
        self.chronicle.write(tx, text.read(offer), by)
        return text.read(offer)

    def require(self, source: RowSource, offer_id: str) -> Offer:
        """The Offer of an id; NotFound (404) `unknown_offer`."""
        offer = tables.OFFERS.find(source, offer_id)
        if offer is None:
            raise NotFound("unknown_offer", "No such offer is kept here.")
        return offer

    def reserve(self, tx: Tx, match: Match, by: str) -> Offer:
        """A Match was made of an open Offer, whose other side is then known."""
        offer = self.require(tx, match.offer_id)
        counterpart = match.counterpart or offer.counterpart
        return self._move(tx, offer, OfferStatus.RESERVED, by, None, counterpart=counterpart)

    def reopen(self, tx: Tx, match: Match, by: str, reason: str | None) -> None:
        """The Match of an Offer has ended."""
        offer = self.require(tx, match.offer_id)
        if offer.status == OfferStatus.RESERVED:
            self._move(tx, offer, OfferStatus.OPEN, by, reason)

    def withdraw(self, tx: Tx, offer: Offer, by: str, reason: str | None) -> Offer:
        """Take an Offer back for good; whoever calls ended its Match. Conflict (409) `terminal`."""
        return self._move(tx, offer, OfferStatus.WITHDRAWN, by, reason)

    def _move(
        self, tx: Tx, offer: Offer, status: OfferStatus, by: str, reason: str | None, **changes: str | None
    ) -> Offer:
        check_change(MirroredEntity.OFFER, offer.status, status)
        moved = tables.OFFERS.move(tx, offer, status, reason, self.clock.now_ms(), **changes)
        self.chronicle.write(tx, moved, by)
        return moved

    def _check_stock(self, tx: Tx, kind: SubjectKind, subject_id: str, quantity: Quantity) -> None:
        subject = self.records.require(tx, kind, subject_id).subject
        if not self.records.is_available(subject):
            state = "expired" if subject.available else subject.state.value
            raise Invalid("not_available", f"The {kind.value} is {state}.")
        left = Quantity(subject.quantity, subject.unit)
        if quantity.dimension is not left.dimension:
            raise invalid("unit_mismatch", "/quantity/unit", f"{quantity.unit} cannot be compared with {left.unit}")
        if quantity.is_more_than(left):
            message = f"only {left.value:f} {left.unit} is available"
            raise invalid("quantity_above_available", "/quantity/value", message)
