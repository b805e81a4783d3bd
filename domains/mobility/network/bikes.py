"""Shared bikes as the way to a stop, from one, or all the way: rent where one is, return to a dock.

Pure; the stations are those of one moment. Times are seconds, distances metres.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.streets import straight_metres
from domains.mobility.network.timetable import Float64, Timetable
from domains.mobility.network.walking import (
    DETOUR,
    METRES_A_SECOND,
    Reach,
)

Int64 = NDArray[np.int64]

BIKE_METRES_A_SECOND = 3.5
RENT_SECONDS, RETURN_SECONDS = 60, 30
RIDE_METRES_MAX = 8_000
STATIONS_NEAR_MAX = 12
"""Stations tried at the end where one walks to or from a given place."""
STATIONS_FAR_MAX = 150
"""Stations tried at the other end."""
STOP_METRES_MAX = 300
"""The walk between a station and a stop."""
UNREACHED = 1 << 40


@dataclass(frozen=True, slots=True)
class Bikes:
    """n stations of shared bikes that rent and take back, as they were heard last."""

    ids: tuple[str, ...]
    """`feed:station id`."""
    names: tuple[str, ...]
    longitude: Float64
    latitude: Float64
    bikes: NDArray[np.int32]
    """Available to rent."""
    docks: NDArray[np.int32]
    """Free to return to."""


@dataclass(frozen=True, slots=True)
class BikeWay:
    """Walk to a station, ride to another, walk on; numbers are of `Bikes`."""

    rent: int
    give_back: int
    walk_metres: float
    """To the station of renting."""
    ride_metres: float
    last_metres: float
    """From the station of returning."""

    @property
    def parts(self) -> tuple[int, int, int]:
        """Seconds of the walk, of the ride with renting and returning, and of the last walk."""
        first, last = (_walk(each) for each in (self.walk_metres, self.last_metres))
        return first, _ride(self.ride_metres), last

    @property
    def seconds(self) -> int:
        """All of it."""
        return sum(self.parts)


def _walk(metres: float) -> int:
    return int(np.ceil(metres / METRES_A_SECOND))


def _ride(metres: float) -> int:
    return RENT_SECONDS + RETURN_SECONDS + int(np.ceil(metres / BIKE_METRES_A_SECOND))


def _nearest(
    bikes: Bikes, usable: NDArray[np.bool_], at: tuple[float, float], metres_max: float, most: int
) -> tuple[Int64, Float64]:
    """The usable stations within a walk (with its detour) of a place, nearest first."""
    members = np.flatnonzero(usable)
    metres = straight_metres(*at, bikes.longitude[members], bikes.latitude[members]) * DETOUR
    order = np.argsort(metres, kind="stable")[:most]
    order = order[metres[order] <= metres_max]
    return members[order].astype(np.int64), metres[order]


def direct(
    bikes: Bikes, origin: tuple[float, float], target: tuple[float, float], walk_metres_max: float
) -> BikeWay | None:
    """The quickest way between two places (longitude, latitude); None where there is none."""
    rents, walks = _nearest(bikes, bikes.bikes > 0, origin, walk_metres_max, STATIONS_NEAR_MAX)
    docks, lasts = _nearest(bikes, bikes.docks > 0, target, walk_metres_max, STATIONS_NEAR_MAX)
    if not len(rents) or not len(docks):
        return None
    metres = _between(bikes, rents, docks)
    total = walks[:, None] / METRES_A_SECOND + metres / BIKE_METRES_A_SECOND
    total = total + lasts[None, :] / METRES_A_SECOND
    total[(metres > RIDE_METRES_MAX) | (rents[:, None] == docks[None, :])] = np.inf
    a, b = np.unravel_index(int(np.argmin(total)), total.shape)
    if not np.isfinite(total[a, b]):
        return None
    ends = int(rents[a]), int(docks[b])
    return BikeWay(*ends, float(walks[a]), float(metres[a, b]), float(lasts[b]))


def _between(bikes: Bikes, origins: Int64, targets: Int64) -> Float64:
    """Metres by bike between each pair of stations."""
    return DETOUR * straight_metres(
        bikes.longitude[origins][:, None],
        bikes.latitude[origins][:, None],
        bikes.longitude[targets][None, :],
        bikes.latitude[targets][None, :],
    )


def reach(
    timetable: Timetable, bikes: Bikes, at: tuple[float, float], walk_metres_max: float,
    *, outward: bool,
) -> tuple[Reach, dict[int, BikeWay]]:  # fmt: skip
    """The stops that a bike leads to from a place (`outward`), or from which it leads there."""
    here, there = (bikes.bikes, bikes.docks) if outward else (bikes.docks, bikes.bikes)
    near, walks = _nearest(bikes, here > 0, at, walk_metres_max, STATIONS_NEAR_MAX)
    far, _ = _nearest(bikes, there > 0, at, RIDE_METRES_MAX, STATIONS_FAR_MAX)
    empty = Reach(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))
    if not len(near) or not len(far):
        return empty, {}
    rides = _between(bikes, near, far)
    cost = walks[:, None] / METRES_A_SECOND + rides / BIKE_METRES_A_SECOND
    cost[(rides > RIDE_METRES_MAX) | (near[:, None] == far[None, :])] = np.inf
    first = np.argmin(cost, axis=0)
    stops, best, lasts = _on_foot(timetable, bikes, far, cost[first, np.arange(len(far))])
    ways: dict[int, BikeWay] = {}
    for stop, n, last in zip(stops.tolist(), best.tolist(), lasts.tolist(), strict=True):
        a = int(first[n])
        pair, ride = (int(near[a]), int(far[n])), float(rides[a, n])
        ways[stop] = (
            BikeWay(*pair, float(walks[a]), ride, last)
            if outward
            else BikeWay(*pair[::-1], last, ride, float(walks[a]))
        )
    seconds = np.array([way.seconds for way in ways.values()], np.int64)
    metres = np.array([way.walk_metres + way.last_metres for way in ways.values()], np.float64)
    return Reach(np.array(list(ways), np.int64), seconds, metres), ways


def _on_foot(timetable: Timetable, bikes: Bikes, stations: Int64, cost: Float64) -> Any:
    """The stops near these stations, with the best station of each and the metres from it."""
    stops = timetable.stops
    own_longitude, own_latitude = bikes.longitude[stations], bikes.latitude[stations]
    margin = 0.01
    members = np.flatnonzero(
        (stops.location_type == 0)
        & (stops.latitude >= own_latitude.min() - margin)
        & (stops.latitude <= own_latitude.max() + margin)
        & (stops.longitude >= own_longitude.min() - 3 * margin)
        & (stops.longitude <= own_longitude.max() + 3 * margin)
    )
    metres = DETOUR * straight_metres(
        own_longitude[:, None], own_latitude[:, None],
        stops.longitude[members][None, :], stops.latitude[members][None, :],
    )  # fmt: skip
    total = np.where(metres <= STOP_METRES_MAX, cost[:, None] + metres / METRES_A_SECOND, np.inf)
    best = np.argmin(total, axis=0)
    column = np.arange(len(members))
    fit = np.isfinite(total[best, column])
    return members[fit], best[fit], metres[best[fit], column[fit]]


def merged(walked: Reach, ridden: Reach) -> Reach:
    """Both, the quicker of the two for each stop."""
    stops = np.concatenate((walked.stops, ridden.stops))
    seconds = np.concatenate((walked.seconds, ridden.seconds))
    metres = np.concatenate((walked.metres, ridden.metres))
    order = np.lexsort((seconds, stops))
    first = np.diff(stops[order], prepend=-1) != 0
    chosen = order[first]
    guess = np.concatenate([
        np.ones(len(each.stops), np.bool_) if each.estimated is None else each.estimated
        for each in (walked, ridden)
    ])  # fmt: skip
    return Reach(stops[chosen], seconds[chosen], metres[chosen], guess[chosen])
