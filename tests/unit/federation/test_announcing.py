"""This node's own announcements: revisions, how far and how long, renewals, and what is never told (§9.3)."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.federation.settings import FederationSettings
from loopd.protocol.documents import read_json
from loopd.protocol.subjects import Subject, SubjectState
from loopd.protocol.timestamps import parse_timestamp
from tests.federation_support import DAY_MS, GRAIN, NOW_MS, City, federation_of, identity_of, rest, subject_of

WEEK_MS = 7 * DAY_MS
WITHDRAWN = subject_of(state=SubjectState.WITHDRAWN)


def told(city: City) -> list[dict[str, Any]]:
    """Every announcement that was made, oldest first."""
    return [read_json(row["body"]) for row in city.rows("SELECT body FROM message ORDER BY message_number")]


async def changed(city: City, subject: Subject) -> bytes | None:
    city.subjects[subject.subject_id] = subject
    return await city.database.write(lambda tx: city.federation.announcer.record_changed(tx, subject))


def settle(city: City, **changes: Any) -> None:
    city.federation.announcer._settings = FederationSettings(**changes)


async def test_an_announcement_states_its_scope(munich: City) -> None:
    settle(munich, radius_km=300)
    await munich.announce(subject_of())
    (body,) = told(munich)
    assert (body["material"], body["origin"], body["revision"], body["ttl"]) == (GRAIN, "munich.loop", 1, 3)
    assert (body["radius_km"], body["available"], body["state"]) == (300, True, "available")
    assert parse_timestamp(body["issued_at"]) == NOW_MS
    assert parse_timestamp(body["valid_until"]) == NOW_MS + WEEK_MS


async def test_the_revision_rises_and_survives_a_restart(munich: City) -> None:
    await munich.announce(subject_of())
    await munich.announce(WITHDRAWN)
    await munich.federation.stop()
    await munich.database.close()
    await munich.open(started=False)
    await munich.announce(subject_of())
    assert [body["revision"] for body in told(munich)] == [1, 2, 3]


async def test_what_is_announced_in_a_unit_that_fails_was_never_announced(munich: City) -> None:
    def fail(tx: Any) -> None:
        munich.federation.announcer.announce(tx, subject_of())
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await munich.database.write(fail)
    assert told(munich) == []
    assert munich.rows("SELECT 1 FROM outbox") == []
    await munich.announce(subject_of())
    assert told(munich)[0]["revision"] == 1


async def test_each_hop_chain_has_a_seed_of_its_own(munich: City) -> None:
    for _ in range(3):
        await munich.announce(subject_of())
    assert len({body["hop_anchor"] for body in told(munich)}) == 3


async def test_a_withdrawal_goes_as_far_and_lasts_as_long_as_what_it_takes_back(munich: City) -> None:
    settle(munich, radius_km=500)
    await changed(munich, subject_of())
    settle(munich, radius_km=100, announcement_validity_s=60)
    munich.clock.advance(1_000)
    await changed(munich, WITHDRAWN)
    first, last = told(munich)
    assert (last["available"], last["state"], last["radius_km"]) == (False, "withdrawn", 500)
    assert parse_timestamp(last["valid_until"]) >= parse_timestamp(first["valid_until"])
    assert parse_timestamp(last["valid_until"]) - parse_timestamp(last["issued_at"]) <= WEEK_MS


async def test_the_widest_radius_is_remembered_over_narrower_ones(munich: City) -> None:
    for radius_km in (None, 100.0):
        settle(munich, radius_km=radius_km)
        await munich.announce(subject_of())
    await munich.announce(WITHDRAWN)
    assert [body["radius_km"] for body in told(munich)] == [None, 100, None]


async def test_nothing_is_valid_beyond_its_expiry(munich: City) -> None:
    await munich.announce(subject_of(expires_ms=NOW_MS + 5_000))
    assert parse_timestamp(told(munich)[0]["valid_until"]) == NOW_MS + 5_000
    munich.clock.advance(5_000)
    assert await changed(munich, subject_of(expires_ms=NOW_MS + 5_000)) is None
    assert len(told(munich)) == 1


async def test_by_hand_means_that_only_what_was_announced_is_taken_back(munich: City) -> None:
    settle(munich, announce="manual")
    assert await changed(munich, subject_of()) is None
    assert await changed(munich, WITHDRAWN) is None
    assert told(munich) == []
    await munich.announce(subject_of())
    assert await changed(munich, WITHDRAWN) is not None
    assert [body["available"] for body in told(munich)] == [True, False]


async def test_by_hand_another_quantity_is_told_where_the_old_one_was(munich: City) -> None:
    settle(munich, announce="manual")
    await munich.announce(subject_of())
    assert await changed(munich, subject_of(quantity=Decimal(300))) is not None
    assert told(munich)[-1]["quantity"] == 300
    assert [body["revision"] for body in told(munich)] == [1, 2]


async def test_what_nobody_remembers_is_not_taken_back(munich: City) -> None:
    await changed(munich, subject_of())
    munich.clock.advance(WEEK_MS)
    assert await changed(munich, WITHDRAWN) is None


async def test_what_stays_available_is_announced_again_at_half_its_validity(munich: City) -> None:
    await munich.start()
    await munich.announce(subject_of())
    munich.clock.advance(WEEK_MS // 2 - 1)
    await munich.federation.housekeeping.keep_house()
    assert len(told(munich)) == 1
    munich.clock.advance(1)
    await munich.federation.housekeeping.keep_house()
    await munich.federation.housekeeping.keep_house()
    assert [body["revision"] for body in told(munich)] == [1, 2]
    assert parse_timestamp(told(munich)[1]["valid_until"]) == NOW_MS + WEEK_MS // 2 + WEEK_MS


@pytest.mark.parametrize("now", [None, WITHDRAWN, subject_of(expires_ms=NOW_MS + DAY_MS)])
async def test_what_is_gone_withdrawn_or_expired_is_not_announced_again(munich: City, now: Subject | None) -> None:
    await munich.start()
    await munich.announce(subject_of())
    munich.subjects = {} if now is None else {GRAIN: now}
    munich.clock.advance(WEEK_MS // 2)
    await munich.federation.housekeeping.keep_house()
    assert len(told(munich)) == 1
    assert munich.rows("SELECT renew_at_ms FROM own_announcement") == [{"renew_at_ms": None}]


async def test_nothing_is_planned_beyond_an_expiry(munich: City) -> None:
    await munich.announce(subject_of(expires_ms=NOW_MS + WEEK_MS // 2))
    assert munich.rows("SELECT renew_at_ms FROM own_announcement") == [{"renew_at_ms": None}]


async def test_what_was_announced_ahead_of_time_is_announced_again_when_the_clock_is_right(munich: City) -> None:
    await munich.start()
    munich.clock.set_wall(NOW_MS + DAY_MS)
    await munich.announce(subject_of())
    munich.clock.set_wall(NOW_MS)
    await munich.federation.housekeeping.keep_house()
    await munich.federation.housekeeping.keep_house()
    assert [parse_timestamp(body["issued_at"]) for body in told(munich)] == [NOW_MS + DAY_MS, NOW_MS]


async def test_one_that_cannot_be_renewed_holds_up_no_other(munich: City, monkeypatch: pytest.MonkeyPatch) -> None:
    await munich.start()
    other = "MAT-DE-MUC-2026-FOOD-000002"
    await munich.announce(subject_of())
    await munich.announce(subject_of(other))
    munich.clock.advance(WEEK_MS // 2)
    announce = munich.federation.announcer.announce

    def failing(tx: Any, subject: Subject) -> bytes | None:
        if subject.subject_id == GRAIN:
            raise RuntimeError("a bug")
        return announce(tx, subject)

    monkeypatch.setattr(munich.federation.announcer, "announce", failing)
    await munich.federation.housekeeping.keep_house()
    assert [body["material"] for body in told(munich)] == [GRAIN, other, other]


async def test_a_place_is_told_to_a_hundredth_of_a_degree(munich: City) -> None:
    await munich.announce(subject_of())
    assert str(told(munich)[0]["location"]["lat"]) == "48.14"


async def test_an_announcement_is_in_the_outbox_and_the_audit_log(tmp_path: Path) -> None:
    async with federation_of(tmp_path, identity_of("munich.loop")) as (munich,):
        number = await munich.announce(subject_of())
        await rest(munich)
        (entry,) = munich.rows("SELECT message_id, came_from, ttl, expires_at_ms FROM outbox")
        assert entry == {"message_id": number, "came_from": None, "ttl": 3, "expires_at_ms": NOW_MS + WEEK_MS}
        (logged,) = munich.rows("SELECT kind, subject, payload FROM audit_entry")
        assert (logged["kind"], logged["subject"]) == ("node_interaction", GRAIN)
        assert number.hex().encode() in logged["payload"]
