"""Searching this city's own records: each filter, the order, the pages, and what is not there to be had."""

from decimal import Decimal
from typing import Any

import pytest

from loopd.protocol.errors import Invalid, Unavailable
from loopd.protocol.geo import Location, between_km
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectState
from loopd.protocol.timestamps import format_timestamp
from tests.exchange_support import BERLIN, MUNICH, NOW_MS, VIENNA, known_node
from tests.registry_support import material_id
from tests.search_support import SearchNode

HOUR_MS = 3_600_000


def at(place: Location) -> dict[str, float]:
    return {"lat": place.lat, "lon": place.lon}


def ids(*numbers: int) -> list[str]:
    return [material_id(number) for number in numbers]


def metadata(**fields: Any) -> dict[str, Any]:
    return {"metadata": fields}


async def test_without_filters_all_that_can_be_had_comes_newest_first(node: SearchNode) -> None:
    for number in range(3):
        await node.material(number)
    await node.product(1)
    page = await node.search()
    assert [result["id"] for result in page["results"]] == ids(2, 1, 0)
    assert (page["total"], page["next"], "omitted" in page) == (3, None, False)
    shown = page["results"][0]
    assert (shown["@type"], shown["status"], shown["availability"]["status"]) == (
        "MaterialDNA",
        "registered",
        "available",
    )
    assert "distance_km" not in shown


async def test_a_category_is_exact_or_the_beginning_of_some(node: SearchNode) -> None:
    for number, category in enumerate(["plastic-pet", "plastic-mixed", "paper-mixed", "cardboard"]):
        await node.material(number, category=category)
    assert await node.found(category="plastic-*") == ids(1, 0)
    assert await node.found(category="plastic-pet") == ids(0)
    assert await node.found(category="*") == ids(3, 2, 1, 0)
    assert await node.found(category="p*") == ids(2, 1, 0)
    assert await node.found(category="glass-*") == []


async def test_products_have_their_own_categories_and_a_condition(node: SearchNode) -> None:
    await node.product(1, product_category="furniture-office", condition="good")
    await node.product(2, product_category="furniture-residential", condition="poor")
    await node.material(1)
    assert len(await node.found("product", product_category="furniture-*")) == 2
    assert await node.found("product", condition="poor") == ["PRD-DE-MUC-2026-000002"]
    assert await node.found("product", product_category="furniture-office", condition="poor") == []


async def test_a_radius_counts_from_the_node_or_from_a_place_nearest_first(node: SearchNode) -> None:
    for number, place in enumerate([BERLIN, VIENNA, MUNICH]):
        await node.material(number, location=at(place))
    assert await node.found(radius_km=400) == ids(2, 1)
    page = await node.search(near=at(BERLIN), radius_km=600)
    assert [result["id"] for result in page["results"]] == ids(0, 2, 1)
    assert [result["distance_km"] for result in page["results"]] == [
        Decimal("0.0"),
        Decimal(str(round(between_km(BERLIN, MUNICH), 3))),
        Decimal(str(round(between_km(BERLIN, VIENNA), 3))),
    ]
    assert await node.found(near=at(VIENNA)) == ids(1, 2, 0)


async def test_at_the_radius_is_inside_and_beyond_it_is_not(node: SearchNode) -> None:
    await node.material(1, location=at(VIENNA))
    way_km = between_km(MUNICH, VIENNA)
    assert await node.found(radius_km=way_km) == ids(1)
    assert await node.found(radius_km=way_km - 0.000_1) == []
    assert await node.found(near=at(VIENNA), radius_km=0) == ids(1)


async def test_what_states_no_place_lies_where_the_node_is(node: SearchNode) -> None:
    await node.material(1)
    assert await node.found(radius_km=0) == ids(1)
    assert await node.found(near=at(VIENNA), radius_km=100) == []


@pytest.mark.parametrize(
    ("centre", "inside", "outside"),
    [
        (Location(-17.0, 179.9), Location(-17.0, -179.9), Location(-17.0, 178.0)),
        (Location(-17.0, -180.0), Location(-17.0, 180.0), Location(-17.0, -178.0)),
        (Location(89.9, 10.0), Location(89.9, -170.0), Location(89.0, 10.0)),
        (Location(-90.0, 0.0), Location(-89.9, 77.0), Location(-89.5, 77.0)),
        (Location(0.0, 0.0), Location(0.1, -0.1), Location(0.3, 0.0)),
    ],
)
async def test_neither_a_pole_nor_the_antimeridian_is_special(
    node: SearchNode, centre: Location, inside: Location, outside: Location
) -> None:
    await node.material(1, location=at(inside))
    await node.material(2, location=at(outside))
    assert await node.found(near=at(centre), radius_km=25) == ids(1)
    assert await node.found(near=at(centre), radius_km=20_016) == ids(1, 2)


