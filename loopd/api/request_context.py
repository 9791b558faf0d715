"""The request's id: in every answer, in every log line of its handling."""

import re
import secrets

from structlog.contextvars import bind_contextvars

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)


def begin_request(given_id: str | None) -> str:
    """The id of a request that starts, bound to the log lines of this task.

    A caller's own `X-Request-Id` is kept where it is 8 to 64 harmless characters, so that logs of both sides meet.
    """
    request_id = given_id if given_id is not None and _GIVEN_ID.fullmatch(given_id) else secrets.token_hex(8)
    bind_contextvars(request_id=request_id)
    return request_id
