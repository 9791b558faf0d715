"""Hostile requests at the door: paths, ids, queries, tokens, idempotency keys, local bids."""

from collections.abc import Callable

from tests.hostile.stage import ABSENT_ID, HERE, JSON, LD_JSON, REFUSED, WITHDRAWN, Row, Stage, material
from tests.hostile.wire import request
from tests.peer import document

LIST = "/api/v1/material"


def read(name: str, status: int, reason: str, target: str) -> Row:
    return Row(name, status, reason, request("GET", target))


def listed(query: str, reason: str = "bad_limit") -> Row:
    return read(f"?{query:.30}", 400, reason, f"{LIST}?{query}")


QUERIES = [
    *(listed(f"limit={value}") for value in ("0", "101", "-1", "abc", "1.5", "1e2", "", "%31%30%30%30", "0x10", "+5")),
    listed("limit=%D9%A3"),
    listed("limit=" + "9" * 3000),
    listed("limit"),
    listed("limit=%00", "bad_query"),
    listed("limit=%FF", "bad_query"),
    listed("limit=5&limit=6", "repeated_parameter"),
    listed("limit=5&limit=5", "repeated_parameter"),
    listed("Limit=5", "unknown_parameter"),
    listed("limit%5B%5D=5", "unknown_parameter"),
    listed("drop=table", "unknown_parameter"),
    listed("&", "unknown_parameter"),
    listed("&".join(f"a{n}=1" for n in range(50)), "bad_query"),
    listed("cursor=0", "bad_cursor"),
    listed("cursor=99999999999999999999", "bad_cursor"),
    listed("category=plutonium", "unknown_category"),
    listed("category=%27%20OR%201%3D1--", "unknown_category"),
    read("announcements with a bad limit", 400, "bad_limit", "/api/v1/federation/announcements?limit=0"),
    read("announcements before nothing", 400, "bad_cursor", "/api/v1/federation/announcements?cursor=0"),
    read("a query where there is none", 400, "unknown_parameter", "/health?verbose=1"),
]

IDS = [
    read("an id that there is not", 404, "unknown_material", f"{LIST}/{ABSENT_ID}"),
    read("an id of SQL", 404, "unknown_material", f"{LIST}/'%20OR%20'1'='1"),
    read("an id with NUL", 404, "not_found", f"{LIST}/MAT%00"),
    read("an id with a slash inside", 404, "not_found", f"{LIST}/..%2F..%2Fetc%2Fpasswd"),
    read("an id with a line break", 404, "not_found", f"{LIST}/a%0D%0ASet-Cookie:%20x"),
    read("an id of 5,000 characters", 404, "not_found", f"{LIST}/{'A' * 5000}"),
    read("an id in another script", 404, "unknown_material", f"{LIST}/%C3%BC"),
    read("an id that is no UTF-8", 404, "not_found", f"{LIST}/%C0%AF"),
    read("an id with half a surrogate pair", 404, "not_found", f"{LIST}/%ED%A0%80"),
    read("an id of raw bytes", 400, "bad_http", f"{LIST}/\xfc"),
    read("an id with a broken escape", 404, "unknown_material", f"{LIST}/%ZZ"),
    read("dot segments", 404, "unknown_path", f"{LIST}/../node/info"),
    read("encoded dot segments", 404, "unknown_path", f"{LIST}/%2e%2e/node/info"),
    read("an empty id", 404, "unknown_path", f"{LIST}/"),
    read("two slashes", 404, "unknown_path", "//api/v1/material"),
    read("another case", 404, "unknown_path", "/API/V1/material"),
    read("a path that there is not", 404, "unknown_path", "/wp-login.php"),
    read("the operator's routes on the public listener", 404, "unknown_path", "/admin/v1/status"),
    read("the repository", 404, "unknown_path", "/.git/config"),
    read("no path at all", 400, "bad_http", ""),
    read("another scheme", 404, "unknown_path", "ftp://127.0.0.1/health"),
    read("a product's id among materials", 404, "unknown_material", f"{LIST}/PRD-DE-MUC-2026-DESK-F4A7B2"),
]


