"""What is told of a message: each copy that came, each peer that got it or did not, and why."""

from typing import Any

import pytest

from loopd.cli.explain import MEANINGS, story
from loopd.federation import explain
from loopd.federation.settings import FederationSettings
from loopd.gossip.flood import Reason, Route
from loopd.protocol.errors import Refusal
from loopd.protocol.geo import Location
from loopd.protocol.limits import EXPLAINED_DECISIONS_MAX
from tests.federation_support import (
    BERLIN,
    NOW_MS,
    VIENNA,
    City,
    befriend,
    eventually,
    identity_of,
    message_of,
    rest,
    send_copy,
    subject_of,
)

ORIGIN, RELAY = identity_of("vienna.loop", VIENNA), identity_of("berlin.loop", BERLIN)
DOWN = identity_of("linz.loop", Location(48.3, 14.3))


async def told(city: City, text: str) -> dict[str, Any]:
    async with city.database.snapshot() as reader:
        return await explain.explanation(reader, text, city.node_id, city.clock.now_ms())


async def reason(city: City, text: str) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        await told(city, text)
    return caught.value.status, caught.value.reason


def without_times(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        tuple(value for key, value in entry.items() if key not in ("first_at", "last_at", "at")) for entry in entries
    ]


async def test_each_copy_that_came_has_its_reason(munich: City) -> None:
    for identity in (ORIGIN, RELAY):
        await munich.admit(identity)
    message = message_of(ORIGIN)
    await send_copy(munich, RELAY, message, 1)
    await send_copy(munich, RELAY, message, 2)
    munich.clock.advance(1_000)
    await send_copy(munich, ORIGIN, message, 3)
    munich.clock.advance(1_000)
    await send_copy(munich, RELAY, message, 2)
    (row,) = munich.rows("SELECT message_id FROM message")
    found = await told(munich, row["message_id"].hex())
    assert without_times(found["copies"]) == [
        ("berlin.loop", 1, "accepted", 1),
        ("berlin.loop", 2, "upgraded", 1),
        ("vienna.loop", 3, "upgraded", 1),
        ("berlin.loop", 2, "duplicate", 1),
    ]
    assert (found["held"], found["origin"], found["own"], found["best_ttl"]) == (True, "vienna.loop", False, 3)
    assert (found["newest"], found["state"], found["revision"]) == (True, "available", 1)
    # Two peers, both of whom have it.
    assert [(entry["peer"], entry["outcome"]) for entry in found["peers"]] == [
        ("berlin.loop", "waiting"),
        ("vienna.loop", "waiting"),
    ]


async def test_the_same_decision_again_is_counted(munich: City) -> None:
    await munich.admit(ORIGIN)
    message = message_of(ORIGIN)
    for _ in range(4):
        await send_copy(munich, ORIGIN, message, 3)
        munich.clock.advance(1_000)
    (row,) = munich.rows("SELECT message_id FROM message")
    found = await told(munich, row["message_id"].hex())
    assert [(copy["reason"], copy["times"]) for copy in found["copies"]] == [("accepted", 1), ("duplicate", 3)]


async def test_a_copy_that_was_refused_is_told_of_and_one_that_was_not_kept(munich: City) -> None:
    await munich.admit(ORIGIN)
    refused, far = message_of(ORIGIN), message_of(ORIGIN, revision=2, radius_km=10)
    await send_copy(munich, ORIGIN, refused, 2)
    await send_copy(munich, ORIGIN, far, 3)
    await munich.federation.misbehaviour.flush()
    rows = munich.rows("SELECT message_id, reason FROM decision ORDER BY reason")
    assert [row["reason"] for row in rows] == ["bad_hop", "out_of_scope"]
    for row in rows:
        found = await told(munich, row["message_id"].hex())
        assert not found["held"]
        assert found["copies"][0]["reason"] == row["reason"]
        assert found["peers"] == []


async def test_each_peer_is_told_of_with_the_reason(cities: list[City]) -> None:
    munich, vienna, berlin = cities
    munich.federation.announcer._settings = FederationSettings(admission="open", radius_km=400)
    for other in (vienna, berlin):
        await befriend(munich, other)
    await munich.admit(DOWN)
    number = await munich.announce(subject_of())
    await eventually(vienna.heard, *cities)
    await rest(*cities)
    assert without_times((await told(munich, number.hex()))["peers"]) == [
        ("berlin.loop", "not_sent", "outside_radius", None, 3),
        ("linz.loop", "waiting", "queued", None, 3),
        ("vienna.loop", "sent", "taken", 202, 3),
    ]
    at_vienna = await told(vienna, number.hex()[:8])
    assert at_vienna["copies"][0]["peer"] == "munich.loop"
    assert [entry["reason"] for entry in at_vienna["peers"]] == ["came_from"]


