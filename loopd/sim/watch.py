"""A node's failure detection in one of its lives: the engine's `Membership` over links and requests for NodeInfo."""

from typing import TYPE_CHECKING

from loopd.gossip.frames import Frame
from loopd.gossip.membership import AskNodeInfo, Belief, Effect, Membership, Observed, Send
from loopd.gossip.probing import WAN
from loopd.sim.timeline import US_PER_MS

if TYPE_CHECKING:
    from loopd.sim.node import Node


class Watch:
    """Watches all peers of a node, those without a link too."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._timer = 0
        self.membership = Membership(node.name, WAN, node.now_ms, node.random.random, self._now_ms)

    def start(self) -> None:
        """Begin to watch; whom each peer knows is read from its registry."""
        world = self._node.world
        for peer in self._node.peers:
            self.membership.watch(peer, self._now_ms)
        for peer in self._node.peers:
            self.membership.acquainted(peer, [world.names[each] for each in world.peers_of[world.numbers[peer]]])
        self._set_timer()

    def belief(self, peer: str) -> Belief:
        """What the node thinks of a peer."""
        return self.membership.status(peer).belief

    def link_up(self, peer: str) -> None:
        """There is a link to the peer."""
        self._carry_out(self.membership.link_up(peer, self._now_ms))

    def link_down(self, peer: str) -> None:
        """The link broke."""
        self._carry_out(self.membership.link_down(peer, self._now_ms))

    def receive(self, peer: str, frame: Frame) -> None:
        """A frame about health."""
        self._carry_out(self.membership.receive(peer, frame, self._now_ms))

    @property
    def _now_ms(self) -> int:
        """A clock of which only differences count."""
        return self._node.world.timeline.now_us // US_PER_MS

    def _carry_out(self, effects: list[Effect]) -> None:
        world = self._node.world
        for effect in effects:
            match effect:
                case Send():
                    self._node.send(effect.peer, effect.frame)
                case AskNodeInfo():
                    self._ask(effect)
                case Observed():
                    world.facts.counted[f"health_{effect.event.signal.value}"] += 1
                    world.note(effect.why.value, self._node.number, world.numbers[effect.peer])
        self._set_timer()

    def _ask(self, question: AskNodeInfo) -> None:
        """A request for NodeInfo: answered at once by a process that lives, or not at all."""
        node, world = self._node, self._node.world
        to = world.numbers[question.peer]
        open_ = True

        def answered() -> None:
            nonlocal open_
            if open_ and node.alive:
                open_ = False
                self._carry_out(self.membership.answered(question.peer, question.number, self._now_ms))

        def too_late() -> None:
            nonlocal open_
            if open_:
                open_ = False
                self._carry_out(self.membership.unanswered(question.peer, question.number, self._now_ms))

        world.network.request(node.number, to, lambda: world.network.answer(to, node.number, answered))
        node.after(question.timeout_ms * US_PER_MS, too_late)

    def _set_timer(self) -> None:
        self._timer += 1
        number = self._timer
        due_ms = self.membership.next_timer_ms()

        def tick() -> None:
            if number == self._timer:
                self._carry_out(self.membership.tick(self._now_ms))

        self._node.after(max(0, due_ms - self._now_ms) * US_PER_MS, tick)
