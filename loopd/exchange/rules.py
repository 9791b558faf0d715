"""What the exchange decides, as pure functions: the cost of a bid by this node's own reckoning, and the ranking."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from loopd.protocol.announcement import announced_degrees
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location, between_km
from loopd.protocol.ids import SUBJECT_ID_MAX_CHARACTERS, account_node
from loopd.protocol.json_text import read_json
from loopd.protocol.lifecycle import Lifecycle
from loopd.protocol.limits import BID_MAX_VALIDITY_S, DISTANCE_MAX_KM
from loopd.protocol.loopcost import LoopCost, cross_node_cost, distance_in_cost, local_cost
from loopd.protocol.money import MINOR_PER_LC, parse_amount
from loopd.protocol.quantity import Quantity, parse_quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.timestamps import parse_utc_timestamp
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.signals.rules import SignalReading

# What a bid is valid for where it does not say.
DEFAULT_VALIDITY_MS: Final = 24 * 3600 * 1000

# A business of this city: no place for an @, a capital or a blank, so for no mail address and hardly for a name.
_LOCAL_BIDDER: Final = re.compile(r"[a-z0-9-]{2,80}", re.ASCII)

# This node's bid at another city, as it is known here. The owner's word may follow anything: the answer that would have
# told of its acceptance can get lost, and a replacement can come after the owner has decided.
_OWNERS_WORD: Final = ("selected", "declined")
MADE_BID: Final = Lifecycle(
    "Bid made",
    ("queued",),
    {
        "queued": ("accepted", "refused", "replaced", "withdrawn", "expired", *_OWNERS_WORD),
        "accepted": ("replaced", "withdrawn", "expired", *_OWNERS_WORD),
        "refused": _OWNERS_WORD,
        "replaced": _OWNERS_WORD,
        "withdrawn": _OWNERS_WORD,
        "expired": _OWNERS_WORD,
        "selected": ("declined",),
        "declined": ("selected",),
    },
)


class BidState(StrEnum):
    """A bid at the owner's node."""

    LIVE = "live"
    SELECTED = "selected"
    DECLINED = "declined"
    REPLACED = "replaced"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class MadeBidState(StrEnum):
    """A bid of this node at another one: waiting to be sent, taken or refused there, decided, or overtaken."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    REPLACED = "replaced"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    SELECTED = "selected"
    DECLINED = "declined"


class Unranked(StrEnum):
    """Why a bid has no rank."""

    EXPIRED = "expired"
    SIGNALS_UNKNOWN = "signals_unknown"
    LOCATION_UNKNOWN = "location_unknown"
    DISTANCE_BELOW_GREAT_CIRCLE = "distance_below_great_circle"
    BELOW_ASKING_PRICE = "below_asking_price"
    QUANTITY_ABOVE_AVAILABLE = "quantity_above_available"


class SelectionReason(StrEnum):
    """Why a bid was selected: it ranked first, or somebody named it."""

    LOWEST_LOOP_COST = "lowest_loop_cost"
    BY_HAND = "by_hand"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a bidder offers: the price in hundredths of the seller's LC for `quantity` (None: all of it)."""

    base_minor: int
    quantity: Quantity | None = None
    distance_km: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Bid:
    """A bid on a subject that this node hosts. `offer_id` is the bidder's own name for it, `claimed_minor` its cost."""

    number: int
    subject_id: str
    kind: SubjectKind
    bidder: str
    local: bool
    verified: bool
    terms: Terms
    claimed_minor: int | None
    offer_id: str | None
    issued_at_ms: int | None
    received_at_ms: int
    valid_until_ms: int
    state: BidState
    buyer_account: str | None = None

    def has_expired(self, now_ms: int) -> bool:
        """Whether a bid that is still live is past its `valid_until`; at the moment itself it is."""
        return self.state is BidState.LIVE and self.valid_until_ms <= now_ms


