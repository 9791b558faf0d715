"""The exchange's SQL: bids on what this node hosts, the owner's selections, and this node's own bids elsewhere."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange.rules import Bid, BidState, Judged, MadeBidState, SelectionReason, Terms, Unranked
from loopd.protocol.limits import LIVE_BIDS_PER_SUBJECT_MAX, REPLACED_BIDS_KEPT
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind


@dataclass(frozen=True, slots=True)
class NewBid:
    """A bid as it arrives. `document_digest` is the SHA-256 of the MaterialOffer; a local bid has none."""

    subject_id: str
    kind: SubjectKind
    bidder: str
    local: bool
    verified: bool
    terms: Terms
    claimed_minor: int | None
    offer_id: str | None
    issued_at_ms: int | None
    document_digest: bytes | None
    received_at_ms: int
    valid_until_ms: int
    buyer_account: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The owner's standing decision on a subject."""

    number: int
    subject_id: str
    bid: int
    reason: SelectionReason
    selected_at_ms: int
    match_id: str | None


@dataclass(frozen=True, slots=True)
class MadeBid:
    """A bid of this node at another city. `version` is that of the owner's word that `state` follows, 0 before any."""

    number: int
    offer_id: str
    subject_id: str
    kind: SubjectKind
    owner: str
    terms: Terms
    cost: LoopCost
    stale_signals: bool
    made_at_ms: int
    valid_until_ms: int
    state: MadeBidState
    reason: str | None
    version: int
    changed_at_ms: int
    buyer_account: str | None = None


