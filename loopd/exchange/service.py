"""The exchange's door: bids on what this node hosts, the owner's selection, and this node's bids at other cities.

Whatever writes takes the caller's `tx`, so that a bid, its audit entry, its events and its outbox line are one.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
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
from loopd.exchange.ports import Heard, HomeNode, HostedRecord, NodeDirectory, Outbox, Records, SignalReadings
from loopd.exchange.rules import (
    DEFAULT_VALIDITY_MS,
    Bid,
    BidState,
    Judged,
    Leg,
    SelectionReason,
    announced_location,
    asking_price_in,
    bid_cost,
    check_distance,
    check_quantity,
    invalid,
    is_local_bidder,
    judge,
    ranking,
    read_moment,
    read_price,
    read_terms,
    read_validity,
    signal_category,
)
from loopd.exchange.tables import NewBid, Selection
from loopd.exchange.views import MIRROR_PATH, bid_json, bid_status, listing_json
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, NotFound, Unavailable
from loopd.protocol.geo import Location
from loopd.protocol.ids import SUBJECT_ID_MAX_CHARACTERS
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import BID_STATUS_DELIVERY_MS, LIVE_BIDS_PER_SUBJECT_MAX
from loopd.protocol.money import amount_json
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.vocabulary import Feature

# A bid that had ended before is told of to nobody.
_OUTCOME_EVENTS = {BidState.SELECTED: EventKind.BID_SELECTED, BidState.DECLINED: EventKind.BID_DECLINED}


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
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._node = node
        self._clock = clock
        self._audit = audit
        self._events = events
        self._records = records
        self._signals = signals
        self._directory = directory
        self._outbox = outbox
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
        record = self._require(tx, wish.kind, wish.subject_id)
        subject, now_ms = record.subject, self._clock.now_ms()
        bidder = self._node.node_id if wish.bidder is None else wish.bidder
        if not is_local_bidder(bidder, self._node.node_id):
            raise invalid("bad_bidder", "/bidder", "a bidder is 2 to 80 of a-z, 0-9 and -, a business of this city")
        if not self._records.is_available(subject):
            raise _not_available(subject)
        whole = Quantity(subject.quantity, subject.unit)
        terms = read_terms(wish.value, subject.unit)
        if terms.distance_km is not None:
            raise invalid("bad_distance", "/distance_km", "inside one city no distance counts")
        check_quantity(terms, whole)
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
            ),
        )
        ranked = self._ranked(tx, record, now_ms)
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
        record = self._require(tx, kind, value[kind.value])
        subject = record.subject
        if not self._records.is_available(subject):
            raise Invalid("not_available", _not_available(subject).message)
        valid_until_ms = read_moment(value, "valid_until")
        if valid_until_ms <= now_ms:
            raise invalid("expired", "/valid_until", "a bid ends in the future", {"server_time": _now(now_ms)})
        terms = read_terms(value, subject.unit)
        check_quantity(terms, Quantity(subject.quantity, subject.unit))
        bidder = self._directory.find(tx, caller_node_id)
        check_distance(terms.distance_km, self._origin(subject), None if bidder is None else bidder.location)
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
            ),
        )

    def listing(self, source: RowSource, kind: SubjectKind, subject_id: str) -> dict[str, Any]:
        """All bids on a subject, ranked, with what was selected (§12.1).

        NotFound (404) `unknown_material` or `unknown_product`.
        """
        record = self._require(source, kind, subject_id)
        now_ms = self._clock.now_ms()
        selection = self._standing(source, record.subject)
        ranked = (
            self._ranked(source, record, now_ms) if selection is None else tables.closed_bids(source, selection.number)
        )
        return self._listing(record, ranked, selection, now_ms)

    def select(self, tx: Tx, kind: SubjectKind, subject_id: str, number: int | None = None) -> dict[str, Any]:
        """Select a bid: the one that ranks first, or by hand any live one. Gives the listing as it is then.

        The bid, those that lose, the subject's state and what the bidders are told change together. The same selection
        again changes nothing. NotFound (404): `unknown_material`, `unknown_product`, `unknown_offer`; Conflict (409),
        with the listing in the details: `already_selected`, `not_available`, `no_offers`, `none_ranked`,
        `offer_not_live`.
        """
        record = self._require(tx, kind, subject_id)
        subject, now_ms = record.subject, self._clock.now_ms()
        standing = self._standing(tx, subject)
        if standing is not None:
            return self._select_again(tx, record, standing, number)
        if not self._records.is_available(subject):
            raise _not_available(subject)
        released = tables.standing_selection(tx, subject_id)
        if released is not None:
            # The owner made the subject available again, and so took its earlier decision back.
            tables.release_selection(tx, released.number, now_ms)
        ranked = self._ranked(tx, record, now_ms)
        winner, reason = self._winner(tx, record, ranked, number, now_ms)
        selection = tables.insert_selection(tx, subject_id, winner.bid.number, reason, now_ms)
        outcomes = [(each, _outcome(each, winner, now_ms)) for each in ranked]
        tables.close_bids(tx, selection, outcomes)
        for each, state in outcomes:
            self._tell(tx, each, state, reason, now_ms)
            self._record_outcome(tx, each, state, reason)
        self._records.change_state(tx, subject_id, SubjectState.RESERVED, f"bid {winner.bid.number} selected")
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            subject_id,
            {
                "event": "bid_selected",
                "bid": winner.bid.number,
                "bidder": winner.bid.bidder,
                "reason": reason.value,
                "bids": len(ranked),
            },
        )
        return self.listing(tx, kind, subject_id)

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

    def _require(self, source: RowSource, kind: SubjectKind, subject_id: str) -> HostedRecord:
        record = self._records.find(source, subject_id)
        if record is None or record.subject.kind is not kind:
            raise NotFound(f"unknown_{kind.value}", f"No such {kind.value} is registered here.")
        return record

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
        return number

    def _standing(self, source: RowSource, subject: Subject) -> Selection | None:
        # A subject that is available again was released: what was decided before stands no more.
        return None if subject.available else tables.standing_selection(source, subject.subject_id)

    def _ranked(self, source: RowSource, record: HostedRecord, now_ms: int) -> list[Judged]:
        subject, asking_lc = record.subject, _asking_price(record)
        whole = Quantity(subject.quantity, subject.unit)
        judged = []
        for bid in tables.live_bids(source, subject.subject_id):
            figure = bid_cost(bid.terms, None if bid.local else self._leg(source, subject, bid.bidder))
            judged.append(judge(bid, figure, whole, asking_lc, now_ms))
        return ranking(judged)

    def _leg(self, source: RowSource, subject: Subject, bidder: str) -> Leg:
        category = signal_category(subject.kind, subject.category)
        node = self._directory.find(source, bidder)
        return Leg(
            self._origin(subject),
            None if node is None else node.location,
            self._signals.basis_points(source, self._node.node_id, category),
            self._signals.basis_points(source, bidder, category),
        )

    def _origin(self, subject: Subject) -> Location:
        return self._node.location if subject.location is None else announced_location(subject.location)

    def _select_again(self, tx: Tx, record: HostedRecord, standing: Selection, number: int | None) -> dict[str, Any]:
        subject = record.subject
        listing = self.listing(tx, subject.kind, subject.subject_id)
        by_policy = standing.reason is SelectionReason.LOWEST_LOOP_COST
        if number == standing.bid or (number is None and by_policy):
            return listing
        raise Conflict("already_selected", f"{listing['selected']} was selected before.", listing)

    def _winner(
        self, tx: Tx, record: HostedRecord, ranked: Sequence[Judged], number: int | None, now_ms: int
    ) -> tuple[Judged, SelectionReason]:
        if number is None:
            listing = self._listing(record, ranked, None, now_ms)
            if not ranked:
                raise Conflict("no_offers", "Nobody has bid.", listing)
            if ranked[0].rank is None:
                raise Conflict("none_ranked", "No bid is ranked; one may be selected by hand.", listing)
            return ranked[0], SelectionReason.LOWEST_LOOP_COST
        named = next((each for each in ranked if each.bid.number == number), None)
        if named is not None and not named.bid.has_expired(now_ms):
            return named, SelectionReason.BY_HAND
        known = tables.find_bid(tx, number)
        if known is None or known.subject_id != record.subject.subject_id:
            raise NotFound("unknown_offer", "No such offer was made for this.")
        details = self._listing(record, ranked, None, now_ms)
        raise Conflict("offer_not_live", "The offer was replaced, has ended, or was decided on before.", details)

    def _listing(
        self, record: HostedRecord, ranked: Sequence[Judged], selection: Selection | None, now_ms: int
    ) -> dict[str, Any]:
        subject = record.subject
        return listing_json(subject.kind, subject.subject_id, ranked, selection, _asking_price(record), now_ms)

    def _record_outcome(self, tx: Tx, judged: Judged, state: BidState, selected_by: SelectionReason) -> None:
        kind = _OUTCOME_EVENTS.get(state)
        if kind is not None:
            bid = judged.bid
            data = {"bid": bid.number, "bidder": bid.bidder, "reason": _outcome_reason(judged, state, selected_by)}
            self._events.append(tx, kind, bid.subject_id, data)

    def _tell(self, tx: Tx, judged: Judged, state: BidState, selected_by: SelectionReason, now_ms: int) -> None:
        """Queue a bid's outcome for the node that made it, if that node understands it."""
        bid = judged.bid
        if bid.local or bid.offer_id is None or state not in _OUTCOME_EVENTS:
            return
        node = self._directory.find(tx, bid.bidder)
        # Of a node that a peer introduced no features are known; that it names its bids shows that it is one of ours.
        if node is None or (node.features and Feature.MIRROR not in node.features):
            return
        document = bid_status(
            context_url=self._node.context_url,
            owner=self._node.node_id,
            offer_id=bid.offer_id,
            kind=bid.kind,
            subject_id=bid.subject_id,
            status=state.value,
            reason=_outcome_reason(judged, state, selected_by),
            version=1,
            updated_at_ms=now_ms,
        )
        expires_at_ms = now_ms + BID_STATUS_DELIVERY_MS
        self._outbox.enqueue(
            tx, bid.bidder, MIRROR_PATH, dump_json(document), expires_at_ms, f"bid-status:{bid.number}"
        )


def _outcome(judged: Judged, winner: Judged, now_ms: int) -> BidState:
    if judged.bid.number == winner.bid.number:
        return BidState.SELECTED
    return BidState.EXPIRED if judged.bid.has_expired(now_ms) else BidState.DECLINED


def _outcome_reason(judged: Judged, state: BidState, selected_by: SelectionReason) -> str:
    return selected_by.value if state is BidState.SELECTED else judged.unranked or "other_offer_selected"


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


def _asking_price(record: HostedRecord) -> Decimal | None:
    return asking_price_in(record.document)


def _not_available(subject: Subject) -> Conflict:
    state = "has expired" if subject.available else f"is {subject.state.value}"
    return Conflict("not_available", f"The {subject.kind.value} {state}.")


def _now(now_ms: int) -> str:
    return format_timestamp(now_ms)
