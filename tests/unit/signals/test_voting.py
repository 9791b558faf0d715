import random
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.audit.service import AuditLog
from loopd.protocol.errors import Conflict, Forbidden, Invalid, NotFound, Refusal
from loopd.protocol.loopcost import cross_node_cost
from loopd.protocol.schemas import schema_errors
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.protocol.vocabulary import SIGNAL_KEYS
from loopd.signals.governance import State
from loopd.signals.rules import month_of
from tests.voting_support import DAY_MS, HOUR_MS, START_MS, VotingNode, proposal, voting_node

PET = {"plastic-pet": ("0.20", "0.30")}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[VotingNode]:
    async with voting_node(tmp_path) as found:
        yield found


async def refusal_of(awaitable: Any, kind: type[Refusal]) -> Refusal:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value


async def test_a_vote_changes_a_signal_when_it_is_certified(node: VotingNode) -> None:
    vote = await node.propose_now(PET)
    assert vote.state is State.OPEN
    node.clock.advance(HOUR_MS)
    await node.tick()
    await node.result(vote.vote_id, 60, 40)
    assert node.value("plastic-pet") == 2000
    decided = await node.certify(vote.vote_id)
    assert decided.state is State.PASSED
    assert node.value("plastic-pet") == 3000
    published = node.signals.published(node.database.points)
    assert schema_errors("LoopSignalConfig", published) == []
    assert published["approved_by"] == {"vote_id": vote.vote_id, "turnout": Decimal(1), "approval": Decimal("0.6")}
    # And it is passed on to the peers, for as long as it holds.
    assert node.told == [(published, parse_timestamp("2026-07-01T00:00:00Z"))]
    assert published["valid_from"] == format_timestamp(node.clock.now_ms())
    assert published["valid_until"] == "2026-07-01T00:00:00Z"
    loop_vote = node.voting.vote_view(decided)
    assert schema_errors("LoopVote", loop_vote) == []
    assert loop_vote["results"]["status"] == "passed"
    assert schema_errors("SignalProposal", node.voting.proposal_view(decided)) == []


async def test_the_same_signal_counts_both_ways_in_the_cost(node: VotingNode) -> None:
    def costs() -> tuple[int, int]:
        munich, vienna = node.value("plastic-pet"), 1000
        out = cross_node_cost(10_000, munich, vienna, Decimal(0))
        back = cross_node_cost(10_000, vienna, munich, Decimal(0))
        assert (out.export_minor, out.import_minor) == (back.import_minor, back.export_minor)
        return out.export_minor, out.total_minor

    assert costs() == (2000, 13_000)
    await node.decide(PET)
    assert costs() == (3000, 14_000)


@pytest.mark.parametrize(("votes_for", "against"), [(50, 50), (49, 51), (0, 0)])
async def test_what_did_not_pass_changes_nothing(node: VotingNode, votes_for: int, against: int) -> None:
    decided = await node.decide(PET, votes_for, against)
    assert decided.state is State.FAILED
    assert node.value("plastic-pet") == 2000
    # The category is free again.
    assert (await node.decide(PET)).state is State.PASSED


async def test_one_undecided_proposal_for_a_category(node: VotingNode) -> None:
    vote = await node.propose_now(PET)
    refusal = await refusal_of(node.propose_now({"plastic-pet": ("0.20", "0.25")}), Conflict)
    assert (refusal.reason, refusal.details["votes"]) == ("category_undecided", {"plastic-pet": vote.vote_id})
    await node.propose_now({"organic-food": ("0.40", "0.30")})
    # What has no value of its own is moved by `default`.
    await node.propose_now({"glass-clear": ("0.05", "0.15")})
    refusal = await refusal_of(node.propose_now({"default": ("0.05", "0.15")}), Conflict)
    assert list(refusal.details["votes"]) == ["glass-clear"]


