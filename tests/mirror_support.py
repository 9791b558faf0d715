"""Two nodes that mirror each other's deals, and what lies between them: lost, repeated, out of order, or dead."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, RowSource, Tx
from loopd.events.service import EventLog
from loopd.exchange import mirror_tables as tables
from loopd.exchange.mirror_keeper import MirrorKeeper
from loopd.exchange.mirror_requests import StatusRequests
from loopd.exchange.mirror_rules import REQUEST_TYPE, UPDATE_TYPE, EntityKey
from loopd.exchange.mirror_telling import MirrorPage, MirrorTelling
from loopd.exchange.mirroring import Mirroring
from loopd.exchange.ports import NodeAnswer
from loopd.exchange.views import MIRROR_PATH
from loopd.federation.outbox import Outbox
from loopd.protocol.documents import check_document, read_json
from loopd.protocol.errors import Conflict, Refusal
from loopd.protocol.json_text import dump_json
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.nodes import KnownNode
from tests.exchange_support import CONTEXT, GRAIN, MUNICH, NOW_MS, VIENNA, FakeDirectory, Home, known_node
from tests.support import ManualClock

FAST = DatabaseSettings(readers=1, synchronous="NORMAL")
WHERE = {"munich.loop": MUNICH, "vienna.loop": VIENNA, "berlin.loop": VIENNA}
DEAL = {
    MirroredEntity.OFFER: "OFR-00000001",
    MirroredEntity.MATCH: "MCH-00000001",
    MirroredEntity.TRANSFER: "TRF-00000001",
    MirroredEntity.TRANSACTION: "TXN-2026-11-21-001",
}


class Crash(BaseException):
    """The process died here, whatever it would have caught."""


def entity_document(
    entity: MirroredEntity, status: str, entity_id: str | None = None, seller: str = "munich.loop", **changes: Any
) -> dict[str, Any]:
    """An Offer, Match, Transfer or MaterialTransaction in a status, as its owner answers it."""
    cities = {"from_city": "Munich", "to_city": "Vienna"}
    common = {
        "@context": CONTEXT,
        "schema_version": "0.2.0",
        "id": entity_id or DEAL[entity],
        "status": status,
    }
    if entity is MirroredEntity.OFFER:
        own = {
            "@type": "Offer",
            "material_id": GRAIN,
            **cities,
            "quantity": {"value": 500, "unit": "kg"},
            "available_until": "2027-01-01T00:00:00Z",
        }
    elif entity is MirroredEntity.MATCH:
        own = {
            "@type": "Match",
            "material_id": GRAIN,
            **cities,
            "offer_id": DEAL[MirroredEntity.OFFER],
            "matched_at": "2026-11-21T00:00:00Z",
        }
    elif entity is MirroredEntity.TRANSFER:
        own = {
            "@type": "Transfer",
            "material_id": GRAIN,
            "match_id": DEAL[MirroredEntity.MATCH],
            "handoff_at": "2026-11-21T00:00:00Z",
        }
    else:
        own = {
            "@type": "MaterialTransaction",
            "material": GRAIN,
            "seller": seller,
            "buyer": "vienna.loop",
            "offer": {"base_price": 60, "loop_cost": 104},
            "timestamp": "2026-11-21T00:00:00Z",
        }
    return {**common, **own, **changes}


class Deals:
    """A seller's lifecycle of the simplest kind: what was told last is what is."""

    def __init__(self, telling: MirrorTelling, counterpart: str) -> None:
        self._telling = telling
        self._counterpart = counterpart

    def status(self, source: RowSource, entity: MirroredEntity) -> tuple[int, str | None]:
        told = tables.find_told(source, self._counterpart, entity, DEAL[entity])
        return (0, None) if told is None else (told.version, told.status)

    def change_status(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        status: str,
        by_node: str | None,
        details: Mapping[str, Any],
    ) -> None:
        version, current = self.status(tx, entity)
        if current is not None and not entity.lifecycle.allows(current, status):
            raise Conflict("transition", f"{status} does not follow {current}")
        document = entity_document(entity, status, metadata={"version": version + 1, "by": by_node or "seller"})
        self._telling.changed(tx, entity, entity_id, version + 1, document, self._counterpart)


