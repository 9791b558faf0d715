"""kill -9 while clients register over the API: what was answered is there, and nothing is there by half."""

import asyncio
import http.client
import json
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from loopd.audit.service import AuditLog
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings
from tests.nodes import DOCUMENT, RunningNode, material, running, send

ROUNDS = 10
CLIENTS = 6
# All that one registration leaves behind, each named by the material's id.
LEFT_BEHIND = {
    "records": "SELECT subject_id FROM record",
    "audit entries": "SELECT subject FROM audit_entry WHERE kind = 'registration'",
    "events": "SELECT subject FROM event WHERE kind = 'material.registered'",
    "announcements": "SELECT subject FROM own_announcement",
    "messages": "SELECT subject FROM message",
    "outbox entries": "SELECT m.subject FROM outbox JOIN message m USING (message_id)",
}


def register_until_cut_off(node: RunningNode, token: str) -> list[dict[str, Any]]:
    """Register over one connection until it breaks; the documents that were answered 201."""
    answered = []
    headers = {"Content-Type": DOCUMENT, "Authorization": f"Bearer {token}"}
    with closing(node.connection()) as connection:
        try:
            while True:
                document = material(node.city)
                answer = send(connection, "POST", "/api/v1/material", json.dumps(document).encode(), headers)
                assert answer.status == 201, answer.body
                answered.append(document)
        except (OSError, http.client.HTTPException):
            return answered


def one_round(node: RunningNode, token: str, alive_s: float) -> list[dict[str, Any]]:
    """Let clients register, and kill the daemon that long after they began."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(register_until_cut_off, node, token) for _ in range(CLIENTS)]
        time.sleep(alive_s)
        node.kill9()
        return [document for client in clients for document in client.result()]


def left_behind(node: RunningNode) -> dict[str, list[str]]:
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return {name: sorted(row[0] for row in connection.execute(sql)) for name, sql in LEFT_BEHIND.items()}


async def chain_breaks_at(node: RunningNode) -> int | None:
    clock = SystemClock()
    database = await Database.open(node.root / "loopd.db", DatabaseSettings(), clock)
    async with database, database.snapshot() as reader:
        return (await AuditLog(clock).verify(reader)).first_break


def test_every_answered_registration_survives_and_none_is_half(tmp_path: Path) -> None:
    node = RunningNode.init(tmp_path, "a")
    moments = random.Random(20261121)
    answered: list[dict[str, Any]] = []
    with running(node):
        token = node.token("material:write")
        for _ in range(ROUNDS):
            answered += one_round(node, token, moments.uniform(0.02, 0.4))
            found = left_behind(node)
            ids = found["records"]
            assert {name: rows for name, rows in found.items() if rows != ids} == {}
            assert {document["id"] for document in answered} <= set(ids)
            assert asyncio.run(chain_breaks_at(node)) is None
            node.start()
        assert len(answered) > ROUNDS * CLIENTS
        with closing(node.connection()) as connection:
            for document in answered:
                kept = send(connection, "GET", f"/api/v1/material/{document['id']}").json()
                assert kept | document == kept
