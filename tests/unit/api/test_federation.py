"""What the open routes of the federation show: the registry of nodes, NodeInfo, and what was heard."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.api.federation import FederationRoutes
from loopd.api.requests import Request
from loopd.federation.nodes import AddedBy
from loopd.protocol.documents import check_document
from loopd.protocol.nodes import Standing
from tests.federation_support import (
    BERLIN,
    DAY_MS,
    GRAIN,
    NOW_MS,
    VIENNA,
    City,
    eventually,
    federation_of,
    identity_of,
    message_of,
    send_copy,
    subject_of,
    value_of,
)

BERLIN_IS, LINZ = identity_of("berlin.loop", BERLIN), identity_of("linz.loop", VIENNA)


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[City]:
    async with federation_of(tmp_path, identity_of("munich.loop"), started=False) as (city,):
        yield city


async def registry(city: City) -> dict[str, dict[str, Any]]:
    """The entries by id; the document holds against its schema."""
    answer = await city.serve("GET", "/api/v1/federation/nodes", {}, None)
    assert answer.status == 200
    document = check_document(answer.body, "NodeRegistry")
    return {entry["id"]: entry for entry in document.value["nodes"]}


async def page(city: City, limit: int, cursor: int = 2**62) -> dict[str, Any]:
    routes = FederationRoutes(city.identity, city.federation, city.database, city.clock).routes()
    route = next(route for route in routes if route.path == "/api/v1/federation/announcements")
    request = Request(
        id="1",
        method="GET",
        target=route.path,
        path=route.path,
        parameters={},
        query={"limit": limit, "cursor": cursor},
        headers={},
        client="",
    )
    answer = await route.handler(request)
    value: dict[str, Any] = value_of(answer)  # type: ignore[arg-type]
    return value


async def test_the_card_holds_against_its_schema_and_counts(munich: City) -> None:
    munich.subjects[GRAIN] = subject_of()
    answer = await munich.serve("GET", "/api/v1/node/info", {}, None)
    card = check_document(answer.body, "NodeInfo").value
    assert (card["id"], card["statistics"]) == ("munich.loop", {"materials_active": 1})
    assert card["public_key"] == munich.identity.key.public.to_pem()
    assert set(card["capabilities"]) == {"material-registry", "loopcoin", "loopsignal", "websocket"}


async def test_the_registry_lists_peers_and_every_origin_that_is_relayed(munich: City) -> None:
    await munich.admit(BERLIN_IS)
    await munich.admit(LINZ, standing=Standing.INTRODUCED, added_by=AddedBy.INTRODUCTION)
    assert set(await registry(munich)) == {"berlin.loop"}
    await send_copy(munich, BERLIN_IS, message_of(LINZ), 2)
    listed = await registry(munich)
    assert set(listed) == {"berlin.loop", "linz.loop"}
    assert listed["linz.loop"]["public_key"] == LINZ.key.public.to_pem()
    assert listed["linz.loop"]["endpoint"] == LINZ.endpoint


async def test_an_origin_that_is_to_become_a_peer_is_listed_on_while_it_is_relayed(munich: City) -> None:
    await munich.admit(BERLIN_IS)
    await munich.admit(LINZ, standing=Standing.PENDING)
    assert "linz.loop" not in await registry(munich)
    await send_copy(munich, BERLIN_IS, message_of(LINZ), 2)
    assert "linz.loop" in await registry(munich)


async def test_the_registry_shows_how_nodes_stand_and_are(munich: City) -> None:
    await munich.start()
    await munich.admit(BERLIN_IS)
    await munich.admit(LINZ)
    await munich.federation.suspend_peer("linz.loop")
    await eventually(lambda: munich.health("berlin.loop") == "unreachable", munich, step_ms=2_000)
    listed = await registry(munich)
    assert (listed["berlin.loop"]["status"], listed["linz.loop"]["status"]) == ("inactive", "suspended")


async def test_a_peer_whose_place_is_unknown_is_listed_here_until_an_announcement_tells_it(munich: City) -> None:
    await munich.admit(BERLIN_IS, location=None)
    (entry,) = (await registry(munich)).values()
    here = munich.identity.location
    assert (float(entry["location"]["lat"]), float(entry["location"]["lon"])) == (here.lat, here.lon)
    await send_copy(munich, BERLIN_IS, message_of(BERLIN_IS), 3)
    (entry,) = (await registry(munich)).values()
    assert (float(entry["location"]["lat"]), float(entry["location"]["lon"])) == (BERLIN.lat, BERLIN.lon)


async def test_what_was_heard_is_listed_newest_first_each_once_to_the_end(munich: City) -> None:
    await munich.admit(BERLIN_IS)
    for number in range(5):
        subject = subject_of(f"MAT-DE-MUC-2026-FOOD-{number:06d}")
        await send_copy(munich, BERLIN_IS, message_of(BERLIN_IS, subject), 3)
    seen, cursor = [], 2**62
    while True:
        shown = await page(munich, 2, cursor)
        seen += [entry["subject"][-1] for entry in shown["results"]]
        if shown["next"] is None:
            break
        cursor = int(shown["next"].split("cursor=")[1])
        late = subject_of("MAT-DE-MUC-2026-FOOD-000009")
        await send_copy(munich, BERLIN_IS, message_of(BERLIN_IS, late), 3)
    assert seen == ["4", "3", "2", "1", "0"]


async def test_an_entry_says_what_and_whence_and_ends_with_its_validity(munich: City) -> None:
    await munich.admit(BERLIN_IS)
    await munich.admit(LINZ)
    message = message_of(LINZ)
    await send_copy(munich, BERLIN_IS, message, 2)
    (entry,) = (await page(munich, 20))["results"]
    assert (entry["subject"], entry["origin"], entry["via"], entry["ttl"]) == (GRAIN, "linz.loop", "berlin.loop", 2)
    assert (entry["available"], entry["verified"], entry["kind"]) == (True, True, "material")
    assert (entry["quantity"], entry["unit"], entry["received_at"]) == (500, "kg", "2026-09-21T14:13:20Z")
    await send_copy(munich, LINZ, message, 3)
    (entry,) = (await page(munich, 20))["results"]
    assert (entry["via"], entry["ttl"]) == ("berlin.loop", 3)
    munich.clock.set_wall(NOW_MS + DAY_MS)
    assert (await page(munich, 20)) == {"results": [], "next": None}
