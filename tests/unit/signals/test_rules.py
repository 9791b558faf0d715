from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.errors import Invalid
from loopd.protocol.schemas import schema_errors
from loopd.protocol.timestamps import format_timestamp, parse_timestamp
from loopd.protocol.vocabulary import SIGNAL_KEYS
from loopd.signals.rules import (
    SignalReading,
    basis_points_of,
    configuration_json,
    month_of,
    own_configuration,
    read_configuration,
    signal_json,
)

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
BASIS_POINTS = st.integers(0, 10_000)


def config(**changes: Any) -> dict[str, Any]:
    """A foreign LoopSignalConfig as §6.1 shows it."""
    return {
        "@context": CONTEXT,
        "@type": "LoopSignalConfig",
        "node": "vienna.loop",
        "signals": {"organic-food": Decimal("0.20"), "default": Decimal("0.05")},
        "valid_from": "2025-06-01T00:00:00Z",
        "valid_until": "2025-06-30T23:59:59Z",
        **changes,
    }


@given(BASIS_POINTS)
def test_what_is_published_is_read_back(basis_points: int) -> None:
    published = signal_json(basis_points)
    assert basis_points_of(published) == basis_points
    assert "E" not in str(published)


@given(BASIS_POINTS, st.integers(5, 40))
def test_a_fifth_decimal_is_refused_and_never_rounded(basis_points: int, digits: int) -> None:
    with pytest.raises(ValueError):
        basis_points_of(Decimal(f"{Decimal(basis_points) / 10_000:.4f}" + "0" * (digits - 5) + "1"))


@pytest.mark.parametrize(
    ("value", "basis_points"),
    [(0, 0), (1, 10_000), (Decimal("0.30"), 3000), (Decimal("4E-4"), 4), (Decimal("1.0"), 10_000)],
)
def test_signals_in_basis_points(value: Decimal | int, basis_points: int) -> None:
    assert basis_points_of(value) == basis_points


@pytest.mark.parametrize("text", ["-0.1", "1.0001", "0.00001", "NaN", "Infinity"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(ValueError):
        basis_points_of(Decimal(text))


@given(st.datetimes(datetime(1971, 1, 1), datetime(9998, 12, 31)))  # noqa: DTZ001
def test_every_moment_lies_in_its_month(moment: datetime) -> None:
    now_ms = int(moment.replace(tzinfo=UTC).timestamp() * 1000)
    start_ms, end_ms = month_of(now_ms)
    assert start_ms <= now_ms < end_ms
    assert format_timestamp(start_ms)[7:] == format_timestamp(end_ms)[7:] == "-01T00:00:00Z"
    # The months follow each other without a gap.
    assert month_of(end_ms)[0] == end_ms
    assert month_of(start_ms - 1)[1] == start_ms


@given(st.dictionaries(st.sampled_from(sorted(SIGNAL_KEYS)), BASIS_POINTS))
def test_the_own_configuration_is_a_valid_document_that_reads_back(signals: dict[str, int]) -> None:
    values = {category: Decimal(value) / 10_000 for category, value in signals.items()}
    own = own_configuration("munich.loop", values, parse_timestamp("2026-12-31T23:59:59.999Z"))
    published = configuration_json(own, CONTEXT)
    assert schema_errors("LoopSignalConfig", published) == []
    assert (published["valid_from"], published["valid_until"]) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert read_configuration(published) == own


def test_the_last_second_of_a_foreign_month_is_part_of_it() -> None:
    read = read_configuration(config())
    assert format_timestamp(read.valid_until_ms) == "2025-07-01T00:00:00Z"
    assert read.reading("organic-food", parse_timestamp("2025-06-30T23:59:59.999Z")) == SignalReading(2000, stale=False)
    assert read.reading("organic-food", parse_timestamp("2025-07-01T00:00:00Z")) == SignalReading(2000, stale=True)


@pytest.mark.parametrize(
    ("valid_until", "end"),
    [
        ("2025-07-01T00:00:00Z", "2025-07-01T00:00:00Z"),
        ("2025-06-30T23:59:59.500Z", "2025-07-01T00:00:00Z"),
        ("2025-06-30T23:59:58Z", "2025-06-30T23:59:58Z"),
    ],
)
def test_only_an_end_at_second_59_is_moved(valid_until: str, end: str) -> None:
    assert format_timestamp(read_configuration(config(valid_until=valid_until)).valid_until_ms) == end


def test_a_category_without_a_signal_takes_the_default() -> None:
    read = read_configuration(config())
    assert read.reading("glass-clear", read.valid_from_ms).basis_points == 500


@pytest.mark.parametrize(
    ("changes", "reason", "pointer"),
    [
        ({"signals": {"default": Decimal("0.12345")}}, "bad_signal", "/signals/default"),
        ({"valid_until": "2025-06-01T00:00:00Z"}, "bad_time", "/valid_until"),
        ({"valid_from": "0001-01-01T00:00:00+10:00"}, "bad_time", "/valid_from"),
    ],
)
def test_a_configuration_that_cannot_be_taken_names_the_place(
    changes: dict[str, Any], reason: str, pointer: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        read_configuration(config(**changes))
    assert refusal.value.reason == reason
    assert refusal.value.details["errors"][0]["pointer"] == pointer
