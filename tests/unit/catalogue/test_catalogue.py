"""What other cities announced: kept while it is offered and valid, fairly bounded, and shown with its source."""

from pathlib import Path

import pytest

from loopd.protocol.geo import Location
from loopd.protocol.subjects import SubjectKind
from tests.exchange_support import MUNICH, NOW_MS, VIENNA, known_node
from tests.registry_support import material_id
from tests.search_support import SearchNode, heard, search_node

DAY_MS = 86_400_000
OLDER = ("graz.loop", "linz.loop")
TABLES = ("search_entry", "search_place", "catalogue_entry")


def federation(**filters: object) -> dict[str, object]:
    return {"scope": "federation", **filters}


def sizes(node: SearchNode) -> list[int]:
    found = []
    for table in TABLES:
        row = node.database.point(f"SELECT count(*) AS entries FROM {table}")
        assert row is not None
        found.append(row["entries"])
    row = node.database.point("SELECT (SELECT entries FROM catalogue_count) AS all_of_them, total(entries) AS of_each"
                              " FROM catalogue_origin")  # fmt: skip
    assert row is not None
    assert row["all_of_them"] == row["of_each"] == found[-1]
    return found


async def test_what_was_announced_is_found_with_its_source_and_apart_from_what_is_here(node: SearchNode) -> None:
    await node.material(1)
    await node.hear(heard(2, expires_ms=NOW_MS + 2 * DAY_MS, message_id=b"\x0a" * 32))
    page = await node.search(**federation(category="organic-*", radius_km=400, min_quantity=1, unit="g"))
    assert page["results"] == [
        {
            "id": material_id(2),
            "kind": "material",
            "category": "organic-food",
            "quantity": {"value": 500, "unit": "kg"},
            "location": {"lat": page["results"][0]["location"]["lat"], "lon": page["results"][0]["location"]["lon"]},
            "available_from": "2026-09-21T14:13:20Z",
            "expires": "2026-09-23T14:13:20Z",
            "availability": {"status": "available"},
            "source_node": "vienna.loop",
            "verified": True,
            "valid_until": "2026-09-22T14:13:20Z",
            "message_id": "0a" * 32,
            "distance_km": page["results"][0]["distance_km"],
        }
    ]
    assert 350 < page["results"][0]["distance_km"] < 360
    assert await node.found() == [material_id(1)]


async def test_an_announcement_that_says_little_is_found_by_what_it_says(node: SearchNode) -> None:
    said = {"category": None, "quantity": None, "unit": None, "location": None, "available_from_ms": None}
    await node.hear(heard(1, **said), heard(2, "linz.loop", **said, verified=False))
    everywhere = await node.search(**federation())
    assert everywhere["results"][0] == {
        "id": material_id(2),
        "kind": "material",
        "availability": {"status": "available"},
        "source_node": "linz.loop",
        "verified": False,
        "valid_until": "2026-09-22T14:13:20Z",
        "message_id": "00" * 32,
    }
    near = await node.search(**federation(near={"lat": VIENNA.lat, "lon": VIENNA.lon}))
    assert [(result["source_node"], result["distance_km"]) for result in near["results"]] == [
        ("vienna.loop", 0),
        ("linz.loop", None),
    ]
    assert [result["source_node"] for result in (await node.search(**federation(radius_km=400)))["results"]] == [
        "vienna.loop"
    ]
    for filters in ({"category": "organic-food"}, {"min_quantity": 0}, {"text": "grain"}):
        assert (await node.search(**federation(**filters)))["total"] == 0
    costed = await node.search(**federation(max_loop_cost=10))
    assert (costed["total"], costed["omitted"]) == (0, 2)


async def test_a_category_that_nobody_here_knows_is_shown_unless_it_has_no_end(node: SearchNode) -> None:
    await node.hear(heard(1, category="plastic-bio"), heard(2, category="x" * 81))
    shown = await node.search(**federation())
    assert [result.get("category") for result in shown["results"]] == [None, "plastic-bio"]
    assert (await node.search(**federation(category="plastic-*")))["total"] == 0


