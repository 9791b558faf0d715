"""Webhooks as pure functions: what is sent and how it is signed (Standard Webhooks 1.0), and when it is sent again."""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from loopd.events.rules import Event, event_json
from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import RETRY_AFTER_MAX_MS, WEBHOOK_RETRY_MAX_MS, WEBHOOK_URL_MAX_CHARACTERS
from loopd.protocol.timestamps import format_timestamp

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the part that scanners for secrets look for
SECRET_BYTES: Final = 32

GAP_TYPE: Final = "events.gap"
TEST_TYPE: Final = "webhook.test"

_GONE: Final = 410
# Beyond this many doublings the longest wait is reached, whatever the first one was.
_DOUBLINGS_MAX: Final = 32


class DisabledReason(StrEnum):
    """Why a webhook gets nothing any more."""

    GONE = "gone"  # its endpoint answered 410
    GAVE_UP = "gave_up"  # no delivery succeeded for as long as the settings say


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, the same bytes at every attempt. By its id the receiver knows a repeat."""

    message_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending a message: the answer's status, or why there was none."""

    status: int | None
    error: str | None
    retry_after_ms: int = 0

    @property
    def succeeded(self) -> bool:
        return self.status is not None and self.status // 100 == 2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often is tried: the first wait, and how long without any success."""

    first_retry_ms: int
    give_up_after_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How deliveries to an endpoint go. All zero and None: the last one succeeded."""

    failures: int = 0
    failing_since_ms: int | None = None
    next_attempt_at_ms: int = 0
    last_error: str | None = None
    disabled: DisabledReason | None = None


def event_message(node_id: str, event: Event) -> Message:
    """An event as a webhook gets it: `data` is what lists and streams show."""
    return _message(f"event_{event.event_id}", event.kind.value, node_id, event.at_ms, event_json(event))


def gap_message(node_id: str, now_ms: int, after: int, through: int) -> Message:
    """That events after one id, up to another, may have been forgotten before they could be delivered."""
    data = {"after": after, "through": through}
    return _message(f"gap_{after}_{through}", GAP_TYPE, node_id, now_ms, data)


def trial_message(node_id: str, now_ms: int) -> Message:
    """A message that tells nothing, to try a receiver."""
    return _message(f"trial_{now_ms}", TEST_TYPE, node_id, now_ms, {})


def _message(message_id: str, message_type: str, node_id: str, at_ms: int, data: Any) -> Message:
    value = {"type": message_type, "timestamp": format_timestamp(at_ms), "node": node_id, "data": data}
    return Message(message_id, dump_json(value))


def secret_text(secret: bytes) -> str:
    """A secret as the receiver's libraries take it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(message: Message, now_ms: int, secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers of one attempt, signed with each of the secrets: a receiver that has either accepts it."""
    timestamp = str(now_ms // 1000)
    content = b".".join((message.message_id.encode(), timestamp.encode(), message.body))
    signatures = [base64.b64encode(hmac.digest(secret, content, sha256)).decode() for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message.message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def check_url(url: str, *, plain_http: bool) -> None:
    """ValueError unless a URL can be called: https, or http where that is allowed, with a host and without user."""
    schemes = ("https", "http") if plain_http else ("https",)
    if len(url) > WEBHOOK_URL_MAX_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"a URL has at most {WEBHOOK_URL_MAX_CHARACTERS} printable ASCII characters")
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0:
        raise ValueError(f"the URL begins with {' or '.join(f'{scheme}://' for scheme in schemes)} and has a host")
    if parts.username is not None or parts.password is not None or "#" in url:
        raise ValueError("the URL has neither a user name nor a fragment")


def after_attempt(standing: Standing, attempt: Attempt, now_ms: int, draw: float, patience: Patience) -> Standing:
    """How an endpoint stands after an attempt; `draw` is random in 0 ≤ draw < 1.

    The first wait is drawn from the upper half of `first_retry_ms`, each further one of twice as long, up to an hour:
    endpoints that failed together are not called together again. A receiver that names a wait gets it, up to 15 min.
    """
    if attempt.succeeded:
        return Standing()
    error = attempt.error or f"answered {attempt.status}"
    since_ms = now_ms if standing.failing_since_ms is None else standing.failing_since_ms
    failed = replace(standing, failures=standing.failures + 1, failing_since_ms=since_ms, last_error=error)
    if attempt.status == _GONE:
        return replace(failed, disabled=DisabledReason.GONE)
    if now_ms - since_ms >= patience.give_up_after_ms:
        return replace(failed, disabled=DisabledReason.GAVE_UP)
    full_ms = min(WEBHOOK_RETRY_MAX_MS, patience.first_retry_ms * 2 ** min(standing.failures, _DOUBLINGS_MAX))
    wait_ms = max(round(full_ms * (0.5 + draw / 2)), min(attempt.retry_after_ms, RETRY_AFTER_MAX_MS))
    return replace(failed, next_attempt_at_ms=now_ms + wait_ms)
