"""Whom to have as peers: the mix of §9.4 by distance, kept against strangers' wishes, and isolation noticed.

    Acquaintances        who is known without being a peer: learned from peers' registries, bounded for each teller
    plan(...) -> Plan    whom to dial next, whom to let go, what the mix lacks, and how isolated this node is
    inbound_room(...)    how many more strangers may become peers by asking

Strangers can make themselves many, and say where they are as they like. What they cannot do is take the places that
this node fills by its own choice: inbound peers count neither towards the least of a band nor towards these places.
Nor can one teller choose for this node: whom to dial is drawn by lot, first among the tellers and then among those whom
the drawn one named, so that naming ten thousand nodes gains nothing over naming one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeVar

from loopd.gossip.health import DEFAULT_TIMING, State, Timing, backoff_ms
from loopd.protocol.geo import Location, between_km
from loopd.protocol.ids import is_node_id
from loopd.protocol.limits import LEARNED_NODES_MAX, LEARNED_NODES_PER_TELLER_MAX
from loopd.protocol.nodes import Standing

NEARBY_BELOW_KM: Final = 200.0
REGIONAL_UP_TO_KM: Final = 1000.0
# Dialled at a time while the mix lacks something, and while there is nobody at all.
_DIALS_AT_ONCE: Final = 3
_DIALS_WHEN_ALONE: Final = 8
# How a candidate may stand to this node: unknown, or only heard of.
_DIALLED: Final = (None, Standing.INTRODUCED)

T = TypeVar("T")
Draw = Callable[[], float]


class Band(StrEnum):
    """How far a peer is (§9.4)."""

    NEARBY = "nearby"  # below 200 km
    REGIONAL = "regional"  # 200 to 1000 km
    DISTANT = "distant"  # beyond


@dataclass(frozen=True, slots=True)
class Share:
    """How many peers of a band there should be."""

    least: int
    most: int


Mix = Mapping[Band, Share]
MIX: Final[Mix] = {Band.NEARBY: Share(3, 5), Band.REGIONAL: Share(2, 3), Band.DISTANT: Share(1, 2)}


def own_places(mix: Mix = MIX) -> int:
    """How many places this node fills by its own choice."""
    return sum(share.most for share in mix.values())


OWN_PLACES: Final = own_places()


class Origin(StrEnum):
    """How a peer came to be one."""

    OPERATOR = "operator"  # named by the operator: never let go
    OUTBOUND = "outbound"  # dialled by this node's own choice
    INBOUND = "inbound"  # it asked


class Isolation(StrEnum):
    """How cut off this node is: one code, the first that holds."""

    ALONE = "alone"  # no peer can be reached
    CALLED_ONLY = "called_only"  # every peer that can be reached came by itself
    ONE_TELLER = "one_teller"  # all that were dialled were named by the same peer
    ISLAND = "island"  # nobody beyond the nearby ones
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CurrentPeer:
    """A peer. `teller` is who named it before this node dialled it; None for the operator's and for inbound ones."""

    node_id: str
    location: Location | None
    state: State
    origin: Origin
    since_ms: int
    teller: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether it fills its place: a peer that is only suspected, or being worked on, does."""
        return self.state not in (State.UNREACHABLE, State.SUSPENDED)

    @property
    def is_chosen(self) -> bool:
        """Whether this node or its operator chose it."""
        return self.origin is not Origin.INBOUND


@dataclass(frozen=True, slots=True)
class Candidate:
    """One teller's word of a node that could be a peer. `next_dial_ms` is milliseconds since the epoch."""

    node_id: str
    teller: str
    endpoint: str
    location: Location | None
    standing: Standing | None = None
    next_dial_ms: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `missing`: how many chosen peers each band lacks to its least, bands that lack none left out.

    `adopt`: words of peers that came by themselves, to be counted as this node's choice from now on. In a small
    federation everybody has called here already, and nobody is left to dial.
    """

    dial: tuple[Candidate, ...]
    let_go: tuple[str, ...]
    missing: Mapping[Band, int]
    isolation: Isolation
    adopt: tuple[Candidate, ...] = ()


def band_of(own: Location, other: Location | None) -> Band | None:
    """The band of a place; None where it is not known."""
    if other is None:
        return None
    apart_km = between_km(own, other)
    if apart_km < NEARBY_BELOW_KM:
        return Band.NEARBY
    return Band.REGIONAL if apart_km <= REGIONAL_UP_TO_KM else Band.DISTANT


def inbound_room(peers: Iterable[CurrentPeer], peers_max: int, mix: Mix = MIX) -> int:
    """How many more nodes may become peers by asking: never one of the places for this node's own choice.

    Where there are too few places for both, half of them are kept.
    """
    chosen, inbound = 0, 0
    for peer in peers:
        chosen, inbound = chosen + peer.is_chosen, inbound + (not peer.is_chosen)
    kept = min(own_places(mix), (peers_max + 1) // 2)
    return max(0, peers_max - max(kept, chosen) - inbound)


def plan(
    own: Location,
    peers: Sequence[CurrentPeer],
    candidates: Iterable[Candidate],
    now_ms: int,
    draw: Draw,
    peers_max: int,
    mix: Mix = MIX,
) -> Plan:
    """Whom to dial and whom to let go. `draw` gives random numbers from 0 to 1; the same ones give the same plan.

    A candidate that has asked to be a peer, or was set aside, is not dialled: the operator decides about it.
    """
    known = {peer.node_id for peer in peers}
    named = list(candidates)
    free = [each for each in named if each.node_id not in known and each.standing in _DIALLED]
    free.sort(key=lambda each: (each.node_id, each.teller))
    isolation = isolation_of(own, peers)
    by_band = _chosen_by_band(own, peers)
    missing = {
        band: share.least - len(by_band[band]) for band, share in mix.items() if len(by_band[band]) < share.least
    }
    room = max(0, peers_max - len(peers))
    if isolation is Isolation.ALONE:
        dial = _anybody(free, now_ms, min(_DIALS_WHEN_ALONE, max(room, 1)), draw)
    else:
        due = [each for each in free if each.next_dial_ms <= now_ms]
        dial = _for_the_mix(own, due, missing, min(_DIALS_AT_ONCE, room), draw, mix)
        if isolation is Isolation.ONE_TELLER and not dial and room > 0:
            dial = _second_opinion(own, due, by_band, _only_teller(peers), draw, mix)
    adopt = [] if dial else _for_the_mix(own, _called_here(peers, named), missing, _DIALS_AT_ONCE, draw, mix)
    return Plan(tuple(dial), _surplus(by_band, mix), missing, isolation, tuple(adopt))


def isolation_of(own: Location, peers: Iterable[CurrentPeer]) -> Isolation:
    """How cut off this node is."""
    there = [peer for peer in peers if peer.state is State.ACTIVE]
    if not there:
        return Isolation.ALONE
    if not any(peer.is_chosen for peer in there):
        return Isolation.CALLED_ONLY
    if _only_teller(there) is not None:
        return Isolation.ONE_TELLER
    if all(band_of(own, peer.location) is Band.NEARBY for peer in there):
        return Isolation.ISLAND
    return Isolation.NONE


def _chosen_by_band(own: Location, peers: Iterable[CurrentPeer]) -> dict[Band, list[CurrentPeer]]:
    """The peers of this node's or its operator's choice that are there."""
    by_band: dict[Band, list[CurrentPeer]] = {band: [] for band in Band}
    for peer in peers:
        band = band_of(own, peer.location)
        if band is not None and peer.is_there and peer.is_chosen:
            by_band[band].append(peer)
    return by_band


def _called_here(peers: Iterable[CurrentPeer], named: Iterable[Candidate]) -> list[Candidate]:
    """Words of others about active inbound peers, with the place that the peer itself gives, which must be known."""
    places = {
        peer.node_id: peer.location
        for peer in peers
        if peer.origin is Origin.INBOUND and peer.state is State.ACTIVE and peer.location is not None
    }
    found = [replace(each, location=places[each.node_id]) for each in named if each.node_id in places]
    return sorted(found, key=lambda each: (each.node_id, each.teller))


def _only_teller(peers: Iterable[CurrentPeer]) -> str | None:
    """Who named every one of the chosen peers; None where they are fewer than two, or the operator named any."""
    chosen = [peer for peer in peers if peer.is_there and peer.is_chosen]
    tellers = {peer.teller for peer in chosen}
    if len(chosen) < 2 or len(tellers) > 1 or any(peer.origin is Origin.OPERATOR for peer in chosen):
        return None
    return tellers.pop()


def _anybody(free: Sequence[Candidate], now_ms: int, count: int, draw: Draw) -> list[Candidate]:
    """There is nobody to keep a mix with: whoever is due, else those that are soonest."""
    due = [each for each in free if each.next_dial_ms <= now_ms]
    soonest = sorted(free, key=lambda each: each.next_dial_ms)[:_DIALS_WHEN_ALONE]
    return _drawn(due or soonest, count, draw)


def _for_the_mix(
    own: Location, due: Sequence[Candidate], missing: Mapping[Band, int], count: int, draw: Draw, mix: Mix
) -> list[Candidate]:
    """The bands that lack most come first. A node of unknown place may be anywhere: it comes after all others."""
    dial: list[Candidate] = []
    for band in sorted(missing, key=lambda each: -missing[each] / mix[each].least):
        named = [each for each in due if band_of(own, each.location) is band]
        dial += _drawn(named, min(missing[band], count - len(dial)), draw, dial)
    lacking = min(sum(missing.values()), count) - len(dial)
    return dial + _drawn([each for each in due if each.location is None], lacking, draw, dial)


def _second_opinion(
    own: Location,
    due: Sequence[Candidate],
    by_band: Mapping[Band, Sequence[CurrentPeer]],
    only_teller: str | None,
    draw: Draw,
    mix: Mix,
) -> list[Candidate]:
    """One that somebody else named, where the mix has room for it."""
    named = []
    for candidate in due:
        band = band_of(own, candidate.location)
        if candidate.teller != only_teller and band is not None and len(by_band[band]) < mix[band].most:
            named.append(candidate)
    return _drawn(named, 1, draw)


def _drawn(candidates: Sequence[Candidate], count: int, draw: Draw, taken: Sequence[Candidate] = ()) -> list[Candidate]:
    """So many by lot, each node once: a teller, then one that it named."""
    gone = {each.node_id for each in taken}
    chosen: list[Candidate] = []
    left = [each for each in candidates if each.node_id not in gone]
    while left and len(chosen) < count:
        teller = _one(sorted({each.teller for each in left}), draw)
        candidate = _one([each for each in left if each.teller == teller], draw)
        chosen.append(candidate)
        left = [each for each in left if each.node_id != candidate.node_id]
    return chosen


def _one(items: Sequence[T], draw: Draw) -> T:
    return items[min(int(draw() * len(items)), len(items) - 1)]


def _surplus(chosen: Mapping[Band, Sequence[CurrentPeer]], mix: Mix) -> tuple[str, ...]:
    """Own peers beyond a band's most, as when one that was replaced came back: the youngest go.

    The operator's stay, and those that have been there longest, who are the hardest for an attacker to have planted.
    """
    gone: list[str] = []
    for band, share in mix.items():
        dialled = sorted(
            (peer for peer in chosen[band] if peer.origin is Origin.OUTBOUND),
            key=lambda peer: (-peer.since_ms, peer.node_id),
        )
        gone += [peer.node_id for peer in dialled[: max(0, len(chosen[band]) - share.most)]]
    return tuple(gone)


@dataclass(frozen=True, slots=True)
class Listed:
    """A node as a peer's registry lists it."""

    node_id: str
    endpoint: str
    location: Location | None