async def test_default_is_voted_on_like_a_category(node: VotingNode) -> None:
    await node.decide({"default": ("0.05", "0.15")})
    assert (node.value("default"), node.value("glass-clear"), node.value("plastic-pet")) == (1500, 1500, 2000)


async def test_the_changes_of_one_proposal_pass_together(node: VotingNode) -> None:
    await node.decide({**PET, "organic-food": ("0.40", "0.35")})
    assert (node.value("plastic-pet"), node.value("organic-food")) == (3000, 3500)


async def test_the_limit_is_for_the_month_and_not_for_the_proposal(node: VotingNode) -> None:
    await node.decide(PET)
    vote = await node.propose_now({"plastic-pet": ("0.30", "0.35")})
    assert (vote.state, vote.reason) == (State.REFUSED, "period_limit")
    # Back is within the limit, and so is the other side of where the month began.
    await node.decide({"plastic-pet": ("0.30", "0.20")})
    await node.decide({"plastic-pet": ("0.20", "0.10")})
    node.clock.advance(30 * DAY_MS)
    assert (await node.decide({"plastic-pet": ("0.10", "0.20")})).state is State.PASSED


async def test_a_vote_of_last_month_waits_where_this_month_is_used_up(node: VotingNode) -> None:
    """What closes on the last day of June and is certified in July counts in both."""
    node.clock.set_wall(parse_timestamp("2026-06-30T22:00:00Z"))
    vote = await node.propose_now(PET)
    node.clock.advance(HOUR_MS)
    await node.tick()
    await node.result(vote.vote_id, 60, 40)
    node.clock.set_wall(parse_timestamp("2026-07-05T00:00:00Z"))
    await node.certify(vote.vote_id)
    refused = await node.propose_now({"plastic-pet": ("0.30", "0.40")})
    assert (refused.state, refused.reason) == (State.REFUSED, "period_limit")
    # Proposed for August, opened in July: it is not refused, and takes effect in August.
    vote = await node.propose_now({"plastic-pet": ("0.30", "0.40")}, hours=24 * 28)
    node.clock.advance(28 * DAY_MS)
    await node.tick()
    await node.result(vote.vote_id, 60, 40)
    assert (await node.certify(vote.vote_id)).state is State.PASSED


async def test_current_is_checked_when_the_window_opens(node: VotingNode) -> None:
    wrong = await node.propose_now({"plastic-pet": ("0.25", "0.30")})
    assert (wrong.state, wrong.reason) == (State.REFUSED, "current_differs")
    assert node.vote(wrong.vote_id).terms is None


async def test_rules_are_frozen_when_the_window_opens(node: VotingNode) -> None:
    vote = await node.propose_now(PET)
    node.settings = node.settings.model_copy(update={"quorum": "1", "threshold": "9/10", "eligible": 5})
    node.restart()
    node.clock.advance(HOUR_MS)
    await node.tick()
    await node.result(vote.vote_id, 6, 5)
    assert (await node.certify(vote.vote_id)).state is State.PASSED
    rules = node.voting.vote_view(node.vote(vote.vote_id))["rules"]
    assert (rules["total_eligible"], rules["quorum"], rules["threshold"]) == (100, "0", "1/2")
    assert node.voting.vote_view(node.vote(vote.vote_id))["attestation"] == "Council minutes 17/2026"


@pytest.mark.parametrize(
    ("stated", "pointer"),
    [
        ({"total_voted": 101}, "/total_voted"),
        ({"total_voted": 99}, "/total_voted"),
        ({"votes_for": -1}, "/votes_for"),
        ({"abstentions": 1}, "/abstentions"),
        ({"status": "failed"}, "/status"),
        ({"total_eligible": 99}, "/total_eligible"),
    ],
)
async def test_an_impossible_result_changes_nothing(node: VotingNode, stated: dict[str, Any], pointer: str) -> None:
    vote = await node.propose_now(PET)
    node.clock.advance(HOUR_MS)
    await node.tick()
    refusal = await refusal_of(node.result(vote.vote_id, 60, 40, **stated), Invalid)
    assert refusal.details["errors"][0]["pointer"] == pointer
    assert node.vote(vote.vote_id).state is State.CLOSED
    await node.result(vote.vote_id, 59, 41)
    await node.result(vote.vote_id, 41, 59)  # corrected before it is certified
    assert (await node.certify(vote.vote_id)).state is State.FAILED


