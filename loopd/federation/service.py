"""The federation's door: what the API, the other modules and the composition root see of it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.events.service import EventLog
from loopd.federation import choices, nodes, outbox
from loopd.federation.announcing import Announcer
from loopd.federation.authentication import NodeAuthenticator
from loopd.federation.flooding import Flooding
from loopd.federation.handshake import Answer, HandshakeFailed, Handshakes, Verdict
from loopd.federation.heard import HeardHook, nobody_listens
from loopd.federation.housekeeping import Housekeeping
from loopd.federation.introductions import Introductions
from loopd.federation.keeper import Company, Keeper
from loopd.federation.link_requests import Serve
from loopd.federation.links import Links
from loopd.federation.misbehaviour import Misbehaviour
from loopd.federation.node_cards import NodeCards
from loopd.federation.nodes import AddedBy, Admission
from loopd.federation.outbox import Outbox
from loopd.federation.peer_view import show_claim, show_peer
from loopd.federation.requests import Destination, NodeRequests
from loopd.federation.rotation import KeyStatements
from loopd.federation.settings import FederationSettings
from loopd.federation.watch import Reach, Watch
from loopd.federation.worker import RequestAnswered, Surroundings, flood_route
from loopd.federation.workers import Workers
from loopd.gossip.health import Event, PeerHealth, Timing
from loopd.gossip.reputation import Conduct
from loopd.identity import Identity
from loopd.net.http_client import CallbackGate, PeerAnswer, PeerClient
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.subjects import Subject

log = structlog.get_logger(__name__)

# A node that has not accepted yet is asked again this often; when its operator approves, it calls at once.
ASK_AGAIN_S = 300.0
# A handshake that came to nothing is tried again this soon.
TRY_AGAIN_S = 5.0
# A new key is taken up when the peers that can be reached know of it, or after this time.
TELL_KEYS_S = 5.0
TELL_KEYS_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Modules:
    """What the federation needs of the other modules, each as one narrow door.

    `subject_by_id` reads a record's flow metadata in a transaction; `request_answered` tells who queued a request how
    it ended; `peer_contacted` fetches what else is wanted of a peer that answered; `decided` counts decisions;
    `serve_request` answers a request that came over a link as if it had come by HTTP.
    """

    subject_by_id: Callable[[Tx, str], Subject | None]
    request_answered: RequestAnswered
    peer_contacted: Callable[[KnownNode, NodeRequests], Awaitable[None]]
    decided: Callable[[str], None]
    serve_request: Serve


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """What came of the operator's wish for a peer."""

    node_id: str
    status: str  # accepted, pending or rejected
    message: str
    fingerprint: str | None


