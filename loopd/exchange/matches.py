"""Matches: an Offer and who takes it. An active one reserves its Offer's quantity (§4.6)."""

from dataclasses import dataclass

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange import entity_tables as tables
from loopd.exchange.chronicle import Chronicle
from loopd.exchange.entities import (
    Match,
    MatchStatus,
    Offer,
    OfferStatus,
    TransferStatus,
    check_change,
    read_counterpart,
    read_end,
    read_id,
    read_initial_status,
    read_subject,
)
from loopd.exchange.offers import Offers
from loopd.exchange.ports import HomeNode, Stock
from loopd.exchange.received import Created, ReceivedText, same_entry
from loopd.exchange.rules import invalid, read_moment
from loopd.exchange.tables import release_selection_of
from loopd.exchange.transactions import Transactions
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import MATCH_MAX_VALIDITY_MS


@dataclass(frozen=True, slots=True)
class Matches:
    """The Matches of this node."""

    node: HomeNode
    clock: Clock
    stock: Stock
    offers: Offers
    transactions: Transactions
    chronicle: Chronicle
    validity_ms: int

    def create(self, tx: Tx, document: Document, by: str) -> Created[Match]:
        """Keep a checked Match, and with it reserve what its Offer offers.

        The same again gives the stored one; another under its id is Conflict (409) `other_content`. NotFound (404)
        `unknown_offer`; Invalid (400): `offer_not_open`, `offer_expired`, and with the place `bad_id`, `bad_status`,
        `bad_time`, `bad_node`, `expired`, `other_subject`; Conflict (409): `already_matched`, `not_available`,
        `quantity_above_available`.
        """
        value = document.value
        match_id = read_id(value)
        stored = tables.MATCHES.find(tx, match_id)
        if stored is not None:
            return same_entry(stored, document)
        now_ms = self.clock.now_ms()
        offer = self.offers.require(tx, value["offer_id"])
        if read_subject(value) != (offer.kind, offer.subject_id):
            raise invalid("other_subject", f"/{offer.kind.value}_id", f"the offer is of {offer.subject_id}")
        self._check_open(tx, offer, now_ms)
        read_moment(value, "matched_at")
        end_ms = read_end(value, "valid_until", now_ms) if "valid_until" in value else self.end_ms(now_ms)
        if end_ms > now_ms + MATCH_MAX_VALIDITY_MS:
            raise invalid("bad_time", "/valid_until", "a match reserves for a year at most")
        match = Match(
            id=match_id,
            document=document.received,
            subject_id=offer.subject_id,
            kind=offer.kind,
            counterpart=read_counterpart(value, self.node.node_id),
            status=read_initial_status(MirroredEntity.MATCH, value),
            created_at_ms=now_ms,
            changed_at_ms=now_ms,
            offer_id=offer.id,
            to_city=value["to_city"],
            valid_until_ms=end_ms,
        )
        return Created(self.keep(tx, match, offer, ReceivedText.of(document), by))

    def keep(self, tx: Tx, match: Match, offer: Offer, text: ReceivedText, by: str) -> Match:
        """Write a new Match of an open Offer, and reserve; Conflict (409) where the stock does not allow it."""
        self.stock.reserve(tx, offer.subject_id, offer.quantity, f"match {match.id}")
        tables.MATCHES.insert(tx, match, text.received, text.compacted)
        match = text.read(match)
        self.offers.reserve(tx, match, by)
        self.chronicle.write(tx, match, by)
        return match

    def end_ms(self, now_ms: int) -> int:
        """When a Match that is made now ends, where it does not say."""
        return now_ms + self.validity_ms

    def require(self, source: RowSource, match_id: str) -> Match:
        """The Match of an id; NotFound (404) `unknown_match`."""
        match = tables.MATCHES.find(source, match_id)
        if match is None:
            raise NotFound("unknown_match", "No such match is kept here.")
        return match

    def require_accepted(self, source: RowSource, match_id: str) -> Match:
        """The same where goods may move by it; Invalid (400) `match_not_accepted`."""
        match = self.require(source, match_id)
        if match.status != MatchStatus.ACCEPTED:
            raise Invalid("match_not_accepted", f"The match is {match.status}.", {"current": match.status})
        return match

    def change(self, tx: Tx, match: Match, status: str, by: str, reason: str | None) -> Match:
        """Accept, reject or end a Match.

        Conflict (409) `transition`, `terminal`, `in_transfer`, `fulfilled`; Invalid (400) `bad_status`.
        """
        check_change(MirroredEntity.MATCH, match.status, status)
        if status == MatchStatus.ACCEPTED:
            return self._move(tx, match, status, by, reason)
        return self.end(tx, match, by, reason)

    def end(self, tx: Tx, match: Match, by: str, reason: str | None) -> Match:
        """End an active Match: what it reserved is free again, its Offer open, its transaction cancelled.

        Conflict (409) `in_transfer` while goods move by it, `fulfilled` once they arrived.
        """
        transfer = tables.standing_transfer(tx, match.id)
        if transfer is not None:
            fulfilled = transfer.status == TransferStatus.COMPLETED
            raise Conflict(
                "fulfilled" if fulfilled else "in_transfer",
                f"Its transfer is {transfer.status}.",
                {"match": match.id, "transfer": transfer.id},
            )
        status = MatchStatus.REJECTED if match.status == MatchStatus.PROPOSED else MatchStatus.EXPIRED
        ended = self._move(tx, match, status, by, reason)
        release_selection_of(tx, match.id, ended.changed_at_ms)
        self.offers.reopen(tx, match, by, reason)
        offer = self.offers.require(tx, match.offer_id)
        self.stock.release(tx, match.subject_id, offer.quantity, f"match {match.id} {ended.status}")
        self.transactions.cancel_of(tx, match, by, reason)
        return ended

    def _move(self, tx: Tx, match: Match, status: str, by: str, reason: str | None) -> Match:
        moved = tables.MATCHES.move(tx, match, status, reason, self.clock.now_ms())
        self.chronicle.write(tx, moved, by)
        return moved

    def _check_open(self, tx: Tx, offer: Offer, now_ms: int) -> None:
        active = tables.active_match(tx, offer.id)
        if offer.status == OfferStatus.RESERVED and active is not None:
            raise Conflict("already_matched", "The offer has an active match.", {"match": active.id})
        if offer.status != OfferStatus.OPEN:
            raise Invalid("offer_not_open", f"The offer is {offer.status}.", {"current": offer.status})
        if offer.available_until_ms <= now_ms:
            raise Invalid("offer_expired", "The offer is past its available_until.")
