"""Vehicles and trips as one answers them, and which of them somebody asks for. Pure."""

from datetime import datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from domains.mobility.network.modes import mode_of
from domains.mobility.network.timetable import NONE, UNTIMED, Timetable, Version
from domains.mobility.realtime import geohash
from domains.mobility.realtime.board import Now
from domains.mobility.realtime.geohash import Box
from domains.mobility.realtime.overlay import TripDay, TripState, Vehicle
from domains.mobility.realtime.publish import POSITION_AGE_MAX, day_start, stop_row

Row = dict[str, Any]


class Topics(NamedTuple):
    """What somebody asks for; None asks for all."""

    feed: str | None = None
    route: str | None = None
    """`feed:route_id`."""
    mode: str | None = None
    geohash: Box | None = None
    bbox: Box | None = None
    """west, south, east, north; west > east crosses the antimeridian."""

    def is_of_route(self, timetable: Timetable, route: int) -> bool:
        """Whether a route (its number, or NONE) is asked for."""
        if self.route is None and self.mode is None:
            return True
        if route == NONE:
            return False
        same = self.route is None or timetable.routes.ids.texts[route] == self.route
        return same and (
            self.mode is None or mode_of(int(timetable.routes.type[route])) == self.mode
        )

    def is_there(self, longitude: float, latitude: float) -> bool:
        """Whether a place is asked for."""
        if self.geohash is not None and not geohash.is_in(self.geohash, longitude, latitude):
            return False
        if self.bbox is None:
            return True
        west, south, east, north = self.bbox
        if not south <= latitude <= north:
            return False
        if west <= east:
            return west <= longitude <= east
        return longitude >= west or longitude <= east

    @property
    def is_somewhere(self) -> bool:
        """Whether places matter."""
        return self.geohash is not None or self.bbox is not None

    def take(self, seen: Now, vehicle: Vehicle) -> bool:
        """Whether a vehicle is asked for."""
        if self.feed is not None and feed_of(seen, vehicle) != self.feed:
            return False
        return self.is_of_route(seen.timetable, vehicle.route) and self.is_there(
            vehicle.longitude, vehicle.latitude
        )


def feed_of(seen: Now, vehicle: Vehicle) -> str:
    """The static feed of a vehicle."""
    if vehicle.trip is not None:
        return version_of(seen.timetable, vehicle.trip[0]).feed
    return seen.static_feed(vehicle.id)


def version_of(timetable: Timetable, trip: int) -> Version:
    """The version that has a trip."""
    return timetable.versions[int(timetable.trips.version[trip])]


def current(seen: Now) -> list[Vehicle]:
    """Those that were heard within POSITION_AGE_MAX, and are somewhere."""
    earliest = seen.overlay.at - POSITION_AGE_MAX
    return [
        each
        for each in seen.overlay.vehicles
        if each.time >= earliest and isfinite(each.longitude) and isfinite(each.latitude)
    ]


def vehicle_row(seen: Now, vehicle: Vehicle) -> Row:
    """One vehicle; names of states are those of GTFS-Realtime, times have the agency's offset."""
    table, document = seen.timetable, vehicle.document
    told = document.get("vehicle")
    told = told if isinstance(told, dict) else {}
    ahead = next_stop(seen, vehicle)
    return {
        "id": vehicle.id,
        "feed": feed_of(seen, vehicle),
        "label": _text(told.get("label")),
        "mode": None if vehicle.route == NONE else mode_of(int(table.routes.type[vehicle.route])),
        "route": route_row(table, vehicle.route),
        "trip": None if vehicle.trip is None else trip_row(table, vehicle.trip),
        "longitude": vehicle.longitude,
        "latitude": vehicle.latitude,
        "speed": _finite(vehicle.speed),
        "course": _finite(vehicle.course),
        "time": vehicle.time,
        "age_seconds": max(0, round((seen.overlay.at - vehicle.time) / timedelta(seconds=1))),
        "delay_seconds": None if ahead is None else ahead.pop("delay_seconds"),
        "next_stop": ahead,
        "status": _text(document.get("currentStatus")),
        "occupancy": _text(document.get("occupancyStatus")),
    }


def trip_update_row(seen: Now, day: TripDay, state: TripState) -> Row:
    """What is known of one trip on one service day."""
    trip = day[0]
    ahead = None if state.cancelled else _ahead(seen, day, state)
    return {
        "trip": trip_row(seen.timetable, day),
        "feed": version_of(seen.timetable, trip).feed,
        "route": route_row(seen.timetable, int(seen.timetable.trips.route[trip])),
        "cancelled": state.cancelled,
        "predicted": state.predicted,
        "time": state.time,
        "delay_seconds": None if ahead is None else ahead.pop("delay_seconds"),
        "next_stop": ahead,
    }


def route_row(timetable: Timetable, route: int) -> Row | None:
    """A route's id and names."""
    if route == NONE:
        return None
    routes = timetable.routes
    return {
        "id": routes.ids.texts[route],
        "short_name": routes.short_names[route],
        "long_name": routes.long_names[route],
    }


def trip_row(timetable: Timetable, day: TripDay) -> Row:
    """A trip's id, on which service day, and where it goes."""
    return {
        "id": timetable.trips.ids.texts[day[0]],
        "service_day": day[1],
        "headsign": timetable.trips.headsigns[day[0]],
    }


def next_stop(seen: Now, vehicle: Vehicle) -> Row | None:
    """Where a vehicle goes: by what is predicted for its trip, else by its own word."""
    if vehicle.trip is None:
        return None
    state = seen.overlay.trips.get(vehicle.trip)
    if state is not None and not state.cancelled:
        return _ahead(seen, vehicle.trip, state)
    trip, day = vehicle.trip
    version = version_of(seen.timetable, trip)
    row = stop_row(seen.timetable, trip, vehicle.document, version.feed)
    return None if row is None else _stop(seen.timetable, row, day, version.timezone, UNTIMED)


def _ahead(seen: Now, day: TripDay, state: TripState) -> Row | None:
    """The first stop that the trip has not left, with how late it is there; None after the last."""
    version = version_of(seen.timetable, day[0])
    moment = seen.overlay.at.timestamp() - day_start(version.timezone, day[1])
    stops = np.flatnonzero((state.departure >= moment) & ~state.skipped)
    if not len(stops):
        return None
    at = int(stops[0])
    row = int(seen.timetable.trips.offsets[day[0]]) + at
    return _stop(seen.timetable, row, day[1], version.timezone, int(state.arrival[at]))


def _stop(timetable: Timetable, row: int, day: Any, timezone: str, expected: int) -> Row:
    stop = int(timetable.stop_times.stop[row])
    planned = int(timetable.stop_times.arrival[row])
    base, zone = day_start(timezone, day), ZoneInfo(timezone)

    def moment(seconds: int) -> datetime | None:
        return None if seconds == UNTIMED else datetime.fromtimestamp(base + seconds, zone)

    known = UNTIMED not in (planned, expected)
    return {
        "id": timetable.stops.ids.texts[stop],
        "name": timetable.stops.names[stop],
        "sequence": int(timetable.stop_times.sequence[row]),
        "scheduled": _iso(moment(planned)),
        "expected": _iso(moment(expected)),
        "delay_seconds": expected - planned if known else None,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