@pytest.mark.parametrize(
    ("closes", "still_open", "closed"),
    [
        ("2026-06-07T12:00:00Z", "2026-06-07T11:59:59.999Z", "2026-06-07T12:00:00Z"),
        ("2026-06-07T23:59:59Z", "2026-06-07T23:59:59.999Z", "2026-06-08T00:00:00Z"),
        ("2026-06-07T14:00:00+02:00", "2026-06-07T11:59:59.999Z", "2026-06-07T12:00:00Z"),
        ("2026-06-07T23:59:58Z", "2026-06-07T23:59:57.999Z", "2026-06-07T23:59:58Z"),
        ("2026-06-30T23:59:59-00:00", "2026-06-30T23:59:59.999Z", "2026-07-01T00:00:00Z"),
        ("2026-06-08T00:59:59+01:00", "2026-06-07T23:59:59.999Z", "2026-06-08T00:00:00Z"),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_window_closes_right_at_its_second(
    node: VotingNode, closes: str, still_open: str, closed: str, restarted: bool
) -> None:
    stated = proposal(START_MS, START_MS + HOUR_MS, PET, method="ballots") | {"voting_closes": closes}
    stated["voting_opens"] = format_timestamp(START_MS + HOUR_MS)
    vote_id = (await node.propose(stated)).vote_id
    credentials = await node.enrol(vote_id, 3)
    node.clock.advance(HOUR_MS)
    await node.tick()
    node.clock.set_wall(parse_timestamp(still_open))
    if restarted:
        node.restart()
    await node.cast(vote_id, credentials[0], "for")
    node.clock.set_wall(parse_timestamp(closed))
    refusal = await refusal_of(node.cast(vote_id, credentials[1], "for"), Conflict)
    assert refusal.reason == "window_closed"
    await node.tick()
    # A clock that is set back opens nothing again.
    node.clock.set_wall(parse_timestamp(still_open))
    refusal = await refusal_of(node.cast(vote_id, credentials[1], "for"), Conflict)
    assert refusal.reason == "window_closed"
    assert node.vote(vote_id).counted_at_ms == parse_timestamp(closed)
    # It belongs to the month in which it is stated to end.
    assert vote_id.startswith("2026-06-")


async def test_what_came_due_while_the_node_was_down_is_done_at_its_time(node: VotingNode) -> None:
    now_ms = node.clock.now_ms()
    first = await node.propose(proposal(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS, PET, method="ballots"))
    await node.enrol(first.vote_id, 2)
    second = await node.propose(proposal(now_ms + HOUR_MS, now_ms + 9 * DAY_MS, {"organic-food": ("0.40", "0.5")}))
    node.clock.advance(3 * DAY_MS)
    node.restart()
    assert node.voting.is_due(node.database.points, node.clock.now_ms())
    await node.tick()
    assert not node.voting.is_due(node.database.points, node.clock.now_ms())
    assert node.vote(first.vote_id).counted_at_ms == now_ms + 2 * HOUR_MS
    assert node.vote(second.vote_id).state is State.OPEN


async def test_the_settings_hold_until_the_first_proposal_and_not_after(node: VotingNode) -> None:
    node.settings = node.settings.model_copy(update={"values": {"plastic-pet": Decimal("0.5")}})
    node.restart()
    assert node.value("plastic-pet") == 5000
    await node.propose_now({"plastic-pet": ("0.5", "0.6")})
    node.settings = node.settings.model_copy(update={"values": {}})
    node.restart()
    assert node.value("plastic-pet") == 5000
    node.clock.advance(400 * DAY_MS)
    assert node.value("plastic-pet") == 5000


async def test_history_and_other_moments(node: VotingNode) -> None:
    points = node.database.points
    await node.decide(PET)
    certified_ms = node.clock.now_ms()
    node.clock.advance(60 * DAY_MS)
    history = node.signals.history(points, 10)
    assert [entry["valid_from"] for entry in history] == [
        "2026-08-01T00:00:00Z",
        "2026-07-01T00:00:00Z",
        format_timestamp(certified_ms),
        "2026-06-01T00:00:00Z",
    ]
    assert node.signals.history(points, 1) == history[:1]
    assert node.signals.published_at(points, certified_ms) == history[2]
    assert node.signals.published_at(points, certified_ms - 1) == history[3]
    assert node.signals.published(points) == history[0]
    for moment, reason in (("2026-05-31T23:59:59Z", "not_known"), ("2026-09-01T00:00:00Z", "not_issued")):
        with pytest.raises(NotFound) as refusal:
            node.signals.published_at(points, parse_timestamp(moment))
        assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"voting_opens": "2026-06-02T09:00:00Z"}, Invalid, "bad_time"),
        ({"voting_opens": "2028-06-02T10:00:00Z", "voting_closes": "2028-06-03T00:00:00Z"}, Invalid, "bad_time"),
        ({"voting_closes": "2026-06-02T10:00:00Z"}, Invalid, "bad_time"),
        ({"voting_closes": "2028-06-02T10:00:00Z"}, Invalid, "bad_time"),
        ({"node": "vienna.loop"}, Invalid, "other_node"),
        ({"vote_id": "a b"}, Invalid, "bad_vote_id"),
        ({"vote_id": "x" * 81}, Invalid, "bad_vote_id"),
        ({"eligible": 0}, Invalid, "bad_eligible"),
        ({"eligible": "many"}, Invalid, "bad_eligible"),
        ({"method": "acclamation"}, Invalid, "bad_method"),
    ],
)
async def test_proposals_that_are_refused(
    node: VotingNode, changes: dict[str, Any], kind: type[Refusal], reason: str
) -> None:
    stated = proposal(START_MS, START_MS + HOUR_MS, PET) | changes
    assert (await refusal_of(node.propose(stated), kind)).reason == reason


