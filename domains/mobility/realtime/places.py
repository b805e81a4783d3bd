"""Where trips are between their stops, to be found by a place: lines in metres, in a tree; pure."""

import math
from collections.abc import Sequence
from datetime import date
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from domains.mobility.network.timetable import UNTIMED, Float64, Int32, Timetable

METRES_A_DEGREE = 111_195.0
"""Of latitude, on the mean sphere."""
LEGS_MAX = 2_000_000

Near = tuple[Int32, Float64, Float64]
"""Legs, metres to each, and how far along it the nearest place is: 0 to 1."""


class Place(Protocol):
    """Degrees."""

    @property
    def longitude(self) -> float: ...
    @property
    def latitude(self) -> float: ...


class Places:
    """Legs between stops that follow each other, of trips by day; at most LEGS_MAX."""

    def __init__(
        self,
        timetable: Timetable,
        days: Sequence[tuple[int, date, Int32]],
        within: tuple[float, float],
    ) -> None:
        """Legs of these trips that are planned within these times, in seconds since 1970."""
        self.days = [day for _, day, _ in days]
        stops, times, offsets = timetable.stops, timetable.stop_times, timetable.trips.offsets
        at, self.trip, self.day, begins = _legs(offsets, days)
        start, stop = times.stop[at], times.stop[at + 1]
        self.begin = (times.departure[at] + begins).astype(np.float64)
        self.end = (times.arrival[at + 1] + begins).astype(np.float64)
        known = np.isfinite(stops.longitude[start] + stops.longitude[stop])
        known &= (times.departure[at] != UNTIMED) & (times.arrival[at + 1] != UNTIMED)
        known &= (self.end >= within[0]) & (self.begin <= within[1])
        middle = float(np.mean(stops.latitude[start[known]])) if known.any() else 0.0
        self._scale = math.cos(math.radians(middle))
        from_x, from_y = self._metres(stops.longitude[start], stops.latitude[start])
        to_x, to_y = self._metres(stops.longitude[stop], stops.latitude[stop])
        ends = np.stack([from_x, from_y, to_x, to_y], axis=1)[known]
        for name in ("trip", "day", "begin", "end"):
            setattr(self, name, getattr(self, name)[known])
        self._from, self._step = ends[:, :2], ends[:, 2:] - ends[:, :2]
        self.course = np.degrees(np.arctan2(self._step[:, 0], self._step[:, 1])) % 360
        lines = np.asarray(shapely.linestrings(ends.reshape(-1, 2, 2)))
        self._tree = shapely.STRtree(lines)

    def near(self, place: Place, metres_max: float) -> Near:
        """The legs within that distance of a place."""
        x, y = self._metres(np.array(place.longitude), np.array(place.latitude))
        leg = self._tree.query(shapely.Point(float(x), float(y)), "dwithin", metres_max)
        step, offset = self._step[leg], np.array([x, y]) - self._from[leg]
        square = np.maximum((step**2).sum(axis=1), 1e-9)
        along = np.clip((step * offset).sum(axis=1) / square, 0, 1)
        metres = np.hypot(*(offset - along[:, None] * step).T)
        return leg.astype(np.int32), metres, along

    def _metres(self, longitude: Float64, latitude: Float64) -> tuple[Float64, Float64]:
        return longitude * METRES_A_DEGREE * self._scale, latitude * METRES_A_DEGREE


def _legs(
    offsets: Int32, days: Sequence[tuple[int, date, Int32]]
) -> tuple[NDArray[np.int64], Int32, Int32, NDArray[np.int64]]:
    """Index of the first stop time of each leg, its trip, its day, and where its day begins."""
    parts = []
    for number, (begin, _, trips) in enumerate(days):
        counts = np.maximum(np.diff(offsets)[trips] - 1, 0)
        trip = np.repeat(trips, counts)
        within = np.arange(len(trip)) - np.repeat(np.cumsum(counts) - counts, counts)
        parts.append((offsets[trip] + within, trip, np.full(len(trip), number), begin))
    if not parts:
        empty = np.zeros(0, np.int64)
        return empty, empty.astype(np.int32), empty.astype(np.int32), empty
    at, trip, day = (np.concatenate([part[i] for part in parts])[:LEGS_MAX] for i in range(3))
    begins = np.concatenate([np.full(len(part[0]), part[3], np.int64) for part in parts])
    return at.astype(np.int64), trip.astype(np.int32), day.astype(np.int32), begins[:LEGS_MAX]
