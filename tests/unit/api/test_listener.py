"""Connections: how many, for how long, and what happens to those that do not behave."""

import asyncio
from pathlib import Path

import orjson

from tests.unit.api.harness import Harness, serve

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


async def _open(node: Harness) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if node.public.address is None:
        raise RuntimeError("the public plane listens on TCP")
    return await asyncio.open_connection(*node.public.address)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"}"), 5)


async def test_the_next_connection_beyond_the_ceiling_is_told_503(tmp_path: Path) -> None:
    async with serve(tmp_path, max_connections=10) as node:
        held = [await _open(node) for _ in range(10)]
        for reader, writer in held:
            writer.write(GET)
            assert (await _answer(reader)).startswith(b"HTTP/1.1 200 ")
        reader, writer = await _open(node)
        raw = await asyncio.wait_for(reader.read(), 5)
        head, _, body = raw.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5" in head
        assert orjson.loads(body)["error"]["details"]["reason"] == "overloaded"
        writer.close()
        held.pop()[1].close()
        await asyncio.sleep(0.05)
        reader, writer = await _open(node)
        writer.write(GET)
        assert (await _answer(reader)).startswith(b"HTTP/1.1 200 ")
        for _, open_writer in [*held, (reader, writer)]:
            open_writer.close()


async def test_one_client_cannot_take_every_connection(tmp_path: Path) -> None:
    async with serve(tmp_path, max_connections_per_client=2) as node:
        held = [await _open(node) for _ in range(2)]
        reader, writer = await _open(node)
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503 ")
        for _, open_writer in [*held, (reader, writer)]:
            open_writer.close()


async def test_a_trusted_proxy_may_open_many(tmp_path: Path) -> None:
    async with serve(tmp_path, max_connections_per_client=1, trusted_proxies=["127.0.0.1/32"]) as node:
        for _ in range(3):
            reader, writer = await _open(node)
            writer.write(GET)
            assert (await _answer(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_a_head_that_trickles_in_is_cut_off(tmp_path: Path) -> None:
    async with serve(tmp_path, idle_timeout_s=0.2) as node:
        for first in (b"", GET):
            reader, writer = await _open(node)
            writer.write(first)
            if first:
                await _answer(reader)
            started = asyncio.get_running_loop().time()
            for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 200:
                if reader.at_eof() or writer.is_closing():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - started < 1
            writer.close()


async def test_an_answer_left_unread_is_cut_off(tmp_path: Path) -> None:
    async with serve(tmp_path, answer_timeout_s=0.2) as node:
        reader, writer = await _open(node)
        closed = asyncio.create_task(_until_reset(writer))
        await asyncio.wait_for(closed, 10)
        writer.close()
        del reader


async def _until_reset(writer: asyncio.StreamWriter) -> None:
    """Ask and never read, until the server has enough of it."""
    request = b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n" * 50
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        while True:
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(0)
    except ConnectionError:
        return


async def test_pipelined_requests_are_answered_in_order(node: Harness) -> None:
    reader, writer = await _open(node)
    for name in ("one", "two", "three"):
        writer.write(f"GET /api/v1/thing/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for name in ("one", "two", "three"):
        assert f'"{name}"'.encode() in await _answer(reader)
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(node: Harness) -> None:
    for _ in range(5):
        _, writer = await _open(node)
        writer.write(b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n")
        writer.write(b"Content-Type: application/json\r\n\r\n{")
        await asyncio.sleep(0.01)
        writer.transport.abort()
    assert (await node.public.call("GET", "/health")).status == 200
    await asyncio.sleep(0.02)
    assert node.app.running == 0


async def test_the_socket_file_is_replaced_at_start_and_removed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").touch()
    async with serve(tmp_path) as node:
        assert (await node.admin.call("GET", "/health")).status == 200
    assert not (tmp_path / "admin.sock").exists()
