"""Received announcements: each decision, what it changes, and what it needs to have verified first (§9.3)."""

import asyncio
from typing import Any

import pytest

from loopd.crypto.keys import NodeKey
from loopd.database.writer import Tx
from loopd.federation.heard import HeardSubjects
from loopd.federation.nodes import AddedBy
from loopd.federation.settings import FederationSettings
from loopd.identity import Identity
from loopd.net.http_client import PeerAnswer
from loopd.protocol.errors import Unavailable
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.signing import ANNOUNCE_PATH, X_NODE_SIGNATURE
from loopd.protocol.subjects import HeardSubject, SubjectState
from tests.federation_support import (
    BERLIN,
    CONTEXT,
    DAY_MS,
    GRAIN,
    NOW_MS,
    VIENNA,
    City,
    answer_of,
    eventually,
    identity_of,
    message_of,
    plain_body,
    reason_of,
    send_copy,
    signed_headers,
    subject_of,
    value_of,
)

ORIGIN, RELAY, OTHER = (
    identity_of("vienna.loop", VIENNA),
    identity_of("berlin.loop", BERLIN),
    identity_of("linz.loop", VIENNA),
)
FORGED = NodeKey.from_seed(b"f" * 32)


def status_and_decisions(city: City, answer: PeerAnswer) -> tuple[int, dict[str, int]]:
    return answer.status, dict(city.decisions)


def outgoing(city: City) -> list[tuple[str | None, int]]:
    """Queued copies: whom each came from, and the TTL that it goes out with."""
    return [(row["came_from"], row["ttl"]) for row in city.rows("SELECT came_from, ttl FROM outbox ORDER BY entry")]


def registry(*entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "@context": CONTEXT,
        "@type": "NodeRegistry",
        "schema_version": "0.2.0",
        "version": "2026-09-21",
        "nodes": list(entries),
    }


def listed(node: Identity, key: NodeKey | None = None) -> dict[str, Any]:
    return {
        "id": node.node_id,
        "endpoint": node.endpoint,
        "location": {"lat": node.location.lat, "lon": node.location.lon},
        "status": "active",
        "public_key": (key or node.key).public.to_pem(),
    }


def lists(city: City, of: dict[str, dict[str, Any] | PeerAnswer]) -> None:
    """Let peers answer for their registries as given."""

    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        shown = of.get(target) if path == "/api/v1/federation/nodes" else None
        return answer_of(200, shown) if isinstance(shown, dict) else shown

    city.network.answering = answering


@pytest.fixture
async def met(munich: City) -> City:
    """Munich with two peers, nothing at work in the background but the count of decisions."""
    for peer in (ORIGIN, RELAY):
        await munich.admit(peer)
    munich.federation.flooding._decided = lambda reason: munich.decisions.update((reason,))
    return munich


# Decisions


async def test_a_new_message_is_delivered_stored_and_passed_on(met: City) -> None:
    message = message_of(ORIGIN)
    answer = await send_copy(met, ORIGIN, message, 3)
    assert status_and_decisions(met, answer) == (202, {"accepted": 1})
    (row,) = met.heard()
    assert (row["origin"], row["subject"], row["via"], row["verified"]) == ("vienna.loop", GRAIN, "vienna.loop", 1)
    (stored,) = met.rows("SELECT body, best_ttl, origin_signature FROM message")
    assert (stored["body"], stored["best_ttl"]) == (message.body, 3)
    assert stored["origin_signature"] == message.signature
    assert outgoing(met) == [("vienna.loop", 2)]


async def test_the_last_hop_delivers_and_passes_nothing_on(met: City) -> None:
    await send_copy(met, RELAY, message_of(ORIGIN), 1)
    assert met.heard_subjects() == {GRAIN}
    assert outgoing(met) == []


async def test_a_second_copy_changes_nothing_and_a_better_one_only_goes_further(met: City) -> None:
    message = message_of(ORIGIN)
    await send_copy(met, RELAY, message, 2)
    first = met.heard()
    await send_copy(met, OTHER, message, 1)  # a stranger
    await send_copy(met, RELAY, message, 1)
    await send_copy(met, ORIGIN, message, 3)
    await send_copy(met, ORIGIN, message, 3)
    assert met.decisions == {"accepted": 1, "duplicate": 1, "upgraded": 1}
    assert met.heard() == first
    assert outgoing(met) == [("berlin.loop", 1), ("vienna.loop", 2)]
    assert met.rows("SELECT best_ttl FROM message") == [{"best_ttl": 3}]


