"""Events over HTTP: the list, and the stream as a client meets it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.events.service import EventKind
from tests.events_api import EventsApi, Stream, events_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[EventsApi]:
    async with events_api(tmp_path) as opened:
        yield opened


def subjects(events: list[Any]) -> list[str]:
    return [event["subject"] for event in events]


async def pages(api: EventsApi, path: str | None) -> list[Any]:
    found: list[Any] = []
    while path is not None:
        status, page = await api.get(path)
        assert status == 200, page
        found.extend(page["results"])
        path = page["next"]
    return found


async def test_the_list_gives_every_event_once_in_either_direction(api: EventsApi) -> None:
    names = [f"MAT-{number}" for number in range(25)]
    await api.happen(*names)
    assert subjects(await pages(api, "/api/v1/events?limit=10")) == names[::-1]
    assert subjects(await pages(api, "/api/v1/events?limit=10&after=0")) == names
    assert subjects(await pages(api, "/api/v1/events?limit=7&after=20&kind=material.*")) == names[20:]
    status, page = await api.get("/api/v1/events?limit=1")
    assert page["results"][0] == {
        "id": 25,
        "kind": "material.registered",
        "subject": "MAT-24",
        "at": "2026-09-21T14:13:20Z",
        "data": {"n": 25},
    }
    assert (status, page["next"]) == (200, "/api/v1/events?limit=1&cursor=25")


async def test_a_page_goes_on_where_it_ended_whatever_happens_meanwhile(api: EventsApi) -> None:
    await api.happen("A", "B", "C")
    first = (await api.get("/api/v1/events?limit=2"))[1]
    await api.happen("D")
    second = (await api.get(first["next"]))[1]
    assert subjects(first["results"] + second["results"]) == ["C", "B", "A"]
    assert second["next"] is None


async def test_kinds_are_filtered_and_some_are_the_operators(api: EventsApi) -> None:
    await api.happen("MAT-1")
    await api.happen("vienna.loop", kind=EventKind.PEER_STATUS)
    await api.happen("MAT-1", kind=EventKind.BID_RECEIVED)
    operator, writer = await api.token("admin"), await api.token("offer:write")

    async def kinds(query: str, headers: dict[str, str] | None = None) -> list[str]:
        return [event["kind"] for event in (await api.get(f"/api/v1/events?after=0{query}", headers))[1]["results"]]

    assert await kinds("") == await kinds("&kind=*") == await kinds("", writer) == ["material.registered"]
    assert await kinds("", operator) == ["material.registered", "peer.status", "bid.received"]
    assert await kinds("&kind=bid.*,peer.status", operator) == ["peer.status", "bid.received"]
    assert await kinds("&kind=product.*", operator) == []


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/stream"])
@pytest.mark.parametrize(
    ("query", "headers", "status", "reason"),
    [
        ("?kind=material", {}, 400, "bad_kind"),
        ("?kind=", {}, 400, "bad_kind"),
        ("?kind=bid.received,material.*", {}, 403, "insufficient_scope"),
        ("?kind=ledger.*", {}, 403, "insufficient_scope"),
        ("", {"Authorization": "Bearer loopd_no"}, 401, "bad_token"),
        ("?since=3", {}, 400, "unknown_parameter"),
    ],
)
async def test_what_is_refused(
    api: EventsApi, path: str, query: str, headers: dict[str, str], status: int, reason: str
) -> None:
    answered, body = await api.get(path + query, headers)
    assert (answered, body["error"]["details"]["reason"]) == (status, reason)
    assert not api.feed.followers


@pytest.mark.parametrize(
    ("path", "headers", "reason"),
    [
        ("/api/v1/events?limit=0", {}, "bad_limit"),
        ("/api/v1/events?limit=101", {}, "bad_limit"),
        ("/api/v1/events?cursor=0", {}, "bad_cursor"),
        ("/api/v1/events?after=-1", {}, "bad_cursor"),
        ("/api/v1/events?after=1&cursor=2", {}, "bad_cursor"),
        ("/api/v1/stream?last_event_id=x", {}, "bad_event_id"),
        ("/api/v1/stream", {"Last-Event-ID": "-1"}, "bad_event_id"),
        ("/api/v1/stream", {"Last-Event-ID": "9" * 16}, "bad_event_id"),
        ("/api/v1/stream", {"Last-Event-ID": "７"}, "bad_event_id"),
    ],
)
async def test_what_is_refused_as_malformed(api: EventsApi, path: str, headers: dict[str, str], reason: str) -> None:
    status, body = await api.get(path, headers)
    assert (status, body["error"]["details"]["reason"]) == (400, reason)


async def test_a_stream_tells_what_happens_in_order(api: EventsApi) -> None:
    await api.happen("before")
    async with api.stream() as stream:
        await stream.begun()
        assert stream.last_id == 1
        headers = stream.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store, no-transform", "no")
        await api.happen("A", "B")
        await api.happen("vienna.loop", kind=EventKind.PEER_STATUS)
        await api.happen("C")
        assert subjects(await stream.events(3)) == ["A", "B", "C"]
        assert stream.last_id == 5


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_client_that_comes_again_misses_nothing_and_meets_nothing_twice(
    api: EventsApi, by_header: bool
) -> None:
    await api.happen(*(f"MAT-{number}" for number in range(450)))
    query, headers = ("", {"Last-Event-ID": "5"}) if by_header else ("?last_event_id=5", {})
    async with api.stream(query, headers) as stream:
        replayed = await stream.events(445)
        await api.happen("live")
        assert [event["id"] for event in replayed + await stream.events(1)] == list(range(6, 452))


async def test_a_client_of_a_rare_kind_comes_again_with_the_id_up_to_which_it_missed_nothing(api: EventsApi) -> None:
    await api.happen(*(f"MAT-{number}" for number in range(30)))
    async with api.stream("?kind=product.*", {"Last-Event-ID": "3"}) as stream:
        await stream.begun()
        assert stream.last_id == 30


async def test_events_that_are_gone_are_told_of(api: EventsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopd.events.service.EVENTS_KEPT_PER_KIND_MAX", 4)
    await api.happen(*(f"MAT-{number}" for number in range(10)))
    await api.happen("PRD-1", kind=EventKind.PRODUCT_REGISTERED)
    await api.log.prune(api.database)
    async with api.stream(headers={"Last-Event-ID": "2"}) as stream:
        gap = await stream.told()
        assert (gap.name, gap.id) == ("gap", None)
        assert gap.data == {"reason": "forgotten", "after": 2, "through": 6}
        assert [event["id"] for event in await stream.events(5)] == [7, 8, 9, 10, 11]
    async with api.stream("?kind=product.*", {"Last-Event-ID": "2"}) as stream:
        assert subjects(await stream.events(1)) == ["PRD-1"]
    page = (await api.get("/api/v1/events?after=2"))[1]
    assert (page["gone_through"], [event["id"] for event in page["results"]]) == (6, [7, 8, 9, 10, 11])
    assert (await api.get("/api/v1/events?after=6"))[1]["gone_through"] is None


async def test_an_id_that_no_event_has_is_told_of_and_followed_by_what_comes(api: EventsApi) -> None:
    await api.happen("A")
    async with api.stream(headers={"Last-Event-ID": "900"}) as stream:
        assert (await stream.told()).data == {"reason": "unknown_id", "after": 900}
        await api.happen("B")
        assert subjects(await stream.events(1)) == ["B"]


async def test_a_client_that_is_too_slow_is_told_so_and_goes_on_from_its_last_id(
    api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopd.events.feed.EVENT_QUEUE_MAX", 5)
    async with api.stream() as stream:
        await stream.begun()
        await api.happen(*"ABCDEFGH")
        assert subjects(await stream.events(5)) == list("ABCDE")
        end = await stream.told()
        assert (end.name, end.data) == ("end", {"reason": "too_slow"})
        assert await stream.block() is None
    async with api.stream(headers={"Last-Event-ID": str(stream.last_id)}) as again:
        assert subjects(await again.events(3)) == list("FGH")


async def test_the_place_of_a_client_that_left_is_soon_free(api: EventsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()
    leave = api.feed.leave
    monkeypatch.setattr(api.feed, "leave", lambda follower: (leave(follower), left.set()))
    async with api.stream() as stream:
        await stream.begun()
        assert len(api.feed.followers) == 1
    await asyncio.wait_for(left.wait(), 30)
    assert not api.feed.followers


@pytest.mark.parametrize(
    ("bound", "operators_too"), [("EVENT_FOLLOWERS_PER_CLIENT_MAX", True), ("EVENT_FOLLOWERS_MAX", False)]
)
async def test_streams_are_bounded_for_each_client_and_in_all(
    api: EventsApi, bound: str, operators_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"loopd.events.feed.{bound}", 1)
    operator = await api.token("admin")
    async with api.stream() as stream:
        await stream.begun()
        for headers in [{}, operator] if operators_too else [{}]:
            status, body = await api.get("/api/v1/stream", headers)
            assert (status, body["error"]["details"]["reason"]) == (503, "too_many_streams")
        if not operators_too:
            async with api.stream(headers=operator) as another:
                await another.begun()


async def test_when_the_node_stops_every_stream_ends_with_a_word(api: EventsApi) -> None:
    async with api.stream() as stream:
        await stream.begun()
        api.feed.close()
        end = await stream.told()
        assert (end.name, end.data) == ("end", {"reason": "draining"})
        assert await stream.block() is None
    status, body = await api.get("/api/v1/stream")
    assert (status, body["error"]["details"]["reason"]) == (503, "draining")


async def test_a_burst_reaches_several_clients_whole_and_in_order(api: EventsApi) -> None:
    clients, burst = 6, 1_000

    async def follow(stream: Stream) -> list[int]:
        return [event["id"] for event in await stream.events(burst)]

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        followed = []
        ready = []

        async def client(begun: asyncio.Event) -> list[int]:
            async with api.stream() as stream:
                await stream.begun()
                begun.set()
                return await follow(stream)

        for _ in range(clients):
            ready.append(asyncio.Event())
            followed.append(group.create_task(client(ready[-1])))
        for begun in ready:
            await begun.wait()
        await asyncio.gather(*(api.happen(*(f"{part}-{n}" for n in range(10))) for part in range(burst // 10)))
        for task in followed:
            assert await task == list(range(1, burst + 1))


async def test_a_client_that_does_not_read_is_cut_and_holds_up_nobody(
    api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopd.events.feed.EVENT_QUEUE_MAX", 200)
    reader, writer = await asyncio.open_connection(*api.address, limit=2**16)
    try:
        writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: munich\r\n\r\n")
        await reader.readuntil(b"still here\n")
        async with api.stream() as other:
            await other.begun()
            told = 0
            # Far more than the buffers between the node and a client hold.
            while not any(follower.overflowed for follower in api.feed.followers):
                await api.happen(*(f"{told + number}" for number in range(100)), text="x" * 4_000)
                told += 100
                assert [event["id"] for event in await other.events(100)][-1] == told
        received = await reader.read(-1)
    finally:
        writer.close()
    assert b'event: end\ndata: {"reason":"too_slow"}' in received
