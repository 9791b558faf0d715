"""What is left of a record: exact in any unit, never below nothing; ids and documents of parts."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.audit.service import AuditLog
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.ids import SUBJECT_ID_MAX_CHARACTERS, is_material_id, is_product_id
from loopd.protocol.limits import QUANTITY_MAX
from loopd.protocol.personal_data import find_personal_data
from loopd.protocol.quantity import UNIT_SCALE, Dimension, Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.registry.handover import Handover, part_document, part_id, with_custody
from loopd.registry.rules import base_quantity_text, quantity_of
from loopd.registry.service import Registry
from loopd.registry.stock import Stock
from tests.registry_support import NOW_MS, Munich, RecordingAnnouncer, material_id, material_json
from tests.support import ManualClock

MASSES = sorted(unit for unit, (dimension, _) in UNIT_SCALE.items() if dimension is Dimension.MASS)
AMOUNTS = st.decimals(min_value=0, max_value=QUANTITY_MAX, places=9, allow_nan=False, allow_infinity=False)
HANDOVER = Handover("TRANSFER-00001", "Vienna", "https://munich.example/api/v1/transfer/TRANSFER-00001", "00" * 32)


class Node:
    """A registry with its stock, over a database."""

    def __init__(self, database: Database) -> None:
        clock = ManualClock(NOW_MS)
        audit = AuditLog(clock)
        self.database = database
        self.announcer = RecordingAnnouncer()
        self.registry = Registry(Munich(), clock, audit, EventLog(clock), self.announcer)
        self.stock = Stock(self.registry, clock, audit)

    async def write(self, unit: Callable[[Tx], Any]) -> Any:
        return await self.database.write(unit)

    def left(self) -> Quantity:
        record = self.registry.find(self.database.points, material_id())
        assert record is not None
        return record.left


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    clock = ManualClock(NOW_MS)
    settings = DatabaseSettings(synchronous="NORMAL")
    async with await Database.create(tmp_path / "loopd.db", settings, clock) as database:
        node = Node(database)
        document = check_document(material_json(), "MaterialDNA")
        await node.write(lambda tx: node.registry.register(tx, document))
        yield node


@given(a=AMOUNTS, b=AMOUNTS, unit=st.sampled_from(MASSES), other=st.sampled_from(MASSES))
def test_what_is_taken_and_given_back_is_exact(a: Decimal, b: Decimal, unit: str, other: str) -> None:
    whole, part = Quantity(a, unit), Quantity(b, other)
    assert whole.plus(part).minus(part).in_base() == whole.in_base()
    assert Fraction(whole.plus(part).in_base()) == Fraction(whole.in_base()) + Fraction(part.in_base())
    assert whole.plus(part).unit == unit


@given(amount=AMOUNTS, unit=st.sampled_from(MASSES))
def test_what_is_left_is_read_as_it_was_written(amount: Decimal, unit: str) -> None:
    quantity = Quantity(amount, unit)
    assert quantity_of(base_quantity_text(quantity), amount, unit) == quantity
    read = quantity_of(base_quantity_text(quantity), Decimal(-1), unit)
    assert read.in_base() == quantity.in_base()
    assert "E+" not in str(read.value)


async def test_no_more_is_promised_than_there_is(node: Node) -> None:
    await node.write(lambda tx: node.stock.reserve(tx, material_id(), Quantity(Decimal("0.4999999999"), "t"), "test"))
    assert node.left() == Quantity(Decimal("0.0000001"), "kg")
    for quantity, reason in (
        (Quantity(Decimal("0.000101"), "g"), "quantity_above_available"),
        (Quantity(Decimal(1), "l"), "unit_mismatch"),
    ):
        with pytest.raises(Refusal) as refusal:
            await node.write(lambda tx, quantity=quantity: node.stock.reserve(tx, material_id(), quantity, "test"))
        assert (refusal.value.status, refusal.value.reason) == (409, reason)
    await node.write(lambda tx: node.stock.reserve(tx, material_id(), Quantity(Decimal("0.0001"), "g"), "test"))
    assert node.left().value == 0
    with pytest.raises(Refusal) as reserved:
        await node.write(lambda tx: node.stock.reserve(tx, material_id(), Quantity(Decimal(1), "g"), "test"))
    assert reserved.value.reason == "not_available"
    assert [subject.quantity for subject in node.announcer.changed] == [500, Decimal("0.0000001"), 0]


async def test_an_unknown_record(node: Node) -> None:
    with pytest.raises(Refusal) as unknown:
        await node.write(lambda tx: node.stock.release(tx, "MAT-UNKNOWN", Quantity(Decimal(1), "kg"), "test"))
    assert (unknown.value.status, unknown.value.reason) == (404, "unknown_subject")


async def test_the_database_refuses_what_cannot_be(node: Node) -> None:
    for column, value in (
        ("left_base_quantity", base_quantity_text(Quantity(Decimal(501), "kg"))),
        ("left_base_quantity", base_quantity_text(Quantity(Decimal(-1), "kg"))),
        ("transferred_base_quantity", base_quantity_text(Quantity(Decimal(501), "kg"))),
    ):
        change = f"UPDATE record SET {column} = ?"
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            await node.write(lambda tx, change=change, value=value: tx.execute(change, (value,)))


async def test_a_part_whose_id_is_taken(node: Node) -> None:
    quantity = Quantity(Decimal(200), "kg")
    taken = part_id(material_id(), SubjectKind.MATERIAL, HANDOVER.transfer_id)
    document = check_document(material_json(id=taken), "MaterialDNA")
    await node.write(lambda tx: node.registry.register(tx, document))
    with pytest.raises(Refusal) as refusal:
        await node.write(lambda tx: node.stock.hand_over(tx, material_id(), quantity, HANDOVER))
    assert (refusal.value.status, refusal.value.reason) == (409, "part_exists")


@pytest.mark.parametrize("length", [0, 170, SUBJECT_ID_MAX_CHARACTERS])
def test_ids_of_parts_are_ids_of_their_kind(length: int) -> None:
    material = material_id().ljust(length, "A")
    product = "PRD-DE-MUC-2026-DESK-F4A7B2".ljust(length, "A")
    found = {part_id(material, SubjectKind.MATERIAL, f"TRANSFER-{number}") for number in range(50)}
    assert len(found) == 50
    assert all(is_material_id(each) for each in found)
    others = {part_id(product, SubjectKind.PRODUCT, f"TRANSFER-{number}") for number in range(50)}
    assert all(is_product_id(each) for each in others)
    assert not any(find_personal_data({"id": each}) for each in found | others)
    assert part_id(material, SubjectKind.MATERIAL, "TRANSFER-7") in found


def test_a_chain_of_custody_goes_on_where_it_was() -> None:
    parent = {
        "id": material_id(),
        "quantity": {"value": 500, "unit": "kg", "note": "kept"},
        "traceability": {"batch_id": "7", "epcis_event_refs": [{"event_type": "observation", "event_id": "1"}]},
    }
    part = part_document(parent, "MAT-PART", Quantity(Decimal("0.2"), "t"), HANDOVER)
    assert part["quantity"] == {"value": Decimal("0.2"), "unit": "t", "note": "kept"}
    assert part["traceability"]["batch_id"] == "7"
    assert [event["event_id"] for event in part["traceability"]["epcis_event_refs"]] == ["1", "TRANSFER-00001"]
    assert with_custody(parent, []) == parent
    assert parent["traceability"] == {
        "batch_id": "7", "epcis_event_refs": [{"event_type": "observation", "event_id": "1"}],
    }  # fmt: skip
