"""Hostile announcements: forged hops and origins, times that cannot be, scopes that are none (§9.3)."""

import json
from collections.abc import Callable
from typing import Any

from tests.hostile.stage import OWN, REFUSED, Row, Stage, copy_of, signed
from tests.peer import ABSENT, ANNOUNCE, FakePeer, Message, document, utc

DAY_S = 24 * 3600


def announced(name: str, status: int, reason: str, **changes: Any) -> Row:
    """Vienna's own direct copy of an announcement with other fields."""
    return Row(
        name,
        status,
        reason,
        lambda stage: copy_of(stage.vienna, stage.vienna.announcement(**{"material": stage.fresh_id(), **changes})),
    )


def timed(name: str, status: int, reason: str, **offsets_s: float) -> Row:
    """As `announced`, with times so many seconds from now."""
    return Row(
        name,
        status,
        reason,
        lambda stage: copy_of(
            stage.vienna,
            stage.vienna.announcement(stage.fresh_id(), **{key: utc(offset) for key, offset in offsets_s.items()}),
        ),
    )


def hop(name: str, change: dict[str, str | None], *, ttl: int = 3, reason: str = "bad_hop", status: int = 400) -> Row:
    """Vienna's own copy with other X-Loop headers."""

    def data(stage: Stage) -> bytes:
        return copy_of(stage.vienna, stage.vienna.announcement(stage.fresh_id()), ttl, change)

    return Row(name, status, reason, data)


def value_of(name: str, text: Callable[[Message], str]) -> Row:
    """Vienna's own copy with another hop value."""

    def data(stage: Stage) -> bytes:
        message = stage.vienna.announcement(stage.fresh_id())
        return copy_of(stage.vienna, message, change={"X-Loop-Hop": text(message)})

    return Row(name, 400, "bad_hop", data)


def relayed(
    name: str,
    status: int,
    reason: str,
    make: Callable[[Stage, Message], bytes],
    word: str = REFUSED,
    origin: Callable[[Stage], FakePeer] = lambda stage: stage.introduced,
) -> Row:
    """An announcement of Graz, which comes by way of Vienna."""
    return Row(name, status, reason, lambda stage: make(stage, origin(stage).announcement(stage.fresh_id(word))))


SCOPES = [
    announced("no radius at all", 400, "schema", radius_km=0),
    announced("a radius below nothing", 400, "schema", radius_km=-1),
    announced("a radius in a text", 400, "schema", radius_km="NaN"),
    announced("a radius that is not stated", 400, "schema", radius_km=ABSENT),
    announced("a radius without end", 400, "number_out_of_range", radius_km=10**400),
    announced("a TTL of 0", 400, "schema", ttl=0),
    announced("a TTL of 4", 400, "schema", ttl=4),
    announced("a TTL of 2.5", 400, "schema", ttl=2.5),
    announced("a TTL of true", 400, "schema", ttl=True),
    announced("a copy whose body started lower", 400, "bad_hop", ttl=2),
    announced("no revision", 400, "schema", revision=ABSENT),
    announced("revision 0", 400, "schema", revision=0),
    announced("a revision beyond all", 400, "schema", revision=2**53),
    announced("a revision of ninety digits", 400, "schema", revision=10**90),
    announced("an origin off the map", 400, "schema", origin_location={"lat": 48, "lon": 181}),
    announced("an anchor in capitals", 400, "schema", hop_anchor="A" * 64),
    announced("an anchor too short", 400, "schema", hop_anchor="ab"),
    announced("neither material nor product", 400, "schema", material=ABSENT),
    announced("a material's id that is none", 400, "schema", material="MAT-1"),
    announced("a material's id without end", 400, "schema", material="MAT-AT-VIE-2026-FOOD-" + REFUSED * 50),
    announced("a product of a material's category", 400, "schema", material=ABSENT, product=f"PRD-AT-VIE-{REFUSED}"),
    announced("perhaps available", 400, "schema", available="yes"),
    announced("more than the earth weighs", 400, "schema", quantity=10**30),
    announced(
        "an e-mail address in the metadata", 400, "personal_data", metadata={"x": "maria.gruber.refused@example.org"}
    ),
    announced("a key that names a person", 400, "personal_data", contact="Maria Refusedgruber"),
    announced("an unknown context", 400, "unknown_context", **{"@context": "https://schema.org"}),
    announced("a context in a private network", 400, "unknown_context", **{"@context": "http://10.0.0.1/loop.jsonld"}),
    announced("another entity", 400, "schema", **{"@type": "MaterialOffer"}),
    announced("outside the radius", 202, "", radius_km=1),
]

