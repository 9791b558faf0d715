from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.exchange.rules import (
    MADE_BID,
    Bid,
    BidState,
    Figure,
    Judged,
    Leg,
    MadeBidState,
    Terms,
    Unranked,
    announced_location,
    asking_price,
    bid_cost,
    check_distance,
    check_quantity,
    claimed_cost,
    great_circle_km,
    is_local_bidder,
    judge,
    meets_asking_price,
    ranking,
    read_terms,
    read_validity,
    signal_category,
)
from loopd.protocol.announcement import build_announcement
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import BID_MAX_VALIDITY_S
from loopd.protocol.loopcost import LoopCost, local_cost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.signals.rules import SignalReading

NOW_MS = 1_790_000_000_000
MUNICH, VIENNA = Location(48.1351, 11.5820), Location(48.2082, 16.3738)
WHOLE = Quantity(Decimal(500), "kg")
FORTY, TWENTY = SignalReading(4000, stale=False), SignalReading(2000, stale=False)


def bid(number: int = 1, **changes: Any) -> Bid:
    values: dict[str, Any] = {
        "number": number,
        "subject_id": "MAT-DE-MUC-2026-FOOD-000000",
        "kind": SubjectKind.MATERIAL,
        "bidder": f"bidder-{number}",
        "local": True,
        "verified": True,
        "terms": Terms(50_00),
        "claimed_minor": None,
        "offer_id": None,
        "issued_at_ms": None,
        "received_at_ms": NOW_MS,
        "valid_until_ms": NOW_MS + 1000,
        "state": BidState.LIVE,
    }
    return Bid(**{**values, **changes})


def judged(number: int, total_minor: int, received_at_ms: int = NOW_MS) -> Judged:
    return Judged(bid(number, received_at_ms=received_at_ms), local_cost(total_minor), None)


# The cost of a bid


def test_the_example_of_the_specification() -> None:
    terms = Terms(60_00, distance_km=Decimal(400))
    figure = bid_cost(terms, Leg(MUNICH, VIENNA, FORTY, TWENTY))
    assert figure == Figure(LoopCost(60_00, 24_00, 12_00, 8_00), None)


def test_inside_one_city_only_the_price_counts() -> None:
    assert bid_cost(Terms(50_00), None) == Figure(local_cost(50_00), None)


def test_without_a_stated_way_the_great_circle_counts() -> None:
    figure = bid_cost(Terms(60_00), Leg(MUNICH, VIENNA, FORTY, TWENTY))
    assert figure.cost is not None
    # 355.5 km at 0.02 LC.
    assert figure.cost == LoopCost(60_00, 24_00, 12_00, 7_11)


@pytest.mark.parametrize(
    ("leg", "distance_km", "missing"),
    [
        (Leg(MUNICH, VIENNA, FORTY, None), None, Unranked.SIGNALS_UNKNOWN),
        (Leg(MUNICH, VIENNA, None, TWENTY), None, Unranked.SIGNALS_UNKNOWN),
        (Leg(MUNICH, None, FORTY, TWENTY), None, Unranked.LOCATION_UNKNOWN),
        (Leg(MUNICH, None, FORTY, TWENTY), Decimal(0), Unranked.LOCATION_UNKNOWN),
        (Leg(MUNICH, VIENNA, FORTY, TWENTY), Decimal(1), Unranked.DISTANCE_BELOW_GREAT_CIRCLE),
    ],
)
def test_a_cost_that_cannot_be_computed_says_why(leg: Leg, distance_km: Decimal | None, missing: Unranked) -> None:
    assert bid_cost(Terms(60_00, distance_km=distance_km), leg) == Figure(None, missing)


def test_expired_signals_are_used_and_marked() -> None:
    stale = SignalReading(2000, stale=True)
    figure = bid_cost(Terms(60_00, distance_km=Decimal(400)), Leg(MUNICH, VIENNA, FORTY, stale))
    assert figure == Figure(LoopCost(60_00, 24_00, 12_00, 8_00), None, stale_signals=True)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_both_sides_compute_from_the_announced_place(lat: float, lon: float) -> None:
    subject = Subject(
        "MAT-DE-MUC-2026-FOOD-000000",
        SubjectKind.MATERIAL,
        "organic-food",
        Decimal(500),
        "kg",
        NOW_MS,
        None,
        Location(lat, lon),
        SubjectState.AVAILABLE,
    )
    body = build_announcement(
        subject,
        context_url="https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld",
        origin="munich.loop",
        origin_location=MUNICH,
        revision=1,
        issued_at_ms=NOW_MS,
        valid_until_ms=NOW_MS + 1000,
        radius_km=None,
        hop_anchor=bytes(32),
    )
    heard = read_json(body)["location"]
    assert announced_location(Location(lat, lon)) == Location(float(heard["lat"]), float(heard["lon"]))


