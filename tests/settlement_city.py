"""A city's ledger as a process that can be killed at each of its writes; the rest of the node stands in for itself.

`python -m tests.settlement_city DIRECTORY NODE PEER` reads orders from standard input, one JSON object a line, and
forks a child for each. The child opens the database, does its unit of work and ends by SIGKILL: at the write that the
order names (`kill_at`), or, once all is committed, before anybody is told. The answer has `done` and how many `writes`.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, Tx
from loopd.database.rows import RowSource
from loopd.events.service import EventLog
from loopd.federation.outbox import Outbox
from loopd.ledger.clearing.messages import MESSAGE_TYPES
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.clearing.rules import Decision
from loopd.ledger.issuance import Issuance, Issue
from loopd.ledger.room import LedgerRoom
from loopd.ledger.settings import LedgerSettings
from loopd.protocol.documents import check_document
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.transactions import Transaction, TransactionStatus
from tests.ledger_sim.city import Keys
from tests.support import ManualClock

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
NOW_MS = 1_790_000_000_000
SELLER, BUYER = "munich.loop", "vienna.loop"
SELLER_ACCOUNT, BUYER_ACCOUNT = f"business:brewery@{SELLER}", f"user:maria@{BUYER}"
SALE, SUBJECT = "TXN-2026-09-21-001", "MAT-DE-MUC-2026-FOOD-B847F3"
# §12.1: 60 + 24 + 12 + 8.
COST = LoopCost(6000, 2400, 1200, 800)
_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "RELEASE", "SAVEPOINT")


class Home:
    """The node as its ledger knows it."""

    context_url = CONTEXT

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id


class Exchange:
    """What the ledger needs of the exchange: the bid that the buyer's city made, and a place to be told of the sale."""

    def consent(self, source: RowSource, owner: str, subject_id: str, buyer_account: str) -> Consent | None:
        return Consent("bid-1", COST.total_minor, COST.import_minor)

    def settled(self, tx: Tx, transaction_id: str) -> None:
        tx.execute("INSERT INTO told VALUES (?, 'settled')", (transaction_id,))

    def held(self, tx: Tx, transaction_id: str) -> None:
        """Nothing follows from it."""

    def failed(self, tx: Tx, transaction_id: str, reason: str) -> None:
        tx.execute("INSERT INTO told VALUES (?, ?)", (transaction_id, reason))


async def nobody_answers(node_id: str, path: str) -> bytes | None:
    """No statement is read here."""
    return None


def sale() -> Transaction:
    """What is sold, as the seller's node has it."""
    return Transaction(
        SALE,
        SUBJECT,
        SubjectKind.MATERIAL,
        SELLER,
        BUYER,
        SELLER_ACCOUNT,
        BUYER_ACCOUNT,
        Quantity(Decimal(500), "kg"),
        COST,
        TransactionStatus.PENDING,
        1,
        NOW_MS,
        NOW_MS,
    )


class City:
    """One child's node."""

    def __init__(self, database: Database, node_id: str, peer: str) -> None:
        clock, exchange, home = ManualClock(NOW_MS), Exchange(), Home(node_id)
        settings = LedgerSettings(
            currency_code=f"LC-{node_id[:3].upper()}",
            exchange_rate=Decimal("1.3") if node_id == BUYER else Decimal(1),
            credit_limits={peer: Decimal(5_000)},
        )
        outbox = Outbox(lambda _: None)
        audit, events = AuditLog(clock), EventLog(clock)
        self.room = LedgerRoom(
            home, settings, database, audit, events, clock, outbox, exchange, exchange, nobody_answers, Keys(node_id)
        )

    def unit(self, order: dict[str, Any]) -> Callable[[Tx], object]:
        """What an order has done."""
        payments, clearing = self.room.payments, self.room.clearing
        if order["do"] == "open":
            return self._open
        if order["do"] == "hear":
            document = check_document(order["body"].encode(), MESSAGE_TYPES)
            return lambda tx: clearing.receive(tx, order["sender"], document)
        if order["do"] == "resolve":
            return lambda tx: clearing.resolve(tx, SELLER, order["id"], Decision(order["decision"]))
        does = {"hold": payments.hold, "post": payments.post, "release": payments.release, "freeze": payments.freeze}
        return lambda tx: does[order["do"]](tx, sale())

    def _open(self, tx: Tx) -> None:
        books = self.room.books
        tx.execute("CREATE TABLE told (sale TEXT PRIMARY KEY, how TEXT) STRICT")
        account = SELLER_ACCOUNT if books.node.node_id == SELLER else BUYER_ACCOUNT
        books.open_account(tx, account, None)
        if account == BUYER_ACCOUNT:
            issue = Issue("00000000-0000-4000-8000-000000000001", account, 300_000, 300_000)
            Issuance(books).issue(tx, issue)


class Killer:
    """Ends the process at the so-manieth write of the transaction that is begun next."""

    def __init__(self, at: int | None) -> None:
        self.writes = 0
        self._at = at
        self._counts = False

    def arm(self, tx: Tx) -> None:
        """On the writer's own thread, which alone may touch its connection."""
        tx._connection.set_trace_callback(self._statement)

    def _statement(self, sql: str) -> None:
        # A trigger's statements come as comments.
        verb = sql.removeprefix("-- ").lstrip().upper()
        self._counts = self._counts or verb.startswith("BEGIN")
        if self._counts and verb.startswith(_WRITES):
            if self.writes == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.writes += 1


async def work(directory: Path, node_id: str, peer: str, order: dict[str, Any], answer: int) -> None:
    """One order in a child; it does not come back."""
    # What a process has written outlives it, whether the disk has it yet or not.
    clock, settings, path = ManualClock(NOW_MS), DatabaseSettings(synchronous="NORMAL"), directory / "loopd.db"
    make = Database.create if order["do"] == "open" else Database.open
    database = await make(path, settings, clock)
    city, killer = City(database, node_id, peer), Killer(order.get("kill_at"))
    await city.room.begin()
    await database.write(killer.arm)
    await database.write(city.unit(order))
    os.write(answer, json.dumps({"done": True, "writes": killer.writes}).encode())
    os.kill(os.getpid(), signal.SIGKILL)


def carry_out(directory: Path, node_id: str, peer: str, order: dict[str, Any]) -> dict[str, Any]:
    """An order in a child of its own; `done` is False where it was killed before the end."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(work(directory, node_id, peer, order, writable))
        except BaseException as error:
            os.write(writable, json.dumps({"error": repr(error)}).encode())
        os._exit(1)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    answer: dict[str, Any] = json.loads(told) if told else {"done": False}
    return {**answer, "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL}


def main(directory: Path, node_id: str, peer: str) -> None:
    """Orders from standard input until it ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(carry_out(directory, node_id, peer, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
