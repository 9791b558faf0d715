"""A client of the nodes' HTTP API: TLS 1.3, bearer tokens, and the operator's socket for what only operators see."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import aiohttp

from loopd.demo.nodes import Node, Nodes
from loopd.demo.stage import POLL_S
from loopd.net.unix_path import short_unix_path
from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import dump_json, read_json

REQUEST_TIMEOUT_S: Final = 15.0
# Short, so that it is seen soon when the node has ended and something else holds its port in silence.
HEALTH_TIMEOUT_S: Final = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's status and JSON."""

    status: int
    value: Any


class Client:
    """Talks to the nodes. A node that has ended, or refuses what it was asked, is a DemoFailed with its log."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        context = ssl.create_default_context(cafile=nodes.authority_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, node: Node, path: str) -> Any:
        """The JSON at a path of a node."""
        return (await self._ask(self._session, node, "GET", f"{node.address}{path}")).value

    async def post(
        self, node: Node, path: str, body: Any, token: str | None = None, content_type: str = "application/json"
    ) -> Answer:
        """What a node answers to a document; without a token, to anybody's."""
        headers = {"Content-Type": content_type} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        return await self._ask(self._session, node, "POST", f"{node.address}{path}", dump_json(body), headers)

    async def get_as_operator(self, node: Node, path: str) -> Any:
        """The JSON at a path of a node's admin socket."""
        return (await self._ask_as_operator(node, path)).value

    async def find_as_operator(self, node: Node, path: str) -> Any:
        """The same; None where the node knows no such thing."""
        answer = await self._ask_as_operator(node, path, may_be_absent=True)
        return None if answer.status == 404 else answer.value

    async def _ask_as_operator(self, node: Node, path: str, *, may_be_absent: bool = False) -> Answer:
        with short_unix_path(node.directory / "admin.sock") as socket_path:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
            connector = aiohttp.UnixConnector(socket_path)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                return await self._ask(session, node, "GET", f"http://loopd{path}", may_be_absent=may_be_absent)

    async def until_up(self, node: Node, patience_s: float) -> None:
        """Wait until a node that was just started serves."""

        async def serves() -> bool | None:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(f"{node.address}/health", timeout=timeout) as answer:
                    return answer.status == 200 or None
            return None

        await self.until(node, "is up", serves, patience_s)

    async def until(self, node: Node, what: str, look: Callable[[], Awaitable[T | None]], patience_s: float) -> T:
        """Look again and again until there is something to see. DemoFailed where it does not come in time."""
        deadline_s = time.monotonic() + patience_s
        while True:
            self._nodes.check()
            seen = await look()
            if seen is not None:
                return seen
            if time.monotonic() >= deadline_s:
                raise node.failure(f"{patience_s:g} s passed, and not yet: {node.city.node_id} {what}")
            await asyncio.sleep(POLL_S)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        node: Node,
        method: str,
        url: str,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        may_be_absent: bool = False,
    ) -> Answer:
        asked = f"{method} {url}"
        try:
            async with session.request(method, url, data=data, headers=headers) as answer:
                status, body = answer.status, await answer.read()
            value = read_json(body)
        except (aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            raise await self._nodes.explain(node, f"{node.city.node_id} did not answer {asked}: {why}") from None
        except Refusal as refusal:
            raise node.failure(f"{node.city.node_id} answered {asked} with {status}, not JSON: {refusal}") from None
        if status >= 300 and not (may_be_absent and status == 404):
            raise node.failure(f"{node.city.node_id} answered {asked} with {status}: {body.decode()}")
        return Answer(status, value)
