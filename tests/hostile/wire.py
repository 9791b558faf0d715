"""Bytes over TLS sockets: requests as they are built by hand, answers as they came."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

# Whatever is sent, an answer or the end of the connection comes within this time.
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """One answer; status 0 where the connection ended without any."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """`details.reason` of the envelope of §8.3, with the envelope checked; empty for a success."""
        if self.status < 400:
            return ""
        assert self.headers["Content-Type"] == "application/json", self
        envelope = self.json()
        assert set(envelope) == {"error"}, self
        assert set(envelope["error"]) == {"code", "message", "details"}, self
        assert envelope["error"]["code"] in CODES, self
        assert envelope["error"]["message"], self
        reason = envelope["error"]["details"]["reason"]
        assert isinstance(reason, str), self
        return reason

    def json(self) -> Any:
        return json.loads(self.body)


CODES = frozenset({"INVALID_REQUEST", "UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "CONFLICT", "INTERNAL_ERROR"})
CLOSED = Reply(0, {}, b"")


def request(
    method: str,
    target: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    version: str = "HTTP/1.1",
) -> bytes:
    """A request on a connection of its own. Content-Length is added unless the headers say how long the body is."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    named = {name.lower() for name, _ in pairs}
    if body and not named & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} {version}", "Host: 127.0.0.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in pairs]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 65_536) -> bytes:
    """A body in chunks."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n"


class Wire:
    """Connections to one node."""

    def __init__(self, port: int, authority: Path) -> None:
        self.port = port
        self._authority = authority

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def connect(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
        """A TLS connection; its certificate is checked against the authority's."""
        context = ssl.create_default_context(cafile=str(self._authority))
        context.maximum_version = newest
        sock = self.plain()
        try:
            return context.wrap_socket(sock, server_hostname="127.0.0.1")
        except BaseException:
            sock.close()
            raise

    def exchange(self, data: bytes) -> Reply:
        """Send bytes on a connection of their own; the first answer."""
        with self.connect() as sock:
            # Who is refused before all was sent can still read what was said to it.
            with suppress(OSError):
                sock.sendall(data)
            with sock.makefile("rb") as stream:
                return read_reply(stream, head_only=data.startswith(b"HEAD "))


def read_reply(stream: BinaryIO, *, head_only: bool = False) -> Reply:
    """The next answer on a connection; CLOSED at its end."""
    try:
        status_line = stream.readline(65_536)
        while status_line.startswith(b"HTTP/1.1 100 "):
            http.client.parse_headers(stream)
            status_line = stream.readline(65_536)
        if not status_line:
            return CLOSED
        version, status = status_line.split(b" ", 2)[:2]
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), status_line
        headers = http.client.parse_headers(stream)
        length = 0 if head_only else int(headers.get("Content-Length", "0"))
        return Reply(int(status), headers, stream.read(length))  # type: ignore[arg-type]
    except (ConnectionError, ssl.SSLError):
        return CLOSED
