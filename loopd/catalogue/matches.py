"""Results of a search before they are shown: what they would cost, which are within the bound, what fits a page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from loopd.catalogue.cursor import Position
from loopd.catalogue.sections import category_of
from loopd.exchange.rules import Figure, Leg, Terms, announced_location, bid_cost, signal_category
from loopd.protocol.geo import Location
from loopd.protocol.limits import LIST_MAX_BYTES
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.subjects import SubjectKind
from loopd.signals.rules import SignalReading


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that matches a search. `record_number` is None for what another city announced."""

    position: Position
    record_number: int | None
    size_bytes: int
    section: int
    place: Location | None
    at_home: bool
    asking_minor: int | None
    base_quantity: str | None
    left_base_quantity: str | None
    figure: Figure | None = None

    @property
    def cost(self) -> LoopCost | None:
        """What it would cost, where that was reckoned and could be."""
        return None if self.figure is None else self.figure.cost


@dataclass(frozen=True, slots=True)
class Signals:
    """What both cities charge for a category."""

    origin: SignalReading
    destination: SignalReading


@dataclass(frozen=True, slots=True)
class Way:
    """From this node to another one: where that is, and the signals of each category that is searched for."""

    destination: Location
    signals: Mapping[str, Signals]


def price_minor(match: Match) -> int | None:
    """What is asked for what is left, pro rata and rounded half-even; None where no price is named."""
    asking_minor, base, left = match.asking_minor, match.base_quantity, match.left_base_quantity
    if asking_minor is None or base is None or left is None or left == base:
        return asking_minor
    return round(asking_minor * Fraction(Decimal(left)) / Fraction(Decimal(base)))


def with_cost(match: Match, kind: SubjectKind, way: Way | None) -> Match:
    """The match with its LoopCost at the price asked (§7): inside this node (`way` None) the price alone."""
    price = price_minor(match)
    if price is None:
        return match
    if way is None or match.place is None:
        return replace(match, figure=bid_cost(Terms(price), None))
    signals = way.signals[signal_category(kind, category_of(match.section))]
    # What is not announced with a place of its own lies where its node does, to the last digit.
    origin = match.place if match.at_home else announced_location(match.place)
    leg = Leg(origin, way.destination, signals.origin, signals.destination)
    return replace(match, figure=bid_cost(Terms(price), leg))


def within_cost(matches: Iterable[Match], max_cost_minor: int) -> list[Match]:
    """Those whose cost is known and not above the bound."""
    return [match for match in matches if match.cost is not None and match.cost.total_minor <= max_cost_minor]


def in_order(matches: Iterable[Match], after: Position | None, *, nearest: bool) -> list[Match]:
    """Matches as a search shows them, nearest or newest first; those after a position."""
    key: Callable[[Position], tuple[float, int]] = _nearest if nearest else _newest
    later = (match for match in matches if after is None or key(match.position) > key(after))
    return sorted(later, key=lambda match: key(match.position))


def fit_page(matches: Sequence[Match], limit: int) -> tuple[Sequence[Match], bool]:
    """The matches of one page, as many as `limit` and the size of a list allow; and whether others follow."""
    size_bytes = 0
    for shown, match in enumerate(matches[:limit], start=1):
        size_bytes += match.size_bytes
        if size_bytes >= LIST_MAX_BYTES or shown == limit:
            return matches[:shown], shown < len(matches)
    return matches, False


def _nearest(position: Position) -> tuple[float, int]:
    return position.chord, position.number


def _newest(position: Position) -> tuple[float, int]:
    return 0.0, -position.number
