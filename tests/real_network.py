"""A federation of real processes on one machine: `loopd run` for each node, TLS between them, a file each.

    python -m tests.real_network                              30 nodes as a chain and as a mesh (`make net`)
    python -m tests.real_network --nodes 8 --shape mesh --json

First nothing restarts: how long does an announcement's last delivery take? Then some nodes are killed, while all of
them announce, and started again. Who must have heard is worked out from the map alone: the nodes within three hops of
the origin. Who did, when and how often is read from the nodes' files.
"""

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from loopd.protocol.limits import FLOOD_TTL_MAX
from tests.nodes import DOCUMENT, RunningNode, befriend, eventually, linked, material, send

DEGREE_MAX: Final = 6
# More at once would only wait for each other on a small machine.
AT_ONCE: Final = 4
PATIENCE_S: Final = 180.0
LAST_DELIVERY_TARGET_MS: Final = 1_000
SHAPES: Final = ("chain", "mesh")
_SETTINGS: Final[dict[str, Any]] = {
    "LOOPD_API__USER_REQUESTS_PER_MINUTE": "0",
    "LOOPD_FEDERATION__HEALTH_PRESET": "wan",
}

_DELIVERIES: Final = """
SELECT h.origin, h.subject, h.received_at_ms, coalesce(sum(d.times), 0) AS times
FROM heard h LEFT JOIN decision d ON d.message_id = h.message_id AND d.direction = 'in' AND d.reason = 'accepted'
GROUP BY h.origin, h.subject
"""
_ANNOUNCED: Final = """
SELECT a.subject, m.received_at_ms FROM own_announcement a JOIN message m ON m.message_id = a.message_id
"""

Pair = tuple[int, int]
# A node's number and a subject.
Heard = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of some announcements. `last_ms`: from an announcement to its last delivery, one value each, sorted.

    `lost`: acknowledged, and the origin itself has it no more. `missing`: deliveries that the ball demands; `too_many`:
    deliveries outside it; `twice`: deliveries made more than once.
    """

    announced: int
    deliveries: int
    lost: int
    missing: int
    too_many: int
    twice: int
    last_ms: list[int]

    @property
    def is_exact(self) -> bool:
        """Whether everybody in the ball has everything, once, and nobody else anything."""
        return not (self.lost or self.missing or self.too_many or self.twice)


@dataclass(frozen=True, slots=True)
class Played:
    """One federation's figures. `memory_mib` and `cpu_s` are those of all its processes, before any was killed."""

    shape: str
    nodes: int
    links: int
    degree: int
    ready_s: float
    linked_s: float
    memory_mib: float
    cpu_s: float
    quiet: Judged
    killed: int
    kills: Judged
    whole_after_s: float


def draw_map(shape: str, nodes: int, random: random.Random) -> list[Pair]:
    """Who is whose peer: a chain, or a ring with chords until nobody can take one more."""
    links = set(pairwise(range(nodes)))
    if shape == "chain":
        return sorted(links)
    links.add((0, nodes - 1))
    degrees = [2] * nodes
    chords = [(a, b) for a in range(nodes) for b in range(a + 1, nodes) if (a, b) not in links]
    random.shuffle(chords)
    for a, b in chords:
        if max(degrees[a], degrees[b]) < min(DEGREE_MAX, nodes - 2):
            links.add((a, b))
            degrees[a] += 1
            degrees[b] += 1
    return sorted(links)


def ball(links: Sequence[Pair], origin: int) -> set[int]:
    """The nodes within three hops of the origin, without it."""
    reached = {origin}
    for _ in range(FLOOD_TTL_MAX):
        reached |= {b if a in reached else a for a, b in links if (a in reached) != (b in reached)}
    return reached - {origin}


class Network:
    """Some running nodes and the links between them."""

    def __init__(self, nodes: Sequence[RunningNode], links: Sequence[Pair]) -> None:
        self.nodes = nodes
        self.links = links
        self.balls = [ball(links, origin) for origin in range(len(nodes))]

    def connect(self) -> None:
        """Shake hands along every link, and wait until all are up."""
        at_once([partial(befriend, self.nodes[a], self.nodes[b]) for a, b in self.links])
        self.until_linked()

    def until_linked(self) -> None:
        """Wait until all links are up."""
        at_once([partial(linked, self.nodes[a], self.nodes[b]) for a, b in self.links])

    def until_heard(self, announced: Mapping[int, set[str]]) -> None:
        """Wait until what was acknowledged is wherever it must be, and nobody has anything left to send."""

        for number, node in enumerate(self.nodes):
            expected = {name for origin, names in announced.items() if number in self.balls[origin] for name in names}
            eventually(partial(has_heard, node, expected), f"{node} has heard of everything", PATIENCE_S)
        eventually(lambda: not any(node.status()["queued"] for node in self.nodes), "nothing waits", PATIENCE_S)

    def judge(self, acknowledged: Mapping[int, set[str]], since_ms: int) -> Judged:
        """Compare what was made since a moment with who delivered it."""
        names = {node.node_id: number for number, node in enumerate(self.nodes)}
        made: dict[Heard, int] = {}
        for number, node in enumerate(self.nodes):
            made |= {(number, subject): at for subject, at in announcements(node).items() if at >= since_ms}
        found: dict[Heard, dict[int, tuple[int, int]]] = {key: {} for key in made}
        for number, node in enumerate(self.nodes):
            for (origin_id, subject), delivery in deliveries(node).items():
                key = names[origin_id], subject
                if key in made:
                    found[key][number] = delivery
        last_ms, missing, too_many, twice = [], 0, 0, 0
        for (origin, subject), by_node in found.items():
            missing += len(self.balls[origin] - by_node.keys())
            too_many += len(by_node.keys() - self.balls[origin])
            twice += sum(times > 1 for _, times in by_node.values())
            last_ms.append(max((at for at, _ in by_node.values()), default=0) - made[origin, subject])
        lost = sum((number, name) not in made for number, subjects in acknowledged.items() for name in subjects)
        return Judged(len(made), sum(map(len, found.values())), lost, missing, too_many, twice, sorted(last_ms))