def test_products_and_what_has_no_category_take_the_default_signal() -> None:
    assert signal_category(SubjectKind.MATERIAL, "organic-food") == "organic-food"
    assert signal_category(SubjectKind.MATERIAL, None) == "default"
    assert signal_category(SubjectKind.PRODUCT, "furniture-office") == "default"


def test_a_stated_way_is_held_against_the_great_circle() -> None:
    shortest_km = great_circle_km(MUNICH, VIENNA)
    check_distance(shortest_km, MUNICH, VIENNA)
    check_distance(Decimal(0), MUNICH, None)
    check_distance(None, MUNICH, VIENNA)
    with pytest.raises(Invalid) as refusal:
        check_distance(shortest_km - Decimal("0.001"), MUNICH, VIENNA)
    assert refusal.value.reason == "distance_below_great_circle"
    assert refusal.value.details["great_circle_km"] == shortest_km


# The ranking


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12), st.randoms(use_true_random=False))
def test_the_order_in_which_bids_are_looked_at_does_not_matter(rows: list[tuple[int, int]], random: Any) -> None:
    bids = [judged(number, cost, NOW_MS + at) for number, (cost, at) in enumerate(rows, start=1)]
    shuffled = random.sample(bids, len(bids))
    assert ranking(shuffled) == ranking(bids)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=12))
def test_lowest_cost_first_then_earliest_then_first_number(rows: list[tuple[int, int, bool]]) -> None:
    bids = [
        Judged(bid(number, received_at_ms=at), local_cost(cost), None if holds else Unranked.BELOW_ASKING_PRICE)
        for number, (cost, at, holds) in enumerate(rows, start=1)
    ]
    order = ranking(bids)
    ranked = [each for each in order if each.rank is not None]
    assert order[: len(ranked)] == ranked
    assert [each.rank for each in ranked] == list(range(1, len(ranked) + 1))
    assert len(ranked) == sum(holds for *_, holds in rows)
    keys = [(each.cost.total_minor, each.bid.received_at_ms, each.bid.number) for each in ranked if each.cost]
    assert keys == sorted(keys)


def test_the_local_farm_wins_over_vienna_and_berlin() -> None:
    # §12.1; Berlin's 103 as 58 LC at 40 % and 20 % over 510 km.
    farm = judge(bid(1), bid_cost(Terms(50_00), None), WHOLE, WHOLE, None, NOW_MS)
    leg = Leg(MUNICH, VIENNA, FORTY, TWENTY)
    vienna = judge(bid(2), bid_cost(Terms(60_00, None, Decimal(400)), leg), WHOLE, WHOLE, None, NOW_MS)
    berlin = judge(bid(3), bid_cost(Terms(58_00, None, Decimal(510)), leg), WHOLE, WHOLE, None, NOW_MS)
    order = ranking([vienna, berlin, farm])
    assert [(each.bid.number, each.cost.total_minor) for each in order if each.cost] == [
        (1, 50_00),
        (3, 103_00),
        (2, 104_00),
    ]


@given(
    st.integers(0, 10**9),
    st.decimals(0, 10**7, places=2),
    st.one_of(st.none(), st.decimals(Decimal("0.001"), 500, places=3)),
)
def test_what_lies_below_the_asking_price_is_never_ranked(price: int, asking: Decimal, part: Decimal | None) -> None:
    quantity = None if part is None else Quantity(part, "kg")
    terms = Terms(price, quantity)
    # By cross-multiplication in integers of hundredths and grams.
    grams = 500_000 if part is None else int(part * 1000)
    below = price * 500_000 < int(asking * 100) * grams
    assert meets_asking_price(terms, WHOLE, asking) is not below
    verdict = judge(bid(1, terms=terms), bid_cost(terms, None), WHOLE, WHOLE, asking, NOW_MS)
    assert (verdict.unranked is Unranked.BELOW_ASKING_PRICE) is below
    assert ranking([verdict])[0].rank == (None if below else 1)


