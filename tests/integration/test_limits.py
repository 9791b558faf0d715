"""§10.4's limits on a node as a city runs it, and who is counted."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.nodes import Answer, RunningNode, running, send
from tests.peer import HANDSHAKE, FakePeer

LIST = "/api/v1/material?limit=1"
PER_MINUTE = 100
FEW = 5


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    """A node that does not run yet."""
    return RunningNode.init(tmp_path, "a", development=False)


def ask(node: RunningNode, times: int, forwarded_for: str = "") -> list[Answer]:
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    with closing(node.connection()) as connection:
        return [send(connection, "GET", LIST, headers=headers) for _ in range(times)]


def is_limited(answer: Answer) -> bool:
    if answer.status == 200:
        return False
    assert (answer.status, answer.reason) == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    return True


def test_a_client_is_limited_whatever_it_says_of_itself(node: RunningNode) -> None:
    with running(node):
        assert [answer.status for answer in ask(node, PER_MINUTE)] == [200] * PER_MINUTE
        assert is_limited(ask(node, 1)[0])
        assert is_limited(ask(node, 1, "203.0.113.7")[0])
        # A new connection is the same client; whether the node serves may always be asked.
        assert is_limited(node.get("/api/v1/signals"))
        assert node.get("/health").status == 200
        assert node.status()["node"] == "a.loop"


def test_behind_a_trusted_proxy_each_client_counts_for_itself(node: RunningNode) -> None:
    node.environment["LOOPD_API__TRUSTED_PROXIES"] = '["127.0.0.0/8"]'
    node.environment["LOOPD_API__USER_REQUESTS_PER_MINUTE"] = str(FEW)
    with running(node):
        assert not any(map(is_limited, ask(node, FEW, "203.0.113.7")))
        assert is_limited(ask(node, 1, "203.0.113.7")[0])
        assert not is_limited(ask(node, 1, "203.0.113.8")[0])
        # What stands left of the proxy's own entry the client wrote itself.
        assert is_limited(ask(node, 1, "198.51.100.1, 203.0.113.7")[0])
        assert is_limited(ask(node, 1, "203.0.113.7, 127.0.0.9")[0])


def test_node_requests_have_a_limit_of_their_own(node: RunningNode) -> None:
    node.environment["LOOPD_API__NODE_REQUESTS_PER_MINUTE"] = str(FEW)
    stranger = FakePeer("stranger.loop", 48.0, 11.0)

    def shake() -> Answer:
        body = stranger.handshake()
        return node.request("POST", HANDSHAKE, body, stranger.headers(HANDSHAKE, body, "a.loop"))

    with running(node):
        assert [shake().status for _ in range(FEW)] == [202] * FEW
        refused = shake()
        assert (refused.status, refused.reason) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) >= 1
        assert node.get(LIST).status == 200
