import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from loopd.clock import SystemClock
from loopd.net.dial_guard import DialGuard
from loopd.net.http_client import CallbackGate, DialError, DialFailure, PeerAnswer, PeerClient
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import CALLBACK_HOSTS_MAX, CALLBACKS_AT_ONCE_MAX, CALLBACKS_PER_HOST_PER_MINUTE
from tests.local_tls import LocalAuthority, answer, local_server
from tests.support import ManualClock

MakeClient = Callable[..., PeerClient]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_tls(authority: LocalAuthority) -> ssl.SSLContext:
    return authority.server_context("127.0.0.1", "city.example", "localhost")


@pytest.fixture
async def make_client(authority: LocalAuthority) -> AsyncIterator[MakeClient]:
    clients: list[PeerClient] = []

    def make(
        allowed: str = "192.0.2.0/24", *, open_all: bool = False, resolver: AbstractResolver | None = None
    ) -> PeerClient:
        guard = DialGuard([ip_network(allowed)], open_all)
        clients.append(PeerClient(guard, authority.client_context(), SystemClock(), resolver=resolver))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def get(
    client: PeerClient, url: str, *, trusted: bool = True, timeout_s: float = 5, max_answer_bytes: int = 100_000
) -> PeerAnswer:
    return await client.request(
        "GET",
        url,
        headers={},
        body=None,
        trusted=trusted,
        timeout_s=timeout_s,
        max_answer_bytes=max_answer_bytes,
    )