class MirrorNode:
    """One node's mirror over a real database, with the durable outbox. `open()` takes it up again after `close()`."""

    def __init__(self, directory: Path, node_id: str, clock: ManualClock, peer_id: str) -> None:
        self.home = Home(node_id, WHERE[node_id])
        self.clock = clock
        self.peer_id = peer_id
        self.path = directory / f"{node_id}.db"
        self.link: Link | None = None
        self.directory = FakeDirectory(known_node(peer_id, WHERE[peer_id]))

    async def open(self) -> None:
        opening = Database.open if self.path.exists() else Database.create
        self.database = await opening(self.path, FAST, self.clock)
        audit, outbox = AuditLog(self.clock), Outbox(lambda target: None)
        self.telling = MirrorTelling(self.home, self.clock, self.directory, outbox)
        self.deals = Deals(self.telling, self.peer_id)
        self.mirroring = Mirroring(self.home, self.clock, audit, EventLog(self.clock), self._wake)
        self.keeper = MirrorKeeper(self.database, self.clock, self.mirroring, self.directory, self._read)
        chance = random.Random(str(self.clock.now_ms()))
        self.requests = StatusRequests(
            self.home, self.clock, audit, outbox, self.deals, lambda length: chance.randbytes(length).hex()
        )

    def _wake(self) -> None:
        self.keeper.wake()

    async def close(self) -> None:
        await self.database.close()

    async def _read(self, node: KnownNode, path: str) -> NodeAnswer | None:
        if self.link is None:
            return None
        return await self.link.read(self, node.node_id, path)

    # What the seller decides

    async def decide(self, entity: MirroredEntity, status: str) -> None:
        await self.database.write(lambda tx: self.deals.change_status(tx, entity, DEAL[entity], status, None, {}))

    # What others ask of it

    async def receive(self, body: bytes, caller: str) -> None:
        document = check_document(body, frozenset({UPDATE_TYPE, REQUEST_TYPE}))

        def effect(tx: Tx) -> None:
            if document.type == UPDATE_TYPE:
                self.mirroring.receive(tx, caller, document)
            else:
                self.requests.receive(tx, caller, document)

        await self.database.write(effect)

    async def serve(self, path: str, caller: str) -> NodeAnswer:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        after, limit = int(query["after"][0]), int(query.get("limit", ["20"])[0])
        steps = parts.path.removeprefix(MIRROR_PATH).strip("/").split("/")
        try:
            if steps == [""]:
                page = await self.telling.newest(self.database, caller, after, limit)
            else:
                entity, entity_id = MirroredEntity(steps[0]), steps[1]
                page = await self.telling.versions(self.database, caller, entity, entity_id, after, limit)
        except Refusal as refusal:
            return NodeAnswer(refusal.status, dump_json(refusal.envelope()))
        return page_answer(page)

    # What it holds

    def held(self, entity: MirroredEntity) -> tuple[int, str, Any] | None:
        mirrored = tables.find_mirrored(self.database.points, EntityKey(self.peer_id, entity, DEAL[entity]))
        if mirrored is None:
            return None
        return mirrored.version.number, mirrored.version.status, mirrored.version.document

    def told(self, entity: MirroredEntity) -> tuple[int, str, Any] | None:
        row = self.database.points.one(
            "SELECT version, status, body FROM mirror_told WHERE entity = ? AND counterpart = ? AND newest = 1",
            (entity.value, self.peer_id),
        )
        return None if row is None else (row["version"], row["status"], read_json(bytes(row["body"]))["document"])

    def waiting(self) -> list[Any]:
        """The lines of its outbox, oldest first."""
        return self.database.points.all("SELECT entry, body, reference FROM outbox ORDER BY entry")

    def gaps(self) -> list[tuple[str, int]]:
        return [(row["entity"], row["wanted"]) for row in self.database.points.all("SELECT * FROM mirror_gap")]

    async def sent(self, entry: int, reference: str, status: int, reason: str) -> None:
        """A line of the outbox was answered: it leaves, and who queued it is told."""

        def settle(tx: Tx) -> None:
            tx.execute("DELETE FROM outbox WHERE entry = ?", (entry,))
            self.requests.request_answered(tx, reference, status, reason)
            self.telling.update_answered(reference, status, reason)

        await self.database.write(settle)


def page_answer(page: MirrorPage) -> NodeAnswer:
    following = None if page.after is None else f"{MIRROR_PATH}?after={page.after}"
    return NodeAnswer(200, dump_json({"results": page.results, "next": following}))


class Link:
    """The way between two nodes. `up` is False while nothing passes; `reads_until_crash` counts down to a death."""

    def __init__(self, *nodes: MirrorNode) -> None:
        self.nodes = {node.home.node_id: node for node in nodes}
        self.up = True
        self.reads_until_crash: int | None = None
        for node in nodes:
            node.link = self

    async def read(self, asker: MirrorNode, node_id: str, path: str) -> NodeAnswer | None:
        await asyncio.sleep(0)
        if self.reads_until_crash is not None:
            self.reads_until_crash -= 1
            if self.reads_until_crash < 0:
                raise Crash
        if not self.up:
            return None
        return await self.nodes[node_id].serve(path, asker.home.node_id)

    async def deliver(self, sender: MirrorNode, place: int, *, answered: bool = True) -> None:
        """Send one line of an outbox, any but the first too; the answer may get lost, and the line stays then."""
        lines = sender.waiting()
        if not lines:
            return
        line = lines[place % len(lines)]
        try:
            await self.nodes[sender.peer_id].receive(bytes(line["body"]), sender.home.node_id)
            status, reason = 202, ""
        except Refusal as refusal:
            status, reason = refusal.status, refusal.reason
        if answered:
            await sender.sent(line["entry"], line["reference"], status, reason)

    async def lose(self, sender: MirrorNode, place: int) -> None:
        """A line is given up, as after a week of absence."""
        lines = sender.waiting()
        if lines:
            line = lines[place % len(lines)]
            await sender.sent(line["entry"], line["reference"], 0, "expired")


@asynccontextmanager
async def mirrored_pair(directory: Path) -> AsyncIterator[tuple[MirrorNode, MirrorNode, Link]]:
    """Munich, who sells, and Vienna, who buys."""
    clock = ManualClock(NOW_MS)
    munich = MirrorNode(directory, "munich.loop", clock, "vienna.loop")
    vienna = MirrorNode(directory, "vienna.loop", clock, "munich.loop")
    await munich.open()
    await vienna.open()
    try:
        yield munich, vienna, Link(munich, vienna)
    finally:
        await munich.close()
        await vienna.close()


def made_requests(node: MirrorNode) -> list[tuple[str, str, str | None]]:
    """What a node asked for, the state of each wish and the word of a refusal."""
    rows = node.database.points.all("SELECT status, state, answer FROM mirror_request ORDER BY number")
    return [(row["status"], row["state"], row["answer"]) for row in rows]
