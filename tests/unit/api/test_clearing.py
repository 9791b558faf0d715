"""The routes of settlements between cities, for other nodes and for the operator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.app import ApiServices, build_app
from loopd.api.clearing import ClearingRoutes
from loopd.api.docs import ApiIdentity
from loopd.api.federate_settlement import FederateSettlementRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.node_effects import NodeRequestWriter
from loopd.api.openapi import entity_schemas
from loopd.api.settings import ApiSettings
from loopd.api.tokens import TokenStore
from loopd.audit.service import AuditLog
from loopd.database import Tx
from loopd.events.service import EventLog
from loopd.ledger.clearing.messages import SETTLEMENT_PATH
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.clearing.reconciling import Reconciling
from loopd.ledger.clearing.room import ClearingRoom
from loopd.protocol.documents import dump_json
from loopd.protocol.schemas import ENTITIES_BY_FILE, schema_file
from tests.clearing_nodes import Told
from tests.exchange_api import TrustingAuthenticator
from tests.exchange_support import CONTEXT
from tests.ledger_support import MARIA, START_MS, LedgerNode, ledger_node
from tests.registry_api import HttpAnswer

SUBJECT = "MAT-DE-MUC-2026-FOOD-B847F3"
CLEARING = "/api/v1/loopcoin/clearing/vienna.loop"


class Memory:
    """An outbox that nothing leaves."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        """Keep nothing."""


class Client:
    """Another node, or the operator."""

    def __init__(
        self, node: LedgerNode, session: ClientSession, base: str, token: str, statements: dict[str, bytes]
    ) -> None:
        self.node = node
        # What Vienna answers to each path that it is asked.
        self.statements = statements
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
        told = Told({SUBJECT: Consent("bid-1", 10400)})
        audit, events = AuditLog(node.clock), EventLog(node.clock)
        room = ClearingRoom(node.ledger, node.settlements, node.clock, audit, events, Memory(), told, told)
        statements: dict[str, bytes] = {}

        async def read(node_id: str, path: str) -> bytes | None:
            return statements.get(path)

        reconciling = Reconciling(node.ledger.node.node_id, room.clearing, node.database, read)
        store = TokenStore(node.database, node.clock)
        token = (await node.write(lambda tx: store.create(tx, ["admin"], 3600, START_MS))).text
        once = NodeRequestWriter(node.database, node.clock).accept_once
        write = IdempotentWriter(node.database, node.clock).write
        routes = [
            *FederateSettlementRoutes(room.clearing, reconciling, node.database, once).routes(),
            *ClearingRoutes(room.clearing, reconciling, node.database, write).routes(),
        ]
        services = ApiServices(
            settings=ApiSettings(user_requests_per_minute=0, node_requests_per_minute=0),
            clock=node.clock,
            tokens=store,
            identity=ApiIdentity(title="Munich", version="0.1.0", base_url="https://munich.example"),
            schemas=entity_schemas(schema_file(name) for name in ENTITIES_BY_FILE),
            node_authenticator=TrustingAuthenticator(),
        )
        app = build_app(routes, Plane.PUBLIC, services)
        host, port = await app.listen_tcp("127.0.0.1", 0)
        try:
            async with ClientSession() as session:
                yield Client(node, session, f"http://{host}:{port}", token, statements)
        finally:
            await app.close(1.0)


def message(entity: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "@context": CONTEXT,
        "@type": f"Settlement{entity}",
        "payer": "munich.loop",
        "payee": "vienna.loop",
        "id": f"00000000-0000-4000-8000-{number:012x}",
        **fields,
    }


def request(number: int = 1, **changes: Any) -> dict[str, Any]:
    names = ("seller_receives", "seller_community_fund", "buyer_community_fund", "transport_cost", "residual")
    fields = {
        "transaction": f"TXN-2026-01-15-{number:03d}",
        "material": SUBJECT,
        "buyer_account": MARIA,
        "seller_account": "business:bakery@vienna.loop",
        "currency": "LC-VIE",
        "backed_by": "EUR",
        "exchange_rate": 1,
        "lines": dict(zip(names, (36, 24, 12, 8, 24), strict=True)),
    }
    return message("Request", number, **{**fields, **changes})


async def test_a_request_holds_the_money_and_is_taken_once(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        for _ in range(2):
            answer = await client.tell(request())
            assert answer.status == 202
        assert client.node.available(MARIA) == 9600
        shown = (await client.ask("GET", CLEARING)).json
        assert (shown["currency"], shown["owes"], shown["credit_limit"]) == ("LC-MUC", 0, 500)
        [settlement] = shown["results"]
        assert (settlement["state"], settlement["payer_amount"], settlement["transaction"]) == (
            "held",
            92,
            "TXN-2026-01-15-001",
        )


async def test_a_dispute_is_resolved_by_the_operator(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        resolve = f"{CLEARING}/settlements/{request()['id']}/resolve"
        assert (await client.ask("POST", resolve, {"decision": "void"})).reason == "unknown_settlement"
        await client.tell(request())
        assert (await client.ask("POST", resolve, {"decision": "void"})).reason == "not_frozen"
        await client.tell(message("Inquiry", asks="freeze"))
        assert (await client.ask("POST", resolve, {"decision": "post"})).reason == "not_prepared"
        await client.tell(message("Answer", answer="prepared"))
        assert (await client.ask("POST", resolve, {"decision": "keep"})).status == 400
        assert (await client.ask("POST", resolve, {"decision": "post"}, authorised=False)).status == 401
        for _ in range(2):
            answer = await client.ask("POST", resolve, {"decision": "post"})
            assert (answer.status, answer.json["state"]) == (200, "posted")
        assert (await client.ask("POST", resolve, {"decision": "void"})).reason == "already_posted"
        assert client.node.balance(MARIA) == 9600


async def test_what_another_node_may_not_say_is_refused(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        await client.tell(request())
        before = await client.node.books()
        other_lines = {**request()["lines"], "residual": 25}
        finer = {**request()["lines"], "residual": Decimal("24.001")}
        for told, as_node, status, reason in (
            (request(2), None, 401, "missing_header"),
            (request(2), "linz.loop", 400, "origin_mismatch"),
            ({**request(2), "payee": "linz.loop"}, "linz.loop", 403, "not_settling"),
            ({**request(2), "payer": "graz.loop"}, "vienna.loop", 400, "not_counterpart"),
            (request(2, lines=finer), "vienna.loop", 400, "bad_amount"),
            (request(2, lines={**request()["lines"], "residual": -1}), "vienna.loop", 400, "schema"),
            (request(lines=other_lines), "vienna.loop", 409, "other_content"),
            (request(2, transaction="TXN-2026-01-15-001"), "vienna.loop", 409, "other_content"),
            (message("Acknowledgement", decision="post"), "vienna.loop", 409, "not_decided"),
            (message("Answer", 7, answer="prepared"), "vienna.loop", 409, "unknown_settlement"),
            ({**request(2), "note": "more"}, "vienna.loop", 400, "schema"),
        ):
            answer = await client.tell(told, as_node)
            assert (answer.status, answer.reason) == (status, reason)
        assert await client.node.books() == before


async def test_pages_of_a_clearing_account(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        for number in (1, 2, 3):
            await client.tell(request(number))
        first = (await client.ask("GET", f"{CLEARING}?limit=2")).json
        second = (await client.ask("GET", first["next"])).json
        ids = [each["transaction"][-3:] for each in (*first["results"], *second["results"])]
        assert (ids, second["next"]) == (["003", "002", "001"], None)
        assert first["results"][0]["reason"] == "insufficient_funds"
        assert (await client.ask("GET", CLEARING, authorised=False)).status == 401
        assert (await client.ask("GET", CLEARING.replace("vienna", "linz"))).reason == "unknown_peer"


@pytest.mark.parametrize("path", [CLEARING, f"{CLEARING}/settlements/{request()['id']}/resolve"])
async def test_without_a_ledger_nothing_is_there(tmp_path: Path, path: str) -> None:
    async with client_of(tmp_path, holders=(), currency_code=None) as client:
        value = {"decision": "void"} if path.endswith("resolve") else None
        assert (await client.ask("GET" if value is None else "POST", path, value)).reason == "no_ledger"
        assert (await client.tell(request())).reason == "no_ledger"


async def test_both_sides_books_are_compared(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        reconcile, first = f"{CLEARING}/reconcile", f"{SETTLEMENT_PATH}?limit=100"
        assert (await client.ask("POST", reconcile)).reason == "peer_unreachable"
        client.statements[first] = b'{"results": [{"payer": 1}], "next": null}'
        assert (await client.ask("POST", reconcile)).reason == "peer_unreachable"
        await client.node.issue(MARIA, 200)
        await client.tell(request())
        await client.tell(message("Answer", answer="prepared"))
        own = (await client.statement()).json
        [entry] = own["results"]
        assert (entry["state"], entry["payer_amount"], own["next"]) == ("prepared", 92, None)
        for results, told in (
            ([entry], None),
            ([{**entry, "state": "posted"}], None),
            ([{**entry, "payee_amount": 93}], "other_amounts"),
            ([], "missing_there"),
            ([entry, {**entry, "id": "00000000-0000-4000-8000-000000000009", "state": "posted"}], "missing_here"),
        ):
            client.statements[first] = dump_json({"results": results, "next": None})
            found = (await client.ask("POST", reconcile)).json
            assert found["agrees"] == (told is None)
            assert (found["difference"] or {}).get("reason") == told
        assert (await client.ask("POST", reconcile, authorised=False)).status == 401
        assert (await client.ask("POST", reconcile.replace("vienna", "linz"))).reason == "unknown_peer"
