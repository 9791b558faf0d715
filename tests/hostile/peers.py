"""Hostile handshakes (§9.1) and bids (§8.2)."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.hostile.stage import ABSENT_ID, HERE, LD_JSON, OWN, REFUSED, WITHDRAWN, Row, Stage, signed
from tests.hostile.wire import request
from tests.peer import ABSENT, HANDSHAKE, OFFER, FakePeer, document, utc

# 2,048 bits of RSA, and a point of another curve: keys, but not of this protocol.
RSA_PEM = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo
4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0/IzW7yWR7QkrmBL7jTKEn5u
+qKhbwKfBstIs+bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyeh
kd3qqGElvW/VDL5AaWTg0nLVkjRo9z+40RQzuVaE8AkAFmxZzow3x+VJYKdjykkJ
0iT9wCS0DRTXu269V264Vf/3jvredZiKRkgwlL9xNAwxXFg0x/XFw005UWVRIkdg
cKWTjpBP2dPwVZ4WWC+9aGVd+Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbc
mwIDAQAB
-----END PUBLIC KEY-----"""
X25519_PEM = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
-----END PUBLIC KEY-----"""

# Who knocks here is not let in.
MALLORY = FakePeer("refused.loop", 50.0, 8.0, "https://127.0.0.1:1/api/v1")


def knock(name: str, status: int, reason: str, change: Mapping[str, str | None] | None = None, /, **fields: Any) -> Row:
    """A handshake of a stranger, rightly signed over whatever it says."""
    return Row(name, status, reason, lambda _: signed(MALLORY, HANDSHAKE, MALLORY.handshake(**fields), change=change))


def shake(name: str, status: int, reason: str, make: Callable[[Stage], bytes]) -> Row:
    return Row(name, status, reason, make)


HANDSHAKES = [
    knock("a handshake in another's name", 400, "origin_mismatch", {"X-Node-ID": "vienna.loop"}),
    knock("a handshake of another's name", 401, "bad_signature", {"X-Node-ID": "vienna.loop"}, node_id="vienna.loop"),
    knock("an unsigned handshake with a key", 401, "missing_header", {"X-Node-Signature": None}),
    knock("a handshake long ago", 401, "clock_skew", {"X-Timestamp": "2025-01-01T00:00:00Z"}),
    shake(
        "a handshake of tomorrow",
        401,
        "clock_skew",
        lambda _: signed(MALLORY, HANDSHAKE, MALLORY.handshake(timestamp=utc(24 * 3600))),
    ),
    knock("a handshake signed by another key", 401, "bad_signature", {"X-Node-Signature": "A" * 86}),
    knock("a handshake for another node", 401, "bad_signature", {"X-Node-Target": "berlin.loop"}),
    knock("an RSA key", 400, "bad_public_key", public_key=RSA_PEM),
    knock("a key for agreement", 400, "bad_public_key", public_key=X25519_PEM),
    knock(
        "a key of noise", 400, "bad_public_key", public_key="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
    ),
    knock("an empty key", 400, "bad_public_key", public_key=""),
    knock("a key without end", 400, "bad_public_key", public_key="-----BEGIN PUBLIC KEY-----\n" + "A" * 10_000),
    knock("more than a handshake needs", 413, "payload_too_large", name="N" * 20_000),
    knock("a key of raw hex", 400, "bad_public_key", public_key="ab" * 32),
    knock("an endpoint without TLS", 400, "bad_endpoint", endpoint="http://127.0.0.1/api/v1"),
    knock("an endpoint with a password", 400, "bad_endpoint", endpoint="https://root:secret@127.0.0.1/api/v1"),
    knock("an endpoint with a query", 400, "bad_endpoint", endpoint="https://127.0.0.1/api/v1?x="),
    knock("an endpoint at no port", 400, "bad_endpoint", endpoint="https://127.0.0.1:99999/api/v1"),
    knock("an endpoint at no host", 400, "bad_endpoint", endpoint="https:///api/v1"),
    knock("an endpoint from a file", 400, "schema", endpoint="file:///etc/passwd"),
    knock("an id that is none", 400, "schema", node_id="REFUSED.LOOP"),
    knock("a field too many", 400, "schema", admin=True),
    knock("nothing it can do", 400, "schema", capabilities=[]),
    knock("an e-mail address for a name", 400, "personal_data", name="maria.gruber.refused@example.org"),
    knock("an unknown context", 400, "unknown_context", **{"@context": "https://schema.org"}),
    knock("no key at all", 202, "", public_key=ABSENT, node_id="keyless.loop"),
    shake("a pinned id with another key", 401, "bad_signature", lambda s: _again(s.vienna.with_other_key())),
    shake(
        "a pinned id without a key",
        401,
        "bad_signature",
        lambda s: signed(s.vienna, HANDSHAKE, s.vienna.handshake(public_key=ABSENT, name=REFUSED)),
    ),
    shake(
        "a handshake not newer than the last",
        202,
        "",
        lambda s: signed(
            s.vienna,
            HANDSHAKE,
            s.vienna.handshake(timestamp="2026-01-01T00:00:00Z", endpoint="https://refused.example/api/v1"),
        ),
    ),
    shake("the handshake of a node set aside", 202, "", lambda s: _again(s.suspended)),
    shake("this node's own id", 409, "own_node", lambda s: _again(FakePeer(OWN, 0, 0))),
    shake(
        "an unsigned handshake in this node's name",
        409,
        "own_node",
        lambda s: request("POST", HANDSHAKE, LD_JSON, FakePeer(OWN, 0, 0).handshake()),
    ),
]


def _again(peer: FakePeer) -> bytes:
    return signed(peer, HANDSHAKE, peer.handshake(name=REFUSED))


def bid(name: str, reason: str, status: int = 400, /, **changes: Any) -> Row:
    """A bid of Vienna on what Munich has."""

    def data(stage: Stage) -> bytes:
        fields = {
            "material": HERE,
            "from": stage.vienna.node_id,
            "base_price": 60,
            "loop_cost": 100,
            "valid_until": utc(3600),
            "id": f"BID-{REFUSED}",
        }
        return signed(stage.vienna, OFFER, document("MaterialOffer", **{**fields, **changes}))

    return Row(name, status, reason, data)


BIDS = [
    bid("on what is not there", "unknown_material", 404, material=ABSENT_ID),
    bid("on a product that is not there", "unknown_product", 404, material=ABSENT, product=f"PRD-{REFUSED}1"),
    bid("on what is gone", "not_available", material=WITHDRAWN),
    bid("on nothing", "schema", material=ABSENT),
    bid("on a material and a product", "schema", product=f"PRD-{REFUSED}1"),
    bid("in another's name", "origin_mismatch", **{"from": "berlin.loop"}),
    bid("in this node's name", "origin_mismatch", **{"from": OWN}),
    bid("over a moment ago", "expired", valid_until=utc()),
    bid("over in no year", "bad_time", valid_until="9999-12-31T23:59:59-23:59"),
    bid("until a day without a time", "schema", valid_until="2030-01-01"),
    bid("in thousandths", "bad_amount", base_price=0.001),
    bid("in many decimals", "bad_amount", base_price=60.0000000000001),
    bid("below nothing", "schema", base_price=-1),
    bid("beyond all money", "bad_amount", base_price=10**16),
    bid("at a cost in thousandths", "bad_amount", loop_cost=0.001),
    bid("at a cost below nothing", "schema", loop_cost=-5),
    bid("at a price in a text", "schema", base_price="60"),
    bid("for litres of kilograms", "unit_mismatch", quantity=5, unit="l"),
    bid("for more than there is", "quantity_above_available", quantity=500.000000001),
    bid("for more than there is, in tonnes", "quantity_above_available", quantity=0.6, unit="t"),
    bid("for nothing", "schema", quantity=0),
    bid("for a trillionth", "bad_quantity", quantity=1e-12),
    bid("for a unit that there is not", "schema", quantity=1, unit="lightyear"),
    bid("over a way that is none", "distance_below_great_circle", distance_km=1),
    bid("over a way around the sun", "bad_distance", distance_km=10**9),
    bid("over a way below nothing", "schema", distance_km=-1),
    bid("with an id without end", "schema", id=REFUSED * 50),
    bid("with a telephone number", "personal_data", metadata={"x": "+49 89 12345678"}),
]

ROWS = HANDSHAKES + BIDS
