import asyncio
import socket
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from loopd.net.dial_guard import AddressRefused, DialGuard, GuardedResolver, SystemResolver, is_odd_ipv4, may_dial

PUBLIC = ["1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2a01:4f8::1"]
PUBLIC_INSIDE_IPV6 = ["::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"]
REFUSED = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",  # noqa: S104
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1", "2001:db8::1",
    "3fff::1", "100::1", "4000::1",
]  # fmt: skip
REFUSED_INSIDE_IPV6 = [
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.1.2.3", "::ffff:169.254.169.254", "::ffff:100.64.0.1",
    "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1.1.1.1", "2002:7f00:1::", "2002:a00:1::1",
    "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC + PUBLIC_INSIDE_IPV6)
def test_public_addresses_may_be_dialled(address: str) -> None:
    assert may_dial(address, (), False)
    assert may_dial(ip_address(address), (), False)


@pytest.mark.parametrize("address", REFUSED + REFUSED_INSIDE_IPV6)
def test_addresses_inside_are_refused_unless_everything_is_open(address: str) -> None:
    assert not may_dial(address, (), False)
    assert may_dial(address, (), True)


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "1.1.1.1 ", "1.1.1.1."])
def test_what_is_no_address_in_the_usual_notation_is_refused(text: str) -> None:
    assert not may_dial(text, (), False)


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.20.0.0/16", "10.20.3.4", "10.21.0.1"),
        ("10.20.0.0/16", "::ffff:10.20.3.4", "::ffff:10.21.0.1"),
        ("10.20.0.0/16", "64:ff9b::10.20.3.4", "64:ff9b::10.21.0.1"),
        ("fd00:1::/32", "fd00:1::7", "fd00:2::7"),
        ("fe80::/10", "fe80::1%eth0", "::1"),
        ("127.0.0.0/8", "127.0.0.1", "10.0.0.1"),
    ],
)
def test_a_named_network_is_opened_and_nothing_beside_it(network: str, inside: str, outside: str) -> None:
    assert may_dial(inside, [ip_network(network)], False)
    assert not may_dial(outside, [ip_network(network)], False)


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_knows_as_special_may_be_dialled(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )
    carries_ipv4 = isinstance(address, IPv6Address) and (address.ipv4_mapped or address in ip_network("64:ff9b::/96"))
    assert not (special and not carries_ipv4 and may_dial(address, (), False))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_form(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
    ]
    assert {may_dial(form, (), False) for form in forms} == {may_dial(address, (), False)}


@pytest.mark.parametrize(
    "host",
    ["2130706433", "017700000001", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "127.0.0.01", "0"],
)
def test_odd_notations_of_ipv4_addresses_are_seen(host: str) -> None:
    assert is_odd_ipv4(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "8.8.8.8", "munich.loop", "localhost.", "::1", "::ffff:7f00:1", "cafe"])
def test_usual_hosts_are_not_odd(host: str) -> None:
    assert not is_odd_ipv4(host)


def _address_info(address: str) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443)


def test_no_socket_is_opened_for_a_refused_address() -> None:
    guard = DialGuard((), open_all=False)
    with pytest.raises(AddressRefused) as refused:
        guard.open_socket(_address_info("::ffff:127.0.0.1"))
    assert "127" not in str(refused.value)
    opened = guard.open_socket(_address_info("1.1.1.1"))
    with opened:
        assert opened.family is socket.AF_INET


class FixedResolver(AbstractResolver):
    """Gives every name the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        self.closed = True


async def test_a_name_with_a_public_address_beside_a_private_one_keeps_the_public_one() -> None:
    beneath = FixedResolver("10.0.0.1", "93.184.216.34", "::1")
    resolver = GuardedResolver(beneath, DialGuard((), open_all=False))
    assert [found["host"] for found in await resolver.resolve("city.example", 443)] == ["93.184.216.34"]
    await resolver.close()
    assert beneath.closed


@pytest.mark.parametrize("addresses", [(), ("10.0.0.1",), ("127.0.0.1", "fd00::1")])
async def test_a_name_without_an_address_that_may_be_dialled_is_refused(addresses: tuple[str, ...]) -> None:
    resolver = GuardedResolver(FixedResolver(*addresses), DialGuard((), open_all=False))
    with pytest.raises(AddressRefused):
        await resolver.resolve("city.example", 443)


async def test_the_system_resolver_finds_localhost_and_says_what_it_does_not_find() -> None:
    resolver = SystemResolver()
    found = await resolver.resolve("localhost", 8443)
    assert {"127.0.0.1", "::1"} >= {result["host"] for result in found} != set()
    assert {result["port"] for result in found} == {8443}
    for name in ("a..b", "x" * 64 + ".example"):
        with pytest.raises(socket.gaierror):
            await resolver.resolve(name, 443)


async def test_lookups_wait_for_a_free_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups whose callers have given up still hold their threads, and no more than the ceiling run."""

    ceiling, running, most, go_on = 2, 0, 0, threading.Event()
    lock = threading.Lock()

    def slow_lookup(*_: object, **__: object) -> list[object]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(5)
        with lock:
            running -= 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]

    monkeypatch.setattr("loopd.net.dial_guard.DIAL_LOOKUPS_MAX", ceiling)
    monkeypatch.setattr(socket, "getaddrinfo", slow_lookup)
    resolver = SystemResolver()
    waiting = [asyncio.create_task(resolver.resolve("city.example", 443)) for _ in range(6)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    go_on.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(found, list) and found[0]["host"] == "93.184.216.34" for found in answers[1:])
    assert most == ceiling
