"""What a search asks for, read from its request (§8.1) without trusting any of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from loopd.catalogue.sections import SearchScope, Sections, sections_of
from loopd.exchange.rules import invalid, read_moment, read_price
from loopd.protocol.geo import Location
from loopd.protocol.ids import is_node_id
from loopd.protocol.limits import (
    LIST_LIMIT_DEFAULT,
    LIST_LIMIT_MAX,
    LIST_LIMIT_MIN,
    SEARCH_RADIUS_MAX_KM,
    SEARCH_TEXT_MAX_CHARACTERS,
    SEARCH_WORDS_MAX,
)
from loopd.protocol.quantity import Quantity, parse_quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import PRODUCT_CONDITIONS, UNITS

CATEGORY_KEY: Final[Mapping[SubjectKind, str]] = {
    SubjectKind.MATERIAL: "category",
    SubjectKind.PRODUCT: "product_category",
}
_KEYS_OF_BOTH: Final = (
    "radius_km",
    "near",
    "min_quantity",
    "unit",
    "available_from",
    "available_until",
    "max_loop_cost",
    "destination",
    "scope",
    "text",
    "limit",
)
KEYS: Final[Mapping[SubjectKind, tuple[str, ...]]] = {
    SubjectKind.MATERIAL: (CATEGORY_KEY[SubjectKind.MATERIAL], *_KEYS_OF_BOTH),
    SubjectKind.PRODUCT: (CATEGORY_KEY[SubjectKind.PRODUCT], "condition", *_KEYS_OF_BOTH),
}
# What a bare `min_quantity` counts.
DEFAULT_UNIT: Final[Mapping[SubjectKind, str]] = {SubjectKind.MATERIAL: "kg", SubjectKind.PRODUCT: "piece"}

# What the index takes for a word: letters and digits.
_WORD: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search. `near` where its results come nearest first, None where newest first; `radius_km` only beside it.

    `minimum` bounds what is left, in its dimension alone. What can be had at some moment of `from_ms` to `until_ms`,
    both included, fits. `words` are beginnings of words, all of which a text must have.
    """

    kind: SubjectKind
    scope: SearchScope
    sections: Sections
    condition: str | None
    near: Location | None
    radius_km: float | None
    minimum: Quantity | None
    from_ms: int | None
    until_ms: int | None
    max_cost_minor: int | None
    destination: str | None
    words: tuple[str, ...]
    limit: int


def read_query(kind: SubjectKind, value: object, home: Location) -> SearchQuery:
    """The query of a request's JSON value; `home` is where the node is.

    Invalid (400), the place named: `schema` for another key or another type, `unknown_category`, `bad_condition`,
    `bad_radius`, `bad_location`, `bad_quantity`, `bad_time`, `bad_amount`, `bad_destination`, `bad_scope`, `bad_text`,
    `bad_limit`.
    """
    if not isinstance(value, dict):
        raise invalid("schema", "", "a search is an object")
    unknown = next((key for key in value if key not in KEYS[kind]), None)
    if unknown is not None:
        raise invalid("schema", "", f"there are no other keys than: {', '.join(KEYS[kind])}")
    stated = _Stated(value)
    scope = _scope(stated)
    radius_km = _radius_km(stated)
    near = _near(stated) or (home if radius_km is not None else None)
    from_ms, until_ms = _window(stated)
    return SearchQuery(
        kind=kind,
        scope=scope,
        sections=_sections(stated, scope, kind),
        condition=_condition(stated),
        near=near,
        radius_km=radius_km,
        minimum=_minimum(stated, kind),
        from_ms=from_ms,
        until_ms=until_ms,
        max_cost_minor=_max_cost_minor(stated),
        destination=_destination(stated),
        words=_words(stated),
        limit=_limit(stated),
    )


