"""Webhooks as the operator handles them over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from loopd.api.access import Plane
from loopd.api.app import ApiServices, build_app
from loopd.api.docs import ApiIdentity
from loopd.api.tokens import TokenStore
from loopd.api.webhooks import WebhookRoutes
from loopd.net.http_client import DialError, DialFailure
from tests.events_api import UNLIMITED
from tests.webhook_support import ENDPOINT, WebhookNode, webhook_node

PATH = "/admin/v1/webhooks"


class Operator:
    """Calls the admin address of a node that has nothing but webhooks."""

    def __init__(self, session: ClientSession, node: WebhookNode, token: str) -> None:
        self.base = ""
        self.node = node
        self.token = token
        self._session = session

    async def call(self, method: str, path: str = "", body: Any = None, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        async with self._session.request(method, self.base + PATH + path, json=body, headers=headers) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            return answer.status, None if answer.status == 204 else await answer.json()

    async def add(self, **body: Any) -> Any:
        status, made = await self.call("POST", "", {"url": ENDPOINT, **body})
        assert status == 201, made
        return made

    def count(self) -> int:
        return len(self.node.webhooks.every(self.node.database.points))


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with webhook_node(tmp_path) as node, ClientSession() as session:
        tokens = TokenStore(node.database, node.clock)
        made = await node.database.write(lambda tx: tokens.create(tx, ["admin"], 3600, node.clock.now_ms()))
        services = ApiServices(
            settings=UNLIMITED,
            clock=node.clock,
            tokens=tokens,
            identity=ApiIdentity(title="Munich", version="0.1.0", base_url="https://munich.example"),
            schemas={},
        )
        routes = WebhookRoutes(node.webhooks, node.deliveries, node.database).routes()
        app = build_app(routes, Plane.ADMIN_ADDRESS, services)
        client = Operator(session, node, made.text)
        host, port = await app.listen_tcp("127.0.0.1", 0)
        client.base = f"http://{host}:{port}"
        try:
            yield client
        finally:
            await app.close(1.0)
            await tokens.close()


async def test_a_webhook_is_made_and_its_secret_shown_once(operator: Operator) -> None:
    made = await operator.add(kinds=["material.*", "bid.told"])
    assert made.pop("secret").startswith("whsec_")
    assert made == {
        "id": 1,
        "url": ENDPOINT,
        "kinds": ["material.*", "bid.told"],
        "status": "active",
        "cursor": 0,
        "failures": 0,
        "last_error": None,
        "created_at": "2026-09-21T14:13:20Z",
        "last_success_at": None,
        "failing_since": None,
        "next_attempt_at": None,
        "disabled_at": None,
    }
    assert await operator.call("GET") == (200, {"webhooks": [made]})
    assert await operator.call("GET", "/1") == (200, made)


async def test_how_deliveries_go_is_shown(operator: Operator) -> None:
    operator.node.world.answers[ENDPOINT] = [500, 410]
    await operator.add()
    await operator.node.happen("A")
    await operator.node.until(1, 1)
    shown = (await operator.call("GET", "/1"))[1]
    assert (shown["status"], shown["last_error"], shown["failures"]) == ("failing", "answered 500", 1)
    assert shown["failing_since"] == "2026-09-21T14:13:20Z"
    assert shown["next_attempt_at"].startswith("2026-09-21T14:13:2")
    operator.node.later(1)
    await operator.node.until(1, 2)
    shown = (await operator.call("GET", "/1"))[1]
    assert (shown["status"], shown["next_attempt_at"], shown["disabled_at"]) == ("gone", None, "2026-09-21T14:14:20Z")
    status, shown = await operator.call("POST", "/1/enable")
    assert (status, shown["status"], shown["failures"], shown["disabled_at"]) == (200, "active", 0, None)
    assert len(await operator.node.world.count(3)) == 3


async def test_a_secret_is_replaced_and_a_webhook_removed(operator: Operator) -> None:
    made = await operator.add()
    status, renewed = await operator.call("POST", "/1/rotate")
    assert status == 200
    assert renewed["secret"].startswith("whsec_")
    assert renewed["secret"] != made["secret"]
    assert (await operator.call("DELETE", "/1"))[0] == 204
    assert operator.count() == 0


async def test_a_receiver_is_tried(operator: Operator) -> None:
    refused = DialError(DialFailure.REFUSED_ADDRESS, "hooks.example:443: the address is in a network ...")
    operator.node.world.answers[ENDPOINT] = [204, 302, refused]
    await operator.add()
    outcomes = [(await operator.call("POST", "/1/test"))[1] for _ in range(3)]
    assert [(each["delivered"], each["status"]) for each in outcomes] == [(True, 204), (False, 302), (False, None)]
    assert outcomes[2]["error"] == str(refused)
    assert [received.subject for received in operator.node.world.received] == ["webhook.test"] * 3
    assert (await operator.call("GET", "/1"))[1]["failures"] == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"url": "http://hooks.example/"}, "bad_url"),
        ({"url": "https://user:word@hooks.example/"}, "bad_url"),
        ({"url": 7}, "bad_url"),
        ({}, "bad_url"),
        ({"url": ENDPOINT, "kinds": []}, "bad_kind"),
        ({"url": ENDPOINT, "kinds": ["material"]}, "bad_kind"),
        ({"url": ENDPOINT, "kinds": "*"}, "bad_kind"),
        ({"url": ENDPOINT, "kinds": ["*"] * 1_000}, "bad_kind"),
        ({"url": ENDPOINT, "kinds": [None]}, "bad_kind"),
        ({"url": ENDPOINT, "secret": "whsec_mine"}, "schema"),
        (["https://hooks.example/"], "schema"),
    ],
)
async def test_what_makes_no_webhook(operator: Operator, body: Any, reason: str) -> None:
    status, answer = await operator.call("POST", "", body)
    assert (status, answer["error"]["details"]["reason"]) == (400, reason)
    assert operator.count() == 0


async def test_there_are_only_so_many(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopd.events.webhooks.WEBHOOKS_MAX", 2)
    await operator.add()
    await operator.add()
    status, answer = await operator.call("POST", "", {"url": ENDPOINT})
    assert (status, answer["error"]["details"]["reason"]) == (409, "too_many_webhooks")
    assert operator.count() == 2


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/enable"), ("POST", "/test")]
)
@pytest.mark.parametrize("number", ["2", "0", "x", "-1", "9" * 30])
async def test_an_unknown_webhook(operator: Operator, method: str, path: str, number: str) -> None:
    await operator.add()
    status, answer = await operator.call(method, f"/{number}{path}")
    assert (status, answer["error"]["details"]["reason"]) == (404, "unknown_webhook")
    assert operator.count() == 1


async def test_nobody_but_the_operator_comes_near(operator: Operator) -> None:
    await operator.add()
    tokens = TokenStore(operator.node.database, operator.node.clock)
    now_ms = operator.node.clock.now_ms()
    writer = await operator.node.database.write(lambda tx: tokens.create(tx, ["offer:write"], 3600, now_ms))
    for method, path in (("GET", ""), ("GET", "/1"), ("POST", "/1/rotate"), ("DELETE", "/1")):
        for token, expected in (("loopd_no", 401), (writer.text, 403)):
            assert (await operator.call(method, path, token=token))[0] == expected
    assert operator.count() == 1
