"""The routes of settlements and netting on a listening socket, with a client that is another node or the operator."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.clearing import ClearingRoutes
from loopd.api.federate_settlement import FederateSettlementRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.loopcoin_settlement import LoopCoinSettlementRoutes
from loopd.api.netting import NettingRoutes
from loopd.api.node_effects import NodeRequestWriter
from loopd.api.tokens import TokenStore
from loopd.audit.service import AuditLog
from loopd.database import Tx
from loopd.events.service import EventLog
from loopd.ledger.clearing.messages import SETTLEMENT_PATH, settlement_id
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.clearing.room import ClearingRoom
from loopd.ledger.netting.room import make_netting
from loopd.ledger.reconciliation.service import Reconciling
from loopd.protocol.documents import dump_json
from tests.exchange_api import TrustingAuthenticator
from tests.exchange_support import CONTEXT
from tests.ledger_sim.city import Exchange, Keys
from tests.ledger_support import MARIA, START_MS, LedgerNode, ledger_node
from tests.registry_api import HttpAnswer
from tests.served import served

SUBJECT = "MAT-DE-MUC-2026-FOOD-B847F3"
CLEARING = "/api/v1/loopcoin/clearing/vienna.loop"


class Memory:
    """An outbox that nothing leaves."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        """Keep what was said."""
        self.sent.append(body)


class Client:
    """Another node, or the operator."""

    def __init__(
        self,
        node: LedgerNode,
        session: ClientSession,
        base: str,
        token: str,
        statements: dict[str, bytes],
        outbox: Memory,
    ) -> None:
        self.node = node
        self.outbox = outbox
        # What Vienna answers to each path that it is asked, and what happens while it does.
        self.statements = statements
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self._session = session
        self._base = base
        self._token = token

    async def tell(self, message: dict[str, Any], as_node: str | None = "vienna.loop") -> HttpAnswer:
        return await self._send("POST", SETTLEMENT_PATH, message, {} if as_node is None else {"X-Node-ID": as_node})

    async def statement(self, path: str = SETTLEMENT_PATH) -> HttpAnswer:
        return await self._send("GET", path, None, {"X-Node-ID": "vienna.loop"})

    async def ask(self, method: str, path: str, value: Any = None, *, authorised: bool = True) -> HttpAnswer:
        return await self._send(method, path, value, {"Authorization": f"Bearer {self._token}"} if authorised else {})

    async def _send(self, method: str, path: str, value: Any, headers: dict[str, str]) -> HttpAnswer:
        body = None if value is None else dump_json(value)
        sent = headers if body is None else {"Content-Type": "application/json", **headers}
        async with self._session.request(method, self._base + path, data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def client_of(directory: Path, **settings: Any) -> AsyncIterator[Client]:
    """Munich, whose Maria bid for Vienna's material, served."""
    async with ledger_node(directory, **{"credit_limits": {"vienna.loop": 500}, **settings}) as node:
        exchange = Exchange({SUBJECT: Consent("bid-1", 10400)})
        audit, events = AuditLog(node.clock), EventLog(node.clock)
        outbox = Memory()
        room = ClearingRoom(node.ledger, node.settlements, node.clock, audit, events, outbox, exchange, exchange)
        netting = make_netting(node.ledger, room.clearing, node.clock, Keys("munich.loop"), audit, events, outbox)
        statements: dict[str, bytes] = {}
        clients: list[Client] = []

        async def read(node_id: str, path: str) -> bytes | None:
            if clients and clients[0].meanwhile is not None:
                await clients[0].meanwhile()
            return statements.get(path)

        reconciling = Reconciling(node.ledger.node.node_id, room.clearing, node.database, read)
        store = TokenStore(node.database, node.clock)
        token = (await node.write(lambda tx: store.create(tx, ["admin"], 3600, START_MS))).text
        once = NodeRequestWriter(node.database, node.clock).accept_once
        write = IdempotentWriter(node.database, node.clock).write
        routes = [
            *FederateSettlementRoutes(room.clearing, netting, reconciling, node.database, once).routes(),
            *ClearingRoutes(room.clearing, netting, reconciling, node.database, write).routes(),
            *NettingRoutes(netting, node.database, write).routes(),
            *LoopCoinSettlementRoutes(node.settlements, room.clearing, node.database, write).routes(),
        ]
        async with (
            served(routes, node.clock, store, node_authenticator=TrustingAuthenticator()) as bases,
            ClientSession() as session,
        ):
            clients.append(Client(node, session, bases[Plane.PUBLIC], token, statements, outbox))
            yield clients[0]


def transaction(number: int) -> str:
    """The transaction of a settlement that Vienna asks for."""
    return f"TXN-2026-01-15-{number:03d}"


def message(entity: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    asked = {"transaction": transaction(number)} if entity in ("Request", "Inquiry") else {}
    return {
        "@context": CONTEXT,
        "@type": f"Settlement{entity}",
        "payer": "munich.loop",
        "payee": "vienna.loop",
        "id": settlement_id("vienna.loop", transaction(number)),
        **asked,
        **fields,
    }


def request(number: int = 1, **changes: Any) -> dict[str, Any]:
    names = ("seller_receives", "seller_community_fund", "buyer_community_fund", "transport_cost", "residual")
    fields = {
        "material": SUBJECT,
        "buyer_account": MARIA,
        "seller_account": "business:bakery@vienna.loop",
        "currency": "LC-VIE",
        "backed_by": "EUR",
        "exchange_rate": 1,
        "lines": dict(zip(names, (36, 24, 12, 8, 24), strict=True)),
    }
    return message("Request", number, **{**fields, **changes})
