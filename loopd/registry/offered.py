"""What of the records can be had, asked by category and quantity; and what is left of one."""

import sqlite3
from dataclasses import dataclass
from decimal import Decimal

from loopd.database.readers import Reader
from loopd.database.rows import RowSource
from loopd.protocol.geo import Location
from loopd.protocol.quantity import UNIT_SCALE, Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.registry.rules import base_quantity_text

_BASE_UNIT = {dimension: unit for unit, (dimension, scale) in UNIT_SCALE.items() if scale == 1}
_COLUMNS = """subject_id, kind, category, quantity, unit, dimension, left_base_quantity, lat, lon, expires_ms,
    coalesce(compacted, received) AS document"""


@dataclass(frozen=True, slots=True)
class Offered:
    """A record that can be had: what is left of all that was registered, and the document it was registered with."""

    subject_id: str
    kind: SubjectKind
    category: str
    left: Quantity
    whole: Quantity
    location: Location | None
    expires_ms: int | None
    document: bytes


def find(source: RowSource, subject_id: str, now_ms: int) -> Offered | None:
    """The record of an id, if it can be had now."""
    row = source.one(
        f"""SELECT {_COLUMNS} FROM record WHERE subject_id = ? AND state = 'available'
        AND (expires_ms IS NULL OR expires_ms > ?)""",
        (subject_id, now_ms),
    )
    return None if row is None else _offered(row)


def of_category(
    source: RowSource, kind: SubjectKind, category: str, least: Quantity, now_ms: int, limit: int
) -> list[Offered]:
    """Records of a category of which so much can be had now, those with the least left first."""
    rows = source.all(
        f"""SELECT {_COLUMNS} FROM record WHERE kind = ? AND category = ? AND dimension = ? AND state = 'available'
        AND left_base_quantity >= ? AND (expires_ms IS NULL OR expires_ms > ?)
        ORDER BY left_base_quantity, number LIMIT ?""",
        (kind.value, category, least.dimension.value, base_quantity_text(least), now_ms, limit),
    )
    return [_offered(row) for row in rows]


async def newest(reader: Reader, now_ms: int, limit: int) -> list[Offered]:
    """What can be had now, the newest first."""
    rows = await reader.all(
        f"""SELECT {_COLUMNS} FROM record WHERE state = 'available' AND (expires_ms IS NULL OR expires_ms > ?)
        ORDER BY number DESC LIMIT ?""",
        (now_ms, limit),
    )
    return [_offered(row) for row in rows]


def _offered(row: sqlite3.Row) -> Offered:
    whole = Quantity(Decimal(row["quantity"]), row["unit"])
    return Offered(
        row["subject_id"],
        SubjectKind(row["kind"]),
        row["category"],
        Quantity(Decimal(row["left_base_quantity"]), _BASE_UNIT[whole.dimension]),
        whole,
        None if row["lat"] is None else Location(row["lat"], row["lon"]),
        row["expires_ms"],
        row["document"],
    )
