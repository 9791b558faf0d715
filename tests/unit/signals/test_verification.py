import copy
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.crypto.keys import NodeKey, encode_signature
from loopd.protocol.documents import dump_json, read_json
from loopd.protocol.errors import Conflict, Invalid
from loopd.signals.publication import signed_bytes
from loopd.signals.verification import verify_record
from tests.voting_support import DAY_MS, HOUR_MS, KEY, VotingNode, voting_node

PET = {"plastic-pet": ("0.20", "0.30")}


async def ballot_record(node: VotingNode) -> Any:
    vote_id, credentials = await node.ballot_vote(9)
    for credential, choice in zip(credentials, ["for"] * 4 + ["against"] * 2 + ["abstain"], strict=False):
        await node.cast(vote_id, credential, choice)
    node.clock.advance(HOUR_MS)
    await node.tick()
    node.clock.advance(7 * DAY_MS)
    await node.certify(vote_id)
    return published(node, vote_id)


def published(node: VotingNode, vote_id: str) -> Any:
    """As it comes out of the file."""
    return read_json(dump_json(node.voting.record(node.database.points, vote_id)))


def signed_again(record: Any, key: NodeKey = KEY) -> Any:
    """A forger who has the node's key, or another one."""
    record["record"]["public_key"] = key.public.to_pem()
    record["signature"] = encode_signature(key.sign(signed_bytes(record["record"])))
    return record


async def test_a_vote_with_ballots_is_recomputed(tmp_path: Path) -> None:
    async with voting_node(tmp_path) as node:
        verdict = verify_record(await ballot_record(node))
    assert verdict.holds
    assert (verdict.outcome, verdict.attested, verdict.fingerprint) == ("passed", False, KEY.public.fingerprint)
    assert (verdict.tally.voted, verdict.tally.abstained) == (7, 1)


@pytest.mark.parametrize(("ayes", "outcome"), [(60, "passed"), (40, "failed")])
async def test_an_attested_result_is_called_so(tmp_path: Path, ayes: int, outcome: str) -> None:
    async with voting_node(tmp_path) as node:
        vote = await node.decide(PET, ayes, 100 - ayes)
        verdict = verify_record(published(node, vote.vote_id))
    assert (verdict.holds, verdict.attested, verdict.outcome) == (True, True, outcome)


async def test_later_votes_change_nothing_in_a_record(tmp_path: Path) -> None:
    async with voting_node(tmp_path) as node:
        first = await node.decide(PET)
        before = published(node, first.vote_id)
        second = await node.decide({"default": ("0.05", "0.10")})
        node.clock.advance(90 * DAY_MS)
        third = await node.decide({"plastic-pet": ("0.30", "0.40")})
        assert published(node, first.vote_id) == before
        for vote in (second, third):
            assert verify_record(published(node, vote.vote_id)).findings == tuple(
                finding for finding in verify_record(published(node, vote.vote_id)).findings if not finding.problem
            )


async def test_there_is_no_record_before_it_is_decided(tmp_path: Path) -> None:
    async with voting_node(tmp_path) as node:
        vote = await node.propose_now(PET)
        with pytest.raises(Conflict):
            node.voting.record(node.database.points, vote.vote_id)


