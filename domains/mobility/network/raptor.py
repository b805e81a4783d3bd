"""RAPTOR: the best journeys by public transport, round by round (one more ride in each).

Delling, Pajor and Werneck, "Round-Based Public Transit Routing" (ALENEX 2012). Here a round takes
all marked patterns at once: one search finds the trip at each position where one may board, and a
running minimum carries it on, since in a pattern the trip that is earlier stays so. A search for
the latest departure is the same one with time turned round. Times are epoch seconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from threading import Lock

import numpy as np

from domains.mobility.network.days import Days, Sheet
from domains.mobility.network.patterns import BITS, TIME_MAX, Bool, Int64, Table
from domains.mobility.network.timetable import Timetable
from domains.mobility.network.walking import (
    STRAIGHT_LINE,
    Edges,
    Placed,
    Reach,
    Walking,
    changes_of,
)
from domains.mobility.realtime.overlay import Overlay

NEVER = 1 << 60
RIDES_MAX = 9
HORIZON_SECONDS = 86400
"""A journey ends so long after it is asked to begin, or begins so long before its end."""


@dataclass(frozen=True, slots=True)
class Query:
    """From where, to where, and when: `time` is the departure, or the arrival if `arrive_by`."""

    origin: Reach
    destination: Reach
    time: int
    arrive_by: bool = False
    rides_max: int = 5
    horizon_seconds: int = HORIZON_SECONDS
    trips: Bool | None = None
    """Which trips may be used; all if None."""
    stops: Bool | None = None
    """Where one may board and alight; everywhere if None."""
    change_metres_max: float | None = None
    """The furthest walk between two vehicles; no further bound if None."""
    wheelchair: bool = False
    """Whether ways with steps are to be walked round."""


@dataclass(frozen=True, slots=True)
class Ride:
    """A trip of a service day from one of its calls to a later one."""

    trip: int
    day: date
    board: int
    """Number of the call within the trip."""
    alight: int
    from_stop: int
    to_stop: int
    departure: int
    arrival: int


@dataclass(frozen=True, slots=True)
class Option:
    """A journey of at least one ride; walks are the seconds of Query's reaches and of Edges."""

    rides: tuple[Ride, ...]
    departure: int
    """When one leaves the origin, as late as the first ride permits."""
    arrival: int


class Raptor:
    """What is worked out once for a Timetable; safe to share between threads."""

    def __init__(
        self, timetable: Timetable, edges: Edges | None = None, walking: Walking = STRAIGHT_LINE
    ) -> None:
        self.timetable = timetable
        self.walking = walking
        self.days = Days(timetable)
        self._lock = Lock()
        self._made: dict[bool, Edges] = {} if edges is None else {False: edges, True: edges}
        self._placed: dict[bool, Placed] = {}
        self._turned: dict[bool, Edges] = {}
        self.changes()

    @property
    def edges(self) -> Edges:
        """The changes of who can climb steps."""
        return self.changes()

    def placed(self, *, wheelchair: bool = False) -> Placed:
        """All stops, ready to walk to."""
        wheelchair = wheelchair and self.walking is not STRAIGHT_LINE
        if wheelchair not in self._placed:
            stops = self.timetable.stops
            place = self.walking.place(stops.longitude, stops.latitude, wheelchair=wheelchair)
            self._placed[wheelchair] = place
        return self._placed[wheelchair]

    def changes(self, *, wheelchair: bool = False, turned: bool = False) -> Edges:
        """Changes of vehicles, or the same gone from their end; worked out once, when asked for."""
        wheelchair = wheelchair and self.walking is not STRAIGHT_LINE
        with self._lock:
            if wheelchair not in self._made:
                placed = self.placed(wheelchair=wheelchair)
                self._made[wheelchair] = changes_of(self.timetable, self.walking, placed)
            if not turned:
                return self._made[wheelchair]
            if wheelchair not in self._turned:
                self._turned[wheelchair] = self._made[wheelchair].turned()
            return self._turned[wheelchair]

    def options(self, query: Query, overlay: Overlay) -> list[Option]:
        """The earliest arrival (or latest departure) of each number of rides that betters it.

        In order of rides. Nothing of it departs before, or arrives after, what is asked.
        """
        search = self._search(query, overlay)
        search.run(query.rides_max)
        found = []
        best = search.sign * query.time + query.horizon_seconds + 1
        for rides, reached in enumerate(search.goals):
            if reached < best:
                best = reached
                found.append(search.option(rides + 1))
        return found

    def reached(self, query: Query, overlay: Overlay) -> Int64:
        """When each stop is reached by vehicle within the horizon; NEVER where it is not."""
        search = self._search(query, overlay)
        search.run(query.rides_max)
        return search.arrived[-1]

    def _search(self, query: Query, overlay: Overlay) -> "Search":
        end = query.time + query.horizon_seconds
        begin, sign = query.time, 1
        if query.arrive_by:
            begin, end, sign = query.time - query.horizon_seconds, query.time, -1
        sheets = self.days.sheets(begin, end + 1, overlay)
        if query.arrive_by:
            sheets.reverse()
        edges = self.changes(wheelchair=query.wheelchair, turned=query.arrive_by)
        if query.change_metres_max is not None:
            edges = _shorter(edges, query.change_metres_max)
        views = [View.of(sheet, query, sign) for sheet in sheets]
        return Search(self.timetable, views, edges, query, sign)


