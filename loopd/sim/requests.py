"""A node's sending to peers without a link: single requests of §8.2, the log read from the same cursors.

A batch is under way at once; what is not answered in time is sent again after a back-off, as often as it takes.
"""

from typing import TYPE_CHECKING, Final

from loopd.gossip.flood import HopState
from loopd.gossip.health import backoff_ms
from loopd.gossip.spread import LogEntry
from loopd.sim.timeline import US_PER_MS, US_PER_S

if TYPE_CHECKING:
    from loopd.sim.node import Node

_AT_ONCE: Final = 8
_ANSWER_WITHIN_US: Final = 10 * US_PER_S
_OVERLOADED: Final = "overloaded"


class Requests:
    """The requests of one life of a node."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._under_way: dict[str, dict[int, None]] = {}
        self._answered: dict[str, dict[int, None]] = {}
        self._next: dict[str, int] = {}

    def pump_all(self) -> None:
        """Send what is new to all peers that are spoken to like this."""
        node = self._node
        for peer in node.world.peers_of[node.number]:
            if (node.number, peer) in node.world.by_request:
                self.pump(node.world.names[peer])

    def pump(self, peer: str) -> None:
        """Send the next entries of the log, as many as may be under way."""
        tables = self._node.tables
        under_way = self._under_way.setdefault(peer, {})
        place = self._next.setdefault(peer, tables.cursors.get(peer, 0))
        while place < len(tables.log) and len(under_way) < _AT_ONCE:
            entry = self._node.entry_for(peer, tables.log[place])
            place += 1
            self._next[peer] = place
            if isinstance(entry, LogEntry):
                under_way[place] = None
                self._send(peer, entry, 0)
            else:
                self._settle(peer, place)

    def _send(self, peer: str, entry: LogEntry, failures: int) -> None:
        node, world = self._node, self._node.world
        to = world.numbers[peer]
        answered = False
        world.facts.requested(entry.message_id)

        def handle() -> None:
            receiver = world.living[to]
            state = HopState(entry.ttl, entry.hop_value)

            def decided(reason: str) -> None:
                world.facts.answered(receiver, entry.message_id, reason)
                receiver.settled_elsewhere(entry.message_id)
                world.network.answer(to, node.number, lambda: done(reason))

            receiver.take(node.name, entry.origin, entry.origin_timestamp, entry.body, state, decided)

        def done(reason: str) -> None:
            nonlocal answered
            if answered or not node.alive:
                return
            answered = True
            if reason == _OVERLOADED:
                node.after(US_PER_S, lambda: self._again(peer, entry, failures))
                return
            self._under_way[peer].pop(entry.entry, None)
            self._settle(peer, entry.entry)
            self.pump(peer)

        def too_late() -> None:
            nonlocal answered
            if not answered:
                answered = True
                wait_ms = backoff_ms(failures + 1, 0, node.random.random())
                node.after(wait_ms * US_PER_MS, lambda: self._again(peer, entry, failures + 1))

        world.network.request(node.number, to, handle)
        node.after(_ANSWER_WITHIN_US, too_late)

    def _again(self, peer: str, entry: LogEntry, failures: int) -> None:
        current = self._node.entry_for(peer, self._node.tables.log[entry.entry - 1])
        if isinstance(current, LogEntry):
            self._send(peer, current, failures)
        else:
            self._under_way[peer].pop(entry.entry, None)
            self._settle(peer, entry.entry)
            self.pump(peer)

    def _settle(self, peer: str, entry: int) -> None:
        """The cursor passes what is answered for without a gap."""
        node = self._node
        answered = self._answered.setdefault(peer, {})
        answered[entry] = None
        lowest = min(self._under_way[peer], default=self._next[peer] + 1)
        passed = max((each for each in answered if each < lowest), default=None)
        if passed is not None:
            for each in [each for each in answered if each <= passed]:
                del answered[each]
            node.advance(peer, passed)
