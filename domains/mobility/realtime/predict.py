"""What a vehicle's position says of the rest of its trip: it is so late, and stays so; pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.calendar import day_start
from domains.mobility.network.timetable import UNTIMED, Timetable
from domains.mobility.realtime.matching import Finder
from domains.mobility.realtime.overlay import TripState, Vehicle
from domains.mobility.realtime.places import METRES_A_DEGREE
from domains.mobility.realtime.updates import ordered

AWAY_METRES_MAX = 500.0
"""Further from the line between its stops a vehicle is not on its trip."""
LATE_SECONDS_MAX, EARLY_SECONDS_MAX = 2 * 3600, 1800
AWAY_METRES, LATE_SECONDS = 50.0, 600.0
"""Of several legs that pass a place, what counts as far from it and from the timetable."""
STOPPED = "STOPPED_AT"


def trip_state(timetable: Timetable, finder: Finder, vehicle: Vehicle) -> TripState | None:
    """When a vehicle will be at the stops ahead; None where it does not seem to be on its trip.

    It is snapped to the line between the stops of its trip, or to where `current_stop_sequence`
    says that it is. What it is late there holds along the rest. Who is early is expected to be so
    at the next stop alone, and to wait there: nobody shall miss a bus on our word.
    """
    if vehicle.trip is None:
        return None
    trip, day = vehicle.trip
    of_trip = slice(timetable.trips.offsets[trip], timetable.trips.offsets[trip + 1])
    stop_times = timetable.stop_times
    columns = (stop_times.arrival[of_trip], stop_times.departure[of_trip])
    times = np.stack(columns, axis=1, dtype=np.int64)
    now = int(vehicle.time.timestamp()) - day_start(finder.timezone(trip), day)
    found = _told(vehicle.document, stop_times.sequence[of_trip], times, now)
    if found is None:
        found = _snapped(timetable, stop_times.stop[of_trip], times, vehicle, now)
    if found is None:
        return None
    ahead, late = found
    if not -EARLY_SECONDS_MAX <= late <= LATE_SECONDS_MAX:
        return None
    timed = times != UNTIMED
    shifted = np.where(timed, times + max(late, 0), UNTIMED)
    shifted[:ahead] = np.where(timed[:ahead], np.minimum(times[:ahead] + late, now), UNTIMED)
    if late < 0 and ahead < len(times) and timed[ahead, 0]:
        shifted[ahead, 0] += late
    arrival, departure = ordered(shifted, ahead)
    skipped = np.zeros(len(times), np.bool_)
    return TripState(False, arrival, departure, skipped, vehicle.time, predicted=True)


def _told(
    document: Any, sequence: NDArray[np.int32], times: NDArray[np.int64], now: int
) -> tuple[int, int] | None:
    """The stop ahead and the delay of a vehicle that stands at a stop and says so."""
    stop = document.get("currentStopSequence")
    if document.get("currentStatus") != STOPPED or not isinstance(stop, int):
        return None
    place = int(np.searchsorted(sequence, min(stop, 2**31 - 1)))
    if place >= len(sequence) or sequence[place] != stop or times[place, 1] == UNTIMED:
        return None
    # At its stop a vehicle is late once it should have left; until then it waits.
    return place, max(now - int(times[place, 1]), 0)


def _snapped(
    timetable: Timetable, stops: NDArray[np.int32], times: NDArray[np.int64], vehicle: Vehicle,
    now: int,
) -> tuple[int, int] | None:  # fmt: skip
    """The next stop and the delay of a vehicle between two stops, by the leg that fits best."""
    places = np.stack([timetable.stops.longitude[stops], timetable.stops.latitude[stops]], axis=1)
    here = np.array([vehicle.longitude, vehicle.latitude])
    scale = METRES_A_DEGREE * np.array([np.cos(np.radians(vehicle.latitude)), 1.0])
    points = (places - here) * scale
    known = np.isfinite(points).all(axis=1) & (times != UNTIMED).all(axis=1)
    (at,) = np.nonzero(known)
    if len(at) < 2:  # noqa: PLR2004
        return None
    start, step = points[at[:-1]], np.diff(points[at], axis=0)
    square = np.maximum((step**2).sum(axis=1), 1e-9)
    along = np.clip(-(step * start).sum(axis=1) / square, 0, 1)
    away = np.hypot(*(start + along[:, None] * step).T)
    begin, end = times[at[:-1], 1], times[at[1:], 0]
    late = now - (begin + along * (end - begin))
    waits = (along == 0) & (at[:-1] == 0) & (late < 0)  # it has not left yet
    late = np.where(waits, 0, late)
    fit = (away / AWAY_METRES) ** 2 + (late / LATE_SECONDS) ** 2
    fit[away > AWAY_METRES_MAX] = np.inf
    best = int(np.argmin(fit))
    if not np.isfinite(fit[best]):
        return None
    return int(at[best] if waits[best] else at[best + 1]), round(float(late[best]))
