"""Parsing of query fields: areas, times, intervals and cursors; a bad one is a 422 by its name."""

import base64
import binascii
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator, AwareDatetime

import domains
from consent.log import Place
from consent.queries import Area
from consent.results import Row
from core.errors import invalid
from core.sector import Sector

NO_CONTROL = r"^[^\x00-\x1f\x7f]*$"
EARTH_METRES = 6371008.8
RADIUS_METRES_MAX = 20_100_000
INTERVAL_SECONDS_MAX = 366 * 86400
CURSOR_CHARACTERS_MAX = 1024
BBOX_NUMBERS = 4
NEAR_NUMBERS = 3


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC: PostgreSQL knows no offset of 16 hours and more."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside of the years 1 to 9999") from error


Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
"""A time with its offset, of a body."""
SectorName = Annotated[
    str,
    Path(description="a sector of /v1/sectors", examples=["ports"], pattern=NO_CONTROL),
]
ThingId = Annotated[
    str,
    Path(
        description="the Thing's id in its sector",
        examples=["431000001"],
        min_length=1,
        max_length=256,
        pattern=NO_CONTROL,
    ),
]
Limit = Annotated[int | None, Query(ge=1, description="how many at most")]
After = Annotated[
    str | None,
    Query(description="opaque: taken from `next`", min_length=1, max_length=CURSOR_CHARACTERS_MAX),
]
Bbox = Annotated[
    str | None,
    Query(
        description="west,south,east,north in degrees; west > east crosses the antimeridian",
        examples=["139.5,35.3,139.9,35.7"],
        max_length=200,
    ),
]
Near = Annotated[
    str | None,
    Query(
        description="longitude,latitude,radius in metres",
        examples=["139.65,35.45,2000"],
        max_length=200,
    ),
]
Unit = Annotated[
    str | None,
    Query(
        description="UCUM unit of the numbers in the answer: those of its dimension are converted",
        examples=["km/h"],
        min_length=1,
        max_length=64,
    ),
]


async def known_sector(sector: SectorName) -> Sector:
    """The sector named in the path; CityError `not-found` for an unknown one."""
    return domains.sector(sector)


KnownSector = Annotated[Sector, Depends(known_sector)]


def page_size(limit: int | None, default: int, request: Request) -> int:
    """How many rows a page has; CityError `invalid` for more than this server allows."""
    rows_max: int = request.app.state.settings.page_rows_max
    if limit is None:
        return min(default, rows_max)
    if limit > rows_max:
        raise invalid("limit", f"at most {rows_max}")
    return limit


