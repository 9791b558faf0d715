"""A WebSocket without a network: what one end sends, the other receives."""

import asyncio
import json
from typing import Any

from aiohttp import WSMessage, WSMsgType


class End:
    """One end of a wire."""

    def __init__(self) -> None:
        self.other: End | None = None
        self.arrived: asyncio.Queue[WSMessage] = asyncio.Queue()
        self.sent: list[str | bytes] = []
        self.closed = False
        # Whether what is sent gets lost on the way.
        self.mute = False

    async def send_str(self, data: str) -> None:
        self._send(WSMsgType.TEXT, data)

    async def send_bytes(self, data: bytes) -> None:
        self._send(WSMsgType.BINARY, data)

    def _send(self, kind: WSMsgType, data: Any) -> None:
        if self.closed or self.other is None or self.other.closed:
            raise ConnectionResetError
        self.sent.append(data)
        if self.mute:
            return
        self.other.arrived.put_nowait(WSMessage(kind, data, None))

    async def receive(self) -> WSMessage:
        return await self.arrived.get()

    async def close(self) -> bool:
        if not self.closed and self.other is not None:
            self.other.arrived.put_nowait(WSMessage(WSMsgType.CLOSE, None, None))
        self.closed = True
        return True

    def batches(self) -> list[bytes]:
        return [data for data in self.sent if isinstance(data, bytes)]

    def texts(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.sent if isinstance(text, str)]


def wire() -> tuple[End, End]:
    one, other = End(), End()
    one.other, other.other = other, one
    return one, other