@dataclass(frozen=True, slots=True)
class Judged:
    """A bid with its cost by this node's reckoning, its rank from 1 on, or the reason why it has none."""

    bid: Bid
    cost: LoopCost | None
    unranked: Unranked | None
    stale_signals: bool = False
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """The cost of a bid, or why it cannot be computed."""

    cost: LoopCost | None
    missing: Unranked | None
    stale_signals: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """The way between two nodes: where a subject lies, where it goes, and what both cities charge for it."""

    origin: Location | None
    destination: Location | None
    origin_signal: SignalReading | None
    destination_signal: SignalReading | None


def signal_category(kind: SubjectKind, category: str | None) -> str:
    """The category whose signal counts: a product, and what was announced without one, take `default`."""
    return DEFAULT_SIGNAL if kind is SubjectKind.PRODUCT or category is None else category


def announced_location(location: Location) -> Location:
    """A place as announcements tell it, rounded to 0.01°: both sides must compute from the same."""
    return Location(float(announced_degrees(location.lat)), float(announced_degrees(location.lon)))


def great_circle_km(origin: Location, destination: Location) -> Decimal:
    """The great circle as it enters a cost, to the metre."""
    return distance_in_cost(between_km(origin, destination))


def check_distance(stated_km: Decimal | None, origin: Location | None, destination: Location | None) -> None:
    """Invalid (400) `distance_below_great_circle` where a stated way is shorter than any can be."""
    if stated_km is None or origin is None or destination is None:
        return
    shortest_km = great_circle_km(origin, destination)
    if stated_km < shortest_km:
        raise invalid(
            "distance_below_great_circle",
            "/distance_km",
            f"no way is shorter than the great circle of {shortest_km} km",
            {"great_circle_km": shortest_km},
        )


def bid_cost(terms: Terms, leg: Leg | None) -> Figure:
    """The LoopCost of a bid (§7): inside one node (`leg` None) the base price alone."""
    if leg is None:
        return Figure(local_cost(terms.base_minor), None)
    origin_signal, destination_signal = leg.origin_signal, leg.destination_signal
    if origin_signal is None or destination_signal is None:
        return Figure(None, Unranked.SIGNALS_UNKNOWN)
    # A way that was stated counts only where it can be held against the great circle.
    if leg.origin is None or leg.destination is None:
        return Figure(None, Unranked.LOCATION_UNKNOWN)
    shortest_km = great_circle_km(leg.origin, leg.destination)
    distance_km = shortest_km if terms.distance_km is None else terms.distance_km
    if distance_km < shortest_km:
        return Figure(None, Unranked.DISTANCE_BELOW_GREAT_CIRCLE)
    cost = cross_node_cost(terms.base_minor, origin_signal.basis_points, destination_signal.basis_points, distance_km)
    return Figure(cost, None, origin_signal.stale or destination_signal.stale)


def asking_price(document: Mapping[str, Any]) -> Decimal | None:
    """A record's `metadata.asking_price` in LC, for all of it; None where there is none, or no number."""
    metadata = document.get("metadata")
    stated = metadata.get("asking_price") if isinstance(metadata, Mapping) else None
    if isinstance(stated, bool) or not isinstance(stated, int | Decimal):
        return None
    price = Decimal(stated)
    return price if price.is_finite() and price >= 0 else None


def asking_price_in(document: bytes) -> Decimal | None:
    """The asking price in a record's JSON text."""
    # Most records ask for nothing, and some are large.
    if b"asking_price" not in document:
        return None
    value = read_json(document)
    return asking_price(value) if isinstance(value, dict) else None


def meets_asking_price(terms: Terms, whole: Quantity, asking_lc: Decimal | None) -> bool:
    """Whether the price reaches what is asked, pro rata for a part; compared exactly."""
    if asking_lc is None:
        return True
    offered = Fraction(terms.base_minor, MINOR_PER_LC)
    if terms.quantity is None:
        return offered >= Fraction(asking_lc)
    part, all_of_it = Fraction(terms.quantity.in_base()), Fraction(whole.in_base())
    return offered * all_of_it >= Fraction(asking_lc) * part


