"""What TripUpdates and alerts change in a timetable, as the GTFS-Realtime reference says; pure.

Messages come in protobuf's JSON form, so 64-bit integers are texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.calendar import day_start
from domains.mobility.network.timetable import UNTIMED, Int32, Timetable
from domains.mobility.realtime.matching import Finder, day_of
from domains.mobility.realtime.overlay import Closure, TripDay, TripState

NOT_RUNNING = frozenset({"CANCELED", "DELETED"})
OF_NO_TIMETABLE = frozenset({"ADDED", "NEW", "DUPLICATED"})
"""Trips beside the timetable's: they are published on, and change none of its trips."""
_NOTHING: Mapping[str, Any] = {}


def trip_state(
    timetable: Timetable, finder: Finder, trip_day: TripDay, update: Mapping[str, Any],
    time: datetime,
) -> TripState:  # fmt: skip
    """Arrivals and departures as a TripUpdate tells them.

    A delay holds from its stop until the next that is told (StopTimeUpdate); NO_DATA ends it;
    a skipped stop carries it on. Stops before the first one told are past: they keep the timetable,
    but never stand after what is told. Nothing goes backwards.
    """
    trip, day = trip_day
    stop_times = slice(timetable.trips.offsets[trip], timetable.trips.offsets[trip + 1])
    arrival = timetable.stop_times.arrival[stop_times].astype(np.int64)
    departure = timetable.stop_times.departure[stop_times].astype(np.int64)
    skipped = np.zeros(len(arrival), np.bool_)
    relation = update.get("trip", _NOTHING).get("scheduleRelationship", "SCHEDULED")
    if relation in NOT_RUNNING:
        return TripState(True, _int32(arrival), _int32(departure), skipped, time)
    times = np.stack([arrival, departure], axis=1)
    told = list(_places(timetable, stop_times, update.get("stopTimeUpdate", ())))
    begin = day_start(finder.timezone(trip), day)
    late: int | None = update.get("delay", 0)
    starts = [place for place, _ in told] + [len(arrival)]
    times[: starts[0]] = _shifted(times[: starts[0]], late)
    for (place, each), until in zip(told, starts[1:], strict=True):
        what = each.get("scheduleRelationship", "SCHEDULED")
        if what == "SKIPPED":
            skipped[place] = True
        elif what == "NO_DATA":
            late = None
        else:
            late = _tell(times[place], each, begin, late)
            times[place + 1 : until] = _shifted(times[place + 1 : until], late)
            continue
        times[place:until] = _shifted(times[place:until], late)
    if relation == "REPLACEMENT":
        skipped[np.setdiff1d(np.arange(len(arrival)), starts[:-1])] = True
    return TripState(False, *ordered(times, starts[0]), skipped, time)


def _tell(times: NDArray[np.int64], told: Mapping[str, Any], begin: int, late: int | None) -> int:
    """Set one stop's arrival and departure; the delay that holds from there on."""
    arrival, departure = told.get("arrival"), told.get("departure")
    planned = times.copy()
    if arrival is not None:
        times[0], late = _event(arrival, int(planned[0]), begin, late)
    elif planned[0] != UNTIMED:
        times[0] += late or 0
    if departure is not None:
        times[1], late = _event(departure, int(planned[1]), begin, late)
        if arrival is None and times[0] > times[1]:
            times[0] = times[1]
    elif planned[1] != UNTIMED:
        times[1] = planned[1] + (late or 0)
    return late or 0


def _event(
    event: Mapping[str, Any], planned: int, begin: int, late: int | None
) -> tuple[int, int | None]:
    """The time of an event, and its delay; a time counts before a delay (StopTimeEvent)."""
    time = int(event.get("time", 0))
    if time:
        moment = time - begin
        return moment, (late if planned == UNTIMED else moment - planned)
    delay = int(event.get("delay", late or 0))
    return (planned if planned == UNTIMED else planned + delay), delay


def _shifted(times: NDArray[np.int64], late: int | None) -> NDArray[np.int64]:
    return np.where(times == UNTIMED, UNTIMED, times + late) if late else times


def ordered(times: NDArray[np.int64], told: int) -> tuple[Int32, Int32]:
    """Arrivals and departures that never go backwards; those before row `told` give way."""
    flat = times.reshape(-1)
    timed = np.flatnonzero(flat != UNTIMED)
    past = timed[timed < 2 * told]
    ahead = timed[timed >= 2 * told]
    flat[ahead] = np.maximum.accumulate(flat[ahead])
    if len(past):
        if len(ahead):
            flat[past] = np.minimum(flat[past], flat[ahead[0]])
        flat[past] = np.minimum.accumulate(flat[past][::-1])[::-1]
    return _int32(times[:, 0]), _int32(times[:, 1])


def _int32(values: NDArray[np.int64]) -> Int32:
    return np.clip(values, UNTIMED, 2**31 - 1).astype(np.int32)


