"""Events of real nodes: nothing lost, nothing twice, whatever breaks."""

import json
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.integration.test_registration_daemon_kill import register_until_cut_off
from tests.nodes import LOOPD, RunningNode, eventually, running, together
from tests.stream_client import StreamClient
from tests.webhook_receiver import WebhookReceiver

UNLIMITED = {"LOOPD_API__USER_REQUESTS_PER_MINUTE": "0", "LOOPD_DATABASE__SYNCHRONOUS": "NORMAL"}
RETRIES = {"LOOPD_WEBHOOKS__FIRST_RETRY_S": "0.1"}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    made = RunningNode.init(tmp_path_factory.mktemp("events"), "a", **UNLIMITED, **RETRIES)
    with running(made):
        yield made


@pytest.fixture
def node(city: RunningNode) -> RunningNode:
    """One node for all tests; some of them end it."""
    if not city.runs:
        city.start()
    return city


def stored(node: RunningNode, sql: str) -> list[str]:
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return [str(row[0]) for row in connection.execute(sql)]


def register_and_kill(node: RunningNode, alive_s: float) -> set[str]:
    """Let clients register until the node is killed; the ids that were answered."""
    token = node.token("material:write")
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(register_until_cut_off, node, token) for _ in range(4)]
        time.sleep(alive_s)
        node.kill9()
        return {document["id"] for client in clients for document in client.result()}


def test_a_client_that_goes_on_misses_nothing_and_meets_nothing_twice_while_the_node_is_killed(
    node: RunningNode,
) -> None:
    client = StreamClient(node, break_after=lambda count: count % 37 == 0)
    answered: set[str] = set()
    before = int(stored(node, "SELECT coalesce(max(id), 0) FROM event")[0])
    known = set(stored(node, "SELECT subject_id FROM record"))
    with client.following():
        for alive_s in (0.3, 0.4):
            answered |= register_and_kill(node, alive_s)
            node.start()
        last = node.register()
        eventually(lambda: last in client.subjects(), "the stream told of the last registration")
    ids = [event["id"] for event in client.events]
    assert ids == sorted(set(ids))
    assert [str(event_id) for event_id in ids] == stored(node, f"SELECT id FROM event WHERE id > {before} ORDER BY id")
    registered = client.subjects()
    assert set(registered) == set(stored(node, "SELECT subject_id FROM record")) - known
    assert len(registered) == len(set(registered))
    assert answered <= set(registered)
    assert client.connections > 2


def test_several_clients_get_a_burst_in_one_order(node: RunningNode) -> None:
    clients = [StreamClient(node, "?kind=material.*,product.*") for _ in range(4)]
    with ExitStack() as following:
        for client in clients:
            following.enter_context(client.following())
        made = [name for names in together([lambda: [node.register() for _ in range(60)]] * 4) for name in names]
        for client in clients:
            eventually(lambda client=client: len(client.events) >= len(made), "every client was told of all")
    assert sorted(clients[0].subjects()) == sorted(made)
    assert all(client.events == clients[0].events for client in clients)


def test_everybody_sees_a_part_and_an_operator_all(node: RunningNode) -> None:
    material = node.register()
    assert node.get("/api/v1/events?limit=1").json()["results"][0]["subject"] == material
    assert node.get("/api/v1/events?kind=peer.*").status == 403
    assert node.admin("GET", "/api/v1/events?kind=peer.*").status == 200
    assert node.request("GET", "/api/v1/events?kind=peer.*", scope="admin").status == 200


def test_who_follows_is_told_that_the_node_stops(node: RunningNode) -> None:
    before = node.get("/api/v1/events?limit=1").json()["results"]
    after = str(before[0]["id"] if before else 0)
    command = [*LOOPD, "events", str(node.root), "--follow", "--json", "--after", after, "--kind", "material.*"]
    first = node.register()
    client = StreamClient(node)
    with client.following(), subprocess.Popen(command, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["subject"] == first
        second = node.register()
        assert json.loads(following.stdout.readline())["subject"] == second
        node.signal(signal.SIGTERM)
        assert following.wait(30) == 0
        assert node.wait() == 0
        eventually(lambda: client.words, "the stream said that it ends")
    assert client.words == [("end", {"reason": "draining"})]


def test_a_webhook_gets_everything_in_order_over_failures_and_a_kill(node: RunningNode) -> None:
    with WebhookReceiver().serving() as receiver:
        made = node.cli("webhook", "add", receiver.url, "--kind", "material.*", "--json")
        assert made.status == 0, made.err
        receiver.secret = json.loads(made.out)["secret"]
        names = [node.register() for _ in range(3)]
        eventually(lambda: receiver.subjects == names, "the receiver took the first events")
        receiver.status = 500
        names += [node.register() for _ in range(3)]
        eventually(lambda: receiver.refused >= 2, "the receiver was tried again")
        node.kill9()
        receiver.status = 204
        node.start()
        names.append(node.register())
        eventually(lambda: receiver.subjects == names, "the receiver took the rest, in order")
        renewed = node.admin("POST", "/webhooks/1/rotate").json()["secret"]
        names.append(node.register())
        eventually(lambda: receiver.subjects == names, "the former secret still signs")
        receiver.secret, former = renewed, receiver.secret
        names.append(node.register())
        eventually(lambda: receiver.subjects == names, "the new secret signs")
        receiver.status = 410
        node.register()
        eventually(lambda: node.admin("GET", "/webhooks/1").json()["status"] == "gone", "the webhook is disabled")
    told = node.log_text() + node.admin("GET", "/webhooks").body.decode()
    for secret in (former, renewed):
        assert secret.removeprefix("whsec_") not in told


def test_a_webhook_reaches_no_private_address_and_no_plain_http(tmp_path: Path) -> None:
    node = RunningNode.init(tmp_path, "a", development=False, **UNLIMITED)
    with running(node), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        plain = node.admin("POST", "/webhooks", {"url": f"http://127.0.0.1:{port}/"})
        assert (plain.status, plain.reason) == (400, "bad_url")
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            made = node.admin("POST", "/webhooks", {"url": f"https://{host}:{port}/"})
            assert made.status == 201, made.body
            outcome = node.admin("POST", f"/webhooks/{made.json()['id']}/test").json()
            assert (outcome["delivered"], outcome["status"]) == (False, None)
            assert "does not call" in outcome["error"]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
