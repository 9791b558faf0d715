"""What a search may ask, and cursors: whatever does not fit is refused with its place, and nothing ever fails."""

import asyncio
import json
import tempfile
from base64 import urlsafe_b64encode
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopd.catalogue.cursor import CURSOR_CHARACTERS, Cursor, Position, read_cursor, write_cursor
from loopd.catalogue.query import KEYS, read_query
from loopd.protocol.errors import Invalid
from loopd.protocol.json_text import read_json
from loopd.protocol.subjects import SubjectKind
from tests.exchange_support import MUNICH
from tests.search_support import SearchNode, search_node

PATH = "/api/v1/material/search"
MONTH = "2026-09-21T14:13:20Z"
SEARCH = b"a search"


@pytest.mark.parametrize(
    ("body", "reason", "pointer"),
    [
        ([], "schema", ""),
        ("plastic", "schema", ""),
        ({"colour": "red"}, "schema", ""),
        ({"@context": "https://example.org"}, "schema", ""),
        ({"condition": "new"}, "schema", ""),
        ({"product_category": "furniture-office"}, "schema", ""),
        ({"category": 5}, "schema", "/category"),
        ({"category": None}, "schema", "/category"),
        ({"category": "plastik"}, "unknown_category", "/category"),
        ({"category": "plastic"}, "unknown_category", "/category"),
        ({"category": "*-pet"}, "unknown_category", "/category"),
        ({"category": "plastic-**"}, "unknown_category", "/category"),
        ({"category": ""}, "unknown_category", "/category"),
        ({"radius_km": -1}, "bad_radius", "/radius_km"),
        ({"radius_km": 20_017}, "bad_radius", "/radius_km"),
        ({"radius_km": 10**17}, "bad_radius", "/radius_km"),
        ({"radius_km": "10"}, "schema", "/radius_km"),
        ({"radius_km": True}, "schema", "/radius_km"),
        ({"near": [48, 11]}, "schema", "/near"),
        ({"near": {"lat": 48}}, "schema", "/near"),
        ({"near": {"lat": 48, "lon": 11, "alt": 3}}, "schema", "/near"),
        ({"near": {"lat": "48", "lon": 11}}, "schema", "/near/lat"),
        ({"near": {"lat": 48, "lon": 180.01}}, "bad_location", "/near"),
        ({"near": {"lat": -90.5, "lon": 0}}, "bad_location", "/near"),
        ({"min_quantity": -1}, "bad_quantity", "/min_quantity"),
        ({"min_quantity": 10**16}, "bad_quantity", "/min_quantity"),
        ({"min_quantity": 1, "unit": "lb"}, "bad_quantity", "/unit"),
        ({"unit": 3}, "schema", "/unit"),
        ({"available_from": "tomorrow"}, "bad_time", "/available_from"),
        ({"available_until": 5}, "schema", "/available_until"),
        ({"available_from": MONTH, "available_until": "2026-09-21T14:13:19Z"}, "bad_time", "/available_until"),
        ({"max_loop_cost": -0.01}, "bad_amount", "/max_loop_cost"),
        ({"max_loop_cost": 0.001}, "bad_amount", "/max_loop_cost"),
        ({"destination": "Vienna"}, "bad_destination", "/destination"),
        ({"scope": "everywhere"}, "bad_scope", "/scope"),
        ({"text": ""}, "bad_text", "/text"),
        ({"text": "-- _ '' \" *"}, "bad_text", "/text"),
        ({"text": "a" * 201}, "bad_text", "/text"),
        ({"text": "a " * 17}, "bad_text", "/text"),
        ({"limit": 0}, "bad_limit", "/limit"),
        ({"limit": 101}, "bad_limit", "/limit"),
        ({"limit": 1.5}, "bad_limit", "/limit"),
        ({"limit": "20"}, "schema", "/limit"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_place(
    node: SearchNode, body: Any, reason: str, pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await node.post(PATH, json.dumps(body).encode())
    assert refused.value.reason == reason
    assert refused.value.details["errors"][0]["pointer"] == pointer


async def test_products_know_a_condition_and_their_own_categories(node: SearchNode) -> None:
    for body, pointer in (
        ({"condition": "mint"}, "/condition"),
        ({"product_category": "organic-food"}, "/product_category"),
        ({"category": "organic-food"}, ""),
    ):
        with pytest.raises(Invalid) as refused:
            await node.search("product", **body)
        assert refused.value.details["errors"][0]["pointer"] == pointer


def test_without_filters_the_defaults_hold() -> None:
    query = read_query(SubjectKind.MATERIAL, {}, MUNICH)
    assert (query.near, query.radius_km, query.minimum, query.words, query.limit) == (None, None, None, (), 20)
    assert read_query(SubjectKind.MATERIAL, {"radius_km": 5}, MUNICH).near == MUNICH
    assert read_query(SubjectKind.MATERIAL, {"limit": Decimal("20.0")}, MUNICH).limit == 20


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS[SubjectKind.PRODUCT]) | st.text(max_size=8), JSON_VALUES, max_size=4))
def test_no_request_makes_the_reading_fail(body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    try:
        value = read_json(text)
    except Invalid:
        return
    try:
        read_query(SubjectKind.PRODUCT, value, MUNICH)
    except Invalid as refusal:
        assert "errors" in refusal.details  # noqa: PT017


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30), min_size=40, max_size=60))
def test_no_text_makes_a_search_fail(texts: list[str]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with search_node(Path(directory)) as node:
                for text in (*texts, "ა\u2c00", "\u0300", "𞤀𞥐", "a\u0301", "ﬁ"):
                    try:
                        await node.search(text=text)
                    except Invalid as refusal:
                        assert refusal.reason in ("bad_text", "nul_character")  # noqa: PT017

    asyncio.run(run())


# Cursors


def test_a_cursor_comes_back_as_it_was() -> None:
    cursor = Cursor(17, 2**40, 3, Position(0.1 + 0.2, 5))
    text = write_cursor(cursor, SEARCH)
    assert len(text) == CURSOR_CHARACTERS
    assert read_cursor(text, SEARCH) == cursor


@given(st.integers(0, CURSOR_CHARACTERS - 1), st.characters(min_codepoint=33, max_codepoint=0x24F))
def test_no_character_of_a_cursor_can_be_changed(place: int, character: str) -> None:
    text = write_cursor(Cursor(17, 25, 0, Position(0.1, 5)), SEARCH)
    changed = text[:place] + character + text[place + 1 :]
    if changed != text:
        with pytest.raises(Invalid, match="cursor"):
            read_cursor(changed, SEARCH)


def test_a_cursor_is_written_in_one_way_only() -> None:
    number = next(n for n in range(1000) if {"-", "_"} & set(write_cursor(Cursor(n, 0, 0, Position(0.0, 1)), SEARCH)))
    text = write_cursor(Cursor(number, 0, 0, Position(0.0, 1)), SEARCH)
    for other in (text.replace("-", "+").replace("_", "/"), f"{text[:8]} {text[8:]}", f"{text}\n", f"{text}===="):
        with pytest.raises(Invalid, match="cursor"):
            read_cursor(other, SEARCH)


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 64, "=" * 64, "Ä" * 64, "A" * 63, "A" * 65, "A" * 100_000])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_cursor(text, SEARCH)
    assert refused.value.reason == "bad_cursor"


async def test_a_cursor_belongs_to_its_search(node: SearchNode) -> None:
    for number in range(5):
        await node.material(number)
    first = await node.search(limit=2, category="organic-*")
    assert (await node.post(first["next"], {"category": "organic-*", "limit": 2}))["total"] == 5
    assert len((await node.post(first["next"], {"category": "organic-*", "limit": 100}))["results"]) == 3
    for url, body in (
        (first["next"], {"limit": 2}),
        (first["next"], {"limit": 2, "category": "organic-food"}),
        (first["next"].replace("material", "product"), {"limit": 2}),
        (f"{PATH}?cursor={urlsafe_b64encode(bytes(48)).decode()}", {"limit": 2}),
    ):
        with pytest.raises(Invalid) as refused:
            await node.post(url, body)
        assert refused.value.reason == "bad_cursor"
