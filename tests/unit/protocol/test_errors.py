"""Refusals and their envelope (§8.3)."""

import pytest

from loopd.protocol.errors import (
    CODE_BY_STATUS,
    Conflict,
    ErrorCode,
    Forbidden,
    Invalid,
    NotFound,
    Refusal,
    Unauthorized,
    Unavailable,
)
from loopd.protocol.json_text import dump_json


def test_the_envelope_has_code_message_and_details_with_the_reason_first() -> None:
    refusal = Invalid("bad_limit", "limit must be 1 to 100.", {"parameter": "limit"})
    details = {"reason": "bad_limit", "parameter": "limit"}
    expected = {"error": {"code": "INVALID_REQUEST", "message": "limit must be 1 to 100.", "details": details}}
    assert refusal.envelope() == expected
    assert next(iter(refusal.details)) == "reason"


def test_a_reason_that_a_room_keeps_as_an_enumeration_is_counted_and_shown_as_its_word() -> None:
    refusal = Invalid(ErrorCode.CONFLICT, "A member of some enumeration.")
    assert dump_json({refusal.reason: 1} | refusal.details) == b'{"CONFLICT":1,"reason":"CONFLICT"}'


def test_details_cannot_replace_the_reason() -> None:
    assert Conflict("no_offers", "Nobody has bid.", {"reason": None}).details == {"reason": "no_offers"}


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (Invalid("a", "A."), 400, ErrorCode.INVALID_REQUEST),
        (Unauthorized("a", "A."), 401, ErrorCode.UNAUTHORIZED),
        (Forbidden("a", "A."), 403, ErrorCode.FORBIDDEN),
        (NotFound("a", "A."), 404, ErrorCode.NOT_FOUND),
        (Conflict("a", "A."), 409, ErrorCode.CONFLICT),
        (Unavailable("a", "A."), 503, ErrorCode.INTERNAL_ERROR),
        (Refusal(408, "a", "A."), 408, ErrorCode.INVALID_REQUEST),
        (Refusal(417, "a", "A."), 417, ErrorCode.INVALID_REQUEST),
    ],
)
def test_a_status_fixes_the_code(refusal: Refusal, status: int, code: ErrorCode) -> None:
    assert (refusal.status, refusal.code) == (status, code)


def test_every_code_is_one_of_the_six_and_each_is_used() -> None:
    assert set(CODE_BY_STATUS.values()) == set(ErrorCode)
    assert len(ErrorCode) == 6


def test_unavailable_says_when_to_come_back() -> None:
    assert Unavailable("overloaded", "Not now.").retry_after_s == 5
