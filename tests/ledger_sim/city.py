"""One node as the simulator has it: its books in a database in memory, its side of every settlement, and an outbox."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from loopd.audit.service import AuditLog
from loopd.crypto.keys import NodeKey, PublicKey
from loopd.database.migrations import migrate, shipped_migrations
from loopd.database.rows import Parameters, RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventLog
from loopd.ledger.clearing.messages import MESSAGE_TYPES
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.clearing.room import ClearingRoom
from loopd.ledger.issuance import Issuance
from loopd.ledger.netting.documents import NETTING_TYPES
from loopd.ledger.netting.room import make_netting
from loopd.ledger.service import Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.settlement import Settlements
from loopd.protocol.documents import check_document
from tests.exchange_support import CONTEXT
from tests.ledger_sim.mail import Sent
from tests.support import ManualClock

T = TypeVar("T")

KEYS = {
    name: NodeKey.from_seed(bytes([index]) * 32)
    for index, name in enumerate(("linz.loop", "munich.loop", "vienna.loop"), start=1)
}


class Broken(Exception):
    """A write that fails in its middle."""


class FragileTx(Tx):
    """A transaction that breaks after so many statements; None for one that does not."""

    __slots__ = ("statements_left",)

    def __init__(self, connection: sqlite3.Connection, statements_left: int | None = None) -> None:
        super().__init__(connection, [])
        self.statements_left = statements_left

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        self._count()
        return super().execute(sql, parameters)

    def executemany(self, sql: str, rows: object) -> None:
        self._count()
        super().executemany(sql, rows)  # type: ignore[arg-type]

    def _count(self) -> None:
        if self.statements_left is not None:
            self.statements_left -= 1
            if self.statements_left < 0:
                raise Broken


@dataclass(frozen=True)
class Home:
    """A node as its ledger knows it."""

    node_id: str
    context_url: str = CONTEXT


@dataclass
class Exchange:
    """What a ledger needs of the exchange: the city's bids by subject, and a table of what it was told of its sales."""

    bids: dict[str, Consent] = field(default_factory=dict)

    def settled(self, tx: Tx, transaction_id: str) -> None:
        tx.execute("INSERT INTO told VALUES (?, 'settled')", (transaction_id,))

    def held(self, tx: Tx, transaction_id: str) -> None:
        """Nothing follows from it."""

    def failed(self, tx: Tx, transaction_id: str, reason: str) -> None:
        tx.execute("INSERT INTO told VALUES (?, ?)", (transaction_id, reason))

    def consent(self, source: RowSource, owner: str, subject_id: str, buyer_account: str) -> Consent | None:
        return self.bids.get(subject_id)


class Keys:
    """Everybody's keys, as one node has them. `of_others` says what it takes for another's."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.of_others = {name: [key.public] for name, key in KEYS.items()}

    def own(self) -> NodeKey:
        return KEYS[self.node_id]

    def keys_of(self, source: RowSource, node_id: str) -> list[PublicKey]:
        return self.of_others[node_id]


class TableOutbox:
    """An outbox in the node's own database, as durable as the rest."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        tx.execute(
            "INSERT INTO sent (target, body, expires_ms, reference) VALUES (?, ?, ?, ?)",
            (target, body, expires_at_ms, reference),
        )


class City:
    """One node; `restart` before anything else."""

    def __init__(self, node_id: str, start_ms: int) -> None:
        self.node_id = node_id
        self.clock = ManualClock(start_ms)
        self.exchange = Exchange()
        self.keys = Keys(node_id)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.deserialize(_empty_books())
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.source = Tx(self.connection, [])

    def close(self) -> None:
        """Leave nothing behind."""
        self.connection.close()

    def restart(self, settings: LedgerSettings) -> None:
        """New services over the same books, as after a restart; they begin."""
        self.build(settings)
        self.write(self.ledger.begin)

    def build(self, settings: LedgerSettings) -> None:
        """New services over the same books, which have not begun."""
        self.settings = settings
        audit, events, home = AuditLog(self.clock, bytes), EventLog(self.clock), Home(self.node_id)
        self.ledger = Ledger(home, settings, audit, self.clock, events)
        self.issuance = Issuance(self.ledger)
        self.settlements = Settlements(self.ledger, audit, events)
        outbox = TableOutbox()
        room = ClearingRoom(
            self.ledger, self.settlements, self.clock, audit, events, outbox, self.exchange, self.exchange
        )
        self.clearing, self.payments = room.clearing, room.payments
        self.netting = make_netting(self.ledger, self.clearing, self.clock, self.keys, audit, events, outbox)

    def write(self, unit: Callable[[Tx], T], statements: int | None = None) -> T:
        """One transaction; with `statements` it breaks after so many of them, and leaves nothing behind."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = unit(FragileTx(self.connection, statements))
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return result

    def receive(self, tx: Tx, sender: str, body: bytes) -> None:
        """Take what another city says."""
        document = check_document(body, MESSAGE_TYPES | NETTING_TYPES)
        receive = self.clearing.receive if document.type in MESSAGE_TYPES else self.netting.receive
        receive(tx, sender, document)

    def sent(self, after: int = 0) -> list[Sent]:
        """What waits to be sent, from a number on."""
        rows = self.source.all(
            "SELECT number, target, body, expires_ms, reference FROM sent WHERE number > ? ORDER BY number", (after,)
        )
        return [Sent(*row) for row in rows]

    def forget(self, number: int) -> None:
        """A message was taken, or is lost."""
        self.connection.execute("DELETE FROM sent WHERE number = ?", (number,))

    def told_of(self, transaction_id: str) -> str | None:
        """How a sale ended, as the exchange was told."""
        row = self.source.one("SELECT how FROM told WHERE sale = ?", (transaction_id,))
        return None if row is None else str(row["how"])


@cache
def _empty_books() -> bytes:
    """A database after all migrations, which only run on one that is a file."""
    with TemporaryDirectory() as directory:
        connection = sqlite3.connect(Path(directory) / "empty.db", isolation_level=None)
        connection.row_factory = sqlite3.Row
        migrate(connection, shipped_migrations(), ManualClock())
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute(
            "CREATE TABLE sent (number INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT, body BLOB, expires_ms INTEGER, "
            "reference TEXT)"
        )
        connection.execute("CREATE TABLE told (sale TEXT PRIMARY KEY, how TEXT)")
        made = connection.serialize()
        connection.close()
        return made
