"""What every common format demands of names, times, positions and documents."""

import math
import re
from collections.abc import Mapping
from typing import Any

from core.sensorthings import Position, canonical_json
from core.units import is_ucum

THING_CHARACTERS_MAX = 200
PROPERTY_CHARACTERS_MAX = 100
TEXT_CHARACTERS_MAX = 10_000
# Years 1 to 9999: what ISO 8601 and the API can say.
TIME_MIN = -62_135_596_800_000_000
TIME_MAX = 253_402_300_799_999_999
LONGITUDE_MAX, LATITUDE_MAX = 180.0, 90.0

# PostgreSQL's jsonb cannot hold U+0000; an escaped backslash before it is not an escape of it.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_POSITION_FIELDS = frozenset({"longitude", "latitude", "speed", "course"})


def thing_fault(name: str) -> str | None:
    """Why `name` cannot name a Thing, or None: 1 to 200 printable characters without a slash."""
    if "/" in name:
        return "must not contain a slash"
    return _name_fault(name, THING_CHARACTERS_MAX)


def property_fault(name: str) -> str | None:
    """Why `name` cannot name an observed property, or None; an instance may follow one slash."""
    if name.startswith("/") or name.endswith("/"):
        return "needs a name before and after its slash"
    return _name_fault(name, PROPERTY_CHARACTERS_MAX)


def _name_fault(name: str, characters_max: int) -> str | None:
    if not name or name.isspace():
        return "must not be empty"
    if len(name) > characters_max:
        return f"is longer than {characters_max} characters"
    if not name.isprintable():
        return "holds a character that is not printable"
    return None


def unit_fault(unit: str) -> str | None:
    """Why `unit` is not a unit, or None."""
    return None if is_ucum(unit) else "is not a UCUM unit"


def time_fault(microseconds: int) -> str | None:
    """Why a time cannot be stored, or None."""
    return None if TIME_MIN <= microseconds <= TIME_MAX else "is outside the years 1 to 9999"


def position_of(value: Mapping[str, Any]) -> Position | str | None:
    """A Position where the object has longitude and latitude and nothing foreign to a position.

    None: some other object. A text: the fault of an object that means to be a position.
    """
    if not ({"longitude", "latitude"} <= value.keys() <= _POSITION_FIELDS):
        return None
    numbers: dict[str, float] = {}
    for name, number in value.items():
        if number is None and name in ("speed", "course"):
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            return f"{name} is not a number"
        try:
            numbers[name] = float(number)
        except OverflowError:
            return f"{name} is not finite"
    return position_fault(**numbers) or Position(**numbers)


def position_fault(
    longitude: float, latitude: float, speed: float = 0.0, course: float = 0.0
) -> str | None:
    """Why these are not a place on the Earth, or None."""
    if not abs(longitude) <= LONGITUDE_MAX:
        return "longitude is outside -180 to 180"
    if not abs(latitude) <= LATITUDE_MAX:
        return "latitude is outside -90 to 90"
    if not (math.isfinite(speed) and math.isfinite(course)):
        return "speed or course is not finite"
    return None


def text_fault(text: str) -> str | None:
    """Why a text cannot be stored as a result, or None."""
    if len(text) > TEXT_CHARACTERS_MAX:
        return f"is longer than {TEXT_CHARACTERS_MAX} characters"
    return "holds the character U+0000" if "\0" in text else None


def document_fault(value: Any) -> str | None:
    """Why a JSON value cannot be stored as a document, or None."""
    try:
        text = canonical_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        return f"cannot be stored as JSON ({error})"
    return "holds the character U+0000" if _NUL.search(text) else None
