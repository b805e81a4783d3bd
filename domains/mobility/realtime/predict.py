"""What vehicles' positions say of the rest of their trips: each is so late, and stays so; pure.

Many at once, since a nation's 60,000 vehicles move each 15 s: columns take a tenth of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.calendar import day_start
from domains.mobility.network.timetable import UNTIMED, Float64, Int32, Timetable
from domains.mobility.realtime.matching import Finder
from domains.mobility.realtime.overlay import TripState, Vehicle
from domains.mobility.realtime.places import METRES_A_DEGREE

AWAY_METRES_MAX, AWAY_SHARE_MAX = 500.0, 0.1
"""Further from the line between two stops, and this share of its length, it is not on its trip:
between far stops ways wind more."""
AT_STOP_METRES_MAX = 300.0
"""So near its first stop, before its time, a vehicle still stands there: a long train, a depot."""
LATE_SECONDS_MAX, EARLY_SECONDS_MAX = 2 * 3600, 1800
AWAY_METRES, LATE_SECONDS = 50.0, 600.0
"""Of several legs that pass a place, what counts as far from it and from the timetable."""
STOPPED = "STOPPED_AT"
APART = 2**36
"""Between the times of two trips, so that those of all are ordered in one go."""

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Calls:
    """The stop times of n trips, one after another; `owner` says whose each is."""

    begin: Int64
    """n + 1."""
    owner: Int64
    place: Int64
    """Of each in its trip, from 0 on."""
    at: Int64
    """Of each in the timetable."""
    arrival: Int64
    departure: Int64


def trip_states(
    timetable: Timetable, finder: Finder, vehicles: Sequence[Vehicle]
) -> list[TripState | None]:
    """When vehicles will be at the stops ahead; None for one that does not seem to be on its trip.

    Each is snapped to the line between the stops of its trip, no earlier than the stop that
    `current_stop_sequence` says it goes to, or to where that says it stands: where both ways of a
    line share a street, the place alone does not tell them apart. What it is late there holds
    along the rest. Who is early is expected to be so at the next stop alone, and to wait there:
    nobody shall miss a bus on our word.
    """
    found: list[TripState | None] = [None] * len(vehicles)
    chosen = [n for n, each in enumerate(vehicles) if each.trip is not None]
    if not chosen:
        return found
    known = [vehicles[n] for n in chosen]
    calls = _calls(timetable, known)
    now = np.array([_now(finder, each) for each in known], np.int64)
    told = _told(timetable, calls, known)
    ahead, late, fits = _snapped(timetable, calls, known, now, told)
    stands = np.array([each.document.get("currentStatus") == STOPPED for each in known])
    leaves = calls.departure[calls.begin[:-1] + np.maximum(told, 0)]
    stands &= (told >= 0) & (leaves != UNTIMED)
    ahead[stands] = told[stands]
    # It is late once it should have left; until then it waits.
    late[stands] = np.maximum(now - leaves, 0)[stands]
    fits |= stands
    fits &= (late >= -EARLY_SECONDS_MAX) & (late <= LATE_SECONDS_MAX)
    arrival, departure = _shifted(calls, ahead, late, now)
    skipped = np.zeros(len(arrival), np.bool_)
    bounds = calls.begin.tolist()
    for n, each in enumerate(known):
        if fits[n]:
            own = slice(bounds[n], bounds[n + 1])
            found[chosen[n]] = TripState(
                False, arrival[own], departure[own], skipped[own], each.time, predicted=True
            )
    return found


def _now(finder: Finder, vehicle: Vehicle) -> int:
    """When it was where it was, in seconds of the service day of its trip."""
    trip, day = vehicle.trip or (0, vehicle.time.date())
    return int(vehicle.time.timestamp()) - day_start(finder.timezone(trip), day)


def _calls(timetable: Timetable, vehicles: Sequence[Vehicle]) -> _Calls:
    trips = np.array([each.trip and each.trip[0] for each in vehicles], np.int64)
    first = timetable.trips.offsets[trips].astype(np.int64)
    counts = timetable.trips.offsets[trips + 1] - first
    begin = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(len(trips)), counts)
    place = np.arange(begin[-1]) - begin[owner]
    at = first[owner] + place
    times = timetable.stop_times
    arrival, departure = times.arrival[at].astype(np.int64), times.departure[at].astype(np.int64)
    return _Calls(begin, owner, place, at, arrival, departure)


def _snapped(
    timetable: Timetable, calls: _Calls, vehicles: Sequence[Vehicle], now: Int64, told: Int64
) -> tuple[Int64, Int64, NDArray[np.bool_]]:
    """Of each its next stop and its delay by the leg that fits best, and whether one does."""
    x = np.array([each.longitude for each in vehicles])
    y = np.array([each.latitude for each in vehicles])
    stops = timetable.stop_times.stop[calls.at]
    east = (timetable.stops.longitude[stops] - x[calls.owner]) * METRES_A_DEGREE
    east *= np.cos(np.radians(y))[calls.owner]
    north = (timetable.stops.latitude[stops] - y[calls.owner]) * METRES_A_DEGREE
    known = np.isfinite(east + north) & (calls.arrival != UNTIMED) & (calls.departure != UNTIMED)
    (at,) = np.nonzero(known)
    owner = calls.owner[at[1:]]
    legs = np.flatnonzero((calls.owner[at[:-1]] == owner) & (calls.place[at[1:]] >= told[owner]))
    start, end = at[legs], at[legs + 1]
    owner = calls.owner[start]
    step_x, step_y = east[end] - east[start], north[end] - north[start]
    square = np.maximum(step_x**2 + step_y**2, 1e-9)
    along = np.clip(-(step_x * east[start] + step_y * north[start]) / square, 0, 1)
    away = np.hypot(east[start] + along * step_x, north[start] + along * step_y)
    begin = calls.departure[start]
    late = now[owner] - (begin + along * (calls.arrival[end] - begin))
    leaves = np.hypot(east[start], north[start]) <= AT_STOP_METRES_MAX
    waits = leaves & (calls.place[start] == 0) & (late < 0)  # it has not left yet
    late = np.where(waits, 0, late)
    best = _least((away / AWAY_METRES) ** 2 + (late / LATE_SECONDS) ** 2, owner, len(vehicles))
    fits = best >= 0
    if not len(legs):
        return np.zeros(len(now), np.int64), np.zeros(len(now), np.int64), fits
    fits &= away[best] <= AWAY_METRES_MAX + AWAY_SHARE_MAX * np.sqrt(square[best])
    ahead = calls.place[np.where(waits, start, end)[best]]
    return ahead, np.rint(late[best]).astype(np.int64), fits


def _least(values: Float64, owner: Int64, count: int) -> Int64:
    """Where the least value of each owner stands, -1 for who has none; owners ascend."""
    found = np.full(count, -1, np.int64)
    if len(values):
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        least = np.minimum.reduceat(values, starts)
        at = np.flatnonzero(values == np.repeat(least, np.diff(starts, append=len(values))))
        found[owner[at[::-1]]] = at[::-1]
    return found


def _told(timetable: Timetable, calls: _Calls, vehicles: Sequence[Vehicle]) -> Int64:
    """The place in its trip of the stop that each vehicle names; -1 where it names none of it."""
    named = [each.document.get("currentStopSequence") for each in vehicles]
    asked = np.array(
        [each if isinstance(each, int) and 0 <= each < 2**31 else -1 for each in named], np.int64
    )
    sequence = timetable.stop_times.sequence[calls.at]
    (at,) = np.nonzero(sequence == asked[calls.owner])
    place = np.full(len(vehicles), -1, np.int64)
    place[calls.owner[at]] = calls.place[at]
    return place


def _shifted(calls: _Calls, ahead: Int64, late: Int64, now: Int64) -> tuple[Int32, Int32]:
    """Arrivals and departures with each trip's delay: none goes backwards, the past is past."""
    past = calls.place < ahead[calls.owner]
    behind = late[calls.owner]
    columns = []
    for planned in (calls.arrival, calls.departure):
        gone = np.minimum(planned + behind, now[calls.owner])
        columns.append(np.where(past, gone, planned + np.maximum(behind, 0)))
    early = (calls.place == ahead[calls.owner]) & (behind < 0)
    columns[0][early] += behind[early]
    times = np.stack(columns, axis=1)
    untimed = np.stack([calls.arrival, calls.departure], axis=1) == UNTIMED
    times[untimed] = -(2**33)
    base = (calls.owner * APART)[:, None]
    times = np.maximum.accumulate((times + base).reshape(-1)).reshape(-1, 2) - base
    times[untimed] = UNTIMED
    arrival, departure = np.clip(times, UNTIMED, 2**31 - 1).astype(np.int32).T
    return np.ascontiguousarray(arrival), np.ascontiguousarray(departure)
