"""Rate limits (§10.4) and whom they count."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.api.client_address import ClientAddresses, client_key
from loopd.api.limits import BoundedStorage, RateLimits
from loopd.api.routes import RateClass
from loopd.api.settings import ApiSettings, parse_listen_address
from loopd.protocol.errors import Refusal
from tests.support import ManualClock
from tests.unit.api.harness import serve

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def _limits(clock: ManualClock, **per_minute: int) -> RateLimits:
    return RateLimits(ApiSettings(**{f"{name}_requests_per_minute": n for name, n in per_minute.items()}), clock)


def _fits(limits: RateLimits, client: str, rate: RateClass = RateClass.USER) -> bool:
    try:
        limits.count_client(rate, client)
    except Refusal:
        return False
    return True


def test_the_hundred_and_first_request_is_refused_and_told_when_to_come_back() -> None:
    clock = ManualClock()
    limits = _limits(clock, user=100)
    assert sum(_fits(limits, "192.0.2.1") for _ in range(150)) == 100
    with pytest.raises(Refusal) as refused:
        limits.count_client(RateClass.USER, "192.0.2.1")
    assert (refused.value.status, refused.value.reason) == (429, "rate_limited")
    wait_s = refused.value.retry_after_s
    assert wait_s is not None
    clock.advance(wait_s * 1000)
    assert _fits(limits, "192.0.2.1")
    assert _fits(limits, "192.0.2.2")


@given(
    limit=st.integers(1, 30),
    steps=st.lists(st.integers(0, 20_000), min_size=1, max_size=120),
)
def test_no_minute_takes_much_more_than_the_limit_and_retry_after_is_true(limit: int, steps: list[int]) -> None:
    clock = ManualClock()
    limits = _limits(clock, user=limit)
    taken: list[int] = []
    for step_ms in steps:
        clock.advance(step_ms)
        try:
            limits.count_client(RateClass.USER, "192.0.2.1")
            taken.append(clock.now_ms())
        except Refusal as refusal:
            clock.advance((refusal.retry_after_s or 0) * 1000)
            limits.count_client(RateClass.USER, "192.0.2.1")
            taken.append(clock.now_ms())
    # Two counters stand for the window, so its middle is an estimate: never twice the limit.
    for start in taken:
        assert sum(start <= moment < start + 60_000 for moment in taken) <= 2 * limit


def test_a_search_is_a_users_request_too() -> None:
    limits = _limits(ManualClock(), user=15, search=10)
    assert sum(_fits(limits, "192.0.2.1", RateClass.SEARCH) for _ in range(12)) == 10
    assert sum(_fits(limits, "192.0.2.1") for _ in range(12)) == 3


def test_zero_counts_nothing() -> None:
    limits = _limits(ManualClock(), user=0)
    assert all(_fits(limits, "192.0.2.1") for _ in range(500))


def test_many_addresses_cost_bounded_memory() -> None:
    storage = BoundedStorage(ManualClock(), max_keys=10)
    for number in range(1000):
        assert storage.acquire_sliding_window_entry(f"client-{number}", 5, 60)
    assert len(storage) == 10


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.2.3.4"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("10.0.0.1", ["198.51.100.7, junk"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("fd00::1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("", ["198.51.100.7"], "local"),
    ],
)
def test_whom_a_request_is_counted_for(peer: str, forwarded: list[str], client: str) -> None:
    assert ClientAddresses(PROXIES).client(peer, forwarded) == client


@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_header_breaks_the_count_or_moves_it_from_elsewhere(forwarded: list[str]) -> None:
    addresses = ClientAddresses(PROXIES)
    assert addresses.client("192.0.2.1", forwarded) == "192.0.2.1"
    assert addresses.client("10.0.0.1", forwarded)


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert client_key("::ffff:192.0.2.1") == client_key("192.0.2.1") == "192.0.2.1"


async def test_the_limits_over_http(tmp_path: Path) -> None:
    async with serve(
        tmp_path,
        user_requests_per_minute=5,
        search_requests_per_minute=2,
        node_requests_per_minute=3,
        trusted_proxies=["127.0.0.0/8"],
    ) as node:

        async def get(path: str, client: str) -> int:
            return (await node.public.call("GET", path, headers={"X-Forwarded-For": client})).status

        assert [await get("/api/v1/thing", "192.0.2.1") for _ in range(6)] == [200] * 5 + [429]
        assert [await get("/nothing", "192.0.2.2") for _ in range(6)] == [404] * 5 + [429]
        assert [await get("/health", "192.0.2.1") for _ in range(6)] == [200] * 6
        refused = await node.public.call("GET", "/api/v1/thing", headers={"X-Forwarded-For": "192.0.2.1"})
        assert refused.reason == "rate_limited"
        assert int(refused.headers["Retry-After"]) >= 1

        async def search(client: str) -> int:
            return (await node.public.call("POST", "/api/v1/thing/search", headers={"X-Forwarded-For": client})).status

        assert [await search("192.0.2.3") for _ in range(3)] == [200, 200, 429]

        async def post(node_id: str | None, client: str) -> int:
            headers = {"Content-Type": "application/json", "X-Forwarded-For": client}
            if node_id is not None:
                headers["X-Node-ID"] = node_id
            reply = await node.public.call("POST", "/api/v1/federate/thing", data=b"{}", headers=headers)
            return reply.status

        assert [await post(None, "192.0.2.4") for _ in range(4)] == [401, 401, 401, 429]
        assert [await post("vienna.loop", f"192.0.2.{n}") for n in range(50, 54)] == [200, 200, 200, 429]
        assert await post("berlin.loop", "192.0.2.54") == 200
        assert (await node.admin.call("GET", "/api/v1/thing")).status == 200


async def test_a_forged_forwarding_header_changes_nothing(tmp_path: Path) -> None:
    async with serve(tmp_path, user_requests_per_minute=3) as node:
        statuses = [
            (await node.public.call("GET", "/api/v1/thing", headers={"X-Forwarded-For": f"192.0.2.{n}"})).status
            for n in range(5)
        ]
        assert statuses == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(("text", "parsed"), [("127.0.0.1:8443", ("127.0.0.1", 8443)), ("[::1]:0", ("::1", 0))])
def test_listen_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen_address(text) == parsed


@pytest.mark.parametrize("text", ["", "8443", "127.0.0.1", "::1:8443", "host:99999", "host:-1", "host:١", ":8443"])
def test_what_is_no_listen_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_listen_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:8444", "192.0.2.1:80", "localhost:80", "socket"])
def test_the_admin_listener_stays_at_home(text: str) -> None:
    with pytest.raises(ValueError):
        ApiSettings(admin_listen=text)
