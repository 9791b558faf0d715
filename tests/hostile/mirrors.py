"""Hostile versions of deals, and wishes about them, from peers whose signature holds."""

from typing import Any

from tests.hostile.stage import OWN, REFUSED, Row, Stage, signed
from tests.hostile.wire import request
from tests.nodes import CONTEXT
from tests.peer import document, utc

MIRROR = "/api/v1/federate/mirror"
DEALS = "/api/v1/mirror"
MATCH_ID = f"MATCH-{REFUSED}1"


def _match(status: str = "accepted", **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "Match",
        "schema_version": "0.2.0",
        "id": MATCH_ID,
        "material_id": "MAT-AT-VIE-2026-FOOD-B847F3",
        "offer_id": "OFFER-00000001",
        "from_city": "Vienna",
        "to_city": "Munich",
        "status": status,
        "matched_at": "2026-01-01T00:00:00Z",
    }
    return {**fields, **changes}


def _update(**changes: Any) -> bytes:
    """A version that would hold if Vienna told it, but for the changes."""
    fields: dict[str, Any] = {
        "owner": "vienna.loop",
        "counterpart": OWN,
        "entity": "match",
        "id": MATCH_ID,
        "version": 1,
        "follows": 0,
        "status": "accepted",
        "updated_at": utc(),
        "document": _match(),
    }
    return document("MirrorUpdate", **{**fields, **changes})


def _wish(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "id": f"ASK-{REFUSED}",
        "from": "vienna.loop",
        "owner": OWN,
        "entity": "match",
        "subject": MATCH_ID,
        "status": "expired",
        "issued_at": utc(),
    }
    return document("StatusRequest", **{**fields, **changes})


def told(name: str, reason: str, code: int = 400, /, **changes: Any) -> Row:
    return Row(f"a version {name}", code, reason, lambda stage: signed(stage.vienna, MIRROR, _update(**changes)))


def wished(name: str, reason: str, code: int = 400, /, **changes: Any) -> Row:
    return Row(f"a wish {name}", code, reason, lambda stage: signed(stage.vienna, MIRROR, _wish(**changes)))


_SALE: dict[str, Any] = {
    "entity": "transaction",
    "id": "TXN-2026-01-01-001",
    "status": "pending",
    "document": {
        "@context": CONTEXT,
        "@type": "MaterialTransaction",
        "id": "TXN-2026-01-01-001",
        "material": "MAT-AT-VIE-2026-FOOD-B847F3",
        "seller": "berlin.loop",
        "buyer": OWN,
        "offer": {"base_price": 1, "loop_cost": 1},
        "timestamp": "2026-01-01T00:00:00Z",
    },
}

VERSIONS = [
    told("of another node's deal", "origin_mismatch", owner="berlin.loop"),
    told("of this node's own deal", "origin_mismatch", owner=OWN),
    told("for another node", "not_counterpart", counterpart="berlin.loop"),
    told("that follows itself", "bad_version", follows=1),
    told("that follows what comes later", "bad_version", follows=9, version=2),
    told("without number", "schema", version=0),
    told("beyond all numbers", "schema", version=2**63),
    told("with a number in a text", "schema", version="1"),
    told("of what is no deal", "schema", entity="material"),
    told("with an id of SQL", "schema", id="' OR 1=1--"),
    told("with an id of a path", "schema", id="../../ETC/PASSWD"),
    told("with an id of 5,000 letters", "schema", id="A" * 5_000),
    told("in a status that there is not", "bad_status", status="stolen"),
    told("in a status of something else", "bad_status", status="in_transit"),
    told("in another status than its document", "document_mismatch", status="proposed"),
    told("of another id than its document", "document_mismatch", document=_match(id="MATCH-00000001")),
    told("that begins at its end", "transition", 409, status="expired", document=_match("expired")),
    told("with a document that is none", "schema", document={}),
    told("with a document in a text", "schema", document="{}"),
    told("with a document of another kind", "schema", document=_match(**{"@type": "Offer"})),
    told("with a context from elsewhere inside", "unknown_context", document=_match(x={"@context": "http://x.org"})),
    told("with a person in it", "personal_data", document=_match(metadata={"notes": "ask maria@example.org"})),
    told("with one field too many", "schema", admin=True),
    told("from a time that there is not", "schema", updated_at="2026-13-01T00:00:00Z"),
    told("of a sale that another sells", "document_mismatch", **_SALE),
    Row(
        "a version from a node that was set aside",
        403,
        "suspended",
        lambda stage: signed(stage.suspended, MIRROR, _update(owner=stage.suspended.node_id)),
    ),
    Row(
        "a version from a stranger",
        401,
        "unknown_node",
        lambda stage: signed(stage.stranger, MIRROR, _update(owner=stage.stranger.node_id)),
    ),
]

WISHES = [
    wished("in another's name", "origin_mismatch", **{"from": "berlin.loop"}),
    wished("for another to decide", "origin_mismatch", owner="berlin.loop"),
    wished("about what nobody was told of", "unknown_mirror", 404),
    wished("about what is no deal", "schema", entity="ledger"),
    wished("with an id of SQL", "schema", id="'; DROP TABLE mirror;--"),
    wished("with a reason without end", "schema", reason="x" * 281),
    wished("with a person in its reason", "personal_data", reason="ask maria@example.org"),
    wished("with one field too many", "schema", account="node:issuance@munich.loop"),
]


def _read(stage: Stage, target: str, **options: Any) -> bytes:
    """A GET of a peer's."""
    headers = stage.vienna.headers(target, b"", OWN, method="GET")
    return request("GET", target, {**headers, **options})


READS = [
    Row("what a peer was told, without a signature", 401, "missing_header", request("GET", MIRROR)),
    Row("what a peer was told, before nothing", 400, "bad_cursor", lambda s: _read(s, f"{MIRROR}?after=-1")),
    Row(
        "what a peer was told, signed for another page",
        401,
        "bad_signature",
        lambda s: request("GET", f"{MIRROR}?after=7", s.vienna.headers(f"{MIRROR}?after=0", b"", OWN, method="GET")),
    ),
    Row(
        "versions that nobody was told", 404, "unknown_mirror", lambda s: _read(s, f"{MIRROR}/match/{MATCH_ID}?after=0")
    ),
    Row("versions of what is no deal", 404, "unknown_mirror", lambda s: _read(s, f"{MIRROR}/ledger/{MATCH_ID}")),
    Row("a deal that is not held", 404, "unknown_mirror", request("GET", f"{DEALS}/vienna.loop/match/{MATCH_ID}")),
    Row("deals of what is none", 400, "unknown_entity", request("GET", f"{DEALS}?entity=ledger")),
    Row(
        "a user's wish about a deal that is not held",
        404,
        "unknown_mirror",
        lambda s: s.post(f"{DEALS}/vienna.loop/match/{MATCH_ID}/status", b'{"status": "expired"}', "offer:write"),
    ),
]

ROWS = VERSIONS + WISHES + READS