async def test_a_request_is_sent_as_given_and_answered_whole(
    make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    client = make_client()
    async with local_server(server_tls, answer(b'{"status":"accepted"}', "202 Accepted", "Retry-After: 7")) as server:
        received = await client.request(
            "POST",
            server.url("/api/v1/material/a%2Fb?limit=1&x=%7e"),
            headers={"X-Node-ID": "munich.loop", "Content-Type": "application/ld+json"},
            body=b'{"a":1}',
            trusted=True,
            timeout_s=5,
            max_answer_bytes=1000,
        )
    assert (received.status, received.body) == (202, b'{"status":"accepted"}')
    assert received.headers["retry-after"] == "7"
    assert 0 <= received.elapsed_ms < 5000
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /api/v1/material/a%2Fb?limit=1&x=%7e HTTP/1.1"
    assert {"X-Node-ID: munich.loop", "Content-Type: application/ld+json", "Accept-Encoding: identity"} <= set(lines)
    assert body == b'{"a":1}'


async def test_connections_are_kept_and_pools_of_trusted_and_untrusted_calls_are_apart(
    make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    client = make_client()
    async with local_server(server_tls, answer()) as server:
        for _ in range(3):
            await get(client, server.url())
        assert server.connections == 1
        with pytest.raises(DialError) as refused:
            await get(client, server.url(), trusted=False)
    assert refused.value.kind is DialFailure.REFUSED_ADDRESS
    assert len(server.requests) == 3


async def test_no_cookie_and_no_proxy_from_the_environment(
    make_client: MakeClient, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = make_client()
    async with local_server(server_tls, answer(b"{}", "200 OK", "Set-Cookie: id=1; Path=/")) as server:
        await get(client, server.url())
        await get(client, server.url())
    assert all(b"cookie" not in request.lower() for request in server.requests)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
async def test_a_redirect_is_an_answer_like_another(
    make_client: MakeClient, server_tls: ssl.SSLContext, status: str
) -> None:
    client = make_client()
    async with local_server(server_tls, answer(b"", status, "Location: https://127.0.0.1:1/")) as server:
        received = await get(client, server.url())
    assert received.status == int(status[:3])
    assert len(server.requests) == 1


async def _failure(client: PeerClient, url: str, **options: object) -> DialError:
    with pytest.raises(DialError) as raised:
        await get(client, url, **options)  # type: ignore[arg-type]
    assert "secret" not in str(raised.value)
    return raised.value


async def test_a_server_that_does_not_answer_in_time(make_client: MakeClient, server_tls: ssl.SSLContext) -> None:
    async def never(_: bytes, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    client = make_client()
    async with local_server(server_tls, never) as server:
        error = await _failure(client, server.url("/?token=secret"), timeout_s=0.2)
        assert error.kind is DialFailure.TIMEOUT
        await server.until_closed()


async def test_an_answer_that_trickles_is_cut_off_by_the_total_time(
    make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    async def trickle(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    client = make_client()
    async with local_server(server_tls, trickle) as server:
        assert (await _failure(client, server.url(), timeout_s=0.3)).kind is DialFailure.TIMEOUT
        await server.until_closed()


async def test_an_endless_body_is_cut_off_at_the_ceiling(make_client: MakeClient, server_tls: ssl.SSLContext) -> None:
    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    client = make_client()
    async with local_server(server_tls, endless) as server:
        assert (await _failure(client, server.url(), max_answer_bytes=10_000)).kind is DialFailure.TOO_LARGE
        await server.until_closed()


async def test_the_ceiling_itself_is_allowed(make_client: MakeClient, server_tls: ssl.SSLContext) -> None:
    client = make_client()
    async with local_server(server_tls, answer(b"x" * 5000)) as server:
        assert len((await get(client, server.url(), max_answer_bytes=5000)).body) == 5000
        assert (await _failure(client, server.url(), max_answer_bytes=4999)).kind is DialFailure.TOO_LARGE


async def test_a_compressed_answer_is_not_unpacked(make_client: MakeClient, server_tls: ssl.SSLContext) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    client = make_client()
    async with local_server(server_tls, answer(bomb, "200 OK", "Content-Encoding: gzip")) as server:
        assert (await _failure(client, server.url())).kind is DialFailure.PROTOCOL


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", DialFailure.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", DialFailure.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n", DialFailure.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", DialFailure.CONNECT),
        (b"", DialFailure.CONNECT),
    ],
)
async def test_what_is_no_whole_http_answer(
    make_client: MakeClient, server_tls: ssl.SSLContext, raw: bytes, kind: DialFailure
) -> None:
    async def respond(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    client = make_client()
    async with local_server(server_tls, respond) as server:
        assert (await _failure(client, server.url())).kind is kind


async def test_nobody_listens(make_client: MakeClient, server_tls: ssl.SSLContext) -> None:
    client = make_client()
    async with local_server(server_tls, answer()) as server:
        pass
    assert (await _failure(client, server.url("/?token=secret"))).kind is DialFailure.CONNECT


async def test_certificates_are_checked(
    make_client: MakeClient, authority: LocalAuthority, tmp_path: Path, server_tls: ssl.SSLContext
) -> None:
    client = make_client()
    for context in (
        LocalAuthority(tmp_path).server_context("127.0.0.1"),  # of an authority that is not known
        authority.server_context("vienna.example"),  # for another name
    ):
        async with local_server(context, answer()) as server:
            assert (await _failure(client, server.url())).kind is DialFailure.TLS
        assert server.requests == []


async def test_a_server_without_tls_1_3_is_refused(make_client: MakeClient, authority: LocalAuthority) -> None:
    context = authority.server_context("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = make_client()
    async with local_server(context, answer()) as server:
        assert (await _failure(client, server.url())).kind is DialFailure.TLS
    assert server.requests == []


async def test_a_lax_tls_context_is_not_taken(authority: LocalAuthority) -> None:
    old, unchecked, nameless = (authority.client_context() for _ in range(3))
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    nameless.check_hostname = False
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    for context in (old, unchecked, nameless):
        with pytest.raises(ValueError, match=r"TLS 1\.3"):
            PeerClient(DialGuard((), open_all=True), context, SystemClock())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
        "10.1.2.3", "169.254.169.254", "[fe80::1%25eth0]", "0.0.0.0", "0", "2130706433", "017700000001", "0x7f000001",  # noqa: S104
        "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.",
    ],
)  # fmt: skip
async def test_a_stranger_leads_nowhere_inside_in_any_notation(
    make_client: MakeClient, server_tls: ssl.SSLContext, host: str
) -> None:
    client = make_client()
    async with local_server(server_tls, answer()) as server:
        error = await _failure(client, server.url(host=host), trusted=False)
        assert error.kind is DialFailure.REFUSED_ADDRESS
        assert server.connections == 0


class ChangingResolver(AbstractResolver):
    """Answers a public address first and loopback from then on, as a rebinding name server does."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


async def test_a_public_name_with_a_private_address_is_refused(
    make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    client = make_client(resolver=ChangingResolver("127.0.0.1"))
    async with local_server(server_tls, answer()) as server:
        error = await _failure(client, server.url(host="city.example"), trusted=False)
        assert error.kind is DialFailure.REFUSED_ADDRESS
        assert server.connections == 0
        assert (await get(client, server.url(host="city.example"), trusted=True)).status == 200


async def test_a_name_is_looked_up_and_checked_for_every_new_connection(
    make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    resolver = ChangingResolver("127.0.0.7", "127.0.0.1")
    client = make_client("127.0.0.7/32", resolver=resolver)
    async with local_server(server_tls, answer()) as server:
        assert (await _failure(client, server.url(host="city.example"), trusted=False)).kind is DialFailure.CONNECT
        error = await _failure(client, server.url(host="city.example"), trusted=False)
        assert error.kind is DialFailure.REFUSED_ADDRESS
        assert server.connections == 0


@pytest.mark.parametrize("options", [{"allowed": "127.0.0.0/8"}, {"open_all": True}])
async def test_opened_networks_may_be_called(
    make_client: MakeClient, server_tls: ssl.SSLContext, options: dict[str, object]
) -> None:
    client = make_client(**options)
    async with local_server(server_tls, answer()) as server:
        assert (await get(client, server.url(), trusted=False)).status == 200
        assert (await get(client, server.url(host="localhost"), trusted=False)).status == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://city.example/", "ftp://city.example/", "https://", "https:///path", "https://user:secret@city.example/",
        "https://city.example/#part", "https://city.example/a b", "https://city.example/\r\nX-Secret: 1",
        "https://städte.example/", "https://a..b/", "https://" + "x" * 64 + ".example/", "https://city.example:99999/",
        "https://[::1/", "",
    ],
)  # fmt: skip
async def test_urls_that_cannot_be_called(make_client: MakeClient, url: str) -> None:
    assert (await _failure(make_client(open_all=True), url)).kind is DialFailure.PROTOCOL


async def test_cancelling_leaves_no_connection_open(make_client: MakeClient, server_tls: ssl.SSLContext) -> None:
    begun = asyncio.Event()

    async def half(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        begun.set()
        await asyncio.Event().wait()

    client = make_client()
    async with local_server(server_tls, half) as server:
        task = asyncio.create_task(get(client, server.url()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until_closed()


async def test_closing_the_client_closes_its_idle_connections(
    make_client: MakeClient, server_tls: ssl.SSLContext
) -> None:
    client = make_client()
    async with local_server(server_tls, answer()) as server:
        await get(client, server.url())
        assert server.open == 1
        await client.close()
        await server.until_closed()


def test_the_gate_lets_one_call_at_a_time_to_a_host() -> None:
    gate = CallbackGate(ManualClock())
    with gate.call("city.example"):
        for same in ("city.example", "CITY.example", "city.example."):
            with pytest.raises(Refusal) as refused, gate.call(same):
                pass
            assert (refused.value.status, refused.value.details["reason"]) == (429, "rate_limited")
            assert refused.value.retry_after_s == 1
        with gate.call("other.example"):
            pass
    with gate.call("city.example"):
        pass


def test_a_call_that_fails_frees_its_host() -> None:
    gate = CallbackGate(ManualClock())
    with pytest.raises(DialError), gate.call("city.example"):
        raise DialError(DialFailure.TIMEOUT, "no answer")
    with gate.call("city.example"):
        pass


def test_the_gate_lets_ten_calls_a_minute_to_a_host() -> None:
    clock = ManualClock()
    gate = CallbackGate(clock)
    for _ in range(CALLBACKS_PER_HOST_PER_MINUTE):
        with gate.call("city.example"):
            clock.advance(1000)
    with pytest.raises(Refusal) as refused, gate.call("city.example"):
        pass
    assert refused.value.retry_after_s == 60 - CALLBACKS_PER_HOST_PER_MINUTE
    clock.advance(49_999)
    with pytest.raises(Refusal), gate.call("city.example"):
        pass
    clock.advance(1)
    with gate.call("city.example"):
        pass
    with pytest.raises(Refusal), gate.call("city.example"):
        pass


def test_the_gate_bounds_all_calls_at_once() -> None:
    gate = CallbackGate(ManualClock())
    calls = [gate.call(f"{number}.example") for number in range(CALLBACKS_AT_ONCE_MAX)]
    for call in calls:
        call.__enter__()
    with pytest.raises(Refusal), gate.call("one-more.example"):
        pass
    calls[0].__exit__(None, None, None)
    with gate.call("one-more.example"):
        pass


def test_the_gate_remembers_a_bounded_number_of_hosts_for_a_minute() -> None:
    clock = ManualClock()
    gate = CallbackGate(clock)
    for number in range(CALLBACK_HOSTS_MAX):
        with gate.call(f"{number}.example"):
            pass
        clock.advance(10)
    with pytest.raises(Refusal) as refused, gate.call("one-more.example"):
        pass
    assert refused.value.retry_after_s == 50
    with gate.call("999.example"):
        pass
    assert len(gate) == CALLBACK_HOSTS_MAX
    clock.advance(60_000)
    with gate.call("one-more.example"):
        pass
    assert len(gate) == 1
