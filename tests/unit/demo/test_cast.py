"""The cast's figures against §12.1, and against the rules that the nodes hold them to."""

from decimal import Decimal

import pytest

from loopd.demo.cast import CATEGORY, CITY_BIDS, LISTENERS, MATERIAL_ID, MUNICH, RINGS, City, CityBid, spent_grain
from loopd.gossip.rings import Ring, check_plan
from loopd.protocol.documents import check_document
from loopd.protocol.geo import Location, between_km
from loopd.protocol.json_text import dump_json
from loopd.protocol.loopcost import cross_node_cost


@pytest.mark.parametrize(("bid", "total_minor"), [(CITY_BIDS[0], 10_400), (CITY_BIDS[1], 10_300)])
def test_the_bids_cost_what_the_specification_says(bid: CityBid, total_minor: int) -> None:
    signals = [int(city.signal * 10_000) for city in (MUNICH, bid.city)]
    cost = cross_node_cost(int(bid.base_price * 100), signals[0], signals[1], Decimal(bid.distance_km))
    assert cost.total_minor == total_minor


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


def _place(city: City) -> Location:
    return Location(city.lat, city.lon)
