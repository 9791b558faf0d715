import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import DEMAND_KEPT_MS, DEMANDS_PER_PEER_MAX, SUPPLY_MATCHES_MAX
from loopd.protocol.subjects import SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.routing.demands import DemandState
from loopd.routing.wanted_time import WantedTime
from tests.exchange_support import BERLIN, DAY_MS, GRAIN, NOW_MS, VIENNA, Home, heard_grain, reason_of
from tests.registry_support import material_id, set_state
from tests.routing_support import RoutingNode, loop_demand, routing_node


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[RoutingNode]:
    async with routing_node(tmp_path) as node:
        yield node


# This city's demand


async def test_a_new_demand_finds_what_is_there(munich: RoutingNode) -> None:
    await munich.register(1)
    await munich.register(2, quantity={"value": 0.3, "unit": "t"})
    await munich.register(3, quantity={"value": 199, "unit": "kg"})
    await munich.register(4, category="glass-clear")
    await munich.hear(heard_grain(origin="vienna.loop"))
    demand = await munich.want()
    assert {each["material"] for each in demand["matches"]} == {GRAIN, material_id(1), material_id(2)}
    assert {each["node"] for each in demand["matches"]} == {"munich.loop", "vienna.loop"}
    assert sorted(await munich.matched()) == sorted(
        (demand["id"], subject) for subject in (GRAIN, material_id(1), material_id(2))
    )


async def test_new_supply_finds_who_waits_for_it(munich: RoutingNode) -> None:
    demand = await munich.want(category="*", radius_km=500)
    other = await munich.want(category="glass-*")
    await munich.register(1)
    await munich.know("vienna.loop")
    await munich.hear(heard_grain(origin="vienna.loop", location=None))
    await munich.hear(heard_grain(subject_id=material_id(7), location=BERLIN))
    assert await munich.matched() == [(demand["id"], material_id(1)), (demand["id"], GRAIN)]
    assert munich.demand(other["id"])["matches"] == []


async def test_a_match_is_told_once_and_ends_with_its_supply(munich: RoutingNode) -> None:
    demand = await munich.want()
    material = await munich.register(1)

    async def become(state: SubjectState) -> list[bool]:
        await munich.write(lambda tx: set_state(munich.registry, tx, material, state, "test"))
        return [each["available"] for each in munich.demand(demand["id"])["matches"]]

    assert await become(SubjectState.RESERVED) == [False]
    assert await become(SubjectState.AVAILABLE) == [True]
    assert await become(SubjectState.WITHDRAWN) == [False]
    assert await munich.matched() == [(demand["id"], material)]


async def test_a_match_ends_with_what_was_heard(munich: RoutingNode) -> None:
    demand = await munich.want()
    await munich.hear(heard_grain(origin="vienna.loop"))
    await munich.hear(heard_grain(origin="vienna.loop", available=False))
    assert [each["available"] for each in munich.demand(demand["id"])["matches"]] == [False]
    await munich.hear(heard_grain(origin="vienna.loop", valid_until_ms=NOW_MS + 1))
    assert [each["available"] for each in munich.demand(demand["id"])["matches"]] == [True]
    munich.clock.advance(1)
    assert [each["available"] for each in munich.demand(demand["id"])["matches"]] == [False]


async def test_the_asking_price_counts_pro_rata(munich: RoutingNode) -> None:
    await munich.register(1, metadata={"asking_price": 100})
    assert (await munich.want(max_price=40))["matches"]
    assert not (await munich.want(max_price=Decimal("39.99")))["matches"]


async def test_products_are_wanted_by_their_own_categories(munich: RoutingNode) -> None:
    await munich.register(1)
    demand = await munich.want(category=None, product_category="*", quantity=1, unit="piece")
    assert (demand["product_category"], demand["matches"]) == ("*", [])


async def test_supply_and_demand_that_arrive_together_meet(munich: RoutingNode) -> None:
    results = await asyncio.gather(
        *(munich.register(number) for number in range(20)), *(munich.want() for _ in range(20))
    )
    demands = [each["id"] for each in results[20:] if isinstance(each, dict)]
    for demand in demands:
        assert len(munich.demand(demand)["matches"]) == 20
    assert len(set(await munich.matched())) == len(await munich.matched()) == 400


async def test_one_supply_is_matched_with_the_oldest_demands(munich: RoutingNode) -> None:
    for _ in range(SUPPLY_MATCHES_MAX + 1):
        await munich.want()
    await munich.register(1)
    assert len(await munich.matched()) == SUPPLY_MATCHES_MAX


