"""The SQL of Offers, Matches, Transfers and transactions, and of the history of all four."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Generic, Protocol, TypeVar

from loopd.database.rows import Parameters, RowSource
from loopd.database.writer import Tx
from loopd.exchange.entities import Entry, Match, Offer, Sale, Transfer
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity, units_of
from loopd.protocol.subjects import SubjectKind
from loopd.registry.rules import base_quantity_text

E = TypeVar("E", bound=Entry)

_ABOVE_ALL: Final = 2**63 - 1


class Reader(Protocol):
    """Reads beside the writer: the database itself, or one of its snapshots."""

    async def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]: ...


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to: a status, a subject."""

    status: str | None = None
    subject_id: str | None = None


class Table(Generic[E]):
    """One of the four tables. `own` gives the columns that are an entity's own, `read` makes an entry of a row."""

    def __init__(self, name: str, own: Callable[[E], Mapping[str, Any]], read: Callable[[sqlite3.Row], E]) -> None:
        self._name = name
        self._own = own
        self._read = read

    def insert(self, tx: Tx, entry: E, received: bytes, compacted: bytes | None) -> None:
        """Keep a new entry. IntegrityError where an invariant forbids it."""
        columns = {
            "id": entry.id,
            "received": received,
            "compacted": compacted,
            "subject": entry.subject_id,
            "subject_kind": entry.kind.value,
            "counterpart": entry.counterpart,
            "status": entry.status,
            "version": entry.version,
            "reason": entry.reason,
            "created_at_ms": entry.created_at_ms,
            "changed_at_ms": entry.changed_at_ms,
            **self._own(entry),
        }
        places = ", ".join("?" * len(columns))
        tx.execute(f"INSERT INTO {self._name} ({', '.join(columns)}) VALUES ({places})", tuple(columns.values()))

    def move(self, tx: Tx, entry: E, status: str, reason: str | None, at_ms: int, **changes: Any) -> E:
        """The entry's next version, in another status; `changes` are fields of it that change beside."""
        following = replace(
            entry, status=status, reason=reason, changed_at_ms=at_ms, version=entry.version + 1, **changes
        )
        columns = {
            "status": status,
            "reason": reason,
            "changed_at_ms": at_ms,
            "version": following.version,
            "counterpart": following.counterpart,
            **{name: value for name, value in self._own(following).items() if name in _CHANGING},
        }
        assignments = ", ".join(f"{name} = ?" for name in columns)
        tx.execute(f"UPDATE {self._name} SET {assignments} WHERE id = ?", (*columns.values(), entry.id))
        return following

    def find(self, source: RowSource, entry_id: str) -> E | None:
        """The entry of an id, by key."""
        return self.one(source, "id = ?", (entry_id,))

    def one(self, source: RowSource, where: str, parameters: Parameters, order: str = "number") -> E | None:
        """The first entry, the oldest unless another order is asked for, for which a condition holds."""
        row = source.one(f"SELECT * FROM {self._name} WHERE {where} ORDER BY {order} LIMIT 1", parameters)
        return None if row is None else self._read(row)

    def some(self, source: RowSource, where: str, parameters: Parameters, limit: int, order: str = "number") -> list[E]:
        """The first entries, the oldest unless another order is asked for, for which a condition holds."""
        rows = source.all(f"SELECT * FROM {self._name} WHERE {where} ORDER BY {order} LIMIT ?", (*parameters, limit))
        return [self._read(row) for row in rows]

    async def page(
        self, reader: Reader, filters: Filters, before: int | None, limit: int
    ) -> tuple[list[E], int | None]:
        """A page, newest first, from below the number `before`; beside it the `before` of the next page."""
        chosen = {"status": filters.status, "subject": filters.subject_id}
        narrowed = {name: value for name, value in chosen.items() if value is not None}
        conditions = " AND ".join(["number < ?", *(f"{name} = ?" for name in narrowed)])
        rows = await reader.all(
            f"SELECT * FROM {self._name} WHERE {conditions} ORDER BY number DESC LIMIT ?",
            (_ABOVE_ALL if before is None else before, *narrowed.values(), limit + 1),
        )
        page = [self._read(row) for row in rows[:limit]]
        return page, page[-1].number if len(rows) > limit else None


# Columns that a change of status may change beside it.
_CHANGING: Final = frozenset({"received_at_ms", "child", "details"})


