"""One link to another node: a WebSocket on which both sides have shown who they are, and frames in batches over it.

Nothing is decided here. The way to a link, on an open WebSocket, in JSON texts of at most `LINK_CHALLENGE_MAX_BYTES`:

    dialler → hello   {"link": "loop-link-v1", "node", "target", "nonce", "frames", "packs", "skips_unknown"}
    called  → hello   the same without "target", with "signature": over both ids and both nonces, in its own role
    dialler → proof   {"signature"}
    called  → ready   {"ready": true}

Instead of any of them: {"refused": REASON}, and the end. Nonces and signatures are as `link_challenge_string` has them;
both sides speak the lower version of frames, and use what both can. Then batches, as binary messages.

At the bounds: a challenge that takes longer than `LINK_OPEN_TIMEOUT_S` is given up; a message beyond
`LINK_BATCH_MAX_BYTES`, bytes that are no batch, and frames beyond the credit end the link; a batch that cannot be
written in `LINK_WRITE_TIMEOUT_S`, or a queue that is full, ends it too, for what waits is in the log; and so does a
peer that says nothing for `LINK_HEARTBEAT_S` and does not answer within half of that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import ClientError, WSMessage, WSMsgType

from loopd.crypto.keys import NodeKey, PublicKey, decode_signature, encode_signature
from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import OWN_DIALECT, Credit, Dialect, Frame, Goodbye, agree, decode_batch
from loopd.gossip.link_queue import ReceiveWindow, SendQueue
from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.limits import (
    LINK_CHALLENGE_MAX_BYTES,
    LINK_CLOSE_TIMEOUT_S,
    LINK_OPEN_TIMEOUT_S,
    LINK_WRITE_TIMEOUT_S,
)
from loopd.protocol.signing import LINK_NONCE_BYTES, LinkRole, link_challenge_string

LINK_PATH: Final = "/federation/link"
_GREETING: Final = "loop-link-v1"
_REASON_MAX_CHARACTERS: Final = 64


class Socket(Protocol):
    """A WebSocket, dialled or taken."""

    async def send_str(self, data: str) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...

    async def receive(self) -> WSMessage: ...

    async def close(self) -> bool: ...


class LinkRefused(Exception):
    """The link does not come about: `reason` is the machine's word; `by_peer` says which side refused."""

    def __init__(self, reason: str, *, by_peer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.by_peer = by_peer


class LinkEnded(Exception):
    """The link is over; `reason` is the machine's word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Hello:
    node: str
    target: str | None
    nonce: bytes
    dialect: Dialect
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class Challenger:
    """This node in a challenge. `key` is asked for each time, for it may be rotated; `nonce` gives random bytes."""

    node_id: str
    key: Callable[[], NodeKey]
    nonce: Callable[[int], bytes]

    async def as_initiator(self, socket: Socket, peer: str, peer_key: PublicKey) -> Dialect:
        """Show who this node is on a WebSocket that it dialled, and see that the other is the peer. LinkRefused."""
        nonce = self.nonce(LINK_NONCE_BYTES)
        async with _in_time():
            await _say(socket, {**self._hello(nonce), "target": peer})
            theirs = _read_hello(await _hear(socket))
            if theirs.node != peer:
                await refuse(socket, "another_node")
            await self._check(socket, LinkRole.RESPONDER, theirs, peer_key, (self.node_id, peer, nonce, theirs.nonce))
            signed = link_challenge_string(LinkRole.INITIATOR, self.node_id, peer, nonce, theirs.nonce)
            await _say(socket, {"signature": encode_signature(self.key().sign(signed))})
            if (await _hear(socket)).get("ready") is not True:
                await refuse(socket, "bad_challenge")
        return agree(OWN_DIALECT, theirs.dialect)

    async def as_responder(self, socket: Socket, key_of: Callable[[str], PublicKey]) -> tuple[str, Dialect]:
        """See who dialled, and show who this node is. The peer's id. LinkRefused.

        `key_of` gives the key of a node that may have a link, and raises LinkRefused for any other.
        """
        nonce = self.nonce(LINK_NONCE_BYTES)
        async with _in_time():
            theirs = _read_hello(await _hear(socket))
            try:
                if theirs.target != self.node_id:
                    raise LinkRefused("wrong_target")
                key = key_of(theirs.node)
            except LinkRefused as refusal:
                await refuse(socket, refusal.reason)
                raise
            signed = link_challenge_string(LinkRole.RESPONDER, theirs.node, self.node_id, theirs.nonce, nonce)
            await _say(socket, {**self._hello(nonce), "signature": encode_signature(self.key().sign(signed))})
            proof = _Hello(theirs.node, None, theirs.nonce, theirs.dialect, _signature(await _hear(socket)))
            await self._check(socket, LinkRole.INITIATOR, proof, key, (theirs.node, self.node_id, theirs.nonce, nonce))
            await _say(socket, {"ready": True})
        return theirs.node, agree(OWN_DIALECT, theirs.dialect)

    def _hello(self, nonce: bytes) -> dict[str, Any]:
        return {
            "link": _GREETING,
            "node": self.node_id,
            "nonce": nonce.hex(),
            "frames": OWN_DIALECT.version,
            "packs": OWN_DIALECT.packs,
            "skips_unknown": OWN_DIALECT.skips_unknown,
        }

    @staticmethod
    async def _check(
        socket: Socket, role: LinkRole, shown: _Hello, key: PublicKey, parties: tuple[str, str, bytes, bytes]
    ) -> None:
        if shown.signature is None or not key.verify(link_challenge_string(role, *parties), shown.signature):
            await refuse(socket, "bad_signature")


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """The time for a challenge; LinkRefused where it is over."""
    try:
        async with asyncio.timeout(LINK_OPEN_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise LinkRefused("challenge_too_slow") from error


async def refuse(socket: Socket, reason: str) -> None:
    """Say why there will be no link, and raise LinkRefused."""
    with suppress(ClientError, OSError, LinkRefused):
        await _say(socket, {"refused": reason})
    raise LinkRefused(reason)


async def _say(socket: Socket, message: Mapping[str, Any]) -> None:
    try:
        await socket.send_str(dump_json(message).decode())
    except (ClientError, OSError) as error:
        raise LinkRefused("connection_lost") from error


async def _hear(socket: Socket) -> dict[str, Any]:
    message = await socket.receive()
    if message.type is not WSMsgType.TEXT:
        raise LinkRefused("connection_lost" if message.type is not WSMsgType.BINARY else "bad_challenge")
    text: str = message.data
    try:
        value = read_json(text.encode()) if len(text) <= LINK_CHALLENGE_MAX_BYTES else None
    except (Refusal, UnicodeError):
        value = None
    if not isinstance(value, dict):
        raise LinkRefused("bad_challenge")
    refused = value.get("refused")
    if refused is not None:
        word = refused if isinstance(refused, str) and refused.isprintable() else ""
        raise LinkRefused(word[:_REASON_MAX_CHARACTERS] or "refused", by_peer=True)
    return value


def _read_hello(value: Mapping[str, Any]) -> _Hello:
    node, target, nonce, version = (value.get(name) for name in ("node", "target", "nonce", "frames"))
    if value.get("link") != _GREETING or not isinstance(node, str) or "\n" in node:
        raise LinkRefused("bad_challenge")
    if type(version) is not int or version < 1 or not isinstance(nonce, str):
        raise LinkRefused("bad_challenge")
    try:
        raw_nonce = bytes.fromhex(nonce)
    except ValueError as error:
        raise LinkRefused("bad_challenge") from error
    if len(raw_nonce) != LINK_NONCE_BYTES:
        raise LinkRefused("bad_challenge")
    dialect = Dialect(version, value.get("packs") is True, value.get("skips_unknown") is True)
    return _Hello(node, target if isinstance(target, str) else None, raw_nonce, dialect, _signature(value))


def _signature(value: Mapping[str, Any]) -> bytes | None:
    text = value.get("signature")
    try:
        return decode_signature(text) if isinstance(text, str) else None
    except ValueError:
        return None


class Link:
    """An open link. One task reads with `receive`, one runs `write`; `send` and `end` come from anywhere.

    `dialled`: this node is the one that dialled. `violated`: the peer sent what no honest implementation sends.
    """

    def __init__(self, socket: Socket, peer: str, dialect: Dialect, *, dialled: bool) -> None:
        self.peer = peer
        self.dialled = dialled
        self.end_reason: str | None = None
        self.violated = False
        self._socket = socket
        self._dialect = dialect
        self._queue = SendQueue(dialect)
        self._window = ReceiveWindow()
        self._something_to_send = asyncio.Event()
        self.send([self._window.opening()])

    def __repr__(self) -> str:
        return f"Link({self.peer}, {self.end_reason or 'open'})"

    @property
    def is_open(self) -> bool:
        """Whether it has not begun to end."""
        return self.end_reason is None

    @property
    def waiting(self) -> int:
        """Frames that wait to be sent."""
        return self._queue.waiting

    def send(self, frames: Iterable[Frame]) -> None:
        """Queue frames. Where they do not fit the link ends; on one that has ended nothing happens."""
        if not self.is_open:
            return
        for frame in frames:
            if not self._queue.put(frame):
                self.end("too_slow")
                return
        self._something_to_send.set()

    def end(self, reason: str) -> None:
        """Begin to end the link. Whoever reads or writes is told with LinkEnded."""
        if self.is_open:
            self.end_reason = reason
            self._something_to_send.set()

    def finished(self, frames: Iterable[Frame]) -> None:
        """Frames that were received are dealt with: there is room for more."""
        grants = (self._window.finished(frame) for frame in frames)
        self.send([grant for grant in grants if grant is not None])

    async def receive(self) -> list[Frame]:
        """The next frames, those of the link's own upkeep left out. LinkEnded."""
        message = await self._socket.receive()
        if message.type is not WSMsgType.BINARY:
            raise self._ended("bad_message" if message.type is WSMsgType.TEXT else "connection_lost")
        try:
            return self._sort(decode_batch(message.data, self._dialect))
        except ProtocolError as error:
            raise self.violation(error) from error

    def violation(self, error: ProtocolError) -> LinkEnded:
        """End the link for what the peer sent."""
        self.violated = self.violated or self.is_open
        return self._ended(error.reason)

    def _sort(self, received: list[Frame]) -> list[Frame]:
        frames: list[Frame] = []
        for frame in received:
            self._window.arrived(frame)
            match frame:
                case Credit():
                    self._queue.granted(frame)
                    self._something_to_send.set()
                case Goodbye():
                    raise self._ended(frame.reason)
                case _:
                    frames.append(frame)
        return frames

    async def write(self) -> None:
        """Send what is queued, until the link ends; then say farewell and close. Raises LinkEnded at the end."""
        try:
            while self.is_open:
                batch = self._queue.next_batch()
                if batch is None:
                    self._something_to_send.clear()
                    await self._something_to_send.wait()
                    continue
                async with asyncio.timeout(LINK_WRITE_TIMEOUT_S):
                    await self._socket.send_bytes(batch)
        except TimeoutError:
            raise self._ended("too_slow") from None
        except (ClientError, OSError) as error:
            raise self._ended("connection_lost") from error
        raise LinkEnded(self.end_reason or "closed")

    async def close(self) -> None:
        """Say farewell, as far as that goes, and close."""
        reason = (self.end_reason or "closed")[:_REASON_MAX_CHARACTERS]
        self.end(reason)
        farewell = SendQueue(self._dialect)
        farewell.put(Goodbye(reason))
        batch = farewell.next_batch()
        with suppress(ClientError, OSError, TimeoutError):
            async with asyncio.timeout(LINK_CLOSE_TIMEOUT_S):
                if batch is not None:
                    await self._socket.send_bytes(batch)
                await self._socket.close()

    def _ended(self, reason: str) -> LinkEnded:
        self.end(reason)
        return LinkEnded(self.end_reason or reason)
