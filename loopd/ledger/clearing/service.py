"""The door to settlements with other nodes: what they tell this one, what is due to be told again, and disputes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.due import Due
from loopd.ledger import accounts
from loopd.ledger.accounts import Role
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.messages import (
    ACKNOWLEDGEMENT_TYPE,
    ANSWER_TYPE,
    DECISION_TYPE,
    INQUIRY_TYPE,
    PREPARE_TYPE,
    REQUEST_TYPE,
    Name,
    read_name,
    read_request,
)
from loopd.ledger.clearing.payee import PayeeSide
from loopd.ledger.clearing.payer import PayerSide
from loopd.ledger.clearing.rules import Decision, Misstep
from loopd.ledger.clearing.tables import Clearance, Side
from loopd.ledger.clearing.telling import REFERENCE
from loopd.ledger.clearing.views import clearance_json, entity_json
from loopd.ledger.movements import Account
from loopd.ledger.service import Ledger
from loopd.ledger.tables import accounts_of_role, find_account
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Forbidden, Invalid, NotFound, Refusal
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import SETTLEMENT_REMINDERS_AT_ONCE
from loopd.protocol.money import amount_json

# Who says what: the payer's node prepares and decides, the payee's asks and answers.
_OF_THE_PAYER: Final = frozenset({PREPARE_TYPE, DECISION_TYPE})

log = structlog.get_logger(__name__)


class Clearing:
    """Settlements with other nodes, at either side."""

    def __init__(self, ledger: Ledger, clock: Clock, payer: PayerSide, payee: PayeeSide) -> None:
        self._ledger = ledger
        self._clock = clock
        self._payer = payer
        self._payee = payee

    def receive(self, tx: Tx, caller_node_id: str, document: Document) -> None:
        """Take a message of another node about a settlement. A repeat is answered as the first was.

        NotFound (404) `no_ledger`; Invalid (400) `origin_mismatch`, `not_counterpart`, `bad_id`, `bad_amount`;
        Forbidden (403) `not_settling` for a node without a clearing account; Conflict (409) `other_content`, and what
        an honest node never says: `not_decided`, `other_decision`, `already_prepared`, `not_prepared`,
        `unknown_settlement`; Unavailable (503) `too_many_settlements`. Nothing has moved then.
        """
        self._ledger.require_enabled()
        name = read_name(document.value)
        self._check_sides(caller_node_id, document.type, name)
        if not self._payer.settles_with(tx, caller_node_id):
            raise Forbidden("not_settling", "This node settles nothing with the calling one.")
        handlers: Mapping[str, Callable[[Tx, Name, Document], None]] = {
            REQUEST_TYPE: self._payer.requested,
            ANSWER_TYPE: self._payer.answered,
            INQUIRY_TYPE: self._payer.inquired,
            ACKNOWLEDGEMENT_TYPE: self._payer.acknowledged,
            PREPARE_TYPE: self._payee.prepare,
            DECISION_TYPE: self._payee.decided,
        }
        try:
            handlers[document.type](tx, name, document)
        except Misstep as misstep:
            log.warning("settlement_misstep", peer=caller_node_id, settlement=name.id, reason=misstep.reason)
            message = "That cannot follow what was settled between both nodes before."
            raise Conflict(misstep.reason, message, {"settlement": name.id}) from None
        except Refusal as refusal:
            log.warning("settlement_refused", peer=caller_node_id, settlement=name.id, reason=refusal.reason)
            raise

    def request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """How another node finally answered a message of this one: where it refuses to hold money, a sale may be off.

        What merely did not arrive is said again.
        """
        prefix, _, number = reference.partition(":")
        if prefix != REFERENCE or status // 100 != 4:
            return
        clearance = tables.find_by_number(tx, int(number))
        log.warning("settlement_not_taken", reference=reference, status=status, reason=reason)
        if clearance is not None and clearance.side is Side.PAYEE:
            self._payee.not_taken(tx, clearance, reason)

    def resolve(self, tx: Tx, peer: str, settlement_id: str, decision: Decision) -> dict[str, Any]:
        """End the hold of a disputed transaction, as the payer's node alone decides; the same again changes nothing.

        NotFound (404) `no_ledger`, `unknown_settlement`; Conflict (409) `payer_decides`, `not_frozen`,
        `not_prepared`, `already_posted`, `already_voided`.
        """
        self._ledger.require_enabled()
        clearance = tables.find(tx, self._ledger.node.node_id, settlement_id.lower())
        if clearance is None:
            if tables.find(tx, peer, settlement_id.lower()) is not None:
                raise Conflict("payer_decides", "The node whose account pays decides on a dispute.")
            raise _unknown()
        if clearance.name.payee != peer:
            raise _unknown()
        try:
            self._payer.resolve(tx, clearance, decision)
        except Misstep as misstep:
            raise Conflict(misstep.reason, "The settlement does not stand so.") from None
        return self.show(tx, clearance.number)

    def show(self, source: RowSource, number: int) -> dict[str, Any]:
        """A settlement as the operator sees it."""
        clearance = tables.find_by_number(source, number)
        if clearance is None:
            raise _unknown()
        return clearance_json(clearance)

    def entity(self, source: RowSource, transaction_id: str, seller: str | None = None) -> dict[str, Any] | None:
        """Settlement of a transaction between this city and another; None where none is known.

        The transaction is the seller's node's, this one's where `seller` is not named.
        """
        self._ledger.require_enabled()
        home = self._ledger.node
        clearance = tables.find_of_transaction(source, home.node_id if seller is None else seller, transaction_id)
        if clearance is None or clearance.request is None:
            return None
        return entity_json(clearance, read_request(read_json(clearance.request)), home.context_url)

    def page(self, source: RowSource, peer: str, before: int | None, limit: int) -> Sequence[Clearance]:
        """The settlements with a peer, the newest first. NotFound (404) `no_ledger`."""
        self._ledger.require_enabled()
        return tables.page(source, peer, before, limit)

    def peers(self, source: RowSource) -> list[str]:
        """The nodes with which this one settles, or has: each has a clearing account."""
        found = accounts_of_role(source, Role.CLEARING, self._ledger.terms.currency_code)
        return [accounts.clearing_peer(account.id) for account in found]

    def require_account(self, source: RowSource, peer: str) -> Account:
        """The clearing account of a peer. NotFound (404) `no_ledger`, `unknown_peer` where it never had a limit."""
        account_id = accounts.clearing_id(peer, self._ledger.node.node_id)
        account = find_account(source, account_id, self._ledger.terms.currency_code)
        if account is None:
            raise NotFound("unknown_peer", "Nothing is settled with that node.")
        return account

    def balance(self, source: RowSource, peer: str) -> dict[str, Any]:
        """What is between this city and a peer. NotFound (404) `no_ledger`, `unknown_peer`."""
        account = self.require_account(source, peer)
        return {
            "peer": peer,
            "currency": account.currency,
            "owes": amount_json(account.balance_minor),
            "credit_limit": amount_json(self._ledger.credit_limit_minor(peer)),
        }

    # The timer

    def due(self, source: RowSource, now_ms: int) -> list[Due]:
        """The settlements of which another node is to be told or asked again, some of them."""
        if not self._ledger.enabled:
            return []
        waiting = tables.due(source, now_ms, SETTLEMENT_REMINDERS_AT_ONCE)
        return [Due(f"settlement {each.number}", partial(self._remind, each.number, now_ms)) for each in waiting]

    def _remind(self, number: int, now_ms: int, tx: Tx) -> None:
        clearance = tables.find_due(tx, number, now_ms)
        if clearance is None:
            return
        if clearance.side is Side.PAYER:
            self._payer.remind(tx, clearance)
        else:
            self._payee.remind(tx, clearance)

    def _check_sides(self, caller: str, entity: str, name: Name) -> None:
        home = self._ledger.node.node_id
        sender, receiver = (name.payer, name.payee) if entity in _OF_THE_PAYER else (name.payee, name.payer)
        if sender != caller:
            message = "Each side of a settlement speaks for itself."
            raise Invalid("origin_mismatch", message, {"owner": sender, "signer": caller})
        if receiver != home:
            raise Invalid("not_counterpart", "A settlement is told to its other side alone.", {"counterpart": receiver})


def _unknown() -> NotFound:
    return NotFound("unknown_settlement", "No such settlement is known here.")
