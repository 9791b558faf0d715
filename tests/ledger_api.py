"""The ledger's routes on listening sockets, one for the public and one for the operator, with clients of both."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.idempotency import IdempotentWriter
from loopd.api.loopcoin import LoopCoinRoutes
from loopd.api.loopcoin_admin import LedgerAdminRoutes
from loopd.api.loopcoin_settlement import LoopCoinSettlementRoutes
from loopd.api.loopcoin_transfers import TransferRoutes
from loopd.api.tokens import TokenStore
from loopd.audit.service import AuditLog
from loopd.events.service import EventLog
from loopd.ledger.clearing.room import ClearingRoom
from loopd.protocol.documents import dump_json
from tests.clearing_api import Memory
from tests.ledger_sim.city import Exchange
from tests.ledger_support import ANNA, BREWERY, MARIA, START_MS, LedgerNode, ledger_node
from tests.registry_api import HttpAnswer
from tests.served import BOTH_PLANES, served

ADMIN = "admin"
A_YEAR_S = 31_536_000
TRANSFERS = "/api/v1/loopcoin/transfers"


class LedgerApi:
    """A client of a node's ledger, as the holder of a token or as nobody."""

    def __init__(self, node: LedgerNode, session: ClientSession, tokens: Mapping[str, str]) -> None:
        self.node = node
        audit, events, exchange = AuditLog(node.clock), EventLog(node.clock), Exchange()
        self.room = ClearingRoom(node.ledger, node.settlements, node.clock, audit, events, Memory(), exchange, exchange)
        self.bases: dict[Plane, str] = {}
        self._session = session
        self._tokens = tokens

    async def get(self, path: str, who: str | None = None, **headers: str) -> HttpAnswer:
        return await self.send("GET", Plane.PUBLIC, path, None, who, headers)

    async def post(self, path: str, value: Any, who: str | None = None, **headers: str) -> HttpAnswer:
        return await self.send("POST", Plane.PUBLIC, path, value, who, headers)

    async def pay(self, payer: str, payee: str, amount: Any, who: str | None = None, **extras: Any) -> HttpAnswer:
        return await self.post(TRANSFERS, self.node.order(payer, payee, amount, **extras), who or payer)

    async def admin(self, method: str, path: str, value: Any = None) -> HttpAnswer:
        return await self.send(method, Plane.ADMIN_ADDRESS, path, value, ADMIN, {})

    async def send(
        self, method: str, plane: Plane, path: str, value: Any, who: str | None, headers: Mapping[str, str]
    ) -> HttpAnswer:
        body = value if value is None or isinstance(value, bytes) else dump_json(value)
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if who is not None:
            sent["Authorization"] = f"Bearer {self._tokens[who]}"
        async with self._session.request(method, self.bases[plane] + path, data=body, headers=sent) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def ledger_api(directory: Path, **settings: Any) -> AsyncIterator[LedgerApi]:
    """A node's ledger, served, with tokens of the operator and of three holders."""
    async with ledger_node(directory, **settings) as node, ClientSession() as session:
        store = TokenStore(node.database, node.clock)
        made = await node.write(lambda tx: store.create(tx, [ADMIN], A_YEAR_S, START_MS))
        tokens = {ADMIN: made.text}
        for account in (MARIA, ANNA, BREWERY):
            made = await node.write(
                lambda tx, account=account: store.create(tx, ["account"], A_YEAR_S, START_MS, account)
            )
            tokens[account] = made.text
        made = await node.write(lambda tx: store.create(tx, ["offer:write"], A_YEAR_S, START_MS))
        tokens["other"] = made.text
        client = LedgerApi(node, session, tokens)
        write = IdempotentWriter(node.database, node.clock).write
        routes = [
            *LoopCoinRoutes(node.ledger, node.database, node.clock).routes(),
            *TransferRoutes(node.ledger, node.database, node.clock, write).routes(),
            *LedgerAdminRoutes(node.ledger, node.issuance, node.database, write).routes(),
            *LoopCoinSettlementRoutes(node.settlements, client.room.clearing, node.database, write).routes(),
        ]
        async with served(routes, node.clock, store, planes=BOTH_PLANES) as client.bases:
            yield client
