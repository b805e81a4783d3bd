"""What real time changes in a timetable, as departures, journeys and published feeds read it.

Made of one snapshot of the latest GTFS-Realtime entities and one Timetable; immutable. Numbers of
stops, routes and trips are those of that Timetable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

TripDay = tuple[int, date]
"""A trip of the timetable on one service day."""


@dataclass(frozen=True, slots=True)
class TripState:
    """What is known of a trip on a day; arrays are as long as its stop times.

    `arrival` and `departure` are predicted, in seconds of that service day, never going backwards.
    """

    cancelled: bool
    arrival: NDArray[np.int32]
    departure: NDArray[np.int32]
    skipped: NDArray[np.bool_]
    time: datetime
    """When this was so."""
    predicted: bool = False
    """Our own prediction from the vehicle's position; otherwise the feed's word."""


@dataclass(frozen=True, slots=True)
class Closure:
    """An alert with effect NO_SERVICE: what it names is closed from `start` until before `end`.

    A stop is closed for all trips; a route or a trip does not run. Empty sets name nothing.
    """

    alert: str
    start: datetime | None
    end: datetime | None
    stops: frozenset[int] = frozenset()
    routes: frozenset[int] = frozenset()
    trips: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle that was heard within 90 s; `trip` is matched, by its id or by what it does."""

    id: str
    """`feed:vehicle id`."""
    time: datetime
    longitude: float
    latitude: float
    speed: float
    """m/s; NaN where unknown, as the course is."""
    course: float
    trip: TripDay | None
    route: int
    """Number of the route, or -1."""
    document: Mapping[str, Any]
    """The rest of its VehiclePosition, in protobuf's JSON form."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Real time, matched to a timetable."""

    at: datetime
    trips: Mapping[TripDay, TripState] = field(default_factory=dict)
    closures: tuple[Closure, ...] = ()
    vehicles: tuple[Vehicle, ...] = ()
    alerts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Alerts by `feed:alert id`, in protobuf's JSON form, with ids as the feed gave them."""


NOTHING_AT = datetime.min
"""`Overlay(NOTHING_AT)` is the timetable as it was planned."""
