"""The cast's figures against §12.1, and against the rules that the nodes hold them to."""

from decimal import Decimal

import pytest

from loopd.demo.cast import (
    BERLIN,
    BUYER_ACCOUNT,
    CATEGORY,
    CITY_BIDS,
    ISSUED_LC,
    LISTENERS,
    MATERIAL_ID,
    MUNICH,
    PURCHASE,
    RINGS,
    SELLER_ACCOUNT,
    VIENNA,
    VOTED_SIGNAL,
    City,
    CityBid,
    partners,
    spent_grain,
)
from loopd.gossip.rings import Ring, check_plan
from loopd.ledger.accounts import is_holder_id
from loopd.ledger.arithmetic import distribute
from loopd.protocol.documents import check_document
from loopd.protocol.geo import Location, between_km
from loopd.protocol.json_text import dump_json
from loopd.protocol.loopcost import LoopCost, cross_node_cost


@pytest.mark.parametrize(("bid", "total_minor"), [(CITY_BIDS[0], 10_400), (CITY_BIDS[1], 10_300)])
def test_the_bids_cost_what_the_specification_says(bid: CityBid, total_minor: int) -> None:
    assert cost_of(bid).total_minor == total_minor


def test_the_purchase_pays_what_the_specification_says() -> None:
    cost = cost_of(PURCHASE)
    paid = distribute(cost.base_minor, cost.export_minor, cost.import_minor, cost.distance_minor)
    assert list(paid.lines.values()) == [3_600, 2_400, 1_200, 800, 2_400]
    assert paid.total_minor <= ISSUED_LC * 100


def test_who_pays_and_who_is_paid_have_accounts_in_cities_that_settle() -> None:
    assert is_holder_id(SELLER_ACCOUNT, MUNICH.node_id)
    assert is_holder_id(BUYER_ACCOUNT, PURCHASE.city.node_id)
    assert [partners(city) for city in (MUNICH, VIENNA, BERLIN)] == [[VIENNA], [MUNICH, BERLIN], [VIENNA]]
    assert PURCHASE.city in partners(MUNICH)


def test_the_vote_is_within_what_a_period_allows() -> None:
    assert 0 < VOTED_SIGNAL - MUNICH.signal <= Decimal("0.10")


@pytest.mark.parametrize("bid", CITY_BIDS)
def test_no_stated_way_is_shorter_than_the_great_circle(bid: CityBid) -> None:
    assert between_km(_place(MUNICH), _place(bid.city)) < bid.distance_km


def test_each_ring_reaches_one_city_more() -> None:
    distances_km = [between_km(_place(MUNICH), _place(city)) for city in LISTENERS]
    assert [sum(km <= ring.radius_km for km in distances_km) for ring in RINGS] == [0, 1, 2]
    check_plan([Ring(ring.radius_km, ring.after_s * 1000) for ring in RINGS])


def test_the_batch_is_a_material_with_all_that_is_required() -> None:
    document = check_document(dump_json(spent_grain(1_800_000_000_000)), "MaterialDNA")
    assert (document.value["id"], document.value["category"]) == (MATERIAL_ID, CATEGORY)
    assert document.value["metadata"]["seller_account"] == SELLER_ACCOUNT


def cost_of(bid: CityBid) -> LoopCost:
    """What a bid comes to once Munich has voted."""
    signals = [int(signal * 10_000) for signal in (VOTED_SIGNAL, bid.city.signal)]
    return cross_node_cost(int(bid.base_price * 100), signals[0], signals[1], Decimal(bid.distance_km))


def _place(city: City) -> Location:
    return Location(city.lat, city.lon)