def _places(
    timetable: Timetable, stop_times: slice, updates: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Which stop of the trip each update is about, in order; by its sequence, else by its id."""
    sequence = timetable.stop_times.sequence[stop_times]
    stops, after = timetable.stop_times.stop[stop_times], 0
    feeds = timetable.versions[timetable.stops.version[stops[0]]].feed if len(stops) else ""
    for each in updates:
        place: int | None = None
        if "stopSequence" in each:
            found = int(np.searchsorted(sequence, each["stopSequence"]))
            if found < len(sequence) and sequence[found] == each["stopSequence"]:
                place = found
        elif "stopId" in each:
            text = f"{feeds}:{each['stopId']}"
            names = timetable.stops.ids.texts
            place = next((i for i in range(after, len(stops)) if names[stops[i]] == text), None)
        if place is not None and place >= after:
            after = place + 1
            yield place, each


# --- alerts ---------------------------------------------------------------------------------------


def closures(finder: Finder, name: str, feed: str, alert: Mapping[str, Any]) -> Iterator[Closure]:
    """What an alert with effect NO_SERVICE closes, one a period; nothing for another.

    A selector names all that its fields have in common (EntitySelector): a stop of one route alone
    is not closed for others, so what joins a stop with anything closes nothing.
    """
    if alert.get("effect") != "NO_SERVICE":
        return
    stops: set[int] = set()
    routes: set[int] = set()
    trips: set[int] = set()
    days: list[tuple[int, datetime, datetime]] = []
    for selector in alert.get("informedEntity", ()):
        trip = selector.get("trip")
        if "stopId" in selector:
            if not ({"routeId", "routeType", "trip", "directionId"} & selector.keys()):
                stops |= _stops(finder.timetable, f"{feed}:{selector['stopId']}")
        elif trip is not None:
            trips_told, days_told = _trips(finder, feed, trip)
            trips |= trips_told
            days += days_told
        elif "directionId" in selector:
            named = finder.routes_of(f"{feed}:{selector.get('routeId', '')}")
            trips |= set(finder.trips_on(named, selector["directionId"]).tolist())
        else:
            routes |= _routes(finder, feed, selector)
    sets = (frozenset(stops), frozenset(routes), frozenset(trips))
    for start, end in _periods(alert):
        if any(sets):
            yield Closure(name, start, end, *sets)
        for number, begin, until in days:
            first, last = max(begin, start or begin), min(until, end or until)
            if first < last:
                yield Closure(name, first, last, trips=frozenset({number}))


def _stops(timetable: Timetable, text: str) -> set[int]:
    """A stop, and what belongs to it where it is a station."""
    same = set(timetable.stops.ids.all_of(text))
    within = np.flatnonzero(np.isin(timetable.stops.parent, list(same)))
    return same | set(within.tolist())


def _routes(finder: Finder, feed: str, selector: Mapping[str, Any]) -> set[int]:
    routes = finder.timetable.routes
    if "routeId" in selector:
        return set(finder.routes_of(f"{feed}:{selector['routeId']}"))
    versions = [n for n, each in enumerate(finder.timetable.versions) if each.feed == feed]
    found = np.isin(routes.version, versions)
    if "routeType" in selector:
        found &= routes.type == selector["routeType"]
    if "agencyId" in selector:
        agency = selector["agencyId"]
        names = {agency, f"{feed}:{agency}"}
        found &= np.array([each in names for each in routes.agency], np.bool_)
    elif "routeType" not in selector:
        return set()
    return set(np.flatnonzero(found).tolist())


def _trips(
    finder: Finder, feed: str, trip: Mapping[str, Any]
) -> tuple[set[int], list[tuple[int, datetime, datetime]]]:
    """Trips of every day, or those of one day with the time in which they run."""
    day = day_of(trip.get("startDate", ""))
    if "tripId" in trip and day is None:
        return set(finder.trips_of(f"{feed}:{trip['tripId']}")), []
    if "tripId" not in trip and "startTime" not in trip:
        named = finder.routes_of(f"{feed}:{trip.get('routeId', '')}")
        if "directionId" not in trip:
            return set(finder.trips_on(named).tolist()), []
        return set(finder.trips_on(named, trip["directionId"]).tolist()), []
    found = finder.find(trip, feed, 0.0) if day is not None else None
    if found is None:
        return set(), []
    begin = day_start(finder.timezone(found[0]), found[1])
    # From an hour before it leaves: who waits for it is told, and no other day is meant.
    moments = (finder.first[found[0]] - 3600, finder.last[found[0]] + 3600)
    first, last = (datetime.fromtimestamp(begin + int(each), UTC) for each in moments)
    return set(), [(found[0], first, last)]


def _periods(alert: Mapping[str, Any]) -> Iterator[tuple[datetime | None, datetime | None]]:
    """When an alert holds: always where it does not say."""
    for period in alert.get("impactPeriod") or alert.get("activePeriod") or [_NOTHING]:
        yield _moment(period.get("start")), _moment(period.get("end"))


def _moment(seconds: str | None) -> datetime | None:
    """Seconds since 1970; None for 0 and for what is beyond all calendars."""
    number = int(seconds or 0)
    return datetime.fromtimestamp(number, UTC) if 0 < number < 253_402_300_800 else None  # noqa: PLR2004
