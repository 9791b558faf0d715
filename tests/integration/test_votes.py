"""Votes on running nodes: a signal changes, the cost follows, and a window closes while the node is down."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.signals.ballots import credential_hash
from tests.nodes import CONTEXT, LOOPD, RunningNode, eventually, together

SIGNALS = {"LOOPD_SIGNALS__VALUES": '{"organic-food": 0.4, "default": 0.05}', "LOOPD_SIGNALS__ELIGIBLE": "100"}
RESULT = {"total_voted": 100, "votes_for": 60, "votes_against": 40, "attestation": "Council minutes"}
VOTES = "/api/v1/signals/votes"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    made = RunningNode.init(tmp_path, "munich", **SIGNALS, LOOPD_SIGNALS__BALLOTS="true", LOOPD_SIGNALS__APPEALS_S="0")
    try:
        made.start()
        yield made
    finally:
        made.kill9()


def propose(node: RunningNode, opens_ms: int, closes_ms: int, **extras: Any) -> str:
    stated = {
        "@context": CONTEXT,
        "@type": "SignalProposal",
        "node": node.node_id,
        "changes": [{"category": "organic-food", "current": 0.4, "proposed": 0.5}],
        "voting_opens": format_timestamp(opens_ms),
        "voting_closes": format_timestamp(closes_ms),
        **extras,
    }
    answer = node.post("/api/v1/signals/proposals", stated, scope="admin")
    assert answer.status == 201, answer.body
    return str(answer.json()["vote_id"])


def closing_ms(seconds: float) -> int:
    """A moment so many seconds from now that is not at second 59, which would be included."""
    moment_ms = now_ms() + int(seconds * 1000)
    return moment_ms + 1000 if moment_ms // 1000 % 60 == 59 else moment_ms


def state(node: RunningNode, vote_id: str) -> str:
    return str(node.get(f"/api/v1/signals/proposals/{vote_id}").json()["status"])


def reaches(node: RunningNode, vote_id: str, expected: str) -> None:
    eventually(lambda: state(node, vote_id) == expected, f"{vote_id} is {expected}")


def signal(node: RunningNode) -> float:
    return float(node.get("/api/v1/signals").json()["signals"]["organic-food"])


def test_a_vote_is_proposed_attested_certified_and_checked_by_a_stranger(node: RunningNode, tmp_path: Path) -> None:
    vote_id = propose(node, now_ms(), closing_ms(1.5))
    reaches(node, vote_id, "open")
    reaches(node, vote_id, "closed")
    assert node.post(f"{VOTES}/{vote_id}/result", RESULT, scope="admin").status == 200
    assert signal(node) == 0.4
    assert node.post(f"{VOTES}/{vote_id}/certify", scope="admin").status == 200
    changed = node.get("/api/v1/events?kind=signals.*&limit=1").json()["results"]
    assert [event["subject"] for event in changed] == [node.node_id]
    assert signal(node) == 0.5
    file = tmp_path / "vote.json"
    file.write_bytes(node.get(f"{VOTES}/{vote_id}/record").body)
    checked = subprocess.run([*LOOPD, "vote", "verify", str(file), "--json"], capture_output=True, check=True)
    verdict = json.loads(checked.stdout)
    assert (verdict["holds"], verdict["outcome"], verdict["node"]) == (True, "passed", "munich.loop")
    # It is still so after a crash.
    node.kill9()
    node.start()
    assert signal(node) == 0.5
    assert node.get(f"{VOTES}/{vote_id}/record").json()["record"] == json.loads(file.read_bytes())["record"]


def test_a_window_that_closed_while_the_node_was_down_is_closed_at_its_time(node: RunningNode) -> None:
    opens_ms = now_ms() + 1500
    vote_id = propose(node, opens_ms, closes_ms := closing_ms(4), method="ballots")
    credentials = [f"CREDENTIAL-{number}" for number in range(4)]
    entries = [
        {"voter": f"{number:064x}", "credential": credential_hash(vote_id, credential).hex()}
        for number, credential in enumerate(credentials)
    ]
    assert node.post(f"{VOTES}/{vote_id}/roll", {"entries": entries}, scope="admin").json() == {"eligible": 4}
    reaches(node, vote_id, "open")
    ballots = [{"credential": credential, "choice": "for"} for credential in credentials[:3]]
    receipts = together(
        [lambda ballot=ballot: node.post(f"{VOTES}/{vote_id}/ballots", ballot, "") for ballot in ballots]
    )
    assert {receipt.status for receipt in receipts} == {201}
    node.kill9()
    eventually(lambda: now_ms() >= closes_ms, "the window's end")
    node.start()
    # What was acknowledged is counted; the node was down when it closed.
    reaches(node, vote_id, "counted")
    late = node.post(f"{VOTES}/{vote_id}/ballots", {"credential": credentials[3], "choice": "against"}, "")
    assert (late.status, late.reason) == (409, "window_closed")
    assert node.post(f"{VOTES}/{vote_id}/certify", scope="admin").status == 200
    record = node.get(f"{VOTES}/{vote_id}/record").json()["record"]
    assert parse_timestamp(record["closed_at"]) == closes_ms
    assert record["vote"]["results"]["total_voted"] == len(record["ballots"]) == 3
    assert not any(credential in node.log_text() for credential in credentials)
    assert "/ballots" not in node.log_text()


def test_a_peer_uses_the_new_signal_in_its_cost(tmp_path: Path) -> None:
    # Vienna would fetch Munich's signals again after five minutes only: it is told.
    munich = RunningNode.init(tmp_path, "munich", lat=48.1351, lon=11.582, **SIGNALS)
    vienna = RunningNode.init(tmp_path, "vienna", lat=48.2082, lon=16.3738)
    try:
        together([munich.start, vienna.start])
        vienna.add_peer(munich)
        eventually(lambda: munich.standing("vienna.loop") == "peer", "they are peers")
        grain = munich.register()
        vienna.hears(grain, available=True)

        def export_of_a_bid() -> float:
            bid = vienna.admin("POST", "/offers", {"material": grain, "base_price": 100})
            assert bid.status in (201, 202), bid.body
            return float(bid.json()["breakdown"]["export"])

        eventually(lambda: vienna.admin("GET", "/signals/peers").json()["peers"], "Vienna knows Munich's signals")
        assert export_of_a_bid() == 40
        vote_id = propose(munich, now_ms(), closing_ms(1.5))
        reaches(munich, vote_id, "closed")
        assert munich.post(f"{VOTES}/{vote_id}/result", RESULT, scope="admin").status == 200
        assert munich.post(f"{VOTES}/{vote_id}/certify", scope="admin").status == 200

        def known() -> bool:
            (entry,) = vienna.admin("GET", "/signals/peers").json()["peers"]
            return bool(entry["configuration"]["signals"]["organic-food"] == 0.5 and not entry["remarks"])

        eventually(known, "Vienna knows what Munich decided")
        assert export_of_a_bid() == 50
    finally:
        munich.kill9()
        vienna.kill9()
