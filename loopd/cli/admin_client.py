"""Talks to the running daemon over its admin socket, or its loopback admin address."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import aiohttp

from loopd.cli.failure import Failure
from loopd.cli.output import json_bytes
from loopd.clock import SystemClock
from loopd.database import Database
from loopd.directory import DirectoryLocked, NodeDirectory
from loopd.net.unix_path import short_unix_path
from loopd.settings import Settings, load_settings

TOKEN_VARIABLE = "LOOPD_ADMIN_TOKEN"  # noqa: S105 - a name
# A daemon that holds the lock but does not answer yet is starting, or ending.
START_PATIENCE_S = 10.0
RETRY_S = 0.1
ANSWER_TIMEOUT_S = 60.0
# An answer that goes on gives a sign of life far more often.
_UNENDING = aiohttp.ClientTimeout(total=None, sock_read=ANSWER_TIMEOUT_S)

T = TypeVar("T")


class NotRunning(Failure):
    """No daemon answers for this directory."""


class AdminRefused(Failure):
    """The daemon said no. `reason` is its machine's word, `details` what it gave beside (§8.3)."""

    def __init__(self, status: int, message: str, details: dict[str, Any]) -> None:
        self.status = status
        self.reason = details.get("reason", "")
        self.details = details
        super().__init__(message)


class AdminClient:
    """One session with the daemon."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, place: str) -> None:
        self._session = session
        self._base_url = base_url
        self._place = place

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: NodeDirectory, settings: Settings) -> AsyncIterator["AdminClient"]:
        """A client for the daemon of this directory; nothing is sent before the first request."""
        with ExitStack() as stack:
            headers = {}
            connector: aiohttp.BaseConnector
            if settings.api.admin_listen == "unix":
                if not directory.root.is_dir():
                    raise NotRunning(f"there is no directory {directory.root}")
                connector = aiohttp.UnixConnector(stack.enter_context(short_unix_path(directory.admin_socket)))
                base_url, place = "http://loopd", str(directory.admin_socket)
            else:
                connector = aiohttp.TCPConnector()
                base_url, place = f"http://{settings.api.admin_listen}", settings.api.admin_listen
                if token := os.environ.get(TOKEN_VARIABLE):
                    headers["Authorization"] = f"Bearer {token}"
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
            async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
                yield cls(session, base_url, place)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        document: bytes | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> Any:
        """The answer's JSON, None where it has no body. `document` is sent byte for byte, `body` as JSON.

        AdminRefused for any status of 400 or more, NotRunning where nobody listens.
        """
        data, headers = document, {"Content-Type": "application/ld+json"}
        if document is None:
            data, headers = (None, {}) if body is None else (json_bytes(body), {"Content-Type": "application/json"})
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                return _read(answer.status, await answer.read())
        except aiohttp.ClientConnectorError as error:
            raise NotRunning(f"no daemon answers at {self._place}: {_why(error)}") from None
        except TimeoutError:
            raise Failure(f"the daemon gave no answer within {timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            raise Failure(f"the daemon broke off: {error}") from None

    async def lines(self, path: str) -> AsyncIterator[str]:
        """The lines of an answer that goes on, as they come, without their ends. Refusals and failures as above."""
        try:
            async with self._session.get(self._base_url + path, timeout=_UNENDING) as answer:
                if answer.status >= 400:
                    _read(answer.status, await answer.read())
                async for line in answer.content:
                    yield line.decode().removesuffix("\n")
        except aiohttp.ClientConnectorError as error:
            raise NotRunning(f"no daemon answers at {self._place}: {_why(error)}") from None
        except TimeoutError:
            raise Failure(f"the daemon was silent for {ANSWER_TIMEOUT_S:g} s") from None
        except aiohttp.ClientError as error:
            raise Failure(f"the daemon broke off: {error}") from None


def _why(error: aiohttp.ClientConnectorError) -> str:
    return (error.os_error.strerror or "no connection").lower()


def _read(status: int, body: bytes) -> Any:
    try:
        value = json.loads(body, parse_float=Decimal) if body else None
    except ValueError:
        raise Failure(f"the daemon's answer ({status}) is not JSON") from None
    if status < 400:
        return value
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        raise Failure(f"the daemon answered {status}")
    details = error.get("details")
    hint = (
        f"\n  set {TOKEN_VARIABLE}; `loopd token create`, with the daemon stopped, makes one" if status == 401 else ""
    )
    raise AdminRefused(status, _explained(error) + hint, details if isinstance(details, dict) else {})


def _explained(error: dict[str, Any]) -> str:
    """The refusal's sentence with its reason, and below it the place, or each of them, that is wrong."""
    given = error.get("details")
    details: dict[str, Any] = given if isinstance(given, dict) else {}
    sentence = error.get("message", "the daemon refused")
    lines = [f"{sentence} [{details['reason']}]" if details.get("reason") else str(sentence)]
    errors, pointer = details.get("errors"), details.get("pointer")
    if isinstance(pointer, str) and pointer and not errors:
        lines.append(f"  {pointer}")
    for entry in errors if isinstance(errors, list) else []:
        if isinstance(entry, dict):
            told = f"{entry.get('pointer') or '/'}: {entry.get('message') or entry.get('rule') or 'wrong'}"
            if told != sentence:
                lines.append(f"  {told}")
    return "\n".join(lines)


def call(
    directory: NodeDirectory,
    method: str,
    path: str,
    body: Any = None,
    *,
    document: bytes | None = None,
    timeout_s: float | None = ANSWER_TIMEOUT_S,
) -> Any:
    """One request to the running daemon; waits for one that is just starting. NotRunning where there is none."""
    settings = load_settings(directory.root)

    async def ask() -> Any:
        deadline = time.monotonic() + START_PATIENCE_S
        async with AdminClient.open(directory, settings) as client:
            while True:
                try:
                    return await client.request(method, path, body, document=document, timeout_s=timeout_s)
                except NotRunning as error:
                    if not directory.in_use():
                        raise NotRunning(f"{error.message} (loopd run {directory.root} starts it)") from None
                    if time.monotonic() >= deadline:
                        raise
                await asyncio.sleep(RETRY_S)

    return asyncio.run(ask())


def with_daemon_or_alone(
    directory: NodeDirectory,
    running: Callable[[AdminClient], Coroutine[Any, Any, T]],
    stopped: Callable[[Settings], Coroutine[Any, Any, T]],
) -> T:
    """Carry out `running` with the daemon if it runs, else `stopped` with the directory locked against its start."""
    settings = load_settings(directory.root)

    async def attempt() -> T:
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                with directory.lock(patience_s=0):
                    return await stopped(settings)
            except DirectoryLocked:
                pass  # the daemon, or another command that will be done soon
            try:
                async with AdminClient.open(directory, settings) as client:
                    return await running(client)
            except NotRunning:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    return asyncio.run(attempt())


@asynccontextmanager
async def stopped_database(directory: NodeDirectory, settings: Settings) -> AsyncIterator[Database]:
    """The node's database, opened by a command that holds the directory's lock."""
    database = await Database.open(directory.database_file, settings.database, SystemClock())
    try:
        yield database
    finally:
        await database.close()
