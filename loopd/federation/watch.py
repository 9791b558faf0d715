"""Which peers are there: the failure detector of `gossip.membership`, with real time, links and requests (§9.4).

It alone probes: by Ping over a link, by NodeInfo where there is none, and through other peers. What it observes of a
node goes to that node's worker, which keeps the stored health and sends accordingly. A peer can be asked about those
that its registry lists, which is read when its link comes up and every `ACQUAINTED_AGAIN_S` from then on.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.federation import nodes
from loopd.federation.introductions import Introductions
from loopd.federation.node_cards import Look, NodeCards
from loopd.gossip.frames import Frame
from loopd.gossip.health import Event, PeerHealth, Signal, State, Timing
from loopd.gossip.membership import AskNodeInfo, Belief, Effect, Membership, Observed, PeerStatus, Send, Why
from loopd.gossip.probing import Preset
from loopd.net.http_client import DialError

log = structlog.get_logger(__name__)

# How often the registry of a peer with a link is read for whom it knows, and how soon after the link came up at most:
# by lot, so that one that returns is not asked by all its peers together.
ACQUAINTED_AGAIN_S: Final = 600.0
ACQUAINTED_WITHIN_S: Final = 2.0
# How long the watch rests that a bug of ours interrupted.
RESTART_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How the watch reaches others. `observed` is told of each event of a node's health, in order."""

    linked: Callable[[str], bool]
    send: Callable[[str, Frame], None]
    round_trip: Callable[[str, int], None]
    observed: Callable[[str, Event], None]