def insert_bid(tx: Tx, bid: NewBid, state: BidState) -> int:
    """Keep a bid and give its number. IntegrityError where the bidder has a live one already."""
    terms = bid.terms
    cursor = tx.execute(
        """INSERT INTO bid (subject, subject_kind, bidder, local, verified, base_minor, quantity, unit, distance_km,
            claimed_minor, offer_id, issued_at_ms, document_digest, received_at_ms, valid_until_ms, state,
            buyer_account)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            bid.subject_id,
            bid.kind.value,
            bid.bidder,
            bid.local,
            bid.verified,
            terms.base_minor,
            *_quantity_texts(terms.quantity),
            None if terms.distance_km is None else str(terms.distance_km),
            bid.claimed_minor,
            bid.offer_id,
            bid.issued_at_ms,
            bid.document_digest,
            bid.received_at_ms,
            bid.valid_until_ms,
            state.value,
            bid.buyer_account,
        ),
    )
    return _number(cursor)


def set_bid_state(tx: Tx, number: int, state: BidState) -> None:
    """Move a bid to another state."""
    tx.execute("UPDATE bid SET state = ? WHERE number = ?", (state.value, number))


def forget_replaced(tx: Tx, subject_id: str, bidder: str) -> None:
    """Keep only the last of a bidder's bids on a subject that came to nothing."""
    tx.execute(
        """DELETE FROM bid WHERE subject = ? AND bidder = ? AND state IN ('replaced', 'withdrawn', 'expired')
        AND selection IS NULL
        AND number NOT IN (SELECT number FROM bid WHERE subject = ? AND bidder = ? ORDER BY number DESC LIMIT ?)""",
        (subject_id, bidder, subject_id, bidder, REPLACED_BIDS_KEPT),
    )


def find_bid(source: RowSource, number: int) -> Bid | None:
    """A bid by its number."""
    row = source.one("SELECT * FROM bid WHERE number = ?", (number,))
    return None if row is None else bid_of(row)


def find_bid_by_offer(source: RowSource, bidder: str, offer_id: str) -> tuple[Bid, bytes | None] | None:
    """The bid that a node made under its own id, with the digest of its document."""
    row = source.one("SELECT * FROM bid WHERE bidder = ? AND offer_id = ?", (bidder, offer_id))
    return None if row is None else (bid_of(row), row["document_digest"])


def find_live_bid(source: RowSource, subject_id: str, bidder: str) -> Bid | None:
    """The one live bid of a bidder on a subject, expired or not."""
    row = source.one("SELECT * FROM bid WHERE subject = ? AND bidder = ? AND state = 'live'", (subject_id, bidder))
    return None if row is None else bid_of(row)


def live_bids(source: RowSource, subject_id: str) -> list[Bid]:
    """The live bids on a subject, expired ones included; at most LIVE_BIDS_PER_SUBJECT_MAX."""
    rows = source.all(
        "SELECT * FROM bid WHERE subject = ? AND state = 'live' ORDER BY number LIMIT ?",
        (subject_id, LIVE_BIDS_PER_SUBJECT_MAX),
    )
    return [bid_of(row) for row in rows]


def count_live(source: RowSource, subject_id: str) -> int:
    """How many live bids there are on a subject, expired ones included."""
    row = source.one("SELECT count(*) AS bids FROM bid WHERE subject = ? AND state = 'live'", (subject_id,))
    return 0 if row is None else int(row["bids"])


def end_expired(tx: Tx, subject_id: str, now_ms: int) -> None:
    """Make room: bids past their time are live no more."""
    tx.execute(
        "UPDATE bid SET state = 'expired' WHERE subject = ? AND state = 'live' AND valid_until_ms <= ?",
        (subject_id, now_ms),
    )


def standing_selections(source: RowSource, subject_id: str) -> list[Selection]:
    """The selections on a subject that were not released, oldest first."""
    rows = source.all(
        "SELECT * FROM selection WHERE subject = ? AND released_at_ms IS NULL ORDER BY number", (subject_id,)
    )
    return [_selection(row) for row in rows]


def selection_of(source: RowSource, match_id: str) -> Selection | None:
    """The selection that made a Match, released or not."""
    row = source.one("SELECT * FROM selection WHERE match_id = ?", (match_id,))
    return None if row is None else _selection(row)


def insert_selection(
    tx: Tx, subject_id: str, bid: int, reason: SelectionReason, selected_at_ms: int, match_id: str | None
) -> int:
    """Write the owner's decision and give its number."""
    cursor = tx.execute(
        "INSERT INTO selection (subject, bid, reason, selected_at_ms, match_id) VALUES (?, ?, ?, ?, ?)",
        (subject_id, bid, reason.value, selected_at_ms, match_id),
    )
    return _number(cursor)


def release_unmatched(tx: Tx, subject_id: str, now_ms: int) -> None:
    """Selections that have no Match stand no more."""
    tx.execute(
        "UPDATE selection SET released_at_ms = ? WHERE subject = ? AND released_at_ms IS NULL AND match_id IS NULL",
        (now_ms, subject_id),
    )


def schedule_selection(tx: Tx, subject_id: str, kind: SubjectKind, due_at_ms: int) -> None:
    """The node selects by itself then, unless it does so earlier."""
    tx.execute(
        "INSERT INTO selection_due (subject, subject_kind, due_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (subject_id, kind.value, due_at_ms),
    )


def unschedule_selection(tx: Tx, subject_id: str, now_ms: int) -> bool:
    """The time has come; whether it had, and nobody saw to it before."""
    return (
        tx.execute("DELETE FROM selection_due WHERE subject = ? AND due_at_ms <= ?", (subject_id, now_ms)).rowcount > 0
    )


def due_selections(source: RowSource, now_ms: int, limit: int) -> list[tuple[SubjectKind, str]]:
    """The subjects for which the node should have selected by now, longest ago first."""
    rows = source.all(
        "SELECT subject, subject_kind FROM selection_due WHERE due_at_ms <= ? ORDER BY due_at_ms LIMIT ?",
        (now_ms, limit),
    )
    return [(SubjectKind(row["subject_kind"]), row["subject"]) for row in rows]


def release_selection_of(tx: Tx, match_id: str, now_ms: int) -> None:
    """The Match that a selection made has ended, and with it the selection."""
    tx.execute(
        "UPDATE selection SET released_at_ms = ? WHERE match_id = ? AND released_at_ms IS NULL", (now_ms, match_id)
    )


def close_bids(tx: Tx, selection: int, outcomes: Iterable[tuple[Judged, BidState]]) -> None:
    """What a selection makes of bids, with the reckoning that each was judged by; of one that stays live too."""
    tx.executemany(
        """UPDATE bid SET state = ?, selection = ?, final_rank = ?, final_reason = ?, export_minor = ?,
            import_minor = ?, distance_minor = ?, stale_signals = ? WHERE number = ?""",
        [
            (
                state.value,
                selection,
                judged.rank,
                judged.unranked,
                judged.cost.export_minor if judged.cost else None,
                judged.cost.import_minor if judged.cost else None,
                judged.cost.distance_minor if judged.cost else None,
                judged.stale_signals,
                judged.bid.number,
            )
            for judged, state in outcomes
        ],
    )


def judge_anew(tx: Tx, selection: int) -> None:
    """What a selection judged and left live is no more of that selection."""
    tx.execute(
        "UPDATE bid SET selection = NULL, final_rank = NULL, final_reason = NULL, export_minor = NULL, "
        "import_minor = NULL, distance_minor = NULL, stale_signals = NULL WHERE selection = ? AND state = 'live'",
        (selection,),
    )


def closed_bids(source: RowSource, selection: int) -> list[Judged]:
    """The bids that a selection judged, as they were judged then, in the order of that ranking."""
    rows = source.all(
        "SELECT * FROM bid WHERE selection = ? ORDER BY final_rank IS NULL, final_rank, received_at_ms, number",
        (selection,),
    )
    return [_judged(row) for row in rows]


def insert_made_bid(tx: Tx, bid: MadeBid) -> int:
    """Keep a bid of this node's own and give its number; that of the argument counts for nothing."""
    terms, cost = bid.terms, bid.cost
    cursor = tx.execute(
        """INSERT INTO made_bid (offer_id, subject, subject_kind, owner, base_minor, export_minor, import_minor,
            distance_minor, stale_signals, quantity, unit, distance_km, made_at_ms, valid_until_ms, state,
            changed_at_ms, buyer_account)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            bid.offer_id,
            bid.subject_id,
            bid.kind.value,
            bid.owner,
            terms.base_minor,
            cost.export_minor,
            cost.import_minor,
            cost.distance_minor,
            bid.stale_signals,
            *_quantity_texts(terms.quantity),
            None if terms.distance_km is None else str(terms.distance_km),
            bid.made_at_ms,
            bid.valid_until_ms,
            bid.state.value,
            bid.changed_at_ms,
            bid.buyer_account,
        ),
    )
    return _number(cursor)


def update_made_bid(tx: Tx, number: int, state: MadeBidState, reason: str | None, version: int, now_ms: int) -> None:
    """Write what is known of the fate of an own bid."""
    tx.execute(
        "UPDATE made_bid SET state = ?, reason = ?, version = ?, changed_at_ms = ? WHERE number = ?",
        (state.value, reason, version, now_ms, number),
    )


def find_made_bid(source: RowSource, number: int) -> MadeBid | None:
    """An own bid by its number."""
    row = source.one("SELECT * FROM made_bid WHERE number = ?", (number,))
    return None if row is None else made_bid_of(row)


def find_made_bid_by_offer(source: RowSource, offer_id: str, owner: str) -> MadeBid | None:
    """An own bid by the id it was sent under, at the node it was sent to."""
    row = source.one("SELECT * FROM made_bid WHERE offer_id = ? AND owner = ?", (offer_id, owner))
    return None if row is None else made_bid_of(row)


def find_standing_bid(source: RowSource, subject_id: str, owner: str, buyer_account: str) -> MadeBid | None:
    """The newest own bid on a subject that was selected or can be, and that an account is to pay for."""
    row = source.one(
        "SELECT * FROM made_bid WHERE subject = ? AND owner = ? AND buyer_account = ? "
        "AND state IN ('queued', 'accepted', 'selected') ORDER BY number DESC LIMIT 1",
        (subject_id, owner, buyer_account),
    )
    return None if row is None else made_bid_of(row)


def find_live_made_bid(source: RowSource, subject_id: str, owner: str) -> MadeBid | None:
    """The one own bid on a subject that still waits for an outcome."""
    row = source.one(
        "SELECT * FROM made_bid WHERE subject = ? AND owner = ? AND state IN ('queued', 'accepted')",
        (subject_id, owner),
    )
    return None if row is None else made_bid_of(row)


# The newest own bids; takes how many.
MADE_BIDS = "SELECT * FROM made_bid ORDER BY number DESC LIMIT ?"


def bid_of(row: sqlite3.Row) -> Bid:
    """A row of `bid` as the rules see it."""
    return Bid(
        number=row["number"],
        subject_id=row["subject"],
        kind=SubjectKind(row["subject_kind"]),
        bidder=row["bidder"],
        local=bool(row["local"]),
        verified=bool(row["verified"]),
        terms=_terms(row),
        claimed_minor=row["claimed_minor"],
        offer_id=row["offer_id"],
        issued_at_ms=row["issued_at_ms"],
        received_at_ms=row["received_at_ms"],
        valid_until_ms=row["valid_until_ms"],
        state=BidState(row["state"]),
        buyer_account=row["buyer_account"],
    )


def made_bid_of(row: sqlite3.Row) -> MadeBid:
    """A row of `made_bid`."""
    return MadeBid(
        number=row["number"],
        offer_id=row["offer_id"],
        subject_id=row["subject"],
        kind=SubjectKind(row["subject_kind"]),
        owner=row["owner"],
        terms=_terms(row),
        cost=LoopCost(row["base_minor"], row["export_minor"], row["import_minor"], row["distance_minor"]),
        stale_signals=bool(row["stale_signals"]),
        made_at_ms=row["made_at_ms"],
        valid_until_ms=row["valid_until_ms"],
        state=MadeBidState(row["state"]),
        reason=row["reason"],
        version=row["version"],
        changed_at_ms=row["changed_at_ms"],
        buyer_account=row["buyer_account"],
    )


def _selection(row: sqlite3.Row) -> Selection:
    return Selection(
        row["number"],
        row["subject"],
        row["bid"],
        SelectionReason(row["reason"]),
        row["selected_at_ms"],
        row["match_id"],
    )


def _judged(row: sqlite3.Row) -> Judged:
    bid = bid_of(row)
    cost = None
    if row["export_minor"] is not None:
        cost = LoopCost(bid.terms.base_minor, row["export_minor"], row["import_minor"], row["distance_minor"])
    reason = None if row["final_reason"] is None else Unranked(row["final_reason"])
    return Judged(bid, cost, reason, bool(row["stale_signals"]), row["final_rank"])


def _terms(row: sqlite3.Row) -> Terms:
    quantity = None if row["quantity"] is None else Quantity(Decimal(row["quantity"]), row["unit"])
    distance_km = None if row["distance_km"] is None else Decimal(row["distance_km"])
    return Terms(row["base_minor"], quantity, distance_km)


def _quantity_texts(quantity: Quantity | None) -> tuple[str | None, str | None]:
    return (None, None) if quantity is None else (str(quantity.value), quantity.unit)


def _number(cursor: sqlite3.Cursor) -> int:
    if cursor.lastrowid is None:
        raise RuntimeError("an inserted row has a number")
    return cursor.lastrowid
