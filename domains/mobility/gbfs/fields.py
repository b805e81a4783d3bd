"""What each field of a GBFS document may hold, in every version; kept as GBFS 3.0 has it. Pure.

A kind reads the value of any version (1.0 to 3.0) and writes that of 3.0 or of 2.3; what it refuses
is a ValueError that says why. Names and kinds are those of gbfs.md, versions 1.0, 2.3 and 3.0.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from core.clock import MICROSECONDS, parse_iso, to_iso

TEXT_CHARACTERS_MAX = 10_000
LANGUAGES_MAX = 100
ITEMS_MAX = 100_000
TIME_SECONDS_MIN = 1_450_155_600
"""2015-12-15: GBFS has no earlier moment; it stands in the schemas."""
TIME_SECONDS_MAX = 253_402_300_799
UNKNOWN_LANGUAGE = "und"
"""BCP 47's: a text of GBFS 1 or 2 has the language of its system, which another file says."""

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&'()*+,./:;=?@\[\]_~0-9A-Za-z-]+")
_UNSAFE = ("javascript", "data", "vbscript", "file", "blob")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_PHONE = re.compile(r"\+[1-9][0-9]{1,14}")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
_COUNTRY = re.compile(r"[A-Z]{2}")

Read = Callable[[Any], Any]
Write = Callable[[Any, str], Any]


def _as_it_is(value: Any, language: str) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read from any version, and written as 3.0 and as 2.3; None writes nothing."""

    read: Read
    modern: Write = _as_it_is
    older: Write = _as_it_is


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in 3.0, those in earlier versions, and the one that 2.3 has.

    `v2` is "" where 2.3 has none, None where it is the same.
    """

    name: str
    kind: Kind
    required: bool = False
    earlier: tuple[str, ...] = ()
    v2: str | None = None


Table = Sequence[Field]


def is_number(value: Any) -> bool:
    """Whether this is a JSON number that a computer can count with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    if len(value) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"is longer than {TEXT_CHARACTERS_MAX} characters")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("holds a character that is none")
    return value


def _identity(value: Any) -> str:
    """Ids are texts; many feeds of version 1 have numbers."""
    return _text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _matching(pattern: re.Pattern[str], what: str) -> Read:
    def read(value: Any) -> str:
        text = _text(value)
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {what}")
        return text

    return read


def _uri(value: Any) -> str:
    text = _text(value).strip()
    if not _URI.fullmatch(text) or urlsplit(text).scheme.lower() in _UNSAFE:
        raise ValueError("must be a URI that can be opened")
    return text


def _whole(value: Any) -> int:
    if not is_number(value) or value < 0 or value != int(value) or value > 2**53:
        raise ValueError("must be a whole number from 0 up")
    return int(value)


def _between(low: float, high: float) -> Read:
    def read(value: Any) -> float:
        if not is_number(value) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def _price(value: Any) -> float:
    if isinstance(value, str):  # as text in versions before 2.3
        try:
            value = float(value)
        except ValueError:
            value = None
    return float(_between(0, 1e9)(value))


def _boolean(value: Any) -> bool:
    if value not in (0, 1) or isinstance(value, float):  # numbers in version 1
        raise ValueError("must be true or false")
    return bool(value)


def _choice(*allowed: str, **renamed: str) -> Read:
    def read(value: Any) -> str:
        text = _text(value).lower()
        text = renamed.get(text, text)
        if text not in allowed:
            raise ValueError(f"is none of {', '.join(allowed)}")
        return text

    return read


def _date(value: Any) -> str:
    text = _text(value)
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("must be a date such as 2026-01-31") from None


def instant(value: Any) -> int:
    """µs since 1970 of a POSIX time (1.x, 2.x) or an RFC 3339 one (3.0); ValueError otherwise."""
    if isinstance(value, str):
        try:
            moment = parse_iso(value)
        except ValueError:
            raise ValueError("must be a time such as 2026-01-31T12:00:00Z") from None
    elif is_number(value) and 0 <= value <= TIME_SECONDS_MAX:
        moment = int(value * MICROSECONDS)
    else:
        raise ValueError("must be a POSIX time or one of RFC 3339")
    if not TIME_SECONDS_MIN <= moment / MICROSECONDS <= TIME_SECONDS_MAX:
        raise ValueError("is before 2015-12-15 or after the year 9999")
    return moment


def rfc3339(moment: int) -> str:
    """A time as 3.0 writes it, in whole seconds of UTC."""
    return to_iso(moment - moment % MICROSECONDS)


def posix(moment: int) -> int:
    """A time as 2.3 writes it."""
    return moment // MICROSECONDS


def _zone(value: Any) -> str:
    text = _text(value)
    if text not in available_timezones():
        raise ValueError("must be an IANA time zone")
    return text


def _list_of(read: Read) -> Read:
    def read_all(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > ITEMS_MAX:
            raise ValueError(f"must be a list of at most {ITEMS_MAX}")
        return [read(each) for each in value]

    return read_all


def _localised(read: Read) -> Read:
    """[{text, language}] of 3.0, or the one text of an earlier version."""

    def read_all(value: Any) -> list[dict[str, str]]:
        if isinstance(value, str):
            return [{"text": read(value), "language": UNKNOWN_LANGUAGE}]
        if not isinstance(value, list) or not 0 < len(value) <= LANGUAGES_MAX:
            raise ValueError("must be a text, or texts with their languages")
        found = {}
        for each in value:
            if not isinstance(each, Mapping):
                raise ValueError("must be texts with their languages")  # noqa: TRY004
            found[_language(each.get("language"))] = read(each.get("text"))
        return [{"text": text, "language": language} for language, text in found.items()]

    return read_all


_language = _matching(_LANGUAGE, "a language such as ja or pt-BR")


def _in_language(value: Sequence[Mapping[str, str]], language: str) -> str:
    """The text in a language, or else the first one."""
    texts = {each["language"]: each["text"] for each in value}
    return texts.get(language, value[0]["text"])


def _with_language(value: Sequence[Mapping[str, str]], language: str) -> list[dict[str, str]]:
    """Every text; one without a language has the system's."""
    known = {each["language"] for each in value}
    named = ((each["text"], each["language"]) for each in value)
    return [
        {"text": text, "language": language if said == UNKNOWN_LANGUAGE else said}
        for text, said in named
        if said != UNKNOWN_LANGUAGE or language not in known
    ]


