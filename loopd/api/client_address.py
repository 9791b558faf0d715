"""Which address a request is counted by."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What a unix socket's client is counted as: the operator.
LOCAL_CLIENT = "local"


class ClientAddresses:
    """Tells clients apart, through the reverse proxies that are trusted and no others."""

    def __init__(self, trusted_proxies: Sequence[Network]) -> None:
        self._trusted = tuple(trusted_proxies)

    def is_trusted(self, peer: str) -> bool:
        """Whether the connection comes from a trusted proxy."""
        address = parse_address(peer)
        return address is not None and self._trusts(address)

    def client(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The client's key: an IPv4 address, or the /64 of an IPv6 address.

        `forwarded_for` are the values of X-Forwarded-For. They count only where the connection comes from a trusted
        proxy: the rightmost address that is no trusted proxy is the client. What stands left of it anyone can forge.
        """
        if not self._trusted or not forwarded_for:
            return client_key(peer)
        address = parse_address(peer)
        if address is None or not self._trusts(address):
            return client_key(peer)
        for entry in reversed(",".join(forwarded_for).split(",")):
            forwarded = parse_address(_without_port(entry.strip()))
            if forwarded is None:
                break
            address = forwarded
            if not self._trusts(forwarded):
                break
        return _key(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(maxsize=4096)
def client_key(peer: str) -> str:
    """The key of a peer's address as the socket gives it; `local` where there is none."""
    address = parse_address(peer)
    return LOCAL_CLIENT if address is None else _key(address)


def parse_address(text: str) -> Address | None:
    """The address, an IPv4-mapped one as IPv4; None where the text is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _key(address: Address) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
