"""Keys that are replaced and keys that are revoked: who believes what, in which order, and what a crash leaves."""

import json
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loopd.audit.service import AuditLog
from loopd.crypto.keys import NodeKey, decode_signature
from loopd.directory import NodeDirectory, node_key_to_pem, write_new_file
from loopd.federation import key_store
from loopd.federation.nodes import AddedBy
from loopd.federation.own_key import OwnKey, finish
from loopd.federation.settings import FederationSettings
from loopd.gossip.key_statements import build_revocation, build_rotation
from loopd.identity import Identity
from loopd.net.http_client import PeerAnswer
from loopd.protocol.errors import Refusal
from loopd.protocol.nodes import PeerAuth, Standing
from loopd.protocol.signing import X_NODE_ID, announcement_signing_string
from tests.federation_support import (
    BERLIN,
    CONTEXT,
    DAY_MS,
    GRAIN,
    MUNICH,
    NOW_MS,
    OFFER_PATH,
    VIENNA,
    City,
    befriend,
    eventually,
    federation_of,
    identity_of,
    message_of,
    reason_of,
    rest,
    send_copy,
    signed_headers,
    subject_of,
    value_of,
)

KEY_PATH = "/api/v1/federate/key"
VIENNA_OLD = identity_of("vienna.loop", VIENNA)
FIRST, SECOND, THIRD, STRANGE = VIENNA_OLD.key, *(NodeKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
VIENNA_NEW = identity_of("vienna.loop", VIENNA, SECOND)
RELAY = identity_of("berlin.loop", BERLIN)


def rotation(old: NodeKey, new: NodeKey, sequence: int = 1, now_ms: int = NOW_MS, node: str = "vienna.loop") -> bytes:
    return build_rotation(CONTEXT, node, sequence, old, new, now_ms)[1]


def revocation(revoked: NodeKey, signer: NodeKey, sequence: int = 2, now_ms: int = NOW_MS) -> bytes:
    return build_revocation(CONTEXT, "vienna.loop", sequence, revoked.public.raw, signer, now_ms)[1]


async def state(city: City, body: bytes, sender: Identity = RELAY) -> PeerAnswer:
    headers = signed_headers(sender, KEY_PATH, body, city.clock.now_ms(), city.node_id)
    return await city.serve("POST", KEY_PATH, headers, body)


async def finding(city: City, body: bytes, sender: Identity = RELAY) -> str:
    answer = await state(city, body, sender)
    return str(value_of(answer)["reason"]) if answer.status == 202 else reason_of(answer)


def key_of_vienna(city: City) -> bytes | None:
    node = city.find("vienna.loop")
    return None if node is None else node.public_key


async def announced_by(city: City, identity: Identity, **changes: Any) -> str:
    """How an announcement of Vienna's, sent by itself, is answered."""
    now_ms = city.clock.now_ms()
    message = message_of(identity, now_ms=now_ms, **changes)
    answer = await send_copy(city, identity, message, 3)
    return "accepted" if answer.status == 202 else reason_of(answer)


@pytest.fixture
async def city(munich: City) -> City:
    """Munich, which knows Vienna by its first key, and Berlin."""
    await munich.admit(VIENNA_OLD)
    await munich.admit(RELAY)
    return munich


async def test_who_was_held_to_the_old_key_is_held_to_the_new_one(city: City) -> None:
    assert await finding(city, rotation(FIRST, SECOND)) == "taken"
    assert key_of_vienna(city) == SECOND.public.raw
    assert await announced_by(city, VIENNA_NEW) == "accepted"
    assert await finding(city, rotation(FIRST, SECOND)) == "duplicate"
    (row,) = city.rows("SELECT payload FROM audit_entry WHERE CAST(payload AS TEXT) LIKE '%key_rotated%'")
    assert SECOND.public.fingerprint in str(row["payload"])


async def test_the_node_itself_need_not_sign_the_request_with_a_known_key(city: City) -> None:
    assert await finding(city, rotation(FIRST, SECOND), VIENNA_NEW) == "taken"


async def test_what_others_stated_is_passed_on_by_peers_alone(city: City) -> None:
    stranger = identity_of("linz.loop", VIENNA)
    assert await finding(city, rotation(FIRST, SECOND), stranger) == "unknown_node"
    await city.admit(stranger, standing=Standing.INTRODUCED)
    assert await finding(city, rotation(FIRST, SECOND), stranger) == "not_a_peer"
    forged = identity_of("berlin.loop", BERLIN, STRANGE)
    assert await finding(city, rotation(FIRST, SECOND), forged) == "bad_signature"
    assert key_of_vienna(city) == FIRST.public.raw


async def test_the_old_key_verifies_what_was_signed_before_and_nothing_after(city: City) -> None:
    before = message_of(VIENNA_OLD)
    offer = b"an offer"
    in_flight = signed_headers(VIENNA_OLD, OFFER_PATH, offer, NOW_MS, city.node_id)
    await finding(city, rotation(FIRST, SECOND))
    assert (await city.serve("POST", OFFER_PATH, in_flight, offer)).status == 202
    assert (await send_copy(city, VIENNA_NEW, before, 3)).status == 202
    city.clock.advance(301_000)
    relayed = message_of(VIENNA_OLD, revision=2)
    assert (await send_copy(city, RELAY, relayed, 2)).status == 202
    assert await announced_by(city, VIENNA_OLD, revision=3) == "bad_signature"
    late = message_of(VIENNA_OLD, revision=4, now_ms=city.clock.now_ms())
    assert reason_of(await send_copy(city, RELAY, late, 2)) == "bad_origin_signature"
    both = [row["revision"] for row in city.rows("SELECT revision FROM heard")]
    assert both == [2]


async def test_a_former_key_is_forgotten_when_nothing_valid_can_be_signed_with_it(city: City) -> None:
    await finding(city, rotation(FIRST, SECOND))
    assert key_store.former_keys(city.database.points, "vienna.loop") == [FIRST.public.raw]
    city.clock.advance(8 * DAY_MS)
    await city.database.write(lambda tx: key_store.prune(tx, city.clock.now_ms()))
    assert key_store.former_keys(city.database.points, "vienna.loop") == []


async def test_a_lower_sequence_number_and_a_replay_change_nothing(city: City) -> None:
    first, second, back = rotation(FIRST, SECOND, 1), rotation(SECOND, THIRD, 2), rotation(THIRD, SECOND, 2)
    assert [await finding(city, body) for body in (first, second)] == ["taken", "taken"]
    assert await finding(city, back) == "superseded"
    assert await finding(city, rotation(THIRD, STRANGE, 1)) == "superseded"
    assert await finding(city, first) == "duplicate"
    assert key_of_vienna(city) == THIRD.public.raw


async def test_a_rotation_of_a_key_that_is_not_the_present_one_is_not_taken(city: City) -> None:
    assert await finding(city, rotation(STRANGE, SECOND)) == "other_key"
    assert await finding(city, rotation(FIRST, SECOND, node="paris.loop")) == "unknown_node"
    assert await finding(city, rotation(FIRST, SECOND, node="munich.loop")) == "own_node"
    ahead = rotation(FIRST, SECOND, now_ms=NOW_MS + 301_000)
    assert await finding(city, ahead) == "bad_times"
    assert key_of_vienna(city) == FIRST.public.raw
    assert city.rows("SELECT 1 FROM key_statement") == []


async def test_who_shook_hands_with_the_new_key_learns_of_the_old_one(city: City) -> None:
    """A peer that came late can verify what the old key signed."""
    await city.admit(VIENNA_NEW)
    assert reason_of(await send_copy(city, RELAY, message_of(VIENNA_OLD), 2)) == "bad_origin_signature"
    assert await finding(city, rotation(FIRST, SECOND)) == "taken"
    assert (await send_copy(city, RELAY, message_of(VIENNA_OLD), 1)).status == 202
    assert key_of_vienna(city) == SECOND.public.raw


async def test_a_revocation_is_obeyed_at_once(city: City) -> None:
    assert await finding(city, revocation(FIRST, FIRST)) == "taken"
    assert key_of_vienna(city) is None
    assert await announced_by(city, VIENNA_OLD) == "revoked_key"
    assert reason_of(await send_copy(city, RELAY, message_of(VIENNA_OLD, revision=2), 2)) == "revoked_key"
    assert await finding(city, rotation(FIRST, SECOND, 3)) == "revoked_key"
    assert await finding(city, revocation(FIRST, FIRST)) == "duplicate"
    assert (await city.peer("vienna.loop"))["score"] == 0
    assert (await city.peer("berlin.loop"))["score"] == 0


async def test_a_former_key_is_revoked_by_the_present_one(city: City) -> None:
    await finding(city, rotation(FIRST, SECOND))
    assert await finding(city, revocation(FIRST, STRANGE)) == "other_key"
    assert await finding(city, revocation(FIRST, SECOND)) == "taken"
    assert reason_of(await send_copy(city, RELAY, message_of(VIENNA_OLD), 2)) == "revoked_key"
    assert await announced_by(city, VIENNA_NEW, revision=2) == "accepted"
    assert await finding(city, rotation(SECOND, FIRST, 3)) == "revoked_key"


async def test_a_revoked_key_comes_back_by_no_door(city: City) -> None:
    await finding(city, revocation(FIRST, FIRST))
    await city.federation.remove_peer("vienna.loop")
    body = handshake()
    headers = signed_headers(VIENNA_OLD, "/api/v1/federation/handshake", body, city.clock.now_ms(), city.node_id)
    assert reason_of(await city.serve("POST", "/api/v1/federation/handshake", headers, body)) == "revoked_key"


def handshake() -> bytes:
    return json.dumps(
        {
            "@context": CONTEXT,
            "@type": "NodeHandshake",
            "schema_version": "0.2.0",
            "node_id": "vienna.loop",
            "name": "Vienna",
            "endpoint": VIENNA_OLD.endpoint,
            "capabilities": ["gossip-flood"],
            "public_key": FIRST.public.to_pem(),
            "timestamp": "2026-09-21T12:26:40Z",
        }
    ).encode()


async def test_an_introduced_node_whose_key_was_revoked_may_be_introduced_anew(city: City) -> None:
    await city.admit(VIENNA_OLD, standing=Standing.INTRODUCED, added_by=AddedBy.INTRODUCTION)
    assert await finding(city, revocation(FIRST, FIRST)) == "taken"
    assert city.find("vienna.loop") is None


async def test_a_key_does_not_change_all_the_time(city: City) -> None:
    keys = [FIRST, *(NodeKey.from_seed(bytes([n]) * 32) for n in range(10, 21))]
    found = [await finding(city, rotation(old, new, n)) for n, (old, new) in enumerate(pairwise(keys), start=1)]
    assert found == ["taken"] * 10 + ["too_many_statements"]
    city.clock.advance(DAY_MS + 1)
    assert await finding(city, rotation(keys[10], keys[11], 11)) == "taken"


async def test_a_forged_statement_counts_against_who_passes_it_on_and_not_against_its_subject(city: City) -> None:
    forged = build_rotation(CONTEXT, "vienna.loop", 1, STRANGE, SECOND, NOW_MS)[1].replace(
        STRANGE.public.raw.hex().encode(), FIRST.public.raw.hex().encode()
    )
    assert await finding(city, forged) == "bad_statement"
    assert (await city.peer("berlin.loop"))["score"] > 0
    headers = {X_NODE_ID: "vienna.loop", "X-Timestamp": "2026-09-21T12:26:40Z", "X-Node-Signature": "x"}
    await city.serve("POST", KEY_PATH, headers, forged)
    assert (await city.peer("vienna.loop"))["score"] == 0


# The node's own key, and how it spreads


class Owner:
    """A city with its directory."""

    def __init__(self, city: City, root: Path) -> None:
        self.city = city
        self.directory = NodeDirectory(root)
        root.mkdir(exist_ok=True)
        if not self.directory.node_key_file.exists():
            write_new_file(self.directory.node_key_file, node_key_to_pem(city.identity.key.seed))
        self.own_key = OwnKey(
            self.directory,
            city.identity,
            city.database,
            AuditLog(city.clock),
            city.clock,
            random.Random(5).randbytes,
            city.federation.tell_keys,
        )

    def stored(self) -> bytes:
        return self.directory.load_node_key().public.raw


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[list[City]]:
    """Munich, Vienna and Berlin in a line; each knows its neighbours."""
    identities = (
        identity_of("munich.loop", MUNICH),
        identity_of("vienna.loop", VIENNA),
        identity_of("berlin.loop", BERLIN),
    )
    unbounded = FederationSettings(admission="open", radius_km=None)
    async with federation_of(tmp_path, *identities, settings=unbounded) as cities:
        await befriend(cities[0], cities[1])
        await befriend(cities[1], cities[2])
        yield cities


async def test_a_rotation_reaches_who_knows_the_node_only_by_introduction(line: list[City], tmp_path: Path) -> None:
    munich, vienna, berlin = line
    await munich.announce(subject_of())
    await eventually(berlin.heard, *line)
    before = munich.identity.key.public.raw
    munich.subjects[GRAIN] = subject_of()
    owner = Owner(munich, tmp_path / "directory")
    shown = await owner.own_key.rotate()
    after = munich.identity.key.public.raw
    assert before != after == owner.stored()
    assert shown["former"][0]["key_id"] == NodeKey.from_seed(identity_of("munich.loop").key.seed).public.key_id

    def known(city: City) -> bytes | None:
        node = city.find("munich.loop")
        return None if node is None else node.public_key

    assert known(vienna) == after
    await eventually(lambda: known(berlin) == after, *line)
    # What is available is announced anew, with the new key.
    await munich.federation.housekeeping.keep_house()
    await eventually(lambda: berlin.heard()[0]["revision"] == 2, *line)
    assert not any(city.decisions["bad_origin_signature"] for city in line)


async def test_who_was_away_is_told_before_anything_that_the_new_key_signed(line: list[City], tmp_path: Path) -> None:
    munich, vienna, berlin = line
    vienna.network.down.add("vienna.loop")
    await eventually(lambda: munich.health("vienna.loop") == "unreachable", *line, step_ms=5_000)
    owner = Owner(munich, tmp_path / "directory")
    await owner.own_key.rotate()
    await munich.announce(subject_of())
    await rest(*line)
    vienna.network.down.discard("vienna.loop")
    await eventually(lambda: berlin.heard_subjects() == {GRAIN}, *line, step_ms=1_000)
    assert vienna.decisions["bad_origin_signature"] == berlin.decisions["bad_origin_signature"] == 0


async def test_a_former_key_that_was_stolen_is_revoked_everywhere(line: list[City], tmp_path: Path) -> None:
    munich, vienna, berlin = line
    await munich.announce(subject_of())
    await eventually(berlin.heard, *line)
    owner = Owner(munich, tmp_path / "directory")
    stolen = munich.identity.key
    await owner.own_key.rotate()
    shown = await owner.own_key.revoke(stolen.public.key_id)
    assert shown["former"][0]["revoked_at"] is not None
    for other in (vienna, berlin):
        await eventually(lambda other=other: key_store.is_revoked(other.database.points, stolen.public.raw), *line)
    with pytest.raises(Refusal) as caught:
        await owner.own_key.revoke(stolen.public.key_id)
    assert caught.value.reason == "already_revoked"
    with pytest.raises(Refusal) as caught:
        await owner.own_key.revoke("0" * 16)
    assert caught.value.reason == "unknown_key"


async def test_after_its_present_key_was_revoked_a_node_has_one_that_must_be_admitted_anew(
    line: list[City], tmp_path: Path
) -> None:
    munich, vienna, _ = line
    owner = Owner(munich, tmp_path / "directory")
    revoked = munich.identity.key.public
    await owner.own_key.revoke(revoked.key_id)
    assert munich.identity.key.public.raw == owner.stored() != revoked.raw
    node = vienna.find("munich.loop")
    assert node is not None
    assert node.public_key is None

    async def waits() -> bool:
        listed = await vienna.federation.peer_list()
        return any(entry["id"] == "munich.loop" and entry["status"] == "waiting" for entry in listed)

    await munich.announce(subject_of())
    for _ in range(200):
        if await waits():
            break
        munich.clock.advance(1_000)
        await rest(*line, rounds=2)
    assert await waits()
    await vienna.federation.approve_peer("munich.loop", PeerAuth.SIGNED)
    await eventually(lambda: GRAIN in vienna.heard_subjects(), *line, step_ms=1_000)


@pytest.mark.parametrize("crash", ["before_statement", "after_statement", "half_written"])
async def test_a_crash_while_the_key_is_replaced_leaves_a_node_that_can_go_on(
    munich: City, tmp_path: Path, crash: str
) -> None:
    owner = Owner(munich, tmp_path / "directory")
    old = munich.identity.key.public.raw

    async def die() -> None:
        raise ConnectionAbortedError

    owner.own_key._stated = die
    if crash == "before_statement":
        owner.directory.write_next_key(SECOND.seed)
    elif crash == "half_written":
        owner.directory.next_key_file.write_bytes(b"-----BEGIN")
        owner.directory.next_key_file.chmod(0o600)
    else:
        with pytest.raises(ConnectionAbortedError):
            await owner.own_key.rotate()
    assert owner.stored() == old
    await finish(owner.directory, munich.identity, munich.database, NOW_MS)
    assert owner.stored() == munich.identity.key.public.raw
    (statements,) = munich.rows("SELECT count(*) AS n FROM key_statement")
    assert statements["n"] == (crash == "after_statement")
    assert (owner.stored() == old) == (crash != "after_statement")
    owner = Owner(munich, tmp_path / "directory")
    await owner.own_key.rotate()
    assert owner.stored() == munich.identity.key.public.raw != old


async def test_a_request_to_announce_is_signed_with_the_key_in_use(munich: City, tmp_path: Path) -> None:
    owner = Owner(munich, tmp_path / "directory")
    await owner.own_key.rotate()
    await munich.announce(subject_of())
    (row,) = munich.rows("SELECT * FROM message")
    signed = announcement_signing_string("munich.loop", row["origin_timestamp"], row["body"])
    assert munich.identity.key.public.verify(signed, decode_signature(row["origin_signature"]))
