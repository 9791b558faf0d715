"""The log: one JSON object a line on standard error, or lines for people on a terminal.

Whoever handles a request or a message binds its id (`structlog.contextvars.bind_contextvars(request_id=...)`); every
line written meanwhile carries it. Secrets are not logged in the first place; the redaction here is the net beneath.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from loopd.observe.settings import LogSettings

REDACTED = "[redacted]"
_SENSITIVE_WORDS = "token|authorization|password|passphrase|secret|seed|cookie|private_key|signing_key"
# A key is secret by its last word: `admin_token` is, `token_id` and `tokens` are not.
_SECRET_KEY = re.compile(rf"(?:^|[_.-])(?:{_SENSITIVE_WORDS})$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"loopd_[A-Za-z0-9_-]{20,}|(?<=Bearer )\S+|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)",
    re.DOTALL,
)
_REDACTION_MAX_DEPTH = 6


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send structlog's lines, and those of the standard library's loggers, to `stream` (default: standard error)."""
    target = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    for_people = settings.format == "console" or (settings.format == "auto" and target.isatty())
    renderers: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=target.isatty())]
        if for_people
        else [structlog.processors.format_exc_info, _json_line]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            redact,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_StandardLibraryLines()]
    root.setLevel(max(level, logging.INFO))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what looks like a secret, by its key or by its form, anywhere in the event."""
    for key, value in event.items():
        event[key] = REDACTED if _SECRET_KEY.search(key) else _without_secrets(value, _REDACTION_MAX_DEPTH)
    return event


def _without_secrets(value: Any, depth: int) -> Any:
    match value:
        case str():
            return _SECRET_TEXT.sub(REDACTED, value)
        case bool() | int() | float() | None | BaseException():
            return value
        case _ if depth == 0:
            return "[nested too deep to be shown]"
        case Mapping():
            return {
                key: REDACTED if _SECRET_KEY.search(str(key)) else _without_secrets(item, depth - 1)
                for key, item in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_without_secrets(item, depth - 1) for item in value]
        case bytes():
            return f"[{len(value)} bytes]"
        case _:
            return value


def _json_line(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> str:
    # A traceback is rendered only now, behind the redaction of the rest.
    if isinstance(event.get("exception"), str):
        event["exception"] = _SECRET_TEXT.sub(REDACTED, event["exception"])
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return orjson.dumps({**ordered, **event}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _StandardLibraryLines(logging.Handler):
    """Passes on what aiohttp, asyncio and others log, so that every line has the one form."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        structlog.get_logger().log(record.levelno, message, logger=record.name, exc_info=record.exc_info or None)
