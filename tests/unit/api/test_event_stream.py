"""A stream against a client and a log that do their worst in between."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from loopd.api.event_stream import EventStream
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.feed import EventFeed, Follower
from loopd.events.rules import PUBLIC_KINDS
from loopd.events.service import EventKind, EventLog
from tests.events_api import Block, parse_block
from tests.support import ManualClock


class Client:
    """Keeps what is written to it, and does something after each write."""

    def __init__(self) -> None:
        self.text = b""
        self.writes = 0
        self.after: Callable[[int], object] = lambda count: None

    async def write(self, data: bytes) -> None:
        self.text += data
        self.writes += 1
        self.after(self.writes)

    @property
    def blocks(self) -> list[Block]:
        return [parse_block(part.splitlines()) for part in self.text.decode().split("\n\n") if part]

    @property
    def ids(self) -> list[int]:
        return [block.data["id"] for block in self.blocks if block.name == "message" and block.data]


class Bench:
    """A log, its feed, and one stream."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.feed = EventFeed(0)
        self.log = EventLog(self.clock, self.feed.committed)
        self.client = Client()

    def stream(self, follower: Follower, heartbeat_s: float = 0.01) -> EventStream:
        response = cast(web.StreamResponse, self.client)
        around = (self.log, self.feed, self.database, self.clock)
        return EventStream(response, follower, PUBLIC_KINDS, *around, heartbeat_s=heartbeat_s, max_s=60.0)

    async def happen(self, count: int) -> None:
        def unit(tx: Tx) -> None:
            for _ in range(count):
                self.log.append(tx, EventKind.MATERIAL_STATUS, "MAT-1", {})

        await self.database.write(unit)

    def end(self) -> None:
        """Let the stream's time be over."""
        self.clock.advance(60_000)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    settings = DatabaseSettings(readers=1, synchronous="NORMAL")
    async with await Database.create(tmp_path / "loopd.db", settings, ManualClock()) as database:
        yield Bench(database)


async def test_a_queue_that_fills_during_the_replay_costs_no_event(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopd.events.feed.EVENT_QUEUE_MAX", 5)
    monkeypatch.setattr("loopd.api.event_stream.EVENT_STREAM_PAGE", 10)
    await bench.happen(60)
    follower = bench.feed.follow("client", PUBLIC_KINDS)
    told = bench.client.write

    async def write(data: bytes) -> None:
        await told(data)
        if bench.client.writes in (2, 4, 7):
            await bench.happen(8)
        elif len(bench.client.ids) == 84:
            bench.end()

    monkeypatch.setattr(bench.client, "write", write)
    await bench.stream(follower).run(0)
    assert bench.client.ids == list(range(1, 85))
    assert bench.client.blocks[-1].data == {"reason": "lifetime"}


async def test_an_event_that_was_read_before_the_feed_told_of_it_is_not_told_again(bench: Bench) -> None:
    await bench.happen(2)
    follower = Follower(PUBLIC_KINDS, since=1)
    for event in (await bench.log.after(bench.database, PUBLIC_KINDS, 1, 10)).events:
        follower.offer(event)
    bench.client.after = lambda count: bench.end() if count == 3 else None
    await bench.stream(follower).run(2)
    assert bench.client.ids == []
    assert {block.name for block in bench.client.blocks} == {"message", "end"}


async def test_silence_is_broken_by_signs_of_life(bench: Bench) -> None:
    await bench.happen(3)
    follower = bench.feed.follow("client", PUBLIC_KINDS)
    bench.client.after = lambda count: bench.end() if count == 5 else None
    await bench.stream(follower).run(None)
    signs = [block for block in bench.client.blocks if block.comments]
    assert [block.id for block in signs] == [3, 3, 3, 3]


async def test_a_client_that_is_gone_ends_the_stream(bench: Bench) -> None:
    def gone(count: int) -> None:
        raise ConnectionResetError

    bench.client.after = gone
    await bench.stream(bench.feed.follow("client", PUBLIC_KINDS)).run(None)
    assert bench.client.writes == 1
