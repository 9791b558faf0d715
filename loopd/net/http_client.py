"""Requests to other nodes: bounded in time and size, over TLS 1.3 only, to addresses that the dial guard allows."""

import asyncio
import math
import re
import ssl
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    ClientWSTimeout,
    DummyCookieJar,
    InvalidURL,
    ServerDisconnectedError,
    TCPConnector,
    TraceConfig,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from loopd.clock import Clock
from loopd.net.dial_guard import AddressRefused, DialGuard, is_odd_ipv4
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import (
    CALLBACK_HOSTS_MAX,
    CALLBACKS_AT_ONCE_MAX,
    CALLBACKS_PER_HOST_PER_MINUTE,
    DIAL_CONNECT_TIMEOUT_S,
    LINK_CLOSE_TIMEOUT_S,
    LINKS_DIALLED_MAX,
)

_USER_AGENT = "loopd"
# What may stand in a request line. Everything else, line breaks above all, has to be percent-encoded by the caller.
_SENDABLE_URL = re.compile(r"(https|http)://[!-~]+", re.ASCII)
_WINDOW_S = 60.0


class DialFailure(StrEnum):
    """Why no whole answer came."""

    TIMEOUT = "timeout"
    REFUSED_ADDRESS = "refused_address"  # the dial guard's decision; nothing was sent
    TLS = "tls"
    CONNECT = "connect"  # no connection, or it was lost before the answer was whole
    TOO_LARGE = "too_large"
    PROTOCOL = "protocol"  # the URL cannot be called, or the answer is not HTTP


class DialError(Exception):
    """A request without a whole answer. The text is for logs: it names the host, and neither path nor headers."""

    def __init__(self, kind: DialFailure, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What came back, whatever its status. Header names compare without case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: int


class PeerClient:
    """Calls other nodes. Follows no redirect, keeps no cookie, uses no proxy and unpacks no compressed answer.

    It has two pools of connections, one for endpoints that the operator named and one for all others, and two more for
    the connections that last. Make it on the running event loop, and close it there.
    """

    def __init__(
        self,
        guard: DialGuard,
        tls: ssl.SSLContext,
        clock: Clock,
        *,
        resolver: AbstractResolver | None = None,
        plain_http: bool = False,
    ) -> None:
        """`tls` must demand TLS 1.3, a valid certificate and the right name, else ValueError.

        `resolver` replaces the system's name lookup. `plain_http`: an http URL can be called too, for development.
        """
        if (
            tls.minimum_version < ssl.TLSVersion.TLSv1_3
            or tls.verify_mode != ssl.CERT_REQUIRED
            or not tls.check_hostname
        ):
            raise ValueError("a node is called over TLS 1.3, with its certificate and its name checked")
        self._clock = clock
        self._plain_http = plain_http
        self._trusted = _session(guard.connector(tls, trusted=True, resolver=resolver))
        self._untrusted = _session(guard.connector(tls, trusted=False, resolver=resolver))
        # Apart from the others, so that a connection that is kept takes no place of one that is soon free again.
        self._lasting = {
            trusted: _session(guard.connector(tls, trusted=trusted, resolver=resolver, limit=LINKS_DIALLED_MAX))
            for trusted in (True, False)
        }

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        trusted: bool,
        timeout_s: float,
        max_answer_bytes: int,
    ) -> PeerAnswer:
        """Send one request and read the whole answer. Raises DialError and nothing else for what others do.

        `url` is sent as it stands: a signed path is not re-encoded. `trusted`: the operator named this endpoint, so
        its address is not checked. `timeout_s` bounds everything, from the name lookup to the last byte.
        """
        target = _callable_url(url, plain_http=self._plain_http)
        session = self._trusted if trusted else self._untrusted
        started_s = self._clock.monotonic_s()
        try:
            async with (
                asyncio.timeout(timeout_s),
                session.request(
                    method,
                    target,
                    headers={"User-Agent": _USER_AGENT, **headers, "Accept-Encoding": "identity"},
                    data=body,
                    allow_redirects=False,
                ) as response,
            ):
                received = await _read_bounded(response, max_answer_bytes)
        except (TimeoutError, ClientError, OSError) as error:
            raise _dial_error(error, target) from error
        elapsed_ms = round((self._clock.monotonic_s() - started_s) * 1000)
        return PeerAnswer(response.status, response.headers, received, elapsed_ms)

    async def open_websocket(
        self, url: str, *, trusted: bool, timeout_s: float, message_max_bytes: int, heartbeat_s: float
    ) -> ClientWebSocketResponse:
        """Open a WebSocket (RFC 6455) at an https URL. Raises DialError and nothing else for what others do.

        `timeout_s` bounds the opening alone. A longer message than `message_max_bytes` ends the connection, and so
        does half of `heartbeat_s` without an answer, after as long without a word. Whoever called closes it.
        """
        target = _callable_url(url, plain_http=self._plain_http)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._lasting[trusted].ws_connect(
                    target,
                    max_msg_size=message_max_bytes,
                    heartbeat=heartbeat_s,
                    timeout=ClientWSTimeout(ws_close=LINK_CLOSE_TIMEOUT_S),
                    headers={"User-Agent": _USER_AGENT},
                )
        except (TimeoutError, ClientError, OSError) as error:
            raise _dial_error(error, target) from error

    async def close(self) -> None:
        """Close every connection. Requests under way fail."""
        for session in (self._trusted, self._untrusted, *self._lasting.values()):
            await session.close()


