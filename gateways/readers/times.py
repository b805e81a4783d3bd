"""How recordings write times, and how the same text is written for another time."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from core.clock import EPOCH, MICROSECONDS, from_datetime, to_datetime

MINUTE_US = 60 * MICROSECONDS
DAY_US = 86_400 * MICROSECONDS
MILLISECONDS_MIN = 10**11


@dataclass(frozen=True, slots=True)
class TimeStyle:
    """One way to write a time: whom it matches, how it reads and how it is written again."""

    pattern: re.Pattern[str]
    parse: Callable[[str], int]
    write: Callable[[int, str], str]


def _parse_iso(text: str) -> int:
    moment = datetime.fromisoformat(text.replace(" UTC", "Z"))
    return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _write_iso(time_us: int, like: str) -> str:
    """ISO with the separator, the fraction and the zone that `like` has."""
    moment = to_datetime(time_us)
    text = moment.strftime(f"%Y-%m-%d{like[10]}%H:%M:%S")
    if fraction := re.search(r"\.\d+", like):
        digits = len(fraction[0]) - 1
        text += "." + f"{moment.microsecond:06d}".ljust(digits, "0")[:digits]
    return text + ("Z" if re.search(r"(Z|[+-]\d\d:?\d\d| UTC)$", like) else "")


CTIME = "%a %b %d %H:%M:%S UTC %Y"


def _parse_ctime(text: str) -> int:
    return from_datetime(datetime.strptime(text, CTIME).replace(tzinfo=UTC))


def _parse_number(text: str) -> int:
    number = float(text)
    return round(number * (1000 if abs(number) >= MILLISECONDS_MIN else MICROSECONDS))


def _write_number(time_us: int, like: str) -> str:
    if float(like) >= MILLISECONDS_MIN:
        return str(time_us // 1000)
    return f"{time_us / MICROSECONDS:.6f}".rstrip("0").rstrip(".")


def _write_date(time_us: int, like: str) -> str:
    return to_datetime(time_us).strftime("%Y-%m-%d")


STYLES = (
    TimeStyle(re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d.*)?"), _parse_iso, _write_iso),
    TimeStyle(re.compile(r"\d{4}-\d\d-\d\d"), _parse_iso, _write_date),
    TimeStyle(
        re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ [\d:]{8} UTC \d{4}"),
        _parse_ctime,
        lambda time_us, like: to_datetime(time_us).strftime(CTIME),
    ),
    TimeStyle(re.compile(r"\d{9,13}(\.\d+)?"), _parse_number, _write_number),
)


def style_of(text: str) -> TimeStyle | None:
    """The style a text is written in; None when it is no time we know."""
    return next((style for style in STYLES if style.pattern.fullmatch(text)), None)


def parse(text: str) -> int | None:
    """µs since 1970 UTC of a text in any style; None when it is no time. No zone means UTC."""
    style = style_of(text.strip())
    if style is None:
        return None
    try:
        return style.parse(text.strip())
    except (ValueError, OverflowError):
        return None


class Shift:
    """Moves times so that the first one seen falls on `start_us`; None leaves them alone."""

    def __init__(self, start_us: int | None) -> None:
        self._start_us = start_us
        self.delta_us: int | None = 0 if start_us is None else None

    def __bool__(self) -> bool:
        return self._start_us is not None

    def move(self, time_us: int) -> int:
        """Where this time goes; the first call fixes how far everything is moved."""
        if self.delta_us is None:
            self.delta_us = (self._start_us or 0) - time_us
        return time_us + self.delta_us

    def rewrite(self, text: str) -> str:
        """The text with its time moved, in the same style; unchanged when it is no time."""
        style, time_us = style_of(text.strip()), parse(text)
        if style is None or time_us is None or not self:
            return text
        moved = self.move(time_us)
        if not 0 <= moved < (datetime.max.replace(tzinfo=UTC) - EPOCH).days * DAY_US:
            return text
        return style.write(moved, text.strip())


def minute_of_year(time_us: int) -> int:
    """J2735 MinuteOfTheYear: minutes since the year began, UTC."""
    moment = to_datetime(time_us)
    begin = moment.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return int((moment - begin).total_seconds()) // 60


def millisecond_of_minute(time_us: int) -> int:
    """J2735 DSecond: milliseconds in the minute."""
    return time_us % MINUTE_US // 1000
