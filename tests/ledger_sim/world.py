"""Three cities and their models side by side: batches that fail, clocks that differ, links that are cut.

Each operation is carried out by a city's ledger first, within its batch; once the batch is committed the city's model
does the same, and both must have come to the same result. Whatever is lost on the way never reaches the model.
"""

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Final

from loopd.ledger.settings import LedgerSettings
from loopd.protocol.errors import Refusal
from tests.ledger_sim import books, netted
from tests.ledger_sim.choices import drawn_settings, drawn_way, rules_of, terms_of
from tests.ledger_sim.city import Broken, City, FragileTx
from tests.ledger_sim.deals import ENDED
from tests.ledger_sim.drawing import Draws
from tests.ledger_sim.mail import Sent
from tests.ledger_sim.money import DAY_MS
from tests.ledger_sim.netting import Model, owes_something
from tests.ledger_sim.network import SKEW_MAX_MS, Network
from tests.ledger_sim.operations import (
    KEY,
    Bounce,
    Deliver,
    GoOn,
    Operation,
    ProposeDue,
    ProposeNow,
    Remind,
    SayAgain,
)
from tests.ledger_sim.standing import check_alike, check_by_themselves, check_deal, check_money, check_runs

# 29 January of a leap year's month before, so that months' ends come soon.
START_MS: Final = 1_706_529_600_000
HOUR_MS: Final = 3_600_000
CITIES: Final = ("munich.loop", "vienna.loop", "linz.loop")
COMPARED_EVERY: Final = 750
QUIET_EVERY: Final = 4_000
_TRACED: Final = 25
_AHEAD_MAX_MS: Final = 3 * DAY_MS


@dataclass(frozen=True)
class Outcome:
    """What came of an operation: the reason why not, with its status where it was refused, and what the city said."""

    reason: str | None
    status: int | None
    wall_ms: int
    dated_ms: int | None
    said: Sequence[Sent]


