import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from loopd.protocol.errors import Unavailable
from loopd.signals.governance import State
from loopd.signals.voting_time import VotingTime
from tests.voting_support import HOUR_MS, VotingNode, proposal, voting_node

PET = {"plastic-pet": ("0.20", "0.30")}


async def _until_open(node: VotingNode, vote_id: str) -> None:
    async with asyncio.timeout(5):
        while node.vote(vote_id).state is not State.OPEN:  # noqa: ASYNC110 - the timer is what is waited for
            await asyncio.sleep(0.005)


async def test_windows_open_by_themselves(tmp_path: Path) -> None:
    async with voting_node(tmp_path) as node:
        now_ms = node.clock.now_ms()
        vote = await node.propose(proposal(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS, PET))
        time = VotingTime(node.voting, node.database, node.clock, tick_s=0.01)
        await time.start()
        assert node.vote(vote.vote_id).state is State.SCHEDULED
        node.clock.advance(HOUR_MS)
        await _until_open(node, vote.vote_id)
        await time.stop()
        await time.stop()


@pytest.mark.parametrize("error", [Unavailable("storage", "no disk"), RuntimeError("a bug")])
async def test_what_fails_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with voting_node(tmp_path) as node:
        now_ms = node.clock.now_ms()
        vote = await node.propose(proposal(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS, PET))
        time = VotingTime(node.voting, node.database, node.clock, tick_s=0.01)
        await time.start()
        tick, failures = node.voting.tick, iter([error])

        def fail_once(*arguments: object) -> None:
            for failure in failures:
                raise failure
            tick(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(node.voting, "tick", fail_once)
        with capture_logs() as lines:
            node.clock.advance(HOUR_MS)
            await _until_open(node, vote.vote_id)
        await time.stop()
    assert [line["event"] for line in lines] == ["votes_not_moved"]
