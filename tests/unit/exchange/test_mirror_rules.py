"""Whether a told version applies, and what the other side of a deal may ask for."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.exchange.mirror_rules import (
    ABSENCE_MS,
    EntityKey,
    Finding,
    Page,
    Told,
    Version,
    check_wish,
    find,
    has_returned,
    read_newest,
    read_page,
    read_update,
    read_versions,
    retry_delay_ms,
)
from loopd.exchange.mirror_views import mirror_update
from loopd.protocol.documents import check_value, dump_json, read_json
from loopd.protocol.errors import Invalid, Refusal
from loopd.protocol.lifecycle import MirroredEntity
from tests.exchange_support import CONTEXT, NOW_MS, reason_of
from tests.mirror_support import DEAL, entity_document

OFFER, MATCH, TRANSFER, TRANSACTION = MirroredEntity


def version(number: int, status: str, follows: int | None = None, entity: MirroredEntity = MATCH) -> Version:
    document = entity_document(entity, status)
    return Version(number, number - 1 if follows is None else follows, status, NOW_MS, document)


def told(entity: MirroredEntity = MATCH, status: str = "accepted", **changes: Any) -> dict[str, Any]:
    """A MirrorUpdate of Munich's, as it is read from the wire."""
    key = EntityKey("munich.loop", entity, DEAL[entity])
    update = mirror_update(Told(key, "vienna.loop", version(1, status, entity=entity)), CONTEXT)
    value: dict[str, Any] = read_json(dump_json({**update, **changes}))
    return value


