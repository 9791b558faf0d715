"""The exchange's door: bids on what this node hosts, the owner's selection, and this node's bids at other cities.

Whatever writes takes the caller's `tx`, so that a bid, its audit entry, its events and its outbox line are one.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventKind, EventLog
from loopd.exchange import tables
from loopd.exchange.bidding import Bidding
from loopd.exchange.judging import Judging
from loopd.exchange.ports import DealMaker, Heard, HomeNode, NodeDirectory, Outbox, Records, SignalReadings
from loopd.exchange.rules import (
    DEFAULT_VALIDITY_MS,
    Bid,
    BidState,
    Terms,
    check_distance,
    check_quantity,
    invalid,
    is_local_bidder,
    read_account,
    read_moment,
    read_price,
    read_terms,
    read_validity,
)
from loopd.exchange.selection import BY_HAND, Policy, Selecting, not_available
from loopd.exchange.tables import NewBid
from loopd.exchange.views import bid_json
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, NotFound, Unavailable
from loopd.protocol.ids import SUBJECT_ID_MAX_CHARACTERS
from loopd.protocol.json_text import JSON
from loopd.protocol.limits import LIVE_BIDS_PER_SUBJECT_MAX
from loopd.protocol.money import amount_json
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import Subject, SubjectKind
from loopd.protocol.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class BidWish:
    """A bid as a business of this city, or the node's operator, asks for it.

    `value` has `base_price` and, where stated, `quantity`, `unit`, `distance_km`, `valid_until` or `valid_for_s`.
    """

    subject_id: str
    kind: SubjectKind
    bidder: str | None
    value: Mapping[str, Any]


class Exchange:
    """Takes bids, ranks them by this node's own reckoning, selects, and bids at other cities."""

    def __init__(
        self,
        node: HomeNode,
        clock: Clock,
        audit: AuditLog,
        events: EventLog,
        records: Records,
        signals: SignalReadings,
        directory: NodeDirectory,
        heard: Heard,
        outbox: Outbox,
        deals: DealMaker,
        policy: Policy = BY_HAND,
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._node = node
        self._clock = clock
        self._audit = audit
        self._events = events
        self._records = records
        self._directory = directory
        self._judging = Judging(node, clock, signals, directory)
        self.selecting = Selecting(node, clock, audit, events, records, directory, outbox, self._judging, deals, policy)
        self._bidding = Bidding(node, clock, audit, events, signals, directory, heard, outbox, random_hex)

    def make_bid(self, tx: Tx, wish: BidWish) -> dict[str, Any]:
        """Bid on a subject, here or at the city that announced it; gives the bid with its cost.

        Refuses as `bid_here` does, or as `Bidding.bid_there`.
        """
        record = self._records.find(tx, wish.subject_id)
        if record is not None and record.subject.kind is wish.kind:
            return self.bid_here(tx, wish)
        if wish.bidder is not None and wish.bidder != self._node.node_id:
            raise invalid("bad_bidder", "/bidder", "a bid at another city is made by the node itself")
        return self._bidding.bid_there(tx, wish.subject_id, wish.kind, wish.value)

    def bid_here(self, tx: Tx, wish: BidWish) -> dict[str, Any]:
        """A bid of this city on a subject of this city.

        NotFound (404) `unknown_material` or `unknown_product`; Conflict (409) `not_available`; Invalid (400), the
        place named: `bad_bidder`, `bad_amount`, `bad_quantity`, `unit_mismatch`, `quantity_above_available`,
        `bad_distance`, `bad_time`, `expired`; Unavailable (503) `too_many_bids`.
        """
        record = self._records.require(tx, wish.kind, wish.subject_id)
        subject, now_ms = record.subject, self._clock.now_ms()
        bidder = self._node.node_id if wish.bidder is None else wish.bidder
        if not is_local_bidder(bidder, self._node.node_id):
            raise invalid("bad_bidder", "/bidder", "a bidder is 2 to 80 of a-z, 0-9 and -, a business of this city")
        if not self._records.is_available(subject):
            raise not_available(subject)
        terms = self._terms(wish.value, subject)
        if terms.distance_km is not None:
            raise invalid("bad_distance", "/distance_km", "inside one city no distance counts")
        check_quantity(terms, Quantity(subject.quantity, subject.unit))
        until_ms = read_validity(wish.value, now_ms) or now_ms + DEFAULT_VALIDITY_MS
        bid = self._take(
            tx,
            NewBid(
                subject_id=subject.subject_id,
                kind=subject.kind,
                bidder=bidder,
                local=True,
                verified=True,
                terms=terms,
                claimed_minor=None,
                offer_id=None,
                issued_at_ms=None,
                document_digest=None,
                received_at_ms=now_ms,
                valid_until_ms=until_ms,
                buyer_account=read_account(wish.value, "buyer_account", self._node.node_id),
            ),
        )
        ranked = self._judging.ranked(tx, record)
        return bid_json(next(each for each in ranked if each.bid.number == bid), now_ms)

    def receive_offer(self, tx: Tx, caller_node_id: str, verified: bool, document: Document) -> int:
        """Take the MaterialOffer of another node (§8.2); gives the bid's number.

        A repeat under the same `id` gives the same number. A `loop_cost` that differs from this node's own figure is
        kept and shown; the own figure ranks. Invalid (400): `origin_mismatch`, `not_available`, `other_content`, and
        with the place `expired`, `bad_time`, `bad_id`, `bad_amount`, `bad_quantity`, `unit_mismatch`,
        `quantity_above_available`, `bad_distance`, `distance_below_great_circle`; NotFound (404) `unknown_material`
        or `unknown_product`; Unavailable (503) `too_many_bids`.
        """
        value, now_ms = document.value, self._clock.now_ms()
        if value["from"] != caller_node_id:
            message = "A bid comes from the node that signs it."
            raise Invalid("origin_mismatch", message, {"from": value["from"], "signer": caller_node_id})
        kind = _kind_of(value)
        offer_id, digest = _offer_id(value), sha256(document.received).digest()
        repeated = None if offer_id is None else tables.find_bid_by_offer(tx, caller_node_id, offer_id)
        if repeated is not None:
            bid, known_digest = repeated
            if known_digest != digest:
                raise Invalid("other_content", "A bid with this id and other content is stored already.")
            return bid.number
        record = self._records.require(tx, kind, value[kind.value])
        subject = record.subject
        if not self._records.is_available(subject):
            raise Invalid("not_available", not_available(subject).message)
        valid_until_ms = read_moment(value, "valid_until")
        if valid_until_ms <= now_ms:
            raise invalid("expired", "/valid_until", "a bid ends in the future", {"server_time": _now(now_ms)})
        terms = self._terms(value, subject)
        check_quantity(terms, Quantity(subject.quantity, subject.unit))
        bidder = self._directory.find(tx, caller_node_id)
        check_distance(terms.distance_km, self._judging.origin(subject), None if bidder is None else bidder.location)
        return self._take(
            tx,
            NewBid(
                subject_id=subject.subject_id,
                kind=kind,
                bidder=caller_node_id,
                local=False,
                verified=verified,
                terms=terms,
                claimed_minor=read_price(value, "loop_cost"),
                offer_id=offer_id,
                issued_at_ms=read_moment(value, "issued_at") if "issued_at" in value else None,
                document_digest=digest,
                received_at_ms=now_ms,
                valid_until_ms=valid_until_ms,
                buyer_account=read_account(value, "buyer_account", caller_node_id),
            ),
        )

    def listing(self, source: RowSource, kind: SubjectKind, subject_id: str) -> dict[str, Any]:
        """All bids on a subject, ranked, with what was selected (§12.1); see `Selecting.listing`."""
        return self.selecting.listing(source, kind, subject_id)

    def select(self, tx: Tx, kind: SubjectKind, subject_id: str, number: int | None = None) -> dict[str, Any]:
        """Select a bid; see `Selecting.select`."""
        return self.selecting.select(tx, kind, subject_id, number)

    def withdraw_here(self, tx: Tx, kind: SubjectKind, subject_id: str, number: int) -> dict[str, Any]:
        """Take back a bid that a business of this city, or the node itself, made here; gives the listing then.

        NotFound (404) `unknown_material`, `unknown_product`, `unknown_offer`; Conflict (409) `offer_not_live`.
        """
        record = self._records.require(tx, kind, subject_id)
        bid = tables.find_bid(tx, number)
        if bid is None or not bid.local or bid.subject_id != record.subject.subject_id:
            raise NotFound("unknown_offer", "No such offer was made here for this.")
        if bid.state is not BidState.LIVE or bid.has_expired(self._clock.now_ms()):
            raise Conflict("offer_not_live", "The offer was replaced, has ended, or was decided on before.")
        self._withdraw(tx, bid)
        return self.listing(tx, kind, subject_id)

    def withdraw_there(self, tx: Tx, number: int) -> dict[str, Any]:
        """Take back a bid of this node at another city; see `Bidding.withdraw`."""
        return self._bidding.withdraw(tx, number)

    def receive_withdrawal(self, tx: Tx, caller_node_id: str, document: Document) -> int:
        """Take the BidWithdrawal of a bidder's node; gives the bid's number.

        A bid that is not live any more stays as it is. Invalid (400) `origin_mismatch`; NotFound (404) `unknown_offer`;
        Conflict (409) `terminal` where the owner has decided: the bidder is told, or was.
        """
        value = document.value
        if value["from"] != caller_node_id:
            message = "A bid is taken back by the node that made it."
            raise Invalid("origin_mismatch", message, {"from": value["from"], "signer": caller_node_id})
        found = tables.find_bid_by_offer(tx, caller_node_id, value["offer"])
        if found is None or value.get(found[0].kind.value) != found[0].subject_id:
            raise NotFound("unknown_offer", "No such offer was made to this node.")
        bid = found[0]
        if bid.state in (BidState.SELECTED, BidState.DECLINED):
            raise Conflict("terminal", f"The offer is {bid.state.value}.", {"status": bid.state.value})
        if bid.state is BidState.LIVE:
            self._withdraw(tx, bid)
        return bid.number

    def _withdraw(self, tx: Tx, bid: Bid) -> None:
        tables.set_bid_state(tx, bid.number, BidState.WITHDRAWN)
        told: dict[str, JSON] = {"event": "bid_withdrawn", "bid": bid.number, "bidder": bid.bidder}
        self._audit.append(tx, AuditKind.NODE_INTERACTION, bid.subject_id, told)

    async def made_bids(self, database: Database, limit: int) -> list[dict[str, Any]]:
        """The newest bids of this node at other cities, with what is known of their fate."""
        return await self._bidding.newest(database, limit)

    def request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """How a target finally answered a queued request: 2xx accepted, 0 not delivered in time, else refused.

        That a node does not take the outcome of its bid changes nothing here.
        """
        self._bidding.request_answered(tx, reference, status, reason)

    def receive_status(self, tx: Tx, caller_node_id: str, document: Document) -> int:
        """Take the BidStatus of an owner's node; see `Bidding.receive_status`."""
        return self._bidding.receive_status(tx, caller_node_id, document)

    def _terms(self, value: Mapping[str, Any], subject: Subject) -> Terms:
        """What a bidder offers. Who names no quantity wants all that is left now, whatever becomes of it later."""
        terms = read_terms(value, subject.unit)
        return replace(terms, quantity=terms.quantity or Quantity(subject.quantity, subject.unit))

    def _take(self, tx: Tx, bid: NewBid) -> int:
        """Keep a bid as the live one of its bidder; an older one that arrives late is kept as replaced."""
        live = tables.find_live_bid(tx, bid.subject_id, bid.bidder)
        state = BidState.LIVE
        if live is not None:
            if _was_made_before(bid, live):
                state = BidState.REPLACED
            else:
                ended = BidState.EXPIRED if live.has_expired(bid.received_at_ms) else BidState.REPLACED
                tables.set_bid_state(tx, live.number, ended)
        elif tables.count_live(tx, bid.subject_id) >= LIVE_BIDS_PER_SUBJECT_MAX:
            tables.end_expired(tx, bid.subject_id, bid.received_at_ms)
            if tables.count_live(tx, bid.subject_id) >= LIVE_BIDS_PER_SUBJECT_MAX:
                raise Unavailable("too_many_bids", "As many bids wait for the owner as are kept.", retry_after_s=600)
        number = tables.insert_bid(tx, bid, state)
        tables.forget_replaced(tx, bid.subject_id, bid.bidder)
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            bid.subject_id,
            {
                "event": "bid_received",
                "bid": number,
                "bidder": bid.bidder,
                "base_price_minor": bid.terms.base_minor,
                "document_sha256": None if bid.document_digest is None else bid.document_digest.hex(),
            },
        )
        price = amount_json(bid.terms.base_minor)
        self._events.append(
            tx, EventKind.BID_RECEIVED, bid.subject_id, {"bid": number, "bidder": bid.bidder, "base_price": price}
        )
        self.selecting.schedule(tx, bid.subject_id, bid.kind)
        return number


def _was_made_before(bid: NewBid, live: Bid) -> bool:
    made_at_ms, live_made_at_ms = bid.issued_at_ms, live.issued_at_ms
    return made_at_ms is not None and live_made_at_ms is not None and made_at_ms < live_made_at_ms


def _kind_of(value: Mapping[str, Any]) -> SubjectKind:
    named = [kind for kind in SubjectKind if kind.value in value]
    if len(named) != 1:
        raise invalid("schema", "", "names either a material or a product")
    return named[0]


def _offer_id(value: Mapping[str, Any]) -> str | None:
    offer_id = value.get("id")
    if offer_id is None:
        return None
    if not isinstance(offer_id, str) or not 0 < len(offer_id) <= SUBJECT_ID_MAX_CHARACTERS:
        raise invalid("bad_id", "/id", f"an id is a text of at most {SUBJECT_ID_MAX_CHARACTERS} characters")
    return offer_id


def _now(now_ms: int) -> str:
    return format_timestamp(now_ms)