class Watch:
    """Watches nodes between `start()` and `stop()`. Everything else may be called at any time."""

    def __init__(
        self,
        own_node_id: str,
        preset: Preset,
        timing: Timing,
        database: Database,
        introductions: Introductions,
        cards: NodeCards,
        clock: Clock,
        randomness: random.Random,
        reach: Reach,
    ) -> None:
        self._database = database
        self._introductions = introductions
        self._cards = cards
        self._clock = clock
        self._random = randomness
        self._reach = reach
        self._members = Membership(own_node_id, preset, clock.now_ms(), randomness.random, self._now_ms(), timing)
        self._why: dict[str, Why] = {}
        self._acquainting: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._replanned = asyncio.Event()
        self._running = False

    def start(self) -> None:
        """Begin to probe."""
        self._running = True
        self._spawn(self._keep_time())

    async def stop(self) -> None:
        """Probe nobody any more."""
        self._running = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Look at the clock, which a sleep does not."""
        self._replanned.set()

    # Whom to watch

    def watch(self, node_id: str, health: PeerHealth) -> None:
        """Begin to watch a node; nothing if it is. `health` is what was stored of it."""
        if node_id in self._members.peers():
            return
        wall_ms = self._clock.now_ms()
        absent_since_ms = wall_ms if health.absent_since_ms is None else health.absent_since_ms
        planned_ms = wall_ms if health.next_attempt_at_ms is None else health.next_attempt_at_ms
        self._members.watch(
            node_id,
            self._now_ms(),
            Belief.FAILED if health.state is State.UNREACHABLE else Belief.REACHABLE,
            absent_ms=wall_ms - absent_since_ms,
            failures=health.probe_failures,
            # A clock that was set back puts no probe off.
            next_probe_in_ms=planned_ms - wall_ms if wall_ms >= health.as_of_ms else 0,
        )
        for peer in self._members.peers():
            self._tell_acquaintances(peer)
        if self._reach.linked(node_id):
            self.link_changed(node_id)
        self._replanned.set()

    def unwatch(self, node_id: str) -> None:
        """Watch a node no more: it was removed or suspended, or nothing is to be sent to it any more."""
        self._members.unwatch(node_id)
        self._why.pop(node_id, None)

    def status(self, node_id: str) -> PeerStatus | None:
        """What can be shown of a node, where it is watched."""
        return self._members.status(node_id) if node_id in self._members.peers() else None

    def why(self, node_id: str) -> Why | None:
        """What was observed of a node last."""
        return self._why.get(node_id)

    # What happens

    def link_changed(self, node_id: str) -> None:
        """The link to a node came up, or went down."""
        earlier = self._acquainting.pop(node_id, None)
        if earlier is not None:
            earlier.cancel()
        if self._reach.linked(node_id):
            self._carry_out(self._members.link_up(node_id, self._now_ms()))
            if self._running:
                self._acquainting[node_id] = self._spawn(self._stay_acquainted(node_id))
        else:
            self._carry_out(self._members.link_down(node_id, self._now_ms()))

    def received(self, node_id: str, frame: Frame) -> None:
        """A frame about health came over a node's link."""
        self._carry_out(self._members.receive(node_id, frame, self._now_ms()))

    def contacted_by(self, node_id: str) -> None:
        """A node called here: that hastens a probe where it is needed, and shows nothing else."""
        self._carry_out(self._members.contacted_by(node_id, self._now_ms()))

    def request_failed(self, node_id: str) -> None:
        """A request to a node got no answer."""
        self._carry_out(self._members.request_failed(node_id, self._now_ms()))

    # Time and questions

    def _now_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1000)

    async def _keep_time(self) -> None:
        while True:
            try:
                await self._until_due()
                self._carry_out(self._members.tick(self._now_ms()))
                await asyncio.sleep(0)
            except Exception:
                log.exception("watch_failed")
                await asyncio.sleep(RESTART_S)

    async def _until_due(self) -> None:
        while (wait_ms := self._members.next_timer_ms() - self._now_ms()) > 0:
            self._replanned.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._replanned.wait()

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._reach.send(effect.peer, effect.frame)
                case AskNodeInfo() if self._running:
                    self._spawn(self._ask(effect))
                case Observed():
                    self._observed(effect)
                case _:
                    pass
        self._replanned.set()

    def _observed(self, observed: Observed) -> None:
        self._why[observed.peer] = observed.why
        if observed.link_round_trip_ms is not None:
            self._reach.round_trip(observed.peer, observed.link_round_trip_ms)
        self._reach.observed(observed.peer, observed.event)

    async def _ask(self, question: AskNodeInfo) -> None:
        """Ask for a NodeInfo. As long as any request may take: an answer after the question's own time says how slow
        the way has become."""
        node = nodes.find(self._database.points, question.peer)
        look = Look(is_there=False) if node is None else await self._cards.look(node)
        asked, now_ms = (question.peer, question.number), self._now_ms()
        if not look.is_there:
            if look.other_answer:
                # Whatever stands there instead would take, or refuse for good, what is sent before it is suspected.
                self._reach.observed(question.peer, Event(Signal.REQUEST_FAILED))
            self._carry_out(self._members.unanswered(*asked, now_ms))
            return
        self._carry_out(self._members.answered(*asked, now_ms, look.patience_ms))
        if look.patience_ms:
            self._reach.observed(question.peer, Event(Signal.DEFERRED, look.patience_ms))

    # Who knows whom

    async def _stay_acquainted(self, node_id: str) -> None:
        """Keep in mind, while a link is up, whom the peer knows and where it is."""
        await asyncio.sleep(self._random.random() * ACQUAINTED_WITHIN_S)
        while (node := nodes.find(self._database.points, node_id)) is not None:
            await self._cards.look(node)
            try:
                await self._introductions.listed_by(node)
            except DialError as error:
                log.info("registry_not_read", peer=node_id, error=str(error))
            self._tell_acquaintances(node_id)
            await asyncio.sleep(ACQUAINTED_AGAIN_S)

    def _tell_acquaintances(self, node_id: str) -> None:
        self._members.acquainted(node_id, self._introductions.last_listed_by(node_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("watch_failed", exc_info=task.exception())
