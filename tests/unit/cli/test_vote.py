import csv
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from loopd.directory import NodeDirectory
from loopd.protocol.documents import dump_json
from loopd.signals.ballots import credential_hash, voter_hash
from tests.fake_daemon import FakeDaemon
from tests.unit.cli.conftest import Run
from tests.voting_support import KEY, voting_node

VOTES = "/api/v1/signals/votes"
PROPOSALS = "/api/v1/signals/proposals"


def test_a_proposal_is_sent_with_exact_numbers(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers[f"POST {PROPOSALS}"] = (201, {"vote_id": "2026-06-vote-1", "status": "scheduled"})
    window = ["--opens", "2026-06-01T00:00:00Z", "--closes", "2026-06-07T23:59:59Z"]
    changes = ["--change", "plastic-pet=0.20:0.30", "--change", "default=0:0.05"]
    result = run("vote", "propose", node.root, *changes, *window, "--eligible", "150000", "--reason", "Keep it")
    assert result.stdout == "vote\t2026-06-vote-1\nstate\tscheduled\n"
    ((_, _, body),) = daemon.requests
    assert body["changes"] == [
        {"category": "plastic-pet", "current": 0.2, "proposed": 0.3, "reason": "Keep it"},
        {"category": "default", "current": 0, "proposed": 0.05, "reason": "Keep it"},
    ]
    assert (body["node"], body["method"], body["eligible"]) == ("munich.loop", "attested", 150_000)
    assert (body["voting_opens"], body["voting_closes"]) == ("2026-06-01T00:00:00Z", "2026-06-07T23:59:59Z")
    assert "vote_id" not in body


@pytest.mark.parametrize("change", ["plastic-pet", "plastic-pet=0.2", "=0.2:0.3", "plastic-pet=0,2:0,3", "x=:"])
def test_a_change_that_is_none_is_misuse(run: Run, node: NodeDirectory, change: str) -> None:
    assert run("vote", "propose", node.root, "--change", change, "--closes", "2026-06-07T23:59:59Z").exit_code == 2


def test_votes_are_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    entry = {
        "vote_id": "v",
        "status": "open",
        "method": "attested",
        "voting_opens": "2026-06-01T00:00:00Z",
        "voting_closes": "2026-06-07T23:59:59Z",
        "changes": [{"category": "plastic-pet", "current": 0.2, "proposed": 0.3}],
    }
    daemon.answers[f"GET {PROPOSALS}"] = (200, {"results": [entry]})
    line = run("vote", "list", node.root).stdout.splitlines()[1]
    expected = "v\topen\tattested\t2026-06-01T00:00:00Z\t2026-06-07T23:59:59Z\tplastic-pet 0.2 to 0.3\t-"
    assert line == expected
    assert json.loads(run("vote", "list", node.root, "--json").stdout) == {"results": [entry]}


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["withdraw", "v"], f"{PROPOSALS}/v/withdraw", None),
        (["certify", "v/w"], f"{VOTES}/v%2Fw/certify", None),
        (["annul", "v", "The roll was wrong"], f"{VOTES}/v/annul", {"reason": "The roll was wrong"}),
        (
            ["result", "v", "--voted", "3", "--for", "2", "--against", "1", "--attestation", "Minutes"],
            f"{VOTES}/v/result",
            {"total_voted": 3, "votes_for": 2, "votes_against": 1, "attestation": "Minutes"},
        ),
    ],
)
def test_what_officers_do(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, arguments: list[str], path: str, body: Any
) -> None:
    answer = {"vote_id": "v", "state": "done", "results": {"votes_for": 2, "status": "pending"}}
    daemon.answers[f"POST {path.replace('%2F', '/')}"] = (200, answer)
    result = run("vote", arguments[0], node.root, *arguments[1:])
    assert daemon.requests == [("POST", path, body)]
    assert result.stdout == "vote\tv\nstate\tdone\nvotes_for\t2\n"


