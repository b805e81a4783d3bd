"""Where a grant holds: a part of the map as GeoJSON (RFC 7946) says it, checked before it is kept.

The log names an area by a salted commitment, and the text lies in consent.area: it goes with its
person. The database works out what is within (consent/migrations/0016_area.sql).
"""

import json
import secrets
from itertools import chain
from typing import Any

import shapely
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

from consent.log import Session, one
from core.errors import CityError, invalid

CORNERS_MAX = 1_000
AREAS_MAX = 16
"""So many forms of one grant may each have an area; all of them are looked at."""
DECIMALS = 7
"""Of a degree: about a centimetre."""
WORLD, HALF_ROUND = shapely.box(-180, -90, 180, 90), 180
SHAPE = "must be a Polygon or MultiPolygon of closed rings of longitudes and latitudes"
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)

INSERT_AREA = """
INSERT INTO consent.area (id, subject, salt, said)
VALUES (sha256(%(salt)s || convert_to(%(said)s, 'UTF8')), %(subject)s, %(salt)s, %(said)s)
RETURNING encode(id, 'hex')
"""


def canonical(geometry: dict[str, Any]) -> str:
    """A Polygon or MultiPolygon in degrees of WGS 84, as text; the same text for the same corners.

    CityError `invalid` for one that is not valid (OGC 06-103r4, 6.1.11), has too many corners, or
    crosses the antimeridian: RFC 7946, 3.1.9, cuts it in two there.
    """
    try:
        parts = geometry["coordinates"]
        rings = parts if geometry["type"] == "Polygon" else chain.from_iterable(parts)
        closed = all(tuple(ring[0]) == tuple(ring[-1]) for ring in rings)
        read = shape(geometry)
    except (*UNREADABLE, shapely.errors.GEOSException) as error:
        raise invalid("area", SHAPE) from error
    if read.geom_type not in ("Polygon", "MultiPolygon") or read.has_z or not closed:
        raise invalid("area", SHAPE)
    corners = shapely.get_num_coordinates(read)
    if corners > CORNERS_MAX:
        raise invalid("area", f"has {corners} corners: at most {CORNERS_MAX}")
    area = shapely.transform(read, lambda each: each.round(DECIMALS) + 0.0)
    if area.is_empty or not area.is_valid:
        raise invalid("area", f"must be valid: {explain_validity(area)}")
    if not WORLD.covers(area):
        raise invalid("area", "must lie within 180 degrees of longitude and 90 of latitude")
    if any(part.bounds[2] - part.bounds[0] > HALF_ROUND for part in shapely.get_parts(area)):
        raise invalid("area", "must not cross the antimeridian: make two polygons of it there")
    said = mapping(area)
    return json.dumps({name: said[name] for name in ("type", "coordinates")}, separators=(",", ":"))


def check_within(narrow: str, wide: str) -> None:
    """CityError `conflict` for an area that reaches beyond another."""
    if not _read(wide).covers(_read(narrow)):
        raise CityError("conflict", "area: it permits more than before: give a new grant")


def keep(connection: Session, subject: int, said: str) -> str:
    """Keep an area of a person; the commitment by which the log names it."""
    kept: str = one(
        connection, INSERT_AREA, subject=subject, said=said, salt=secrets.token_bytes(16)
    )
    return kept


def _read(said: str) -> BaseGeometry:
    return shape(json.loads(said))
