"""A node's ledger to test with: the service over a real database, and the orders that holders send."""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from loopd.audit.service import AuditLog
from loopd.crypto.keys import NodeKey, encode_signature
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.ledger import accounts, lot_tables
from loopd.ledger.authority import OPERATOR, Authority
from loopd.ledger.issuance import Issuance, Issue
from loopd.ledger.movements import Phase, Transfer
from loopd.ledger.orders import read_order, signed_bytes
from loopd.ledger.service import Done, Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.settlement import Settlements
from loopd.protocol.documents import check_document, dump_json
from loopd.protocol.errors import Refusal
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.protocol.transactions import Transaction, TransactionStatus
from tests.exchange_support import CONTEXT
from tests.support import ManualClock

T = TypeVar("T")

NODE = "munich.loop"
CURRENCY = "LC-MUC"
START_MS = parse_timestamp("2026-01-15T10:00:00Z")
DAY_MS = 86_400_000
KEY = NodeKey.from_seed(bytes(range(32)))
MARIA, ANNA, BREWERY = "user:maria@munich.loop", "user:anna@munich.loop", "business:brewery@munich.loop"
FUND = accounts.fund_id(accounts.Fund.COMMUNITY, NODE)
BONUS = accounts.fund_id(accounts.Fund.BONUS, NODE)
ISSUANCE, RESERVE = accounts.issuance_id(NODE), accounts.reserve_id(NODE)


class Home:
    """The node as the ledger knows it."""

    node_id = NODE
    context_url = CONTEXT


def new_id() -> str:
    """A caller's id."""
    return str(uuid.uuid4())


def parse_day(text: str) -> int:
    """The day of `2026-11-21`, since 1970."""
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def lc(amount: str | int) -> int:
    """Hundredths of an amount."""
    return int(Decimal(amount) * 100)


