"""Which addresses may be called. An endpoint that a stranger names must not lead into the node's own network.

The rule looks at the address that the socket is about to connect to, not at the name: a name whose answer changes
between a check and the call (DNS rebinding) gains nothing. See docs/protocol-notes.md, Peers.
"""

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from loopd.protocol.limits import (
    DIAL_CONNECTIONS_MAX,
    DIAL_CONNECTIONS_PER_HOST_MAX,
    DIAL_IDLE_CONNECTION_S,
    DIAL_LOOKUPS_MAX,
)

Network = IPv4Network | IPv6Network

# The IANA registry of special-purpose IPv4 addresses (RFC 6890), with multicast and the former class E. The standard
# library's `is_global` changed its mind between patch releases of Python, so the list stands here.
_REFUSED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds serve their credentials
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# IPv6 is the other way round: one block is handed out for use, and these parts of it are not.
_GLOBAL_UNICAST_IPV6 = IPv6Network("2000::/3")
_REFUSED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """The guard does not let this node connect to that address."""

    def __init__(self) -> None:
        # One text for all, without the address: what a name resolves to inside a city is nobody else's business.
        super().__init__(errno.EACCES, "the address is in a network that this node does not call")


def may_dial(address: str | IPv4Address | IPv6Address, allowed_networks: Iterable[Network], open_all: bool) -> bool:
    """Whether a connection to `address` is allowed; False for text that is no IP address.

    Only public unicast addresses are, and those in `allowed_networks`. An IPv6 address that carries an IPv4 address
    (mapped, 6to4, NAT64) is judged by the IPv4 address. `open_all` allows everything: development mode.
    """
    if open_all:
        return True
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        parsed = IPv6Address(int(parsed))  # without a zone such as `%eth0`, which no network contains
    carried = _carried_ipv4(parsed)
    if any(parsed in network or carried in network for network in allowed_networks):
        return True
    if isinstance(carried, IPv4Address):
        return not any(carried in network for network in _REFUSED_IPV4)
    return carried in _GLOBAL_UNICAST_IPV6 and not any(carried in network for network in _REFUSED_IPV6)


def is_odd_ipv4(host: str) -> bool:
    """Whether a URL's host is an IPv4 address written so that only the C library sees one.

    `2130706433`, `0x7f.1`, `0177.0.0.1` and `127.0.0.1.` all mean 127.0.0.1 to it. No operator writes his endpoint so.
    """
    try:
        packed = socket.inet_aton(host.rstrip("."))
    except OSError:
        return False
    return socket.inet_ntoa(packed) != host


def _carried_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


class DialGuard:
    """Holds a connector's sockets to `may_dial`. `trusted` endpoints, which the operator named, may be anywhere."""

    def __init__(self, allowed_networks: Iterable[Network], open_all: bool) -> None:
        self._allowed_networks = tuple(allowed_networks)
        self._open_all = open_all

    def may_dial(self, address: str) -> bool:
        """The rule, with this node's settings."""
        return may_dial(address, self._allowed_networks, self._open_all)

    def open_socket(self, address_info: AddrInfoType) -> socket.socket:
        """A socket for exactly the address that is about to be connected to. AddressRefused where it may not be."""
        family, kind, protocol, _, address = address_info
        if not self.may_dial(str(address[0])):
            raise AddressRefused
        return socket.socket(family, kind, protocol)

    def connector(
        self,
        tls: ssl.SSLContext,
        *,
        trusted: bool,
        resolver: AbstractResolver | None = None,
        limit: int = DIAL_CONNECTIONS_MAX,
    ) -> TCPConnector:
        """A pool of connections of its own, so that an untrusted call never finds a trusted call's connection open.

        Call it on the running event loop. `resolver` is the system's where it is not given; the connector's owner
        closes it. A further connection than `limit` waits.
        """
        lookup = resolver or SystemResolver()
        return TCPConnector(
            ssl=tls,
            resolver=lookup if trusted else GuardedResolver(lookup, self),
            socket_factory=None if trusted else self.open_socket,
            use_dns_cache=False,
            limit=limit,
            limit_per_host=DIAL_CONNECTIONS_PER_HOST_MAX,
            keepalive_timeout=DIAL_IDLE_CONNECTION_S,
        )


class GuardedResolver(AbstractResolver):
    """Leaves refused addresses out of a name's answer, so that a name with a public one beside them still works.

    A convenience before the socket's own check, which also sees addresses that were never looked up.
    """

    def __init__(self, resolver: AbstractResolver, guard: DialGuard) -> None:
        self._resolver = resolver
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host` that may be dialled. AddressRefused where there is none."""
        found = await self._resolver.resolve(host, port, family)
        allowed = [result for result in found if self._guard.may_dial(result["host"])]
        if not allowed:
            raise AddressRefused
        return allowed

    async def close(self) -> None:
        """Close the resolver beneath."""
        await self._resolver.close()


class SystemResolver(AbstractResolver):
    """The system's name lookup, a few at a time, each on a daemon thread.

    A lookup cannot be interrupted, and a dead name server holds it for many seconds. On the event loop's shared
    threads that would stop other work, and the process at its end.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(DIAL_LOOKUPS_MAX)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host` in the system's order of preference. OSError where there are none."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def deliver(result: list[ResolveResult] | OSError) -> None:
            self._free.release()
            if answer.done():  # whoever asked has given up
                return
            if isinstance(result, OSError):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def look_up() -> None:
            result = _look_up(host, port, family)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(deliver, result)

        threading.Thread(target=look_up, name="name-lookup", daemon=True).start()
        return await answer

    async def close(self) -> None:
        """Nothing to close: a lookup that still runs ends by itself."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult] | OSError:
    try:
        infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as error:
        return error
    except UnicodeError:  # a label that is empty or longer than 63 characters
        return socket.gaierror(socket.EAI_NONAME, "not a host name")
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=found_family,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found_family, _, protocol, _, address in infos
    ]
