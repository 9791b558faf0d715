"""Handshakes, received and made: who becomes a peer, under which key, and what changes nothing (§9.1)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from multidict import CIMultiDict

from loopd.crypto.keys import NodeKey
from loopd.federation import nodes
from loopd.federation.handshake import HandshakeFailed
from loopd.federation.nodes import AddedBy
from loopd.federation.settings import FederationSettings
from loopd.identity import FEATURES, Identity
from loopd.net.http_client import PeerAnswer
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import HANDSHAKE_CLAIM_MAX_MS
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.timestamps import format_timestamp
from tests.federation_support import (
    BERLIN,
    CONTEXT,
    NOW_MS,
    VIENNA,
    City,
    answer_of,
    eventually,
    federation_of,
    identity_of,
    reason_of,
    signed_headers,
    value_of,
)

PATH = "/api/v1/federation/handshake"
LINZ = identity_of("linz.loop", VIENNA)
IMPOSTOR = identity_of("linz.loop", BERLIN, NodeKey.from_seed(b"i" * 32))
Mode = Literal["manual", "verified", "open"]


def document(sender: Identity, now_ms: int = NOW_MS, **changes: Any) -> bytes:
    fields = {
        "@context": CONTEXT,
        "@type": "NodeHandshake",
        "schema_version": "0.2.0",
        "node_id": sender.node_id,
        "name": sender.name,
        "endpoint": sender.endpoint,
        "capabilities": list(FEATURES),
        "public_key": sender.key.public.to_pem(),
        "timestamp": format_timestamp(now_ms),
        **changes,
    }
    return dump_json({key: value for key, value in fields.items() if value is not None})


async def shake(city: City, sender: Identity, now_ms: int = NOW_MS, **changes: Any) -> PeerAnswer:
    """A handshake as the sender would send it, at the city's time but dated `now_ms`."""
    body = document(sender, now_ms, **changes)
    headers = signed_headers(sender, PATH, body, city.clock.now_ms(), city.node_id)
    return await city.serve("POST", PATH, headers, body)


def outcome(answer: PeerAnswer) -> tuple[str, str]:
    """The status, and the message's first word."""
    assert answer.status == 202
    value = value_of(answer)
    return value["status"], value["message"].split(":")[0]


def known(city: City) -> KnownNode:
    node = city.find("linz.loop")
    assert node is not None
    return node


@pytest.fixture
async def linz(munich: City) -> AsyncIterator[City]:
    """Linz, on Munich's network, with nothing at work."""
    city = City(munich.network, munich.directory, munich.clock, LINZ)
    await city.open(started=False)
    yield city
    await city.database.close()


def admits(city: City, mode: Mode, **changes: Any) -> None:
    city.federation.handshakes._settings = FederationSettings(admission=mode, **changes)


# Received


async def test_open_admission_takes_anybody(munich: City) -> None:
    answer = await shake(munich, LINZ)
    value = value_of(answer)
    assert (value["status"], value["peer_id"], value["@type"]) == ("accepted", "munich.loop", "NodeHandshakeResponse")
    node = known(munich)
    assert (node.standing, node.public_key, node.named_by_operator) == (Standing.PEER, LINZ.key.public.raw, False)
    assert node.features == frozenset(FEATURES)


async def test_manual_admission_keeps_the_question_for_the_operator(munich: City) -> None:
    admits(munich, "manual")
    assert outcome(await shake(munich, LINZ)) == ("rejected", "pending")
    assert munich.find("linz.loop") is None
    (claim,) = [peer for peer in await munich.federation.peer_list() if peer["id"] == "linz.loop"]
    assert (claim["status"], claim["fingerprint"]) == ("waiting", LINZ.key.public.fingerprint)


async def test_whom_the_operator_added_is_accepted_in_every_mode(munich: City) -> None:
    admits(munich, "manual")
    await munich.admit(LINZ, standing=Standing.PENDING, added_by=AddedBy.OPERATOR)
    assert outcome(await shake(munich, LINZ))[0] == "accepted"
    assert known(munich).standing is Standing.PEER


async def test_verified_admission_asks_the_endpoint(munich: City, linz: City) -> None:
    admits(munich, "verified")
    assert outcome(await shake(munich, LINZ))[0] == "accepted"
    assert known(munich).location == VIENNA
    assert len(munich.network.to("linz.loop", "/node/info")) == 1


async def test_verified_admission_refuses_who_is_not_at_its_endpoint(munich: City, linz: City) -> None:
    admits(munich, "verified")
    assert outcome(await shake(munich, IMPOSTOR)) == ("rejected", "the endpoint shows another id or key")
    munich.network.down.add("linz.loop")
    munich.clock.advance(1_000)
    assert outcome(await shake(munich, LINZ, NOW_MS + 1)) == ("rejected", "the endpoint could not be asked")
    assert munich.find("linz.loop") is None


