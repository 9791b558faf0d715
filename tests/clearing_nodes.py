"""Nodes whose ledgers settle with each other, over a network that loses, repeats and reorders; drawn from one seed.

`python -m tests.clearing_nodes --seeds 500` runs more of them. Every unit of work may fail in the middle of its writes:
what it had written is gone then, as after a crash. The model beside the nodes knows the prices alone.
"""

import random
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from loopd.audit.service import AuditLog
from loopd.database.migrations import migrate, shipped_migrations
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventLog
from loopd.ledger import accounts, checks
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.hooks import TransactionPayments
from loopd.ledger.clearing.messages import MESSAGE_TYPES
from loopd.ledger.clearing.payee import PayeeSide
from loopd.ledger.clearing.payer import PayerSide
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.clearing.postings import Postings
from loopd.ledger.clearing.rules import Decision
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.clearing.telling import Telling
from loopd.ledger.issuance import Issuance, Issue
from loopd.ledger.service import Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.settlement import Settlements
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.transactions import Transaction, TransactionStatus
from tests.ledger_simulation import Broken, FragileTx
from tests.support import ManualClock

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
ISSUED_MINOR = 300_000
RATES = {"munich.loop": Decimal(1), "vienna.loop": Decimal("1.3"), "linz.loop": Decimal("0.7")}


@dataclass(frozen=True)
class Home:
    """A node as its ledger knows it."""

    node_id: str
    context_url: str = CONTEXT


@dataclass
class Told:
    """What the exchange is told of its sales, written down with the rest; and the bids that the city made."""

    bids: dict[str, Consent] = field(default_factory=dict)

    def settled(self, tx: Tx, transaction_id: str) -> None:
        tx.execute("INSERT INTO told VALUES (?, 'settled')", (transaction_id,))

    def failed(self, tx: Tx, transaction_id: str, reason: str) -> None:
        tx.execute("INSERT INTO told VALUES (?, ?)", (transaction_id, reason))

    def consent(self, source: RowSource, owner: str, subject_id: str, buyer_account: str) -> Consent | None:
        return self.bids.get(subject_id)


class TableOutbox:
    """An outbox in the node's own database, as durable as the rest."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        tx.execute("INSERT INTO sent (target, body) VALUES (?, ?)", (target, body))


class City:
    """One node: its books, and its side of every settlement."""

    def __init__(self, node_id: str, peers: Iterable[str], **settings: Any) -> None:
        self.node_id = node_id
        self.clock = ManualClock(START_MS)
        self._directory = TemporaryDirectory()
        self.connection = sqlite3.connect(Path(self._directory.name) / "books.db", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        migrate(self.connection, shipped_migrations(), self.clock)
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.execute("CREATE TABLE sent (number INTEGER PRIMARY KEY, target TEXT, body BLOB)")
        self.connection.execute("CREATE TABLE told (sale TEXT PRIMARY KEY, how TEXT)")
        self.settings = LedgerSettings(
            **{
                "currency_code": f"LC-{node_id[:3].upper()}",
                "exchange_rate": RATES[node_id],
                "credit_limits": {peer: Decimal(5_000) for peer in peers},
                **settings,
            }
        )
        self.told = Told()
        audit, events, home = AuditLog(self.clock), EventLog(self.clock), Home(node_id)
        self.ledger = Ledger(home, self.settings, audit, self.clock, events)
        postings = Postings(self.ledger)
        telling = Telling(home, self.clock, audit, events, TableOutbox())
        payer = PayerSide(self.ledger, self.clock, postings, self.told, telling)
        self.payee = PayeeSide(self.ledger, self.clock, postings, self.told, telling)
        self.clearing = Clearing(self.ledger, self.clock, payer, self.payee)
        self.payments = TransactionPayments(self.ledger, Settlements(self.ledger, audit, events), self.payee)
        self.buyer, self.seller = f"user:maria@{node_id}", f"business:brewery@{node_id}"
        self.write(self._begin)

    def close(self) -> None:
        """Leave nothing behind."""
        self.connection.close()
        self._directory.cleanup()

    def _begin(self, tx: Tx) -> None:
        self.ledger.begin(tx)
        for account in (self.buyer, self.seller):
            self.ledger.open_account(tx, account, None)
        issue = Issue("00000000-0000-4000-8000-000000000001", self.buyer, ISSUED_MINOR, 2 * ISSUED_MINOR)
        Issuance(self.ledger).issue(tx, issue)

    def write(self, unit: Callable[[Tx], Any], statements: int | None = None) -> Any:
        """One transaction; with `statements` it breaks after so many of them, and leaves nothing behind."""
        tx = FragileTx(self.connection, statements)
        self.connection.execute("BEGIN")
        try:
            result = unit(tx)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return result

    @property
    def source(self) -> Tx:
        """For reading."""
        return Tx(self.connection, [])

    def sent(self) -> list[tuple[int, str, bytes]]:
        """What waits to be sent."""
        return [tuple(row) for row in self.connection.execute("SELECT number, target, body FROM sent ORDER BY number")]

    def forget(self, number: int) -> None:
        """A message was taken, or is lost."""
        self.connection.execute("DELETE FROM sent WHERE number = ?", (number,))

    def told_of(self, transaction_id: str) -> str | None:
        """How a sale ended, as the exchange was told."""
        row = self.source.one("SELECT how FROM told WHERE sale = ?", (transaction_id,))
        return None if row is None else str(row["how"])

    def dump(self) -> list[str]:
        """Everything durable."""
        return list(self.connection.iterdump())

    def balance(self, account_id: str) -> int:
        return self.ledger.require(self.source, account_id).balance_minor

    def fund(self, fund: accounts.Fund) -> int:
        return self.balance(accounts.fund_id(fund, self.node_id))

    def owes(self, peer: str) -> int:
        """What this node owes a peer; below zero what it is owed."""
        return self.balance(accounts.clearing_id(peer, self.node_id))

    def settlements(self, peer: str) -> list[tables.Clearance]:
        return tables.page(self.source, peer, None, 10_000)


def sale(number: int, seller: City, buyer: City, cost: LoopCost) -> Transaction:
    """A sale from one city to another, and the buyer's bid for it."""
    subject = f"MAT-DE-MUC-2026-FOOD-{number:06X}"
    buyer.told.bids[subject] = Consent(f"bid-{number}", cost.total_minor)
    return Transaction(
        transaction_id=f"TXN-2026-09-21-{number:03d}",
        subject_id=subject,
        kind=SubjectKind.MATERIAL,
        seller=seller.node_id,
        buyer=buyer.node_id,
        seller_account=seller.seller,
        buyer_account=buyer.buyer,
        quantity=Quantity(Decimal(500), "kg"),
        cost=cost,
        status=TransactionStatus.PENDING,
        version=1,
        created_at_ms=START_MS,
        changed_at_ms=START_MS,
    )


