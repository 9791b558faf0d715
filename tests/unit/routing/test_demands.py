from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.exchange.rules import great_circle_km
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location
from loopd.protocol.quantity import UNIT_SCALE, Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES, category_matches
from loopd.routing.demands import (
    Demand,
    DemandState,
    Supply,
    asked_for,
    categories_of,
    fits,
    patterns_for,
    read_wanted_by,
    read_wish,
)
from tests.exchange_support import MUNICH, VIENNA, reason_of

KG = Quantity(Decimal(200), "kg")
DEMAND = Demand(
    number=1,
    demand_id="WNT-00000001",
    node_id="vienna.loop",
    own=False,
    verified=True,
    wanted_by=None,
    kind=SubjectKind.MATERIAL,
    pattern="organic-*",
    quantity=KG,
    max_price_minor=4_000,
    radius_km=Decimal(400),
    location=VIENNA,
    issued_at_ms=0,
    valid_until_ms=1_000,
    state=DemandState.OPEN,
    version=1,
    changed_at_ms=0,
)
GRAIN = Supply(
    node_id="munich.loop",
    subject_id="MAT-DE-MUC-2026-FOOD-B847F3",
    kind=SubjectKind.MATERIAL,
    category="organic-food",
    left=Quantity(Decimal(500), "kg"),
    whole=Quantity(Decimal(500), "kg"),
    location=MUNICH,
    asking_lc=Decimal(100),
    ends_ms=None,
)


def test_what_fits() -> None:
    assert fits(DEMAND, GRAIN)
    assert fits(replace(DEMAND, radius_km=great_circle_km(VIENNA, MUNICH)), GRAIN)
    assert fits(replace(DEMAND, radius_km=None, location=None), replace(GRAIN, location=None))
    assert fits(replace(DEMAND, max_price_minor=None), replace(GRAIN, asking_lc=Decimal(10**6)))
    assert fits(replace(DEMAND, quantity=Quantity(Decimal("0.5"), "t"), max_price_minor=10_000), GRAIN)


@pytest.mark.parametrize(
    "supply",
    [
        {"kind": SubjectKind.PRODUCT},
        {"category": "glass-clear"},
        {"category": None},
        {"left": None},
        {"left": Quantity(Decimal("199.999999999"), "kg")},
        {"left": Quantity(Decimal(500), "l")},
        {"asking_lc": Decimal("100.01")},
        {"location": Location(52.52, 13.405)},
        {"location": None},
    ],
)
def test_what_does_not_fit(supply: dict[str, Any]) -> None:
    assert not fits(DEMAND, replace(GRAIN, **supply))


def test_a_radius_includes_its_edge_to_the_metre() -> None:
    edge_km = great_circle_km(VIENNA, MUNICH)
    assert not fits(replace(DEMAND, radius_km=edge_km - Decimal("0.001")), GRAIN)


@given(st.sampled_from(MATERIAL_CATEGORIES), st.text("abcdefghiklmnoprstuvwy-*", max_size=12))
def test_patterns_are_found_by_the_category_they_fit(category: str, pattern: str) -> None:
    assert (pattern in patterns_for(category)) is (category_matches(category, pattern) and "*" not in pattern[:-1])
    assert (category in categories_of(SubjectKind.MATERIAL, pattern)) is category_matches(category, pattern)


@given(
    st.decimals(0, 10**9, places=2),
    st.integers(1, 10**6),
    st.sampled_from(sorted(UNIT_SCALE)),
    st.integers(1, 10**6),
)
def test_a_part_costs_its_share(asking: Decimal, whole: int, unit: str, part: int) -> None:
    supply = replace(GRAIN, whole=Quantity(Decimal(whole), unit), asking_lc=asking)
    exact = Fraction(asking) * 100 * part / whole
    assert abs(asked_for(supply, Quantity(Decimal(part), unit)) - exact) <= Fraction(1, 2)


def test_what_nobody_asks_a_price_for_costs_nothing() -> None:
    assert asked_for(replace(GRAIN, asking_lc=None), KG) == 0
    assert asked_for(replace(GRAIN, whole=Quantity(Decimal(0), "kg")), KG) == 0


@given(
    st.floats(-90, 90, allow_subnormal=False),
    st.floats(-180, 180, allow_subnormal=False),
    st.floats(-90, 90, allow_subnormal=False),
    st.floats(-180, 180, allow_subnormal=False),
    st.integers(1, 20_016_000),
)
def test_the_latitudes_leave_nothing_out(lat: float, lon: float, there: float, east: float, metres: int) -> None:
    demand = replace(DEMAND, location=Location(lat, lon), radius_km=Decimal(metres) / 1000)
    if fits(demand, replace(GRAIN, location=Location(there, east))):
        south, north = demand.latitudes
        assert south <= there <= north


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category": "organic"}, "unknown_category"),
        ({"category": "furniture-*"}, "unknown_category"),
        ({"category": "*-food"}, "unknown_category"),
        ({"product_category": "furniture-*"}, "unknown_category"),
        ({"quantity": 0}, "bad_quantity"),
        ({"quantity": Decimal("1e-10")}, "bad_quantity"),
        ({"quantity": Decimal("1e16")}, "bad_quantity"),
        ({"max_price": Decimal("1.001")}, "bad_amount"),
        ({"max_price": -1}, "bad_amount"),
        ({"radius_km": 0}, "bad_radius"),
        ({"radius_km": 20_017}, "bad_radius"),
    ],
)
def test_wishes_that_cannot_be(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_wish({"category": "organic-*", "quantity": 200, "unit": "kg", **change})
    assert reason_of(refused) == reason


def test_no_person_is_named() -> None:
    assert read_wanted_by({"wanted_by": "munich-farm"}) == "munich-farm"
    assert read_wanted_by({}) is None
    with pytest.raises(Invalid) as refused:
        read_wanted_by({"wanted_by": "maria@munich.example"})
    assert "maria" not in str(refused.value.details)
