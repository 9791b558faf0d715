"""The way of a request through the door: envelope, ids, paths, methods, bodies."""

import asyncio
from io import BytesIO
from pathlib import Path

import orjson
import pytest

from tests.unit.api.harness import Harness, serve

LD = {"Content-Type": "application/ld+json"}


async def test_an_entity_is_json_ld_and_carries_the_usual_headers(node: Harness) -> None:
    reply = await node.public.call("GET", "/api/v1/thing/MAT-1")
    assert reply.status == 200
    assert reply.json()["name"] == "MAT-1"
    assert reply.headers["Content-Type"] == "application/ld+json"
    assert reply.headers["Server"] == "loopd"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert len(reply.headers["X-Request-Id"]) == 16


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abcdef-123.X_y", True), ("short", False), ("a" * 65, False), ("with space", False), ("<script>x", False)],
)
async def test_a_request_id_is_kept_where_it_is_harmless(node: Harness, given: str, kept: bool) -> None:
    reply = await node.public.call("GET", "/health", headers={"X-Request-Id": given})
    assert (reply.headers["X-Request-Id"] == given) is kept


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/", 404, "unknown_path"),
        ("GET", "/api/v1/nothing", 404, "unknown_path"),
        ("GET", "/api/v1/thing/", 404, "unknown_path"),
        ("GET", "//api/v1/thing", 404, "unknown_path"),
        ("GET", "/api/v1/../v1/thing/%2e%2e/x", 404, "unknown_path"),
        ("GET", "/api/v1/thing/search", 405, "method_not_allowed"),
        ("PUT", "/api/v1/thing/1", 405, "method_not_allowed"),
        ("PATCH", "/api/v1/thing", 405, "method_not_allowed"),
        ("GET", "/admin/v1/tokens", 404, "unknown_path"),
        ("GET", "/metrics", 404, "unknown_path"),
        ("GET", "/api/v1/thing/a%00b", 404, "not_found"),
        ("GET", "/api/v1/thing/a%2Fb", 404, "not_found"),
        ("GET", "/api/v1/thing/a%0ab", 404, "not_found"),
        ("GET", "/api/v1/thing/%ff%fe", 404, "not_found"),
        ("GET", "/api/v1/thing/" + "A" * 301, 404, "not_found"),
        ("GET", "/api/v1/thing?x=1", 400, "unknown_parameter"),
        ("GET", "/api/v1/thing/1?x", 400, "unknown_parameter"),
        ("GET", "/api/v1/thing?limit=0", 400, "bad_limit"),
        ("GET", "/api/v1/thing?limit=101", 400, "bad_limit"),
        ("GET", "/api/v1/thing?limit=", 400, "bad_limit"),
        ("GET", "/api/v1/thing?limit=1e1", 400, "bad_limit"),
        ("GET", "/api/v1/thing?limit=%D9%A1", 400, "bad_limit"),
        ("GET", "/api/v1/thing?limit=" + "1" * 30, 400, "bad_limit"),
        ("GET", "/api/v1/thing?limit=1&limit=2", 400, "repeated_parameter"),
        ("GET", "/api/v1/thing?kind=medium", 400, "bad_parameter"),
        ("GET", "/api/v1/thing?kind=%00", 400, "bad_query"),
        ("GET", "/api/v1/thing?" + "&".join("limit=1" for _ in range(21)), 400, "bad_query"),
        ("GET", "/api/v1/broken", 500, "internal_error"),
        ("GET", "/api/v1/later", 503, "storage"),
    ],
)
async def test_every_refusal_has_the_envelope(node: Harness, method: str, path: str, status: int, reason: str) -> None:
    raw = await node.public.raw(f"{method} {path} HTTP/1.1\r\nHost: munich\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    error = orjson.loads(body)["error"]
    assert error["details"]["reason"] == reason
    assert set(error) == {"code", "message", "details"}
    assert b"application/json" in head
    assert b"X-Request-ID" in head or b"X-Request-Id" in head


async def test_a_bug_tells_nothing(node: Harness) -> None:
    reply = await node.public.call("GET", "/api/v1/broken")
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert b"ValueError" not in reply.body


async def test_retry_after_comes_with_a_503(node: Harness) -> None:
    assert (await node.public.call("GET", "/api/v1/later")).headers["Retry-After"] == "7"


async def test_a_query_is_typed_and_has_defaults(node: Harness) -> None:
    assert (await node.public.call("GET", "/api/v1/thing")).json() == {"limit": 20, "kind": None}
    assert (await node.public.call("GET", "/api/v1/thing?kind=big&limit=100")).json() == {"limit": 100, "kind": "big"}


async def test_method_not_allowed_names_what_is(node: Harness) -> None:
    reply = await node.public.call("DELETE", "/api/v1/thing")
    assert reply.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_options_and_head(node: Harness) -> None:
    options = await node.public.call("OPTIONS", "/api/v1/thing")
    assert (options.status, options.body, options.headers["Allow"]) == (204, b"", "GET, HEAD, OPTIONS, POST")
    head = await node.public.call("HEAD", "/api/v1/thing")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0


async def test_an_absolute_target_is_understood(node: Harness) -> None:
    raw = await node.public.raw(b"GET http://munich/api/v1/thing/7 HTTP/1.1\r\nHost: munich\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(100)) + b"\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ],
)
async def test_malformed_http_gets_the_envelope_too(node: Harness, data: bytes) -> None:
    raw = await node.public.raw(data)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.0 400 "))
    assert orjson.loads(body)["error"]["details"]["reason"] in {"bad_http", "unknown_path"}
    assert b"aiohttp" not in raw
    assert (await node.public.call("GET", "/health")).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 201),
        ({"Content-Type": "application/ld+json; charset=UTF-8"}, 201),
        ({"Content-Type": 'APPLICATION/JSON;profile="x";charset="utf-8"'}, 201),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/jsonp"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
