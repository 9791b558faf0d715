"""Sales between cities, written from the rules alone: both sides of each, what they promise, and what becomes of it.

The buyer's city holds the money and decides; the seller's city reserves, asks, and does as it is told. Amounts are
whole hundredths, each in its own city's currency.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tests.ledger_sim.asks import Bid, Key, Sale
from tests.ledger_sim.mail import Mail
from tests.ledger_sim.money import DAY_MS, Refused
from tests.ledger_sim.town import Town

# What crosses; what the buyer's own city gets of it stays there.
CROSSING = ("seller_receives", "seller_community_fund", "transport_cost", "residual")
ENDED = ("posted", "voided")
_STATES = {"post": "posted", "void": "voided"}


@dataclass(frozen=True)
class Deal:
    """What the seller's city asks for, its rate frozen."""

    sale: Sale
    currency: str
    backing: str
    rate: Fraction


@dataclass(frozen=True)
class Promise:
    """What the buyer's city holds: its rate, each line in both currencies, and of which days the seller's coins are."""

    currency: str
    rate: Fraction
    lines: tuple[tuple[str, int, int], ...]
    days: tuple[tuple[int, int], ...]

    @property
    def paid(self) -> int:
        """What leaves the buyer's city."""
        return sum(line[1] for line in self.lines)

    @property
    def received(self) -> int:
        """What comes to the seller's."""
        return sum(line[2] for line in self.lines)


@dataclass(frozen=True)
class Out:
    """The buyer's side. `promise` None: nothing was ever held; `opened_ms` is by the node's clock."""

    state: str
    opened_ms: int
    deal: Deal | None = None
    promise: Promise | None = None
    bid: str | None = None
    reason: str | None = None
    frozen: bool = False
    wanted: bool = False
    acknowledged: bool = False


@dataclass(frozen=True)
class In:
    """The seller's side. `payees` get what was reserved, line by line."""

    state: str
    deal: Deal | None = None
    promise: Promise | None = None
    payees: tuple[str, ...] = ()
    ask: str | None = None
    reason: str | None = None


