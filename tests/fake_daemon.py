"""A daemon that only remembers what it was asked."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from loopd.directory import NodeDirectory
from loopd.net.unix_path import short_unix_path


@dataclass
class FakeDaemon:
    """Holds the directory's lock and answers on the admin socket with what a test put into `answers`."""

    directory: NodeDirectory
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    content_types: list[str] = field(default_factory=list)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.method, request.raw_path, json.loads(body) if body else None))
        self.content_types.append(request.content_type)
        status, value = self.answers.get(f"{request.method} {request.path}", (200, {}))
        text = value if isinstance(value, str) else json.dumps(value)
        return web.Response(status=status, text="" if status == 204 else text)

    async def _serve(self, serving: threading.Event, ending: asyncio.Event) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        with self.directory.lock(), short_unix_path(self.directory.admin_socket) as path:
            await web.UnixSite(runner, path).start()
            serving.set()
            await ending.wait()
            await runner.cleanup()

    def run(self) -> Iterator["FakeDaemon"]:
        loop, serving, ending = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._serve(serving, ending),))
        thread.start()
        try:
            if not serving.wait(5):
                raise RuntimeError("the fake daemon did not start")
            yield self
        finally:
            loop.call_soon_threadsafe(ending.set)
            thread.join(5)
            loop.close()
