"""The service days that a search needs, and what real time changes in each of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from threading import Lock

import numpy as np

from domains.mobility.network import patterns
from domains.mobility.network.calendar import day_start
from domains.mobility.network.patterns import Bool, Calls, Int64, Run, Table
from domains.mobility.network.timetable import NONE, UNTIMED, Timetable
from domains.mobility.realtime.overlay import Closure, Overlay, TripState

DAY_SECONDS = 86400
TABLES_MAX = 8
"""Days kept laid out, those that run the same trips counted once; the oldest leaves first."""
DAYS_LAID_MAX = 12
"""Service days kept with what real time last made of them."""


def base_of(day: date) -> int:
    """What the times of a day's Table count from, early enough for every timezone and delay."""
    return int(datetime.combine(day, time(0), UTC).timestamp()) - DAY_SECONDS


@dataclass(frozen=True)
class Sheet:
    """Trips of one service day; `gone` says which slots of the table do not run as it says."""

    day: date
    base: int
    table: Table
    gone: Bool | None

    @cached_property
    def first(self) -> int:
        """The earliest departure, in epoch seconds."""
        return self.base + self.table.first

    @cached_property
    def last(self) -> int:
        """The latest arrival, in epoch seconds."""
        return self.base + self.table.last


class Days:
    """What is laid out once for a Timetable; safe to share between threads."""

    def __init__(self, timetable: Timetable) -> None:
        self.timetable = timetable
        self.calls: Calls = patterns.calls_of(timetable)
        self._tables: dict[tuple[bytes, bytes], Table] = {}
        self._laid: dict[date, _Laid] = {}
        self._late: tuple[Overlay, int] | None = None
        self._lock = Lock()

    def sheets(self, begin: int, end: int, overlay: Overlay) -> list[Sheet]:
        """The service days with a trip that leaves before `end` and ends after `begin`."""
        zones = {version.timezone for version in self.timetable.versions}
        found: list[Sheet] = []
        longest = max(self.calls.seconds_max, self._latest(overlay))
        first = datetime.fromtimestamp(begin - longest, UTC).date() - timedelta(days=1)
        last = datetime.fromtimestamp(end, UTC).date() + timedelta(days=1)
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            begins = [day_start(zone, day) for zone in zones]
            if begins and max(begins) + longest >= begin and min(begins) - DAY_SECONDS < end:
                found += self.sheets_of(day, overlay)
        return [each for each in found if each.first < end and each.last >= begin]

    def _latest(self, overlay: Overlay) -> int:
        """The latest time of a service day that an overlay predicts."""
        kept = self._late
        if kept is None or kept[0] is not overlay:
            # Predicted times never go backwards: the last one is the latest.
            predicted = (
                int(max(each.departure[-1:], default=0)) for each in overlay.trips.values()
            )
            kept = self._late = (overlay, min(max(predicted, default=0), patterns.SECONDS_MAX))
        return kept[1]

    def sheets_of(self, day: date, overlay: Overlay) -> tuple[Sheet, ...]:
        """One service day: as planned, and what real time makes of some of its trips."""
        with self._lock:
            laid = self._laid.pop(day, None)
            if laid is None or laid.overlay is not overlay:
                laid = self._lay(day, overlay, laid)
            self._laid[day] = laid
            while len(self._laid) > DAYS_LAID_MAX:
                del self._laid[next(iter(self._laid))]
            return laid.sheets

    def _lay(self, day: date, overlay: Overlay, before: "_Laid | None") -> "_Laid":
        """A day under an overlay; what did not change since the one before is not done again."""
        states = {trip: state for (trip, on), state in overlay.trips.items() if on == day}
        old: Mapping[int, TripState] = {} if before is None else before.states
        if before is not None and before.closures == overlay.closures and _same(states, old):
            return replace(before, overlay=overlay)
        runs = self.timetable.services.on(day)[self.timetable.trips.service]
        runs &= self.calls.group >= 0
        shift, base = self._shift(day), base_of(day)
        table = self._table(runs, shift)
        changes = Changes(self, day, table, shift)
        predicted = {
            trip: before.predicted[trip]
            if before is not None and old.get(trip) is state
            else changes.predicted(trip, state)
            for trip, state in states.items()
            if runs[trip]
        }
        changed = dict(predicted)
        for closure in overlay.closures:
            changes.close(closure, changed)
        sheets: tuple[Sheet, ...] = (Sheet(day, base, table, None),)
        if changed:
            out = np.zeros(len(runs), np.bool_)
            out[list(changed)] = True
            running = [run for run in changed.values() if run is not None]
            own = [int(shift[self.timetable.trips.version[run.trip]]) for run in running]
            other = patterns.table_of_runs(running, own)
            sheets = Sheet(day, base, table, out[table.trips]), Sheet(day, base, other, None)
        return _Laid(overlay, states, overlay.closures, predicted, sheets)

    def _shift(self, day: date) -> Int64:
        zones = [version.timezone for version in self.timetable.versions]
        return np.array([day_start(zone, day) - base_of(day) for zone in zones], np.int64)

    def _table(self, runs: Bool, shift: Int64) -> Table:
        """The day's trips as planned; days that run the same ones share what is laid out."""
        key = (np.packbits(runs).tobytes(), shift.tobytes())
        table = self._tables.pop(key, None)
        if table is None:
            trips = np.flatnonzero(runs).astype(np.int64)
            table = patterns.table_of_day(self.timetable, self.calls, trips, shift)
        self._tables[key] = table
        while len(self._tables) > TABLES_MAX:
            del self._tables[next(iter(self._tables))]
        return table


