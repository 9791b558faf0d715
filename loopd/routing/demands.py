"""Demand (wanted), as pure functions: what is asked for, and which supply fits it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from loopd.exchange.rules import Terms, announced_location, invalid, meets_asking_price, read_moment
from loopd.protocol.geo import MEAN_EARTH_RADIUS_KM, Location
from loopd.protocol.limits import DEMAND_MAX_VALIDITY_MS, DEMAND_RADIUS_MAX_KM
from loopd.protocol.money import parse_amount
from loopd.protocol.quantity import Quantity, parse_quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES, PRODUCT_CATEGORIES, category_matches
from loopd.routing.rules import lies_within

TYPE: Final = "LoopDemand"
CATEGORY_KEYS: Final[Mapping[SubjectKind, str]] = {
    SubjectKind.MATERIAL: "category",
    SubjectKind.PRODUCT: "product_category",
}
_CATEGORIES: Final[Mapping[SubjectKind, tuple[str, ...]]] = {
    SubjectKind.MATERIAL: MATERIAL_CATEGORIES,
    SubjectKind.PRODUCT: PRODUCT_CATEGORIES,
}
# A business of this city: no place for an @, a capital or a blank, so for no mail address and hardly for a name.
_BUSINESS: Final = re.compile(r"[a-z0-9-]{2,80}", re.ASCII)
_KM_PER_DEGREE: Final = MEAN_EARTH_RADIUS_KM * 3.141592653589793 / 180
# What is computed in floating point must not leave out what lies at the very edge.
_MARGIN_DEGREES: Final = 0.001


class DemandState(StrEnum):
    """How a demand stands. What its owner closed was `fulfilled` or `withdrawn`."""

    OPEN = "open"
    FULFILLED = "fulfilled"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a node's city looks for: so much of a category, from within a radius, for at most a price.

    `pattern` is a category, or the beginning of some and `*`. `max_price_minor` is in hundredths of the seller's LC for
    all of `quantity`. `number` is this node's own.
    """

    number: int
    demand_id: str
    node_id: str
    own: bool
    verified: bool
    wanted_by: str | None
    kind: SubjectKind
    pattern: str
    quantity: Quantity
    max_price_minor: int | None
    radius_km: Decimal | None
    location: Location | None
    issued_at_ms: int
    valid_until_ms: int
    state: DemandState
    version: int
    changed_at_ms: int

    def is_open(self, now_ms: int) -> bool:
        """Whether it is still looked for; at its end it is not."""
        return self.state is DemandState.OPEN and now_ms < self.valid_until_ms

    def state_at(self, now_ms: int) -> DemandState:
        """How it stands now, whether or not anybody wrote down that its time is over."""
        over = self.state is DemandState.OPEN and now_ms >= self.valid_until_ms
        return DemandState.EXPIRED if over else self.state

    @property
    def latitudes(self) -> tuple[float, float]:
        """Between these lies all that the radius reaches."""
        if self.radius_km is None or self.location is None:
            return -90.0, 90.0
        reach = float(self.radius_km) / _KM_PER_DEGREE + _MARGIN_DEGREES
        return self.location.lat - reach, self.location.lat + reach


@dataclass(frozen=True, slots=True)
class Supply:
    """What there is of a material or product at a node. `left` is what can still be had of `whole`.

    None for what nobody said. `asking_lc` is asked for the whole.
    """

    node_id: str
    subject_id: str
    kind: SubjectKind
    category: str | None
    left: Quantity | None
    whole: Quantity | None
    location: Location | None
    asking_lc: Decimal | None
    ends_ms: int | None


def fits(demand: Demand, supply: Supply) -> bool:
    """Whether a supply serves a demand: category, at least the quantity, the price pro rata, inside the radius.

    What nobody asks a price for is not too dear. Without its place nothing lies inside a radius.
    """
    if supply.kind is not demand.kind or supply.category is None or supply.left is None:
        return False
    if not category_matches(supply.category, demand.pattern):
        return False
    if supply.left.dimension is not demand.quantity.dimension or demand.quantity.is_more_than(supply.left):
        return False
    if demand.max_price_minor is not None and supply.whole is not None:
        terms = Terms(demand.max_price_minor, demand.quantity)
        if not meets_asking_price(terms, supply.whole, supply.asking_lc):
            return False
    if demand.radius_km is None:
        return True
    if demand.location is None or supply.location is None:
        return False
    return lies_within(demand.location, supply.location, demand.radius_km)


