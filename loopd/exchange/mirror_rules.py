"""What the mirror decides, as pure functions: whether a version applies, and what the other side may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeGuard

from loopd.exchange.entities import TYPES
from loopd.exchange.rules import invalid, read_moment
from loopd.protocol.documents import check_value
from loopd.protocol.errors import Conflict, Forbidden, Invalid
from loopd.protocol.ids import is_exchange_id
from loopd.protocol.json_ld import check_context_urls
from loopd.protocol.lifecycle import Lifecycle, MirroredEntity
from loopd.protocol.limits import REVISION_MAX

UPDATE_TYPE: Final = "MirrorUpdate"
REQUEST_TYPE: Final = "StatusRequest"

# What the other side of a deal may ask the seller's node for: the status, and those from which it may.
_MAY_ASK: Final[Mapping[MirroredEntity, Mapping[str, frozenset[str]]]] = {
    MirroredEntity.OFFER: {},
    MirroredEntity.MATCH: {"rejected": frozenset({"proposed"}), "expired": frozenset({"accepted"})},
    MirroredEntity.TRANSFER: {"completed": frozenset({"in_transit"})},
    MirroredEntity.TRANSACTION: {
        "cancelled": frozenset({"pending"}),
        "disputed": frozenset({"pending", "confirmed", "in_transit", "delivered"}),
    },
}

# What is missing is asked for again, later each time; what the owner tells and the rules forbid, once a day.
_RETRY_FIRST_MS: Final = 2_000
_RETRY_MAX_MS: Final = 600_000
REFUSED_RETRY_MS: Final = 24 * 3600 * 1000

# A whole comparison is made daily, and one of what is new when a node answers again after this long.
WHOLE_COMPARISON_MS: Final = 24 * 3600 * 1000
ABSENCE_MS: Final = 600_000


class Finding(StrEnum):
    """What a version is to a node that is told it."""

    APPLIES = "applies"
    KNOWN = "known"  # held, or older than what is held
    GAP = "gap"  # versions before it are missing


class RequestState(StrEnum):
    """A wish of this node at the seller's."""

    QUEUED = "queued"
    GRANTED = "granted"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class EntityKey:
    """What names an Offer, Match, Transfer or transaction in the whole federation: the node that writes it, its id."""

    node: str
    entity: MirroredEntity
    entity_id: str


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an entity. `follows` is the one that its reader was told before, 0 for the first."""

    number: int
    follows: int
    status: str
    updated_at_ms: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """A version as its owner tells it to one node."""

    key: EntityKey
    counterpart: str
    version: Version


def read_update(value: Mapping[str, Any]) -> Told:
    """The content of a MirrorUpdate whose form is checked.

    Invalid (400), with the place: `bad_version`, `bad_status`, `bad_time`; `schema`, `unknown_context`,
    `personal_data` for the document inside; `document_mismatch` where that is another entity or in another status.
    """
    key = EntityKey(value["owner"], MirroredEntity(value["entity"]), value["id"])
    number, follows, status = int(value["version"]), int(value["follows"]), value["status"]
    if follows >= number:
        raise invalid("bad_version", "/follows", "a version follows an earlier one")
    if status not in key.entity.lifecycle.successors:
        raise invalid("bad_status", "/status", f"no {key.entity.value} has this status")
    version = Version(number, follows, status, read_moment(value, "updated_at"), value["document"])
    _check_document(key, value["counterpart"], version)
    return Told(key, value["counterpart"], version)


def _check_document(key: EntityKey, counterpart: str, version: Version) -> None:
    document = dict(version.document)
    check_context_urls(document)
    if key.entity is MirroredEntity.TRANSACTION and document.get("status") == version.status:
        # A transaction goes through more statuses than the document that opened it has words for.
        del document["status"]
    check_value(document, TYPES[key.entity])
    expected = {"id": key.entity_id, "status": version.status}
    if key.entity is MirroredEntity.TRANSACTION:
        expected = {"id": key.entity_id, "seller": key.node, "buyer": counterpart}
    for name, stated in expected.items():
        if document.get(name) != stated:
            raise invalid("document_mismatch", f"/document/{name}", "the document says otherwise")


@dataclass(frozen=True, slots=True)
class Newest:
    """An entity in the list of what a node told this one; `number` is its place there."""

    number: int
    key: EntityKey
    version: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page that another node gave; `has_more` where one follows."""

    results: list[Any]
    has_more: bool


def read_page(value: Any) -> Page:
    """A page as another node gave it. Invalid `bad_page` where it is none."""
    if not isinstance(value, dict) or not isinstance(value.get("results"), list) or "next" not in value:
        raise Invalid("bad_page", "A page has results and next.")
    return Page(value["results"], value["next"] is not None)