async def test_only_json_in_utf8_is_read(node: Harness, headers: dict[str, str], status: int) -> None:
    bearer = await node.bearer("material:write")
    reply = await node.public.call("POST", "/api/v1/thing", data=b'{"name":"x"}', headers={**bearer, **headers})
    assert reply.status == status


async def test_a_missing_body_is_a_missing_content_type_or_empty(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    reply = await node.public.call("POST", "/api/v1/thing", headers=bearer, skip_auto_headers=["Content-Type"])
    assert reply.status == 415


async def test_a_document_of_exactly_one_mebibyte_is_read(node: Harness) -> None:
    size = 1024 * 1024
    for data, status in ((b" " * size, 200), (b" " * (size + 1), 413)):
        reply = await node.public.call("POST", "/api/v1/thing/search", data=BytesIO(data), headers=LD)
        assert reply.status == status


async def test_a_chunked_body_is_cut_off_at_the_ceiling(node: Harness) -> None:
    async def endless() -> object:
        for _ in range(64):
            yield b" " * 65_536

    reply = await node.public.call("POST", "/api/v1/thing/search", data=endless(), headers=LD)
    assert (reply.status, reply.reason) == (413, "payload_too_large")


async def test_a_declared_length_beyond_the_ceiling_is_refused_unread(node: Harness) -> None:
    head = b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n"
    raw = await node.public.raw(head + b"Content-Type: application/json\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 413 ")


async def test_broken_chunks_are_a_bad_body(node: Harness) -> None:
    head = b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    raw = await node.public.raw(head + b"Content-Type: application/json\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n")
    assert raw.split(b" ")[1] == b"400"
    assert b'"reason":"bad_' in raw


async def test_a_slow_body_is_timed_out(tmp_path: Path) -> None:
    async with serve(tmp_path, body_timeout_s=0.1) as node:
        head = b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
        raw = await node.public.raw(head + b"Content-Type: application/json\r\n\r\n{")
        assert raw.startswith(b"HTTP/1.1 408 ")
        assert b"body_too_slow" in raw


async def test_a_body_where_none_is_read(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    for data, status in ((b"", 200), (b"{}", 200), (b'{"a":1}', 400)):
        reply = await node.public.call("POST", "/api/v1/thing/1/announce", data=data, headers={**bearer, **LD})
        assert reply.status == status


async def test_expectations(node: Harness) -> None:
    head = b"POST /api/v1/thing/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    assert (await node.public.raw(head + b"Expect: 100-continue\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
    assert (await node.public.raw(head + b"Expect: tea\r\n\r\n{}")).startswith(b"HTTP/1.1 417 ")


async def test_too_many_requests_at_once(tmp_path: Path) -> None:
    async with serve(tmp_path, max_concurrent_requests=1) as node:
        slow = asyncio.create_task(node.public.call("GET", "/api/v1/slow"))
        await node.things.entered.wait()
        refused = await node.public.call("GET", "/api/v1/thing")
        assert (refused.status, refused.reason) == (503, "overloaded")
        assert (await node.public.call("GET", "/health")).status == 200
        node.things.release.set()
        assert (await slow).status == 200
        assert (await node.public.call("GET", "/api/v1/thing")).status == 200


async def test_draining_refuses_new_requests_and_finishes_running_ones(node: Harness) -> None:
    await node.public.call("GET", "/health")
    slow = asyncio.create_task(node.public.call("GET", "/api/v1/slow"))
    await node.things.entered.wait()
    node.app.drain()
    for path in ("/health", "/api/v1/thing"):
        refused = await node.public.call("GET", path)
        assert (refused.status, refused.reason) == (503, "draining")
        assert refused.headers["Connection"] == "close"
    closing = asyncio.create_task(node.app.close(5))
    await asyncio.sleep(0.02)
    node.things.release.set()
    assert (await slow).status == 200
    await asyncio.wait_for(closing, 2)
