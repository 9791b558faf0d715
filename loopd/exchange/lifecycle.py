"""The door to Offers, Matches, Transfers and transactions: create, read, change, and what follows from a change.

Whatever writes takes the caller's `tx`, so that a change, what it reserves or releases, its history, its audit entries,
its events and what the other side is told are one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from loopd.audit.service import AuditLog
from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.due import Due
from loopd.events.service import EventLog
from loopd.exchange import entity_tables as tables
from loopd.exchange.chronicle import Chronicle
from loopd.exchange.deals import Deals
from loopd.exchange.documents import Agreement
from loopd.exchange.entities import (
    Entry,
    Match,
    Offer,
    OfferStatus,
    Sale,
    Transfer,
    TransferStatus,
    check_change,
)
from loopd.exchange.entity_tables import Change, Filters, Reader
from loopd.exchange.entity_views import entry_json, settlement_json
from loopd.exchange.matches import Matches
from loopd.exchange.offers import Offers
from loopd.exchange.ports import HomeNode, HostedRecord, Mirror, NodeDirectory, Records, SettlementHooks, Stock
from loopd.exchange.received import Created, check_size
from loopd.exchange.rules import read_moment
from loopd.exchange.transactions import Transactions
from loopd.exchange.transfers import Transfers
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.json_text import dump_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import DUE_AT_ONCE_MAX, HISTORY_MAX
from loopd.protocol.subjects import SubjectState
from loopd.protocol.transactions import TransactionStatus

EXPIRED: Final = "expired"
RELEASED: Final = "released"
WITHDRAWN: Final = "withdrawn"

_TABLES: Final[Mapping[MirroredEntity, tables.Table[Any]]] = {
    MirroredEntity.OFFER: tables.OFFERS,
    MirroredEntity.MATCH: tables.MATCHES,
    MirroredEntity.TRANSFER: tables.TRANSFERS,
    MirroredEntity.TRANSACTION: tables.SALES,
}


@dataclass(frozen=True, slots=True)
class Ports:
    """What the lifecycle needs of the rest of the node."""

    node: HomeNode
    clock: Clock
    audit: AuditLog
    events: EventLog
    records: Records
    stock: Stock
    directory: NodeDirectory
    mirror: Mirror
    settlement: SettlementHooks
    random_hex: Callable[[int], str]


class Lifecycle:
    """Offers, Matches, Transfers and transactions of this node, which as the seller's alone writes them."""

    def __init__(self, ports: Ports, match_validity_ms: int) -> None:
        self._node, self._clock = ports.node, ports.clock
        self._settlement = ports.settlement
        chronicle = Chronicle(ports.node, ports.audit, ports.events, ports.mirror)
        self._offers = Offers(ports.clock, ports.records, chronicle)
        self.transactions = Transactions(ports.clock, ports.settlement, chronicle)
        self._matches = Matches(
            ports.node, ports.clock, ports.stock, self._offers, self.transactions, chronicle, match_validity_ms
        )
        self._transfers = Transfers(ports.node, ports.clock, ports.stock, self._matches, chronicle)
        self.deals = Deals(ports.node, ports.clock, ports.records, ports.directory, self._transfers, ports.random_hex)

    def create(self, tx: Tx, entity: MirroredEntity, document: Document) -> Created[Any]:
        """Keep a checked Offer, Match, Transfer or MaterialTransaction; see the `create` of each.

        Invalid (400) `too_large_to_mirror` for more than fits a message between nodes.
        """
        check_size(document)
        home = self._node.node_id
        if entity is MirroredEntity.OFFER:
            return self._offers.create(tx, document, home)
        if entity is MirroredEntity.MATCH:
            return self._matches.create(tx, document, home)
        if entity is MirroredEntity.TRANSFER:
            return self._transfers.create(tx, document, home)
        return self.deals.create(tx, document, home)

    def require(self, source: RowSource, entity: MirroredEntity, entity_id: str) -> Entry:
        """The entry of an id; NotFound (404) `unknown_offer`, `unknown_match`, and so on."""
        entry = _TABLES[entity].find(source, entity_id)
        if entry is None:
            raise NotFound(f"unknown_{entity.value}", f"No such {entity.value} is kept here.")
        return cast(Entry, entry)

    def view(self, entry: Entry) -> dict[str, Any]:
        """An entry as it is answered."""
        return entry_json(entry, self._node.context_url)

    async def page(
        self, reader: Reader, entity: MirroredEntity, filters: Filters, cursor: int | None, limit: int
    ) -> tuple[list[Entry], int | None]:
        """Up to `limit` entries, newest first; and the cursor of the next page."""
        return await _TABLES[entity].page(reader, filters, cursor, limit)

    def history(
        self, source: RowSource, entity: MirroredEntity, entity_id: str, after: int = 0, limit: int = HISTORY_MAX
    ) -> list[Change]:
        """The versions of an entry after `after`, oldest first; NotFound (404) where there is no such entry."""
        self.require(source, entity, entity_id)
        return tables.changes(source, entity, entity_id, after, limit)

    def settlement(self, source: RowSource, transaction_id: str) -> dict[str, Any]:
        """What is known of a transaction's payment; NotFound (404) `unknown_transaction`."""
        sale = self.transactions.require(source, transaction_id)
        known = self._settlement.describe(source, sale.transaction)
        return settlement_json(sale.transaction, self._node.context_url, known)

    def change_status(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        status: str,
        by_node: str | None,
        details: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Move an entry to another status, at the wish of `by_node` (None: this one); gives it as it is answered then.

        `details` may have `reason`; of a Transfer `received_at`; of a transaction `details` (§8.1, TransactionStatus).
        NotFound (404) for an unknown id; Invalid (400) `bad_status`, `bad_time`; Conflict (409) `terminal`,
        `transition`, and where something else stands against it: `by_match` (of an Offer, only its Match does that),
        `in_transfer`, `fulfilled`, `no_transfer`, `by_settlement`, `part_exists`.
        """
        entry = self.require(tx, entity, entity_id)
        reason, by = details.get("reason"), self._node.node_id if by_node is None else by_node
        if isinstance(entry, Offer):
            self._change_offer(tx, entry, status, by, reason)
        elif isinstance(entry, Match):
            self._matches.change(tx, entry, status, by, reason)
        elif isinstance(entry, Transfer):
            received_at_ms = read_moment(details, "received_at") if "received_at" in details else None
            self._transfers.change(tx, entry, status, by, reason, received_at_ms)
        elif isinstance(entry, Sale):
            told = dump_json(details["details"]) if "details" in details else None
            self._change_sale(tx, entry, status, by, reason, told)
        return self.view(self.require(tx, entity, entity_id))

    def agree(self, tx: Tx, deal: Agreement) -> str:
        """Make a deal of a selection; gives the Match's id. See `Deals.agree`."""
        return self.deals.agree(tx, deal, self._node.node_id).match_id

    def city_of(self, tx: Tx, node_id: str) -> str:
        """What a node's city is called, as far as it is known here; else the node's id."""
        return self.deals.city_of(tx, node_id)

    def release(self, tx: Tx, record: HostedRecord, state: SubjectState) -> None:
        """The owner makes a record available again, or withdraws it: end what reserves it.

        Available again: its active Matches, where they have left nothing of it. Withdrawn: all of them, and its Offers.
        Conflict (409) `in_transfer` while goods are on their way.
        """
        subject, home = record.subject, self._node.node_id
        by_hand = state is SubjectState.AVAILABLE and subject.quantity > 0
        if state is SubjectState.RESERVED or by_hand:
            return
        cause = RELEASED if state is SubjectState.AVAILABLE else WITHDRAWN
        while match := tables.reserving_match_of(tx, subject.subject_id):
            self._matches.end(tx, match, home, cause)
        while state is SubjectState.WITHDRAWN and (offer := tables.open_offer_of(tx, subject.subject_id)):
            self._offers.withdraw(tx, offer, home, cause)

    def due(self, source: RowSource, now_ms: int) -> list[Due]:
        """The Matches and open Offers that are past their time, some of them."""
        matches = tables.due_matches(source, now_ms, DUE_AT_ONCE_MAX)
        offers = tables.due_offers(source, now_ms, DUE_AT_ONCE_MAX)
        return [
            *(Due(f"match {match.id}", partial(self._end_match, match.id, now_ms)) for match in matches),
            *(Due(f"offer {offer.id}", partial(self._end_offer, offer.id, now_ms)) for offer in offers),
        ]

    def _end_match(self, match_id: str, now_ms: int, tx: Tx) -> None:
        match = tables.due_match(tx, match_id, now_ms)
        if match is not None:
            self._matches.end(tx, match, self._node.node_id, EXPIRED)

    def _end_offer(self, offer_id: str, now_ms: int, tx: Tx) -> None:
        offer = tables.due_offer(tx, offer_id, now_ms)
        if offer is not None:
            self._offers.withdraw(tx, offer, self._node.node_id, EXPIRED)

    def _change_offer(self, tx: Tx, offer: Offer, status: str, by: str, reason: str | None) -> None:
        check_change(MirroredEntity.OFFER, offer.status, status)
        if status != OfferStatus.WITHDRAWN:
            raise Conflict("by_match", "An offer is reserved by its match, and opened when that ends.")
        active = tables.active_match(tx, offer.id)
        if active is not None:
            self._matches.end(tx, active, by, reason)
        self._offers.withdraw(tx, self._offers.require(tx, offer.id), by, reason)

    def _change_sale(self, tx: Tx, sale: Sale, status: str, by: str, reason: str | None, details: bytes | None) -> None:
        """A transaction that is moved by hand takes its Transfer along, which is made where there is none."""
        check_change(MirroredEntity.TRANSACTION, sale.status, status)
        match = self._matches.require(tx, sale.match_id)
        transfer = tables.standing_transfer(tx, match.id)
        if status == TransactionStatus.IN_TRANSIT:
            transfer = self.deals.new_transfer(tx, match, by) if transfer is None else transfer
            self._transfers.change(tx, transfer, TransferStatus.IN_TRANSIT, by, reason, details=details)
        elif status == TransactionStatus.DELIVERED:
            if transfer is None:
                raise Conflict("no_transfer", "Nothing is delivered without a transfer.")
            self._transfers.change(tx, transfer, TransferStatus.COMPLETED, by, reason, details=details)
        elif status == TransactionStatus.COMPLETED and sale.transaction.names_accounts:
            raise Conflict("by_settlement", "The ledger completes what accounts pay for.")
        else:
            self.transactions.move(tx, sale, TransactionStatus(status), by, reason, details)
        if status == TransactionStatus.CANCELLED:
            self._call_off(tx, match, transfer, by, reason)

    def _call_off(self, tx: Tx, match: Match, transfer: Transfer | None, by: str, reason: str | None) -> None:
        """A sale was cancelled: goods that have not left stay here, and are free again."""
        if transfer is not None and transfer.status != TransferStatus.SCHEDULED:
            return
        if transfer is not None:
            self._transfers.change(tx, transfer, TransferStatus.CANCELLED, by, reason)
        if match.is_active:
            self._matches.end(tx, match, by, reason)
