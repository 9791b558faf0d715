"""Load over HTTPS: requests made in advance, a few connections that are kept, one request at a time on each.

It writes and reads by hand what little HTTP it needs: a client library would cost as much as the server that is
measured, on a machine where both share the processors.
"""

import asyncio
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.processes import ServerProcess
from bench.rows import Sample


class UnexpectedAnswer(Exception):
    """The server refused what should have been accepted; the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one answer."""

    status: int
    body: bytes


class Connection:
    """One kept TLS connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext) -> "Connection":
        """Connect to 127.0.0.1."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))

    async def exchange(self, request: bytes) -> Answer:
        """Send one whole request, read its answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = head.index(b"content-length:") + len(b"content-length:")
        body = await self._reader.readexactly(int(head[length : head.index(b"\r\n", length)]))
        return Answer(int(head[9:12]), body)

    async def close(self) -> None:
        """Close it, and wait until that is done."""
        self._writer.close()
        await self._writer.wait_closed()


def http_request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def load(
    server: ServerProcess, tls: ssl.SSLContext, requests: Iterator[bytes], status: int, connections: int, seconds: float
) -> Sample:
    """Keep `connections` busy until the time is over or the requests are used up.

    UnexpectedAnswer at the first answer of another status.
    """
    opened = [await Connection.open(server.port, tls) for _ in range(connections)]
    latencies_s: list[float] = []
    cpu_started_s, started_s = server.cpu_s(), time.perf_counter()
    deadline_s = started_s + seconds

    async def work(connection: Connection) -> None:
        sent_s = time.perf_counter()
        while sent_s < deadline_s and (request := next(requests, None)) is not None:
            answer = await connection.exchange(request)
            if answer.status != status:
                raise UnexpectedAnswer(f"expected {status}, got {answer.status}: {answer.body[:500].decode()}")
            received_s = time.perf_counter()
            latencies_s.append(received_s - sent_s)
            sent_s = received_s

    try:
        await asyncio.gather(*(work(connection) for connection in opened))
        return Sample(len(latencies_s), time.perf_counter() - started_s, server.cpu_s() - cpu_started_s, latencies_s)
    finally:
        await asyncio.gather(*(connection.close() for connection in opened), return_exceptions=True)
