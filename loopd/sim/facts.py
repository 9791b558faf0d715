"""What happened in a run, as seen from outside: written down while it goes, judged by `checks`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loopd.gossip.frames import Copy, Done, Frame, Have
from loopd.sim.disk import Message
from loopd.sim.network import Connection

if TYPE_CHECKING:
    from loopd.sim.node import Node

# Answers by which a node says that it holds a message for good.
_KEPT = frozenset({"accepted", "upgraded", "duplicate"})


@dataclass
class Facts:
    """The facts of a run. Ids are message ids, numbers those of nodes, times true microseconds from the start."""

    counted: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    # Bodies and ids sent, by message; and what came to a node as a body.
    bodies: Counter[bytes] = field(default_factory=Counter)
    haves: Counter[bytes] = field(default_factory=Counter)
    # What a node said it holds, until its disk is lost.
    kept: dict[tuple[int, bytes], None] = field(default_factory=dict)
    made: dict[bytes, int] = field(default_factory=dict)
    most_offers: int = 0
    repairs_us: dict[int, list[int]] = field(default_factory=dict)
    repaired_us: int = 0
    lost_disks: dict[int, None] = field(default_factory=dict)
    _offers: dict[tuple[Connection, int], dict[int, bytes]] = field(default_factory=dict)

    def sent(self, node: "Node", peer: str, connection: Connection, frame: Frame) -> None:
        """An honest node sends a frame."""
        self.counted[type(frame).__name__] += 1
        match frame:
            case Copy() | Have():
                message_id = self._message_id(node, frame)
                (self.bodies if isinstance(frame, Copy) else self.haves)[message_id] += 1
                offers = self._offers.setdefault((connection, node.number), {})
                offers[frame.number] = message_id
                self.most_offers = max(self.most_offers, len(offers))
            case Done():
                offered = self._offers.get((connection, node.world.numbers[peer]), {}).pop(frame.number, None)
                if offered is not None and frame.reason in _KEPT:
                    self.kept[(node.number, offered)] = None
            case _:
                pass

    def settled(self, connection: Connection, offerer: int, number: int) -> None:
        """An offer was put off: it is no longer under way."""
        self._offers.get((connection, offerer), {}).pop(number, None)

    def decided(self, node: "Node", sender: str, message: Message | None, reason: str) -> None:
        """A node decided on a copy, and that is on its disk."""
        self.reasons[reason] += 1
        node.world.note(reason, node.number, node.world.numbers[sender])

    def requested(self, message_id: bytes) -> None:
        """A body goes out as a request."""
        self.counted["Request"] += 1
        self.bodies[message_id] += 1

    def answered(self, node: "Node", message_id: bytes, reason: str) -> None:
        """A node answers a request."""
        if reason in _KEPT:
            self.kept[(node.number, message_id)] = None

    def disk_lost(self, number: int) -> None:
        """A node's disk is gone, and with it what it had said to hold."""
        self.lost_disks[number] = None
        for key in [key for key in self.kept if key[0] == number]:
            del self.kept[key]

    def repair_started(self, node: "Node") -> None:
        """A comparison begins at this node."""
        self.repairs_us.setdefault(node.number, []).append(node.world.timeline.now_us)

    def repair_ended(self, node: "Node") -> None:
        """A comparison that this node began has ended."""
        self.counted["repairs"] += 1
        self.repaired_us = node.world.timeline.now_us

    @staticmethod
    def _message_id(node: "Node", frame: Copy | Have) -> bytes:
        if isinstance(frame, Have):
            return frame.message_id
        message = node.world.genuine(frame.origin, frame.origin_timestamp, frame.body)
        return b"" if message is None else message.message_id
