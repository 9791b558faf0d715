"""The books read anew from their raw rows, transfer by transfer; nothing of the ledger's own sums is believed.

AssertionError names the first place that is wrong.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any, Final

from loopd.database.rows import RowSource
from loopd.ledger.settings import LedgerSettings
from tests.ledger_sim.netting import Model

_DAY_MS: Final = 86_400_000
_MOVES: Final = ("posted", "post")


@dataclass(frozen=True)
class _Line:
    """A transfer as it was written down."""

    number: int
    id: str
    kind: str
    phase: str
    pending: int | None
    payer: int
    payee: int
    amount: int
    at_ms: int
    link: str | None


class _Reading:
    """What comes of the rows when they are read in the order in which they were written."""

    def __init__(self, source: RowSource, settings: Sequence[tuple[int, LedgerSettings]]) -> None:
        self._settings = settings
        rows = source.all("SELECT number, id, currency, role, balance_minor, held_minor FROM ledger_account")
        self.accounts = {row["number"]: row for row in rows}
        self._entries: dict[int, list[Any]] = defaultdict(list)
        for row in source.all("SELECT transfer, account, issue_day, amount_minor, at_ms FROM ledger_entry"):
            self._entries[row["transfer"]].append(row)
        self.balances: Counter[int] = Counter()
        self.held: Counter[int] = Counter()
        self.lots: Counter[tuple[int, int]] = Counter()
        self.days: Counter[tuple[int, int]] = Counter()
        self.pending: dict[int, _Line] = {}
        # In the city's own currency, by what the transfers were for.
        self.figures: Counter[str] = Counter()
        self.coming: Counter[int] = Counter()
        self._redeemed = {
            row["link"] for row in source.all("SELECT link FROM ledger_transfer WHERE kind = 'redemption'")
        }

    def read(self, line: _Line, is_last_of_link: bool) -> None:
        """One transfer: what it moved, and whether that was allowed."""
        entries = self._entries.pop(line.number, [])
        if line.phase == "pending":
            self.pending[line.number] = line
            self.held[line.payer] += line.amount
            if self._role(line.payer) == "clearing":
                self.coming[line.payer] += line.amount
        elif line.pending is not None:
            begun = self.pending.pop(line.pending)
            assert (begun.payer, begun.payee, begun.amount) == (line.payer, line.payee, line.amount), line
            self.held[line.payer] -= line.amount
            if self._role(line.payer) == "clearing":
                self.coming[line.payer] -= line.amount
        if line.phase in _MOVES:
            self._move(line, entries)
        else:
            assert not entries, f"{line} moved something"
        for account in (line.payer, line.payee):
            if self._role(account) not in ("issuance", "clearing"):
                assert 0 <= self.held[account] <= self.balances[account], f"{line}: {self.accounts[account]['id']}"
        self._check_allowed(line, is_last_of_link)

    def _role(self, account: int) -> str:
        return str(self.accounts[account]["role"])

    def _move(self, line: _Line, entries: Sequence[Any]) -> None:
        moved: Counter[int] = Counter()
        for _, account, day, amount, at_ms in entries:
            assert at_ms == line.at_ms, f"{line} is dated otherwise"
            assert (day >= 0) == (self._role(account) == "holder"), f"{line}: day {day}"
            moved[account] += amount
            self.balances[account] += amount
            self.days[account, at_ms // _DAY_MS] += amount
            if day >= 0:
                self.lots[account, day] += amount
                assert self.lots[account, day] >= 0, f"{line}: lot {day}"
        assert moved == {line.payer: -line.amount, line.payee: line.amount}, f"{line} moved {moved}"
        currencies = {self.accounts[account]["currency"] for account in moved}
        assert len(currencies) == 1, f"{line} in {currencies}"
        roles = self._role(line.payer), self._role(line.payee)
        if "reserve" in roles:
            return
        came = {"issuance": "issued", "clearing": "received"}.get(roles[0])
        went = {"issuance": "redeemed", "clearing": "sent"}.get(roles[1])
        self.figures[came or "moved"] += line.amount
        self.figures[went or "moved"] += line.amount
        if came is None:
            self.figures["holdings"] -= line.amount
        if went is None:
            self.figures["holdings"] += line.amount

    def _check_allowed(self, line: _Line, is_last_of_link: bool) -> None:
        """What brings more into circulation, or cover out, keeps to the cap, the cover and the credit of the peer."""
        comes_in = line.phase == "pending" and self._role(line.payer) == "clearing" and is_last_of_link
        issues = line.kind == "issuance"
        gives_away = line.kind == "backing" and self._role(line.payer) == "reserve" and line.link not in self._redeemed
        if not (comes_in or issues or gives_away):
            return
        settings = self._settings[bisect_left(self._settings, line.number, key=lambda each: each[0]) - 1][1]
        figures = self.figures
        supply = figures["issued"] + figures["received"] + self.coming.total() - figures["redeemed"] - figures["sent"]
        claims = reserve = 0
        for number, account in self.accounts.items():
            if account["role"] == "clearing":
                peer = account["id"].removeprefix("node:clearing.").partition("@")[0]
                limit = int(settings.credit_limits.get(peer, 0) * 100)
                owes = self.coming[number] - self.balances[number]
                claims += min(owes, limit)
                assert not (comes_in and number == line.payer) or owes <= limit, f"{line}: over credit"
            elif account["role"] == "reserve":
                reserve = self.balances[number]
        if not gives_away:
            cap = settings.max_issuance
            assert cap is None or supply <= cap * 100, f"{line}: over the cap"
        cover = reserve * Fraction(settings.exchange_rate) + claims
        assert cover >= Fraction(settings.reserve_ratio) * supply, f"{line}: under the reserve"


def check(source: RowSource, settings: Sequence[tuple[int, LedgerSettings]], model: Model) -> None:
    """Debits and credits, lots, what is held, closings, the invariant of money, cap and cover; and the model's sums.

    `settings` are those that held after so many transfers.
    """
    reading = _Reading(source, settings)
    rows = source.all(
        "SELECT number, id, kind, phase, pending, payer, payee, amount_minor, at_ms, link FROM ledger_transfer "
        "ORDER BY number"
    )
    lines = [_Line(*row) for row in rows]
    last_of_link = {line.link: line.number for line in lines if line.phase == "pending"}
    for line in lines:
        reading.read(line, last_of_link.get(line.link) == line.number)
    by_currency: Counter[str] = Counter()
    for number, account in reading.accounts.items():
        by_currency[account["currency"]] += reading.balances[number]
        found = account["balance_minor"], account["held_minor"]
        assert found == (reading.balances[number], reading.held[number]), f"{account['id']}: {found}"
    assert not any(by_currency.values()), f"debits and credits differ: {by_currency}"
    _check_lots(source, reading)
    _check_closings(source, reading)
    figures = reading.figures
    assert figures["issued"] + figures["received"] == figures["holdings"] + figures["redeemed"] + figures["sent"]
    lots = sum(reading.lots.values())
    funds = sum(reading.balances[number] for number, row in reading.accounts.items() if row["role"] == "fund")
    assert lots + funds == figures["holdings"] == model.holdings(), (lots, funds, figures, model.holdings())
    assert figures["issued"] == model.figures["issued"], (figures, model.figures)
    assert figures["redeemed"] == model.figures["redeemed"], (figures, model.figures)
    assert figures["sent"] - figures["received"] == sum(model.owed.values()), (figures, model.owed)


def _check_lots(source: RowSource, reading: _Reading) -> None:
    kept, held = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for account, day, amount, amount_held in source.all(
        "SELECT account, issue_day, amount_minor, held_minor FROM ledger_lot"
    ):
        kept[account, day] += amount
        held[account, day] += amount_held
    assert kept == Counter({lot: amount for lot, amount in reading.lots.items() if amount})
    for hold, day, amount in source.all("SELECT hold, issue_day, amount_minor FROM ledger_hold_lot"):
        if hold in reading.pending and day >= 0:
            held[reading.pending[hold].payer, day] -= amount
    assert not any(held.values()), f"held of lots: {held}"
    states = {row["transfer"]: row["state"] for row in source.all("SELECT transfer, state FROM ledger_hold")}
    assert {number for number, state in states.items() if state == "pending"} == reading.pending.keys()


def _check_closings(source: RowSource, reading: _Reading) -> None:
    running: Counter[int] = Counter()
    expected = {}
    for (account, day), amount in sorted(reading.days.items(), key=lambda item: item[0][1]):
        running[account] += amount
        expected[account, day] = running[account]
    rows = source.all("SELECT account, day, balance_minor FROM ledger_closing")
    assert {(row["account"], row["day"]): row["balance_minor"] for row in rows} == expected


def check_between(sources: Mapping[str, RowSource]) -> None:
    """While nothing is on its way: both cities decided alike on every sale, and their clearing accounts mirror."""
    for pair in combinations(sources, 2):
        for buyer, seller in (pair, pair[::-1]):
            paid = _deals(sources[buyer], buyer, seller)
            received = _deals(sources[seller], buyer, seller)
            assert {name for name in paid if paid[name] == "posted"} == {
                name for name in received if received[name] == "posted"
            }
            for name in paid.keys() & received.keys():
                assert paid[name] == received[name], f"{name}: {paid[name]} and {received[name]}"
            _check_mirror(sources[buyer], sources[seller], buyer, seller)


def _deals(source: RowSource, buyer: str, seller: str) -> dict[str, str]:
    rows = source.all(
        "SELECT id, state FROM clearing_settlement WHERE payer_node = ? AND payee_node = ?", (buyer, seller)
    )
    return {row["id"]: row["state"] for row in rows}


def _check_mirror(at_buyer: RowSource, at_seller: RowSource, buyer: str, seller: str) -> None:
    """Line by line: what left the one city came to the other, for what was agreed, at the frozen rates."""
    left = _crossed(at_buyer, f"node:clearing.{seller}@{buyer}", 1)
    came = _crossed(at_seller, f"node:clearing.{buyer}@{seller}", -1)
    assert left.keys() == came.keys(), f"{buyer} to {seller}: {left.keys() ^ came.keys()}"
    agreed: Counter[tuple[int, int]] = Counter()
    query = (
        "SELECT id, request, prepare FROM clearing_settlement WHERE payer_node = ? AND payee_node = ? "
        "AND state = 'posted' ORDER BY id"
    )
    both = [[tuple(row) for row in source.all(query, (buyer, seller))] for source in (at_buyer, at_seller)]
    assert both[0] == both[1], f"{buyer} to {seller}: documents differ"
    for settlement, request, prepare in both[0]:
        asked, held = (json.loads(document, parse_float=Decimal) for document in (request, prepare))
        rate = Fraction(held["exchange_rate"]) / Fraction(asked["exchange_rate"])
        for line in held["lines"]:
            amounts = int(line["payer_amount"] * 100), int(line["payee_amount"] * 100)
            assert amounts[0] == -(-amounts[1] * rate // 1), f"{settlement}: {line} at {rate}"
            assert amounts[1] == int(asked["lines"][line["line"]] * 100), f"{settlement}: {line}"
            agreed[amounts] += 1
    assert Counter((left[line], came[line]) for line in left) == agreed, f"{buyer} to {seller}: {agreed}"


def _crossed(source: RowSource, account: str, sign: int) -> dict[str, int]:
    """What crossed one way over a clearing account, by the line's id."""
    rows = source.all(
        "SELECT p.id, e.amount_minor FROM ledger_account a JOIN ledger_entry e ON e.account = a.number "
        "JOIN ledger_transfer t ON t.number = e.transfer JOIN ledger_transfer p ON p.number = t.pending "
        "WHERE a.id = ? AND e.amount_minor * ? > 0",
        (account, sign),
    )
    return {row["id"]: abs(row["amount_minor"]) for row in rows}
