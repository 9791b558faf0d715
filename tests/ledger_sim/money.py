"""One city's money a second time, written from the rules of the currency alone: coins by age, funds, and what is held.

It shares no code with `loopd.ledger`. It is eager where the ledger is lazy: as time passes it walks from midnight to
midnight and charges every coin at once. Amounts are whole hundredths.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache

from tests.ledger_sim.journal import Journal

DAY_MS = 86_400_000
_FIRST = date(1970, 1, 1)


class Refused(Exception):
    """What the ledger must refuse too, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Terms:
    """The currency. Rates as exact fractions; `months` of full value; `cap` None means without."""

    months: int
    decay: Fraction
    forfeit: bool
    bonus: Fraction
    rate: Fraction
    cap: int | None
    ratio: Fraction


@dataclass(frozen=True)
class Hold:
    """Funds that wait. `parts` are the coins by issue day, empty where a fund pays."""

    payer: str
    payee: str
    amount: int
    parts: Mapping[int, int]
    at_ms: int
    until_ms: int | None


class Money:
    """Coins on holders' accounts, money in the city's funds; `moved` tells whether any of it moved by an order."""

    def __init__(self, node: str, holders: Iterable[str], now_ms: int, terms: Terms) -> None:
        self.node = node
        self.journal = Journal()
        self.terms = [(now_ms, terms)]
        self.figures = {"now": now_ms, "issued": 0, "redeemed": 0, "reserve": 0, "reserve held": 0}
        # What is free: held coins are in their hold.
        self.coins: dict[str, dict[int, int]] = {holder: {} for holder in holders}
        names = ("community-fund", "transport", "bonus", "clearing-residual")
        self.funds = {f"node:{name}@{node}": 0 for name in names}
        self.holds: dict[str, Hold] = {}
        self.ended: dict[str, str] = {}
        # What the node's clock shows, which may be behind what was done already.
        self.wall_ms = now_ms
        self.moved = False

    @property
    def now_ms(self) -> int:
        """The moment up to which everything is charged."""
        return self.figures["now"]

    @property
    def today(self) -> int:
        """The UTC day, since 1970."""
        return self.now_ms // DAY_MS

    @property
    def community(self) -> str:
        """The fund that decay goes to."""
        return f"node:community-fund@{self.node}"

    @property
    def newest(self) -> Terms:
        """The terms that orders follow."""
        return self.terms[-1][1]

    # One order

    def unit(self, predict: Callable[[], str | None], wall_ms: int, dated_ms: int | None) -> str | None:
        """What must come of an order at a clock's moment: the reason why not, or None. Refused, it leaves no trace.

        `dated_ms` is the moment up to which the books had come then, None where they refused it: either they went on to
        the clock's moment, or nothing moved. AssertionError otherwise.
        """
        latest_ms = max(self.now_ms, wall_ms)
        if dated_ms not in (None, latest_ms):
            assert dated_ms == self.now_ms, f"dated {dated_ms}, not {latest_ms}"
            latest_ms = self.now_ms
        late = dated_ms == latest_ms < wall_ms
        self.wall_ms, self.moved = wall_ms, False
        self.advance(latest_ms)
        self.moved = False
        try:
            reason = predict()
        except Refused as refused:
            self.journal.undo()
            return refused.reason
        assert not (self.moved and late), "money moved without a date"
        self.journal.forget()
        return reason

    # Time

    def advance(self, to_ms: int) -> None:
        """Let time pass, and charge what it costs. Midnight comes before an end at midnight."""
        if to_ms <= self.now_ms:
            return
        ends = [
            (hold.until_ms, name)
            for name, hold in self.holds.items()
            if hold.until_ms is not None and hold.until_ms <= to_ms
        ]
        ends.sort()
        for midnight in range((self.today + 1) * DAY_MS, to_ms + 1, DAY_MS):
            while ends and ends[0][0] < midnight:
                self._expire(*ends.pop(0))
            self.journal.put(self.figures, "now", midnight)
            self._charge_coins(midnight)
        for end_ms, name in ends:
            self._expire(end_ms, name)
        self.journal.put(self.figures, "now", to_ms)

    def _expire(self, end_ms: int, name: str) -> None:
        self.journal.put(self.figures, "now", end_ms)
        self._give_back(name, "expired")

    def _charge_coins(self, midnight: int) -> None:
        today, first = midnight // DAY_MS, _first_loss(self._terms_at(midnight))
        for account, lots in self.coins.items():
            aging = [day for day in lots if _months_turned(day, today) >= first]
            for day in aging:
                kept = self._kept(lots[day], midnight)
                self._add(self.community, 0, lots[day] - kept)
                self._add(account, day, kept - lots[day])

    def _terms_at(self, moment_ms: int) -> Terms:
        return [terms for from_ms, terms in self.terms if from_ms <= moment_ms or from_ms == self.terms[0][0]][-1]

    def _kept(self, amount: int, midnight: int) -> int:
        terms = self._terms_at(midnight)
        return 0 if terms.forfeit else amount * (1 - terms.decay) // 1

    # Moving

    def pay(self, payer: str, payee: str, amount: int) -> None:
        """The oldest coins go over with their days; what a fund pays is of today."""
        for day, part in self.take(payer, amount).items():
            self.give(payee, day, part)

    def take(self, payer: str, amount: int) -> dict[int, int]:
        """Take the oldest coins, by their days. Refused `insufficient_funds`."""
        if self.free(payer) < amount:
            raise Refused("insufficient_funds")
        self.moved = True
        if payer in self.funds:
            self._add(payer, 0, -amount)
            return {self.today: amount}
        parts = {}
        for day in sorted(self.coins[payer]):
            part = min(self.coins[payer][day], amount)
            if part == 0:
                break
            parts[day] = part
            amount -= part
        for day, part in parts.items():
            self._add(payer, day, -part)
        return parts

    def give(self, payee: str, day: int, amount: int) -> None:
        """Give coins of a day; in a fund they have none."""
        self.moved = True
        self._add(payee, day, amount)

    def hold(self, name: str, payer: str, payee: str, amount: int, until_ms: int | None) -> Hold:
        """Set aside what `payer` may not spend until this is ended. Refused `insufficient_funds`."""
        parts = self.take(payer, amount)
        held = Hold(payer, payee, amount, {} if payer in self.funds else parts, self.now_ms, until_ms)
        self.journal.put(self.holds, name, held)
        return held

    def end(self, name: str, state: str) -> None:
        """`posted` or `voided`; the same again changes nothing. Refused `already_posted` and its like."""
        if name in self.ended:
            if self.ended[name] != state:
                raise Refused(f"already_{self.ended[name]}")
            return
        self.moved = True
        if state == "voided":
            self._give_back(name, "voided")
            return
        hold = self.take_held(name)
        for day, part in (hold.parts or {self.today: hold.amount}).items():
            self.give(hold.payee, day, part)

    def take_held(self, name: str) -> Hold:
        """What was held is posted, and goes where the caller brings it."""
        hold = self.holds[name]
        self.moved = True
        self.journal.drop(self.holds, name)
        self.journal.put(self.ended, name, "posted")
        return hold

    def _give_back(self, name: str, state: str) -> None:
        """Coins that come back lose what they missed."""
        hold = self.holds[name]
        self.journal.drop(self.holds, name)
        self.journal.put(self.ended, name, state)
        if hold.payer in self.funds:
            self._add(hold.payer, 0, hold.amount)
            return
        for day, part in hold.parts.items():
            left = part
            for midnight in range((hold.at_ms // DAY_MS + 1) * DAY_MS, self.now_ms + 1, DAY_MS):
                if _months_turned(day, midnight // DAY_MS) >= _first_loss(self._terms_at(midnight)):
                    left = self._kept(left, midnight)
            self._add(self.community, 0, part - left)
            self._add(hold.payer, day, left)

    def _add(self, account: str, day: int, amount: int) -> None:
        if account in self.funds:
            self.journal.put(self.funds, account, self.funds[account] + amount)
            return
        lots = self.coins[account]
        left = lots.get(day, 0) + amount
        if left:
            self.journal.put(lots, day, left)
        elif day in lots:
            self.journal.drop(lots, day)

    # What is there

    def free(self, account: str) -> int:
        """What may be spent."""
        return self.funds[account] if account in self.funds else sum(self.coins[account].values())

    def held(self, account: str) -> int:
        """What is set aside."""
        return sum(hold.amount for hold in self.holds.values() if hold.payer == account)

    def lots(self, account: str) -> list[tuple[int, int, int]]:
        """Issue day, amount, and what of it is held."""
        amounts, held = dict(self.coins[account]), dict.fromkeys(self.coins[account], 0)
        for hold in self.holds.values():
            if hold.payer == account:
                for day, part in hold.parts.items():
                    amounts[day] = amounts.get(day, 0) + part
                    held[day] = held.get(day, 0) + part
        return [(day, amounts[day], held[day]) for day in sorted(amounts)]

    def holdings(self) -> int:
        """All that lies in the city, held or not."""
        free = sum(map(self.free, self.coins)) + sum(self.funds.values())
        return free + sum(hold.amount for hold in self.holds.values())


def _first_loss(terms: Terms) -> int:
    """After how many months coins lose for the first time."""
    return terms.months if terms.forfeit else terms.months + 1


@lru_cache(maxsize=1 << 20)
def _months_turned(issue_day: int, day: int) -> int:
    """How many months coins turn old on a day; 0 where it is not their day of the month, as far as that has it."""
    issued, today = _FIRST + timedelta(days=issue_day), _FIRST + timedelta(days=day)
    is_last_day = (today + timedelta(days=1)).day == 1
    if today.day != issued.day and not (is_last_day and issued.day > today.day):
        return 0
    return (today.year - issued.year) * 12 + today.month - issued.month
