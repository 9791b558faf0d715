"""The operator's side of the currency: issue against reserve and cap, and keep the reserve."""

from dataclasses import dataclass

from loopd.database.writer import Tx
from loopd.ledger import accounts, transfer_tables
from loopd.ledger.movements import Kind, Movement, Transfer
from loopd.ledger.orders import own_digest, own_id
from loopd.ledger.refusals import Fault, refused
from loopd.ledger.service import Done, Ledger
from loopd.protocol.ids import account_node


@dataclass(frozen=True, slots=True)
class Issue:
    """Coins for an account, and the backing, in its own hundredths, that was taken in for them."""

    id: str
    payee: str
    amount_minor: int
    backing_minor: int


class Issuance:
    """Brings money into the books and backing out of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def issue(self, tx: Tx, issue: Issue) -> Done:
        """Issue coins. The same id again with the same content changes nothing.

        Refusal `other_content`, `reserved_account`, `other_node`, `unknown_account`, `no_rate`, `over_cap`,
        `under_reserve`.
        """
        ledger, terms = self._ledger, self._ledger.terms
        digest = own_digest("issue", issue.id, issue.payee, issue.amount_minor, issue.backing_minor)
        known = _repeated(tx, issue.id, digest)
        if known is not None:
            return Done(known, False)
        _check_open(issue.payee, ledger.node.node_id)
        payee = ledger.require(tx, issue.payee)
        if terms.exchange_rate <= 0:
            raise refused(Fault.NO_RATE)
        ledger.figures(tx).changed(issue.amount_minor, issue.backing_minor).check(terms)
        link, at_ms = own_id("link", issue.id), ledger.now(tx)
        if issue.backing_minor:
            ledger.move_backing(tx, own_id("backing", issue.id), link, issue.backing_minor, at_ms)
        source = ledger.require(tx, accounts.issuance_id(ledger.node.node_id))
        movement = Movement(issue.id, Kind.ISSUANCE, source, payee, issue.amount_minor, digest, link=link)
        return Done(ledger.write(tx, movement, at_ms), True)

    def move_reserve(self, tx: Tx, transfer_id: str, amount_minor: int) -> Done:
        """Take backing into the reserve, or out of it where the amount is negative.

        Refusal `other_content`, `insufficient_reserve`, `under_reserve`.
        """
        ledger = self._ledger
        known = _repeated(tx, transfer_id, own_digest("backing", transfer_id, amount_minor))
        if known is not None:
            return Done(known, False)
        if amount_minor < 0:
            reserve = ledger.require(tx, accounts.reserve_id(ledger.node.node_id))
            if not reserve.can_pay(-amount_minor):
                raise refused(Fault.INSUFFICIENT_RESERVE)
            ledger.figures(tx).changed(reserve_minor=amount_minor).check_cover(ledger.terms)
        ledger.move_backing(tx, transfer_id, own_id("link", transfer_id), amount_minor, ledger.now(tx))
        return Done(ledger.find_transfer(tx, transfer_id), True)


def _check_open(payee: str, node_id: str) -> None:
    """Refusal for an account that the node's own rules keep, or another city's, whether there is such a one or not."""
    if accounts.is_reserved(payee, node_id):
        raise refused(Fault.RESERVED_ACCOUNT, {"pointer": "/to"})
    if account_node(payee) not in (None, node_id):
        raise refused(Fault.OTHER_NODE, {"pointer": "/to"})


def _repeated(tx: Tx, transfer_id: str, digest: bytes) -> Transfer | None:
    known = transfer_tables.find(tx, transfer_id)
    if known is not None and known.digest != digest:
        raise refused(Fault.OTHER_CONTENT)
    return known
