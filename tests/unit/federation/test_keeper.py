"""The keeper of the mix: whom it finds, whom it asks, and what strangers and liars cannot make it do."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from loopd.federation import choices, keeper
from loopd.federation.nodes import AddedBy
from loopd.federation.settings import FederationSettings
from loopd.gossip.health import PeerHealth, State
from loopd.gossip.reputation import BAN_POINTS, Conduct, Reputation
from loopd.gossip.topology import Origin
from loopd.identity import Identity
from loopd.net.http_client import PeerAnswer
from loopd.protocol.geo import Location
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.signing import API_ROOT
from tests.federation_support import (
    BERLIN,
    CONTEXT,
    DAY_MS,
    MUNICH,
    NOW_MS,
    City,
    answer_of,
    eventually,
    federation_of,
    identity_of,
    rest,
)

AUGSBURG, LISBON = Location(48.37, 10.90), Location(38.72, -9.14)
HERE = identity_of("munich.loop", MUNICH)
HUB = identity_of("hub.loop", AUGSBURG)
INTERVAL_MS = 60_000
READ_AGAIN_MS = 10 * INTERVAL_MS
REGISTRY = "/federation/nodes"


def near(number: int) -> Identity:
    return identity_of(f"near{number}.loop", AUGSBURG)


def settings_of(**changes: Any) -> FederationSettings:
    return FederationSettings(**{"admission": "open", "radius_km": None, **changes})


@asynccontextmanager
async def node_and_its_hub(directory: Path, *others: Identity, **changes: Any) -> AsyncIterator[list[City]]:
    """Munich, which knows the hub alone, and others that all have called the hub. Munich and the hub are at work."""
    async with federation_of(directory, HERE, HUB, *others, settings=settings_of(**changes), started=False) as cities:
        munich, hub = cities[:2]
        for city in cities[2:]:
            await hub.admit(city.identity)
        await munich.admit(HUB, added_by=AddedBy.OPERATOR)
        await hub.admit(HERE)
        # A registry lists as active who answered once; the hub's peers do, as far as it can tell.
        await hub.start()
        await munich.start()
        await eventually(lambda: all(hub.health(city.node_id) == "active" for city in cities[2:]))
        await eventually(lambda: munich.health("hub.loop") == "active")
        await eventually(lambda: _answered(hub, cities[2:]))
        yield cities


def _answered(hub: City, others: Sequence[City]) -> bool:
    found = [hub.federation.health_of(other.node_id) for other in others]
    return all(health is not None and health.last_success_ms is not None for health in found)


async def look(*cities: City, times: int = 1) -> None:
    """So many rounds, an interval apart, with time for the probes between them."""
    for _ in range(times):
        for city in cities:
            city.clock.advance(1)
            await city.federation.keeper.round()
        await rest(*cities)
        cities[0].clock.advance(INTERVAL_MS)


def standings(city: City) -> dict[str, str]:
    return {row["node_id"]: row["standing"] for row in city.rows("SELECT node_id, standing FROM node")}


def peers_of(city: City) -> set[str]:
    return {node_id for node_id, standing in standings(city).items() if standing == "peer"}


def origins(city: City) -> dict[str, Origin]:
    rows = city.database.points.all(choices.CHOSEN)
    return {peer.node_id: peer.origin for peer in choices.current_peers(rows, city.federation.health_of)}


def admits(city: City, **changes: Any) -> None:
    city.federation.handshakes._settings = settings_of(**changes)


def entry(node: Identity, **changes: Any) -> dict[str, Any]:
    return {
        "id": node.node_id,
        "endpoint": node.endpoint,
        "location": {"lat": node.location.lat, "lon": node.location.lon},
        "status": "active",
        "public_key": node.key.public.to_pem(),
        **changes,
    }


def registries(city: City, **said: Sequence[dict[str, Any]]) -> None:
    """What the peers of those names list, in place of what they know."""

    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        listed = said.get(target.removesuffix(".loop"))
        if path != API_ROOT + REGISTRY or listed is None:
            return None
        head = {"@context": CONTEXT, "@type": "NodeRegistry", "schema_version": "0.2.0", "version": "2026-09-21"}
        return answer_of(200, {**head, "nodes": list(listed)})

    city.network.answering = answering


async def test_a_node_that_knows_one_finds_what_its_mix_lacks(tmp_path: Path) -> None:
    others = [*map(near, range(4)), identity_of("berlin.loop", BERLIN), identity_of("lisbon.loop", LISBON)]
    async with node_and_its_hub(tmp_path, *others) as (munich, *rest_of_them):
        before = await munich.federation.keeper.report()
        assert before["missing"] == {"nearby": 2, "regional": 2, "distant": 1}
        await look(munich, times=3)
        # Two of the four nearby ones, by lot: the hub is the third.
        assert {"berlin.loop", "lisbon.loop"} < peers_of(munich)
        assert len(peers_of(munich)) == 5
        after = await munich.federation.keeper.report()
        assert (after["missing"], after["chosen"]) == ({"regional": 1}, {"nearby": 3, "regional": 1, "distant": 1})
        assert after["wanted"] == {"nearby": "3-5", "regional": "2-3", "distant": "1-2"}
        for city in rest_of_them:
            assert (city.find("munich.loop") is not None) == (city.node_id in peers_of(munich))
        # The wish for a mix is a number of its own.
        await look(munich, times=12)
        assert len(peers_of(munich)) == 5


async def test_whom_everybody_called_adopts_some_of_them(tmp_path: Path) -> None:
    async with federation_of(tmp_path, HUB, *map(near, range(4)), settings=settings_of()) as cities:
        hub = cities[0]
        for city in cities[1:]:
            await city.federation.add_peer(HUB.endpoint, PeerAuth.SIGNED)
        assert set(origins(hub).values()) == {Origin.INBOUND}
        assert (await hub.federation.keeper.report())["isolation"] in ("alone", "called_only")
        await rest(*cities)
        await look(*cities, times=25)
        for city in cities:
            report = await city.federation.keeper.report()
            assert "nearby" not in report["missing"], city.node_id
        assert sorted(origins(hub).values()).count(Origin.OUTBOUND) == 3


async def test_who_does_not_accept_yet_stays_pending_and_calls_when_its_operator_approves(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, _, other):
        admits(other, admission="manual")
        admits(munich, admission="manual")
        await look(munich)
        assert standings(munich)["near0.loop"] == "pending"
        await look(munich, times=3)
        assert len(other.rows("SELECT * FROM handshake_claim")) == 1
        await other.start()
        await other.federation.approve_peer("munich.loop", PeerAuth.SIGNED)
        # Munich asked: what answers needs nobody's approval there.
        await eventually(lambda: "near0.loop" in peers_of(munich), munich, other)
        assert origins(munich)["near0.loop"] is Origin.OUTBOUND
        # The operator's word makes it a chosen one on the other side.
        assert origins(other)["munich.loop"] is Origin.OPERATOR


async def test_no_more_are_asked_than_there_are_places_and_each_only_for_a_while(tmp_path: Path) -> None:
    changes = {"nearby_peers": "3-3", "regional_peers": "1-1", "distant_peers": "1-1"}
    async with node_and_its_hub(tmp_path, *map(near, range(8)), **changes) as (munich, _, *others):
        for other in others:
            admits(other, admission="manual")
        await look(munich, times=8)
        waiting = {node_id for node_id, standing in standings(munich).items() if standing == "pending"}
        assert len(waiting) == 5
        munich.clock.advance(keeper.PENDING_PATIENCE_MS)
        await look(munich)
        assert {standings(munich)[node_id] for node_id in waiting} == {"introduced"}
        await look(munich)
        asked = {node_id for node_id, standing in standings(munich).items() if standing == "pending"}
        # Now it is the others' turn.
        assert len(asked) == 2
        assert not asked & waiting


async def test_a_node_that_is_listed_with_two_keys_is_not_asked(tmp_path: Path) -> None:
    liar, linz = identity_of("liar.loop", AUGSBURG), near(0)
    async with node_and_its_hub(tmp_path, liar, linz) as (munich, *_):
        await munich.admit(liar)
        await eventually(lambda: munich.health("liar.loop") == "active", munich)
        false = entry(linz, public_key=liar.key.public.to_pem(), endpoint="https://false.loop/api/v1")
        registries(munich, hub=[entry(linz)], liar=[false])
        with structlog.testing.capture_logs() as logged:
            await look(munich, times=3)
        assert "near0.loop" not in standings(munich)
        assert {line["event"] for line in logged} >= {"key_conflict", "dial_failed"}
        # Once the lie is not told any more, it is asked.
        registries(munich, hub=[entry(linz)], liar=[])
        munich.clock.advance(READ_AGAIN_MS)
        await look(munich, times=4)
        assert standings(munich)["near0.loop"] == "peer"


async def test_an_endpoint_that_is_somebody_elses_gains_nothing(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, *_):
        victim = identity_of("victim.loop", AUGSBURG)
        registries(munich, hub=[entry(victim, endpoint=near(0).endpoint)])
        seen = len(munich.network.to("near0.loop", "/node/info"))
        await look(munich)
        assert standings(munich).keys() == {"hub.loop"}
        assert len(munich.network.to("near0.loop", "/node/info")) > seen
        assert munich.network.to("near0.loop", "/federation/handshake") == []
        # Not asked again before a growing wait.
        calls = len(munich.network.calls)
        munich.clock.advance(-INTERVAL_MS)
        await munich.federation.keeper.round()
        assert [call.target for call in munich.network.calls[calls:]] == []


async def test_a_learned_endpoint_is_a_strangers_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, *_):
        client, trusted = munich.federation.requests._client, set()
        passed_on = client.request

        async def request(method: str, url: str, **rest_of_it: Any) -> PeerAnswer:
            if "near0.loop" in url:
                trusted.add(rest_of_it["trusted"])
            return await passed_on(method, url, **rest_of_it)

        monkeypatch.setattr(client, "request", request)
        await look(munich)
        assert "near0.loop" in peers_of(munich)
        assert trusted == {False}
        record = munich.find("near0.loop")
        assert record is not None
        assert not record.named_by_operator


async def test_only_the_word_of_signed_peers_of_good_conduct_counts(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, *_):
        banned = Reputation(BAN_POINTS, munich.clock.now_ms(), Conduct.BANNED)
        munich.federation.misbehaviour._known["hub.loop"] = banned
        await look(munich)
        assert munich.network.to("hub.loop", REGISTRY) == []
        munich.federation.misbehaviour.forget("hub.loop")
        await munich.database.write(lambda tx: tx.execute("UPDATE node SET auth = 'unsigned-lab'"))
        await look(munich)
        assert munich.network.to("hub.loop", REGISTRY) == []
        await munich.database.write(lambda tx: tx.execute("UPDATE node SET auth = 'signed'"))
        await look(munich)
        assert len(munich.network.to("hub.loop", REGISTRY)) == 1
        assert "near0.loop" in peers_of(munich)


async def test_registries_are_read_at_a_pace(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path) as (munich, _):
        for _ in range(5):
            await munich.federation.keeper.round()
        assert len(munich.network.to("hub.loop", REGISTRY)) == 1
        munich.clock.advance(READ_AGAIN_MS)
        await munich.federation.keeper.round()
        assert len(munich.network.to("hub.loop", REGISTRY)) == 2


async def test_what_the_operator_set_aside_is_not_asked(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, *_):
        await munich.admit(near(0))
        await munich.federation.suspend_peer("near0.loop")
        await look(munich, times=3)
        assert standings(munich)["near0.loop"] == "suspended"
        assert munich.network.to("near0.loop", "/federation/handshake") == []


async def test_strangers_cannot_take_the_places_of_this_nodes_choice(tmp_path: Path) -> None:
    strangers = [identity_of(f"stranger{number}.loop", AUGSBURG) for number in range(4)]
    async with node_and_its_hub(tmp_path, near(0), *strangers, max_peers=4) as (munich, _, _, *calling):
        registries(munich, hub=[entry(near(0))])
        # Half of so few places are kept; the operator's hub is in one of them.
        said = [await city.federation.add_peer(HERE.endpoint, PeerAuth.SIGNED) for city in calling]
        assert [added.status for added in said] == ["accepted", "accepted", "rejected", "rejected"]
        await look(munich)
        assert peers_of(munich) == {"hub.loop", "near0.loop", "stranger0.loop", "stranger1.loop"}
        await look(munich, times=3)
        assert len(peers_of(munich)) == 4


async def test_whoever_is_alone_says_so_and_asks_the_last_known_nodes(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, hub, _):
        await munich.admit(near(0), added_by=AddedBy.INTRODUCTION)
        await munich.database.write(lambda tx: choices.choose(tx, "near0.loop", "hub.loop", munich.clock.now_ms()))
        assert await munich.database.write(lambda tx: choices.let_go(tx, "near0.loop", munich.clock.now_ms()))
        await munich.crash()
        await hub.crash()
        await munich.come_back()
        await eventually(lambda: munich.health("hub.loop") in ("suspect", "unreachable"), munich, step_ms=500)
        with structlog.testing.capture_logs() as logged:
            await look(munich)
        assert {"event": "isolated", "isolation": "alone", "log_level": "warning"} in logged
        assert "near0.loop" in peers_of(munich)
        await eventually(lambda: munich.health("near0.loop") == "active", munich)
        assert (await munich.federation.keeper.report())["isolation"] == "island"
        await hub.open()


async def test_the_youngest_beyond_the_most_is_let_go_and_stays_known(tmp_path: Path) -> None:
    changes = {"nearby_peers": "1-2"}
    async with node_and_its_hub(tmp_path, *map(near, range(2)), **changes) as (munich, *_):
        for number in range(2):
            await munich.admit(near(number))
            since_ms = NOW_MS + number
            await munich.database.write(
                partial(choices.choose, node_id=f"near{number}.loop", teller="hub.loop", now_ms=since_ms)
            )
        await munich.request("near1.loop", b"{}", "bid-1")
        await look(munich)
        assert peers_of(munich) == {"hub.loop", "near0.loop"}
        record = munich.find("near1.loop")
        assert record is not None
        assert (record.standing, record.public_key) == (Standing.INTRODUCED, near(1).key.public.raw)
        await look(munich, times=3)
        assert peers_of(munich) == {"hub.loop", "near0.loop"}


async def test_the_operators_peer_is_never_let_go(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path) as (munich, _):
        assert not await munich.database.write(lambda tx: choices.let_go(tx, "hub.loop", NOW_MS))
        # Not even where it was once dialled.
        await munich.database.write(lambda tx: choices.choose(tx, "hub.loop", "other.loop", NOW_MS))
        assert not await munich.database.write(lambda tx: choices.let_go(tx, "hub.loop", NOW_MS))
        assert peers_of(munich) == {"hub.loop"}


async def test_a_chosen_peer_that_is_gone_for_long_gives_its_place(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0)) as (munich, *_):
        await look(munich)
        assert "near0.loop" in peers_of(munich)
        worker = munich.federation.workers.find("near0.loop")
        assert worker is not None
        now_ms = munich.clock.now_ms()
        for absent_ms, stays in ((6 * DAY_MS, True), (7 * DAY_MS, False)):
            since_ms = now_ms - absent_ms
            munich.network.down.add("near0.loop")
            worker._health = PeerHealth(
                State.UNREACHABLE, now_ms, since_ms, now_ms + 10 * DAY_MS, now_ms, 9, 0, since_ms, None, since_ms
            )
            await munich.federation.keeper.round()
            assert ("near0.loop" in peers_of(munich)) is stays


async def test_where_peers_are_not_learned_nobody_is_asked_but_what_is_missing_is_told(tmp_path: Path) -> None:
    async with node_and_its_hub(tmp_path, near(0), learn_peers=False) as (munich, *_):
        assert munich.federation.keeper._task is None
        report = await munich.federation.keeper.report()
        assert (report["learning"], report["missing"]["nearby"]) == (False, 2)
    assert not settings_of().learns_peers(development=True)
    assert settings_of().learns_peers(development=False)
    assert settings_of(learn_peers=True).learns_peers(development=True)


@pytest.mark.parametrize("text", ["5-3", "0-2", "3", "1-2-3", "a-b"])
def test_a_share_of_the_mix_is_a_least_and_a_most(text: str) -> None:
    with pytest.raises(ValueError, match="nearby_peers"):
        settings_of(nearby_peers=text)
