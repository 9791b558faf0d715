"""Tokens, scopes, node signatures, and the three planes."""

import re
from pathlib import Path

import orjson
import pytest

from loopd.api.tokens import TOKEN_PREFIX, TokenStore
from loopd.database.writer import Tx
from loopd.protocol.errors import Conflict, Invalid, NotFound, Unauthorized
from loopd.protocol.limits import TOKENS_MAX
from tests.unit.api.harness import Harness, serve

THING = b'{"name":"grain"}'
JSON = {"Content-Type": "application/json"}


async def _make(node: Harness, headers: dict[str, str]) -> tuple[int, str, str | None]:
    reply = await node.public.call("POST", "/api/v1/thing", data=THING, headers={**JSON, **headers})
    reason = reply.reason if reply.status >= 400 else ""
    return reply.status, reason, reply.headers.get("WWW-Authenticate")


async def test_a_write_takes_a_token_with_its_scope(node: Harness) -> None:
    for scopes in (("material:write",), ("admin",), ("offer:write", "material:write")):
        assert (await _make(node, await node.bearer(*scopes)))[0] == 201
    assert await _make(node, await node.bearer("offer:write")) == (403, "insufficient_scope", None)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "missing_token"),
        ("", "bad_token"),
        ("Bearer", "bad_token"),
        ("Basic dXNlcjpwYXNz", "bad_token"),
        ("Bearer loopd_short", "bad_token"),
        ("Bearer loopd_" + "A" * 43, "bad_token"),
        ("Bearer " + "ä" * 49, "bad_token"),
        ("Bearer " + "A" * 5000, "bad_token"),
    ],
)
async def test_what_is_no_token_is_401(node: Harness, header: str | None, reason: str) -> None:
    status, found, challenge = await _make(node, {} if header is None else {"Authorization": header})
    assert (status, found) == (401, reason)
    assert challenge is not None
    assert challenge.startswith("Bearer ")


async def test_the_scheme_is_case_insensitive_and_the_header_single(node: Harness) -> None:
    token = await node.token("admin")
    assert (await _make(node, {"Authorization": f"bEARER {token}"}))[0] == 201
    head = b"GET /api/v1/thing HTTP/1.1\r\nHost: a\r\n"
    twice = head + f"Authorization: Bearer {token}\r\n".encode() * 2 + b"\r\n"
    assert b"bad_token" in await node.admin_tcp.raw(twice)


async def test_a_token_expires_at_its_millisecond_and_says_so(node: Harness) -> None:
    bearer = {"Authorization": f"Bearer {await node.token('admin', ttl_s=60)}"}
    node.clock.advance(59_999)
    assert (await _make(node, bearer))[0] == 201
    node.clock.advance(1)
    assert (await _make(node, bearer))[1] == "expired_token"


async def test_a_refused_request_has_no_effect_and_its_body_is_not_read(node: Harness) -> None:
    await _make(node, {})
    assert node.things.effects == 0
    head = b"POST /api/v1/thing HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    assert (await node.public.raw(head)).startswith(b"HTTP/1.1 401 ")


async def test_the_operators_socket_needs_no_token_and_is_private(node: Harness, tmp_path: Path) -> None:
    reply = await node.admin.call("POST", "/api/v1/thing", data=THING, headers=JSON)
    assert reply.status == 201
    shown = await node.admin.call("POST", "/api/v1/thing/1/announce")
    assert shown.json()["by"] == "operator"
    assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600


async def test_a_loopback_admin_address_needs_an_admin_token_for_everything(node: Harness) -> None:
    for path in ("/health", "/docs", "/metrics", "/api/v1/thing", "/admin/v1/tokens"):
        assert (await node.admin_tcp.call("GET", path)).status == 401
        lesser = await node.bearer("material:write")
        assert (await node.admin_tcp.call("GET", path, headers=lesser)).status == 403
        assert (await node.admin_tcp.call("GET", path, headers=await node.bearer("admin"))).status == 200


async def test_a_node_route_asks_for_the_nodes_signature_on_every_plane(node: Harness) -> None:
    for client in (node.public, node.admin):
        refused = await client.call("POST", "/api/v1/federate/thing", data=THING, headers=JSON)
        assert (refused.status, refused.reason) == (401, "missing_header")
        headers = {**JSON, "X-Node-ID": "vienna.loop"}
        accepted = await client.call("POST", "/api/v1/federate/thing", data=THING, headers=headers)
        assert accepted.json() == {"node": "vienna.loop", "bytes": len(THING)}