def asked_for(supply: Supply, quantity: Quantity) -> int:
    """What is asked for a part of a supply in hundredths of an LC, rounded half-even; 0 where nothing is."""
    if supply.asking_lc is None or supply.whole is None or supply.whole.value == 0:
        return 0
    share = Fraction(quantity.in_base()) / Fraction(supply.whole.in_base())
    return round(Fraction(supply.asking_lc) * 100 * share)


def patterns_for(category: str) -> list[str]:
    """Every pattern that a category fits."""
    return [category, *(f"{category[:end]}*" for end in range(len(category) + 1))]


def categories_of(kind: SubjectKind, pattern: str) -> list[str]:
    """The categories that fit a pattern."""
    return [category for category in _CATEGORIES[kind] if category_matches(category, pattern)]


@dataclass(frozen=True, slots=True)
class Wish:
    """A demand as a request or a document states it, without who wants it and since when."""

    kind: SubjectKind
    pattern: str
    quantity: Quantity
    max_price_minor: int | None
    radius_km: Decimal | None
    location: Location | None


def read_wish(value: Mapping[str, Any], pointer: str = "") -> Wish:
    """What is wanted, of a request or a LoopDemand whose form is checked; `pointer` is its place in a larger one.

    Invalid (400), the place named: `unknown_category`, `bad_quantity`, `bad_amount`, `bad_radius`.
    """
    named = [kind for kind, key in CATEGORY_KEYS.items() if key in value]
    if len(named) != 1:
        message = "name a category of materials or of products, one of the two"
        raise invalid("unknown_category", f"{pointer}/category", message)
    kind = named[0]
    pattern = value[CATEGORY_KEYS[kind]]
    if not categories_of(kind, pattern):
        raise invalid("unknown_category", f"{pointer}/{CATEGORY_KEYS[kind]}", "no category fits it")
    try:
        quantity = parse_quantity(value["quantity"], value["unit"])
    except ValueError as error:
        raise invalid("bad_quantity", f"{pointer}/quantity", str(error)) from None
    if quantity.value == 0:
        raise invalid("bad_quantity", f"{pointer}/quantity", "a demand is for more than nothing")
    max_price_minor = None
    if value.get("max_price") is not None:
        try:
            max_price_minor = parse_amount(value["max_price"])
        except ValueError as error:
            raise invalid("bad_amount", f"{pointer}/max_price", str(error)) from None
    stated = value.get("location")
    location = None if stated is None else announced_location(Location(float(stated["lat"]), float(stated["lon"])))
    radius_km = _radius_km(value.get("radius_km"), f"{pointer}/radius_km")
    return Wish(kind, pattern, quantity, max_price_minor, radius_km, location)


def read_wanted_by(value: Mapping[str, Any]) -> str | None:
    """The business that something is wanted for; Invalid (400) `bad_business`."""
    name = value.get("wanted_by")
    if name is not None and _BUSINESS.fullmatch(name) is None:
        raise invalid("bad_business", "/wanted_by", "a business of this city is 2 to 80 of a-z, 0-9 and -")
    return name


def read_end(value: Mapping[str, Any], now_ms: int) -> int:
    """When another node's demand ends: as it says, and never later than one made now could. Invalid `bad_time`."""
    return min(read_moment(value, "valid_until"), now_ms + DEMAND_MAX_VALIDITY_MS)


def _radius_km(stated: Decimal | int | None, pointer: str) -> Decimal | None:
    if stated is None:
        return None
    radius_km = Decimal(stated)
    if not radius_km.is_finite() or not 0 < radius_km <= DEMAND_RADIUS_MAX_KM:
        raise invalid("bad_radius", pointer, f"a radius is more than 0 and at most {DEMAND_RADIUS_MAX_KM} km")
    # Distances are known to the metre: finer digits decide nothing.
    return radius_km.quantize(Decimal("0.001"), rounding=ROUND_DOWN)