async def test_the_same_request_again_is_answered_as_before(met: City) -> None:
    message = message_of(ORIGIN)
    first, again = [await send_copy(met, ORIGIN, message, 3) for _ in range(2)]
    other = await send_copy(met, RELAY, message, 2)
    assert value_of(first) == value_of(again) == {"status": "accepted", "id": 1}
    assert value_of(other)["id"] == 2
    assert met.decisions == {"accepted": 1, "duplicate": 1}


async def test_beyond_the_radius_and_after_the_end_nothing_is_kept(met: City) -> None:
    near = message_of(ORIGIN, radius_km=100)
    over = message_of(ORIGIN, subject_of("MAT-DE-MUC-2026-FOOD-000001"), now_ms=NOW_MS - DAY_MS, valid_ms=DAY_MS)
    for message in (near, over):
        assert (await send_copy(met, ORIGIN, message, 3)).status == 202
    assert met.decisions == {"out_of_scope": 1, "expired": 1}
    assert met.heard() == []
    assert met.rows("SELECT 1 FROM message") == []


async def test_the_highest_revision_rules_whatever_the_order(met: City) -> None:
    first, second, gone = (
        message_of(ORIGIN),
        message_of(ORIGIN, revision=2),
        message_of(ORIGIN, subject_of(state=SubjectState.WITHDRAWN), revision=3),
    )
    for message in (second, first, gone, second):
        await send_copy(met, ORIGIN, message, 3)
        met.clock.advance(1)
    assert met.decisions == {"accepted": 2, "superseded": 1, "duplicate": 1}
    (row,) = met.heard()
    assert (row["revision"], row["available"]) == (3, 0)


async def test_other_rooms_are_told_of_each_newest_state_once(met: City) -> None:
    first = message_of(ORIGIN, subject_of(expires_ms=NOW_MS + DAY_MS))
    for _ in range(2):
        await send_copy(met, RELAY, first, 2)
    await send_copy(met, RELAY, message_of(ORIGIN, subject_of(state=SubjectState.WITHDRAWN), revision=2), 2)
    assert [(told.available, told.state, told.expires_ms) for told in met.told] == [
        (True, "available", NOW_MS + DAY_MS),
        (False, "withdrawn", None),
    ]
    assert HeardSubjects(met.clock).find(met.database.points, GRAIN) == met.told[-1]


async def test_what_another_room_cannot_keep_is_not_taken(met: City) -> None:
    def fail(tx: Tx, subject: HeardSubject) -> None:
        raise Unavailable("storage", "no room")

    met.federation.flooding._heard = fail
    answer = await send_copy(met, ORIGIN, message_of(ORIGIN), 3)
    assert (answer.status, met.heard(), met.rows("SELECT 1 FROM message")) == (503, [], [])


@pytest.mark.parametrize(
    ("sender", "ttl", "changes", "status", "reason"),
    [
        (RELAY, 3, {}, 400, "bad_hop"),  # a relayed copy has one TTL less
        (ORIGIN, 2, {}, 400, "bad_hop"),  # a direct one has the body's
        (ORIGIN, 3, {"X_Loop_Hop": "00" * 32}, 400, "bad_hop"),
        (ORIGIN, 3, {"X_Loop_Hop": "0"}, 400, "bad_hop"),
        (ORIGIN, 3, {"X_Loop_TTL": "4"}, 400, "bad_hop"),
        (ORIGIN, 3, {"X_Loop_TTL": "03"}, 400, "bad_hop"),
        (ORIGIN, 3, {"X_Loop_TTL": None, "X_Loop_Hop": None}, 400, "bad_hop"),
        (ORIGIN, 3, {"X_Loop_Origin": None}, 401, "bad_origin_signature"),
        (ORIGIN, 3, {"X_Loop_Origin_Signature": None}, 401, "bad_origin_signature"),
        (ORIGIN, 3, {"X_Loop_Origin_Timestamp": "soon"}, 401, "bad_timestamp"),
        (RELAY, None, {}, 400, "origin_mismatch"),  # a short form speaks for its sender alone
        (ORIGIN, 3, {"X_Loop_Origin": "linz.loop"}, 400, "origin_mismatch"),
    ],
)
async def test_a_sender_at_fault_is_told_and_counted(
    met: City, sender: Identity, ttl: int | None, changes: dict[str, str | None], status: int, reason: str
) -> None:
    answer = await send_copy(met, sender, message_of(ORIGIN), ttl, **changes)
    assert (answer.status, reason_of(answer)) == (status, reason)
    assert met.decisions == {reason: 1}
    assert met.heard() == []
    assert met.rows("SELECT 1 FROM node_request") == []