async def test_quantities_are_compared_in_their_own_dimension(node: SearchNode) -> None:
    stated = [(1, "t"), (999, "kg"), (1_000_000, "g"), (1_000, "l"), (1_000, "piece")]
    for number, (value, unit) in enumerate(stated):
        await node.material(number, quantity={"value": value, "unit": unit})
    assert await node.found(min_quantity=1000) == ids(2, 0)
    assert await node.found(min_quantity=1, unit="t") == ids(2, 0)
    assert await node.found(min_quantity=999_000, unit="g") == ids(2, 1, 0)
    assert await node.found(min_quantity=1, unit="m3") == ids(3)
    assert await node.found(unit="ml") == ids(3)
    assert await node.found(min_quantity=1_000.000_000_001, unit="kg") == []
    await node.product(1, quantity={"value": 12, "unit": "piece"})
    assert len(await node.found("product", min_quantity=12)) == 1
    assert await node.found("product", min_quantity=13) == []


async def test_what_is_left_counts_and_not_what_was_registered(node: SearchNode) -> None:
    await node.material(1, quantity={"value": 500, "unit": "kg"})
    await node.write(lambda tx: node.stock.reserve(tx, material_id(1), Quantity(Decimal(200), "kg"), "test"))
    assert await node.found(min_quantity=300) == ids(1)
    assert await node.found(min_quantity=301) == []
    await node.write(lambda tx: node.stock.reserve(tx, material_id(1), Quantity(Decimal(300), "kg"), "test"))
    assert await node.found() == []
    await node.write(lambda tx: node.stock.release(tx, material_id(1), Quantity(Decimal(500), "kg"), "test"))
    assert await node.found(min_quantity=500) == ids(1)


async def test_what_nobody_can_have_is_not_found(node: SearchNode) -> None:
    await node.material(1)
    await node.material(2, expires=format_timestamp(NOW_MS + HOUR_MS))
    await node.material(3, quantity={"value": 0, "unit": "kg"})
    await node.material(4, expires=format_timestamp(NOW_MS), available_from=format_timestamp(NOW_MS - HOUR_MS))
    assert await node.found() == ids(2, 1)
    await node.change(1, SubjectState.RESERVED)
    assert await node.found() == ids(2)
    await node.change(1, SubjectState.AVAILABLE)
    assert await node.found() == ids(2, 1)
    node.clock.advance(HOUR_MS)
    assert await node.found() == ids(1)
    await node.change(1, SubjectState.WITHDRAWN)
    assert await node.found() == []


async def test_what_is_over_leaves_the_index(node: SearchNode) -> None:
    for number in range(6):
        await node.material(number, expires=format_timestamp(NOW_MS + 1 + number), **metadata(notes="crate"))
    await node.material(6, **metadata(notes="crate"))
    await node.change(6, SubjectState.WITHDRAWN)
    node.clock.advance(HOUR_MS)
    for number in (7, 8):
        await node.material(number, **metadata(notes="crate"))
    for table in ("search_entry", "search_place", "search_text"):
        row = node.database.point(f"SELECT count(*) AS entries FROM {table}")
        assert row is not None
        assert row["entries"] == 2, table
    assert await node.found(text="crate") == ids(8, 7)


async def test_a_window_finds_what_can_be_had_in_it(node: SearchNode) -> None:
    await node.material(1, available_from=format_timestamp(NOW_MS + HOUR_MS))
    await node.material(2, available_from=format_timestamp(NOW_MS), expires=format_timestamp(NOW_MS + 2 * HOUR_MS))
    await node.material(3, available_from=format_timestamp(NOW_MS + 3 * HOUR_MS))

    def hour(count: float) -> str:
        return format_timestamp(NOW_MS + int(count * HOUR_MS))

    assert await node.found(available_from=hour(1), available_until=hour(1)) == ids(2, 1)
    assert await node.found(available_until=hour(0)) == ids(2)
    assert await node.found(available_from=hour(2)) == ids(3, 1)
    assert await node.found(available_from=hour(2), available_until=hour(2.5)) == ids(1)
    with pytest.raises(Invalid) as refused:
        await node.search(available_from=hour(2), available_until=hour(1))
    assert refused.value.details["errors"][0]["pointer"] == "/available_until"


async def test_words_or_their_beginnings_are_found_in_name_manufacturer_and_notes(node: SearchNode) -> None:
    await node.product(1, name="Standing desk", manufacturer="Müller GmbH", **metadata(notes="scratched top"))
    await node.product(2, name="Desk lamp")
    await node.material(1, **metadata(notes="Spent grain, wet"))
    assert len(await node.found("product", text="DESK")) == 2
    assert await node.found("product", text="stand muller") == ["PRD-DE-MUC-2026-000001"]
    assert await node.found("product", text="top lamp") == []
    assert await node.found(text="grain") == ids(1)
    assert await node.found(text="grain", radius_km=10, category="organic-*") == ids(1)
    assert await node.found(text="grain", category="plastic-*") == []


