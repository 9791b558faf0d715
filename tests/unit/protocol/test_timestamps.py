from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.timestamps import format_timestamp, parse_timestamp, parse_utc_timestamp

# From the beginning of the year 1 to the end of the year 9999.
MOMENTS_MS = st.integers(-62_135_596_800_000, 253_402_300_799_999)


@given(MOMENTS_MS)
def test_what_is_written_is_read_back(moment_ms: int) -> None:
    assert parse_timestamp(format_timestamp(moment_ms)) == moment_ms


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001
def test_any_offset_is_the_same_moment_in_utc(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return  # old local mean times have no form in RFC 3339
    whole_ms = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    expected_ms = (whole_ms - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    assert parse_timestamp(moment.isoformat()) == round(expected_ms)


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2025-05-27T10:00:00+02:00", 1_748_332_800_000),
        ("2025-05-27t08:00:00z", 1_748_332_800_000),
        ("2025-05-27T08:00:00.1239Z", 1_748_332_800_123),
        ("2024-02-29T00:00:00-00:30", 1_709_166_600_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_forms_of_a_timestamp(text: str, moment_ms: int) -> None:
    assert parse_timestamp(text) == moment_ms


def test_a_year_has_four_digits() -> None:
    assert format_timestamp(-62_135_596_800_000) == "0001-01-01T00:00:00Z"
    assert format_timestamp(-30_610_224_000_001) == "0999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-05-27",
        "2025-05-27T08:00:00",
        "2025-05-27 08:00:00Z",
        "2025-05-27T08:00Z",
        "2025-02-29T08:00:00Z",
        "2025-05-27T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2025-05-27T08:00:00Z\n",
        "2025-05-27T08:00:00+25:00",
        "2025-05-27T08:00:00+0200",
        "٢٠٢٥-05-27T08:00:00Z",
        "1748332800",
    ],
)
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(ValueError):
        parse_timestamp(text)


def test_a_fraction_is_written_only_where_there_is_one() -> None:
    assert format_timestamp(1_748_332_800_000) == "2025-05-27T08:00:00Z"
    assert format_timestamp(1_748_332_800_050) == "2025-05-27T08:00:00.050Z"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59+00:01"])
def test_a_moment_that_can_be_told_again(text: str) -> None:
    moment_ms = parse_utc_timestamp(text)
    assert parse_timestamp(format_timestamp(moment_ms)) == moment_ms == parse_timestamp(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2025-05-27"])
def test_a_moment_that_no_text_of_utc_tells(text: str) -> None:
    with pytest.raises(ValueError, match=r"years 1 to 9999|not an ISO 8601"):
        parse_utc_timestamp(text)
