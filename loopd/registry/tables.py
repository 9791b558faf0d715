"""The registries' SQL: records and their changes of state."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Protocol

from loopd.database import RowSource, Tx
from loopd.database.rows import Parameters
from loopd.protocol.geo import Location
from loopd.protocol.json_text import dump_json
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.registry.rules import Facts, base_quantity_text, quantity_of


class Reader(Protocol):
    """Reads beside the writer: the database itself, or one of its snapshots."""

    async def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None: ...

    async def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]: ...


@dataclass(frozen=True, slots=True)
class Record:
    """A registered material or product, as it stands now.

    `number` rises with every registration. `document` is the JSON text of what was received (its compacted form where
    it came in another form of JSON-LD); what this node changed lies beside it: `subject.state`, `subject.quantity`
    (what is left of `registered`), `transferred`, `current_city`, the events that `custody` adds to its traceability.
    `parent` names the record that this one is a part of.
    """

    number: int
    subject: Subject
    current_city: str
    condition: str | None
    document: bytes
    registered_at_ms: int
    state_changed_at_ms: int
    registered: Quantity
    transferred: Quantity
    custody: bytes | None = None
    parent: str | None = None

    @property
    def left(self) -> Quantity:
        """What is neither transferred nor reserved."""
        return Quantity(self.subject.quantity, self.subject.unit)


@dataclass(frozen=True, slots=True)
class UpdateText:
    """A MaterialStatusUpdate to be kept: its id, the bytes as sent, and their compacted form where it is another."""

    update_id: str
    received: bytes
    compacted: bytes | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A MaterialStatusUpdate that was carried out: its JSON text, and when this node did it."""

    update_id: str
    document: bytes
    changed_at_ms: int


_NOTHING: Final = Decimal(0)
_SUBJECT = """subject_id, kind, category, quantity, left_base_quantity, unit, available_from_ms, expires_ms, lat, lon,
    state"""
_RECORD = f"""number, {_SUBJECT}, coalesce(compacted, received) AS document, condition, current_city, registered_at_ms,
    state_changed_at_ms, transferred_base_quantity, custody, parent"""
_NEWEST_OF_KIND = "FROM record WHERE kind = ? AND number < ? AND number >= ? ORDER BY number DESC LIMIT ?"
_NEWEST_OF_CATEGORY = (
    "FROM record WHERE kind = ? AND category = ? AND number < ? AND number >= ? ORDER BY number DESC LIMIT ?"
)
_ABOVE_ALL = 2**63 - 1


def insert_record(
    tx: Tx, facts: Facts, received: bytes, compacted: bytes | None, registered_at_ms: int
) -> Record | None:
    """Keep a new record. None, and nothing is changed, where the id is taken."""
    subject = facts.subject
    quantity = Quantity(subject.quantity, subject.unit)
    location, base_quantity = subject.location, base_quantity_text(quantity)
    cursor = tx.execute(
        """INSERT INTO record (subject_id, kind, received, compacted, registered_at_ms, category, condition, quantity,
            unit, dimension, base_quantity, left_base_quantity, lat, lon, available_from_ms, expires_ms, current_city,
            state, state_changed_at_ms)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (subject_id) DO NOTHING""",
        (
            subject.subject_id,
            subject.kind.value,
            received,
            compacted,
            registered_at_ms,
            subject.category,
            facts.condition,
            str(subject.quantity),
            subject.unit,
            quantity.dimension.value,
            base_quantity,
            base_quantity,
            location.lat if location else None,
            location.lon if location else None,
            subject.available_from_ms,
            subject.expires_ms,
            facts.current_city,
            subject.state.value,
            registered_at_ms,
        ),
    )
    if cursor.rowcount == 0:
        return None
    number = cursor.lastrowid
    if number is None:
        raise RuntimeError("an inserted record has a number")
    return Record(
        number=number,
        subject=subject,
        current_city=facts.current_city,
        condition=facts.condition,
        document=received if compacted is None else compacted,
        registered_at_ms=registered_at_ms,
        state_changed_at_ms=registered_at_ms,
        registered=quantity,
        transferred=Quantity(_NOTHING, subject.unit),
    )


