"""Failure detection under a virtual clock: many nodes, lossy ways, starved nodes, nodes that die.

    python -m tests.health_simulation --hours 1e5 --shards 2    false alarms (`make sim-health`)
    python -m tests.health_simulation --failures 200            how soon nodes that die are confirmed

One observer-peer hour is one node watching one of its peers for one hour. Every frame is lost with the same
probability; its way takes 3 ms, 1 ms for each 100 km, and a lognormal rest (median 5 ms, sigma 0.8). Starved nodes
sleep for 0.5 to 10 s, half the time; what arrives meanwhile waits, and their late timers come before it.
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from heapq import heappop, heappush
from math import hypot, log
from multiprocessing import Pool
from random import Random
from time import process_time
from typing import Any

from loopd.gossip.frames import Frame
from loopd.gossip.health import Signal
from loopd.gossip.membership import AskNodeInfo, Effect, Membership, Observed, Send
from loopd.gossip.probing import PRESETS

HOUR_MS = 3_600_000
# Cities lie in a square of this side; the plane is good enough for delays.
SIDE_KM = 2_000
EPOCH_MS = 1_800_000_000_000


@dataclass(frozen=True)
class Scenario:
    """What is simulated. `stall_ms` is the range of one sleep; waking times have the same range."""

    nodes: int = 100
    loss: float = 0.1
    starved: int = 4
    preset: str = "wan"
    nearest: int = 3
    farther: int = 2
    stall_ms: tuple[int, int] = (500, 10_000)


@dataclass
class Tally:
    """What came of a run, or of several together. `confirmed_ms`: from each death to each verdict on it."""

    observer_peer_hours: float = 0.0
    false_alarms: int = 0
    suspicions: int = 0
    probes_answered: int = 0
    frames: int = 0
    deaths: int = 0
    missed: int = 0
    confirmed_ms: list[int] = field(default_factory=list)
    confirmed_by_starved_ms: list[int] = field(default_factory=list)
    alarms: list[tuple[int, int, str, str]] = field(default_factory=list)
    cpu_s: float = 0.0

    def add(self, other: "Tally") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Node:
    """A node, and its process: awake, asleep or dead."""

    def __init__(self, name: str, place: tuple[float, float]) -> None:
        self.name = name
        self.place = place
        self.peers: set[str] = set()
        self.member: Membership | None = None
        self.life = 0
        self.is_starved = False
        self.asleep = False
        self.waiting: deque[tuple[str, Frame]] = deque()
        self.planned_ms: int | None = None


class Simulation:
    """One federation of `scenario`, wholly given by its seed."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.random = Random(seed)
        self.now_ms = 0
        self.tally = Tally()
        self.seed = seed
        self._events: list[tuple[int, int, str, Node, Any]] = []
        self._order = 0
        self.died_ms: dict[str, int] = {}
        # Ways that carry nothing, from the first to the second.
        self.cut: set[tuple[str, str]] = set()
        self.nodes = self._federation()
        self._base_ms = {
            (node.name, peer): 3 + self._apart_km(node, self.nodes[peer]) / 100
            for node in self.nodes.values()
            for peer in node.peers
        }
        for node in self.nodes.values():
            self._start(node)
        for node in list(self.nodes.values())[: scenario.starved]:
            node.is_starved = True
            self._at(self._stall_ms(), "sleep", node)

    @property
    def pairs(self) -> int:
        """How many observer-peer pairs there are."""
        return sum(len(node.peers) for node in self.nodes.values())

    def run(self, until_ms: int) -> Tally:
        """Run until then. Observer-peer hours count for all pairs."""
        began, from_ms = process_time(), self.now_ms
        while self._events and self._events[0][0] <= until_ms:
            self.now_ms, _, kind, node, what = heappop(self._events)
            match kind:
                case "frame":
                    self._arrived(node, what)
                case "tick":
                    self._tick(node, what)
                case "sleep":
                    node.asleep = True
                    self._at(self.now_ms + self._stall_ms(), "wake", node)
                case _:
                    self._wake(node)
        self.now_ms = until_ms
        self.tally.observer_peer_hours += self.pairs * (until_ms - from_ms) / HOUR_MS
        self.tally.cpu_s += process_time() - began
        return self.tally

    def kill(self, name: str) -> None:
        """The node's process ends."""
        node = self.nodes[name]
        node.member, node.planned_ms = None, None
        node.waiting.clear()
        node.life += 1
        self.died_ms[name] = self.now_ms
        self.tally.deaths += 1

    def restart(self, name: str) -> None:
        """It begins another life."""
        del self.died_ms[name]
        self._start(self.nodes[name])

    def _federation(self) -> dict[str, Node]:
        """Cities by lot; each is linked with its nearest, and with some by lot."""
        draw, scenario = self.random, self.scenario
        nodes = [
            Node(f"city{index}.loop", (draw.uniform(0, SIDE_KM), draw.uniform(0, SIDE_KM)))
            for index in range(scenario.nodes)
        ]
        for node in nodes:
            others = sorted((other for other in nodes if other is not node), key=partial(self._apart_km, node))
            nearest, rest = others[: scenario.nearest], others[scenario.nearest :]
            for other in nearest + draw.sample(rest, min(scenario.farther, len(rest))):
                node.peers.add(other.name)
                other.peers.add(node.name)
        return {node.name: node for node in nodes}

    @staticmethod
    def _apart_km(a: Node, b: Node) -> float:
        return hypot(a.place[0] - b.place[0], a.place[1] - b.place[1])

    def _start(self, node: Node) -> None:
        preset = PRESETS[self.scenario.preset]
        member = Membership(node.name, preset, EPOCH_MS + self.now_ms, self.random.random, self.now_ms)
        node.member = member
        for peer in sorted(node.peers):
            member.watch(peer, self.now_ms)
            self._carry_out(node, member.link_up(peer, self.now_ms))
        for peer in sorted(node.peers):
            member.acquainted(peer, self.nodes[peer].peers)
        self._plan(node)

    def _stall_ms(self) -> int:
        return self.random.randint(*self.scenario.stall_ms)

    def _at(self, at_ms: int, kind: str, node: Node, what: Any = None) -> None:
        self._order += 1
        heappush(self._events, (at_ms, self._order, kind, node, what))

    def _plan(self, node: Node) -> None:
        if node.member is None or node.asleep:
            return
        due_ms = max(node.member.next_timer_ms(), self.now_ms)
        if node.planned_ms is None or due_ms < node.planned_ms:
            node.planned_ms = due_ms
            self._at(due_ms, "tick", node, node.life)

    def _tick(self, node: Node, life: int) -> None:
        if node.planned_ms != self.now_ms or life != node.life:
            return
        node.planned_ms = None
        if node.member is None or node.asleep:
            return
        if node.member.next_timer_ms() <= self.now_ms:
            self._carry_out(node, node.member.tick(self.now_ms))
        self._plan(node)

    def _wake(self, node: Node) -> None:
        node.asleep = False
        self._at(self.now_ms + self._stall_ms(), "sleep", node)
        node.planned_ms = None
        if node.member is None:
            return
        if node.member.next_timer_ms() <= self.now_ms:
            self._carry_out(node, node.member.tick(self.now_ms))
        while node.waiting:
            sender, frame = node.waiting.popleft()
            self._carry_out(node, node.member.receive(sender, frame, self.now_ms))
        self._plan(node)

    def _arrived(self, node: Node, what: tuple[str, Frame, int]) -> None:
        sender, frame, life = what
        if node.member is None or node.life != life:
            return
        if node.asleep:
            node.waiting.append((sender, frame))
            return
        self._carry_out(node, node.member.receive(sender, frame, self.now_ms))
        self._plan(node)

    def _carry_out(self, node: Node, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, frame):
                    self._send(node, self.nodes[peer], frame)
                case Observed(peer, event, _):
                    self._count(node, peer, event.signal)
                case AskNodeInfo():
                    raise RuntimeError("every pair has a link here")

    def _send(self, sender: Node, receiver: Node, frame: Frame) -> None:
        self.tally.frames += 1
        if (sender.name, receiver.name) in self.cut:
            return
        if self.random.random() < self.scenario.loss:
            return
        delay_ms = self._base_ms[sender.name, receiver.name] + self.random.lognormvariate(log(5), 0.8)
        self._at(self.now_ms + max(1, round(delay_ms)), "frame", receiver, (sender.name, frame, receiver.life))

    def _count(self, observer: Node, peer: str, signal: Signal) -> None:
        match signal:
            case Signal.PROBE_SUCCEEDED:
                self.tally.probes_answered += 1
            case Signal.SUSPECTED:
                self.tally.suspicions += 1
            case Signal.FAILURE_CONFIRMED if peer in self.died_ms:
                took_ms = self.now_ms - self.died_ms[peer]
                tally = self.tally
                (tally.confirmed_by_starved_ms if observer.is_starved else tally.confirmed_ms).append(took_ms)
            case Signal.FAILURE_CONFIRMED:
                self.tally.false_alarms += 1
                self.tally.alarms.append((self.seed, self.now_ms, observer.name, peer))


