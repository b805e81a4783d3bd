"""How far one comes within so many minutes: polygons about all that is reached. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from domains.mobility.network.journeys import Place
from domains.mobility.network.raptor import NEVER, Query, Raptor
from domains.mobility.network.streets import EARTH_METRES
from domains.mobility.network.timetable import Float64
from domains.mobility.network.walking import (
    DETOUR,
    METRES_A_SECOND,
    NOWHERE,
    OnStreets,
    Reach,
)
from domains.mobility.realtime.overlay import Overlay

Int64 = NDArray[np.int64]

CELL_METRES = 60.0
"""Of places in one cell of this size the one with most time left stands for all."""
CIRCLES_MAX = 4_000
"""Circles of one polygon; those with least time left are left out."""
QUARTER_SEGMENTS = 6
SMOOTH_METRES = 10.0
STREET_METRES = 50.0
"""How wide a street is drawn that is reached; cells grow where more is reached than fits."""
CELLS_MAX = 1_500
SMOOTHED = 0.4
"""Of a cell: corners that are nearer to the line than that are left out."""


@dataclass(frozen=True, slots=True)
class Polygon:
    """A shapely geometry (longitude, latitude)."""

    shape: Any
    estimated: bool
    """Whether some of it was not walked by streets."""
    streets: bool
    """Whether some of it was."""


def polygons(
    raptor: Raptor, overlay: Overlay, place: Place, reach: Reach, time: int,
    minutes: Sequence[int], walk_metres_max: float, rides_max: int,
) -> list[Polygon]:  # fmt: skip
    """What is reached within each of `minutes`, in their order.

    Each stop is where a walk begins, as long as the time that is left or `walk_metres_max`: along
    the streets, where they are known; else as the middle of a circle, whose radius is by DETOUR
    less, since a straight line is shorter than a way.
    """
    longest = max(minutes) * 60
    query = Query(
        reach, NOWHERE, time, rides_max=rides_max, horizon_seconds=longest,
        change_metres_max=walk_metres_max,
    )  # fmt: skip
    reached = raptor.reached(query, overlay)
    stops = raptor.timetable.stops
    there = np.flatnonzero((reached < NEVER) & np.isfinite(stops.longitude + stops.latitude))
    longitude = np.append(stops.longitude[there], place.longitude)
    latitude = np.append(stops.latitude[there], place.latitude)
    came = np.append(reached[there] - time, 0)
    return [
        _polygon(raptor, place, longitude, latitude, limit * 60 - came, walk_metres_max)
        for limit in minutes
    ]


def _polygon(
    raptor: Raptor, place: Place, longitude: Float64, latitude: Float64, seconds: Int64,
    walk_metres_max: float,
) -> Polygon:  # fmt: skip
    east, north = project(place, longitude, latitude)
    metres = np.minimum(seconds * METRES_A_SECOND, walk_metres_max)
    circles, walked = metres / DETOUR, None
    on_streets = np.zeros(len(metres), np.bool_)
    if isinstance(raptor.walking, OnStreets):
        streets = raptor.walking.streets
        placed = streets.snap(longitude, latitude)
        on_streets = placed.inside & (metres > 0)
        walked = streets.around(placed, walk_metres_max - metres, walk_metres_max)
    if walked is None:
        on_streets[:] = False
    shapes = []
    if walked is not None and on_streets.any():
        x, y, far = walked.points()
        shapes.append(_along(place, *project(place, x, y), walk_metres_max - far))
        circles = np.where(on_streets, np.minimum(circles, STREET_METRES), circles)
    shapes.append(_union(place, east, north, circles))
    guessed = bool((~on_streets & (metres > 0)).any())
    return Polygon(_back(place, shapely.union_all(shapes)), guessed, bool(on_streets.any()))


def _along(place: Place, east: Float64, north: Float64, left: Float64) -> Any:
    """Streets that were reached, as wide as STREET_METRES, in cells that are as small as fits."""
    if not len(east):
        return shapely.Polygon()
    order = np.argsort(-left, kind="stable")
    size = STREET_METRES
    while True:
        column, row = (np.floor(each[order] / size).astype(np.int64) for each in (east, north))
        # One number a cell: rows of arrays are slow to tell apart.
        _, first = np.unique((column << 32) + row, return_index=True)
        if len(first) <= CELLS_MAX:
            break
        size *= np.sqrt(len(first) / CELLS_MAX) * 1.05
    chosen = order[first]
    radius = np.clip(left[chosen] / DETOUR, 5.0, size)
    circles = shapely.buffer(
        np.asarray(shapely.points(east[chosen], north[chosen])), radius, quad_segs=2
    )
    return shapely.simplify(shapely.union_all(circles), SMOOTHED * size)


def project(place: Place, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]:
    """Metres east and north of a place: the azimuthal equidistant projection of the sphere."""
    up, centre = np.radians(latitude), np.radians(place.latitude)
    turn = np.radians(longitude - place.longitude)
    cosine = np.sin(centre) * np.sin(up) + np.cos(centre) * np.cos(up) * np.cos(turn)
    east = np.cos(up) * np.sin(turn)
    north = np.cos(centre) * np.sin(up) - np.sin(centre) * np.cos(up) * np.cos(turn)
    # The length of (east, north) is the sine of the angle, with the better precision nearby.
    angle = np.arctan2(np.hypot(east, north), cosine)
    scale = EARTH_METRES / np.sinc(angle / np.pi)
    return east * scale, north * scale


def unproject(place: Place, east: Float64, north: Float64) -> tuple[Float64, Float64]:
    """Longitude and latitude of metres east and north of a place."""
    centre = np.radians(place.latitude)
    angle = np.hypot(east, north) / EARTH_METRES
    sinc = np.sinc(angle / np.pi) / EARTH_METRES
    sine = np.cos(angle) * np.sin(centre) + north * sinc * np.cos(centre)
    turn = np.arctan2(
        east * sinc, np.cos(angle) * np.cos(centre) - north * sinc * np.sin(centre)
    )  # fmt: skip
    latitude = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return (place.longitude + np.degrees(turn) + 180) % 360 - 180, latitude


def _union(place: Place, east: Float64, north: Float64, metres: Float64) -> Any:
    """All circles together."""
    wide = np.flatnonzero(metres > 1.0)
    order = wide[np.argsort(-metres[wide], kind="stable")]
    cells = np.stack((east[order], north[order])) // CELL_METRES
    _, first = np.unique(cells, axis=1, return_index=True)
    chosen = order[np.sort(first)][:CIRCLES_MAX]
    circles = shapely.buffer(
        np.asarray(shapely.points(east[chosen], north[chosen])), metres[chosen],
        quad_segs=QUARTER_SEGMENTS,
    )  # fmt: skip
    return shapely.union_all(circles)


def _back(place: Place, shape: Any) -> Any:
    """Smoothed, and back on the globe."""

    def back(points: Float64) -> Float64:
        turned = np.stack(unproject(place, points[:, 0], points[:, 1]), axis=1)
        return np.asarray(np.round(turned, 6), np.float64)

    return shapely.transform(shapely.simplify(shape, SMOOTH_METRES), back)
