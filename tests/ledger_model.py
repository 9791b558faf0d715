"""A second ledger, written from the rules of the currency alone, to hold the first one against.

It shares no code with `loopd.ledger`. It is eager where the ledger is lazy: with every step of time it walks from
midnight to midnight and charges every coin at once. Amounts are whole hundredths.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

_DAY_MS = 86_400_000
_FIRST = date(1970, 1, 1)


class Refused(Exception):
    """What the ledger must refuse too, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class ModelTerms:
    """The currency. Rates as exact fractions."""

    months: int
    decay: Fraction
    forfeit: bool
    bonus: Fraction
    rate: Fraction
    cap: int | None
    ratio: Fraction


@dataclass
class ModelHold:
    """Funds that wait."""

    payer: str
    payee: str
    amount: int
    parts: dict[int, int]
    at_ms: int
    until_ms: int | None


@dataclass
class ModelSettlement:
    """A transaction's payment."""

    payer: str
    total: int
    state: str
    holds: list[str]


@dataclass
class Model:
    """One city's money."""

    now_ms: int
    terms: list[tuple[int, ModelTerms]]
    coins: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    funds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    fund_held: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    holds: dict[str, ModelHold] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    settlements: dict[str, ModelSettlement] = field(default_factory=dict)
    issued: int = 0
    redeemed: int = 0
    reserve: int = 0

    # Time

    def advance(self, to_ms: int) -> None:
        """Let time pass, and charge what it costs. Midnight comes before an end at midnight."""
        while self.now_ms < to_ms:
            midnight = (self.now_ms // _DAY_MS + 1) * _DAY_MS
            ends = [hold.until_ms for hold in self.holds.values() if hold.until_ms is not None]
            self.now_ms = min([midnight, to_ms, *ends])
            if self.now_ms == midnight:
                self._charge_coins(midnight)
            for name, hold in list(self.holds.items()):
                if hold.until_ms == self.now_ms:
                    self._give_back(name, "expired")

    def _charge_coins(self, midnight: int) -> None:
        for account in list(self.coins):
            for day, amount in list(self.coins[account].items()):
                if self._ages_at(day, midnight):
                    kept = self._kept(amount, midnight)
                    self._set(account, day, kept)
                    self.funds["community-fund"] += amount - kept

    def _terms_at(self, moment_ms: int) -> ModelTerms:
        return [terms for from_ms, terms in self.terms if from_ms <= moment_ms or from_ms == self.terms[0][0]][-1]

    def _ages_at(self, issue_day: int, midnight: int) -> bool:
        terms = self._terms_at(midnight)
        issued, today = _FIRST + timedelta(days=issue_day), datetime.fromtimestamp(midnight / 1000, UTC).date()
        months = (today.year - issued.year) * 12 + today.month - issued.month
        is_last_day = (today + timedelta(days=1)).day == 1
        same_day = today.day == issued.day or (is_last_day and issued.day > today.day)
        return same_day and months >= terms.months + (0 if terms.forfeit else 1)

    def _kept(self, amount: int, midnight: int) -> int:
        terms = self._terms_at(midnight)
        return 0 if terms.forfeit else int((1 - terms.decay) * amount // 1)

    # Moving

    def pay(self, payer: str, payee: str, amount: int) -> None:
        for day, part in self._take(payer, amount).items():
            self._put(payee, day, part)

    def hold(self, name: str, payer: str, payee: str, amount: int, until_ms: int | None) -> None:
        parts = self._take(payer, amount)
        if payer not in self.coins:
            self.fund_held[payer] += amount
            self.funds[payer] += amount
        self.holds[name] = ModelHold(payer, payee, amount, parts, self.now_ms, until_ms)

    def end(self, name: str, state: str) -> None:
        if name in self.ended:
            if self.ended[name] != state:
                raise Refused(f"already_{self.ended[name]}")
            return
        if state == "voided":
            self._give_back(name, "voided")
            return
        hold = self.holds.pop(name)
        self.ended[name] = "posted"
        if hold.payer not in self.coins:
            self.fund_held[hold.payer] -= hold.amount
            self.funds[hold.payer] -= hold.amount
            self._put(hold.payee, self.now_ms // _DAY_MS, hold.amount)
            return
        for day, part in hold.parts.items():
            self._put(hold.payee, day, part)

    def issue(self, payee: str, amount: int, backing: int) -> None:
        terms = self.terms[-1][1]
        if terms.rate == 0:
            raise Refused("no_rate")
        supply = self.issued - self.redeemed + amount
        if terms.cap is not None and supply > terms.cap:
            raise Refused("over_cap")
        if (self.reserve + backing) * terms.rate < terms.ratio * supply:
            raise Refused("under_reserve")
        self.issued += amount
        self.reserve += backing
        self._put(payee, self.now_ms // _DAY_MS, amount)

    def redeem(self, payer: str, amount: int) -> None:
        terms = self.terms[-1][1]
        if terms.rate == 0:
            raise Refused("no_rate")
        backing = int(amount / terms.rate // 1)
        if sum(self.free(payer).values()) < amount:
            raise Refused("insufficient_funds")
        if backing > self.reserve:
            raise Refused("insufficient_reserve")
        self._take(payer, amount)
        self.redeemed += amount
        self.reserve -= backing

    def move_reserve(self, amount: int) -> None:
        terms, supply = self.terms[-1][1], self.issued - self.redeemed
        if amount < 0 and -amount > self.reserve:
            raise Refused("insufficient_reserve")
        if amount < 0 and (self.reserve + amount) * terms.rate < terms.ratio * supply:
            raise Refused("under_reserve")
        self.reserve += amount

    # Transactions

    def settle_hold(self, name: str, payer: str, seller: str, costs: tuple[int, int, int, int]) -> None:
        known = self.settlements.get(name)
        if known is not None:
            if known.state in ("posted", "voided"):
                raise Refused(f"already_{known.state}")
            return
        if payer == seller:
            raise Refused("same_account")
        base, export, imported, distance = costs
        lines = [
            (seller, base - export),
            ("community-fund", export),
            ("community-fund", imported),
            ("transport", distance),
            ("clearing-residual", export),
        ]
        total = base + export + imported + distance
        if sum(self.free(payer).values()) < total:
            raise Refused("insufficient_funds")
        holds = []
        for index, (payee, amount) in enumerate(lines):
            if amount:
                holds.append(f"{name}/{index}")
                self.hold(holds[-1], payer, payee, amount, None)
        self.settlements[name] = ModelSettlement(payer, total, "held", holds)

    def settle_end(self, name: str, state: str, of: str) -> None:
        """End a settlement that stands as `of`; in another state nothing changes."""
        settlement = self.settlements.get(name)
        if settlement is None or settlement.state != of:
            return
        for hold in settlement.holds:
            self.end(hold, state)
        settlement.state = state
        if state == "posted" and of == "held":
            bonus = int(settlement.total * self.terms[-1][1].bonus // 1)
            paid = min(bonus, self.funds["bonus"] - self.fund_held["bonus"])
            self.funds["bonus"] -= paid
            if paid:
                self._put(settlement.payer, self.now_ms // _DAY_MS, paid)

    def freeze(self, name: str) -> None:
        settlement = self.settlements.get(name)
        if settlement is not None and settlement.state == "held":
            settlement.state = "frozen"

    # What is there

    def free(self, account: str) -> dict[int, int]:
        """What may be spent, by issue day; a fund's money has the day of its spending."""
        if account in self.coins:
            return self.coins[account]
        return {self.now_ms // _DAY_MS: self.funds[account] - self.fund_held[account]}

    def lots(self, account: str) -> list[tuple[int, int, int]]:
        """Issue day, amount, and what of it is held."""
        held: dict[int, int] = defaultdict(int)
        for hold in self.holds.values():
            if hold.payer == account:
                for day, part in hold.parts.items():
                    held[day] += part
        days = sorted({*self.coins[account], *held})
        return [(day, self.coins[account].get(day, 0) + held[day], held[day]) for day in days]

    def _take(self, payer: str, amount: int) -> dict[int, int]:
        if sum(self.free(payer).values()) < amount:
            raise Refused("insufficient_funds")
        if payer not in self.coins:
            self.funds[payer] -= amount
            return {self.now_ms // _DAY_MS: amount}
        parts = {}
        for day in sorted(self.coins[payer]):
            part = min(self.coins[payer][day], amount)
            if part:
                parts[day] = part
                self._set(payer, day, self.coins[payer][day] - part)
                amount -= part
        return parts

    def _put(self, payee: str, day: int, amount: int) -> None:
        if payee in self.coins:
            self._set(payee, day, self.coins[payee].get(day, 0) + amount)
        else:
            self.funds[payee] += amount

    def _set(self, account: str, day: int, amount: int) -> None:
        if amount:
            self.coins[account][day] = amount
        else:
            self.coins[account].pop(day, None)

    def _give_back(self, name: str, state: str) -> None:
        hold = self.holds.pop(name)
        self.ended[name] = state
        if hold.payer not in self.coins:
            self.fund_held[hold.payer] -= hold.amount
            return
        for day, part in hold.parts.items():
            left = part
            midnight = (hold.at_ms // _DAY_MS + 1) * _DAY_MS
            while midnight <= self.now_ms:
                if self._ages_at(day, midnight):
                    left = self._kept(left, midnight)
                midnight += _DAY_MS
            self.funds["community-fund"] += part - left
            self._put(hold.payer, day, left)
