from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.exchange.rules import great_circle_km
from loopd.protocol.geo import Location
from loopd.protocol.loopcost import LoopCost, cross_node_cost, local_cost
from loopd.routing.atlas import Atlas, Departure, Place, cost_of
from loopd.signals.rules import SignalConfiguration

LOCATIONS = st.builds(Location, st.floats(-90, 90, allow_subnormal=False), st.floats(-180, 180, allow_subnormal=False))
SIGNALS = st.dictionaries(st.sampled_from(["glass-clear", "default"]), st.integers(0, 10_000))
CONFIGURATIONS = SIGNALS.map(lambda signals: SignalConfiguration("x.loop", signals, 0, 1))
BASES = st.integers(0, 10**17)


@st.composite
def atlases(draw: st.DrawFn) -> list[Place]:
    names = draw(st.lists(st.integers(0, 99), unique=True, max_size=12))
    return [Place(f"n{name}.loop", draw(st.none() | LOCATIONS), draw(st.none() | CONFIGURATIONS)) for name in names]


@settings(max_examples=120)
@given(atlases(), BASES, LOCATIONS, st.integers(0, 10_000), st.sampled_from(["glass-clear", "metal-steel"]))
def test_the_ranking_is_that_of_the_exact_costs(
    places: list[Place], base_minor: int, origin: Location, export: int, category: str
) -> None:
    departure = Departure("n0.loop", origin, export)
    ranking = Atlas(places).rank(base_minor, departure, category)

    def exact(place: Place) -> tuple[LoopCost, int] | None:
        if place.node_id == departure.node_id:
            return local_cost(base_minor), 0
        if place.location is None or place.configuration is None:
            return None
        distance_km = great_circle_km(origin, place.location)
        charged = place.configuration.reading(category, 0).basis_points
        return cross_node_cost(base_minor, export, charged, distance_km), int(distance_km * 1000)

    costs = {place.node_id: found for place in places if (found := exact(place)) is not None}
    expected = sorted((cost.total_minor, metres, node_id) for node_id, (cost, metres) in costs.items())
    atlas = Atlas(places)
    found = [(total, metres, atlas.places[index].node_id) for total, metres, index in ranking.ranked]
    assert found == expected
    strangers = [place for place in places if place.node_id not in costs]
    assert set(ranking.signals_unknown) == {each.node_id for each in strangers if each.configuration is None}
    assert set(ranking.location_unknown) == {each.node_id for each in strangers if each.configuration is not None}


@given(BASES, st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 25_000_000))
def test_integers_give_what_decimals_do(base_minor: int, export: int, imported: int, metres: int) -> None:
    exact = cross_node_cost(base_minor, export, imported, Decimal(metres) / 1000)
    assert cost_of(base_minor, export, imported, metres) == exact


def test_an_atlas_asked_twice_gives_the_same() -> None:
    atlas = Atlas([Place(f"n{number}.loop", Location(number, 0), None) for number in range(80)])
    departure = Departure("n0.loop", Location(1, 1), 0)
    first = atlas.rank(100, departure, "default")
    for number in range(80):
        atlas.rank(100, Departure("n0.loop", Location(number, number), 0), "default")
    assert atlas.rank(100, departure, "default") == first
    assert [index for _, _, index in first.ranked] == [0]