def _common(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "number": row["number"],
        "id": row["id"],
        "document": row["received"] if row["compacted"] is None else row["compacted"],
        "subject_id": row["subject"],
        "kind": SubjectKind(row["subject_kind"]),
        "counterpart": row["counterpart"],
        "status": row["status"],
        "version": row["version"],
        "reason": row["reason"],
        "created_at_ms": row["created_at_ms"],
        "changed_at_ms": row["changed_at_ms"],
    }


OFFERS: Final = Table[Offer](
    "offer",
    lambda offer: {
        "quantity": str(offer.quantity.value),
        "unit": offer.quantity.unit,
        "base_quantity": base_quantity_text(offer.quantity),
        "available_until_ms": offer.available_until_ms,
    },
    lambda row: Offer(
        **_common(row),
        quantity=Quantity(Decimal(row["quantity"]), row["unit"]),
        available_until_ms=row["available_until_ms"],
    ),
)
MATCHES: Final = Table[Match](
    "loop_match",
    lambda match: {"offer_id": match.offer_id, "to_city": match.to_city, "valid_until_ms": match.valid_until_ms},
    lambda row: Match(
        **_common(row), offer_id=row["offer_id"], to_city=row["to_city"], valid_until_ms=row["valid_until_ms"]
    ),
)
TRANSFERS: Final = Table[Transfer](
    "transfer",
    lambda transfer: {
        "match_id": transfer.match_id,
        "received_at_ms": transfer.received_at_ms,
        "child": transfer.part_id,
    },
    lambda row: Transfer(
        **_common(row), match_id=row["match_id"], received_at_ms=row["received_at_ms"], part_id=row["child"]
    ),
)
SALES: Final = Table[Sale](
    "material_transaction",
    lambda sale: {
        "match_id": sale.match_id,
        "seller": sale.seller,
        "buyer": sale.buyer,
        "seller_account": sale.seller_account,
        "buyer_account": sale.buyer_account,
        "quantity": str(sale.quantity.value),
        "unit": sale.quantity.unit,
        "base_minor": sale.cost.base_minor,
        "export_minor": sale.cost.export_minor,
        "import_minor": sale.cost.import_minor,
        "distance_minor": sale.cost.distance_minor,
        "details": sale.details,
    },
    lambda row: Sale(
        **_common(row),
        match_id=row["match_id"],
        seller=row["seller"],
        buyer=row["buyer"],
        seller_account=row["seller_account"],
        buyer_account=row["buyer_account"],
        quantity=Quantity(Decimal(row["quantity"]), row["unit"]),
        cost=LoopCost(row["base_minor"], row["export_minor"], row["import_minor"], row["distance_minor"]),
        details=row["details"],
    ),
)


# What stands in the way of something, and what is due.


def active_match(source: RowSource, offer_id: str) -> Match | None:
    """The Match that reserves an Offer."""
    return MATCHES.one(source, "offer_id = ? AND status IN ('proposed', 'accepted')", (offer_id,))


def standing_transfer(source: RowSource, match_id: str) -> Transfer | None:
    """The Transfer of a Match that was not cancelled."""
    return TRANSFERS.one(source, "match_id = ? AND status <> 'cancelled'", (match_id,))


def standing_sale(source: RowSource, match_id: str) -> Sale | None:
    """The transaction of a Match that was not cancelled."""
    return SALES.one(source, "match_id = ? AND status <> 'cancelled'", (match_id,))


def reserving_match_of(source: RowSource, subject_id: str) -> Match | None:
    """A Match that reserves some of a subject: an active one whose goods have not arrived."""
    return MATCHES.one(
        source,
        """subject = ? AND status IN ('proposed', 'accepted')
        AND NOT EXISTS (SELECT 1 FROM transfer t WHERE t.match_id = loop_match.id AND t.status = 'completed')""",
        (subject_id,),
    )


def open_offer_of(source: RowSource, subject_id: str) -> Offer | None:
    """An Offer of a subject that can be matched."""
    return OFFERS.one(source, "subject = ? AND status = 'open'", (subject_id,))


def open_offer_for(source: RowSource, subject_id: str, quantity: Quantity, now_ms: int) -> Offer | None:
    """An Offer of just that quantity of a subject, open and not past its time."""
    return OFFERS.one(
        source,
        f"subject = ? AND status = 'open' AND available_until_ms > ? AND {_SAME_QUANTITY}",
        (subject_id, now_ms, *_same_quantity(quantity)),
    )


