"""The log, the cursors in it, and what stands aside."""

from typing import Any

import pytest

from loopd.federation import outbox
from loopd.federation.outbox import ASIDE_RETRY_FIRST_MS, ASIDE_RETRY_MAX_MS, Entry, FloodEntry
from tests.federation_support import DAY_MS, NOW_MS, OFFER_PATH, VIENNA, City, identity_of, subject_of

LINZ, WELS = identity_of("linz.loop", VIENNA), identity_of("wels.loop", VIENNA)


def query(city: City, node_id: str, limit: int = 8) -> dict[str, Any]:
    return {"node": node_id, "own": city.node_id, "limit": limit, "now_ms": city.clock.now_ms()}


def floods(city: City, node_id: str = "linz.loop") -> list[Entry]:
    rows = city.database.points.all(outbox.FLOODS_AFTER_CURSOR, query(city, node_id))
    return [outbox.entry_of(row) for row in rows]


def requests(city: City, node_id: str = "linz.loop") -> list[Entry]:
    return [
        outbox.entry_of(row) for row in city.database.points.all(outbox.REQUESTS_AFTER_CURSOR, query(city, node_id))
    ]


def aside(city: City, node_id: str = "linz.loop") -> list[Entry]:
    values = {**query(city, node_id), "retry_max_ms": ASIDE_RETRY_MAX_MS}
    return [outbox.entry_of(row) for row in city.database.points.all(outbox.ASIDE_DUE, values)]


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.entry for entry in entries]


@pytest.fixture
async def log(munich: City) -> City:
    """Munich with two peers and, in this order: flood, request to Linz, flood, request to Wels, flood."""
    for peer in (LINZ, WELS):
        await munich.admit(peer)
    await munich.announce(subject_of("MAT-DE-MUC-2026-FOOD-000001"))
    await munich.request("linz.loop", b"{}", "bid:1")
    await munich.announce(subject_of("MAT-DE-MUC-2026-FOOD-000002"))
    await munich.request("wels.loop", b"{}", "bid:2")
    await munich.announce(subject_of("MAT-DE-MUC-2026-FOOD-000003"))
    return munich


async def test_floods_are_for_all_and_requests_for_one(log: City) -> None:
    assert numbers(floods(log)) == numbers(floods(log, "wels.loop")) == [1, 3, 5]
    assert (numbers(requests(log)), numbers(requests(log, "wels.loop"))) == ([2], [4])


async def test_the_two_cursors_are_apart_and_never_go_back(log: City) -> None:
    await log.database.write(lambda tx: outbox.advance_floods(tx, "linz.loop", 3))
    await log.database.write(lambda tx: outbox.advance_floods(tx, "linz.loop", 1))
    assert numbers(floods(log)) == [5]
    assert numbers(floods(log, "wels.loop")) == [1, 3, 5]
    assert numbers(requests(log)) == [2]
    await log.database.write(lambda tx: outbox.advance_requests(tx, "linz.loop", 2))
    assert (numbers(requests(log)), numbers(floods(log))) == ([], [5])


async def test_a_node_that_is_gone_has_no_cursor_and_one_that_is_new_begins_anew(log: City) -> None:
    await log.database.write(lambda tx: outbox.advance_floods(tx, "linz.loop", 5))
    await log.federation.remove_peer("linz.loop")
    await log.database.write(lambda tx: outbox.advance_floods(tx, "linz.loop", 5))
    await log.database.write(lambda tx: outbox.set_aside(tx, "linz.loop", 1, NOW_MS))
    assert log.rows("SELECT 1 FROM outbox_cursor") == log.rows("SELECT 1 FROM outbox_aside") == []
    await log.admit(LINZ)
    assert numbers(floods(log)) == [1, 3, 5]
    assert numbers(requests(log)) == []


async def test_a_newer_state_and_a_better_copy_make_an_entry_outdated(log: City) -> None:
    assert [entry.outdated for entry in floods(log) if isinstance(entry, FloodEntry)] == [False] * 3
    number = await log.announce(subject_of("MAT-DE-MUC-2026-FOOD-000001"))
    await log.database.write(lambda tx: log.federation.outbox.flood(tx, number, "wels.loop", 2, None, NOW_MS + DAY_MS))
    outdated = [entry.outdated for entry in floods(log) if isinstance(entry, FloodEntry)]
    assert outdated == [True, False, False, True, False]