async def test_times_that_lie_ahead_are_refused(met: City) -> None:
    answer = await send_copy(met, ORIGIN, message_of(ORIGIN, now_ms=NOW_MS + 300_001), 3)
    assert (answer.status, reason_of(answer)) == (400, "bad_times")
    assert (await send_copy(met, ORIGIN, message_of(ORIGIN, now_ms=NOW_MS + 300_000), 3)).status == 202


async def test_who_is_no_peer_does_not_announce(met: City) -> None:
    for standing in (Standing.INTRODUCED, Standing.PENDING):
        await met.admit(OTHER, standing=standing)
        answer = await send_copy(met, OTHER, message_of(OTHER), 3)
        assert (answer.status, reason_of(answer)) == (403, "not_a_peer")
    assert met.decisions == {"not_a_peer": 2}


async def test_when_no_more_fit_the_sender_is_asked_to_wait(met: City) -> None:
    met.federation.flooding._settings = FederationSettings(max_messages=100)
    await met.database.write(lambda tx: tx.execute("UPDATE message_count SET messages = 100"))
    answer = await send_copy(met, ORIGIN, message_of(ORIGIN), 3)
    assert (answer.status, reason_of(answer), answer.headers["Retry-After"]) == (503, "too_many_messages", "60")
    await met.database.write(lambda tx: tx.execute("UPDATE message_count SET messages = 99"))
    assert (await send_copy(met, ORIGIN, message_of(ORIGIN), 3)).status == 202


async def test_what_floods_over_its_share_leaves_room_for_others(met: City) -> None:
    met.federation.flooding._settings = FederationSettings(max_messages=100)
    assert (await send_copy(met, ORIGIN, message_of(ORIGIN), 3)).status == 202
    await met.database.write(lambda tx: tx.execute("UPDATE message_count SET messages = 99"))
    met.decisions.clear()
    answer = await send_copy(met, ORIGIN, message_of(ORIGIN, revision=2), 3)
    assert (answer.status, reason_of(answer), answer.headers["Retry-After"]) == (503, "floods_over_share", "60")
    assert met.decisions == {"floods_over_share": 1}
    assert len(met.rows("SELECT 1 FROM message")) == 1
    await met.admit(OTHER)
    assert (await send_copy(met, OTHER, message_of(OTHER), 3)).status == 202


async def test_shares_are_counted_and_forgotten_with_the_messages(met: City) -> None:
    for revision in (1, 2):
        assert (await send_copy(met, ORIGIN, message_of(ORIGIN, revision=revision), 3)).status == 202
    counted = met.rows("SELECT role, node_id, messages FROM message_share ORDER BY role")
    origin = ORIGIN.node_id
    assert counted == [
        {"role": "origin", "node_id": origin, "messages": 2},
        {"role": "sender", "node_id": origin, "messages": 2},
    ]
    await met.database.write(lambda tx: tx.execute("DELETE FROM message"))
    assert met.rows("SELECT 1 FROM message_share") == []


# Signatures


async def test_the_origins_signature_is_verified_even_if_the_origin_is_the_sender(met: City) -> None:
    forged = message_of(ORIGIN, signer=FORGED)
    answer = await send_copy(met, ORIGIN, forged, 3)
    assert (answer.status, reason_of(answer)) == (401, "bad_origin_signature")
    assert met.decisions == {"bad_origin_signature": 1}
    assert met.rows("SELECT 1 FROM message") == []


async def test_a_relay_cannot_change_what_it_relays(met: City) -> None:
    message = message_of(ORIGIN)
    changed = message.body.replace(b"500", b"501")
    sent = signed_headers(RELAY, ANNOUNCE_PATH, changed, target="munich.loop")
    sent.update(message.hop_headers(2))
    answer = await met.serve("POST", ANNOUNCE_PATH, sent, changed)
    assert (answer.status, reason_of(answer)) == (401, "bad_origin_signature")


