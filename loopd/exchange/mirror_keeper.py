"""Fetches what the mirror lacks, and compares it with its owners, in the background."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.exchange import mirror_tables as tables
from loopd.exchange.mirror_rules import Page, has_returned, is_whole_due, read_newest, read_page, read_versions
from loopd.exchange.mirror_tables import Gap, Partner
from loopd.exchange.mirroring import Mirroring
from loopd.exchange.ports import NodeDirectory, SignedReads
from loopd.exchange.views import MIRROR_PATH
from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.limits import LIST_LIMIT_MAX, MIRROR_PAGES_MAX
from loopd.protocol.nodes import Standing

log = structlog.get_logger(__name__)

# Gaps that are looked at together, and nodes that are asked at once, each by one task.
GAPS_AT_ONCE: Final = 100
NODES_AT_ONCE: Final = 16
# How long is waited at most before looking around; what is found missing wakes it earlier.
IDLE_S: Final = 60.0
# How long is rested after a failure of this node's own.
PAUSE_S: Final = 1.0


class NotAnswered(Exception):
    """A node could not be asked, or gave no page."""


class MirrorKeeper:
    """Makes what this node holds of others' decisions whole. `start()` on the running loop."""

    def __init__(
        self, database: Database, clock: Clock, mirroring: Mirroring, directory: NodeDirectory, reads: SignedReads
    ) -> None:
        self._database = database
        self._clock = clock
        self._mirroring = mirroring
        self._directory = directory
        self._reads = reads
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Whom a task asks now: a node that answers slowly, or without end, holds up no other.
        self._asked: dict[str, asyncio.Task[None]] = {}
        # When each peer answered last; lost with the process, as a start is a return of this node's own.
        self._contacts_ms: dict[str, int] = {}

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._run(), name="mirror-keeper")

    async def stop(self) -> None:
        """End. What is missing is fetched after the next start."""
        tasks = [*self._asked.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None

    def wake(self) -> None:
        """Something is missing."""
        self._wake.set()

    async def contacted(self, node_id: str) -> None:
        """A peer that mirrors answered; compare if it, or this node, was away."""
        now_ms = self._clock.now_ms()
        last_ms, self._contacts_ms[node_id] = self._contacts_ms.get(node_id), now_ms
        if has_returned(last_ms, now_ms):
            await self._database.write(lambda tx: self._mirroring.returned(tx, node_id))

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._ask_whom_is_due()
                wait_s = await self._until_due_s()
            except Refusal as refusal:  # our own storage is overloaded or closing: nothing is lost, try again
                log.warning("mirror_delayed", reason=refusal.reason)
                wait_s = PAUSE_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _until_due_s(self) -> float:
        """How long nothing is due of nodes that are not asked already; their tasks wake the keeper when they end."""
        if len(self._asked) >= NODES_AT_ONCE:
            return IDLE_S
        row = await self._database.one(tables.NEXT_DUE, {"asked": self._asked_json()})
        if row is None or row["due_ms"] is None:
            return IDLE_S
        due_s = max(row["due_ms"] - self._clock.now_ms(), 10) / 1000
        return min(float(due_s), IDLE_S)

    def _asked_json(self) -> str:
        return dump_json(list(self._asked)).decode()

    async def work(self) -> bool:
        """One round of what is due, to its end. Whether there was anything."""
        found = await self._ask_whom_is_due()
        await asyncio.gather(*self._asked.values())
        return found

    async def _ask_whom_is_due(self) -> bool:
        """Begin to ask nodes that have something due and are not asked already. Whether there are any."""
        due = {"now_ms": self._clock.now_ms(), "asked": self._asked_json()}
        gaps: dict[str, list[Gap]] = defaultdict(list)
        for row in await self._database.all(tables.GAPS_DUE, {**due, "limit": GAPS_AT_ONCE}):
            gaps[row["node"]].append(tables.gap_of(row))
        rows = await self._database.all(tables.PARTNERS_DUE, {**due, "limit": NODES_AT_ONCE})
        partners = {row["node"]: tables.partner_of(row) for row in rows}
        for node_id in list(gaps | partners)[: NODES_AT_ONCE - len(self._asked)]:
            asking = self._ask(node_id, gaps.get(node_id, []), partners.get(node_id))
            self._asked[node_id] = asyncio.create_task(asking, name=f"mirror-{node_id}")
        return bool(gaps or partners)

    async def _ask(self, node_id: str, gaps: Iterable[Gap], partner: Partner | None) -> None:
        """Fetch what is missing of one node, and compare with it if that is due."""
        try:
            for gap in gaps:
                if not await self._fill(gap):
                    break
            if partner is not None:
                await self._compare(partner)
        except Refusal as refusal:
            log.warning("mirror_delayed", node=node_id, reason=refusal.reason)
            await asyncio.sleep(PAUSE_S)
        except Exception:
            log.exception("mirror_failed", node=node_id)
            # What fails at once must not be begun again at once.
            await asyncio.sleep(PAUSE_S)
        finally:
            del self._asked[node_id]
            self._wake.set()

    async def _fill(self, gap: Gap) -> bool:
        """Fetch what is missing of one entity. False where its owner gave no answer."""
        mirroring = self._mirroring
        try:
            refusal = await self._fetch(gap)
        except NotAnswered as error:
            log.info("mirror_not_fetched", node=gap.key.node, id=gap.key.entity_id, error=str(error))
            await self._database.write(lambda tx: mirroring.not_fetched(tx, gap))
            return False
        if refusal is None:
            await self._database.write(lambda tx: mirroring.fetched(tx, gap))
        else:
            await self._database.write(lambda tx: mirroring.not_taken(tx, gap, refusal))
        return True

    async def _fetch(self, gap: Gap) -> Refusal | None:
        """Take every version after the held one that the owner tells; the refusal of the first that cannot be."""
        key = gap.key
        path = f"{MIRROR_PATH}/{key.entity.value}/{key.entity_id}"
        for _ in range(MIRROR_PAGES_MAX):
            held = self._mirroring.held(self._database.points, key)
            page = await self._page(key.node, f"{path}?after={held}")
            try:
                versions = read_versions(key, page)
            except Refusal as refusal:
                return refusal
            refused = await self._database.write(partial(self._mirroring.take_all, versions=versions))
            if refused is not None or not page.has_more:
                return refused
        return None

    async def _compare(self, partner: Partner) -> None:
        """Go through the list of what a node told this one, and fetch what is missing."""
        try:
            await self._go_through(partner)
        except (NotAnswered, Refusal) as error:
            log.info("mirror_not_compared", node=partner.node, error=str(error))
            await self._database.write(lambda tx: self._mirroring.not_compared(tx, partner))

    async def _go_through(self, partner: Partner) -> None:
        whole = is_whole_due(partner.compared_whole_at_ms, self._clock.now_ms())
        after = 0 if whole else partner.compared_to
        for _ in range(MIRROR_PAGES_MAX):
            page = await self._page(partner.node, f"{MIRROR_PATH}?after={after}&limit={LIST_LIMIT_MAX}")
            entries = read_newest(partner.node, after, page)
            for gap in await self._database.write(partial(self._mirroring.note_missing, entries=entries)):
                if not await self._fill(gap):
                    raise NotAnswered("it answers no more")
            after = entries[-1].number if entries else after
            if not entries or not page.has_more:
                break
        await self._database.write(lambda tx: self._mirroring.compared(tx, partner, after, whole=whole))

    async def _page(self, node_id: str, path: str) -> Page:
        """A page of a node's, empty where it knows of no such thing. NotAnswered where none came."""
        node = self._directory.find(self._database.points, node_id)
        if node is None or not node.endpoint or node.standing is Standing.SUSPENDED:
            raise NotAnswered("the node cannot be asked")
        answer = await self._reads(node, path)
        if answer is None or answer.status not in (200, 404):
            raise NotAnswered("no answer" if answer is None else f"status {answer.status}")
        if answer.status == 404:
            return Page([], has_more=False)
        try:
            return read_page(read_json(answer.body))
        except Refusal as refusal:
            raise NotAnswered(refusal.reason) from refusal
