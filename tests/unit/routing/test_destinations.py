from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.federation import nodes
from loopd.protocol.nodes import Standing
from loopd.protocol.timestamps import format_timestamp
from loopd.routing.destinations import SignalFetcher
from tests.exchange_support import BERLIN, DAY_MS, NOW_MS, signals_document
from tests.routing_support import RoutingNode, loop_demand, routing_node


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingNode]:
    async with routing_node(tmp_path) as node:
        await node.know("vienna.loop", organic_food=0.20)
        yield node


async def signal_of(node: RoutingNode, node_id: str) -> int | None:
    place = (await node.destinations.atlas()).find(node_id)
    if place is None or place.configuration is None:
        return None
    return place.configuration.reading("organic-food", node.clock.now_ms()).basis_points


async def test_it_is_read_once_and_again_when_something_changed(munich: RoutingNode) -> None:
    atlas = await munich.destinations.atlas()
    assert [place.node_id for place in atlas.places] == ["munich.loop", "vienna.loop"]
    await munich.publish("vienna.loop", organic_food=0.20)
    await munich.write(lambda tx: nodes.owe_handshake(tx, "vienna.loop", True))
    assert await munich.destinations.atlas() is atlas
    await munich.write(lambda tx: nodes.set_location(tx, "vienna.loop", BERLIN, NOW_MS))
    moved = (await munich.destinations.atlas()).find("vienna.loop")
    assert moved is not None
    assert moved.location == BERLIN


async def test_who_is_set_aside_or_removed_is_no_destination(munich: RoutingNode) -> None:
    await munich.write(lambda tx: nodes.set_standing(tx, "vienna.loop", Standing.SUSPENDED, NOW_MS))
    assert (await munich.destinations.atlas()).find("vienna.loop") is None
    await munich.write(lambda tx: nodes.set_standing(tx, "vienna.loop", Standing.PEER, NOW_MS))
    assert (await munich.destinations.atlas()).find("vienna.loop") is not None
    await munich.told(loop_demand())
    await munich.write(lambda tx: nodes.remove(tx, "vienna.loop"))
    assert (await munich.destinations.atlas()).find("vienna.loop") is None
    assert (await munich.wanted.page(munich.database, False, None, 2**62, 10))[0] == []


async def test_what_begins_later_counts_from_then_on(munich: RoutingNode) -> None:
    begins = format_timestamp(NOW_MS + DAY_MS)
    document = signals_document("vienna.loop", {"organic-food": 0.30}, valid_from=begins)
    await munich.write(lambda tx: munich.signals.remember(tx, "vienna.loop", document))
    assert await signal_of(munich, "vienna.loop") == 2_000
    munich.clock.advance(DAY_MS - 1)
    assert await signal_of(munich, "vienna.loop") == 2_000
    munich.clock.advance(1)
    assert await signal_of(munich, "vienna.loop") == 3_000


async def test_the_next_signals_are_fetched_though_one_fetch_fails(munich: RoutingNode) -> None:
    fetched: list[str] = []

    async def fetch(node_id: str) -> None:
        fetched.append(node_id)
        if node_id == "a.loop":
            raise RuntimeError("a bug")

    fetcher = SignalFetcher("munich.loop", munich.database, munich.signals, munich.clock, fetch)
    fetcher.want(["munich.loop", "a.loop", "vienna.loop", *(f"n{number}.loop" for number in range(20))])
    await fetcher.settled()
    # Of Vienna they are known, and fetched a moment ago.
    assert fetched == ["a.loop", *(f"n{number}.loop" for number in range(20))]
    await fetcher.stop()
