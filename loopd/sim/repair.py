"""A node's comparisons with its peers: which are under way, how many begin at once, and what they led to.

A link that is made leads to one, begun by who dialled. Both sides begin at most `SESSIONS_PER_S` in a second, so that
one that comes back is not stampeded; the others wait their turn.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from loopd.gossip.frames import Reconcile, ReconcileTtls
from loopd.gossip.reconciliation import Initiator, Items, ItemSet, Offer, Responder
from loopd.gossip.spread import LogEntry
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.sim.timeline import US_PER_S

if TYPE_CHECKING:
    from loopd.sim.node import Link, Node

SESSIONS_PER_S: Final = 5
_OFFERED_AT_ONCE: Final = 64


class Repair:
    """The comparisons of one life of a node."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._session = 0
        self._asking: dict[str, tuple[int, Initiator]] = {}
        self._answering: dict[str, tuple[int, Responder]] = {}
        self._next_start_us = 0
        # What is to be offered to each peer: by a number of its own below zero, the message and the TTL it is worth.
        self._waiting: dict[str, dict[int, Offer]] = {}
        self._offered: dict[str, dict[int, Offer]] = {}
        self._offers = 0

    def link_up(self, peer: str, starts: bool) -> None:
        """A link is there; who dialled starts a comparison."""
        self.link_down(peer)
        if starts and self._node.world.scenario.repair:
            link = self._node.links[peer]
            self._in_turn(lambda: self._start(peer, link))

    def link_down(self, peer: str) -> None:
        """What was under way with the peer is over."""
        self._asking.pop(peer, None)
        self._answering.pop(peer, None)
        self._waiting.pop(peer, None)
        self._offered.pop(peer, None)

    def receive(self, peer: str, frame: Reconcile | ReconcileTtls) -> None:
        """A message of a comparison. Raises ProtocolError."""
        asking = self._asking.get(peer)
        if asking is not None and asking[0] == frame.session:
            self._answered(peer, asking[1], frame)
            return
        if self._node.number < self._node.world.numbers[peer]:
            return  # an answer to a comparison that is over
        answering = self._answering.get(peer)
        if answering is not None and answering[0] == frame.session:
            self._answer(peer, answering[1], frame)
        elif isinstance(frame, Reconcile):
            link = self._node.links[peer]

            def begin() -> None:
                if self._node.links.get(peer) is link:
                    responder = Responder(self._items(peer))
                    self._answering[peer] = (frame.session, responder)
                    self._node.world.facts.repair_started(self._node)
                    self._answer(peer, responder, frame)

            self._in_turn(begin)

    def room_again(self, peer: str) -> None:
        """Something was settled: more can be offered."""
        if self._waiting.get(peer):
            self._offer(peer)

    def settled(self, peer: str, entry: int) -> None:
        """An offer is done with."""
        self._offered.get(peer, {}).pop(entry, None)

    def put_off(self, peer: str, entry: int, again_us: int) -> None:
        """The peer cannot take an offer now."""
        offer = self._offered.get(peer, {}).pop(entry, None)
        if offer is None:
            return
        link = self._node.links[peer]

        def again() -> None:
            if self._node.links.get(peer) is link:
                self._add(peer, [offer])

        self._node.after(again_us, again)

    def _in_turn(self, begin: Callable[[], None]) -> None:
        now_us = self._node.world.timeline.now_us
        start_us = max(now_us, self._next_start_us)
        self._next_start_us = start_us + US_PER_S // SESSIONS_PER_S
        self._node.after(start_us - now_us, begin)

    def _start(self, peer: str, link: "Link") -> None:
        if self._node.links.get(peer) is not link:
            return
        self._session += 1
        initiator = Initiator(self._items(peer))
        self._asking[peer] = (self._session, initiator)
        self._node.world.facts.repair_started(self._node)
        self._node.send(peer, Reconcile(self._session, initiator.start()))

    def _answered(self, peer: str, initiator: Initiator, frame: Reconcile | ReconcileTtls) -> None:
        session = frame.session
        if isinstance(frame, Reconcile):
            following = initiator.receive(frame.payload)
            if following is not None:
                self._node.send(peer, Reconcile(session, following))
                return
            self._add(peer, initiator.offers())
        else:
            self._add(peer, initiator.receive_ttls(frame.payload))
        part = initiator.next_ttls()
        if part is None:
            del self._asking[peer]
            self._node.world.facts.repair_ended(self._node)
        else:
            self._node.send(peer, ReconcileTtls(session, part))

    def _answer(self, peer: str, responder: Responder, frame: Reconcile | ReconcileTtls) -> None:
        if isinstance(frame, Reconcile):
            self._node.send(peer, Reconcile(frame.session, responder.receive(frame.payload)))
            return
        answer, offers = responder.receive_ttls(frame.payload)
        self._node.send(peer, ReconcileTtls(frame.session, answer))
        self._add(peer, offers)

    def _items(self, peer: str) -> ItemSet:
        """What is valid, is the newest of its subject, and has both nodes inside its radius."""
        tables = self._node.tables
        items = Items(
            (
                row.message.announcement.issued_at_ms,
                message_id,
                FLOOD_TTL_MAX + 1 if row.own else row.best.ttl,
                0,
            )
            for message_id, row in tables.messages.items()
            if self._is_newest(message_id) and self._node.in_both(peer, row.message)
        )
        return items.snapshot()

    def _is_newest(self, message_id: bytes) -> bool:
        tables = self._node.tables
        announcement = tables.messages[message_id].message.announcement
        newest = tables.newest.get((announcement.origin, announcement.subject))
        return (tables.own.get(announcement.subject) if newest is None else newest.message_id) == message_id

    def _add(self, peer: str, offers: list[Offer]) -> None:
        for offer in offers:
            self._offers += 1
            self._waiting.setdefault(peer, {})[-self._offers] = offer
        self._offer(peer)

    def _offer(self, peer: str) -> None:
        waiting, tables = self._waiting.get(peer, {}), self._node.tables
        while waiting:
            batch: list[LogEntry] = []
            for entry, offer in list(waiting.items())[:_OFFERED_AT_ONCE]:
                row = tables.messages.get(offer.message_id)
                # Meanwhile it may have ended, or a newer state of its subject have come.
                if (
                    row is None
                    or not self._is_newest(offer.message_id)
                    or not self._node.goes_to(peer, row.message, None)
                ):
                    del waiting[entry]
                else:
                    batch.append(self._node.repair_entry(entry, row, offer.ttl))
            for each in batch:
                self._offered.setdefault(peer, {})[each.entry] = waiting[each.entry]
            taken = self._node.offer_beside(peer, batch, ids_only=True)
            for each in batch[:taken]:
                waiting.pop(each.entry, None)
            for each in batch[taken:]:
                self._offered[peer].pop(each.entry, None)
            if taken < len(batch):
                return
