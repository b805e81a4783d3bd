"""Times inside are integers, outside ISO 8601 with Z; nothing is rounded on the way."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import from_datetime, now_us, parse_iso, to_datetime, to_iso

YEARS_1_TO_9999 = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@given(YEARS_1_TO_9999)
def test_every_microsecond_survives(moment: int) -> None:
    assert from_datetime(to_datetime(moment)) == moment
    assert to_iso(moment).endswith("Z")
    assert parse_iso(to_iso(moment)) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-03-01T09:00:00+09:00", 1_709_251_200_000_000),
        ("2024-03-01T00:00:00.000001Z", 1_709_251_200_000_001),
        ("1969-12-31T23:59:59.999999Z", -1),
    ],
)
def test_zones_are_read(text: str, moment: int) -> None:
    assert parse_iso(text) == moment


@pytest.mark.parametrize("text", ["2024-03-01T09:00:00", "2024-03-01", "yesterday", "", "12"])
def test_a_time_without_a_zone_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        parse_iso(text)


def test_the_fraction_is_said_only_where_there_is_one() -> None:
    assert to_iso(0) == "1970-01-01T00:00:00Z"
    assert to_iso(500_000) == "1970-01-01T00:00:00.500000Z"


def test_another_zone_is_said_as_utc() -> None:
    tokyo = datetime(2024, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert to_iso(from_datetime(tokyo)) == "2024-01-01T00:00:00Z"


def test_beyond_year_9999_is_said_so() -> None:
    with pytest.raises(OverflowError):
        to_datetime(253_402_300_800_000_000)


def test_now_is_now() -> None:
    assert abs(now_us() - time.time() * 1e6) < 5e6