class Federation:
    """The node among other nodes. `start()` on the running loop, `stop()` before the database closes."""

    def __init__(
        self,
        identity: Identity,
        settings: FederationSettings,
        database: Database,
        client: PeerClient,
        audit: AuditLog,
        events: EventLog,
        clock: Clock,
        randomness: random.Random,
        random_bytes: Callable[[int], bytes],
        *,
        development: bool = False,
        heard: HeardHook = nobody_listens,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._database = database
        self._audit = audit
        self._events = events
        self._clock = clock
        self._random = randomness
        self._modules: Modules | None = None
        self._asked_at_s: dict[str, float] = {}
        self._learns = settings.learns_peers(development=development)
        self._preset = settings.preset(development=development)
        self._timing = Timing(probe_interval_ms=self._preset.interval_ms)
        self.workers = Workers(randomness)
        self.requests = NodeRequests(identity, client, clock, settings.request_timeout_s, self._over_link)
        self.outbox = Outbox(self._queued)
        self.announcer = Announcer(identity, settings, self.outbox, audit, clock, random_bytes, development=development)
        self.introductions = Introductions(identity.node_id, database, self.requests, clock)
        self.handshakes = self._make_handshakes()
        self.misbehaviour = Misbehaviour(database, audit, clock, lambda node_id: self.links.end(node_id, "banned"))
        self.flooding = self._make_flooding(heard)
        validity_ms = settings.announcement_validity_s * 1000
        self.housekeeping = Housekeeping(database, self.announcer, self.misbehaviour, clock, validity_ms)
        self.key_statements = KeyStatements(
            identity.node_id, database, self.requests, audit, clock, self.workers.wake_all, self.flooding.release
        )
        self.links = self._make_links(client)
        self.watch = self._make_watch()
        self.keeper = self._make_keeper()
        self.authenticator = self._make_authenticator()

    # Parts. Each knows of the others what it is given here.

    def _make_handshakes(self) -> Handshakes:
        return Handshakes(
            self._identity,
            self._settings,
            self.requests,
            CallbackGate(self._clock),
            self._audit,
            self._clock,
            self._admitted,
            keeps_places=self._learns,
        )

    def _make_flooding(self, heard: HeardHook) -> Flooding:
        return Flooding(
            self._identity,
            self._settings,
            self._database,
            self.introductions,
            self.outbox,
            self._audit,
            self._clock,
            self._decided,
            lambda message_id: self.links.came_by_request(message_id),
            misbehaviour=self.misbehaviour,
            heard=heard,
        )

    def _make_links(self, client: PeerClient) -> Links:
        return Links(
            self._identity,
            self._settings,
            self._database,
            client,
            self.flooding,
            self.misbehaviour,
            self._clock,
            flood_route,
            lambda node: not self.key_statements.untold(node),
            self._floods_settled,
            self._link_changed,
            lambda node_id, frame: self.watch.received(node_id, frame),
        )

    def _make_watch(self) -> Watch:
        return Watch(
            self._identity.node_id,
            self._preset,
            self._timing,
            self._database,
            self.introductions,
            NodeCards(self._database, self.requests, self._clock),
            self._clock,
            self._random,
            Reach(self.links.carries, self.links.send, self.links.round_trip, self._observed),
        )

    def _make_keeper(self) -> Keeper:
        return Keeper(
            self._identity,
            self._settings,
            self._database,
            self.introductions,
            self.handshakes,
            self._clock,
            self._random,
            Company(
                self.health_of,
                lambda node_id: self.misbehaviour.conduct(node_id) is Conduct.CLEAR,
                self._establish,
                self._was_asked,
                self._let_go,
            ),
            learns=self._learns,
        )

    def _make_authenticator(self) -> NodeAuthenticator:
        return NodeAuthenticator(
            self._identity.node_id,
            self._database.points,
            self._clock,
            self.handshakes.settled,
            self.introductions.seek,
            self._contacted_us,
            self.misbehaviour.refuse_banned,
        )

    # Life

    async def start(self, modules: Modules) -> None:
        """Take up work: a worker for each peer, and for each node that a request waits for."""
        self._modules = modules
        rows = await self._database.all(
            "SELECT node_id FROM node WHERE standing IN ('peer', 'pending', 'suspended')"
            " UNION SELECT target FROM outbox WHERE target IN (SELECT node_id FROM node)"
        )
        self.workers.start(self._surroundings(modules), [row["node_id"] for row in rows])
        self.housekeeping.start(modules.subject_by_id, modules.request_answered)
        self.watch.start()
        self.links.start(modules.serve_request)
        self.keeper.start()

    async def stop(self) -> None:
        """End every worker. What was in flight is sent again after the next start."""
        await self.keeper.stop()
        await self.links.stop()
        await self.housekeeping.stop()
        await self.watch.stop()
        await self.workers.stop()
        self._modules = None

    def _surroundings(self, modules: Modules) -> Surroundings:
        return Surroundings(
            self._identity.node_id,
            self._database,
            self.requests,
            self._events,
            self._clock,
            self._timing,
            self.watch,
            modules.request_answered,
            self._contacted,
            self._shake_owed,
            self.key_statements,
            self.links.carries,
            self.links.wake,
        )

    def _queued(self, target: str | None) -> None:
        if target is None:
            self.links.queued()
            for worker in self.workers:
                worker.flood_queued()
        else:
            self.workers.ensure(target)
            self.workers.wake(target)

    async def tell_keys(self) -> None:
        """Tell every peer that can be reached what was stated about keys, and wait for that, but not for long."""
        self.workers.wake_all()
        for _ in range(round(TELL_KEYS_S / TELL_KEYS_LOOK_S)):
            if not self._owes_key_statement():
                return
            await asyncio.sleep(TELL_KEYS_LOOK_S)

    def _owes_key_statement(self) -> bool:
        for worker in self.workers:
            health, node = worker.health, nodes.find(self._database.points, worker.node_id)
            if node is None or (health is not None and not health.may_send(self._clock.now_ms())):
                continue
            if self.key_statements.untold(node):
                return True
        return False

    def _dismiss(self, node_id: str) -> None:
        """The node was removed."""
        self.introductions.forget(node_id)
        self.misbehaviour.forget(node_id)
        self._asked_at_s.pop(node_id, None)
        self.links.end(node_id, "removed")
        self.workers.dismiss(node_id)

    def _let_go(self, node_id: str) -> None:
        """The node is no peer any more; what waits for it alone still goes out."""
        self.introductions.forget(node_id)
        self._asked_at_s.pop(node_id, None)
        self.links.end(node_id, "let_go")
        self.workers.wake(node_id)

    def _was_asked(self, node_id: str) -> None:
        self._asked_at_s[node_id] = self._clock.monotonic_s()

    async def _contacted(self, node: KnownNode) -> None:
        """A probe of a peer succeeded: there may be a link to it, and the modules may want something of it."""
        self.links.reachable(node)
        if self._modules is not None:
            await self._modules.peer_contacted(node, self.requests)

    async def _floods_settled(self, node_id: str) -> None:
        worker = self.workers.find(node_id)
        if worker is not None:
            await worker.floods_settled()

    async def _over_link(self, node_id: str, path: str, headers: Mapping[str, str], body: bytes) -> PeerAnswer | None:
        return await self.links.post(node_id, path, headers, body)

    def _link_changed(self, node_id: str) -> None:
        self.watch.link_changed(node_id)
        self.workers.wake(node_id)

    def _observed(self, node_id: str, event: Event) -> None:
        worker = self.workers.find(node_id)
        if worker is not None:
            worker.observed(event)

    def _admitted(self, node_id: str) -> None:
        # Who shakes hands anew may have lost what it had: everything is offered once more, from the start.
        self.links.end(node_id, "new_handshake")
        self._queued(node_id)

    def _decided(self, reason: str) -> None:
        if self._modules is not None:
            self._modules.decided(reason)

    async def _contacted_us(self, node_id: str) -> None:
        self.watch.contacted_by(node_id)

    # Handshakes

    async def receive_handshake(self, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The NodeHandshakeResponse to a NodeHandshake. Refusal where it is not even an honest question."""
        claim = self.handshakes.check(path, headers, body)
        answer = await self._database.write(lambda tx: self._decide(tx, claim, None))
        if isinstance(answer, Verdict):
            try:
                location = await self.handshakes.verify_endpoint(claim)
            except HandshakeFailed as error:
                return self.handshakes.response(Answer("rejected", str(error)[:280]))
            answer = await self._database.write(lambda tx: self._decide(tx, claim, location))
        if isinstance(answer, Verdict):
            raise RuntimeError("a handshake that was called back is decided")
        return self.handshakes.response(answer)

    def _decide(self, tx: Tx, claim: nodes.HandshakeClaim, location: Location | None) -> Answer | Verdict:
        answer = self.handshakes.decide(tx, claim, location)
        if isinstance(answer, Answer) and answer.status == "accepted" and claim.public_key is not None:
            self.flooding.release(tx, claim.node_id, PublicKey(claim.public_key))
        return answer

    async def _shake_owed(self, node: KnownNode) -> bool:
        """Make the handshake that is owed to a node; whether requests may go to it now."""
        now_s = self._clock.monotonic_s()
        if now_s < self._asked_at_s.get(node.node_id, -ASK_AGAIN_S) + ASK_AGAIN_S:
            return False
        destination = Destination(node.endpoint, node.node_id, node.named_by_operator)
        try:
            async with self.handshakes.shaking(destination, node.auth, node.public_key) as (admission, answer):
                accepted = answer.status == "accepted"
                if not accepted:
                    # It was asked; when its operator approves, it calls at once.
                    self._asked_at_s[node.node_id] = now_s
                    log.info("handshake_not_accepted", node=node.node_id, message=answer.message)
                if accepted or node.standing is Standing.PENDING:
                    return await self._database.write(partial(self._establish_owed, node, admission)) and accepted
        except HandshakeFailed as error:
            self._asked_at_s[node.node_id] = now_s - ASK_AGAIN_S + TRY_AGAIN_S
            log.info("handshake_failed", node=node.node_id, error=str(error))
        return False

    def _establish_owed(self, node: KnownNode, admission: Admission, tx: Tx) -> bool:
        """Write down a handshake unless the operator, or the other side, changed how the node stands meanwhile."""
        current = nodes.find(tx, node.node_id)
        if current is None or (current.standing, current.public_key) != (node.standing, node.public_key):
            return False
        self._establish(tx, admission)
        return True

    def _establish(self, tx: Tx, admission: Admission) -> None:
        self.handshakes.establish(tx, admission)
        if admission.public_key is not None:
            self.flooding.release(tx, admission.node_id, PublicKey(admission.public_key))

    # The operator

    async def add_peer(self, endpoint: str, auth: PeerAuth) -> PeerAdded:
        """Shake hands with the node at an endpoint that the operator names. HandshakeFailed where it cannot be."""
        async with self.handshakes.shaking(Destination(endpoint, None, True), auth) as (admission, answer):
            await self._database.write(partial(self._establish_added, admission, answer))
        self._was_asked(admission.node_id)
        fingerprint = None if admission.public_key is None else PublicKey(admission.public_key).fingerprint
        pending = answer.status != "accepted" and answer.message.startswith("pending")
        return PeerAdded(admission.node_id, "pending" if pending else answer.status, answer.message, fingerprint)

    def _establish_added(self, admission: Admission, answer: Answer, tx: Tx) -> None:
        record = nodes.find_record(tx, admission.node_id)
        if record is not None and record.pinned and record.known.public_key != admission.public_key:
            raise HandshakeFailed(
                f"{admission.node_id} is pinned to another key here; `peer remove` it first if that is right"
            )
        if record is not None and record.known.standing is Standing.SUSPENDED:
            raise HandshakeFailed(f"{admission.node_id} is suspended here; `peer resume` takes it back")
        is_peer = record is not None and record.known.standing is Standing.PEER
        if answer.status == "accepted" or (answer.message.startswith("pending") and not is_peer):
            self._establish(tx, admission)

    async def approve_peer(self, node_id: str, auth: PeerAuth) -> PeerAdded:
        """Admit a node whose handshake waits, and shake hands back at once. HandshakeFailed where none waits."""

        def admit(tx: Tx) -> nodes.HandshakeClaim:
            claim = nodes.find_claim(tx, node_id)
            if claim is None:
                raise HandshakeFailed(f"no handshake of {node_id} waits here")
            if claim.public_key is None and auth is PeerAuth.SIGNED:
                raise HandshakeFailed(f"{node_id} shows no key; only `--auth unsigned-lab` admits such a node")
            self.handshakes.admit(tx, claim, AddedBy.HANDSHAKE, None, auth)
            choices.choose(tx, node_id, None, self._clock.now_ms())
            nodes.owe_handshake(tx, node_id, owed=True)
            if claim.public_key is not None:
                self.flooding.release(tx, node_id, PublicKey(claim.public_key))
            self._audit.append(tx, AuditKind.OPERATOR, node_id, {"event": "peer_approved"})
            return claim

        self._asked_at_s.pop(node_id, None)
        claim = await self._database.write(admit)
        fingerprint = None if claim.public_key is None else PublicKey(claim.public_key).fingerprint
        return PeerAdded(node_id, "accepted", "approved; the handshake back is on its way", fingerprint)

    async def suspend_peer(self, node_id: str) -> bool:
        """Set a peer aside: nothing is sent to it, what it sends is refused. False where it is none."""
        return await self._move(node_id, Standing.PEER, Standing.SUSPENDED, "peer_suspended")

    async def resume_peer(self, node_id: str) -> bool:
        """Take a peer back that was suspended, banned or greylisted; what waited goes out. False where it was not."""
        forgiven = await self._database.write(lambda tx: self._forgive(tx, node_id))
        return await self._move(node_id, Standing.SUSPENDED, Standing.PEER, "peer_resumed") or forgiven

    def _forgive(self, tx: Tx, node_id: str) -> bool:
        if not self.misbehaviour.forgive(tx, node_id):
            return False
        self._audit.append(tx, AuditKind.OPERATOR, node_id, {"event": "peer_forgiven"})
        return True

    async def _move(self, node_id: str, current: Standing, following: Standing, event: str) -> bool:
        def move(tx: Tx) -> bool:
            node = nodes.find(tx, node_id)
            if node is None or node.standing is not current:
                return False
            nodes.set_standing(tx, node_id, following, self._clock.now_ms())
            self._audit.append(tx, AuditKind.OPERATOR, node_id, {"event": event})
            tx.after_commit(lambda: self._moved(node_id, following))
            return True

        return await self._database.write(move)

    def _moved(self, node_id: str, standing: Standing) -> None:
        if standing is Standing.SUSPENDED:
            self.links.end(node_id, "suspended")
        self._queued(node_id)

    async def remove_peer(self, node_id: str) -> bool:
        """Forget a node, its key and what waits for it. False where it is not known."""

        def remove(tx: Tx) -> bool:
            removed = nodes.remove_claim(tx, node_id)
            for reference in outbox.forget_target(tx, node_id):
                if self._modules is not None:
                    self._modules.request_answered(tx, reference, 0, "peer_removed")
            removed = nodes.remove(tx, node_id) or removed
            if removed:
                self._audit.append(tx, AuditKind.OPERATOR, node_id, {"event": "peer_removed"})
                tx.after_commit(lambda: self._dismiss(node_id))
            return removed

        return await self._database.write(remove)

    async def peer_list(self) -> list[dict[str, Any]]:
        """Every node that is or asks to be a peer, as the operator sees it."""
        rows = await self._database.all("SELECT * FROM node WHERE standing <> 'introduced' ORDER BY node_id")
        claims = await self._database.all("SELECT * FROM handshake_claim ORDER BY node_id")
        waiting = {row["node_id"]: row["waiting"] for row in await self._database.all(outbox.QUEUE_LENGTHS)}
        listed = [self._shown(nodes.node_record(row), waiting.get(row["node_id"], 0)) for row in rows]
        return listed + [show_claim(nodes.handshake_claim(row)) for row in claims]

    def _shown(self, record: nodes.NodeRecord, waiting: int) -> dict[str, Any]:
        node_id = record.known.node_id
        worker = self.workers.find(node_id)
        return show_peer(
            record,
            None if worker is None else worker.health,
            self.watch.status(node_id),
            self.watch.why(node_id),
            self.misbehaviour.of(node_id),
            linked=self.links.carries(node_id),
            waiting=waiting,
        )

    def health_of(self, node_id: str) -> PeerHealth | None:
        """A peer's health, as far as its worker has looked."""
        worker = self.workers.find(node_id)
        return None if worker is None else worker.health
