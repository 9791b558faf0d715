"""The ledger against its model: runs from seeds, and runs that Hypothesis draws and shortens."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from loopd.database.writer import Tx
from loopd.ledger import checks
from tests.ledger_simulation import DAY_MS, FUNDS, HOLDERS, Simulation, Step, run_seed

# Twenty thousand operations in all.
SEEDS = range(8)
OPERATIONS = 2_500


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ledger_and_its_model_come_to_the_same(seed: int) -> None:
    run_seed(seed, OPERATIONS)


ACCOUNTS = st.sampled_from(HOLDERS[:3] + FUNDS[:1])
AMOUNTS = st.integers(1, 2_000)


class LedgerMachine(RuleBasedStateMachine):
    """Operations as they come to Hypothesis's mind."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation(0)
        self.steps: list[Step] = []

    def perform(self, verb: str, **fields: Any) -> None:
        step = Step(verb, f"00000000-0000-4000-8000-{len(self.steps):012x}", fields)
        self.steps.append(step)
        self.carry_out(step)

    def carry_out(self, step: Step) -> None:
        connection = self.simulation.connection
        connection.execute("BEGIN")
        self.simulation.perform(step)
        connection.execute("COMMIT")

    @rule(payee=ACCOUNTS, amount=AMOUNTS, backing=AMOUNTS)
    def issue(self, payee: str, amount: int, backing: int) -> None:
        self.perform("issue", payee=payee, amount=amount, backing=backing)

    @rule(payer=ACCOUNTS, payee=ACCOUNTS, amount=AMOUNTS, verb=st.sampled_from(("pay", "hold")))
    def order(self, payer: str, payee: str, amount: int, verb: str) -> None:
        if payer != payee:
            self.perform(verb, payer=payer, payee=payee, amount=amount, lasts_ms=40 * DAY_MS)

    @rule(how=st.sampled_from(("post", "void")))
    def end(self, how: str) -> None:
        self.perform("end", how=how)

    @rule(payer=ACCOUNTS, payee=ACCOUNTS, base=AMOUNTS, part=st.integers(0, 100))
    def sell(self, payer: str, payee: str, base: int, part: int) -> None:
        if payer in HOLDERS and payee in HOLDERS:
            export = base * part // 100
            self.perform("sell", payer=payer, payee=payee, costs=(base, export, part, part))

    @rule(what=st.sampled_from(("post", "release", "freeze", "resolve-post", "resolve-void")))
    def move(self, what: str) -> None:
        self.perform("move", what=what)

    @rule(ms=st.sampled_from((1, DAY_MS, 31 * DAY_MS, 100 * DAY_MS, -DAY_MS)))
    def pass_time(self, ms: int) -> None:
        self.perform("time", ms=ms)

    @rule(back=st.integers(1, 10))
    def repeat(self, back: int) -> None:
        if len(self.steps) >= back and self.steps[-back].verb != "time":
            self.carry_out(self.steps[-back])

    @invariant()
    def the_books_are_sound(self) -> None:
        broken = [each for each in checks.check(Tx(self.simulation.connection, [])) if not each.holds]
        assert not broken

    def teardown(self) -> None:
        try:
            self.simulation.compare()
        finally:
            self.simulation.close()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
