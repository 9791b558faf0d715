"""A node's votes to test with: the services over a real database, and the documents that officers send."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from loopd.audit.service import AuditLog
from loopd.crypto.keys import NodeKey
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.protocol.documents import check_document, dump_json
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.signals.ballots import Choice, Receipt, RollEntry, credential_hash, voter_hash
from loopd.signals.governance import Vote
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings
from loopd.signals.voting import Voting
from tests.exchange_support import CONTEXT
from tests.support import ManualClock

T = TypeVar("T")

NODE = "munich.loop"
KEY = NodeKey.from_seed(bytes(range(32)))
START_MS = parse_timestamp("2026-06-02T10:00:00Z")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SIGNALS = {"plastic-pet": Decimal("0.20"), "organic-food": Decimal("0.40"), "default": Decimal("0.05")}


def proposal(opens_ms: int, closes_ms: int, changes: Mapping[str, tuple[str, str]], **extras: Any) -> dict[str, Any]:
    """A SignalProposal: category to (current, proposed)."""
    return {
        "@context": CONTEXT,
        "@type": "SignalProposal",
        "node": NODE,
        "changes": [
            {"category": category, "current": Decimal(current), "proposed": Decimal(proposed)}
            for category, (current, proposed) in changes.items()
        ],
        "voting_opens": format_timestamp(opens_ms),
        "voting_closes": format_timestamp(closes_ms),
        **extras,
    }


class VotingNode:
    """One node's votes and signals."""

    def __init__(self, database: Database, clock: ManualClock, settings: SignalsSettings) -> None:
        self.database = database
        self.clock = clock
        self.settings = settings
        self.told: list[tuple[dict[str, Any], int]] = []
        self.restart()

    def restart(self) -> None:
        """New services over the same database, as after a restart."""
        self.signals = Signals(NODE, CONTEXT, self.settings, self.clock, EventLog(self.clock))
        self.voting = Voting(NODE, CONTEXT, lambda: KEY, self.settings, AuditLog(self.clock), self.clock, self.tell)

    def tell(self, tx: Tx, configuration: dict[str, Any], valid_until_ms: int) -> None:
        self.told.append((configuration, valid_until_ms))

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self.database.write(unit)

    async def tick(self) -> None:
        now_ms = self.clock.now_ms()
        await self.write(lambda tx: self.voting.tick(tx, now_ms))

    async def propose(self, stated: Mapping[str, Any]) -> Vote:
        document = check_document(dump_json(stated), "SignalProposal")
        return await self.write(lambda tx: self.voting.propose(tx, document))

    async def propose_now(self, changes: Mapping[str, tuple[str, str]], hours: int = 1, **extras: Any) -> Vote:
        """A proposal whose window opens at once."""
        now_ms = self.clock.now_ms()
        vote = await self.propose(proposal(now_ms, now_ms + hours * HOUR_MS, changes, **extras))
        await self.tick()
        return self.vote(vote.vote_id)

    def vote(self, vote_id: str) -> Vote:
        return self.voting.require(self.database.points, vote_id)

    async def result(self, vote_id: str, ayes: int, noes: int, **stated: Any) -> Vote:
        counts = {"total_voted": ayes + noes, "votes_for": ayes, "votes_against": noes}
        entered = {**counts, "attestation": "Council minutes 17/2026", **stated}
        return await self.write(lambda tx: self.voting.enter_result(tx, vote_id, entered))

    async def certify(self, vote_id: str) -> Vote:
        return await self.write(lambda tx: self.voting.certify(tx, vote_id))

    async def decide(self, changes: Mapping[str, tuple[str, str]], votes_for: int = 60, against: int = 40) -> Vote:
        """A whole vote within an hour, from the proposal to the certification."""
        vote = await self.propose_now(changes)
        self.clock.advance(HOUR_MS)
        await self.tick()
        await self.result(vote.vote_id, votes_for, against)
        return await self.certify(vote.vote_id)

    def value(self, category: str) -> int:
        reading = self.signals.basis_points(self.database.points, NODE, category)
        assert reading is not None
        assert not reading.stale
        return reading.basis_points

    # Ballots

    async def enrol(self, vote_id: str, voters: int) -> list[str]:
        """A roll; the credentials of its voters."""
        credentials = [f"CREDENTIAL-{number:06d}" for number in range(voters)]
        entries = [
            RollEntry(voter_hash(vote_id, b"salt", f"voter {number}"), credential_hash(vote_id, credential))
            for number, credential in enumerate(credentials)
        ]
        await self.write(lambda tx: self.voting.enrol(tx, vote_id, entries))
        return credentials

    async def cast(self, vote_id: str, credential: str, choice: str) -> Receipt:
        return await self.write(lambda tx: self.voting.cast(tx, vote_id, credential, Choice(choice)))

    async def ballot_vote(self, voters: int, change: tuple[str, str] = ("0.20", "0.30")) -> tuple[str, list[str]]:
        """A vote with ballots whose window is open."""
        now_ms = self.clock.now_ms()
        stated = proposal(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS, {"plastic-pet": change}, method="ballots")
        vote = await self.propose(stated)
        credentials = await self.enrol(vote.vote_id, voters) if voters else []
        self.clock.advance(HOUR_MS)
        await self.tick()
        return vote.vote_id, credentials

    async def audited(self) -> list[str]:
        rows = await self.database.all("SELECT payload FROM audit_entry ORDER BY sequence")
        return [json.loads(row["payload"])["event"] for row in rows]


@asynccontextmanager
async def voting_node(directory: Path, start_ms: int = START_MS, **settings: Any) -> AsyncIterator[VotingNode]:
    """A node's votes with their database in `directory`."""
    clock = ManualClock(start_ms)
    chosen = SignalsSettings(**{"values": SIGNALS, "eligible": 100, "ballots": True, **settings})
    path = directory / "loopd.db"
    async with await Database.create(path, DatabaseSettings(synchronous="NORMAL"), clock) as database:
        yield VotingNode(database, clock, chosen)
