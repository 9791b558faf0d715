"""A headless Chromium, driven by the Chrome DevTools Protocol over its WebSocket.

Its profile is new and empty, and it speaks to nobody but the page that it is shown.
"""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from tests.nodes import eventually

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 20.0
MESSAGE_MAX_BYTES = 64 * 1024 * 1024


def chromium_program() -> str:
    """The browser's path. FileNotFoundError says what to install where there is none."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise FileNotFoundError(f"no browser: none of {', '.join(PROGRAMS)} is installed (apt-get install chromium)")


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """Start a browser on an empty profile directory; the address of its DevTools WebSocket."""
    command = [chromium_program(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    port_file = profile / "DevToolsActivePort"

    def address() -> str | None:
        assert process.poll() is None, (profile.parent / "chromium.log").read_text(errors="replace")[-2000:]
        lines = port_file.read_text().split() if port_file.exists() else []
        return f"ws://127.0.0.1:{lines[0]}{lines[1]}" if len(lines) == 2 else None

    try:
        yield eventually(address, "the browser listens", START_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()


class Page:
    """One tab. `events` holds everything that the browser told of it, as (method, parameters)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session_id: str | None = None
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._heard = asyncio.Event()

    async def read(self) -> None:
        """Take what the browser sends, until it sends no more."""
        async for message in self._socket:
            value = message.json()
            if "id" in value:
                self._answers.pop(value["id"]).set_result(value)
            else:
                self.events.append((value["method"], value["params"]))
                self._heard.set()

    async def attach(self) -> None:
        """Make the tab, and listen to it."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session_id = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        # The node's certificate is from an authority that only its directory knows.
        await self.call("Security.setIgnoreCertificateErrors", ignore=True)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result. AssertionError where the browser refuses."""
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        request: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session_id is not None:
            request["sessionId"] = self._session_id
        await self._socket.send_json(request)
        value = await asyncio.wait_for(answer, ANSWER_TIMEOUT_S)
        assert "error" not in value, value
        found: dict[str, Any] = value["result"]
        return found

    async def event(self, method: str) -> dict[str, Any]:
        """The first such event, waited for."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                for name, parameters in self.events:
                    if name == method:
                        return parameters
                self._heard.clear()
                await self._heard.wait()

    def all(self, method: str) -> list[dict[str, Any]]:
        """Every such event so far."""
        return [parameters for name, parameters in self.events if name == method]

    async def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded with all that belongs to it."""
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        await self.event("Page.loadEventFired")

    async def look(self, width: int, scheme: str = "light", height: int = 900) -> None:
        """Be a screen of that width in CSS pixels, for somebody who prefers that colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """What a browser's console shows in red or yellow."""
        logged = [entry["entry"] for entry in self.all("Log.entryAdded")]
        return [
            *(f"{entry['source']}: {entry['text']}" for entry in logged if entry["level"] in ("error", "warning")),
            *(str(thrown["exceptionDetails"]["text"]) for thrown in self.all("Runtime.exceptionThrown")),
        ]


@asynccontextmanager
async def tab(address: str) -> AsyncIterator[Page]:
    """A new tab of the browser at that DevTools address."""
    async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=MESSAGE_MAX_BYTES) as socket:
        page = Page(socket)
        reader = asyncio.create_task(page.read())
        try:
            await page.attach()
            yield page
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
