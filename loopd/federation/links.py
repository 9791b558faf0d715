"""The links of this node: who dials whom, which one of two is kept, and what they share (§9.3).

One link a pair. The node with the smaller id dials as soon as a probe of the peer succeeded; the other one waits
`PATIENCE_S` for it, and then dials too, for the way may lead out of one city alone. Where both have dialled, both keep
the link that the smaller id dialled, and of two that the same side dialled the newer one. While a peer's link is up the
log goes over it; while there is none, as requests of §8.2. A link that cannot be made is tried again after longer and
longer, up to `RETRY_MAX_S`; what waits does not wait for it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.database import Database
from loopd.federation import nodes
from loopd.federation.flooding import Flooding
from loopd.federation.link_copies import LinkCopies, held
from loopd.federation.link_pump import LinkPump, LinkSurroundings
from loopd.federation.link_repair import HeldItems, Pace, Repair, RepairLoader
from loopd.federation.link_requests import LinkRequests, Serve
from loopd.federation.misbehaviour import Misbehaviour
from loopd.federation.outbox import FloodEntry
from loopd.federation.settings import FederationSettings
from loopd.gossip.flood import Route
from loopd.gossip.frames import Frame
from loopd.gossip.reputation import Conduct
from loopd.gossip.spread import Effects, Spread
from loopd.identity import Identity
from loopd.net.http_client import DialError, PeerAnswer, PeerClient
from loopd.net.link import LINK_PATH, Challenger, Link, LinkRefused, Socket
from loopd.protocol.errors import Unavailable
from loopd.protocol.limits import (
    LINK_BATCH_MAX_BYTES,
    LINK_CHALLENGES_MAX,
    LINK_HEARTBEAT_S,
    LINK_OPEN_TIMEOUT_S,
)
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.vocabulary import Feature

log = structlog.get_logger(__name__)

PATIENCE_S: Final = 3.0
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 60.0
# A link that lasted so long was a good one: the next attempt is the first again.
LASTED_S: Final = 10.0
OTHER_LINK: Final = "other_link_kept"


@dataclass(slots=True)
class _Dialling:
    """When a peer is dialled next, and how often in a row that came to nothing."""

    not_before_s: float
    failures: int = 0
    task: asyncio.Task[None] | None = None


class Links:
    """Makes links, takes them, and keeps them busy.

    `changed` is told of a node whose link came up or went down, `health` of each frame about health.
    """

    def __init__(
        self,
        identity: Identity,
        settings: FederationSettings,
        database: Database,
        client: PeerClient,
        flooding: Flooding,
        misbehaviour: Misbehaviour,
        clock: Clock,
        route: Callable[[FloodEntry, KnownNode], Route],
        may_offer: Callable[[KnownNode], bool],
        requests_settled: Callable[[str], Awaitable[None]],
        changed: Callable[[str], None],
        health: Callable[[str, Frame], None],
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._database = database
        self._client = client
        self._misbehaviour = misbehaviour
        self._clock = clock
        self._changed = changed
        self._spread = Spread()
        self._challenger = Challenger(identity.node_id, lambda: identity.key, secrets.token_bytes)
        self._around = LinkSurroundings(
            identity.node_id,
            database,
            clock,
            self._spread,
            LinkCopies(database, flooding, clock),
            route,
            may_offer,
            requests_settled,
            self._carry_out,
            misbehaviour,
            health,
        )
        self._items = HeldItems(database, clock)
        self._pace = Pace(clock)
        self._loader = RepairLoader(identity.node_id, database, clock)
        # The link that is to be kept of each peer, and the pump of the one that runs: the next waits for its end.
        self._kept: dict[str, Link] = {}
        self._running: dict[str, LinkPump] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._dialling: dict[str, _Dialling] = {}
        self._challenges = 0
        self._open = False
        self._serve_request: Serve | None = None
        self._timer_changed = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def enabled(self) -> bool:
        """Whether this node has links at all."""
        return self._settings.links == "auto"

    def start(self, serve_request: Serve) -> None:
        """Begin to make and take links; the requests that come over them are answered by `serve_request`."""
        self._serve_request = serve_request
        self._open = self.enabled
        if self._open:
            self._ticker = asyncio.create_task(self._tick(), name="links")

    async def stop(self) -> None:
        """End every link in good order. What was offered and not settled is sent again after the next start."""
        self._open = False
        for link in self._kept.values():
            link.end("stopping")
        tasks = [entry.task for entry in self._dialling.values() if entry.task is not None]
        tasks += [task for task in (self._ticker,) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._serving, return_exceptions=True)
        self._dialling.clear()

    async def post(self, node_id: str, path: str, headers: Mapping[str, str], body: bytes) -> PeerAnswer | None:
        """The answer to a signed POST (`path` from `/api/v1` on) over the link to a node.

        None where it has to go by HTTP: there is no link, or it cannot carry this, or it broke before the answer.
        """
        pump = self._running.get(node_id)
        if pump is None or pump.requests is None:
            return None
        return await pump.requests.post(path, headers, body)

    def carries(self, node_id: str) -> bool:
        """Whether the log goes to this node over a link now."""
        pump = self._running.get(node_id)
        return pump is not None and pump.link.is_open

    def send(self, node_id: str, frame: Frame) -> None:
        """Send a frame over the link to a node, if there is one."""
        pump = self._running.get(node_id)
        if pump is not None:
            pump.link.send([frame])

    def round_trip(self, node_id: str, round_trip_ms: int) -> None:
        """A round trip was measured over the link to a node: what is asked for is waited for accordingly."""
        self._spread.round_trip(node_id, round_trip_ms)

    def queued(self) -> None:
        """Something was queued for all peers."""
        for pump in self._running.values():
            pump.wake()

    def wake(self, node_id: str) -> None:
        """What had to come before the log was said to this node."""
        pump = self._running.get(node_id)
        if pump is not None:
            pump.wake()

    def end(self, node_id: str, reason: str) -> None:
        """End the link to a node, if there is one: it was suspended or removed, or shook hands anew."""
        link = self._kept.get(node_id)
        if link is not None:
            link.end(reason)

    def came_by_request(self, message_id: bytes) -> None:
        """A message was decided on that came by a request: who offers it over a link is answered."""
        if self._running:
            best = held(self._database.points, message_id)
            self._carry_out(self._spread.settled_elsewhere(message_id, best, self._around.now_ms()))

    # Making links

    def reachable(self, node: KnownNode) -> None:
        """A probe of this peer succeeded: dial it, if it is time to."""
        node_id = node.node_id
        if not self._open or not _may_link(node) or node_id in self._kept or self._banned(node_id):
            return
        now_s = self._clock.monotonic_s()
        entry = self._dialling.get(node_id)
        if entry is None:
            patience_s = 0.0 if self._identity.node_id < node_id else PATIENCE_S
            entry = self._dialling[node_id] = _Dialling(now_s + patience_s)
        if entry.task is None and now_s >= entry.not_before_s:
            entry.task = asyncio.create_task(self._dial(node, entry), name=f"link-{node_id}")

    async def _dial(self, node: KnownNode, entry: _Dialling) -> None:
        started_s = self._clock.monotonic_s()
        try:
            link = await self._made(node)
            await self._serve(link)
        except (DialError, LinkRefused) as error:
            reason = error.reason if isinstance(error, LinkRefused) else str(error)
            log.info("link_not_made", peer=node.node_id, reason=reason)
        finally:
            now_s = self._clock.monotonic_s()
            entry.task = None
            entry.failures = 0 if now_s - started_s > LASTED_S else entry.failures + 1
            entry.not_before_s = now_s + min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(entry.failures, 8))

    async def _made(self, node: KnownNode) -> Link:
        """A link to a peer, dialled and shown to be to it. DialError or LinkRefused."""
        if node.public_key is None:
            raise LinkRefused("no_key")
        socket = await self._client.open_websocket(
            node.endpoint + LINK_PATH,
            trusted=node.named_by_operator,
            timeout_s=LINK_OPEN_TIMEOUT_S,
            message_max_bytes=LINK_BATCH_MAX_BYTES,
            heartbeat_s=LINK_HEARTBEAT_S,
        )
        try:
            dialect = await self._challenger.as_initiator(socket, node.node_id, PublicKey(node.public_key))
        except BaseException:
            await socket.close()
            raise
        return Link(socket, node.node_id, dialect, dialled=True)

    async def accept(self, socket: Socket) -> None:
        """Take a WebSocket that somebody opened, and carry frames over it until it ends.

        Who is not entitled to a link is told so on the socket.
        """
        if not self._has_room:
            await socket.close()
            return
        self._challenges += 1
        try:
            peer, dialect = await self._challenger.as_responder(socket, self._key_of)
        except LinkRefused as refusal:
            log.info("link_refused", reason=refusal.reason, by_peer=refusal.by_peer)
            await socket.close()
            return
        finally:
            self._challenges -= 1
        await self._serve(Link(socket, peer, dialect, dialled=False))

    @property
    def _has_room(self) -> bool:
        return self._open and self._challenges < LINK_CHALLENGES_MAX

    def check_room(self) -> None:
        """Unavailable where as many links are being made as may be, or the node is stopping."""
        if not self._has_room:
            raise Unavailable("overloaded", "Too many links are being made at once.", 5)

    def _key_of(self, node_id: str) -> PublicKey:
        node = nodes.find(self._database.points, node_id)
        if node is None:
            raise LinkRefused("unknown_node")
        if node.standing is Standing.SUSPENDED:
            raise LinkRefused("suspended")
        if self._banned(node_id):
            raise LinkRefused("banned")
        if not _may_link(node) or node.public_key is None:
            raise LinkRefused("not_a_peer")
        return PublicKey(node.public_key)

    def _banned(self, node_id: str) -> bool:
        return self._misbehaviour.conduct(node_id) is Conduct.BANNED

    # Keeping links

    async def _serve(self, link: Link) -> None:
        """Carry frames over a link that was made, if it is the one to keep."""
        peer = link.peer
        kept = self._kept.get(peer)
        if not self._open or (kept is not None and kept.is_open and not self._prefers(link, kept)):
            link.end(OTHER_LINK if self._open else "stopping")
            await link.close()
            return
        if kept is not None:
            kept.end(OTHER_LINK)
        self._kept[peer] = link
        task = asyncio.ensure_future(self._carry(link))
        self._serving.add(task)
        try:
            # Whoever is cancelled here, the handler of a request or a task of ours, ends the link in good order first.
            await asyncio.shield(task)
        except asyncio.CancelledError:
            link.end("stopping")
            with suppress(asyncio.CancelledError):
                await task
            raise
        finally:
            self._serving.discard(task)

    async def _carry(self, link: Link) -> None:
        peer = link.peer
        async with self._turns.setdefault(peer, asyncio.Lock()):
            try:
                if link.is_open and self._kept.get(peer) is link:
                    await self._run(link)
                else:
                    await link.close()
            finally:
                if self._kept.get(peer) is link:
                    del self._kept[peer]
        self._changed(peer)

    async def _run(self, link: Link) -> None:
        peer = link.peer
        pump = LinkPump(link, self._around, self._loader.load)
        pump.repair = Repair(
            link,
            lambda: nodes.find(self._database.points, peer),
            self._items,
            self._pace,
            self._settings.max_messages,
            pump.offer_repaired,
        )
        if self._serve_request is not None:
            pump.requests = LinkRequests(link, self._serve_request, self._clock, self._settings.request_timeout_s)
        self._running[peer] = pump
        log.info("link_up", peer=peer, dialled=link.dialled)
        self._changed(peer)
        try:
            reason = await pump.run()
        finally:
            del self._running[peer]
            self._send(self._spread.link_down(peer, self._around.now_ms()))
        log.info("link_down", peer=peer, reason=reason)

    def _prefers(self, new: Link, kept: Link) -> bool:
        """Of two links to a peer, that of the smaller id; of two that one side dialled, the newer one."""
        if new.dialled == kept.dialled:
            return True
        return new.dialled == (self._identity.node_id < new.peer)

    # What links share

    def _carry_out(self, effects: Effects) -> None:
        """Send what the engine says, and have the better TTLs that it found decided on."""
        self._send(effects.frames)
        for offer in effects.upgrades:
            pump = self._running.get(offer.peer)
            if pump is None or not pump.upgrade(offer):
                now_ms = self._around.now_ms()
                self._carry_out(
                    self._spread.put_off(offer.peer, offer.number, offer.message_id, "link_ended", 1_000, now_ms)
                )
        self._timer_changed.set()

    def _send(self, frames: Iterable[tuple[str, Frame]]) -> None:
        for peer, frame in frames:
            self.send(peer, frame)
        self._timer_changed.set()

    async def _tick(self) -> None:
        """Let the engine ask for what did not come, when that is due."""
        while True:
            self._timer_changed.clear()
            due_ms = self._spread.next_timer_ms()
            if due_ms is None:
                await self._timer_changed.wait()
                continue
            wait_ms = due_ms - self._around.now_ms()
            if wait_ms > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_ms / 1000):
                        await self._timer_changed.wait()
                continue
            self._send(self._spread.tick(self._around.now_ms()))


def _may_link(node: KnownNode) -> bool:
    """Whether a link is kept with a node: a peer whose requests are signed, and that can."""
    return (
        node.standing is Standing.PEER
        and node.auth is PeerAuth.SIGNED
        and node.public_key is not None
        and Feature.LINK in node.features
    )
