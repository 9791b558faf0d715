"""Nodes that attack: peers in good standing as far as anybody knows, that say what no honest node would."""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

from loopd.crypto.hop_chain import HOP_VALUE_BYTES, next_hop_value
from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import Copy, Done, Frame, Have, Want, decode_batch, encode_batch
from loopd.sim.network import Batch, Connection
from loopd.sim.scenario import Attack
from loopd.sim.timeline import US_PER_S

if TYPE_CHECKING:
    from loopd.sim.world import World

# The highest TTL that a relay can claim at all.
_RELAYED_TTL_MAX: Final = 2
_ACTS_MAX: Final = 400


class Malicious:
    """A malicious node. It learns what it can, as any peer, and attacks with it; after many acts it rests."""

    def __init__(self, world: "World", number: int, attack: Attack, random: Random) -> None:
        self._world = world
        self._number = number
        self._attack = attack
        self._random = random
        self._links: dict[int, Connection] = {}
        self._known: dict[bytes, tuple[int, bytes | None]] = {}
        self._offers = 0
        self._acts = 0

    def start(self) -> None:
        """Dial, as any node does."""
        for peer in self._world.peers_of[self._number]:
            if self._number < peer:
                self._dial(peer)

    def _dial(self, peer: int) -> None:
        self._world.network.dial(
            self._number, peer, lambda: self._world.timeline.after(US_PER_S, lambda: self._dial(peer))
        )

    def link_made(self, peer: int, connection: Connection) -> None:
        """A link is there."""
        self._links[peer] = connection

    def link_lost(self, peer: int, connection: Connection) -> None:
        """A link is gone: who was found out comes again."""
        if self._links.get(peer) is connection:
            del self._links[peer]
            if self._number < peer:
                self._world.timeline.after(5 * US_PER_S, lambda: self._dial(peer))

    def arrived(self, peer: int, connection: Connection, what: Batch) -> None:
        """Frames came."""
        if self._attack is Attack.SILENCE:
            return
        try:
            frames = decode_batch(what) if isinstance(what, bytes) else what
        except ProtocolError:
            return
        for frame in frames:
            if isinstance(frame, Copy | Have) and self._acts < _ACTS_MAX:
                self._acts += 1
                self._heard(peer, frame)

    def _heard(self, peer: int, frame: Copy | Have) -> None:
        self._send(peer, Done(frame.number, "accepted", eager=True))
        if isinstance(frame, Have):
            if self._attack is Attack.EMPTY_HAVE:
                self._offer_nothing(frame.message_id, frame.origin)
            elif frame.message_id not in self._known:
                self._known[frame.message_id] = (0, None)
                self._send(peer, Want(frame.message_id))
            return
        message = self._world.genuine(frame.origin, frame.origin_timestamp, frame.body)
        if message is None:
            return
        best = self._known.get(message.message_id, (0, None))
        if frame.ttl <= best[0]:
            return
        self._known[message.message_id] = (frame.ttl, frame.hop_value)
        match self._attack:
            case Attack.FORGED_TTL:
                self._forge(frame, message.message_id)
            case Attack.REPEATED_HOP:
                self._repeat(frame)
            case Attack.JUNK:
                self._send_junk(frame)
            case Attack.EMPTY_HAVE:
                self._offer_nothing(message.message_id, frame.origin)

    def _forge(self, frame: Copy, message_id: bytes) -> None:
        """Claim TTLs above what the value proves, with values of every kind."""
        value = frame.hop_value or bytes(HOP_VALUE_BYTES)
        values = (self._random.randbytes(HOP_VALUE_BYTES), value, next_hop_value(value), value[::-1])
        for peer in list(self._links):
            for claimed in (2, 3):
                for made_up in values:
                    honest = claimed < frame.ttl or (claimed == frame.ttl and made_up == value)
                    if not honest:
                        self._offer(peer, replace(frame, ttl=claimed, hop_value=made_up))
                        self._offers += 1
                        self._send(peer, Have(self._offers, message_id, claimed, made_up, frame.origin))

    def _repeat(self, frame: Copy) -> None:
        """Pass on the own value unhashed: the one thing that no chain prevents, and that adds one hop."""
        value, ttl = frame.hop_value, frame.ttl
        if value is not None and ttl > _RELAYED_TTL_MAX:
            value, ttl = next_hop_value(value), _RELAYED_TTL_MAX
        for peer in list(self._links):
            self._offer(peer, replace(frame, ttl=ttl, hop_value=value))

    def _send_junk(self, frame: Copy) -> None:
        for peer in list(self._links):
            body = bytearray(frame.body)
            body[self._random.randrange(len(body))] ^= 1 << self._random.randrange(8)
            self._offer(peer, replace(frame, ttl=min(frame.ttl, _RELAYED_TTL_MAX), body=bytes(body)))
            for odd in (Want(self._random.randbytes(32)), Done(self._random.randrange(50), "accepted", eager=False)):
                self._send(peer, odd)
            if self._random.random() < 0.2:
                self._send_bytes(peer, self._random.randbytes(self._random.randint(0, 200)))

    def _offer_nothing(self, message_id: bytes, origin: str) -> None:
        for peer in list(self._links):
            self._offers += 1
            value = self._random.randbytes(HOP_VALUE_BYTES)
            self._send(peer, Have(self._offers, message_id, self._random.randint(1, 2), value, origin))

    def _offer(self, peer: int, copy: Copy) -> None:
        self._offers += 1
        self._send(peer, replace(copy, number=self._offers))

    def _send(self, peer: int, frame: Frame) -> None:
        self._send_bytes(peer, encode_batch([frame]))

    def _send_bytes(self, peer: int, data: bytes) -> None:
        connection = self._links.get(peer)
        if connection is not None:
            self._world.network.send(connection, self._number, data, len(data))