TIMES = [
    timed("valid until a moment ago", 202, "", issued_at=-200, valid_until=-1),
    timed("valid for more than seven days", 400, "bad_times", valid_until=7 * DAY_S + 5),
    timed("over before it began", 400, "bad_times", issued_at=0, valid_until=-1),
    Row("over when it begins", 400, "bad_times", lambda s: copy_of(s.vienna, _momentary(s, utc(10)))),
    timed("issued long before it was signed", 400, "bad_times", issued_at=-310, valid_until=DAY_S),
    timed("issued long after it was signed", 400, "bad_times", issued_at=310, valid_until=DAY_S),
    announced("issued in no year at all", 400, "schema", issued_at="0000-01-01T00:00:00Z"),
    announced("valid until the end of time", 400, "bad_times", valid_until="9999-12-31T23:59:59-23:59"),
    Row("signed ahead of the clock", 400, "bad_times", lambda s: copy_of(s.vienna, _signed_at(s, utc(310)))),
    Row("signed at no time", 401, "bad_timestamp", lambda s: copy_of(s.vienna, _signed_at(s, "yesterday"))),
    Row(
        "signed in another zone",
        401,
        "bad_timestamp",
        lambda s: copy_of(s.vienna, _signed_at(s, utc()[:-1] + "+01:00")),
    ),
    Row(
        "an old word, told again", 400, "bad_times", lambda s: copy_of(s.vienna, _signed_at(s, "2025-01-01T00:00:00Z"))
    ),
]


def _momentary(stage: Stage, moment: str) -> Message:
    return stage.vienna.announcement(stage.fresh_id(), issued_at=moment, valid_until=moment)


def _signed_at(stage: Stage, timestamp: str) -> Message:
    message = stage.vienna.announcement(stage.fresh_id())
    return stage.vienna.signed_message(message.body, message.chain, timestamp)


HOPS = [
    hop("TTL 0", {"X-Loop-TTL": "0"}),
    hop("TTL 4", {"X-Loop-TTL": "4"}),
    hop("TTL 03", {"X-Loop-TTL": "03"}),
    hop("TTL +1", {"X-Loop-TTL": "+1"}),
    hop("TTL -1", {"X-Loop-TTL": "-1"}),
    hop("TTL 3.0", {"X-Loop-TTL": "3.0"}),
    hop("TTL 0x3", {"X-Loop-TTL": "0x3"}),
    hop("TTL of nothing", {"X-Loop-TTL": ""}),
    hop("TTL in another script", {"X-Loop-TTL": "\xb3"}),
    hop("TTL 999…", {"X-Loop-TTL": "9" * 5000}),
    hop("a TTL higher than the value proves", {"X-Loop-TTL": "3"}, ttl=2),
    hop("a TTL lower than a direct copy has", {}, ttl=2),
    hop("a TTL without a value", {"X-Loop-Hop": None}),
    hop("a value without a TTL", {"X-Loop-TTL": None}),
    hop(
        "a value without a TTL or an origin",
        dict.fromkeys(("X-Loop-TTL", "X-Loop-Origin", "X-Loop-Origin-Timestamp", "X-Loop-Origin-Signature")),
    ),
    value_of("a value of zeros", lambda _: "0" * 64),
    value_of("the anchor for the value", lambda message: message.chain[-1].hex()),
    value_of("a value in capitals", lambda message: message.chain[0].hex().upper()),
    value_of("a value cut short", lambda message: message.chain[0].hex()[:-2]),
    value_of("a value with more behind it", lambda message: message.chain[0].hex() + "00"),
    value_of("a value of no hex", lambda _: "g" * 64),
]

