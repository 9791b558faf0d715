"""Tells the service manager how the daemon does: sd_notify(3), without its library."""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

# A watchdog is fed twice in its interval, as sd_watchdog_enabled(3) advises.
WATCHDOG_FEEDS_PER_INTERVAL = 2


class ServiceManager:
    """The service manager's notification socket; every call does nothing where there is none.

    Notifications are advice: one that cannot be delivered is dropped, the daemon goes on.
    """

    def __init__(self, address: str | None, watchdog_interval_s: float | None = None) -> None:
        self._address = address
        self.watchdog_interval_s = watchdog_interval_s if address else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ServiceManager":
        """From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` as systemd sets them."""
        environment = os.environ if environment is None else environment
        interval = environment.get("WATCHDOG_USEC", "")
        meant_for = environment.get("WATCHDOG_PID", str(os.getpid()))
        watched = interval.isascii() and interval.isdigit() and int(interval) > 0 and meant_for == str(os.getpid())
        return cls(environment.get("NOTIFY_SOCKET") or None, int(interval) / 1_000_000 if watched else None)

    def ready(self, status: str) -> None:
        """The daemon serves."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def stopping(self, status: str = "draining") -> None:
        """The daemon takes no new work and will end."""
        self._send(f"STOPPING=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_one_line(text)}")

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping goes on and needs at least that much longer: a migration must not be killed half-way."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def feed_watchdog(self) -> None:
        """The daemon is alive."""
        self._send("WATCHDOG=1")

    async def keep_watchdog_fed(self) -> None:
        """Feed the watchdog, if there is one, from the event loop until cancelled: a loop that hangs is noticed."""
        if self.watchdog_interval_s is None:
            return
        while True:
            self.feed_watchdog()
            await asyncio.sleep(self.watchdog_interval_s / WATCHDOG_FEEDS_PER_INTERVAL)

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        # A leading @ stands for the NUL of Linux' abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.connect(address)
            channel.send(message.encode())


def _one_line(text: str) -> str:
    return " ".join(text.split())
