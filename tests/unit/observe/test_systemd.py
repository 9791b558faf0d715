import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopd.observe.systemd import ServiceManager


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(2)
        yield receiver


def test_each_notification_is_one_datagram(manager_socket: socket.socket) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": manager_socket.getsockname()})
    manager.ready("serving\nREADY=0")
    manager.status("3 peers")
    manager.extend_timeout(30)
    manager.stopping()
    assert [manager_socket.recv(1000) for _ in range(4)] == [
        b"READY=1\nSTATUS=serving READY=0",
        b"STATUS=3 peers",
        b"EXTEND_TIMEOUT_USEC=30000000",
        b"STOPPING=1\nSTATUS=draining",
    ]


def test_abstract_sockets_are_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel chooses an abstract name
        receiver.settimeout(2)
        ServiceManager("@" + receiver.getsockname()[1:].decode()).feed_watchdog()
        assert receiver.recv(100) == b"WATCHDOG=1"


async def test_the_watchdog_is_fed_twice_in_its_interval(manager_socket: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager_socket.getsockname(), "WATCHDOG_USEC": "40000"}
    manager = ServiceManager.from_environment(environment)
    assert manager.watchdog_interval_s == 0.04
    feeding = asyncio.create_task(manager.keep_watchdog_fed())
    for _ in range(3):
        assert await asyncio.to_thread(manager_socket.recv, 100) == b"WATCHDOG=1"
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
async def test_without_a_manager_or_watchdog_nothing_happens(environment: dict[str, str]) -> None:
    manager = ServiceManager.from_environment(environment)
    manager.ready("serving")
    assert manager.watchdog_interval_s is None
    await asyncio.wait_for(manager.keep_watchdog_fed(), 1)