async def test_ids_are_chosen_once(node: VotingNode) -> None:
    vote = await node.propose_now(PET, vote_id="2026-06-plastic-increase")
    assert vote.vote_id == "2026-06-plastic-increase"
    other = proposal(START_MS, START_MS + HOUR_MS, {"default": ("0.05", "0.06")}, vote_id=vote.vote_id)
    assert (await refusal_of(node.propose(other), Conflict)).reason == "vote_id_taken"


async def test_withdrawing_and_annulling(node: VotingNode) -> None:
    later = await node.propose(proposal(START_MS + HOUR_MS, START_MS + 2 * HOUR_MS, PET))
    withdrawn = await node.write(lambda tx: node.voting.withdraw(tx, later.vote_id))
    assert withdrawn.state is State.WITHDRAWN
    vote = await node.propose_now(PET)
    refusal = await refusal_of(node.write(lambda tx: node.voting.withdraw(tx, vote.vote_id)), Conflict)
    assert refusal.reason == "wrong_state"
    annulled = await node.write(lambda tx: node.voting.annul(tx, vote.vote_id, "The ballot papers were wrong"))
    assert node.voting.vote_view(annulled)["reason"] == "The ballot papers were wrong"
    assert (await refusal_of(node.certify(vote.vote_id), Conflict)).reason == "wrong_state"
    assert (await refusal_of(node.certify("nothing"), NotFound)).reason == "unknown_vote"
    assert (await node.decide(PET)).state is State.PASSED