def insert_part(tx: Tx, facts: Facts, document: bytes, parent: str, at_ms: int) -> None:
    """Keep the record of a part that was transferred: withdrawn here from the start. IntegrityError for a taken id."""
    gone = replace(facts, subject=replace(facts.subject, state=SubjectState.WITHDRAWN))
    record = insert_record(tx, gone, document, None, at_ms)
    if record is None:
        raise sqlite3.IntegrityError(f"{facts.subject.subject_id} is taken")
    nothing = base_quantity_text(Quantity(_NOTHING, facts.subject.unit))
    tx.execute(
        """UPDATE record SET parent = ?, left_base_quantity = ?, transferred_base_quantity = base_quantity
        WHERE number = ?""",
        (parent, nothing, record.number),
    )


def set_left(tx: Tx, record: Record, left: Quantity) -> Record:
    """Lay over a record how much of it is left."""
    tx.execute("UPDATE record SET left_base_quantity = ? WHERE number = ?", (base_quantity_text(left), record.number))
    return replace(record, subject=replace(record.subject, quantity=left.value))


def set_transferred(tx: Tx, record: Record, transferred: Quantity) -> Record:
    """Lay over a record how much of it went elsewhere for good."""
    tx.execute(
        "UPDATE record SET transferred_base_quantity = ? WHERE number = ?",
        (base_quantity_text(transferred), record.number),
    )
    return replace(record, transferred=transferred)


def move(tx: Tx, record: Record, city: str, custody: Sequence[Mapping[str, Any]]) -> Record:
    """Lay over a record where it is now, and its chain of custody from its registration here on."""
    text = dump_json({"events": custody})
    tx.execute("UPDATE record SET current_city = ?, custody = ? WHERE number = ?", (city, text, record.number))
    return replace(record, current_city=city, custody=text)


def find_record(source: RowSource, subject_id: str) -> Record | None:
    """The record of an id, by key."""
    row = source.one(f"SELECT {_RECORD} FROM record WHERE subject_id = ?", (subject_id,))
    return None if row is None else _record(row)


def find_subject(source: RowSource, subject_id: str) -> Subject | None:
    """The flow metadata of an id, by key, without its document."""
    row = source.one(f"SELECT {_SUBJECT} FROM record WHERE subject_id = ?", (subject_id,))
    return None if row is None else _subject(row)


async def page_of_records(
    reader: Reader, kind: SubjectKind, category: str | None, before: int | None, limit: int, max_bytes: int
) -> tuple[list[Record], int | None]:
    """A page of records, newest first, from below the number `before`.

    A page ends at `limit` records, or with the record whose document brings it to `max_bytes`. Beside it: the `before`
    of the next page, None after the last record.
    """
    newest = _NEWEST_OF_KIND if category is None else _NEWEST_OF_CATEGORY
    chosen = (kind.value,) if category is None else (kind.value, category)
    upper = _ABOVE_ALL if before is None else before
    # The sizes are read first, so that a page of the largest documents is not loaded whole only to be cut.
    sizes = await reader.all(
        f"SELECT number, coalesce(length(compacted), length(received)) AS size {newest}",
        (*chosen, upper, 0, limit + 1),
    )
    numbers: list[int] = []
    total_bytes = 0
    for row in sizes[:limit]:
        numbers.append(row["number"])
        total_bytes += row["size"]
        if total_bytes >= max_bytes:
            break
    if not numbers:
        return [], None
    rows = await reader.all(f"SELECT {_RECORD} {newest}", (*chosen, upper, numbers[-1], limit))
    return [_record(row) for row in rows], numbers[-1] if len(numbers) < len(sizes) else None