def announcements(node: RunningNode) -> dict[str, int]:
    """What a node has announced itself, by its file: each subject, and when."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return dict(connection.execute(_ANNOUNCED))


def deliveries(node: RunningNode) -> dict[tuple[str, str], tuple[int, int]]:
    """What a node has delivered, by its file: by origin and subject the moment, and how often it was accepted."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return {(origin, subject): (at, times) for origin, subject, at, times in connection.execute(_DELIVERIES)}


def has_heard(node: RunningNode, subjects: set[str]) -> bool:
    """Whether a node has delivered an announcement of all these subjects."""
    return subjects <= {subject for _, subject in deliveries(node)}


def at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Make the calls, a few at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


@contextmanager
def started(base: Path, count: int) -> Iterator[list[RunningNode]]:
    """So many nodes, 15 km from each to the next; all are ended whatever happens."""
    nodes: list[RunningNode] = []

    def make(place: int) -> None:
        node = RunningNode.init(base, f"n{place:02}", lon=5.0 + place / 5, **_SETTINGS)
        # At the pace of tests so many processes would do nothing but probe each other.
        del node.environment["LOOPD_FEDERATION__PROBE_INTERVAL_S"]
        nodes.append(node)

    # The first one makes the authority that the others use.
    make(0)
    at_once([partial(make, place) for place in range(1, count)])
    nodes.sort(key=lambda node: node.node_id)
    try:
        at_once([node.start for node in nodes])
        yield nodes
    finally:
        for node in nodes:
            node.kill9()


def announce(node: RunningNode, pauses_s: Sequence[float]) -> set[str]:
    """Register a material after each pause, until all are or the node is gone; those that it acknowledged."""
    acknowledged: set[str] = set()
    with suppress(HTTPException, OSError), closing(node.connection()) as connection:
        headers = {"Content-Type": DOCUMENT, "Authorization": f"Bearer {node.token('material:write')}"}
        for pause_s in pauses_s:
            time.sleep(pause_s)
            document = material(node.city)
            answer = send(connection, "POST", "/api/v1/material", json.dumps(document).encode(), headers)
            if answer.status != 201:
                raise RuntimeError(f"{node} answered a registration with {answer.status}: {answer.body!r}")
            acknowledged.add(str(document["id"]))
    return acknowledged


def quiet(network: Network, messages: int, per_second: float, draw: random.Random) -> Judged:
    """All nodes announce, one after the other in a drawn order at that pace; nothing restarts."""
    since_ms = time.time_ns() // 1_000_000
    acknowledged: dict[int, set[str]] = {number: set() for number in range(len(network.nodes))}
    for number in draw.sample(range(len(network.nodes)), len(network.nodes)) * messages:
        acknowledged[number] |= announce(network.nodes[number], [1 / per_second])
    network.until_heard(acknowledged)
    return network.judge(acknowledged, since_ms)


def under_kills(network: Network, messages: int, kills: int, draw: random.Random) -> tuple[Judged, float]:
    """All nodes announce at drawn moments while some are killed and started again; and for how long it then took."""
    since_ms = time.time_ns() // 1_000_000
    nodes = network.nodes
    victims = draw.sample(range(len(nodes)), kills)
    pauses = {number: [draw.uniform(0.1, 2.0) for _ in range(messages)] for number in range(len(nodes))}
    with ThreadPoolExecutor(len(nodes) + kills) as pool:
        announcing = {number: pool.submit(announce, nodes[number], pauses[number]) for number in pauses}
        restarts = []
        for victim in victims:
            time.sleep(draw.uniform(0.2, 1.0))
            nodes[victim].kill9()
            restarts.append(pool.submit(_start_after, draw.uniform(0.0, 2.0), nodes[victim]))
        for restart in restarts:
            restart.result()
        restarted_s = time.monotonic()
        acknowledged = {number: future.result() for number, future in announcing.items()}
    for victim in victims:
        acknowledged[victim] |= announce(nodes[victim], [0.0])
    network.until_heard(acknowledged)
    whole_after_s = time.monotonic() - restarted_s
    return network.judge(acknowledged, since_ms), whole_after_s


