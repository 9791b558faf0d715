"""A client of a real node's stream that goes on after every break, as a browser does."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from tests.events_api import Block, parse_block
from tests.nodes import RunningNode, eventually

PATIENCE_S = 0.05


class StreamClient:
    """Follows a node in a thread. `events` are all that came, in order; `words` the stream's own, by name."""

    def __init__(self, node: RunningNode, query: str = "", break_after: Callable[[int], bool] = lambda count: False):
        self.events: list[Any] = []
        self.words: list[tuple[str, Any]] = []
        self.connections = 0
        self.last_id: int | None = None
        self._node = node
        self._query = query
        self._break_after = break_after
        self._ending = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def following(self) -> Iterator["StreamClient"]:
        """Follow until the end of the block."""
        self._thread.start()
        try:
            eventually(lambda: self.last_id is not None, "the stream began")
            yield self
        finally:
            self._ending.set()
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(30)

    def subjects(self, kind: str = "material.registered") -> list[str]:
        """The subjects of all events of a kind."""
        return [event["subject"] for event in list(self.events) if event["kind"] == kind]

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._follow()
            except (OSError, http.client.HTTPException):
                time.sleep(PATIENCE_S)

    def _follow(self) -> None:
        headers = {} if self.last_id is None else {"Last-Event-ID": str(self.last_id)}
        with closing(self._node.connection()) as connection:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", f"/api/v1/stream{self._query}", headers=headers)
            # A response that ends its connection takes the socket with it, and is to be closed itself.
            with closing(connection.getresponse()) as response:
                if response.status == 503:  # the node is stopping
                    raise ConnectionRefusedError
                assert response.status == 200, response.read()
                self.connections += 1
                for block in self._blocks(response):
                    self._take(block)
                    if block.name == "message" and block.data and self._break_after(len(self.events)):
                        return

    def _blocks(self, response: http.client.HTTPResponse) -> Iterator[Block]:
        lines: list[str] = []
        while line := response.readline():
            text = line.decode().removesuffix("\n")
            if text:
                lines.append(text)
            else:
                yield parse_block(lines)
                lines = []

    def _take(self, block: Block) -> None:
        if block.data is not None:
            if block.name == "message":
                self.events.append(json.loads(json.dumps(block.data)))
            else:
                self.words.append((block.name, block.data))
        if block.id is not None:
            self.last_id = block.id