async def _refuse_redirect(*_: object) -> None:
    raise ClientError("redirected")


def _session(connector: TCPConnector) -> ClientSession:
    trace = TraceConfig()
    # A request says itself that it follows none; a WebSocket's opening has no word for it.
    trace.on_request_redirect.append(_refuse_redirect)
    return ClientSession(
        trace_configs=[trace],
        connector=connector,
        cookie_jar=DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("Content-Type",),
        # The whole has its own bound; an address that does not answer leaves time to try the name's next.
        timeout=ClientTimeout(total=None, sock_connect=DIAL_CONNECT_TIMEOUT_S),
    )


def _callable_url(text: str, *, plain_http: bool) -> URL:
    """The URL as it will be sent. DialError where it is none, or one that nobody writes honestly."""
    url = None
    sendable = _SENDABLE_URL.fullmatch(text)
    if sendable is not None and (plain_http or sendable[1] == "https"):
        try:
            url = URL(text, encoded=True)
            (url.raw_host or ".").encode("idna")  # a name that TLS could not ask for
            usable = url.port is not None and url.raw_user is None and not url.raw_fragment
        except ValueError:
            usable = False
    if url is None or not usable:
        raise DialError(DialFailure.PROTOCOL, "the URL is not an https URL without user and fragment")
    if is_odd_ipv4(url.raw_host or ""):
        raise DialError(DialFailure.REFUSED_ADDRESS, f"{_place(url)}: an IPv4 address in an odd notation")
    return url


