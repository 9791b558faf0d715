"""The `[api]` section."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field, field_validator

from loopd.room_settings import RoomSettings


class ApiSettings(RoomSettings):
    """Where the node listens, and how much it takes from anyone (§10.4)."""

    listen: str = Field(
        default="127.0.0.1:8443",
        description="Address and port of the public API, always with TLS. `0.0.0.0:8443` or `[::]:8443` for all "
        "interfaces. Other cities reach it at `node.endpoint`.",
    )
    admin_listen: str = Field(
        default="unix",
        description="Where the operator's commands reach the daemon: `unix` (admin.sock in the node's directory; who "
        "can open it is the operator) or a loopback address such as `127.0.0.1:8444`, where every request needs an "
        "admin token.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description="Reverse proxies whose X-Forwarded-For is believed. Name only machines that set it themselves: "
        "whoever sends through them chooses the address that is counted.",
    )
    user_requests_per_minute: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="Requests that one client address may make in a minute (§10.4). An IPv6 client is its /64 "
        "network. 0 counts nothing.",
    )
    node_requests_per_minute: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Signed requests that one node, or one address, may make in a minute (§10.4). Too low, and a busy "
        "neighbour's announcements come late. 0 counts nothing.",
    )
    search_requests_per_minute: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="Searches that one client address may make in a minute (§10.4). 0 counts nothing.",
    )
    max_connections: int = Field(
        default=1000,
        ge=10,
        le=100_000,
        description="Open connections in all; the next one is told 503. Each needs a file descriptor.",
    )
    max_connections_per_client: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Open connections of one client address; the next one is told 503. Trusted proxies are exempt.",
    )
    max_concurrent_requests: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="Requests worked on at the same time; the next one is told 503. Far above what the machine does "
        "at once, all of them only get slow.",
    )
    idle_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long a connection may take to send a request's head, and wait between two requests. A "
        "reverse proxy should wait shorter than this.",
    )
    body_timeout_s: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="How long a request's body may take to arrive; then it is answered 408.",
    )
    answer_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long a client may leave an answer unread before its connection is cut.",
    )

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        parse_listen_address(value)
        return value

    @field_validator("admin_listen")
    @classmethod
    def _unix_or_loopback(cls, value: str) -> str:
        if value == "unix":
            return value
        host, _ = parse_listen_address(value)
        if host != "::1" and not host.startswith("127."):
            raise ValueError("must be `unix` or a loopback address such as 127.0.0.1:8444")
        return value


def parse_listen_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8443` or `[::1]:8443` as host and port; 0 is any free port. ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets: [::1]:8443")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError("must be ADDRESS:PORT, as in 127.0.0.1:8443")
    return host, int(port)
