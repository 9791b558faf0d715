"""What is sent to a node and when: probes, back-off, what each answer means, and what survives a crash."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from loopd.federation import health_store, outbox
from loopd.federation.outbox import BATCH_ENTRIES
from loopd.federation.service import ASK_AGAIN_S
from loopd.gossip.health import PeerHealth, State
from loopd.identity import Identity
from loopd.net.http_client import PeerAnswer
from loopd.protocol.json_text import dump_json
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.signing import X_LOOP_ORIGIN, X_LOOP_TTL, X_NODE_TARGET
from loopd.protocol.vocabulary import Feature
from tests.federation_support import (
    BERLIN,
    CONTEXT,
    DESK,
    GRAIN,
    NOW_MS,
    VIENNA,
    City,
    answer_of,
    befriend,
    eventually,
    federation_of,
    identity_of,
    message_of,
    refuse,
    rest,
    send_copy,
    subject_of,
)
from tests.support import happened

LINZ = identity_of("linz.loop", VIENNA)
SECOND = "MAT-DE-MUC-2026-FOOD-000002"


def card_of(identity: Identity, **changes: Any) -> dict[str, Any]:
    """A NodeInfo."""
    return {
        "@context": CONTEXT,
        "@type": "NodeInfo",
        "schema_version": "0.2.0",
        "id": identity.node_id,
        "name": identity.name,
        "version": "1.0.0",
        "location": {"lat": identity.location.lat, "lon": identity.location.lon, "city": "Linz", "country": "AT"},
        "capabilities": ["material-registry"],
        "endpoint": identity.endpoint,
        "public_key": identity.key.public.to_pem(),
        **changes,
    }


class Scripted:
    """A peer that answers as told: `posts` in turn, the last for good; probes with its card."""

    def __init__(self, city: City, identity: Identity, *posts: PeerAnswer) -> None:
        self.identity = identity
        self.posts = list(posts)
        self.card = answer_of(200, card_of(identity))
        city.network.answering = self.answer

    async def answer(self, target: str, method: str, path: str) -> PeerAnswer | None:
        if target != self.identity.node_id:
            return None
        if method == "GET":
            return self.card
        return self.posts.pop(0) if len(self.posts) > 1 else self.posts[0]


OK = answer_of(202, {"status": "accepted", "id": 1})


def posts(city: City, target: str = "linz.loop") -> int:
    return len(city.network.to(target, "/federate/announce"))


def offers(city: City, target: str = "linz.loop") -> int:
    return len(city.network.to(target, "/federate/offer"))


@pytest.fixture
async def city(cities: list[City]) -> City:
    """Munich at work."""
    return cities[0]


# Sending


async def test_what_is_announced_goes_to_every_peer_with_the_origins_headers(cities: list[City]) -> None:
    munich, vienna, berlin = cities
    await befriend(munich, vienna)
    await befriend(munich, berlin)
    await munich.announce(subject_of())
    await eventually(lambda: vienna.heard() and berlin.heard())
    (call,) = munich.network.to("vienna.loop", "/federate/announce")
    assert (call.headers[X_LOOP_ORIGIN], call.headers[X_LOOP_TTL]) == ("munich.loop", "3")
    assert call.headers[X_NODE_TARGET] == "vienna.loop"
    assert vienna.heard()[0]["via"] == "munich.loop"


async def test_a_plain_node_gets_the_short_form_and_nothing_of_others(city: City) -> None:
    peer = Scripted(city, LINZ, OK)
    await city.admit(LINZ, features=frozenset())
    await city.admit(identity_of("vienna.loop", VIENNA))
    await send_copy(city, identity_of("vienna.loop", VIENNA), message_of(identity_of("vienna.loop", VIENNA)), 3)
    await city.announce(subject_of(SECOND))
    await eventually(lambda: posts(city) == 1)
    await rest(city)
    (call,) = city.network.to("linz.loop", "/federate/announce")
    assert SECOND.encode() in (call.body or b"")
    assert not {name for name in call.headers if name.startswith("X-Loop")}
    assert X_NODE_TARGET not in call.headers
    assert peer.posts == [OK]


async def test_a_product_goes_to_who_knows_products(city: City) -> None:
    Scripted(city, LINZ, OK)
    await city.admit(LINZ, features=frozenset({Feature.FLOOD}))
    await city.announce(subject_of(DESK))
    await city.announce(subject_of(SECOND))
    await eventually(lambda: posts(city) == 1)
    await rest(city)
    assert posts(city) == 1


async def test_a_copy_that_is_outdated_when_its_turn_comes_is_skipped(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    munich.network.down.add("vienna.loop")
    for _ in range(5):
        await munich.announce(subject_of())
    await munich.announce(subject_of(SECOND))
    munich.network.down.clear()
    munich.network.calls.clear()
    await eventually(lambda: len(vienna.heard()) == 2, munich, step_ms=500)
    taken = munich.network.to("vienna.loop", "/federate/announce")
    assert len({c.body for c in taken}) == 2
    assert {row["revision"] for row in vienna.heard()} == {1, 5}
    assert vienna.decisions["superseded"] == 0


async def test_requests_for_one_node_go_to_it_alone_and_their_answer_is_told(cities: list[City]) -> None:
    munich, vienna, berlin = cities
    await befriend(munich, vienna)
    await befriend(munich, berlin)
    await munich.request("vienna.loop", b"{}", "bid:1")
    await eventually(lambda: munich.answered)
    assert munich.answered == [("bid:1", 202, "")]
    assert (vienna.offers, berlin.offers) == ([b"{}"], [])


async def test_a_request_does_not_wait_behind_the_floods(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    munich.network.down.add("vienna.loop")
    for number in range(3 * BATCH_ENTRIES):
        await munich.announce(subject_of(f"MAT-DE-MUC-2026-FOOD-{number:06d}"))
    await munich.request("vienna.loop", b"{}", "bid:1")
    munich.network.down.clear()
    munich.network.calls.clear()
    await eventually(lambda: len(vienna.heard()) == 3 * BATCH_ENTRIES, munich, step_ms=500)
    paths = [call.path for call in munich.network.calls if call.target == "vienna.loop" and call.method == "POST"]
    assert paths.index("/api/v1/federate/offer") < BATCH_ENTRIES * 2


async def test_a_request_to_an_introduced_node_is_sent_and_its_worker_ends(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await munich.admit(vienna.identity, standing=Standing.INTRODUCED)
    await vienna.admit(munich.identity, standing=Standing.INTRODUCED)
    await munich.request("vienna.loop", b"{}", "bid:1")
    await eventually(lambda: munich.answered)
    await eventually(lambda: munich.federation.health_of("vienna.loop") is None)
    await munich.request("vienna.loop", b"[]", "bid:2")
    await eventually(lambda: len(munich.answered) == 2)
    assert vienna.offers == [b"{}", b"[]"]


async def test_a_request_queued_just_as_the_worker_ends_is_not_forgotten(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await munich.admit(vienna.identity, standing=Standing.INTRODUCED)
    await vienna.admit(munich.identity, standing=Standing.INTRODUCED)
    worker = munich.federation.workers.ensure("vienna.loop")
    assert worker is not None
    looked = worker._has_requests

    async def look_then_queue() -> bool:
        found = await looked()
        worker._has_requests = looked  # type: ignore[method-assign]
        await munich.request("vienna.loop", b"{}", "bid:1")
        return found

    worker._has_requests = look_then_queue  # type: ignore[method-assign]
    worker.wake()
    await eventually(lambda: munich.answered)


# Answers


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (refuse(400, "bad_hop"), "bad_hop"),
        (refuse(401, "unknown_node"), "unknown_node"),
        (refuse(403, "not_a_peer"), "not_a_peer"),
        (refuse(404, "not_found"), "not_found"),
        (refuse(409, "taken"), "taken"),
        (answer_of(302), ""),
    ],
)
async def test_a_refusal_is_final(city: City, answer: PeerAnswer, outcome: str) -> None:
    Scripted(city, LINZ, answer)
    await city.admit(LINZ)
    await city.request("linz.loop", b"{}", "bid:1")
    await eventually(lambda: city.answered)
    for _ in range(5):
        city.clock.advance(60_000)
        await rest(city)
    assert city.answered == [("bid:1", answer.status, outcome)]
    assert offers(city) == 1


@pytest.mark.parametrize(
    "answer",
    [
        refuse(500, "bug"),
        answer_of(502),
        refuse(401, "clock_skew"),
        refuse(503, "overloaded", 3),
        refuse(429, "slow", 3),
    ],
)
async def test_what_is_no_refusal_is_tried_again_signed_afresh(city: City, answer: PeerAnswer) -> None:
    Scripted(city, LINZ, answer, answer, OK)
    await city.admit(LINZ)
    await city.request("linz.loop", b"{}", "bid:1")
    await eventually(lambda: city.answered, city, step_ms=1_000)
    assert city.answered == [("bid:1", 202, "")]
    calls = city.network.to("linz.loop", "/federate/offer")
    assert len({call.headers["X-Node-Signature"] for call in calls}) == len(calls) == 3


@pytest.mark.parametrize("status", [429, 503])
async def test_who_asks_for_patience_gets_it(city: City, status: int) -> None:
    Scripted(city, LINZ, refuse(status, "rate_limited", 30), OK)
    await city.admit(LINZ)
    await city.announce(subject_of())
    await eventually(lambda: posts(city) == 1)
    await rest(city)
    await city.announce(subject_of(SECOND))
    city.clock.advance(29_000)
    await rest(city)
    assert posts(city) == 1
    assert city.health("linz.loop") == "active"
    city.clock.advance(1_000)
    await eventually(lambda: posts(city) == 3, city, step_ms=1_000)


async def test_an_answer_beside_a_wish_for_patience_does_not_undo_it(city: City) -> None:
    Scripted(city, LINZ, refuse(429, "rate_limited", 60), OK)
    city.network.down.add("linz.loop")
    for number in range(4):
        await city.announce(subject_of(f"MAT-DE-MUC-2026-FOOD-{number:06d}"))
    await city.admit(LINZ)
    await eventually(lambda: posts(city) == 4)
    await rest(city)
    city.clock.advance(30_000)
    await rest(city)
    assert posts(city) == 4


async def test_one_message_that_cannot_be_taken_holds_up_no_other(city: City) -> None:
    Scripted(city, LINZ, refuse(503, "unknown_origin", 5), OK)
    await city.admit(LINZ)
    await city.announce(subject_of())
    await eventually(lambda: posts(city) == 1)
    await city.announce(subject_of(SECOND))
    await eventually(lambda: posts(city) == 2)
    await eventually(lambda: city.rows("SELECT 1 FROM outbox_aside") != [])
    await eventually(lambda: city.rows("SELECT 1 FROM outbox_aside") == [], city, step_ms=1_000)
    assert posts(city) == 3


async def test_a_peer_that_answers_nothing_but_errors_is_not_hammered_and_loses_nothing(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ASIDE_MAX", 2 * BATCH_ENTRIES)
    peer = Scripted(city, LINZ, refuse(500, "bug"))
    count = 5 * BATCH_ENTRIES
    for number in range(count):
        await city.announce(subject_of(f"MAT-DE-MUC-2026-FOOD-{number:06d}"))
    await city.admit(LINZ)
    await eventually(lambda: posts(city) >= BATCH_ENTRIES)
    await rest(city)
    assert posts(city) <= 2 * BATCH_ENTRIES
    for _ in range(30):
        city.clock.advance(2_000)
        await rest(city, rounds=2)
    assert len(city.rows("SELECT 1 FROM outbox_aside")) <= 2 * BATCH_ENTRIES
    peer.posts = [OK]
    city.network.calls.clear()
    await eventually(
        lambda: len({call.body for call in city.network.to("linz.loop", "/federate/announce")}) == count,
        city,
        step_ms=5_000,
        timeout_s=10,
    )
    await eventually(lambda: city.rows("SELECT 1 FROM outbox_aside") == [], city, step_ms=5_000)


async def test_a_peer_that_takes_everything_is_sent_each_thing_once(city: City) -> None:
    Scripted(city, LINZ, OK)
    await city.admit(LINZ)
    await city.announce(subject_of())
    await eventually(lambda: posts(city) == 1)
    for _ in range(20):
        city.clock.advance(10_000)
        await rest(city, rounds=2)
    assert posts(city) == 1


# Health


async def test_a_peer_that_was_down_gets_it_without_new_traffic(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    await eventually(lambda: munich.health("vienna.loop") == "active")
    munich.network.down.add("vienna.loop")
    await munich.announce(subject_of())
    await eventually(lambda: munich.health("vienna.loop") == "unreachable", munich, step_ms=2_000)
    munich.network.down.clear()
    await eventually(lambda: vienna.heard(), munich, step_ms=2_000)
    assert munich.health("vienna.loop") == "active"


async def test_an_absent_peer_is_tried_at_least_every_twenty_seconds_in_its_first_day(city: City) -> None:
    await city.admit(LINZ)
    await eventually(lambda: city.health("linz.loop") == "unreachable", city, step_ms=2_000)
    for _ in range(10):
        before = len(city.network.to("linz.loop", "/node/info"))
        city.clock.advance(20_000)
        await rest(city)
        assert len(city.network.to("linz.loop", "/node/info")) > before


async def test_inbound_contact_schedules_a_probe_and_never_closes_the_breaker(city: City) -> None:
    await city.admit(LINZ)
    await eventually(lambda: city.health("linz.loop") == "unreachable", city, step_ms=2_000)
    probes = len(city.network.to("linz.loop", "/node/info"))
    city.clock.advance(1_100)
    await send_copy(city, LINZ, message_of(LINZ, now_ms=city.clock.now_ms()), 3)
    await eventually(lambda: len(city.network.to("linz.loop", "/node/info")) > probes)
    await rest(city)
    assert city.health("linz.loop") == "unreachable"
    assert posts(city) == 0


async def test_a_call_from_a_peer_that_is_there_costs_no_write(city: City) -> None:
    Scripted(city, LINZ, OK)
    await city.admit(LINZ)
    await eventually(lambda: city.health("linz.loop") == "active" and city.contacted)
    await rest(city)
    before = city.database.statistics.units
    for _ in range(20):
        await city.federation._contacted_us("linz.loop")
    assert city.database.statistics.units == before


async def test_probes_of_a_healthy_peer_are_written_down_once_a_minute(city: City) -> None:
    Scripted(city, LINZ, OK)
    await city.admit(LINZ)
    await eventually(lambda: city.contacted)
    await rest(city)
    before, probed = city.database.statistics.units, len(city.network.to("linz.loop", "/node/info"))
    for _ in range(12):
        city.clock.advance(10_000)
        await rest(city, rounds=3)
    assert len(city.network.to("linz.loop", "/node/info")) - probed >= 10
    assert city.database.statistics.units - before <= 3


@pytest.mark.parametrize(
    ("card", "healthy"),
    [
        (answer_of(200, card_of(LINZ)), True),
        (answer_of(200, card_of(identity_of("wels.loop", VIENNA))), False),
        (answer_of(200, card_of(LINZ, public_key=identity_of("wels.loop").key.public.to_pem())), False),
        (answer_of(200, "a page of a proxy"), False),
        (answer_of(404), False),
        (answer_of(503), False),
    ],
)
async def test_only_the_node_itself_answers_a_probe(city: City, card: PeerAnswer, healthy: bool) -> None:
    peer = Scripted(city, LINZ, OK)
    peer.card = card
    await city.admit(LINZ)
    await city.announce(subject_of())
    await eventually(lambda: city.network.to("linz.loop", "/node/info"))
    await rest(city)
    assert city.health("linz.loop") == ("active" if healthy else "suspect")
    assert posts(city) == int(healthy)


async def test_a_plain_node_without_a_card_is_there_if_it_answers(city: City) -> None:
    peer = Scripted(city, LINZ, OK)
    peer.card = answer_of(404)
    await city.admit(LINZ, features=frozenset(), auth=PeerAuth.UNSIGNED_LAB, public_key=None)
    await city.announce(subject_of())
    await eventually(lambda: posts(city) == 1)


async def test_a_peer_that_limits_probes_is_there(city: City) -> None:
    peer = Scripted(city, LINZ, OK)
    peer.card = refuse(429, "rate_limited", 20)
    await city.admit(LINZ)
    await eventually(lambda: city.network.to("linz.loop", "/node/info"))
    await rest(city)
    assert city.health("linz.loop") == "active"
    await city.announce(subject_of())
    await rest(city)
    assert posts(city) == 0


async def test_a_place_is_learned_from_the_card(city: City) -> None:
    Scripted(city, LINZ, OK)
    await city.admit(LINZ, location=BERLIN)
    await eventually(lambda: getattr(city.find("linz.loop"), "location", None) == VIENNA)


async def test_a_suspended_peer_is_not_tried_and_gets_what_waited_when_resumed(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    await eventually(lambda: munich.health("vienna.loop") == "active")
    assert await munich.federation.suspend_peer("vienna.loop")
    await eventually(lambda: munich.health("vienna.loop") == "suspended")
    await munich.announce(subject_of())
    munich.network.calls.clear()
    for _ in range(5):
        munich.clock.advance(30_000)
        await rest(munich, rounds=3)
    assert [call for call in munich.network.calls if call.target == "vienna.loop"] == []
    assert await munich.federation.resume_peer("vienna.loop")
    await eventually(lambda: vienna.heard(), munich, step_ms=1_000)
    assert not await munich.federation.resume_peer("vienna.loop")


async def test_a_slow_peer_holds_up_nobody_else(cities: list[City]) -> None:
    munich, vienna, _ = cities
    stuck = asyncio.Event()

    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        if target == "linz.loop":
            await stuck.wait()
        return None

    munich.network.answering = answering
    await munich.admit(LINZ)
    await befriend(munich, vienna)
    await munich.announce(subject_of())
    await eventually(lambda: vienna.heard())
    stuck.set()


async def test_a_clock_that_was_set_back_puts_nothing_off(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    munich.network.down.add("vienna.loop")
    await eventually(lambda: munich.health("vienna.loop") == "unreachable", munich, step_ms=2_000)
    munich.network.down.clear()
    munich.clock.set_wall(NOW_MS - 24 * 3600 * 1000)
    await eventually(lambda: munich.health("vienna.loop") == "active", munich, step_ms=2_000)
    await munich.announce(subject_of())
    await eventually(lambda: vienna.heard())


async def test_what_stood_aside_is_tried_again_after_the_clock_was_set_back(city: City) -> None:
    Scripted(city, LINZ, refuse(503, "key_conflict", 5), OK)
    await city.admit(LINZ)
    await city.request("linz.loop", b"{}", "bid:1")
    await eventually(lambda: city.rows("SELECT 1 FROM outbox_aside") != [])
    city.clock.set_wall(NOW_MS - 24 * 3600 * 1000)
    await eventually(lambda: city.answered, city, step_ms=100)


# Crashes


async def test_what_was_in_flight_when_the_sender_died_is_sent_again_and_known_there(tmp_path: Path) -> None:
    munich_is, vienna_is = identity_of("munich.loop"), identity_of("vienna.loop", VIENNA)
    async with federation_of(tmp_path, munich_is, vienna_is) as (munich, vienna):
        await befriend(munich, vienna)
        arrived, never = asyncio.Event(), asyncio.Event()

        async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
            if path != "/api/v1/federate/announce" or arrived.is_set():
                return None
            call = munich.network.to("vienna.loop", "/federate/announce")[-1]
            await vienna.serve(method, path, call.headers, call.body)
            arrived.set()
            await never.wait()
            return None

        munich.network.answering = answering
        await munich.announce(subject_of())
        await arrived.wait()
        assert len(vienna.heard()) == 1
        await munich.crash()
        munich.network.answering = None
        munich.clock.advance(1_000)
        await munich.come_back()
        await eventually(lambda: vienna.decisions["duplicate"] == 1)
        assert len(vienna.heard()) == 1
        await eventually(lambda: munich.rows("SELECT flood_entry FROM outbox_cursor") == [{"flood_entry": 1}])


async def test_a_restart_remembers_how_a_peer_was(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop")) as (munich,):
        await munich.admit(LINZ)
        # Decided is not yet stored: what a crash takes in between is learned again.
        await eventually(
            lambda: health_store.load(munich.database.points, "linz.loop", NOW_MS).state is State.UNREACHABLE,
            munich,
            step_ms=2_000,
        )
        await munich.crash()
        await munich.come_back()
        await eventually(lambda: munich.health("linz.loop") == "unreachable")


async def test_a_stored_health_of_another_version_is_begun_anew(munich: City) -> None:
    await munich.admit(LINZ)
    for stored in ("{}", '{"state": "odd"}', "no json"):
        await munich.database.write(
            lambda tx, stored=stored: tx.execute(
                "INSERT OR REPLACE INTO peer_health VALUES ('linz.loop', ?)", (stored,)
            )
        )
        assert health_store.load(munich.database.points, "linz.loop", NOW_MS) == PeerHealth.new(NOW_MS)
    assert PeerHealth.new(NOW_MS).state is State.ACTIVE


# Handshakes that are owed


def handshake_answer(status: str, message: str = "") -> PeerAnswer:
    value = {
        "@context": CONTEXT,
        "@type": "NodeHandshakeResponse",
        "schema_version": "0.2.0",
        "status": status,
        "peer_id": "linz.loop",
        "capabilities": ["gossip-flood"],
        "received_at": "2026-09-21T12:00:00Z",
        "lab_only": True,
        "message": message,
    }
    return PeerAnswer(202, {}, dump_json(value), 1)


def handshakes(city: City) -> int:
    return len(city.network.to("linz.loop", "/federation/handshake"))


async def owing(city: City, standing: Standing, answer: PeerAnswer) -> Scripted:
    peer = Scripted(city, LINZ, answer)
    await city.admit(LINZ, standing=standing)
    await city.database.write(lambda tx: tx.execute("UPDATE node SET handshake_owed = 1 WHERE node_id = 'linz.loop'"))
    city.look()
    await eventually(lambda: handshakes(city) == 1, city)
    await rest(city)
    return peer


async def test_who_has_not_accepted_is_asked_again_after_a_while_and_told_nothing(city: City) -> None:
    peer = await owing(city, Standing.PENDING, handshake_answer("rejected", "pending: wait"))
    await city.announce(subject_of())
    for _ in range(5):
        city.clock.advance(20_000)
        await rest(city, rounds=3)
    assert (handshakes(city), posts(city)) == (1, 0)
    peer.posts = [handshake_answer("accepted"), OK]
    await eventually(lambda: posts(city) == 1, city, step_ms=int(ASK_AGAIN_S * 100))
    node = city.find("linz.loop")
    assert node is not None
    assert node.standing is Standing.PEER


async def test_a_handshake_is_not_written_over_what_the_operator_did_meanwhile(city: City) -> None:
    go_on = asyncio.Event()

    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        if path.endswith("/handshake"):
            await go_on.wait()
            return handshake_answer("accepted")
        return answer_of(200, card_of(LINZ)) if target == "linz.loop" else None

    city.network.answering = answering
    await city.admit(LINZ)
    await city.database.write(lambda tx: tx.execute("UPDATE node SET handshake_owed = 1 WHERE node_id = 'linz.loop'"))
    city.look()
    await eventually(lambda: handshakes(city) == 1, city)
    await city.federation.suspend_peer("linz.loop")
    go_on.set()
    await rest(city)
    node = city.find("linz.loop")
    assert node is not None
    assert node.standing is Standing.SUSPENDED


async def test_a_handshake_that_is_owed_does_not_replace_the_pinned_key(city: City) -> None:
    wels = identity_of("wels.loop").key.public
    peer = Scripted(city, LINZ, handshake_answer("accepted"))
    await city.admit(LINZ)
    await eventually(lambda: city.contacted)
    peer.card = answer_of(200, card_of(LINZ, public_key=wels.to_pem()))
    await city.database.write(lambda tx: tx.execute("UPDATE node SET handshake_owed = 1 WHERE node_id = 'linz.loop'"))
    city.look()
    await rest(city)
    node = city.find("linz.loop")
    assert node is not None
    assert node.public_key == LINZ.key.public.raw
    assert handshakes(city) == 0


async def test_a_removed_peers_worker_ends_with_what_it_had_in_flight(city: City) -> None:
    go_on = asyncio.Event()

    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        if target != "linz.loop":
            return None
        if method == "GET":
            return answer_of(200, card_of(LINZ))
        await go_on.wait()
        return OK

    city.network.answering = answering
    await city.admit(LINZ)
    # The request first: a batch of floods that hangs would keep it waiting.
    await city.request("linz.loop", b"{}", "bid:1")
    await city.announce(subject_of())
    await eventually(lambda: offers(city) == 1)
    assert await city.federation.remove_peer("linz.loop")
    assert city.answered == [("bid:1", 0, "peer_removed")]
    assert city.federation.health_of("linz.loop") is None
    await city.admit(LINZ)
    go_on.set()
    await eventually(lambda: posts(city) == 1)
    await rest(city)
    assert city.answered == [("bid:1", 0, "peer_removed")]
    assert offers(city) == 1
    assert city.heard_subjects() == set()
    assert GRAIN in str(city.network.to("linz.loop", "/federate/announce")[0].body)


async def test_a_peers_health_is_an_event_when_it_moves(cities: list[City]) -> None:
    munich, vienna, _ = cities
    await befriend(munich, vienna)
    await eventually(lambda: munich.health("vienna.loop") == "active")
    munich.network.down.add("vienna.loop")
    await munich.announce(subject_of())
    told = "SELECT 1 FROM event WHERE kind = 'peer.status' AND CAST(data AS TEXT) LIKE '%\"unreachable\",%'"
    await eventually(lambda: munich.database.point(told) is not None, munich, step_ms=2_000)
    moves = [data for kind, subject, data in await happened(munich.database) if kind == "peer.status"]
    assert [move["was"] for move in moves[1:]] == [move["status"] for move in moves[:-1]]
