"""What a settlement with another node does in this one's books; all within the caller's `tx`.

The clearing account of a peer carries what crosses: at the payer's node it gains what the peer is owed, at the payee's
it loses what the peer owes. Both sides write the same lines, each in its own currency.
"""

from loopd.database.writer import Tx
from loopd.ledger import accounts, lot_tables, tables, transfer_tables
from loopd.ledger.accounts import Fund, Role
from loopd.ledger.arithmetic import Line, payer_amount
from loopd.ledger.clearing.messages import Crossing, Name, Prepare, Request, converted_days, crossings
from loopd.ledger.lots import Part, take_oldest
from loopd.ledger.movements import Account, Kind, Movement, Phase
from loopd.ledger.orders import own_digest, own_id
from loopd.ledger.refusals import Fault
from loopd.ledger.service import Ledger
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import SETTLEMENT_ISSUE_DAYS_MAX


class Postings:
    """The lines of settlements with other nodes, in one node's books."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def clearing_account(self, tx: Tx, peer: str) -> Account | None:
        """The account of what is between this node and a peer; None where nothing settles with it."""
        account_id = accounts.clearing_id(peer, self._ledger.node.node_id)
        return tables.find_account(tx, account_id, self._ledger.terms.currency_code)

    # At the payer's node

    def fault_of_hold(self, tx: Tx, request: Request) -> str | None:
        """Why the money cannot be held.

        `no_credit`, `no_rate`, `unknown_account`, `reserved_account`, `insufficient_funds`, `too_many_days`.
        """
        terms = self._ledger.terms
        if not self._settles_with(request.name.payee):
            return "no_credit"
        if request.backed_by != terms.backed_by or min(request.exchange_rate, terms.exchange_rate) <= 0:
            return Fault.NO_RATE.reason
        fault = self._fault_of_holder(tx, request.buyer_account)
        if fault is not None:
            return fault
        payer = self._ledger.charge_account(tx, self._ledger.require(tx, request.buyer_account))
        lines = self._crossings(request)
        total_minor = sum(each.payer_minor for each in lines) + self._import_minor(request)
        if not payer.can_pay(total_minor):
            return Fault.INSUFFICIENT_FUNDS.reason
        seller_minor = sum(each.payer_minor for each in lines if each.line is Line.SELLER)
        days = len(take_oldest(lot_tables.lots(tx, payer.number), seller_minor))
        return "too_many_days" if days > SETTLEMENT_ISSUE_DAYS_MAX else None

    def hold(self, tx: Tx, request: Request) -> Prepare:
        """Hold what the buyer pays, without an end; gives what to prepare at the other side."""
        ledger, at_ms = self._ledger, self._ledger.now(tx)
        lines, peer = self._crossings(request), request.name.payee
        buyer = ledger.require(tx, request.buyer_account)
        clearing = ledger.require(tx, accounts.clearing_id(peer, ledger.node.node_id))
        issue_days: list[Part] = []
        for each in lines:
            number = self._pend(tx, request.name, each.line, (buyer, clearing), each.payer_minor, at_ms)
            if each.line is Line.SELLER:
                issue_days = lot_tables.held_parts(tx, number)
        import_minor = self._import_minor(request)
        if import_minor:
            fund = ledger.require(tx, accounts.fund_id(Fund.COMMUNITY, ledger.node.node_id))
            self._pend(tx, request.name, Line.BUYER_COMMUNITY, (buyer, fund), import_minor, at_ms)
        terms = ledger.terms
        return Prepare(request.name, terms.currency_code, terms.exchange_rate, lines, issue_days)

    # At the payee's node

    def fault_of_sale(self, tx: Tx, seller_account: str, peer: str) -> str | None:
        """Why nothing is asked of the buyer's node: `no_credit`, `no_rate`, `unknown_account`, `reserved_account`."""
        if not self._settles_with(peer):
            return "no_credit"
        if self._ledger.terms.exchange_rate <= 0:
            return Fault.NO_RATE.reason
        return self._fault_of_holder(tx, seller_account)

    def fault_of_reserve(self, tx: Tx, request: Request, coming_minor: int) -> str | None:
        """Why so much cannot be taken in: as `fault_of_sale`, or `over_credit`, `over_cap`, `under_reserve`."""
        fault = self.fault_of_sale(tx, request.seller_account, request.name.payer)
        clearing = self.clearing_account(tx, request.name.payer)
        if fault is not None or clearing is None:
            return fault
        ledger = self._ledger
        owed_minor = -clearing.available_minor
        if owed_minor + coming_minor > ledger.credit_limit_minor(request.name.payer):
            return "over_credit"
        try:
            ledger.figures(tx).changed(supply_minor=coming_minor, claims_minor=coming_minor).check(ledger.terms)
        except Refusal as refusal:
            return refusal.reason
        return None

    def reserve(self, tx: Tx, request: Request, prepare: Prepare) -> None:
        """Reserve what comes in, without an end."""
        ledger, at_ms = self._ledger, self._ledger.now(tx)
        clearing = ledger.require(tx, accounts.clearing_id(request.name.payer, ledger.node.node_id))
        for each in prepare.lines:
            payee = ledger.require(tx, ledger.payee_of(each.line, request.seller_account))
            self._pend(tx, request.name, each.line, (clearing, payee), each.payee_minor, at_ms)

    # At both

    def end(self, tx: Tx, name: Name, phase: Phase, prepare: Prepare | None) -> None:
        """Post or void all that is pending. `prepare`, at the payee's node, says from which days its coins are."""
        ledger, at_ms = self._ledger, self._ledger.now(tx)
        for transfer in transfer_tables.linked(tx, link_of(name)):
            if transfer.phase is not Phase.PENDING:
                continue
            received = None
            if prepare is not None and transfer.id == line_id(name, Line.SELLER):
                crossing = next(each for each in prepare.lines if each.line is Line.SELLER)
                received = converted_days(prepare.issue_days, crossing.payer_minor, crossing.payee_minor)
            ledger.end_pending(tx, transfer, phase, at_ms, received)

    def _settles_with(self, peer: str) -> bool:
        """Whether anything new may begin; the account of a peer whose limit was taken away stays, to end what had."""
        return peer in self._ledger.settings.credit_limits

    def _crossings(self, request: Request) -> list[Crossing]:
        payer_rate = self._ledger.terms.exchange_rate
        return crossings(request.lines, payer_rate, request.exchange_rate)

    def _import_minor(self, request: Request) -> int:
        minor = request.lines[Line.BUYER_COMMUNITY]
        return payer_amount(minor, self._ledger.terms.exchange_rate, request.exchange_rate)

    def _fault_of_holder(self, tx: Tx, account_id: str) -> str | None:
        account = tables.find_account(tx, account_id, self._ledger.terms.currency_code)
        if account is None:
            return Fault.UNKNOWN_ACCOUNT.reason
        return None if account.role is Role.HOLDER else Fault.RESERVED_ACCOUNT.reason

    def _pend(
        self, tx: Tx, name: Name, line: Line, sides: tuple[Account, Account], amount_minor: int, at_ms: int
    ) -> int:
        """Hold a line from payer to payee; gives the number of its transfer."""
        digest = own_digest("clearing", name.payer, name.id, line)
        movement = Movement(line_id(name, line), Kind.SETTLEMENT, *sides, amount_minor, digest, link=link_of(name))
        return self._ledger.write(tx, movement, at_ms, pending=True).number


def link_of(name: Name) -> str:
    """By which the lines of one settlement stand and fall together."""
    return own_id("clearing", name.payer, name.id)


def line_id(name: Name, line: Line) -> str:
    """The id of one line's transfer, the same at both nodes."""
    return own_id("clearing", name.payer, name.id, line)
