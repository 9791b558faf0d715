"""This node's bids at other cities: what they cost, how they are sent, and what became of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventKind, EventLog
from loopd.exchange import tables
from loopd.exchange.ports import Heard, HomeNode, NodeDirectory, Outbox, SignalReadings
from loopd.exchange.rules import (
    DEFAULT_VALIDITY_MS,
    MADE_BID,
    Leg,
    MadeBidState,
    Unranked,
    bid_cost,
    check_distance,
    check_quantity,
    read_account,
    read_terms,
    read_validity,
    signal_category,
)
from loopd.exchange.tables import MadeBid
from loopd.exchange.views import MIRROR_PATH, bid_withdrawal, made_bid_json, material_offer
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid, NotFound, Refusal
from loopd.protocol.json_text import JSON, dump_json
from loopd.protocol.nodes import KnownNode, Standing
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import HeardSubject, SubjectKind
from loopd.protocol.vocabulary import Feature

OFFER_PATH = "/api/v1/federate/offer"
_REFERENCE = "bid:"


class Bidding:
    """The buyer's side of the exchange."""

    def __init__(
        self,
        node: HomeNode,
        clock: Clock,
        audit: AuditLog,
        events: EventLog,
        signals: SignalReadings,
        directory: NodeDirectory,
        heard: Heard,
        outbox: Outbox,
        random_hex: Callable[[int], str],
    ) -> None:
        self._node = node
        self._clock = clock
        self._audit = audit
        self._events = events
        self._signals = signals
        self._directory = directory
        self._heard = heard
        self._outbox = outbox
        self._random_hex = random_hex

    def bid_there(self, tx: Tx, subject_id: str, kind: SubjectKind, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Bid on what another node announced: compute the cost, and queue the MaterialOffer to its origin.

        A live bid of before is replaced. The bid ends when what was heard does, if not before. NotFound (404)
        `not_heard`; Conflict (409) `not_available`, `origin_unknown`, `signals_unknown` (details name the `node`
        whose signals are missing), `location_unknown`; Invalid (400) as for a bid at this node, and
        `distance_below_great_circle`.
        """
        now_ms = self._clock.now_ms()
        heard, origin = self._find(tx, subject_id, kind, now_ms)
        terms = read_terms(wish, heard.unit)
        check_quantity(terms, _whole(heard))
        until_ms = read_validity(wish, now_ms) or now_ms + DEFAULT_VALIDITY_MS
        leg = self._leg(tx, heard, origin)
        check_distance(terms.distance_km, leg.origin, leg.destination)
        figure = bid_cost(terms, leg)
        if figure.cost is None:
            raise _no_cost(figure.missing, origin, leg)
        bid = MadeBid(
            number=0,
            offer_id=self._new_offer_id(),
            subject_id=subject_id,
            kind=kind,
            owner=origin.node_id,
            terms=terms,
            cost=figure.cost,
            stale_signals=figure.stale_signals,
            made_at_ms=now_ms,
            valid_until_ms=min(until_ms, heard.valid_until_ms),
            state=MadeBidState.QUEUED,
            reason=None,
            version=0,
            changed_at_ms=now_ms,
            buyer_account=read_account(wish, "buyer_account", self._node.node_id),
        )
        return made_bid_json(self._send(tx, bid, now_ms), self._node.node_id, now_ms)

    async def newest(self, database: Database, limit: int) -> list[dict[str, Any]]:
        """The newest bids of this node elsewhere, with what is known of their fate."""
        rows = await database.all(tables.MADE_BIDS, (limit,))
        now_ms = self._clock.now_ms()
        return [made_bid_json(tables.made_bid_of(row), self._node.node_id, now_ms) for row in rows]

    def withdraw(self, tx: Tx, number: int) -> dict[str, Any]:
        """Take a bid back that nobody has decided on, and queue that for its owner's node, if that understands it.

        What the owner decided before it hears of that stands. NotFound (404) `unknown_offer`; Conflict (409)
        `offer_not_live`.
        """
        bid, now_ms = tables.find_made_bid(tx, number), self._clock.now_ms()
        if bid is None:
            raise NotFound("unknown_offer", "No such offer was made by this node.")
        if not MADE_BID.allows(bid.state.value, MadeBidState.WITHDRAWN.value) or bid.valid_until_ms <= now_ms:
            raise Conflict("offer_not_live", "The offer was replaced, has ended, or was decided on before.")
        tables.update_made_bid(tx, number, MadeBidState.WITHDRAWN, None, bid.version, now_ms)
        owner = self._directory.find(tx, bid.owner)
        if owner is not None and (not owner.features or Feature.MIRROR in owner.features):
            body = dump_json(bid_withdrawal(bid, self._node.node_id, self._node.context_url, now_ms))
            self._outbox.enqueue(tx, bid.owner, MIRROR_PATH, body, bid.valid_until_ms, f"bid-withdrawal:{number}")
        told: dict[str, JSON] = {"event": "bid_withdrawn", "offer": bid.offer_id, "owner": bid.owner}
        self._audit.append(tx, AuditKind.NODE_INTERACTION, bid.subject_id, told)
        withdrawn = replace(bid, state=MadeBidState.WITHDRAWN, reason=None, changed_at_ms=now_ms)
        return made_bid_json(withdrawn, self._node.node_id, now_ms)

    def request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """How the owner's node answered a queued bid: 2xx accepted, 0 not delivered in time, else refused."""
        if not reference.startswith(_REFERENCE):
            return
        bid = tables.find_made_bid(tx, int(reference.removeprefix(_REFERENCE)))
        if bid is None:
            return
        accepted = status // 100 == 2
        state = MadeBidState.ACCEPTED if accepted else MadeBidState.REFUSED if status else MadeBidState.EXPIRED
        # What was replaced or decided on meanwhile stays so.
        if MADE_BID.allows(bid.state.value, state.value):
            tables.update_made_bid(
                tx, bid.number, state, None if accepted else reason, bid.version, self._clock.now_ms()
            )

    def receive_status(self, tx: Tx, caller_node_id: str, document: Document) -> int:
        """Take what became of a bid from the node that it was made to; gives the bid's number.

        A version that is not newer changes nothing. Invalid (400) `origin_mismatch`; NotFound (404) `unknown_offer`.
        """
        value = document.value
        if value["node"] != caller_node_id:
            message = "A bid's outcome comes from the node that signs it."
            raise Invalid("origin_mismatch", message, {"node": value["node"], "signer": caller_node_id})
        bid = tables.find_made_bid_by_offer(tx, value["offer"], caller_node_id)
        if bid is None or value.get(bid.kind.value) != bid.subject_id:
            raise NotFound("unknown_offer", "No such offer was made to this node.")
        if value["version"] <= bid.version:
            return bid.number
        state = MadeBidState(value["status"])
        reason, version = value.get("reason"), int(value["version"])
        tables.update_made_bid(tx, bid.number, state, reason, version, self._clock.now_ms())
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            bid.subject_id,
            {"event": "bid_decided", "offer": bid.offer_id, "owner": bid.owner, "status": state.value},
        )
        told = {"offer": bid.offer_id, "owner": bid.owner, "status": state.value}
        self._events.append(tx, EventKind.BID_TOLD, bid.subject_id, told)
        return bid.number

    def _new_offer_id(self) -> str:
        # The 0 keeps two letters from standing at a word's beginning: by chance the rest would pass as an IBAN, and a
        # receiver refuses documents that hold one.
        return f"BID-0{self._random_hex(8).upper()}"

    def _find(
        self, source: RowSource, subject_id: str, kind: SubjectKind, now_ms: int
    ) -> tuple[HeardSubject, KnownNode]:
        heard = self._heard.find(source, subject_id)
        if heard is None or heard.kind is not kind or heard.valid_until_ms <= now_ms:
            raise NotFound("not_heard", f"No city that this node hears of announces this {kind.value}.")
        if not heard.available:
            raise Conflict("not_available", f"{heard.origin} has announced that it is no longer available.")
        origin = self._directory.find(source, heard.origin)
        if origin is None or not origin.endpoint or origin.standing is Standing.SUSPENDED:
            message = f"{heard.origin} cannot be asked: it is not known here, or suspended."
            raise Conflict("origin_unknown", message, {"node": heard.origin})
        return heard, origin

    def _leg(self, source: RowSource, heard: HeardSubject, origin: KnownNode) -> Leg:
        category = signal_category(heard.kind, heard.category)
        return Leg(
            origin.location if heard.location is None else heard.location,
            self._node.location,
            self._signals.basis_points(source, origin.node_id, category),
            self._signals.basis_points(source, self._node.node_id, category),
        )

    def _send(self, tx: Tx, bid: MadeBid, now_ms: int) -> MadeBid:
        live = tables.find_live_made_bid(tx, bid.subject_id, bid.owner)
        if live is not None:
            ended = MadeBidState.EXPIRED if live.valid_until_ms <= now_ms else MadeBidState.REPLACED
            tables.update_made_bid(tx, live.number, ended, live.reason, live.version, now_ms)
            if live.made_at_ms >= bid.made_at_ms:
                # The owner orders bids by when they were made, so one millisecond or a clock set back must not tie two.
                bid = replace(bid, made_at_ms=live.made_at_ms + 1)
        number = tables.insert_made_bid(tx, bid)
        body = dump_json(material_offer(bid, self._node.node_id, self._node.context_url))
        self._outbox.enqueue(tx, bid.owner, OFFER_PATH, body, bid.valid_until_ms, f"{_REFERENCE}{number}")
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            bid.subject_id,
            {
                "event": "bid_made",
                "offer": bid.offer_id,
                "owner": bid.owner,
                "base_price_minor": bid.terms.base_minor,
                "loop_cost_minor": bid.cost.total_minor,
            },
        )
        return replace(bid, number=number)


def _whole(heard: HeardSubject) -> Quantity | None:
    if heard.quantity is None or heard.unit is None:
        return None
    return Quantity(heard.quantity, heard.unit)


def _no_cost(missing: Unranked | None, origin: KnownNode, leg: Leg) -> Refusal:
    if missing is Unranked.SIGNALS_UNKNOWN:
        message = (
            f"The signals of {origin.node_id} are not known yet, and without them no LoopCost. They are fetched from"
            " its /api/v1/signals; try again when it can be reached."
        )
        return Conflict("signals_unknown", message, {"node": origin.node_id})
    if leg.origin is None:
        message = f"Neither the announcement nor {origin.node_id} says where it is."
        return Conflict("location_unknown", message, {"node": origin.node_id})
    raise RuntimeError(f"a bid without a cost, and no reason for it: {missing}")
