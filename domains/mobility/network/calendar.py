"""Service days: when one begins, which version of a feed is in force, what holiday it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jpholiday
import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.timetable import Version

PAST_DAYS_MAX, FUTURE_DAYS_MAX = 3_700, 1_100
"""What is kept around today: a feed that is valid until 2099 must not fill memory."""
HALF_DAY = timedelta(hours=12)
NOON = time(12)


@dataclass(frozen=True, slots=True)
class Days:
    """For each version its days in force, from `first` on."""

    first: date
    in_force: NDArray[np.bool_]
    """A row a version, a column a day."""

    def on(self, version: int, day: date) -> bool:
        """Whether a version, by its index, is in force on a day."""
        column = (day - self.first).days
        return 0 <= column < self.in_force.shape[1] and bool(self.in_force[version, column])


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """An IANA zone; UTC for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


@lru_cache(maxsize=65_536)
def day_start(timezone: str, day: date) -> int:
    """Second 0 of a service day, in seconds since 1970: noon less 12 h (GTFS, "Time").

    On days when clocks change that is not midnight.
    """
    noon = datetime.combine(day, NOON, zone(timezone)).astimezone(UTC)
    return round((noon - HALF_DAY).timestamp())


def day_of(timezone: str, at: datetime) -> date:
    """The calendar day of a moment."""
    return at.astimezone(zone(timezone)).date()


JAPAN = "Asia/Tokyo"


@lru_cache(maxsize=4096)
def holiday(timezone: str, day: date) -> str | None:
    """The name of a Japanese holiday (国民の祝日に関する法律), for feeds of Japan."""
    return jpholiday.is_holiday_name(day) if timezone == JAPAN else None


def in_force(
    versions: Sequence[Version], today: date, versions_max: int
) -> tuple[tuple[Version, ...], Days]:
    """The versions that have a day, and which: on each day the last one that is valid then.

    `versions` stand in the order of their import. The newest of a feed is there without a day too,
    for its stops and routes. At most the `versions_max` newest of a feed.
    """
    earliest = today - timedelta(days=PAST_DAYS_MAX)
    latest = today + timedelta(days=FUTURE_DAYS_MAX)
    spans = [_span(version, earliest, latest) for version in versions]
    real = [span for span in spans if span is not None]
    first = min((begin for begin, _ in real), default=today)
    count = (max((end for _, end in real), default=today) - first).days + 1
    chosen: list[int] = []
    rows: dict[int, NDArray[np.bool_]] = {}
    for numbers in _by_feed(versions).values():
        owner = np.full(count, -1, np.int32)
        for number in numbers:
            if (span := spans[number]) is not None:
                owner[(span[0] - first).days : (span[1] - first).days + 1] = number
        having = [number for number in numbers if (owner == number).any()]
        if numbers[-1] not in having:
            having.append(numbers[-1])
        for number in having[-versions_max:]:
            chosen.append(number)
            rows[number] = owner == number
    chosen.sort()
    matrix = np.array([rows[number] for number in chosen], np.bool_).reshape(len(chosen), count)
    return tuple(versions[number] for number in chosen), Days(first, matrix)


def _span(version: Version, earliest: date, latest: date) -> tuple[date, date] | None:
    if version.valid_from is None or version.valid_to is None:
        return None
    begin, end = max(version.valid_from, earliest), min(version.valid_to, latest)
    return (begin, end) if begin <= end else None


def _by_feed(versions: Sequence[Version]) -> Mapping[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, version in enumerate(versions):
        found.setdefault(version.feed, []).append(number)
    return found
