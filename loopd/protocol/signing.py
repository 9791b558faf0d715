"""What nodes sign, as the exact bytes: requests to each other (§9.2), announcements (§9.3), a link's challenge.

See docs/protocol-notes.md, Signatures. Nothing here knows a key: `loopd.crypto.keys` signs and verifies.
"""

import hashlib
import re
from enum import StrEnum
from typing import Final

from loopd.protocol.errors import Unauthorized
from loopd.protocol.limits import REQUEST_CLOCK_TOLERANCE_MS
from loopd.protocol.timestamps import format_timestamp, parse_timestamp

# The sender's own headers, fresh for every request.
X_NODE_ID: Final = "X-Node-ID"
X_NODE_SIGNATURE: Final = "X-Node-Signature"
X_TIMESTAMP: Final = "X-Timestamp"
X_NODE_TARGET: Final = "X-Node-Target"
X_NODE_KEY_ID: Final = "X-Node-Key-Id"

# What an announcement carries from its origin, unchanged, and where it is on its way.
X_LOOP_ORIGIN: Final = "X-Loop-Origin"
X_LOOP_ORIGIN_TIMESTAMP: Final = "X-Loop-Origin-Timestamp"
X_LOOP_ORIGIN_SIGNATURE: Final = "X-Loop-Origin-Signature"
X_LOOP_TTL: Final = "X-Loop-TTL"
X_LOOP_HOP: Final = "X-Loop-Hop"

API_ROOT: Final = "/api/v1"
ANNOUNCE_PATH: Final = f"{API_ROOT}/federate/announce"

# The random bytes that each side of a link gives the other to sign.
LINK_NONCE_BYTES: Final = 32

_REQUEST_VERSION: Final = "loop-node-request-v1"
_LINK_VERSION: Final = "loop-link-v1"
_API_ROOT: Final = re.compile(rf"{API_ROOT}(?=[/?]|\Z)")
_UTC_ENDINGS: Final = ("Z", "z", "+00:00", "-00:00")


def signed_path(raw_path: str) -> str:
    """The part of a request's path with query, as sent and still encoded, that is signed: from `/api/v1` on.

    A node may be served below a prefix that its proxy knows and its peers' signatures do not. ValueError where the
    path, the query aside, has no such part.
    """
    match = _API_ROOT.search(raw_path)
    if match is None or "?" in raw_path[: match.start()]:
        raise ValueError("the path has no /api/v1")
    return raw_path[match.start() :]


def request_signing_string(
    method: str, path_with_query: str, node_id: str, timestamp_text: str, target: str | None, body: bytes
) -> bytes:
    """The bytes that `X-Node-Signature` signs: seven lines joined by LF, UTF-8, without one at the end.

    The texts are the header values as sent, `target` is None where `X-Node-Target` is absent. ValueError where one
    holds a line break: it could pass for another request's line.
    """
    lines = (
        _REQUEST_VERSION,
        method,
        path_with_query,
        node_id,
        timestamp_text,
        target or "",
        hashlib.sha256(body).hexdigest(),
    )
    if any("\n" in line for line in lines):
        raise ValueError("a signed value holds a line break")
    # Servers read header bytes that are not UTF-8 into escapes; what is verified is the bytes as sent.
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def announcement_signing_string(origin: str, origin_timestamp: str, body: bytes) -> bytes:
    """The bytes that `X-Loop-Origin-Signature` signs: the request by which the origin announces, without a target."""
    return request_signing_string("POST", ANNOUNCE_PATH, origin, origin_timestamp, None, body)


class LinkRole(StrEnum):
    """Who signs in a link's challenge: the side that dialled, or the side that was called."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


def link_challenge_string(
    role: LinkRole, initiator: str, responder: str, initiator_nonce: bytes, responder_nonce: bytes
) -> bytes:
    """The bytes that each side of a link signs: six lines joined by LF, UTF-8, the nonces in lower-case hex.

    `role` is the signer's own: neither side can be made to sign what the other one would have to. ValueError for an id
    with a line break and for a nonce that is not 32 bytes.
    """
    if len(initiator_nonce) != LINK_NONCE_BYTES or len(responder_nonce) != LINK_NONCE_BYTES:
        raise ValueError(f"a nonce has {LINK_NONCE_BYTES} bytes")
    if "\n" in initiator or "\n" in responder:
        raise ValueError("a signed value holds a line break")
    lines = (_LINK_VERSION, role.value, initiator, responder, initiator_nonce.hex(), responder_nonce.hex())
    return "\n".join(lines).encode()


def replay_digest(signing_string: bytes, ttl_header: str | None, hop_header: str | None) -> bytes:
    """The SHA-256 by which a repeated request is known: of what was signed and of the two hop headers, if present."""
    digest = hashlib.sha256(signing_string)
    for name, value in ((X_LOOP_TTL, ttl_header), (X_LOOP_HOP, hop_header)):
        if value is not None:
            digest.update(f"\n{name}: {value}".encode("utf-8", "surrogateescape"))
    return digest.digest()


def message_id(origin: str, origin_timestamp: str, body: bytes, anchored: bool) -> bytes:
    """The 32 bytes that identify an announcement: SHA-256 of origin, LF, body.

    A body with a `hop_anchor` is unique by its random anchor. Without one (`anchored` false) the origin timestamp and
    another LF stand between, so that a plain node can say the same thing again later.
    """
    head = f"{origin}\n" if anchored else f"{origin}\n{origin_timestamp}\n"
    return hashlib.sha256(head.encode("utf-8") + body).digest()


def check_timestamp(text: str, now_ms: int) -> int:
    """The moment in `X-Timestamp`, in milliseconds, if it is ISO 8601 UTC and at most 300 s away, ends included.

    Raises Unauthorized with reason `bad_timestamp`, or `clock_skew` with this node's time: a wrong clock is not
    mistaken for a wrong signature.
    """
    timestamp_ms = read_utc_timestamp(text)
    if abs(timestamp_ms - now_ms) > REQUEST_CLOCK_TOLERANCE_MS:
        raise Unauthorized(
            "clock_skew",
            f"{X_TIMESTAMP} is more than {REQUEST_CLOCK_TOLERANCE_MS // 1000} s away from this node's clock.",
            {"server_time": format_timestamp(now_ms), "tolerance_s": REQUEST_CLOCK_TOLERANCE_MS // 1000},
        )
    return timestamp_ms


def read_utc_timestamp(text: str) -> int:
    """A header's timestamp in milliseconds, whatever its age. Unauthorized `bad_timestamp` unless ISO 8601 UTC."""
    try:
        timestamp_ms = parse_timestamp(text)
    except ValueError:
        timestamp_ms = None
    if timestamp_ms is None or not text.endswith(_UTC_ENDINGS):
        raise Unauthorized("bad_timestamp", "The timestamp is ISO 8601 in UTC, like 2026-01-31T12:00:00Z.")
    return timestamp_ms
