"""Hostile documents: text that is no JSON, contexts that are none of LOOP's, schemas broken, people named."""

import json
from typing import Any

from tests.hostile.stage import HERE, JSON, LD_JSON, REFUSED, Row, material
from tests.hostile.wire import chunked, request
from tests.peer import ABSENT, CONTEXT, document

PATH = "/api/v1/material"
MIB = 1024 * 1024
VOCABULARY = "https://local-loop-io.github.io/projects/loop-protocol/terms/"

# What no answer and no log line may hold.
PERSONAL = (
    "maria.gruber.refused@example.org",
    "+49 89 12345678",
    "DE89 3704 0044 0532 0130 00",
    "Maria Refusedgruber",
)


def sent(name: str, reason: str, body: bytes, status: int = 400, path: str = PATH) -> Row:
    return Row(name, status, reason, lambda stage: stage.post(path, body))


def headed(name: str, reason: str, status: int, headers: dict[str, str], body: bytes | None = None) -> Row:
    """A body with headers of its own in place of the usual Content-Type."""
    content = material() if body is None else body
    return Row(name, status, reason, lambda stage: request("POST", PATH, {**stage.bearer(), **headers}, content))


def personal(name: str, **changes: Any) -> Row:
    return sent(name, "personal_data", material(**changes))


def spliced(text: str) -> bytes:
    """A material with raw text put in as its first member."""
    return material().replace(b"{", b"{" + text.encode() + b", ", 1)


def nested(depth: int) -> bytes:
    return spliced('"x": ' + "[" * depth + "]" * depth)


SIZES = [
    sent("a document of 1 MiB and a byte", "payload_too_large", material(x="x" * MIB), 413),
    Row(
        "a document that only says that it is large",
        413,
        "payload_too_large",
        lambda stage: request("POST", PATH, {**LD_JSON, **stage.bearer(), "Content-Length": str(50 * MIB)}),
    ),
    Row(
        "a large document in chunks, which says nothing of its size",
        413,
        "payload_too_large",
        lambda stage: request(
            "POST", PATH, {**LD_JSON, **stage.bearer(), "Transfer-Encoding": "chunked"}, chunked(b" " * 2 * MIB)
        ),
    ),
    Row(
        "a size of more digits than any number has",
        400,
        "bad_http",
        lambda stage: request("POST", PATH, {**LD_JSON, **stage.bearer(), "Content-Length": "9" * 400}),
    ),
]