@dataclass(frozen=True, slots=True)
class _Laid:
    """A day as it was laid out last, and of what."""

    overlay: Overlay
    states: Mapping[int, TripState]
    closures: tuple[Closure, ...]
    predicted: Mapping[int, Run | None]
    sheets: tuple[Sheet, ...]


def _same(states: Mapping[int, TripState], others: Mapping[int, TripState]) -> bool:
    """Whether these are the very same states."""
    same = all(others.get(trip) is state for trip, state in states.items())
    return same and len(states) == len(others)


@dataclass(frozen=True)
class Changes:
    """What real time makes of the trips of one service day."""

    days: Days
    day: date
    table: Table
    shift: Int64

    def _run(self, trip: int) -> Run:
        offsets, calls = self.days.timetable.trips.offsets, self.days.calls
        part = slice(int(offsets[trip]), int(offsets[trip + 1]))
        return Run(trip, calls.codes[part], calls.arrival[part], calls.departure[part])

    def predicted(self, trip: int, state: TripState) -> Run | None:
        """A trip at its predicted times; None if it does not run, or not as this timetable says."""
        run = self._run(trip)
        if state.cancelled or len(state.arrival) != len(run.codes) or len(run.codes) < 2:  # noqa: PLR2004 (one call is no ride)
            return None
        arrival, departure = state.arrival.astype(np.int64), state.departure.astype(np.int64)
        arrival = np.where(arrival == UNTIMED, departure, arrival)
        departure = np.where(departure == UNTIMED, arrival, departure)
        timed = arrival != UNTIMED
        if not timed.any():
            return None
        patterns.filled(arrival, departure, timed)
        both = np.maximum.accumulate(np.stack((arrival, departure), axis=1).ravel())
        if both[0] < -DAY_SECONDS // 4 or both[-1] > patterns.SECONDS_MAX:
            return None
        closed = state.skipped | ~timed
        codes = np.where(closed, run.codes & ~(patterns.BOARD | patterns.ALIGHT), run.codes)
        return Run(trip, codes, both[0::2].copy(), both[1::2].copy())

    def close(self, closure: Closure, changed: dict[int, Run | None]) -> None:
        """Take a closure out of the runs of the day."""
        begin, end = _epoch(closure.start, -(1 << 60)), _epoch(closure.end, 1 << 60)
        stops = _with_platforms(self.days.timetable, closure.stops)
        for trip in self._touched(closure, stops):
            run = changed[trip] if trip in changed else self._run(trip)
            if run is None:
                continue
            zero = base_of(self.day) + int(self.shift[self.days.timetable.trips.version[trip]])
            during = (run.departure + zero >= begin) & (run.arrival + zero < end)
            if self._stands_still(trip, closure):
                from_first_to_last = (
                    run.departure[0] + zero < end and run.arrival[-1] + zero >= begin
                )
                if from_first_to_last:
                    changed[trip] = None
                continue
            shut = during & np.isin(run.codes >> 2, stops)
            if shut.any():
                codes = np.where(shut, run.codes & ~(patterns.BOARD | patterns.ALIGHT), run.codes)
                changed[trip] = Run(trip, codes, run.arrival, run.departure)

    def _stands_still(self, trip: int, closure: Closure) -> bool:
        return trip in closure.trips or int(self.days.timetable.trips.route[trip]) in closure.routes

    def _touched(self, closure: Closure, stops: Sequence[int]) -> set[int]:
        """Trips of the day that may be of a closure's concern."""
        trips = self.days.timetable.trips
        found = set(closure.trips) & set(self.table.trips.tolist()) if closure.trips else set()
        if closure.routes:
            routes = np.isin(trips.route[self.table.trips], list(closure.routes))
            found |= set(self.table.trips[routes].tolist())
        for stop in stops:
            for position in self.table.positions(stop):
                slot = int(self.table.slot[position])
                found.update(
                    self.table.trips[slot : slot + int(self.table.count[position])].tolist()
                )
        return found


def _epoch(moment: datetime | None, otherwise: int) -> int:
    return otherwise if moment is None else int(moment.timestamp())


def _with_platforms(timetable: Timetable, stops: Iterable[int]) -> list[int]:
    """Stops, and the platforms of those that are stations."""
    named = list(stops)
    if not named:
        return []
    parent = timetable.stops.parent
    inside = np.flatnonzero((parent != NONE) & np.isin(parent, named))
    return sorted({*named, *inside.tolist()})
