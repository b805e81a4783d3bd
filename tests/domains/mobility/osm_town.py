"""A town as OpenStreetMap XML: two banks of a river, one bridge, steps, a private way, an islet."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

METRES_A_DEGREE = math.pi / 180 * 6371008.8
LONGITUDE, LATITUDE = 135.0, 35.0
EAST = METRES_A_DEGREE * math.cos(math.radians(LATITUDE))

Points = Mapping[int, tuple[float, float]]
Tags = Mapping[str, str]


def place(east: float, north: float) -> tuple[float, float]:
    """Longitude and latitude of metres east and north of the town's corner, as files have them."""
    return round(LONGITUDE + east / EAST, 7), round(LATITUDE + north / METRES_A_DEGREE, 7)


def document(
    points: Points, ways: Sequence[tuple[Sequence[int], Tags]], tagged: Mapping[int, Tags] = {}
) -> str:
    """An extract; points are metres, by id."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<osm version="0.6" generator="test">']
    for number, (east, north) in points.items():
        longitude, latitude = place(east, north)
        lines.append(f'<node id="{number}" version="1" lon="{longitude:.7f}" lat="{latitude:.7f}">')
        lines += [_tag(*each) for each in tagged.get(number, {}).items()]
        lines.append("</node>")
    for number, (nodes, tags) in enumerate(ways, 1):
        lines.append(f'<way id="{number}" version="1">')
        lines += [f'<nd ref="{node}"/>' for node in nodes]
        lines += [_tag(*each) for each in tags.items()]
        lines.append("</way>")
    return "\n".join([*lines, "</osm>"])


def _tag(key: str, value: str) -> str:
    return f"<tag k={quoteattr(key)} v={quoteattr(value)}/>"


# South bank: 1 - 2 - 3 - 4 along the river; north bank 11 - 12 - 13 - 14, 100 m from it. The bridge
# is at the east end, steps and a ramp lead up to 21; a private way goes over the river at once.
POINTS: Points = {
    1: (0, 0), 2: (200, 0), 3: (400, 0), 4: (600, 0),
    11: (0, 100), 12: (200, 100), 13: (400, 100), 14: (600, 100),
    21: (200, -60), 22: (400, -60),
    31: (5000, 0), 32: (5100, 0),
}  # fmt: skip
STREET = {"highway": "residential"}
WAYS: Sequence[tuple[Sequence[int], Tags]] = (
    ((1, 2, 3, 4), STREET),
    ((11, 12, 13, 14), STREET),
    ((4, 14), {"highway": "footway", "bridge": "yes"}),
    ((1, 11), {"highway": "service", "access": "private"}),
    ((2, 21), {"highway": "steps"}),
    ((21, 22), {"highway": "pedestrian"}),
    ((22, 3), {"highway": "footway"}),
    ((31, 32), {"highway": "path"}),
    ((2, 12), {"highway": "motorway"}),
)
TOWN = document(POINTS, WAYS)