def quiet_hours(scenario: Scenario, seed: int, observer_peer_hours: float) -> Tally:
    """Nobody dies: every verdict is a false alarm."""
    simulation = Simulation(scenario, seed)
    return simulation.run(round(observer_peer_hours / simulation.pairs * HOUR_MS))


def failures(scenario: Scenario, seed: int, count: int) -> Tally:
    """So many nodes, none of them starved, die one after the other, each for 70 s, and come back."""
    simulation = Simulation(scenario, seed)
    draw = Random(seed + 1)
    steady = [node.name for node in simulation.nodes.values() if not node.is_starved]
    until_ms = 60_000
    for _ in range(count):
        until_ms += draw.randint(0, 10_000)
        simulation.run(until_ms)
        victim = draw.choice(steady)
        simulation.kill(victim)
        before = len(simulation.tally.confirmed_ms)
        until_ms += 70_000
        simulation.run(until_ms)
        observers = sum(not simulation.nodes[peer].is_starved for peer in simulation.nodes[victim].peers)
        simulation.tally.missed += observers - (len(simulation.tally.confirmed_ms) - before)
        simulation.restart(victim)
        until_ms += 40_000
        simulation.run(until_ms)
    return simulation.tally


def report(tally: Tally) -> dict[str, object]:
    """The figures, for people and programs."""
    figures = asdict(tally)
    for name in ("confirmed_ms", "confirmed_by_starved_ms"):
        times_ms = sorted(figures.pop(name))
        if times_ms:
            at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
            figures[name] = {
                key: times_ms[min(int(share * len(times_ms)), len(times_ms) - 1)] for key, share in at.items()
            }
            figures[name]["verdicts"] = len(times_ms)
    return figures


