"""The ledgers of three cities against their models: runs from seeds, and runs that Hypothesis draws and shortens."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loopd.ledger.clearing import payer, postings
from loopd.ledger.clearing.tables import Clearance
from loopd.ledger.lots import Part
from loopd.ledger.netting import runs, tables
from loopd.ledger.netting.rules import Claim, Method, Payment, claims_of
from loopd.ledger.netting.tables import Run
from loopd.ledger.terms import Terms
from tests.ledger_sim import asks, books, deals, journal, mail, money, netting, town
from tests.ledger_sim.asks import Asked, Sale, Shows
from tests.ledger_sim.money import DAY_MS
from tests.ledger_sim.operations import (
    Deliver,
    End,
    GoOn,
    IssueCoins,
    Look,
    Operation,
    Pay,
    ProposeNow,
    Resolve,
    Sell,
    Submit,
)
from tests.ledger_sim.runs import kept_seeds, play
from tests.ledger_sim.world import CITIES, World

# Twenty thousand operations in all.
SEEDS = range(4)
OPERATIONS = 5_000
_OF_THE_MODEL = (asks, deals, journal, mail, money, netting, town)


@pytest.mark.parametrize("seed", SEEDS)
def test_ledgers_and_models_come_to_the_same(seed: int) -> None:
    tally = play(seed, OPERATIONS)
    assert not tally.failed, tally.failed[0][1]
    assert tally.operations.total() >= OPERATIONS
    assert tally.sales["settled"] > 10
    assert tally.happened["discharges that were confirmed"] > 3


def test_runs_that_failed_once() -> None:
    failed = [told for seed, operations in kept_seeds() for told in play(seed, operations).failed]
    assert not failed, failed[0][1]


def test_a_seed_is_the_same_run_again() -> None:
    traces = []
    for _ in range(2):
        world = World(7)
        world.run(600)
        traces.append((world.trace, world.operations, world.refused, world.sales))
        world.close()
    assert traces[0] == traces[1]


def test_the_model_shares_nothing_with_what_it_is_held_against() -> None:
    for module in _OF_THE_MODEL:
        assert "loopd" not in {name.partition(".")[0] for name in _imported(module)}


def _imported(module: ModuleType) -> set[str]:
    tree = ast.parse(Path(module.__file__ or "").read_text())
    names = {each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    ours = {name for name in names if name.startswith("tests.")}
    assert ours <= {module.__name__ for module in _OF_THE_MODEL}
    return names | {alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names}


def _days_of_today(parts: list[Part], payer_minor: int, payee_minor: int) -> list[Part]:
    return [Part(max(part.issue_day for part in parts), payee_minor)]


def _rounded_up(terms: Terms, amount_minor: int) -> int:
    return amount_minor * 2 // 10


def _forgetting(side: payer.PayerSide, tx: Any, clearance: Clearance) -> None:
    side._telling.say(tx, clearance, None, expects=False)


def _rounded_down(method: Method, nodes: tuple[str, str], payments: Sequence[Payment]) -> list[Claim]:
    return [replace(each, backing_minor=max(each.backing_minor - 1, 0)) for each in claims_of(method, nodes, payments)]


def _silent(side: runs.Runs, tx: Any, run: Run) -> None:
    tables.remind_of_run(tx, run.number, side._clock.now_ms() + DAY_MS // 24, 1)


def _kept(tx: Any, run: int) -> None:
    """The payments of a refused run are not given back."""


@pytest.mark.parametrize(
    ("place", "name", "wrong"),
    [
        (postings, "converted_days", _days_of_today),
        (Terms, "loss_minor", _rounded_up),
        (payer.PayerSide, "remind", _forgetting),
        (runs, "claims_of", _rounded_down),
        (runs.Runs, "remind", _silent),
        (tables, "give_back", _kept),
    ],
)
def test_what_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, place: object, name: str, wrong: Callable[..., Any]
) -> None:
    monkeypatch.setattr(place, name, wrong)
    assert any(play(seed, OPERATIONS).failed for seed in SEEDS)


CITY, OTHER_CITY = st.sampled_from(CITIES), st.integers(1, 2)
HOLDER, AMOUNT = st.integers(0, 5), st.integers(1, 2_000)
HOW = st.sampled_from(("post", "void"))
PART = st.integers(0, 100)
PAYEES = st.lists(HOLDER, min_size=1, max_size=3)


class LedgerMachine(RuleBasedStateMachine):
    """Operations as they come to Hypothesis's mind."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.done: list[tuple[str, Operation]] = []
        self.sales: list[Sale] = []

    @initialize(seed=st.integers(0, 20))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        for city in CITIES:
            self.issue(city, 0, 50_000, 200_000)

    def do(self, city: str, operation: Operation) -> None:
        self.done.append((city, operation))
        self.world.batch(city, [operation], calm=True)

    def number(self) -> str:
        self.numbers += 1
        return f"00000000-0000-4000-8000-{self.numbers:012x}"

    def holder(self, city: str, index: int) -> str:
        return list(self.world.models[city].coins)[index]

    @rule(city=CITY, payee=HOLDER, amount=AMOUNT, backing=AMOUNT)
    def issue(self, city: str, payee: int, amount: int, backing: int) -> None:
        self.do(city, IssueCoins(self.number(), self.holder(city, payee), amount, backing))

    @rule(city=CITY, payer=HOLDER, payees=PAYEES, amount=AMOUNT, days=st.integers(0, 90))
    def order(self, city: str, payer: int, payees: list[int], amount: int, days: int) -> None:
        now_ms = self.world.cities[city].clock.now_ms()
        until_ms = now_ms + days * DAY_MS if days else None
        account = self.holder(city, payer)
        first = Asked("", account, "", amount, self.world.models[city].currency, now_ms, until_ms)
        orders = [replace(first, id=self.number(), payee=self.holder(city, payee)) for payee in payees]
        self.do(city, Submit(tuple(orders), Shows(account)))

    @rule(city=CITY, how=HOW)
    def end(self, city: str, how: str) -> None:
        model = self.world.models[city]
        for name in [name for name in model.holds if name in model.done][:1]:
            self.do(city, End(name, how, Shows(model.done[name].payer)))

    @rule(city=CITY, to=st.integers(0, 2), payer=HOLDER, payee=HOLDER, base=AMOUNT, part=PART)
    def sell(self, city: str, to: int, payer: int, payee: int, base: int, part: int) -> None:
        buyer_city = CITIES[(CITIES.index(city) + to) % 3]
        parties = self.holder(city, payee), self.holder(buyer_city, payer)
        costs = base, base * part // 100, part, part
        self.sales.append(self.world.draws.agreed(city, buyer_city, *parties, costs))
        self.do(city, Sell(self.sales[-1]))

    @rule(index=st.integers(0, 5), what=st.sampled_from(("post", "post", "void", "freeze")))
    def go_on(self, index: int, what: str) -> None:
        for sale in self.sales[index : index + 1]:
            self.do(sale.seller_city, GoOn(sale, what))

    @rule(index=st.integers(0, 5), how=HOW)
    def resolve(self, index: int, how: str) -> None:
        for sale in self.sales[index : index + 1]:
            if sale.seller_city == sale.buyer_city:
                self.do(sale.seller_city, Resolve(sale.transaction, how))
            elif sale.key in self.world.models[sale.buyer_city].outs:
                resolution = self.world.draws.resolution(sale.buyer_city, sale.key, how)
                assert resolution is not None
                self.do(sale.buyer_city, resolution)

    @rule(city=CITY, to=OTHER_CITY)
    def propose(self, city: str, to: int) -> None:
        self.do(city, ProposeNow(CITIES[(CITIES.index(city) + to) % 3]))

    @rule(city=CITY, to=OTHER_CITY, run=st.integers(1, 2))
    def pay(self, city: str, to: int, run: int) -> None:
        self.do(city, Pay(CITIES[(CITIES.index(city) + to) % 3], self.number(), run, "SEPA"))

    @rule(city=CITY, index=st.integers(0, 1), came=st.booleans())
    def look(self, city: str, index: int, came: bool) -> None:
        for debtor, creditor, name in list(self.world.models[city].discharges)[index : index + 1]:
            self.do(city, Look(debtor if creditor == city else creditor, name, came))

    @rule()
    def change_way(self) -> None:
        self.world.change_way()

    @rule(city=CITY, index=st.integers(0, 3), is_last=st.booleans())
    def deliver(self, city: str, index: int, is_last: bool) -> None:
        for each in self.world.network.reaching(city)[index : index + 1]:
            self.do(city, Deliver(each, is_last))

    @rule(city=CITY, index=st.integers(0, 3))
    def lose(self, city: str, index: int) -> None:
        for each in self.world.network.waiting[city][index : index + 1]:
            self.world.network.forget(each)

    @rule(ms=st.sampled_from((1, DAY_MS // 24, DAY_MS, 31 * DAY_MS, 100 * DAY_MS)))
    def pass_time(self, ms: int) -> None:
        self.world.pass_time(ms)

    @rule(city=CITY, skew_ms=st.sampled_from((0, -150_000, 150_000, -2 * DAY_MS, 2 * DAY_MS)))
    def set_clock(self, city: str, skew_ms: int) -> None:
        self.world.set_skew(city, skew_ms)

    @rule(back=st.integers(1, 10))
    def repeat(self, back: int) -> None:
        if len(self.done) >= back:
            self.do(*self.done[-back])

    @invariant()
    def the_books_are_sound(self) -> None:
        for name, city in self.world.cities.items():
            books.check(city.source, self.world.settings[name], self.world.models[name])

    def teardown(self) -> None:
        try:
            self.world.finish()
        finally:
            self.world.close()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