class LedgerNode:
    """One node's ledger."""

    def __init__(self, database: Database, clock: ManualClock, settings: LedgerSettings) -> None:
        self.database = database
        self.clock = clock
        self.settings = settings

    async def restart(self, **changes: Any) -> None:
        """New services over the same database, as after a restart, with other settings where they are named."""
        self.settings = LedgerSettings(**{**self.settings.model_dump(), **changes})
        audit, events = AuditLog(self.clock), EventLog(self.clock)
        self.ledger = Ledger(Home(), self.settings, audit, self.clock, events)
        self.settlements = Settlements(self.ledger, audit, events)
        self.issuance = Issuance(self.ledger)
        await self.database.write(self.ledger.begin)

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def open(self, *account_ids: str, key: NodeKey | None = None) -> None:
        pem = None if key is None else key.public.to_pem()
        for account_id in account_ids:
            await self.write(lambda tx, account_id=account_id: self.ledger.open_account(tx, account_id, pem))

    async def issue(self, payee: str, amount: str | int, backing: str | int | None = None, **extras: Any) -> Done:
        """Issue with so much backing; without, as much as it takes at a rate of 1."""
        issue = Issue(extras.get("id", new_id()), payee, lc(amount), lc(amount if backing is None else backing))
        return await self.write(lambda tx: self.issuance.issue(tx, issue))

    def order(self, payer: str, payee: str, amount: str | int | Decimal, **extras: Any) -> dict[str, Any]:
        """A LoopCoinTransfer."""
        return {
            "@context": CONTEXT,
            "@type": "LoopCoinTransfer",
            "id": new_id(),
            "from": payer,
            "to": payee,
            "amount": Decimal(amount),
            "currency": CURRENCY,
            "timestamp": format_timestamp(self.clock.now_ms()),
            **extras,
        }

    async def submit(self, *orders: Mapping[str, Any], authority: Authority | None = None) -> list[Done]:
        """Carry out orders as the first one's payer, unless another authority is named."""
        read = [read_order(check_document(dump_json(order), "LoopCoinTransfer")) for order in orders]
        payer = orders[0]["from"]
        shown = authority or (OPERATOR if payer.startswith("node:") else Authority(account=payer))
        return await self.write(lambda tx: self.ledger.submit(tx, read, shown))

    async def pay(self, payer: str, payee: str, amount: str | int, **extras: Any) -> Transfer:
        return (await self.submit(self.order(payer, payee, amount, **extras)))[0].transfer

    async def hold(self, payer: str, payee: str, amount: str | int, days: int = 30, **extras: Any) -> Transfer:
        until = format_timestamp(self.clock.now_ms() + days * DAY_MS)
        return await self.pay(payer, payee, amount, hold_until=until, **extras)

    async def end(self, transfer: Transfer, phase: Phase, authority: Authority | None = None) -> None:
        shown = authority or Authority(account=transfer.payer_id)
        await self.write(lambda tx: self.ledger.end(tx, transfer.id, phase, shown))

    async def refusal(self, *orders: Mapping[str, Any], authority: Authority | None = None) -> Refusal:
        """The refusal of orders, after which the books are as they were."""
        before = await self.books()
        try:
            await self.submit(*orders, authority=authority)
        except Refusal as refusal:
            assert await self.books() == before
            return refusal
        raise AssertionError("the orders were carried out")

    def sale(
        self, base: str | int, buyer: str | None = MARIA, seller: str | None = BREWERY, **changes: Any
    ) -> Transaction:
        """A transaction inside the city."""
        costs = [lc(changes.pop(part, 0)) for part in ("export", "import_", "distance")]
        now_ms = self.clock.now_ms()
        fields = {
            "transaction_id": "TXN-2026-01-15-001",
            "subject_id": "MAT-DE-MUC-2026-FOOD-B847F3",
            "kind": SubjectKind.MATERIAL,
            "seller": NODE,
            "buyer": NODE,
            "seller_account": seller,
            "buyer_account": buyer,
            "quantity": Quantity(Decimal(500), "kg"),
            "cost": LoopCost(lc(base), *costs),
            "status": TransactionStatus.PENDING,
            "version": 1,
            "created_at_ms": now_ms,
            "changed_at_ms": now_ms,
        }
        return Transaction(**{**fields, **changes})

    async def charge(self) -> None:
        """Do all that is due."""
        while await self.write(self.ledger.charge_due):
            pass

    def balance(self, account_id: str) -> int:
        return self.ledger.require(self.database.points, account_id).balance_minor

    def available(self, account_id: str) -> int:
        return self.ledger.require(self.database.points, account_id).available_minor

    def lots(self, account_id: str) -> list[tuple[int, int, int]]:
        """Issue day, amount and what of it is held."""
        account = self.ledger.require(self.database.points, account_id)
        return [
            (lot.issue_day, lot.amount_minor, lot.held_minor)
            for lot in lot_tables.lots(self.database.points, account.number)
        ]

    async def books(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that the books hold, but the numbers and the order in which it was written down."""
        queries = {
            "transfers": "SELECT t.id, t.kind, t.phase, e.id, p.id, q.id, t.amount_minor, t.at_ms, t.link, t.digest, "
            "t.document FROM ledger_transfer t JOIN ledger_account p ON p.number = t.payer "
            "JOIN ledger_account q ON q.number = t.payee LEFT JOIN ledger_transfer e ON e.number = t.pending "
            "ORDER BY t.at_ms, t.id",
            "entries": "SELECT a.id, a.currency, t.id, e.issue_day, e.amount_minor, e.at_ms FROM ledger_entry e "
            "JOIN ledger_account a ON a.number = e.account JOIN ledger_transfer t ON t.number = e.transfer "
            "ORDER BY e.at_ms, t.id, a.id, a.currency, e.issue_day",
            "accounts": "SELECT id, currency, balance_minor, held_minor FROM ledger_account ORDER BY id, currency",
            "lots": "SELECT a.id, l.issue_day, l.amount_minor, l.held_minor FROM ledger_lot l "
            "JOIN ledger_account a ON a.number = l.account ORDER BY a.id, l.issue_day",
            "closings": "SELECT a.id, a.currency, c.day, c.balance_minor FROM ledger_closing c "
            "JOIN ledger_account a ON a.number = c.account ORDER BY a.id, a.currency, c.day",
            "holds": "SELECT t.id, h.state, h.expires_at_ms FROM ledger_hold h "
            "JOIN ledger_transfer t ON t.number = h.transfer ORDER BY t.id",
        }
        return {name: [tuple(row) for row in await self.database.all(sql)] for name, sql in queries.items()}


def signed(order: Mapping[str, Any], key: NodeKey = KEY) -> dict[str, Any]:
    """The order with a key's signature, over its form as it is read."""
    value = check_document(dump_json(order), "LoopCoinTransfer").value
    return {**order, "signature": encode_signature(key.sign(signed_bytes(value)))}


@asynccontextmanager
async def ledger_node(
    directory: Path, *, holders: Sequence[str] = (MARIA, ANNA, BREWERY), start_ms: int = START_MS, **settings: Any
) -> AsyncIterator[LedgerNode]:
    """A node's ledger with its database in `directory`, and accounts of its holders."""
    clock = ManualClock(start_ms)
    chosen = LedgerSettings(**{"currency_code": CURRENCY, **settings})
    path = directory / "loopd.db"
    async with await Database.create(path, DatabaseSettings(synchronous="NORMAL"), clock) as database:
        node = LedgerNode(database, clock, chosen)
        await node.restart()
        await node.open(*holders)
        yield node
