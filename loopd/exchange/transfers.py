"""Transfers: goods on their way, by an accepted Match (§4.6)."""

from dataclasses import dataclass
from hashlib import sha256

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange import entity_tables as tables
from loopd.exchange.chronicle import Chronicle
from loopd.exchange.entities import (
    Match,
    Transfer,
    TransferStatus,
    check_change,
    is_city,
    read_id,
    read_initial_status,
    read_subject,
)
from loopd.exchange.matches import Matches
from loopd.exchange.ports import HomeNode, Stock
from loopd.exchange.received import Created, ReceivedText, same_entry
from loopd.exchange.rules import invalid, read_moment
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.json_text import read_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.transactions import TransactionStatus
from loopd.registry.handover import Handover

_FULFILLED = "fulfilled"


@dataclass(frozen=True, slots=True)
class Transfers:
    """The Transfers of this node. A transaction of the same Match follows them."""

    node: HomeNode
    clock: Clock
    stock: Stock
    matches: Matches
    chronicle: Chronicle

    def create(self, tx: Tx, document: Document, by: str) -> Created[Transfer]:
        """Keep a checked Transfer.

        The same again gives the stored one; another under its id is Conflict (409) `other_content`. NotFound (404)
        `unknown_match`; Invalid (400): `match_not_accepted`, and with the place `bad_id`, `bad_status`, `bad_time`,
        `other_subject`; Conflict (409) `already_transferred`.
        """
        value = document.value
        transfer_id = read_id(value)
        stored = tables.TRANSFERS.find(tx, transfer_id)
        if stored is not None:
            return same_entry(stored, document)
        match = self.matches.require_accepted(tx, value["match_id"])
        if read_subject(value) != (match.kind, match.subject_id):
            raise invalid("other_subject", f"/{match.kind.value}_id", f"the match is of {match.subject_id}")
        standing = tables.standing_transfer(tx, match.id)
        if standing is not None:
            raise Conflict("already_transferred", "The match has a transfer.", {"transfer": standing.id})
        read_initial_status(MirroredEntity.TRANSFER, value)
        read_moment(value, "handoff_at")
        return Created(self.keep(tx, transfer_id, match, ReceivedText.of(document), by))

    def keep(self, tx: Tx, transfer_id: str, match: Match, text: ReceivedText, by: str) -> Transfer:
        """Write a new Transfer of an accepted Match that has none."""
        now_ms = self.clock.now_ms()
        transfer = Transfer(
            id=transfer_id,
            document=text.received,
            subject_id=match.subject_id,
            kind=match.kind,
            counterpart=match.counterpart,
            status=TransferStatus.SCHEDULED,
            created_at_ms=now_ms,
            changed_at_ms=now_ms,
            match_id=match.id,
        )
        tables.TRANSFERS.insert(tx, transfer, text.received, text.compacted)
        transfer = text.read(transfer)
        self.chronicle.write(tx, transfer, by)
        self.matches.transactions.follow(tx, match, TransactionStatus.CONFIRMED, by)
        return transfer

    def require(self, source: RowSource, transfer_id: str) -> Transfer:
        """The Transfer of an id; NotFound (404) `unknown_transfer`."""
        transfer = tables.TRANSFERS.find(source, transfer_id)
        if transfer is None:
            raise NotFound("unknown_transfer", "No such transfer is kept here.")
        return transfer

    def change(
        self,
        tx: Tx,
        transfer: Transfer,
        status: str,
        by: str,
        reason: str | None = None,
        received_at_ms: int | None = None,
        details: bytes | None = None,
    ) -> Transfer:
        """Send, receive or cancel. A cancelled Transfer leaves its Match, and what that reserves, as they are.

        Conflict (409) `transition`, `terminal`; Invalid (400) `bad_status`.
        """
        check_change(MirroredEntity.TRANSFER, transfer.status, status)
        match = self.matches.require(tx, transfer.match_id)
        if status == TransferStatus.COMPLETED:
            return self._complete(tx, transfer, match, by, reason, received_at_ms, details)
        moved = tables.TRANSFERS.move(tx, transfer, status, reason, self.clock.now_ms())
        self.chronicle.write(tx, moved, by)
        if status == TransferStatus.IN_TRANSIT:
            self.matches.transactions.follow(tx, match, TransactionStatus.IN_TRANSIT, by, details)
        return moved

    def _complete(
        self,
        tx: Tx,
        transfer: Transfer,
        match: Match,
        by: str,
        reason: str | None,
        received_at_ms: int | None,
        details: bytes | None,
    ) -> Transfer:
        offer = self.matches.offers.require(tx, match.offer_id)
        part_id = self.stock.hand_over(tx, transfer.subject_id, offer.quantity, self._handover(transfer, match))
        now_ms = self.clock.now_ms()
        moved = tables.TRANSFERS.move(
            tx,
            transfer,
            TransferStatus.COMPLETED,
            reason,
            now_ms,
            received_at_ms=now_ms if received_at_ms is None else received_at_ms,
            part_id=part_id,
        )
        self.chronicle.write(tx, moved, by)
        self.matches.offers.withdraw(tx, offer, by, _FULFILLED)
        self.matches.transactions.follow(tx, match, TransactionStatus.DELIVERED, by, details)
        return moved

    def _handover(self, transfer: Transfer, match: Match) -> Handover:
        value = read_json(transfer.document)
        stated = value.get("route", {}).get("to_city") if isinstance(value, dict) else None
        return Handover(
            transfer_id=transfer.id,
            to_city=stated if is_city(stated) else match.to_city,
            url=f"{self.node.endpoint}/transfer/{transfer.id}",
            document_sha256=sha256(transfer.document).hexdigest(),
        )