async def test_products_are_announced_too(node: SearchNode) -> None:
    product = heard(0, subject_id="PRD-DE-VIE-2026-000001", kind=SubjectKind.PRODUCT, category="furniture-office")
    await node.hear(product)
    (result,) = (await node.search("product", **federation(product_category="furniture-*")))["results"]
    assert (result["kind"], result["product_category"], "category" in result) == ("product", "furniture-office", False)
    assert (await node.search("product", **federation(condition="new")))["total"] == 0
    assert (await node.search(**federation()))["total"] == 0


async def test_the_newest_state_rules_and_a_withdrawal_removes(node: SearchNode) -> None:
    await node.hear(heard(1), heard(2))
    number = node.database.point("SELECT number FROM catalogue_entry WHERE subject_id = ?", (material_id(1),))
    await node.hear(heard(1, quantity=100))
    assert await node.found(**federation(min_quantity=101)) == [material_id(2)]
    again = node.database.point("SELECT number FROM catalogue_entry WHERE subject_id = ?", (material_id(1),))
    assert number is not None
    assert again is not None
    assert number["number"] == again["number"]
    await node.hear(heard(1, available=False, state="withdrawn"))
    assert await node.found(**federation()) == [material_id(2)]
    await node.hear(heard(3, available=False))
    assert sizes(node) == [1, 1, 1]


async def test_what_moved_or_changed_its_category_is_found_where_it_is_now(node: SearchNode) -> None:
    await node.hear(heard(1, location=Location(52.52, 13.4)))
    await node.hear(heard(1))
    near = {"lat": VIENNA.lat, "lon": VIENNA.lon}
    assert await node.found(**federation(near=near, radius_km=10)) == [material_id(1)]
    assert await node.found(**federation(near={"lat": 52.52, "lon": 13.4}, radius_km=10)) == []
    await node.hear(heard(1, category="paper-mixed"))
    assert await node.found(**federation(category="paper-*")) == [material_id(1)]
    assert await node.found(**federation(category="organic-*")) == []
    assert sizes(node) == [1, 1, 1]


async def test_what_one_city_says_of_a_subject_leaves_what_another_says(node: SearchNode) -> None:
    await node.hear(heard(1), heard(1, "linz.loop", verified=False))
    await node.hear(heard(1, "linz.loop", available=False))
    (result,) = (await node.search(**federation()))["results"]
    assert (result["source_node"], result["verified"]) == ("vienna.loop", True)


@pytest.mark.parametrize(
    ("changes", "lasts_ms"), [({}, DAY_MS), ({"expires_ms": NOW_MS + 1_000}, 1_000), ({"expires_ms": NOW_MS}, 0)]
)
async def test_an_entry_ends_with_its_announcement_or_with_what_it_tells_of(
    node: SearchNode, changes: dict[str, int], lasts_ms: int
) -> None:
    await node.hear(heard(1, **changes))
    assert (await node.search(**federation()))["total"] == (lasts_ms > 0)
    node.clock.advance(lasts_ms)
    assert (await node.search(**federation()))["total"] == 0
    await node.hear(heard(2, valid_until_ms=NOW_MS + 2 * DAY_MS))
    assert sizes(node) == [1, 1, 1]


async def test_a_window_looks_at_what_is_offered_not_at_how_long_its_announcement_is_valid(node: SearchNode) -> None:
    await node.hear(heard(1), heard(2, expires_ms=NOW_MS + 3 * DAY_MS))
    assert await node.found(**federation(available_from="2026-09-23T00:00:00Z")) == [material_id(2), material_id(1)]
    assert await node.found(**federation(available_from="2026-09-25T00:00:00Z")) == [material_id(1)]


