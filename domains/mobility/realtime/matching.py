"""Which trip of a timetable a GTFS-Realtime entity tells of: by its id, or by what it does; pure.

In this order: trip_id (with start_date, and start_time for a trip of frequencies.txt); route_id,
direction_id and start_time; where its vehicle is at what time (`Finder.guess`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.calendar import day_start, zone
from domains.mobility.network.timetable import NONE, UNTIMED, Ids, Int32, Timetable
from domains.mobility.realtime.overlay import TripDay
from domains.mobility.realtime.places import Places

APART_SECONDS_MAX = 6 * 3600
"""Where no day is told: as far may a trip be from the time at which it is told of."""
HEADWAY_SECONDS_MAX = 900
"""A trip of frequencies.txt, whose times are not exact, is the nearest within these."""
DAYS = (0, -1, 1)
LATE_SECONDS_MAX, EARLY_SECONDS_MAX = 1_200, 180
AWAY_METRES_MAX = 150.0
LATE_SECONDS, EARLY_SECONDS, AWAY_METRES = 300.0, 90.0, 50.0
"""What is usual: scales of a guess's likelihood."""
CONFIDENCE_MIN = 0.7
"""Below, another trip is not unlikely enough."""
TURN_DEGREES_MAX = 90.0
GUESSED_AT_ONCE_MAX = 500
"""Vehicles of one turn: more wait for the next."""
LOOKED_AT_MAX = 200_000
"""Legs of one turn."""


def seconds_of(text: str) -> int | None:
    """HH:MM:SS as seconds of the service day; None for what is none."""
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):  # noqa: PLR2004
        return None
    hours, minutes, seconds = map(int, parts)
    return hours * 3600 + minutes * 60 + seconds


def day_of(text: str) -> date | None:
    """YYYYMMDD; None for what is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A vehicle that tells no trip: degrees, seconds since 1970; `course` NaN where unknown."""

    longitude: float
    latitude: float
    time: float
    course: float
    route: str | None = None
    """`feed:route_id`, where it is told."""