async def test_a_clock_that_is_set_back_does_not_bury_a_decision(node: VotingNode) -> None:
    await node.decide(PET)
    vote = await node.propose_now({"plastic-pet": ("0.30", "0.25")})
    node.clock.advance(HOUR_MS)
    await node.tick()
    await node.result(vote.vote_id, 60, 40)
    node.clock.advance(-HOUR_MS - 10_000)
    decided = await node.certify(vote.vote_id)
    node.clock.advance(HOUR_MS)
    assert decided.effective_from_ms is not None
    assert node.value("plastic-pet") == 2500


async def test_everything_that_happens_to_a_vote_is_in_the_audit_log(node: VotingNode) -> None:
    await node.decide(PET)
    assert await node.audited() == [
        "signals_begun",
        "vote_proposed",
        "vote_opened",
        "vote_closed",
        "vote_counted",
        "signals_issued",
        "vote_passed",
    ]
    async with node.database.snapshot() as reader:
        assert (await AuditLog(node.clock).verify(reader)).first_break is None


async def test_ballots_must_be_allowed(tmp_path: Path) -> None:
    async with voting_node(tmp_path, ballots=False) as node:
        stated = proposal(START_MS, START_MS + HOUR_MS, PET, method="ballots")
        assert (await refusal_of(node.propose(stated), Forbidden)).reason == "ballots_off"


@pytest.mark.parametrize("seed", range(4))
async def test_no_sequence_of_proposals_moves_a_category_by_more_than_a_tenth_in_a_month(
    tmp_path: Path, seed: int
) -> None:
    """Twenty-five sequences each, against what is known of §6.2 alone: the values as they are published."""
    chance = random.Random(seed)
    categories = ["plastic-pet", "organic-food", "glass-clear", "default"]
    for sequence in range(25):
        directory = tmp_path / str(sequence)
        directory.mkdir()
        start_ms = START_MS + chance.randrange(28) * DAY_MS
        async with voting_node(directory, start_ms) as node:
            starts: dict[int, dict[str, int]] = {}
            for _ in range(14):
                await _random_vote(node, chance, chance.choice(categories))
                node.clock.advance(chance.choice([0, HOUR_MS, 3 * DAY_MS, 12 * DAY_MS]))
            rows = await node.database.all("SELECT * FROM own_signal_configuration ORDER BY valid_from_ms")
            moments = sorted({row["valid_from_ms"] for row in rows} | {row["valid_from_ms"] - 1 for row in rows[1:]})
            for moment_ms in moments:
                month_ms = max(month_of(moment_ms)[0], rows[0]["valid_from_ms"])
                starts.setdefault(month_ms, _values_at(node, month_ms))
                for category, value in _values_at(node, moment_ms).items():
                    assert abs(value - starts[month_ms][category]) <= 1000
            assert len(rows) > 1


def _values_at(node: VotingNode, moment_ms: int) -> dict[str, int]:
    signals = node.signals.published_at(node.database.points, moment_ms)["signals"]
    return {category: int(signals.get(category, signals["default"]) * 10_000) for category in SIGNAL_KEYS}


async def _random_vote(node: VotingNode, chance: random.Random, category: str) -> None:
    current = node.value(category)
    proposed = max(0, min(10_000, current + chance.choice([-1000, -700, 300, 600, 1000])))
    now_ms = node.clock.now_ms()
    closes_ms = now_ms + chance.choice([1, 24, 24 * 20]) * HOUR_MS
    change = {category: (str(Decimal(current) / 10_000), str(Decimal(proposed) / 10_000))}
    try:
        vote = await node.propose(proposal(now_ms, closes_ms, change))
        await node.tick()
        if chance.random() < 0.8:
            node.clock.set_wall(closes_ms + chance.choice([0, DAY_MS, 9 * DAY_MS]))
        await node.tick()
        await node.result(vote.vote_id, 60, chance.choice([10, 40]))
        await node.certify(vote.vote_id)
    except Refusal as refusal:
        if refusal.reason not in {"category_undecided", "no_change", "wrong_state", "period_limit"}:
            raise
