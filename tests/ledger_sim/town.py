"""What happens inside one city, written from the rules alone: orders, issuance and reserve, sales, disputes.

Amounts are whole hundredths. Of several faults the first in the guide's list is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from tests.ledger_sim.asks import Asked, Sale, Shows
from tests.ledger_sim.money import DAY_MS, Money, Refused, Terms

_EARLY_MS = 300_000
_PENDING_MOST = 1_000


@dataclass(frozen=True)
class Rules:
    """What the city's settings say besides the currency's terms.

    `limits` is how much each peer may owe, `ways` by what method and in which period it is settled with each.
    """

    redemption: bool
    residual: str
    limits: Mapping[str, int] = field(default_factory=dict)
    ways: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What stands under an id; `link` are the ids of all that was ordered together."""

    content: tuple[object, ...]
    link: tuple[str, ...] | None
    payer: str
    payee: str
    is_hold: bool = False


@dataclass(frozen=True)
class Payment:
    """A sale's payment inside the city; `holds` are by name."""

    payer: str
    total: int
    state: str
    holds: tuple[str, ...]


class Town(Money):
    """One city with its office. `keyed` holders have registered a key."""

    def __init__(
        self, node: str, currency: str, holders: Iterable[str], now_ms: int, terms: Terms, rules: Rules, keyed: set[str]
    ) -> None:
        super().__init__(node, holders, now_ms, terms)
        self.currency = currency
        self.rules = rules
        self.keyed = keyed
        self.done: dict[str, Done] = {}
        self.payments: dict[str, Payment] = {}
        # Between this city and its peers: what it owes (below zero: is owed), and what comes in but is not posted.
        self.owed = dict.fromkeys(rules.limits, 0)
        self.coming = dict.fromkeys(rules.limits, 0)

    def change(self, terms: Terms, rules: Rules, wall_ms: int) -> None:
        """Other settings hold from now on; the terms after all that was done already."""
        self.rules = rules
        for peer in rules.limits:
            self.owed.setdefault(peer, 0)
            self.coming.setdefault(peer, 0)
        if terms != self.newest:
            self.terms.append((max(wall_ms, self.now_ms, self.terms[-1][0]) + 1, terms))

    # Orders

    def submit(self, orders: Sequence[Asked], shows: Shows) -> None:
        """All of them or none."""
        link = tuple(order.id for order in orders) if len(orders) > 1 else None
        for order in orders:
            self._order(order, shows, link, orders[0].until_ms)

    def _order(self, order: Asked, shows: Shows, link: tuple[str, ...] | None, until_ms: int | None) -> None:
        if order.currency != self.currency:
            raise Refused("wrong_currency")
        if order.payer == order.payee:
            raise Refused("same_account")
        self._check_payer(order.payer, shows, order.signature)
        known = self.done.get(order.id)
        if known is not None:
            if known.content != order.content or link not in (None, known.link):
                raise Refused("other_content")
            return
        self._check_times(order)
        if order.until_ms != until_ms:
            raise Refused("bad_time")
        redeems = self.rules.redemption and order.payee == f"node:issuance@{self.node}"
        self._check_accounts(order, redeems)
        if redeems:
            self._redeem(order.payer, order.amount)
        elif order.until_ms is None:
            self.pay(order.payer, order.payee, order.amount)
        else:
            self._check_pending(order.payer)
            self.hold(order.id, order.payer, order.payee, order.amount, order.until_ms)
        done = Done(order.content, link, order.payer, order.payee, order.until_ms is not None)
        self.journal.put(self.done, order.id, done)

    def _check_payer(self, payer: str, shows: Shows, signature: bool | None = None) -> None:
        if payer.startswith("node:"):
            if not shows.operator:
                raise Refused("not_authorised")
            return
        keyed, bound = payer in self.keyed, shows.account == payer
        # A signature counts where there is a key for it, or where nothing else would do.
        if signature is not None and (keyed or not bound):
            if not (keyed and signature):
                raise Refused("bad_signature")
        elif not bound:
            raise Refused("not_authorised")

    def _may_see(self, known: Done, shows: Shows) -> bool:
        """The operator sees everything, a holder what is its own, and everybody what the city's own accounts do."""
        parties = (known.payer, known.payee)
        return shows.operator or shows.account in parties or all(each.startswith("node:") for each in parties)

    def _check_pending(self, payer: str) -> None:
        if sum(hold.payer == payer for hold in self.holds.values()) >= _PENDING_MOST:
            raise Refused("too_many_pending")

    def _check_times(self, order: Asked) -> None:
        if not -_EARLY_MS <= self.wall_ms - order.stated_ms <= 7 * DAY_MS:
            raise Refused("bad_time")
        if order.until_ms is not None and not 0 < order.until_ms - self.now_ms <= 90 * DAY_MS:
            raise Refused("bad_time")

    def _check_accounts(self, order: Asked, redeems: bool) -> None:
        may_redeem = redeems and order.until_ms is None
        if self._is_reserved(order.payer) or (self._is_reserved(order.payee) and not may_redeem):
            raise Refused("reserved_account")
        for account in (order.payer, order.payee):
            if not account.endswith(f"@{self.node}"):
                raise Refused("other_node")
        for account in (order.payer, order.payee):
            if not (self.is_open(account) or (may_redeem and account == order.payee)):
                raise Refused("unknown_account")

    def is_open(self, account: str) -> bool:
        """Whether money can lie there."""
        return account in self.coins or account in self.funds

    def _is_reserved(self, account: str) -> bool:
        name, _, node = account.partition("@")
        return node == self.node and name.startswith(("node:issuance", "node:reserve", "node:clearing."))

    def end_order(self, order_id: str, state: str, shows: Shows) -> None:
        """Post or void what an order holds, with all that is linked to it."""
        known = self.done.get(order_id)
        if known is None or not self._may_see(known, shows):
            raise Refused("unknown_transfer")
        group = known.link or (order_id,)
        self._check_payer(known.payer, shows)
        if not known.is_hold:
            raise Refused("not_pending")
        for each in group:
            self._check_payer(self.done[each].payer, shows)
        for each in group:
            self.end(each, state)

    # Issuance and reserve

    def supply(self) -> int:
        """What circulates here, with what is to come in."""
        abroad = sum(self.owed.values()) - sum(self.coming.values())
        return self.figures["issued"] - self.figures["redeemed"] - abroad

    def claims(self) -> int:
        """What peers owe, each up to its limit, less what they are owed."""
        return sum(min(self.coming[peer] - owed, self.rules.limits.get(peer, 0)) for peer, owed in self.owed.items())

    def check_cap(self, more: int) -> None:
        """Refused `over_cap` where so much more would be too much."""
        if self.newest.cap is not None and self.supply() + more > self.newest.cap:
            raise Refused("over_cap")

    def check_cover(self, supply: int = 0, reserve: int = 0, claims: int = 0) -> None:
        """Refused `under_reserve` where the cover would not suffice with so much more of each."""
        cover = (self.figures["reserve"] + reserve) * self.newest.rate + self.claims() + claims
        if cover < self.newest.ratio * (self.supply() + supply):
            raise Refused("under_reserve")

    def issue(self, issue_id: str, payee: str, amount: int, backing: int) -> None:
        """Bring coins into circulation, and what was taken in for them into the reserve."""
        if self._was_done(issue_id, ("issue", payee, amount, backing), payee):
            return
        if self._is_reserved(payee):
            raise Refused("reserved_account")
        if not self.is_open(payee):
            raise Refused("unknown_account")
        if self.newest.rate == 0:
            raise Refused("no_rate")
        self.check_cap(amount)
        self.check_cover(amount, backing)
        self._count("reserve", backing)
        self._count("issued", amount)
        self.give(payee, self.today, amount)

    def move_reserve(self, move_id: str, amount: int) -> None:
        """Take backing in, or give it away where the amount is negative."""
        if self._was_done(move_id, ("reserve", amount), f"node:reserve@{self.node}"):
            return
        if self.figures["reserve"] - self.figures["reserve held"] + amount < 0:
            raise Refused("insufficient_reserve")
        if amount < 0:
            self.check_cover(reserve=amount)
        self._count("reserve", amount)

    def _redeem(self, payer: str, amount: int) -> None:
        if self.newest.rate == 0:
            raise Refused("no_rate")
        backing = Fraction(amount) / self.newest.rate // 1
        self.take(payer, amount)
        if backing > self.figures["reserve"] - self.figures["reserve held"]:
            raise Refused("insufficient_reserve")
        self._count("redeemed", amount)
        self._count("reserve", -backing)

    def _was_done(self, name: str, content: tuple[object, ...], payee: str) -> bool:
        known = self.done.get(name)
        if known is not None and known.content != content:
            raise Refused("other_content")
        self.journal.put(self.done, name, Done(content, None, f"node:issuance@{self.node}", payee))
        return known is not None

    def _count(self, figure: str, amount: int) -> None:
        self.moved = True
        self.journal.put(self.figures, figure, self.figures[figure] + amount)

    # Sales inside the city

    def residual(self) -> str:
        """Where what §7.4 leaves over goes now."""
        return f"node:{self.rules.residual}@{self.node}"

    def sell(self, sale: Sale) -> str | None:
        """Hold what the buyer pays; the reason why not."""
        known = self.payments.get(sale.transaction)
        if known is not None:
            return f"already_{known.state}" if known.state in ("posted", "voided") else None
        if sale.buyer == sale.seller:
            return "same_account"
        for account in (sale.buyer, sale.seller):
            if account not in self.coins:
                return "reserved_account" if self.is_open(account) or self._is_reserved(account) else "unknown_account"
        if sale.costs[1] > sale.costs[0]:
            return "bad_breakdown"
        total = sum(sale.costs)
        if self.free(sale.buyer) < total:
            return "insufficient_funds"
        payees = (sale.seller, self.community, self.community, f"node:transport@{self.node}", self.residual())
        holds = []
        for (line, amount), payee in zip(sale.lines.items(), payees, strict=True):
            if amount:
                holds.append(f"{sale.transaction}/{line}")
                self.hold(holds[-1], sale.buyer, payee, amount, None)
        self.journal.put(self.payments, sale.transaction, Payment(sale.buyer, total, "held", tuple(holds)))
        return None

    def deliver(self, transaction: str) -> None:
        """Pay what is held, and the bonus."""
        payment = self.payments.get(transaction)
        if payment is None or payment.state != "held":
            return
        self._pay_out(transaction, "posted")
        bonus = min(payment.total * self.newest.bonus // 1, self.funds[f"node:bonus@{self.node}"])
        if bonus:
            self.pay(f"node:bonus@{self.node}", payment.payer, bonus)

    def cancel(self, transaction: str) -> None:
        """Give back what is held."""
        payment = self.payments.get(transaction)
        if payment is not None and payment.state == "held":
            self._pay_out(transaction, "voided")

    def dispute(self, transaction: str) -> None:
        """Keep what is held."""
        payment = self.payments.get(transaction)
        if payment is not None and payment.state == "held":
            self.journal.put(self.payments, transaction, replace(payment, state="frozen"))

    def resolve(self, transaction: str, state: str) -> None:
        """End a dispute, without a bonus."""
        payment = self.payments.get(transaction)
        if payment is None:
            raise Refused("unknown_settlement")
        if payment.state == "held":
            raise Refused("not_frozen")
        if payment.state == "frozen":
            self._pay_out(transaction, state)
        elif payment.state != state:
            raise Refused(f"already_{payment.state}")

    def _pay_out(self, transaction: str, state: str) -> None:
        payment = self.payments[transaction]
        for name in payment.holds:
            self.end(name, state)
        self.journal.put(self.payments, transaction, replace(payment, state=state))
