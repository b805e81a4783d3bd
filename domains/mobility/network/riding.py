"""Rides without a change between two stops, one a route and order of stops; pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from domains.mobility.network.departures import below
from domains.mobility.network.fares import Ride
from domains.mobility.network.load import Network

NO_DROP_OFF = 1


def rides_between(
    network: Network,
    at: datetime,
    from_stops: Sequence[int],
    to_stops: Sequence[int],
    routes: frozenset[int] | None = None,
) -> Iterator[Ride]:
    """Of the versions in force at a moment; a station stands for its platforms."""
    timetable, index = network.timetable, network.index
    times, trips = timetable.stop_times, timetable.trips
    shown = network.shown(at)
    ends = [each for stop in to_stops for each in below(index, stop)]
    alight = np.flatnonzero(np.isin(times.stop, ends) & (times.drop_off != NO_DROP_OFF))
    by_trip: dict[int, list[int]] = {}
    for trip, time in zip(index.trip[alight].tolist(), alight.tolist(), strict=True):
        by_trip.setdefault(trip, []).append(time)
    seen = set()
    for stop in dict.fromkeys(each for given in from_stops for each in below(index, given)):
        boards = index.times[index.offsets[stop] : index.offsets[stop + 1]]
        for time, trip in zip(boards.tolist(), index.trip[boards].tolist(), strict=True):
            if not shown[trips.version[trip]]:
                continue
            if routes is not None and int(trips.route[trip]) not in routes:
                continue
            for end in by_trip.get(trip, ()):
                if end <= time:
                    continue
                called = times.stop[time : end + 1]
                key = (int(trips.route[trip]), called.tobytes())
                if key not in seen:
                    seen.add(key)
                    departure, arrival = int(times.departure[time]), int(times.arrival[end])
                    yield Ride(key[0], called.tolist(), departure, arrival)
