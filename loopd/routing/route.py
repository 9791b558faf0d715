"""Where something should go: all destinations by LoopCost, page by page, and the ladder of overflow. Pure."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loopd.gossip.rings import Ring
from loopd.protocol.errors import Invalid
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.subjects import SubjectKind
from loopd.routing.atlas import Atlas, Departure, Ranked
from loopd.routing.demands import Demand
from loopd.routing.ladder import Opened, Rung, climb, rings_of
from loopd.signals.rules import SignalReading

_POSITION: Final = re.compile(r"(\d{1,19})\.(\d{1,8})\.([a-z0-9-]{1,200}\.loop)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the ranking, by what it is ranked by: what changes meanwhile moves no other destination."""

    total_minor: int
    metres: int
    node_id: str

    def text(self) -> str:
        """As a page's cursor."""
        return f"{self.total_minor}.{self.metres}.{self.node_id}"


@dataclass(frozen=True, slots=True)
class Question:
    """What is to go somewhere, for which price, from where, and who looks for it.

    `ours`: this node offers it, and `opened` tells how far; None for what is not on offer.
    """

    subject_id: str
    kind: SubjectKind
    category: str
    base_minor: int
    departure: Departure
    export: SignalReading
    demands: Mapping[str, Sequence[Demand]]
    rings: Sequence[Ring]
    opened: Opened | None
    ours: bool
    wanted_only: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A destination on a page; `ring` is its rung on the ladder."""

    rank: int
    node_id: str
    cost: LoopCost
    metres: int
    ring: int | None
    stale_signals: bool
    demands: Sequence[Demand]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a ranking, with what holds for all of it. `following` is where the next page begins."""

    entries: Sequence[Entry]
    total: int
    ladder: Sequence[Rung]
    signals_unknown: Sequence[str]
    location_unknown: Sequence[str]
    following: Position | None


def read_position(text: str) -> Position:
    """A cursor as `Position.text` wrote it; Invalid (400) `bad_cursor`."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise Invalid("bad_cursor", "The cursor is not one of this route: post the same body to `next`, as it came.")
    return Position(int(match.group(1)), int(match.group(2)), match.group(3))


def page_of(question: Question, atlas: Atlas, after: Position | None, limit: int, now_ms: int) -> Page:
    """The page of a ranking that begins after a position, the first where that is None."""
    departure, category = question.departure, question.category
    ranking = atlas.rank(question.base_minor, departure, category)
    wanting = {index for node_id in question.demands if (index := atlas.index_of(node_id)) is not None}
    # Announcements are measured from the node, a batch's way from where the batch lies.
    home = atlas.find(departure.node_id)
    offered_from = departure.location if home is None or home.location is None else home.location
    standing = rings_of(atlas, question.rings, departure.node_id, atlas.metres_from(offered_from))
    ladder = climb(question.rings, question.opened, standing, ranking.ranked, wanting, ours=question.ours)
    shown = [entry for entry in ranking.ranked if entry[2] in wanting] if question.wanted_only else ranking.ranked
    begin = 0 if after is None else _place_after(shown, atlas, after)
    entries = [
        _entry(question, atlas, standing, ranked, rank, now_ms)
        for rank, ranked in enumerate(shown[begin : begin + limit], start=begin + 1)
    ]
    following = None
    if entries and begin + limit < len(shown):
        total_minor, metres, index = shown[begin + limit - 1]
        following = Position(total_minor, metres, atlas.places[index].node_id)
    return Page(entries, len(shown), ladder, ranking.signals_unknown, ranking.location_unknown, following)


def _entry(
    question: Question, atlas: Atlas, standing: Sequence[int | None], ranked: Ranked, rank: int, now_ms: int
) -> Entry:
    _, metres, index = ranked
    place = atlas.places[index]
    cost = atlas.cost_at(question.base_minor, question.departure, question.category, ranked)
    stale = question.export.stale or (place.configuration is not None and now_ms >= place.configuration.valid_until_ms)
    away = place.node_id != question.departure.node_id
    return Entry(
        rank, place.node_id, cost, metres, standing[index], away and stale, question.demands.get(place.node_id, ())
    )


def _place_after(shown: Sequence[Ranked], atlas: Atlas, after: Position) -> int:
    index = atlas.index_of(after.node_id)
    if index is not None:
        return bisect_right(shown, (after.total_minor, after.metres, index))
    # The node is not known any more: what would have followed it does.
    return bisect_left(shown, (after.total_minor, after.metres, atlas.index_after(after.node_id)))