async def _read_bounded(response: ClientResponse, max_bytes: int) -> bytes:
    """The body, as long as it stays within `max_bytes`; the connection is dropped otherwise."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        response.close()
        raise DialError(
            DialFailure.PROTOCOL, f"{_place(response.url)}: the answer is compressed, which was not asked for"
        )
    received = bytearray()
    async for chunk in response.content.iter_any():
        received += chunk
        if len(received) > max_bytes:
            response.close()
            raise DialError(
                DialFailure.TOO_LARGE, f"{_place(response.url)}: the answer is longer than {max_bytes} bytes"
            )
    return bytes(received)


def _dial_error(error: Exception, url: URL) -> DialError:
    """What went wrong, in this module's words. The texts of aiohttp's own errors may hold the whole URL."""
    place = _place(url)
    match error:
        case ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or "not valid"
            return DialError(DialFailure.TLS, f"{place}: certificate refused: {reason}")
        case ClientConnectorSSLError():
            return DialError(DialFailure.TLS, f"{place}: TLS failed: {getattr(error.os_error, 'reason', '')}")
        case ClientConnectorError(os_error=AddressRefused() as refused):
            return DialError(DialFailure.REFUSED_ADDRESS, f"{place}: {refused.strerror}")
        case ClientConnectorError(os_error=ConnectionResetError()):  # after TCP's handshake, so within that of TLS
            return DialError(DialFailure.TLS, f"{place}: the other side broke off the TLS handshake")
        case ClientConnectorError():
            return DialError(DialFailure.CONNECT, f"{place}: no connection: {error.os_error.strerror or 'failed'}")
        case TimeoutError():
            return DialError(DialFailure.TIMEOUT, f"{place}: no whole answer in time")
        case ssl.SSLError():
            return DialError(DialFailure.TLS, f"{place}: TLS failed: {error.reason}")
        case ServerDisconnectedError() | ClientPayloadError() | OSError():
            return DialError(DialFailure.CONNECT, f"{place}: the connection was lost before the answer was whole")
        case InvalidURL():
            return DialError(DialFailure.PROTOCOL, f"{place}: the URL cannot be called")
        case _:
            return DialError(
                DialFailure.PROTOCOL, f"{place}: the answer is not HTTP as agreed ({type(error).__name__})"
            )


def _place(url: URL) -> str:
    return f"{url.raw_host}:{url.port}"


class CallbackGate:
    """Spreads calls to endpoints that strangers name, so that this node cannot be used to press on a third party.

    At once: one to each host, and a few in all. A minute: ten to each host. A host counts by its name, whatever the
    port. When more hosts were called within a minute than are remembered, further ones are refused.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._busy: set[str] = set()
        # Hosts by their latest call, longest ago first; the times of each host's calls within the last minute.
        self._calls_s: OrderedDict[str, deque[float]] = OrderedDict()

    @contextmanager
    def call(self, host: str) -> Iterator[None]:
        """Around one call to `host`. Refusal 429 `rate_limited`, with the time to wait, where it may not be made."""
        name = host.lower().rstrip(".")
        now_s = self._clock.monotonic_s()
        wait_s = self._wait_s(name, now_s)
        if wait_s > 0:
            raise Refusal(
                429,
                "rate_limited",
                "This node has called that endpoint's host too often. Try again later.",
                retry_after_s=math.ceil(wait_s),
            )
        self._calls_s.setdefault(name, deque()).append(now_s)
        self._calls_s.move_to_end(name)
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)

    def __len__(self) -> int:
        """How many hosts are remembered."""
        return len(self._calls_s)

    def _wait_s(self, name: str, now_s: float) -> float:
        """How long a call to that host has to wait; 0 where it may be made now."""
        self._forget(now_s)
        if name in self._busy or len(self._busy) >= CALLBACKS_AT_ONCE_MAX:
            return 1.0
        calls_s = self._calls_s.get(name)
        if calls_s is None:
            if len(self._calls_s) < CALLBACK_HOSTS_MAX:
                return 0.0
            oldest_s = next(iter(self._calls_s.values()))[-1]
            return oldest_s + _WINDOW_S - now_s
        while calls_s and calls_s[0] + _WINDOW_S <= now_s:
            calls_s.popleft()
        if len(calls_s) < CALLBACKS_PER_HOST_PER_MINUTE:
            return 0.0
        return calls_s[0] + _WINDOW_S - now_s

    def _forget(self, now_s: float) -> None:
        """Drop the hosts whose latest call is more than a minute ago."""
        while self._calls_s:
            name, calls_s = next(iter(self._calls_s.items()))
            if calls_s[-1] + _WINDOW_S > now_s:
                return
            del self._calls_s[name]
