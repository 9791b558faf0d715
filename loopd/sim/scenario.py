"""What a run is to be: every fault and load as a number, drawn from one seed or given by hand."""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final

from loopd.sim.places import SHAPES

# The clocks of two nodes differ by at most twice this, which the 300 s of §9.3 bear.
SKEW_MAX_MS: Final = 140_000
# After the last fault everything that is in scope and valid must have arrived within this.
HEALED_WITHIN_S: Final = 60.0


class Kind(StrEnum):
    """Kinds of drawn runs."""

    BALL = "ball"  # static links, honest nodes: exactly the ball
    CHURN = "churn"  # links come and go
    FAULTS = "faults"  # loss, cuts, crashes, lost disks, everything that heals
    MALICE = "malice"  # some nodes attack
    KILLS = "kills"  # nodes killed while messages are under way
    HEALTH = "health"  # faults that heal, and nodes that never come back


class Attack(StrEnum):
    """What a malicious node does."""

    FORGED_TTL = "forged_ttl"  # passes on with a TTL that it cannot prove
    REPEATED_HOP = "repeated_hop"  # passes on its own TTL and value, unhashed
    JUNK = "junk"  # altered bodies, bytes that are no batch
    SILENCE = "silence"  # takes everything and says nothing
    EMPTY_HAVE = "empty_have"  # offers ids and never gives the body


@dataclass(frozen=True, slots=True)
class Cut:
    """A partition: a drawn part of the nodes is cut off from the rest between two moments, seconds."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """One node is killed and comes back, seconds from the start; `wiped`: with an empty disk."""

    node: int
    at_s: float
    back_s: float
    wiped: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. Probabilities are 0 to 1, times seconds from its start."""

    seed: int
    nodes: int = 50
    shape: str = "mix"
    # Each origin says so many messages, one every `gap_s`; the first `subjects` of them are of different subjects.
    messages: int = 1
    origins: int = 1
    gap_s: float = 2.0
    subjects: int = 1_000_000
    radius_km: tuple[float | None, ...] = (None,)
    validity_s: tuple[int, ...] = (86_400,)
    # Packets lost, requests of §8.2 delivered twice, and pairs of peers that speak only those.
    loss: float = 0.0
    duplicated: float = 0.0
    by_request: float = 0.0
    cuts: tuple[Cut, ...] = ()
    kills: tuple[Kill, ...] = ()
    # How often, at drawn times: a node is killed; one of them comes back with an empty disk; a link goes and comes;
    # one way is cut.
    crashes: int = 0
    wiped: int = 0
    flaps: int = 0
    one_way: int = 0
    # Links that are made only later, and links that end for good.
    added: int = 0
    removed: int = 0
    # Nodes that are killed and never come back.
    gone: int = 0
    # Nodes watch their peers.
    health: bool = False
    skew_max_ms: int = 0
    attacks: tuple[Attack, ...] = ()
    # A node refuses a copy for want of room with this probability, and is asked again.
    refuses: float = 0.0
    fsync_ms: float = 2.0
    repair: bool = True
    # Frames travel as the bytes of the wire, not as objects.
    codec: bool = True
    # Every body to every peer, as without the engine's thrift: what it is compared with.
    plain_flooding: bool = False
    # Faults happen before this; the run then goes on for `HEALED_WITHIN_S`.
    faults_end_s: float = 0.0

    @property
    def end_s(self) -> float:
        """When the run ends."""
        said_s = 1.0 + self.messages * self.gap_s
        ends_s = [cut.end_s for cut in self.cuts] + [kill.back_s for kill in self.kills]
        return max(said_s, self.faults_end_s, *ends_s) + HEALED_WITHIN_S

    def plain(self) -> "Scenario":
        """The same run with plain flooding."""
        return replace(self, plain_flooding=True, repair=False)