def judge(bid: Bid, figure: Figure, whole: Quantity, left: Quantity, asking_lc: Decimal | None, now_ms: int) -> Judged:
    """A bid with its cost and the first reason that keeps it from being ranked.

    `whole` is what was registered, which `asking_lc` is for; `left` what can still be had of it.
    """
    reason, wanted = figure.missing, bid.terms.quantity
    if bid.has_expired(now_ms):
        reason = Unranked.EXPIRED
    elif wanted is not None and wanted.is_more_than(left):
        reason = Unranked.QUANTITY_ABOVE_AVAILABLE
    elif reason is None and not meets_asking_price(bid.terms, whole, asking_lc):
        reason = Unranked.BELOW_ASKING_PRICE
    return Judged(bid, figure.cost, reason, figure.stale_signals)


def claimed_cost(bid: Bid, leg: Leg) -> LoopCost:
    """What a bid costs by its bidder's figure, where this node lacks something to compute its own.

    What this node does know is taken of it first, and what is left is the part that it does not: the import penalty
    stays what the buyer's city reckons, though nobody here knows its signals.
    """
    terms = bid.terms
    left_minor = max(0, (bid.claimed_minor or 0) - terms.base_minor)
    origin, destination = (
        0 if signal is None else signal.basis_points for signal in (leg.origin_signal, leg.destination_signal)
    )
    way_km = _way_km(terms, leg)
    known = cross_node_cost(terms.base_minor, origin, destination, way_km or Decimal(0))
    export_minor = min(known.export_minor, left_minor)
    left_minor -= export_minor
    if leg.destination_signal is None and way_km is not None:
        distance_minor = min(known.distance_minor, left_minor)
        return LoopCost(terms.base_minor, export_minor, left_minor - distance_minor, distance_minor)
    import_minor = min(known.import_minor, left_minor)
    return LoopCost(terms.base_minor, export_minor, import_minor, left_minor - import_minor)


def _way_km(terms: Terms, leg: Leg) -> Decimal | None:
    """The way that counts, no shorter than the great circle; None where a place is not known."""
    if leg.origin is None or leg.destination is None:
        return None
    return max(great_circle_km(leg.origin, leg.destination), terms.distance_km or Decimal(0))


def ranking(judged: Iterable[Judged]) -> list[Judged]:
    """Bids in order: lowest LoopCost first, ties by earliest received, then by number; the unranked after them."""
    candidates: list[tuple[tuple[int, int, int], Judged]] = []
    unranked: list[Judged] = []
    for each in judged:
        if each.unranked is None and each.cost is not None:
            order = (each.cost.total_minor, each.bid.received_at_ms, each.bid.number)
            candidates.append((order, each))
        else:
            unranked.append(each)
    candidates.sort(key=lambda candidate: candidate[0])
    unranked.sort(key=lambda each: (each.bid.received_at_ms, each.bid.number))
    ranked = [
        Judged(each.bid, each.cost, None, each.stale_signals, rank)
        for rank, (_, each) in enumerate(candidates, start=1)
    ]
    return ranked + unranked


def is_local_bidder(name: str, node_id: str) -> bool:
    """Whether a local bid may be made under this name: a business of this city, or the node itself."""
    return name == node_id or _LOCAL_BIDDER.fullmatch(name) is not None


def read_price(value: Mapping[str, Any], key: str) -> int:
    """An amount of a document in hundredths of an LC; Invalid (400) `bad_amount` with its pointer."""
    try:
        return parse_amount(value[key])
    except ValueError as error:
        raise invalid("bad_amount", f"/{key}", str(error)) from None