class Federation:
    """Some cities, and the network between them."""

    def __init__(self, seed: int, cities: int = 3) -> None:
        self.random = random.Random(seed)
        names = list(RATES)[:cities]
        self.cities = {name: City(name, [peer for peer in names if peer != name]) for name in names}
        self.sales: list[Transaction] = []
        self.cut: set[frozenset[str]] = set()

    def close(self) -> None:
        for city in self.cities.values():
            city.close()

    def step(self) -> None:
        """One thing happens somewhere."""
        draw = self.random.random()
        if draw < 0.12:
            self._sell()
        elif draw < 0.60:
            self._pass_on()
        elif draw < 0.75 and self.sales:
            self._go_on(self.random.choice(self.sales))
        elif draw < 0.85:
            city = self.random.choice(list(self.cities.values()))
            city.clock.advance(self.random.choice((1_000, 60_000, HOUR_MS, 9 * HOUR_MS)))
            for due in city.clearing.due(city.source, city.clock.now_ms()):
                self._try(city, due.do)
        elif draw < 0.92:
            self._resolve()
        else:
            pair = frozenset(self.random.sample(list(self.cities), 2))
            self.cut ^= {pair}

    def calm_down(self) -> None:
        """Links are up, disputes are resolved, every sale ends, and all that waits is told."""
        self.cut.clear()
        for each in self.sales:
            seller = self.cities[each.seller]
            seller.write(lambda tx, seller=seller, each=each: seller.payments.post(tx, each))
        for _ in range(12):
            while any(city.sent() for city in self.cities.values()):
                for city in self.cities.values():
                    for number, target, body in city.sent():
                        self._deliver(city.node_id, target, body)
                        city.forget(number)
            for city in self.cities.values():
                self._resolve_all(city)
                city.clock.advance(2 * HOUR_MS)
                for due in city.clearing.due(city.source, city.clock.now_ms()):
                    city.write(due.do)

    def check(self) -> None:
        """The invariants of each one's books."""
        for city in self.cities.values():
            broken = [each for each in checks.check(city.source) if not each.holds]
            assert not broken, (city.node_id, broken)

    def check_calm(self) -> None:
        """Both sides of every settlement agree, and the balances are what the prices make them."""
        self.check()
        expected = {city.node_id: ISSUED_MINOR for city in self.cities.values()}
        earned = dict.fromkeys(self.cities, 0)
        owed: dict[tuple[str, str], int] = {}
        for each in self.sales:
            buyer, seller = self.cities[each.buyer], self.cities[each.seller]
            at_buyer = tables.find_of_transaction(buyer.source, each.seller, each.transaction_id)
            at_seller = tables.find_of_transaction(seller.source, each.seller, each.transaction_id)
            assert at_seller is not None
            if at_buyer is None:
                # Called off before the buyer's node knew which sale it was asked about: void there under its id.
                at_buyer = tables.find(buyer.source, each.buyer, at_seller.name.id)
            assert at_buyer is not None
            assert at_buyer.state == at_seller.state in ("posted", "voided")
            assert at_buyer.acknowledged
            if at_buyer.state == "voided":
                continue
            assert (at_buyer.payer_minor, at_buyer.payee_minor) == (at_seller.payer_minor, at_seller.payee_minor)
            rate = Fraction(RATES[each.buyer]) / Fraction(RATES[each.seller])
            cost = each.cost
            seller_minor = cost.base_minor - cost.export_minor
            crossing = [seller_minor, cost.export_minor, cost.distance_minor, cost.export_minor]
            paid = [-(-minor * rate.numerator // rate.denominator) for minor in (*crossing, cost.import_minor)]
            expected[each.buyer] -= sum(paid)
            earned[each.seller] += seller_minor
            there, back = (each.buyer, each.seller), (each.seller, each.buyer)
            owed[there] = owed.get(there, 0) + sum(paid[:4])
            owed[back] = owed.get(back, 0) - sum(crossing)
        for city in self.cities.values():
            assert city.balance(city.buyer) == expected[city.node_id]
            assert city.balance(city.seller) == earned[city.node_id]
            for peer in self.cities.keys() - {city.node_id}:
                assert city.owes(peer) == owed.get((city.node_id, peer), 0)

    def _sell(self) -> None:
        seller, buyer = self.random.sample(list(self.cities.values()), 2)
        base = self.random.randrange(1, 60_000)
        cost = LoopCost(
            base, self.random.randrange(base + 1), self.random.randrange(base + 1), self.random.randrange(900)
        )
        new = sale(len(self.sales) + 1, seller, buyer, cost)
        if self.random.random() < 0.1:
            buyer.told.bids.pop(new.subject_id)
        if self._try(seller, lambda tx: seller.payments.hold(tx, new)):
            self.sales.append(new)

    def _go_on(self, each: Transaction) -> None:
        city = self.cities[each.seller]
        what = self.random.choice((city.payments.post, city.payments.post, city.payments.release, city.payments.freeze))
        self._try(city, lambda tx: what(tx, each))

    def _pass_on(self) -> None:
        waiting = [
            (city, *message)
            for city in self.cities.values()
            for message in city.sent()
            if frozenset((city.node_id, message[1])) not in self.cut
        ]
        if not waiting:
            return
        city, number, target, body = self.random.choice(waiting)
        fate = self.random.random()
        if fate < 0.15:
            city.forget(number)
            return
        if self._try_deliver(city.node_id, target, body) and fate < 0.8:
            city.forget(number)

    def _resolve(self) -> None:
        self._resolve_all(self.random.choice(list(self.cities.values())))

    def _resolve_all(self, city: City) -> None:
        for peer in self.cities.keys() - {city.node_id}:
            for each in city.settlements(peer):
                if each.frozen:
                    post = each.state == "prepared" and self.random.random() < 0.5
                    decision = Decision.POST if post else Decision.VOID
                    self._try(
                        city,
                        lambda tx, each=each, decision=decision, city=city: city.clearing.resolve(
                            tx, each.peer, each.name.id, decision
                        ),
                    )

    def _deliver(self, sender: str, target: str, body: bytes, statements: int | None = None) -> None:
        city, document = self.cities[target], check_document(body, MESSAGE_TYPES)
        city.write(lambda tx: city.clearing.receive(tx, sender, document), statements)

    def _try_deliver(self, sender: str, target: str, body: bytes) -> bool:
        city, document = self.cities[target], check_document(body, MESSAGE_TYPES)
        return self._try(city, lambda tx: city.clearing.receive(tx, sender, document))

    def _try(self, city: City, unit: Callable[[Tx], Any]) -> bool:
        statements = self.random.randrange(60) if self.random.random() < 0.3 else None
        try:
            city.write(unit, statements)
        except Broken:
            return False
        return True


def run_seed(seed: int, steps: int = 250) -> Federation:
    """One run; an error in it names the seed."""
    federation = Federation(seed)
    try:
        for number in range(steps):
            federation.step()
            if number % 50 == 0:
                federation.check()
        federation.calm_down()
        federation.check_calm()
    except (AssertionError, Refusal, RuntimeError, sqlite3.Error) as error:
        error.add_note(f"seed {seed}: python -m tests.clearing_nodes --first {seed} --seeds 1")
        raise
    finally:
        federation.close()
    return federation


@click.command()
@click.option("--seeds", default=200, show_default=True)
@click.option("--first", default=0, show_default=True)
@click.option("--steps", default=400, show_default=True)
def main(seeds: int, first: int, steps: int) -> None:
    """Settlements of three cities, from seeds."""
    settled = 0
    for seed in range(first, first + seeds):
        settled += len(run_seed(seed, steps).sales)
    click.echo(f"{seeds} seeds, {settled} settlements: both sides decided alike, and every balance is as expected")


if __name__ == "__main__":
    main()
