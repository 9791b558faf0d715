"""MaterialAnnouncement (§8.2, §9.3): what a node tells of a subject it has, as values and as the bytes it signs.

Two forms travel. The full form has a `hop_anchor` and states its own scope. The plain form, any other LOOP node's,
states little more than the subject, its origin and whether it is available; its scope is fixed here. See
docs/protocol-notes.md, Announcements.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from loopd.protocol.contexts import CURRENT_VERSION
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location
from loopd.protocol.ids import is_material_id, is_node_id, is_product_id
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import (
    ANNOUNCEMENT_MAX_VALIDITY_MS,
    FLOOD_TTL_MAX,
    PLAIN_ANNOUNCEMENT_VALIDITY_MS,
    REQUEST_CLOCK_TOLERANCE_MS,
    REVISION_MAX,
)
from loopd.protocol.quantity import parse_quantity
from loopd.protocol.subjects import Subject, SubjectKind
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.protocol.vocabulary import UNITS

TYPE: Final = "MaterialAnnouncement"

# What a plain announcement, which has no revision, counts as: below any revision that is stated.
PLAIN_REVISION: Final = 0

_ANCHOR_BYTES: Final = 32

# About a kilometre: near enough for a cost, too coarse to name a door.
_ANNOUNCED_PRECISION_DEGREES: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Announcement:
    """One announcement as received. Times are milliseconds since the epoch, `radius_km` None is unbounded.

    `hop_anchor` None marks the plain form: revision 0 (so ordered by the moment of its making), no bound on the
    radius, valid for 24 h from the origin timestamp. What a plain node left out of the rest is None.
    """

    subject: str
    subject_kind: SubjectKind
    origin: str
    available: bool
    state: str | None
    category: str | None
    quantity: Decimal | None
    unit: str | None
    location: Location | None
    available_from_ms: int | None
    expires_ms: int | None
    revision: int
    issued_at_ms: int
    valid_until_ms: int
    ttl: int
    radius_km: float | None
    origin_location: Location | None
    hop_anchor: bytes | None

    @property
    def anchored(self) -> bool:
        """Whether this is the full form, whose TTL a relay can prove."""
        return self.hop_anchor is not None


def read_announcement(value: Mapping[str, Any], origin_timestamp_ms: int) -> Announcement:
    """The announcement of a document that its schema admits, with the timestamp its origin signed it at.

    Raises Invalid with reason `schema` for what the schema does not bound: the length of ids, the size of quantity and
    revision.
    """
    subject, kind = _subject(value)
    origin = value["origin"]
    if not is_node_id(origin):
        raise _violation("/origin", "maxLength", "is no node id of bounded length")
    quantity, unit = _quantity(value)
    anchor = value.get("hop_anchor")
    if anchor is None:
        revision, issued_at_ms, radius_km, origin_location = PLAIN_REVISION, origin_timestamp_ms, None, None
        valid_until_ms, ttl = origin_timestamp_ms + PLAIN_ANNOUNCEMENT_VALIDITY_MS, FLOOD_TTL_MAX
    else:
        revision, issued_at_ms = _revision(value), parse_timestamp(value["issued_at"])
        radius_km = None if value["radius_km"] is None else float(value["radius_km"])
        origin_location = _location("origin_location", value["origin_location"])
        valid_until_ms, ttl = parse_timestamp(value["valid_until"]), int(value["ttl"])
    return Announcement(
        subject=subject,
        subject_kind=kind,
        origin=origin,
        available=value["available"],
        state=value.get("state"),
        category=value.get("category"),
        quantity=quantity,
        unit=unit,
        location=_location("location", value.get("location")),
        available_from_ms=_moment(value, "available_from"),
        expires_ms=_moment(value, "expires"),
        revision=revision,
        issued_at_ms=issued_at_ms,
        valid_until_ms=valid_until_ms,
        ttl=ttl,
        radius_km=radius_km,
        origin_location=origin_location,
        hop_anchor=None if anchor is None else bytes.fromhex(anchor),
    )


def times_are_sound(announcement: Announcement, origin_timestamp_ms: int, now_ms: int) -> bool:
    """Whether the times of an announcement agree with each other and with this node's clock.

    `issued_at` and the origin timestamp lie within 300 s of each other and not more than 300 s ahead of now;
    `valid_until` lies after `issued_at`, by at most seven days. Whether it has passed is another question.
    """
    issued_at_ms = announcement.issued_at_ms
    validity_ms = announcement.valid_until_ms - issued_at_ms
    return (
        abs(issued_at_ms - origin_timestamp_ms) <= REQUEST_CLOCK_TOLERANCE_MS
        and max(issued_at_ms, origin_timestamp_ms) - now_ms <= REQUEST_CLOCK_TOLERANCE_MS
        and 0 < validity_ms <= ANNOUNCEMENT_MAX_VALIDITY_MS
    )


def build_announcement(
    subject: Subject,
    *,
    context_url: str,
    origin: str,
    origin_location: Location,
    revision: int,
    issued_at_ms: int,
    valid_until_ms: int,
    radius_km: Decimal | float | None,
    hop_anchor: bytes,
    ttl: int = FLOOD_TTL_MAX,
) -> bytes:
    """The body of an announcement in the full form: the bytes to sign, store and send, never to be written again.

    The same arguments give the same bytes. Nothing of the record but its flow metadata is told, its place rounded to
    0.01°. ValueError for a revision, TTL, radius, time or anchor that no receiver would accept.
    """
    if not 1 <= revision <= REVISION_MAX:
        raise ValueError(f"a revision is 1 to {REVISION_MAX}")
    if not 1 <= ttl <= FLOOD_TTL_MAX:
        raise ValueError(f"a TTL is 1 to {FLOOD_TTL_MAX}")
    if not 0 < valid_until_ms - issued_at_ms <= ANNOUNCEMENT_MAX_VALIDITY_MS:
        raise ValueError("an announcement is valid for at most seven days")
    if radius_km is not None and not radius_km > 0:
        raise ValueError("a radius is above 0 km")
    if len(hop_anchor) != _ANCHOR_BYTES:
        raise ValueError(f"a hop anchor has {_ANCHOR_BYTES} bytes")
    body: dict[str, Any] = {
        "@context": context_url,
        "@type": TYPE,
        "schema_version": CURRENT_VERSION,
        subject.kind.value: subject.subject_id,
        "origin": origin,
        "available": subject.available,
        "state": subject.state.value,
        "category": subject.category,
        "quantity": subject.quantity,
        "unit": subject.unit,
        "available_from": format_timestamp(subject.available_from_ms),
    }
    if subject.expires_ms is not None:
        body["expires"] = format_timestamp(subject.expires_ms)
    if subject.location is not None:
        body["location"] = {
            "lat": announced_degrees(subject.location.lat),
            "lon": announced_degrees(subject.location.lon),
        }
    body |= {
        "revision": revision,
        "issued_at": format_timestamp(issued_at_ms),
        "valid_until": format_timestamp(valid_until_ms),
        "ttl": ttl,
        "radius_km": None if radius_km is None else _exact(radius_km),
        "origin_location": {"lat": _exact(origin_location.lat), "lon": _exact(origin_location.lon)},
        "hop_anchor": hop_anchor.hex(),
    }
    return dump_json(body)


def _subject(value: Mapping[str, Any]) -> tuple[str, SubjectKind]:
    # Only where there is no material does `product` name the subject; beside one it is a field like any other.
    kind = SubjectKind.MATERIAL if SubjectKind.MATERIAL.value in value else SubjectKind.PRODUCT
    subject = value[kind.value]
    if not (is_material_id(subject) if kind is SubjectKind.MATERIAL else is_product_id(subject)):
        raise _violation(f"/{kind.value}", "maxLength", f"is no id of a {kind.value} of bounded length")
    return subject, kind


def _quantity(value: Mapping[str, Any]) -> tuple[Decimal | None, str | None]:
    unit = value.get("unit")
    if "quantity" not in value:
        return None, unit
    try:
        # The bounds of a number are those of every unit.
        return parse_quantity(value["quantity"], unit if unit is not None else UNITS[0]).value, unit
    except ValueError as error:
        raise _violation("/quantity", "maximum", str(error)) from error


def _revision(value: Mapping[str, Any]) -> int:
    revision = int(value["revision"])
    if revision > REVISION_MAX:
        raise _violation("/revision", "maximum", f"is at most {REVISION_MAX}")
    return revision


def _location(key: str, place: Mapping[str, Any] | None) -> Location | None:
    if place is None:
        return None
    try:
        return Location(float(place["lat"]), float(place["lon"]))
    except ValueError as error:
        raise _violation(f"/{key}", "maximum", str(error)) from error


def _moment(value: Mapping[str, Any], key: str) -> int | None:
    text = value.get(key)
    return None if text is None else parse_timestamp(text)


def _violation(pointer: str, rule: str, message: str) -> Invalid:
    error = {"pointer": pointer, "rule": rule, "message": message}
    return Invalid("schema", "The announcement breaks its schema.", {"errors": [error]})


def _exact(number: Decimal | float) -> Decimal:
    """The number as its shortest text says, so that a float is not written with digits nobody meant."""
    return Decimal(str(number))


def announced_degrees(degrees: float) -> Decimal:
    """A latitude or longitude as announcements tell it, rounded half-even to 0.01°; never a negative zero."""
    # Adding 0 turns a negative zero into a plain one.
    return _exact(degrees).quantize(_ANNOUNCED_PRECISION_DEGREES, rounding=ROUND_HALF_EVEN) + 0