def _capacity(value: Any) -> list[dict[str, Any]]:
    """[{vehicle_type_ids, count}] of 3.0, or {vehicle_type_id: count} of 2.x."""
    if isinstance(value, Mapping):
        return [{"vehicle_type_ids": [_text(k)], "count": _whole(n)} for k, n in value.items()]
    return [read_whole(GROUP, each) for each in _list_of(_as_object)(value)]


def _capacity_by_type(value: Sequence[Mapping[str, Any]], language: str) -> Any:
    if any(len(each["vehicle_type_ids"]) != 1 for each in value):
        return None  # 2.3 has no words for a capacity that types share
    return {each["vehicle_type_ids"][0]: each["count"] for each in value}


def _as_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be an object")  # noqa: TRY004
    return value


def _area(value: Any) -> dict[str, Any]:
    """A GeoJSON MultiPolygon; a Polygon becomes one."""
    shape = _as_object(value)
    polygons = shape.get("coordinates")
    if shape.get("type") == "Polygon":
        polygons = [polygons]
    elif shape.get("type") != "MultiPolygon":
        raise ValueError("must be a MultiPolygon")
    rings = _list_of(_list_of(_list_of(_place)))(polygons)
    for ring in (ring for polygon in rings for ring in polygon):
        if len(ring) < 4 or ring[0] != ring[-1]:  # noqa: PLR2004 - RFC 7946, 3.1.6
            raise ValueError("has a ring that is not closed")
    return {"type": "MultiPolygon", "coordinates": rings}


