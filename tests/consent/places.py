"""A map for tests: areas inside of each other, and places on both sides of their edges.

No place is on the edge of an area, nor of a cell of any level.
"""

from typing import Any

from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping
from shapely.geometry.base import BaseGeometry

LAKE = box(139.7403, 35.6402, 139.7607, 35.6598)
TOWN = box(139.7003, 35.6002, 139.8007, 35.6998) - LAKE
WARD = box(139.7105, 35.6104, 139.7306, 35.6303)
ISLANDS = MultiPolygon([box(139.7451, 35.6452, 139.7552, 35.6551), WARD])
AREAS: dict[str, BaseGeometry] = {"town": TOWN, "ward": WARD, "islands": ISLANDS}
"""The ward is in the town, and one of the islands; the other one lies in the town's lake."""

PLACES = {
    "ward": Point(139.7205, 35.6203),
    "ward's edge": Point(139.7106, 35.6203),  # its cells reach beyond
    "town": Point(139.7804, 35.6803),
    "shore": Point(139.7402, 35.6503),  # a cell of it is in the lake
    "island": Point(139.7504, 35.6503),
    "abroad": Point(139.9004, 35.9003),
    "far": Point(-10.0004, -20.0003),
}


def geojson(area: BaseGeometry) -> dict[str, Any]:
    """As a request has it."""
    return dict(mapping(area))


def polygon(*corners: tuple[float, float]) -> dict[str, Any]:
    """One ring, closed."""
    return geojson(Polygon(corners))