@dataclass(frozen=True, slots=True)
class _Tried:
    """What came of dialling a node, and where it says that it is, once it was asked."""

    failures: int = 0
    first_failure_ms: int | None = None
    next_dial_ms: int = 0
    location: Location | None = None


class Acquaintances:
    """Nodes that peers told of, and what came of dialling them. `timing` gives the back-off.

    Each teller may name `LEARNED_NODES_PER_TELLER_MAX`; of a longer list a part drawn by lot is taken. All words
    together are at most `LEARNED_NODES_MAX`; beyond, whoever named most loses some, by lot. Every teller's word stands
    for itself, so nobody can hide a node by naming it first with a false endpoint.
    """

    def __init__(self, own_id: str, timing: Timing = DEFAULT_TIMING) -> None:
        self._own_id = own_id
        self._timing = timing
        self._said: dict[str, dict[str, Listed]] = {}
        self._tried: dict[str, _Tried] = {}

    def candidates(self, standings: Mapping[str, Standing]) -> list[Candidate]:
        """Every word that stands. `standings` says how the nodes stand that this node knows already."""
        found = []
        for teller, said in self._said.items():
            for node_id, listed in said.items():
                tried = self._tried.get(node_id, _Tried())
                found.append(
                    Candidate(
                        node_id,
                        teller,
                        listed.endpoint,
                        tried.location or listed.location,
                        standings.get(node_id),
                        tried.next_dial_ms,
                    )
                )
        return found

    def told(self, teller: str, listed: Iterable[Listed], draw: Draw) -> None:
        """A peer's registry, whole: it replaces what the peer said before."""
        named = {each.node_id: each for each in listed if self._is_acceptable(each, teller)}
        self.forget_teller(teller)
        names = sorted(named)
        if len(names) > LEARNED_NODES_PER_TELLER_MAX:
            names = sorted(names, key=lambda _: draw())[:LEARNED_NODES_PER_TELLER_MAX]
        if names:
            self._said[teller] = {node_id: named[node_id] for node_id in names}
        for _ in range(sum(map(len, self._said.values())) - LEARNED_NODES_MAX):
            loudest = self._said[max(sorted(self._said), key=lambda each: len(self._said[each]))]
            del loudest[_one(sorted(loudest), draw)]

    def forget_teller(self, teller: str) -> None:
        """The teller is no peer any more: what it said is forgotten."""
        self._said.pop(teller, None)

    def answered(self, node_id: str, location: Location | None) -> None:
        """The node itself answered, and said where it is."""
        self._note(node_id, _Tried(location=location))

    def dial_failed(self, node_id: str, now_ms: int, draw: Draw) -> None:
        """It did not answer, or refused: not again before a growing wait, whoever names it."""
        tried = self._tried.get(node_id, _Tried())
        first_ms = now_ms if tried.first_failure_ms is None else min(tried.first_failure_ms, now_ms)
        failures = tried.failures + 1
        wait_ms = backoff_ms(failures, now_ms - first_ms, draw(), self._timing)
        self._note(node_id, _Tried(failures, first_ms, now_ms + wait_ms, tried.location))

    def set_aside(self, node_id: str, until_ms: int) -> None:
        """It had its time, and came to nothing: others have their turn first."""
        tried = self._tried.get(node_id, _Tried())
        self._note(node_id, replace(tried, next_dial_ms=until_ms))

    def _note(self, node_id: str, tried: _Tried) -> None:
        """The newest stand last; the oldest go."""
        self._tried.pop(node_id, None)
        self._tried[node_id] = tried
        if len(self._tried) > LEARNED_NODES_MAX:
            del self._tried[next(iter(self._tried))]

    def _is_acceptable(self, listed: Listed, teller: str) -> bool:
        return listed.node_id not in (self._own_id, teller) and is_node_id(listed.node_id) and bool(listed.endpoint)
