"""Whatever is sent, the answer is one that the description promises, and never our own failure."""

import asyncio
from pathlib import Path

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopd.api.routes import refusals_of
from tests.unit.api.harness import Harness, serve

PATHS = st.sampled_from(
    ["/api/v1/thing", "/api/v1/thing/search", "/api/v1/thing/x", "/api/v1/thing/x/announce", "/api/v1/federate/thing"]
)
TAILS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
HEADERS = st.lists(
    st.sampled_from(
        [
            b"Content-Type: application/json",
            b"Content-Type: text/html",
            b"Content-Type: ;;;=",
            b"Content-Length: 2",
            b"Content-Length: -1",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Expect: 100-continue",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Authorization: Bearer x",
            b"Authorization: \xff\xfe",
            b"X-Forwarded-For: \xc3\xa4",
            b"X-Request-Id: \x01\x02",
            b"X-Node-ID: vienna.loop",
            b"Idempotency-Key: \xff",
            b"Host: \x00",
        ]
    ),
    max_size=5,
)


async def _send(node: Harness, data: bytes) -> bytes:
    if node.public.address is None:
        raise RuntimeError("the public plane listens on TCP")
    reader, writer = await asyncio.open_connection(*node.public.address)
    try:
        writer.write(data)
        async with asyncio.timeout(2):
            return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def test_no_bytes_make_it_fail(tmp_path: Path) -> None:
    """One server for all examples, so that what one leaves behind would show in the next."""
    with asyncio.Runner() as runner:
        serving = serve(tmp_path, body_timeout_s=0.05, idle_timeout_s=0.5)
        node = runner.run(serving.__aenter__())
        answered: list[bool] = []

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(method=st.sampled_from(["GET", "POST", "HEAD", "DELETE"]), path=PATHS, tail=TAILS, headers=HEADERS)
        def examples(method: str, path: str, tail: str, headers: list[bytes]) -> None:
            head = f"{method} {path}{tail} HTTP/1.1\r\n".encode() + b"\r\n".join([b"Host: a", *headers])
            answer = runner.run(_send(node, head + b"\r\n\r\n{}"))
            assert not answer or answer[9:10] in b"1234", answer
            answered.append(bool(answer))

        try:
            examples()
            assert sum(answered) > len(answered) / 2
            assert runner.run(node.public.call("GET", "/health")).status == 200
        finally:
            runner.run(serving.__aexit__(None, None, None))


async def test_every_refusal_seen_is_one_that_is_described(node: Harness) -> None:
    bearer = await node.bearer("material:write")
    route = next(route for route in node.routes if route.key == "POST /api/v1/thing")
    tried = [
        {"data": b"{}"},
        {"data": b"{}", "headers": {**bearer, "Content-Type": "text/plain"}},
        {"data": b"{}", "headers": {**(await node.bearer("offer:write")), "Content-Type": "application/json"}},
        {"data": b'"taken"', "headers": {**bearer, "Content-Type": "application/json"}},
        {"data": b"{}", "headers": {**bearer, "Content-Type": "application/json", "Idempotency-Key": "a b"}},
        {"data": b"{}", "headers": {**bearer, "Content-Type": "application/json"}, "params": {"x": "1"}},
    ]
    seen = set()
    for options in tried:
        reply = await node.public.call("POST", "/api/v1/thing", **options)
        seen.add((reply.status, orjson.loads(reply.body)["error"]["details"]["reason"]))
    assert len(seen) == len(tried)
    for status, reason in seen:
        assert reason in refusals_of(route)[status]
