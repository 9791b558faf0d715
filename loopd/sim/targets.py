"""The measurements that docs/gossip.md names, each a dictionary of figures."""

from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Final

from loopd.crypto.hop_chain import HOP_VALUE_BYTES, hop_anchor, next_hop_value
from loopd.gossip.flood import Copy, HopState, Reason, View, decide
from loopd.protocol.announcement import Announcement
from loopd.protocol.geo import Location
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.protocol.subjects import SubjectKind
from loopd.sim.figures import LEARNED_AFTER, measure, play
from loopd.sim.scenario import Cut, Kill, Scenario
from loopd.sim.seeds import play_through
from loopd.sim.timeline import US_PER_S

_NOW_MS: Final = 1_800_000_000_000
_PLACE: Final = Location(48.1, 11.6)


def forge(attempts: int, seed: int) -> dict[str, object]:
    """A relay that was given a TTL and a value claims a higher TTL, with every value it could make up."""
    random = Random(seed)
    reasons: dict[str, int] = {}
    for _ in range(attempts):
        origin_seed = random.randbytes(HOP_VALUE_BYTES)
        announcement = _announcement(hop_anchor(origin_seed, FLOOD_TTL_MAX))
        own_ttl, value = FLOOD_TTL_MAX, origin_seed
        for _ in range(random.randrange(FLOOD_TTL_MAX)):
            own_ttl, value = own_ttl - 1, next_hop_value(value)
        # Up to its own TTL it can prove by repeating its value; nothing above that.
        claimed = random.randint(own_ttl + 1, FLOOD_TTL_MAX + 2)
        made_up = _made_up(random, value, announcement.hop_anchor or b"")
        held = random.choice((None, HopState(1, None), HopState(own_ttl, value)))
        view = View("victim.loop", _PLACE, held, None)
        copy = Copy(announcement, bytes(32), "relay.loop", announcement.origin, _NOW_MS, claimed, made_up)
        reason = decide(copy, view, _NOW_MS).reason.value
        reasons[reason] = reasons.get(reason, 0) + 1
    accepted = reasons.get(Reason.ACCEPTED, 0) + reasons.get(Reason.UPGRADED, 0)
    return {"attempts": attempts, "accepted": accepted, "reasons": reasons}


def _made_up(random: Random, value: bytes, anchor: bytes) -> bytes | None:
    """A hop value as a relay could make it: its own, hashed, altered, the anchor, chance, another length, none."""
    altered = bytearray(value)
    altered[random.randrange(len(altered))] ^= 1 << random.randrange(8)
    return random.choice(
        (
            value,
            next_hop_value(value),
            bytes(altered),
            anchor,
            value[::-1],
            random.randbytes(HOP_VALUE_BYTES),
            value[: random.randrange(HOP_VALUE_BYTES)],
            None,
        )
    )


def _announcement(anchor: bytes) -> Announcement:
    return Announcement(
        subject="MAT-DE-MUC-2027-FOOD-0001",
        subject_kind=SubjectKind.MATERIAL,
        origin="origin.loop",
        available=True,
        state=None,
        category=None,
        quantity=None,
        unit=None,
        location=None,
        available_from_ms=None,
        expires_ms=None,
        revision=1,
        issued_at_ms=_NOW_MS,
        valid_until_ms=_NOW_MS + 3_600_000,
        ttl=FLOOD_TTL_MAX,
        radius_km=None,
        origin_location=_PLACE,
        hop_anchor=anchor,
    )


def thrift(runs: int, sizes: Sequence[int]) -> dict[str, object]:
    """Copies for each delivery, and the 99th percentile of the last deliveries, for each size: mean and worst run."""
    figures: dict[str, object] = {}
    for nodes in sizes:
        first, learned, plain_copies, slower = [], [], [], []
        for seed in range(runs):
            scenario = Scenario(seed, nodes=nodes, messages=LEARNED_AFTER + 10, gap_s=2.0)
            engine, plain = play(scenario).figures, play(scenario.plain()).figures
            if engine.violations:
                figures[f"N={nodes} seed={seed}"] = engine.violations
            first.append(engine.copies_per_delivery_first or 0.0)
            learned.append(engine.copies_per_delivery_learned or 0.0)
            plain_copies.append(plain.copies_per_delivery or 0.0)
            slower.append((engine.latency_p99_ms or 0.0) / (plain.latency_p99_ms or 1.0))
        figures[f"N={nodes}"] = (
            f"copies {fmean(learned):.3f} after {LEARNED_AFTER} messages (worst run {max(learned):.3f}), "
            f"first message {fmean(first):.2f}, plain flooding {fmean(plain_copies):.2f}; "
            f"p99 {fmean(slower):.2f} times plain flooding's (worst run {max(slower):.2f})"
        )
    return figures


def healing(runs: int, nodes: int) -> dict[str, object]:
    """10 % loss, a partition of an hour with messages all through it; the rest is in by 60 s after its end."""
    figures: dict[str, object] = {}
    due = covered = 0
    slowest_s = 0.0
    for seed in range(runs):
        cut = Cut(10.0, 3_610.0)
        scenario = Scenario(
            seed, nodes=nodes, messages=60, origins=3, gap_s=60.0, loss=0.1, duplicated=0.02, cuts=(cut,)
        )
        world = play_through(scenario)
        played = measure(world)
        due += played.figures.due
        covered += played.figures.covered
        figures |= {f"seed {seed}": played.figures.violations} if played.figures.violations else {}
        last_us = max(at_us for tables in world.tables for _, at_us in tables.delivered)
        slowest_s = max(slowest_s, last_us / US_PER_S - cut.end_s)
    share = covered / due if due else 1.0
    figures["due"], figures["arrived"] = due, f"{covered} ({share:.4%})"
    figures["last delivery after healing, s"] = round(slowest_s, 1)
    return figures


def returning(peers: int, messages: int) -> dict[str, object]:
    """The middle of a star comes back with an empty disk; all its peers meet it at once."""
    said_s = 1.0 + messages * 0.05
    gone_s, back_s = said_s + 20.0, said_s + 80.0
    kill = Kill(0, gone_s, back_s, wiped=True)
    scenario = Scenario(1, nodes=peers + 1, shape="star", messages=messages, gap_s=0.05, kills=(kill,))
    world = play_through(scenario)
    back_us = round(back_s * US_PER_S)
    begun_us = [at_us for at_us in world.facts.repairs_us[0] if at_us >= back_us]
    most = max(len([at_us for at_us in begun_us if first <= at_us < first + US_PER_S]) for first in begun_us)
    hub = [at_us for _, at_us in world.tables[0].delivered]
    return {
        "repairs begun": len(begun_us),
        "most begun within a second": most,
        "first begun after the return, s": round((begun_us[0] - back_us) / US_PER_S, 2),
        "last ended after the return, s": round((world.facts.repaired_us - back_us) / US_PER_S, 2),
        "messages missed": messages,
        "messages back": len(hub),
        "last of them after the return, s": round((max(hub) - back_us) / US_PER_S, 2) if hub else None,
        "bodies that came to it": world.facts.counted["Copy"],
        "findings": measure(world).figures.violations,
    }
