"""LoopSignals (§6) as pure functions: exact values, the months they hold for, which configuration is in force."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

from loopd.protocol.errors import Invalid
from loopd.protocol.loopcost import BASIS_POINTS, signal_basis_points
from loopd.protocol.timestamps import format_timestamp, parse_utc_timestamp

TYPE: Final = "LoopSignalConfig"

_SECOND_MS = 1000
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True)
class SignalReading:
    """A category's signal at one node. `stale`: the configuration that says so has expired, and is still the newest."""

    basis_points: int
    stale: bool


@dataclass(frozen=True, slots=True)
class Approval:
    """The vote that set a configuration: the share of the eligible that voted, and of those who decided for it."""

    vote_id: str
    turnout: Decimal
    approval: Decimal


@dataclass(frozen=True, slots=True)
class SignalConfiguration:
    """What a node's community decided, in basis points (4000 is 40 %), for `valid_from_ms` ≤ t < `valid_until_ms`."""

    node_id: str
    signals: Mapping[str, int]
    valid_from_ms: int
    valid_until_ms: int
    approved_by: Approval | None = None

    def reading(self, category: str, now_ms: int) -> SignalReading:
        """The signal of a category: its own, without one `default`, without that 0."""
        return SignalReading(signal_basis_points(dict(self.signals), category), now_ms >= self.valid_until_ms)


def basis_points_of(value: Decimal | int) -> int:
    """A signal as a document states it, in basis points.

    ValueError where it lies outside 0 to 1, or has more than four decimals: rounding it would change a vote.
    """
    signal = Decimal(value)
    if not signal.is_finite() or not 0 <= signal <= 1:
        raise ValueError("a signal lies between 0 and 1")
    try:
        return int(_EXACT.to_integral_exact(_EXACT.scaleb(signal, 4)))
    except (Inexact, InvalidOperation):
        raise ValueError("a signal has at most four decimals") from None


def signal_json(basis_points: int) -> Decimal:
    """A signal as it is published: `0.4000` is written `0.4`, and never in scientific notation."""
    return Decimal(format((Decimal(basis_points) / BASIS_POINTS).normalize(), "f"))


def month_of(now_ms: int) -> tuple[int, int]:
    """The UTC calendar month around a moment: its first millisecond and that of the next month."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    start = datetime(now.year, now.month, 1, tzinfo=UTC)
    following = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()) * 1000, int(following.timestamp()) * 1000


def own_configuration(node_id: str, values: Mapping[str, Decimal], now_ms: int) -> SignalConfiguration:
    """The operator's values as the configuration of the month around `now_ms`."""
    valid_from_ms, valid_until_ms = month_of(now_ms)
    signals = {category: basis_points_of(value) for category, value in values.items()}
    return SignalConfiguration(node_id, signals, valid_from_ms, valid_until_ms)


def configuration_json(configuration: SignalConfiguration, context_url: str) -> dict[str, Any]:
    """The LoopSignalConfig as it is published."""
    document: dict[str, Any] = {
        "@context": context_url,
        "@type": TYPE,
        "schema_version": "0.2.0",
        "node": configuration.node_id,
        "signals": {category: signal_json(value) for category, value in sorted(configuration.signals.items())},
        "valid_from": format_timestamp(configuration.valid_from_ms),
        "valid_until": format_timestamp(configuration.valid_until_ms),
    }
    if (approved_by := configuration.approved_by) is not None:
        document["approved_by"] = {
            "vote_id": approved_by.vote_id,
            "turnout": approved_by.turnout,
            "approval": approved_by.approval,
        }
    return document


def read_configuration(value: Mapping[str, Any]) -> SignalConfiguration:
    """The configuration in a LoopSignalConfig whose schema holds.

    Invalid (400), the place named in `details.errors`: `bad_signal` for a value that is no whole number of basis
    points, `bad_time` for an end that is not after the start, or a moment that no calendar here reaches.
    """
    signals = {}
    for category, stated in value["signals"].items():
        try:
            signals[category] = basis_points_of(stated)
        except ValueError as error:
            raise _invalid("bad_signal", f"/signals/{category}", str(error)) from None
    valid_from_ms = _moment(value, "valid_from")
    valid_until_ms = end_of(_moment(value, "valid_until"))
    if valid_until_ms <= valid_from_ms:
        raise _invalid("bad_time", "/valid_until", "a configuration ends after it begins")
    return SignalConfiguration(value["node"], signals, valid_from_ms, valid_until_ms)


def end_of(stated_ms: int) -> int:
    """The first moment after an end as it is stated: §6.1 writes 23:59:59 and means the whole of that second."""
    second = stated_ms // _SECOND_MS
    return (second + 1) * _SECOND_MS if second % 60 == 59 else stated_ms


def _moment(value: Mapping[str, Any], key: str) -> int:
    try:
        return parse_utc_timestamp(value[key])
    except ValueError:
        raise _invalid("bad_time", f"/{key}", "a time lies in the years 1 to 9999 of UTC") from None


def _invalid(reason: str, pointer: str, message: str) -> Invalid:
    errors = [{"pointer": pointer, "rule": reason, "message": message}]
    return Invalid(reason, f"{pointer}: {message}", {"errors": errors})
