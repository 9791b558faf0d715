from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.geo import Location
from loopd.protocol.lifecycle import MATERIAL_STATUS
from loopd.protocol.limits import QUANTITY_MAX
from loopd.protocol.quantity import UNIT_SCALE, Quantity, parse_quantity
from loopd.protocol.subjects import SubjectKind, SubjectState
from loopd.registry.rules import (
    base_quantity_text,
    check_transition,
    compacted_text,
    facts_of,
    has_expired,
    is_available,
    same_city,
    same_json,
)

MATERIAL: dict[str, Any] = {
    "id": "MAT-DE-MUC-2025-FOOD-B847F3",
    "category": "organic-food",
    "quantity": {"value": Decimal("500.5"), "unit": "kg"},
    "current_city": "Munich",
    "location": {"lat": Decimal("48.1351"), "lon": Decimal("11.5820")},
    "available_from": "2026-11-21T04:00:00Z",
    "expires": "2026-11-24T04:00:00+01:00",
}
PRODUCT: dict[str, Any] = {
    "id": "PRD-DE-MUC-2025-DESK-F4A7B2",
    "product_category": "furniture-office",
    "condition": "good",
    "quantity": {"value": 12, "unit": "piece"},
    "current_city": "Munich",
    "available_from": "2026-11-21T04:00:00Z",
}


def test_facts_of_a_material() -> None:
    facts = facts_of("MaterialDNA", MATERIAL)
    assert facts.current_city == "Munich"
    assert facts.condition is None
    subject = facts.subject
    assert (subject.subject_id, subject.kind) == ("MAT-DE-MUC-2025-FOOD-B847F3", SubjectKind.MATERIAL)
    assert (subject.category, subject.quantity, subject.unit) == ("organic-food", Decimal("500.5"), "kg")
    assert subject.location == Location(48.1351, 11.582)
    assert subject.available_from_ms == 1_795_233_600_000
    assert subject.expires_ms == 1_795_233_600_000 + 71 * 3_600_000
    assert subject.state is SubjectState.AVAILABLE


def test_facts_of_a_product() -> None:
    facts = facts_of("ProductDNA", PRODUCT)
    assert facts.condition == "good"
    assert facts.subject.kind is SubjectKind.PRODUCT
    assert facts.subject.category == "furniture-office"
    assert facts.subject.location is None
    assert facts.subject.expires_ms is None


@pytest.mark.parametrize(
    ("changes", "reason", "pointer"),
    [
        ({"id": "MAT-DE-MUC-2025-FOOD-" + "A" * 200}, "bad_id", "/id"),
        ({"quantity": {"value": QUANTITY_MAX + 1, "unit": "t"}}, "bad_quantity", "/quantity/value"),
        ({"quantity": {"value": Decimal("0.0000000001"), "unit": "kg"}}, "bad_quantity", "/quantity/value"),
        ({"available_from": "0001-01-01T00:00:00+12:00"}, "bad_time", "/available_from"),
        ({"expires": "9999-12-31T23:59:59-12:00"}, "bad_time", "/expires"),
        ({"expires": "2026-11-21T03:59:59Z"}, "expires_before_available", "/expires"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(changes: dict[str, Any], reason: str, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        facts_of("MaterialDNA", MATERIAL | changes)
    assert refused.value.reason == reason
    assert refused.value.details["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": {"value": 0, "unit": "kg"}},
        {"quantity": {"value": QUANTITY_MAX, "unit": "t"}},
        {"available_from": "0001-01-01T00:00:00Z"},
        {"expires": "9999-12-31T23:59:59Z"},
        {"expires": MATERIAL["available_from"]},
        {"id": "MAT-DE-MUC-2025-FOOD-" + "A" * (200 - 21)},
    ],
)
def test_the_edges_are_kept(changes: dict[str, Any]) -> None:
    assert facts_of("MaterialDNA", MATERIAL | changes).current_city == "Munich"


@pytest.mark.parametrize("beginning", ['{"@context":"', ' {\n "@context" : "'])
def test_a_plain_document_is_stored_as_sent(beginning: str) -> None:
    assert compacted_text(Document("MaterialDNA", {"@context": "x"}, f'{beginning}x"}}'.encode())) is None
    assert compacted_text(Document("MaterialDNA", {"@context": "x"}, b'{"id": 1, "@context": "x"}')) is None


@pytest.mark.parametrize("sent", [b'{"@context": ["x"], "id": 1}', b'[{"@context": "x"}]', b'{"a": {"@context": "x"}}'])
def test_another_form_is_stored_with_its_compacted_text(sent: bytes) -> None:
    value = {"@context": "x", "quality": Decimal("0.50")}
    assert compacted_text(Document("MaterialDNA", value, sent)) == b'{"@context":"x","quality":0.50}'


quantities = st.builds(
    parse_quantity,
    st.decimals(min_value=0, max_value=QUANTITY_MAX, places=9, allow_nan=False, allow_infinity=False),
    st.sampled_from(sorted(UNIT_SCALE)),
)


@given(quantities, quantities)
def test_base_quantity_texts_sort_as_the_quantities_do(a: Quantity, b: Quantity) -> None:
    text_a, text_b = base_quantity_text(a), base_quantity_text(b)
    assert len(text_a) == len(text_b) == 32
    assert (text_a < text_b) == (a.in_base() < b.in_base())
    assert Decimal(text_a) == a.in_base()


def test_a_record_expires_at_its_moment() -> None:
    assert not has_expired(None, 10)
    assert not has_expired(11, 10)
    assert has_expired(10, 10)


@pytest.mark.parametrize("state", list(SubjectState))
def test_only_what_nobody_holds_and_has_not_expired_is_available(state: SubjectState) -> None:
    subject = replace(facts_of("MaterialDNA", MATERIAL).subject, state=state)
    expires_ms = subject.expires_ms
    assert expires_ms is not None
    assert is_available(subject, expires_ms - 1) == (state is SubjectState.AVAILABLE)
    assert not is_available(subject, expires_ms)


@pytest.mark.parametrize("current", list(SubjectState))
@pytest.mark.parametrize("following", list(SubjectState))
def test_transitions_are_those_of_the_table(current: SubjectState, following: SubjectState) -> None:
    if following in MATERIAL_STATUS.successors[current]:
        check_transition(current, following)
        return
    with pytest.raises(Conflict) as refused:
        check_transition(current, following)
    assert refused.value.reason == ("terminal" if current is SubjectState.WITHDRAWN else "transition")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Munich", "munich", True),
        ("München", "MU\u0308NCHEN", True),
        ("Großstadt", "GROSSSTADT", True),
        ("Munich", " Munich ", True),
        ("Munich", "Vienna", False),
        ("Munich", "Munich 2", False),
    ],
)
def test_one_city_under_two_spellings(a: str, b: str, same: bool) -> None:
    assert same_city(a, b) is same


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, Decimal("1.0"), True),
        (Decimal("0.10"), Decimal("0.1"), True),
        (True, 1, False),
        (0, False, False),
        (None, False, False),
        ("1", 1, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": 1, "b": [True]}, {"b": [True], "a": 1}, True),
        ({"a": {"b": True}}, {"a": {"b": 1}}, False),
        ({"a": None}, {}, False),
        ({}, [], False),
    ],
)
def test_json_values_are_compared_as_json(a: object, b: object, same: bool) -> None:
    assert same_json(a, b) is same
    assert same_json(b, a) is same


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_every_json_value_is_itself(value: object) -> None:
    assert same_json(value, value)