class _Stated:
    """The request, whose values are taken by type."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def text(self, key: str) -> str | None:
        return None if key not in self._value else _of_type(self._value[key], f"/{key}", "a string", _is_text)

    def number(self, key: str) -> int | Decimal | None:
        return None if key not in self._value else _number(self._value[key], f"/{key}")

    def object(self, key: str) -> dict[str, Any] | None:
        return None if key not in self._value else _of_type(self._value[key], f"/{key}", "an object", _is_object)


def _scope(stated: _Stated) -> SearchScope:
    text = stated.text("scope")
    if text is None:
        return SearchScope.LOCAL
    if text not in tuple(SearchScope):
        raise invalid("bad_scope", "/scope", f"one of: {', '.join(SearchScope)}")
    return SearchScope(text)


def _sections(stated: _Stated, scope: SearchScope, kind: SubjectKind) -> Sections:
    key = CATEGORY_KEY[kind]
    try:
        return sections_of(scope, kind, stated.text(key))
    except ValueError:
        message = f"a {kind.value} category, or the beginning of one followed by *"
        raise invalid("unknown_category", f"/{key}", message) from None


def _condition(stated: _Stated) -> str | None:
    condition = stated.text("condition")
    if condition is not None and condition not in PRODUCT_CONDITIONS:
        raise invalid("bad_condition", "/condition", f"one of: {', '.join(PRODUCT_CONDITIONS)}")
    return condition


def _radius_km(stated: _Stated) -> float | None:
    radius_km = stated.number("radius_km")
    if radius_km is not None and not 0 <= radius_km <= SEARCH_RADIUS_MAX_KM:
        raise invalid("bad_radius", "/radius_km", f"a radius lies between 0 and {SEARCH_RADIUS_MAX_KM} km")
    return None if radius_km is None else float(radius_km)


def _near(stated: _Stated) -> Location | None:
    place = stated.object("near")
    if place is None:
        return None
    if set(place) != {"lat", "lon"}:
        raise invalid("schema", "/near", "a place has lat and lon, and nothing else")
    lat, lon = (_number(place[key], f"/near/{key}") for key in ("lat", "lon"))
    try:
        return Location(float(lat), float(lon))
    except ValueError as error:
        raise invalid("bad_location", "/near", str(error)) from None


def _minimum(stated: _Stated, kind: SubjectKind) -> Quantity | None:
    amount, unit = stated.number("min_quantity"), stated.text("unit")
    if unit is not None and unit not in UNITS:
        raise invalid("bad_quantity", "/unit", f"one of: {', '.join(UNITS)}")
    if amount is None and unit is None:
        return None
    try:
        return parse_quantity(0 if amount is None else amount, unit or DEFAULT_UNIT[kind])
    except ValueError as error:
        raise invalid("bad_quantity", "/min_quantity", str(error)) from None


def _window(stated: _Stated) -> tuple[int | None, int | None]:
    moments: dict[str, int | None] = {}
    for key in ("available_from", "available_until"):
        text = stated.text(key)
        moments[key] = None if text is None else read_moment({key: text}, key)
    from_ms, until_ms = moments["available_from"], moments["available_until"]
    if from_ms is not None and until_ms is not None and until_ms < from_ms:
        raise invalid("bad_time", "/available_until", "a time does not end before it begins")
    return from_ms, until_ms


def _max_cost_minor(stated: _Stated) -> int | None:
    amount = stated.number("max_loop_cost")
    return None if amount is None else read_price({"max_loop_cost": amount}, "max_loop_cost")


def _destination(stated: _Stated) -> str | None:
    destination = stated.text("destination")
    if destination is not None and not is_node_id(destination):
        raise invalid("bad_destination", "/destination", "the id of a node, such as vienna.loop")
    return destination


def _words(stated: _Stated) -> tuple[str, ...]:
    text = stated.text("text")
    if text is None:
        return ()
    words = tuple(_WORD.findall(text)) if len(text) <= SEARCH_TEXT_MAX_CHARACTERS else ()
    if not 1 <= len(words) <= SEARCH_WORDS_MAX:
        message = f"1 to {SEARCH_WORDS_MAX} words, in at most {SEARCH_TEXT_MAX_CHARACTERS} characters"
        raise invalid("bad_text", "/text", message)
    return words


def _limit(stated: _Stated) -> int:
    limit = stated.number("limit")
    if limit is None:
        return LIST_LIMIT_DEFAULT
    if limit != int(limit) or not LIST_LIMIT_MIN <= limit <= LIST_LIMIT_MAX:
        raise invalid("bad_limit", "/limit", f"a whole number from {LIST_LIMIT_MIN} to {LIST_LIMIT_MAX}")
    return int(limit)


def _number(value: object, pointer: str) -> int | Decimal:
    number: int | Decimal = _of_type(value, pointer, "a number", _is_number)
    return number


def _of_type(value: Any, pointer: str, name: str, fits: Callable[[object], bool]) -> Any:
    if not fits(value):
        raise invalid("schema", pointer, f"must be {name}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_number(value: object) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
