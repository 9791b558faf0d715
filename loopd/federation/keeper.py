"""Keeps the mix of peers that §9.4 recommends: learns nodes from peers' registries, dials, and lets go.

What is decided is decided in `loopd.gossip.topology`; here is what it takes to know and to act. A node that was learned
is a stranger: its endpoint is called through the dial guard alone, its key has to be the one that all who list it show,
and its own admission decides what comes of the handshake. See docs/protocol-notes.md, Peers.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.federation import choices, nodes
from loopd.federation.handshake import Answer, HandshakeFailed, Handshakes
from loopd.federation.introductions import Introductions, can_be_asked
from loopd.federation.nodes import Admission
from loopd.federation.requests import Destination
from loopd.federation.settings import FederationSettings
from loopd.gossip.health import PeerHealth, State, Timing
from loopd.gossip.topology import (
    Acquaintances,
    Candidate,
    CurrentPeer,
    Isolation,
    Listed,
    Origin,
    Plan,
    band_of,
    own_places,
    plan,
)
from loopd.identity import Identity
from loopd.net.http_client import CallbackGate, DialError
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import LEARNED_NODES_MAX, LEARNED_NODES_PER_TELLER_MAX
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing

log = structlog.get_logger(__name__)

# Registries that are read in one round, and how many rounds one peer's is left alone after that.
_READINGS_AT_ONCE: Final = 4
_ROUNDS_BETWEEN_READINGS: Final = 10
# A node that has not accepted for so long gives its place to another. Its operator may still accept later.
PENDING_PATIENCE_MS: Final = 24 * 3600 * 1000
# Whoever was let go is not asked again so soon, unless nobody else is left.
LET_GO_REST_MS: Final = 24 * 3600 * 1000
# A chosen peer that has been absent for so long is let go, unless nobody at all can be reached.
ABSENCE_PATIENCE_MS: Final = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Company:
    """What the keeper needs of the federation around it.

    `establish` writes down a handshake; `asked` is told when a node was asked by one; `dismissed` when it is no peer
    any more; `trusts` says whether a peer's word is worth reading.
    """

    health_of: Callable[[str], PeerHealth | None]
    trusts: Callable[[str], bool]
    establish: Callable[[Tx, Admission], None]
    asked: Callable[[str], None]
    dismissed: Callable[[str], None]


class Keeper:
    """One node's company of peers. `start()` on the running loop; `round()` is one look, for whoever keeps the time."""

    def __init__(
        self,
        identity: Identity,
        settings: FederationSettings,
        database: Database,
        introductions: Introductions,
        handshakes: Handshakes,
        clock: Clock,
        randomness: random.Random,
        company: Company,
        *,
        learns: bool,
    ) -> None:
        self._identity = identity
        self._max_peers = settings.max_peers
        self._interval_s = settings.learn_interval_s
        self._mix = settings.mix
        self._database = database
        self._introductions = introductions
        self._handshakes = handshakes
        self._clock = clock
        self._random = randomness
        self._company = company
        self._learns = learns
        # Apart from the gate of calls back: others' wishes do not use up this node's own.
        self._gate = CallbackGate(clock)
        self._acquaintances = Acquaintances(identity.node_id, _dial_timing(self._interval_s))
        self._read_at_s: dict[str, float] = {}
        self._seeded = False
        self._isolation: Isolation | None = None
        self._task: asyncio.Task[None] | None = None

    # Life

    def start(self) -> None:
        """Look regularly, where peers are to be learned at all."""
        if self._learns:
            self._task = asyncio.create_task(self._keep(), name="federation-keeper")

    async def stop(self) -> None:
        """End the looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep(self) -> None:
        while True:
            # Nodes that were started together do not all look at once.
            await asyncio.sleep(self._interval_s * (0.75 + self._random.random() / 2))
            try:
                await self.round()
            except Refusal as refusal:  # our own storage is overloaded: the next round does it
                log.warning("keeper_delayed", reason=refusal.reason)
            except Exception:
                log.exception("keeper_failed")

    async def round(self) -> None:
        """Hear what peers know, and do what is due now."""
        await self._hear()
        planned = await self._planned()
        self._notice(planned.isolation)
        await asyncio.gather(*(self._dial_host(each) for each in _by_host(planned.dial)))
        for candidate in planned.adopt:
            await self._database.write(partial(self._adopt, candidate))
        for node_id in planned.let_go:
            await self._let_go(node_id, "surplus")
        if planned.isolation is not Isolation.ALONE:
            await self._give_up()

    async def report(self) -> dict[str, Any]:
        """The mix as it is: the isolation's code, and for each band who is there, who is wanted and how many lack."""
        peers = await self._peers()
        now = self._plan(peers, [])
        there = [band_of(self._identity.location, peer.location) for peer in peers if peer.is_chosen and peer.is_there]
        return {
            "learning": self._learns,
            "isolation": now.isolation.value,
            "missing": {band.value: count for band, count in now.missing.items()},
            "chosen": {band.value: there.count(band) for band in self._mix},
            "wanted": {band.value: f"{share.least}-{share.most}" for band, share in self._mix.items()},
            "called": sum(not peer.is_chosen for peer in peers),
        }

    def _notice(self, isolation: Isolation) -> None:
        if isolation is self._isolation:
            return
        was, self._isolation = self._isolation, isolation
        if isolation is not Isolation.NONE:
            log.warning("isolated", isolation=isolation.value)
        elif was is not None:
            log.info("isolation_ended", was=was.value)

    # What is known

    async def _peers(self) -> list[CurrentPeer]:
        return choices.current_peers(await self._database.all(choices.CHOSEN), self._company.health_of)

    async def _planned(self) -> Plan:
        peers = await self._peers()
        rows = await self._database.all("SELECT node_id, standing FROM node")
        standings = {row["node_id"]: Standing(row["standing"]) for row in rows}
        asked = await self._database.one(choices.COUNT_ASKED)
        # Who was asked and has not accepted takes a place too, or in a federation of cautious operators everybody would
        # be asked. Whoever is alone asks all the same.
        planned = self._plan(peers, self._acquaintances.candidates(standings))
        places = own_places(self._mix) - (0 if asked is None else asked["asked"])
        if planned.isolation is Isolation.ALONE or len(planned.dial) <= places:
            return planned
        return Plan(planned.dial[: max(0, places)], planned.let_go, planned.missing, planned.isolation, planned.adopt)

    def _plan(self, peers: Sequence[CurrentPeer], candidates: Sequence[Candidate]) -> Plan:
        own, now_ms = self._identity.location, self._clock.now_ms()
        return plan(own, peers, candidates, now_ms, self._random.random, self._max_peers, self._mix)

    async def _hear(self) -> None:
        """Read the registries that were read longest ago, a few of them, and forget what former peers said."""
        await self._remember_former()
        rows = await self._database.all("SELECT * FROM node WHERE standing = 'peer' AND auth = 'signed'")
        tellers = {row["node_id"]: nodes.known_node(row) for row in rows if self._company.trusts(row["node_id"])}
        for gone in self._read_at_s.keys() - tellers.keys():
            del self._read_at_s[gone]
            self._acquaintances.forget_teller(gone)
        now_s = self._clock.monotonic_s()
        patience_s = _ROUNDS_BETWEEN_READINGS * self._interval_s
        due = [
            peer
            for peer in tellers.values()
            if can_be_asked(peer)
            and self._is_there(peer.node_id)
            and self._read_at_s.get(peer.node_id, -patience_s) + patience_s <= now_s
        ]
        due.sort(key=lambda peer: (self._read_at_s.get(peer.node_id, -patience_s), self._random.random()))
        await asyncio.gather(*(self._hear_of(peer, now_s) for peer in due[:_READINGS_AT_ONCE]))

    async def _hear_of(self, peer: KnownNode, now_s: float) -> None:
        self._read_at_s[peer.node_id] = now_s
        try:
            listed = await self._introductions.listed_by(peer)
        except DialError as error:
            log.info("registry_not_read", peer=peer.node_id, error=str(error))
            return
        if listed is not None:
            self._acquaintances.told(peer.node_id, listed, self._random.random)

    async def _remember_former(self) -> None:
        """The nodes that this one knows from before, each with who introduced it; without anybody, by its own word.

        Those are the last known ones, whom a node asks that was restarted alone.
        """
        rows = await self._database.all(
            "SELECT * FROM node WHERE standing = 'introduced' AND public_key IS NOT NULL"
            " AND (introduced_by IS NULL OR ?) ORDER BY changed_at_ms DESC LIMIT ?",
            (not self._seeded, LEARNED_NODES_PER_TELLER_MAX if self._seeded else LEARNED_NODES_MAX),
        )
        said: dict[str, list[Listed]] = defaultdict(list)
        for row in rows:
            node = nodes.known_node(row)
            said[row["introduced_by"] or self._identity.node_id].append(
                Listed(node.node_id, node.endpoint, node.location)
            )
        self._seeded = True
        for teller, listed in said.items():
            if teller != self._identity.node_id:
                self._read_at_s.setdefault(teller, -float("inf"))
            self._acquaintances.told(teller, listed, self._random.random)

    def _is_there(self, node_id: str) -> bool:
        health = self._company.health_of(node_id)
        return health is not None and health.state is State.ACTIVE

    # What is done

    async def _dial_host(self, candidates: Sequence[Candidate]) -> None:
        """One after the other, for a host is called once at a time."""
        for candidate in candidates:
            try:
                with self._gate.call(urlsplit(candidate.endpoint).hostname or ""):
                    await self._dial(candidate)
            except HandshakeFailed as error:
                self._acquaintances.dial_failed(candidate.node_id, self._clock.now_ms(), self._random.random)
                log.info("dial_failed", node=candidate.node_id, teller=candidate.teller, error=str(error))
            except Refusal as refusal:  # the host was called too often, or our own storage is overloaded
                log.info("dial_delayed", node=candidate.node_id, reason=refusal.reason)

    async def _dial(self, candidate: Candidate) -> None:
        key = self._expected_key(candidate.node_id)
        destination = Destination(candidate.endpoint, candidate.node_id, False)
        async with self._handshakes.shaking(destination, PeerAuth.SIGNED, key) as (admission, answer):
            if answer.status != "accepted" and not answer.message.startswith("pending"):
                raise HandshakeFailed(f"refused: {answer.message}")
            await self._database.write(partial(self._establish, candidate, admission, answer, key))
        self._company.asked(candidate.node_id)
        self._acquaintances.answered(candidate.node_id, admission.location)
        log.info("dialled", node=candidate.node_id, teller=candidate.teller, status=answer.status)

    def _expected_key(self, node_id: str) -> bytes | None:
        """The one key that everybody shows who knows the node. HandshakeFailed where they disagree."""
        known = nodes.find(self._database.points, node_id)
        keys = self._introductions.keys_of(node_id)
        if known is not None and known.public_key is not None:
            keys.add(known.public_key)
        if len(keys) > 1:
            log.warning("key_conflict", origin=node_id)
            raise HandshakeFailed(f"{node_id} is listed with different keys")
        return next(iter(keys), None)

    def _establish(self, candidate: Candidate, admission: Admission, answer: Answer, key: bytes | None, tx: Tx) -> None:
        """Write down a handshake, unless something about the node has changed meanwhile."""
        record = nodes.find(tx, candidate.node_id)
        if record is not None and record.standing is Standing.PEER and record.public_key == admission.public_key:
            # It called here in the same moment.
            choices.choose(tx, candidate.node_id, candidate.teller, self._clock.now_ms())
            return
        if record is not None and (record.standing is not Standing.INTRODUCED or record.public_key != key):
            raise HandshakeFailed(f"{candidate.node_id} stands in another way by now")
        if nodes.count(tx, Standing.PEER) >= self._max_peers:
            raise HandshakeFailed("there are as many peers as this node admits")
        self._company.establish(tx, admission)
        choices.choose(tx, candidate.node_id, candidate.teller, self._clock.now_ms())

    def _adopt(self, candidate: Candidate, tx: Tx) -> None:
        record = nodes.find(tx, candidate.node_id)
        if record is not None and record.standing is Standing.PEER and not choices.is_chosen(tx, candidate.node_id):
            choices.choose(tx, candidate.node_id, candidate.teller, self._clock.now_ms())
            log.info("adopted", node=candidate.node_id, teller=candidate.teller)

    async def _give_up(self) -> None:
        """Let go of who does not accept, and of chosen peers that are gone for good."""
        now_ms = self._clock.now_ms()
        for row in await self._database.all(choices.OVERDUE, {"before_ms": now_ms - PENDING_PATIENCE_MS}):
            await self._let_go(row["node_id"], "not_accepted")
        for peer in await self._peers():
            health = self._company.health_of(peer.node_id)
            absent_since_ms = None if health is None else health.absent_since_ms
            if peer.origin is not Origin.OUTBOUND or peer.state is not State.UNREACHABLE or absent_since_ms is None:
                continue
            if now_ms - absent_since_ms >= ABSENCE_PATIENCE_MS:
                await self._let_go(peer.node_id, "absent")

    async def _let_go(self, node_id: str, reason: str) -> None:
        if await self._database.write(lambda tx: choices.let_go(tx, node_id, self._clock.now_ms())):
            self._acquaintances.set_aside(node_id, self._clock.now_ms() + LET_GO_REST_MS)
            self._company.dismissed(node_id)
            log.info("let_go", node=node_id, reason=reason)


def _dial_timing(interval_s: float) -> Timing:
    """A stranger is not pressed on: after a refusal it is asked again the next time, then ever more rarely."""
    return Timing(
        first_retry_ms=int(interval_s * 1000),
        first_day_ceiling_ms=int(interval_s * 60_000),
        final_ceiling_ms=int(interval_s * 1_440_000),
    )


def _by_host(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    hosts: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        hosts[urlsplit(candidate.endpoint).hostname or ""].append(candidate)
    return list(hosts.values())