async def test_the_operator_makes_lists_and_revokes_tokens(node: Harness) -> None:
    body = orjson.dumps({"scopes": ["offer:write", "material:write"], "ttl_s": 120})
    made = await node.admin.call("POST", "/admin/v1/tokens", data=body, headers=JSON)
    token = made.json()
    assert made.status == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert token["scopes"] == ["material:write", "offer:write"]
    assert re.fullmatch(r"loopd_[A-Za-z0-9_-]{43}", token["token"])
    bearer = {"Authorization": f"Bearer {token['token']}"}
    assert (await _make(node, bearer))[0] == 201
    await node.tokens.close()
    listed = (await node.admin.call("GET", "/admin/v1/tokens")).json()["tokens"]
    assert [(entry["id"], entry["last_used_at"] is not None) for entry in listed] == [(token["id"], True)]
    assert token["token"] not in str(listed)
    assert (await node.admin.call("DELETE", f"/admin/v1/tokens/{token['id']}")).status == 204
    assert (await _make(node, bearer))[1] == "bad_token"
    assert (await node.admin.call("DELETE", f"/admin/v1/tokens/{token['id']}")).reason == "unknown_token"
    assert (await node.admin.call("DELETE", "/admin/v1/tokens/-1")).reason == "unknown_token"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "schema"),
        (b"[" * 100_000, "nesting_too_deep"),
        (b"[]", "schema"),
        (b'{"scopes":["admin"],"x":1}', "schema"),
        (b"{}", "schema"),
        (b'{"scopes":[]}', "schema"),
        (b'{"scopes":"admin"}', "schema"),
        (b'{"scopes":["root"]}', "schema"),
        (b'{"scopes":["admin"],"ttl_s":59}', "schema"),
        (b'{"scopes":["admin"],"ttl_s":99999999999}', "schema"),
        (b'{"scopes":["admin"],"ttl_s":true}', "schema"),
        (b'{"scopes":["admin"],"ttl_s":3600.5}', "schema"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(node: Harness, body: bytes, reason: str) -> None:
    reply = await node.admin.call("POST", "/admin/v1/tokens", data=body, headers=JSON)
    assert (reply.status, reply.reason) == (400, reason)


async def test_only_the_hash_is_stored(node: Harness) -> None:
    token = await node.token("admin")
    rows = await node.database.all("SELECT * FROM api_token")
    assert token.removeprefix(TOKEN_PREFIX) not in str([tuple(row) for row in rows])


async def test_the_store_is_bounded_and_forgets_long_expired_tokens(node: Harness) -> None:
    now_ms = node.clock.now_ms()
    store = TokenStore(node.database, node.clock)

    def fill(tx: Tx) -> None:
        for _ in range(TOKENS_MAX):
            store.create(tx, ["admin"], 60, now_ms)

    await node.database.write(fill)
    with pytest.raises(Conflict):
        await node.database.write(lambda tx: store.create(tx, ["admin"], 60, now_ms))
    later_ms = now_ms + 2 * 24 * 3600 * 1000
    made = await node.database.write(lambda tx: store.create(tx, ["admin"], 60, later_ms))
    assert [record.id for record in await _listed(node, store)] == [made.id]


async def _listed(node: Harness, store: TokenStore) -> list[object]:
    async with node.database.snapshot() as reader:
        return list(await store.list(reader))


async def test_use_is_noted_once_a_minute(node: Harness) -> None:
    token = await node.token("admin")
    before = node.database.statistics.units
    for _ in range(20):
        node.tokens.verify(token)
    await node.tokens.close()
    for _ in range(20):
        node.tokens.verify(token)
    await node.tokens.close()
    assert node.database.statistics.units == before + 1


async def test_unknown_scopes_and_ids_in_the_store(node: Harness) -> None:
    with pytest.raises(Invalid):
        await node.database.write(lambda tx: node.tokens.create(tx, ["root"], 60, 0))
    with pytest.raises(NotFound):
        await node.database.write(lambda tx: node.tokens.revoke(tx, 7))
    with pytest.raises(Unauthorized):
        node.tokens.verify("loopd_" + "x" * 43)


async def test_a_token_is_not_shown_by_repr(node: Harness) -> None:
    now_ms = node.clock.now_ms()
    made = await node.database.write(lambda tx: node.tokens.create(tx, ["admin"], 60, now_ms))
    assert made.text not in repr(made)


async def test_planes_share_tokens_after_a_restart(tmp_path: Path) -> None:
    async with serve(tmp_path) as node:
        await node.token("admin")
        rows = await node.database.all("SELECT length(hash) AS size FROM api_token")
        assert [row["size"] for row in rows] == [32]
