"""The bytes that nodes sign, spelled out."""

import hashlib

import pytest

from loopd.crypto.keys import NodeKey, encode_signature
from loopd.protocol.errors import Unauthorized
from loopd.protocol.signing import (
    LinkRole,
    announcement_signing_string,
    check_timestamp,
    link_challenge_string,
    message_id,
    read_utc_timestamp,
    replay_digest,
    request_signing_string,
    signed_path,
)

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
# Of TEST 1's key in RFC 8032 under the announcement `{}` of munich.loop, made with another library.
WHOLE_SIGNATURE = "6YhNkas5MwY51I1q7EbeSGtc0Fxv-13bmxbrh2uXb9xWk6blXifvNCL_c3Rl7kbWvsQ19sGL_JDogQq7QwITCw"
EMPTY_SHA_256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_signing_string_byte_for_byte() -> None:
    string = request_signing_string(
        "POST", "/api/v1/federate/offer?a=%20b", "vienna.loop", "2026-01-01T00:00:00Z", "munich.loop", b"abc"
    )
    assert string == (
        b"loop-node-request-v1\n"
        b"POST\n"
        b"/api/v1/federate/offer?a=%20b\n"
        b"vienna.loop\n"
        b"2026-01-01T00:00:00Z\n"
        b"munich.loop\n"
        b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_without_a_target_its_line_is_empty() -> None:
    string = announcement_signing_string("munich.loop", "2026-01-01T00:00:00Z", b"")
    assert string == (
        b"loop-node-request-v1\nPOST\n/api/v1/federate/announce\nmunich.loop\n2026-01-01T00:00:00Z\n\n"
        + EMPTY_SHA_256.encode()
    )


def test_a_whole_signature_known_answer() -> None:
    key = NodeKey.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    string = announcement_signing_string("munich.loop", "2026-01-01T00:00:00Z", b"{}")
    assert encode_signature(key.sign(string)) == WHOLE_SIGNATURE


@pytest.mark.parametrize("field", range(5))
def test_no_value_can_forge_a_line(field: int) -> None:
    values = ["POST", "/api/v1/x", "a.loop", "2026-01-01T00:00:00Z", "b.loop"]
    values[field] += "\nmore"
    with pytest.raises(ValueError, match="line break"):
        request_signing_string(*values, b"")


def test_header_bytes_that_are_not_utf_8_are_signed_as_sent() -> None:
    sent = b"a\xff.loop"
    string = request_signing_string("GET", "/api/v1/x", sent.decode("utf-8", "surrogateescape"), "t", None, b"")
    assert sent in string.split(b"\n")


@pytest.mark.parametrize(
    ("raw", "signed"),
    [
        ("/api/v1/federate/announce", "/api/v1/federate/announce"),
        ("/loop/api/v1/material?limit=2", "/api/v1/material?limit=2"),
        ("/api/v1?x=/api/v1/y", "/api/v1?x=/api/v1/y"),
        ("/api/v10/api/v1/x", "/api/v1/x"),
        ("/api/v1/a%2Fb%20c", "/api/v1/a%2Fb%20c"),
    ],
)
def test_the_signed_path_begins_at_the_api(raw: str, signed: str) -> None:
    assert signed_path(raw) == signed


@pytest.mark.parametrize("raw", ["", "/", "/health", "/api/v2/x", "/api/v1x", "/x?next=/api/v1/material"])
def test_a_path_outside_the_api_is_not_signed(raw: str) -> None:
    with pytest.raises(ValueError):
        signed_path(raw)


def test_message_ids() -> None:
    sha = hashlib.sha256
    assert message_id("a.loop", "T", b"body", anchored=True) == sha(b"a.loop\nbody").digest()
    assert message_id("a.loop", "T", b"body", anchored=False) == sha(b"a.loop\nT\nbody").digest()


def test_the_replay_digest_tells_copies_apart() -> None:
    variants = [(None, None), ("", None), (None, ""), ("2", None), (None, "2"), ("2", "ab"), ("1", "ab"), ("2", "ac")]
    digests = {replay_digest(b"string", *variant) for variant in variants} | {replay_digest(b"other", None, None)}
    assert len(digests) == len(variants) + 1
    assert replay_digest(b"string", "2", "ab") == replay_digest(b"string", "2", "ab")


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
def test_both_ends_of_the_tolerance_are_included(offset_s: int) -> None:
    text = "2026-01-01T00:00:00Z"
    assert check_timestamp(text, NOW_MS + offset_s * 1000) == NOW_MS


@pytest.mark.parametrize("offset_ms", [-300_001, 300_001])
def test_beyond_the_tolerance_the_answer_names_the_servers_time(offset_ms: int) -> None:
    with pytest.raises(Unauthorized) as caught:
        check_timestamp("2026-01-01T00:00:00Z", NOW_MS + offset_ms)
    assert caught.value.reason == "clock_skew"
    assert caught.value.details["server_time"] in {"2025-12-31T23:54:59.999Z", "2026-01-01T00:05:00.001Z"}


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01t00:00:00.000z", "2026-01-01T00:00:00+00:00"])
def test_utc_is_read_in_its_spellings(text: str) -> None:
    assert read_utc_timestamp(text) == NOW_MS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1767225600",
        "2026-01-01T00:00:00",
        "2026-01-01T01:00:00+01:00",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00Z\n",
        "２０２６-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z" * 10_000,
    ],
)
def test_another_timestamp_is_refused(text: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        check_timestamp(text, NOW_MS)
    assert caught.value.reason == "bad_timestamp"


NONCES = (b"i" * 32, b"r" * 32)


def test_the_challenge_of_a_link_line_by_line() -> None:
    text = link_challenge_string(LinkRole.RESPONDER, "berlin.loop", "munich.loop", *NONCES)
    assert text.decode().split("\n") == [
        "loop-link-v1",
        "responder",
        "berlin.loop",
        "munich.loop",
        (b"i" * 32).hex(),
        (b"r" * 32).hex(),
    ]


def test_a_challenge_holds_for_one_role_one_pair_and_one_meeting() -> None:
    ids = ("berlin.loop", "munich.loop")
    texts = {
        link_challenge_string(role, *pair, *nonces)
        for role in LinkRole
        for pair in (ids, ids[::-1])
        for nonces in (NONCES, NONCES[::-1], (b"j" * 32, b"r" * 32))
    }
    assert len(texts) == 12


@pytest.mark.parametrize(
    "arguments",
    [
        ("berlin.loop", "munich.loop", b"short", b"r" * 32),
        ("berlin.loop", "munich.loop", b"i" * 32, b""),
        ("berlin.loop\nx", "munich.loop", *NONCES),
        ("berlin.loop", "munich\n.loop", *NONCES),
    ],
)
def test_a_challenge_that_could_be_read_in_two_ways_is_not_made(arguments: tuple[str, str, bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|line break"):
        link_challenge_string(LinkRole.INITIATOR, *arguments)
