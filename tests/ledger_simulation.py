"""Random operations on a ledger and on its model, step by step: `python -m tests.ledger_simulation`.

Every operation is drawn from a seed. Writes fail in their middle, batches are lost before their commit, orders are
repeated, the clock is set forth and back, terms change. After each operation both must have come to the same result;
now and then, and at the end, all balances, lots and figures are compared and every invariant of the books is checked.
A run that fails prints its seed and is the same run again with `--seed`.
"""

import copy
import random
import sqlite3
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from loopd.audit.service import AuditLog
from loopd.database.migrations import migrate, shipped_migrations
from loopd.database.rows import Parameters
from loopd.database.writer import Tx
from loopd.events.service import EventLog
from loopd.ledger import checks, lot_tables, tables
from loopd.ledger.authority import OPERATOR, Authority
from loopd.ledger.issuance import Issuance, Issue
from loopd.ledger.movements import Phase
from loopd.ledger.orders import Order
from loopd.ledger.service import Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.settlement import Settlements
from loopd.protocol.errors import Refusal
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.transactions import Transaction, TransactionStatus
from tests.ledger_model import Model, ModelTerms, Refused
from tests.support import ManualClock

NODE, CURRENCY = "munich.loop", "LC-MUC"
# 29 January of a leap year's month before, so that months' ends come soon.
START_MS = 1_706_529_600_000
DAY_MS = 86_400_000
HOLDERS = tuple(f"user:{name}@{NODE}" for name in ("maria", "anna", "max", "eva")) + tuple(
    f"business:{name}@{NODE}" for name in ("brewery", "farm")
)
FUNDS = tuple(f"node:{name}@{NODE}" for name in ("community-fund", "transport", "bonus", "clearing-residual"))
COMPARED_EVERY = 500


class Home:
    """The node as the ledger knows it."""

    node_id = NODE
    context_url = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"


class Broken(Exception):
    """A write that fails in its middle."""


class FragileTx(Tx):
    """A transaction whose statements end after so many."""

    __slots__ = ("statements_left",)

    def __init__(self, connection: sqlite3.Connection, statements_left: int | None) -> None:
        super().__init__(connection, [])
        self.statements_left = statements_left

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        if self.statements_left is not None:
            self.statements_left -= 1
            if self.statements_left < 0:
                raise Broken
        return super().execute(sql, parameters)


@dataclass(frozen=True)
class Step:
    """One operation as drawn; drawn values are stored so that it can be done again."""

    verb: str
    name: str
    fields: dict[str, Any]


