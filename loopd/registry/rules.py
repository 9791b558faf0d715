"""What the registries decide, as pure functions: what a record says, what follows a state, what counts as the same."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from loopd.protocol.documents import Document, dump_json, read_json
from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.geo import Location
from loopd.protocol.ids import SUBJECT_ID_MAX_CHARACTERS, is_material_id, is_product_id
from loopd.protocol.lifecycle import MATERIAL_STATUS
from loopd.protocol.quantity import Quantity, parse_quantity, quantity_in
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import parse_utc_timestamp

MATERIAL_TYPE = "MaterialDNA"
PRODUCT_TYPE = "ProductDNA"
STATUS_UPDATE_TYPE = "MaterialStatusUpdate"
PRODUCT_STATUS_UPDATE_TYPE = "ProductStatusUpdate"
STATUS_UPDATE_TYPES: Mapping[SubjectKind, str] = {
    SubjectKind.MATERIAL: STATUS_UPDATE_TYPE,
    SubjectKind.PRODUCT: PRODUCT_STATUS_UPDATE_TYPE,
}
KIND_BY_TYPE: Mapping[str, SubjectKind] = {MATERIAL_TYPE: SubjectKind.MATERIAL, PRODUCT_TYPE: SubjectKind.PRODUCT}
CATEGORY_KEY: Mapping[SubjectKind, str] = {SubjectKind.MATERIAL: "category", SubjectKind.PRODUCT: "product_category"}

# 10^15 t in kilograms has 19 digits before the point, a billionth of a gram in kilograms 12 behind it.
BASE_QUANTITY_FORMAT = "032.12f"

# The usual beginning of a document in LOOP's own terms.
_PLAIN_BEGINNING = re.compile(rb'\s*\{\s*"@context"\s*:\s*"')


@dataclass(frozen=True, slots=True)
class Facts:
    """What the registry takes from a MaterialDNA or ProductDNA; `condition` is a product's alone."""

    subject: Subject
    current_city: str
    condition: str | None


def facts_of(document_type: str, value: Mapping[str, Any]) -> Facts:
    """The facts of a document that its schema holds for.

    Invalid (400) for what no record can be kept of: an id of more than 200 characters (`bad_id`), a quantity beyond
    the ceilings (`bad_quantity`), a time that no calendar here reaches (`bad_time`), an `expires` before
    `available_from` (`expires_before_available`). `details.errors` names the place, as a schema's violation does.
    """
    kind = KIND_BY_TYPE[document_type]
    subject_id = value["id"]
    if not (is_material_id(subject_id) if kind is SubjectKind.MATERIAL else is_product_id(subject_id)):
        message = f"an id follows the pattern of its kind and has at most {SUBJECT_ID_MAX_CHARACTERS} characters"
        raise _invalid("bad_id", "/id", message)
    quantity = _quantity(value["quantity"])
    available_from_ms = _moment(value, "available_from")
    expires_ms = _moment(value, "expires") if "expires" in value else None
    if expires_ms is not None and expires_ms < available_from_ms:
        raise _invalid("expires_before_available", "/expires", "a record does not end before it is available")
    subject = Subject(
        subject_id=subject_id,
        kind=kind,
        category=value[CATEGORY_KEY[kind]],
        quantity=quantity.value,
        unit=quantity.unit,
        available_from_ms=available_from_ms,
        expires_ms=expires_ms,
        location=_location(value.get("location")),
        state=SubjectState.AVAILABLE,
    )
    condition = value["condition"] if kind is SubjectKind.PRODUCT else None
    return Facts(subject, value["current_city"], condition)


def compacted_text(document: Document) -> bytes | None:
    """The document in LOOP's own terms where it was sent in another form of JSON-LD, else None."""
    # Seldom is the text to be read a second time: a context that is a string mostly comes first.
    if _PLAIN_BEGINNING.match(document.received):
        return None
    sent = read_json(document.received)
    plain = isinstance(sent, dict) and isinstance(sent.get("@context"), str)
    return None if plain else dump_json(document.value)


def base_quantity_text(quantity: Quantity) -> str:
    """The quantity in its dimension's base unit, exact, as text of one width: texts sort as the quantities do."""
    return format(quantity.in_base(), BASE_QUANTITY_FORMAT)


def quantity_of(base_text: str, stated: Decimal, unit: str) -> Quantity:
    """The quantity of such a text in a record's unit: as it was stated, where it is still that much."""
    quantity = quantity_in(Decimal(base_text), unit)
    return Quantity(stated, unit) if quantity.value == stated else quantity


def has_expired(expires_ms: int | None, now_ms: int) -> bool:
    """Whether a record is past its `expires`; at the moment itself it is."""
    return expires_ms is not None and expires_ms <= now_ms


def is_available(subject: Subject, now_ms: int) -> bool:
    """Whether a subject can be had: nobody holds it, and it has not expired."""
    return subject.available and not has_expired(subject.expires_ms, now_ms)


def same_city(a: str, b: str) -> bool:
    """Whether two names mean one city: case, surrounding blanks and the coding of accents do not matter."""
    return a == b or _folded(a) == _folded(b)


def check_transition(current: SubjectState, following: SubjectState) -> None:
    """Conflict (409) where a state may not follow another: reason `terminal` from the last one, else `transition`."""
    if MATERIAL_STATUS.allows(current.value, following.value):
        return
    allowed = MATERIAL_STATUS.successors[current.value]
    details = {"current": current.value, "requested": following.value, "allowed": list(allowed)}
    if not allowed:
        raise Conflict("terminal", f"From {current.value} nothing moves.", details)
    told = MATERIAL_STATUS.told(current.value)
    raise Conflict("transition", f"{following.value} does not follow {current.value}; {told}.", details)


def same_json(a: object, b: object) -> bool:
    """Whether two JSON values are equal: 1.0 is 1, but true is not 1; the order of an object's keys does not matter."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_json(item, b[key]) for key, item in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    return a == b


def _quantity(stated: Mapping[str, Any]) -> Quantity:
    try:
        return parse_quantity(stated["value"], stated["unit"])
    except ValueError as error:
        raise _invalid("bad_quantity", "/quantity/value", str(error)) from None


def _moment(value: Mapping[str, Any], key: str) -> int:
    try:
        return parse_utc_timestamp(value[key])
    except ValueError:
        raise _invalid("bad_time", f"/{key}", "a time lies in the years 1 to 9999 of UTC") from None


def _location(stated: Mapping[str, Decimal | int] | None) -> Location | None:
    return None if stated is None else Location(float(stated["lat"]), float(stated["lon"]))


def _folded(city: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", city).casefold()).strip()


def _invalid(reason: str, pointer: str, message: str) -> Invalid:
    errors: Sequence[Mapping[str, str]] = [{"pointer": pointer, "rule": reason, "message": message}]
    return Invalid(reason, f"{pointer}: {message}", {"errors": errors})
