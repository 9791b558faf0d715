"""The door to demand: what this city looks for, and what its peers told that they do."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database import Database, RowSource, Tx
from loopd.events.service import EventKind
from loopd.exchange.rules import announced_location, invalid, read_moment, read_validity
from loopd.exchange.views import MIRROR_PATH
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from loopd.protocol.json_text import dump_json
from loopd.protocol.lifecycle import DEMAND
from loopd.protocol.limits import DEMAND_KEPT_MS, DEMAND_MAX_VALIDITY_MS, DEMANDS_MAX, DEMANDS_TOLD_AT_ONCE
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.subjects import HeardSubject
from loopd.protocol.vocabulary import Feature
from loopd.registry.tables import Record
from loopd.routing import demand_tables as tables
from loopd.routing.demands import CATEGORY_KEYS, Demand, DemandState, Wish, read_end, read_wanted_by, read_wish
from loopd.routing.matching import Matching
from loopd.routing.ports import Events, HomeNode, Outbox, Peers
from loopd.routing.rules import lies_within
from loopd.routing.views import demand_json, loop_demand

_REFERENCE: Final = "demand:"
# What is due is done in steps that keep no other write waiting for long.
_AT_ONCE: Final = 500


class Wanted:
    """Registers and closes demand, tells peers of it, and hears of theirs. Whatever writes takes the caller's `tx`."""

    def __init__(
        self,
        home: HomeNode,
        clock: Clock,
        audit: AuditLog,
        events: Events,
        matching: Matching,
        peers: Peers,
        outbox: Outbox,
        random_hex: Callable[[int], str],
    ) -> None:
        self._home = home
        self._clock = clock
        self._audit = audit
        self._events = events
        self._matching = matching
        self._peers = peers
        self._outbox = outbox
        self._random_hex = random_hex

    # This city's

    def register(self, tx: Tx, value: Mapping[str, Any]) -> dict[str, Any]:
        """Look for something from now on; gives the demand with what fits it already.

        `value` is a request whose form is checked. Invalid (400), the place named: `unknown_category`, `bad_quantity`,
        `bad_amount`, `bad_radius`, `bad_business`, `bad_time`, `expired`; Unavailable (503) `too_many_demands`.
        """
        now_ms = self._clock.now_ms()
        wish, wanted_by = read_wish(value), read_wanted_by(value)
        until_ms = read_validity(value, now_ms) or now_ms + DEMAND_MAX_VALIDITY_MS
        if tables.count_open(tx) >= DEMANDS_MAX:
            raise Unavailable("too_many_demands", "This city looks for as much as can be kept.", retry_after_s=600)
        demand = self._demand(
            wish,
            demand_id=self._new_id(),
            node_id=self._home.node_id,
            wanted_by=wanted_by,
            issued_at_ms=now_ms,
            valid_until_ms=until_ms,
            changed_at_ms=now_ms,
        )
        demand = replace(demand, location=wish.location or announced_location(self._home.location))
        demand = replace(demand, number=tables.insert(tx, demand))
        self._audit.append(
            tx, AuditKind.REGISTRATION, demand.demand_id, {"event": "demand_registered", "category": demand.pattern}
        )
        self._events.append(
            tx,
            EventKind.WANTED_CREATED,
            demand.demand_id,
            {
                CATEGORY_KEYS[demand.kind]: demand.pattern,
                "quantity": demand.quantity.value,
                "unit": demand.quantity.unit,
            },
        )
        self._matching.wanted(tx, demand)
        self._tell_all(tx)
        return self._shown(tx, demand)

    def close(self, tx: Tx, demand_id: str, state: DemandState) -> dict[str, Any]:
        """Look for something no longer; the same again changes nothing.

        NotFound (404) `unknown_demand`; Conflict (409) `terminal` where it has ended otherwise.
        """
        now_ms = self._clock.now_ms()
        demand = self._require(tx, demand_id)
        current = demand.state_at(now_ms)
        if current is not state:
            if not DEMAND.allows(current.value, state.value):
                raise Conflict(
                    "terminal", f"The demand is {current.value}: nothing follows.", {"current": current.value}
                )
            demand = self._move(tx, demand, state, now_ms)
            self._tell_all(tx)
        return self._shown(tx, demand)

    def show(self, source: RowSource, demand_id: str) -> dict[str, Any]:
        """A demand of this city with its matches; NotFound (404) `unknown_demand`."""
        return self._shown(source, self._require(source, demand_id))

    async def page(
        self, database: Database, own: bool, state: DemandState | None, before: int, limit: int
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Demands of this city, or of others, newest first, without matches; and where the next page begins."""
        now_ms = self._clock.now_ms()
        async with database.snapshot() as reader:
            found = await tables.page(reader, own, state, now_ms, before, limit + 1)
        following = found[limit - 1].number if len(found) > limit else None
        return [demand_json(demand, now_ms) for demand in found[:limit]], following

    # What happens elsewhere

    def record_changed(self, tx: Tx, record: Record) -> None:
        """A record of this node is new, or what can be had of it changed."""
        self._matching.own_changed(tx, record.subject.subject_id)

    def heard(self, tx: Tx, subject: HeardSubject) -> None:
        """Another city announced something."""
        self._matching.heard(tx, subject)

    def receive(self, tx: Tx, caller_node_id: str, document: Document) -> None:
        """Take the LoopDemand of a peer. A version that is not newer than what is known changes nothing.

        Invalid (400): `origin_mismatch`, and with the place `unknown_category`, `bad_quantity`, `bad_amount`,
        `bad_radius`, `bad_time`; Forbidden (403) `not_a_peer`.
        """
        value, now_ms = document.value, self._clock.now_ms()
        node = self._peers.find(tx, caller_node_id)
        if node is None or node.standing is not Standing.PEER:
            raise Forbidden("not_a_peer", "Only peers tell what they look for; a handshake comes first.")
        if value["node"] != caller_node_id:
            message = "A demand comes from the node that signs it."
            raise Invalid("origin_mismatch", message, {"node": value["node"], "signer": caller_node_id})
        demand = self._demand(
            read_wish(value),
            demand_id=value["id"],
            node_id=caller_node_id,
            verified=node.auth is PeerAuth.SIGNED,
            issued_at_ms=read_moment(value, "issued_at"),
            valid_until_ms=read_end(value, now_ms),
            state=DemandState(value["status"]),
            version=int(value["version"]),
            changed_at_ms=now_ms,
        )
        if demand.radius_km is not None and demand.location is None:
            raise invalid("bad_radius", "/radius_km", "a radius lies around a location")
        known = tables.find(tx, caller_node_id, demand.demand_id)
        if (known is not None and demand.version <= known.version) or demand.valid_until_ms <= now_ms:
            return
        if known is not None:
            tables.delete(tx, known.number)
        # One that is closed is kept as well: an older version of it may still arrive.
        demand = replace(demand, number=tables.insert(tx, demand))
        tables.keep_newest_of(tx, caller_node_id)
        self._audit.append(
            tx,
            AuditKind.NODE_INTERACTION,
            demand.demand_id,
            {"event": "demand_heard", "node": caller_node_id, "version": demand.version},
        )
        if demand.state is DemandState.OPEN:
            self._matching.wanted(tx, demand)

    def owes(self, source: RowSource, node: KnownNode) -> bool:
        """Whether a peer is still to be told of something."""
        if not _listens(node):
            return False
        return bool(tables.changed_since(source, tables.told_up_to(source, node.node_id), 1)[0])

    def tell(self, tx: Tx, node: KnownNode) -> None:
        """Queue for a peer what it was not told yet of this city's demand."""
        if not _listens(node):
            return
        now_ms, after = self._clock.now_ms(), tables.told_up_to(tx, node.node_id)
        changed, last = tables.changed_since(tx, after, DEMANDS_TOLD_AT_ONCE)
        for demand in changed:
            # Who was told nothing yet need not hear of what is over.
            news = demand.is_open(now_ms) or (after > 0 and now_ms < demand.valid_until_ms)
            if news and _reaches(demand, node):
                body = dump_json(loop_demand(demand, self._home.context_url))
                reference = f"{_REFERENCE}{demand.demand_id}"
                self._outbox.enqueue(tx, node.node_id, MIRROR_PATH, body, demand.valid_until_ms, reference)
        if changed:
            tables.told(tx, node.node_id, last)

    # Time

    def is_due(self, source: RowSource) -> bool:
        """Whether `tick` has something to do."""
        now_ms = self._clock.now_ms()
        return tables.anything_due(source, now_ms, now_ms - DEMAND_KEPT_MS)

    def tick(self, tx: Tx) -> None:
        """End demands whose time is over, some of them, and forget those that ended long ago."""
        now_ms = self._clock.now_ms()
        for demand in tables.ended(tx, now_ms, _AT_ONCE):
            self._move(tx, demand, DemandState.EXPIRED, now_ms)
        tables.forget_closed(tx, now_ms - DEMAND_KEPT_MS, _AT_ONCE)

    def _move(self, tx: Tx, demand: Demand, state: DemandState, now_ms: int) -> Demand:
        version = demand.version if state is DemandState.EXPIRED else demand.version + 1
        tables.change_state(tx, demand, state, version, now_ms)
        if demand.own:
            self._audit.append(
                tx, AuditKind.REGISTRATION, demand.demand_id, {"event": "demand_closed", "state": state.value}
            )
            self._events.append(tx, EventKind.WANTED_CLOSED, demand.demand_id, {"status": state.value})
        return replace(demand, state=state, version=version, changed_at_ms=now_ms)

    def _tell_all(self, tx: Tx) -> None:
        for node in self._peers.peers(tx):
            self.tell(tx, node)

    def _require(self, source: RowSource, demand_id: str) -> Demand:
        demand = tables.find(source, self._home.node_id, demand_id)
        if demand is None:
            raise NotFound("unknown_demand", "This city looks for nothing under that id.")
        return demand

    def _shown(self, source: RowSource, demand: Demand) -> dict[str, Any]:
        return demand_json(demand, self._clock.now_ms(), tables.matches_of(source, demand.number))

    def _demand(
        self,
        wish: Wish,
        *,
        demand_id: str,
        node_id: str,
        issued_at_ms: int,
        valid_until_ms: int,
        changed_at_ms: int,
        wanted_by: str | None = None,
        verified: bool = True,
        state: DemandState = DemandState.OPEN,
        version: int = 1,
    ) -> Demand:
        return Demand(
            number=0,
            demand_id=demand_id,
            node_id=node_id,
            own=node_id == self._home.node_id,
            verified=verified,
            wanted_by=wanted_by,
            kind=wish.kind,
            pattern=wish.pattern,
            quantity=wish.quantity,
            max_price_minor=wish.max_price_minor,
            radius_km=wish.radius_km,
            location=wish.location,
            issued_at_ms=issued_at_ms,
            valid_until_ms=valid_until_ms,
            state=state,
            version=version,
            changed_at_ms=changed_at_ms,
        )

    def _new_id(self) -> str:
        # The 0 keeps two letters from standing at a word's beginning, which by chance would pass as an IBAN.
        return f"WNT-0{self._random_hex(8).upper()}"


def _listens(node: KnownNode) -> bool:
    return node.standing is Standing.PEER and Feature.WANTED in node.features


def _reaches(demand: Demand, node: KnownNode) -> bool:
    """Whether a peer may have what is wanted: it is not known to lie outside the radius."""
    if demand.radius_km is None or demand.location is None or node.location is None:
        return True
    return lies_within(demand.location, node.location, demand.radius_km)
