"""The sockets below the API: who gets a connection, for how long, and what is said to those who speak no HTTP."""

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from loopd.api.answers import http_response, refusal_answer
from loopd.api.client_address import ClientAddresses, client_key
from loopd.api.request_context import begin_request
from loopd.api.settings import ApiSettings
from loopd.net.unix_path import short_unix_path
from loopd.protocol.errors import Invalid, Unavailable
from loopd.protocol.json_text import dump_json

HttpHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0
# How long what a refused client still sends is read and dropped, so that it gets to read the refusal.
_LINGERING_S: Final = 2.0
_BACKLOG: Final = 512
_HEAD_LIMITS: Final[dict[str, Any]] = {"max_line_size": 8190, "max_field_size": 8190, "max_headers": 64}

_FULL = Unavailable("overloaded", "Too many connections.", retry_after_s=5)


def _refusal_bytes(refusal: Unavailable) -> bytes:
    body = dump_json(refusal.envelope())
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Retry-After: {refusal.retry_after_s}\r\n"
        "Server: loopd\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


class Connection(web.RequestHandler):
    """One client's connection. aiohttp closes it when no request comes; here are the bounds that it does not have."""

    __slots__ = ("_admitted_as", "_cut_off", "_server")

    def __init__(self, server: "HttpServer", **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._admitted_as: str | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._admitted_as = self._server.admit(transport)
        if self._admitted_as is not None:
            super().connection_made(transport)
            return
        self.force_close()
        if isinstance(transport, asyncio.Transport):
            transport.write(_refusal_bytes(_FULL))
        if isinstance(transport, asyncio.WriteTransport):
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if self._admitted_as is not None:
            self._server.forget(self._admitted_as)
            self._admitted_as = None
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client leaves its answers unread: it has `answer_timeout_s` to take some."""
        super().pause_writing()
        transport = self.transport
        if self._cut_off is None and transport is not None:
            loop = asyncio.get_running_loop()
            self._cut_off = loop.call_later(self._server.answer_timeout_s, transport.abort)

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers by itself, to bytes that are no HTTP request, in the envelope of §8.3."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, no other can follow it")
        refusal = Invalid("bad_http", "This is not a well-formed HTTP/1.1 request.")
        response = http_response(refusal_answer(refusal), begin_request(None))
        response.force_close()
        return response

    def _stop_timer(self) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None


class HttpServer(web.Server):
    """Makes connections and counts them, in all and for each client."""

    def __init__(self, handler: HttpHandler, settings: ApiSettings, *, bounded: bool) -> None:
        super().__init__(handler)
        self.answer_timeout_s = settings.answer_timeout_s
        self._settings = settings
        self._bounded = bounded
        self._addresses = ClientAddresses(settings.trusted_proxies)
        self._open = 0
        self._open_by_client: Counter[str] = Counter()

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self,
            keepalive_timeout=self._settings.idle_timeout_s,
            lingering_time=_LINGERING_S,
            auto_decompress=False,
            access_log=None,
            **_HEAD_LIMITS,
        )

    def admit(self, transport: asyncio.BaseTransport) -> str | None:
        """The client's key, or None where there is no room for one more connection."""
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else ""
        client = client_key(peer)
        if self._bounded:
            crowded = self._open_by_client[client] >= self._settings.max_connections_per_client
            if self._open >= self._settings.max_connections or (crowded and not self._addresses.is_trusted(peer)):
                return None
        self._open += 1
        self._open_by_client[client] += 1
        return client

    def forget(self, client: str) -> None:
        """A connection ended."""
        self._open -= 1
        self._open_by_client[client] -= 1
        if not self._open_by_client[client]:
            del self._open_by_client[client]

    @property
    def open_connections(self) -> int:
        return self._open


class Listener:
    """The listening sockets of one plane."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._listening: list[asyncio.Server] = []
        self._unix_paths: list[Path] = []

    async def listen_tcp(self, host: str, port: int, ssl_context: ssl.SSLContext | None) -> tuple[str, int]:
        """Listen on an address; gives back the one bound, which tells the port where 0 was asked. OSError if taken."""
        listening = await asyncio.get_running_loop().create_server(
            self._server,
            host,
            port,
            ssl=ssl_context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=_TLS_HANDSHAKE_TIMEOUT_S if ssl_context else None,
        )
        self._listening.append(listening)
        bound = listening.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    async def listen_unix(self, path: Path) -> None:
        """Listen on a socket that its owner alone can open (0600). A socket that is left over there is replaced."""
        unix_socket = _bind_private(path)
        try:
            loop = asyncio.get_running_loop()
            self._listening.append(await loop.create_unix_server(self._server, sock=unix_socket, backlog=_BACKLOG))
        except BaseException:
            unix_socket.close()
            raise
        self._unix_paths.append(path)

    def stop_accepting(self) -> None:
        """No new connections from here on; the open ones go on."""
        for listening in self._listening:
            listening.close()
        for path in self._unix_paths:
            path.unlink(missing_ok=True)
        self._unix_paths.clear()

    async def close(self, timeout_s: float) -> None:
        """Close every connection; what still runs after the time-out is cancelled."""
        self.stop_accepting()
        # A connection that was made just now has not begun to wait for its request yet, and could not be told to stop.
        await asyncio.sleep(0)
        self._server.pre_shutdown()
        await self._server.shutdown(timeout_s)
        for listening in self._listening:
            await listening.wait_closed()
        self._listening.clear()


def _bind_private(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    unix_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Between bind and chmod anyone could connect; with the mask there is no between.
        earlier_mask = os.umask(0o177)
        try:
            with short_unix_path(path) as bindable:
                unix_socket.bind(bindable)
        finally:
            os.umask(earlier_mask)
        unix_socket.setblocking(False)
    except BaseException:
        unix_socket.close()
        raise
    return unix_socket
