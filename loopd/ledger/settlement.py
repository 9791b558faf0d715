"""What a transaction pays (§7.4): held when a bid is selected, posted at delivery, given back when it is cancelled.

The lines of one payment stand and fall together. A dispute freezes what is held until it is resolved.
"""

from collections.abc import Mapping
from typing import Any

from loopd.audit.service import AuditKind, AuditLog
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventKind
from loopd.ledger import accounts, settlement_tables, tables, transfer_tables
from loopd.ledger.accounts import Fund, Role
from loopd.ledger.arithmetic import Distribution, distribute, share
from loopd.ledger.movements import Account, Kind, Movement, Phase
from loopd.ledger.orders import own_digest, own_id
from loopd.ledger.ports import Events
from loopd.ledger.refusals import Fault, refused
from loopd.ledger.service import Ledger
from loopd.ledger.settlement_tables import Settlement, SettlementState
from loopd.protocol.errors import NotFound
from loopd.protocol.json_text import JSON
from loopd.protocol.money import amount_json
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.transactions import Transaction


class Settlements:
    """The ledger as transactions need it; see `loopd.exchange.ports.SettlementHooks`."""

    def __init__(self, ledger: Ledger, audit: AuditLog, events: Events) -> None:
        self._ledger = ledger
        self._audit = audit
        self._events = events

    def hold(self, tx: Tx, transaction: Transaction) -> str | None:
        """Hold what the buyer will pay. None where that stands, else the reason: `no_ledger`, `other_node`,
        `same_account`, `reserved_account`, `unknown_account`, `bad_breakdown` (an export penalty above the
        price), `insufficient_funds`, `already_posted`, `already_voided`.
        """
        if not transaction.names_accounts:
            return None
        if not self._ledger.enabled:
            return "no_ledger"
        known = settlement_tables.find(tx, transaction.seller, transaction.transaction_id)
        if known is not None:
            return _standing(known)
        payer_id, seller_id = transaction.buyer_account or "", transaction.seller_account or ""
        fault = self._fault(tx, transaction, payer_id, seller_id)
        if fault is not None:
            return fault.reason
        cost = transaction.cost
        if cost.export_minor > cost.base_minor:
            return "bad_breakdown"
        distribution = distribute(cost.base_minor, cost.export_minor, cost.import_minor, cost.distance_minor)
        payer = self._ledger.charge_account(tx, self._ledger.require(tx, payer_id))
        if not payer.can_pay(distribution.total_minor):
            return Fault.INSUFFICIENT_FUNDS.reason
        self._hold_lines(tx, transaction, distribution, payer, seller_id)
        return None

    def post(self, tx: Tx, transaction: Transaction) -> bool:
        """Pay what was held, and the bonus; whether all of it is posted now. False where nothing was to be paid."""
        settlement = settlement_tables.find(tx, transaction.seller, transaction.transaction_id)
        if settlement is None:
            return False
        if settlement.state is SettlementState.HELD:
            self._end(tx, settlement, Phase.POST, with_bonus=True)
        return settlement.state in (SettlementState.HELD, SettlementState.POSTED)

    def release(self, tx: Tx, transaction: Transaction) -> None:
        """Give back what was held."""
        settlement = settlement_tables.find(tx, transaction.seller, transaction.transaction_id)
        if settlement is not None and settlement.state is SettlementState.HELD:
            self._end(tx, settlement, Phase.VOID, with_bonus=False)

    def freeze(self, tx: Tx, transaction: Transaction) -> None:
        """Keep what was held until the dispute is resolved."""
        settlement = settlement_tables.find(tx, transaction.seller, transaction.transaction_id)
        if settlement is not None and settlement.state is SettlementState.HELD:
            settlement_tables.change_state(tx, settlement, SettlementState.FROZEN, None)
            self._tell(tx, settlement, SettlementState.FROZEN)

    def resolve(self, tx: Tx, transaction_id: str, phase: Phase) -> Settlement:
        """End a dispute's hold, as the payer's node decides: post or void. The transaction stays disputed.

        The same again changes nothing. NotFound `unknown_settlement`; Refusal `not_frozen`, `already_posted`,
        `already_voided`.
        """
        settlement = self.require(tx, transaction_id)
        if settlement.state is SettlementState.FROZEN:
            self._end(tx, settlement, phase, with_bonus=False)
        elif settlement.state is SettlementState.HELD:
            raise refused(Fault.NOT_FROZEN)
        elif settlement.state is not _STATE_AFTER[phase]:
            raise refused(Fault.ALREADY_POSTED if phase is Phase.VOID else Fault.ALREADY_VOIDED)
        return self.require(tx, transaction_id)

    def require(self, source: RowSource, transaction_id: str, seller: str | None = None) -> Settlement:
        """The settlement of a transaction, of this node where `seller` names none. NotFound `unknown_settlement`."""
        self._ledger.require_enabled()
        found = settlement_tables.find(source, seller or self._ledger.node.node_id, transaction_id)
        if found is None:
            raise NotFound("unknown_settlement", "No payment is known for this transaction.")
        return found

    def describe(self, source: RowSource, transaction: Transaction) -> Mapping[str, Any] | None:
        """What is known of a transaction's payment; None where nothing is."""
        settlement = settlement_tables.find(source, transaction.seller, transaction.transaction_id)
        return None if settlement is None else payment_json(settlement)

    def entity(self, settlement: Settlement) -> dict[str, Any]:
        """Settlement, with what became of the payment (`payment`). `settled_at` is when it ended or else was held."""
        ended_at_ms = settlement.held_at_ms if settlement.ended_at_ms is None else settlement.ended_at_ms
        subject = SubjectKind.MATERIAL if settlement.subject.startswith("MAT-") else SubjectKind.PRODUCT
        posted = settlement.state is SettlementState.POSTED
        return {
            "@context": self._ledger.node.context_url,
            "@type": "Settlement",
            "schema_version": "0.2.0",
            "transaction_id": settlement.transaction_id,
            subject.value: settlement.subject,
            "seller": settlement.seller_node,
            "buyer": settlement.buyer_node,
            "final_cost": amount_json(settlement.total_minor),
            "distribution": {line.value: amount_json(minor) for line, minor in settlement.lines.items()},
            "settled_at": format_timestamp(ended_at_ms),
            "confirmation": {"payment_completed": posted},
            "payment": payment_json(settlement),
        }

    def _fault(self, tx: Tx, transaction: Transaction, payer_id: str, seller_id: str) -> Fault | None:
        node_id = self._ledger.node.node_id
        if (transaction.seller, transaction.buyer) != (node_id, node_id):
            return Fault.OTHER_NODE
        if payer_id == seller_id:
            return Fault.SAME_ACCOUNT
        for account_id in (payer_id, seller_id):
            account = tables.find_account(tx, account_id, self._ledger.terms.currency_code)
            if account is None:
                return Fault.UNKNOWN_ACCOUNT
            if account.role is not Role.HOLDER:
                return Fault.RESERVED_ACCOUNT
        return None

    def _hold_lines(
        self, tx: Tx, transaction: Transaction, distribution: Distribution, payer: Account, seller_id: str
    ) -> None:
        link = own_id("settlement", transaction.seller, transaction.transaction_id)
        at_ms = self._ledger.now(tx)
        settlement = Settlement(
            seller_node=transaction.seller,
            transaction_id=transaction.transaction_id,
            state=SettlementState.HELD,
            buyer_node=transaction.buyer,
            subject=transaction.subject_id,
            payer=payer.id,
            total_minor=distribution.total_minor,
            lines=distribution.lines,
            link=link,
            bonus_minor=0,
            bonus_due_minor=0,
            held_at_ms=at_ms,
            ended_at_ms=None,
        )
        settlement_tables.insert(tx, settlement)
        for line, amount_minor in distribution.lines.items():
            payee = self._ledger.require(tx, self._ledger.payee_of(line, seller_id))
            if amount_minor:
                named = ("settlement", transaction.seller, transaction.transaction_id, line)
                movement = Movement(
                    own_id(*named), Kind.SETTLEMENT, payer, payee, amount_minor, own_digest(*named), link=link
                )
                self._ledger.write(tx, movement, at_ms, pending=True)
        self._tell(tx, settlement, SettlementState.HELD)

    def _end(self, tx: Tx, settlement: Settlement, phase: Phase, *, with_bonus: bool) -> None:
        at_ms = self._ledger.now(tx)
        for transfer in transfer_tables.linked(tx, settlement.link):
            if transfer.phase is Phase.PENDING:
                self._ledger.end_pending(tx, transfer, phase, at_ms)
        settlement_tables.change_state(tx, settlement, _STATE_AFTER[phase], at_ms)
        if with_bonus and phase is Phase.POST:
            self._pay_bonus(tx, settlement, at_ms)
        self._tell(tx, settlement, _STATE_AFTER[phase])

    def _pay_bonus(self, tx: Tx, settlement: Settlement, at_ms: int) -> None:
        """The payer's share of what it paid, as far as the bonus fund has it: nothing is minted."""
        due_minor = share(settlement.total_minor, self._ledger.terms.local_bonus)
        fund = self._ledger.require(tx, accounts.fund_id(Fund.BONUS, self._ledger.node.node_id))
        fund = self._ledger.charge_account(tx, fund)
        paid_minor = min(due_minor, fund.available_minor)
        settlement_tables.note_bonus(tx, settlement, paid_minor, due_minor)
        payer = self._ledger.require(tx, settlement.payer)
        if paid_minor:
            named = ("bonus", settlement.seller_node, settlement.transaction_id)
            movement = Movement(
                own_id(*named), Kind.BONUS, fund, payer, paid_minor, own_digest(*named), link=settlement.link
            )
            self._ledger.write(tx, movement, at_ms)

    def _tell(self, tx: Tx, settlement: Settlement, state: SettlementState) -> None:
        total = amount_json(settlement.total_minor)
        told: dict[str, JSON] = {"event": f"settlement_{state.value}", "total": total}
        self._audit.append(tx, AuditKind.SETTLEMENT, settlement.transaction_id, told)
        data = {"state": state.value, "total": total}
        self._events.append(tx, EventKind.LEDGER_SETTLEMENT, settlement.transaction_id, data)


_STATE_AFTER = {Phase.POST: SettlementState.POSTED, Phase.VOID: SettlementState.VOIDED}


def payment_json(settlement: Settlement) -> dict[str, Any]:
    """The state of a payment, and the bonus: `paid` less than `due` where the fund had no more."""
    return {
        "state": settlement.state.value,
        "total": amount_json(settlement.total_minor),
        "lines": {line.value: amount_json(minor) for line, minor in settlement.lines.items()},
        "bonus": {"paid": amount_json(settlement.bonus_minor), "due": amount_json(settlement.bonus_due_minor)},
    }


def _standing(settlement: Settlement) -> str | None:
    if settlement.state is SettlementState.POSTED:
        return Fault.ALREADY_POSTED.reason
    return Fault.ALREADY_VOIDED.reason if settlement.state is SettlementState.VOIDED else None
