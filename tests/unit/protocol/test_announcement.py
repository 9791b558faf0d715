"""Announcements: the bytes of the full form, both forms read, and what a schema does not see."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.protocol.announcement import Announcement, build_announcement, read_announcement, times_are_sound
from loopd.protocol.contexts import context_url
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location
from loopd.protocol.json_text import read_json
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState

ISSUED_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY_MS = 86_400_000
ANCHOR = bytes(range(32))
GRAIN = Subject(
    subject_id="MAT-DE-MUC-2026-FOOD-B847F3",
    kind=SubjectKind.MATERIAL,
    category="organic-food",
    quantity=Decimal("500.50"),
    unit="kg",
    available_from_ms=ISSUED_MS,
    expires_ms=ISSUED_MS + 3 * DAY_MS,
    location=Location(48.1372, 11.5755),
    state=SubjectState.AVAILABLE,
)
ARGUMENTS: dict[str, Any] = {
    "context_url": context_url(),
    "origin": "munich.loop",
    "origin_location": Location(48.1351, 11.582),
    "revision": 7,
    "issued_at_ms": ISSUED_MS,
    "valid_until_ms": ISSUED_MS + 7 * DAY_MS,
    "radius_km": 1000.0,
    "hop_anchor": ANCHOR,
}
PLAIN: dict[str, Any] = {
    "@context": context_url(version="0.1.1"),
    "@type": "MaterialAnnouncement",
    "material": "MAT-DE-MUC-2026-FOOD-B847F3",
    "origin": "plain.loop",
    "available": True,
}


def full(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = read_json(build_announcement(GRAIN, **ARGUMENTS))
    return value | changes


def test_the_full_form_byte_for_byte() -> None:
    assert build_announcement(GRAIN, **ARGUMENTS) == (
        b'{"@context":"https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld",'
        b'"@type":"MaterialAnnouncement","schema_version":"0.2.0","material":"MAT-DE-MUC-2026-FOOD-B847F3",'
        b'"origin":"munich.loop","available":true,"state":"available","category":"organic-food",'
        b'"quantity":500.50,"unit":"kg","available_from":"2026-01-01T00:00:00Z","expires":"2026-01-04T00:00:00Z",'
        b'"location":{"lat":48.14,"lon":11.58},"revision":7,"issued_at":"2026-01-01T00:00:00Z",'
        b'"valid_until":"2026-01-08T00:00:00Z","ttl":3,"radius_km":1000.0,'
        b'"origin_location":{"lat":48.1351,"lon":11.582},'
        b'"hop_anchor":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}'
    )


def test_the_full_form_is_read_as_it_was_meant() -> None:
    assert read_announcement(full(), ISSUED_MS + 5) == Announcement(
        subject=GRAIN.subject_id,
        subject_kind=SubjectKind.MATERIAL,
        origin="munich.loop",
        available=True,
        state="available",
        category="organic-food",
        quantity=Decimal("500.50"),
        unit="kg",
        location=Location(48.14, 11.58),
        available_from_ms=ISSUED_MS,
        expires_ms=ISSUED_MS + 3 * DAY_MS,
        revision=7,
        issued_at_ms=ISSUED_MS,
        valid_until_ms=ISSUED_MS + 7 * DAY_MS,
        ttl=3,
        radius_km=1000.0,
        origin_location=Location(48.1351, 11.582),
        hop_anchor=ANCHOR,
    )


def test_what_is_not_known_is_left_out_and_no_radius_is_null() -> None:
    bare = replace(GRAIN, expires_ms=None, location=None, state=SubjectState.WITHDRAWN)
    value = read_json(build_announcement(bare, **(ARGUMENTS | {"radius_km": None})))
    assert not {"expires", "location"} & set(value)
    assert (value["available"], value["state"], value["radius_km"]) == (False, "withdrawn", None)
    announcement = read_announcement(value, ISSUED_MS)
    assert (announcement.radius_km, announcement.location, announcement.expires_ms) == (None, None, None)


def test_a_product_is_announced_under_its_own_key() -> None:
    desk = replace(GRAIN, subject_id="PRD-DESK-0001", kind=SubjectKind.PRODUCT, category="furniture-office")
    value = read_json(build_announcement(desk, **ARGUMENTS))
    assert "material" not in value
    announcement = read_announcement(value, ISSUED_MS)
    assert (announcement.subject, announcement.subject_kind) == ("PRD-DESK-0001", SubjectKind.PRODUCT)


@given(st.floats(-90, 90), st.floats(-180, 180))
@settings(max_examples=100)
def test_a_place_is_told_to_a_hundredth_of_a_degree(lat: float, lon: float) -> None:
    text = build_announcement(replace(GRAIN, location=Location(lat, lon)), **ARGUMENTS).decode()
    place = json.loads(text, parse_float=str)["location"]
    for degrees, told in ((lat, place["lat"]), (lon, place["lon"])):
        assert abs(float(told) - degrees) <= 0.005 + 1e-9
        assert len(told.partition(".")[2]) == 2
        assert told not in {"-0.00", "-0.0"}


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 0},
        {"revision": 2**53},
        {"ttl": 0},
        {"ttl": 4},
        {"radius_km": 0},
        {"radius_km": -1.0},
        {"radius_km": float("nan")},
        {"valid_until_ms": ISSUED_MS},
        {"valid_until_ms": ISSUED_MS + 7 * DAY_MS + 1},
        {"hop_anchor": bytes(31)},
    ],
)
def test_nothing_is_made_that_no_receiver_would_accept(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        build_announcement(GRAIN, **(ARGUMENTS | changes))


def test_a_plain_form_has_the_scope_that_is_fixed_for_it() -> None:
    announcement = read_announcement(PLAIN, ISSUED_MS)
    assert announcement.anchored is False
    assert (announcement.revision, announcement.ttl, announcement.radius_km) == (0, 3, None)
    assert announcement.issued_at_ms == ISSUED_MS
    assert announcement.valid_until_ms == ISSUED_MS + DAY_MS
    assert (announcement.category, announcement.quantity, announcement.unit, announcement.state) == (None,) * 4


def test_a_plain_form_cannot_state_its_own_scope() -> None:
    value = full()
    del value["hop_anchor"]
    announcement = read_announcement(value, ISSUED_MS)
    assert (announcement.revision, announcement.radius_km, announcement.origin_location) == (0, None, None)
    assert announcement.valid_until_ms == ISSUED_MS + DAY_MS


def test_a_quantity_without_a_unit_is_read_as_in_the_specifications_example() -> None:
    announcement = read_announcement(PLAIN | {"category": "organic-food", "quantity": 500}, ISSUED_MS)
    assert (announcement.quantity, announcement.unit) == (Decimal(500), None)


def test_beside_a_material_product_is_a_field_like_any_other() -> None:
    announcement = read_announcement(PLAIN | {"product": ["anything"]}, ISSUED_MS)
    assert announcement.subject_kind is SubjectKind.MATERIAL


def test_whole_numbers_may_be_written_as_decimals() -> None:
    announcement = read_announcement(full(revision=Decimal("7.0"), ttl=Decimal("2.0")), ISSUED_MS)
    assert (announcement.revision, announcement.ttl) == (7, 2)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"revision": 2**53}, "/revision"),
        ({"revision": Decimal(10) ** 40}, "/revision"),
        ({"quantity": Decimal(10) ** 16}, "/quantity"),
        ({"quantity": Decimal("0.0000000001")}, "/quantity"),
        ({"material": "MAT-DE-MUC-2026-FOOD-" + "A" * 500}, "/material"),
        ({"origin": "a" * 500 + ".loop"}, "/origin"),
    ],
)
def test_what_the_schema_does_not_bound_is_bounded(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_announcement(full(**changes), ISSUED_MS)
    assert caught.value.reason == "schema"
    assert [error["pointer"] for error in caught.value.details["errors"]] == [pointer]


def test_a_product_id_beyond_its_length_is_refused() -> None:
    value = {key: content for key, content in PLAIN.items() if key != "material"} | {"product": "PRD-" + "A" * 500}
    with pytest.raises(Invalid) as caught:
        read_announcement(value, ISSUED_MS)
    assert caught.value.details["errors"][0]["pointer"] == "/product"


def test_what_is_built_is_sound_when_it_is_made() -> None:
    announcement = read_announcement(full(), ISSUED_MS)
    assert times_are_sound(announcement, ISSUED_MS, ISSUED_MS)
    assert not times_are_sound(announcement, ISSUED_MS, ISSUED_MS - 300_001)
    # An old message is sound too; that it has ended is another question.
    assert times_are_sound(announcement, ISSUED_MS, ISSUED_MS + 365 * DAY_MS)