async def test_one_host_is_called_back_ten_times_a_minute(munich: City, linz: City) -> None:
    admits(munich, "verified")
    munich.network.down.add("linz.loop")
    for number in range(10):
        assert outcome(await shake(munich, LINZ, NOW_MS + number))[0] == "rejected"
    refused = await shake(munich, LINZ, NOW_MS + 11)
    assert (refused.status, reason_of(refused)) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert len(munich.network.to("linz.loop", "/node/info")) == 10
    munich.network.down.clear()
    munich.clock.advance(60_000)
    assert outcome(await shake(munich, LINZ, NOW_MS + 12))[0] == "accepted"


async def test_the_call_back_is_one_at_a_time_for_each_host(munich: City, linz: City) -> None:
    admits(munich, "verified")
    second: list[PeerAnswer] = []

    async def answering(target: str, method: str, path: str) -> None:
        if not second:
            second.append(await shake(munich, LINZ, NOW_MS + 1))

    munich.network.answering = answering
    assert outcome(await shake(munich, LINZ))[0] == "accepted"
    assert (second[0].status, reason_of(second[0])) == (429, "rate_limited")


@pytest.mark.parametrize("mode", ["manual", "verified", "open"])
async def test_a_pinned_id_with_another_key_is_refused(munich: City, mode: Mode) -> None:
    await munich.admit(LINZ)
    admits(munich, mode)
    answer = await shake(munich, IMPOSTOR, NOW_MS + 1)
    assert (answer.status, reason_of(answer)) == (401, "bad_signature")
    without = await shake(munich, LINZ, NOW_MS + 2, public_key=None)
    assert (without.status, reason_of(without)) == (401, "bad_signature")
    assert known(munich).public_key == LINZ.key.public.raw


async def test_a_handshake_overrides_an_introduction(munich: City) -> None:
    await munich.admit(IMPOSTOR, standing=Standing.INTRODUCED, added_by=AddedBy.INTRODUCTION)
    assert outcome(await shake(munich, LINZ))[0] == "accepted"
    assert known(munich).public_key == LINZ.key.public.raw


async def test_while_one_waits_another_key_cannot_take_its_place(munich: City) -> None:
    admits(munich, "manual")
    await shake(munich, LINZ)
    answer = await shake(munich, IMPOSTOR, NOW_MS + 1)
    assert (answer.status, reason_of(answer)) == (401, "bad_signature")
    await munich.federation.approve_peer("linz.loop", PeerAuth.SIGNED)
    assert known(munich).public_key == LINZ.key.public.raw


async def test_one_that_is_not_newer_changes_nothing(munich: City) -> None:
    await shake(munich, LINZ, NOW_MS)
    before = munich.rows("SELECT * FROM node")
    for made_at_ms in (NOW_MS, NOW_MS - 1):
        answer = await shake(munich, LINZ, made_at_ms, endpoint="https://elsewhere.loop/api/v1")
        assert outcome(answer)[0] == "accepted"
    assert munich.rows("SELECT * FROM node") == before
    await shake(munich, LINZ, NOW_MS + 1, endpoint="https://elsewhere.loop/api/v1")
    assert known(munich).endpoint == "https://elsewhere.loop/api/v1"


async def test_one_dated_ahead_cannot_shut_out_those_to_come(munich: City) -> None:
    answer = await shake(munich, LINZ, NOW_MS + 300_001)
    assert (answer.status, reason_of(answer)) == (401, "clock_skew")
    assert munich.find("linz.loop") is None
    assert outcome(await shake(munich, LINZ, NOW_MS + 300_000))[0] == "accepted"


async def test_a_suspended_node_is_told_so(munich: City) -> None:
    await munich.admit(LINZ)
    await munich.federation.suspend_peer("linz.loop")
    assert outcome(await shake(munich, LINZ)) == ("rejected", "suspended by the operator")
    assert known(munich).standing is Standing.SUSPENDED


async def test_no_more_peers_than_fit(munich: City) -> None:
    # One place for who asks, one for whom this node chooses.
    admits(munich, "open", max_peers=2)
    await munich.admit(identity_of("vienna.loop"))
    assert outcome(await shake(munich, LINZ)) == ("rejected", "this node has as many peers as it admits")
    await munich.federation.remove_peer("vienna.loop")
    assert outcome(await shake(munich, LINZ))[0] == "accepted"
    assert outcome(await shake(munich, LINZ, NOW_MS + 1))[0] == "accepted"


