"""The ledger's door: accounts, orders, holds, and what comes due. Whatever writes takes the caller's `tx`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventKind
from loopd.ledger import accounts, lot_tables, tables, transfer_tables, views
from loopd.ledger.accounts import Fund, Role
from loopd.ledger.arithmetic import Line, NoRate, backing_of
from loopd.ledger.authority import Authority, check_authority
from loopd.ledger.books import Books
from loopd.ledger.figures import Figures, read_figures
from loopd.ledger.lots import Part
from loopd.ledger.movements import Account, Kind, Movement, Phase, Transfer
from loopd.ledger.orders import Order, check_times, own_digest, own_id
from loopd.ledger.ports import Events, HomeNode
from loopd.ledger.refusals import Fault, UnusableLedger, refused
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.terms import Terms, TermsHistory, Version
from loopd.protocol.errors import Conflict, NotFound, Unavailable
from loopd.protocol.ids import account_node
from loopd.protocol.json_text import JSON
from loopd.protocol.limits import DUE_ACCOUNTS_AT_ONCE, PENDING_PER_ACCOUNT_MAX
from loopd.protocol.money import MINOR_PER_LC, amount_json


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an order. `created` is False where it was a repeat."""

    transfer: Transfer
    created: bool


class Ledger:
    """One node's ledger. Where no currency is configured every door refuses with NotFound `no_ledger`."""

    def __init__(self, node: HomeNode, settings: LedgerSettings, audit: AuditLog, clock: Clock, events: Events) -> None:
        self.node = node
        self.settings = settings
        self._audit = audit
        self._clock = clock
        self._events = events
        self._configured = settings.terms()
        # The books, once `begin` has opened them.
        self._begun: Books | None = None
        self._limits_minor = {
            accounts.clearing_id(peer, node.node_id): self.credit_limit_minor(peer) for peer in settings.credit_limits
        }

    @property
    def enabled(self) -> bool:
        """Whether this node keeps a ledger."""
        return self._configured is not None

    def begin(self, tx: Tx) -> None:
        """Before anything else: what the settings say holds from now on, and the node's own accounts are open.

        UnusableLedger where the settings name another currency than the books.
        """
        terms = self._configured
        if terms is None:
            return
        versions = tables.terms_versions(tx)
        if versions:
            self._check_same_currency(versions[-1].terms, terms)
        if not versions or versions[-1].terms != terms:
            # Later than all that is dated: nothing that was done may follow other terms when it is looked at again.
            valid_from_ms = max(self.now(tx), versions[-1].valid_from_ms) + 1 if versions else self.now(tx)
            versions.append(Version(valid_from_ms, terms))
            tables.insert_terms(tx, versions[-1])
            lot_tables.look_again(tx, valid_from_ms)
        for account_id, role, currency in self._own_accounts(terms):
            if tables.find_account(tx, account_id, currency) is None:
                tables.insert_account(tx, account_id, currency, role, None, self.now(tx))
        self._begun = Books(self.node.node_id, TermsHistory(versions))

    def require_enabled(self) -> None:
        """NotFound `no_ledger` where this node keeps none."""
        if not self.enabled:
            raise NotFound("no_ledger", "This node keeps no ledger.")

    @property
    def history(self) -> TermsHistory:
        """The terms by time. NotFound `no_ledger`."""
        return self._books.history

    @property
    def terms(self) -> Terms:
        """The terms in force now. NotFound `no_ledger`."""
        return self.history.newest

    def now(self, tx: Tx) -> int:
        """The moment that what is done now is dated at: the clock's, but never before what was done already."""
        newest_ms = tables.ledger_time(tx)
        at_ms = max(self._clock.now_ms(), newest_ms)
        if at_ms > newest_ms:
            tables.set_ledger_time(tx, at_ms)
        return at_ms

    # Accounts

    def open_account(self, tx: Tx, account_id: str, public_key: str | None) -> Account:
        """Open a person's or a business's account, as the city's office does. Conflict `account_exists`."""
        currency = self.terms.currency_code
        if tables.find_account(tx, account_id, currency) is not None:
            raise Conflict("account_exists", "There is such an account already.")
        tables.insert_account(tx, account_id, currency, Role.HOLDER, public_key, self.now(tx))
        self._audit.append(tx, AuditKind.OPERATOR, "ledger", {"event": "account_opened"})
        return self.require(tx, account_id)

    def register_key(self, tx: Tx, account_id: str, public_key: str | None) -> Account:
        """Register another key for an account, or none. NotFound `unknown_account`."""
        account = self.require(tx, account_id)
        tables.set_public_key(tx, account.number, public_key)
        self._audit.append(tx, AuditKind.OPERATOR, "ledger", {"event": "account_key_registered"})
        return self.require(tx, account_id)

    def require(self, source: RowSource, account_id: str) -> Account:
        """The account of an id, in its own currency. NotFound `unknown_account`."""
        terms = self.terms
        reserve = account_id == accounts.reserve_id(self.node.node_id)
        account = tables.find_account(source, account_id, terms.backed_by if reserve else terms.currency_code)
        if account is None:
            raise refused(Fault.UNKNOWN_ACCOUNT)
        return account

    def figures(self, source: RowSource) -> Figures:
        """What circulates, and what stands behind it."""
        return read_figures(source, self.terms, self._limits_minor)

    def credit_limit_minor(self, peer: str) -> int:
        """How much a peer may owe this city; 0 where it has no limit."""
        return int(self.settings.credit_limits.get(peer, 0) * MINOR_PER_LC)

    # Orders

    def submit(self, tx: Tx, orders: Sequence[Order], authority: Authority) -> list[Done]:
        """Carry out orders, all or none; held together they have one end.

        Refusals are those of `refusals.Fault`, in their order, for each order in turn.
        """
        link = own_id("link", *(order.id for order in orders)) if len(orders) > 1 else None
        end_ms = orders[0].hold_until_ms
        return [self._submit(tx, order, authority, link, end_ms) for order in orders]

    def end(self, tx: Tx, transfer_id: str, phase: Phase, authority: Authority) -> Transfer:
        """Post or void what is pending, as its payer may, with all that is linked to it; gives the pending transfer.

        The same again changes nothing. Refusal `unknown_transfer`, `not_authorised`, `of_a_transaction`, or as
        `Books.end`.
        """
        pending = self.find_transfer(tx, transfer_id)
        if not authority.sees_transfer(pending.payer_id, pending.payee_id):
            raise unknown_transfer()
        linked = [pending] if pending.link is None else transfer_tables.linked(tx, pending.link)
        group = [each for each in linked if each.phase is Phase.PENDING]
        for each in (pending, *group):
            check_authority(authority, each.payer_id)
        if pending.kind is Kind.SETTLEMENT:
            raise refused(Fault.OF_A_TRANSACTION)
        if pending.phase is not Phase.PENDING:
            raise refused(Fault.NOT_PENDING)
        at_ms = self.now(tx)
        for each in group:
            self.end_pending(tx, each, phase, at_ms)
        return pending

    def find_transfer(self, source: RowSource, transfer_id: str) -> Transfer:
        """The transfer of an id. NotFound `unknown_transfer`."""
        self.require_enabled()
        transfer = transfer_tables.find(source, transfer_id.lower())
        if transfer is None:
            raise unknown_transfer()
        return transfer

    def show(self, source: RowSource, transfer: Transfer) -> dict[str, Any]:
        """A transfer with what became of it."""
        ending = transfer_tables.ending_of(source, transfer.number) if transfer.phase is Phase.PENDING else None
        return views.transfer_json(transfer, ending, self.node.context_url)

    # What comes due

    def is_due(self, source: RowSource) -> bool:
        """Whether anything is due anywhere."""
        return self.enabled and bool(lot_tables.due_accounts(source, self._clock.now_ms(), 1))

    def charge_due(self, tx: Tx, limit: int = DUE_ACCOUNTS_AT_ONCE) -> int:
        """Do what is due on so many accounts; gives how many there were."""
        found = lot_tables.due_accounts(tx, self.now(tx), limit)
        self.charge_accounts(tx, found)
        return len(found)

    def due_accounts(self, source: RowSource) -> list[int]:
        """Accounts on which something is due, by number, those that waited longest first; some of them."""
        return lot_tables.due_accounts(source, self._clock.now_ms(), DUE_ACCOUNTS_AT_ONCE)

    def charge_accounts(self, tx: Tx, numbers: Sequence[int]) -> None:
        """Do what is due on accounts."""
        at_ms = self.now(tx)
        for number in numbers:
            self._books.charge_due(tx, tables.account_by_number(tx, number), at_ms)
        if numbers:
            self._audit.append(tx, AuditKind.SETTLEMENT, "ledger", {"event": "due_charged", "accounts": len(numbers)})

    def charge_account(self, tx: Tx, account: Account) -> Account:
        """Do what is due on one account; gives it as it stands then."""
        self._books.charge_due(tx, account, self.now(tx))
        return tables.account_by_number(tx, account.number)

    # For the rooms beside this file

    def write(
        self, tx: Tx, movement: Movement, at_ms: int, *, pending: bool = False, until_ms: int | None = None
    ) -> Transfer:
        """Write a movement down, with its audit entry and its event."""
        self._charge_before_payout(tx, movement.payer, at_ms)
        books = self._books
        transfer = books.hold(tx, movement, at_ms, until_ms) if pending else books.post(tx, movement, at_ms)
        self._record(tx, transfer, transfer.phase.value)
        return transfer

    def end_pending(
        self, tx: Tx, pending: Transfer, phase: Phase, at_ms: int, received: Sequence[Part] | None = None
    ) -> None:
        """Post or void what is pending, with its audit entry and its event; the same again changes nothing.

        `received` and the refusals are those of `Books.end`.
        """
        if self._books.end(tx, pending, phase, at_ms, received):
            self._record(tx, pending, phase.value)

    def move_backing(self, tx: Tx, transfer_id: str, link: str, amount_minor: int, at_ms: int) -> None:
        """Bring backing into the reserve, or out of it where the amount is negative. Refusal `insufficient_reserve`."""
        reserve, outside = self.backing_accounts(tx)
        if not reserve.can_pay(-amount_minor):
            raise refused(Fault.INSUFFICIENT_RESERVE)
        payer, payee = (outside, reserve) if amount_minor > 0 else (reserve, outside)
        digest = own_digest("backing", transfer_id, amount_minor)
        self.write(tx, Movement(transfer_id, Kind.BACKING, payer, payee, abs(amount_minor), digest, link=link), at_ms)

    def payee_of(self, line: Line, seller_account: str) -> str:
        """The account of this city that a line of §7.4 goes to."""
        if line is Line.SELLER:
            return seller_account
        funds = {
            Line.SELLER_COMMUNITY: Fund.COMMUNITY,
            Line.BUYER_COMMUNITY: Fund.COMMUNITY,
            Line.TRANSPORT: Fund.TRANSPORT,
            Line.RESIDUAL: Fund(self.settings.residual),
        }
        return accounts.fund_id(funds[line], self.node.node_id)

    def backing_accounts(self, source: RowSource) -> tuple[Account, Account]:
        """The reserve, and the account that stands for what is outside of the books; both in the backing."""
        currency, node_id = self.terms.backed_by, self.node.node_id
        reserve = tables.find_account(source, accounts.reserve_id(node_id), currency)
        outside = tables.find_account(source, accounts.issuance_id(node_id), currency)
        if reserve is None or outside is None:
            raise RuntimeError("the reserve has no account")
        return reserve, outside

    @property
    def _books(self) -> Books:
        self.require_enabled()
        if self._begun is None:
            raise RuntimeError("the ledger has not begun")
        return self._begun

    def _record(self, tx: Tx, transfer: Transfer, event: str) -> None:
        """The audit entry and the event of what happened to a transfer: they name no account."""
        told: dict[str, JSON] = {
            "event": event,
            "kind": transfer.kind.value,
            "currency": transfer.currency,
            "amount": amount_json(transfer.amount_minor),
        }
        self._audit.append(tx, AuditKind.SETTLEMENT, transfer.id, told)
        if event in (Phase.POSTED, Phase.POST):
            self._events.append(tx, EventKind.LEDGER_POSTED, transfer.id, told)

    def _submit(self, tx: Tx, order: Order, authority: Authority, link: str | None, end_ms: int | None) -> Done:
        terms = self.terms
        if order.currency != terms.currency_code:
            raise refused(Fault.WRONG_CURRENCY, {"pointer": "/currency"})
        if order.payer == order.payee:
            raise refused(Fault.SAME_ACCOUNT, {"pointer": "/to"})
        payer = tables.find_account(tx, order.payer, order.currency)
        check_authority(authority, order.payer, order, None if payer is None else payer.public_key)
        known = transfer_tables.find(tx, order.id)
        if known is not None:
            if known.digest != order.digest or (link is not None and known.link != link):
                raise refused(Fault.OTHER_CONTENT)
            return Done(known, False)
        at_ms = self.now(tx)
        check_times(order, self._clock.now_ms(), at_ms)
        if order.hold_until_ms != end_ms:
            raise refused(Fault.BAD_TIME, {"pointer": "/hold_until"})
        redeems = self.settings.redemption and order.payee == accounts.issuance_id(self.node.node_id)
        self._check_open(order, redeems)
        payee = tables.find_account(tx, order.payee, order.currency)
        if payer is None or payee is None:
            raise refused(Fault.UNKNOWN_ACCOUNT, {"pointer": "/from" if payer is None else "/to"})
        kind = Kind.REDEMPTION if redeems else Kind.PAYMENT
        movement = Movement(
            order.id, kind, payer, payee, order.amount_minor, order.digest, document=order.received, link=link
        )
        if redeems:
            return Done(self._redeem(tx, movement, at_ms), True)
        pending = order.hold_until_ms is not None
        if pending and self._has_many_pending(tx, payer, at_ms):
            raise refused(Fault.TOO_MANY_PENDING)
        return Done(self.write(tx, movement, at_ms, pending=pending, until_ms=order.hold_until_ms), True)

    def _redeem(self, tx: Tx, movement: Movement, at_ms: int) -> Transfer:
        """Take coins out of circulation; the backing that they stand for leaves the reserve, rounded down.

        Refusal `no_rate`, `insufficient_funds`, `insufficient_reserve`.
        """
        try:
            backing_minor = backing_of(movement.amount_minor, self.terms.exchange_rate)
        except NoRate:
            raise refused(Fault.NO_RATE) from None
        link = movement.link or own_id("link", movement.id)
        transfer = self.write(tx, replace(movement, link=link), at_ms)
        if backing_minor:
            self.move_backing(tx, own_id("backing", movement.id), link, -backing_minor, at_ms)
        return transfer

    def _has_many_pending(self, tx: Tx, payer: Account, at_ms: int) -> bool:
        self._books.charge_due(tx, payer, at_ms)
        return lot_tables.count_pending(tx, payer.number, PENDING_PER_ACCOUNT_MAX) >= PENDING_PER_ACCOUNT_MAX

    def _check_open(self, order: Order, redeems: bool) -> None:
        home, sides = self.node.node_id, (("/from", order.payer), ("/to", order.payee))
        for pointer, account_id in sides:
            may_redeem = redeems and account_id == order.payee and order.hold_until_ms is None
            if accounts.is_reserved(account_id, home) and not may_redeem:
                raise refused(Fault.RESERVED_ACCOUNT, {"pointer": pointer})
        for pointer, account_id in sides:
            if account_node(account_id) != home:
                raise refused(Fault.OTHER_NODE, {"pointer": pointer})

    def _charge_before_payout(self, tx: Tx, payer: Account, at_ms: int) -> None:
        """The community fund pays out only what it has, and what is due to it comes first."""
        if payer.id != accounts.fund_id(Fund.COMMUNITY, self.node.node_id):
            return
        if not lot_tables.is_much_due(tx, at_ms, DUE_ACCOUNTS_AT_ONCE):
            self.charge_due(tx)
        else:
            raise Unavailable("decay_due", "Decay that is due to the fund is being charged.", retry_after_s=1)

    def _own_accounts(self, terms: Terms) -> list[tuple[str, Role, str]]:
        node_id, currency = self.node.node_id, terms.currency_code
        return [
            (accounts.issuance_id(node_id), Role.ISSUANCE, currency),
            (accounts.issuance_id(node_id), Role.ISSUANCE, terms.backed_by),
            (accounts.reserve_id(node_id), Role.RESERVE, terms.backed_by),
            *((accounts.fund_id(fund, node_id), Role.FUND, currency) for fund in Fund),
            *((account_id, Role.CLEARING, currency) for account_id in sorted(self._limits_minor)),
        ]

    def _check_same_currency(self, before: Terms, after: Terms) -> None:
        if (before.currency_code, before.backed_by) != (after.currency_code, after.backed_by):
            raise UnusableLedger(
                f"the books are kept in {before.currency_code}, backed by {before.backed_by}: "
                "ledger.currency_code and ledger.backed_by must stay"
            )


def unknown_transfer() -> NotFound:
    """404 for a transfer that is not there, or that the caller may not know of."""
    return NotFound("unknown_transfer", "There is no such transfer here, or none that you may see.")
