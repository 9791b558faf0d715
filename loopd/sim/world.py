"""One run: nodes, load and faults from one seed, and the facts that came of it."""

import hashlib
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from random import Random
from typing import Final

from loopd.crypto.hop_chain import hop_anchor
from loopd.gossip.frames import Frame
from loopd.protocol.announcement import build_announcement, read_announcement
from loopd.protocol.contexts import context_url
from loopd.protocol.geo import Location
from loopd.protocol.json_text import read_json
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.signing import message_id
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.vocabulary import LOOPD_FEATURES
from loopd.sim.disk import Message, Tables
from loopd.sim.facts import Facts
from loopd.sim.malice import Malicious
from loopd.sim.network import Network
from loopd.sim.node import Node
from loopd.sim.places import Pair, draw_links, draw_places
from loopd.sim.scenario import Attack, Scenario
from loopd.sim.timeline import US_PER_MS, US_PER_S, Timeline

# True time at the start of every run: 2027-01-15T08:00:00Z.
EPOCH_MS: Final = 1_800_000_000_000
_EVENTS_PER_NODE_AND_MESSAGE: Final = 20_000
_EVENTS_LEAST: Final = 2_000_000


class World:
    """A run. `run` plays it; then `facts`, `tables` and the rest tell what came of it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        events_max = _EVENTS_LEAST + _EVENTS_PER_NODE_AND_MESSAGE * scenario.nodes * scenario.messages
        self.timeline = Timeline(events_max)
        self._random = Random(f"world {scenario.seed}")
        count = scenario.nodes
        self.places = draw_places(self._random, count)
        self.pairs: list[Pair] = draw_links(self._random, scenario.shape, self.places)
        self.names = [f"n{number}.loop" for number in range(count)]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.known = [_known(name, place) for name, place in zip(self.names, self.places, strict=True)]
        self.peers_of: list[list[int]] = [[] for _ in range(count)]
        for a, b in self.pairs:
            self.peers_of[a].append(b)
            self.peers_of[b].append(a)
        self.skews_ms = [self._random.randint(-scenario.skew_max_ms, scenario.skew_max_ms) for _ in range(count)]
        self.by_request: dict[Pair, None] = {}
        for a, b in self.pairs:
            if self._random.random() < scenario.by_request:
                self.by_request |= {(a, b): None, (b, a): None}
        self.network = Network(
            self.timeline, Random(f"network {scenario.seed}"), self.places, scenario.loss, scenario.duplicated
        )
        self.facts = Facts()
        self.origins = self._random.sample(range(count), min(scenario.origins, count))
        others = [number for number in range(count) if number not in self.origins]
        self.malicious: dict[int, Attack] = dict(
            zip(self._random.sample(others, min(len(others), len(scenario.attacks))), scenario.attacks, strict=False)
        )
        # Links that are there only at first, by the end of the run.
        self.removed: dict[Pair, None] = {}
        self.gone: dict[int, None] = {}
        self.tables = [Tables() for _ in range(count)]
        self.living: dict[int, Node] = {}
        self.messages: dict[bytes, Message] = {}
        self._by_body: dict[bytes, Message] = {}
        self._revisions: dict[tuple[int, int], int] = {}
        self._lives = 0
        # Links that are taken down for now, each as often as that was done.
        self._withheld: dict[Pair, int] = {}
        self._trace = hashlib.sha256()

    @property
    def true_ms(self) -> int:
        """The time that no node knows, milliseconds since 1970."""
        return EPOCH_MS + self.timeline.now_us // US_PER_MS

    @property
    def digest(self) -> str:
        """A digest of everything that happened, in order."""
        return self._trace.hexdigest()

    def run(self) -> None:
        """Play the run to its end. Raises Runaway."""
        for number in range(self.scenario.nodes):
            if number in self.malicious:
                random = Random(f"malicious {self.scenario.seed} {number}")
                villain = Malicious(self, number, self.malicious[number], random)
                self.network.listeners[number] = villain
                villain.start()
            else:
                self._begin_life(number)
        self._plan_messages()
        self._plan_faults()
        self.timeline.run_until(round(self.scenario.end_s * US_PER_S))

    def link_allowed(self, a: int, b: int) -> bool:
        """Whether the two are to have a link now."""
        return not self._withheld.get((min(a, b), max(a, b)))

    def genuine(self, origin: str, timestamp: str, body: bytes) -> Message | None:
        """The message, if its origin made this body: what stands for checking its signature."""
        message = self._by_body.get(body)
        if message is None or message.announcement.origin != origin or message.timestamp != timestamp:
            return None
        return message

    def note(self, what: str, number: int, peer: int) -> None:
        """Write a moment into the trace."""
        self._trace.update(f"{self.timeline.now_us} {what} {number} {peer}\n".encode())

    def trace(self, number: int, peer: int, frame: Frame) -> None:
        """Write a frame that arrived into the trace."""
        about = getattr(frame, "number", None), getattr(frame, "message_id", None), getattr(frame, "hop_value", None)
        self._trace.update(f"{self.timeline.now_us} {frame.KIND} {number} {peer} {about}\n".encode())

    # Load

    def _plan_messages(self) -> None:
        gap_us = round(self.scenario.gap_s * US_PER_S)
        for turn in range(self.scenario.messages):
            for place, origin in enumerate(self.origins):
                at_us = US_PER_S + turn * gap_us + place * 7_000
                self.timeline.at(at_us, partial(self._announce, origin, turn))

    def _announce(self, origin: int, turn: int) -> None:
        node = self.living.get(origin)
        if node is None:
            # Its operator tries again when it is back.
            self.timeline.after(US_PER_S, lambda: self._announce(origin, turn))
            return
        message = self._message(node, turn)
        self.messages[message.message_id] = message
        self._by_body[message.body] = message

        def acknowledged() -> None:
            self.facts.made[message.message_id] = self.timeline.now_us
            self.facts.kept[(origin, message.message_id)] = None

        node.announce(message, acknowledged)

    def _message(self, node: Node, turn: int) -> Message:
        number = len(self.messages)
        place = turn % self.scenario.subjects
        revision = self._revisions[(node.number, place)] = self._revisions.get((node.number, place), 0) + 1
        seed = hashlib.sha256(f"{self.scenario.seed} {number}".encode()).digest()
        subject = Subject(
            subject_id=f"MAT-DE-MUC-2027-FOOD-{node.number:04}{place:04}",
            kind=SubjectKind.MATERIAL,
            category="food-waste",
            quantity=Decimal(100 + number),
            unit="kg",
            available_from_ms=EPOCH_MS,
            expires_ms=None,
            location=node.place,
            state=SubjectState.AVAILABLE,
        )
        issued_at_ms = node.now_ms
        validity_s = self.scenario.validity_s[turn % len(self.scenario.validity_s)]
        body = build_announcement(
            subject,
            context_url=context_url(),
            origin=node.name,
            origin_location=node.place,
            revision=revision,
            issued_at_ms=issued_at_ms,
            valid_until_ms=issued_at_ms + validity_s * 1_000,
            radius_km=self.scenario.radius_km[turn % len(self.scenario.radius_km)],
            hop_anchor=hop_anchor(seed, 3),
        )
        timestamp = format_timestamp(issued_at_ms)
        announcement = read_announcement(read_json(body), issued_at_ms)
        message_key = message_id(node.name, timestamp, body, anchored=True)
        signature = hashlib.sha512(body).hexdigest()[:86]
        return Message(
            number, node.number, announcement, message_key, body, timestamp, signature, seed, self.timeline.now_us
        )

    # Faults

    def _plan_faults(self) -> None:
        scenario, random = self.scenario, Random(f"faults {self.scenario.seed}")
        for cut in scenario.cuts:
            self._plan_cut(random, cut.start_s, cut.end_s)
        moments: list[tuple[int, Callable[[int], None]]] = [
            (scenario.flaps, lambda at: self._flap(random, at)),
            (scenario.one_way, lambda at: self._one_way(random, at)),
        ]
        for times, plan in moments:
            for _ in range(times):
                plan(round(random.uniform(0, scenario.faults_end_s) * US_PER_S))
        self._plan_links(random)
        lasting = [n for n in range(scenario.nodes) if n not in self.origins and n not in self.malicious]
        for number in random.sample(lasting, min(scenario.gone, len(lasting))):
            self.gone[number] = None
            at_us = round(random.uniform(0, scenario.faults_end_s) * US_PER_S)
            self.timeline.at(at_us, partial(self._crash, number, random.random() < 0.5, False))
        for kill in scenario.kills:
            self.timeline.at(round(kill.at_s * US_PER_S), partial(self._crash, kill.node, False, kill.wiped))
            self.timeline.at(round(kill.back_s * US_PER_S), partial(self._restart, kill.node))
        for number in range(scenario.crashes):
            self._plan_crash(random, wiped=number < scenario.wiped)

    def _plan_cut(self, random: Random, start_s: float, end_s: float) -> None:
        """A part of the nodes, as they lie or as they come, is cut off."""
        order = random.sample(range(self.scenario.nodes), self.scenario.nodes)
        if random.random() < 0.5:
            order.sort(key=lambda number: self.places[number].lon)
        inside = dict.fromkeys(order[: random.randint(1, max(1, len(order) // 2))])
        ways = [(a, b) for a, b in self.pairs if (a in inside) != (b in inside)]
        ways += [(b, a) for a, b in ways]
        self._cut_between(ways, round(start_s * US_PER_S), round(end_s * US_PER_S))

    def _one_way(self, random: Random, at_us: int) -> None:
        if self.pairs:
            a, b = random.choice(self.pairs)
            way = (a, b) if random.random() < 0.5 else (b, a)
            self._cut_between([way], at_us, min(at_us + random.randint(US_PER_S, 30 * US_PER_S), self._faults_end_us))

    def _cut_between(self, ways: list[Pair], start_us: int, end_us: int) -> None:
        for a, b in ways:
            self.timeline.at(start_us, partial(self.network.cut, a, b))
            self.timeline.at(end_us, partial(self.network.mend, a, b))

    def _flap(self, random: Random, at_us: int) -> None:
        if self.pairs:
            pair = random.choice(self.pairs)
            end_us = min(at_us + random.randint(US_PER_S // 100, 20 * US_PER_S), self._faults_end_us)
            self.timeline.at(at_us, partial(self._withhold, pair))
            self.timeline.at(end_us, partial(self._give, pair))

    def _plan_links(self, random: Random) -> None:
        """Links that are made later than the others, and links that end."""
        changing = [pair for pair in self.pairs if pair not in self.by_request]
        count = min(len(changing), self.scenario.added + self.scenario.removed)
        chosen = random.sample(changing, count)
        for pair in chosen[: self.scenario.added]:
            self._withheld[pair] = 1
            self.timeline.at(random.randint(0, self._faults_end_us), partial(self._give, pair))
        for pair in chosen[self.scenario.added :]:
            self.removed[pair] = None
            self.timeline.at(random.randint(0, self._faults_end_us), partial(self._withhold, pair))

    def _withhold(self, pair: Pair) -> None:
        self._withheld[pair] = self._withheld.get(pair, 0) + 1
        node = self.living.get(pair[0])
        link = None if node is None else node.links.get(self.names[pair[1]])
        if link is not None:
            self.network.close(link.connection, pair[0])

    def _give(self, pair: Pair) -> None:
        self._withheld[pair] -= 1
        node = self.living.get(pair[0])
        if node is not None:
            node.wants_link(pair[1])

    def _plan_crash(self, random: Random, wiped: bool) -> None:
        """Half of the crashes come at any time, half of them while a message is under way."""
        honest = [number for number in range(self.scenario.nodes) if number not in self.malicious]
        candidates = [number for number in honest if number not in self.origins] if wiped else honest
        if not candidates:
            return
        number = random.choice(candidates)
        at_s = random.uniform(0, self.scenario.faults_end_s)
        if random.random() < 0.5:
            said_s = 1.0 + random.randrange(self.scenario.messages) * self.scenario.gap_s
            at_s = min(said_s + random.expovariate(1 / 0.1), self.scenario.faults_end_s)
        back_us = min(round((at_s + random.uniform(0.05, 30)) * US_PER_S), self._faults_end_us)
        silently = random.random() < 0.3
        self.timeline.at(round(at_s * US_PER_S), lambda: self._crash(number, silently, wiped))
        self.timeline.at(back_us, lambda: self._restart(number))

    def _crash(self, number: int, silently: bool, wiped: bool) -> None:
        node = self.living.pop(number, None)
        if node is None:
            return
        self.note("crash", number, number)
        self.facts.counted["crashes"] += 1
        node.crash()
        self.network.vanish(number, silently)
        if wiped:
            self.tables[number] = Tables()
            self.facts.disk_lost(number)

    def _restart(self, number: int) -> None:
        if number not in self.living and number not in self.gone:
            self._begin_life(number)

    def _begin_life(self, number: int) -> None:
        self._lives += 1
        self.note("start", number, number)
        node = Node(self, number, self.tables[number], Random(f"node {self.scenario.seed} {number} {self._lives}"))
        self.living[number] = node
        self.network.listeners[number] = node
        node.start()

    @property
    def _faults_end_us(self) -> int:
        return round(self.scenario.faults_end_s * US_PER_S)


def _known(name: str, place: Location) -> KnownNode:
    return KnownNode(
        name, Standing.PEER, PeerAuth.SIGNED, f"https://{name}/api/v1", bytes(32), place, LOOPD_FEATURES, True
    )
