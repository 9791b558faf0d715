"""ISO 8601 timestamps in UTC (§3.4), as integer milliseconds since 1970-01-01T00:00:00Z inside."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_MS = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_DATE_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


# One request names the same few moments again and again, in its headers and in its body.
@lru_cache(maxsize=4096)
def parse_timestamp(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 date-time; digits below the millisecond are cut off.

    Any offset is read and converted to UTC. ValueError for anything else, leap seconds included: no clock here
    counts them.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an ISO 8601 date-time with a time zone")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, zone = match.group(7) or "", match.group(8)
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    millisecond = int((fraction[1:] + "000")[:3])
    offset_minutes = 0
    if zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 23 or minutes > 59:
            raise ValueError("a time zone's offset is at most 23:59")
        offset_minutes = (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1)
    return (moment - _EPOCH) // _MILLISECOND + millisecond - offset_minutes * 60_000


def parse_utc_timestamp(text: str) -> int:
    """The same, of a moment that `format_timestamp` can tell again: in the years 1 to 9999 of UTC.

    An offset can push a time out of them. ValueError then, and as `parse_timestamp`.
    """
    timestamp_ms = parse_timestamp(text)
    if not _FIRST_MS <= timestamp_ms <= _LAST_MS:
        raise ValueError("a time lies in the years 1 to 9999 of UTC")
    return timestamp_ms


def format_timestamp(timestamp_ms: int) -> str:
    """`2026-11-21T04:10:00Z`, with three digits of fraction only where there is one."""
    moment = _EPOCH + timedelta(milliseconds=timestamp_ms)
    # Not strftime: of a year before 1000 its %Y has fewer than four digits.
    text = moment.replace(tzinfo=None).isoformat(timespec="seconds")
    fraction_ms = timestamp_ms % 1000
    return f"{text}.{fraction_ms:03d}Z" if fraction_ms else f"{text}Z"