# An Offer of just this quantity: base quantities of two dimensions are written alike, 5 kg as 5 l.
_SAME_QUANTITY: Final = "base_quantity = ? AND unit IN (SELECT value FROM json_each(?))"


def _same_quantity(quantity: Quantity) -> tuple[str, str]:
    return base_quantity_text(quantity), json.dumps(units_of(quantity.dimension))


_DUE_MATCH: Final = """status IN ('proposed', 'accepted') AND valid_until_ms <= ?
    AND NOT EXISTS (SELECT 1 FROM transfer t WHERE t.match_id = loop_match.id AND t.status <> 'cancelled')"""
_DUE_OFFER: Final = "status = 'open' AND available_until_ms <= ?"


def due_matches(source: RowSource, now_ms: int, limit: int) -> list[Match]:
    """Matches past their time that no Transfer was made of."""
    return MATCHES.some(source, _DUE_MATCH, (now_ms,), limit, "valid_until_ms")


def due_match(source: RowSource, match_id: str, now_ms: int) -> Match | None:
    """The Match of an id, if it is one of those."""
    return MATCHES.one(source, f"id = ? AND {_DUE_MATCH}", (match_id, now_ms))


def due_offers(source: RowSource, now_ms: int, limit: int) -> list[Offer]:
    """Open Offers past their time."""
    return OFFERS.some(source, _DUE_OFFER, (now_ms,), limit, "available_until_ms")


def due_offer(source: RowSource, offer_id: str, now_ms: int) -> Offer | None:
    """The Offer of an id, if it is one of those."""
    return OFFERS.one(source, f"id = ? AND {_DUE_OFFER}", (offer_id, now_ms))


_FREE: Final = """subject = ? AND status = 'accepted' AND coalesce(counterpart, ?) = ? AND NOT EXISTS
    (SELECT 1 FROM material_transaction s WHERE s.match_id = loop_match.id AND s.status <> 'cancelled')"""
_ARRIVED_LAST: Final = """EXISTS (SELECT 1 FROM transfer t WHERE t.match_id = loop_match.id AND t.status = 'completed'),
    number"""
_OF_QUANTITY: Final = f" AND offer_id IN (SELECT id FROM offer WHERE subject = ? AND {_SAME_QUANTITY})"


def free_match(source: RowSource, subject_id: str, buyer: str, quantity: Quantity | None) -> Match | None:
    """The oldest accepted Match of a subject with a buyer's node, or with nobody named, that no transaction is of.

    One whose goods have arrived only where there is no other. With a quantity, of those whose Offer is of that much.
    """
    where, parameters = _FREE, [subject_id, buyer, buyer]
    if quantity is not None:
        where, parameters = _FREE + _OF_QUANTITY, [*parameters, subject_id, *_same_quantity(quantity)]
    return MATCHES.one(source, where, parameters, _ARRIVED_LAST)


def count_sales(source: RowSource, prefix: str) -> int:
    """How many transactions have an id that begins so and goes on with digits."""
    row = source.one(
        "SELECT count(*) AS sales FROM material_transaction WHERE id >= ? AND id < ?", (f"{prefix}0", f"{prefix}:")
    )
    return 0 if row is None else int(row["sales"])


# The history of all four.


@dataclass(frozen=True, slots=True)
class Change:
    """One version of an entity: what it was and at whose wish; `document` is its JSON text as of then."""

    version: int
    status: str
    reason: str | None
    changed_by: str
    changed_at_ms: int
    document: bytes


def insert_change(tx: Tx, entry: Entry, changed_by: str, document: bytes) -> None:
    """Write a version into the history. IntegrityError where it is there already."""
    tx.execute(
        """INSERT INTO exchange_change (entity, id, version, status, reason, changed_by, changed_at_ms, document)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            entry.entity.value,
            entry.id,
            entry.version,
            entry.status,
            entry.reason,
            changed_by,
            entry.changed_at_ms,
            document,
        ),
    )


def changes(source: RowSource, entity: MirroredEntity, entry_id: str, after: int, limit: int) -> list[Change]:
    """The versions of an entity from the one after `after` on."""
    rows = source.all(
        """SELECT version, status, reason, changed_by, changed_at_ms, document FROM exchange_change
        WHERE entity = ? AND id = ? AND version > ? ORDER BY version LIMIT ?""",
        (entity.value, entry_id, after, limit),
    )
    return [Change(**dict(row)) for row in rows]
