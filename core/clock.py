"""Times: µs since 1970 UTC inside, ISO 8601 with Z outside."""

import time
from datetime import UTC, datetime, timedelta

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """This machine's clock, µs since 1970 UTC."""
    return time.time_ns() // 1000


def to_datetime(microseconds: int) -> datetime:
    """µs since 1970 as an aware UTC datetime; OverflowError beyond year 9999."""
    return EPOCH + timedelta(microseconds=microseconds)


def from_datetime(moment: datetime) -> int:
    """An aware datetime as µs since 1970 UTC; ValueError for one without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone: add Z or an offset")
    return (moment - EPOCH) // timedelta(microseconds=1)


def parse_iso(text: str) -> int:
    """ISO 8601 with a zone as µs since 1970 UTC; ValueError otherwise."""
    return from_datetime(datetime.fromisoformat(text))


def to_iso(microseconds: int) -> str:
    """ISO 8601 in UTC with Z, with a fraction only where there is one."""
    text = to_datetime(microseconds).isoformat()
    return text.removesuffix("+00:00") + "Z"
