"""The SQL that keeps the index: entries come with records and announcements, and go when they are over."""

from collections.abc import Sequence
from typing import Any, Final

from loopd.catalogue.entries import Entry, Texts
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.protocol.geo import Location
from loopd.protocol.limits import CATALOGUE_CATEGORY_MAX_CHARACTERS
from loopd.protocol.subjects import HeardSubject

# What is left is the record's to say; of what was announced, it is all.
_INSERT: Final = """
INSERT INTO search_entry (record_number, available, section, condition, dimension, base_quantity, left_base_quantity,
    available_from_ms, expires_ms, ends_ms, lat, lon, x, y, z, at_home, asking_minor, size_bytes)
VALUES (:record, :available, :section, :condition, :dimension, :base,
    coalesce((SELECT left_base_quantity FROM record WHERE number = :record), :base),
    :available_from_ms, :expires_ms, :ends_ms, :lat, :lon, :x, :y, :z, :at_home, :asking_minor, :size_bytes)
"""

_PLACE: Final = """
INSERT INTO search_place VALUES (:number, :section, :section + 0.5, :x, :x, :y, :y, :z, :z)
"""


def has_record(source: RowSource, record_number: int) -> bool:
    """Whether a record is in the index."""
    return source.one("SELECT 1 FROM search_entry WHERE record_number = ?", (record_number,)) is not None


def enter_record(tx: Tx, record_number: int, available: bool, entry: Entry, texts: Texts) -> None:
    """Put a record of this node into the index."""
    number = _insert(tx, record_number, available, entry)
    if texts:
        tx.execute(
            "INSERT INTO search_text (rowid, name, manufacturer, notes) VALUES (?, ?, ?, ?)",
            (number, texts.name, texts.manufacturer, texts.notes),
        )


def enter_announcement(tx: Tx, heard: HeardSubject, entry: Entry) -> None:
    """Put what another city announced into the catalogue."""
    number = _insert(tx, None, True, entry)
    tx.execute(
        "INSERT INTO catalogue_entry (number, origin, subject_id, message_id, category, quantity, unit, valid_until_ms,"
        " verified) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, heard.origin, heard.subject_id, *_announced(heard)),
    )


def renew_announcement(tx: Tx, number: int, heard: HeardSubject, entry: Entry) -> bool:
    """Tell the newest state of a subject under the number that it has.

    False, and nothing is changed, where it has moved or is of another category: then it is another result.
    """
    base = entry.base_quantity
    renewed = tx.execute(
        "UPDATE search_entry SET dimension = ?, base_quantity = ?, left_base_quantity = ?, available_from_ms = ?,"
        " expires_ms = ?, ends_ms = ? WHERE number = ? AND section = ? AND (lat, lon) IS (?, ?)",
        (
            None if entry.quantity is None else entry.quantity.dimension.value,
            base,
            base,
            entry.available_from_ms,
            entry.expires_ms,
            entry.ends_ms,
            number,
            entry.section,
            *((None, None) if entry.place is None else (entry.place.lat, entry.place.lon)),
        ),
    )
    if renewed.rowcount == 0:
        return False
    tx.execute(
        "UPDATE catalogue_entry SET message_id = ?, category = ?, quantity = ?, unit = ?,"
        " valid_until_ms = ?, verified = ? WHERE number = ?",
        (*_announced(heard), number),
    )
    return True


def find_announcement(source: RowSource, origin: str, subject_id: str) -> int | None:
    """The number of the entry of a city's subject, or None."""
    row = source.one(
        "SELECT number FROM catalogue_entry WHERE origin = ? AND subject_id = ?",
        (origin, subject_id),
    )
    return None if row is None else int(row["number"])


def remove(tx: Tx, number: int) -> None:
    """Take an entry out, with all that belongs to it."""
    _remove(tx, [number])


def remove_ended(tx: Tx, now_ms: int, at_most: int) -> None:
    """Take out entries whose end has passed, the earliest first."""
    ended = tx.all("SELECT number FROM search_entry WHERE ends_ms <= ? ORDER BY ends_ms LIMIT ?", (now_ms, at_most))
    _remove(tx, [row["number"] for row in ended])


def count_announced(source: RowSource) -> int:
    """How many entries the catalogue has."""
    row = source.one("SELECT entries FROM catalogue_count")
    return 0 if row is None else int(row["entries"])