def _place(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise ValueError("has a place that is not longitude, latitude")
    return [_between(-180, 180)(value[0]), _between(-90, 90)(value[1])]


def read_whole(table: Table, value: Any) -> dict[str, Any]:
    """An object of a table in which every field must be good."""
    item, faults = read(table, _as_object(value))
    faults += [(name, "is missing") for name in missing(table, item)]
    if faults:
        raise ValueError(f"has a bad {faults[0][0]}: {faults[0][1]}")
    return item


def read(table: Table, value: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What is good of an object, as 3.0 names it, and the fields that are not: (name, why)."""
    item: dict[str, Any] = {}
    faults = []
    for field in table:
        name = next((n for n in (field.name, *field.earlier) if n in value), None)
        given = None if name is None else value[name]
        # An empty field is how many feeds say that they have nothing to say.
        if given is None or (not field.required and given in ("", [], {})):
            if field.required and name is not None:
                faults.append((name, "must not be empty"))
            continue
        try:
            item[field.name] = field.kind.read(given)
        except ValueError as error:
            faults.append((str(name), str(error)))
    return item, faults


def missing(table: Table, item: Mapping[str, Any]) -> list[str]:
    """The required fields that an item does not have."""
    return [field.name for field in table if field.required and field.name not in item]


def modern(table: Table, item: Mapping[str, Any], language: str) -> dict[str, Any]:
    """An item in 3.0, texts without a language in this one."""
    written = ((f.name, f.kind.modern(item[f.name], language)) for f in table if f.name in item)
    return {name: value for name, value in written if value is not None}


def older(table: Table, item: Mapping[str, Any], language: str) -> dict[str, Any]:
    """An item in 2.3, its texts in this language."""
    written = (
        (field.name if field.v2 is None else field.v2, field.kind.older(item[field.name], language))
        for field in table
        if field.name in item and field.v2 != ""
    )
    return {name: value for name, value in written if value is not None}


def one(table: Table) -> Kind:
    """An object of a table."""
    return Kind(
        lambda value: read_whole(table, value),
        lambda value, language: modern(table, value, language),
        lambda value, language: older(table, value, language),
    )


def many(table: Table) -> Kind:
    """A list of objects of a table."""
    read_all = _list_of(lambda each: read_whole(table, each))
    return Kind(
        read_all,
        lambda value, language: [modern(table, each, language) for each in value],
        lambda value, language: [older(table, each, language) for each in value],
    )


TEXT = Kind(_localised(_text), _with_language, _in_language)
LINKS = Kind(_localised(_uri), _with_language, _in_language)
STRING, ID, URI = Kind(_text), Kind(_identity), Kind(_uri)
IDS = Kind(_list_of(_identity))
# One in 2.x, and the first is the one that its texts are in.
LANGUAGES = Kind(
    lambda value: _list_of(_language)([value] if isinstance(value, str) else value),
    older=lambda value, language: value[0],
)
WHOLE, NUMBER = Kind(_whole), Kind(_between(0, 1e9))
RATE = Kind(_between(-1e9, 1e9))
PRICE, BOOLEAN, DATE, ZONE = Kind(_price), Kind(_boolean), Kind(_date), Kind(_zone)
LATITUDE, LONGITUDE = Kind(_between(-90, 90)), Kind(_between(-180, 180))
FRACTION = Kind(_between(0, 1))
TIME = Kind(
    lambda value: rfc3339(instant(value)), older=lambda value, language: posix(parse_iso(value))
)
EMAIL = Kind(_matching(_EMAIL, "an e-mail address"))
# Free in 2.x, E.164 in 3.0.
PHONE = Kind(_text, lambda value, language: value if _PHONE.fullmatch(value) else None)
CURRENCY = Kind(_matching(_CURRENCY, "a currency of ISO 4217"))
COLOUR = Kind(_matching(_COLOUR, "a colour such as #00a0e9"))
COUNTRY = Kind(_matching(_COUNTRY, "a country of ISO 3166-1"))
AREA = Kind(_area)
CAPACITY = Kind(_capacity, older=_capacity_by_type)


def choice(*allowed: str, **renamed: str) -> Kind:
    """One of these words."""
    return Kind(_choice(*allowed, **renamed))


def choices(*allowed: str) -> Kind:
    """Some of these words."""
    return Kind(_list_of(_choice(*allowed)))


GROUP: Table = (Field("vehicle_type_ids", IDS, True), Field("count", WHOLE, True))