def _set(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        place = record["record"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


def _another_month(record: Any, begins: str, ends: str) -> None:
    times = {"valid_from": f"{begins}T00:00:00Z", "valid_until": f"{ends}T00:00:00Z"}
    record["record"]["period_starts"][1].update(times)


def _turn_to_abstention(record: Any) -> None:
    """One that is none yet: the ballots stand in the order of their random keys, so any may come first."""
    next(ballot for ballot in record["record"]["ballots"] if ballot[1] != "abstain")[1] = "abstain"


FORGERIES: list[tuple[str, Callable[[Any], None]]] = [
    ("the ballots and the tally", _turn_to_abstention),
    ("the ballots and the tally", lambda record: record["record"]["ballots"].pop()),
    ("the ballots and the tally", lambda record: record["record"]["turnout"].pop()),
    ("the ballots and the tally", lambda record: record["record"]["ballots"].reverse()),
    ("the ballots and the tally", lambda record: record["record"]["turnout"].reverse()),
    ("the ballots and the tally", _set("vote", "results", "votes_for", to=5)),
    ("the outcome", _set("vote", "rules", "quorum", to="8/9")),
    ("the outcome", _set("configuration", to=None)),
    ("the outcome", _set("vote", "results", "status", to="failed")),
    ("what was in force", _set("before", "signals", "plastic-pet", to=Decimal("0.25"))),
    ("the limit of 0.10 in a month", _set("period_starts", 0, "signals", "plastic-pet", to=Decimal("0.19"))),
    ("the limit of 0.10 in a month", _set("period_starts", to=[])),
    ("the limit of 0.10 in a month", lambda record: _another_month(record, "2026-05-01", "2026-06-01")),
    ("the limit of 0.10 in a month", lambda record: _another_month(record, "2026-07-01", "2026-08-01")),
    ("the configuration that came of it", _set("configuration", "signals", "plastic-pet", to=Decimal("0.31"))),
    ("the configuration that came of it", _set("configuration", "signals", "default", to=Decimal("0.06"))),
    ("the configuration that came of it", _set("configuration", "approved_by", "turnout", to=Decimal("0.9"))),
    ("the configuration that came of it", _set("configuration", "approved_by", "vote_id", to="another")),
    ("the configuration that came of it", _set("configuration", "valid_from", to="2026-06-01T00:00:00Z")),
    ("the configuration that came of it", _set("configuration", "valid_until", to="2026-08-01T00:00:00Z")),
    ("the window and its times", _set("closed_at", to="2026-06-02T11:00:00Z")),
    ("the window and its times", _set("vote", "certified_at", to="2026-06-03T11:00:00Z")),
    ("the window and its times", _set("vote", "voting_period", "start", to="2026-06-02T13:00:00Z")),
    ("the documents fit their schemas", _set("before", "node", to="vienna.loop")),
]


async def test_every_forgery_shows_even_with_the_nodes_key(tmp_path: Path) -> None:
    async with voting_node(tmp_path) as node:
        genuine = await ballot_record(node)
    for check, forge in FORGERIES:
        forged = copy.deepcopy(genuine)
        forge(forged)
        problems = {finding.check for finding in verify_record(forged).findings if finding.problem}
        assert "the node's signature" in problems, check
        problems = {finding.check for finding in verify_record(signed_again(forged)).findings if finding.problem}
        assert check in problems, forged["record"]
        assert "the node's signature" not in problems


async def test_another_key_is_another_fingerprint(tmp_path: Path) -> None:
    async with voting_node(tmp_path) as node:
        genuine = await ballot_record(node)
    verdict = verify_record(signed_again(genuine, NodeKey.from_seed(bytes(32))))
    assert verdict.holds
    assert verdict.fingerprint != KEY.public.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("signature"),
        lambda record: record["record"].pop("vote"),
        _set("format", to="something else"),
        _set("vote", "results", "votes_for", to=500),
        _set("vote", "rules", "threshold", to="0.5"),
        _set("vote", "proposals", 0, "proposed_value", to=Decimal("0.4")),
        _set("public_key", to="no key"),
        _set("before", "valid_from", to="yesterday"),
        _set("ballots", 0, 1, to="perhaps"),
        _set("ballots", to=None),
    ],
)
async def test_what_is_no_record(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    async with voting_node(tmp_path) as node:
        record = await ballot_record(node)
    change(record)
    with pytest.raises(Invalid) as refusal:
        verify_record(record)
    assert refusal.value.reason == "not_a_record"


@pytest.mark.parametrize("value", [None, [], {}, {"record": None, "signature": ""}, "text", 1])
def test_any_json_is_refused_and_nothing_fails(value: Any) -> None:
    with pytest.raises(Invalid):
        verify_record(value)