class Dealing(Town):
    """One city with its side of every sale between cities. `bids` are what it has agreed to, by subject."""

    def __init__(self, *args: Any, backing: str) -> None:
        super().__init__(*args)
        self.backing = backing
        self.bids: dict[str, Bid] = {}
        self.outs: dict[Key, Out] = {}
        self.ins: dict[Key, In] = {}
        self.told: dict[str, str] = {}
        # Since when this city knows that both have posted a sale, by its clock.
        self.both: dict[Key, int] = {}

    def peer_of(self, key: Key) -> str:
        """The other city of a sale."""
        deal = self.ins[key].deal if key in self.ins else None
        return key[0] if deal is None else deal.sale.buyer_city

    # The seller's side

    def offer(self, sale: Sale) -> str | None:
        """Ask the buyer's city to hold the money; the reason why not."""
        known = self.ins.get(sale.key)
        if known is not None:
            return f"already_{known.state}" if known.state in ENDED else None
        fault = self._fault_of_sale(sale)
        if fault is None and sale.costs[1] > sale.costs[0]:
            fault = "bad_breakdown"
        if fault is None:
            self._keep_in(sale.key, In("requested", Deal(sale, self.currency, self.backing, self.newest.rate)))
        return fault

    def ask(self, key: Key, what: str) -> None:
        """The transaction has come to `post`, `void` or `freeze`. A dispute is not taken back."""
        known = self.ins.get(key)
        if known is None or known.state in ENDED:
            return
        # It has promised nothing yet, and will not any more.
        state = "refused" if known.state == "requested" and what == "void" else known.state
        asked = replace(known, state=state, ask="freeze" if known.ask == "freeze" else what)
        if asked != known:
            self._keep_in(key, replace(asked, reason="cancelled" if what == "void" else known.reason))

    def prepare(self, key: Key, promise: Promise) -> None:
        """The money is held there: take it in, or refuse it."""
        known = self._in(key)
        if known.state != "requested" or known.deal is None:
            return
        sale = known.deal.sale
        fault = self._fault_of_promise(sale, promise)
        if fault is not None:
            self._keep_in(key, replace(known, state="refused", reason=fault))
            return
        funds = (self.community, f"node:transport@{self.node}", self.residual())
        payees = dict(zip(CROSSING, (sale.seller, *funds), strict=True))
        self._come_in(sale.buyer_city, promise.received)
        payees_of_lines = tuple(payees[line] for line, _, _ in promise.lines)
        self._keep_in(key, replace(known, state="prepared", promise=promise, payees=payees_of_lines))

    def decided(self, key: Key, decision: str, reason: str | None) -> None:
        """Do as the buyer's city has decided."""
        state = _STATES[decision]
        known = self.ins.get(key)
        if known is None:
            # What was never asked for is void anyway.
            if decision == "post":
                raise Refused("unknown_settlement")
            return
        if known.state in ENDED:
            if known.state != state:
                raise Refused("other_decision")
            return
        if decision == "post" and known.state != "prepared":
            raise Refused("not_prepared")
        self._end_in(key, known, state, reason)

    def not_heard(self, key: Key, reason: str) -> None:
        """The buyer's city does not even listen: where nothing is promised, the sale is off."""
        known = self.ins[key]
        if known.state in ("requested", "refused"):
            self._end_in(key, known, "voided", reason)

    def _fault_of_sale(self, sale: Sale) -> str | None:
        if sale.buyer_city not in self.rules.limits:
            return "no_credit"
        if self.newest.rate == 0:
            return "no_rate"
        return self._fault_of_holder(sale.seller)

    def _fault_of_holder(self, account: str) -> str | None:
        if account in self.coins:
            return None
        return "reserved_account" if self.is_open(account) else "unknown_account"

    def _fault_of_promise(self, sale: Sale, promise: Promise) -> str | None:
        # Its clock may be a little ahead, but not by days.
        if any(day > self.today + 1 for day, _ in promise.days):
            return "bad_issue_days"
        fault = self._fault_of_sale(sale)
        if fault is not None:
            return fault
        peer, amount = sale.buyer_city, promise.received
        if self.coming[peer] - self.owed[peer] + amount > self.rules.limits.get(peer, 0):
            return "over_credit"
        try:
            self.check_cap(amount)
            self.check_cover(supply=amount, claims=amount)
        except Refused as refused:
            return refused.reason
        return None

    def _end_in(self, key: Key, known: In, state: str, reason: str | None) -> None:
        sale = None if known.deal is None else known.deal.sale
        if known.promise is not None and sale is not None:
            self._come_in(sale.buyer_city, -known.promise.received)
            if state == "posted":
                self._owe(sale.buyer_city, -known.promise.received)
                self._receive(known)
        if state == "posted":
            self.journal.put(self.both, key, self.wall_ms)
        ended = replace(known, state=state, reason=reason or known.reason)
        self._keep_in(key, ended)
        if sale is not None:
            told = "settled" if state == "posted" else ended.reason or "voided"
            self.journal.put(self.told, sale.transaction, told)

    def _receive(self, known: In) -> None:
        if known.promise is None:
            raise ValueError("nothing was promised")
        for payee, (line, paid, received) in zip(known.payees, known.promise.lines, strict=True):
            if line != "seller_receives":
                self.give(payee, self.today, received)
                continue
            # Each day its share, and all of them together exactly the amount.
            seen = given = 0
            for day, part in known.promise.days:
                seen += part
                share = seen * received // paid - given
                given += share
                if share:
                    self.give(payee, day, share)

    # The buyer's side

    def request(self, key: Key, deal: Deal) -> None:
        """Hold the money, if the city has bid for it; else the sale is void."""
        if key in self.outs:
            return
        bid = self.bids.get(deal.sale.subject)
        fault = self._fault_of_bid(deal, bid) or self._fault_of_money(deal)
        if fault is not None or bid is None:
            self._keep_out(key, Out("voided", self.wall_ms, deal, reason=fault))
            return
        sale = deal.sale
        lines: list[tuple[str, int, int]] = []
        days: tuple[tuple[int, int], ...] = ()
        for line in CROSSING:
            if sale.lines[line]:
                paid = self._debit(deal, line)
                lines.append((line, paid, sale.lines[line]))
                held = self.hold(f"{key}/{line}", sale.buyer, f"node:clearing.{key[0]}@{self.node}", paid, None)
                if line == "seller_receives":
                    days = tuple(sorted(held.parts.items()))
        if sale.lines["buyer_community_fund"]:
            imported = self._debit(deal, "buyer_community_fund")
            self.hold(f"{key}/import", sale.buyer, self.community, imported, None)
        promise = Promise(self.currency, self.newest.rate, tuple(lines), days)
        self._keep_out(key, Out("held", self.wall_ms, deal, promise, bid.id))

    def inquire(self, key: Key, asks: str | None, reason: str | None) -> None:
        """What was never heard of is void from now on; else it goes as the seller's city asks, if nothing forbids."""
        known = self.outs.get(key)
        if known is None:
            self._keep_out(key, Out("voided", self.wall_ms, reason="unknown"))
        elif known.state in ENDED or asks is None:
            return
        elif asks == "freeze":
            self._keep_out(key, replace(known, frozen=True, reason=reason or known.reason))
        elif asks == "void" and not known.frozen:
            self._decide(key, known, "voided", reason)
        elif asks == "post" and known.state == "held":
            self._keep_out(key, replace(known, wanted=True))
        elif asks == "post" and not known.frozen:
            self._decide(key, known, "posted", None)

    def answer(self, key: Key, answer: str, reason: str | None) -> None:
        """The seller's city has reserved, or will not."""
        known = self._out(key)
        if answer == "refused":
            if known.state in ("prepared", "posted"):
                raise Refused("already_prepared")
            if known.state == "held":
                self._decide(key, known, "voided", reason)
        elif known.state == "held":
            prepared = replace(known, state="prepared")
            if known.wanted and not known.frozen:
                self._decide(key, prepared, "posted", None)
            else:
                self._keep_out(key, prepared)

    def acknowledge(self, key: Key, decision: str) -> None:
        """The seller's city has done as it was told."""
        known = self._out(key)
        if known.state == "held" and decision == "void":
            # There the sale is off, and nothing was promised here.
            self._decide(key, known, "voided", None)
            return
        if known.state not in ENDED:
            raise Refused("not_decided")
        if known.state != _STATES[decision]:
            raise Refused("other_decision")
        if known.state == "posted" and not known.acknowledged:
            self.journal.put(self.both, key, self.wall_ms)
        self._keep_out(key, replace(known, acknowledged=True))

    def settle_dispute(self, peer: str, key: Key, state: str) -> None:
        """The office of the buyer's city ends a dispute."""
        known = self.outs.get(key)
        if known is None:
            raise Refused("payer_decides" if key in self.ins else "unknown_settlement")
        if peer != key[0]:
            raise Refused("unknown_settlement")
        if known.state == state:
            return
        if known.state in ENDED:
            raise Refused(f"already_{known.state}")
        if not known.frozen:
            raise Refused("not_frozen")
        if state == "posted" and known.state != "prepared":
            raise Refused("not_prepared")
        self._decide(key, known, state, "resolved")

    def remember(self, key: Key) -> None:
        """Nobody has answered for a while: after a day the money goes back."""
        known = self.outs.get(key)
        if known is None or known.state != "held" or known.frozen:
            return
        if self.wall_ms - known.opened_ms >= DAY_MS:
            self._decide(key, known, "voided", "timed_out")

    def _fault_of_bid(self, deal: Deal, bid: Bid | None) -> str | None:
        if bid is None:
            return "no_bid"
        for key, out in self.outs.items():
            if key[0] == deal.sale.seller_city and out.bid == bid.id and out.state != "voided":
                return "bid_settled"
        total, own = sum(deal.sale.costs), deal.sale.lines["buyer_community_fund"]
        return "above_bid" if total > bid.most or total - own > bid.most - bid.own else None

    def _fault_of_money(self, deal: Deal) -> str | None:
        sale = deal.sale
        if sale.seller_city not in self.rules.limits:
            return "no_credit"
        if deal.backing != self.backing or 0 in (deal.rate, self.newest.rate):
            return "no_rate"
        fault = self._fault_of_holder(sale.buyer)
        if fault is not None:
            return fault
        total = sum(self._debit(deal, line) for line in sale.lines)
        return "insufficient_funds" if self.free(sale.buyer) < total else None

    def _debit(self, deal: Deal, line: str) -> int:
        """A line in the buyer's currency: no hundredth less than it is worth."""
        return -(-deal.sale.lines[line] * self.newest.rate // deal.rate)

    def _decide(self, key: Key, known: Out, state: str, reason: str | None) -> None:
        lines = known.promise.lines if known.promise is not None else ()
        for line, paid, _ in lines:
            if state == "posted":
                self.take_held(f"{key}/{line}")
                self._owe(key[0], paid)
            else:
                self.end(f"{key}/{line}", "voided")
        if f"{key}/import" in self.holds:
            self.end(f"{key}/import", state)
        why = (reason if state == "voided" else None) or known.reason
        self._keep_out(key, replace(known, state=state, frozen=False, reason=why))

    # Both

    def hear(self, mail: Mail) -> None:
        """What another city says of a sale. Refused `not_settling` for one that this city has no account for."""
        if mail.sender not in self.owed:
            raise Refused("not_settling")
        if mail.key is None:
            raise ValueError(f"{mail} is of no sale")
        key, word, reason, content = mail.key, mail.word or "", mail.reason, mail.content
        handlers: dict[str, Callable[[], None]] = {
            "SettlementRequest": lambda: self.request(key, content),
            "SettlementPrepare": lambda: self.prepare(key, content),
            "SettlementAnswer": lambda: self.answer(key, word, reason),
            "SettlementDecision": lambda: self.decided(key, word, reason),
            "SettlementAcknowledgement": lambda: self.acknowledge(key, word),
            "SettlementInquiry": lambda: self.inquire(key, mail.word, reason),
        }
        handlers[mail.type]()

    def _in(self, key: Key) -> In:
        if key not in self.ins:
            raise Refused("unknown_settlement")
        return self.ins[key]

    def _out(self, key: Key) -> Out:
        if key not in self.outs:
            raise Refused("unknown_settlement")
        return self.outs[key]

    def _keep_in(self, key: Key, known: In) -> None:
        self.journal.put(self.ins, key, known)

    def _keep_out(self, key: Key, known: Out) -> None:
        self.journal.put(self.outs, key, known)

    def _owe(self, peer: str, amount: int) -> None:
        self.journal.put(self.owed, peer, self.owed[peer] + amount)

    def _come_in(self, peer: str, amount: int) -> None:
        self.moved = True
        self.journal.put(self.coming, peer, self.coming[peer] + amount)
