"""Keys of origins beyond one hop: taken from the registry of the peer that relays them (§9.1, §9.3).

What a peer introduces is believed until a handshake or the operator says otherwise. See docs/protocol-notes.md, Keys.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.database import Database
from loopd.federation import key_store, nodes
from loopd.federation.nodes import Introduction
from loopd.federation.requests import REGISTRY_MAX_BYTES, Destination, NodeRequests, normalise_endpoint
from loopd.gossip.topology import Listed
from loopd.net.http_client import DialError, DialFailure
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode, Standing

log = structlog.get_logger(__name__)

REGISTRY_PATH = "/federation/nodes"

# How often one peer's registry is read at most, in the long run and at once: neither a stranger's requests nor a flood
# of new origins may make this node press on its peers.
REGISTRY_REFRESH_S = 2.0
REGISTRY_READS_AT_ONCE = 5
# Strangers' ids that no peer knew, remembered for a while.
UNKNOWN_IDS_MAX = 1_000
UNKNOWN_ID_S = 10.0
PEERS_ASKED_MAX = 8


@dataclass(slots=True)
class _Registry:
    """One peer's registry as last read, and the lock that lets one request to it be under way.

    `failure` says why the last reading came to nothing. `budget_at_s` is the moment at which all of its readings are
    paid for, one each `REGISTRY_REFRESH_S`.
    """

    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failure: DialError | None = None
    budget_at_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def may_read(self, now_s: float) -> bool:
        """Whether it may be read now; if so, that is paid for."""
        following_s = max(self.budget_at_s, now_s) + REGISTRY_REFRESH_S
        if following_s - now_s > REGISTRY_REFRESH_S * REGISTRY_READS_AT_ONCE:
            return False
        self.budget_at_s = following_s
        return True


class Introductions:
    """Asks peers whom they relay."""

    def __init__(self, own_node_id: str, database: Database, requests: NodeRequests, clock: Clock) -> None:
        self._own_node_id = own_node_id
        self._database = database
        self._requests = requests
        self._clock = clock
        self._registries: dict[str, _Registry] = {}
        self._unknown: dict[str, float] = {}

    async def ask(self, peer: KnownNode, node_id: str, *, afresh: bool = False) -> Introduction | None:
        """What the peer says of that node; None where it does not list it. DialError where it cannot be asked.

        Its registry is read where the node is not in what was read last, or `afresh`, for a key that does not fit; but
        not more often than the peer's patience allows.
        """
        registry = self._registries.setdefault(peer.node_id, _Registry())
        async with registry.lock:
            if (afresh or node_id not in registry.entries) and registry.may_read(self._clock.monotonic_s()):
                try:
                    registry.entries, registry.failure = await self._read(peer), None
                except DialError as error:
                    registry.failure = error
                    raise
            entry = registry.entries.get(node_id)
            if entry is None and registry.failure is not None:
                raise DialError(registry.failure.kind, str(registry.failure))
        return None if entry is None else self._introduction(peer, entry)

    async def listed_by(self, peer: KnownNode) -> list[Listed] | None:
        """All nodes that the peer's registry lists as active, read afresh; None where it is to be left alone now.

        DialError where it cannot be asked.
        """
        registry = self._registries.setdefault(peer.node_id, _Registry())
        async with registry.lock:
            if not registry.may_read(self._clock.monotonic_s()):
                return None
            try:
                registry.entries, registry.failure = await self._read(peer), None
            except DialError as error:
                registry.failure = error
                raise
            entries = list(registry.entries.values())
        return await asyncio.to_thread(_listed, entries)

    def last_listed_by(self, peer_id: str) -> Collection[str]:
        """The ids in a peer's registry as it was read last."""
        registry = self._registries.get(peer_id)
        return () if registry is None else registry.entries.keys()

    def keys_of(self, node_id: str) -> set[bytes]:
        """The keys under which the registries that were read last list a node: more than one, and somebody lies."""
        found = set()
        for registry in self._registries.values():
            entry = registry.entries.get(node_id)
            if entry is not None and "public_key" in entry:
                with suppress(ValueError):
                    found.add(PublicKey.from_pem(entry["public_key"]).raw)
        return found

    def forget(self, peer_id: str) -> None:
        """The node is no peer any more: what its registry said goes with it."""
        self._registries.pop(peer_id, None)

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
        found = await self._first_answer(peers, node_id)
        if found is None:
            self._remember_unknown(node_id, now_s)
            return
        await self.pin(found)

    async def _first_answer(self, peers: list[KnownNode], node_id: str) -> Introduction | None:
        """What the first peer says that knows the node: a slow one holds up nobody else's answer."""
        asked = [asyncio.create_task(self.ask(peer, node_id)) for peer in peers]
        try:
            for answer in asyncio.as_completed(asked):
                with suppress(DialError):
                    found = await answer
                    if found is not None:
                        return found
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return None

    async def pin(self, introduction: Introduction) -> None:
        """Keep an introduction, unless the node became known meanwhile."""
        await self._database.write(lambda tx: nodes.introduce(tx, introduction, self._clock.now_ms()))
        log.info("introduced", node=introduction.node_id, by=introduction.introduced_by)

    def _remember_unknown(self, node_id: str, now_s: float) -> None:
        if len(self._unknown) >= UNKNOWN_IDS_MAX:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[node_id] = now_s + UNKNOWN_ID_S

    async def _read(self, peer: KnownNode) -> dict[str, Mapping[str, Any]]:
        """The entries of a peer's registry by node id. DialError where it shows none."""
        destination = Destination(peer.endpoint, peer.node_id, peer.named_by_operator)
        answer = await self._requests.get(destination, REGISTRY_PATH, REGISTRY_MAX_BYTES)
        if answer.status != 200:
            raise DialError(DialFailure.PROTOCOL, f"{peer.node_id} answers for its registry with {answer.status}")
        try:
            # It may be long, and checking it take a tenth of a second: not on the loop.
            document = await asyncio.to_thread(check_document, answer.body, "NodeRegistry")
        except Refusal as refusal:
            log.warning("registry_refused", peer=peer.node_id, reason=refusal.reason)
            raise DialError(DialFailure.PROTOCOL, f"{peer.node_id} shows no registry: {refusal.reason}") from refusal
        return {entry["id"]: entry for entry in document.value["nodes"][: nodes.INTRODUCED_NODES_MAX]}

    def _introduction(self, peer: KnownNode, entry: Mapping[str, Any]) -> Introduction | None:
        if entry["id"] == self._own_node_id or "public_key" not in entry or entry["status"] == Standing.SUSPENDED:
            return None
        place = entry["location"]
        try:
            key = PublicKey.from_pem(entry["public_key"]).raw
            if key_store.is_revoked(self._database.points, key):
                return None
            return Introduction(
                entry["id"],
                normalise_endpoint(entry["endpoint"]),
                key,
                Location(float(place["lat"]), float(place["lon"])),
                frozenset(entry.get("capabilities", ())),
                peer.node_id,
            )
        except ValueError as error:
            log.warning("introduction_refused", peer=peer.node_id, node=entry["id"], error=str(error))
            return None


def _listed(entries: Sequence[Mapping[str, Any]]) -> list[Listed]:
    """The entries of nodes that could be peers: active, with a key and an address."""
    found = []
    for entry in entries:
        if entry["status"] == "active" and "public_key" in entry:
            with suppress(ValueError):
                place = Location(float(entry["location"]["lat"]), float(entry["location"]["lon"]))
                found.append(Listed(entry["id"], normalise_endpoint(entry["endpoint"]), place))
    return found


def can_be_asked(peer: KnownNode) -> bool:
    """Whether a node's registry is worth reading: a peer whose own requests are signed."""
    return peer.standing is Standing.PEER and peer.public_key is not None
