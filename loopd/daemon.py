"""The composition root: builds the node from its parts, starts it, and stops it in order. Nothing else does."""

import asyncio
import importlib
import random
import secrets
import signal
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import structlog

import loopd
from loopd.api.access import Plane
from loopd.api.app import ApiServices, App, build_app
from loopd.api.bids import BidRoutes
from loopd.api.clearing import ClearingRoutes
from loopd.api.docs import ApiIdentity
from loopd.api.events import EventRoutes
from loopd.api.exchange_entities import ExchangeEntityRoutes
from loopd.api.federate_announce import FederateAnnounceRoutes
from loopd.api.federate_mirror import FederateMirrorRoutes, Taker
from loopd.api.federate_offer import FederateOfferRoutes
from loopd.api.federate_settlement import FederateSettlementRoutes
from loopd.api.federation import FederationRoutes
from loopd.api.federation_link import FederationLinkRoutes
from loopd.api.health import HealthRoutes
from loopd.api.idempotency import IdempotentWriter
from loopd.api.keys import KeyStatementRoutes, OwnKeyRoutes
from loopd.api.loopcoin import LoopCoinRoutes
from loopd.api.loopcoin_admin import LedgerAdminRoutes
from loopd.api.loopcoin_settlement import LoopCoinSettlementRoutes
from loopd.api.loopcoin_transfers import TransferRoutes as LoopCoinTransferRoutes
from loopd.api.loopcost import LoopCostRoutes
from loopd.api.material import MaterialRoutes
from loopd.api.messages import MessageRoutes
from loopd.api.metrics import RequestMetrics
from loopd.api.mirror import MirrorRoutes
from loopd.api.netting import NettingRoutes
from loopd.api.node import NodeRoutes
from loopd.api.node_effects import Effect, NodeRequestWriter
from loopd.api.openapi import entity_schemas
from loopd.api.operation import OperationRoutes
from loopd.api.peers import PeerRoutes
from loopd.api.product import ProductRoutes
from loopd.api.requests import Request
from loopd.api.route import RouteRoutes
from loopd.api.route_plan import RoutePlanRoutes
from loopd.api.routes import Route
from loopd.api.search import SearchRoutes
from loopd.api.settings import parse_listen_address
from loopd.api.signals import SignalRoutes
from loopd.api.status_updates import StatusUpdateRoutes
from loopd.api.token_admin import TokenRoutes
from loopd.api.tokens import TokenStore
from loopd.api.votes import VoteRoutes
from loopd.api.wanted import WantedRoutes
from loopd.api.webhooks import WebhookRoutes
from loopd.audit.service import AuditLog
from loopd.catalogue.search import Search
from loopd.catalogue.service import Catalogue
from loopd.clock import SystemClock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.directory import NodeDirectory
from loopd.events.room import EventRoom
from loopd.events.service import EventKind
from loopd.exchange.mirror_rules import REQUEST_TYPE, UPDATE_TYPE
from loopd.exchange.ports import NodeAnswer
from loopd.exchange.room import ExchangeRoom
from loopd.exchange.settling import MadeBids, PaidSales
from loopd.exchange.views import MIRROR_PATH, STATUS_TYPE, WITHDRAWAL_TYPE
from loopd.federation import nodes, own_key
from loopd.federation.heard import HeardHook, HeardSubjects
from loopd.federation.own_key import OwnKey
from loopd.federation.peer_signals import PeerSignals
from loopd.federation.requests import Destination, NodeRequests
from loopd.federation.service import Federation, Modules
from loopd.federation.signing_keys import SigningKeys
from loopd.identity import NODE_INFO_CAPABILITIES, Identity
from loopd.ledger.issuance import Issuance
from loopd.ledger.room import LedgerRoom
from loopd.net import tls
from loopd.net.dial_guard import DialGuard
from loopd.net.http_client import DialError, PeerClient
from loopd.observe.metrics import AnnouncementMetrics
from loopd.observe.systemd import ServiceManager
from loopd.protocol.contexts import context_url
from loopd.protocol.documents import dump_json
from loopd.protocol.geo import Location
from loopd.protocol.money import MINOR_PER_LC
from loopd.protocol.nodes import KnownNode
from loopd.protocol.schemas import ENTITIES_BY_FILE, schema_file
from loopd.protocol.signing import API_ROOT
from loopd.protocol.subjects import HeardSubject, SubjectKind
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.vocabulary import Feature
from loopd.registry.service import RecordListener, Registry
from loopd.routing.demands import TYPE as DEMAND_TYPE
from loopd.routing.room import RoutingRoom
from loopd.settings import Settings
from loopd.signals.room import SignalsRoom
from loopd.signals.rules import TYPE as SIGNALS_TYPE