async def test_no_more_wait_than_fit(munich: City) -> None:
    admits(munich, "manual", max_pending_peers=1)
    await shake(munich, identity_of("vienna.loop"))
    assert outcome(await shake(munich, LINZ)) == ("rejected", "too many nodes wait for the operator's approval")
    assert outcome(await shake(munich, identity_of("vienna.loop"), NOW_MS + 1)) == ("rejected", "pending")


async def test_who_waits_for_the_operator_waits_thirty_days_however_often_it_asks(munich: City) -> None:
    admits(munich, "manual", max_pending_peers=1)
    await munich.start()
    await shake(munich, LINZ)
    await munich.database.write(
        lambda tx: tx.execute("UPDATE handshake_claim SET received_at_ms = ?", (NOW_MS - HANDSHAKE_CLAIM_MAX_MS + 1,))
    )
    await shake(munich, LINZ, NOW_MS + 1)
    await munich.federation.housekeeping.keep_house()
    assert len(munich.rows("SELECT 1 FROM handshake_claim")) == 1
    munich.clock.advance(1)
    await munich.federation.housekeeping.keep_house()
    assert munich.rows("SELECT 1 FROM handshake_claim") == []
    assert outcome(await shake(munich, identity_of("vienna.loop"))) == ("rejected", "pending")


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"node_id": "munich.loop"}, 409, "own_node"),
        ({"node_id": "wels.loop"}, 400, "origin_mismatch"),
        ({"endpoint": "https://linz.loop/api/v1#here"}, 400, "bad_endpoint"),
        ({"endpoint": "https://linz.loop/api/v1?x=1"}, 400, "bad_endpoint"),
        ({"capabilities": "all"}, 400, "schema"),
    ],
)
async def test_what_is_no_honest_question_is_refused(
    munich: City, changes: dict[str, Any], status: int, reason: str
) -> None:
    answer = await shake(munich, LINZ, **changes)
    assert (answer.status, reason_of(answer)) == (status, reason)


async def test_the_signature_is_that_of_the_key_in_the_document(munich: City) -> None:
    body = document(LINZ)
    forged = signed_headers(LINZ, PATH, body, key=IMPOSTOR.key)
    elsewhere = signed_headers(LINZ, PATH, body, target="berlin.loop")
    late = signed_headers(LINZ, PATH, body, NOW_MS - 300_001)
    for headers, reason in ((forged, "bad_signature"), (elsewhere, "wrong_target"), (late, "clock_skew")):
        answer = await munich.serve("POST", PATH, headers, body)
        assert (answer.status, reason_of(answer)) == (401, reason)
    answer = await munich.serve("POST", PATH, CIMultiDict(), body)
    assert (answer.status, reason_of(answer)) == (401, "missing_header")


# Nodes of the lab


async def lab_shake(city: City, now_ms: int = NOW_MS, **changes: Any) -> PeerAnswer:
    body = document(LINZ, now_ms, public_key=None, capabilities=["lab"], **changes)
    return await city.serve("POST", PATH, CIMultiDict(), body)


async def test_a_node_without_a_key_waits_even_where_anybody_is_admitted(munich: City) -> None:
    assert outcome(await lab_shake(munich)) == ("rejected", "pending")
    with pytest.raises(HandshakeFailed, match="shows no key"):
        await munich.federation.approve_peer("linz.loop", PeerAuth.SIGNED)
    await munich.federation.approve_peer("linz.loop", PeerAuth.UNSIGNED_LAB)
    node = known(munich)
    assert (node.standing, node.auth, node.public_key) == (Standing.PEER, PeerAuth.UNSIGNED_LAB, None)


async def test_what_is_not_signed_changes_nothing_of_a_lab_peer(munich: City) -> None:
    await munich.admit(LINZ, auth=PeerAuth.UNSIGNED_LAB, public_key=None)
    answer = await lab_shake(munich, NOW_MS + 1, endpoint="https://elsewhere.loop/api/v1")
    assert outcome(answer)[0] == "accepted"
    assert known(munich).endpoint == LINZ.endpoint


@pytest.mark.parametrize("mode", ["manual", "verified", "open"])
async def test_nobody_becomes_a_lab_peer_by_showing_a_key_of_his_own(munich: City, mode: Mode) -> None:
    await munich.admit(LINZ, auth=PeerAuth.UNSIGNED_LAB, public_key=None)
    admits(munich, mode)
    assert outcome(await shake(munich, IMPOSTOR, NOW_MS + 1)) == ("rejected", "pending")
    node = known(munich)
    assert (node.auth, node.public_key) == (PeerAuth.UNSIGNED_LAB, None)


# Made


