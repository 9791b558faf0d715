import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.protocol.documents import Document, check_document
from loopd.protocol.errors import Conflict, NotFound
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.registry import service
from loopd.registry.service import Registration, Registry, StatusChange
from loopd.registry.tables import Record
from tests.registry_support import (
    CONTEXT,
    NOW_MS,
    PRODUCT_ID,
    Munich,
    RecordingAnnouncer,
    material_id,
    material_json,
    product_json,
    set_state,
    status_update_json,
)
from tests.support import ManualClock, happened

DAY_MS = 24 * 3_600_000
LEFT = {"value": Decimal(500), "unit": "kg"}


class RecordingListener:
    """Another room, which writes down what it is told."""

    def __init__(self) -> None:
        self.changed: list[Record] = []

    def record_changed(self, tx: Tx, record: Record) -> None:
        self.changed.append(record)


class Node:
    """A registry over a database, with what surrounds it in plain sight."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock(NOW_MS)
        self.audit = AuditLog(self.clock)
        self.events = EventLog(self.clock)
        self.announcer = RecordingAnnouncer()
        self.listener = RecordingListener()
        self.registry = Registry(Munich(), self.clock, self.audit, self.events, self.announcer, [self.listener])

    async def register(self, document: Document) -> Registration:
        return await self.database.write(lambda tx: self.registry.register(tx, document))

    async def update(self, document: Document) -> StatusChange:
        return await self.database.write(lambda tx: self.registry.update_status(tx, document))

    async def change(self, subject_id: str, state: SubjectState) -> Subject:
        return await self.database.write(lambda tx: set_state(self.registry, tx, subject_id, state, "offer selected"))

    async def announce(self, kind: SubjectKind, subject_id: str) -> bytes:
        return await self.database.write(lambda tx: self.registry.announce(tx, kind, subject_id))

    def view(self, subject_id: str) -> dict[str, Any]:
        record = self.registry.find(self.database.points, subject_id)
        assert record is not None
        return self.registry.view(record)

    async def audited(self) -> list[tuple[str, str]]:
        rows = await self.database.all("SELECT subject, payload FROM audit_entry ORDER BY sequence")
        return [(row["subject"], json.loads(row["payload"])["event"]) for row in rows]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    database = await Database.create(tmp_path / "loopd.db", DatabaseSettings(), ManualClock())
    async with database:
        yield Node(database)


def material(number: int = 0, **changes: Any) -> Document:
    return check_document(material_json(number, **changes), "MaterialDNA")


def product(**changes: Any) -> Document:
    return check_document(product_json(**changes), "ProductDNA")


def status_update(number: int, status: str, **changes: Any) -> Document:
    return check_document(status_update_json(number, status, **changes), "MaterialStatusUpdate")


async def test_a_material_is_kept_audited_and_announced(node: Node) -> None:
    document = material(location={"lat": 48.1351, "lon": 11.582})
    registration = await node.register(document)
    assert registration.created
    stored = node.registry.find(node.database.points, material_id())
    assert stored == registration.record
    assert stored is not None
    assert stored.document == document.received
    assert await node.audited() == [(material_id(), "registered")]
    assert node.announcer.changed == [stored.subject]


async def test_listeners_are_told_of_each_change_wherever_it_lies_and_of_no_repeat(node: Node) -> None:
    elsewhere = material(1, current_city="Augsburg", expires=format_timestamp(NOW_MS + 1))
    node.clock.advance(1)
    for _ in range(2):
        await node.register(elsewhere)
    await node.update(status_update(1, "withdrawn", material_id=material_id(1)))
    with pytest.raises(Conflict):
        await node.update(status_update(2, "available", material_id=material_id(1)))
    assert [record.subject.state.value for record in node.listener.changed] == ["available", "withdrawn"]
    assert node.listener.changed[-1] == node.registry.find(node.database.points, material_id(1))
    assert node.announcer.changed == []


async def test_a_product_is_kept_with_its_condition(node: Node) -> None:
    registration = await node.register(product())
    stored = node.registry.require(node.database.points, SubjectKind.PRODUCT, registration.record.subject.subject_id)
    assert stored == registration.record
    assert stored.condition == "good"
    with pytest.raises(NotFound) as refused:
        node.registry.require(node.database.points, SubjectKind.MATERIAL, stored.subject.subject_id)
    assert refused.value.reason == "unknown_material"


async def test_the_same_content_again_is_the_stored_record(node: Node) -> None:
    first = await node.register(material(quality=1))
    node.clock.advance(1000)
    again = material(quality=1.0)
    reordered = check_document(json.dumps(dict(reversed(again.value.items())), default=float).encode(), "MaterialDNA")
    for document in (again, reordered):
        repeated = await node.register(document)
        assert not repeated.created
        assert repeated.record == first.record
    assert len(await node.audited()) == 1
    assert len(node.announcer.changed) == 1


async def test_other_content_under_the_same_id_is_refused_and_changes_nothing(node: Node) -> None:
    first = await node.register(material(extra=1))
    for changes in ({"extra": True}, {"extra": 2}, {}, {"extra": 1, "more": None}):
        with pytest.raises(Conflict) as refused:
            await node.register(material(**changes))
        assert refused.value.reason == "other_content"
    assert node.registry.find(node.database.points, material_id()) == first.record
    assert len(await node.audited()) == 1


async def test_a_repeat_is_compared_with_what_was_received_not_with_what_became_of_it(node: Node) -> None:
    await node.register(material())
    await node.change(material_id(), SubjectState.RESERVED)
    repeated = await node.register(material())
    assert not repeated.created
    assert repeated.record.subject.state is SubjectState.RESERVED


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": format_timestamp(NOW_MS), "available_from": format_timestamp(NOW_MS - DAY_MS)},
        {"current_city": "Vienna"},
    ],
)
async def test_what_expired_or_lies_elsewhere_registers_and_is_not_announced(
    node: Node, changes: dict[str, Any]
) -> None:
    assert (await node.register(material(**changes))).created
    await node.update(status_update(1, "reserved"))
    assert node.announcer.changed == []
    assert node.view(material_id())["current_city"] == changes.get("current_city", "Munich")


async def test_the_city_is_recognised_in_another_case(node: Node) -> None:
    await node.register(material(current_city="MUNICH"))
    assert len(node.announcer.changed) == 1


async def test_a_failure_in_the_announcer_leaves_neither_record_nor_audit_entry(node: Node) -> None:
    node.announcer.fail = True
    with pytest.raises(RuntimeError, match="the announcer failed"):
        await node.register(material())
    assert node.registry.find(node.database.points, material_id()) is None
    assert await node.audited() == []


async def test_a_hundred_registrations_of_one_id_at_once_make_one_record(node: Node) -> None:
    registrations = await asyncio.gather(*(node.register(material()) for _ in range(100)))
    assert sum(registration.created for registration in registrations) == 1
    assert len({registration.record for registration in registrations}) == 1
    assert len(await node.audited()) == 1


async def test_the_view_lays_the_nodes_words_over_what_was_received(node: Node) -> None:
    document = material(status="mine", colour="brown", passport={"unknown": [1.50, None]})
    await node.register(document)
    view = node.view(material_id())
    assert view["status"] == "registered"
    assert view["availability"] == {"status": "available", "updated_at": format_timestamp(NOW_MS), "quantity": LEFT}
    assert {name: view[name] for name in document.value if name != "status"} == {
        name: value for name, value in document.value.items() if name != "status"
    }
    record = node.registry.require(node.database.points, SubjectKind.MATERIAL, material_id())
    assert node.registry.document(record) == document.value


async def test_availability_follows_state_and_expiry(node: Node) -> None:
    expires_ms = NOW_MS + DAY_MS
    await node.register(material(expires=format_timestamp(expires_ms)))
    node.clock.advance(1000)
    await node.update(status_update(1, "reserved"))
    reserved = {"status": "reserved", "updated_at": format_timestamp(NOW_MS + 1000), "quantity": LEFT}
    assert node.view(material_id())["availability"] == reserved
    node.clock.advance(DAY_MS)
    expired = {"status": "expired", "updated_at": format_timestamp(expires_ms), "quantity": LEFT}
    assert node.view(material_id())["availability"] == expired
    await node.update(status_update(2, "withdrawn"))
    assert node.view(material_id())["availability"]["status"] == "withdrawn"


async def test_a_status_update_changes_the_state_is_audited_and_told(node: Node) -> None:
    await node.register(material())
    node.clock.advance(5000)
    update = status_update(1, "reserved", reason="Reserved by city exchange")
    change = await node.update(update)
    assert change == StatusChange(update.value["id"], NOW_MS + 5000, created=True)
    assert [subject.state for subject in node.announcer.changed] == [SubjectState.AVAILABLE, SubjectState.RESERVED]
    assert await node.audited() == [(material_id(), "registered"), (material_id(), "state_changed")]


async def test_the_same_update_again_gets_the_first_answer(node: Node) -> None:
    await node.register(material())
    first = await node.update(status_update(1, "reserved"))
    node.clock.advance(5000)
    await node.update(status_update(2, "available"))
    again = await node.update(status_update(1, "reserved"))
    assert again == StatusChange(first.update_id, first.created_at_ms, created=False)
    subject = node.registry.subject_by_id(node.database.points, material_id())
    assert subject is not None
    assert subject.state is SubjectState.AVAILABLE
    with pytest.raises(Conflict) as refused:
        await node.update(status_update(1, "reserved", reason="another"))
    assert refused.value.reason == "other_content"


async def test_an_updates_id_is_the_same_in_capitals(node: Node) -> None:
    await node.register(material())
    identifier = "3c9a6a0b-8c1a-4d3f-9c2c-3c1c2f9d5c2a"
    await node.update(status_update(1, "reserved", id=identifier))
    with pytest.raises(Conflict) as refused:
        await node.update(status_update(1, "withdrawn", id=identifier.upper()))
    assert refused.value.reason == "other_content"


@pytest.mark.parametrize(
    ("path", "following", "reason"),
    [
        ((), "available", "transition"),
        (("reserved",), "reserved", "transition"),
        (("withdrawn",), "available", "terminal"),
        (("reserved", "withdrawn"), "reserved", "terminal"),
    ],
)
async def test_what_may_not_follow_is_refused(node: Node, path: tuple[str, ...], following: str, reason: str) -> None:
    await node.register(material())
    for number, status in enumerate(path):
        await node.update(status_update(number, status))
    told = len(node.announcer.changed)
    with pytest.raises(Conflict) as refused:
        await node.update(status_update(99, following))
    assert refused.value.reason == reason
    assert len(node.announcer.changed) == told


async def test_an_update_of_an_unknown_material_is_refused(node: Node) -> None:
    with pytest.raises(NotFound) as refused:
        await node.update(status_update(1, "reserved"))
    assert refused.value.reason == "unknown_material"


async def test_the_node_itself_reserves_products_too(node: Node) -> None:
    record = (await node.register(product())).record
    subject = await node.change(record.subject.subject_id, SubjectState.RESERVED)
    assert subject.state is SubjectState.RESERVED
    assert node.registry.subject_by_id(node.database.points, subject.subject_id) == subject
    with pytest.raises(Conflict):
        await node.change(subject.subject_id, SubjectState.RESERVED)
    row = await node.database.one("SELECT state, cause, update_id FROM record_state_change")
    assert row is not None
    assert tuple(row) == ("reserved", "offer selected", None)


async def test_a_hundred_reservations_at_once_have_one_winner(node: Node) -> None:
    await node.register(material())
    outcomes = await asyncio.gather(
        *(node.change(material_id(), SubjectState.RESERVED) for _ in range(100)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Subject) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 99


async def test_announcing_on_request(node: Node) -> None:
    record = (await node.register(material())).record
    assert await node.announce(SubjectKind.MATERIAL, material_id()) == bytes(32)
    assert node.announcer.announced == [record.subject]


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"current_city": "Vienna"}, None, "other_city"),
        ({"available_from": format_timestamp(0), "expires": format_timestamp(NOW_MS)}, None, "expired"),
        ({}, "reserved", "not_available"),
        ({}, "withdrawn", "not_available"),
    ],
)
async def test_what_is_not_to_be_announced_says_why(
    node: Node, changes: dict[str, Any], status: str | None, reason: str
) -> None:
    await node.register(material(**changes))
    if status is not None:
        await node.update(status_update(1, status))
    with pytest.raises(Conflict) as refused:
        await node.announce(SubjectKind.MATERIAL, material_id())
    assert refused.value.reason == reason
    assert node.announcer.announced == []


async def test_announcing_what_has_just_expired_or_is_unknown(node: Node) -> None:
    await node.register(material())
    node.announcer.nothing_to_tell = True
    with pytest.raises(Conflict) as refused:
        await node.announce(SubjectKind.MATERIAL, material_id())
    assert refused.value.reason == "expired"
    with pytest.raises(NotFound) as unknown:
        await node.announce(SubjectKind.PRODUCT, material_id())
    assert unknown.value.reason == "unknown_product"


async def test_pages_give_every_record_once_newest_first_whatever_is_registered_meanwhile(node: Node) -> None:
    for number in range(7):
        await node.register(material(number, category="organic-food" if number % 2 else "organic-wood"))
    await node.register(product())
    seen: list[str] = []
    cursor = None
    while True:
        page = await node.registry.page(node.database, SubjectKind.MATERIAL, 3, cursor=cursor)
        seen += [record.subject.subject_id for record in page.records]
        cursor = page.next_cursor
        if cursor is None:
            break
        await node.register(material(100 + cursor))
    assert seen == [material_id(number) for number in reversed(range(7))]


async def test_a_page_of_one_category(node: Node) -> None:
    for number in range(4):
        await node.register(material(number, category="organic-food" if number % 2 else "organic-wood"))
    page = await node.registry.page(node.database, SubjectKind.MATERIAL, 2, category="organic-food")
    assert [record.subject.subject_id for record in page.records] == [material_id(3), material_id(1)]
    assert page.next_cursor is None
    empty = await node.registry.page(node.database, SubjectKind.MATERIAL, 2, category="cardboard")
    assert (empty.records, empty.next_cursor) == ([], None)


async def test_a_page_of_large_documents_ends_early_and_loses_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LIST_MAX_BYTES", 5000)
    for number in range(5):
        await node.register(material(number, padding="x" * 3000))
    sizes, cursor = [], None
    while True:
        page = await node.registry.page(node.database, SubjectKind.MATERIAL, 100, cursor=cursor)
        sizes.append(len(page.records))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sizes == [2, 2, 1]


async def test_active_records_are_those_available_and_not_expired(node: Node) -> None:
    await node.register(material(0))
    await node.register(material(1))
    await node.register(material(2, expires=format_timestamp(NOW_MS + DAY_MS)))
    await node.register(product())
    await node.update(status_update(1, "reserved"))
    assert await node.registry.count_active(node.database) == 2
    assert await node.registry.count_active(node.database, SubjectKind.PRODUCT) == 1
    node.clock.advance(DAY_MS)
    assert await node.registry.count_active(node.database) == 1


async def test_the_database_refuses_to_change_what_was_received(node: Node) -> None:
    await node.register(material())
    for column in ("received", "subject_id", "number", "registered_at_ms"):
        with pytest.raises(sqlite3.IntegrityError, match="does not change"):
            await node.database.write(
                lambda tx, column=column: tx.execute(f"UPDATE record SET {column} = {column}").rowcount
            )


async def test_another_form_of_json_ld_is_kept_as_sent_and_given_out_plain(node: Node) -> None:
    plain = material()
    listed = json.dumps(json.loads(plain.received) | {"@context": [CONTEXT]}).encode()
    document = check_document(listed, "MaterialDNA")
    assert (await node.register(document)).created
    assert not (await node.register(document)).created
    assert node.view(material_id())["@context"] == CONTEXT
    row = await node.database.one("SELECT received FROM record")
    assert row is not None
    assert row["received"] == listed


async def test_registrations_and_changes_of_state_are_events_and_repeats_are_none(node: Node) -> None:
    for _ in range(2):
        await node.register(material())
        await node.update(status_update(0, "reserved"))
    await node.register(product())
    assert await happened(node.database) == [
        ("material.registered", material_id(), {"category": "organic-food", "quantity": 500, "unit": "kg"}),
        ("material.status", material_id(), {"status": "reserved", "was": "available"}),
        ("product.registered", PRODUCT_ID, {"category": "furniture-office", "quantity": 12, "unit": "piece"}),
    ]