async def test_what_changes_nothing_is_not_verified(met: City, monkeypatch: pytest.MonkeyPatch) -> None:
    message = message_of(ORIGIN)
    await send_copy(met, ORIGIN, message, 3)
    checked: list[Any] = []

    def note(key: Any, received: Any) -> bool:
        checked.append(received)
        return True

    monkeypatch.setattr("loopd.federation.flooding.signature_holds", note)
    await send_copy(met, RELAY, message, 2)
    await send_copy(met, RELAY, message_of(OTHER, radius_km=1), 2)
    assert checked == []
    assert met.decisions == {"accepted": 1, "duplicate": 1, "out_of_scope": 1}
    await send_copy(met, ORIGIN, message_of(ORIGIN, revision=2), 3)
    assert len(checked) == 1


async def test_the_short_form_is_relayed_only_if_its_signature_holds_for_others(met: City) -> None:
    body = plain_body(GRAIN)
    sent = signed_headers(ORIGIN, ANNOUNCE_PATH, body)
    assert (await met.serve("POST", ANNOUNCE_PATH, sent, body)).status == 202
    (stored,) = met.rows("SELECT origin_signature, best_ttl, hop_value FROM message")
    assert stored == {"origin_signature": sent[X_NODE_SIGNATURE], "best_ttl": 3, "hop_value": None}
    assert outgoing(met) == [("vienna.loop", 2)]

    other = plain_body("MAT-DE-MUC-2026-FOOD-000002")
    named = signed_headers(ORIGIN, ANNOUNCE_PATH, other, target="munich.loop")
    assert (await met.serve("POST", ANNOUNCE_PATH, named, other)).status == 202
    assert len(met.heard()) == 2
    assert outgoing(met) == [("vienna.loop", 2)]


async def test_a_lab_nodes_word_is_taken_from_it_alone_marked_and_kept(met: City) -> None:
    await met.admit(OTHER, auth=PeerAuth.UNSIGNED_LAB, public_key=None, features=frozenset())
    answer = await send_copy(met, OTHER, message_of(OTHER), None, **{X_NODE_SIGNATURE.replace("-", "_"): "lab"})
    assert answer.status == 202
    assert met.heard()[0]["verified"] == 0
    assert outgoing(met) == []
    relayed = await send_copy(met, OTHER, message_of(ORIGIN), 2)
    assert (relayed.status, reason_of(relayed)) == (400, "origin_mismatch")


# Keys beyond one hop


async def test_a_key_comes_from_the_relays_registry_and_is_pinned_with_the_message(met: City) -> None:
    lists(met, {"berlin.loop": registry(listed(OTHER))})
    assert (await send_copy(met, RELAY, message_of(OTHER), 2)).status == 202
    known = met.find("linz.loop")
    assert known is not None
    assert (known.standing, known.public_key) == (Standing.INTRODUCED, OTHER.key.public.raw)
    await send_copy(met, RELAY, message_of(OTHER, revision=2), 2)
    assert len(met.network.to("berlin.loop", "/federation/nodes")) == 1


async def test_without_a_key_nothing_is_delivered_and_the_relay_is_asked_to_come_again(met: City) -> None:
    for shown in (registry(), registry({**listed(OTHER), "status": "suspended"}), answer_of(500), answer_of(200, {})):
        lists(met, {"berlin.loop": shown})
        met.clock.advance(60_000)
        answer = await send_copy(met, RELAY, message_of(OTHER, now_ms=met.clock.now_ms()), 2)
        assert (answer.status, reason_of(answer)) == (503, "unknown_origin")
        assert int(answer.headers["Retry-After"]) > 0
    assert met.decisions == {"unknown_origin": 4}
    assert met.heard() == []
    assert met.find("linz.loop") is None


async def test_a_relay_that_is_not_reachable_is_a_reason_to_wait_not_to_refuse(met: City) -> None:
    await met.admit(OTHER, standing=Standing.INTRODUCED, added_by=AddedBy.INTRODUCTION)
    message = message_of(OTHER, signer=FORGED)
    met.network.cut.add(("munich.loop", "berlin.loop"))
    answer = await send_copy(met, RELAY, message, 2)
    assert (answer.status, reason_of(answer)) == (503, "unknown_origin")


async def test_a_forged_message_of_an_introduced_origin_is_refused(met: City) -> None:
    lists(met, {"berlin.loop": registry(listed(OTHER))})
    await send_copy(met, RELAY, message_of(OTHER), 2)
    answer = await send_copy(met, RELAY, message_of(OTHER, revision=2, signer=FORGED), 2)
    assert (answer.status, reason_of(answer)) == (401, "bad_origin_signature")