def test_a_cent_never_beats_an_asking_price() -> None:
    cent, fair = Terms(1), Terms(40_00)
    order = ranking(
        judge(bid(number, terms=terms), bid_cost(terms, None), WHOLE, WHOLE, Decimal(40), NOW_MS)
        for number, terms in ((1, cent), (2, fair))
    )
    assert [(each.bid.number, each.rank, each.unranked) for each in order] == [
        (2, 1, None),
        (1, None, Unranked.BELOW_ASKING_PRICE),
    ]


def test_a_part_in_another_unit_is_priced_pro_rata() -> None:
    quarter = Quantity(Decimal("0.125"), "t")
    assert meets_asking_price(Terms(10_00, quarter), WHOLE, Decimal(40))
    assert not meets_asking_price(Terms(9_99, quarter), WHOLE, Decimal(40))


def test_a_bid_expires_at_the_moment_itself() -> None:
    figure = bid_cost(Terms(50_00), None)
    late = bid(valid_until_ms=NOW_MS)
    assert judge(late, figure, WHOLE, WHOLE, None, NOW_MS).unranked is Unranked.EXPIRED
    assert judge(late, figure, WHOLE, WHOLE, None, NOW_MS - 1).unranked is None


@pytest.mark.parametrize(
    ("metadata", "price"),
    [
        ({"asking_price": Decimal("40.00")}, Decimal(40)),
        ({"asking_price": 40}, Decimal(40)),
        ({"asking_price": 0}, Decimal(0)),
        ({"asking_price": "40"}, None),
        ({"asking_price": True}, None),
        ({"asking_price": -1}, None),
        ({}, None),
        ("none", None),
    ],
)
def test_the_asking_price_of_a_record(metadata: Any, price: Decimal | None) -> None:
    assert asking_price({"metadata": metadata}) == price
    assert asking_price({}) is None


# What bidders state


def test_terms_are_read_exactly() -> None:
    value = {"base_price": Decimal("60.50"), "quantity": Decimal("1.25"), "unit": "t", "distance_km": 400}
    assert read_terms(value, "kg") == Terms(60_50, Quantity(Decimal("1.25"), "t"), Decimal(400))
    assert read_terms({"base_price": 60, "quantity": 10}, "kg") == Terms(60_00, Quantity(Decimal(10), "kg"))
    assert read_terms({"base_price": 0}, None) == Terms(0)


@pytest.mark.parametrize(
    ("changes", "reason", "pointer"),
    [
        ({"base_price": Decimal("60.001")}, "bad_amount", "/base_price"),
        ({"base_price": -1}, "bad_amount", "/base_price"),
        ({"base_price": Decimal("1E+16")}, "bad_amount", "/base_price"),
        ({"quantity": 0}, "bad_quantity", "/quantity"),
        ({"quantity": Decimal("0.0000000001")}, "bad_quantity", "/quantity"),
        ({"distance_km": -1}, "bad_distance", "/distance_km"),
        ({"distance_km": 100_001}, "bad_distance", "/distance_km"),
    ],
)
def test_terms_that_nobody_can_mean_name_the_place(changes: dict[str, Any], reason: str, pointer: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_terms({"base_price": 60, **changes}, "kg")
    assert (refusal.value.reason, refusal.value.details["errors"][0]["pointer"]) == (reason, pointer)


def test_a_part_without_any_unit_is_refused() -> None:
    with pytest.raises(Invalid, match="unit"):
        read_terms({"base_price": 60, "quantity": 5}, None)


@pytest.mark.parametrize("quantity", [None, Quantity(Decimal(500), "kg"), Quantity(Decimal("0.5"), "t")])
def test_all_of_it_can_be_bid_for(quantity: Quantity | None) -> None:
    check_quantity(Terms(1, quantity), WHOLE)


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        (Quantity(Decimal("500.001"), "kg"), "quantity_above_available"),
        (Quantity(Decimal(1), "t"), "quantity_above_available"),
        (Quantity(Decimal(1), "l"), "unit_mismatch"),
    ],
)
def test_nobody_bids_for_more_than_there_is(quantity: Quantity, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_quantity(Terms(1, quantity), WHOLE)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("value", "until_ms"),
    [
        ({}, None),
        ({"valid_for_s": 60}, NOW_MS + 60_000),
        ({"valid_until": format_timestamp(NOW_MS + 5000)}, NOW_MS + 5000),
    ],
)
def test_the_end_of_a_bid(value: dict[str, Any], until_ms: int | None) -> None:
    assert read_validity(value, NOW_MS) == until_ms


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"valid_for_s": 60, "valid_until": format_timestamp(NOW_MS + 5000)}, "bad_time"),
        ({"valid_until": format_timestamp(NOW_MS)}, "expired"),
        ({"valid_for_s": 0}, "expired"),
        ({"valid_until": "tomorrow"}, "bad_time"),
        ({"valid_for_s": BID_MAX_VALIDITY_S + 1}, "bad_time"),
        ({"valid_for_s": 10**17}, "bad_time"),
    ],
)
def test_an_end_that_cannot_be(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_validity(value, NOW_MS)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("munich-farm", True),
        ("a1", True),
        ("munich.loop", True),
        ("vienna.loop", False),
        ("a", False),
        ("a" * 81, False),
        ("Maria Huber", False),
        ("maria@munich.example", False),
        ("munich-farm\n", False),
        ("", False),
    ],
)
def test_who_bids_in_this_city(name: str, holds: bool) -> None:
    assert is_local_bidder(name, "munich.loop") is holds


