"""How far one comes within so many minutes: polygons about all that is reached. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from domains.mobility.network.journeys import Place
from domains.mobility.network.raptor import NEVER, Query, Raptor
from domains.mobility.network.timetable import Float64
from domains.mobility.network.walking import DETOUR, EARTH_METRES, METRES_A_SECOND, Reach
from domains.mobility.realtime.overlay import Overlay

Int64 = NDArray[np.int64]

CELL_METRES = 60.0
"""Of places in one cell of this size the one with most time left stands for all."""
CIRCLES_MAX = 4_000
"""Circles of one polygon; those with least time left are left out."""
QUARTER_SEGMENTS = 6
SMOOTH_METRES = 10.0
NOWHERE = Reach(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))


def polygons(
    raptor: Raptor, overlay: Overlay, place: Place, reach: Reach, time: int,
    minutes: Sequence[int], walk_metres_max: float, rides_max: int,
) -> list[Any]:  # fmt: skip
    """A shapely geometry (longitude, latitude) for each of `minutes`, in their order.

    Each stop is the middle of a circle as wide as the time that is left, or `walk_metres_max`,
    takes one on foot; a straight line is shorter than a way, so its radius is by DETOUR less.
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
    east, north = project(place, longitude, latitude)
    came = np.append(reached[there] - time, 0)
    shapes = []
    for limit in minutes:
        seconds = limit * 60 - came
        metres = np.minimum(seconds * METRES_A_SECOND, walk_metres_max) / DETOUR
        shapes.append(_union(place, east, north, metres))
    return shapes


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
    """All circles together, back on the globe."""
    wide = np.flatnonzero(metres > 1.0)
    order = wide[np.argsort(-metres[wide], kind="stable")]
    cells = np.stack((east[order], north[order])) // CELL_METRES
    _, first = np.unique(cells, axis=1, return_index=True)
    chosen = order[np.sort(first)][:CIRCLES_MAX]
    circles = shapely.buffer(
        np.asarray(shapely.points(east[chosen], north[chosen])), metres[chosen],
        quad_segs=QUARTER_SEGMENTS,
    )  # fmt: skip
    whole = shapely.simplify(shapely.union_all(circles), SMOOTH_METRES)

    def back(points: Float64) -> Float64:
        turned = np.stack(unproject(place, points[:, 0], points[:, 1]), axis=1)
        return np.asarray(np.round(turned, 6), np.float64)

    return shapely.transform(whole, back)