async def records_numbered(reader: Reader, numbers: Sequence[int]) -> dict[int, Record]:
    """The records of some numbers, by number."""
    places = ", ".join("?" * len(numbers))
    rows = await reader.all(f"SELECT {_RECORD} FROM record WHERE number IN ({places})", numbers)
    return {row["number"]: _record(row) for row in rows}


async def count_available(reader: Reader, kind: SubjectKind, now_ms: int) -> int:
    """How many records of a kind can be had: state `available`, not expired."""
    row = await reader.one(
        """SELECT count(*) AS active FROM record
        WHERE kind = ? AND state = 'available' AND (expires_ms IS NULL OR expires_ms > ?)""",
        (kind.value, now_ms),
    )
    return 0 if row is None else int(row["active"])


def change_state(
    tx: Tx, record: Record, state: SubjectState, changed_at_ms: int, cause: str | None, update: UpdateText | None
) -> Record:
    """Lay a new state over a record and write it into the history; `update` is what asked for it, if one did."""
    tx.execute(
        "UPDATE record SET state = ?, state_changed_at_ms = ? WHERE number = ?",
        (state.value, changed_at_ms, record.number),
    )
    text = (update.update_id, update.received, update.compacted) if update else (None, None, None)
    tx.execute(
        """INSERT INTO record_state_change
            (record_number, state, changed_at_ms, cause, update_id, received, compacted)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (record.number, state.value, changed_at_ms, cause, *text),
    )
    return replace(record, subject=replace(record.subject, state=state), state_changed_at_ms=changed_at_ms)


def find_state_change(source: RowSource, update_id: str) -> StateChange | None:
    """The MaterialStatusUpdate that was carried out under an id."""
    row = source.one(
        """SELECT coalesce(compacted, received) AS document, changed_at_ms FROM record_state_change
        WHERE update_id = ?""",
        (update_id,),
    )
    return None if row is None else StateChange(update_id, row["document"], row["changed_at_ms"])


async def page_of_updates(
    reader: Reader, kind: SubjectKind, subject_id: str | None, before: int | None, limit: int
) -> tuple[list[bytes], int | None]:
    """The texts of updates of a kind of subject, newest first, below the number `before`; and the next `before`."""
    of_one = "" if subject_id is None else "AND c.record_number = (SELECT number FROM record WHERE subject_id = ?)"
    rows = await reader.all(
        f"""SELECT c.number, coalesce(c.compacted, c.received) AS document
        FROM record_state_change c JOIN record r ON r.number = c.record_number
        WHERE c.update_id IS NOT NULL AND c.number < ? AND r.kind = ? {of_one} ORDER BY c.number DESC LIMIT ?""",
        (_ABOVE_ALL if before is None else before, kind.value, *([subject_id] if subject_id else []), limit + 1),
    )
    page = rows[:limit]
    return [row["document"] for row in page], page[-1]["number"] if len(rows) > limit else None


def _record(row: sqlite3.Row) -> Record:
    return Record(
        number=row["number"],
        subject=_subject(row),
        current_city=row["current_city"],
        condition=row["condition"],
        document=row["document"],
        registered_at_ms=row["registered_at_ms"],
        state_changed_at_ms=row["state_changed_at_ms"],
        registered=Quantity(Decimal(row["quantity"]), row["unit"]),
        transferred=quantity_of(row["transferred_base_quantity"], _NOTHING, row["unit"]),
        custody=row["custody"],
        parent=row["parent"],
    )


def _subject(row: sqlite3.Row) -> Subject:
    return Subject(
        subject_id=row["subject_id"],
        kind=SubjectKind(row["kind"]),
        category=row["category"],
        quantity=quantity_of(row["left_base_quantity"], Decimal(row["quantity"]), row["unit"]).value,
        unit=row["unit"],
        available_from_ms=row["available_from_ms"],
        expires_ms=row["expires_ms"],
        location=None if row["lat"] is None else Location(row["lat"], row["lon"]),
        state=SubjectState(row["state"]),
    )
