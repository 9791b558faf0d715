"""Refusals: what a user or a peer did wrong, or what the node cannot do now, as §8.3 tells it.

A `Refusal` is the only kind of error that has an HTTP answer. Our own bugs are ordinary exceptions; the API turns
them into a bare 500 without any detail.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """The six codes of §8.3; the finer reason travels in `details.reason`."""

    INVALID_REQUEST = "INVALID_REQUEST"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    INTERNAL_ERROR = "INTERNAL_ERROR"


CODE_BY_STATUS: Mapping[int, ErrorCode] = {
    400: ErrorCode.INVALID_REQUEST,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.INVALID_REQUEST,
    408: ErrorCode.INVALID_REQUEST,
    409: ErrorCode.CONFLICT,
    413: ErrorCode.INVALID_REQUEST,
    415: ErrorCode.INVALID_REQUEST,
    417: ErrorCode.INVALID_REQUEST,
    429: ErrorCode.INVALID_REQUEST,
    500: ErrorCode.INTERNAL_ERROR,
    503: ErrorCode.INTERNAL_ERROR,
}


class Refusal(Exception):
    """A request that is not carried out, with the answer that says why.

    `status` is the HTTP status and fixes the `code`; `reason` is the machine's word (`snake_case`), `message` one
    sentence for a person, `details` anything else that helps to mend the request. None of them may carry a secret,
    a host path or the personal data that was refused. `retry_after_s` is given with 429 and 503.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        # Rooms keep their reasons as enumerations, whose members JSON takes as a value but not as a name.
        reason = str(reason)
        self.status = status
        self.code = CODE_BY_STATUS[status]
        self.reason = reason
        self.message = message
        # The reason stands first, and whatever else the details hold cannot replace it.
        self.details: dict[str, Any] = {"reason": reason} | dict(details or {}) | {"reason": reason}
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        return f"Refusal({self.status}, {self.reason!r}, {self.message!r})"

    def envelope(self) -> dict[str, Any]:
        """The error body of §8.3: `{"error": {"code", "message", "details"}}`."""
        return {"error": {"code": self.code.value, "message": self.message, "details": self.details}}


class Invalid(Refusal):
    """400: the document or the parameter is wrong."""

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(400, reason, message, details)


class Unauthorized(Refusal):
    """401: who asks is not shown, or shown wrongly."""

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(401, reason, message, details)


class Forbidden(Refusal):
    """403: who asks is known, and may not."""

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(403, reason, message, details)


class NotFound(Refusal):
    """404: there is no such thing here."""

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(404, reason, message, details)


class Conflict(Refusal):
    """409: the request contradicts what is stored."""

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(409, reason, message, details)


class Unavailable(Refusal):
    """503: not now; the caller tries again after `retry_after_s`."""

    def __init__(self, reason: str, message: str, retry_after_s: int = 5) -> None:
        super().__init__(503, reason, message, None, retry_after_s)
