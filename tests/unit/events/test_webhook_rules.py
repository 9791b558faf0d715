"""What webhooks send, judged by the reference library, and when they send it again."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from loopd.events.rules import Event, EventKind
from loopd.events.webhook_rules import (
    Attempt,
    DisabledReason,
    Message,
    Patience,
    Standing,
    after_attempt,
    check_url,
    event_message,
    gap_message,
    secret_text,
    signed_headers,
    trial_message,
)
from loopd.protocol.limits import RETRY_AFTER_MAX_MS, WEBHOOK_RETRY_MAX_MS

DAY_MS = 24 * 3_600_000
PATIENCE = Patience(first_retry_ms=5_000, give_up_after_ms=3 * DAY_MS)
EVENT = Event(7, EventKind.MATERIAL_STATUS, "MAT-1", 1_790_000_000_123, '{"status":"reserviert, größer"}'.encode())
secrets = st.binary(min_size=24, max_size=64)


def now_ms() -> int:
    # The library compares with the clock of the machine.
    return round(datetime.now(UTC).timestamp() * 1000)


def verified(secret: bytes, message: Message, headers: dict[str, str]) -> Any:
    return Verifier(secret_text(secret)).verify(message.body, headers)


@given(secrets)
@settings(max_examples=30)
def test_the_reference_library_accepts_what_is_signed(secret: bytes) -> None:
    message = event_message("munich.loop", EVENT)
    body = verified(secret, message, signed_headers(message, now_ms(), [secret]))
    assert body == {
        "type": "material.status",
        "timestamp": "2026-09-21T14:13:20.123Z",
        "node": "munich.loop",
        "data": {
            "id": 7,
            "kind": "material.status",
            "subject": "MAT-1",
            "at": "2026-09-21T14:13:20.123Z",
            "data": {"status": "reserviert, größer"},
        },
    }


def test_the_reference_library_refuses_what_was_changed() -> None:
    secret, message = b"s" * 32, event_message("munich.loop", EVENT)
    headers = signed_headers(message, now_ms(), [secret])
    for changed, told in (
        (replace(message, body=message.body.replace(b"MAT-1", b"MAT-2")), headers),
        (message, {**headers, "webhook-id": "event_8"}),
        (message, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            verified(secret, changed, told)
    with pytest.raises(WebhookVerificationError):
        verified(b"t" * 32, message, headers)


def test_while_a_secret_changes_either_one_is_good() -> None:
    former, new, message = b"f" * 32, b"n" * 32, trial_message("munich.loop", now_ms())
    headers = signed_headers(message, now_ms(), [new, former])
    assert verified(new, message, headers) == verified(former, message, headers)


def test_a_message_is_known_by_its_id() -> None:
    assert event_message("munich.loop", EVENT).message_id == "event_7"
    gap = gap_message("munich.loop", 0, 3, 9)
    assert (gap.message_id, json.loads(gap.body)["data"]) == ("gap_3_9", {"after": 3, "through": 9})
    assert "." not in "".join((gap.message_id, trial_message("munich.loop", 5).message_id))


@pytest.mark.parametrize(
    "url", ["https://example.org/hook?a=b", "https://[2001:db8::1]:8443/", "https://10.0.0.1/x", "HTTPS://EXAMPLE.ORG/"]
)
def test_urls_that_can_be_called(url: str) -> None:
    check_url(url, plain_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https:///hook",
        "https://user:secret@example.org/",
        "https://@example.org/",
        "https://example.org/#part",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://exa mple.org/",
        "https://example.org/\r\nX-Admin: 1",
        "https://münchen.example/",
        "https://[::1/",
        "//example.org/",
        "",
        "https://example.org/" + "x" * 2_000,
    ],
)
def test_urls_that_cannot(url: str) -> None:
    with pytest.raises(ValueError):
        check_url(url, plain_http=False)


def test_development_calls_plain_http_as_well() -> None:
    check_url("http://127.0.0.1:8000/hook", plain_http=True)
    with pytest.raises(ValueError, match="https:// or http://"):
        check_url("ftp://127.0.0.1/", plain_http=True)


failing = st.builds(
    Standing,
    failures=st.integers(0, 10_000),
    failing_since_ms=st.none() | st.integers(0, DAY_MS),
    last_error=st.none() | st.just("answered 500"),
)
draws = st.floats(0, 1, exclude_max=True)


@given(failing, draws, st.integers(DAY_MS, 2 * DAY_MS))
def test_waits_grow_to_an_hour_and_are_never_below_half_of_their_measure(
    standing: Standing, draw: float, now: int
) -> None:
    after = after_attempt(standing, Attempt(500, None), now, draw, PATIENCE)
    full_ms = min(WEBHOOK_RETRY_MAX_MS, 5_000 * 2**standing.failures)
    assert full_ms / 2 - 1 <= after.next_attempt_at_ms - now <= full_ms
    assert (after.failures, after.disabled) == (standing.failures + 1, None)
    assert after.failing_since_ms == (now if standing.failing_since_ms is None else standing.failing_since_ms)


@given(failing, draws)
def test_one_success_forgets_all_failures(standing: Standing, draw: float) -> None:
    assert after_attempt(standing, Attempt(204, None), DAY_MS, draw, PATIENCE) == Standing()


@pytest.mark.parametrize("status", [300, 301, 307, 400, 401, 404, 429, 500, 503])
def test_every_other_answer_is_a_failure(status: int) -> None:
    assert after_attempt(Standing(), Attempt(status, None), 0, 0.5, PATIENCE).last_error == f"answered {status}"


def test_an_endpoint_that_is_gone_or_silent_for_too_long_is_given_up() -> None:
    assert after_attempt(Standing(), Attempt(410, None), 5, 0.5, PATIENCE).disabled is DisabledReason.GONE
    standing = Standing(failures=90, failing_since_ms=1_000)
    last = 1_000 + PATIENCE.give_up_after_ms
    silent = Attempt(None, "no whole answer in time")
    assert after_attempt(standing, silent, last - 1, 0.5, PATIENCE).disabled is None
    given_up = after_attempt(standing, silent, last, 0.5, PATIENCE)
    assert (given_up.disabled, given_up.last_error) == (DisabledReason.GAVE_UP, "no whole answer in time")


def test_a_wait_that_the_receiver_names_is_kept_within_bounds() -> None:
    for named_ms, waited_ms in ((1_000, 2_500), (60_000, 60_000), (10**9, RETRY_AFTER_MAX_MS)):
        after = after_attempt(Standing(), Attempt(503, None, named_ms), 0, 0.0, PATIENCE)
        assert after.next_attempt_at_ms == waited_ms