def test_a_roll_gives_the_node_hashes_alone(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopd.cli.vote._ROLL_PART", 2)
    daemon.answers[f"POST {VOTES}/v/roll"] = (200, {"eligible": 3})
    voters, credentials = tmp_path / "voters", tmp_path / "credentials.csv"
    voters.write_text("Erika, Hauptstr. 1\nMax\n\nMax\nJane\n")
    assert run("vote", "open-roll", node.root, "v", voters, credentials).stdout == "eligible\t3\n"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    with credentials.open(newline="") as file:
        (_, salt), *printed = csv.reader(file)
    assert [name for name, _ in printed] == ["Erika, Hauptstr. 1", "Max", "Jane"]
    sent = [entry for _, _, body in daemon.requests for entry in body["entries"]]
    assert [len(body["entries"]) for _, _, body in daemon.requests] == [2, 1]
    expected = [
        {
            "voter": voter_hash("v", bytes.fromhex(salt), name).hex(),
            "credential": credential_hash("v", credential).hex(),
        }
        for name, credential in printed
    ]
    assert sent == sorted(expected, key=lambda entry: entry["credential"])
    # A file of credentials is never overwritten.
    assert run("vote", "open-roll", node.root, "v", voters, credentials).exit_code == 1
    voters.write_text("\n")
    assert run("vote", "open-roll", node.root, "v", voters, tmp_path / "other").exit_code == 1


async def _record(directory: Path) -> bytes:
    async with voting_node(directory) as node:
        vote = await node.decide({"plastic-pet": ("0.20", "0.30")})
        return dump_json(node.voting.record(node.database.points, vote.vote_id))


async def test_a_record_is_verified_without_a_node(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "vote.json"
    file.write_bytes(await _record(tmp_path))
    result = run("vote", "verify", file, "--key", KEY.public.fingerprint)
    assert result.exit_code == 0, result.stderr
    assert "outcome\tpassed\nkind\tattested, not verifiable" in result.stdout
    assert "the outcome\tholds\n" in result.stdout
    assert run("vote", "verify", file, "--key", "00").exit_code == 1
    file.write_bytes(file.read_bytes().replace(b'"votes_for":60', b'"votes_for":59'))
    result = run("vote", "verify", file, "--json")
    assert result.exit_code == 1
    assert "the node's signature" in json.loads(result.stdout)["problems"]
    file.write_bytes(b"{}")
    assert "[" not in run("vote", "verify", file).stdout
    assert run("vote", "verify", tmp_path / "nowhere").exit_code == 1


def test_a_record_is_exported_into_a_new_file(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.answers[f"GET {VOTES}/v/record"] = (200, '{"record": {"share": 0.10}, "signature": "x"}')
    file = tmp_path / "vote.json"
    assert run("vote", "export", node.root, "v", file).exit_code == 0
    assert json.loads(file.read_bytes()) == {"record": {"share": 0.1}, "signature": "x"}
    assert run("vote", "export", node.root, "v", file).exit_code == 1


def test_peers_and_what_is_odd_about_them(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    remark = {"kind": "jump", "valid_from": "2026-06-01T00:00:00Z", "categories": ["default"]}
    times = {"valid_from": "2026-06-01T00:00:00Z", "valid_until": "2026-07-01T00:00:00Z"}
    known = {"node": "vienna.loop", "configuration": times, "fetched_at": None, "stale": True, "remarks": [remark]}
    unknown = {"node": "berlin.loop", "configuration": None, "fetched_at": None, "stale": True, "remarks": []}
    daemon.answers["GET /admin/v1/signals/peers"] = (200, {"peers": [known, unknown]})
    lines = run("vote", "peers", node.root).stdout.splitlines()
    assert lines[1].endswith("\tyes\tjump default at 2026-06-01T00:00:00Z")
    assert lines[2] == "berlin.loop\t-\t-\t-\tyes\t-"
