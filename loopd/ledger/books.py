"""Writing the books: post, hold, end a hold, and charge what is due; always within the caller's `tx`."""

from collections.abc import Sequence

from loopd.database.writer import Tx
from loopd.ledger import lot_tables, tables, transfer_tables
from loopd.ledger.accounts import Fund, fund_id
from loopd.ledger.dates import day_of
from loopd.ledger.lots import Part, take_oldest
from loopd.ledger.movements import HOLD_MOVES, Account, Hold, HoldState, Kind, Movement, Phase, Transfer
from loopd.ledger.orders import own_digest, own_id
from loopd.ledger.refusals import Fault, refused
from loopd.ledger.terms import ExpiryPolicy, Terms, TermsHistory

# The one part of an account whose coins do not age.
_WITHOUT_DAY = -1

_ENDED = {
    HoldState.POSTED: Fault.ALREADY_POSTED,
    HoldState.VOIDED: Fault.ALREADY_VOIDED,
    HoldState.EXPIRED: Fault.ALREADY_EXPIRED,
}


class Books:
    """One node's books, and the terms by time that they follow. Amounts move here and nowhere else."""

    def __init__(self, node_id: str, history: TermsHistory) -> None:
        self._node_id = node_id
        self.history = history

    def post(self, tx: Tx, movement: Movement, at_ms: int) -> Transfer:
        """Move an amount. Refusal `insufficient_funds`. What is due comes first."""
        payer = self._charged(tx, movement.payer, at_ms)
        self.charge_due(tx, movement.payee, at_ms)
        paid = self._spendable(tx, payer, movement)
        posted = transfer_tables.insert(tx, movement, Phase.POSTED, None, at_ms)
        self._move(tx, posted.number, payer, movement.payee, paid, movement.received_parts, at_ms)
        return posted

    def hold(self, tx: Tx, movement: Movement, at_ms: int, until_ms: int | None) -> Transfer:
        """Reserve an amount. Refusal `insufficient_funds`."""
        payer = self._charged(tx, movement.payer, at_ms)
        parts = self._spendable(tx, payer, movement)
        pending = transfer_tables.insert(tx, movement, Phase.PENDING, None, at_ms)
        tables.hold_funds(tx, payer.number, movement.amount_minor)
        if payer.has_lots:
            for part in parts:
                lot_tables.hold_part(tx, payer.number, part, 1)
        lot_tables.insert_hold(tx, Hold(pending.number, payer.number, HoldState.PENDING, until_ms), parts)
        return pending

    def end(
        self,
        tx: Tx,
        pending: Transfer,
        phase: Phase,
        at_ms: int,
        received: Sequence[Part] | None = None,
    ) -> bool:
        """Post or void a pending transfer. False where that had happened before, and nothing was to do.

        `received` are the issue days that the payee gets, where the coins had theirs in another city.
        Refusal `not_pending`, `already_posted`, `already_voided`, `already_expired`.
        """
        self.charge_due(tx, tables.account_by_number(tx, pending.payer), at_ms)
        hold = lot_tables.hold_of(tx, pending.number)
        if hold is None:
            raise refused(Fault.NOT_PENDING)
        if hold.state is HOLD_MOVES[phase]:
            return False
        if hold.state is not HoldState.PENDING:
            raise refused(_ENDED[hold.state])
        if phase is Phase.POST:
            self.charge_due(tx, tables.account_by_number(tx, pending.payee), at_ms)
        self._end(tx, pending, phase, at_ms, received)
        return True

    def charge_due(self, tx: Tx, account: Account, until_ms: int) -> None:
        """Do what is due on an account by a moment, dated as it came due: holds that expired, coins that aged."""
        if not lot_tables.is_due(tx, account.number, until_ms):
            return
        for hold in lot_tables.expiring(tx, account.number, until_ms):
            if hold.expires_at_ms is None:
                raise RuntimeError("a hold without an end has expired")
            self._charge_lots(tx, account, hold.expires_at_ms)
            self._end(tx, transfer_tables.by_number(tx, hold.transfer), Phase.EXPIRE, hold.expires_at_ms)
        self._charge_lots(tx, account, until_ms)

    def _charged(self, tx: Tx, account: Account, at_ms: int) -> Account:
        self.charge_due(tx, account, at_ms)
        # Read anew: whoever named the account may have done so some movements ago.
        return tables.account_by_number(tx, account.number)

    def _spendable(self, tx: Tx, payer: Account, movement: Movement) -> Sequence[Part]:
        if not payer.can_pay(movement.amount_minor):
            raise refused(Fault.INSUFFICIENT_FUNDS)
        if movement.parts is not None:
            return movement.parts
        if payer.has_lots:
            lots = lot_tables.oldest_lots(tx, payer.number, movement.amount_minor)
            return take_oldest(lots, movement.amount_minor)
        return [Part(_WITHOUT_DAY, movement.amount_minor)]

    def _move(
        self,
        tx: Tx,
        number: int,
        payer: Account,
        payee: Account,
        paid: Sequence[Part],
        received: Sequence[Part] | None,
        at_ms: int,
    ) -> None:
        amount_minor = sum(part.amount_minor for part in paid)
        transfer_tables.insert_entries(tx, number, payer.number, paid, -1, at_ms)
        if not payee.has_lots:
            transfer_tables.insert_entries(tx, number, payee.number, [Part(_WITHOUT_DAY, amount_minor)], 1, at_ms)
            return
        if received is None:
            received = paid if payer.has_lots else [Part(day_of(at_ms), amount_minor)]
        transfer_tables.insert_entries(tx, number, payee.number, received, 1, at_ms)
        for part in received:
            lot_tables.set_due(tx, payee.number, part.issue_day, self.history.next_boundary(part.issue_day, at_ms))

    def _end(
        self,
        tx: Tx,
        pending: Transfer,
        phase: Phase,
        at_ms: int,
        received: Sequence[Part] | None = None,
    ) -> None:
        payer = tables.account_by_number(tx, pending.payer)
        payee = tables.account_by_number(tx, pending.payee)
        parts = lot_tables.held_parts(tx, pending.number)
        movement = Movement(
            own_id(phase, pending.id),
            pending.kind,
            payer,
            payee,
            pending.amount_minor,
            own_digest(phase, pending.id),
            link=pending.link,
        )
        ending = transfer_tables.insert(tx, movement, phase, pending.number, at_ms)
        lot_tables.end_hold(tx, pending.number, HOLD_MOVES[phase])
        tables.hold_funds(tx, payer.number, -pending.amount_minor)
        if payer.has_lots:
            for part in parts:
                lot_tables.hold_part(tx, payer.number, part, -1)
        if phase is Phase.POST:
            self._move(tx, ending.number, payer, payee, parts, received, at_ms)
        elif payer.has_lots:
            for part in parts:
                self._charge_missed(tx, pending, payer, part, at_ms)

    def _charge_missed(self, tx: Tx, pending: Transfer, payer: Account, part: Part, at_ms: int) -> None:
        """Coins that were held and come back lose what they would have lost, now."""
        left_minor = part.amount_minor
        for boundary in self.history.boundaries(part.issue_day, pending.at_ms + 1, at_ms):
            lost = Part(part.issue_day, boundary.terms.loss_minor(left_minor))
            self._lose(tx, payer, lost, boundary.terms, at_ms, (boundary.at_ms, pending.id))
            left_minor -= lost.amount_minor
        lot_tables.set_due(tx, payer.number, part.issue_day, self.history.next_boundary(part.issue_day, at_ms))

    def _charge_lots(self, tx: Tx, account: Account, until_ms: int) -> None:
        if not account.has_lots:
            return
        due = lot_tables.due_lots(tx, account.number, until_ms)
        left_minor = {lot.issue_day: lot.available_minor for lot, _ in due}
        charges = sorted(
            (boundary.at_ms, lot.issue_day, index, boundary.terms)
            for lot, from_ms in due
            for index, boundary in enumerate(self.history.boundaries(lot.issue_day, from_ms, until_ms))
        )
        for at_ms, issue_day, _, terms in charges:
            lost = Part(issue_day, terms.loss_minor(left_minor[issue_day]))
            self._lose(tx, account, lost, terms, at_ms, (at_ms,))
            left_minor[issue_day] -= lost.amount_minor
        for lot, _ in due:
            lot_tables.set_due(tx, account.number, lot.issue_day, self.history.next_boundary(lot.issue_day, until_ms))

    def _lose(
        self,
        tx: Tx,
        account: Account,
        lost: Part,
        terms: Terms,
        at_ms: int,
        cause: tuple[int | str, ...],
    ) -> None:
        if lost.amount_minor == 0:
            return
        fund = tables.find_account(tx, fund_id(Fund.COMMUNITY, self._node_id), account.currency)
        if fund is None:
            raise RuntimeError("the community fund has no account")
        kind = Kind.FORFEIT if terms.expiry_policy is ExpiryPolicy.FORFEIT else Kind.DECAY
        named = (kind, account.id, account.currency, lost.issue_day, *cause)
        movement = Movement(own_id(*named), kind, account, fund, lost.amount_minor, own_digest(*named), parts=[lost])
        charged = transfer_tables.insert(tx, movement, Phase.POSTED, None, at_ms)
        self._move(tx, charged.number, account, fund, [lost], None, at_ms)
