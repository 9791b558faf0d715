"""Hostile node requests: headers missing, times wrong, keys foreign, signatures bent, words taken from others."""

import base64
from collections.abc import Callable
from typing import Any

from tests.hostile.stage import LD_JSON, OWN, REFUSED, Row, Stage, copy_of, signed
from tests.hostile.wire import request
from tests.peer import ANNOUNCE, HANDSHAKE, MIRROR, OFFER, FakePeer, Message, document, utc

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _message(stage: Stage, word: str = REFUSED) -> Message:
    return stage.vienna.announcement(stage.fresh_id(word))


def changed(name: str, reason: str, change: dict[str, str | None], status: int = 401) -> Row:
    """An announcement of Vienna, right but for some headers."""
    return Row(name, status, reason, lambda stage: copy_of(stage.vienna, _message(stage), change=change))


def timed(name: str, reason: str, timestamp: Callable[[], str]) -> Row:
    """An announcement of Vienna, rightly signed at some time."""
    word, status = (REFUSED, 401) if reason else ("TIMED", 202)
    return Row(name, status, reason, lambda s: copy_of(s.vienna, _message(s, word), timestamp=timestamp()))


def bent(name: str, bend: Callable[[str], str]) -> Row:
    """An announcement of Vienna whose signature holds but for its writing."""

    def data(stage: Stage) -> bytes:
        message = _message(stage)
        while True:
            own = stage.vienna.headers(ANNOUNCE, message.body, OWN)
            # Padded with the other alphabet it must differ from itself.
            if {"-", "_"} & set(own["X-Node-Signature"]):
                break
        own["X-Node-Signature"] = bend(own["X-Node-Signature"])
        return request("POST", ANNOUNCE, {**LD_JSON, **own, **message.headers()}, message.body)

    return Row(name, 401, "bad_signature", data)


def _last_bits(signature: str) -> str:
    """Another text that careless readers decode to the same bytes: 86 characters have four bits to spare."""
    return signature[:-1] + ALPHABET[ALPHABET.index(signature[-1]) + 1]


def _hex(signature: str) -> str:
    return base64.urlsafe_b64decode(signature + "==").hex()


def _other(name: str, reason: str, make: Callable[[Stage, Message], bytes], status: int = 401) -> Row:
    return Row(name, status, reason, lambda stage: make(stage, _message(stage)))


def _as(node_id: str) -> FakePeer:
    return FakePeer(node_id, 0, 0)


HEADERS = [
    *(
        changed(f"without {header}", "missing_header", {header: None})
        for header in FakePeer("x.loop", 0, 0).headers("/", b"", None)
    ),
    changed("with an empty signature", "missing_header", {"X-Node-Signature": ""}),
    changed("with a timestamp of blanks", "missing_header", {"X-Timestamp": "   "}),
    Row("with no header at all", 401, "missing_header", request("POST", OFFER, LD_JSON, document("MaterialOffer"))),
    Row(
        "with a token instead of a signature",
        401,
        "missing_header",
        lambda stage: stage.post(ANNOUNCE, _message(stage).body),
    ),
]

TIMES = [
    timed("300 s ahead", "", lambda: utc(300)),
    timed("295 s behind", "", lambda: utc(-295)),
    timed("301 s behind", "clock_skew", lambda: utc(-301)),
    timed("310 s ahead", "clock_skew", lambda: utc(310)),
    timed("a century behind", "clock_skew", lambda: "1926-01-01T00:00:00Z"),
    timed("in the last year of all", "clock_skew", lambda: "9999-12-31T23:59:59Z"),
    timed("without a zone", "bad_timestamp", lambda: utc()[:-1]),
    timed("with an offset", "bad_timestamp", lambda: utc(3600)[:-1] + "+01:00"),
    timed("in a leap second", "bad_timestamp", lambda: "2016-12-31T23:59:60Z"),
    timed("on the 30th of February", "bad_timestamp", lambda: "2026-02-30T00:00:00Z"),
    timed("as a date alone", "bad_timestamp", lambda: utc()[:10]),
    timed("in seconds since 1970", "bad_timestamp", lambda: "1790000000"),
    timed("as mail writes it", "bad_timestamp", lambda: "Sat, 21 Nov 2026 05:00:00 GMT"),
    timed("with a blank for the T", "bad_timestamp", lambda: utc().replace("T", " ")),
    timed("with ten digits of a second", "bad_timestamp", lambda: utc()[:19] + ".1234567890Z"),
    timed("with a year of six digits", "bad_timestamp", lambda: "+02026-01-01T00:00:00Z"),
    timed("with a time that is a word", "bad_timestamp", lambda: "now"),
    timed("with a time of 5,000 digits", "bad_timestamp", lambda: "2" * 5000),
]

SENDERS = [
    _other("from nobody known", "unknown_node", lambda stage, m: signed(stage.stranger, ANNOUNCE, m.body)),
    _other("from this node itself", "unknown_node", lambda stage, m: signed(_as(OWN), ANNOUNCE, m.body)),
    _other("from a name in capitals", "unknown_node", lambda stage, m: signed(_as("Vienna.loop"), ANNOUNCE, m.body)),
    _other("from a name of SQL", "unknown_node", lambda stage, m: signed(_as("' OR 1=1--"), ANNOUNCE, m.body)),
    _other(
        "from a name of 300 letters", "unknown_node", lambda s, m: signed(_as("a" * 300 + ".loop"), ANNOUNCE, m.body)
    ),
    changed("from a name of raw bytes", "unknown_node", {"X-Node-ID": "\xfcber.loop"}),
    _other("with a foreign key", "bad_signature", lambda s, m: copy_of(s.vienna.with_other_key(), m)),
    _other(
        "with another peer's key",
        "bad_signature",
        lambda s, m: copy_of(s.berlin, m, change={"X-Node-ID": "vienna.loop"}),
    ),
    _other("from a node that was set aside", "suspended", lambda s, m: signed(s.suspended, ANNOUNCE, m.body), 403),
    _other(
        "from a node that was only introduced", "not_a_peer", lambda s, m: signed(s.introduced, ANNOUNCE, m.body), 403
    ),
]