class World:
    """One run, all of it drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.cities: dict[str, City] = {}
        self.models: dict[str, Model] = {}
        self.operations: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._trace: deque[str] = deque(maxlen=_TRACED)
        self._skew_ms = dict.fromkeys(CITIES, 0)
        self._bounces: dict[str, list[Operation]] = {name: [] for name in CITIES}
        self._last_sent = dict.fromkeys(CITIES, 0)
        # By each city: how many transfers there were when other settings began to hold, and those settings.
        self.settings: dict[str, list[tuple[int, LedgerSettings]]] = {}
        # How each two cities mean to settle.
        self._ways = {pair: drawn_way(self.chance) for pair in combinations(CITIES, 2)}
        for name in CITIES:
            self._found(name)
        self.network = Network(self.cities)
        self.draws = Draws(self.chance, self.cities, self.models, self.network)

    def close(self) -> None:
        """Leave nothing behind."""
        for city in self.cities.values():
            city.close()

    @property
    def done(self) -> int:
        """How many operations there were."""
        return self.operations.total()

    @property
    def sales(self) -> Counter[str]:
        """What became of the sales between cities, as their sellers were told."""
        return Counter(told for model in self.models.values() for told in model.told.values())

    @property
    def postings(self) -> Counter[str]:
        """What was posted in all cities, by kind."""
        query = "SELECT kind, count(*) FROM ledger_transfer WHERE phase IN ('posted', 'post') GROUP BY kind"
        return Counter(row[0] for city in self.cities.values() for row in city.source.all(query) for _ in range(row[1]))

    @property
    def trace(self) -> list[str]:
        """What happened last."""
        return list(self._trace)

    # A run

    def run(self, operations: int) -> None:
        """So many operations; AssertionError where ledgers and models part."""
        for name in CITIES:
            self.batch(name, [self.draws.first_issue(name) for _ in range(6)])
        compared, quiet = COMPARED_EVERY, QUIET_EVERY
        while self.done < operations:
            self.step()
            if self.done >= compared:
                compared = self.done + COMPARED_EVERY
                self.compare()
            if self.done >= quiet:
                quiet = self.done + QUIET_EVERY
                self.calm_down()
        self.finish()

    def step(self) -> None:
        """One thing happens, or one city is asked for several at once."""
        chance = self.chance
        kinds = ("batch", "time", "edge", "skew", "cut", "loss", "reminders", "settings", "way")
        kind = chance.choices(kinds, (60, 8, 1.2, 2, 3, 3, 6, 1.2, 0.8))[0]
        city = chance.choice(CITIES)
        if kind == "batch":
            self.batch(city, self._drawn(city, chance.randint(1, chance.choice((2, 8, 20)))))
        elif kind == "time":
            spans_ms = (1, 20_000, 40_000, HOUR_MS // 2, 6 * HOUR_MS, DAY_MS, 3 * DAY_MS, 20 * DAY_MS)
            ms = chance.choices(spans_ms, (6, 6, 6, 6, 3, 2, 1.5, 0.7))[0]
            if ms >= 6 * HOUR_MS and chance.random() < 0.8:
                self._let_mail_through()
            self.pass_time(ms)
        elif kind == "edge":
            self._meet_an_edge(city)
        elif kind == "skew":
            self.skew()
        elif kind == "cut":
            self._count("cut or mended link")
            self.network.cut_or_mend(chance)
        elif kind == "loss":
            if self.network.lose(chance):
                self._count("lost message")
        elif kind == "reminders":
            self.batch(city, self._reminders(city), again=False)
        elif kind == "way":
            self.change_way()
        else:
            self.change_settings(city)

    def pass_time(self, ms: int) -> None:
        """All clocks go on."""
        self._count("passing of time")
        self._tick(ms)
        self.network.drop_expired(self.chance)

    def _meet_an_edge(self, name: str) -> None:
        """Exactly when coins age or a hold ends in a city, or a moment before; then it has something to do."""
        self._let_mail_through()
        model, now_ms = self.models[name], self.cities[name].clock.now_ms()
        ends = [hold.until_ms for hold in model.holds.values() if hold.until_ms is not None]
        midnight = (now_ms // DAY_MS + 1) * DAY_MS
        next_end_ms = min((end_ms for end_ms in ends if end_ms > now_ms), default=midnight)
        self.pass_time(self.chance.choice((midnight, next_end_ms)) - now_ms - self.chance.choice((0, 0, 1)))
        if self.chance.random() < 0.5:
            self.batch(name, self._drawn(name, self.chance.randint(1, 5)), calm=True)
        if self.chance.random() < 0.5:
            self.compare()

    def skew(self) -> None:
        """A city's clock is set: mostly right, within the limits, sometimes to another time; that is mended first."""
        chance = self.chance
        wrong = [name for name in CITIES if abs(self._skew_ms[name]) > SKEW_MAX_MS]
        name = chance.choice(wrong or CITIES)
        within = chance.randint(-SKEW_MAX_MS // 2, SKEW_MAX_MS // 2)
        off_ms = (-5 * DAY_MS // 2, -HOUR_MS, 2 * HOUR_MS, DAY_MS, _AHEAD_MAX_MS)
        self._count("setting of a clock")
        self.set_skew(name, chance.choice(off_ms) if not wrong and chance.random() < 0.15 else within)

    def set_skew(self, name: str, skew_ms: int) -> None:
        """Set a city's clock, so far from the others."""
        clock = self.cities[name].clock
        clock.set_wall(clock.now_ms() + skew_ms - self._skew_ms[name])
        self._skew_ms[name] = skew_ms

    def change_settings(self, name: str) -> None:
        """A city restarts with other settings."""
        changes = drawn_settings(self.chance, _peers(name))
        few = self.chance.sample(list(changes), self.chance.randint(1, 3))
        self._count("restart with other settings")
        self._restart(name, {key: changes[key] for key in few})

    def change_way(self) -> None:
        """Two cities settle in another way from now on; now and then one of them does not know yet."""
        pair = self.chance.choice(list(self._ways))
        self._ways[pair] = drawn_way(self.chance)
        order = self.chance.sample(pair, 2)
        self._count("restarts with another way of settling")
        for name in order[: self.chance.choice((1, 2, 2, 2, 2, 2))]:
            self._restart(name, self._ways_of(name, pair))
            if self.chance.random() < 0.5:
                self.batch(name, self._drawn(name, self.chance.randint(1, 5)))

    def _ways_of(self, name: str, *pairs: tuple[str, str]) -> dict[str, Any]:
        """A city's settings of how it settles with others, those with these changed."""
        kept, found = self.cities[name].settings if name in self.models else None, {}
        for index, key in enumerate(("settlement_methods", "settlement_periods")):
            before = {} if kept is None else getattr(kept, key)
            changed = {other: self._ways[pair][index] for pair in pairs for other in pair if other != name}
            found[key] = {**before, **changed}
        return found

    def _restart(self, name: str, changes: Mapping[str, Any]) -> None:
        city, model = self.cities[name], self.models[name]
        self._tick(self.chance.randint(0, 1))
        city.restart(LedgerSettings(**{**city.settings.model_dump(), **changes}))
        # Before the time that has passed, which may bring coins to a boundary at this very moment.
        model.change(terms_of(city.settings), rules_of(city.settings), city.clock.now_ms())
        model.unit(lambda: None, *self._dates(city))
        self._note_settings(name)

    def batch(self, name: str, operations: Sequence[Operation], *, again: bool = True, calm: bool = False) -> None:
        """One commit of several operations in a city, or none of them: what was lost is mostly asked for `again`."""
        city, chance = self.cities[name], self.chance
        if not calm and operations and chance.random() < 0.06:
            self._lose_batch(city, operations[: chance.randint(0, len(operations))])
            if not again or chance.random() < 0.2:
                return
        city.connection.execute("BEGIN IMMEDIATE")
        outcomes = [self._perform(city, operation, calm=calm) for operation in operations]
        city.connection.execute("COMMIT")
        self.happened["commits"] += 1
        for operation, outcome in zip(operations, outcomes, strict=True):
            self._hold_against_model(name, operation, outcome)
        for key in {operation.key: None for operation in operations if isinstance(operation, _OF_A_DEAL)}:
            if key is not None:
                check_deal(city, self.models[name], key, self.network.post.ids.get(key))

    # Quiet

    def calm_down(self) -> None:
        """Links are up, clocks are right, and all that waits is told: both sides of every sale stand alike then."""
        self.network.cut.clear()
        for name in CITIES:
            self.set_skew(name, 0)
        # A clock that was ahead has put reminders off, and made requests look younger than they are, by as much.
        for ms in (2 * HOUR_MS, 2 * HOUR_MS, _AHEAD_MAX_MS + 25 * HOUR_MS, 2 * HOUR_MS, 2 * HOUR_MS):
            self._deliver_all()
            self._tick(ms)
            for name in CITIES:
                while reminders := self._reminders(name, most=None):
                    self.batch(name, reminders, calm=True)
        self._deliver_all()
        self.happened["times that links were quiet"] += 1
        self.compare()
        check_alike(self.models)
        check_by_themselves(self.cities)
        for name, city in self.cities.items():
            books.check(city.source, self.settings[name], self.models[name])
        sources = {name: city.source for name, city in self.cities.items()}
        books.check_between(sources)
        netted.check_between(sources)

    def finish(self) -> None:
        """Every sale ends, every dispute is resolved, all is signed and paid, and then it is quiet."""
        for name in CITIES:
            sales = self.draws.open_sales(name)
            self.batch(name, [GoOn(sale, self.chance.choice(("post", "void"))) for sale in sales], calm=True)
        self.calm_down()
        for name in CITIES:
            frozen = [key for key, out in self.models[name].outs.items() if out.frozen]
            found = [self.draws.resolution(name, key, self.chance.choice(("post", "void"))) for key in frozen]
            self.batch(name, [each for each in found if each is not None], calm=True)
        self.calm_down()
        self.happened["settlements decided"] += sum(
            out.state in ENDED for each in self.models.values() for out in each.outs.values()
        )
        waiting = [key for model in self.models.values() for key, each in model.ins.items() if each.state not in ENDED]
        assert not waiting, f"never ended: {waiting}"
        self._settle()

    def _settle(self) -> None:
        """All cities agree on how they settle, sign what is left, and pay all of it."""
        for name in CITIES:
            self._restart(name, self._ways_of(name, *(pair for pair in self._ways if name in pair)))
        for name in CITIES:
            self.batch(name, [ProposeNow(peer) for peer in _peers(name)], calm=True)
        self._deliver_all()
        for name in CITIES:
            self.batch(name, self.draws.looks(name), calm=True)
        self._deliver_all()
        for name in CITIES:
            self.batch(name, self.draws.payments(name), calm=True)
        self._deliver_all()
        for name in CITIES:
            self.batch(name, self.draws.looks(name), calm=True)
        self.calm_down()
        for name, model in self.models.items():
            unpaid = {peer: model.open_claims(peer) for peer in model.owed}
            assert not any(map(owes_something, unpaid.values())), f"{name} has not all paid: {unpaid}"
            for peer, owed in model.owed.items():
                assert unpaid[peer] or owed == 0, f"{name} owes {peer} {owed} for nothing"
        for model in self.models.values():
            for (peer, _), run in model.runs.items():
                if peer > model.node:
                    self.happened[f"runs of method {run.method} that were {run.state}"] += 1
            for (debtor, _, _), each in model.discharges.items():
                if debtor == model.node:
                    even = " by the signatures alone" if each.reference == "even" else ""
                    self.happened[f"discharges that were {each.state}{even}"] += 1

    def _let_mail_through(self) -> None:
        """Messages take no hours, where there is a link."""
        for _ in range(4):
            for name in CITIES:
                reaching = self.network.reaching(name)
                self.batch(name, [Deliver(mail, True) for mail in reaching], again=False)

    def _deliver_all(self) -> None:
        while any(self.network.waiting.values()) or any(self._bounces.values()):
            for name in CITIES:
                bounces, self._bounces[name] = self._bounces[name], []
                self.batch(name, [*bounces, *(Deliver(mail, True) for mail in self.network.waiting[name])], calm=True)

    # Comparison

    def compare(self) -> None:
        """All balances, lots and figures on both sides, after what is due was charged."""
        for name, city in self.cities.items():
            while city.write(city.ledger.charge_due):
                pass
            model = self.models[name]
            model.unit(lambda: None, *self._dates(city))
            check_money(city, model)
            check_runs(city, model, self.network.post.keys)

    # What happens

    def _perform(self, city: City, operation: Operation, *, calm: bool) -> Outcome:
        """Have a city do it, within its batch; sometimes it breaks first, and leaves nothing."""
        if not calm:
            if self.chance.random() < 0.3:
                self._tick(self.chance.randint(1, 2_000))
            if self.chance.random() < 0.05:
                self._attempt(city, operation, self.chance.randint(0, 40))
                self.happened["writes that failed in their middle, or after it"] += 1
        return self._attempt(city, operation)

    def _attempt(self, city: City, operation: Operation, statements: int | None = None) -> Outcome:
        connection, wall_ms = city.connection, city.clock.now_ms()
        connection.execute("SAVEPOINT unit")
        reason, status, dated_ms, said = None, None, None, []
        try:
            reason = operation.carry_out(city, FragileTx(connection, statements))
        except (Refusal, Broken) as error:
            connection.execute("ROLLBACK TO unit")
            if isinstance(error, Refusal):
                reason, status = error.reason, error.status
        else:
            if statements is not None:
                # It was through before it could break: as if the commit had failed.
                connection.execute("ROLLBACK TO unit")
            else:
                dated_ms = _ledger_time(city)
                said = city.sent(self._last_sent[city.node_id])
                if said:
                    self._last_sent[city.node_id] = said[-1].number
        connection.execute("RELEASE unit")
        return Outcome(reason, status, wall_ms, dated_ms, said)

    def _lose_batch(self, city: City, operations: Sequence[Operation]) -> None:
        """A crash before the commit, or a commit that failed: then the city goes on with what it has in memory."""
        last = self._last_sent[city.node_id]
        city.connection.execute("BEGIN IMMEDIATE")
        for operation in operations:
            self._attempt(city, operation)
        city.connection.execute("ROLLBACK")
        self._last_sent[city.node_id] = last
        self.happened["batches lost before their commit"] += 1
        self.happened["operations lost with them"] += len(operations)
        if self.chance.random() < 0.5:
            self.happened["restarts after that"] += 1
            city.restart(city.settings)

    def _hold_against_model(self, name: str, operation: Operation, outcome: Outcome) -> None:
        model = self.models[name]
        self._count(operation.kind)
        self._trace.append(f"{name} at {outcome.wall_ms}: {operation}: {outcome.reason or 'done'}")
        expected = model.unit(lambda: operation.predict(model), outcome.wall_ms, outcome.dated_ms)
        assert outcome.reason == expected, f"{name}: {operation}: {outcome.reason}, expected {expected}"
        if outcome.reason is not None:
            self.refused[outcome.reason] += 1
        for sent in outcome.said:
            self.network.add(self.network.post.read(model, sent))
        if not isinstance(operation, Deliver):
            return
        mail = operation.mail
        if outcome.status is not None and outcome.status // 100 == 4:
            if self.chance.random() < 0.7:
                self.network.forget(mail)
                self._bounces[mail.sender].append(Bounce(mail, outcome.status, outcome.reason or ""))
        elif operation.is_last:
            self.network.forget(mail)
        else:
            self.happened["messages that came and come again"] += 1

    # Draws

    def _drawn(self, name: str, count: int) -> list[Operation]:
        bounces, self._bounces[name] = self._bounces[name], []
        return [*bounces, *(self.draws.draw(name) for _ in range(count))]

    def _reminders(self, name: str, most: int | None = 10) -> list[Operation]:
        city = self.cities[name]
        found: list[Operation] = []
        for due in city.clearing.due(city.source, city.clock.now_ms())[:most]:
            number = int(due.name.removeprefix("settlement "))
            row = city.source.one("SELECT id FROM clearing_settlement WHERE number = ?", (number,))
            assert row is not None
            found.append(Remind(due, self.network.post.keys[row["id"]]))
        return [*found, *self._of_runs(name)]

    def _of_runs(self, name: str) -> list[Operation]:
        """What the timer does for runs and discharges; runs are due exactly where the model has them so."""
        city, model, found = self.cities[name], self.models[name], list[Operation]()
        now_ms, peers = city.clock.now_ms(), set()
        for due in city.netting.due(city.source, now_ms):
            if due.name.startswith("run with "):
                peers.add(due.name.removeprefix("run with "))
                found.append(ProposeDue(due, due.name.removeprefix("run with ")))
            else:
                found.append(SayAgain(due, due.name))
        expected = {peer for peer in model.owed if model.is_run_due(peer, now_ms)}
        assert peers == expected, f"{name} has runs due with {peers}, expected {expected}"
        return found

    def _found(self, name: str) -> None:
        """A city begins, with accounts of its holders."""
        city = City(name, START_MS)
        self.cities[name] = city
        city.restart(
            LedgerSettings(
                currency_code=f"LC-{name[:3].upper()}",
                backed_by="CHF" if self.chance.random() < 0.02 else "EUR",
                **drawn_settings(self.chance, _peers(name)),
                **self._ways_of(name, *(pair for pair in self._ways if name in pair)),
            )
        )
        holders = [f"user:{each}@{name}" for each in ("maria", "anna", "max", "eva")]
        holders += [f"business:{each}@{name}" for each in ("brewery", "farm")]
        keyed = {holders[3]}
        for holder in holders:
            key = KEY.public.to_pem() if holder in keyed else None
            city.write(partial(city.ledger.open_account, account_id=holder, public_key=key))
        settings = city.settings
        begun = name, settings.currency_code, holders, START_MS, terms_of(settings), rules_of(settings), keyed
        self.models[name] = Model(*begun, backing=settings.backed_by)
        self._note_settings(name)

    # Small

    def _count(self, kind: str) -> None:
        self.operations[kind] += 1

    def _tick(self, ms: int) -> None:
        for city in self.cities.values():
            city.clock.advance(ms)

    def _dates(self, city: City) -> tuple[int, int]:
        return city.clock.now_ms(), _ledger_time(city)

    def _note_settings(self, name: str) -> None:
        row = self.cities[name].source.one("SELECT coalesce(max(number), 0) FROM ledger_transfer")
        assert row is not None
        self.settings.setdefault(name, []).append((row[0], self.cities[name].settings))


_OF_A_DEAL = (Deliver, Bounce, Remind)


def _ledger_time(city: City) -> int:
    row = city.source.one("SELECT at_ms FROM ledger_time")
    return 0 if row is None else int(row[0])


def _peers(name: str) -> list[str]:
    return [each for each in CITIES if each != name]
