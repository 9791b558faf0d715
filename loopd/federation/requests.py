"""Requests to other nodes, signed as §9.2 asks (see docs/protocol-notes.md, Signatures)."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from loopd.clock import Clock
from loopd.crypto.keys import encode_signature
from loopd.identity import Identity
from loopd.net.http_client import PeerAnswer, PeerClient
from loopd.protocol.errors import Refusal
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import DOCUMENT_MAX_BYTES
from loopd.protocol.nodes import KnownNode
from loopd.protocol.signing import (
    API_ROOT,
    X_NODE_ID,
    X_NODE_KEY_ID,
    X_NODE_SIGNATURE,
    X_NODE_TARGET,
    X_TIMESTAMP,
    request_signing_string,
)
from loopd.protocol.timestamps import format_timestamp

LD_JSON = "application/ld+json"

# What is kept and shown of the word in which another node refuses.
REASON_MAX_CHARACTERS = 64

# The patience with a node that asks for some and does not say for how long.
RETRY_AFTER_UNKNOWN_MS = 5_000

# A registry of nodes may be longer than a document: 10,000 entries of some 400 bytes.
REGISTRY_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes. `target` is the receiver's id where it is known to be told."""

    endpoint: str
    target: str | None
    named_by_operator: bool


def normalise_endpoint(url: str) -> str:
    """An endpoint as it is kept: https, lower-case host, no user, query or fragment, ending in `/api/v1`.

    ValueError where the text is no such address. The path may be left out.
    """
    parts = urlsplit(url.strip())
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("an endpoint is an https address")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("an endpoint has no user, query or fragment")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if parts.port in (None, 443) else f"{host}:{parts.port}"
    path = parts.path.rstrip("/")
    if not path.endswith(API_ROOT):
        path += API_ROOT
    return urlunsplit(("https", authority, path, "", ""))


def refusal_reason(answer: PeerAnswer) -> str:
    """The `details.reason` of a refusal, or its `code`, as far as the body is an envelope of §8.3; else nothing."""
    try:
        error = read_json(answer.body)["error"]
        found = error.get("details", {}).get("reason") or error.get("code")
    except (Refusal, KeyError, TypeError, AttributeError):
        return ""
    return found[:REASON_MAX_CHARACTERS] if isinstance(found, str) and found.isprintable() else ""


def retry_after_ms(answer: PeerAnswer) -> int:
    """How long an answer asks for patience, as far as it says so in seconds."""
    text = answer.headers.get("Retry-After", "")
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) <= 6 else RETRY_AFTER_UNKNOWN_MS


# A signed POST (`path` from `/api/v1` on) over the link to a node; None where it has to go by HTTP.
OverLink = Callable[[str, str, Mapping[str, str], bytes], Awaitable[PeerAnswer | None]]


class NodeRequests:
    """Calls other nodes' API. What is signed is signed afresh; answers and time are bounded by the client below."""

    def __init__(
        self, identity: Identity, client: PeerClient, clock: Clock, timeout_s: float, over_link: OverLink
    ) -> None:
        self._identity = identity
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._over_link = over_link

    async def get(
        self, to: Destination, path: str, max_bytes: int = DOCUMENT_MAX_BYTES, *, signed: bool = False
    ) -> PeerAnswer:
        """GET `path` (below `/api/v1`, as `/node/info`), signed where it is for this node alone to read.

        DialError where no whole answer came.
        """
        accepted = {"Accept": f"{LD_JSON}, application/json"}
        return await self._client.request(
            "GET",
            to.endpoint + path,
            headers={**accepted, **self._signed("GET", to, path, b"")} if signed else accepted,
            body=None,
            trusted=to.named_by_operator,
            timeout_s=self._timeout_s,
            max_answer_bytes=max_bytes,
        )

    async def post(
        self, to: Destination, path: str, body: bytes, extra_headers: Mapping[str, str] | None = None
    ) -> PeerAnswer:
        """POST a document to `path` (below `/api/v1`), with this node's own fresh headers."""
        return await self._send(to, path, body, {**self._signed_post(to, path, body), **(extra_headers or {})})

    async def deliver(self, node: KnownNode, path: str, body: bytes) -> PeerAnswer:
        """POST what is for this node alone, to `path` (below `/api/v1`). DialError where no whole answer came.

        It goes over the link where that can carry it; else, and where that broke, the same request goes by HTTP: with
        one signature, so that whoever got it twice knows the second for a repeat.
        """
        to = Destination(node.endpoint, node.node_id, node.named_by_operator)
        headers = self._signed_post(to, path, body)
        answer = await self._over_link(node.node_id, API_ROOT + path, headers, body)
        return await self._send(to, path, body, headers) if answer is None else answer

    async def _send(self, to: Destination, path: str, body: bytes, headers: Mapping[str, str]) -> PeerAnswer:
        return await self._client.request(
            "POST",
            to.endpoint + path,
            headers=headers,
            body=body,
            trusted=to.named_by_operator,
            timeout_s=self._timeout_s,
            max_answer_bytes=DOCUMENT_MAX_BYTES,
        )

    def _signed_post(self, to: Destination, path: str, body: bytes) -> dict[str, str]:
        return {"Content-Type": LD_JSON, **self._signed("POST", to, path, body)}

    def _signed(self, method: str, to: Destination, path: str, body: bytes) -> dict[str, str]:
        identity = self._identity
        timestamp = format_timestamp(self._clock.now_ms())
        signing_string = request_signing_string(
            method, API_ROOT + path, identity.node_id, timestamp, to.target or "", body
        )
        headers = {
            X_NODE_ID: identity.node_id,
            X_TIMESTAMP: timestamp,
            X_NODE_SIGNATURE: encode_signature(identity.key.sign(signing_string)),
            X_NODE_KEY_ID: identity.key.public.key_id,
        }
        if to.target is not None:
            headers[X_NODE_TARGET] = to.target
        return headers
