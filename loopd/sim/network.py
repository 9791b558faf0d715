"""The network: ways with delay and loss that can be cut each way, streams over them, and single requests.

A link is a stream, as a WebSocket is: nothing in it is lost, doubled or overtaken while it lasts. A lost packet costs a
retransmission and holds up what follows. A cut way holds everything up; when it lasts, each end notices on its own and
gives the link up, so ends may disagree for a while, and what was in flight is lost. A request of §8.2 is on its own: it
or its answer may be lost, it may come twice, and requests overtake each other.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import exp, log
from random import Random
from typing import Final, Protocol

from loopd.gossip.frames import Frame
from loopd.protocol.geo import Location, between_km
from loopd.sim.timeline import US_PER_MS, US_PER_S, Timeline

_FIXED_MS: Final = 3.0
_KM_PER_MS: Final = 100.0
_VARYING_MEDIAN_MS: Final = 5.0
_VARYING_SIGMA: Final = 0.8
# What a packet carries, and how long its sender waits before it sends it again; doubled each time.
_PACKET_BYTES: Final = 1_400
_RESEND_US: Final = 200 * US_PER_MS
_RESENDS_MAX: Final = 8
# Packets in a row, each lost, with which a request or its answer is.
_REQUEST_TRIES: Final = 2
# An end gives a link up after so long without a sign of the other, by draw.
_SILENCE_US: Final = (4 * US_PER_S, 12 * US_PER_S)


# What goes over a stream: the bytes of a batch, or its frames where a run does without bytes.
Batch = bytes | list[Frame]


class Listener(Protocol):
    """A node, as the network sees it."""

    def link_made(self, peer: int, connection: "Connection") -> None: ...

    def link_lost(self, peer: int, connection: "Connection") -> None: ...

    def arrived(self, peer: int, connection: "Connection", what: Batch) -> None: ...


@dataclass(eq=False)
class Connection:
    """One stream between two nodes. Each end knows for itself whether it is open."""

    ends: tuple[int, int]
    open: dict[int, bool] = field(default_factory=dict)
    last_arrival_us: dict[int, int] = field(default_factory=dict)
    held_up: dict[int, list[tuple[Batch, int]]] = field(default_factory=dict)

    def other(self, end: int) -> int:
        """The other end."""
        return self.ends[1] if self.ends[0] == end else self.ends[0]


class Network:
    """All ways between all nodes. `listeners` are the nodes that are alive."""

    def __init__(
        self, timeline: Timeline, random: Random, places: list[Location], loss: float, duplicated: float
    ) -> None:
        self.listeners: dict[int, Listener] = {}
        self.counted: Counter[str] = Counter()
        self._timeline = timeline
        self._random = random
        self._places = places
        self._loss = loss
        self._duplicated = duplicated
        self._cut: Counter[tuple[int, int]] = Counter()
        self._connections: dict[tuple[int, int], dict[Connection, None]] = {}
        self._fixed_us: dict[tuple[int, int], int] = {}

    # Ways

    def is_cut(self, a: int, b: int) -> bool:
        """Whether nothing gets from a to b now."""
        return self._cut[(a, b)] > 0

    def cut(self, a: int, b: int) -> None:
        """Cut the way from a to b, once more if it is."""
        self._cut[(a, b)] += 1
        for connection in list(self._connections.get((min(a, b), max(a, b)), ())):
            for end in connection.ends:
                self._timeline.after(self._random.randint(*_SILENCE_US), partial(self._give_up_if_cut, connection, end))

    def mend(self, a: int, b: int) -> None:
        """Take back one cut."""
        self._cut[(a, b)] -= 1
        if self._cut[(a, b)]:
            return
        for connection in list(self._connections.get((min(a, b), max(a, b)), ())):
            waiting = connection.held_up.pop(a, [])
            for what, size_bytes in waiting:
                self.send(connection, a, what, size_bytes)
            # An end that was given up by the other learns it by the next sign of life.
            if len([end for end in connection.ends if connection.open.get(end)]) == 1:
                self._timeline.after(2 * US_PER_S, partial(self._reset, connection))

    def delay_us(self, a: int, b: int) -> int:
        """One way: 3 ms, 1 ms for each 100 km, and a lognormal part of median 5 ms and sigma 0.8."""
        fixed_us = self._fixed_us.get((a, b))
        if fixed_us is None:
            km = between_km(self._places[a], self._places[b])
            fixed_us = self._fixed_us[(a, b)] = round((_FIXED_MS + km / _KM_PER_MS) * US_PER_MS)
        varying_ms = exp(self._random.gauss(log(_VARYING_MEDIAN_MS), _VARYING_SIGMA))
        return fixed_us + round(varying_ms * US_PER_MS)

    def loses(self) -> bool:
        """Whether this packet is lost."""
        return self._loss > 0 and self._random.random() < self._loss

    # Streams

    def dial(self, a: int, b: int, failed: Callable[[], None]) -> None:
        """Make a link from a to b. Either both ends learn of it, or `failed` is called, in time."""
        there_us, back_us = self.delay_us(a, b), self.delay_us(b, a)
        while self.loses():
            there_us += US_PER_S  # the first packet of a connection is sent again after a second
        connection = Connection((min(a, b), max(a, b)))
        caller = self.listeners.get(a)

        def accept() -> None:
            if self.is_cut(a, b) or b not in self.listeners:
                self._timeline.after(5 * US_PER_S, failed)
                return
            self._connections.setdefault(connection.ends, {})[connection] = None
            connection.open[b] = True
            connection.last_arrival_us[a] = self._timeline.now_us + back_us
            self.listeners[b].link_made(a, connection)
            self._timeline.after(back_us, answer)

        def answer() -> None:
            if caller is None or self.listeners.get(a) is not caller or self.is_cut(b, a) or not connection.open.get(b):
                self._timeline.after(3 * US_PER_S, lambda: self.close(connection, b))
                self._timeline.after(5 * US_PER_S, failed)
                return
            connection.open[a] = True
            caller.link_made(b, connection)

        self._timeline.after(there_us, accept)

    def send(self, connection: Connection, sender: int, what: Batch, size_bytes: int) -> None:
        """Send over a stream; where the way is cut it waits for the way, or for the end of the link."""
        if not connection.open.get(sender):
            return
        to = connection.other(sender)
        if self.is_cut(sender, to):
            connection.held_up.setdefault(sender, []).append((what, size_bytes))
            return
        arrival_us = self._timeline.now_us + self.delay_us(sender, to)
        for _ in range(-(-size_bytes // _PACKET_BYTES)):
            resend_us, resends = _RESEND_US, 0
            while self.loses() and resends < _RESENDS_MAX:
                self.counted["packets_lost"] += 1
                arrival_us += resend_us
                resend_us, resends = resend_us * 2, resends + 1
        # What was sent later does not arrive earlier.
        arrival_us = max(arrival_us, connection.last_arrival_us.get(to, 0))
        connection.last_arrival_us[to] = arrival_us
        self._timeline.at(arrival_us, lambda: self._arrive(connection, sender, to, what))

    def close(self, connection: Connection, end: int) -> None:
        """One end closes the link, and the other learns it if the way is open."""
        if not connection.open.get(end):
            return
        self._lose(connection, end)
        other = connection.other(end)
        if not self.is_cut(end, other):
            self._timeline.after(self.delay_us(end, other), lambda: self._lose(connection, other))

    def vanish(self, node: int, silently: bool) -> None:
        """A node's process is gone with all its ends: by a kill, which its system tells, or silently."""
        self.listeners.pop(node, None)
        for connections in list(self._connections.values()):
            for connection in [each for each in connections if node in each.ends]:
                connection.open[node] = False
                other = connection.other(node)
                wait_us = self._random.randint(*_SILENCE_US) if silently or self.is_cut(node, other) else 0
                self._timeline.after(wait_us + self.delay_us(node, other), partial(self._lose, connection, other))

    def _arrive(self, connection: Connection, sender: int, to: int, what: Batch) -> None:
        listener = self.listeners.get(to)
        if listener is not None and connection.open.get(to):
            listener.arrived(sender, connection, what)
        elif not connection.open.get(to) and connection.open.get(sender) and not self.is_cut(to, sender):
            self._timeline.after(self.delay_us(to, sender), lambda: self._lose(connection, sender))

    def _give_up_if_cut(self, connection: Connection, end: int) -> None:
        other = connection.other(end)
        if self.is_cut(end, other) or self.is_cut(other, end):
            self.close(connection, end)

    def _reset(self, connection: Connection) -> None:
        for end in connection.ends:
            if connection.open.get(end) and not connection.open.get(connection.other(end)):
                self._lose(connection, end)

    def _lose(self, connection: Connection, end: int) -> None:
        if not connection.open.get(end):
            return
        connection.open[end] = False
        if not any(connection.open.values()):
            self._connections.get(connection.ends, {}).pop(connection, None)
        listener = self.listeners.get(end)
        if listener is not None:
            listener.link_lost(connection.other(end), connection)

    # Requests

    def request(self, a: int, b: int, handle: Callable[[], None]) -> None:
        """A request from a to b: it is lost, or `handle` runs at b if that lives, perhaps twice."""
        arrivals = 2 if self._duplicated and self._random.random() < self._duplicated else 1
        for _ in range(arrivals):
            delay_us = self._exchange_us(a, b)
            if delay_us is not None:
                self._timeline.after(delay_us, lambda: self._handle(a, b, handle))

    def answer(self, b: int, a: int, what: Callable[[], None]) -> None:
        """What an answer of b brings about at a, unless it is lost."""
        delay_us = self._exchange_us(b, a)
        if delay_us is not None:
            self._timeline.after(delay_us, what)

    def _exchange_us(self, a: int, b: int) -> int | None:
        """How long one half of an exchange takes, with what is sent again; None where it is lost all the same."""
        delay_us, resend_us = self.delay_us(a, b), _RESEND_US
        for _ in range(_REQUEST_TRIES):
            if not self.is_cut(a, b) and not self.loses():
                return delay_us
            delay_us, resend_us = delay_us + resend_us, resend_us * 2
        self.counted["requests_lost"] += 1
        return None

    def _handle(self, a: int, b: int, handle: Callable[[], None]) -> None:
        if b in self.listeners and not self.is_cut(a, b):
            handle()