@pytest.mark.parametrize(
    "text", ["grain OR", "NOT grain", "name:grain", "grain*", "(grain", "NEAR(a b)", "^grain", "grain -", '"grain; --']
)
async def test_no_text_is_a_query_language(node: SearchNode, text: str) -> None:
    await node.material(1, **metadata(notes="not grain or near name a b"))
    assert await node.found(text=text) == ids(1)


async def test_a_bound_on_cost_takes_the_price_that_is_asked(node: SearchNode) -> None:
    await node.material(1, **metadata(asking_price=50))
    await node.material(2, **metadata(asking_price=50.01))
    await node.material(3)
    await node.material(4, **metadata(asking_price=49.995))
    page = await node.search(max_loop_cost=50)
    assert [(result["id"], result["loop_cost"]) for result in page["results"]] == [
        (material_id(4), Decimal("50.00")),
        (material_id(1), Decimal("50.00")),
    ]
    assert (page["total"], page["omitted"], page["next"]) == (2, 1, None)
    assert (await node.search(max_loop_cost=50, category="glass-*")) == {
        "results": [],
        "total": 0,
        "next": None,
        "omitted": 0,
    }


async def test_a_part_costs_its_part_of_the_price(node: SearchNode) -> None:
    await node.material(1, quantity={"value": 3, "unit": "t"}, **metadata(asking_price=100))
    await node.write(lambda tx: node.stock.reserve(tx, material_id(1), Quantity(Decimal(2), "t"), "test"))
    page = await node.search(max_loop_cost=33.33)
    assert [result["loop_cost"] for result in page["results"]] == [Decimal("33.33")]
    assert (await node.search(max_loop_cost=33.32))["total"] == 0


async def test_the_cost_to_a_destination_has_both_signals_and_the_way(node: SearchNode) -> None:
    await node.publish("vienna.loop", organic_food=0.2, default=0.5)
    node.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA)
    await node.material(1, **metadata(asking_price=60))
    page = await node.search(destination="vienna.loop", max_loop_cost=104)
    way = Decimal(str(round(between_km(MUNICH, VIENNA), 3)))
    (result,) = page["results"]
    assert result["breakdown"] == {
        "base": Decimal("60.00"),
        "export": Decimal("24.00"),
        "import": Decimal("12.00"),
        "distance": (way * Decimal("0.02")).quantize(Decimal("0.01")),
    }
    assert (await node.search(destination="vienna.loop", max_loop_cost=103))["total"] == 0
    assert (await node.search(destination="munich.loop", max_loop_cost=60))["total"] == 1
    shown = await node.search(destination="vienna.loop")
    assert shown["results"][0]["loop_cost"] == result["loop_cost"]


@pytest.mark.parametrize(
    ("node_id", "place", "reason"),
    [
        ("nobody.loop", None, "unknown_destination"),
        ("linz.loop", None, "location_unknown"),
        ("graz.loop", VIENNA, "signals_unknown"),
    ],
)
async def test_a_destination_that_no_cost_is_known_to_is_refused(
    node: SearchNode, node_id: str, place: Location | None, reason: str
) -> None:
    if node_id != "nobody.loop":
        node.directory.nodes[node_id] = known_node(node_id, place)
    with pytest.raises(Invalid) as refused:
        await node.search(destination=node_id)
    assert (refused.value.reason, refused.value.details["errors"][0]["pointer"]) == (reason, "/destination")


async def test_a_search_that_takes_too_long_is_given_up(node: SearchNode, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.material(1)
    with monkeypatch.context() as patched:
        patched.setattr("loopd.catalogue.search.SEARCH_TIMEOUT_S", 0.0)
        with pytest.raises(Unavailable) as refused:
            await node.search(radius_km=10)
    assert refused.value.reason == "overloaded"
    assert await node.found(radius_km=10) == ids(1)


async def test_no_more_costs_are_reckoned_than_are_bounded(node: SearchNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        await node.material(number, **metadata(asking_price=number))
    monkeypatch.setattr("loopd.catalogue.search.SEARCH_COSTED_MAX", 2)
    assert (await node.search(max_loop_cost=0))["total"] == 1
    with pytest.raises(Invalid) as refused:
        await node.search(max_loop_cost=2)
    assert refused.value.reason == "too_many_matches"


async def test_a_page_of_large_documents_ends_early(node: SearchNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await node.material(number, padding="x" * 1_000)
    monkeypatch.setattr("loopd.catalogue.matches.LIST_MAX_BYTES", 2_000)
    sizes = [len(page["results"]) async for page in node.pages()]
    assert sizes == [2, 2, 1]