def authorised(name: str, status: int, reason: str, headers: Callable[[Stage], list[tuple[str, str]]]) -> Row:
    return Row(
        name, status, reason, lambda stage: request("POST", LIST, [*LD_JSON.items(), *headers(stage)], material())
    )


def token(name: str, reason: str, value: str, status: int = 401) -> Row:
    return authorised(name, status, reason, lambda _: [("Authorization", value)])


TOKENS = [
    authorised("no token", 401, "missing_token", lambda _: []),
    token("an empty token", "bad_token", "Bearer "),
    token("a token of another make", "bad_token", "Bearer eyJhbGciOiJub25lIn0.e30."),
    token("a token that was never made", "bad_token", "Bearer loopd_" + "A" * 43),
    token("a token without end", "bad_token", "Bearer loopd_" + "A" * 5000),
    token("a token of raw bytes", "bad_token", "Bearer loopd_" + "\xfc" * 43),
    token("a password", "bad_token", "Basic YWRtaW46YWRtaW4="),
    token("a scheme alone", "bad_token", "Bearer"),
    authorised("an expired token", 401, "expired_token", lambda stage: [*stage.bearer("expired").items()]),
    authorised("a revoked token", 401, "bad_token", lambda stage: [*stage.bearer("revoked").items()]),
    authorised("a token for something else", 403, "insufficient_scope", lambda s: [*s.bearer("offer:write").items()]),
    authorised("two tokens", 401, "bad_token", lambda stage: [*stage.bearer().items()] * 2),
    authorised(
        "a token in capitals", 401, "bad_token", lambda s: [("Authorization", s.bearer()["Authorization"].upper())]
    ),
    Row(
        "a token in the query",
        400,
        "unknown_parameter",
        lambda s: request("POST", f"{LIST}?access_token={s.tokens['material:write']}", LD_JSON, material()),
    ),
    Row(
        "a material's token for an offer",
        403,
        "insufficient_scope",
        lambda stage: stage.post(f"{LIST}/{HERE}/offers", b'{"bidder": "munich-farm", "base_price": 1}', **JSON),
    ),
]


def keyed(name: str, value: str) -> Row:
    return Row(
        name,
        400,
        "bad_idempotency_key",
        lambda stage: stage.post(LIST, material(), **{"Idempotency-Key": value}),
    )


def _reused(stage: Stage, target: str, body: bytes) -> bytes:
    """The key that made HERE's twin, with something else."""
    key = {"Idempotency-Key": "hostile-1"}
    first = stage.send(stage.post(LIST, material(id=HERE), **key))
    assert first.status == 200, first
    return stage.post(target, body, **key)