def largest_origin(source: RowSource, newcomer: str) -> str:
    """The city with the most entries; the newcomer's own where none has more."""
    row = source.one(
        "SELECT origin FROM catalogue_origin ORDER BY entries DESC, origin <> ? LIMIT 1",
        (newcomer,),
    )
    return newcomer if row is None else str(row["origin"])


def remove_soonest_ending(tx: Tx, origin: str) -> None:
    """Take out that entry of a city which would end first."""
    found = tx.all(
        "SELECT number FROM catalogue_entry WHERE origin = ? ORDER BY valid_until_ms, number LIMIT 1", (origin,)
    )
    _remove(tx, [row["number"] for row in found])


def home(source: RowSource) -> Location | None:
    """Where the node was when it last started, or None before its first start."""
    row = source.one("SELECT lat, lon FROM search_home")
    return None if row is None else Location(row["lat"], row["lon"])


def move_home(tx: Tx, place: Location) -> None:
    """The node is somewhere else: what lies where it lies is to be entered anew."""
    tx.execute(
        "INSERT OR IGNORE INTO search_backlog (record_number)"
        " SELECT record_number FROM search_entry WHERE at_home AND record_number IS NOT NULL"
    )
    moved = tx.all("SELECT number FROM search_entry WHERE at_home AND record_number IS NOT NULL")
    _remove(tx, [row["number"] for row in moved])
    tx.execute("DELETE FROM search_home")
    tx.execute("INSERT INTO search_home (lat, lon) VALUES (?, ?)", (place.lat, place.lon))


def await_entry(tx: Tx, now_ms: int) -> None:
    """Have records entered again that a clock which ran ahead took for expired."""
    tx.execute(
        "INSERT OR IGNORE INTO search_backlog (record_number) SELECT number FROM record r"
        " WHERE kind IN ('material', 'product') AND state = 'available' AND expires_ms > ?"
        " AND NOT EXISTS (SELECT 1 FROM search_entry e WHERE e.record_number = r.number)",
        (now_ms,),
    )


def take_backlog(tx: Tx, at_most: int) -> list[str]:
    """Ids of some of the records that wait for their entry; they wait no longer."""
    rows = tx.execute(
        "DELETE FROM search_backlog WHERE record_number IN (SELECT record_number FROM search_backlog LIMIT ?)"
        " RETURNING (SELECT subject_id FROM record r WHERE r.number = record_number) AS subject_id",
        (at_most,),
    ).fetchall()
    return [row["subject_id"] for row in rows]


def _insert(tx: Tx, record_number: int | None, available: bool, entry: Entry) -> int:
    place, direction = entry.place, entry.direction
    values: dict[str, Any] = {
        "record": record_number,
        "available": available,
        "section": entry.section,
        "condition": entry.condition,
        "dimension": None if entry.quantity is None else entry.quantity.dimension.value,
        "base": entry.base_quantity,
        "available_from_ms": entry.available_from_ms,
        "expires_ms": entry.expires_ms,
        "ends_ms": entry.ends_ms,
        "lat": None if place is None else place.lat,
        "lon": None if place is None else place.lon,
        "x": None if direction is None else direction.x,
        "y": None if direction is None else direction.y,
        "z": None if direction is None else direction.z,
        "at_home": entry.at_home,
        "asking_minor": entry.asking_minor,
        "size_bytes": entry.size_bytes,
    }
    number = tx.execute(_INSERT, values).lastrowid
    if number is None:
        raise RuntimeError("an inserted entry has a number")
    if direction is not None:
        tx.execute(_PLACE, {"number": number, **values})
    return number


def _remove(tx: Tx, numbers: Sequence[int]) -> None:
    # No trigger may do this: a schema that is not trusted does not reach the tree.
    for statement in (
        "DELETE FROM search_place WHERE number = ?",
        "DELETE FROM search_text WHERE rowid = ?",
        "DELETE FROM search_entry WHERE number = ?",
    ):
        tx.executemany(statement, [(number,) for number in numbers])


def _announced(heard: HeardSubject) -> tuple[Any, ...]:
    category = heard.category
    if category is not None and len(category) > CATALOGUE_CATEGORY_MAX_CHARACTERS:
        category = None
    return (
        heard.message_id,
        category,
        None if heard.quantity is None else format(heard.quantity, "f"),
        heard.unit,
        heard.valid_until_ms,
        heard.verified,
    )
