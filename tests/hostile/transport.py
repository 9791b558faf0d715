"""Hostile bytes: requests that are hardly HTTP, or not at all."""

from tests.hostile.stage import HERE, LD_JSON, Row, material
from tests.hostile.wire import request

PATH = "/api/v1/material"
HOST = "Host: 127.0.0.1\r\n"


def raw(name: str, status: int, reason: str, text: str) -> Row:
    return Row(name, status, reason, text.encode("latin-1"))


def broken(name: str, text: str) -> Row:
    return raw(name, 400, "bad_http", text)


def posted(name: str, status: int, reason: str, headers: list[tuple[str, str]], body: bytes) -> Row:
    return Row(
        name,
        status,
        reason,
        lambda stage: request("POST", PATH, [*LD_JSON.items(), *stage.bearer().items(), *headers], body),
    )


METHODS = [
    *(
        Row(f"{method} where it is not", 405, "method_not_allowed", request(method, PATH))
        for method in ("TRACE", "DELETE", "PUT", "PATCH", "PROPFIND", "CONNECT")
    ),
    Row("POST where there is only GET", 405, "method_not_allowed", request("POST", "/health")),
    broken("a method that there is not", f"BREW /health HTTP/1.1\r\n{HOST}\r\n"),
    broken("a method of noise", f"G\x7fT /health HTTP/1.1\r\n{HOST}\r\n"),
    broken("no method", f" /health HTTP/1.1\r\n{HOST}\r\n"),
    Row(
        "an expectation that nobody meets",
        417,
        "expectation_failed",
        lambda stage: stage.post(PATH, material(), Expect="a-miracle"),
    ),
    Row(
        "100-continue, and then a bad body",
        400,
        "not_json",
        lambda stage: stage.post(PATH, b"{", Expect="100-continue"),
    ),
    Row(
        "an upgrade to something else", 200, "", request("GET", "/health", {"Connection": "Upgrade", "Upgrade": "h2c"})
    ),
]

LINES = [
    broken("HTTP of the future", f"GET /health HTTP/9.9\r\n{HOST}\r\n"),
    broken("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    broken("no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    broken("a request line of one word", "GET\r\n\r\n"),
    broken("a path of 9,000 characters", f"GET /{'a' * 9000} HTTP/1.1\r\n{HOST}\r\n"),
    broken("a header of 9,000 characters", f"GET /health HTTP/1.1\r\n{HOST}X: {'a' * 9000}\r\n\r\n"),
    broken("200 headers", f"GET /health HTTP/1.1\r\n{HOST}" + "".join(f"X-{n}: a\r\n" for n in range(200)) + "\r\n"),
    broken("a header without a colon", f"GET /health HTTP/1.1\r\n{HOST}nonsense\r\n\r\n"),
    broken("a blank before the colon", f"GET /health HTTP/1.1\r\n{HOST}X : a\r\n\r\n"),
    broken("a header over two lines", f"GET /health HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n"),
    broken("NUL in a header", f"GET /health HTTP/1.1\r\n{HOST}X: a\x00b\r\n\r\n"),
    broken("a header without a name", f"GET /health HTTP/1.1\r\n{HOST}: a\r\n\r\n"),
    raw("HTTP/1.0", 200, "", "GET /health HTTP/1.0\r\n\r\n"),
    raw("an address with its origin", 200, "", f"GET https://elsewhere.example/health HTTP/1.1\r\n{HOST}\r\n"),
    broken("a star for a path", f"GET * HTTP/1.1\r\n{HOST}\r\n"),
]

LENGTHS = [
    posted("a length below nothing", 400, "bad_http", [("Content-Length", "-5")], b"x"),
    posted("a length with a sign", 400, "bad_http", [("Content-Length", "+5")], b"x"),
    posted("a length in a word", 400, "bad_http", [("Content-Length", "five")], b"x"),
    posted("two lengths", 400, "bad_http", [("Content-Length", "5"), ("Content-Length", "6")], b"x"),
    posted(
        "a length and chunks",
        400,
        "bad_http",
        [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
        b"0\r\n\r\n",
    ),
    posted("chunks of a coding that there is not", 400, "bad_http", [("Transfer-Encoding", "gzip")], b"x"),
    posted("chunks coded twice", 400, "bad_http", [("Transfer-Encoding", "chunked, chunked")], b"0\r\n\r\n"),
    posted("chunks without a size", 400, "bad_http", [("Transfer-Encoding", "chunked")], b"zzz\r\n{}\r\n0\r\n\r\n"),
    posted("a chunk below nothing", 400, "bad_http", [("Transfer-Encoding", "chunked")], b"-5\r\n{}\r\n0\r\n\r\n"),
    posted("a chunk that never comes", 408, "body_too_slow", [("Transfer-Encoding", "chunked")], b"5\r\n{}"),
    posted("a length that is never reached", 408, "body_too_slow", [("Content-Length", "900")], b"{"),
    posted("a length below the body's", 400, "bad_http", [("Content-Length", "5")], material()),
    posted(
        "a body that was promised after 100-continue",
        408,
        "body_too_slow",
        [("Content-Length", "9"), ("Expect", "100-continue")],
        b"",
    ),
]

READS = [
    Row("a body on a read", 400, "unexpected_body", request("GET", f"{PATH}/{HERE}", LD_JSON, material())),
    Row("a refused read, heads only", 404, "", request("HEAD", "/nowhere")),
    Row("a head that never ends", 0, "", b"GET /health HTTP/1.1\r\nX: a\r\n"),
    Row("silence", 0, "", b""),
]

ROWS = METHODS + LINES + LENGTHS + READS