@pytest.mark.parametrize("entity", MirroredEntity)
def test_every_status_is_told_in_a_document_that_its_reader_takes(entity: MirroredEntity) -> None:
    for status in entity.lifecycle.successors:
        value = told(entity, status)
        check_value(value, "MirrorUpdate")
        assert read_update(value).version.status == status


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (told(follows=1), "bad_version"),
        (told(version=3, follows=7), "bad_version"),
        (told(status="stolen"), "bad_status"),
        (told(status="open"), "bad_status"),
        (told(updated_at="0001-01-01T00:00:00+14:00"), "bad_time"),
        ({**told(), "status": "proposed"}, "document_mismatch"),
        (told(id="MCH-00000002"), "document_mismatch"),
        (told(document=entity_document(OFFER, "open")), "schema"),
        (told(document={}), "schema"),
        (told(document=entity_document(MATCH, "accepted", offer_id=7)), "schema"),
        (told(document=entity_document(MATCH, "accepted", metadata={"x": "maria@munich.example"})), "personal_data"),
        (
            told(document=entity_document(MATCH, "accepted", metadata={"@context": "https://example.org/c"})),
            "unknown_context",
        ),
        (told(TRANSACTION, "pending", owner="graz.loop"), "document_mismatch"),
        (told(TRANSACTION, "pending", counterpart="graz.loop"), "document_mismatch"),
        (told(TRANSACTION, "pending", document=entity_document(TRANSACTION, "lost")), "schema"),
    ],
)
def test_updates_that_say_what_cannot_be(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_update(value)
    assert reason_of(refusal) == reason


def test_versions_apply_one_after_the_other() -> None:
    first, second = version(1, "proposed"), version(2, "accepted")
    assert find(None, first, MATCH) is Finding.APPLIES
    assert find(first, second, MATCH) is Finding.APPLIES
    assert find(first, first, MATCH) is Finding.KNOWN
    assert find(second, first, MATCH) is Finding.KNOWN
    assert find(None, second, MATCH) is Finding.GAP
    assert find(first, version(4, "expired"), MATCH) is Finding.GAP


def test_a_version_that_is_told_twice_says_the_same() -> None:
    first = version(1, "proposed")
    with pytest.raises(Refusal) as refusal:
        find(first, version(1, "accepted"), MATCH)
    assert reason_of(refusal) == "other_content"
    with pytest.raises(Refusal) as refusal:
        find(first, replace(first, document={**first.document, "metadata": {}}), MATCH)
    assert reason_of(refusal) == "other_content"


def test_a_version_does_not_pass_over_one_that_was_told() -> None:
    with pytest.raises(Refusal) as refusal:
        find(version(2, "accepted"), version(3, "expired", follows=1), MATCH)
    assert reason_of(refusal) == "bad_version"


@pytest.mark.parametrize(
    ("entity", "held", "following"),
    [
        (MATCH, None, "expired"),
        (MATCH, "rejected", "accepted"),
        (TRANSFER, None, "completed"),
        (TRANSFER, "scheduled", "completed"),
        (TRANSACTION, "completed", "pending"),
        (OFFER, "withdrawn", "open"),
    ],
)
def test_statuses_that_cannot_follow(entity: MirroredEntity, held: str | None, following: str) -> None:
    before = None if held is None else version(1, held, entity=entity)
    after = version(1 if held is None else 2, following, entity=entity)
    with pytest.raises(Refusal) as refusal:
        find(before, after, entity)
    assert (refusal.value.status, reason_of(refusal)) == (409, "transition")


@pytest.mark.parametrize(("entity", "status"), [(MATCH, "accepted"), (TRANSFER, "in_transit"), (OFFER, "withdrawn")])
def test_what_gets_its_other_side_late_is_told_from_then_on(entity: MirroredEntity, status: str) -> None:
    assert find(None, version(3, status, follows=0, entity=entity), entity) is Finding.APPLIES


def test_an_offer_is_told_from_its_first_match_on() -> None:
    assert find(None, version(2, "reserved", follows=0, entity=OFFER), OFFER) is Finding.APPLIES


def test_versions_that_nobody_was_told_may_lie_between() -> None:
    # Open, reserved for another city, open again: this city was told of its own Match alone.
    before, after = version(3, "open", entity=OFFER), version(7, "withdrawn", follows=3, entity=OFFER)
    assert find(before, after, OFFER) is Finding.APPLIES
    with pytest.raises(Refusal):
        find(version(3, "withdrawn", entity=OFFER), version(7, "open", follows=3, entity=OFFER), OFFER)


@given(st.data())
def test_in_whatever_order_versions_come_the_last_one_is_held_or_missing(data: st.DataObject) -> None:
    entity = data.draw(st.sampled_from(MirroredEntity))
    lifecycle = entity.lifecycle
    statuses = [data.draw(st.sampled_from(lifecycle.initial))]
    while following := lifecycle.successors[statuses[-1]]:
        if len(statuses) == 6:
            break
        statuses.append(data.draw(st.sampled_from(following)))
    versions = [version(number, status, entity=entity) for number, status in enumerate(statuses, start=1)]
    held: Version | None = None
    for each in data.draw(st.lists(st.sampled_from(versions), max_size=12)):
        if find(held, each, entity) is Finding.APPLIES:
            held = each
    for each in versions:
        if find(held, each, entity) is Finding.APPLIES:
            held = each
    assert held == versions[-1]


WISHES = [
    (OFFER, "reserved", "withdrawn", "owner_decides"),
    (MATCH, "proposed", "rejected", None),
    (MATCH, "proposed", "accepted", "owner_decides"),
    (MATCH, "accepted", "expired", None),
    (MATCH, "expired", "accepted", "terminal"),
    (MATCH, "accepted", "rejected", "transition"),
    (TRANSFER, "scheduled", "completed", "transition"),
    (TRANSFER, "in_transit", "completed", None),
    (TRANSFER, "in_transit", "cancelled", "owner_decides"),
    (TRANSFER, "completed", "cancelled", "terminal"),
    (TRANSACTION, "pending", "cancelled", None),
    (TRANSACTION, "confirmed", "cancelled", "owner_decides"),
    (TRANSACTION, "delivered", "disputed", None),
    (TRANSACTION, "delivered", "completed", "owner_decides"),
    (TRANSACTION, "disputed", "completed", "terminal"),
    (TRANSACTION, "pending", "stolen", "bad_status"),
]


@pytest.mark.parametrize(("entity", "current", "wished", "reason"), WISHES)
def test_what_a_buyer_may_ask_for(entity: MirroredEntity, current: str, wished: str, reason: str | None) -> None:
    if reason is None:
        check_wish(entity, current, wished)
        return
    with pytest.raises(Refusal) as refusal:
        check_wish(entity, current, wished)
    assert reason_of(refusal) == reason


def entry(**changes: Any) -> dict[str, Any]:
    return {"number": 1, "entity": "match", "id": "MCH-00000001", "version": 1, **changes}


@pytest.mark.parametrize(
    "results",
    [
        [7],
        [{}],
        [entry(number=0)],
        [entry(number=True)],
        [entry(number=2**60)],
        [entry(version="1")],
        [entry(entity="bid")],
        [entry(entity=["match"])],
        [entry(id="../secret")],
        [entry(id=1)],
        [entry(number=2), entry(number=2)],
        [entry(number=2), entry(number=1)],
    ],
)
def test_lists_that_are_none(results: list[Any]) -> None:
    with pytest.raises(Invalid):
        read_newest("munich.loop", 0, Page(results, has_more=False))


def test_a_list_goes_on_after_the_page_before() -> None:
    found = read_newest("munich.loop", 4, Page([entry(number=5), entry(number=9, version=3)], has_more=False))
    assert [(each.number, each.version, each.key.node) for each in found] == [
        (5, 1, "munich.loop"),
        (9, 3, "munich.loop"),
    ]
    with pytest.raises(Invalid):
        read_newest("munich.loop", 5, Page([entry(number=5)], has_more=False))


@pytest.mark.parametrize("value", [None, [], {"results": []}, {"next": None}, {"results": {}, "next": None}])
def test_pages_that_are_none(value: Any) -> None:
    with pytest.raises(Invalid):
        read_page(value)


def test_a_page_of_versions_is_of_one_entity() -> None:
    page = Page([told()], has_more=False)
    assert [each.version.number for each in read_versions(EntityKey("munich.loop", MATCH, DEAL[MATCH]), page)] == [1]
    for other in (EntityKey("graz.loop", MATCH, DEAL[MATCH]), EntityKey("munich.loop", MATCH, "MCH-00000002")):
        with pytest.raises(Invalid):
            read_versions(other, page)


def test_waiting_grows_and_ends() -> None:
    delays = [retry_delay_ms(attempts) for attempts in range(1, 100)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (2_000, 600_000)


def test_who_answers_after_long_has_returned() -> None:
    assert has_returned(None, NOW_MS)
    assert not has_returned(NOW_MS - ABSENCE_MS + 1, NOW_MS)
    assert has_returned(NOW_MS - ABSENCE_MS, NOW_MS)
