"""One value of GTFS out of its text, and what kinds of values there are (GTFS, "Field Types")."""

import math
import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import pyarrow as pa

YEAR_MIN, YEAR_MAX = 1950, 2150
INT32_MAX = 2**31 - 1
ID_CHARACTERS_MAX = 255

_TIME = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_DATE = re.compile(r"(\d{4})([-/]?)(\d{1,2})\2(\d{1,2})", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,12}(?:\.0+)?", re.ASCII)
_COLOUR = re.compile(r"#?([0-9A-Fa-f]{6})")
_PRICE = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)


def seconds(text: str) -> int:
    """H:MM:SS or H:MM of a service day, also over 24 h, in seconds."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("is no time")
    hours, minutes, rest = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(rest or 0)


def day(text: str) -> date:
    """YYYYMMDD; with - or / between, as spreadsheets write it, too."""
    found = _DATE.fullmatch(text)
    if found is None or (not found[2] and len(text) != len("YYYYMMDD")):
        raise ValueError("is no date")
    read = date(int(found[1]), int(found[3]), int(found[4]))
    if not YEAR_MIN <= read.year <= YEAR_MAX:
        raise ValueError("is out of range")
    return read


def whole(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers between the two; 3.0 is one."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise ValueError("is no whole number")
        value = int(text.partition(".")[0])
        if not low <= value <= high:
            raise ValueError("is out of range")
        return value

    return read


def real(low: float, high: float) -> Callable[[str], float]:
    """A reader of finite numbers between the two."""

    def read(text: str) -> float:
        value = float(text) if "_" not in text else math.nan
        if not low <= value <= high:
            raise ValueError("is out of range")
        return value

    return read


def colour(text: str) -> str:
    """Six hexadecimal digits; a # before them is dropped."""
    found = _COLOUR.fullmatch(text)
    if found is None:
        raise ValueError("is no colour")
    return found[1]


def price(text: str) -> str:
    """A price as it came, so that 15.00 stays 15.00."""
    if not _PRICE.fullmatch(text):
        raise ValueError("is no price")
    try:
        return str(Decimal(text))
    except InvalidOperation as error:  # pragma: no cover
        raise ValueError("is no price") from error


def currency(text: str) -> str:
    """An ISO 4217 code by its shape."""
    if not (len(text) == len("JPY") and text.isascii() and text.isalpha()):
        raise ValueError("is no currency")
    return text.upper()


def name(text: str) -> str:
    """An id; one that no index of ours could hold is unreadable."""
    if len(text) > ID_CHARACTERS_MAX:
        raise ValueError("is too long")
    return text


class Kind(NamedTuple):
    """A kind of value: its type, and its reader; none: text as it is."""

    type: pa.DataType
    read: Callable[[str], Any] | None = None


TEXT = Kind(pa.string())
ID = Kind(pa.string(), name)
TIME = Kind(pa.int32(), seconds)
DATE = Kind(pa.date32(), day)
COLOUR = Kind(pa.string(), colour)
PRICE = Kind(pa.string(), price)
CURRENCY = Kind(pa.string(), currency)
LONGITUDE = Kind(pa.float64(), real(-180, 180))
LATITUDE = Kind(pa.float64(), real(-90, 90))
DISTANCE = Kind(pa.float64(), real(0, 1e9))
COUNT = Kind(pa.int32(), whole(0, INT32_MAX))


def choice(high: int) -> Kind:
    """One of GTFS's enumerations: 0 to `high`."""
    return Kind(pa.int16(), whole(0, high))