def read_versions(key: EntityKey, page: Page) -> list[Told]:
    """The versions in a page of one entity's. Invalid where one is none, or of something else."""
    found = []
    for value in page.results:
        check_value(value, UPDATE_TYPE)
        found.append(read_update(value))
    if any(told.key != key for told in found):
        raise Invalid("document_mismatch", "The page tells of something else than what was asked for.")
    return found


def read_newest(node_id: str, after: int, page: Page) -> list[Newest]:
    """The entries in a page of a node's list, which go on after a place. Invalid `bad_page` where they do not."""
    found: list[Newest] = []
    for value in page.results:
        entry = _newest(node_id, value)
        if entry is None or entry.number <= (found[-1].number if found else after):
            raise Invalid("bad_page", "Each entry has a number, rising, an entity, its id and its version.")
        found.append(entry)
    return found


def _newest(node_id: str, value: Any) -> Newest | None:
    fields = value if isinstance(value, dict) else {}
    number, version, entity_id = fields.get("number"), fields.get("version"), fields.get("id")
    entity = next((each for each in MirroredEntity if each.value == fields.get("entity")), None)
    if entity is None or not isinstance(entity_id, str) or not is_exchange_id(entity_id):
        return None
    if not _is_count(number) or not _is_count(version):
        return None
    return Newest(number, EntityKey(node_id, entity, entity_id), version)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= REVISION_MAX


def find(held: Version | None, told: Version, entity: MirroredEntity) -> Finding:
    """What a told version is to who holds another, or None.

    Invalid (400): `other_content` where the same version said something else before, `bad_version` where it passes
    over one that was told. Conflict (409) `transition` where its status cannot follow.
    """
    held_number = 0 if held is None else held.number
    if held is not None and told.number == held.number and told != held:
        raise Invalid("other_content", "This version was told before, with other content.")
    if told.number <= held_number:
        return Finding.KNOWN
    if told.follows > held_number:
        return Finding.GAP
    if told.follows < held_number:
        raise invalid("bad_version", "/follows", f"version {held_number} was told in between")
    if not _may_follow(entity, held, told):
        before = "nothing" if held is None else held.status
        raise Conflict("transition", f"{told.status} does not follow {before}.", {"from": before, "to": told.status})
    return Finding.APPLIES


def _may_follow(entity: MirroredEntity, held: Version | None, told: Version) -> bool:
    lifecycle = entity.lifecycle
    if held is None:
        # What gets its other side late is told from then on: an Offer by its Match, or all of a deal by its sale.
        return told.number > 1 or told.status in lifecycle.initial
    if told.status == held.status:
        return True
    if told.number == told.follows + 1:
        return lifecycle.allows(held.status, told.status)
    return told.status in _reachable(lifecycle, held.status)


def _reachable(lifecycle: Lifecycle, status: str) -> set[str]:
    found: set[str] = set()
    waiting = [status]
    while waiting:
        following = set(lifecycle.successors[waiting.pop()]) - found
        found |= following
        waiting += following
    return found


def check_wish(entity: MirroredEntity, current: str, wished: str) -> None:
    """Whether the other side of a deal may ask for a status.

    Invalid (400) `bad_status`; Conflict (409) `terminal`, `transition`; Forbidden (403) `owner_decides` where the
    status may follow, but by the seller's decision alone.
    """
    lifecycle = entity.lifecycle
    if wished not in lifecycle.successors:
        raise invalid("bad_status", "/status", f"no {entity.value} has this status")
    if lifecycle.is_terminal(current):
        raise Conflict("terminal", f"The {entity.value} is {current}: nothing follows.", {"status": current})
    if not lifecycle.allows(current, wished):
        told = f"{wished} does not follow {current}; {lifecycle.told(current)}."
        raise Conflict("transition", told, {"status": current})
    if current not in _MAY_ASK[entity].get(wished, frozenset()):
        raise Forbidden("owner_decides", f"Whether the {entity.value} becomes {wished} the seller's node decides.")


def retry_delay_ms(attempts: int) -> int:
    """How long to wait after so many attempts, 1 or more, that brought nothing."""
    return min(_RETRY_FIRST_MS << min(attempts - 1, 20), _RETRY_MAX_MS)


def has_returned(last_contact_ms: int | None, now_ms: int) -> bool:
    """Whether a node that answers now was away before, as far as this one looked."""
    return last_contact_ms is None or now_ms - last_contact_ms >= ABSENCE_MS


def is_whole_due(compared_whole_at_ms: int, now_ms: int) -> bool:
    """Whether the next comparison begins at the first entry."""
    return now_ms - compared_whole_at_ms >= WHOLE_COMPARISON_MS