async def test_one_city_cannot_push_out_the_others(tmp_path: Path) -> None:
    async with search_node(tmp_path, entries_max=10) as node:
        await node.hear(*(heard(number, "linz.loop") for number in range(3)))
        flood = [heard(number, "graz.loop", valid_until_ms=NOW_MS + DAY_MS - number) for number in range(100, 200)]
        await node.hear(*flood)
        assert sizes(node)[-1] == 10
        kept = [result["id"] for result in (await node.search(**federation()))["results"]]
        assert {material_id(number) for number in range(3)} < set(kept)
        await node.hear(*(heard(number, f"city{number}.loop") for number in range(5)))
        rows = node.database.points.all("SELECT origin, entries FROM catalogue_origin ORDER BY origin")
        assert [row["origin"] for row in rows] == [*(f"city{number}.loop" for number in range(5)), *OLDER]
        assert sorted(row["entries"] for row in rows) == [1, 1, 1, 1, 1, 2, 3]
        await node.hear(heard(0, "linz.loop", quantity=1))
        assert sizes(node)[-1] == 10


async def test_pages_of_the_federation_give_each_entry_once_while_it_is_renewed(node: SearchNode) -> None:
    await node.hear(*(heard(number) for number in range(25)))
    found: list[str] = []
    async for page in node.pages(**federation(limit=4)):
        found += [result["id"] for result in page["results"]]
        assert page["total"] == 25
        await node.hear(*(heard(number, quantity=7, message_id=b"\x01" * 32) for number in range(30)))
    assert sorted(found) == [material_id(number) for number in range(25)]


# The index when the node starts


async def test_records_from_before_the_index_are_entered_when_the_node_starts(node: SearchNode) -> None:
    for number in range(3):
        await node.material(number)

    def as_before(tx: object) -> None:
        for statement in (
            "DELETE FROM search_place",
            "DELETE FROM search_entry",
            "INSERT INTO search_backlog SELECT number FROM record",
            "UPDATE record SET state = 'withdrawn' WHERE number = 2",
        ):
            tx.execute(statement)  # type: ignore[attr-defined]

    await node.write(as_before)
    assert (await node.search())["total"] == 0
    for _ in range(2):
        await node.catalogue.prepare(node.database, node.registry)
        assert await node.found() == [material_id(2), material_id(0)]


async def test_a_clock_that_ran_ahead_costs_no_record_its_place(node: SearchNode) -> None:
    await node.material(1, expires="2026-09-22T00:00:00Z")
    node.clock.set_wall(NOW_MS + 30 * DAY_MS)
    await node.material(2)
    node.clock.set_wall(NOW_MS)
    assert await node.found() == [material_id(2)]
    await node.catalogue.prepare(node.database, node.registry)
    assert sorted(await node.found()) == [material_id(1), material_id(2)]


async def test_what_states_no_place_moves_with_the_node(node: SearchNode) -> None:
    await node.material(1)
    await node.material(2, location={"lat": MUNICH.lat, "lon": MUNICH.lon})
    await node.catalogue.prepare(node.database, node.registry)
    assert await node.found(near={"lat": MUNICH.lat, "lon": MUNICH.lon}, radius_km=1) == [
        material_id(2),
        material_id(1),
    ]
    node.home.location = VIENNA
    await node.catalogue.prepare(node.database, node.registry)
    assert await node.found(near={"lat": VIENNA.lat, "lon": VIENNA.lon}, radius_km=1) == [material_id(1)]
    assert await node.found(near={"lat": MUNICH.lat, "lon": MUNICH.lon}, radius_km=1) == [material_id(2)]


async def test_a_city_that_moved_is_found_at_its_new_place_with_its_next_announcement(node: SearchNode) -> None:
    await node.hear(heard(1, location=None))
    node.directory.nodes["vienna.loop"] = known_node("vienna.loop", MUNICH)
    await node.hear(heard(1, location=None))
    assert await node.found(**federation(radius_km=1)) == [material_id(1)]