FORMS = [
    headed("no content type", "unsupported_media_type", 415, {}),
    headed("plain text", "unsupported_media_type", 415, {"Content-Type": "text/plain"}),
    headed("a form", "unsupported_media_type", 415, {"Content-Type": "application/x-www-form-urlencoded"}),
    headed("Latin-1", "unsupported_media_type", 415, {"Content-Type": "application/json; charset=iso-8859-1"}),
    headed("UTF-16", "unsupported_media_type", 415, {"Content-Type": "application/json; charset=utf-16"}),
    headed("a content type of noise", "unsupported_media_type", 415, {"Content-Type": ";;;=/,application/json"}),
    headed("compressed", "unsupported_media_type", 415, {**LD_JSON, "Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00"),
    headed("compressed twice", "unsupported_media_type", 415, {**LD_JSON, "Content-Encoding": "gzip, br"}),
]

TEXTS = [
    sent("no body", "not_json", b""),
    sent("blanks", "not_json", b" \n "),
    sent("half a document", "not_json", material()[:-1]),
    sent("two documents", "not_json", material() + material()),
    sent("a comment", "not_json", b"/* x */" + material()),
    sent("a comma too many", "not_json", b'{"a": 1,}'),
    sent("single quotes", "not_json", b"{'a': 1}"),
    sent("a number with a leading zero", "not_json", spliced('"x": 01')),
    sent("a line break inside a string", "not_json", spliced('"x": "a\nb"')),
    sent("a byte order mark", "not_json", b"\xef\xbb\xbf" + material()),
    sent("Latin-1 bytes", "not_json", material().replace(b"Munich", b"M\xfcnchen")),
    sent("overlong UTF-8", "not_json", material().replace(b"Munich", b"M\xc0\xafnich")),
    sent("UTF-16 bytes", "nul_character", material().decode().encode("utf-16")),
    sent("NaN", "not_finite", spliced('"x": NaN')),
    sent("Infinity", "not_finite", spliced('"x": Infinity')),
    sent("-Infinity as the quantity", "not_finite", material().replace(b'"value": 500', b'"value": -Infinity')),
    sent("a key twice", "duplicate_key", spliced(f'"id": "{REFUSED}"')),
    sent("a key twice, once escaped", "duplicate_key", spliced('"\\u0069d": "x"')),
    sent("a key twice, deep inside", "duplicate_key", spliced('"x": [{"y": {"a": 1, "a": 2}}]')),
    sent("a NUL byte", "nul_character", material().replace(b"Munich", b"Mun\x00ich")),
    sent("an escaped NUL", "nul_character", spliced('"x": "\\u0000"')),
    sent("an escaped NUL in a key", "nul_character", spliced('"\\u0000": 1')),
    sent("half a surrogate pair", "lone_surrogate", spliced('"x": "\\ud800"')),
    sent("a surrogate pair the wrong way round", "lone_surrogate", spliced('"x": "\\udc00\\ud800"')),
    sent("half a surrogate pair in a key", "lone_surrogate", spliced('"\\udfff": 1')),
    sent("65 arrays in each other", "nesting_too_deep", nested(64)),
    sent("100,000 arrays in each other", "nesting_too_deep", nested(100_000)),
    sent("100,000 arrays, never closed", "nesting_too_deep", b"[" * 100_000),
    sent("100,000 objects in each other", "nesting_too_deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    sent("a number of 10,000 digits", "number_out_of_range", spliced('"x": ' + "9" * 10_000)),
    sent("a number of a million digits", "number_out_of_range", spliced('"x": ' + "9" * 1_000_000)),
    sent("an exponent beyond all", "number_out_of_range", spliced('"x": 1e999999999999999999')),
    sent("a number near zero beyond all", "number_out_of_range", spliced('"x": 1e-400')),
    sent("null", "schema", b"null"),
    sent("a number", "schema", b"1"),
    sent("a text", "schema", b'"MaterialDNA"'),
    sent("an array of documents", "schema", b"[" + material() + b"," + material() + b"]"),
]


def contextual(name: str, context: Any, reason: str = "unknown_context", **changes: Any) -> Row:
    return sent(name, reason, document("MaterialDNA", **{**json.loads(material(**changes)), "@context": context}))


def wrapping(depth: int) -> Any:
    context: Any = {"x": "https://example.org/x"}
    for _ in range(depth):
        context = [context]
    return context


CONTEXTS = [
    contextual("an unknown context", "https://schema.org"),
    contextual("a context in a private network", "http://127.0.0.1:1/context.jsonld"),
    contextual("a context at the cloud's metadata address", "http://169.254.169.254/latest/meta-data/"),
    contextual("a context from a file", "file:///etc/passwd"),
    contextual("a known context with a fragment", CONTEXT + "#x"),
    contextual("a known context over http", CONTEXT.replace("https:", "http:")),
    contextual("no text for a context", 7, "bad_json_ld"),
    contextual("no context", ABSENT),
    contextual("null for a context", None),
    contextual("an unknown context among known ones", [CONTEXT, "https://schema.org"]),
    contextual("an array with a private context", ["http://[::1]/context.jsonld", CONTEXT]),
    contextual("a context that imports", {"@import": "http://127.0.0.1/x"}, "bad_json_ld"),
    contextual("a term with a context of its own", [CONTEXT, {"x": {"@id": "x", "@context": {}}}], "bad_json_ld"),
    contextual("contexts by the dozen", [CONTEXT] * 50, "bad_json_ld"),
    contextual("terms by the thousand", [CONTEXT, {f"t{n}": f"https://x.org/{n}" for n in range(3000)}], "bad_json_ld"),
    contextual("terms that define each other", [CONTEXT, {"a": "b:c", "b": "a:c"}], "bad_json_ld"),
    contextual("contexts in contexts", wrapping(30), "bad_json_ld"),
    contextual("a private context deep inside", CONTEXT, x={"@context": "http://10.0.0.1/"}),
    contextual("a large document in a form of its own", [CONTEXT], "bad_json_ld", x="x" * 70_000),
    contextual("a context in which no term is LOOP's", {"@vocab": "https://x.org/"}, "schema"),
    sent(
        "expanded, with nothing but an e-mail address",
        "schema",
        json.dumps([{"@type": [f"{VOCABULARY}MaterialDNA"], f"{VOCABULARY}notes": [{"@value": PERSONAL[0]}]}]).encode(),
    ),
    sent("the type of another entity", "schema", material(**{"@type": "ProductDNA"})),
    sent("a type that there is not", "schema", material(**{"@type": "Malicious"})),
    sent("several types", "schema", material(**{"@type": ["MaterialDNA", "ProductDNA"]})),
]

SCHEMAS = [
    sent("an id of another form", "schema", material(id="../../etc/passwd")),
    sent("an id with a line break behind it", "schema", material(id=f"MAT-DE-MUC-2026-FOOD-{REFUSED}\n")),
    sent("an id with digits of another script", "schema", material(id=f"MAT-DE-MUC-٢٠٢٦-FOOD-{REFUSED}")),
    sent("an id without an end", "bad_id", material(id=f"MAT-DE-MUC-2026-FOOD-{REFUSED}" + "A" * 500)),
    sent("a category that there is not", "schema", material(category="plutonium")),
    sent("less than nothing", "schema", material(quantity={"value": -1, "unit": "kg"})),
    sent("true of it", "schema", material(quantity={"value": True, "unit": "kg"})),
    sent("a text for a quantity", "schema", material(quantity={"value": "500", "unit": "kg"})),
    sent("more than the earth weighs", "bad_quantity", material(quantity={"value": 10**30, "unit": "t"})),
    sent("a unit that there is not", "schema", material(quantity={"value": 1, "unit": "lightyear"})),
    sent("a city of one letter", "schema", material(current_city="M")),
    sent("a leap second", "schema", material(available_from="2016-12-31T23:59:60Z")),
    sent("the 30th of February", "schema", material(available_from="2026-02-30T00:00:00Z")),
    sent("a time without a zone", "schema", material(available_from="2026-01-01T00:00:00")),
    sent("a time before the first year", "bad_time", material(available_from="0001-01-01T00:00:00+14:00")),
    sent("an end before the beginning", "expires_before_available", material(expires="2025-01-01T00:00:00Z")),
    sent("a place off the map", "schema", material(location={"lat": 91, "lon": 0})),
    sent("eleven images", "schema", material(images=["https://example.org/x.jpg"] * 11)),
    sent("a script for an image", "schema", material(images=["javascript alert(1)"])),
    sent("notes without end", "schema", material(metadata={"notes": "x" * 501})),
    sent("a version of the future", "schema", material(schema_version="1.0.0")),
    sent("an empty object", "unknown_context", b"{}"),
    sent("an update of nothing", "schema", document("MaterialStatusUpdate"), path="/api/v1/material-status"),
    sent("a product that is a material", "schema", material(), path="/api/v1/product"),
    sent("the same id with other content", "other_content", material(id=HERE, metadata={"x": REFUSED}), 409),
]

PEOPLE = [
    sent("a contact", "schema", material(contact={"name": PERSONAL[3]})),
    personal("an e-mail address in the notes", metadata={"notes": f"call {PERSONAL[0]} now"}),
    personal("an e-mail address, escaped", metadata={"x": PERSONAL[0]}),
    personal("an e-mail address in a key", metadata={PERSONAL[0]: 1}),
    personal("an e-mail address in an unknown field", x=[[{"y": PERSONAL[0]}]]),
    personal("an e-mail address as a link", images=[f"mailto:{PERSONAL[0]}"]),
    personal("a telephone number", metadata={"notes": f"ring {PERSONAL[1]}"}),
    personal("a bank account", metadata={"notes": PERSONAL[2]}),
    personal("a bank account without blanks", x=PERSONAL[2].replace(" ", "")),
    personal("a first name", traceability={"first_name": PERSONAL[3]}),
    personal("an e-mail field", passport={"email": "none"}),
    personal("a contact inside the metadata", metadata={"contact": PERSONAL[3]}),
]

ROWS = SIZES + FORMS + TEXTS + CONTEXTS + SCHEMAS + PEOPLE
ROWS.append(headed("the right bytes with a wrong type", "unsupported_media_type", 415, {"Content-Type": "text/json"}))
ROWS.append(headed("JSON's own type with a broken body", "not_json", 400, JSON, b"{"))
