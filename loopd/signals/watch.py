"""What is odd about the signals that another node publishes, pure. It is shown to the operator, and not judged here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from loopd.protocol.loopcost import signal_basis_points
from loopd.protocol.vocabulary import SIGNAL_KEYS
from loopd.signals.governance import MAX_CHANGE_BASIS_POINTS
from loopd.signals.rules import SignalConfiguration


class Oddity(StrEnum):
    """A change that no vote can have made, an older configuration after a newer, two for the same moment."""

    JUMP = "jump"
    WENT_BACK = "went_back"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True, slots=True)
class Remark:
    """What was noticed about the configuration that begins at `valid_from_ms`, and in which categories."""

    kind: Oddity
    valid_from_ms: int
    categories: tuple[str, ...]


def remarks_on(known: Sequence[SignalConfiguration], told: SignalConfiguration, now_ms: int) -> list[Remark]:
    """What is odd about a node's configuration beside those of it that are known, in order of their start."""
    found = []

    def notice(kind: Oddity, categories: tuple[str, ...]) -> None:
        found.append(Remark(kind, told.valid_from_ms, categories))

    begun = [entry for entry in known if entry.valid_from_ms <= now_ms]
    if begun and told.valid_from_ms < begun[-1].valid_from_ms:
        notice(Oddity.WENT_BACK, ())
    for same in (entry for entry in known if entry.valid_from_ms == told.valid_from_ms):
        if differing := _apart(same, told, 0):
            notice(Oddity.CONTRADICTION, differing)
    earlier = [entry for entry in known if entry.valid_from_ms < told.valid_from_ms]
    if earlier:
        periods = max(1, _month_number(told.valid_from_ms) - _month_number(earlier[-1].valid_from_ms))
        if jumped := _apart(earlier[-1], told, periods * MAX_CHANGE_BASIS_POINTS):
            notice(Oddity.JUMP, jumped)
    return found


def _apart(one: SignalConfiguration, other: SignalConfiguration, basis_points: int) -> tuple[str, ...]:
    """The categories whose values differ by more than that."""
    return tuple(
        category
        for category in sorted(SIGNAL_KEYS)
        if abs(signal_basis_points(dict(one.signals), category) - signal_basis_points(dict(other.signals), category))
        > basis_points
    )


def _month_number(moment_ms: int) -> int:
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return moment.year * 12 + moment.month