async def test_closing(munich: RoutingNode) -> None:
    demand = await munich.want(wanted_by="munich-farm")
    assert (demand["status"], demand["wanted_by"]) == ("open", "munich-farm")

    async def close(state: DemandState) -> Any:
        return await munich.write(lambda tx: munich.wanted.close(tx, demand["id"], state))

    assert (await close(DemandState.FULFILLED))["status"] == "fulfilled"
    assert (await close(DemandState.FULFILLED))["status"] == "fulfilled"
    with pytest.raises(Refusal) as refused:
        await close(DemandState.WITHDRAWN)
    assert (refused.value.status, reason_of(refused)) == (409, "terminal")
    await munich.register(1)
    assert await munich.matched() == []


async def test_a_demand_ends_by_itself(munich: RoutingNode) -> None:
    demand = await munich.want(valid_for_s=60)
    munich.clock.advance(60_000)
    assert munich.demand(demand["id"])["status"] == "expired"
    await munich.register(1)
    assert await munich.matched() == []
    with pytest.raises(Refusal) as refused:
        await munich.write(lambda tx: munich.wanted.close(tx, demand["id"], DemandState.WITHDRAWN))
    assert reason_of(refused) == "terminal"
    timer = WantedTime(munich.wanted, munich.database)
    await timer.step()
    closed = await munich.database.all("SELECT subject, data FROM event WHERE kind = 'wanted.closed'")
    assert [(row["subject"], row["data"]) for row in closed] == [(demand["id"], b'{"status":"expired"}')]
    munich.clock.advance(DEMAND_KEPT_MS + 1)
    await timer.step()
    with pytest.raises(Refusal) as refused:
        munich.demand(demand["id"])
    assert (refused.value.status, reason_of(refused)) == (404, "unknown_demand")


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    async with routing_node(tmp_path) as node:
        demand = await node.want()
    async with routing_node(tmp_path) as node:
        await node.register(1)
        assert await node.matched() == [(demand["id"], material_id(1))]


# What peers are told


async def test_peers_are_told_and_told_again_when_it_is_closed(munich: RoutingNode, tmp_path: Path) -> None:
    await munich.know("vienna.loop")
    await munich.know("plain.loop", features=frozenset())
    demand = await munich.want(wanted_by="munich-farm", max_price=Decimal("40.50"), radius_km=Decimal("400.5"))
    await munich.write(lambda tx: munich.wanted.close(tx, demand["id"], DemandState.WITHDRAWN))
    opened, closed = munich.outbox.queued
    assert (opened.target, opened.path) == ("vienna.loop", "/api/v1/federate/mirror")
    value = read_json(opened.body)
    assert "wanted_by" not in value
    assert value["location"] == {"lat": Decimal("48.14"), "lon": Decimal("11.58")}
    assert (value["max_price"], value["radius_km"], value["version"]) == (Decimal("40.50"), Decimal("400.5"), 1)
    assert (read_json(closed.body)["status"], read_json(closed.body)["version"]) == ("withdrawn", 2)
    async with routing_node(tmp_path, Home("vienna.loop", VIENNA)) as vienna:
        await vienna.know("munich.loop")
        await vienna.register(1)
        await vienna.told(opened.body, "munich.loop")
        assert await vienna.matched() == [(demand["id"], material_id(1))]
        await vienna.told(closed.body, "munich.loop")
        await vienna.told(opened.body, "munich.loop")
        await vienna.register(2)
        assert len(await vienna.matched()) == 1


async def test_who_becomes_a_peer_later_is_told_what_is_open(munich: RoutingNode) -> None:
    closed, open_still = await munich.want(), await munich.want(category="glass-clear")
    await munich.write(lambda tx: munich.wanted.close(tx, closed["id"], DemandState.WITHDRAWN))
    await munich.know("vienna.loop")
    node = munich.peer("vienna.loop")
    assert munich.wanted.owes(munich.database.points, node)
    await munich.write(lambda tx: munich.wanted.tell(tx, node))
    assert [read_json(each.body)["id"] for each in munich.outbox.queued] == [open_still["id"]]
    assert not munich.wanted.owes(munich.database.points, node)
    # A peer that comes with an empty database shakes hands again, and gets all of it again.
    munich.clock.advance(61_000)
    await munich.write(lambda tx: tx.execute("INSERT INTO outbox_cursor VALUES ('vienna.loop', 5, 5)") and None)
    await munich.know("vienna.loop")
    assert munich.wanted.owes(munich.database.points, node)


async def test_numbers_of_changes_never_come_again(munich: RoutingNode) -> None:
    await munich.know("vienna.loop")
    first = await munich.want()
    await munich.write(lambda tx: munich.wanted.close(tx, first["id"], DemandState.WITHDRAWN))
    munich.clock.advance(DEMAND_KEPT_MS + 1)
    await WantedTime(munich.wanted, munich.database).step()
    munich.outbox.queued.clear()
    await munich.want()
    assert len(munich.outbox.queued) == 1