KEYS = [
    keyed("an empty key", ""),
    keyed("a key with a blank", "a b"),
    keyed("a key of 256 characters", "k" * 256),
    keyed("a key of raw bytes", "\xfc"),
    Row(
        "two keys",
        400,
        "bad_idempotency_key",
        lambda stage: request(
            "POST",
            LIST,
            [*LD_JSON.items(), *stage.bearer().items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
            material(),
        ),
    ),
    Row("a key with another body", 409, "idempotency_mismatch", lambda stage: _reused(stage, LIST, material())),
    Row(
        "a key on another path",
        409,
        "idempotency_mismatch",
        lambda stage: _reused(stage, f"{LIST}/{HERE}/announce", b""),
    ),
]


def bid(name: str, reason: str, body: str, status: int = 400, subject: str = HERE) -> Row:
    return Row(name, status, reason, lambda s: s.post(f"{LIST}/{subject}/offers", body.encode(), "offer:write", **JSON))


LOCAL_BIDS = [
    bid("a bid of nobody", "schema", '{"base_price": 1}'),
    bid("a bid of a person", "bad_bidder", '{"bidder": "Refused Maria", "base_price": 1}'),
    bid("a bid of an e-mail address", "bad_bidder", '{"bidder": "maria@example.org", "base_price": 1}'),
    bid("a bid with a key too many", "schema", '{"bidder": "refused-farm", "base_price": 1, "admin": true}'),
    bid("a price of true", "schema", '{"bidder": "refused-farm", "base_price": true}'),
    bid("a price in a text", "schema", '{"bidder": "refused-farm", "base_price": "1"}'),
    bid("a price below nothing", "bad_amount", '{"bidder": "refused-farm", "base_price": -0.01}'),
    bid("a price of thousandths", "bad_amount", '{"bidder": "refused-farm", "base_price": 0.001}'),
    bid("a price beyond all money", "bad_amount", '{"bidder": "refused-farm", "base_price": 1e300}'),
    bid("a price of nothing at all", "not_finite", '{"bidder": "refused-farm", "base_price": NaN}'),
    bid("none of it", "bad_quantity", '{"bidder": "refused-farm", "base_price": 1, "quantity": 0}'),
    bid(
        "more than there is", "quantity_above_available", '{"bidder": "refused-farm", "base_price": 1, "quantity": 501}'
    ),
    bid(
        "litres of kilograms",
        "unit_mismatch",
        '{"bidder": "refused-farm", "base_price": 1, "quantity": 1, "unit": "l"}',
    ),
    bid(
        "an end in the past",
        "expired",
        '{"bidder": "refused-farm", "base_price": 1, "valid_until": "2020-01-01T00:00:00Z"}',
    ),
    bid(
        "an end without a zone", "bad_time", '{"bidder": "refused-farm", "base_price": 1, "valid_until": "2030-01-01"}'
    ),
    bid(
        "two ends",
        "bad_time",
        '{"bidder": "refused-farm", "base_price": 1, "valid_for_s": 9, "valid_until": "2020-01-01T00:00:00Z"}',
    ),
    bid("an end without end", "bad_time", '{"bidder": "refused-farm", "base_price": 1, "valid_for_s": 99999999999999}'),
    bid("for what is not there", "unknown_material", '{"bidder": "refused-farm", "base_price": 1}', 404, ABSENT_ID),
    bid("for what is gone", "not_available", '{"bidder": "refused-farm", "base_price": 1}', 409, WITHDRAWN),
    Row("a choice among no bids", 409, "no_offers", lambda s: s.post(f"{LIST}/{HERE}/select", b"", "offer:write")),
    Row(
        "a choice of a bid that there is not",
        404,
        "unknown_offer",
        lambda stage: stage.post(f"{LIST}/{HERE}/select", b'{"offer": 999}', "offer:write", **JSON),
    ),
    Row(
        "a choice of a bid by a word",
        400,
        "schema",
        lambda stage: stage.post(f"{LIST}/{HERE}/select", b'{"offer": "1 OR 1=1"}', "offer:write", **JSON),
    ),
]


def status(name: str, code: int, reason: str, subject: str, following: str) -> Row:
    update = document(
        "MaterialStatusUpdate",
        schema_version="0.2.0",
        id="6a2f41a3-c54c-4ef0-8b7b-3d1c5e7f9aff",
        material_id=subject,
        status=following,
        updated_at="2026-01-02T00:00:00Z",
        reason=REFUSED,
    )
    return Row(name, code, reason, lambda stage: stage.post("/api/v1/material-status", update))


STATES = [
    status("a state that follows nothing", 409, "terminal", WITHDRAWN, "available"),
    status("a state that is so already", 409, "transition", HERE, "available"),
    status("a state that there is not", 400, "schema", HERE, "stolen"),
    status("a state of what is not there", 404, "unknown_material", ABSENT_ID, "reserved"),
    Row("what is gone, announced", 409, "not_available", lambda s: s.post(f"{LIST}/{WITHDRAWN}/announce", b"")),
    Row("a body where none is read", 400, "unexpected_body", lambda s: s.post(f"{LIST}/{HERE}/announce", b"[1]")),
    Row("what is not there, announced", 404, "unknown_material", lambda s: s.post(f"{LIST}/{ABSENT_ID}/announce", b"")),
]

ROWS = QUERIES + IDS + TOKENS + KEYS + LOCAL_BIDS + STATES
