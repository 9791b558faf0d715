"""Webhooks at work: in order, each for itself, again and again, and not where they must not go."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from loopd.events.service import EventKind
from loopd.events.webhook_rules import DisabledReason
from loopd.net.dial_guard import DialGuard
from loopd.net.http_client import DialError, DialFailure, PeerClient
from loopd.protocol.limits import WEBHOOK_FORMER_SECRET_MS
from tests.webhook_support import ENDPOINT, PATIENCE, Received, WebhookNode, webhook_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[WebhookNode]:
    async with webhook_node(tmp_path) as opened:
        yield opened


async def test_what_happens_from_then_on_is_told_in_order_and_signed(node: WebhookNode) -> None:
    await node.happen("before")
    made = await node.add()
    await node.happen("A", "B")
    await node.happen("C")
    received = await node.world.count(3)
    assert [each.subject for each in received] == ["A", "B", "C"]
    assert [each.headers["webhook-id"] for each in received] == ["event_2", "event_3", "event_4"]
    verifier = Verifier(made.secret)
    for each in received:
        # The node's clock is the test's; the library's is the machine's.
        signature = verifier.sign(each.headers["webhook-id"], _moment(each), each.body.decode())
        assert each.headers["webhook-signature"] == signature


def _moment(received: Received) -> datetime:
    return datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)


async def test_only_the_kinds_that_were_asked_for_are_told(node: WebhookNode) -> None:
    await node.add(ENDPOINT, "bid.*", "material.registered")
    await node.happen("no")
    await node.happen("bid", kind=EventKind.BID_TOLD)
    await node.happen("yes", kind=EventKind.MATERIAL_REGISTERED)
    assert [each.subject for each in await node.world.count(2)] == ["bid", "yes"]


async def test_a_failure_is_tried_again_and_holds_back_what_follows(node: WebhookNode) -> None:
    unreachable = DialError(DialFailure.CONNECT, "hooks.example:443: no connection")
    node.world.answers[ENDPOINT] = [500, unreachable]
    number = (await node.add()).webhook.number
    await node.happen("A", "B")
    await node.until(number, 1)
    assert node.state(number).standing.last_error == "answered 500"
    node.later(number)
    await node.until(number, 2)
    assert node.state(number).standing.last_error == "hooks.example:443: no connection"
    node.later(number)
    received = await node.world.count(4)
    assert [each.headers["webhook-id"] for each in received] == ["event_1", "event_1", "event_1", "event_2"]
    await node.settled(number)
    assert node.state(number).standing.failures == 0


async def test_a_restart_forgets_neither_the_place_nor_the_wait(node: WebhookNode) -> None:
    node.world.answers[ENDPOINT] = [204, 503]
    node.world.headers["Retry-After"] = "30"
    number = (await node.add()).webhook.number
    await node.happen("A", "B", "C")
    await node.until(number, 1)
    await node.restart()
    assert node.state(number).standing.next_attempt_at_ms == node.clock.now_ms() + 30_000
    node.later(number, 29_999)
    await node.restart()
    assert len(node.world.received) == 2
    node.later(number, 1)
    assert [each.subject for each in await node.world.count(4)] == ["A", "B", "B", "C"]


async def test_what_was_under_way_when_the_node_stopped_is_sent_again_under_the_same_id(node: WebhookNode) -> None:
    await node.add()
    node.world.silent.add(ENDPOINT)
    await node.happen("A")
    await node.world.count(1)
    node.world.silent.clear()
    await node.restart()
    first, second = await node.world.count(2)
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


async def test_a_dead_endpoint_holds_up_no_other(node: WebhookNode) -> None:
    node.world.silent.add("https://silent.example/")
    node.world.always["https://broken.example/"] = 500
    for url in ("https://silent.example/", "https://broken.example/", ENDPOINT):
        await node.add(url)
    await node.happen(*(f"MAT-{number}" for number in range(120)))
    assert len(await node.world.count(120)) == 120
    assert len(node.world.to("https://silent.example/")) == 1


async def test_an_endpoint_that_is_gone_is_told_nothing_more_until_the_operator_says_so(node: WebhookNode) -> None:
    node.world.answers[ENDPOINT] = [410]
    number = (await node.add()).webhook.number
    await node.happen("A")
    await node.until(number, 1)
    state = node.state(number)
    assert (state.standing.disabled, state.disabled_at_ms) == (DisabledReason.GONE, node.clock.now_ms())
    await node.happen("B")
    await node.restart()
    node.later(number)
    await node.database.write(lambda tx: node.webhooks.enable(tx, number))
    assert [each.subject for each in await node.world.count(3)] == ["A", "A", "B"]
    assert await node.audited() == ["webhook_added", "webhook_disabled", "webhook_enabled"]


async def test_an_endpoint_that_takes_nothing_for_too_long_is_given_up(node: WebhookNode) -> None:
    node.world.always[ENDPOINT] = 500
    number = (await node.add()).webhook.number
    await node.happen("A")
    for failures in (1, 2, 3):
        await node.until(number, failures)
        node.later(number, 50_000)
    await node.until(number, 99)
    standing = node.state(number).standing
    assert (standing.disabled, standing.failures) == (DisabledReason.GAVE_UP, 3)


async def test_who_begins_again_while_an_attempt_fails_begins_with_patience(node: WebhookNode) -> None:
    number = (await node.add()).webhook.number
    node.world.always[ENDPOINT] = 500
    await node.happen("A")
    await node.until(number, 1)
    node.clock.advance(PATIENCE.give_up_after_ms)
    await node.database.write(lambda tx: node.webhooks.enable(tx, number))
    await node.until(number, 1)
    assert node.state(number).standing.disabled is None


async def test_an_endpoint_is_told_of_events_that_are_gone(node: WebhookNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopd.events.service.EVENTS_KEPT_PER_KIND_MAX", 2)
    node.world.answers[ENDPOINT] = [500]
    number = (await node.add()).webhook.number
    await node.happen("A")
    await node.until(number, 1)
    await node.happen("B", "C", "D")
    await node.log.prune(node.database)
    node.later(number)
    received = await node.world.count(4)
    assert [each.subject for each in received] == ["A", "events.gap", "C", "D"]
    assert json.loads(received[1].body)["data"] == {"after": 0, "through": 2}
    await node.settled(number)
    await node.restart()
    await node.happen("E")
    assert [each.subject for each in await node.world.count(5)][4] == "E"


async def test_a_webhook_of_another_life_of_the_node_goes_on_with_what_happens(node: WebhookNode) -> None:
    number = (await node.add()).webhook.number
    await node.database.write(lambda tx: tx.execute("UPDATE webhook SET cursor = 900") and None)
    await node.restart()
    async with asyncio.timeout(20):
        while node.state(number).cursor == 900:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await node.happen("A")
    assert [each.subject for each in await node.world.count(1)] == ["A"]


async def test_after_a_new_secret_both_sign_for_a_day(node: WebhookNode) -> None:
    made = await node.add()
    number = made.webhook.number
    renewed = await node.database.write(lambda tx: node.webhooks.rotate(tx, number))
    await node.happen("A")
    await node.world.count(1)
    await node.settled(number)
    node.clock.advance(WEBHOOK_FORMER_SECRET_MS)
    await node.happen("B")
    during, after = await node.world.count(2)
    for received, secrets in ((during, [renewed.secret, made.secret]), (after, [renewed.secret])):
        parts = [
            Verifier(secret).sign(received.headers["webhook-id"], _moment(received), received.body.decode())
            for secret in secrets
        ]
        assert received.headers["webhook-signature"] == " ".join(parts)


async def test_a_removed_webhook_is_told_nothing_more(node: WebhookNode) -> None:
    number = (await node.add()).webhook.number
    other = (await node.add("https://other.example/")).webhook.number
    await node.database.write(lambda tx: node.webhooks.remove(tx, number))
    await node.happen("A")
    await node.settled(other)
    assert node.world.to(ENDPOINT) == []
    assert await node.audited() == ["webhook_added", "webhook_added", "webhook_removed"]


async def test_no_secret_is_written_into_the_audit_log_or_a_text(node: WebhookNode) -> None:
    made = await node.add("https://hooks.example/path-with-token")
    renewed = await node.database.write(lambda tx: node.webhooks.rotate(tx, made.webhook.number))
    rows = await node.database.all("SELECT payload FROM audit_entry")
    told = b"".join(row["payload"] for row in rows).decode() + repr(made) + repr(renewed)
    for secret in (made.secret, renewed.secret):
        assert secret not in told
        assert secret.removeprefix("whsec_") not in told
    assert "path-with-token" not in b"".join(row["payload"] for row in rows).decode()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:9/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]:9/",
        "https://[::ffff:10.0.0.1]/",
        "https://192.168.1.1/",
        "https://2130706433/",
        "https://localhost:9/",
        "http://192.0.2.1/",
    ],
)
async def test_a_private_address_is_never_called(node: WebhookNode, url: str) -> None:
    client = PeerClient(DialGuard((), open_all=False), _tls(), node.clock)
    try:
        with pytest.raises(DialError) as refused:
            await client.request("POST", url, headers={}, body=b"{}", trusted=False, timeout_s=5, max_answer_bytes=100)
    finally:
        await client.close()
    assert refused.value.kind in (DialFailure.REFUSED_ADDRESS, DialFailure.PROTOCOL)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