async def dispute(met: City) -> None:
    """Berlin introduces Linz with its key, Vienna with another, each with a message of that key."""
    lists(met, {"berlin.loop": registry(listed(OTHER)), "vienna.loop": registry(listed(OTHER, FORGED))})
    await send_copy(met, RELAY, message_of(OTHER), 2)
    answer = await send_copy(met, ORIGIN, message_of(OTHER, revision=2, signer=FORGED), 2)
    assert answer.status == 202


async def test_introductions_that_disagree_hold_the_message(met: City) -> None:
    await dispute(met)
    assert met.decisions == {"accepted": 1, "key_conflict": 1}
    assert [row["revision"] for row in met.heard()] == [1]
    assert len(met.rows("SELECT 1 FROM held_message")) == 1


async def test_a_handshake_with_the_disputed_key_releases_what_was_held(met: City) -> None:
    await dispute(met)
    met.network.answering = None
    impostor = City(met.network, met.directory, met.clock, identity_of("linz.loop", VIENNA, FORGED))
    await impostor.open()
    try:
        added = await met.federation.add_peer(impostor.identity.endpoint, PeerAuth.SIGNED)
        assert added.status == "accepted"
    finally:
        await impostor.crash()
    assert [row["revision"] for row in met.heard()] == [2]
    assert met.rows("SELECT 1 FROM held_message") == []
    assert outgoing(met)[-1] == ("vienna.loop", 1)


async def test_a_handshake_with_the_other_key_drops_it(met: City) -> None:
    await dispute(met)
    met.network.answering = None
    linz = City(met.network, met.directory, met.clock, OTHER)
    await linz.open()
    try:
        await met.federation.add_peer(linz.identity.endpoint, PeerAuth.SIGNED)
    finally:
        await linz.crash()
    assert [row["revision"] for row in met.heard()] == [1]
    assert met.rows("SELECT 1 FROM held_message") == []


async def test_two_introductions_at_once_cannot_both_be_believed(met: City) -> None:
    """Each relay's registry is read before either key is pinned; the transaction looks again."""
    true_grain, forged_grain = "MAT-DE-MUC-2026-FOOD-00000A", "MAT-DE-MUC-2026-FOOD-00000B"
    arrived, go_on = [], asyncio.Event()

    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        if path != "/api/v1/federation/nodes":
            return None
        arrived.append(target)
        await go_on.wait()
        return answer_of(200, registry(listed(OTHER, FORGED if target == "vienna.loop" else None)))

    met.network.answering = answering
    sending = asyncio.gather(
        send_copy(met, RELAY, message_of(OTHER, subject_of(true_grain)), 2),
        send_copy(met, ORIGIN, message_of(OTHER, subject_of(forged_grain), signer=FORGED), 2),
    )
    await eventually(lambda: len(arrived) == 2)
    go_on.set()
    answers = await sending
    assert sorted(answer.status for answer in answers) == [202, 503]
    known = met.find("linz.loop")
    assert known is not None
    (row,) = met.heard()
    assert known.public_key == (OTHER.key if row["subject"] == true_grain else FORGED).public.raw


async def test_a_peer_suspended_while_its_registry_is_read_is_not_heard(met: City) -> None:
    async def answering(target: str, method: str, path: str) -> PeerAnswer | None:
        await met.federation.suspend_peer("berlin.loop")
        return answer_of(200, registry(listed(OTHER)))

    met.network.answering = answering
    answer = await send_copy(met, RELAY, message_of(OTHER), 2)
    assert (answer.status, reason_of(answer)) == (403, "not_a_peer")
    assert met.heard() == []
    assert met.find("linz.loop") is None


async def test_a_pinned_key_is_not_replaced_by_an_introduction(met: City) -> None:
    lists(met, {"berlin.loop": registry(listed(ORIGIN, FORGED))})
    answer = await send_copy(met, RELAY, message_of(ORIGIN, signer=FORGED), 2)
    assert (answer.status, reason_of(answer)) == (401, "bad_origin_signature")
    assert met.network.to("berlin.loop", "/federation/nodes") == []


async def test_an_own_message_that_comes_back_is_a_duplicate(met: City) -> None:
    answer = await send_copy(met, ORIGIN, message_of(met.identity), 2)
    assert status_and_decisions(met, answer) == (202, {"duplicate": 1})
    assert met.heard() == []
