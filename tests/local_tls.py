"""A certificate authority for tests, and TLS servers on the loopback address that misbehave as they are told."""

import asyncio
import datetime
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class LocalAuthority:
    """Issues certificates for names and addresses; its own is the only root that `client_context` knows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.root = _signed(self._name, self._name, self._key, self._key, None)

    def server_context(self, *hosts: str) -> ssl.SSLContext:
        """A server that shows a certificate for `hosts`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        certificate = _signed(subject, self._name, key, self._key, hosts)
        path = self._directory / f"{hosts[0]}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A client that trusts this authority alone, and speaks TLS 1.3 alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.root.public_bytes(serialization.Encoding.PEM).decode())
        return context


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: tuple[str, ...] | None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
    )
    if hosts is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass
class LocalServer:
    """What a server has seen so far. `requests` are the heads as they came, `open` the connections that still stand."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    def url(self, path: str = "/api/v1/node/info", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"

    async def until_closed(self) -> None:
        """Wait until no connection stands; TimeoutError after five seconds."""
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110 (a test waits for the other side of a socket)
                await asyncio.sleep(0.01)


class _CountedConnection(asyncio.StreamReaderProtocol):
    """Notices the other side's going away also while a handler is busy with something else."""

    def __init__(self, server: LocalServer, serve: Callable[..., Awaitable[None]]) -> None:
        super().__init__(asyncio.StreamReader(), serve)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.connections += 1
        self._server.open += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.open -= 1
        super().connection_lost(error)


@asynccontextmanager
async def local_server(context: ssl.SSLContext, handler: Handler) -> AsyncIterator[LocalServer]:
    """A TLS server on 127.0.0.1 that reads each request whole and lets `handler` write what it likes; keep-alive."""
    server = LocalServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with suppress(OSError, EOFError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                server.requests.append(head + body)
                await handler(head + body, writer)
                await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: _CountedConnection(server, serve), "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(body: bytes = b"{}", status: str = "200 OK", *header_lines: str) -> Handler:
    """A handler that gives the same whole answer to every request."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *header_lines]

    async def respond(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    return respond
