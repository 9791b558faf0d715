"""`loopd events` and `loopd webhook`: what they ask the daemon, and what they print."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from loopd.directory import NodeDirectory
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
EVENT = {
    "id": 7,
    "kind": "material.registered",
    "subject": "MAT-1",
    "at": "2026-01-01T00:00:00Z",
    "data": {"quantity": 2.5},
}
WEBHOOK = {
    "id": 3,
    "url": "https://hooks.example/",
    "kinds": ["bid.*", "match.*"],
    "status": "failing",
    "failures": 2,
    "last_error": "answered 500",
    "last_success_at": None,
    "next_attempt_at": "2026-01-01T00:00:00Z",
    "secret": "whsec_c2VjcmV0",
}
LINE = '7\t2026-01-01T00:00:00Z\tmaterial.registered\tMAT-1\t{"quantity":2.5}\n'


def frame(event: dict[str, object]) -> str:
    return f"id: {event['id']}\ndata: {json.dumps(event)}\n\n"


def end(reason: str) -> str:
    return f'event: end\ndata: {{"reason":"{reason}"}}\n\n'


def test_events_are_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /api/v1/events"] = (200, {"results": [EVENT], "next": None})
    result = run("events", node.root, "--kind", "material.*", "--kind", "bid.told", "--after", "3", "--limit", "5")
    assert (result.exit_code, result.stdout) == (0, f"id\tat\tkind\tsubject\tdata\n{LINE}")
    assert daemon.requests == [("GET", "/api/v1/events?limit=5&kind=material.*,bid.told&after=3", None)]
    assert json.loads(run("events", node.root, "--json").stdout)["results"] == [EVENT]


@pytest.mark.parametrize("as_json", [True, False])
def test_events_are_followed_until_the_node_stops(
    run: Run, node: NodeDirectory, daemon: FakeDaemon, as_json: bool
) -> None:
    gap = 'event: gap\ndata: {"reason":"forgotten","after":1,"through":6}\n\n'
    stream = f": still here\nid: 4\n\n{gap}{frame(EVENT)}{end('draining')}"
    daemon.answers["GET /api/v1/stream"] = (200, stream)
    result = run("events", node.root, "--follow", *(["--json"] if as_json else []))
    assert (result.exit_code, result.stderr) == (0, "loopd: some events are missing (forgotten)\n")
    assert (json.loads(result.stdout) == EVENT) if as_json else (result.stdout == LINE)


def test_a_stream_that_ends_is_gone_on_with_after_its_last_event(
    run: Run, node: NodeDirectory, daemon: FakeDaemon
) -> None:
    answers = iter([frame(EVENT) + end("lifetime"), "id: 9\n\n" + end("too_slow"), end("draining")])

    class Answers(dict[str, tuple[int, object]]):
        def get(self, key: str, default: object = None) -> tuple[int, object]:  # type: ignore[override]
            return 200, next(answers)

    daemon.answers = Answers()
    assert run("events", node.root, "--follow", "--kind", "offer.*").stdout == LINE
    paths = [path for _, path, _ in daemon.requests]
    assert paths == [f"/api/v1/stream?kind=offer.*{rest}" for rest in ("", "&last_event_id=7", "&last_event_id=9")]


def test_a_stream_that_breaks_off_and_one_that_is_refused_are_failures(
    run: Run, node: NodeDirectory, daemon: FakeDaemon
) -> None:
    daemon.answers["GET /api/v1/stream"] = (200, frame(EVENT))
    result = run("events", node.root, "--follow")
    assert (result.exit_code, result.stdout, result.stderr) == (1, LINE, "loopd: the daemon broke off\n")
    error = {"error": {"message": "A kind is one of the allowed.", "details": {"reason": "bad_kind"}}}
    daemon.answers["GET /api/v1/stream"] = (400, error)
    result = run("events", node.root, "--follow", "--kind", "x")
    assert (result.exit_code, result.stderr) == (1, "loopd: A kind is one of the allowed. [bad_kind]\n")


def test_a_webhook_is_added_and_its_secret_printed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /admin/v1/webhooks"] = (201, WEBHOOK)
    result = run("webhook", "add", node.root, "https://hooks.example/", "--kind", "bid.*", "--kind", "match.*")
    assert (result.exit_code, result.stdout) == (0, "webhook\t3\nsecret\twhsec_c2VjcmV0\n")
    run("webhook", "add", node.root, "https://hooks.example/", "--json")
    asked = [{"url": "https://hooks.example/", "kinds": kinds} for kinds in (["bid.*", "match.*"], ["*"])]
    assert daemon.requests == [("POST", "/admin/v1/webhooks", body) for body in asked]


def test_webhooks_are_listed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /admin/v1/webhooks"] = (200, {"webhooks": [WEBHOOK]})
    line = "3\thttps://hooks.example/\tbid.* match.*\tfailing\t2\tanswered 500\t-\t2026-01-01T00:00:00Z\n"
    assert run("webhook", "list", node.root).stdout.splitlines(keepends=True)[1] == line


def test_a_webhook_is_tried(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    outcome = {"message_id": "trial_1", "delivered": True, "status": 204, "error": None}
    daemon.answers["POST /admin/v1/webhooks/3/test"] = (200, outcome)
    result = run("webhook", "test", node.root, 3)
    assert (result.exit_code, result.stdout) == (0, "message\ttrial_1\nstatus\t204\n")
    for told, said in (({"status": 302, "error": None}, "the endpoint answered 302"), ({"error": "no"}, "no")):
        daemon.answers["POST /admin/v1/webhooks/3/test"] = (200, {**outcome, "delivered": False, **told})
        result = run("webhook", "test", node.root, 3)
        assert (result.exit_code, result.stderr) == (1, f"loopd: {said}\n")


def test_a_webhook_is_given_a_new_secret_enabled_and_removed(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["POST /admin/v1/webhooks/3/rotate"] = (200, WEBHOOK)
    daemon.answers["DELETE /admin/v1/webhooks/3"] = (204, "")
    assert run("webhook", "rotate", node.root, 3).stdout == "webhook\t3\nsecret\twhsec_c2VjcmV0\n"
    assert run("webhook", "enable", node.root, 3).exit_code == 0
    assert run("webhook", "remove", node.root, 3).exit_code == 0
    assert [(method, path) for method, path, _ in daemon.requests] == [
        ("POST", "/admin/v1/webhooks/3/rotate"),
        ("POST", "/admin/v1/webhooks/3/enable"),
        ("DELETE", "/admin/v1/webhooks/3"),
    ]
    assert run("webhook", "remove", node.root, 0).exit_code == 2