def _numbers(name: str, text: str, count: int, form: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise invalid(name, f"must be {count} numbers: {form}")
    return numbers


def _check_degrees(name: str, longitudes: list[float], latitudes: list[float]) -> None:
    if any(abs(value) > 180 for value in longitudes):  # noqa: PLR2004 - degrees
        raise invalid(name, "longitudes are between -180 and 180")
    if any(abs(value) > 90 for value in latitudes):  # noqa: PLR2004 - degrees
        raise invalid(name, "latitudes are between -90 and 90")


Box = tuple[float, float, float, float]


def _split(west: float, south: float, east: float, north: float) -> tuple[Box, ...]:
    """One box, or two where it crosses the antimeridian."""
    if west <= east:
        return ((west, south, east, north),)
    return ((west, south, 180.0, north), (-180.0, south, east, north))


def parse_bbox(text: str) -> tuple[Box, ...]:
    """west,south,east,north (RFC 7946, 5.2) as one or two boxes."""
    west, south, east, north = _numbers("bbox", text, BBOX_NUMBERS, "west,south,east,north")
    _check_degrees("bbox", [west, east], [south, north])
    if south > north:
        raise invalid("bbox", "south is north of north")
    return _split(west, south, east, north)


def parse_near(text: str) -> tuple[float, float, float]:
    """longitude,latitude,radius in metres."""
    longitude, latitude, radius = _numbers("near", text, NEAR_NUMBERS, "longitude,latitude,metres")
    _check_degrees("near", [longitude], [latitude])
    if not 0 < radius <= RADIUS_METRES_MAX:
        raise invalid("near", f"the radius is over 0 and at most {RADIUS_METRES_MAX} metres")
    return longitude, latitude, radius


def boxes_around(longitude: float, latitude: float, radius: float) -> tuple[Box, ...]:
    """Boxes that hold the whole circle: what an index can look up before the exact distance."""
    angle = math.degrees(radius / EARTH_METRES) * 1.000001
    south, north = latitude - angle, latitude + angle
    if south <= -90 or north >= 90:  # noqa: PLR2004 - over a pole: every longitude
        return ((-180.0, max(south, -90.0), 180.0, min(north, 90.0)),)
    ratio = math.sin(math.radians(angle)) / math.cos(math.radians(latitude))
    width = math.degrees(math.asin(min(1.0, ratio)))
    west, east = longitude - width, longitude + width
    return _split(
        west + 360 if west < -180 else west,  # noqa: PLR2004 - degrees
        south,
        east - 360 if east > 180 else east,  # noqa: PLR2004 - degrees
        north,
    )


def parse_area(bbox: str | None, near: str | None) -> Area | None:
    """What `bbox` and `near` ask for, together if both are given."""
    circle = parse_near(near) if near else None
    if bbox:
        return Area(parse_bbox(bbox), circle)
    return Area(boxes_around(*circle), circle) if circle else None


def given_once(request: Request) -> None:
    """CityError `invalid` for a parameter given twice: which of the two would count?

    A route may declare a list of values.
    """
    route: APIRoute = request.scope["route"]
    lists = {f.alias for f in route.dependant.query_params if _is_list(f.field_info.annotation)}
    for name in set(request.query_params) - lists:
        if len(request.query_params.getlist(name)) > 1:
            raise invalid(name, "is given more than once")


def _is_list(declared: Any) -> bool:
    return any(get_origin(each) is list for each in (declared, *get_args(declared)))


def parse_moment(name: str, text: str | None, default: str) -> datetime | str:
    """An aware UTC datetime; `default` (an infinity of PostgreSQL) when there is none."""
    if not text:
        return default
    if "T" in text:
        # A plus sign of an offset, sent unencoded, arrives as a space.
        text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise invalid(name, "a time needs a zone: add Z or an offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise invalid(name, "must be ISO 8601 with a zone: 2026-01-01T00:00:00Z") from error


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ISO_DURATION = re.compile(
    r"P(?:(\d{1,6})D)?(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9})S)?)?"
)
_SHORT_DURATION = re.compile(r"(\d{1,9})([smhd])")


def parse_interval(text: str) -> timedelta:
    """PT5M (ISO 8601, days and shorter) or 5m, 1h, 1d; from 1 s to 366 days."""
    seconds = 0
    if match := _SHORT_DURATION.fullmatch(text):
        seconds = int(match[1]) * _SECONDS[match[2]]
    elif match := _ISO_DURATION.fullmatch(text):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    if not 1 <= seconds <= INTERVAL_SECONDS_MAX:
        raise invalid("interval", "must be like PT5M, 5m, 1h or 1d, from 1 s to 366 days")
    return timedelta(seconds=seconds)


def format_interval(interval: timedelta) -> str:
    """The shortest of 300 -> 5m."""
    seconds = int(interval.total_seconds())
    unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def seal_cursor(value: str) -> str:
    """An opaque cursor for a position in a list."""
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def open_cursor(after: str | None) -> str:
    """What `seal_cursor` was given, "" for none; CityError `invalid` for what it never made."""
    if after is None:
        return ""
    try:
        padded = after.encode("ascii") + b"=" * (-len(after) % 4)
        value = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise invalid("after", "take it from `next` as it is") from error
    if "\x00" in value:
        raise invalid("after", "take it from `next` as it is")
    return value


def open_place(after: str | None) -> Place | None:
    """The time and the id after which a list of the newest goes on; None from its beginning."""
    cursor = open_cursor(after)
    if not cursor:
        return None
    at, _, number = cursor.partition(" ")
    try:
        moment, identity = datetime.fromisoformat(at), UUID(number)
    except ValueError as error:
        raise invalid("after", "take it from `next` as it is") from error
    if moment.tzinfo is None:
        raise invalid("after", "take it from `next` as it is")
    return moment, identity


def page_of(
    request: Request, rows: Sequence[Row], size: int, time: str = "at"
) -> tuple[Sequence[Row], str | None]:
    """At most `size` rows of such a list, and the address of what follows where there is more."""
    if len(rows) <= size:
        return rows, None
    last = rows[size - 1]
    return rows[:size], next_url(request, f"{last[time].isoformat()} {last['id']}")


def next_url(request: Request, cursor: str | None) -> str | None:
    """The path of the next page: this request's, with another `after`; None on the last page."""
    return next_path(request, seal_cursor(cursor) if cursor is not None else None)


def next_path(request: Request, after: str | None) -> str | None:
    """The same for a cursor that is sealed already."""
    if after is None:
        return None
    url = request.url.include_query_params(after=after)
    return f"{url.path}?{url.query}"
