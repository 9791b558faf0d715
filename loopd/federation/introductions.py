"""Keys of origins beyond one hop: taken from the registry of the peer that relays them (§9.1, §9.3).

What a peer introduces is believed until a handshake or the operator says otherwise. See docs/protocol-notes.md, Keys.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.database import Database
from loopd.federation import nodes
from loopd.federation.nodes import Introduction
from loopd.federation.requests import REGISTRY_MAX_BYTES, Destination, NodeRequests, normalise_endpoint
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode, Standing

log = structlog.get_logger(__name__)

REGISTRY_PATH = "/federation/nodes"

# A registry that lacked a node is not asked again sooner: a stranger's requests must not make this node press on peers.
REGISTRY_REFRESH_S = 2.0
# Strangers' ids that no peer knew, remembered for a while.
UNKNOWN_IDS_MAX = 1_000
UNKNOWN_ID_S = 10.0
PEERS_ASKED_MAX = 8


@dataclass(slots=True)
class _Registry:
    """One peer's registry as last read, and the lock that lets one request to it be under way."""

    introductions: Mapping[str, Introduction] = field(default_factory=dict)
    read_at_s: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Introductions:
    """Asks peers whom they relay."""

    def __init__(self, own_node_id: str, database: Database, requests: NodeRequests, clock: Clock) -> None:
        self._own_node_id = own_node_id
        self._database = database
        self._requests = requests
        self._clock = clock
        self._registries: dict[str, _Registry] = {}
        self._unknown: dict[str, float] = {}

    async def ask(self, peer: KnownNode, node_id: str) -> Introduction | None:
        """What the peer says of that node; None where it does not list it. DialError where it cannot be asked."""
        registry = self._registries.setdefault(peer.node_id, _Registry())
        async with registry.lock:
            found = registry.introductions.get(node_id)
            if found is not None:
                return found
            now_s = self._clock.monotonic_s()
            if registry.read_at_s is None or now_s - registry.read_at_s >= REGISTRY_REFRESH_S:
                registry.introductions = await self._read(peer)
                registry.read_at_s = self._clock.monotonic_s()
            return registry.introductions.get(node_id)

    async def ask_afresh(self, peer: KnownNode, node_id: str) -> Introduction | None:
        """As `ask`, but never from memory older than the refresh: for a key that does not fit."""
        registry = self._registries.setdefault(peer.node_id, _Registry())
        now_s = self._clock.monotonic_s()
        if registry.read_at_s is not None and now_s - registry.read_at_s >= REGISTRY_REFRESH_S:
            registry.introductions = {}
        return await self.ask(peer, node_id)

    async def seek(self, node_id: str) -> None:
        """Look for a stranger among the peers' registries, and pin what the first that knows it says."""
        now_s = self._clock.monotonic_s()
        if self._unknown.get(node_id, 0.0) > now_s:
            return
        rows = await self._database.all(
            "SELECT * FROM node WHERE standing = 'peer' AND auth = 'signed' ORDER BY random() LIMIT ?",
            (PEERS_ASKED_MAX,),
        )
        peers = [nodes.known_node(row) for row in rows]
        answers = await asyncio.gather(*(self.ask(peer, node_id) for peer in peers), return_exceptions=True)
        found = next((answer for answer in answers if isinstance(answer, Introduction)), None)
        if found is None:
            self._remember_unknown(node_id, now_s)
            return
        await self.pin(found)

    async def pin(self, introduction: Introduction) -> None:
        """Keep an introduction, unless the node became known meanwhile."""
        await self._database.write(lambda tx: nodes.introduce(tx, introduction, self._clock.now_ms()))
        log.info("introduced", node=introduction.node_id, by=introduction.introduced_by)

    def _remember_unknown(self, node_id: str, now_s: float) -> None:
        if len(self._unknown) >= UNKNOWN_IDS_MAX:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[node_id] = now_s + UNKNOWN_ID_S

    async def _read(self, peer: KnownNode) -> dict[str, Introduction]:
        destination = Destination(peer.endpoint, peer.node_id, peer.named_by_operator)
        answer = await self._requests.get(destination, REGISTRY_PATH, REGISTRY_MAX_BYTES)
        try:
            listed: list[dict[str, Any]] = check_document(answer.body, "NodeRegistry").value["nodes"]
        except Refusal as refusal:
            log.warning("registry_refused", peer=peer.node_id, reason=refusal.reason)
            return {}
        introductions = (self._introduction(peer, entry) for entry in listed[: nodes.INTRODUCED_NODES_MAX])
        return {found.node_id: found for found in introductions if found is not None}

    def _introduction(self, peer: KnownNode, entry: Mapping[str, Any]) -> Introduction | None:
        if entry["id"] == self._own_node_id or "public_key" not in entry or entry["status"] == Standing.SUSPENDED:
            return None
        place = entry["location"]
        try:
            return Introduction(
                entry["id"],
                normalise_endpoint(entry["endpoint"]),
                PublicKey.from_pem(entry["public_key"]).raw,
                Location(float(place["lat"]), float(place["lon"])),
                frozenset(entry.get("capabilities", ())),
                peer.node_id,
            )
        except ValueError as error:
            log.warning("introduction_refused", peer=peer.node_id, node=entry["id"], error=str(error))
            return None


def can_be_asked(peer: KnownNode) -> bool:
    """Whether a node's registry is worth reading: a peer whose own requests are signed."""
    return peer.standing is Standing.PEER and peer.public_key is not None
