"""UTC days as whole numbers since 1970-01-01, and months added to them with the day clamped; pure."""

from calendar import monthrange
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)


def day_of(moment_ms: int) -> int:
    """The UTC day of a moment."""
    return moment_ms // DAY_MS


def start_of(day: int) -> int:
    """00:00 UTC of a day, in ms."""
    return day * DAY_MS


@lru_cache(maxsize=65_536)
def add_months(day: int, months: int) -> int:
    """The same day of the month so many months later, or that month's last day: 31 January and 1 make 28 February."""
    start = _EPOCH + timedelta(days=day)
    years, month0 = divmod(start.month - 1 + months, 12)
    year, month = start.year + years, month0 + 1
    return (date(year, month, min(start.day, monthrange(year, month)[1])) - _EPOCH).days


def day_text(day: int) -> str:
    """`2026-11-21`."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def parse_day(text: str) -> int:
    """The day of `2026-11-21`. ValueError for any other text."""
    return (date.fromisoformat(text) - _EPOCH).days