def _shorter(edges: Edges, metres_max: float) -> Edges:
    """The changes that are not too far on foot."""
    near = edges.metres <= metres_max
    if near.all():
        return edges
    target = edges.target[near]
    begins = np.flatnonzero(np.diff(target, prepend=-1)).astype(np.int64)
    return Edges(
        edges.origin[near], target, edges.seconds[near], edges.metres[near],
        edges.estimated[near], target[begins], begins,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A sheet as one search sees it: its direction of time, and what may be used."""

    sheet: Sheet
    table: Table
    base: int
    sign: int
    following: Int64 | None
    """The next usable slot from each slot on; None where all are."""
    board: Bool
    alight: Bool

    @classmethod
    def of(cls, sheet: Sheet, query: Query, sign: int) -> "View":
        """The sheet in the direction of `sign`, without what the query may not use."""
        table = sheet.table if sign > 0 else sheet.table.mirrored
        base = sheet.base if sign > 0 else -sheet.base - TIME_MAX
        gone = None if sheet.gone is None else (sheet.gone if sign > 0 else sheet.gone[::-1])
        if query.trips is not None:
            unfit = ~query.trips[table.trips]
            gone = unfit if gone is None else gone | unfit
        following = None
        if gone is not None:
            slots = len(table.trips)
            own = np.where(gone, slots, np.arange(slots))
            following = np.append(np.minimum.accumulate(own[::-1])[::-1], slots)
        board, alight = table.board, table.alight
        if query.stops is not None:
            fit = query.stops[table.stop]
            board, alight = board & fit, alight & fit
        return cls(sheet, table, base, sign, following, board, alight)

    def ride(
        self, ready: Int64, marked: Bool, reached: Int64, bound: int
    ) -> tuple[Int64, Int64] | None:
        """Board the first trip at each marked stop and lower `reached` by all that it leads to.

        Only what comes before `bound`. Returns the positions boarded at, and the trips' places.
        """
        table = self.table
        first = self.base + (table.first if self.sign > 0 else TIME_MAX - self.sheet.table.last)
        if first >= bound:
            return None
        position = np.flatnonzero(self.board & marked[table.stop])
        asked = ready[table.stop[position]] - self.base
        position = position[asked <= TIME_MAX]
        asked = np.maximum(asked[asked <= TIME_MAX], 0)
        place = np.searchsorted(table.keys, position << BITS | asked) - table.offset[position]
        if self.following is not None:
            slot = table.slot[position]
            place = self.following[slot + place] - slot
        runs = place < table.count[position]
        position, place = position[runs], place[runs]
        leaves = table.keys[table.offset[position] + place] & TIME_MAX
        soon = leaves + self.base < bound
        position, place = position[soon], place[soon]
        if not len(position):
            return None
        carried = table.level + table.trips_max
        carried[position] = table.level[position] + place
        carried[1:] = np.minimum.accumulate(carried)[:-1]
        carried[0] = table.trips_max
        carried -= table.level
        there = np.flatnonzero((carried < table.count) & self.alight)
        times = table.arrivals[table.offset[there] + carried[there]] + self.base
        stops = table.stop[there]
        better = (times < bound) & (times < reached[stops])
        np.minimum.at(reached, stops[better], times[better])
        return position, place


Boarded = tuple[Int64, Int64] | None


class Search:
    """One search; times are those of the direction of search (negative epoch seconds backwards)."""

    def __init__(
        self, timetable: Timetable, views: Sequence[View], edges: Edges, query: Query, sign: int
    ) -> None:
        self.views, self.edges, self.query, self.sign = views, edges, query, sign
        self.origin, self.goal = query.origin, query.destination
        if query.arrive_by:
            self.origin, self.goal = self.goal, self.origin
        size = len(timetable.stops.parent)
        ready = np.full(size, NEVER, np.int64)
        np.minimum.at(ready, self.origin.stops, sign * query.time + self.origin.seconds)
        self.ready = [ready]
        self.arrived = [np.full(size, NEVER, np.int64)]
        self.boarded: list[list[Boarded]] = []
        self.goals: list[int] = []

    def run(self, rides_max: int) -> None:
        """Round after round until nothing gets better."""
        bound = self.sign * self.query.time + self.query.horizon_seconds + 1
        marked = self.ready[0] < bound
        for _ in range(rides_max):
            reached, boarded = self.arrived[-1].copy(), []
            for view in self.views:
                boarded.append(view.ride(self.ready[-1], marked, reached, bound))
                bound = min(bound, self._goal(reached))
            self.boarded.append(boarded)
            self.goals.append(self._goal(reached))
            self.arrived.append(reached)
            stops, times = self.edges.relaxed(reached)
            ready = self.ready[-1].copy()
            ready[stops] = np.minimum(ready[stops], times)
            marked = (ready < self.ready[-1]) & (ready < bound)
            self.ready.append(ready)
            if not marked.any():
                break

    def _goal(self, reached: Int64) -> int:
        """When the goal is reached by vehicle and a last walk."""
        return int((reached[self.goal.stops] + self.goal.seconds).min(initial=NEVER))

    def option(self, rides: int) -> Option:
        """The journey that reaches the goal first with this many rides (or fewer)."""
        last = int(np.argmin(self.arrived[rides][self.goal.stops] + self.goal.seconds))
        stop = int(self.goal.stops[last])
        parts = self._tightened(list(self._traced(stop, rides))[::-1])
        taken = [self._ride(*part) for part in parts]
        first = min(
            int(seconds)
            for at, seconds in zip(self.origin.stops, self.origin.seconds, strict=True)
            if at == self._stop(parts[0], parts[0][1])
        )
        left = self._time_out(parts[0]) - first
        came = self._time_in(parts[-1]) + int(self.goal.seconds[last])
        if self.sign > 0:
            return Option(tuple(taken), left, came)
        return Option(tuple(taken[::-1]), -came, -left)

    def _traced(self, stop: int, rides: int) -> Iterator["_Part"]:
        """The rides to a stop, the last first."""
        while True:
            came = int(self.arrived[rides][stop])
            while int(self.arrived[rides - 1][stop]) == came:
                rides -= 1
            part = self._part(stop, came, rides)
            yield part
            at = self._stop(part, part[1])
            ready = int(self.ready[rides - 1][at])
            rides -= 1
            while rides and int(self.ready[rides - 1][at]) == ready:
                rides -= 1
            if not rides:
                return
            ways = self.edges.into(at)
            times = self.arrived[rides][self.edges.origin[ways]] + self.edges.seconds[ways]
            stop = int(self.edges.origin[ways][int(np.argmax(times == ready))])

    def _part(self, stop: int, came: int, rides: int) -> "_Part":
        """The ride of this round that came to a stop then."""
        for number, view in enumerate(self.views):
            boarded = self.boarded[rides - 1][number]
            if boarded is None:
                continue
            table, (positions, places) = view.table, boarded
            for position in table.positions(stop):
                if not view.alight[position]:
                    continue
                low, high = np.searchsorted(positions, (_begin(table, position), position))
                if low == high:
                    continue
                place = int(places[low:high].min())
                if table.arrival(position, place) + view.base == came:
                    board = int(positions[low:high][places[low:high] == place][-1])
                    return number, board, position, place
        raise RuntimeError(f"nothing came to stop {stop} in round {rides}")

    def _tightened(self, parts: "list[_Part]") -> "list[_Part]":
        """The same patterns with the latest trips that still reach what comes after them."""
        for number in range(len(parts) - 2, -1, -1):
            after = parts[number + 1]
            view, board, alight, place = parts[number]
            way = self._change(self._stop(parts[number], alight), self._stop(after, after[1]))
            deadline = self._time_out(after) - way
            while (later := self._next(view, alight, place)) is not None:
                table, base = self.views[view].table, self.views[view].base
                if table.arrival(alight, later) + base > deadline:
                    break
                place = later
            parts[number] = view, board, alight, place
        return parts

    def _next(self, number: int, position: int, place: int) -> int | None:
        """The next trip of a pattern that may be used."""
        view = self.views[number]
        slot, later = int(view.table.slot[position]), place + 1
        if view.following is not None:
            later = int(view.following[slot + later]) - slot
        return later if later < int(view.table.count[position]) else None

    def _change(self, origin: int, target: int) -> int:
        ways = self.edges.into(target)
        return int(self.edges.seconds[ways][self.edges.origin[ways] == origin].min())

    def _stop(self, part: "_Part", position: int) -> int:
        return int(self.views[part[0]].table.stop[position])

    def _time_out(self, part: "_Part") -> int:
        view = self.views[part[0]]
        return view.table.departure(part[1], part[3]) + view.base

    def _time_in(self, part: "_Part") -> int:
        view = self.views[part[0]]
        return view.table.arrival(part[2], part[3]) + view.base

    def _ride(self, view: int, board: int, alight: int, place: int) -> Ride:
        """What a part of the search is in the timetable, whichever way time ran."""
        table, day = self.views[view].table, self.views[view].sheet.day
        trip = int(table.trips[int(table.slot[board]) + place])
        times = (
            self._time_out((view, board, alight, place)),
            self._time_in((view, board, alight, place)),
        )
        if self.sign > 0:
            begin = _begin(table, board)
            calls = board - begin, alight - begin
        else:
            end = int(np.searchsorted(table.pattern, table.pattern[board], "right")) - 1
            board, alight = alight, board
            calls, times = (end - board, end - alight), (-times[1], -times[0])
        stops = int(table.stop[board]), int(table.stop[alight])
        return Ride(trip, day, *calls, *stops, *times)


_Part = tuple[int, int, int, int]
"""A ride of a search: which view, positions of boarding and alighting, place of the trip."""


def _begin(table: Table, position: int) -> int:
    """The first position of the pattern of a position."""
    return int(np.searchsorted(table.pattern, table.pattern[position]))