async def test_what_stands_aside_waits_longer_each_time(log: City) -> None:
    delays = []
    for _ in range(10):
        await log.database.write(lambda tx: outbox.set_aside(tx, "linz.loop", 1, NOW_MS))
        (row,) = log.rows("SELECT next_attempt_at_ms FROM outbox_aside")
        delays.append(row["next_attempt_at_ms"] - NOW_MS)
    assert delays[:3] == [ASIDE_RETRY_FIRST_MS, 2 * ASIDE_RETRY_FIRST_MS, 4 * ASIDE_RETRY_FIRST_MS]
    assert delays[-1] == ASIDE_RETRY_MAX_MS
    assert aside(log) == []
    log.clock.advance(ASIDE_RETRY_MAX_MS)
    assert numbers(aside(log)) == [1]
    await log.database.write(lambda tx: outbox.settle_aside(tx, "linz.loop", 1))
    assert aside(log) == []


async def test_when_too_many_stand_aside_the_log_waits(log: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ASIDE_MAX", 2)
    stood = [
        await log.database.write(lambda tx, entry=entry: outbox.set_aside(tx, "linz.loop", entry, NOW_MS))
        for entry in (1, 3, 5, 3)
    ]
    assert stood == [True, True, False, True]
    assert await log.database.write(lambda tx: outbox.set_aside(tx, "wels.loop", 1, NOW_MS))


async def test_an_entry_that_ended_meanwhile_is_not_set_aside(log: City) -> None:
    await log.database.write(lambda tx: tx.execute("DELETE FROM outbox WHERE entry = 1"))
    assert await log.database.write(lambda tx: outbox.set_aside(tx, "linz.loop", 1, NOW_MS))
    assert log.rows("SELECT 1 FROM outbox_aside") == []


async def test_a_copy_whose_message_is_gone_is_passed_over(log: City) -> None:
    """As a clock leaves it that was ahead for a while."""
    await log.database.write(lambda tx: outbox.set_aside(tx, "linz.loop", 1, NOW_MS - DAY_MS))
    await log.database.write(lambda tx: tx.execute("DELETE FROM message WHERE message_number = 1"))
    assert numbers(floods(log)) == [3, 5]
    assert aside(log) == []


async def test_requests_that_end_unanswered_are_named_once(log: City) -> None:
    await log.database.write(lambda tx: outbox.advance_requests(tx, "wels.loop", 4))
    await log.request("linz.loop", b"{}", "bid:3", valid_ms=2 * DAY_MS)
    await log.request("nobody.loop", b"{}", "bid:4")
    assert await log.database.write(lambda tx: outbox.end_requests(tx, NOW_MS + DAY_MS - 1)) == []
    assert sorted(await log.database.write(lambda tx: outbox.end_requests(tx, NOW_MS + DAY_MS))) == ["bid:1", "bid:4"]
    assert await log.database.write(lambda tx: outbox.end_requests(tx, NOW_MS + DAY_MS)) == []
    assert [row["reference"] for row in log.rows("SELECT reference FROM outbox WHERE target IS NOT NULL")] == ["bid:3"]


async def test_a_request_that_stood_aside_when_it_ended_was_not_answered(log: City) -> None:
    await log.database.write(lambda tx: outbox.set_aside(tx, "linz.loop", 2, NOW_MS))
    await log.database.write(lambda tx: outbox.advance_requests(tx, "linz.loop", 2))
    ended = await log.database.write(lambda tx: outbox.end_requests(tx, NOW_MS + DAY_MS))
    assert ended == ["bid:1", "bid:2"]
    assert log.rows("SELECT 1 FROM outbox_aside") == []


async def test_the_end_of_much_comes_in_pieces(log: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PRUNED_AT_ONCE", 2)
    assert await log.database.write(lambda tx: outbox.prune(tx, NOW_MS + 8 * DAY_MS))
    assert not await log.database.write(lambda tx: outbox.prune(tx, NOW_MS + 8 * DAY_MS))
    assert log.rows("SELECT count(*) AS entries FROM outbox") == [{"entries": 2}]


async def test_only_a_commit_wakes_somebody(munich: City) -> None:
    woken: list[str | None] = []
    log = outbox.Outbox(woken.append)

    def fail(tx: Any) -> None:
        log.enqueue(tx, "linz.loop", OFFER_PATH, b"", NOW_MS, "bid:1")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await munich.database.write(fail)
    assert woken == []
    await munich.database.write(lambda tx: log.enqueue(tx, "linz.loop", OFFER_PATH, b"", NOW_MS, "bid:1"))
    await munich.database.write(lambda tx: log.flood(tx, b"m" * 32, None, 3, None, NOW_MS))
    assert woken == ["linz.loop", None]


async def test_the_queues_of_all_are_counted_together(log: City) -> None:
    await log.database.write(lambda tx: outbox.advance_floods(tx, "linz.loop", 3))
    await log.database.write(lambda tx: outbox.set_aside(tx, "linz.loop", 1, NOW_MS))
    assert {peer["id"]: peer["queue"] for peer in await log.federation.peer_list()} == {"linz.loop": 3, "wels.loop": 4}
    await log.federation.suspend_peer("wels.loop")
    assert (await log.peer("wels.loop"))["queue"] == 1