async def test_a_beginning_of_eight_digits_finds_it_unless_another_begins_so(munich: City) -> None:
    await munich.admit(ORIGIN)
    await send_copy(munich, ORIGIN, message_of(ORIGIN), 3)
    (row,) = munich.rows("SELECT message_id FROM message")
    text = row["message_id"].hex()
    assert (await told(munich, text[:8].upper()))["message_id"] == text
    assert (await told(munich, text[:9]))["message_id"] == text
    assert await reason(munich, text[:7]) == (400, "bad_message_id")
    assert await reason(munich, "g" * 64) == (400, "bad_message_id")
    assert await reason(munich, text + "0") == (400, "bad_message_id")
    assert await reason(munich, "0" * 64) == (404, "unknown_message")
    twin = row["message_id"][:31] + bytes([row["message_id"][31] ^ 1])
    await munich.database.write(lambda tx: explain.copy_came(tx, twin, "a.loop", 3, "expired", NOW_MS))
    assert await reason(munich, text[:63]) in [(409, "ambiguous_message_id"), (404, "unknown_message")]
    assert await reason(munich, text[:8]) == (409, "ambiguous_message_id")
    assert (await told(munich, text))["message_id"] == text


async def test_the_oldest_make_room(munich: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "EXPLAINED_DECISIONS_MAX", 5)
    for index in range(12):
        number = bytes([index]) * 32
        await munich.database.write(lambda tx, number=number: explain.copy_came(tx, number, "a.loop", 3, "x", NOW_MS))
    assert not await munich.database.write(lambda tx: explain.prune(tx, NOW_MS))
    assert [row["number"] for row in munich.rows("SELECT number FROM decision ORDER BY number")] == [8, 9, 10, 11, 12]
    await munich.database.write(lambda tx: explain.prune(tx, NOW_MS + explain.KEPT_MS + 1))
    assert munich.rows("SELECT 1 FROM decision") == []
    assert EXPLAINED_DECISIONS_MAX >= 1_000


async def test_what_is_decided_in_a_unit_that_fails_was_never_decided(munich: City) -> None:
    def fail(tx: Any) -> None:
        explain.peer_settled(tx, b"x" * 32, "a.loop", 3, "taken", 202, NOW_MS)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await munich.database.write(fail)
    assert munich.rows("SELECT 1 FROM decision") == []


@pytest.mark.parametrize("code", [*Reason, *(route for route in Route if route is not Route.SEND)])
def test_every_reason_code_is_put_into_words(code: str) -> None:
    assert MEANINGS[code]


def test_the_story_of_a_message() -> None:
    lines = story(
        {
            "message_id": "ab" * 32,
            "held": True,
            "origin": "vienna.loop",
            "own": False,
            "subject": "MAT-1",
            "kind": "material",
            "available": True,
            "state": "available",
            "revision": 2,
            "newest": True,
            "expired": False,
            "radius_km": 200,
            "best_ttl": 2,
            "received_at": "2026-11-21T10:00:00Z",
            "valid_until": "2026-11-28T10:00:00Z",
            "copies": [
                {
                    "peer": "linz.loop",
                    "ttl": 2,
                    "reason": "accepted",
                    "first_at": "2026-11-21T10:00:00Z",
                    "last_at": "2026-11-21T10:00:00Z",
                    "times": 1,
                }
            ],
            "peers": [
                {"peer": "rome.loop", "outcome": "not_sent", "reason": "outside_radius", "status": None, "ttl": 1,
                 "at": "2026-11-21T10:00:01Z"},
                {"peer": "x.loop", "outcome": "refused", "reason": "quite_new", "status": 400, "ttl": 1, "at": None},
            ],
        }
    )  # fmt: skip
    assert lines == [
        f"message {'ab' * 32}",
        "  MAT-1 of vienna.loop: available, the newest state",
        "  within 200 km, is valid until 2026-11-28T10:00:00Z",
        "",
        "It came here:",
        "  2026-11-21T10:00:00Z  from linz.loop, TTL 2: accepted - new: delivered",
        "",
        "To the peers:",
        "  rome.loop  not sent, 2026-11-21T10:00:01Z: outside_radius - it lies outside the radius",
        "  x.loop     sent, refused with TTL 1: quite_new (400)",
    ]
    nothing = story({"message_id": "ab" * 32, "held": False, "copies": [], "peers": []})
    assert nothing[1:] == ["  is not held here", "", "No copy of it came.", "", "No peer was to get it."]
