"""The routes of Offers, Matches, Transfers and transactions, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.exchange_entities import ExchangeEntityRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.tokens import TokenStore
from loopd.protocol.schemas import is_valid
from tests.lifecycle_support import (
    CONTEXT,
    DAY_MS,
    MATCH,
    MATERIAL,
    NOW_MS,
    OFFER,
    TRANSACTION,
    TRANSFER,
    SellerNode,
    entity_id,
    match_value,
    offer_value,
    seller_node,
    transaction_value,
    transfer_value,
)
from tests.registry_api import HttpAnswer
from tests.served import served

VALUES = {OFFER: offer_value, MATCH: match_value, TRANSFER: transfer_value, TRANSACTION: transaction_value}


class Api:
    """A client of a seller's node, with a token that may write offers."""

    def __init__(self, node: SellerNode, session: ClientSession, base: str, token: str) -> None:
        self.node = node
        self._session = session
        self._base = base
        self._token = token

    async def get(self, path: str) -> HttpAnswer:
        return await self._send("GET", path, None, {})

    async def post(self, path: str, value: Any, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        sent = {"Authorization": f"Bearer {self._token}"} if headers is None else dict(headers)
        return await self._send("POST", path, json.dumps(value).encode(), sent)

    async def make(self, *entities: Any) -> None:
        for entity in entities:
            answer = await self.post(f"/api/v1/{entity.value}", VALUES[entity]())
            assert answer.status == 201, answer.body

    async def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HttpAnswer:
        if body is not None:
            headers["Content-Type"] = "application/ld+json"
        async with self._session.request(method, self._base + path, data=body, headers=headers) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def entity_api(directory: Path) -> AsyncIterator[Api]:
    """A node with its material registered, and a client of it."""
    async with seller_node(directory) as node, ClientSession() as session:
        await node.register()
        tokens = TokenStore(node.database, node.clock)
        token = await node.write(lambda tx: tokens.create(tx, ["offer:write"], DAY_MS // 1000, NOW_MS))
        write = IdempotentWriter(node.database, node.clock).write
        routes = ExchangeEntityRoutes(node.lifecycle, node.database, write).routes()
        async with served(routes, node.clock, tokens) as bases:
            yield Api(node, session, bases[Plane.PUBLIC], token.text)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with entity_api(tmp_path) as client:
        yield client


async def test_from_an_offer_to_a_delivered_transaction(api: Api) -> None:
    for entity, answered in ((OFFER, "Offer"), (MATCH, "Match"), (TRANSFER, "Transfer"), (TRANSACTION, None)):
        path = f"/api/v1/{entity.value}"
        made = await api.post(path, VALUES[entity]())
        assert (made.status, made.headers["Content-Type"]) == (201, "application/ld+json"), made.body
        assert made.headers["Location"] == f"{path}/{entity_id(entity)}"
        assert is_valid(answered or "TransactionStatus", made.json)
        again = await api.post(path, VALUES[entity]())
        assert again.status == 200
        read = await api.get(f"{path}/{entity_id(entity)}")
        assert (read.status, read.json) == (200, again.json)
        other = await api.post(path, VALUES[entity](metadata={"other": True}))
        assert (other.status, other.reason) == (409, "other_content")
    for status in ("in_transit", "completed"):
        moved = await api.post(f"/api/v1/transfer/{entity_id(TRANSFER)}/status", {"status": status})
        assert (moved.status, moved.json["status"]) == (200, status)
    sale = (await api.get(f"/api/v1/transaction/{entity_id(TRANSACTION)}")).json
    assert sale["status"] == "delivered"
    settlement = await api.get(sale["settlement_url"])
    assert (settlement.status, settlement.json["names_accounts"], settlement.json["final_cost"]) == (200, False, 104)


async def test_a_change_of_status_answers_as_documented(api: Api) -> None:
    await api.make(OFFER, MATCH)
    path = f"/api/v1/match/{entity_id(MATCH)}/status"
    for body, status, reason in (
        ({"status": "rejected"}, 409, "transition"),
        ({"status": "sold"}, 400, "schema"),
        ({"status": "rejected", "resaon": "no truck"}, 400, "schema"),
        ({}, 400, "schema"),
        ({"status": "expired", "reason": "call +49 89 1234567"}, 400, "personal_data"),
        ({"status": "expired", "reason": "x" * 281}, 400, "schema"),
    ):
        before = await api.node.dump()
        answer = await api.post(path, body)
        assert (answer.status, answer.reason) == (status, reason)
        assert await api.node.dump() == before
    assert (await api.post(path, {"status": "expired"}, {})).status == 401
    ended = await api.post(path, {"status": "expired", "reason": "no truck"})
    assert (ended.status, ended.json["reason"]) == (200, "no truck")
    assert (await api.post(path, {"status": "expired"})).reason == "terminal"
    unknown = await api.post("/api/v1/match/UNKNOWN-1/status", {"status": "expired"})
    assert (unknown.status, unknown.reason) == (404, "unknown_match")


async def test_a_repeated_change_with_its_key_has_one_effect(api: Api) -> None:
    await api.make(OFFER, MATCH)
    token = {"Authorization": f"Bearer {api._token}", "Idempotency-Key": "once"}
    path = f"/api/v1/match/{entity_id(MATCH)}/status"
    first, second = [await api.post(path, {"status": "expired"}, token) for _ in range(2)]
    assert (first.status, second.status, second.body) == (200, 200, first.body)


async def test_a_transaction_status_moves_a_transaction(api: Api) -> None:
    await api.make(OFFER, MATCH, TRANSACTION)
    told = {
        "@context": CONTEXT,
        "@type": "TransactionStatus",
        "transaction_id": entity_id(TRANSACTION),
        "status": "confirmed",
        "updated_at": "2026-09-21T12:00:00Z",
        "details": {"notes": "truck at eight"},
    }
    path = f"/api/v1/transaction/{entity_id(TRANSACTION)}/status"
    moved = await api.post(path, told)
    assert (moved.status, moved.json["status"], moved.json["details"]) == (200, "confirmed", told["details"])
    for body, reason in (
        ({**told, "updated_at": "yesterday"}, "schema"),
        ({**told, "transaction_id": "TXN-2026-01-01-999"}, "other_transaction"),
        ({"status": "in_transit", "details": {"notes": "x" * 501}}, "schema"),
        ({"status": "in_transit", "details": {"location": {"lat": "north"}}}, "schema"),
    ):
        before = await api.node.dump()
        refused = await api.post(path, body)
        assert (refused.status, refused.reason) == (400, reason)
        assert await api.node.dump() == before


@pytest.mark.parametrize("entity", [OFFER, MATCH, TRANSFER, TRANSACTION])
async def test_lists_and_history(api: Api, entity: Any) -> None:
    await api.make(OFFER, MATCH, TRANSFER, TRANSACTION)
    path = f"/api/v1/{entity.value}"
    page = (await api.get(path)).json
    assert (len(page["results"]), page["next"]) == (1, None)
    status = page["results"][0]["status"]
    assert (await api.get(f"{path}?status={status}&material={MATERIAL}")).json["results"] == page["results"]
    assert (await api.get(f"{path}?product=PRD-DE-MUC-2026-DESK-F4A7B2")).json["results"] == []
    assert (await api.get(f"{path}?status=gone")).reason == "unknown_status"
    history = (await api.get(f"{path}/{entity_id(entity)}/history")).json["results"]
    assert [change["version"] for change in history] == list(range(1, len(history) + 1))
    assert history[-1]["document"] == page["results"][0]
    assert (await api.get(f"{path}/UNKNOWN-1/history")).reason == f"unknown_{entity.value}"


async def test_a_list_is_followed_by_next(api: Api) -> None:
    for number in range(5):
        await api.node.offer(number)
    seen, path = [], "/api/v1/offer?limit=2&status=open"
    while path is not None:
        page = (await api.get(path)).json
        seen += [entry["id"] for entry in page["results"]]
        path = page["next"]
    assert seen == [entity_id(OFFER, number) for number in reversed(range(5))]


async def test_of_a_hundred_matches_of_one_offer_one_is_made(api: Api) -> None:
    await api.make(OFFER)
    attempts = [match_value(number, offer_id=entity_id(OFFER)) for number in range(100)]
    answers = await asyncio.gather(*(api.post("/api/v1/match", value) for value in attempts))
    statuses = [answer.status for answer in answers]
    assert (statuses.count(201), statuses.count(409)) == (1, 99)
    assert {answer.reason for answer in answers if answer.status == 409} == {"already_matched"}
    assert api.node.left() == 300


async def test_of_many_matches_at_once_no_more_is_promised_than_there_is(api: Api) -> None:
    for number in range(20):
        await api.node.offer(number, quantity={"value": 30, "unit": "kg"})
    answers = await asyncio.gather(*(api.post("/api/v1/match", match_value(number)) for number in range(20)))
    assert sorted(answer.status for answer in answers) == [201] * 16 + [409] * 4
    assert {answer.reason for answer in answers if answer.status == 409} == {"quantity_above_available"}
    assert api.node.left() == 20