SIGNATURES = [
    bent("padded", lambda signature: signature + "=="),
    bent("in the other alphabet", lambda signature: signature.replace("-", "+").replace("_", "/")),
    bent("with garbage behind it", lambda signature: signature + "A"),
    bent("cut off", lambda signature: signature[:-1]),
    bent("with bits to spare set", _last_bits),
    bent("in hex", _hex),
    bent("twice", lambda signature: signature * 2),
    bent("of zeros", lambda _: "A" * 86),
    bent("as a word", lambda _: "lab-placeholder"),
    bent("of raw bytes", lambda _: "\xff" * 86),
    bent("of 7,000 letters", lambda _: "A" * 7000),
]

WORDS = [
    _other("for another node", "wrong_target", lambda s, m: copy_of(s.vienna, m, target="berlin.loop")),
    _other("for this node in capitals", "wrong_target", lambda s, m: copy_of(s.vienna, m, target="MUNICH.loop")),
    changed("with the receiver put in afterwards", "bad_signature", {"X-Node-Target": "berlin.loop"}),
    changed("with the receiver taken out afterwards", "bad_signature", {"X-Node-Target": None}),
    _other(
        "with another time put in afterwards",
        "bad_signature",
        lambda s, m: copy_of(s.vienna, m, change={"X-Timestamp": utc(1)}),
    ),
    _other(
        "with the body changed",
        "bad_signature",
        lambda s, m: signed(s.vienna, ANNOUNCE, m.body, signed_body=m.body + b" "),
    ),
    _other(
        "with the path changed", "bad_signature", lambda s, m: signed(s.vienna, ANNOUNCE, m.body, signed_path=OFFER)
    ),
    _other(
        "with the method changed", "bad_signature", lambda s, m: signed(s.vienna, ANNOUNCE, m.body, signed_method="GET")
    ),
    _other("with a query added", "unknown_parameter", lambda s, m: signed(s.vienna, f"{ANNOUNCE}?ttl=3", m.body), 400),
    _other(
        "with the origin's word for the sender's",
        "bad_signature",
        lambda s, m: copy_of(
            s.berlin, m, change={"X-Node-ID": m.origin, "X-Timestamp": m.timestamp, "X-Node-Signature": m.signature}
        ),
    ),
    Row(
        "a handshake's signature for an offer",
        401,
        "bad_signature",
        lambda s: signed(s.vienna, OFFER, s.vienna.handshake(name=REFUSED), signed_path=HANDSHAKE),
    ),
    Row(
        "an outcome of a bid that nobody made",
        404,
        "unknown_offer",
        lambda s: signed(s.vienna, MIRROR, _bid_status(s.vienna.node_id)),
    ),
    Row(
        "an outcome in another's name",
        400,
        "origin_mismatch",
        lambda s: signed(s.vienna, MIRROR, _bid_status("berlin.loop")),
    ),
    Row(
        "an outcome of no version",
        400,
        "schema",
        lambda s: signed(s.vienna, MIRROR, _bid_status("vienna.loop", version=0)),
    ),
    Row(
        "a bid taken back that nobody made",
        404,
        "unknown_offer",
        lambda s: signed(s.vienna, MIRROR, _withdrawal(s.vienna.node_id)),
    ),
    Row(
        "a bid taken back in another's name",
        400,
        "origin_mismatch",
        lambda s: signed(s.vienna, MIRROR, _withdrawal("berlin.loop")),
    ),
    Row(
        "a bid taken back in the version in which it was made",
        400,
        "schema",
        lambda s: signed(s.vienna, MIRROR, _withdrawal("vienna.loop", version=1)),
    ),
    Row(
        "a demand in another's name",
        400,
        "origin_mismatch",
        lambda s: signed(s.vienna, MIRROR, _demand("berlin.loop")),
    ),
    Row(
        "a demand for a category that nobody has",
        400,
        "unknown_category",
        lambda s: signed(s.vienna, MIRROR, _demand("vienna.loop", category="nothing")),
    ),
    Row(
        "a demand around no place",
        400,
        "bad_radius",
        lambda s: signed(s.vienna, MIRROR, _demand("vienna.loop", radius_km=1)),
    ),
    Row(
        "a demand that names a person",
        400,
        "personal_data",
        lambda s: signed(s.vienna, MIRROR, _demand("vienna.loop", contact="refused@vienna.example")),
    ),
]


def _demand(node: str, **fields: Any) -> bytes:
    wish = {"category": "organic-*", "quantity": 1, "unit": "kg", **fields}
    return document(
        "LoopDemand",
        id=f"WNT-{REFUSED}0",
        node=node,
        status="open",
        version=1,
        issued_at=utc(),
        valid_until=utc(3_600),
        **wish,
    )


def _withdrawal(node: str, version: int = 2) -> bytes:
    fields = {"from": node, "offer": f"BID-{REFUSED}", "material": "MAT-AT-VIE-2026-FOOD-B847F3"}
    return document("BidWithdrawal", version=version, withdrawn_at=utc(), **fields)


def _bid_status(node: str, version: int = 1) -> bytes:
    return document(
        "BidStatus",
        node=node,
        offer=f"BID-{REFUSED}",
        material="MAT-AT-VIE-2026-FOOD-B847F3",
        status="selected",
        version=version,
        updated_at=utc(),
    )


ROWS = HEADERS + TIMES + SENDERS + SIGNATURES + WORDS