ORIGINS = [
    hop("another origin in the header", {"X-Loop-Origin": "berlin.loop"}, reason="origin_mismatch"),
    hop("an origin of noise", {"X-Loop-Origin": "' OR 1=1--"}, reason="origin_mismatch"),
    hop("an origin of raw bytes", {"X-Loop-Origin": "\xfcber.loop"}, reason="origin_mismatch"),
    hop("no origin, but its time and word", {"X-Loop-Origin": None}, reason="bad_origin_signature", status=401),
    hop("no time of the origin's", {"X-Loop-Origin-Timestamp": None}, reason="bad_origin_signature", status=401),
    hop("no word of the origin's", {"X-Loop-Origin-Signature": None}, reason="bad_origin_signature", status=401),
    hop("an origin's word of zeros", {"X-Loop-Origin-Signature": "A" * 86}, reason="bad_origin_signature", status=401),
    hop(
        "an origin's word that is none", {"X-Loop-Origin-Signature": "none"}, reason="bad_origin_signature", status=401
    ),
    Row(
        "an origin's time changed",
        401,
        "bad_origin_signature",
        lambda s: copy_of(s.vienna, s.vienna.announcement(s.fresh_id()), change={"X-Loop-Origin-Timestamp": utc(1)}),
    ),
    announced("another origin in the body", 400, "origin_mismatch", origin="berlin.loop"),
    Row(
        "the short form in another's name",
        400,
        "origin_mismatch",
        lambda s: signed(
            s.vienna,
            ANNOUNCE,
            document("MaterialAnnouncement", material=s.fresh_id(), origin="graz.loop", available=True),
        ),
    ),
    Row(
        "this node's own name, which it knows better",
        202,
        "",
        lambda s: copy_of(s.vienna, FakePeer(OWN, 48.1351, 11.5820).announcement(s.fresh_id()), 2),
    ),
    relayed("by way of a relay, as if direct", 400, "bad_hop", lambda s, m: copy_of(s.vienna, m, 3)),
    relayed(
        "by way of a relay that keeps the seed",
        400,
        "bad_hop",
        lambda s, m: copy_of(s.vienna, m, 2, {"X-Loop-Hop": m.chain[0].hex()}),
    ),
    relayed(
        "by way of a relay that hashed too often",
        400,
        "bad_hop",
        lambda s, m: copy_of(s.vienna, m, 2, {"X-Loop-Hop": m.chain[2].hex()}),
    ),
    relayed("by way of a relay that changed the body", 401, "bad_origin_signature", lambda s, m: _tampered(s, m)),
    relayed(
        "by way of a relay that took the anchor out",
        400,
        "bad_hop",
        lambda s, m: copy_of(s.vienna, s.introduced.announcement(s.fresh_id(), hop_anchor=ABSENT), 3),
    ),
    relayed(
        "by way of an impostor",
        401,
        "bad_origin_signature",
        lambda s, m: copy_of(s.vienna, m, 2),
        origin=lambda stage: stage.introduced.with_other_key(),
    ),
    relayed(
        "of an origin that nobody introduces",
        503,
        "unknown_origin",
        lambda s, m: copy_of(s.vienna, m, 2),
        origin=lambda stage: stage.stranger,
    ),
    relayed(
        "of a peer, by an impostor's word",
        401,
        "bad_origin_signature",
        lambda s, m: copy_of(s.vienna, m, 2),
        origin=lambda stage: stage.berlin.with_other_key(),
    ),
    relayed("relayed as it should be", 202, "", lambda s, m: copy_of(s.vienna, m, 2), "RELAYED"),
]


def _tampered(stage: Stage, message: Message) -> bytes:
    """The relay signs what it made of the origin's announcement; the origin did not."""
    body = json.loads(message.body)
    body["quantity"] = 5_000_000
    return copy_of(
        stage.vienna,
        Message(message.origin, json.dumps(body).encode(), message.timestamp, message.signature, message.chain),
        2,
    )


def _short(stage: Stage, word: str, **changes: Any) -> bytes:
    fields = {"material": stage.fresh_id(word), "origin": "vienna.loop", "available": True, **changes}
    return document("MaterialAnnouncement", **fields)


SHORT_FORMS = [
    Row("the short form", 202, "", lambda s: signed(s.vienna, ANNOUNCE, _short(s, "SHORT"))),
    Row(
        "the short form for any receiver",
        202,
        "",
        lambda s: signed(s.vienna, ANNOUNCE, _short(s, "SHORT"), target=None),
    ),
    Row("an amount in no unit", 202, "", lambda s: signed(s.vienna, ANNOUNCE, _short(s, "SHORT", quantity=5))),
    Row(
        "times that no calendar has",
        202,
        "",
        lambda s: signed(
            s.vienna,
            ANNOUNCE,
            _short(s, "SHORT", available_from="0001-01-01T00:00:00+23:59", expires="9999-12-31T23:59:59-23:59"),
        ),
    ),
    Row(
        "the short form without an origin",
        400,
        "schema",
        lambda s: signed(s.vienna, ANNOUNCE, _short(s, REFUSED, origin=ABSENT)),
    ),
    Row(
        "the short form of no place",
        400,
        "schema",
        lambda s: signed(s.vienna, ANNOUNCE, _short(s, REFUSED, location={})),
    ),
]

ROWS = SCOPES + TIMES + HOPS + ORIGINS + SHORT_FORMS
