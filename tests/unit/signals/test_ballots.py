import asyncio
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.database import DatabaseSettings
from loopd.database.database import Database
from loopd.protocol.errors import Conflict, Forbidden, Refusal
from loopd.signals.ballots import (
    CREDENTIAL_BYTES,
    Receipt,
    credential_hash,
    print_credential,
    receipt_holds,
    voter_hash,
)
from loopd.signals.governance import State
from loopd.signals.settings import SignalsSettings
from loopd.signals.voting_time import VotingTime
from tests.support import ManualClock
from tests.voting_support import DAY_MS, HOUR_MS, KEY, NODE, START_MS, VotingNode, proposal, voting_node

PET = {"plastic-pet": ("0.20", "0.30")}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[VotingNode]:
    async with voting_node(tmp_path) as found:
        yield found


def test_credentials_are_read_however_they_are_typed() -> None:
    printed = print_credential(bytes(range(CREDENTIAL_BYTES)))
    assert len(printed) == 27
    assert credential_hash("v", printed) == credential_hash("v", printed.lower().replace("-", " "))
    assert credential_hash("v", printed) != credential_hash("w", printed)
    with pytest.raises(ValueError):
        print_credential(b"short")


def test_a_voter_is_hashed_with_the_citys_salt() -> None:
    assert voter_hash("v", b"a", "1234") != voter_hash("v", b"b", "1234") != voter_hash("w", b"b", "1234")


async def test_ballots_are_counted_when_the_window_closes(node: VotingNode) -> None:
    vote_id, credentials = await node.ballot_vote(10)
    choices = ["for"] * 5 + ["against"] * 2 + ["abstain"]
    for credential, choice in zip(credentials, choices, strict=False):
        receipt = await node.cast(vote_id, credential, choice)
        assert receipt_holds(KEY.public, NODE, vote_id, receipt)
        assert not receipt_holds(KEY.public, NODE, "another", receipt)
        assert not receipt_holds(KEY.public, NODE, vote_id, Receipt(receipt.credential, "no signature"))
    # While the window is open nothing of it is told.
    assert node.voting.vote_view(node.vote(vote_id))["results"]["total_voted"] == 0
    node.clock.advance(HOUR_MS)
    await node.tick()
    counted = node.voting.vote_view(node.vote(vote_id))["results"]
    assert (counted["total_eligible"], counted["total_voted"], counted["votes_for"], counted["votes_against"]) == (
        10,
        8,
        5,
        2,
    )
    with pytest.raises(Conflict) as refusal:
        await node.certify(vote_id)
    assert refusal.value.reason == "appeals_open"
    node.clock.advance(7 * DAY_MS)
    assert (await node.certify(vote_id)).state is State.PASSED
    assert node.value("plastic-pet") == 3000


async def test_an_appeal_ends_a_vote_without_an_outcome(node: VotingNode) -> None:
    vote_id, credentials = await node.ballot_vote(2)
    await node.cast(vote_id, credentials[0], "for")
    node.clock.advance(HOUR_MS)
    await node.tick()
    annulled = await node.write(lambda tx: node.voting.annul(tx, vote_id, "The roll was wrong"))
    assert annulled.state is State.ANNULLED
    node.clock.advance(7 * DAY_MS)
    with pytest.raises(Conflict):
        await node.certify(vote_id)
    assert node.value("plastic-pet") == 2000