def read_terms(value: Mapping[str, Any], default_unit: str | None) -> Terms:
    """The terms in a MaterialOffer or in a bidder's request whose form is checked.

    Invalid (400) with the place: `bad_amount`, `bad_quantity`, `bad_distance`.
    """
    base_minor = read_price(value, "base_price")
    quantity = None
    if value.get("quantity") is not None:
        try:
            quantity = parse_quantity(value["quantity"], value.get("unit") or default_unit or "")
        except ValueError as error:
            raise invalid("bad_quantity", "/quantity", str(error)) from None
        if quantity.value == 0:
            raise invalid("bad_quantity", "/quantity", "a bid is for more than nothing")
    distance_km = None
    if value.get("distance_km") is not None:
        distance_km = Decimal(value["distance_km"])
        if not distance_km.is_finite() or not 0 <= distance_km <= DISTANCE_MAX_KM:
            raise invalid("bad_distance", "/distance_km", f"a distance lies between 0 and {DISTANCE_MAX_KM} km")
    return Terms(base_minor, quantity, distance_km)


def read_account(value: Mapping[str, Any], key: str, node_id: str) -> str | None:
    """An account that a document may name; Invalid (400) `bad_account` for what is none, or none of that node."""
    stated = value.get(key)
    if stated is None:
        return None
    if not isinstance(stated, str) or len(stated) > SUBJECT_ID_MAX_CHARACTERS or account_node(stated) != node_id:
        raise invalid("bad_account", f"/{key}", f"an account is named like business:farm@{node_id}")
    return stated


def account_in(document: bytes, node_id: str) -> str | None:
    """The account that a record's owner is paid to (`metadata.seller_account`); None where it names none."""
    if b"seller_account" not in document:
        return None
    value = read_json(document)
    metadata = value.get("metadata") if isinstance(value, Mapping) else None
    stated = metadata.get("seller_account") if isinstance(metadata, Mapping) else None
    return stated if isinstance(stated, str) and account_node(stated) == node_id else None


def read_moment(value: Mapping[str, Any], key: str) -> int:
    """A timestamp of a document; Invalid (400) `bad_time` with its pointer."""
    try:
        return parse_utc_timestamp(value[key])
    except (TypeError, ValueError):
        raise invalid("bad_time", f"/{key}", "a time is ISO 8601 with a zone, in the years 1 to 9999") from None


def read_validity(value: Mapping[str, Any], now_ms: int) -> int | None:
    """The end of a bid as its maker asks for it, `valid_until` or `valid_for_s`; None where it leaves that open.

    Invalid (400): `bad_time` for both at once or an unreadable one, `expired` for one that has passed.
    """
    if value.get("valid_until") is not None and value.get("valid_for_s") is not None:
        raise invalid("bad_time", "/valid_for_s", "a bid has one end: valid_until or valid_for_s")
    if value.get("valid_for_s") is not None:
        until_ms = now_ms + int(value["valid_for_s"]) * 1000
    elif value.get("valid_until") is not None:
        until_ms = read_moment(value, "valid_until")
    else:
        return None
    if until_ms <= now_ms:
        raise invalid("expired", "/valid_until", "a bid ends in the future")
    if until_ms > now_ms + BID_MAX_VALIDITY_S * 1000:
        raise invalid("bad_time", "/valid_until", f"a bid is valid for at most {BID_MAX_VALIDITY_S} s")
    return until_ms


def check_quantity(terms: Terms, whole: Quantity | None) -> None:
    """Invalid (400) where a bid wants what cannot be had: `unit_mismatch`, `quantity_above_available`."""
    if terms.quantity is None or whole is None:
        return
    if terms.quantity.dimension is not whole.dimension:
        raise invalid("unit_mismatch", "/unit", f"{terms.quantity.unit} cannot be compared with {whole.unit}")
    if terms.quantity.is_more_than(whole):
        message = f"only {whole.value:f} {whole.unit} is available"
        raise invalid("quantity_above_available", "/quantity", message)


def invalid(reason: str, pointer: str, message: str, details: Mapping[str, Any] | None = None) -> Invalid:
    """400 that names the place, as a schema's violation does."""
    errors = [{"pointer": pointer, "rule": reason, "message": message}]
    told = f"{pointer}: {message}" if pointer else message
    return Invalid(reason, told, {"errors": errors, **(details or {})})