def _pieces(total: float, piece: float) -> Iterator[float]:
    while total > 0:
        yield min(total, piece)
        total -= piece


def main() -> int:
    """Run, show progress, print the figures as JSON. The exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.0, help="observer-peer hours in which nobody dies")
    parser.add_argument("--failures", type=int, default=0, help="how many nodes die")
    parser.add_argument("--shards", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--loss", type=float, default=0.1)
    parser.add_argument("--starved", type=int, default=4)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="wan")
    asked = parser.parse_args()
    scenario = Scenario(asked.nodes, asked.loss, asked.starved, asked.preset)
    total = Tally()
    with Pool(asked.shards) as pool:
        hours = [
            pool.apply_async(quiet_hours, (scenario, asked.seed + index, piece))
            for index, piece in enumerate(_pieces(asked.hours, 1000))
        ]
        deaths = [
            pool.apply_async(failures, (scenario, asked.seed + index, int(piece)))
            for index, piece in enumerate(_pieces(asked.failures, 10))
        ]
        for piece in hours + deaths:
            total.add(piece.get())
            sys.stderr.write(
                f"\r{total.observer_peer_hours:.0f} observer-peer hours, {total.false_alarms} false alarms,"
                f" {total.deaths} deaths, {total.missed} verdicts missing, {total.cpu_s:.0f} s of CPU"
            )
    sys.stderr.write("\n")
    sys.stdout.write(json.dumps(report(total), indent=2) + "\n")
    alarms_allowed = max(1.0, total.observer_peer_hours / 1e5)
    late = any(took_ms > 30_000 for took_ms in total.confirmed_ms)
    return int(total.false_alarms > alarms_allowed or total.missed > 0 or late)


if __name__ == "__main__":
    sys.exit(main())