log = structlog.get_logger(__name__)

SIGNALS_REFERENCE = "signals"
# A database may be large and a migration long: the service manager is told to wait while one runs.
START_EXTENSION_S = 60.0


def identity_of(settings: Settings, directory: NodeDirectory) -> Identity:
    """Who the settings and the key in the directory say this node is. DirectoryError where there is no usable key."""
    node = settings.node
    return Identity(
        node.id,
        node.name,
        node.city,
        node.country,
        Location(node.lat, node.lon),
        node.endpoint,
        directory.load_node_key(),
        context_url(node.context_host),
    )


async def own_key_alone(directory: NodeDirectory, identity: Identity, database: Database) -> OwnKey:
    """The node's key as a command changes it that has the directory to itself; the peers are told at the next start."""
    clock = SystemClock()
    await own_key.finish(directory, identity, database, clock.now_ms())

    async def told_later() -> None:
        pass

    return OwnKey(directory, identity, database, AuditLog(clock), clock, secrets.token_bytes, told_later)


class Node:
    """One running node: its parts, and what of them belongs together."""

    def __init__(
        self,
        directory: NodeDirectory,
        settings: Settings,
        identity: Identity,
        database: Database,
        client: PeerClient,
        webhook_client: PeerClient,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._database = database
        self._clock = SystemClock()
        self._started_at_ms = self._clock.now_ms()
        audit = AuditLog(self._clock)
        self._event_room = EventRoom(
            identity.node_id,
            settings.webhooks,
            database,
            audit,
            self._clock,
            webhook_client,
            development=settings.daemon.development,
        )
        self._events = self._event_room.log
        self._federation = Federation(
            identity,
            settings.federation,
            database,
            client,
            audit,
            self._events,
            self._clock,
            random.SystemRandom(),
            secrets.token_bytes,
            development=settings.daemon.development,
            heard=self._tell_heard,
        )
        self._own_key = OwnKey(
            directory, identity, database, audit, self._clock, secrets.token_bytes, self._federation.tell_keys
        )
        self._signals_room = SignalsRoom(
            identity.node_id,
            identity.context_url,
            lambda: identity.key,
            settings.signals,
            database,
            audit,
            self._events,
            self._clock,
            self._tell_signals,
        )
        self._signals = self._signals_room.published
        # Who follows the records, and what other nodes announce; each in the transaction of what it is told.
        self._record_listeners: list[RecordListener] = []
        self._heard_listeners: list[HeardHook] = []
        self._registry = Registry(
            identity, self._clock, audit, self._events, self._federation.announcer, self._record_listeners
        )
        self._catalogue = Catalogue(identity, self._clock, nodes)
        self._record_listeners.append(self._catalogue)
        self._heard_listeners.append(self._catalogue.heard)
        self._ledger = LedgerRoom(
            identity,
            settings.ledger,
            database,
            audit,
            self._events,
            self._clock,
            self._federation.outbox,
            MadeBids(self._clock),
            PaidSales(identity.node_id, lambda: self._exchange.lifecycle, lambda: self._exchange.bids.selecting),
            self._read_statement,
            SigningKeys(identity),
        )
        self._peer_signals = PeerSignals(database, self._signals, self._federation.requests)
        heard = HeardSubjects(self._clock)
        self._exchange = ExchangeRoom(
            identity,
            settings.exchange,
            database,
            audit,
            self._events,
            self._clock,
            self._registry,
            self._signals,
            self._ledger.payments,
            nodes,
            heard,
            self._federation.outbox,
            self._read_signed,
        )
        self._search = Search(identity, database, self._clock, self._registry, self._signals, nodes)
        self._routing = RoutingRoom(
            identity,
            database,
            audit,
            self._events,
            self._clock,
            self._registry,
            self._signals,
            nodes,
            heard,
            self._federation.outbox,
            self._federation.announcer,
            self._peer_signals.fetch,
        )
        self._record_listeners.append(self._routing.wanted)
        self._heard_listeners.append(self._routing.wanted.heard)
        self._tokens = TokenStore(database, self._clock)
        self._metrics = RequestMetrics()
        self._decisions = AnnouncementMetrics(self._metrics.registry)
        self._node_requests = NodeRequestWriter(database, self._clock)

    async def prepare(self) -> None:
        """Bring up to date what is derived of the rest, before anybody calls."""
        await self._catalogue.prepare(self._database, self._registry)
        await self._ledger.begin()

    async def start(self, public: App) -> None:
        """Begin to probe, send and renew, and to open and close votes. What comes over links, `public` answers."""
        self._event_room.start()
        await self._signals_room.start()
        await self._exchange.start()
        await self._ledger.start()
        self._routing.start()
        await self._federation.start(
            Modules(
                self._registry.subject_by_id,
                self._request_answered,
                self._peer_contacted,
                self._decisions.count,
                public.handle_carried,
            )
        )

    async def part(self) -> None:
        """End the links to other nodes and the streams of events, whose connections would otherwise stay open."""
        self._event_room.part()
        await self._federation.links.stop()

    async def stop(self) -> None:
        """End the work in the background, once nobody calls any more and before the database closes."""
        await self._signals_room.stop()
        await self._ledger.stop()
        await self._exchange.stop()
        await self._routing.stop()
        await self._event_room.stop()
        await self._federation.stop()
        await self._tokens.close()

    def apps(self) -> tuple[App, App]:
        """The public API and the operator's, over the same parts."""
        identity = self._identity
        plane = Plane.ADMIN_SOCKET if self._settings.api.admin_listen == "unix" else Plane.ADMIN_ADDRESS
        services = ApiServices(
            settings=self._settings.api,
            clock=self._clock,
            tokens=self._tokens,
            identity=ApiIdentity(
                title=f"{identity.name} ({identity.node_id})",
                version=loopd.__version__,
                base_url=identity.endpoint.removesuffix(API_ROOT),
            ),
            schemas=entity_schemas(schema_file(name) for name in ENTITIES_BY_FILE),
            node_authenticator=self._federation.authenticator,
            offences=self._federation.misbehaviour,
            metrics=self._metrics,
        )
        routes = self._routes()
        return build_app(routes, Plane.PUBLIC, services), build_app(routes, plane, services)

    def _routes(self) -> list[Route]:
        database, clock = self._database, self._clock
        write = IdempotentWriter(database, clock).write
        nouns = (
            HealthRoutes(database, clock, self._identity.node_id, loopd.__version__),
            NodeRoutes(self._identity, self._capabilities(), self._statistics, self._card_extras()),
            MaterialRoutes(self._registry, database, write),
            ProductRoutes(self._registry, database, write),
            StatusUpdateRoutes(SubjectKind.MATERIAL, self._registry, database, write, self._exchange.lifecycle.release),
            StatusUpdateRoutes(SubjectKind.PRODUCT, self._registry, database, write, self._exchange.lifecycle.release),
            ExchangeEntityRoutes(self._exchange.lifecycle, database, write),
            MirrorRoutes(self._exchange.mirroring, self._exchange.status_requests, database, write),
            EventRoutes(self._events, self._event_room.feed, database, clock),
            SearchRoutes(self._search, self._identity.location),
            WebhookRoutes(self._event_room.webhooks, self._event_room.deliveries, database),
            SignalRoutes(self._signals, database),
            VoteRoutes(self._signals_room.voting, database, write),
            FederationRoutes(self._identity, self._federation, database, clock),
            FederationLinkRoutes(self._federation.links),
            FederateAnnounceRoutes(self._federation.flooding),
            FederateOfferRoutes(self._exchange.bids, self._take_bid),
            self._federate_mirror_routes(),
            BidRoutes(self._exchange.bids, database, write, self._peer_signals.fetch),
            LoopCostRoutes(self._routing.routes),
            RouteRoutes(self._routing.routes),
            RoutePlanRoutes(self._routing.plans),
            WantedRoutes(self._routing.wanted, database, write),
            LoopCoinRoutes(self._ledger.books, database, clock),
            LoopCoinTransferRoutes(self._ledger.books, database, clock, write),
            LedgerAdminRoutes(self._ledger.books, Issuance(self._ledger.books), database, write),
            LoopCoinSettlementRoutes(self._ledger.settlements, self._ledger.clearing, database, write),
            ClearingRoutes(self._ledger.clearing, self._ledger.netting, self._ledger.reconciling, database, write),
            NettingRoutes(self._ledger.netting, database, write),
            FederateSettlementRoutes(
                self._ledger.clearing,
                self._ledger.netting,
                self._ledger.reconciling,
                database,
                self._node_requests.accept_once,
            ),
            PeerRoutes(self._identity, self._federation),
            KeyStatementRoutes(
                self._federation.key_statements, self._federation.authenticator, self._federation.misbehaviour
            ),
            OwnKeyRoutes(self._own_key),
            MessageRoutes(self._identity.node_id, database, clock),
            TokenRoutes(self._tokens, database, clock),
            OperationRoutes(self._status, database),
            self._metrics,
        )
        return [route for noun in nouns for route in noun.routes()]

    def _federate_mirror_routes(self) -> FederateMirrorRoutes:
        takers: dict[str, Taker] = {
            STATUS_TYPE: self._exchange.receive_bid_status,
            WITHDRAWAL_TYPE: self._exchange.bids.receive_withdrawal,
            UPDATE_TYPE: self._exchange.mirroring.receive,
            REQUEST_TYPE: self._exchange.status_requests.receive,
            SIGNALS_TYPE: self._signals.remember,
            DEMAND_TYPE: self._routing.wanted.receive,
        }
        return FederateMirrorRoutes(
            takers,
            self._exchange.telling,
            self._database,
            self._node_requests.accept_once,
        )

    # What the API shows of the node

    def _card_extras(self) -> dict[str, Any]:
        """What NodeInfo says beside the identity: the office's contact, as configured."""
        node = self._settings.node
        contact = {"email": node.contact_email, "website": node.contact_website}
        known = {key: value for key, value in contact.items() if value is not None}
        return {"contact": known} if known else {}

    def _capabilities(self) -> tuple[str, ...]:
        """What NodeInfo lists: a node without a ledger has no LoopCoin."""
        return tuple(name for name in NODE_INFO_CAPABILITIES if name != "loopcoin" or self._ledger.books.enabled)

    async def _statistics(self) -> dict[str, int]:
        async with self._database.snapshot() as reader:
            counts = {"materials_active": await self._registry.count_active(reader)}
        if self._ledger.books.enabled:
            counts["loopcoin_supply"] = self._ledger.books.figures(self._database.points).supply_minor // MINOR_PER_LC
        return counts

    async def _status(self) -> dict[str, Any]:
        peers = await self._federation.peer_list()
        writer = self._database.statistics
        return {
            "node": self._identity.node_id,
            "version": loopd.__version__,
            "endpoint": self._identity.endpoint,
            "fingerprint": self._identity.key.public.fingerprint,
            "started_at": format_timestamp(self._started_at_ms),
            **await self._statistics(),
            "peers": dict(Counter(peer["health"] or peer["status"] for peer in peers)),
            "mix": await self._federation.keeper.report(),
            "queued": sum(peer["queue"] for peer in peers),
            "announcements": self._decisions.by_reason(),
            "writes": {"units": writer.units, "commits": writer.commits, "waiting": writer.waiting},
        }

    # What the modules want of each other

    def _tell_heard(self, tx: Tx, subject: HeardSubject) -> None:
        data = {"origin": subject.origin, "category": subject.category, "available": subject.available}
        self._events.append(tx, EventKind.SUBJECT_HEARD, subject.subject_id, data)
        for listener in self._heard_listeners:
            listener(tx, subject)

    def _tell_signals(self, tx: Tx, configuration: dict[str, Any], valid_until_ms: int) -> None:
        """Tell everybody here and the peers what a vote decided; who does not take it fetches it when it is time to."""
        span = {name: configuration[name] for name in ("valid_from", "valid_until")}
        self._events.append(tx, EventKind.SIGNALS_CHANGED, self._identity.node_id, span)
        body = dump_json(configuration)
        for peer in nodes.peers(tx):
            if Feature.MIRROR in peer.features:
                self._federation.outbox.enqueue(tx, peer.node_id, MIRROR_PATH, body, valid_until_ms, SIGNALS_REFERENCE)

    def _request_answered(self, tx: Tx, reference: str, status: int, reason: str) -> None:
        """Tell whoever queued a request how it was answered; each knows its own by the reference."""
        self._exchange.request_answered(tx, reference, status, reason)
        self._ledger.request_answered(tx, reference, status, reason)

    async def _peer_contacted(self, node: KnownNode, requests: NodeRequests) -> None:
        """A peer answered: what else is wanted of it?"""
        if Feature.MIRROR in node.features:
            await self._exchange.keeper.contacted(node.node_id)
        wanted = self._routing.wanted
        if wanted.owes(self._database.points, node):
            await self._database.write(lambda tx: wanted.tell(tx, node))
        await self._peer_signals.fetch_due(node, requests)

    async def _read_statement(self, node_id: str, path: str) -> bytes | None:
        node = nodes.find(self._database.points, node_id)
        answer = None if node is None else await self._read_signed(node, path)
        return answer.body if answer is not None and answer.status == 200 else None

    async def _read_signed(self, node: KnownNode, path: str) -> NodeAnswer | None:
        destination = Destination(node.endpoint, node.node_id, node.named_by_operator)
        try:
            answer = await self._federation.requests.get(destination, path.removeprefix(API_ROOT), signed=True)
        except DialError as error:
            log.info("read_failed", node=node.node_id, error=str(error))
            return None
        return NodeAnswer(answer.status, answer.body)

    async def _take_bid(self, request: Request, effect: Effect) -> int:
        await self._peer_signals.fetch_unknown(request.node.node_id)
        return await self._node_requests.accept_once(request, effect)


async def serve(directory: NodeDirectory, settings: Settings) -> None:
    """Run a node until SIGTERM or SIGINT. Whoever calls holds the directory's lock."""
    manager = ServiceManager.from_environment()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    identity = identity_of(settings, directory)
    async with AsyncExitStack() as stack:
        manager.extend_timeout(START_EXTENSION_S)
        database = await stack.enter_async_context(
            await Database.open(directory.database_file, settings.database, SystemClock())
        )
        guard = DialGuard(settings.federation.allowed_networks, settings.daemon.development)
        trusted = tls.client_context(settings.tls.ca_file)
        client = PeerClient(guard, trusted, SystemClock())
        stack.push_async_callback(client.close)
        webhook_client = _webhook_client(settings, trusted)
        stack.push_async_callback(webhook_client.close)
        await own_key.finish(directory, identity, database, SystemClock().now_ms())
        node = Node(directory, settings, identity, database, client, webhook_client)
        await node.prepare()
        public, admin = node.apps()
        host, port = await _listen(directory, settings, public, admin)
        await node.start(public)
        stack.push_async_callback(node.stop)
        watchdog = asyncio.create_task(manager.keep_watchdog_fed(), name="watchdog")
        stack.callback(watchdog.cancel)
        log.info("ready", node=identity.node_id, listen=f"{host}:{port}", endpoint=identity.endpoint)
        manager.ready(f"{identity.node_id} serves on {host}:{port}")
        await stop.wait()
        log.info("stopping", node=identity.node_id)
        manager.stopping()
        await node.part()
        await asyncio.gather(*(app.close(settings.daemon.shutdown_timeout_s) for app in (public, admin)))
    log.info("stopped", node=identity.node_id)


def _webhook_client(settings: Settings, trusted: ssl.SSLContext) -> PeerClient:
    """Calls webhooks' endpoints, in networks of their own: what is opened to nodes is not opened to these."""
    development = settings.daemon.development
    guard = DialGuard(settings.webhooks.allowed_networks, development)
    return PeerClient(guard, trusted, SystemClock(), plain_http=development)


async def _listen(directory: NodeDirectory, settings: Settings, public: App, admin: App) -> tuple[str, int]:
    if settings.api.admin_listen == "unix":
        directory.admin_socket.unlink(missing_ok=True)
        await admin.listen_unix(directory.admin_socket)
    else:
        await admin.listen_tcp(*parse_listen_address(settings.api.admin_listen))
    context = tls.server_context(settings.tls.certificate, settings.tls.key)
    return await public.listen_tcp(*parse_listen_address(settings.api.listen), context)


def run(directory: NodeDirectory, settings: Settings) -> None:
    """Run a node until it is told to stop; uvloop is used where it is installed."""
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(serve(directory, settings))


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
