"""`loopd mirror`: what it asks the daemon, and what it prints."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
TRANSFER = {
    "node": "munich.loop",
    "entity": "transfer",
    "id": "TRANSFER-1",
    "version": 2,
    "status": "in_transit",
    "updated_at": "2026-01-01T00:00:00Z",
    "received_at": "2026-01-01T00:00:01Z",
    "document": {},
    "request": None,
}
WISH = {"id": "ASK-01", "status": "completed", "state": "queued", "answer": None}
REFUSED = {**TRANSFER, "id": "TRANSFER-2", "request": {**WISH, "state": "refused", "answer": "terminal"}}
WAITING = {**TRANSFER, "id": "TRANSFER-3", "request": WISH}
LIST = "GET /api/v1/mirror"


def test_deals_are_listed_with_what_was_asked(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers[LIST] = (200, {"results": [TRANSFER, REFUSED, WAITING], "next": None})
    result = run("mirror", "list", node.root)
    assert result.exit_code == 0
    _, plain, refused, waiting = (line.split("\t") for line in result.stdout.splitlines())
    assert plain[:5] == ["munich.loop", "transfer", "TRANSFER-1", "in_transit", "2"]
    assert (refused[-2:], waiting[-2:]) == (["completed", "terminal"], ["completed", "queued"])


def test_deals_are_chosen_and_printed_as_json(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    page = {"results": [TRANSFER], "next": None}
    daemon.answers[LIST] = (200, page)
    result = run("mirror", "list", node.root, "--limit", "5", "--entity", "match", "--node", "munich.loop", "--json")
    assert json.loads(result.stdout) == page
    assert daemon.requests == [("GET", "/api/v1/mirror?limit=5&entity=match&node=munich.loop", None)]


@pytest.mark.parametrize("reason", [None, "all of it came"])
def test_a_wish_is_sent(run: Run, node: NodeDirectory, daemon: FakeDaemon, reason: str | None) -> None:
    path = "/api/v1/mirror/munich.loop/transfer/TRANSFER-1/status"
    daemon.answers[f"POST {path}"] = (202, WISH)
    options = [] if reason is None else ["--reason", reason]
    result = run("mirror", "ask", node.root, "munich.loop", "transfer", "TRANSFER-1", "completed", *options)
    assert result.stdout == "request\tASK-01\nstatus\tcompleted\nstate\tqueued\n"
    body = {"status": "completed"} if reason is None else {"status": "completed", "reason": reason}
    assert daemon.requests == [("POST", path, body)]
    as_json = run("mirror", "ask", node.root, "munich.loop", "transfer", "TRANSFER-1", "completed", "--json")
    assert json.loads(as_json.stdout) == WISH
