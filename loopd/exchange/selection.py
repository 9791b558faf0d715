"""The owner's selection among the bids on a subject: by hand, by policy, or by the node itself (§3.3, §12.1).

A selection makes Offer, accepted Match and pending transaction for the bid's quantity. Bids that the rest still allows
stay live; the others are declined, and their bidders told. Where another city's node is asked for the money, all others
stay live until it holds it; where it does not, the next bid is selected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.due import Due
from loopd.events.service import EventKind, EventLog
from loopd.exchange import tables
from loopd.exchange.documents import Agreement
from loopd.exchange.judging import Judging
from loopd.exchange.ports import DealMaker, HomeNode, HostedRecord, NodeDirectory, Outbox, Records
from loopd.exchange.rules import Bid, BidState, Judged, SelectionReason, account_in
from loopd.exchange.tables import Selection
from loopd.exchange.views import MIRROR_PATH, bid_status, listing_json
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.json_text import JSON, dump_json
from loopd.protocol.limits import BID_STATUS_DELIVERY_MS, DUE_AT_ONCE_MAX
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import Subject, SubjectKind
from loopd.protocol.vocabulary import Feature

FUNDS_REFUSED: Final = "funds_refused"
# A bid that had ended before is told of to nobody.
_OUTCOME_EVENTS: Final = {BidState.SELECTED: EventKind.BID_SELECTED, BidState.DECLINED: EventKind.BID_DECLINED}
# The versions of what a bidder is told: the selection's word, and the one after it where the money does not come.
_DECIDED: Final = 1
_DECIDED_ANEW: Final = 2

log = structlog.get_logger(__name__)


def not_available(subject: Subject) -> Conflict:
    """409 for what nobody can have now."""
    state = "has expired" if subject.available else f"is {subject.state.value}"
    return Conflict("not_available", f"The {subject.kind.value} {state}.")


@dataclass(frozen=True, slots=True)
class Policy:
    """Whether the node selects by itself, and how long after the first bid."""

    by_itself: bool = False
    after_ms: int = 0


BY_HAND: Final = Policy()


@dataclass(frozen=True, slots=True)
class Selecting:
    """Decides, and tells those whom it concerns."""

    node: HomeNode
    clock: Clock
    audit: AuditLog
    events: EventLog
    records: Records
    directory: NodeDirectory
    outbox: Outbox
    judging: Judging
    deals: DealMaker
    policy: Policy

    def listing(self, source: RowSource, kind: SubjectKind, subject_id: str) -> dict[str, Any]:
        """All bids on a subject: those that selections judged, as they were judged then, and the other live ones.

        NotFound (404) `unknown_material` or `unknown_product`.
        """
        record = self.records.require(source, kind, subject_id)
        standing = self._standing(source, record.subject)
        decided = [judged for selection in standing for judged in tables.closed_bids(source, selection.number)]
        known = {judged.bid.number for judged in decided}
        live = [judged for judged in self.judging.ranked(source, record) if judged.bid.number not in known]
        return self._listing(record, [*decided, *live], standing)

    def select(self, tx: Tx, kind: SubjectKind, subject_id: str, number: int | None = None) -> dict[str, Any]:
        """Select a bid: the first of the ranking whose money is there, or by hand any live one. Gives the listing then.

        Everything that follows from it changes together. The same selection again changes nothing. NotFound (404):
        `unknown_material`, `unknown_product`, `unknown_offer`; Conflict (409), mostly with the listing in the details:
        `already_selected`, `not_available`, `no_offers`, `none_ranked`, `offer_not_live`, `quantity_above_available`,
        `funds_refused`.
        """
        record = self.records.require(tx, kind, subject_id)
        standing = self._standing(tx, record.subject)
        if self._is_repeated(tx, record, standing, number):
            return self.listing(tx, kind, subject_id)
        if not self.records.is_available(record.subject):
            raise not_available(record.subject)
        # What was selected before there were Matches was released with the subject.
        tables.release_unmatched(tx, subject_id, self.clock.now_ms())
        ranked = self.judging.ranked(tx, record)
        winner, match_id = self._agree(tx, record, ranked, number)
        reason = SelectionReason.LOWEST_LOOP_COST if number is None else SelectionReason.BY_HAND
        self._decide(tx, record, ranked, winner, reason, match_id)
        return self.listing(tx, kind, subject_id)

    # What becomes of the money of a bid that was selected

    def money_held(self, tx: Tx, match_id: str) -> None:
        """Another city's node holds it: what the rest does not allow is declined now, if the Match still stands."""
        selection = tables.selection_of(tx, match_id)
        record = None if selection is None else self.records.find(tx, selection.subject_id)
        if selection is None or record is None or selection not in self._standing(tx, record.subject):
            return
        judged = [each for each in tables.closed_bids(tx, selection.number) if each.bid.state is BidState.LIVE]
        newer = [each for each in self.judging.ranked(tx, record) if each.bid not in [known.bid for known in judged]]
        self._end(tx, selection.number, [*judged, *newer], None, selection.reason)

    def money_failed(self, tx: Tx, match_id: str) -> None:
        """It will not come, and the sale is off: the bid is declined after all. The next one is selected where the
        ranking decided, and else left to who decided.
        """
        selection = tables.selection_of(tx, match_id)
        bid = None if selection is None else tables.find_bid(tx, selection.bid)
        if selection is None or bid is None:
            return
        tables.set_bid_state(tx, bid.number, BidState.DECLINED)
        tables.judge_anew(tx, selection.number)
        self._tell(tx, bid, BidState.DECLINED, FUNDS_REFUSED, _DECIDED_ANEW)
        if selection.reason is SelectionReason.LOWEST_LOOP_COST and tables.count_live(tx, bid.subject_id):
            try:
                self.select(tx, bid.kind, bid.subject_id)
            except Conflict as refusal:
                log.info("not_selected", subject=bid.subject_id, reason=refusal.reason)
        self.schedule(tx, bid.subject_id, bid.kind)

    # The node's own policy

    def schedule(self, tx: Tx, subject_id: str, kind: SubjectKind) -> None:
        """A bid came: where the node selects by itself, it does so a while after the first."""
        if self.policy.by_itself:
            tables.schedule_selection(tx, subject_id, kind, self.clock.now_ms() + self.policy.after_ms)

    def due(self, source: RowSource, now_ms: int) -> list[Due]:
        """The subjects for which the time to select has come, some of them."""
        if not self.policy.by_itself:
            return []
        return [
            Due(f"selection {subject_id}", partial(self._select_by_itself, kind, subject_id, now_ms))
            for kind, subject_id in tables.due_selections(source, now_ms, DUE_AT_ONCE_MAX)
        ]

    def _select_by_itself(self, kind: SubjectKind, subject_id: str, now_ms: int, tx: Tx) -> None:
        """What cannot be selected now is tried again later, as long as somebody bids."""
        if not tables.unschedule_selection(tx, subject_id, now_ms):
            return
        record = self.records.find(tx, subject_id)
        if record is None or not self.records.is_available(record.subject):
            return
        ranked = self.judging.ranked(tx, record)
        if not any(each.unranked is None for each in ranked):
            if any(not each.bid.has_expired(now_ms) for each in ranked):
                self.schedule(tx, subject_id, kind)
            return
        try:
            self.select(tx, kind, subject_id)
        except Conflict as refusal:
            if refusal.reason != FUNDS_REFUSED:
                raise
            # Nothing was written before that is known.
            log.info("not_selected", subject=subject_id, reason=refusal.reason)
        if tables.count_live(tx, subject_id):
            self.schedule(tx, subject_id, kind)

    def _agree(
        self, tx: Tx, record: HostedRecord, ranked: Sequence[Judged], number: int | None
    ) -> tuple[Judged, str | None]:
        """The winner and its Match: the bid that is named, else the first of the ranking whose money can be held."""
        if number is not None:
            winner = self._named(tx, record, ranked, number)
            return winner, self.deals.agree(tx, self._agreement(tx, record, winner))
        candidates = [each for each in ranked if each.rank is not None]
        listing = self._listing(record, ranked, [])
        if not ranked:
            raise Conflict("no_offers", "Nobody has bid.", listing)
        if not candidates:
            raise Conflict("none_ranked", "No bid is ranked; one may be selected by hand.", listing)
        causes: dict[int, str] = {}
        for each in candidates:
            try:
                return each, self.deals.agree(tx, self._agreement(tx, record, each))
            except Conflict as refusal:
                if refusal.reason != FUNDS_REFUSED:
                    raise
                causes[each.bid.number] = refusal.details["cause"]
        why = ", ".join(dict.fromkeys(causes.values()))
        details = {**listing, "causes": [{"offer": number, "cause": cause} for number, cause in causes.items()]}
        raise Conflict(FUNDS_REFUSED, f"The money of none of the bidders could be held: {why}.", details)

    def _named(self, tx: Tx, record: HostedRecord, ranked: Sequence[Judged], number: int) -> Judged:
        named = next((each for each in ranked if each.bid.number == number), None)
        if named is not None and not named.bid.has_expired(self.clock.now_ms()):
            return named
        known = tables.find_bid(tx, number)
        if known is None or known.subject_id != record.subject.subject_id:
            raise NotFound("unknown_offer", "No such offer was made for this.")
        details = self._listing(record, ranked, [])
        raise Conflict("offer_not_live", "The offer was replaced, has ended, or was decided on before.", details)

    def _agreement(self, tx: Tx, record: HostedRecord, judged: Judged) -> Agreement:
        bid, subject = judged.bid, record.subject
        node_id = self.node.node_id if bid.local else bid.bidder
        return Agreement(
            kind=subject.kind,
            subject_id=subject.subject_id,
            quantity=bid.terms.quantity or record.registered,
            buyer=node_id,
            from_city=self.node.city,
            to_city=self.deals.city_of(tx, node_id),
            cost=self.judging.agreed_cost(tx, subject, judged),
            seller_account=account_in(record.document, self.node.node_id),
            buyer_account=bid.buyer_account,
        )

    def _decide(
        self,
        tx: Tx,
        record: HostedRecord,
        ranked: Sequence[Judged],
        winner: Judged,
        reason: SelectionReason,
        match_id: str | None,
    ) -> None:
        now_ms, bid, subject_id = self.clock.now_ms(), winner.bid, record.subject.subject_id
        selection = tables.insert_selection(tx, subject_id, bid.number, reason, now_ms, match_id)
        waits = self._agreement(tx, record, winner).waits_for(self.node.node_id)
        if waits:
            live = [(each, BidState.LIVE) for each in ranked if each is not winner]
            tables.close_bids(tx, selection, live)
        self._end(tx, selection, [winner] if waits else ranked, winner, reason)
        told: dict[str, JSON] = {"event": "bid_selected", "bid": bid.number, "bidder": bid.bidder, "match": match_id}
        self.audit.append(
            tx, AuditKind.NODE_INTERACTION, subject_id, {**told, "reason": reason.value, "bids": len(ranked)}
        )

    def _end(
        self, tx: Tx, selection: int, bids: Sequence[Judged], winner: Judged | None, selected_by: SelectionReason
    ) -> None:
        """End bids by a selection, but those that the rest still allows, and tell whom it concerns."""
        now_ms = self.clock.now_ms()
        record = self.records.find(tx, bids[0].bid.subject_id) if bids else None
        left = None
        if record is not None and record.subject.available:
            left = Quantity(record.subject.quantity, record.subject.unit)
        outcomes = [(each, _outcome(each, winner, left, now_ms)) for each in bids]
        tables.close_bids(tx, selection, [outcome for outcome in outcomes if outcome[1] is not BidState.LIVE])
        for each, state in outcomes:
            reason = selected_by.value if state is BidState.SELECTED else each.unranked or "other_offer_selected"
            self._tell(tx, each.bid, state, reason, _DECIDED)

    def _standing(self, source: RowSource, subject: Subject) -> list[Selection]:
        # A subject that is available again was released: what stands is of a part, and has a Match.
        return [
            selection
            for selection in tables.standing_selections(source, subject.subject_id)
            if selection.match_id is not None or not subject.available
        ]

    def _is_repeated(self, tx: Tx, record: HostedRecord, standing: Sequence[Selection], number: int | None) -> bool:
        if number is not None and any(selection.bid == number for selection in standing):
            return True
        if not standing or record.subject.available:
            return False
        if number is None and standing[-1].reason is SelectionReason.LOWEST_LOOP_COST:
            return True
        listing = self.listing(tx, record.subject.kind, record.subject.subject_id)
        raise Conflict("already_selected", f"{listing['selected']} was selected before.", listing)

    def _listing(self, record: HostedRecord, judged: Sequence[Judged], standing: Sequence[Selection]) -> dict[str, Any]:
        subject, selection = record.subject, standing[-1] if standing else None
        asking_lc = self.judging.asking_price(record)
        return listing_json(subject.kind, subject.subject_id, judged, selection, asking_lc, self.clock.now_ms())

    def _tell(self, tx: Tx, bid: Bid, state: BidState, reason: str, version: int) -> None:
        """Tell a bid's outcome here, and queue it for the node that made it, if that node understands it."""
        kind, now_ms = _OUTCOME_EVENTS.get(state), self.clock.now_ms()
        if kind is None:
            return
        told = {"bid": bid.number, "bidder": bid.bidder, "reason": reason}
        self.events.append(tx, kind, bid.subject_id, told)
        node = None if bid.local or bid.offer_id is None else self.directory.find(tx, bid.bidder)
        # Of a node that a peer introduced no features are known; that it names its bids shows that it is one of ours.
        if node is None or bid.offer_id is None or (node.features and Feature.MIRROR not in node.features):
            return
        document = bid_status(
            context_url=self.node.context_url,
            owner=self.node.node_id,
            offer_id=bid.offer_id,
            kind=bid.kind,
            subject_id=bid.subject_id,
            status=state.value,
            reason=reason,
            version=version,
            updated_at_ms=now_ms,
        )
        expires_at_ms, reference = now_ms + BID_STATUS_DELIVERY_MS, f"bid-status:{bid.number}"
        self.outbox.enqueue(tx, bid.bidder, MIRROR_PATH, dump_json(document), expires_at_ms, reference)


def _outcome(judged: Judged, winner: Judged | None, left: Quantity | None, now_ms: int) -> BidState:
    bid = judged.bid
    if winner is not None and bid.number == winner.bid.number:
        return BidState.SELECTED
    if bid.has_expired(now_ms):
        return BidState.EXPIRED
    wanted = bid.terms.quantity
    fits = left is not None and wanted is not None and not wanted.is_more_than(left)
    return BidState.LIVE if fits else BidState.DECLINED