# The fate of an own bid


def test_every_state_of_an_own_bid_is_in_the_table() -> None:
    assert set(MADE_BID.successors) == {state.value for state in MadeBidState}


@pytest.mark.parametrize("state", list(MadeBidState))
def test_the_owners_word_can_follow_whatever_is_known_here(state: MadeBidState) -> None:
    words = {MadeBidState.SELECTED.value, MadeBidState.DECLINED.value} - {state.value}
    assert words <= set(MADE_BID.successors[state.value])


@pytest.mark.parametrize("state", [MadeBidState.SELECTED, MadeBidState.DECLINED, MadeBidState.REPLACED])
def test_a_late_answer_changes_nothing_that_is_decided(state: MadeBidState) -> None:
    assert not MADE_BID.allows(state.value, MadeBidState.ACCEPTED.value)
    assert not MADE_BID.allows(state.value, MadeBidState.REFUSED.value)


CLAIM = Terms(60_00, distance_km=Decimal(400))


@pytest.mark.parametrize(
    ("leg", "claimed", "expected"),
    [
        # One thing is not known, and it is what is left: the import penalty, the place, a way that can be so short.
        (Leg(MUNICH, VIENNA, FORTY, None), 104_00, (24_00, 12_00, 8_00)),
        (Leg(MUNICH, None, FORTY, TWENTY), 104_00, (24_00, 12_00, 8_00)),
        (Leg(MUNICH, Location(40.4, -3.7), FORTY, TWENTY), 104_00, (24_00, 12_00, 8_00)),
        # Of two things nobody can tell which is how much.
        (Leg(MUNICH, None, FORTY, None), 104_00, (24_00, 0, 20_00)),
        # Who claims less than what is known pays no more than that.
        (Leg(MUNICH, VIENNA, FORTY, None), 90_00, (24_00, 0, 6_00)),
        (Leg(MUNICH, VIENNA, FORTY, None), 70_00, (10_00, 0, 0)),
        (Leg(MUNICH, None, FORTY, TWENTY), 90_00, (24_00, 6_00, 0)),
        (Leg(MUNICH, VIENNA, FORTY, None), 5_00, (0, 0, 0)),
        (Leg(MUNICH, VIENNA, FORTY, None), None, (0, 0, 0)),
    ],
)
def test_what_this_node_cannot_compute_is_what_is_left_of_the_claim(
    leg: Leg, claimed: int | None, expected: tuple[int, int, int]
) -> None:
    cost = claimed_cost(bid(terms=CLAIM, claimed_minor=claimed, local=False), leg)
    assert (cost.base_minor, cost.export_minor, cost.import_minor, cost.distance_minor) == (60_00, *expected)


@given(st.integers(0, 30_000), st.sampled_from([None, FORTY]), st.sampled_from([None, TWENTY]), st.booleans())
def test_a_bid_without_a_cost_of_our_own_costs_what_it_claims(
    claimed: int, origin: SignalReading | None, destination: SignalReading | None, known_place: bool
) -> None:
    leg = Leg(MUNICH, VIENNA if known_place else None, origin, destination)
    assert claimed_cost(bid(terms=CLAIM, claimed_minor=claimed), leg).total_minor == max(claimed, 60_00)