async def test_adding_a_peer_makes_both_sides_peers_and_pins_what_was_seen(munich: City, linz: City) -> None:
    added = await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert (added.status, added.fingerprint) == ("accepted", LINZ.key.public.fingerprint)
    node, back = known(munich), linz.find("munich.loop")
    assert (node.standing, node.location, node.named_by_operator) == (Standing.PEER, VIENNA, True)
    assert back is not None
    assert (back.standing, back.public_key) == (Standing.PEER, munich.identity.key.public.raw)


async def test_adding_who_has_not_decided_waits(munich: City, linz: City) -> None:
    admits(linz, "manual")
    added = await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert (added.status, known(munich).standing) == ("pending", Standing.PENDING)
    again = await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert (again.status, known(munich).standing) == ("pending", Standing.PENDING)


async def test_approval_shakes_hands_back_at_once(tmp_path: Path) -> None:
    settings = FederationSettings(admission="manual")
    async with federation_of(tmp_path, identity_of("munich.loop"), LINZ, settings=settings) as (munich, linz):
        await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
        await linz.federation.approve_peer("munich.loop", PeerAuth.SIGNED)
        await eventually(lambda: known(munich).standing is Standing.PEER)
        await eventually(lambda: linz.rows("SELECT handshake_owed FROM node") == [{"handshake_owed": 0}])


async def test_asking_again_never_demotes_a_peer(munich: City, linz: City) -> None:
    await munich.admit(LINZ)
    admits(linz, "manual")
    await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert known(munich).standing is Standing.PEER


async def test_adding_a_pinned_node_that_shows_another_key_fails(munich: City, linz: City) -> None:
    await munich.admit(IMPOSTOR)
    with pytest.raises(HandshakeFailed, match="pinned to another key"):
        await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert known(munich).public_key == IMPOSTOR.key.public.raw


async def test_adding_a_suspended_node_does_not_take_it_back(munich: City, linz: City) -> None:
    await munich.admit(LINZ)
    await munich.federation.suspend_peer("linz.loop")
    with pytest.raises(HandshakeFailed, match="suspended here"):
        await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert known(munich).standing is Standing.SUSPENDED


@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        (answer_of(404), "answers NodeInfo with 404"),
        (answer_of(200, {"no": "card"}), "shows no NodeInfo"),
    ],
)
async def test_what_answers_otherwise_is_no_node(munich: City, shown: PeerAnswer, complaint: str) -> None:
    async def answering(target: str, method: str, path: str) -> PeerAnswer:
        return shown

    munich.network.answering = answering
    with pytest.raises(HandshakeFailed, match=complaint):
        await munich.federation.add_peer(LINZ.endpoint, PeerAuth.SIGNED)
    assert munich.rows("SELECT 1 FROM node") == []


async def test_a_node_is_no_peer_of_itself(munich: City) -> None:
    with pytest.raises(HandshakeFailed, match="this node itself"):
        await munich.federation.add_peer(munich.identity.endpoint, PeerAuth.SIGNED)


async def test_nobody_waits_for_a_handshake_that_came_to_nothing(munich: City, linz: City) -> None:
    with pytest.raises(HandshakeFailed):
        await munich.federation.add_peer("https://nowhere.loop/api/v1", PeerAuth.SIGNED)
    assert munich.federation.handshakes._under_way == {}
    await munich.federation.handshakes.settled("linz.loop")


async def test_who_shakes_hands_again_is_sent_what_is_still_valid(munich: City) -> None:
    """It may have lost its database since."""
    await shake(munich, LINZ)
    await munich.database.write(lambda tx: tx.execute("INSERT INTO outbox_cursor VALUES ('linz.loop', 7, 9)"))
    await shake(munich, LINZ)
    assert munich.rows("SELECT flood_entry, request_entry FROM outbox_cursor") == [
        {"flood_entry": 7, "request_entry": 9}
    ]
    # Nor does one who shakes hands all the time have everything sent again and again.
    await shake(munich, LINZ, NOW_MS + 59_999)
    assert munich.rows("SELECT flood_entry FROM outbox_cursor") == [{"flood_entry": 7}]
    await shake(munich, LINZ, NOW_MS + 59_999 + 60_000)
    assert munich.rows("SELECT flood_entry, request_entry FROM outbox_cursor") == [
        {"flood_entry": 0, "request_entry": 9}
    ]


async def test_another_endpoint_than_the_operator_gave_loses_his_permission(munich: City) -> None:
    await munich.admit(LINZ, added_by=AddedBy.OPERATOR, endpoint_by_operator=True)
    await shake(munich, LINZ, NOW_MS + 1)
    assert known(munich).named_by_operator
    await shake(munich, LINZ, NOW_MS + 2, endpoint="https://10.0.0.1/api/v1")
    assert not known(munich).named_by_operator
    record = nodes.find_record(munich.database.points, "linz.loop")
    assert record is not None
    assert record.added_by is AddedBy.OPERATOR
