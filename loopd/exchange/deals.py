"""Deals: Offer, accepted Match and pending transaction, made in one step by a selection or by a sale that is stated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from loopd.clock import Clock
from loopd.database.writer import Tx
from loopd.exchange import entity_tables as tables
from loopd.exchange.documents import (
    Agreement,
    match_document,
    offer_document,
    transaction_document,
    transfer_document,
)
from loopd.exchange.entities import (
    Entry,
    Match,
    MatchStatus,
    Offer,
    OfferStatus,
    Sale,
    Transfer,
    TransferStatus,
    is_city,
    read_cost,
    read_initial_status,
    read_quantity,
    read_subject,
    read_transaction_id,
)
from loopd.exchange.ports import HomeNode, NodeDirectory, Records
from loopd.exchange.received import Created, ReceivedText, same_entry
from loopd.exchange.rules import invalid, read_account, read_moment
from loopd.exchange.transfers import Transfers
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict
from loopd.protocol.json_text import dump_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.quantity import Quantity
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.transactions import TransactionStatus

E = TypeVar("E", bound=Entry)

_ID_BYTES: Final = 8
_DATE_CHARACTERS: Final = len("2026-11-21")
_FOLLOWED: Final = {
    TransferStatus.SCHEDULED: TransactionStatus.CONFIRMED,
    TransferStatus.IN_TRANSIT: TransactionStatus.IN_TRANSIT,
    TransferStatus.COMPLETED: TransactionStatus.DELIVERED,
}


@dataclass(frozen=True, slots=True)
class Deals:
    """Makes what belongs to an agreement, all or nothing. `random_hex(n)` gives 2n hexadecimal digits."""

    node: HomeNode
    clock: Clock
    records: Records
    directory: NodeDirectory
    transfers: Transfers
    random_hex: Callable[[int], str]

    def agree(
        self,
        tx: Tx,
        deal: Agreement,
        by: str,
        match: Match | None = None,
        transaction_id: str | None = None,
        text: ReceivedText | None = None,
    ) -> Sale:
        """Hold the buyer's money, and write the transaction with its Match and Offer where there are none yet.

        `text` is the MaterialTransaction where somebody sent one. Conflict (409) `funds_refused`, or as a Match is
        refused.
        """
        transactions, now_ms = self.transfers.matches.transactions, self.clock.now_ms()
        match_id = self._new_id("MATCH") if match is None else match.id
        sale_id = self._new_transaction_id(tx, now_ms) if transaction_id is None else transaction_id
        if text is None:
            url = self.node.context_url
            document = transaction_document(deal, sale_id, match_id, self.node.node_id, url, now_ms)
            text = ReceivedText(dump_json(document))
        sale = self._sale(deal, sale_id, match_id, text, now_ms)
        refusal = transactions.settlement.hold(tx, sale.transaction)
        if refusal is not None:
            raise Conflict("funds_refused", f"The buyer's money could not be held: {refusal}.", {"cause": refusal})
        if match is None:
            match = self._new_match(tx, deal, match_id, now_ms, by)
        elif match.counterpart is None and (buyer := self._other_side(deal)) is not None:
            self._name_buyer(tx, match, buyer, by)
        transactions.keep(tx, sale, text, by)
        transfer = tables.standing_transfer(tx, match.id)
        if transfer is not None:
            transactions.follow(tx, match, _FOLLOWED[TransferStatus(transfer.status)], by)
        return transactions.require(tx, sale_id)

    def create(self, tx: Tx, document: Document, by: str) -> Created[Sale]:
        """Keep a checked MaterialTransaction: of the Match that it names (`match_id`), else of one that fits, else of a
        new one.

        The same again gives the stored one; another under its id is Conflict (409) `other_content`. NotFound (404)
        `unknown_material`, `unknown_product`, `unknown_match`; Invalid (400): `match_not_accepted`, and with the place
        `bad_id`, `bad_status`, `bad_time`, `bad_amount`, `bad_breakdown`, `bad_quantity`, `bad_account`,
        `other_seller`, `other_subject`, `other_buyer`, `other_quantity`; Conflict (409): `already_sold`,
        `not_available`, `unit_mismatch`, `quantity_above_available`, `funds_refused`.
        """
        value = document.value
        sale_id = read_transaction_id(value)
        stored = tables.SALES.find(tx, sale_id)
        if stored is not None:
            return same_entry(stored, document)
        if value["seller"] != self.node.node_id:
            raise invalid(
                "other_seller", "/seller", f"the seller's node keeps a transaction; this is {self.node.node_id}"
            )
        kind, subject_id = read_subject(value, "")
        record = self.records.require(tx, kind, subject_id)
        read_initial_status(MirroredEntity.TRANSACTION, value, TransactionStatus.PENDING)
        read_moment(value, "timestamp")
        accounts = tuple(read_account(value, f"{side}_account", value[side]) for side in ("seller", "buyer"))
        cost = read_cost(value["offer"], same_node=value["buyer"] == self.node.node_id, is_paid=None not in accounts)
        stated = read_quantity(value) if "quantity" in value else None
        match = self._match_for(tx, document, subject_id, stated)
        left = Quantity(record.subject.quantity, record.subject.unit)
        deal = Agreement(
            kind=kind,
            subject_id=subject_id,
            quantity=(stated or left) if match is None else self._offer_of(tx, match).quantity,
            buyer=value["buyer"],
            from_city=self.node.city,
            to_city=self.city_of(tx, value["buyer"]),
            cost=cost,
            seller_account=accounts[0],
            buyer_account=accounts[1],
        )
        return Created(self.agree(tx, deal, by, match, sale_id, ReceivedText.of(document)))

    def new_transfer(self, tx: Tx, match: Match, by: str) -> Transfer:
        """A Transfer of a Match that has none, from now on."""
        transfer_id = self._new_id("TRANSFER")
        url, now_ms = self.node.context_url, self.clock.now_ms()
        document = transfer_document(match.kind, match.subject_id, transfer_id, match.id, url, now_ms)
        return self.transfers.keep(tx, transfer_id, match, ReceivedText(dump_json(document)), by)

    def city_of(self, tx: Tx, node_id: str) -> str:
        """What a node's city is called, as far as it is known here; else the node's id."""
        if node_id == self.node.node_id:
            return self.node.city
        known = self.directory.find(tx, node_id)
        return known.name if known is not None and is_city(known.name) else node_id

    def _match_for(self, tx: Tx, document: Document, subject_id: str, stated: Quantity | None) -> Match | None:
        value, matches = document.value, self.transfers.matches
        if "match_id" not in value:
            return tables.free_match(tx, subject_id, value["buyer"], stated)
        if not isinstance(value["match_id"], str):
            raise invalid("schema", "/match_id", "a match is named by its id")
        match = matches.require_accepted(tx, value["match_id"])
        if match.subject_id != subject_id:
            raise invalid("other_subject", f"/{match.kind.value}", f"the match is of {match.subject_id}")
        if match.counterpart is not None and match.counterpart != value["buyer"]:
            raise invalid("other_buyer", "/buyer", f"the match is with {match.counterpart}")
        if stated is not None and not _same(stated, self._offer_of(tx, match).quantity):
            raise invalid("other_quantity", "/quantity", "the quantity is that of the match's offer")
        standing = tables.standing_sale(tx, match.id)
        if standing is not None:
            raise Conflict("already_sold", "The match has a transaction.", {"transaction": standing.id})
        return match

    def _offer_of(self, tx: Tx, match: Match) -> Offer:
        return self.transfers.matches.offers.require(tx, match.offer_id)

    def _name_buyer(self, tx: Tx, match: Match, buyer: str, by: str) -> None:
        """Only its sale tells who takes a Match: from now on that node is told of it, its Offer and its Transfer."""
        offer, transfer = self._offer_of(tx, match), tables.standing_transfer(tx, match.id)
        if offer.counterpart != buyer:
            self._name(tx, tables.OFFERS, offer, buyer, by)
        self._name(tx, tables.MATCHES, match, buyer, by)
        if transfer is not None:
            self._name(tx, tables.TRANSFERS, transfer, buyer, by)

    def _name(self, tx: Tx, table: tables.Table[E], entry: E, buyer: str, by: str) -> None:
        named = table.move(tx, entry, entry.status, entry.reason, self.clock.now_ms(), counterpart=buyer)
        self.transfers.chronicle.write(tx, named, by)

    def _new_match(self, tx: Tx, deal: Agreement, match_id: str, now_ms: int, by: str) -> Match:
        matches, url = self.transfers.matches, self.node.context_url
        # An Offer that is open for just this quantity is taken rather than another made.
        fitting = tables.open_offer_for(tx, deal.subject_id, deal.quantity, now_ms)
        offer = fitting or self._new_offer(tx, deal, now_ms, by)
        text = ReceivedText(dump_json(match_document(deal, match_id, offer.id, url, now_ms)))
        match = Match(
            id=match_id,
            document=text.received,
            subject_id=deal.subject_id,
            kind=deal.kind,
            counterpart=self._other_side(deal),
            status=MatchStatus.ACCEPTED,
            created_at_ms=now_ms,
            changed_at_ms=now_ms,
            offer_id=offer.id,
            to_city=deal.to_city,
            valid_until_ms=matches.end_ms(now_ms),
        )
        return matches.keep(tx, match, offer, text, by)

    def _new_offer(self, tx: Tx, deal: Agreement, now_ms: int, by: str) -> Offer:
        matches, offer_id = self.transfers.matches, self._new_id("OFFER")
        until_ms = matches.end_ms(now_ms)
        text = ReceivedText(dump_json(offer_document(deal, offer_id, self.node.context_url, until_ms)))
        offer = Offer(
            id=offer_id,
            document=text.received,
            subject_id=deal.subject_id,
            kind=deal.kind,
            counterpart=None,
            status=OfferStatus.OPEN,
            created_at_ms=now_ms,
            changed_at_ms=now_ms,
            quantity=deal.quantity,
            available_until_ms=until_ms,
        )
        return matches.offers.keep(tx, offer, text, by)

    def _sale(self, deal: Agreement, sale_id: str, match_id: str, text: ReceivedText, now_ms: int) -> Sale:
        return Sale(
            id=sale_id,
            document=text.received,
            subject_id=deal.subject_id,
            kind=deal.kind,
            counterpart=self._other_side(deal),
            status=TransactionStatus.PENDING,
            created_at_ms=now_ms,
            changed_at_ms=now_ms,
            match_id=match_id,
            seller=self.node.node_id,
            buyer=deal.buyer,
            seller_account=deal.seller_account,
            buyer_account=deal.buyer_account,
            quantity=deal.quantity,
            cost=deal.cost,
        )

    def _other_side(self, deal: Agreement) -> str | None:
        return None if deal.buyer == self.node.node_id else deal.buyer

    def _new_id(self, noun: str) -> str:
        # The 0 keeps two letters from standing at a word's beginning, where chance could make them look like an IBAN.
        return f"{noun}-0{self.random_hex(_ID_BYTES).upper()}"

    def _new_transaction_id(self, tx: Tx, now_ms: int) -> str:
        day = f"TXN-{format_timestamp(now_ms)[:_DATE_CHARACTERS]}-"
        number = tables.count_sales(tx, day) + 1
        # Numbers that somebody else gave may be taken already.
        while tables.SALES.find(tx, f"{day}{number:03d}") is not None:
            number += 1
        return f"{day}{number:03d}"


def _same(a: Quantity, b: Quantity) -> bool:
    return a.dimension is b.dimension and a.in_base() == b.in_base()