class Simulation:
    """One ledger, its model, and the draws of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.clock = ManualClock(START_MS)
        self._directory = TemporaryDirectory()
        self.connection = sqlite3.connect(Path(self._directory.name) / "books.db", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        migrate(self.connection, shipped_migrations(), self.clock)
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.connection.execute("PRAGMA synchronous=OFF")
        self.settings = LedgerSettings(
            currency_code=CURRENCY,
            expiry_months=self.random.choice((1, 2, 6)),
            decay_rate=self.random.choice(("0.05", "0.2", "0.003", "0")),
            exchange_rate=self.random.choice(("1", "2", "0.8")),
            reserve_ratio=self.random.choice(("1", "0.5")),
            max_issuance=self.random.choice((None, 20_000)),
            expiry_policy=self.random.choice(("decay", "decay", "forfeit")),
            redemption=True,
        )
        self.model = Model(START_MS, [(START_MS, _model_terms(self.settings))])
        self.model.coins.update({account: {} for account in HOLDERS})
        self.counted = 0
        self.done: list[Step] = []
        self.rejected: dict[str, int] = {}
        self._ending: str | None = None
        self._moving: str | None = None
        self._build()
        tx = Tx(self.connection, [])
        self.connection.execute("BEGIN")
        self.ledger.begin(tx)
        for account in HOLDERS:
            self.ledger.open_account(tx, account, None)
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Leave nothing behind."""
        self.connection.close()
        self._directory.cleanup()

    def _build(self) -> None:
        audit, events = AuditLog(self.clock), EventLog(self.clock)
        self.ledger = Ledger(Home(), self.settings, audit, self.clock, events)
        self.issuance = Issuance(self.ledger)
        self.settlements = Settlements(self.ledger, audit, events)

    # A run

    def run(self, operations: int) -> None:
        """So many operations in batches; AssertionError where ledger and model part."""
        while self.counted < operations:
            self._batch(min(self.random.randint(1, 60), operations - self.counted))
            if self.random.random() < 0.02:
                self._change_terms()
            if self.counted // COMPARED_EVERY != (self.counted - 1) // COMPARED_EVERY:
                self.compare()
        self.compare()
        broken = [finding for finding in checks.check(Tx(self.connection, [])) if not finding.holds]
        assert not broken, f"seed {self.seed}: {broken}"

    def _batch(self, size: int) -> None:
        """One commit of several operations, or none of them: then what was lost is done again."""
        kept, wall_ms = copy.deepcopy(self.model), self.clock.now_ms()
        steps = [self._draw() for _ in range(size)]
        crashes = self.random.random() < 0.1
        self.connection.execute("BEGIN IMMEDIATE")
        for step in steps[: self.random.randint(0, size)] if crashes else steps:
            self.perform(step)
        if crashes:
            self.connection.execute("ROLLBACK")
            self.model = kept
            self.clock.set_wall(wall_ms)
            self.connection.execute("BEGIN IMMEDIATE")
            for step in steps:
                self.perform(step)
        self.connection.execute("COMMIT")
        self.counted += size

    def perform(self, step: Step) -> None:
        """One operation on both sides, within a transaction; AssertionError where they come to different results."""
        if step.verb == "time":
            self.clock.set_wall(max(self.clock.now_ms() + step.fields["ms"], START_MS))
            # A refusal leaves no trace of its time in the books; the model is told of every moment.
            self.model.advance(self.ledger.now(Tx(self.connection, [])))
            return
        # What a step names is chosen before either side moves.
        self._ending, self._moving = self._hold_to_end(), self._sale_to_move()
        if step.fields.get("fails_after") is not None:
            self._attempt(step, step.fields["fails_after"])
        result = self._attempt(step, None)
        self.model.advance(max(self.clock.now_ms(), self.model.now_ms))
        expected = self._predict(step)
        assert result == expected, f"seed {self.seed}: {step}: {result}, expected {expected}"
        if result is not None:
            self.rejected[result] = self.rejected.get(result, 0) + 1

    def _attempt(self, step: Step, fails_after: int | None) -> str | None:
        """The refusal's reason, or None; a write that fails leaves nothing."""
        tx = FragileTx(self.connection, fails_after)
        self.connection.execute("SAVEPOINT unit")
        reason = None
        try:
            reason = self._carry_out(tx, step)
        except (Refusal, Broken) as error:
            self.connection.execute("ROLLBACK TO unit")
            reason = error.reason if isinstance(error, Refusal) else "broken"
        else:
            if fails_after is not None:
                # It was through before it could fail: as if the commit had failed.
                self.connection.execute("ROLLBACK TO unit")
        self.connection.execute("RELEASE unit")
        return reason

    # Draws

    def _draw(self) -> Step:
        draw = self.random
        verb = draw.choices(
            ("pay", "hold", "end", "issue", "redeem", "reserve", "repeat", "time", "sell", "move", "charge"),
            (30, 10, 14, 7, 3, 2, 8, 14, 6, 8, 3),
        )[0]
        if verb == "repeat" and self.done:
            return replace(draw.choice(self.done[-200:]))
        step = Step(verb, f"{self.seed:08x}-0000-4000-8000-{draw.getrandbits(48):012x}", self._fields(verb))
        if verb in ("pay", "hold", "issue", "redeem", "reserve", "sell"):
            if draw.random() < 0.05:
                step.fields["fails_after"] = draw.randint(0, 30)
            self.done.append(step)
            del self.done[:-1000]
        return step

    def _fields(self, verb: str) -> dict[str, Any]:
        draw = self.random
        amount = draw.choice((1, draw.randint(1, 50), draw.randint(1, 5_000), draw.randint(1, 100_000)))
        payer, payee = draw.sample(HOLDERS + FUNDS, 2) if draw.random() < 0.2 else draw.sample(HOLDERS, 2)
        if draw.random() < 0.1 and payee != FUNDS[0]:
            payer = FUNDS[0]
        if verb == "time":
            return {"ms": draw.choice((1, 60_000, DAY_MS // 7, DAY_MS, 3 * DAY_MS, -5 * DAY_MS // 2, 20 * DAY_MS))}
        if verb in ("pay", "hold"):
            days = draw.choice((1, 10, 80))
            return {"payer": payer, "payee": payee, "amount": amount, "lasts_ms": draw.randint(1, days * DAY_MS)}
        if verb == "issue":
            return {"payee": payee, "amount": amount * 2, "backing": draw.choice((0, amount, amount * 3))}
        if verb == "reserve":
            return {"amount": draw.choice((-amount, amount))}
        if verb == "sell":
            base = amount
            costs = (base, draw.randint(0, base), draw.randint(0, base), draw.choice((0, amount // 3)))
            return {"payer": draw.choice(HOLDERS), "payee": draw.choice(HOLDERS), "costs": costs}
        if verb == "move":
            return {"what": draw.choice(("post", "release", "freeze", "resolve-post", "resolve-void"))}
        return {"payer": draw.choice(HOLDERS), "amount": amount, "how": draw.choice(("post", "void"))}

    def _change_terms(self) -> None:
        changes = {
            "decay_rate": Decimal(self.random.choice(("0.05", "0.1", "0.2"))),
            "expiry_months": self.random.choice((1, 2, 3, 6)),
            "expiry_policy": self.random.choice(("decay", "decay", "decay", "forfeit")),
        }
        settings = self.settings.model_copy(update=changes)
        if settings == self.settings:
            return
        self.settings = settings
        self.model.advance(max(self.clock.now_ms(), self.model.now_ms))
        self._build()
        self.connection.execute("BEGIN")
        self.ledger.begin(Tx(self.connection, []))
        self.connection.execute("COMMIT")
        newest = tables.terms_versions(Tx(self.connection, []))[-1]
        self.model.terms.append((newest.valid_from_ms, _model_terms(settings)))

    # The ledger

    def _carry_out(self, tx: Tx, step: Step) -> str | None:
        fields = step.fields
        if step.verb in ("pay", "hold", "redeem"):
            self.ledger.submit(tx, [self._order(tx, step)], _authority(fields["payer"]))
        elif step.verb == "end":
            return self._end(tx, fields["how"])
        elif step.verb == "issue":
            self.issuance.issue(tx, Issue(step.name, fields["payee"], fields["amount"], fields["backing"]))
        elif step.verb == "reserve":
            self.issuance.move_reserve(tx, step.name, fields["amount"])
        elif step.verb == "sell":
            return self.settlements.hold(tx, _sale(step))
        elif step.verb == "move":
            self._move(tx, step)
        elif step.verb == "charge":
            self.ledger.charge_due(tx, 2)
        return None

    def _order(self, tx: Tx, step: Step) -> Order:
        fields = step.fields
        payee = f"node:issuance@{NODE}" if step.verb == "redeem" else fields["payee"]
        until_ms = None
        if step.verb == "hold":
            known = tx.one("SELECT 1 FROM ledger_transfer WHERE id = ?", (step.name,))
            until_ms = max(self.clock.now_ms(), self.model.now_ms) + fields["lasts_ms"] if known is None else 1
        content = f"{step.name} {fields['payer']} {payee} {fields['amount']}".encode()
        now_ms = self.clock.now_ms()
        return Order(
            step.name, fields["payer"], payee, fields["amount"], CURRENCY, now_ms, until_ms, None, content, b"{}"
        )

    def _hold_to_end(self) -> str | None:
        names = sorted(name for name in self.model.holds if "/" not in name)
        return names[len(names) // 2] if names else None

    def _end(self, tx: Tx, how: str) -> str | None:
        if self._ending is not None:
            payer = self.ledger.find_transfer(tx, self._ending).payer_id
            self.ledger.end(tx, self._ending, Phase(how), _authority(payer))
        return None

    def _move(self, tx: Tx, step: Step) -> None:
        name = self._moving
        if name is None:
            return
        sale = _sale(Step("sell", name, {"payer": HOLDERS[0], "payee": HOLDERS[1], "costs": (1, 0, 0, 0)}))
        what = step.fields["what"]
        if what == "post":
            self.settlements.post(tx, sale)
        elif what == "release":
            self.settlements.release(tx, sale)
        elif what == "freeze":
            self.settlements.freeze(tx, sale)
        else:
            self.settlements.resolve(tx, name, Phase(what.removeprefix("resolve-")))

    def _sale_to_move(self) -> str | None:
        open_sales = [name for name, each in self.model.settlements.items() if each.state in ("held", "frozen")]
        return min(open_sales) if open_sales else None

    # The model

    def _predict(self, step: Step) -> str | None:
        try:
            self._model_step(step)
        except Refused as refused:
            return refused.reason
        return None

    def _model_step(self, step: Step) -> None:
        fields, model, done = step.fields, self.model, self.model.done
        if step.name in done and step.verb != "sell":
            return
        if step.verb == "pay":
            model.pay(_own(fields["payer"]), _own(fields["payee"]), fields["amount"])
        elif step.verb == "hold":
            until_ms = model.now_ms + fields["lasts_ms"]
            model.hold(step.name, _own(fields["payer"]), _own(fields["payee"]), fields["amount"], until_ms)
        elif step.verb == "redeem":
            model.redeem(_own(fields["payer"]), fields["amount"])
        elif step.verb == "issue":
            model.issue(_own(fields["payee"]), fields["amount"], fields["backing"])
        elif step.verb == "reserve":
            model.move_reserve(fields["amount"])
        elif step.verb == "sell":
            model.settle_hold(step.name, fields["payer"], fields["payee"], fields["costs"])
        elif step.verb == "end":
            self._model_end({"post": "posted", "void": "voided"}[fields["how"]])
        elif step.verb == "move":
            self._model_move(fields["what"])
        if step.verb in ("pay", "hold", "redeem", "issue", "reserve"):
            done.add(step.name)

    def _model_end(self, state: str) -> None:
        if self._ending is not None:
            self.model.end(self._ending, state)

    def _model_move(self, what: str) -> None:
        name = self._moving
        if name is None:
            return
        state = self.model.settlements[name].state
        if what == "post":
            self.model.settle_end(name, "posted", "held")
        elif what == "release":
            self.model.settle_end(name, "voided", "held")
        elif what == "freeze":
            self.model.freeze(name)
        elif state == "held":
            raise Refused("not_frozen")
        else:
            self.model.settle_end(name, "posted" if what.endswith("post") else "voided", "frozen")

    # Comparison

    def compare(self) -> None:
        """Everything on both sides, after what is due was charged."""
        self.connection.execute("BEGIN IMMEDIATE")
        tx = Tx(self.connection, [])
        while self.ledger.charge_due(tx):
            pass
        self.connection.execute("COMMIT")
        self.model.advance(max(self.clock.now_ms(), self.model.now_ms))
        place = f"seed {self.seed} after {self.counted}"
        for account_id in HOLDERS:
            account = self.ledger.require(tx, account_id)
            lots = [(lot.issue_day, lot.amount_minor, lot.held_minor) for lot in lot_tables.lots(tx, account.number)]
            assert lots == self.model.lots(account_id), f"{place}: {account_id}"
        for account_id in FUNDS:
            account = self.ledger.require(tx, account_id)
            name = _own(account_id)
            found = (account.balance_minor, account.held_minor)
            assert found == (self.model.funds[name], self.model.fund_held[name]), f"{place}: {account_id}"
        figures = self.ledger.figures(tx)
        assert figures.supply_minor == self.model.issued - self.model.redeemed, place
        assert figures.reserve_minor == self.model.reserve, place


def _own(account_id: str) -> str:
    return account_id.removeprefix("node:").partition("@")[0] if account_id.startswith("node:") else account_id


def _authority(payer: str) -> Authority:
    return OPERATOR if payer.startswith("node:") else Authority(account=payer)


def _sale(step: Step) -> Transaction:
    fields = step.fields
    return Transaction(
        step.name,
        "MAT-DE-MUC-2026-FOOD-B847F3",
        SubjectKind.MATERIAL,
        NODE,
        NODE,
        fields["payee"],
        fields["payer"],
        Quantity(Decimal(1), "kg"),
        LoopCost(*fields["costs"]),
        TransactionStatus.PENDING,
        1,
        START_MS,
        START_MS,
    )


def _model_terms(settings: LedgerSettings) -> ModelTerms:
    return ModelTerms(
        settings.expiry_months,
        Fraction(settings.decay_rate),
        settings.expiry_policy == "forfeit",
        Fraction(settings.local_bonus),
        Fraction(settings.exchange_rate),
        None if settings.max_issuance is None else settings.max_issuance * 100,
        Fraction(settings.reserve_ratio),
    )


def run_seed(seed: int, operations: int) -> dict[str, int]:
    """One run; how often each refusal came."""
    simulation = Simulation(seed)
    try:
        simulation.run(operations)
    finally:
        simulation.close()
    return simulation.rejected


@click.command()
@click.option("--operations", type=click.IntRange(1), default=1_000_000, help="All seeds together.")
@click.option("--shard-size", type=click.IntRange(1), default=5_000, help="Operations of one seed.")
@click.option("--first", type=click.IntRange(0), default=0, help="The first seed: where an earlier run got to.")
@click.option("--processes", type=click.IntRange(1), default=2)
@click.option("--seed", type=int, help="One seed alone, as a failing run named it.")
def main(operations: int, shard_size: int, first: int, processes: int, seed: int | None) -> None:
    """Run seeds until so many operations are done; each seed that is through is told."""
    if seed is not None:
        click.echo(run_seed(seed, shard_size))
        return
    started_s = time.monotonic()
    seeds = range(first, first + -(-operations // shard_size))
    with ProcessPoolExecutor(processes) as pool:
        for number, rejected in zip(seeds, pool.map(run_seed, seeds, [shard_size] * len(seeds)), strict=True):
            click.echo(f"seed {number}: {shard_size} operations, {sum(rejected.values())} refused")
    click.echo(f"{len(seeds) * shard_size} operations in {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
