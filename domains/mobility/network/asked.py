"""What a query of the network asks for: places, areas, moments; a bad one is a 422 by its name."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query

from core.errors import invalid

NO_CONTROL = r"^[^\x00-\x1f\x7f]*$"
ID_MAX = 256
RADIUS_METRES_MAX = 50_000
LONGITUDE_MAX, LATITUDE_MAX = 180.0, 90.0
PLACE, CIRCLE, BOX = 2, 3, 4
YEARS = range(1970, 2200)

Point = tuple[float, float]
Box = tuple[float, float, float, float]

StopId = Annotated[
    str,
    Path(
        description="`feed:stop_id`; a station stands for its platforms",
        examples=["caltrain:70011"],
        min_length=1,
        max_length=ID_MAX,
        pattern=NO_CONTROL,
    ),
]
RouteId = Annotated[
    str,
    Path(
        description="`feed:route_id`",
        examples=["caltrain:L1"],
        min_length=1,
        max_length=ID_MAX,
        pattern=NO_CONTROL,
    ),
]
AnId = Query(min_length=1, max_length=ID_MAX, pattern=NO_CONTROL)
Lang = Annotated[
    str | None,
    Query(
        description="language of names (BCP 47), else Accept-Language",
        examples=["en"],
        min_length=2,
        max_length=64,
    ),
]
After = Annotated[
    str | None,
    Query(
        description="the id that the page before ended with: taken from `next`",
        min_length=1,
        max_length=ID_MAX,
        pattern=NO_CONTROL,
    ),
]


def numbers(name: str, text: str) -> list[float]:
    """Finite numbers with commas between; CityError `invalid` for anything else."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(each) for each in found):
        raise invalid(name, "must be numbers with commas between")
    return found


def point(name: str, text: str) -> Point:
    """longitude,latitude in degrees WGS 84."""
    found = numbers(name, text)
    if len(found) != PLACE:
        raise invalid(name, "must be longitude,latitude")
    _check(name, found[:1], found[1:])
    return found[0], found[1]


def circle(text: str, radius: float) -> tuple[float, float, float]:
    """`near`: longitude,latitude, and metres where the generic endpoints' third number is given."""
    found = numbers("near", text)
    if len(found) not in (PLACE, CIRCLE):
        raise invalid("near", "must be longitude,latitude (and radius= in metres)")
    _check("near", found[:1], found[1:2])
    metres = found[2] if len(found) == CIRCLE else radius
    if not 0 < metres <= RADIUS_METRES_MAX:
        raise invalid("near", f"the radius is over 0 and at most {RADIUS_METRES_MAX} metres")
    return found[0], found[1], metres


def box(text: str) -> Box:
    """west,south,east,north (RFC 7946, 5.2); west > east crosses the antimeridian."""
    found = numbers("bbox", text)
    if len(found) != BOX:
        raise invalid("bbox", "must be west,south,east,north")
    west, south, east, north = found
    _check("bbox", [west, east], [south, north])
    if south > north:
        raise invalid("bbox", "south is north of north")
    return west, south, east, north


def _check(name: str, longitudes: list[float], latitudes: list[float]) -> None:
    if any(abs(each) > LONGITUDE_MAX for each in longitudes):
        raise invalid(name, "longitudes are between -180 and 180")
    if any(abs(each) > LATITUDE_MAX for each in latitudes):
        raise invalid(name, "latitudes are between -90 and 90")


def moment(name: str, text: str | None) -> datetime:
    """A time with a zone, ISO 8601; now where none is given."""
    if text is None:
        return datetime.now(UTC)
    # A plus sign of an offset, sent unencoded, arrives as a space.
    text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(name, "must be ISO 8601 with a zone: 2026-01-01T08:00:00+09:00") from error
    if found.tzinfo is None:
        raise invalid(name, "a time needs a zone: add Z or an offset")
    if found.year not in YEARS:
        raise invalid(name, f"years are {YEARS[0]} to {YEARS[-1]}")
    return found.astimezone(UTC)
