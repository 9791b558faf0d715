"""What of a record, or of an announcement, goes into the search index; as pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from loopd.catalogue.sections import SearchScope, section_of
from loopd.catalogue.sphere import Direction, direction_of
from loopd.exchange.rules import asking_price
from loopd.protocol.geo import Location
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import AMOUNT_MAX_LC
from loopd.protocol.money import round_half_even
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import HeardSubject
from loopd.registry.rules import base_quantity_text
from loopd.registry.tables import Record


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the index. The place is None where nobody said it; `at_home` where it is the node's.

    `ends_ms` is when it goes: with its `expires_ms`, or before that with the announcement that told of it.
    """

    section: int
    condition: str | None
    quantity: Quantity | None
    available_from_ms: int | None
    expires_ms: int | None
    ends_ms: int | None
    place: Location | None
    at_home: bool
    asking_minor: int | None = None
    size_bytes: int = 0

    @property
    def direction(self) -> Direction | None:
        return None if self.place is None else direction_of(self.place)

    @property
    def base_quantity(self) -> str | None:
        """The quantity as the registry stores it for comparison."""
        return None if self.quantity is None else base_quantity_text(self.quantity)


@dataclass(frozen=True, slots=True)
class Texts:
    """What of a record is found by its words."""

    name: str
    manufacturer: str
    notes: str

    def __bool__(self) -> bool:
        return bool(self.name or self.manufacturer or self.notes)


def entry_of_record(record: Record, home: Location) -> tuple[Entry, Texts]:
    """The entry of a record of this node; `home` is where the node is, and what states no place lies."""
    subject, document = record.subject, record.document
    value = _glance(document)
    metadata = value.get("metadata")
    notes: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    entry = Entry(
        section=section_of(SearchScope.LOCAL, subject.kind, subject.category),
        condition=record.condition,
        quantity=record.registered,
        available_from_ms=subject.available_from_ms,
        expires_ms=subject.expires_ms,
        ends_ms=subject.expires_ms,
        place=subject.location or home,
        at_home=subject.location is None,
        # A price is exact where the JSON is read for it.
        asking_minor=_asking_minor(read_json(document)) if "asking_price" in notes else None,
        size_bytes=len(document),
    )
    return entry, Texts(_text(value, "name"), _text(value, "manufacturer"), _text(notes, "notes"))


def entry_of_announcement(heard: HeardSubject, origin_place: Location | None) -> Entry:
    """The entry of what another city announced; `origin_place` is where its node is, as far as that is known."""
    quantity = None
    if heard.quantity is not None and heard.unit is not None:
        quantity = Quantity(heard.quantity, heard.unit)
    return Entry(
        section=section_of(SearchScope.FEDERATION, heard.kind, heard.category),
        condition=None,
        quantity=quantity,
        available_from_ms=heard.available_from_ms,
        expires_ms=heard.expires_ms,
        ends_ms=heard.valid_until_ms if heard.expires_ms is None else min(heard.valid_until_ms, heard.expires_ms),
        place=heard.location or origin_place,
        at_home=heard.location is None,
    )


def _glance(document: bytes) -> dict[str, Any]:
    """A stored document, read fast: its numbers may have lost digits."""
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:  # a number larger than any double
        value = read_json(document)
    if not isinstance(value, dict):
        raise TypeError("a stored document is a JSON object")
    return value


def _asking_minor(document: Mapping[str, Any]) -> int | None:
    price: Decimal | None = asking_price(document)
    return None if price is None or price > AMOUNT_MAX_LC else round_half_even(price)


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""
