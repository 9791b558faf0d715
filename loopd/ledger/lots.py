"""Lots: an account's coins by the day on which they were issued, and which of them are spent first; pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lot:
    """Coins of one issue day on one account. `held_minor` of them are reserved for what is not posted yet."""

    issue_day: int
    amount_minor: int
    held_minor: int = 0

    @property
    def available_minor(self) -> int:
        """What may be spent."""
        return self.amount_minor - self.held_minor


@dataclass(frozen=True, slots=True)
class Part:
    """So much of the coins of one issue day."""

    issue_day: int
    amount_minor: int


def take_oldest(lots: Iterable[Lot], amount_minor: int) -> list[Part]:
    """The parts that make up an amount, the oldest coins first. ValueError where the lots hold less."""
    parts, missing_minor = [], amount_minor
    for lot in sorted(lots, key=lambda lot: lot.issue_day):
        taken_minor = min(lot.available_minor, missing_minor)
        if taken_minor > 0:
            parts.append(Part(lot.issue_day, taken_minor))
            missing_minor -= taken_minor
        if missing_minor == 0:
            return parts
    if missing_minor:
        raise ValueError("the lots hold less than that")
    return parts