async def test_of_a_thousand_tries_with_one_credential_one_counts(node: VotingNode) -> None:
    vote_id, (credential, *_) = await node.ballot_vote(3)
    choices = itertools.cycle(["for", "against", "abstain"])
    tries = [node.cast(vote_id, credential, choice) for choice in itertools.islice(choices, 1000)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (len(receipts), len(refusals)) == (1, 999)
    # Who lost the answer still gets the receipt, and it tells nothing else.
    told = {"credential": receipts[0].credential, "signature": receipts[0].signature}
    assert all((refusal.reason, refusal.details["receipt"]) == ("already_voted", told) for refusal in refusals)
    row = await node.database.one("SELECT count(*) AS ballots FROM ballot")
    assert row is not None
    assert row["ballots"] == 1


async def test_the_database_itself_refuses_a_second_ballot(node: VotingNode) -> None:
    vote_id, (credential, *_) = await node.ballot_vote(1)
    await node.cast(vote_id, credential, "for")
    number, hashed = node.vote(vote_id).number, credential_hash(vote_id, credential)
    with pytest.raises(sqlite3.IntegrityError):
        await node.write(lambda tx: tx.execute("INSERT INTO vote_turnout VALUES (?, ?)", (number, hashed)))
    with pytest.raises(sqlite3.IntegrityError):
        await node.write(lambda tx: tx.execute("INSERT INTO vote_turnout VALUES (?, ?)", (number, bytes(32))))


async def test_a_receipt_is_the_same_whatever_was_chosen(tmp_path: Path) -> None:
    receipts = []
    for choice in ("for", "against"):
        (tmp_path / choice).mkdir()
        async with voting_node(tmp_path / choice) as node:
            vote_id, (credential, *_) = await node.ballot_vote(1)
            receipts.append(await node.cast(vote_id, credential, choice))
    assert receipts[0] == receipts[1]


async def test_who_may_not_vote(node: VotingNode) -> None:
    vote_id, (credential, *_) = await node.ballot_vote(1)
    with pytest.raises(Forbidden) as refusal:
        await node.cast(vote_id, "CREDENTIAL-999999", "for")
    assert refusal.value.reason == "unknown_credential"
    attested = await node.propose_now({"organic-food": ("0.40", "0.50")})
    with pytest.raises(Conflict) as conflict:
        await node.cast(attested.vote_id, credential, "for")
    assert conflict.value.reason == "counted_elsewhere"
    with pytest.raises(Conflict) as conflict:
        await node.result(vote_id, 1, 0)
    assert conflict.value.reason == "counted_here"


async def test_the_roll_is_closed_when_the_window_opens(node: VotingNode) -> None:
    now_ms = node.clock.now_ms()
    vote = await node.propose(proposal(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS, PET, method="ballots"))
    await node.enrol(vote.vote_id, 3)
    reasons = []
    for _ in range(2):
        with pytest.raises(Refusal) as refusal:
            await node.enrol(vote.vote_id, 3)
        reasons.append(refusal.value.reason)
        node.clock.advance(HOUR_MS)
    assert reasons == ["already_on_roll", "wrong_state"]


async def test_without_a_roll_no_window_opens(node: VotingNode) -> None:
    vote_id, _ = await node.ballot_vote(0)
    assert (node.vote(vote_id).state, node.vote(vote_id).reason) == (State.REFUSED, "nobody_eligible")


async def _closed_vote(directory: Path, order: list[int], choices: list[str]) -> tuple[str, list[bytes]]:
    """A closed vote in which voters cast in that order; each always gets the same ballot key."""
    chance = random.Random(7)
    keys = [chance.randbytes(16) for _ in choices]
    upcoming = iter([keys[voter] for voter in order])
    async with voting_node(directory) as node:
        vote_id, credentials = await node.ballot_vote(len(choices))
        node.voting._random_bytes = lambda length: next(upcoming)
        for voter in order:
            await node.cast(vote_id, credentials[voter], choices[voter])
        node.clock.advance(HOUR_MS)
        time = VotingTime(node.voting, node.database, node.clock)
        await time.step()
        assert not node.voting.log_tells_order
        assert (directory / "loopd.db-wal").stat().st_size == 0
        hashes = [credential_hash(vote_id, credential) for credential in credentials]
    return vote_id, [*keys, *hashes]


def _places(file: bytes, needles: list[bytes]) -> list[int]:
    """The needles by number, in the order in which they stand in the file; each as often as it does."""
    found = []
    for number, needle in enumerate(needles):
        start = file.find(needle)
        while start >= 0:
            found.append((start, number))
            start = file.find(needle, start + 1)
    return [number for _, number in sorted(found)]


async def test_no_copy_of_the_closed_vote_tells_an_order(tmp_path: Path) -> None:
    """The same ballots cast in two orders leave the same places in the file, and nothing in the log of changes."""
    voters, places = 60, []
    choices = [random.Random(1).choice(["for", "against", "abstain"]) for _ in range(voters)]
    for name, seed in (("one", 1), ("other", 2)):
        directory = tmp_path / name
        directory.mkdir()
        order = random.Random(seed).sample(range(voters), voters)
        _, needles = await _closed_vote(directory, order, choices)
        file = (directory / "loopd.db").read_bytes()
        keys = _places(file, needles[:voters])
        assert len(keys) == voters
        # A page is filled from its end, so the places run backwards within it; they follow the keys and nothing else.
        places.append((keys, _places(file, needles)))
        assert (keys in (sorted(keys, key=needles.__getitem__), sorted(keys, key=needles.__getitem__)[::-1])) is True
    assert places[0] == places[1]


async def test_no_join_links_a_voter_to_a_choice(tmp_path: Path) -> None:
    """Every value of every column of every table, beside those of the ballots; and every row in its own order."""
    voters = 40
    choices = [random.Random(3).choice(["for", "against"]) for _ in range(voters)]
    order = random.Random(4).sample(range(voters), voters)
    vote_id, needles = await _closed_vote(tmp_path, order, choices)
    connection = sqlite3.connect(tmp_path / "loopd.db")
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {"ballot", "vote_turnout", "vote_roll", "audit_entry"} <= set(tables)
        keys = set(needles[:voters])
        for table in tables:
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()
            values = {value for row in rows for value in row}
            if table == "ballot":
                assert keys <= values
                # Nothing but the vote, a random key and the choice: no time, and the order is that of the keys.
                columns = [row[1] for row in connection.execute("PRAGMA table_info(ballot)")]
                assert columns == ["vote", "ballot", "choice"]
                assert [row[1] for row in rows] == sorted(keys)
                assert not values & set(needles[voters:])
            else:
                texts = [value for value in values if isinstance(value, bytes | str)]
                seen = [value.encode() if isinstance(value, str) else value for value in texts]
                assert not any(key in text or key.hex().encode() in text for key in keys for text in seen)
            if table in ("ballot", "vote_turnout", "vote_roll"):
                with pytest.raises(sqlite3.OperationalError):
                    connection.execute(f"SELECT rowid FROM {table}")
        audited = connection.execute("SELECT count(*) FROM audit_entry WHERE subject = ?", (vote_id,)).fetchone()[0]
    finally:
        connection.close()
    # Proposed, opened, closed, counted: nothing for each ballot.
    assert audited == 4


async def test_the_log_is_emptied_at_every_start(tmp_path: Path) -> None:
    """A node that was killed right after the count did not get to it."""
    await _closed_vote(tmp_path, [0, 1], ["for", "against"])
    clock = ManualClock(START_MS + 30 * DAY_MS)
    async with await Database.open(tmp_path / "loopd.db", DatabaseSettings(), clock) as database:
        await database.write(lambda tx: tx.execute("UPDATE signal_vote SET reason = 'touched'"))
        log = tmp_path / "loopd.db-wal"
        assert log.stat().st_size > 0
        time = VotingTime(VotingNode(database, clock, SignalsSettings()).voting, database, clock)
        await time.start()
        await time.stop()
        assert log.stat().st_size == 0
