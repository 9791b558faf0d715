"""The mix of peers: what is missing, whom to dial, and what strangers and liars cannot do to it."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.health import State
from loopd.gossip.topology import (
    MIX,
    OWN_PLACES,
    Acquaintances,
    Band,
    Candidate,
    CurrentPeer,
    Isolation,
    Listed,
    Origin,
    Share,
    band_of,
    inbound_room,
    isolation_of,
    own_places,
    plan,
)
from loopd.protocol.geo import Location, between_km
from loopd.protocol.limits import LEARNED_NODES_MAX, LEARNED_NODES_PER_TELLER_MAX
from loopd.protocol.nodes import Standing

NOW_MS = 1_800_000_000_000
MUNICH = Location(48.14, 11.58)
AT = {
    Band.NEARBY: Location(48.37, 10.9),  # Augsburg
    Band.REGIONAL: Location(52.52, 13.4),  # Berlin
    Band.DISTANT: Location(38.72, -9.14),  # Lisbon
    None: None,
}


def peer(
    name: str,
    band: Band | None = Band.NEARBY,
    origin: Origin = Origin.OUTBOUND,
    state: State = State.ACTIVE,
    since_ms: int = 0,
    teller: str | None = None,
) -> CurrentPeer:
    if origin is Origin.OUTBOUND and teller is None:
        teller = f"teller-of-{name}"
    return CurrentPeer(f"{name}.loop", AT[band], state, origin, since_ms, teller)


def candidate(name: str, band: Band | None = Band.NEARBY, teller: str = "a.loop", next_dial_ms: int = 0) -> Candidate:
    return Candidate(f"{name}.loop", teller, f"https://{name}", AT[band], None, next_dial_ms)


def several(count: int, prefix: str, band: Band, **more: object) -> list[CurrentPeer]:
    return [peer(f"{prefix}{band}{index}", band, **more) for index in range(count)]  # type: ignore[arg-type]


WHOLE_MIX = [each for band, share in MIX.items() for each in several(share.least, "own", band)]
PEERS = st.builds(
    peer,
    st.from_regex(r"[a-z]{1,3}", fullmatch=True),
    st.sampled_from([*Band, None]),
    st.sampled_from(Origin),
    st.sampled_from(State),
    st.integers(0, 5),
    st.sampled_from([None, "a.loop", "b.loop"]),
)
PEER_LISTS = st.lists(PEERS, max_size=25, unique_by=lambda each: each.node_id)
CANDIDATES = st.builds(
    candidate,
    st.from_regex(r"[a-f]{1,2}", fullmatch=True),
    st.sampled_from([*Band, None]),
    st.sampled_from(["a.loop", "b.loop", "c.loop"]),
    st.sampled_from([0, NOW_MS, NOW_MS + 1]),
)

WORDS = st.lists(CANDIDATES, max_size=30, unique_by=lambda each: (each.node_id, each.teller))


@pytest.mark.parametrize(
    ("north_km", "band"),
    [(0, Band.NEARBY), (199.9, Band.NEARBY), (200.1, Band.REGIONAL), (999.9, Band.REGIONAL), (1000.1, Band.DISTANT)],
)
def test_the_bands(north_km: float, band: Band) -> None:
    there = Location(MUNICH.lat - north_km / 111.1950797, MUNICH.lon)
    assert abs(between_km(MUNICH, there) - north_km) < 0.05
    assert band_of(MUNICH, there) is band


def test_the_mix_is_that_of_the_specification() -> None:
    assert {band: (share.least, share.most) for band, share in MIX.items()} == {
        Band.NEARBY: (3, 5),
        Band.REGIONAL: (2, 3),
        Band.DISTANT: (1, 2),
    }
    assert {band_of(MUNICH, AT[band]) for band in Band} == set(Band)
    assert band_of(MUNICH, None) is None


def test_a_whole_mix_dials_nobody() -> None:
    named = [candidate(f"c{band}", band) for band in Band]
    result = plan(MUNICH, WHOLE_MIX, named, NOW_MS, Random(1).random, 64)
    assert (result.dial, result.let_go, dict(result.missing), result.isolation) == ((), (), {}, Isolation.NONE)


def test_what_is_missing_is_dialled_in_its_band() -> None:
    peers = [each for each in WHOLE_MIX if band_of(MUNICH, each.location) is not Band.REGIONAL]
    named = [candidate(f"{band}{index}", band) for band in Band for index in range(4)]
    result = plan(MUNICH, peers, named, NOW_MS, Random(1).random, 64)
    assert dict(result.missing) == {Band.REGIONAL: 2}
    assert len(result.dial) == 2
    assert {each.location for each in result.dial} == {AT[Band.REGIONAL]}


def test_a_peer_that_is_gone_is_replaced_and_one_that_is_suspected_is_not() -> None:
    for state, lacking in [
        (State.SUSPECT, {}),
        (State.MAINTENANCE, {}),
        (State.UNREACHABLE, {Band.DISTANT: 1}),
        (State.SUSPENDED, {Band.DISTANT: 1}),
    ]:
        peers = [replace(each, state=state) if each.location == AT[Band.DISTANT] else each for each in WHOLE_MIX]
        assert dict(plan(MUNICH, peers, [], NOW_MS, Random(1).random, 64).missing) == lacking


def test_when_one_that_was_replaced_comes_back_the_youngest_goes_and_never_the_operators() -> None:
    share = MIX[Band.DISTANT]
    peers = [peer(f"p{index}", Band.DISTANT, since_ms=index) for index in range(share.most + 1)]
    assert plan(MUNICH, peers, [], NOW_MS, Random(1).random, 64).let_go == (f"p{share.most}.loop",)
    by_operator = [replace(each, origin=Origin.OPERATOR, teller=None) for each in peers]
    assert plan(MUNICH, by_operator, [], NOW_MS, Random(1).random, 64).let_go == ()


def test_nodes_of_unknown_place_are_asked_where_nobody_else_is_left() -> None:
    unknown, near = candidate("unknown", None), candidate("near", Band.NEARBY)
    assert plan(MUNICH, [peer("x", Band.REGIONAL)], [unknown, near], NOW_MS, Random(1).random, 64).dial == (
        near,
        unknown,
    )


def test_who_is_waiting_for_the_operator_or_set_aside_is_not_dialled() -> None:
    named = [replace(candidate(each.value), standing=each) for each in Standing]
    dialled = plan(MUNICH, [peer("x", Band.REGIONAL)], named, NOW_MS, Random(1).random, 64).dial
    assert [each.standing for each in dialled] == [Standing.INTRODUCED]


@pytest.mark.parametrize(
    ("peers", "isolation"),
    [
        ([], Isolation.ALONE),
        ([peer("x", state=State.UNREACHABLE), peer("y", state=State.SUSPECT)], Isolation.ALONE),
        (several(9, "in", Band.DISTANT, origin=Origin.INBOUND), Isolation.CALLED_ONLY),
        (several(3, "o", Band.DISTANT, teller="one.loop"), Isolation.ONE_TELLER),
        ([*several(3, "o", Band.DISTANT, teller="one.loop"), peer("b", origin=Origin.OPERATOR)], Isolation.NONE),
        (several(4, "o", Band.NEARBY), Isolation.ISLAND),
        (WHOLE_MIX, Isolation.NONE),
    ],
)
def test_isolation_is_noticed(peers: list[CurrentPeer], isolation: Isolation) -> None:
    assert isolation_of(MUNICH, peers) is isolation


def test_who_is_alone_dials_anybody_and_the_soonest_where_nobody_is_due() -> None:
    later = [candidate(f"c{index:02}", Band.DISTANT, next_dial_ms=NOW_MS + 1 + index) for index in range(30)]
    dialled = plan(MUNICH, [], later, NOW_MS, Random(1).random, 64).dial
    assert {each.node_id for each in dialled} == {f"c{index:02}.loop" for index in range(8)}
    due = [*later, candidate("now", Band.NEARBY)]
    assert [each.node_id for each in plan(MUNICH, [], due, NOW_MS, Random(1).random, 64).dial] == ["now.loop"]


def test_who_heard_of_all_its_peers_from_one_asks_another() -> None:
    peers = [replace(each, teller="one.loop") for each in WHOLE_MIX]
    named = [candidate("same", teller="one.loop"), candidate("other", teller="two.loop")]
    result = plan(MUNICH, peers, named, NOW_MS, Random(1).random, 64)
    assert (result.isolation, [each.node_id for each in result.dial]) == (Isolation.ONE_TELLER, ["other.loop"])


def test_who_has_nobody_left_to_dial_adopts_peers_that_called_and_that_others_name() -> None:
    called = [
        *several(6, "in", Band.NEARBY, origin=Origin.INBOUND),
        peer("gone", origin=Origin.INBOUND, state=State.SUSPECT),
    ]
    chosen = [peer("own", Band.NEARBY), peer("far", Band.DISTANT)]
    words = [replace(candidate("gone"), standing=Standing.PEER)]
    words += [
        replace(candidate(each.node_id.removesuffix(".loop"), None), standing=Standing.PEER) for each in called[:4]
    ]
    result = plan(MUNICH, called + chosen, words, NOW_MS, Random(1).random, 64)
    adopted = {each.node_id for each in result.adopt}
    # Two are lacking, and their own word for their place counts.
    assert (result.dial, len(adopted)) == ((), 2)
    assert adopted < {each.node_id for each in called[:4]}
    # Where there is somebody new to dial, that comes first.
    fresh = plan(MUNICH, called + chosen, [*words, candidate("new")], NOW_MS, Random(1).random, 64)
    assert ([each.node_id for each in fresh.dial], fresh.adopt) == (["new.loop"], ())
    # Nobody is adopted on its own word, or where nothing is lacking.
    assert plan(MUNICH, called + chosen, [], NOW_MS, Random(1).random, 64).adopt == ()
    assert plan(MUNICH, called + WHOLE_MIX, words, NOW_MS, Random(1).random, 64).adopt == ()


def test_another_mix_may_be_wanted() -> None:
    mix = {Band.NEARBY: Share(1, 1), Band.REGIONAL: Share(1, 2), Band.DISTANT: Share(4, 6)}
    result = plan(MUNICH, WHOLE_MIX, [], NOW_MS, Random(1).random, 64, mix)
    assert (dict(result.missing), len(result.let_go)) == ({Band.DISTANT: 3}, 2)
    assert inbound_room([], 20, mix) == 20 - 9
    assert own_places(mix) == 9


def test_who_is_set_aside_waits_until_then() -> None:
    met = Acquaintances("munich.loop")
    met.told("a.loop", [Listed("x.loop", "https://x", AT[Band.NEARBY])], Random(1).random)
    met.set_aside("x.loop", NOW_MS + 5)
    assert [each.next_dial_ms for each in met.candidates({})] == [NOW_MS + 5]


@given(PEER_LISTS, WORDS, st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_plan_holds_its_rules(peers: list[CurrentPeer], named: list[Candidate], peers_max: int, seed: int) -> None:
    result = plan(MUNICH, peers, named, NOW_MS, Random(seed).random, peers_max)
    ids = [each.node_id for each in result.dial]
    assert len(set(ids)) == len(ids) <= 8
    assert not set(ids) & {each.node_id for each in peers}
    assert set(result.dial) <= set(named)
    by_id = {each.node_id: each for each in peers}
    assert all(by_id[node_id].origin is Origin.OUTBOUND for node_id in result.let_go)
    if result.isolation is not Isolation.ALONE:
        assert len(peers) + len(ids) <= max(peers_max, len(peers))
        assert all(each.next_dial_ms <= NOW_MS for each in result.dial)
    # Nobody is let go that would be missed.
    left = [each for each in peers if each.node_id not in result.let_go]
    assert plan(MUNICH, left, [], NOW_MS, Random(seed).random, peers_max).missing == result.missing
    assert plan(MUNICH, left, [], NOW_MS, Random(seed).random, peers_max).let_go == ()
    # The same draw gives the same plan, in whatever order the rest comes.
    again = plan(MUNICH, peers[::-1], named[::-1], NOW_MS, Random(seed).random, peers_max)
    assert (again.dial, set(again.let_go)) == (result.dial, set(result.let_go))


@given(PEER_LISTS, WORDS, st.integers(0, 40), st.integers(0, 2**32))
@settings(max_examples=100)
def test_strangers_that_call_change_nothing_of_whom_this_node_chooses(
    peers: list[CurrentPeer], named: list[Candidate], strangers: int, seed: int
) -> None:
    calling = several(strangers, "stranger-", Band.NEARBY, origin=Origin.INBOUND)
    chosen = [each for each in peers if each.origin is not Origin.INBOUND]
    alone = plan(MUNICH, chosen, named, NOW_MS, Random(seed).random, 1000)
    crowded = plan(MUNICH, chosen + calling, named, NOW_MS, Random(seed).random, 1000)
    assert (crowded.missing, crowded.let_go) == (alone.missing, alone.let_go)
    if alone.isolation is not Isolation.ALONE:
        assert set(alone.dial) == set(crowded.dial)


@given(PEER_LISTS, st.integers(1, 100))
@settings(max_examples=200)
def test_however_many_call_the_own_places_stay_free(peers: list[CurrentPeer], peers_max: int) -> None:
    peers = peers[:peers_max]
    kept = min(OWN_PLACES, (peers_max + 1) // 2)
    inbound = sum(each.origin is Origin.INBOUND for each in peers)
    room = inbound_room(peers, peers_max)
    assert 0 <= room <= peers_max - len(peers)
    assert room == 0 or inbound + room + kept <= peers_max
    full = peers + [peer(f"in{index}", origin=Origin.INBOUND) for index in range(room)]
    assert inbound_room(full, peers_max) == 0


def test_naming_ten_thousand_nodes_gains_nothing_over_naming_one() -> None:
    named = [candidate(f"evil{index}", teller="liar.loop") for index in range(10_000)]
    named += [candidate("honest", teller="a.loop"), candidate("fair", teller="b.loop")]
    peers = [each for each in WHOLE_MIX if each.location != AT[Band.NEARBY]]
    peers += several(2, "own", Band.NEARBY)
    draw = Random(4).random
    tellers = Counter(plan(MUNICH, peers, named, NOW_MS, draw, 64).dial[0].teller for _ in range(60))
    assert tellers["liar.loop"] <= 35
    assert tellers["a.loop"] >= 8
    assert tellers["b.loop"] >= 8


def listed(count: int, prefix: str = "n") -> list[Listed]:
    return [Listed(f"{prefix}{index}.loop", f"https://{prefix}{index}", MUNICH) for index in range(count)]


def test_what_a_registry_says_replaces_what_it_said_before() -> None:
    known = Acquaintances("own.loop")
    known.told("a.loop", listed(3), Random(1).random)
    known.told("a.loop", listed(2), Random(1).random)
    known.told("b.loop", [Listed("n0.loop", "https://false", None)], Random(1).random)
    found = {(each.node_id, each.teller): each.endpoint for each in known.candidates({})}
    # Both words of n0 stand: nobody hides a node by naming it with a false endpoint.
    assert found == {
        ("n0.loop", "a.loop"): "https://n0",
        ("n1.loop", "a.loop"): "https://n1",
        ("n0.loop", "b.loop"): "https://false",
    }
    known.forget_teller("a.loop")
    assert {(each.node_id, each.teller) for each in known.candidates({})} == {("n0.loop", "b.loop")}


def test_a_registry_names_neither_this_node_nor_its_owner_nor_what_is_no_node() -> None:
    known = Acquaintances("own.loop")
    wrong = [Listed(name, "https://x", None) for name in ("own.loop", "a.loop", "No Node", "")]
    known.told("a.loop", [*wrong, Listed("b.loop", "", None)], Random(1).random)
    assert known.candidates({}) == []


def test_what_is_known_is_bounded_and_the_most_talkative_lose_first() -> None:
    known = Acquaintances("own.loop")
    known.told("quiet.loop", listed(3, "quiet"), Random(1).random)
    for teller in range(LEARNED_NODES_MAX // LEARNED_NODES_PER_TELLER_MAX + 5):
        known.told(f"t{teller}.loop", listed(1_000, f"x{teller}-"), Random(teller).random)
    counts = Counter(each.teller for each in known.candidates({}))
    assert counts.total() == LEARNED_NODES_MAX
    assert max(counts.values()) <= LEARNED_NODES_PER_TELLER_MAX
    assert counts["quiet.loop"] == 3
    for index in range(LEARNED_NODES_MAX + 10):
        known.dial_failed(f"gone{index}.loop", NOW_MS, Random(1).random)
    known.dial_failed("quiet0.loop", NOW_MS, Random(1).random)
    assert next(each for each in known.candidates({}) if each.node_id == "quiet0.loop").next_dial_ms > NOW_MS


def test_who_does_not_answer_is_dialled_again_later_and_later_whoever_names_it() -> None:
    known, now_ms, waits_ms = Acquaintances("own.loop"), NOW_MS, []
    known.told("a.loop", listed(1), Random(1).random)
    for _ in range(8):
        known.dial_failed("n0.loop", now_ms, lambda: 1.0)
        known.told("a.loop", listed(1), Random(1).random)
        [found] = known.candidates({})
        waits_ms.append(found.next_dial_ms - now_ms)
        now_ms = found.next_dial_ms
    assert waits_ms == [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]
    known.answered("n0.loop", AT[Band.DISTANT])
    [found] = known.candidates({"n0.loop": Standing.PENDING})
    assert (found.next_dial_ms, found.location, found.standing) == (0, AT[Band.DISTANT], Standing.PENDING)
