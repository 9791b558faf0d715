"""What peers did wrong: counted where it is certain, kept over a restart, and what follows."""

import asyncio

import pytest

from loopd.federation.door import Door
from loopd.gossip.reputation import HALF_LIFE_MS, Conduct
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import ANNOUNCEMENTS_PER_PEER_AT_ONCE_MAX, ANNOUNCEMENTS_WAITING_PER_PEER_MAX
from loopd.protocol.nodes import PeerAuth
from loopd.protocol.signing import ANNOUNCE_PATH, X_NODE_SIGNATURE
from tests.federation_support import NOW_MS, VIENNA, City, identity_of, message_of, reason_of, send_copy, signed_headers

SENDER = identity_of("vienna.loop", VIENNA)


async def forge(city: City, times: int) -> list[str]:
    """Copies with a TTL that they cannot have; how each was refused."""
    reasons = []
    for _ in range(times):
        reasons.append(reason_of(await send_copy(city, SENDER, message_of(SENDER), 2)))
        city.clock.advance(1)
    return reasons


async def test_forged_ttls_lead_to_the_greylist_and_then_to_a_ban(munich: City) -> None:
    await munich.admit(SENDER)
    assert await forge(munich, 2) == ["bad_hop", "bad_hop"]
    assert (await munich.peer("vienna.loop"))["conduct"] == "clear"
    await forge(munich, 2)
    listed = await munich.peer("vienna.loop")
    assert (listed["conduct"], listed["score"]) == ("greylisted", 80.0)
    # The points fade a little from one to the next, so the sixth is the first that is turned away.
    assert (await forge(munich, 4))[-2:] == ["banned", "banned"]
    answer = await send_copy(munich, SENDER, message_of(SENDER), 3)
    assert (answer.status, reason_of(answer)) == (403, "banned")
    assert munich.rows("SELECT 1 FROM message") == []


async def test_a_ban_survives_a_restart_and_fades(munich: City) -> None:
    await munich.admit(SENDER)
    await forge(munich, 6)
    await munich.federation.misbehaviour.flush()
    await munich.federation.stop()
    await munich.database.close()
    await munich.open(started=False)
    assert munich.federation.misbehaviour.conduct("vienna.loop") is Conduct.BANNED
    munich.clock.advance(2 * HALF_LIFE_MS)
    assert munich.federation.misbehaviour.conduct("vienna.loop") is Conduct.GREYLISTED
    munich.clock.advance(HALF_LIFE_MS)
    message = message_of(SENDER, now_ms=munich.clock.now_ms())
    assert (await send_copy(munich, SENDER, message, 3)).status == 202
    (event,) = munich.rows("SELECT payload FROM audit_entry WHERE CAST(payload AS TEXT) LIKE '%conduct%'")
    assert "banned" in str(event["payload"])


async def test_the_operator_forgives_a_peer_by_resuming_it(munich: City) -> None:
    await munich.admit(SENDER)
    assert not await munich.federation.resume_peer("vienna.loop")
    await forge(munich, 6)
    await munich.federation.misbehaviour.flush()
    assert await munich.federation.resume_peer("vienna.loop")
    assert (await munich.peer("vienna.loop"))["score"] == 0
    assert (await send_copy(munich, SENDER, message_of(SENDER), 3)).status == 202
    assert munich.rows("SELECT 1 FROM peer_reputation") == []


async def test_nobody_can_make_another_one_look_bad(munich: City) -> None:
    await munich.admit(SENDER)
    message = message_of(SENDER)
    for number in range(30):
        await send_copy(munich, SENDER, message, 3, **{X_NODE_SIGNATURE: f"{number:086d}"})
    assert (await munich.peer("vienna.loop"))["score"] == 0


async def test_a_lab_node_whose_signature_is_none_is_not_held_to_account(munich: City) -> None:
    await munich.admit(SENDER, auth=PeerAuth.UNSIGNED_LAB, public_key=None, features=frozenset())
    for number in range(30):
        body = b"junk %d" % number
        await munich.serve("POST", ANNOUNCE_PATH, signed_headers(SENDER, ANNOUNCE_PATH, body), body)
    assert (await munich.peer("vienna.loop"))["score"] == 0


async def test_wrong_clocks_and_unknown_origins_cost_nothing(munich: City) -> None:
    await munich.admit(SENDER)
    for number in range(30):
        ahead = message_of(SENDER, revision=number + 1, now_ms=NOW_MS + 301_000)
        assert reason_of(await send_copy(munich, SENDER, ahead, 3)) == "bad_times"
    assert (await munich.peer("vienna.loop"))["score"] == 0


async def test_who_is_removed_takes_its_points_along(munich: City) -> None:
    await munich.admit(SENDER)
    await forge(munich, 6)
    await munich.federation.misbehaviour.flush()
    await munich.federation.remove_peer("vienna.loop")
    await munich.admit(SENDER)
    assert (await munich.peer("vienna.loop"))["score"] == 0


# The door


async def hold(door: Door, peer: str, entered: list[str], leave: asyncio.Event, *, last: bool = False) -> None:
    async with door.turn(peer, 100, last=last):
        entered.append(peer)
        await leave.wait()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_peer_fills_its_own_places_and_no_more() -> None:
    door, entered, leave = Door(), [], asyncio.Event()
    tasks = [asyncio.create_task(hold(door, "loud", entered, leave)) for _ in range(200)]
    await turns()
    assert len(entered) == ANNOUNCEMENTS_PER_PEER_AT_ONCE_MAX
    assert door.waiting("loud") == ANNOUNCEMENTS_WAITING_PER_PEER_MAX
    quiet = asyncio.create_task(hold(door, "quiet", entered, leave))
    await turns()
    assert entered[-1] == "quiet"
    leave.set()
    outcomes = await asyncio.gather(quiet, *tasks, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert {(refusal.status, refusal.reason, refusal.retry_after_s) for refusal in refused} == {(429, "over_share", 1)}
    assert len(refused) == 200 - len(entered) + 1
    assert door.waiting("loud") == 0


async def test_who_is_greylisted_waits_while_others_do() -> None:
    door, entered, leave = Door(at_once=1), [], asyncio.Event()
    first = asyncio.create_task(hold(door, "first", entered, leave))
    await turns()
    grey = asyncio.create_task(hold(door, "grey", entered, leave, last=True))
    await turns()
    good = [asyncio.create_task(hold(door, "good", entered, leave)) for _ in range(3)]
    await turns()
    leave.set()
    await asyncio.gather(first, grey, *good)
    assert entered == ["first", "good", "good", "good", "grey"]


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    door, entered, leave = Door(at_once=1), [], asyncio.Event()
    tasks = [asyncio.create_task(hold(door, peer, entered, leave)) for peer in ("a", "b", "c")]
    await turns()
    tasks[1].cancel()
    await turns()
    leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert entered == ["a", "c"]
    async with asyncio.timeout(1):
        async with door.turn("d", 1):
            pass


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_place_given_to_one_who_just_left_goes_on_to_the_next(cancelled_first: bool) -> None:
    door, entered = Door(at_once=1), []
    leave, last = asyncio.Event(), asyncio.Event()
    last.set()
    first = asyncio.create_task(hold(door, "a", entered, leave))
    await turns()
    waiting = [asyncio.create_task(hold(door, peer, entered, last)) for peer in ("b", "c")]
    await turns()
    # In one step of the loop: "a" leaves, so "b" is admitted, and "b" is cancelled.
    leave.set()
    if cancelled_first:
        waiting[0].cancel()
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(first, *waiting, return_exceptions=True)
    assert "c" in entered