def _start_after(pause_s: float, node: RunningNode) -> None:
    time.sleep(pause_s)
    node.start()


def resources(nodes: Sequence[RunningNode]) -> tuple[float, float]:
    """The memory of the nodes' processes in MiB, and their CPU time in seconds."""
    memory_kib, ticks = 0, 0
    for node in nodes:
        process = Path(f"/proc/{node.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        memory_kib += int(status["VmRSS"].split()[0])
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return memory_kib / 1024, ticks / 100


def play(
    base: Path, shape: str, count: int, *, messages: int = 2, per_second: float = 1, kills: int = 5, seed: int = 1
) -> Played:
    """Start a federation, and play both parts on it."""
    draw = random.Random(seed)
    links = draw_map(shape, count, draw)
    began_s = time.monotonic()
    with started(base, count) as nodes:
        ready_s = time.monotonic() - began_s
        network = Network(nodes, links)
        network.connect()
        linked_s = time.monotonic() - began_s - ready_s
        calm = quiet(network, messages, per_second, draw)
        memory_mib, cpu_s = resources(nodes)
        stormy, whole_after_s = under_kills(network, messages, kills, draw)
    degree = max(sum(number in pair for pair in links) for number in range(count))
    return Played(
        shape, count, len(links), degree, ready_s, linked_s, memory_mib, cpu_s, calm, kills, stormy, whole_after_s
    )


def at_share(values: Sequence[int], share: float) -> int:
    """The value below which that share of the sorted values lies."""
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0


def table(played: Sequence[Played]) -> str:
    """The figures, for people."""
    rows: list[tuple[str, Callable[[Played], str]]] = [
        ("nodes, links, most peers of one", lambda run: f"{run.nodes}, {run.links}, {run.degree}"),
        ("set up and started", lambda run: f"{run.ready_s:.0f} s"),
        ("all links up after another", lambda run: f"{run.linked_s:.0f} s"),
        ("memory of all", lambda run: f"{run.memory_mib:.0f} MiB"),
        ("CPU of all, without the kills", lambda run: f"{run.cpu_s:.0f} s"),
        ("nothing restarts: announcements", lambda run: str(run.quiet.announced)),
        ("  deliveries", lambda run: str(run.quiet.deliveries)),
        ("  missing, too many, twice", lambda run: _errors(run.quiet)),
        ("  last delivery, half of them within", lambda run: f"{at_share(run.quiet.last_ms, 0.5)} ms"),
        ("  99 %", lambda run: f"{at_share(run.quiet.last_ms, 0.99)} ms"),
        ("  all", lambda run: f"{at_share(run.quiet.last_ms, 1)} ms"),
        ("nodes killed and started again", lambda run: str(run.killed)),
        ("  announcements", lambda run: str(run.kills.announced)),
        ("  deliveries", lambda run: str(run.kills.deliveries)),
        ("  acknowledged and lost", lambda run: str(run.kills.lost)),
        ("  missing, too many, twice", lambda run: _errors(run.kills)),
        ("  everybody has all after the last start", lambda run: f"{run.whole_after_s:.1f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':<{width}}" + "".join(f"{run.shape:>14}" for run in played)]
    return "\n".join(
        lines + [f"{name:<{width}}" + "".join(f"{show(run):>14}" for run in played) for name, show in rows]
    )


def _errors(judged: Judged) -> str:
    return f"{judged.missing}, {judged.too_many}, {judged.twice}"


def main() -> int:
    """Play, print the figures. The exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--shape", choices=SHAPES, help="without it: both, one after the other")
    parser.add_argument("--messages", type=int, default=2, help="announcements of each node, in each of both parts")
    parser.add_argument("--per-second", type=float, default=1, help="announcements a second while nothing restarts")
    parser.add_argument("--kills", type=int, default=5, help="how many nodes are killed and started again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    played = []
    for shape in SHAPES if asked.shape is None else (asked.shape,):
        with tempfile.TemporaryDirectory(prefix="loopd-net-") as base:
            run = play(
                Path(base),
                shape,
                asked.nodes,
                messages=asked.messages,
                per_second=asked.per_second,
                kills=asked.kills,
                seed=asked.seed,
            )
            played.append(run)
    text = json.dumps([asdict(run) for run in played], indent=2) if asked.json else table(played)
    sys.stdout.write(f"{text}\n")
    return int(
        not all(
            run.quiet.is_exact and run.kills.is_exact and run.quiet.last_ms[-1] < LAST_DELIVERY_TARGET_MS
            for run in played
        )
    )


if __name__ == "__main__":
    sys.exit(main())
