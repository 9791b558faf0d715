"""Cities that pay each other, with a buyer and a seller in each; messages wait until a test passes them on."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.ledger import accounts
from loopd.ledger.clearing import tables
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.issuance import Issue
from loopd.ledger.settings import LedgerSettings
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.transactions import Transaction
from tests.ledger_sim.asks import Sale
from tests.ledger_sim.city import City
from tests.ledger_sim.operations import transaction_of

# §12.1: 60 + 24 + 12 + 8, of which 92.00 cross.
COST = LoopCost(6000, 2400, 1200, 800)
START_MS = 1_790_000_000_000
ISSUED_MINOR = 300_000
# The counter of a table of the tests' own.
_SENT_SO_FAR = "INSERT INTO \"sqlite_sequence\" VALUES('sent'"
RATES = {"munich.loop": Decimal(1), "vienna.loop": Decimal("1.3"), "linz.loop": Decimal("0.7")}


class SettlingCity(City):
    """A city whose buyer has coins, and whose peers may owe it 5,000 LC."""

    def __init__(self, node_id: str, peers: Iterable[str], **settings: Any) -> None:
        super().__init__(node_id, START_MS)
        self.buyer, self.seller = f"user:maria@{node_id}", f"business:brewery@{node_id}"
        chosen = {
            "currency_code": f"LC-{node_id[:3].upper()}",
            "exchange_rate": RATES[node_id],
            "credit_limits": {peer: Decimal(5_000) for peer in peers},
        }
        self.restart(LedgerSettings(**{**chosen, **settings}))
        self.write(self._fill)

    def take(self, sender: str, body: bytes, statements: int | None = None) -> None:
        """A message of another city comes."""
        self.write(lambda tx: self.receive(tx, sender, body), statements)

    def dump(self) -> list[str]:
        """Everything durable; how often something was sent is not."""
        return [line for line in self.connection.iterdump() if not line.startswith(_SENT_SO_FAR)]

    def balance(self, account_id: str) -> int:
        return self.ledger.require(self.source, account_id).balance_minor

    def fund(self, fund: accounts.Fund) -> int:
        return self.balance(accounts.fund_id(fund, self.node_id))

    def owes(self, peer: str) -> int:
        """What this node owes a peer; below zero what it is owed."""
        return self.balance(accounts.clearing_id(peer, self.node_id))

    def settled_with(self, peer: str) -> list[tables.Clearance]:
        return tables.page(self.source, peer, None, 10_000)

    def _fill(self, tx: Tx) -> None:
        for account in (self.buyer, self.seller):
            self.ledger.open_account(tx, account, None)
        issue = Issue("00000000-0000-4000-8000-000000000001", self.buyer, ISSUED_MINOR, 2 * ISSUED_MINOR)
        self.issuance.issue(tx, issue)


def pass_on(*cities: SettlingCity) -> None:
    """Deliver all that cities send each other, until nothing more is."""
    while any(city.sent() for city in cities):
        for city in cities:
            pass_on_from(city, *cities)


def pass_on_from(sender: SettlingCity, *receivers: SettlingCity) -> list[bytes]:
    """Deliver what waits at one city; gives it."""
    by_name, told = {city.node_id: city for city in receivers}, []
    for each in sender.sent():
        by_name[each.target].take(sender.node_id, each.body)
        sender.forget(each.number)
        told.append(each.body)
    return told


def sale(number: int, seller: SettlingCity, buyer: SettlingCity, cost: LoopCost) -> Transaction:
    """A sale from one city to another, and the buyer's bid for it."""
    subject = f"MAT-DE-MUC-2026-FOOD-{number:06X}"
    buyer.exchange.bids[subject] = Consent(f"bid-{number}", cost.total_minor)
    costs = cost.base_minor, cost.export_minor, cost.import_minor, cost.distance_minor
    transaction = f"TXN-2026-09-21-{number:03d}"
    return transaction_of(Sale(seller.node_id, transaction, subject, buyer.node_id, seller.seller, buyer.buyer, costs))


def plans_of(source: RowSource, read: Callable[[Any], object]) -> list[str]:
    """How the database would find what a function reads, a line for each table."""
    plans: list[str] = []

    class Explaining:
        def all(self, sql: str, parameters: Any) -> list[Any]:
            plans.extend(row["detail"] for row in source.all(f"EXPLAIN QUERY PLAN {sql}", parameters))
            return []

    read(Explaining())
    return plans
