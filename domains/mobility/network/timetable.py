"""The timetables that one caller may read, as arrays; all numbers are of this object alone.

A GTFS id is unique in its feed only, so what leaves is `feed:id` (see `Ids`). Times of a service
day are seconds since noon less 12 h in the agency's timezone (GTFS, "Time"): 25:10:00 is 90,600.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int8 = NDArray[np.int8]
Float64 = NDArray[np.float64]

UNTIMED = -1
"""An arrival or departure that the feed does not give and that could not be interpolated."""
NONE = -1
"""No stop, trip, route: where an index would stand."""


@dataclass(frozen=True, slots=True)
class Ids:
    """`feed:id` of each number, and back.

    Versions of one feed share ids: `numbers` has that of the newest, and `all_of` has them all.
    """

    texts: tuple[str, ...]
    numbers: dict[str, int]
    shared: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The numbers, oldest version first, of each id that more than one version has."""

    def all_of(self, text: str) -> tuple[int, ...]:
        """Every number of an id, oldest version first; none where it is unknown."""
        if text in self.shared:
            return self.shared[text]
        return (self.numbers[text],) if text in self.numbers else ()


@dataclass(frozen=True, slots=True)
class Stops:
    """n stops, platforms and stations; NaN for a place that the feed does not give."""

    ids: Ids
    names: tuple[str, ...]
    codes: tuple[str | None, ...]
    platforms: tuple[str | None, ...]
    zones: tuple[str | None, ...]
    longitude: Float64
    latitude: Float64
    location_type: Int8
    parent: Int32
    """Number of the station, or NONE."""
    wheelchair: Int8
    """GTFS wheelchair_boarding, with what a station gives to its platforms: 0, 1 yes, 2 no."""
    version: Int32
    """Index into `Timetable.versions`."""


@dataclass(frozen=True, slots=True)
class Routes:
    """n routes."""

    ids: Ids
    agency: tuple[str | None, ...]
    short_names: tuple[str | None, ...]
    long_names: tuple[str | None, ...]
    colours: tuple[str | None, ...]
    type: NDArray[np.int16]
    version: Int32


@dataclass(frozen=True, slots=True)
class Trips:
    """n trips; stop times of trip t are `offsets[t]:offsets[t + 1]` of StopTimes.

    A trip of frequencies.txt is expanded: each departure is a trip of its own, whose id ends in
    `@HH:MM:SS`.
    """

    ids: Ids
    headsigns: tuple[str | None, ...]
    short_names: tuple[str | None, ...]
    blocks: tuple[str | None, ...]
    route: Int32
    service: Int32
    direction: Int8
    """0, 1, or NONE."""
    wheelchair: Int8
    shape: Int32
    """Number of the shape within its version, or NONE."""
    version: Int32
    offsets: Int32
    """n + 1."""


@dataclass(frozen=True, slots=True)
class StopTimes:
    """All stop times, trip by trip, in order of stop_sequence.

    Untimed stops between timed ones are interpolated (by distance, else evenly); what is before
    the first or after the last timed one is UNTIMED.
    """

    stop: Int32
    sequence: Int32
    arrival: Int32
    departure: Int32
    pickup: Int8
    drop_off: Int8
    headsign: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """Index into `Timetable.headsigns`, or NONE: the trip's own. May be empty: no stop has one."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """transfers.txt between stops of one version (rules by route or trip are not here)."""

    from_stop: Int32
    to_stop: Int32
    type: Int8
    seconds_min: Int32
    """0 where none is given."""


@dataclass(frozen=True, slots=True)
class Fares:
    """fare_attributes.txt and fare_rules.txt (GTFS-Fares V1); NONE is a field that was empty.

    Zones are numbered for all versions together; `stop_zone` has one a stop.
    """

    ids: Ids = field(default_factory=lambda: Ids((), {}))
    price: tuple[Decimal, ...] = ()
    currency: tuple[str, ...] = ()
    """ISO 4217."""
    agency: tuple[str | None, ...] = ()
    payment_method: tuple[int, ...] = ()
    """0 paid on board, 1 before boarding."""
    transfers: tuple[int | None, ...] = ()
    """How often one may change; None: without limit."""
    transfer_seconds: tuple[int | None, ...] = ()
    version: tuple[int, ...] = ()
    zones: tuple[str, ...] = ()
    stop_zone: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rule_fare: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rule_route: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rule_origin: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rule_destination: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rule_contains: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True)
class Version:
    """One feed_version, and the bounds of its own numbers in the arrays above."""

    id: int
    feed: str
    timezone: str
    language: str | None
    valid_from: date | None
    valid_to: date | None


@dataclass(frozen=True, slots=True)
class Services:
    """When each service runs: a row of `runs` a service, a column a day from `first_day` on."""

    first_day: date
    runs: NDArray[np.bool_]
    """Already without the days on which a newer version of the same feed is in force."""

    def on(self, day: date) -> NDArray[np.bool_]:
        """Which services run on a service day."""
        column = (day - self.first_day).days
        if not 0 <= column < self.runs.shape[1]:
            return np.zeros(self.runs.shape[0], np.bool_)
        return self.runs[:, column]


@dataclass(frozen=True, slots=True)
class Timetable:
    """Everything of the versions that one caller may read; immutable, shared by requests."""

    versions: tuple[Version, ...]
    stops: Stops
    routes: Routes
    services: Services
    trips: Trips
    stop_times: StopTimes
    transfers: Transfers
    headsigns: tuple[str, ...] = ()
    """What `StopTimes.headsign` points into."""
    fares: Fares = field(default_factory=Fares)