def draw(kind: Kind, seed: int) -> Scenario:
    """The run of a kind and seed."""
    random = Random(f"{kind} {seed}")
    match kind:
        case Kind.BALL:
            return _ball(random, seed)
        case Kind.CHURN:
            calm = replace(_faults(random, seed), cuts=(), crashes=0, wiped=0, one_way=0, flaps=random.randint(1, 20))
            return replace(calm, added=random.randint(0, 20), removed=random.randint(0, 20))
        case Kind.FAULTS:
            return _faults(random, seed)
        case Kind.HEALTH:
            faults = replace(_faults(random, seed), health=True, messages=1, nodes=random.randint(4, 25), wiped=0)
            return replace(faults, gone=random.choice((0, 1, 2)), loss=random.choice((0.0, 0.05)))
        case Kind.KILLS:
            return _kills(random, seed)
        case Kind.MALICE:
            attacks = tuple(random.choices(list(Attack), k=random.randint(1, 4)))
            quiet = replace(_faults(random, seed), cuts=(), crashes=0, wiped=0, one_way=0, flaps=0)
            return replace(quiet, nodes=max(quiet.nodes, 10), attacks=attacks, by_request=0.0)


def _ball(random: Random, seed: int) -> Scenario:
    return Scenario(
        seed,
        # As many of each order of size, so that the large ones leave time for the many.
        nodes=round(10 ** random.uniform(1, 3)),
        shape=random.choice(SHAPES),
        messages=1,
        radius_km=(random.choice((None, None, 150.0, 500.0, 1200.0)),),
        loss=random.choice((0.0, 0.0, 0.05)),
        skew_max_ms=random.choice((0, SKEW_MAX_MS)),
        fsync_ms=random.choice((0.1, 2.0, 30.0)),
        repair=random.random() < 0.2,
        codec=random.random() < 0.1,
    )


def _kills(random: Random, seed: int) -> Scenario:
    """Small, dense and with slow disks, so that most kills fall into something unfinished."""
    return Scenario(
        seed,
        nodes=random.randint(3, 12),
        shape=random.choice(SHAPES),
        messages=random.randint(2, 6),
        origins=random.randint(1, 2),
        gap_s=random.choice((0.02, 0.2)),
        crashes=5,
        loss=random.choice((0.0, 0.1)),
        by_request=random.choice((0.0, 0.0, 0.5)),
        fsync_ms=random.choice((5.0, 50.0, 200.0)),
        faults_end_s=random.uniform(3, 10),
        codec=random.random() < 0.5,
    )


def _faults(random: Random, seed: int) -> Scenario:
    origins, messages = random.randint(1, 4), random.randint(1, 8)
    faults_end_s = random.uniform(5, 90)
    start_s = random.uniform(0.5, faults_end_s)
    cuts = (Cut(start_s, random.uniform(start_s, faults_end_s)),) if random.random() < 0.4 else ()
    crashes = random.choice((0, 1, 2, 5, 10))
    by_request = random.choice((0.0, 0.0, 0.3, 1.0))
    return Scenario(
        seed,
        nodes=random.randint(4, 40),
        shape=random.choice(SHAPES),
        messages=messages,
        origins=origins,
        gap_s=random.choice((0.05, 0.5, faults_end_s / messages)),
        subjects=random.choice((1_000_000, 1_000_000, 1, 2)),
        radius_km=random.choice(((None,), (300.0, 1000.0, None), (500.0,))),
        validity_s=random.choice(((86_400,), (86_400,), (86_400, 3, 30))),
        loss=random.choice((0.0, 0.02, 0.1, 0.25)),
        duplicated=random.choice((0.0, 0.1)),
        by_request=by_request,
        cuts=cuts,
        crashes=crashes,
        # A lost disk is repaired over links; peers without one pass on nothing twice.
        wiped=random.choice((0, 0, 1)) if crashes and not by_request else 0,
        flaps=random.choice((0, 0, 3, 12)),
        one_way=random.choice((0, 0, 1, 4)),
        skew_max_ms=random.choice((0, SKEW_MAX_MS)),
        refuses=random.choice((0.0, 0.0, 0.2)),
        fsync_ms=random.choice((0.1, 2.0, 30.0, 200.0)),
        codec=random.random() < 0.7,
        faults_end_s=faults_end_s,
    )
