"""The whole node, put together: what its own listeners show, and that it ends in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientSession

from loopd.api.settings import ApiSettings
from loopd.api.tokens import TokenStore
from loopd.audit.service import AuditLog
from loopd.clock import SystemClock
from loopd.daemon import Node
from loopd.database import Database, DatabaseSettings
from loopd.directory import NodeDirectory
from loopd.events.service import EventLog
from loopd.federation import nodes
from loopd.ledger.refusals import UnusableLedger
from loopd.ledger.service import Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.net.http_client import PeerClient
from loopd.protocol.signing import ANNOUNCE_PATH, X_LOOP_TTL
from loopd.settings import NodeSettings, Settings
from tests.federation_support import (
    MUNICH,
    VIENNA,
    Network,
    NetworkClient,
    admission_of,
    identity_of,
    message_of,
    signed_headers,
)

ORIGIN = identity_of("vienna.loop", VIENNA)


class Running:
    """A node on listening sockets, and a client with an admin's token."""

    def __init__(self, node: Node, database: Database, session: ClientSession) -> None:
        self.node = node
        self.database = database
        self.session = session
        self.public = ""
        self.admin = ""
        self.token = ""

    async def get(self, path: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(self.admin + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def ask(self, method: str, path: str, value: Any = None, token: str | None = None) -> tuple[int, Any]:
        """A request on the operator's plane, or on the public one with the token of somebody else."""
        if token is not None:
            return await self.ask_publicly(method, path, value, token)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.request(method, self.admin + path, json=value, headers=headers) as answer:
            return answer.status, await answer.json() if answer.status != 204 else None

    async def ask_publicly(self, method: str, path: str, value: Any, token: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.session.request(method, self.public + path, json=value, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)


@asynccontextmanager
async def running(directory: Path, **sections: Any) -> AsyncIterator[Running]:
    identity, clock = identity_of("munich.loop", MUNICH), SystemClock()
    place = {"lat": MUNICH.lat, "lon": MUNICH.lon}
    own = NodeSettings(
        id="munich.loop", name="Munich", city="Munich", country="DE", endpoint=identity.endpoint, **place
    )
    settings = Settings(node=own, api=ApiSettings(admin_listen="127.0.0.1:9444"), **sections)
    async with (
        await Database.create(directory / "loopd.db", DatabaseSettings(), clock) as database,
        ClientSession() as session,
    ):
        client = cast(PeerClient, NetworkClient(Network(), "munich.loop"))
        node = Node(NodeDirectory(directory), settings, identity, database, client, client)
        found = Running(node, database, session)
        store = TokenStore(database, clock)
        token = await database.write(lambda tx: store.create(tx, ["admin"], 3600, clock.now_ms()))
        found.token = token.text
        await node.prepare()
        public, admin = node.apps()
        found.public, found.admin = [
            f"http://127.0.0.1:{(await app.listen_tcp('127.0.0.1', 0))[1]}" for app in (public, admin)
        ]
        await node.start(public)
        try:
            yield found
        finally:
            await public.close(1.0)
            await admin.close(1.0)
            await node.stop()


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


async def announce(node: Running, **headers_over: str) -> int:
    """One announcement, made now; `headers_over` replace its hop headers."""
    now_ms = SystemClock().now_ms()
    message = message_of(ORIGIN, now_ms=now_ms)
    headers = dict(signed_headers(ORIGIN, ANNOUNCE_PATH, message.body, now_ms, "munich.loop"))
    headers |= {"Content-Type": "application/ld+json", **message.hop_headers(3), **headers_over}
    async with node.session.post(node.public + ANNOUNCE_PATH, data=message.body, headers=headers) as answer:
        return answer.status


async def test_decisions_are_counted_by_reason(munich: Running) -> None:
    admission = admission_of(ORIGIN)
    await munich.database.write(lambda tx: nodes.admit(tx, admission, 0))
    assert [await announce(munich, **headers) for headers in ({X_LOOP_TTL: "9"}, {}, {})] == [400, 202, 202]
    status, text = await munich.get("/metrics")
    assert status == 200
    assert 'loopd_announcements_total{reason="accepted"} ' in text
    assert "loopd_http_requests_total" in text
    _, shown = await munich.ask("GET", "/admin/v1/status")
    assert shown["announcements"]["accepted"] >= 1
    assert shown["announcements"]["bad_hop"] == 1


async def test_the_status_names_the_node_its_counts_and_its_peers(munich: Running) -> None:
    status, shown = await munich.ask("GET", "/admin/v1/status")
    assert status == 200
    assert (shown["node"], shown["materials_active"], shown["peers"], shown["queued"]) == ("munich.loop", 0, {}, 0)
    assert shown["fingerprint"] == identity_of("munich.loop").key.public.fingerprint


async def test_making_and_revoking_a_token_is_audited(munich: Running) -> None:
    status, made = await munich.ask("POST", "/admin/v1/tokens", {"scopes": ["offer:write"], "ttl_s": 60})
    assert status == 201
    assert (await munich.ask("DELETE", f"/admin/v1/tokens/{made['id']}"))[0] == 204
    rows = await munich.database.all(
        "SELECT payload FROM audit_entry WHERE kind = 'operator' AND subject = ? ORDER BY sequence",
        (f"token:{made['id']}",),
    )
    assert [b"token_created" in row["payload"] for row in rows] == [True, False]
    assert b"token_revoked" in rows[1]["payload"]
    assert all(made["token"].encode() not in row["payload"] for row in rows)


async def test_what_is_being_noted_of_tokens_is_written_before_the_database_closes(tmp_path: Path) -> None:
    async with running(tmp_path) as munich:
        assert (await munich.get("/metrics"))[0] == 200
    async with await Database.open(tmp_path / "loopd.db", DatabaseSettings(), SystemClock()) as database:
        row = await database.one("SELECT last_used_at_ms FROM api_token")
        assert row is not None
        assert row["last_used_at_ms"] is not None


async def test_a_backup_is_a_file_that_opens_and_none_is_overwritten(munich: Running, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    assert (await munich.ask("POST", "/admin/v1/backup", {"file": str(target)}))[0] == 200
    async with await Database.open(target, DatabaseSettings(), SystemClock()) as copy:
        assert await copy.one("SELECT 1 FROM api_token") is not None
    refusals = [
        ({"file": str(target)}, 409),
        ({"file": "relative.db"}, 400),
        ({"file": str(tmp_path / "no" / "x")}, 409),
    ]
    for value, expected in refusals:
        assert (await munich.ask("POST", "/admin/v1/backup", value))[0] == expected


async def test_the_operators_routes_for_peers(munich: Running) -> None:
    admission = admission_of(ORIGIN)
    await munich.database.write(lambda tx: nodes.admit(tx, admission, 0))
    _, shown = await munich.ask("GET", "/admin/v1/peers")
    assert [peer["id"] for peer in shown["peers"]] == ["vienna.loop"]
    peer = "/admin/v1/peers/vienna.loop"
    assert await munich.ask("POST", f"{peer}/suspend") == (200, {"peer": "vienna.loop", "status": "suspended"})
    assert (await munich.ask("POST", f"{peer}/suspend"))[0] == 404
    assert await munich.ask("POST", f"{peer}/resume") == (200, {"peer": "vienna.loop", "status": "peer"})
    assert await munich.ask("DELETE", peer) == (200, {"peer": "vienna.loop", "status": "removed"})
    assert (await munich.ask("DELETE", peer))[0] == 404
    for value, expected in (
        ({"url": "https://nobody.loop"}, (409, "handshake_failed")),
        ({"url": "http://nobody.loop"}, (400, "bad_endpoint")),
        ({"url": 7}, (400, "schema")),
        ({"url": "https://nobody.loop", "auth": "trust"}, (400, "schema")),
        ({"url": "https://nobody.loop", "more": 1}, (400, "schema")),
        ([], (400, "schema")),
    ):
        status, answer = await munich.ask("POST", "/admin/v1/peers", value)
        assert (status, answer["error"]["details"]["reason"]) == expected
    status, answer = await munich.ask("POST", f"{peer}/approve")
    assert (status, answer["error"]["details"]["reason"]) == (409, "handshake_failed")


MARIA, BREWERY = "user:maria@munich.loop", "business:brewery@munich.loop"
GRAIN = {
    "@context": "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld",
    "@type": "MaterialDNA",
    "schema_version": "0.2.0",
    "id": "MAT-DE-MUC-2026-FOOD-B847F3",
    "category": "organic-food",
    "quantity": {"value": 500, "unit": "kg"},
    "origin_city": "Munich",
    "current_city": "Munich",
    "available_from": "2026-05-27T08:00:00Z",
    "metadata": {"seller_account": BREWERY},
}


async def test_a_sale_inside_the_city_is_held_delivered_and_paid(tmp_path: Path) -> None:
    async with running(tmp_path, ledger=LedgerSettings(currency_code="LC-MUC")) as node:
        for account in (MARIA, BREWERY):
            assert (await node.ask("POST", "/admin/v1/ledger/accounts", {"id": account}))[0] == 201
        issue = {"id": "550e8400-e29b-41d4-a716-446655440000", "to": MARIA, "amount": 100, "backing": 100}
        assert (await node.ask("POST", "/api/v1/loopcoin/issuance", issue))[0] == 201
        tokens = {}
        for account in (MARIA, BREWERY):
            wanted = {"scopes": ["offer:write", "account"], "account": account}
            tokens[account] = (await node.ask("POST", "/admin/v1/tokens", wanted))[1]["token"]
        assert (await node.ask("POST", "/api/v1/material", GRAIN))[0] == 201
        path = f"/api/v1/material/{GRAIN['id']}"
        bid = {"bidder": "munich-farm", "base_price": 60, "buyer_account": MARIA}
        status, refusal = await node.ask("POST", f"{path}/offers", bid, tokens[BREWERY])
        assert (status, refusal["error"]["details"]["reason"]) == (403, "not_authorised")
        assert (await node.ask("POST", f"{path}/offers", bid, tokens[MARIA]))[0] == 201
        assert (await node.ask("POST", f"{path}/select", {}))[0] == 200
        account = f"/api/v1/loopcoin/accounts/{MARIA}"
        assert (await node.ask("GET", account))[1]["available"] == 40
        sale_id = (await node.ask("GET", "/api/v1/transaction"))[1]["results"][0]["transaction_id"]
        match = (await node.ask("GET", "/api/v1/match"))[1]["results"][0]
        transfer = {
            "@context": GRAIN["@context"],
            "@type": "Transfer",
            "schema_version": "0.2.0",
            "id": "TRANSFER-0001",
            "material_id": GRAIN["id"],
            "match_id": match["id"],
            "status": "scheduled",
            "handoff_at": "2026-05-28T08:00:00Z",
        }
        await node.ask("POST", "/api/v1/transfer", transfer)
        made = (await node.ask("GET", "/api/v1/transfer"))[1]["results"][0]
        for step in ("in_transit", "completed"):
            status, answer = await node.ask("POST", f"/api/v1/transfer/{made['id']}/status", {"status": step})
            assert status == 200, answer
        assert (await node.ask("GET", f"/api/v1/transaction/{sale_id}"))[1]["status"] == "completed"
        settled = (await node.ask("GET", f"/api/v1/loopcoin/settlement/{sale_id}"))[1]
        assert (settled["final_cost"], settled["payment"]["state"]) == (60, "posted")
        assert (await node.ask("GET", account))[1]["balance"] == 40
        card = (await node.ask("GET", "/api/v1/node/info"))[1]
        assert ("loopcoin" in card["capabilities"], card["statistics"]["loopcoin_supply"]) == (True, 100)


async def test_without_a_ledger_the_card_has_no_loopcoin(munich: Running) -> None:
    card = (await munich.ask("GET", "/api/v1/node/info"))[1]
    assert "loopcoin" not in card["capabilities"]
    assert "loopcoin_supply" not in card["statistics"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"scopes": ["account"]},
        {"scopes": ["offer:write"], "account": MARIA},
        {"scopes": ["account"], "account": "node:community-fund@munich.loop"},
        {"scopes": ["account"], "account": "maria"},
    ],
)
async def test_a_token_of_the_scope_account_names_one_and_no_other_does(
    munich: Running, wanted: dict[str, Any]
) -> None:
    status, refusal = await munich.ask("POST", "/admin/v1/tokens", wanted)
    assert (status, refusal["error"]["details"]["reason"]) == (400, "bad_account")


async def test_a_currency_that_the_books_do_not_have_keeps_the_node_from_starting(tmp_path: Path) -> None:
    async with running(tmp_path, ledger=LedgerSettings(currency_code="LC-MUC")) as node:
        audit, events = AuditLog(SystemClock()), EventLog(SystemClock())
        other = LedgerSettings(currency_code="LC-VIE")
        ledger = Ledger(identity_of("munich.loop", MUNICH), other, audit, SystemClock(), events)
        with pytest.raises(UnusableLedger, match="LC-MUC"):
            await node.database.write(ledger.begin)