class Finder:
    """What of a timetable trips are looked up by; made once a timetable."""

    def __init__(self, timetable: Timetable) -> None:
        self.timetable = timetable
        self._starts = _starts(timetable.trips.ids)
        self.first, self.last = spans(timetable)
        self._order = np.argsort(timetable.trips.route, kind="stable")
        self._sorted = timetable.trips.route[self._order]
        self._places: dict[tuple[str, int], Places] = {}

    def trips_of(self, text: str) -> Sequence[int]:
        """Numbers of a `feed:trip_id`, one a version that has it."""
        return self.timetable.trips.ids.all_of(text)

    def routes_of(self, text: str) -> Sequence[int]:
        """Numbers of a `feed:route_id`, one a version that has it."""
        return self.timetable.routes.ids.all_of(text)

    def trips_on(self, routes: Sequence[int], direction: int = NONE) -> Int32:
        """Trips of routes, in one direction where one is given."""
        parts = [self._order[slice(*np.searchsorted(self._sorted, (r, r + 1)))] for r in routes]
        trips = np.concatenate([*parts, np.zeros(0, self._order.dtype)])
        if direction != NONE:
            trips = trips[self.timetable.trips.direction[trips] == direction]
        return trips.astype(np.int32)

    def timezone(self, trip: int) -> str:
        """Of the version that has the trip."""
        zone: str = self.timetable.versions[self.timetable.trips.version[trip]].timezone
        return zone

    def find(self, told: Mapping[str, Any], feed: str, at: float) -> TripDay | None:
        """The trip of a TripDescriptor in its JSON form; `at` is when it runs, s since 1970."""
        start = seconds_of(told.get("startTime", ""))
        if "tripId" in told:
            text = f"{feed}:{told['tripId']}"
            found = self.trips_of(text) or self._started(text, start)
        elif "routeId" in told and start is not None:
            trips = self.trips_on(
                self.routes_of(f"{feed}:{told['routeId']}"), told.get("directionId", NONE)
            )
            found = trips[self.first[trips] == start].tolist()
        else:
            return None
        day = day_of(told.get("startDate", ""))
        days = [(n, day) for n in found] if day is not None else self._days(found, at)
        running = [each for each in days if self.runs(*each)]
        if "tripId" not in told and len(running) > 1:
            return None  # of two that leave together neither is meant more
        # A feed may say that a trip runs on a day on which its timetable does not have it, or which
        # is too long past to be kept; then the newest version is meant.
        told_so = days[::-1] if "tripId" in told else []
        return min(running or told_so, key=lambda it: self._apart(it[0], it[1], at), default=None)

    def runs(self, trip: int, day: date) -> bool:
        """Whether the timetable has the trip on a service day."""
        services = self.timetable.services
        column = (day - services.first_day).days
        known = 0 <= column < services.runs.shape[1]
        return known and bool(services.runs[self.timetable.trips.service[trip], column])

    def _started(self, text: str, start: int | None) -> Sequence[int]:
        """The trip of frequencies.txt that leaves then, or nearly then."""
        starts = self._starts.get(text, ())
        if not starts or start is None:
            return ()
        apart, trip = min((abs(at - start), number) for at, number in starts)
        return (trip,) if apart <= HEADWAY_SECONDS_MAX else ()

    def _days(self, trips: Sequence[int], at: float) -> list[TripDay]:
        found = []
        for trip in trips:
            today = datetime.fromtimestamp(at, zone(self.timezone(trip))).date()
            days = [(trip, today + timedelta(days)) for days in DAYS]
            found += [each for each in days if self._apart(*each, at) <= APART_SECONDS_MAX]
        return found

    def _apart(self, trip: int, day: date, at: float) -> float:
        """How far a time is from those between which the trip runs, in seconds."""
        moment = at - day_start(self.timezone(trip), day)
        return max(float(self.first[trip]) - moment, moment - float(self.last[trip]), 0.0)

    # -- what a vehicle does ------------------------------------------------------------------

    def guess(self, feed: str, sightings: Sequence[Sighting]) -> list[tuple[TripDay, float] | None]:
        """The trip that each vehicle seems to run, and how sure that is: 0 to 1.

        A trip is as likely as it is near to the vehicle and to its timetable, and sure where no
        other is nearly as likely. None beyond GUESSED_AT_ONCE_MAX sightings, or LOOKED_AT_MAX legs.
        """
        found: list[tuple[TripDay, float] | None] = [None] * len(sightings)
        chosen = sightings[:GUESSED_AT_ONCE_MAX]
        if not chosen:
            return found
        places = self._places_at(feed, min(each.time for each in chosen))
        left = LOOKED_AT_MAX
        for number, sighting in enumerate(chosen):
            near = places.near(sighting, AWAY_METRES_MAX)
            left -= len(near[0])
            if left < 0:
                break
            found[number] = self._likeliest(sighting, places, *near)
        return found

    def _likeliest(
        self, seen: Sighting, places: Places, legs: Int32, metres: NDArray[np.float64],
        along: NDArray[np.float64],
    ) -> tuple[TripDay, float] | None:  # fmt: skip
        late = seen.time - (places.begin[legs] + along * (places.end[legs] - places.begin[legs]))
        fits = (late <= LATE_SECONDS_MAX) & (late >= -EARLY_SECONDS_MAX)
        turned = np.abs((places.course[legs] - seen.course + 180) % 360 - 180)
        fits &= ~(turned > TURN_DEGREES_MAX)
        trips = self.timetable.trips
        if seen.route is not None:
            routes = np.array(self.routes_of(seen.route), np.int32)
            fits &= np.isin(trips.route[places.trip[legs]], routes)
        if not fits.any():
            return None
        usual = np.where(late < 0, EARLY_SECONDS, LATE_SECONDS)
        unlikely = ((metres / AWAY_METRES) ** 2 + (late / usual) ** 2)[fits]
        likely: dict[TripDay, float] = {}
        for leg, weight in zip(legs[fits].tolist(), np.exp(-unlikely / 2).tolist(), strict=True):
            trip = (int(places.trip[leg]), places.days[places.day[leg]])
            likely[trip] = max(likely.get(trip, 0.0), weight)
        best = max(likely, key=likely.__getitem__)
        confidence = likely[best] / sum(likely.values())
        return (best, confidence) if confidence >= CONFIDENCE_MIN else None

    def _places_at(self, feed: str, at: float) -> Places:
        """Legs that are ridden about now; those of a minute ago are let go."""
        minute = int(at // 60)
        places = self._places.get((feed, minute))
        if places is None:
            self._places.clear()
            within = (minute * 60 - LATE_SECONDS_MAX, minute * 60 + 60 + EARLY_SECONDS_MAX)
            trips = self._legs(feed, minute)
            places = self._places[feed, minute] = Places(self.timetable, trips, within)
        return places

    def _legs(self, feed: str, minute: int) -> list[tuple[int, date, Int32]]:
        """Trips by day and where the day begins, of the versions of this feed."""
        trips, found = self.timetable.trips, []
        for number, version in enumerate(self.timetable.versions):
            if version.feed != feed:
                continue
            today = datetime.fromtimestamp(minute * 60, zone(version.timezone)).date()
            for days in DAYS:
                day = today + timedelta(days)
                begin = day_start(version.timezone, day)
                now = minute * 60 - begin
                running = self.timetable.services.on(day)[trips.service]
                running &= (trips.version == number) & (self.first <= now + 60 + EARLY_SECONDS_MAX)
                running &= self.last >= now - LATE_SECONDS_MAX
                found.append((begin, day, np.flatnonzero(running).astype(np.int32)))
        return found


def spans(timetable: Timetable) -> tuple[Int32, Int32]:
    """First departure and last arrival of each trip, s of the service day; 0 where it has none."""
    times, offsets = timetable.stop_times, timetable.trips.offsets
    first, last = np.zeros(len(offsets) - 1, np.int32), np.zeros(len(offsets) - 1, np.int32)
    some = np.flatnonzero(np.diff(offsets) > 0)
    if len(some):
        departure = np.where(times.departure == UNTIMED, np.iinfo(np.int32).max, times.departure)
        first[some] = np.minimum.reduceat(departure, offsets[some])
        last[some] = np.maximum.reduceat(times.arrival, offsets[some])
    return first, last


def _starts(ids: Ids) -> dict[str, list[tuple[int, int]]]:
    """Departures of trips of frequencies.txt, whose ids end in @HH:MM:SS, by the trip's own id."""
    found: dict[str, list[tuple[int, int]]] = {}
    for number, text in enumerate(ids.texts):
        name, at, start = text.rpartition("@")
        seconds = seconds_of(start) if at else None
        if seconds is not None:
            found.setdefault(name, []).append((seconds, number))
    return found
