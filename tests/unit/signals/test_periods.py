from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.timestamps import parse_timestamp
from loopd.signals.periods import configuration_at, effective_from, issued, period_start
from loopd.signals.rules import SignalConfiguration, month_of

MOMENTS = st.integers(parse_timestamp("2025-01-01T00:00:00Z"), parse_timestamp("2028-01-01T00:00:00Z"))


def stored_from(*starts: int) -> list[SignalConfiguration]:
    return [
        SignalConfiguration("munich.loop", {"default": number}, start_ms, month_of(start_ms)[1])
        for number, start_ms in enumerate(sorted(set(starts)))
    ]


@given(st.lists(MOMENTS, min_size=1, max_size=8), MOMENTS)
def test_every_moment_has_exactly_one_configuration(starts: list[int], moment_ms: int) -> None:
    stored = stored_from(*starts)
    found = configuration_at(stored, moment_ms)
    if moment_ms < min(starts):
        assert found is None
        return
    assert found is not None
    assert found.valid_from_ms <= moment_ms < found.valid_until_ms
    # The last decision before the moment is the one that counts.
    assert found.signals == [entry.signals for entry in stored if entry.valid_from_ms <= moment_ms][-1]
    # Asked at any moment of its validity that nothing newer took, it is the same.
    assert configuration_at(stored, found.valid_from_ms) == found


@given(st.lists(MOMENTS, min_size=1, max_size=8), MOMENTS)
def test_what_was_issued_leaves_no_gap(starts: list[int], until_ms: int) -> None:
    stored = stored_from(*starts)
    history = issued(stored, until_ms, 1000)
    for newer, older in pairwise(history):
        assert older.valid_from_ms < newer.valid_from_ms <= older.valid_until_ms
    assert (history[-1].valid_from_ms if history else None) == (min(starts) if min(starts) <= until_ms else None)
    assert issued(stored, until_ms, 2) == history[:2]


@given(st.lists(MOMENTS, min_size=1, max_size=8), MOMENTS)
def test_a_new_configuration_begins_at_its_certification_and_after_all_others(starts: list[int], now_ms: int) -> None:
    stored = stored_from(*starts)
    begins_ms = effective_from(stored, now_ms)
    assert begins_ms >= now_ms
    assert begins_ms > stored[-1].valid_from_ms
    # Never at the moment from which its month's limit is measured.
    assert begins_ms > month_of(begins_ms)[0]
    if now_ms > max(starts) and month_of(now_ms)[0] != now_ms:
        assert begins_ms == now_ms


def test_the_value_at_the_start_of_a_period() -> None:
    june, july = parse_timestamp("2025-06-10T00:00:00Z"), parse_timestamp("2025-07-10T00:00:00Z")
    stored = stored_from(june, july)
    assert period_start(stored, july).signals == stored[0].signals
    assert period_start(stored, july + 31 * 86_400_000).signals == stored[1].signals
    # Before the first there was nothing: the first itself is the measure.
    assert period_start(stored, june).signals == stored[0].signals
    with pytest.raises(ValueError):
        period_start([], june)


def test_the_same_values_are_issued_again_for_whole_months() -> None:
    stored = stored_from(parse_timestamp("2025-12-10T12:00:00Z"))
    start = datetime(2026, 2, 1, tzinfo=UTC)
    found = configuration_at(stored, int((start + timedelta(days=27, hours=23)).timestamp()) * 1000)
    assert found is not None
    assert (found.valid_from_ms, found.valid_until_ms) == month_of(int(start.timestamp()) * 1000)
