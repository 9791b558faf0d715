"""Which of a node's own configurations holds when, pure: every moment from the first on has exactly one.

Only what a vote changed is stored. A configuration ends with its UTC month; from then on the same values are issued
again, month after month, until a newer one begins. Where two overlap, the one that began last is in force.
"""

from collections.abc import Sequence
from dataclasses import replace

from loopd.signals.rules import SignalConfiguration, month_of


def configuration_at(stored: Sequence[SignalConfiguration], moment_ms: int) -> SignalConfiguration | None:
    """The configuration in force at a moment, of those in order of their start; None before the first."""
    begun = [configuration for configuration in stored if configuration.valid_from_ms <= moment_ms]
    if not begun:
        return None
    newest = begun[-1]
    if moment_ms < newest.valid_until_ms:
        return newest
    valid_from_ms, valid_until_ms = month_of(moment_ms)
    return replace(newest, valid_from_ms=valid_from_ms, valid_until_ms=valid_until_ms)


def issued(stored: Sequence[SignalConfiguration], until_ms: int, limit: int) -> list[SignalConfiguration]:
    """What was issued up to a moment, the newest first, at most `limit`."""
    found: list[SignalConfiguration] = []
    moment_ms = until_ms
    while len(found) < limit:
        configuration = configuration_at(stored, moment_ms)
        if configuration is None:
            break
        found.append(configuration)
        moment_ms = configuration.valid_from_ms - 1
    return found


def period_start(stored: Sequence[SignalConfiguration], moment_ms: int) -> SignalConfiguration:
    """The configuration in force at the start of a moment's voting period; the first where none was before.

    ValueError where nothing is stored.
    """
    if not stored:
        raise ValueError("there is no configuration")
    return configuration_at(stored, month_of(moment_ms)[0]) or stored[0]


def effective_from(stored: Sequence[SignalConfiguration], certified_at_ms: int) -> int:
    """When a new configuration begins: at its certification, and after all that was issued before.

    Never at the very start of a month: that moment's value is the one that the month's limit is measured from. Never
    at or before the start of another, as it could be after the clock was set back.
    """
    begins_ms = max([certified_at_ms, *(configuration.valid_from_ms + 1 for configuration in stored)])
    return begins_ms + 1 if month_of(begins_ms)[0] == begins_ms else begins_ms