async def test_whom_the_radius_leaves_out_is_not_told(munich: RoutingNode) -> None:
    await munich.know("vienna.loop")
    await munich.want(radius_km=300)
    assert munich.outbox.queued == []


# What peers look for


async def test_a_peers_demand_meets_own_supply_both_ways(munich: RoutingNode) -> None:
    await munich.know("vienna.loop")
    await munich.register(1)
    await munich.hear(heard_grain(origin="vienna.loop"))
    await munich.told(loop_demand())
    await munich.register(2)
    # What others have is none of this city's business.
    assert await munich.matched() == [("WNT-000000001", material_id(1)), ("WNT-000000001", material_id(2))]


async def test_only_a_newer_version_counts(munich: RoutingNode) -> None:
    await munich.know("vienna.loop")
    await munich.told(loop_demand(version=2, status="withdrawn"))
    await munich.told(loop_demand())
    await munich.register(1)
    assert await munich.matched() == []
    await munich.told(loop_demand(version=3, quantity=500))
    await munich.told(loop_demand(version=3, quantity=1))
    listed, _ = await munich.wanted.page(munich.database, False, None, 2**62, 10)
    assert [(each["quantity"], each["status"]) for each in listed] == [(500, "open")]
    assert len(await munich.matched()) == 1


async def test_of_each_peer_the_newest_are_kept(munich: RoutingNode) -> None:
    await munich.know("vienna.loop")
    await munich.know("berlin.loop")
    await munich.told(loop_demand(node="berlin.loop"), "berlin.loop")

    def all_at_once(tx: Any) -> None:
        for number in range(DEMANDS_PER_PEER_MAX + 5):
            munich.receive(tx, loop_demand(id=f"WNT-{number:09d}"))

    await munich.write(all_at_once)
    row = munich.database.point(
        "SELECT count(*) AS kept, min(demand_id) AS first FROM demand WHERE node = 'vienna.loop'"
    )
    assert row is not None
    assert (row["kept"], row["first"]) == (DEMANDS_PER_PEER_MAX, "WNT-000000005")


async def test_no_peers_demand_lasts_for_ever(munich: RoutingNode) -> None:
    await munich.know("vienna.loop")
    await munich.told(loop_demand(valid_until="9999-01-01T00:00:00Z"))
    listed, _ = await munich.wanted.page(munich.database, False, None, 2**62, 10)
    assert listed[0]["valid_until"] == format_timestamp(NOW_MS + 30 * DAY_MS)
    await munich.told(loop_demand(id="WNT-000000002", valid_until=format_timestamp(NOW_MS)))
    assert len((await munich.wanted.page(munich.database, False, None, 2**62, 10))[0]) == 1


@pytest.mark.parametrize(
    ("change", "caller", "reason"),
    [
        ({}, "berlin.loop", "not_a_peer"),
        ({"node": "munich.loop"}, "vienna.loop", "origin_mismatch"),
        ({"category": "nothing"}, "vienna.loop", "unknown_category"),
        ({"product_category": "*"}, "vienna.loop", "unknown_category"),
        ({"quantity": Decimal("1e-12")}, "vienna.loop", "bad_quantity"),
        ({"max_price": Decimal("0.001")}, "vienna.loop", "bad_amount"),
        ({"radius_km": 100}, "vienna.loop", "bad_radius"),
        ({"radius_km": 30_000, "location": {"lat": 0, "lon": 0}}, "vienna.loop", "bad_radius"),
        ({"category": None}, "vienna.loop", "schema"),
        ({"id": "WNT-x"}, "vienna.loop", "schema"),
        ({"status": "expired"}, "vienna.loop", "schema"),
        ({"version": 0}, "vienna.loop", "schema"),
        ({"contact": "maria@vienna.example"}, "vienna.loop", "personal_data"),
    ],
)
async def test_what_is_refused_changes_nothing(
    munich: RoutingNode, change: dict[str, Any], caller: str, reason: str
) -> None:
    await munich.know("vienna.loop")
    with pytest.raises(Refusal) as refused:
        await munich.told(loop_demand(**change), caller)
    assert reason_of(refused) == reason
    assert (await munich.wanted.page(munich.database, False, None, 2**62, 10))[0] == []


async def test_demand_is_found_by_category(munich: RoutingNode) -> None:
    """So that what others look for costs a registration nothing."""
    plan = await munich.database.all(
        "EXPLAIN QUERY PLAN SELECT * FROM demand WHERE state = 'open' AND kind = 'material' AND pattern IN ('a', 'b')"
        " AND dimension = 'mass' AND number > 0 ORDER BY number LIMIT 5"
    )
    assert any("demand_open (kind=? AND pattern=? AND dimension=? AND number>?)" in row["detail"] for row in plan)
